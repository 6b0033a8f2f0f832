//! What an image has at the place of a volume, copied there when a container is made that has the volume and that is empty.
//!
//! Of a volume whose options mount something it is that which is filled: it is mounted for the copy, where nobody sees it.
//! What goes with its mount (tmpfs) is not filled, nor what is mounted read-only.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::Duration;

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;
use sys::beneath::list_sorted;
use sys::mount::words::{Bits, is_propagation, says_nothing};
use sys::mount::{Attributes, Filesystem, Tree};

use crate::copy_up::{self, Place};
use crate::mount::{VolumeSource, source};
use crate::{LOCAL, Volume, VolumeError, Volumes};

/// How long a filesystem may take until it is there, as at the start of a container.
const PATIENCE: Duration = Duration::from_secs(60);
/// Nothing of them is left when they are unmounted, or they are made of what is somebody else's.
const PASSING: [&str; 3] = ["tmpfs", "ramfs", "overlay"];

impl Volumes {
    /// Fills an empty volume from `path` in the image whose root directory is `image`. Whether there was anything to do.
    /// With `label`, if there is one, as its containers mount it ([`Volumes::tree`]). With `translated` ids, which the
    /// volume does not show to its containers unless it is a directory of ours or a filesystem on a device, others are left
    /// as they are: what is copied would be nobody's.
    pub fn fill(
        &self,
        volume: &Volume,
        image: BorrowedFd<'_>,
        path: &str,
        label: &str,
        translated: bool,
    ) -> Result<bool, VolumeError> {
        if volume.driver != LOCAL {
            return Ok(false);
        }
        let Some(content) = copy_up::content(image, path)? else {
            return Ok(false);
        };
        let mut place = Place {
            path: &volume.mountpoint,
            directory: None,
        };
        if !volume.options.contains_key("device") {
            return copy_up::fill(&place, content.as_fd());
        }
        let names = list_sorted(content.as_fd())
            .map_err(|cause| VolumeError::at("list in the image", Path::new(path), cause))?;
        // Of nothing there is no reason to mount anything.
        if names.is_empty() {
            return Ok(false);
        }
        let takes_none = |mounted: &Mounted| mounted.read_only || translated && mounted.is_foreign();
        let Some(mounted) = Mounted::of(volume)?.filter(|mounted| !takes_none(mounted)) else {
            return Ok(false);
        };
        let mounted = mounted.labelled(label);
        let Some(tree) = mounted.tree(volume)? else {
            return Ok(false);
        };
        // Its own descriptor is one of the mount, through which nothing is read.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        place.directory = match openat(tree.as_fd(), ".", flags, Mode::empty()) {
            Err(Errno::NOTDIR) => return Ok(false),
            opened => Some(opened.map_err(|cause| mounted.failed(volume, cause.into()))?),
        };
        copy_up::fill(&place, content.as_fd()).map_err(|error| match error {
            VolumeError::Io { cause, .. } => VolumeError::Fill {
                name: volume.name.clone(),
                cause,
            },
            other => other,
        })
    }

    /// What the options of a volume mount, where no mount table shows it: for who looks into it while no container has it.
    /// Nothing, where it goes with its mount, or where a bind has no source. A filesystem has one SELinux label for all who
    /// mount it at a time, so it is mounted with `label`, that of its containers, if there is one.
    pub fn tree(&self, volume: &Volume, label: &str) -> Result<Option<Tree>, VolumeError> {
        match Mounted::of(volume)? {
            Some(mounted) => mounted.labelled(label).tree(volume),
            None => Ok(None),
        }
    }
}

/// What a volume's options say about its mount, as far as it matters here.
struct Mounted {
    fstype: String,
    device: String,
    server: Option<String>,
    /// A bind, and whether with what is mounted below it.
    bound: Option<bool>,
    read_only: bool,
    data: Vec<String>,
}

