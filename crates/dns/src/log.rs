//! What was asked and who answered: one line of JSON per query in a file beside the container's table, for
//! `network dns-log`. Bounded: at [`LARGEST`] bytes the file becomes `<container>.log.1` and a new one begins.
//!
//! A log that cannot be written is no reason not to answer; it is left out.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// The run directory is memory, and there is a log for each container.
const LARGEST: u64 = 32 * 1024;

/// One query.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Entry {
    /// When it was answered, in microseconds since 1970.
    pub time: u64,
    /// The name, as asked in lower case; empty where it is no host name.
    pub name: String,
    /// `A`, `AAAA`, `PTR`, …, or `TYPE65` for one without a name here.
    pub kind: String,
    /// `names` for the tables of the container's networks, else the server that answered (`192.0.2.1:53`), or `nobody`.
    pub by: String,
    /// The response code: `NOERROR`, `NXDOMAIN`, …
    pub code: String,
    /// The addresses or names that the tables gave.
    pub answers: Vec<String>,
    /// How long the asker waited, in microseconds.
    pub took: u64,
}

/// Where the log of a container's resolver lies, given its table.
pub fn path(table: &Path) -> PathBuf {
    table.with_extension("log")
}

fn older(log: &Path) -> PathBuf {
    log.with_extension("log.1")
}

/// Everything that is kept of a container's queries, oldest first.
pub fn read(table: &Path) -> Vec<Entry> {
    let log = path(table);
    let mut entries = Vec::new();
    for file in [older(&log), log] {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        // The last line may be half written.
        entries.extend(
            text.lines()
                .filter_map(|line| serde_json::from_str::<Entry>(line).ok()),
        );
    }
    entries
}

/// Removes a container's log.
pub fn remove(table: &Path) {
    let log = path(table);
    for file in [older(&log), log] {
        let _ = std::fs::remove_file(file);
    }
}

pub(crate) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

/// The end of a container's log that is written to.
#[derive(Debug)]
pub(crate) struct Log {
    path: PathBuf,
    open: Option<(File, u64)>,
}

impl Log {
    pub(crate) fn new(table: &Path) -> Log {
        Log {
            path: path(table),
            open: None,
        }
    }

    pub(crate) fn write(&mut self, entry: &Entry) {
        let Ok(mut line) = serde_json::to_vec(entry) else {
            return;
        };
        line.push(b'\n');
        if self.open.as_ref().is_some_and(|(_, size)| *size >= LARGEST) {
            self.open = None;
            let _ = std::fs::rename(&self.path, older(&self.path));
        }
        if self.open.is_none() {
            let file = OpenOptions::new().create(true).append(true).open(&self.path);
            self.open = file
                .ok()
                .map(|file| (file.metadata().map_or(0, |m| m.len()), file))
                .map(|(size, file)| (file, size));
        }
        if let Some((file, size)) = &mut self.open {
            *size += line.len() as u64;
            if file.write_all(&line).is_err() {
                self.open = None;
            }
        }
    }
}

/// The name of a record type.
pub(crate) fn kind(number: u16) -> String {
    let name = match number {
        1 => "A",
        2 => "NS",
        5 => "CNAME",
        6 => "SOA",
        12 => "PTR",
        15 => "MX",
        16 => "TXT",
        28 => "AAAA",
        33 => "SRV",
        64 => "SVCB",
        65 => "HTTPS",
        255 => "ANY",
        other => return format!("TYPE{other}"),
    };
    name.to_owned()
}

/// The name of a response code.
pub(crate) fn code(number: u8) -> String {
    let name = match number {
        0 => "NOERROR",
        1 => "FORMERR",
        2 => "SERVFAIL",
        3 => "NXDOMAIN",
        4 => "NOTIMP",
        5 => "REFUSED",
        other => return format!("RCODE{other}"),
    };
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_keeps_the_latest_and_stays_small() {
        let dir = tempfile::tempdir().unwrap();
        let table = dir.path().join("c1.json");
        let mut log = Log::new(&table);
        for number in 0..5000u64 {
            log.write(&Entry {
                took: number,
                name: "web".to_owned(),
                ..Entry::default()
            });
        }
        let kept = read(&table);
        let numbers: Vec<u64> = kept.iter().map(|entry| entry.took).collect();
        assert!(numbers.is_sorted() && numbers.last() == Some(&4999));
        let size: u64 = std::fs::read_dir(dir.path())
            .unwrap()
            .map(|file| file.unwrap().metadata().unwrap().len())
            .sum();
        assert!(size < 3 * LARGEST && size > LARGEST, "{size}");
        remove(&table);
        assert!(read(&table).is_empty());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
