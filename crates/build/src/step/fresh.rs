//! Files for directories that a step has made itself, put there past the overlay.
//!
//! A file that is made through an overlay costs twice what it costs in the directory that holds what the overlay changes. In a
//! directory that the step has made nothing lies and nothing shows from below, so its files can be put there directly, by several
//! threads. That is done when the overlay is mounted no more: behind a mounted one, nobody knows what it shows.
//!
//! ```text
//!   overlay mounted      directories, links, devices, files for directories that were there   (place)
//!   not mounted          files for directories that were made, then the times of those        (here)
//! ```
//!
//! Only files with one name are put here. A file is as it is to be when it has its time, which is set last; nobody sees the
//! layer before all of it is there.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Gid, Mode, OFlags, Stat, Timestamps, Uid, fchmod, fchown, fstat, futimens, openat};
use rustix::io::Errno;
use sys::beneath::{DIRECTORY, file_xattrs, open_beneath_no_links, set_file_xattr};
use tokio_util::sync::CancellationToken;

use super::place::{copied_attribute, times};
use super::share::share;
use crate::cache::FileDigests;

/// How many files a thread takes at a time.
const TAKEN: usize = 128;
/// Files of up to this size are read and written in one go; the kernel copies what is larger.
const SMALL: usize = 256 << 10;

/// A file that waits to be put.
pub struct Waiting {
    /// Beneath the source's root, without links in it.
    pub source: PathBuf,
    pub target: PathBuf,
    /// What the source is.
    pub stat: Stat,
    pub owner: (u32, u32),
    pub mode: u32,
}

/// A directory that the step has made.
struct Made {
    /// Beneath the root, without links in it.
    place: PathBuf,
    /// What its times are in the end, if they are to be any.
    times: Option<Timestamps>,
    files: Vec<Waiting>,
}

/// Directories that a step has made, and files that wait to be put into them.
#[derive(Default)]
pub struct Fresh {
    made: Vec<Made>,
    by_target: HashMap<PathBuf, usize>,
}

impl Fresh {
    /// A directory was made for `target`; without links it lies at `place`.
    pub fn add_directory(&mut self, target: PathBuf, place: PathBuf, times: Option<Timestamps>) {
        self.by_target.insert(target, self.made.len());
        self.made.push(Made {
            place,
            times,
            files: Vec::new(),
        });
    }

    /// Whether the directory `target` is one of those that were made.
    pub fn has_directory(&self, target: &Path) -> bool {
        self.by_target.contains_key(target)
    }

    /// Has a file wait for its directory, which was made.
    pub fn add_file(&mut self, file: Waiting) {
        let parent = file.target.parent().unwrap_or(Path::new(""));
        let made = self.by_target.get(parent).and_then(|at| self.made.get_mut(*at));
        if let Some(made) = made {
            made.files.push(file);
        }
    }

    /// Puts all files, from beneath `from` into the directories beneath `into`, which holds what the step changes and is
    /// mounted nowhere. `stop` ends it early. Blocks.
    pub fn fill(
        self,
        from: BorrowedFd<'_>,
        into: BorrowedFd<'_>,
        digests: &FileDigests,
        stop: &CancellationToken,
    ) -> io::Result<()> {
        let mut parts: Vec<(&Path, &[Waiting])> = Vec::new();
        for made in &self.made {
            parts.extend(
                made.files
                    .chunks(TAKEN)
                    .map(|files| (made.place.as_path(), files)),
            );
        }
        share(parts.len(), |next| {
            let mut putter = Putter {
                from,
                into,
                digests,
                parent: None,
                buffer: vec![0; SMALL],
            };
            while let Some((place, files)) = next().and_then(|part| parts.get(part)) {
                if stop.is_cancelled() {
                    return Ok(());
                }
                putter.put_all(place, files)?;
            }
            Ok(())
        })?;
        for made in self.made.iter().filter(|made| !made.files.is_empty()) {
            if let Some(times) = &made.times {
                futimens(
                    open_beneath_no_links(into, &made.place, DIRECTORY, Mode::empty())?,
                    times,
                )?;
            }
        }
        Ok(())
    }
}

/// One thread's part of it.
struct Putter<'a> {
    from: BorrowedFd<'a>,
    into: BorrowedFd<'a>,
    digests: &'a FileDigests,
    /// Where the last file was taken from, since neighbours come after each other.
    parent: Option<(PathBuf, OwnedFd)>,
    buffer: Vec<u8>,
}

impl Putter<'_> {
    fn put_all(&mut self, place: &Path, files: &[Waiting]) -> io::Result<()> {
        let into = open_beneath_no_links(self.into, place, DIRECTORY, Mode::empty())?;
        for file in files {
            self.put(file, into.as_fd()).map_err(|error| {
                let (source, target) = (file.source.display(), file.target.display());
                io::Error::new(error.kind(), format!("{source} to /{target}: {error}"))
            })?;
        }
        Ok(())
    }

    fn put(&mut self, file: &Waiting, into: BorrowedFd<'_>) -> io::Result<()> {
        let mut source = self.open(&file.source)?;
        let name = file.target.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut made = match openat(into, name, flags, Mode::from_raw_mode(file.mode & 0o777)) {
            // Through a link of the image something came here that takes the place of what came before it.
            Err(Errno::EXIST) => return Ok(()),
            made => File::from(made?),
        };
        self.copy(&mut source, &mut made, &file.stat)?;
        let (uid, gid) = file.owner;
        let stat = fstat(&made)?;
        // What a file has already is not set again, since a look costs less than a change.
        if (stat.st_uid, stat.st_gid) != (uid, gid) {
            fchown(&made, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
        }
        if stat.st_mode & 0o7777 != file.mode {
            fchmod(&made, Mode::from_raw_mode(file.mode))?;
        }
        let attributes = match self.digests.known(&file.stat) {
            Some(known) => known.attributes,
            None => file_xattrs(source.as_fd())?.into(),
        };
        for (key, value) in attributes.iter().filter(|(key, _)| copied_attribute(key)) {
            match set_file_xattr(made.as_fd(), key, value) {
                Err(error) if error.kind() == io::ErrorKind::Unsupported => {}
                other => other?,
            }
        }
        Ok(futimens(&made, &times(&file.stat))?)
    }

    fn open(&mut self, source: &Path) -> io::Result<File> {
        let parent = source.parent().unwrap_or(Path::new(""));
        let held = match self.parent.take().filter(|(path, _)| path == parent) {
            Some(held) => held,
            None => {
                let flags = OFlags::PATH | OFlags::DIRECTORY;
                let dir = open_beneath_no_links(self.from, parent, flags, Mode::empty())?;
                (parent.to_owned(), dir)
            }
        };
        let name = source.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = openat(&held.1, name, flags, Mode::empty());
        self.parent = Some(held);
        Ok(File::from(opened?))
    }

    fn copy(&mut self, source: &mut File, made: &mut File, stat: &Stat) -> io::Result<()> {
        let size = usize::try_from(stat.st_size).unwrap_or(usize::MAX);
        if size > self.buffer.len() {
            return io::copy(source, made).map(drop);
        }
        let mut copied = 0;
        loop {
            let length = source.read(&mut self.buffer)?;
            made.write_all(self.buffer.get(..length).unwrap_or_default())?;
            copied += length;
            if length == 0 || copied == size {
                return Ok(());
            }
        }
    }
}
