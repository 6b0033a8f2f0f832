//! The container's log: what its process prints, written by the monitor and read by anyone.
//!
//! ```text
//!   <path>            newest; appended to
//!   <path>.1[.gz]     the one before, and so on up to max_file - 1
//! ```
//!
//! Output is cut into lines once; each entry goes into the files, in Docker's `json-file` or `local` form, and to
//! the process that sends it elsewhere if there is one. Rotation happens between entries only. Writer and reader
//! share nothing but the files: a reader follows by inotify, holds what it reads open across rotation, and knows a
//! compressed file by the inode number that the original had, which stands in its gzip header.

mod address;
mod budget;
mod compressed;
mod config;
mod destination;
mod details;
mod files;
mod format;
mod json;
mod lines;
pub(crate) mod local;
mod options;
mod pipe;
mod reader;
mod sink;
mod tail;
mod writer;

use std::collections::BTreeMap;

use jiff::Timestamp;

pub use budget::{Spent, enforce, size};
pub use config::{LogConfig, LogFiles};
pub use details::Subject;
pub use format::Format;
pub(crate) use lines::Entry;
pub use lines::{Partial, Stream};
pub use options::{Driver, LogConfigError, binary_size};
pub use pipe::Report;
pub use reader::{Next, ReadError, ReadOptions, Reader, Stopper};
pub use writer::{Trouble, Writer};

/// An entry as read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    pub time: Timestamp,
    pub stream: Stream,
    /// With its newline, if it has one.
    pub bytes: Vec<u8>,
    /// The text goes on in the next entry of the stream, or the output ended without a newline.
    pub partial: bool,
    /// Those that stand in the entry itself.
    pub attributes: BTreeMap<String, String>,
}
