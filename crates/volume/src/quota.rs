//! Volumes that may take only so much (`size`): project quotas of the filesystem that the data root is on.
//!
//! The content's directory is in a project of its own, whose number the filesystem keeps with it, wherever it is renamed to;
//! there is no second note of it. The limit is set when the volume is made and again at each mount, and lifted when the
//! content is deleted. Numbers are taken from where nobody else's are expected, and only if nothing is counted or limited
//! under them. Snapshots are no part of it.
//!
//! The callers hold the lock of the volumes: two that look for a number at once would find the same.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::AsFd as _;
use std::path::Path;

use sys::quota;

use crate::{LOCAL, Volume, VolumeError, Volumes};

/// Projects of ours begin here; people number theirs from 1.
const FIRST: u32 = 0x4265_0000;
const LAST: u32 = 0x42ff_ffff;

impl Volumes {
    /// Refuses a size where the filesystem cannot hold to it.
    pub(crate) fn check_quota(
        &self,
        name: &str,
        options: &BTreeMap<String, String>,
    ) -> Result<(), VolumeError> {
        if !options.contains_key("size") || quota::is_enforced(open(&self.inner.dir)?.as_fd()) {
            return Ok(());
        }
        Err(VolumeError::NoQuota(name.to_owned()))
    }

    /// Limits a volume that has a size.
    pub(crate) fn bound(&self, volume: &Volume) -> Result<(), VolumeError> {
        self.bound_directory(&volume.mountpoint, volume)
    }

    /// Limits a directory as the content of a volume.
    pub(crate) fn bound_directory(&self, content: &Path, volume: &Volume) -> Result<(), VolumeError> {
        let size = volume.options.get("size").and_then(|size| parse(size));
        let Some(size) = size.filter(|_| volume.driver == LOCAL) else {
            return Ok(());
        };
        let directory = open(content)?;
        let file = directory.as_fd();
        if !quota::is_enforced(file) {
            return Err(VolumeError::NoQuota(volume.name.clone()));
        }
        let failed = |cause| VolumeError::at("limit the size of", content, cause);
        if let Some(project) = own_project(content).map_err(failed)? {
            return quota::limit(file, project, size).map_err(failed);
        }
        let project = self.free_project(&directory).map_err(failed)?;
        // The limit first: from then on nobody else takes the number.
        quota::limit(file, project, size).map_err(failed)?;
        quota::set_project(file, project).map_err(failed)
    }

    /// A number that nothing on the filesystem has.
    fn free_project(&self, directory: &File) -> std::io::Result<u32> {
        for number in FIRST..=LAST {
            let project = quota::project(directory.as_fd(), number)?;
            if project == quota::Project::default() {
                return Ok(number);
            }
        }
        Err(std::io::Error::other("all project numbers are taken"))
    }

    /// The project of a volume's content, of those that are ours.
    pub(crate) fn project_in(&self, name: &str) -> Option<u32> {
        own_project(&self.path(name)).ok()?
    }

    /// Lifts the limit of content that is gone. A number that keeps one is never taken again, which is no harm.
    pub(crate) fn unbound(&self, dir: &File, project: u32) {
        if let Err(error) = quota::limit(dir.as_fd(), project, 0) {
            tracing::warn!(project, %error, "the quota of a removed volume stays");
        }
    }
}

/// The project that a volume's content has for itself. One that it has from the directories above is somebody else's: of an
/// administrator who limits the whole data root, or of a volume that an engine inside a container lies on.
fn own_project(content: &Path) -> std::io::Result<Option<u32>> {
    let of = |path: &Path| quota::project_of(File::open(path)?.as_fd());
    let project = of(content)?;
    let above = content.parent().map_or(Ok(0), of)?;
    Ok(((FIRST..=LAST).contains(&project) && project != above).then_some(project))
}

fn open(path: &Path) -> Result<File, VolumeError> {
    File::open(path).map_err(|cause| VolumeError::at("open", path, cause))
}

/// A size as Docker's clients write it: a number, which may have a fraction, of bytes or of powers of 1024.
pub(crate) fn parse(text: &str) -> Option<u64> {
    let text = text.trim().to_ascii_lowercase();
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let shift = match unit.trim_start() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        "p" | "pb" | "pib" => 50,
        _ => return None,
    };
    let number: f64 = number.parse().ok()?;
    let bytes = number * f64::from(2_u32).powi(shift);
    // As far as a float is exact to a byte or nearly so, and far below what a filesystem could hold.
    (bytes.is_finite() && bytes < 9e18).then_some(bytes as u64)
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("0", 0),
            ("1000", 1000),
            ("10m", 10 << 20),
            ("1.5G", 3 << 29),
            ("2 TiB", 2 << 40),
            ("7kb", 7 << 10),
        ] {
            assert_eq!(parse(text), Some(bytes), "{text}");
        }
        for text in ["", "m", "-1", "1x", "1..2", "10mm", "99999999999p", "nan", "inf"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
