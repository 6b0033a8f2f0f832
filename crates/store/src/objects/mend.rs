//! Putting the right content back into an object, in its place: whoever has it, reads it from then on.
//!
//! ```text
//!   found damaged ──mark──> marked ──┬── what is offered has its name: written in its place ──> unmarked
//!                                    └── the next layer that has the file brings it ──────────┘
//! ```
//!
//! The mark is the object's sticky bit, which means nothing for a file: it is there whenever the object is looked at, and lasts
//! as long as it. What is offered counts only if it has the object's name, so nothing else can come into its place. It is on the
//! disk before the mark goes: killed in between, the object is written once more.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{CWD, Mode, OFlags, fchmod, openat};

use super::Objects;
use super::damage::BUFFER;
use super::hold::is_damaged;
use super::name::Name;
use crate::failure::{Context, PathError};
use crate::stop::Stop;

/// What an object has of a file's metadata: everybody whose layer it is may read it.
pub(super) const MODE: u32 = 0o444;
/// The object's content is not what its name says.
pub(super) const DAMAGED: u32 = 0o1000;

impl Objects {
    /// Marks an object that is damaged; false if it is not any more, or is gone. `stop` ends the reading of it.
    pub(crate) fn mark(&self, name: &str, stop: &Stop<'_>) -> Result<bool, PathError> {
        let key = self.key()?;
        let marked = || -> io::Result<bool> {
            let name = Name::parse(name.as_bytes()).ok_or(io::ErrorKind::InvalidInput)?;
            let Some(files) = self.open_files()? else {
                return Ok(false);
            };
            if !is_damaged(&files, &name, key, &mut vec![0; BUFFER], stop)? {
                return Ok(false);
            }
            // Not through O_PATH, which has no mode to change; and a disk that does not give the content gives this.
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let file = openat(&files, name.path(), flags, Mode::empty())?;
            fchmod(&file, Mode::from_raw_mode(MODE | DAMAGED))?;
            Ok(true)
        };
        marked().at("mark a damaged file in", &self.files())
    }

    /// Puts `content` into the marked object of that name, if it is that object's; whether it is.
    pub(crate) fn offer(&self, name: &str, content: impl Read) -> Result<bool, PathError> {
        let key = self.key()?;
        let offered = || -> io::Result<bool> {
            let name = Name::parse(name.as_bytes()).ok_or(io::ErrorKind::InvalidInput)?;
            let Some(files) = self.open_files()? else {
                return Ok(false);
            };
            // Without a name, so that nothing is left of it.
            let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
            let mut copy = File::from(openat(CWD, &self.inner.dir, flags, Mode::RUSR | Mode::WUSR)?);
            let (found, _) = key.name(
                Kept {
                    inner: content,
                    copy: &copy,
                },
                &mut vec![0; BUFFER],
            )?;
            if found != name {
                return Ok(false);
            }
            io::Seek::rewind(&mut copy)?;
            write_into(files.as_fd(), &name.path(), &mut copy)?;
            Ok(true)
        };
        offered().at("put back a file's content in", &self.files())
    }
}

/// Makes `content` all that is in the object that has this path in `dir`, and takes its mark away.
pub(super) fn write_into(dir: BorrowedFd<'_>, path: &str, content: &mut impl Read) -> io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let mut object = File::from(openat(dir, path, flags, Mode::empty())?);
    let length = io::copy(content, &mut object)?;
    object.set_len(length)?;
    object.sync_all()?;
    Ok(fchmod(&object, Mode::from_raw_mode(MODE))?)
}

/// Writes down what is read.
struct Kept<'a, R> {
    inner: R,
    copy: &'a File,
}

impl<R: Read> Read for Kept<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.copy.write_all(buffer.get(..read).unwrap_or_default())?;
        Ok(read)
    }
}
