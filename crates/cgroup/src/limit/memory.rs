//! Memory, swap, reservation, swappiness and the out-of-memory killer.
//!
//! v1 holds memory and memory+swap, and refuses any moment at which memory exceeds memory+swap: raising starts with
//! memory+swap, lowering with memory. v2 holds memory and swap apart, so memory+swap is converted.

use std::path::Path;

use spec::runtime::Memory;

use super::check::limits_memory;
use super::{same_bytes, same_number};
use crate::error::{CgroupError, Result};
use crate::file::{self, EBUSY};
use crate::group::Cgroup;
use crate::hierarchy::Version;

impl Cgroup {
    pub(super) fn apply_memory(&self, memory: &Memory) -> Result<()> {
        if memory.kernel.or(memory.kernel_tcp).is_some_and(|limit| limit > 0) {
            // The specification lets a runtime ignore them, and configurations of the field still have them.
            tracing::warn!(
                "limits of kernel memory are ignored: Linux 5.15 and newer have none of their own"
            );
        }
        let is_there = || match self.version() {
            Version::V2 => self.v2_for("memory", "memory limit").is_ok(),
            Version::V1 | Version::Hybrid => self.v1("memory").is_some(),
        };
        if *memory == Memory::default() || (!limits_memory(memory) && !is_there()) {
            return Ok(());
        }
        match self.version() {
            Version::V2 => self.memory_v2(memory),
            Version::V1 | Version::Hybrid => self.memory_v1(memory),
        }
    }

    fn memory_v1(&self, memory: &Memory) -> Result<()> {
        let directory = self.v1_for("memory", "memory limit")?;
        let limit_file = directory.join("memory.limit_in_bytes");
        let swap_file = directory.join("memory.memsw.limit_in_bytes");
        let limit = memory.limit.filter(|value| *value != 0);
        // Unlimited memory with a limited sum makes no sense; without a word on swap, unlimited means both.
        let swap = memory
            .swap
            .filter(|value| *value != 0)
            .or_else(|| (limit == Some(-1) && swap_file.exists()).then_some(-1));
        if let Some(limit) = limit {
            check_usage(
                memory,
                limit,
                &directory,
                "memory.usage_in_bytes",
                "memory.max_usage_in_bytes",
            )?;
        }
        match (limit, swap) {
            (Some(limit), Some(swap)) => {
                let current = file::parse_limit(&file::read(&limit_file)?);
                let raises = swap < 0 || current.is_some_and(|current| current < swap.unsigned_abs());
                if raises {
                    set_v1(&swap_file, swap, "memory swap limit", &directory)?;
                    set_v1(&limit_file, limit, "memory limit", &directory)?;
                } else {
                    set_v1(&limit_file, limit, "memory limit", &directory)?;
                    set_v1(&swap_file, swap, "memory swap limit", &directory)?;
                }
            }
            (Some(limit), None) => set_v1(&limit_file, limit, "memory limit", &directory)?,
            (None, Some(swap)) => set_v1(&swap_file, swap, "memory swap limit", &directory)?,
            (None, None) => {}
        }
        if let Some(reservation) = memory.reservation.filter(|value| *value != 0) {
            let path = directory.join("memory.soft_limit_in_bytes");
            file::write_checked(
                &path,
                &reservation_text(reservation, "-1"),
                "memory reservation",
                |wrote, found| wrote == "-1" || same_bytes(wrote, found),
            )?;
        }
        if let Some(swappiness) = memory.swappiness {
            if swappiness > 100 {
                return Err(CgroupError::Invalid(format!(
                    "invalid memory swappiness {swappiness}: the range is 0 to 100"
                )));
            }
            let path = directory.join("memory.swappiness");
            file::write_checked(&path, &swappiness.to_string(), "memory swappiness", same_number)?;
        }
        if let Some(disabled) = memory.disable_oom_killer {
            let path = directory.join("memory.oom_control");
            // Writing the default would fail on kernels without the switch, for nothing.
            if disabled || path.exists() {
                let value = if disabled { "1" } else { "0" };
                file::write_checked(&path, value, "OOM killer switch", |wrote, found| {
                    file::keyed(found, "oom_kill_disable").is_none_or(|is| is.to_string() == wrote)
                })?;
            }
        }
        Ok(())
    }