impl Mounted {
    fn of(volume: &Volume) -> Result<Option<Mounted>, VolumeError> {
        let VolumeSource::Mount {
            fstype,
            device,
            options,
            server,
        } = source(volume)?
        else {
            return Ok(None);
        };
        if PASSING.contains(&fstype.as_str()) {
            return Ok(None);
        }
        let bound = (fstype == "bind").then_some(false);
        let mut mounted = Mounted {
            fstype,
            device,
            server,
            bound,
            read_only: false,
            data: Vec::new(),
        };
        for word in options {
            match Bits::of(&word).or_else(|| Bits::of(word.strip_prefix('r')?)) {
                Some(Bits::Set(Attributes::READ_ONLY)) => mounted.read_only = true,
                Some(Bits::Clear(Attributes::READ_ONLY)) => mounted.read_only = false,
                Some(_) => {}
                None if word == "bind" => mounted.bound = mounted.bound.or(Some(false)),
                None if word == "rbind" => mounted.bound = Some(true),
                None if says_nothing(&word) || is_propagation(&word) => {}
                None => mounted.data.push(match word.strip_prefix("context=") {
                    Some(label) => format!("context={}", label.trim_matches('"')),
                    None => word,
                }),
            }
        }
        Ok(Some(mounted))
    }

    fn labelled(mut self, label: &str) -> Mounted {
        let has_one = self.data.iter().any(|option| option.starts_with("context="));
        if !label.is_empty() && self.bound.is_none() && !has_one {
            self.data.push(format!("context={label}"));
        }
        self
    }

    /// It has the ids of the host, or of a server, whatever ids its containers have.
    fn is_foreign(&self) -> bool {
        self.bound.is_some() || self.server.is_some()
    }

    fn tree(&self, volume: &Volume) -> Result<Option<Tree>, VolumeError> {
        match self.make() {
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.bound.is_some() => Ok(None),
            made => made.map(Some).map_err(|cause| self.failed(volume, cause)),
        }
    }

    fn make(&self) -> io::Result<Tree> {
        let set = if self.read_only { Attributes::READ_ONLY } else { 0 };
        if let Some(recursive) = self.bound {
            let tree = Tree::open(CWD, Path::new(&self.device), recursive)?;
            let attributes = Attributes {
                set,
                ..Attributes::default()
            };
            tree.set(attributes, recursive)?;
            return Ok(tree);
        }
        let fs = Filesystem::new(&self.fstype)?;
        fs.string("source", &self.device)?;
        for option in &self.data {
            fs.option(option)?;
        }
        fs.mount_within(set, PATIENCE)
    }

    fn failed(&self, volume: &Volume, cause: io::Error) -> VolumeError {
        let server = self.server.as_ref();
        VolumeError::Mount {
            name: volume.name.clone(),
            device: self.device.clone(),
            server: server.map_or_else(String::new, |server| format!(" on the server {server}")),
            cause,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::Timestamp;

    fn read(options: &[(&str, &str)]) -> Option<Mounted> {
        let pairs = options.iter();
        let volume = Volume {
            options: pairs
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect(),
            ..Volume::bare("vol", "/v/vol/_data".into(), Timestamp::UNIX_EPOCH)
        };
        Mounted::of(&volume).unwrap()
    }

    #[test]
    fn words_for_the_mount_are_told_from_the_filesystems() {
        let words = "addr=192.0.2.1,ro,noatime,nolock,defaults,rw";
        let nfs = read(&[("type", "nfs"), ("device", ":/x"), ("o", words)]).unwrap();
        assert_eq!(nfs.data, ["addr=192.0.2.1", "nolock", "vers=3"]);
        assert!(!nfs.read_only && nfs.bound.is_none() && nfs.is_foreign());
        let bind = read(&[("type", "none"), ("device", "/srv"), ("o", "rbind,rro")]).unwrap();
        assert!(bind.read_only && bind.bound == Some(true) && bind.data.is_empty());
        let disk = read(&[("type", "ext4"), ("device", "/dev/x")]).unwrap();
        assert!(!disk.is_foreign() && disk.bound.is_none());
        let shared = read(&[("type", "bind"), ("device", "/srv"), ("o", "rshared,ro")]).unwrap();
        assert!(shared.read_only && shared.bound == Some(false) && shared.data.is_empty());
        let labelled = read(&[
            ("type", "ext4"),
            ("device", "/dev/x"),
            ("o", r#"context="a:b:c:s0""#),
        ])
        .unwrap();
        assert_eq!(labelled.labelled("d:e:f:s0").data, ["context=a:b:c:s0"]);
        let plain = || read(&[("type", "ext4"), ("device", "/dev/x")]).unwrap();
        assert_eq!(plain().labelled("d:e:f:s0").data, ["context=d:e:f:s0"]);
        assert!(plain().labelled("").data.is_empty() && bind.labelled("d:e:f:s0").data.is_empty());
        assert!(read(&[("type", "tmpfs"), ("device", "tmpfs")]).is_none() && read(&[]).is_none());
    }
}
