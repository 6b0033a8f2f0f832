//! Writing a log's files: whole entries at once; full or old files are put aside between entries.
//!
//! A failure to write (a full disk) loses the entries at hand and nothing else: writing is tried again with the next
//! chunk. An entry that was torn by it is completed first, so that the file stays readable; one that was torn by a
//! crash is ended (JSON) or cut off (`local`) when the file is opened again.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use super::config::LogFiles;
use super::files;
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
    /// When the file's first entry was written, in nanoseconds since 1970.
    began: Option<u64>,
    /// When [`Sink::age`] has something to do, in nanoseconds since 1970.
    look: Option<u64>,
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
        let began = tail::first_time(&file, config.format);
        let mut sink = Self {
            config: config.clone(),
            encoder: Encoder::new(config.format, attributes),
            file,
            size,
            batch: Vec::new(),
            owed,
            began,
            look: None,
            compressor: None,
        };
        sink.plan(timestamp::now());
        Ok(sink)
    }

    /// Adds an entry; it is in the file after [`Sink::flush`] at the latest.
    pub(super) fn add(&mut self, entry: &Entry<'_>) -> io::Result<()> {
        if self.batch.is_empty() && self.is_old(entry.time) {
            self.make_room(entry.time)?;
        }
        self.encoder.append(entry, &mut self.batch);
        if self.began.is_none() {
            self.began = Some(entry.time);
            self.plan(entry.time);
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
            self.make_room(timestamp::now())?;
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

    fn is_old(&self, now: u64) -> bool {
        match (self.config.max_age, self.began) {
            (Some(most), Some(began)) => u128::from(now.saturating_sub(began)) >= most.as_nanos(),
            _ => false,
        }
    }

    /// When [`Sink::age`] has something to do, in nanoseconds since 1970.
    pub(super) fn next_look(&self) -> Option<u64> {
        self.look
    }

    fn plan(&mut self, now: u64) {
        let Some(most) = self.config.max_age else { return };
        let most = u64::try_from(most.as_nanos()).unwrap_or(u64::MAX);
        let oldest = files::oldest_aside(&self.config);
        let due = oldest.into_iter().chain(self.began).min();
        // Not at once again, should it be impossible now.
        let soonest = now.saturating_add(1_000_000_000);
        self.look = due.map(|since| since.saturating_add(most).max(soonest));
    }

    /// Puts aside and removes what has become too old, also when nothing is written.
    pub(super) fn age(&mut self, now: u64) -> io::Result<()> {
        let aside = if self.size > 0 && self.is_old(now) {
            self.make_room(now)
        } else {
            Ok(())
        };
        let removed = files::remove_older(&self.config, now);
        self.plan(now);
        aside.and(removed)
    }

    /// Puts the full file aside. While the one before is still being compressed, or somebody removes old ones, the
    /// file may grow to twice its limit before output waits for it.
    fn make_room(&mut self, now: u64) -> io::Result<()> {
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
