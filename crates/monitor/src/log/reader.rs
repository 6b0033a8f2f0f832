//! Reading the log: from its beginning, or the last lines, or a time on; and following it while it grows.
//!
//! All files are opened first, newest to oldest, so that rotation cannot take one away; a file met twice because it
//! moved meanwhile is known by its [`Identity`]. Following watches the directory: inotify tells of growth and of
//! rotation, and the reader drains the file it holds before it goes on to the newer ones.

use std::collections::VecDeque;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use spec::ErrorClass;

use super::LogLine;
use super::config::{LogConfig, LogFiles};
use super::files::{Identity, Source};
use super::format::{Format, Head};
use super::tail::{self, Found};

/// What to read.
#[derive(Debug, Clone, Default)]
pub struct ReadOptions {
    /// Leave out what is older.
    pub since: Option<Timestamp>,
    /// Leave out what is newer, and follow no longer than this.
    pub until: Option<Timestamp>,
    /// Only the last entries, counted before any other choice.
    pub tail: Option<u64>,
    /// Wait for more at the end.
    pub follow: bool,
    pub stdout: bool,
    pub stderr: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("configured logging driver does not support reading")]
    NotRecorded,
    #[error("cannot read the log {}", path.display())]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

impl ReadError {
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::NotRecorded => ErrorClass::NotImplemented,
            Self::Io { .. } => ErrorClass::Internal,
        }
    }
}

/// What is to be had now.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    Line(LogLine),
    /// Nothing yet; the reader's descriptor becomes readable when it is worth asking again.
    Pending,
    End,
}

/// A log being read. As an iterator it blocks at the end when it follows.
pub struct Reader {
    path: PathBuf,
    format: Format,
    max_file: u32,
    options: ReadOptions,
    /// Files still to be read, oldest first; the current one is first.
    sources: VecDeque<Opened>,
    /// The file that was read last, for finding the ones after it.
    last: Option<Identity>,
    buffer: Vec<u8>,
    /// Start of what is not yet consumed.
    at: usize,
    /// Start of what is not yet searched for the end of the entry.
    searched: usize,
    /// Bytes read of the current file.
    offset: u64,
    /// Entries still to be read, where it does not follow and only the last ones were asked for.
    left: Option<u64>,
    watch: Option<OwnedFd>,
    /// It follows no longer than this, to whatever the clock is set meanwhile.
    deadline: Option<Instant>,
    stop: Arc<Stop>,
    ended: bool,
}

struct Opened {
    source: Source,
    identity: Identity,
    /// Lines to leave out at the beginning.
    skip: u64,
    /// Bytes of a plain file after which nothing is read.
    end: Option<u64>,
}

#[derive(Debug)]
struct Stop {
    finish: AtomicBool,
    event: Option<OwnedFd>,
}

/// Ends a reader that follows, from another thread.
#[derive(Debug, Clone)]
pub struct Stopper(Arc<Stop>);

impl Stopper {
    /// Nothing more will be written: the reader ends when it has read everything.
    pub fn finish(&self) {
        self.0.finish.store(true, Ordering::Release);
        if let Some(event) = &self.0.event {
            // A full counter is as readable as it gets.
            let _ = rustix::io::write(event, &1u64.to_ne_bytes());
        }
    }
}

const CHUNK: usize = 64 * 1024;

impl Reader {
    /// Opens the log. A log that was never written is empty.
    pub fn open(config: &LogConfig, options: ReadOptions) -> Result<Self, ReadError> {
        let Some(files) = &config.files else {
            return Err(ReadError::NotRecorded);
        };
        let failed = |source| ReadError::Io {
            path: files.path.clone(),
            source,
        };
        Self::open_files(files, options).map_err(failed)
    }

