//! Processor time used, and time spent throttled.

use crate::error::Result;
use crate::file;
use crate::group::Cgroup;
use crate::hierarchy::Version;

use super::{CpuStats, Throttling};

/// The unit of `cpuacct.stat`: USER_HZ is 100 on every architecture that is supported.
const TICK: u64 = 10_000_000;

impl Cgroup {
    pub(super) fn cpu_stats(&self) -> Result<CpuStats> {
        match self.version() {
            Version::V2 => self.cpu_stats_v2(),
            Version::V1 | Version::Hybrid => self.cpu_stats_v1(),
        }
    }

    fn cpu_stats_v1(&self) -> Result<CpuStats> {
        let mut stats = CpuStats::default();
        if let Some(directory) = self.v1("cpuacct") {
            stats.total = file::number(&directory.join("cpuacct.usage"))?.unwrap_or(0);
            let per_cpu = file::read_optional(&directory.join("cpuacct.usage_percpu"))?.unwrap_or_default();
            stats.per_cpu = per_cpu
                .split_whitespace()
                .filter_map(|value| value.parse().ok())
                .collect();
            let ticks = file::read_optional(&directory.join("cpuacct.stat"))?.unwrap_or_default();
            let in_ticks = |key| file::keyed(&ticks, key).unwrap_or(0).saturating_mul(TICK);
            stats.user =
                file::number(&directory.join("cpuacct.usage_user"))?.unwrap_or_else(|| in_ticks("user"));
            stats.kernel =
                file::number(&directory.join("cpuacct.usage_sys"))?.unwrap_or_else(|| in_ticks("system"));
        }
        if let Some(directory) = self.v1("cpu") {
            let text = file::read_optional(&directory.join("cpu.stat"))?.unwrap_or_default();
            let value = |key| file::keyed(&text, key).unwrap_or(0);
            stats.throttling = Throttling {
                periods: value("nr_periods"),
                throttled_periods: value("nr_throttled"),
                throttled_time: value("throttled_time"),
            };
        }
        Ok(stats)
    }

    fn cpu_stats_v2(&self) -> Result<CpuStats> {
        let Some(directory) = self.unified() else {
            return Ok(CpuStats::default());
        };
        let text = file::read_optional(&directory.join("cpu.stat"))?.unwrap_or_default();
        let value = |key| file::keyed(&text, key).unwrap_or(0);
        let nanoseconds = |key| value(key).saturating_mul(1000);
        Ok(CpuStats {
            total: nanoseconds("usage_usec"),
            user: nanoseconds("user_usec"),
            kernel: nanoseconds("system_usec"),
            per_cpu: Vec::new(),
            throttling: Throttling {
                periods: value("nr_periods"),
                throttled_periods: value("nr_throttled"),
                throttled_time: nanoseconds("throttled_usec"),
            },
        })
    }
}
