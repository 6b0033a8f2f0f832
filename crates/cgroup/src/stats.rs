//! What a group has used so far. Times are nanoseconds, sizes bytes.
//!
//! A controller that is not there leaves its part at zero or absent: measuring never fails for want of a file.

mod blkio;
mod cpu;
mod memory;

use std::collections::BTreeMap;

use crate::error::Result;
use crate::file;
use crate::group::Cgroup;
use crate::hierarchy::Version;

/// Everything that is measured.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    pub cpu: CpuStats,
    pub memory: MemoryStats,
    pub pids: PidsStats,
    pub blkio: BlkioStats,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CpuStats {
    pub total: u64,
    pub user: u64,
    pub kernel: u64,
    /// Per processor; empty in v2, which does not keep it.
    pub per_cpu: Vec<u64>,
    pub throttling: Throttling,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Throttling {
    /// Periods in which the group wanted to run.
    pub periods: u64,
    /// Periods in which it was stopped for having used its quota.
    pub throttled_periods: u64,
    /// Time it stood still so.
    pub throttled_time: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MemoryStats {
    pub usage: u64,
    /// The most it ever was, where the kernel keeps it.
    pub max_usage: Option<u64>,
    /// None is no limit of its own.
    pub limit: Option<u64>,
    /// How often the limit was met (v1) or memory ran out (v2).
    pub fail_count: u64,
    /// The kernel's own breakdown, by the names that Docker's API shows for the version.
    pub stats: BTreeMap<String, u64>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PidsStats {
    pub current: u64,
    /// None is no limit.
    pub limit: Option<u64>,
}

/// Per device and kind of operation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BlkioStats {
    pub service_bytes: Vec<BlkioEntry>,
    pub serviced: Vec<BlkioEntry>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BlkioEntry {
    pub major: u64,
    pub minor: u64,
    /// `Read`, `Write`, … in v1; `read`, `write` in v2, as Docker's API shows them.
    pub operation: String,
    pub value: u64,
}

impl Cgroup {
    /// Reads all of it. The parts are read one after the other: they are not of one instant.
    pub fn stats(&self) -> Result<Stats> {
        Ok(Stats {
            cpu: self.cpu_stats()?,
            memory: self.memory_stats()?,
            pids: self.pids_stats()?,
            blkio: self.blkio_stats()?,
        })
    }

    fn pids_stats(&self) -> Result<PidsStats> {
        let directory = match self.version() {
            Version::V2 => self.unified(),
            Version::V1 | Version::Hybrid => self.v1("pids"),
        };
        let Some(directory) = directory else {
            return Ok(PidsStats::default());
        };
        let limit = file::read_optional(&directory.join("pids.max"))?;
        Ok(PidsStats {
            current: file::number(&directory.join("pids.current"))?.unwrap_or(0),
            limit: limit.as_deref().and_then(file::parse_limit),
        })
    }
}
