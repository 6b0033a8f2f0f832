//! Reading and writing the small text files of a control group.
//!
//! A write is one `write(2)`: the kernel parses each write as a whole. Nothing is ever created: a file that is
//! not there means that the kernel lacks the feature, and the caller names the limit that needed it.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use crate::error::{CgroupError, Result};

/// Writes one value.
pub(crate) fn write(path: &Path, value: &str) -> Result<()> {
    raw_write(path, value).map_err(|source| CgroupError::Refused {
        path: path.to_path_buf(),
        value: value.to_owned(),
        source,
    })
}

/// Writes one value for a limit; a missing file is reported as the limit being unsupported.
pub(crate) fn write_limit(path: &Path, value: &str, limit: &'static str) -> Result<()> {
    match raw_write(path, value) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(CgroupError::NoFile {
            limit,
            path: path.to_path_buf(),
        }),
        Err(source) => Err(CgroupError::Refused {
            path: path.to_path_buf(),
            value: value.to_owned(),
            source,
        }),
    }
}

/// Writes a limit and reads it back; `same(written, found)` says whether the kernel's form means the same.
pub(crate) fn write_checked(
    path: &Path,
    value: &str,
    limit: &'static str,
    same: impl Fn(&str, &str) -> bool,
) -> Result<()> {
    write_limit(path, value, limit)?;
    let found = read(path)?;
    if same(value, found.trim()) {
        return Ok(());
    }
    Err(CgroupError::NotTaken {
        path: path.to_path_buf(),
        value: value.to_owned(),
        found: found.trim().to_owned(),
    })
}

pub(crate) fn raw_write(path: &Path, value: &str) -> io::Result<()> {
    // Truncation is meaningless on the kernel's files and makes plain files (tests) behave like them.
    let mut file = OpenOptions::new().write(true).truncate(true).open(path)?;
    file.write_all(value.as_bytes())
}

/// The whole text of a file.
pub(crate) fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).map_err(|error| CgroupError::io("read", path, error))
}

/// The whole text, or nothing when the file is not there.
pub(crate) fn read_optional(path: &Path) -> Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        // ENODEV: the group was removed between open and read. EOPNOTSUPP: pressure files when switched off.
        Err(error)
            if error.kind() == io::ErrorKind::NotFound
                || matches!(error.raw_os_error(), Some(ENODEV | EOPNOTSUPP)) =>
        {
            Ok(None)
        }
        Err(error) => Err(CgroupError::io("read", path, error)),
    }
}

pub(crate) const ENOENT: i32 = 2;
const ENODEV: i32 = 19;
const EOPNOTSUPP: i32 = 95;
pub(crate) const EBUSY: i32 = 16;

/// A number, where `max` (v2) and everything from 2^63 less a page up (v1) mean "no limit".
pub(crate) fn parse_limit(text: &str) -> Option<u64> {
    let text = text.trim();
    if text == "max" {
        return None;
    }
    text.parse::<u64>().ok().filter(|value| *value < UNLIMITED_V1)
}

/// The v1 counters top out at `LONG_MAX` rounded down to a page; 64 KiB pages give the lowest such value.
pub(crate) const UNLIMITED_V1: u64 = i64::MAX as u64 & !0xffff;

/// One number of a file; a file that is absent counts as nothing.
pub(crate) fn number(path: &Path) -> Result<Option<u64>> {
    Ok(read_optional(path)?.and_then(|text| text.trim().parse().ok()))
}

/// The value of `key` in a file of `key value` lines.
pub(crate) fn keyed(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let (name, value) = line.split_once(' ')?;
        (name == key).then(|| value.trim().parse().ok()).flatten()
    })
}

/// Every `key value` line of a file.
pub(crate) fn pairs(text: &str) -> impl Iterator<Item = (&str, u64)> {
    text.lines().filter_map(|line| {
        let (name, value) = line.split_once(' ')?;
        Some((name, value.trim().parse().ok()?))
    })
}
