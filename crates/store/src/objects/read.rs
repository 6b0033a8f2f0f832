//! Reading a layer's directory without mounting it: where the content of a file without content is.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags, fgetxattr, lgetxattr};
use rustix::io::Errno;
use sys::beneath::open_beneath_no_links;

use super::name::Name;
use super::{METACOPY, REDIRECT, open_if_there};

/// The content that layers of one store share.
pub struct SharedFiles {
    dir: OwnedFd,
}

impl SharedFiles {
    /// What the layer with this directory ([`Snapshots::fs`](crate::Snapshots::fs)) may share; nothing where none does.
    pub fn beside(layer: &Path) -> io::Result<Option<SharedFiles>> {
        let Some(root) = layer.ancestors().nth(3) else {
            return Ok(None);
        };
        let dir = open_if_there(&root.join("objects/files"))?;
        Ok(dir.map(|dir| SharedFiles { dir }))
    }

    /// Whether the content of this file of a layer is elsewhere.
    pub fn has_elsewhere(file: &Path) -> io::Result<bool> {
        let mut value = [0; 1];
        match lgetxattr(file, METACOPY, &mut value) {
            Ok(_) | Err(Errno::RANGE) => Ok(true),
            Err(Errno::NODATA | Errno::NOTSUP) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// The name of what has the content of this file of a layer; none where it has it itself.
    pub fn object_of(file: &File) -> io::Result<Option<String>> {
        let mut value = [0; 256];
        if attribute(file, METACOPY, &mut value)?.is_none() {
            return Ok(None);
        }
        let name = attribute(file, REDIRECT, &mut value)?.and_then(Name::of_redirect);
        Ok(name.map(|name| name.as_str().to_owned()))
    }

    /// The file of a layer, to be read: itself, or what has its content.
    pub fn content(&self, file: File) -> io::Result<File> {
        let mut value = [0; 256];
        if attribute(&file, METACOPY, &mut value)?.is_none() {
            return Ok(file);
        }
        let name = attribute(&file, REDIRECT, &mut value)?.and_then(Name::of_redirect);
        let name = name.ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                "the file has no content and does not say where that is",
            )
        })?;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let opened = open_beneath_no_links(self.dir.as_fd(), OsStr::new(&name.path()), flags, Mode::empty());
        match opened {
            Ok(object) => Ok(object.into()),
            // Not the file itself: what is there must not pass for something that vanished meanwhile.
            Err(error) => Err(io::Error::other(format!(
                "its content {} cannot be opened ({error}); `system check --repair` may put it back",
                name.path()
            ))),
        }
    }
}

/// The bytes of an attribute, of as many as matter here; none when it is not there.
fn attribute<'a>(file: &File, key: &str, value: &'a mut [u8]) -> io::Result<Option<&'a [u8]>> {
    match fgetxattr(file, key, &mut *value) {
        Ok(length) => Ok(value.get(..length)),
        Err(Errno::NODATA | Errno::NOTSUP) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
