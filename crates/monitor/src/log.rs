//! The container's log: lines in Docker's json-file format, written by the monitor and read by anyone.
//!
//! ```text
//!   <path>            newest; appended to
//!   <path>.1[.gz]     the one before, and so on up to max_file - 1
//! ```
//!
//! Each entry is one line: `{"log":"text\n","stream":"stdout","attrs":{…},"time":"2026-11-23T21:26:04.9381Z"}`. A
//! line of the container longer than 16 KiB becomes several entries, of which only the last one's text ends in a
//! newline. Writer and reader share nothing but these files: a reader follows by inotify, holds what it reads open
//! across rotation, and knows a compressed file by the inode number that the original had, which stands in its gzip
//! header.

mod config;
mod entry;
mod files;
mod reader;
mod tail;
mod writer;

pub use config::{LogConfig, LogConfigError, LogDriver};
pub use entry::{LogLine, Stream};
pub use reader::{Next, ReadError, ReadOptions, Reader, Stopper};
pub use writer::Writer;
