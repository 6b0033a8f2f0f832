//! Looking at the files of a result, as somebody whose `/` it is: links lead nowhere outside.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::{AsFd, OwnedFd};

use ::session::files::{entry, entry_of};
use bollard_buildkit_proto::fsutil::types::Stat as Entry;
use build::pattern::Pattern;
use rustix::fs::{Mode, OFlags};
use sys::beneath::{list_sorted, resolve_in_root};

use crate::error::Failure;

/// The most that is read of a file at once, so that an answer fits in one message.
const MAX_READ: u64 = 4 << 20;

/// The files of a result.
pub struct Look {
    root: OwnedFd,
}

fn failed(path: &str) -> impl Fn(io::Error) -> Failure {
    move |error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
            Failure::not_found(format!("{path}: no such file or directory"))
        }
        _ => Failure::internal(format!("{path}: {error}")),
    }
}

impl Look {
    pub fn at(root: OwnedFd) -> Look {
        Look { root }
    }

    /// A file's content, or `length` bytes of it from `offset` on.
    pub fn file(&self, path: &str, range: Option<(i64, i64)>) -> Result<Vec<u8>, Failure> {
        let fail = failed(path);
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
        let mut file =
            File::from(resolve_in_root(self.root.as_fd(), path, flags, Mode::empty()).map_err(&fail)?);
        let meta = file.metadata().map_err(&fail)?;
        if !meta.is_file() {
            return Err(Failure::invalid(format!("{path} is no regular file")));
        }
        let (offset, length) = range.unwrap_or((0, 0));
        let unsigned =
            |number: i64| u64::try_from(number).map_err(|_| Failure::invalid("a range cannot be negative"));
        let (offset, length) = (unsigned(offset)?, unsigned(length)?);
        let length = match length {
            0 if meta.len().saturating_sub(offset) > MAX_READ => {
                return Err(Failure::invalid(format!(
                    "{path} has more than {MAX_READ} bytes: read it in pieces"
                )));
            }
            0 => MAX_READ,
            length => length.min(MAX_READ),
        };
        file.seek(SeekFrom::Start(offset)).map_err(&fail)?;
        let mut data = Vec::new();
        file.take(length).read_to_end(&mut data).map_err(&fail)?;
        Ok(data)
    }

    /// What lies in a directory, as far as its name matches.
    pub fn directory(&self, path: &str, pattern: &str) -> Result<Vec<Entry>, Failure> {
        let fail = failed(path);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let opened = resolve_in_root(self.root.as_fd(), path, flags, Mode::empty()).map_err(&fail)?;
        let pattern = match pattern {
            "" => None,
            text => Some(Pattern::new(text).map_err(|error| Failure::invalid(error.to_string()))?),
        };
        let names = list_sorted(opened.as_fd()).map_err(&fail)?;
        let names = names.iter().filter(|name| {
            let name = name.to_string_lossy();
            pattern.as_ref().is_none_or(|pattern| pattern.matches(&name))
        });
        names
            .map(|name| {
                let told = entry_of(opened.as_fd(), name, name.to_string_lossy().into_owned());
                told.map(|(entry, _)| entry).map_err(&fail)
            })
            .collect()
    }

    /// What is at `path`; a link is told as the link.
    pub fn stat(&self, path: &str) -> Result<Entry, Failure> {
        let fail = failed(path);
        let (above, name) = path.trim_end_matches('/').rsplit_once('/').unwrap_or(("", path));
        if matches!(name, "" | "." | "..") {
            let opened =
                resolve_in_root(self.root.as_fd(), path, OFlags::PATH, Mode::empty()).map_err(&fail)?;
            let stat = rustix::fs::fstat(&opened).map_err(|error| fail(error.into()))?;
            return Ok(entry(&stat, "/".to_owned()));
        }
        let above = format!("/{above}");
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let parent = resolve_in_root(self.root.as_fd(), above, flags, Mode::empty()).map_err(&fail)?;
        let told = entry_of(parent.as_fd(), OsStr::new(name), name.to_owned());
        told.map(|(entry, _)| entry).map_err(&fail)
    }
}
