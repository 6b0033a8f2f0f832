//! Writing a log's files: whole entries at once; full or old files are put aside between entries.
//!
//! A failure to write (a full disk) loses the entries at hand and nothing else: writing is tried again with the next
//! chunk. An entry that was torn by it is completed first, so that the file stays readable; one that was torn by a
//! crash is ended (JSON) or cut off (`local`) when the file is opened again.
//!
//! Ages are counted by a clock that nobody sets. The times that files have are those of a clock that somebody may set, so
//! they are read as of the offset between the two when they were made; of files of an earlier monitor, as of now.

use std::fs::{File, Metadata};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use super::config::LogFiles;
use super::files::{self, Identity};
use super::format::{Encoder, Format};
use super::lines::Entry;
use super::tail;
use crate::timestamp;

#[derive(Debug)]
pub(super) struct Sink {
    config: LogFiles,
    encoder: Encoder,
    file: File,
    size: u64,
    /// Entries that are not written yet.
    batch: Vec<u8>,
    /// The rest of an entry that was torn.
    owed: Vec<u8>,
    /// When the file's first entry was written, if that counts. This and the next two in nanoseconds since the boot.
    began: Option<i64>,
    /// When [`Sink::age`] has something to do.
    look: Option<i64>,
    /// When the last entry was written of each file that was put aside.
    aside: Vec<(Identity, i64)>,
    /// [`timestamp::ahead`] when the file was last written.
    ahead: i64,
    compressor: Option<sys::process::Child>,
}

/// Memory for a burst is given back.
const KEPT: usize = 8 * 1024;

impl Sink {
    pub(super) fn open(
        config: &LogFiles,
        attributes: &std::collections::BTreeMap<String, String>,
    ) -> io::Result<Self> {
        if let Some(directory) = config.path.parent() {
            files::make_directory(directory)?;
        }
        files::remove_unfinished(&config.path);
        let file = files::open_for_append(&config.path)?;
        let mut size = file.metadata()?.len();
        let mut owed = Vec::new();
        match config.format {
            Format::Json => {
                if size > 0 {
                    let mut last = [0u8; 1];
                    file.read_exact_at(&mut last, size - 1)?;
                    if last != *b"\n" {
                        owed.push(b'\n');
                    }
                }
            }
            Format::Local => {
                let whole = tail::whole_frames(&file)?;
                if whole < size {
                    file.set_len(whole)?;
                    size = whole;
                }
            }
        }
        let (steady, ahead) = (timestamp::steady(), timestamp::ahead());
        let began = config.max_age.and_then(|_| {
            let first = tail::first_time(&file, config.format)?;
            Some(by_steady(first, ahead).min(steady))
        });
        let mut sink = Self {
            config: config.clone(),
            encoder: Encoder::new(config.format, attributes),
            file,
            size,
            batch: Vec::new(),
            owed,
            began,
            look: None,
            aside: Vec::new(),
            ahead,
            compressor: None,
        };
        sink.plan(steady);
        Ok(sink)
    }

    /// Adds an entry; it is in the file after [`Sink::flush`] at the latest.
    pub(super) fn add(&mut self, entry: &Entry<'_>) -> io::Result<()> {
        let now = self.config.max_age.map(|_| timestamp::steady());
        if let Some(now) = now
            && self.batch.is_empty()
            && self.is_old(now)
        {
            self.make_room(now)?;
        }
        self.encoder.append(entry, &mut self.batch);
        if let (Some(now), None) = (now, self.began) {
            self.began = Some(now);
            self.plan(now);
        }
        let full = self
            .config
            .max_size
            .is_some_and(|max| self.size + self.batch.len() as u64 >= max);
        if full || self.batch.len() >= 1 << 20 {
            self.flush()?;
        }
        Ok(())
    }