    fn memory_v2(&self, memory: &Memory) -> Result<()> {
        let directory = self.v2_for("memory", "memory limit")?;
        let limit = memory.limit.filter(|value| *value != 0);
        if let Some(limit) = limit {
            check_usage(memory, limit, &directory, "memory.current", "memory.peak")?;
        }
        if let Some(swap) = swap_v2(memory)? {
            let path = directory.join("memory.swap.max");
            file::write_checked(&path, &swap, "memory swap limit", same_bytes)?;
        }
        if let Some(limit) = limit {
            let path = directory.join("memory.max");
            file::write_checked(&path, &reservation_text(limit, "max"), "memory limit", same_bytes)?;
        }
        if let Some(reservation) = memory.reservation.filter(|value| *value != 0) {
            let path = directory.join("memory.low");
            file::write_checked(
                &path,
                &reservation_text(reservation, "max"),
                "memory reservation",
                same_bytes,
            )?;
        }
        if memory.swappiness.is_some() {
            let path = directory.join("memory.swappiness");
            return Err(CgroupError::NoFile {
                limit: "memory swappiness",
                path,
            });
        }
        if memory.disable_oom_killer == Some(true) {
            let path = directory.join("memory.oom_control");
            return Err(CgroupError::NoFile {
                limit: "OOM killer switch",
                path,
            });
        }
        Ok(())
    }
}

fn reservation_text(value: i64, unlimited: &str) -> String {
    if value < 0 {
        unlimited.to_owned()
    } else {
        value.to_string()
    }
}

/// What `memory.swap.max` must hold so that memory and swap together are what was asked.
fn swap_v2(memory: &Memory) -> Result<Option<String>> {
    let limit = memory.limit.unwrap_or(0);
    match memory.swap.unwrap_or(0) {
        0 if limit == -1 => Ok(Some("max".into())),
        0 => Ok(None),
        swap if swap < 0 => Ok(Some("max".into())),
        _ if limit <= 0 => Err(CgroupError::Invalid(
            "unable to set swap limit without memory limit".into(),
        )),
        swap if swap < limit => Err(CgroupError::Invalid(format!(
            "memory+swap limit {swap} should be at least the memory limit {limit}"
        ))),
        swap => Ok(Some((swap - limit).to_string())),
    }
}

fn check_usage(memory: &Memory, limit: i64, directory: &Path, usage: &str, peak: &str) -> Result<()> {
    if memory.check_before_update != Some(true) || limit < 0 {
        return Ok(());
    }
    let used = file::number(&directory.join(usage))?.unwrap_or(0);
    if used <= limit.unsigned_abs() {
        return Ok(());
    }
    Err(below_usage(limit, used, &directory.join(peak)))
}

fn below_usage(limit: i64, usage: u64, peak: &Path) -> CgroupError {
    let peak = file::number(peak).ok().flatten().unwrap_or(usage);
    CgroupError::BelowUsage { limit, usage, peak }
}

fn set_v1(path: &Path, value: i64, limit: &'static str, directory: &Path) -> Result<()> {
    let outcome = file::write_checked(path, &value.to_string(), limit, |wrote, found| {
        if wrote == "-1" {
            file::parse_limit(found).is_none()
        } else {
            same_bytes(wrote, found)
        }
    });
    match outcome {
        // More is in use than can be given back: say the numbers.
        Err(CgroupError::Refused { source, .. }) if source.raw_os_error() == Some(EBUSY) => {
            let usage = file::number(&directory.join("memory.usage_in_bytes"))?.unwrap_or(0);
            Err(below_usage(
                value,
                usage,
                &directory.join("memory.max_usage_in_bytes"),
            ))
        }
        other => other,
    }
}
