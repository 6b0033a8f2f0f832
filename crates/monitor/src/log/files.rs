//! The files of a log: their names, putting one aside, compressing it, telling which is which.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use flate2::bufread::MultiGzDecoder;
use flate2::{Compression, GzBuilder};

/// Docker's: the log may be read by the group that collects logs.
const MODE: u32 = 0o640;

/// Our mark in the extra field of a gzip header, with the length of what follows (RFC 1952 §2.3.1.1).
const MARK: [u8; 4] = [b'B', b'e', 16, 0];

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
pub(super) fn compress_aside(path: &Path) -> io::Result<sys::process::Child> {
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
            .and_then(|()| compress(&source, &target))
            .and_then(|()| fs::rename(&target_path, aside(path, 1, true)))
            .and_then(|()| fs::remove_file(&from));
        i32::from(done.is_err())
    })
}

fn compress(mut source: &File, target: &File) -> io::Result<()> {
    let mut extra = MARK.to_vec();
    let identity = Identity::from(&source.metadata()?);
    extra.extend_from_slice(&identity.inode.to_le_bytes());
    extra.extend_from_slice(&identity.born.to_le_bytes());
    // Level 3: nearly as small as 6 for logs, in half the time.
    let mut encoder = GzBuilder::new().extra(extra).write(target, Compression::new(3));
    let mut buffer = vec![0u8; 64 * 1024];
    loop {
        match source.read(&mut buffer)? {
            0 => break,
            count => encoder.write_all(buffer.get(..count).unwrap_or_default())?,
        }
    }
    encoder.finish()?;
    Ok(())
}

/// An open file of a log.
pub(super) enum Source {
    Plain(File),
    Compressed(Box<MultiGzDecoder<io::BufReader<File>>>),
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
                let decoder = MultiGzDecoder::new(io::BufReader::new(file));
                // The header has been read by now.
                let identity = decoder
                    .header()
                    .and_then(|header| original(header.extra()?))
                    .unwrap_or(own);
                Ok(Some((Source::Compressed(Box::new(decoder)), identity)))
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
            Self::Compressed(decoder) => decoder.read(buffer),
        }
    }
}

/// The file that entries were written to; it survives renaming and, by the header, compression. An inode number is
/// used again soon after its file is gone, so the time of its making belongs to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    inode: u64,
    /// Nanoseconds since 1970; 0 where the file system does not keep it.
    born: u64,
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

fn original(extra: &[u8]) -> Option<Identity> {
    let numbers = extra.strip_prefix(&MARK)?;
    let number = |range: std::ops::Range<usize>| numbers.get(range)?.try_into().ok().map(u64::from_le_bytes);
    Some(Identity {
        inode: number(0..8)?,
        born: number(8..16)?,
    })
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