    pub(super) fn flush(&mut self) -> io::Result<()> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let mut batch = std::mem::take(&mut self.batch);
        let outcome = self.write(&batch);
        batch.clear();
        if batch.capacity() <= KEPT {
            self.batch = batch;
        }
        outcome
    }

    fn write(&mut self, entries: &[u8]) -> io::Result<()> {
        if self.config.max_size.is_some_and(|max| self.size >= max) {
            self.make_room(timestamp::steady())?;
        }
        if self.config.max_age.is_some() {
            self.ahead = timestamp::ahead();
        }
        if !self.owed.is_empty() {
            let owed = std::mem::take(&mut self.owed);
            let written = self.append(&owed);
            if let Err((done, error)) = written {
                self.owed = owed.get(done..).unwrap_or_default().to_vec();
                return Err(error);
            }
        }
        self.append(entries).map_err(|(done, error)| {
            // The entry in which the disk became full is completed when there is room again.
            let whole = self.config.format.whole(entries.get(..done).unwrap_or_default());
            if whole < done
                && let super::format::Head::Entry(length) = self
                    .config
                    .format
                    .head(entries.get(whole..).unwrap_or_default(), 0)
            {
                self.owed = entries.get(done..whole + length).unwrap_or_default().to_vec();
            }
            error
        })
    }

    /// Writes all of it, or says how much.
    fn append(&mut self, bytes: &[u8]) -> Result<(), (usize, io::Error)> {
        let mut done = 0;
        while let Some(rest) = bytes.get(done..).filter(|rest| !rest.is_empty()) {
            match self.file.write(rest) {
                Ok(0) => return Err((done, io::ErrorKind::WriteZero.into())),
                Ok(count) => {
                    self.size += count as u64;
                    done += count;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err((done, error)),
            }
        }
        Ok(())
    }

    fn is_old(&self, now: i64) -> bool {
        match (self.config.max_age, self.began) {
            (Some(most), Some(began)) => {
                u128::try_from(now.saturating_sub(began)).is_ok_and(|age| age >= most.as_nanos())
            }
            _ => false,
        }
    }

    /// When [`Sink::age`] has something to do, in nanoseconds since the boot.
    pub(super) fn next_look(&self) -> Option<i64> {
        self.look
    }

    fn plan(&mut self, now: i64) {
        let Some(most) = self.config.max_age else { return };
        self.meet_aside(now);
        let most = i64::try_from(most.as_nanos()).unwrap_or(i64::MAX);
        let oldest = self.aside.iter().map(|(_, last)| *last).min();
        let due = oldest.into_iter().chain(self.began).min();
        // Not at once again, should it be impossible now.
        let soonest = now.saturating_add(1_000_000_000);
        self.look = due.map(|since| since.saturating_add(most).max(soonest));
    }

    /// Takes in the files aside that are there, and forgets those that are not.
    fn meet_aside(&mut self, now: i64) {
        let there = files::all_aside(&self.config).map(|(path, metadata)| {
            let identity = files::identity_aside(&path, &metadata);
            (identity, self.last_of(&metadata, identity, now))
        });
        self.aside = there.collect();
    }

    /// When the last entry of a file aside was written. One that is met for the first time and of the future (the clock was
    /// put back) is new.
    fn last_of(&self, metadata: &Metadata, identity: Identity, now: i64) -> i64 {
        let known = self.aside.iter().find(|(known, _)| *known == identity);
        let read = || by_steady(files::written(metadata), timestamp::ahead()).min(now);
        known.map_or_else(read, |(_, last)| *last)
    }

    /// Puts aside and removes what has become too old, also when nothing is written.
    pub(super) fn age(&mut self, now: i64) -> io::Result<()> {
        let aside = if self.size > 0 && self.is_old(now) {
            self.make_room(now)
        } else {
            Ok(())
        };
        let last = |metadata: &Metadata, identity| self.last_of(metadata, identity, now);
        let removed = files::remove_older(&self.config, now, last);
        self.plan(now);
        aside.and(removed)
    }

    /// Puts the full file aside. While the one before is still being compressed, or somebody removes old ones, the
    /// file may grow to twice its limit before output waits for it.
    fn make_room(&mut self, now: i64) -> io::Result<()> {
        if !self.owed.is_empty() {
            // The torn entry belongs to this file.
            return Ok(());
        }
        let urgent = self
            .config
            .max_size
            .is_some_and(|max| self.size >= max.saturating_mul(2));
        if let Some(child) = &self.compressor {
            if !files::has_ended(child, urgent) {
                return Ok(());
            }
            reap(child);
            self.compressor = None;
        }
        if self.config.max_file < 2 {
            self.file.set_len(0)?;
        } else {
            let Some(_guard) = files::lock(&self.config.path) else {
                return Ok(());
            };
            if self.config.max_age.is_some() {
                let metadata = self.file.metadata()?;
                let last = by_steady(files::written(&metadata), self.ahead).min(now);
                self.aside.push((Identity::from(&metadata), last));
            }
            self.file = files::rotate(&self.config.path, self.config.max_file)?;
            if self.config.compress {
                self.compressor = Some(files::compress_aside(&self.config.path, self.config.format)?);
            }
        }
        self.size = 0;
        self.began = None;
        self.plan(now);
        Ok(())
    }
}

