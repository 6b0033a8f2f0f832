//! Limits: `linux.resources` of a runtime document becomes values in the group's files.
//!
//! One file per resource, each with a v1 and a v2 half. What a document does not mention is left as it is, so the
//! same call serves creation and update. The first refusal ends the call; what was written before it stays.

pub(crate) mod blkio;
pub(crate) mod check;
pub(crate) mod cpu;
mod cpuset;
mod device_filter;
pub(crate) mod devices;
pub(crate) mod lift;
mod memory;
mod other;
mod pids;

use spec::runtime::Resources;

use crate::error::Result;
use crate::group::Cgroup;

impl Cgroup {
    /// Applies every limit that is present.
    pub fn apply(&self, resources: &Resources) -> Result<()> {
        if !resources.devices.is_empty() {
            self.apply_devices(&resources.devices)?;
        }
        if let Some(memory) = &resources.memory {
            self.apply_memory(memory)?;
        }
        if let Some(cpu) = &resources.cpu {
            self.apply_cpu(cpu)?;
            self.apply_cpuset(&cpu.cpus, &cpu.mems)?;
        }
        if let Some(pids) = &resources.pids {
            self.apply_pids(pids.limit)?;
        }
        if let Some(block_io) = &resources.block_io {
            self.apply_block_io(block_io)?;
        }
        self.apply_other(resources)
    }
}

/// A limit in bytes as the kernel gives it back: rounded down to a page (of up to 64 KiB), or spelled as unlimited.
pub(crate) fn same_bytes(written: &str, found: &str) -> bool {
    match (crate::file::parse_limit(written), crate::file::parse_limit(found)) {
        (Some(written), Some(found)) => found <= written && written - found < 0x1_0000,
        (None, None) => true,
        _ => false,
    }
}

/// What was written is a line of what is there.
pub(crate) fn has_line(written: &str, found: &str) -> bool {
    found.lines().any(|line| line.trim() == written)
}

/// The very same number.
pub(crate) fn same_number(written: &str, found: &str) -> bool {
    written == found
}
