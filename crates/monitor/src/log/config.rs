//! Where one container's output goes, once its driver's name and options are understood (see [`options`]).
//!
//! [`options`]: super::options

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::format::Format;
use crate::forward::Forward;

/// Settings of one container's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogConfig {
    /// The files that are written, and read by `logs`. A driver that sends entries elsewhere keeps a cache there.
    pub files: Option<LogFiles>,
    /// The process that sends entries elsewhere.
    pub forward: Option<Forward>,
    /// Bytes of a line that are kept in one entry.
    pub max_line: usize,
    /// What the container's labels, environment and tag add to every entry.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, String>,
}

/// A log in files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogFiles {
    pub format: Format,
    /// The newest file; older ones lie beside it.
    pub path: PathBuf,
    /// Bytes at which a file is put aside; None is never.
    pub max_size: Option<u64>,
    /// How many files there are at most, the newest included. With one, the file is emptied when it is full.
    pub max_file: u32,
    /// The age of its first entry at which a file is put aside, and of its last one at which it is removed.
    pub max_age: Option<Duration>,
    /// Compress what is put aside.
    pub compress: bool,
}

impl LogConfig {
    /// Nothing is recorded.
    pub fn none() -> Self {
        Self {
            files: None,
            forward: None,
            max_line: super::options::MAX_LINE,
            attributes: BTreeMap::new(),
        }
    }

    /// One kind of files and nothing else.
    pub fn of_files(files: LogFiles) -> Self {
        Self {
            files: Some(files),
            ..Self::none()
        }
    }
}