/// A time of day as nanoseconds since the boot, where the one is so far ahead of the other.
fn by_steady(time: u64, ahead: i64) -> i64 {
    i64::try_from(time).unwrap_or(i64::MAX).saturating_sub(ahead)
}

/// Another part of the process may reap every child; then there is nothing left to do here.
fn reap(child: &sys::process::Child) {
    let _ = sys::process::try_wait(child.pidfd.as_fd());
}

impl Drop for Sink {
    fn drop(&mut self) {
        if let Some(child) = &self.compressor {
            files::has_ended(child, true);
            reap(child);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::super::lines::Stream;
    use super::*;

    const HOUR: i64 = 3600 * 1_000_000_000;
    const YEAR: i64 = 365 * 24 * HOUR;

    fn log(directory: &std::path::Path) -> LogFiles {
        LogFiles {
            format: Format::Json,
            path: directory.join("log"),
            max_size: None,
            max_file: 3,
            max_age: Some(Duration::from_nanos(HOUR.unsigned_abs())),
            compress: false,
        }
    }

    fn put(sink: &mut Sink, text: &str) {
        let entry = Entry {
            stream: Stream::Stdout,
            time: timestamp::now(),
            text: text.as_bytes(),
            partial: None,
        };
        sink.add(&entry).unwrap();
        sink.flush().unwrap();
    }

    /// As if the clock had been so far from where it is now when the file was last written.
    fn written_by_another_clock(sink: &mut Sink, away: i64) {
        let (now, by) = (SystemTime::now(), Duration::from_nanos(away.unsigned_abs()));
        let then = if away < 0 { now - by } else { now + by };
        let file = File::options().write(true).open(&sink.config.path).unwrap();
        file.set_modified(then).unwrap();
        sink.ahead += away;
    }

    #[test]
    fn files_are_as_old_as_they_are_whatever_the_clock_was_set_to() {
        for away in [-YEAR, YEAR] {
            let root = tempfile::tempdir().unwrap();
            let config = log(root.path());
            let mut sink = Sink::open(&config, &Default::default()).unwrap();
            put(&mut sink, "first");
            written_by_another_clock(&mut sink, away);
            let aside = files::aside(&config.path, 1, false);
            sink.age(sink.began.unwrap() + HOUR - 1).unwrap();
            assert!(!aside.exists(), "not old yet, {away}");
            let first_is_old = sink.began.unwrap() + HOUR;
            sink.make_room(first_is_old).unwrap();
            let last = sink.aside[0].1;
            sink.age(last + HOUR - 1).unwrap();
            assert!(aside.exists(), "its last entry is not old yet, {away}");
            sink.age(last + HOUR).unwrap();
            assert!(!aside.exists(), "its last entry is old, {away}");
            assert_eq!((sink.next_look(), sink.aside.len()), (None, 0));
            // The two times are of one moment.
            assert!(
                (last + HOUR - first_is_old).abs() < HOUR / 2,
                "{last} {first_is_old}"
            );
        }
    }

    #[test]
    fn files_of_an_earlier_monitor_are_no_newer_than_now() {
        let root = tempfile::tempdir().unwrap();
        let config = log(root.path());
        put(&mut Sink::open(&config, &Default::default()).unwrap(), "first");
        let aside = files::aside(&config.path, 1, false);
        std::fs::rename(&config.path, &aside).unwrap();
        let file = File::options().write(true).open(&aside).unwrap();
        let ahead = Duration::from_nanos(YEAR.unsigned_abs());
        file.set_modified(SystemTime::now() + ahead).unwrap();
        let mut sink = Sink::open(&config, &Default::default()).unwrap();
        let due = sink.next_look().unwrap();
        assert!(due <= timestamp::steady() + HOUR, "{due}");
        sink.age(due - 1).unwrap();
        assert!(aside.exists());
        sink.age(due).unwrap();
        assert!(!aside.exists());
    }
}
