//! The files of a layer by the names that its archive gave them.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, OFlags, fstat, openat};
use store::{Part, SharedFiles};
use sys::beneath::resolve_in_root;

use super::emit::{content, open_file};

/// A layer whose files are read.
pub(crate) struct Files {
    root: OwnedFd,
    /// Where the content of files is that have none of their own.
    shared: Option<SharedFiles>,
}

impl Files {
    pub(crate) fn open(part: &Part) -> io::Result<Files> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Files {
            root: openat(CWD, &part.dir, flags, Mode::empty())?,
            shared: match part.is_layer() {
                true => SharedFiles::beside(&part.dir)?,
                false => None,
            },
        })
    }

    /// A regular file and its size; `None` where there is none. Links on the way are followed within the layer, as when it
    /// was unpacked.
    pub(crate) fn file(&self, path: &Path) -> io::Result<Option<(File, u64)>> {
        let Some(name) = path.file_name() else {
            return Ok(None);
        };
        let parent = path.parent().unwrap_or(Path::new(""));
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let opened = resolve_in_root(self.root.as_fd(), parent, flags, Mode::empty())
            .and_then(|dir| open_file(dir.as_fd(), name));
        let file = match opened {
            Ok(file) => file,
            Err(error) if is_none(&error) => return Ok(None),
            Err(error) => return Err(error),
        };
        let stat = fstat(&file)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Ok(None);
        }
        let file = content(self.shared.as_ref(), file)?;
        Ok(Some((file, u64::try_from(stat.st_size).unwrap_or(0))))
    }
}

/// Nothing of the name, or something that is no file: a link, a socket, a device that is not there.
fn is_none(error: &io::Error) -> bool {
    use rustix::io::Errno;
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    ) || [Errno::LOOP, Errno::NXIO, Errno::NODEV]
        .iter()
        .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}
