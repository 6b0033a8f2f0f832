//! Taking limits back for whose absence a runtime document has no value.
//!
//! There an empty list of processors, a weight of zero and a real-time budget of zero say nothing, so what was set where nothing was
//! said before can only be lifted by name: the file gets the value that a new group has.

use std::path::{Path, PathBuf};

use super::cpuset::parse_set;
use super::{blkio, same_number};
use crate::error::Result;
use crate::file;
use crate::group::Cgroup;
use crate::hierarchy::Version;

/// A limit that can be lifted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lift {
    /// Which processors may be used.
    Processors,
    /// From which memory nodes memory may come.
    MemoryNodes,
    /// The relative weight of input and output.
    BlockIoWeight,
    /// The budget of real-time tasks, and its period.
    RealTime,
}

/// In microseconds (Linux kernel/sched/rt.c).
const REALTIME_PERIOD: &str = "1000000";
const REALTIME_RUNTIME: &str = "0";
/// Of BFQ and of `io.weight`.
const WEIGHT: &str = "100";
/// Of CFQ, which version 1 had before.
const OLD_WEIGHT: &str = "500";

impl Cgroup {
    /// Gives a limit the value that a new group has. One that this host does not have cannot have been set, and is a success.
    pub fn lift(&self, limit: Lift) -> Result<()> {
        match limit {
            Lift::Processors => self.lift_cpuset("cpuset.cpus"),
            Lift::MemoryNodes => self.lift_cpuset("cpuset.mems"),
            Lift::BlockIoWeight => self.lift_weight(),
            Lift::RealTime => self.lift_realtime(),
        }
    }

    /// The limit's file in the tree of its controller, if it is there.
    fn file_of(&self, controller: &str, name: &str) -> Option<PathBuf> {
        let directory = match self.version() {
            Version::V2 => self.unified(),
            Version::V1 | Version::Hybrid => self.v1(controller),
        };
        directory
            .map(|directory| directory.join(name))
            .filter(|path| path.exists())
    }

    fn lift_cpuset(&self, name: &str) -> Result<()> {
        let Some(path) = self.file_of("cpuset", name) else {
            return Ok(());
        };
        let write = |set: &str| {
            file::write_checked(&path, set, "cpuset", |wanted, found| {
                parse_set(wanted) == parse_set(found)
            })
        };
        let parent = path.parent().and_then(Path::parent).unwrap_or(&path);
        match self.version() {
            // Empty is whatever the parent has, now and later. No byte at all would not reach the kernel. Where processes are in the
            // group, kernels before 6.20 refuse it, and what the parent has now is as near as one can come.
            Version::V2 => write("\n").or_else(|refused| {
                let above = file::read(&parent.join(format!("{name}.effective"))).map_err(|_| refused)?;
                write(above.trim())
            }),
            // Nothing is handed down: a new group has a copy.
            Version::V1 | Version::Hybrid => write(file::read(&parent.join(name))?.trim()),
        }
    }

    fn lift_weight(&self) -> Result<()> {
        let files: &[(&str, &str)] = match self.version() {
            Version::V2 => &[("io.bfq.weight", WEIGHT), ("io.weight", WEIGHT)],
            Version::V1 | Version::Hybrid => &[("blkio.weight", OLD_WEIGHT), ("blkio.bfq.weight", WEIGHT)],
        };
        for (name, weight) in files {
            if let Some(path) = self.file_of("blkio", name) {
                file::write_checked(&path, weight, "blkio weight", blkio::same_weight)?;
            }
        }
        Ok(())
    }

    /// The budget first: a shorter period may be too short for it.
    fn lift_realtime(&self) -> Result<()> {
        for (name, value) in [
            ("cpu.rt_runtime_us", REALTIME_RUNTIME),
            ("cpu.rt_period_us", REALTIME_PERIOD),
        ] {
            if let Some(path) = self.file_of("cpu", name) {
                file::write_checked(&path, value, "cpu real-time limit", same_number)?;
            }
        }
        Ok(())
    }
}
