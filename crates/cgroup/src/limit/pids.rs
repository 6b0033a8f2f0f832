//! How many processes and threads.

use crate::error::Result;
use crate::file;
use crate::group::Cgroup;
use crate::hierarchy::Version;

use super::same_number;

impl Cgroup {
    /// Zero and below mean no limit.
    pub(super) fn apply_pids(&self, limit: i64) -> Result<()> {
        let directory = match self.version() {
            Version::V2 => self.v2_for("pids", "pids limit"),
            Version::V1 | Version::Hybrid => self.v1_for("pids", "pids limit"),
        };
        if limit <= 0 {
            // Lifting a limit that cannot be set is no failure.
            let Ok(directory) = directory else { return Ok(()) };
            return file::write_checked(&directory.join("pids.max"), "max", "pids limit", same_number);
        }
        file::write_checked(
            &directory?.join("pids.max"),
            &limit.to_string(),
            "pids limit",
            same_number,
        )
    }
}