    fn open_files(config: &LogFiles, mut options: ReadOptions) -> io::Result<Self> {
        let (mut watch, mut event) = (None, None);
        let directory = config.path.parent().unwrap_or(Path::new("/"));
        let left = options.until.map(|until| until.duration_since(Timestamp::now()));
        // A container that never ran has no directory for its log, and nothing to wait for. Nor is there after an end that
        // has passed.
        options.follow &= directory.is_dir() && left.is_none_or(|left| left.is_positive());
        if options.follow {
            // Watched before anything is read: whatever is written from here on wakes.
            let made = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
            let of_interest =
                WatchFlags::MODIFY | WatchFlags::CREATE | WatchFlags::MOVED_TO | WatchFlags::DELETE_SELF;
            inotify::add_watch(&made, directory, of_interest)?;
            watch = Some(made);
            event = Some(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        }
        let mut reader = Self {
            path: config.path.clone(),
            format: config.format,
            max_file: config.max_file,
            sources: VecDeque::new(),
            last: None,
            buffer: Vec::new(),
            at: 0,
            searched: 0,
            offset: 0,
            left: None,
            watch,
            deadline: left.and_then(|left| Instant::now().checked_add(Duration::try_from(left).ok()?)),
            stop: Arc::new(Stop {
                finish: AtomicBool::new(false),
                event,
            }),
            ended: false,
            options,
        };
        reader.open_newer_than(None)?;
        // What is written after this moment is not read without following, or whoever writes quickly would never let a
        // reader come to an end, and more than the last lines would be shown.
        match reader.options.tail {
            Some(count) => {
                let kept = reader.keep_last(count)?;
                reader.left = (!reader.options.follow).then_some(kept);
            }
            None if reader.options.follow => {}
            None => reader.end_where_it_ends()?,
        }
        Ok(reader)
    }

    /// For ending this reader from elsewhere.
    pub fn stopper(&self) -> Stopper {
        Stopper(Arc::clone(&self.stop))
    }

    /// The next entry if there is one now.
    pub fn next_ready(&mut self) -> Result<Next, ReadError> {
        self.advance().map_err(|source| ReadError::Io {
            path: self.path.clone(),
            source,
        })
    }

    fn advance(&mut self) -> io::Result<Next> {
        while !self.ended {
            // Asked before reading: whoever finishes has written everything before.
            let finished = self.stop.finish.load(Ordering::Acquire);
            if let Some(line) = self.next_line()? {
                // Passed over, not the end: where the clock was put back, earlier lines follow later ones.
                if self.options.until.is_some_and(|until| line.time > until) {
                    if self.options.follow && self.is_late() {
                        break;
                    }
                    continue;
                }
                let early = self.options.since.is_some_and(|since| line.time < since);
                if line.is_of(self.options.stdout, self.options.stderr) && !early {
                    return Ok(Next::Line(line));
                }
                continue;
            }
            if !self.options.follow {
                break;
            }
            self.drain_watch();
            if self.has_grown()? {
                continue;
            }
            if finished || self.is_late() {
                break;
            }
            return Ok(Next::Pending);
        }
        self.ended = true;
        Ok(Next::End)
    }

    /// Whether the end that was asked for has come, by the clock or without it.
    fn is_late(&self) -> bool {
        self.options.until.is_some_and(|until| Timestamp::now() > until)
            || self.deadline.is_some_and(|deadline| Instant::now() > deadline)
    }

    /// The next whole entry of the open files. What is no entry is left out.
    fn next_line(&mut self) -> io::Result<Option<LogLine>> {
        loop {
            let held = self.buffer.get(self.at..).unwrap_or_default();
            match self.format.head(held, self.searched.saturating_sub(self.at)) {
                Head::Entry(length) => {
                    let skipped = match self.sources.front_mut() {
                        Some(source) if source.skip > 0 => {
                            source.skip -= 1;
                            true
                        }
                        _ => false,
                    };
                    match &mut self.left {
                        Some(0) => return Ok(None),
                        Some(left) if !skipped => *left -= 1,
                        _ => {}
                    }
                    let entry = held.get(..length).filter(|_| !skipped);
                    let entry = entry.and_then(|bytes| self.format.decode(bytes));
                    self.at += length;
                    self.searched = self.at;
                    match entry {
                        Some(entry) => return Ok(Some(entry)),
                        None => continue,
                    }
                }
                Head::Short(searched) => self.searched = self.at + searched,
                // Nothing after the damage can be told apart: on to the next file.
                Head::Damaged => self.at = self.buffer.len(),
            }
            if self.fill()? {
                continue;
            }
            // The newest file stays open: it may grow.
            if self.sources.len() < 2 {
                return Ok(None);
            }
            self.next_source();
        }
    }

    fn fill(&mut self) -> io::Result<bool> {
        let Some(current) = self.sources.front_mut() else {
            return Ok(false);
        };
        if self.at > 0 {
            self.buffer.drain(..self.at);
            self.searched = self.searched.saturating_sub(self.at);
            self.at = 0;
        }
        let length = self.buffer.len();
        let more = current.end.map_or(CHUNK, |end| {
            usize::try_from(end.saturating_sub(self.offset)).map_or(CHUNK, |more| more.min(CHUNK))
        });
        self.buffer.resize(length + more, 0);
        let outcome = loop {
            match current
                .source
                .read(self.buffer.get_mut(length..).unwrap_or_default())
            {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other,
            }
        };
        let count = *outcome.as_ref().unwrap_or(&0);
        self.buffer.truncate(length + count);
        self.offset += count as u64;
        match outcome {
            Ok(count) => Ok(count > 0),
            // A compressed file that is damaged ends where the damage is.
            Err(_) if matches!(current.source, Source::Compressed(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn next_source(&mut self) {
        self.sources.pop_front();
        // What a file ends with, without a newline, is torn.
        self.buffer.clear();
        (self.at, self.searched, self.offset) = (0, 0, 0);
        if let Some(source) = self.sources.front() {
            self.last = Some(source.identity);
        }
    }

    /// Whether there is more to read than a moment ago: the file was rotated away, or emptied, or not there before.
    fn has_grown(&mut self) -> io::Result<bool> {
        let Some(newest) = Identity::of(&self.path)? else {
            return Ok(false);
        };
        if self.last == Some(newest) {
            let Some(Opened {
                source: Source::Plain(file),
                ..
            }) = self.sources.front_mut()
            else {
                return Ok(false);
            };
            let length = file.metadata()?.len();
            if length < self.offset {
                file.seek(SeekFrom::Start(0))?;
                self.buffer.clear();
                (self.at, self.searched, self.offset) = (0, 0, 0);
            }
            return Ok(length != self.offset);
        }
        let last = self.last;
        let known = self.sources.len();
        self.open_newer_than(last)?;
        Ok(self.sources.len() > known)
    }

    /// Opens every file that is newer than the one named (all of them when none is), behind those open already.
    fn open_newer_than(&mut self, known: Option<Identity>) -> io::Result<()> {
        let mut newer: Vec<Opened> = Vec::new();
        for number in 0..self.max_file.max(1) {
            match Source::open(&self.path, number)? {
                Some((_, identity)) if Some(identity) == known => break,
                Some((_, identity)) if newer.iter().any(|opened| opened.identity == identity) => {}
                Some((source, identity)) => newer.push(Opened {
                    source,
                    identity,
                    skip: 0,
                    end: None,
                }),
                // A gap is a rotation in progress, or the end of what there is.
                None => {}
            }
        }
        self.sources.extend(newer.into_iter().rev());
        if self.last.is_none() {
            self.last = self.sources.front().map(|source| source.identity);
        }
        Ok(())
    }

    /// Leaves out what the newest file, the only one that grows, does not have yet.
    fn end_where_it_ends(&mut self) -> io::Result<()> {
        if let Some(Opened {
            source: Source::Plain(file),
            end,
            ..
        }) = self.sources.back_mut()
        {
            *end = Some(file.metadata()?.len());
        }
        Ok(())
    }

    /// Leaves out everything before the last `wanted` lines; gives how many there are of them.
    fn keep_last(&mut self, wanted: u64) -> io::Result<u64> {
        let (mut count, mut keep) = (wanted, 0);
        for opened in self.sources.iter_mut().rev() {
            keep += 1;
            match &mut opened.source {
                Source::Plain(file) => match tail::last_entries(file, self.format, count)? {
                    Found::At(offset) => {
                        file.seek(SeekFrom::Start(offset))?;
                        count = 0;
                    }
                    Found::Only(lines) => count -= lines,
                },
                Source::Compressed(source) => {
                    let lines = source.seek_last(count, self.format)?;
                    opened.skip = lines.saturating_sub(count);
                    count = count.saturating_sub(lines);
                }
            }
            if count == 0 {
                break;
            }
        }
        let surplus = self.sources.len() - keep;
        self.sources.drain(..surplus);
        if let Some(Opened {
            source: Source::Plain(file),
            ..
        }) = self.sources.front_mut()
        {
            self.offset = file.stream_position()?;
        }
        self.last = self.sources.front().map(|source| source.identity);
        Ok(wanted - count)
    }

    fn drain_watch(&self) {
        let Some(watch) = &self.watch else { return };
        let mut buffer = [0u8; 4096];
        while rustix::io::read(watch, &mut buffer).is_ok_and(|count| count > 0) {}
    }

    fn wait(&self) -> io::Result<()> {
        let (Some(watch), Some(event)) = (&self.watch, &self.stop.event) else {
            return Ok(());
        };
        let mut fds = [
            PollFd::from_borrowed_fd(watch.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(event.as_fd(), PollFlags::IN),
        ];
        let left = self.deadline.map(|deadline| {
            let left = deadline.saturating_duration_since(Instant::now());
            Timespec::try_from(left + Duration::from_millis(1)).unwrap_or(Timespec {
                tv_sec: 1,
                tv_nsec: 0,
            })
        });
        match poll(&mut fds, left.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

impl Iterator for Reader {
    type Item = Result<LogLine, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.next_ready() {
                Ok(Next::Line(line)) => return Some(Ok(line)),
                Ok(Next::End) => return None,
                Ok(Next::Pending) => {
                    if let Err(source) = self.wait() {
                        self.ended = true;
                        return Some(Err(ReadError::Io {
                            path: self.path.clone(),
                            source,
                        }));
                    }
                }
                Err(error) => {
                    self.ended = true;
                    return Some(Err(error));
                }
            }
        }
    }
}

impl Reader {
    /// Readable when it is worth asking [`Reader::next_ready`] again; none when it does not follow.
    pub fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.watch.as_ref().map(AsFd::as_fd)
    }
}
