//! Layers whose files have their content elsewhere, and overlays that take two.
//!
//! The kernel follows such files only in a read-only overlay with `metacopy` and `redirect_dir`, which would change what a
//! writable one puts into its upper directory. So those layers are mounted alone, and the result is the last layer of the
//! writable one. So are the lowest where there are more layers than one overlay takes.
//!
//! Source: Linux, Documentation/filesystems/overlayfs.rst, "Data-only lower layers" (6.5; as an option of their own, which
//! is what is used here, 6.7).

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::Overlay;
use super::overlay::{MAX_STACK, SETTINGS, Settings};

/// Where the content of files is that layers have as metadata alone: sparse files whose attributes `metacopy` and
/// `redirect` lead here (Linux 6.7, "Data-only lower layers").
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Objects {
    /// What redirects are relative to.
    pub dir: PathBuf,
    /// How many layers may have such files, counted from the lowest: what is put on top later does not change it.
    pub layers: usize,
}

/// Of a read-only overlay of layers with [`Objects`].
const OBJECT_SETTINGS: Settings = [("index", "off"), ("metacopy", "on"), ("redirect_dir", "follow")];

pub(super) fn settings(objects: bool) -> Settings {
    match objects {
        true => OBJECT_SETTINGS,
        false => SETTINGS,
    }
}

