//! Huge pages, network classes, RDMA, and files of v2 named one by one.

use spec::runtime::Resources;

use crate::error::{CgroupError, Result};
use crate::file;
use crate::group::Cgroup;
use crate::hierarchy::Version;

use super::{has_line, same_bytes, same_number};

impl Cgroup {
    pub(super) fn apply_other(&self, resources: &Resources) -> Result<()> {
        for limit in &resources.hugepage_limits {
            let size = plain(&limit.page_size, "huge page size")?;
            let (directory, ending) = match self.version() {
                Version::V2 => (self.v2_for("hugetlb", "huge page limit")?, "max"),
                Version::V1 | Version::Hybrid => {
                    (self.v1_for("hugetlb", "huge page limit")?, "limit_in_bytes")
                }
            };
            // Of what is used, and where the kernel counts it (Linux 5.7) of what is reserved: who asks for too much is told
            // when it asks, and not by a signal when it touches it.
            let used = directory.join(format!("hugetlb.{size}.{ending}"));
            let reserved = directory.join(format!("hugetlb.{size}.rsvd.{ending}"));
            for path in std::iter::once(used).chain(reserved.exists().then_some(reserved)) {
                // Rounded down to a huge page, which may be larger than what the byte check allows for.
                let same = |wrote: &str, found: &str| {
                    same_bytes(wrote, found)
                        || file::parse_limit(found).is_some_and(|found| found < limit.limit)
                };
                file::write_checked(&path, &limit.limit.to_string(), "huge page limit", same)?;
            }
        }
        if let Some(network) = &resources.network {
            if let Some(class) = network.class_id.filter(|class| *class != 0) {
                let path = self.v1_for("net_cls", "network class")?.join("net_cls.classid");
                file::write_checked(&path, &class.to_string(), "network class", same_number)?;
            }
            for interface in &network.priorities {
                let path = self
                    .v1_for("net_prio", "network priority")?
                    .join("net_prio.ifpriomap");
                let name = plain(&interface.name, "interface name")?;
                let value = format!("{name} {}", interface.priority);
                file::write_checked(&path, &value, "network priority", has_line)?;
            }
        }
        for (device, limit) in &resources.rdma {
            let directory = match self.version() {
                Version::V2 => self.v2_for("rdma", "rdma limit")?,
                Version::V1 | Version::Hybrid => self.v1_for("rdma", "rdma limit")?,
            };
            let text = |value: Option<u32>| value.map_or_else(|| "max".to_owned(), |value| value.to_string());
            let value = format!(
                "{} hca_handle={} hca_object={}",
                plain(device, "rdma device")?,
                text(limit.hca_handles),
                text(limit.hca_objects)
            );
            file::write_checked(&directory.join("rdma.max"), &value, "rdma limit", has_line)?;
        }
        for (name, value) in &resources.unified {
            if self.version() != Version::V2 {
                return Err(CgroupError::Invalid(format!(
                    "{name} cannot be set: this host uses cgroup v1"
                )));
            }
            let directory = self.unified().ok_or(CgroupError::Missing {
                controller: "unified",
                limit: "cgroup value",
            })?;
            // Each file has a form of its own, so nobody could say here whether what it holds now is what was meant.
            file::write_limit(
                &directory.join(plain(name, "cgroup file name")?),
                value,
                "cgroup value",
            )?;
        }
        Ok(())
    }
}

/// A word that becomes part of a path or of a line.
pub(super) fn plain<'a>(word: &'a str, what: &str) -> Result<&'a str> {
    let sound = !word.is_empty()
        && !word.starts_with('.')
        && word
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"._-:@".contains(&byte));
    if sound {
        Ok(word)
    } else {
        Err(CgroupError::Invalid(format!("invalid {what} {word:?}")))
    }
}
