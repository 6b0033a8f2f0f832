//! Processor time: relative shares, hard quota per period, burst, idle, real time.

use std::path::Path;

use spec::runtime::Cpu;

use super::same_number;
use crate::error::{CgroupError, Result};
use crate::file;
use crate::group::Cgroup;
use crate::hierarchy::Version;

/// Range that the kernel clamps v1 shares to.
const SHARES: std::ops::RangeInclusive<u64> = 2..=262_144;

impl Cgroup {
    pub(super) fn apply_cpu(&self, cpu: &Cpu) -> Result<()> {
        let bare = Cpu {
            cpus: String::new(),
            mems: String::new(),
            ..cpu.clone()
        };
        if bare == Cpu::default() {
            return Ok(());
        }
        match self.version() {
            Version::V2 => self.cpu_v2(cpu),
            Version::V1 | Version::Hybrid => self.cpu_v1(cpu),
        }
    }

    fn cpu_v1(&self, cpu: &Cpu) -> Result<()> {
        let directory = self.v1_for("cpu", "cpu limit")?;
        if let Some(shares) = cpu.shares.filter(|shares| *shares != 0) {
            let clamped = shares.clamp(*SHARES.start(), *SHARES.end());
            file::write_checked(
                &directory.join("cpu.shares"),
                &clamped.to_string(),
                "cpu shares",
                same_number,
            )?;
        }
        if let Some(period) = cpu.realtime_period.filter(|period| *period != 0) {
            file::write_checked(
                &directory.join("cpu.rt_period_us"),
                &period.to_string(),
                "cpu real-time period",
                same_number,
            )?;
        }
        if let Some(runtime) = cpu.realtime_runtime.filter(|runtime| *runtime != 0) {
            file::write_checked(
                &directory.join("cpu.rt_runtime_us"),
                &runtime.to_string(),
                "cpu real-time runtime",
                same_number,
            )?;
        }
        quota_v1(&directory, cpu)?;
        if let Some(burst) = cpu.burst {
            set_burst(&directory.join("cpu.cfs_burst_us"), burst)?;
        }
        if let Some(idle) = cpu.idle {
            set_idle(&directory, idle)?;
        }
        Ok(())
    }

    fn cpu_v2(&self, cpu: &Cpu) -> Result<()> {
        let directory = self.v2_for("cpu", "cpu limit")?;
        if cpu.realtime_period.is_some_and(|value| value != 0)
            || cpu.realtime_runtime.is_some_and(|value| value != 0)
        {
            return Err(CgroupError::NoFile {
                limit: "cpu real-time limit",
                path: directory.join("cpu.rt_runtime_us"),
            });
        }
        if let Some(idle) = cpu.idle {
            set_idle(&directory, idle)?;
        }
        if let Some(shares) = cpu.shares.filter(|shares| *shares != 0) {
            let weight = weight_of_shares(shares).to_string();
            file::write_checked(&directory.join("cpu.weight"), &weight, "cpu shares", same_number)?;
        }
        let burst = directory.join("cpu.max.burst");
        if cpu.burst == Some(0) {
            set_burst(&burst, 0)?;
        }
        if cpu.quota.is_some_and(|quota| quota != 0) || cpu.period.is_some_and(|period| period != 0) {
            let path = directory.join("cpu.max");
            let current = file::read_optional(&path)?.unwrap_or_default();
            let quota = match cpu.quota.filter(|quota| *quota != 0) {
                Some(quota) if quota < 0 => "max".to_owned(),
                Some(quota) => quota.to_string(),
                None => current.split_whitespace().next().unwrap_or("max").to_owned(),
            };
            let value = match cpu.period.filter(|period| *period != 0) {
                Some(period) => format!("{quota} {period}"),
                None => quota,
            };
            file::write_checked(&path, &value, "cpu quota", |written, found| {
                // A write without a period leaves the one that is there.
                let mut found = found.split_whitespace();
                written.split_whitespace().all(|word| found.next() == Some(word))
            })?;
        }
        if let Some(value) = cpu.burst.filter(|burst| *burst != 0) {
            set_burst(&burst, value)?;
        }
        Ok(())
    }
}

fn set_burst(path: &Path, burst: u64) -> Result<()> {
    file::write_checked(path, &burst.to_string(), "cpu burst", same_number)
}

fn set_idle(directory: &Path, idle: i64) -> Result<()> {
    let path = directory.join("cpu.idle");
    file::write_checked(&path, &idle.to_string(), "cpu idle", same_number)
}

/// The kernel checks quota/period against the parent at each write, so a shorter period may be refused until the
/// quota is lower too.
fn quota_v1(directory: &Path, cpu: &Cpu) -> Result<()> {
    let period_file = directory.join("cpu.cfs_period_us");
    let set_period =
        |period: u64| file::write_checked(&period_file, &period.to_string(), "cpu period", same_number);
    let period = cpu.period.filter(|period| *period != 0);
    let quota = cpu.quota.filter(|quota| *quota != 0);
    let mut period_is_set = false;
    if let Some(period) = period {
        match set_period(period) {
            Ok(()) => period_is_set = true,
            Err(CgroupError::Refused { .. }) if quota.is_some() => {}
            Err(error) => return Err(error),
        }
    }
    if let Some(quota) = quota {
        let value = quota.max(-1).to_string();
        file::write_checked(
            &directory.join("cpu.cfs_quota_us"),
            &value,
            "cpu quota",
            same_number,
        )?;
        if let Some(period) = period.filter(|_| !period_is_set) {
            set_period(period)?;
        }
    }
    Ok(())
}

/// v2 weight (1 to 10000, default 100) of v1 shares (2 to 262144, default 1024): a curve through both ends and the
/// two defaults, so that a container with default shares weighs as much as any other default group. Same constants
/// as runc 1.3.2 and crun 1.23 use: log10(weight) = (l^2 + 125 l) / 612 - 7/34, l = log2(shares).
pub(crate) fn weight_of_shares(shares: u64) -> u64 {
    if shares <= *SHARES.start() {
        return 1;
    }
    if shares >= *SHARES.end() {
        return 10_000;
    }
    #[allow(clippy::cast_precision_loss)]
    let log = (shares as f64).log2();
    let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let weight = 10f64.powf(exponent).ceil() as u64;
    weight.clamp(1, 10_000)
}

#[cfg(test)]
mod tests {
    use super::weight_of_shares;

    #[test]
    fn weights_meet_both_ends_and_the_default() {
        assert_eq!(weight_of_shares(2), 1);
        assert_eq!(weight_of_shares(1024), 100);
        assert_eq!(weight_of_shares(262_144), 10_000);
        assert_eq!(weight_of_shares(u64::MAX), 10_000);
    }

    #[test]
    fn weights_never_fall() {
        let mut last = 0;
        for shares in 0..262_200 {
            let weight = weight_of_shares(shares);
            assert!(weight >= last && (1..=10_000).contains(&weight), "{shares}");
            last = weight;
        }
    }
}
