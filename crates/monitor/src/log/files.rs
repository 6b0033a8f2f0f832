//! The files of a log: their names, putting one aside, removing old ones, telling which is which.
//!
//! Whoever moves or removes files aside holds the directory's lock, and does without when somebody else has it.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use rustix::fs::{FlockOperation, Mode, OFlags};

use super::compressed::{self, Compressed};
use super::config::LogFiles;
use super::format::Format;

/// Docker's: the log may be read by the group that collects logs.
const MODE: u32 = 0o640;

/// `<path>.<number>`, compressed or not.
pub(super) fn aside(path: &Path, number: u32, compressed: bool) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    if compressed {
        name.push(".gz");
    }
    name.into()
}

fn unfinished(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".gz.tmp");
    name.into()
}

/// Opens the newest file for appending.
pub(super) fn open_for_append(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .append(true)
        .read(true)
        .create(true)
        .mode(MODE)
        .open(path)
}

/// Moves every file one number up, the oldest away, and makes a new empty one.
pub(super) fn rotate(path: &Path, max_file: u32) -> io::Result<File> {
    for compressed in [false, true] {
        ignore_missing(fs::remove_file(aside(path, max_file - 1, compressed)))?;
    }
    for number in (1..max_file - 1).rev() {
        for compressed in [false, true] {
            let from = aside(path, number, compressed);
            ignore_missing(fs::rename(from, aside(path, number + 1, compressed)))?;
        }
    }
    ignore_missing(fs::rename(path, aside(path, 1, false)))?;
    open_for_append(path)
}

fn ignore_missing(outcome: io::Result<()>) -> io::Result<()> {
    match outcome {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// What a compression that was cut short left behind.
pub(super) fn remove_unfinished(path: &Path) {
    let _ = fs::remove_file(unfinished(&aside(path, 1, false)));
}

/// Compresses `<path>.1` in a child process, because it would hold up the container's output. The child keeps
/// nothing of this process open.
pub(super) fn compress_aside(path: &Path, format: Format) -> io::Result<sys::process::Child> {
    let from = aside(path, 1, false);
    let source = File::open(&from)?;
    let target_path = unfinished(&from);
    let target = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(MODE)
        .open(&target_path)?;
    sys::process::spawn(sys::process::Options::default(), move || {
        let kept = [source.as_raw_fd(), target.as_raw_fd()];
        let done = sys::fd::close_all_except(&kept)
            .and_then(|()| compressed::write(&source, &target, format))
            .and_then(|()| fs::rename(&target_path, aside(path, 1, true)))
            .and_then(|()| fs::remove_file(&from));
        i32::from(done.is_err())
    })
}

/// The directory of a log, which its monitor may enter and nobody else.
pub(super) fn make_directory(directory: &Path) -> io::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o710)
        .create(directory)
}

/// The right to move and remove files aside, unless somebody else has it now.
pub(super) fn lock(path: &Path) -> Option<OwnedFd> {
    let directory = path.parent()?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::open(directory, flags, Mode::empty()).ok()?;
    rustix::fs::flock(&directory, FlockOperation::NonBlockingLockExclusive).ok()?;
    Some(directory)
}

/// Removes files aside whose last entry is older than it may become. `last` gives the time of it, by the same clock as `now`.
pub(super) fn remove_older(
    config: &LogFiles,
    now: i64,
    last: impl Fn(&Metadata, Identity) -> i64,
) -> io::Result<()> {
    let Some(most) = config.max_age else { return Ok(()) };
    let Some(_guard) = lock(&config.path) else {
        return Ok(());
    };
    for (path, metadata) in all_aside(config) {
        let age = now.saturating_sub(last(&metadata, identity_aside(&path, &metadata)));
        if u128::try_from(age).is_ok_and(|age| age >= most.as_nanos()) {
            ignore_missing(fs::remove_file(path))?;
        }
    }
    Ok(())
}

/// Which file one aside is, or was before it was compressed.
pub(super) fn identity_aside(path: &Path, metadata: &Metadata) -> Identity {
    let compressed = path.extension().is_some_and(|extension| extension == "gz");
    let original = || Compressed::open(File::open(path).ok()?).original();
    let original = compressed.then(original).flatten();
    original.unwrap_or_else(|| Identity::from(metadata))
}

pub(super) fn all_aside(config: &LogFiles) -> impl Iterator<Item = (PathBuf, Metadata)> + '_ {
    let names = (1..config.max_file)
        .flat_map(|number| [false, true].map(|compressed| aside(&config.path, number, compressed)));
    names.filter_map(|path| {
        let metadata = fs::metadata(&path).ok()?;
        Some((path, metadata))
    })
}

pub(super) fn written(metadata: &Metadata) -> u64 {
    let modified = metadata
        .modified()
        .ok()
        .and_then(|at| at.duration_since(UNIX_EPOCH).ok());
    modified.map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}

/// An open file of a log.
pub(super) enum Source {
    Plain(File),
    Compressed(Box<Compressed>),
}

impl Source {
    /// Opens the file with this number, 0 being the newest.
    pub(super) fn open(path: &Path, number: u32) -> io::Result<Option<(Source, Identity)>> {
        let plain = if number == 0 {
            path.to_path_buf()
        } else {
            aside(path, number, false)
        };
        match File::open(&plain) {
            Ok(file) => {
                let identity = Identity::from(&file.metadata()?);
                return Ok(Some((Source::Plain(file), identity)));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound && number > 0 => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        }
        match File::open(aside(path, number, true)) {
            Ok(file) => {
                let own = Identity::from(&file.metadata()?);
                let source = Compressed::open(file);
                let identity = source.original().unwrap_or(own);
                Ok(Some((Source::Compressed(Box::new(source)), identity)))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl Read for Source {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(file) => file.read(buffer),
            Self::Compressed(source) => source.read(buffer),
        }
    }
}

/// The file that entries were written to; it survives renaming and, by the header, compression. An inode number is
/// used again soon after its file is gone, so the time of its making belongs to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) inode: u64,
    /// Nanoseconds since 1970; 0 where the file system does not keep it.
    pub(super) born: u64,
}

impl From<&Metadata> for Identity {
    fn from(metadata: &Metadata) -> Self {
        let born = metadata
            .created()
            .ok()
            .and_then(|made| made.duration_since(UNIX_EPOCH).ok());
        let born = born
            .and_then(|since| u64::try_from(since.as_nanos()).ok())
            .unwrap_or(0);
        Self {
            inode: metadata.ino(),
            born,
        }
    }
}

impl Identity {
    pub(super) fn of(path: &Path) -> io::Result<Option<Self>> {
        match fs::metadata(path) {
            Ok(found) => Ok(Some(Self::from(&found))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Whether a child process has ended, waiting for it if asked.
pub(super) fn has_ended(child: &sys::process::Child, wait: bool) -> bool {
    use rustix::event::{PollFd, PollFlags, poll};
    let now = rustix::event::Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    loop {
        let mut fds = [PollFd::from_borrowed_fd(child.pidfd.as_fd(), PollFlags::IN)];
        match poll(&mut fds, if wait { None } else { Some(&now) }) {
            Ok(count) => return count > 0,
            Err(rustix::io::Errno::INTR) => {}
            // A descriptor that cannot be polled must not hold anything up.
            Err(_) => return true,
        }
    }
}
