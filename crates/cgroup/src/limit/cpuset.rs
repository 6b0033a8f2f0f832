//! Which processors and memory nodes may be used.

use std::collections::BTreeSet;

use crate::error::{CgroupError, Result};
use crate::file;
use crate::group::Cgroup;
use crate::hierarchy::Version;

/// No machine has more; a range beyond it is a mistake, and would only eat memory here.
const MOST: u32 = 1 << 16;

impl Cgroup {
    pub(super) fn apply_cpuset(&self, cpus: &str, mems: &str) -> Result<()> {
        if cpus.is_empty() && mems.is_empty() {
            return Ok(());
        }
        let directory = match self.version() {
            Version::V2 => self.v2_for("cpuset", "cpuset")?,
            Version::V1 | Version::Hybrid => self.v1_for("cpuset", "cpuset")?,
        };
        for (name, value) in [("cpuset.cpus", cpus), ("cpuset.mems", mems)] {
            if value.is_empty() {
                continue;
            }
            let Some(wanted) = parse_set(value) else {
                return Err(CgroupError::Invalid(format!(
                    "invalid value {value:?} for {name}: not a list of ranges"
                )));
            };
            file::write_checked(&directory.join(name), value, "cpuset", |_, found| {
                parse_set(found).is_some_and(|found| found == wanted)
            })?;
        }
        Ok(())
    }
}

/// `0-3,7` as a set.
pub(super) fn parse_set(text: &str) -> Option<BTreeSet<u32>> {
    let mut set = BTreeSet::new();
    for part in text
        .trim()
        .split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
    {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (first.parse::<u32>().ok()?, last.parse::<u32>().ok()?);
        if first > last || last > MOST {
            return None;
        }
        set.extend(first..=last);
    }
    Some(set)
}

#[cfg(test)]
mod tests {
    use super::parse_set;

    #[test]
    fn sets_are_compared_by_meaning() {
        assert_eq!(parse_set("0-2,5"), parse_set("5,0,1,2\n"));
        assert_ne!(parse_set("0-2"), parse_set("0-3"));
        for bad in ["a", "3-1", "-1", "0-99999999"] {
            assert!(parse_set(bad).is_none(), "{bad}");
        }
    }
}