impl Overlay {
    /// Where it takes two: the upper one, whose last layer is yet to come, and the lower one, which is that.
    pub(super) fn split(&self) -> Option<(Overlay, Overlay)> {
        let own = self.objects.as_ref().map_or(0, |objects| objects.layers);
        let too_many = match self.lower.len() > MAX_STACK {
            true => self.lower.len() - (MAX_STACK - 1),
            false => 0,
        };
        let below = own.max(too_many).min(self.lower.len());
        if below == 0 || below == self.lower.len() && self.upper.is_none() {
            return None;
        }
        let (above, below) = self.lower.split_at(self.lower.len() - below);
        let below = Overlay {
            lower: below.to_vec(),
            read_only: true,
            objects: self.objects.clone(),
            label: self.label.clone(),
            ..Overlay::default()
        };
        let above = Overlay {
            lower: above.to_vec(),
            objects: None,
            ..self.clone()
        };
        Some((above, below))
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::fs::{self, File};
    use std::io;
    use std::os::fd::{AsFd, OwnedFd};
    use std::os::unix::fs::{MetadataExt as _, chown};
    use std::path::Path;

    use rustix::fs::{Mode, OFlags, openat};

    use super::*;
    use crate::beneath::set_file_xattr;
    use crate::mount::IdMap;
    use crate::namespace::{self, IdRange, Kind, create_user};
    use crate::process::with_filesystem_ids;

    /// A writable overlay: a plain layer, two of which the upper has a file whose content is elsewhere.
    fn directories() -> Option<(tempfile::TempDir, Overlay)> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: needs root");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        for name in ["plain", "sharing", "below", "objects/o", "up/fs", "up/work"] {
            fs::create_dir_all(path(name)).unwrap();
        }
        fs::write(path("objects/o/content"), "shared").unwrap();
        fs::write(path("plain/plain"), "plain").unwrap();
        fs::write(path("below/below"), "below").unwrap();
        let file = File::create(path("sharing/file")).unwrap();
        file.set_len(6).unwrap();
        for (key, value) in [("metacopy", &b""[..]), ("redirect", b"/o/content")] {
            let key = format!("trusted.overlay.{key}");
            set_file_xattr(file.as_fd(), OsStr::new(&key), value).unwrap();
        }
        chown(path("sharing/file"), Some(33), Some(33)).unwrap();
        let overlay = Overlay {
            lower: ["plain", "sharing", "below"].map(path).to_vec(),
            upper: Some(path("up/fs")),
            work: Some(path("up/work")),
            read_only: false,
            objects: Some(Objects {
                dir: path("objects"),
                layers: 2,
            }),
            ..Overlay::default()
        };
        Some((dir, overlay))
    }

    fn read(root: &OwnedFd, name: &str) -> String {
        let file = openat(root, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).unwrap();
        io::read_to_string(File::from(file)).unwrap()
    }

    fn append(root: &OwnedFd, name: &str) {
        let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CLOEXEC;
        let file = openat(root, name, flags, Mode::empty()).unwrap();
        io::Write::write_all(&mut File::from(file), b", changed").unwrap();
    }

    fn check(root: OwnedFd, dir: &Path, ids: Option<u32>) {
        for (name, content) in [("plain", "plain"), ("file", "shared"), ("below", "below")] {
            assert_eq!(read(&root, name), content, "{name}");
        }
        let ids = ids.unwrap_or(0);
        let shown = rustix::fs::statat(&root, "file", rustix::fs::AtFlags::empty()).unwrap();
        assert_eq!(shown.st_uid, ids + 33);
        with_filesystem_ids(ids, ids, || append(&root, "file")).unwrap();
        assert_eq!(read(&root, "file"), "shared, changed");
        drop(root);
        // The upper directory alone has all of it.
        let own = dir.join("up/fs/file");
        assert_eq!(fs::read_to_string(&own).unwrap(), "shared, changed");
        assert_eq!(fs::metadata(own).unwrap().uid(), 33);
        assert_eq!(
            fs::read_to_string(dir.join("objects/o/content")).unwrap(),
            "shared"
        );
    }

    #[test]
    fn files_show_what_is_elsewhere() {
        let Some((dir, overlay)) = directories() else {
            return;
        };
        check(overlay.mount_detached().unwrap(), dir.path(), None);
        // Without anything above, and with one layer alone.
        for (first, layers) in [(1, 2), (1, 1)] {
            let mut frozen = overlay.clone();
            (frozen.upper, frozen.work) = (None, None);
            frozen.lower = frozen.lower[first..first + layers].to_vec();
            frozen.read_only = true;
            assert_eq!(frozen.single(), None);
            assert_eq!(read(&frozen.mount_detached().unwrap(), "file"), "shared");
        }
    }

    /// As kernels before 6.15 have it.
    #[test]
    fn files_show_what_is_elsewhere_in_a_namespace_of_their_own() {
        let Some((dir, overlay)) = directories() else {
            return;
        };
        let (above, below) = overlay.split().unwrap();
        assert_eq!((above.lower.len(), below.lower.len()), (1, 2));
        let (_namespace, mounted) =
            namespace::create_with(Kind::Mount, || above.mount_on_another(&below)).unwrap();
        check(mounted.unwrap(), dir.path(), None);
    }

    type Way = dyn Fn(&Overlay, IdMap<'_>) -> io::Result<OwnedFd>;

    #[test]
    fn files_show_what_is_elsewhere_with_ids_translated() {
        let range = IdRange {
            inside: 0,
            outside: 300_000,
            count: 65536,
        };
        let by_descriptor =
            |overlay: &Overlay, map: IdMap<'_>| overlay.mapped_by_descriptor(&overlay.layers(map)?, map);
        let ways: [&Way; 2] = [&by_descriptor, &Overlay::mapped_by_path];
        for mount in ways {
            let Some((dir, overlay)) = directories() else {
                return;
            };
            let owned = create_user(&[range], &[range], &[]).unwrap();
            let map = IdMap {
                namespace: owned.user.as_fd(),
                root: (300_000, 300_000),
            };
            check(mount(&overlay, map).unwrap(), dir.path(), Some(300_000));
            // The read-only part by the same way.
            let (_, below) = overlay.split().unwrap();
            assert_eq!(read(&mount(&below, map).unwrap(), "file"), "shared");
        }
    }

    /// Whatever is wrong with a directory, it is the one that is named: also the first, and that of the contents.
    #[test]
    fn what_cannot_be_a_layer_is_named() {
        let Some((dir, overlay)) = directories() else {
            return;
        };
        let (_, below) = overlay.split().unwrap();
        let file = dir.path().join("plain/plain");
        let mut wrong = below.clone();
        wrong.lower[0] = file.clone();
        let told = wrong.mount_detached().unwrap_err().to_string();
        assert!(told.contains("plain/plain"), "{told}");
        let mut wrong = below;
        wrong.objects.as_mut().unwrap().dir = file;
        let told = wrong.mount_detached().unwrap_err().to_string();
        assert!(told.contains("plain/plain"), "{told}");
    }
}
