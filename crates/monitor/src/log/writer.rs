//! Writing the log: every chunk of output becomes whole entries, at once; full files are put aside between entries.
//!
//! A failure to write (a full disk) loses the entries at hand and nothing else: it is told once, and writing is tried
//! again with the next chunk. A line that was torn by it, or by a crash, is ended first.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;

use super::config::{LogConfig, LogDriver};
use super::entry::{Encoder, Stream};
use super::files;
use crate::timestamp;

/// A container's log, open for writing. Only one writer may exist.
#[derive(Debug)]
pub struct Writer {
    /// None records nothing.
    target: Option<Target>,
    failing: bool,
    stdout: Encoder,
    stderr: Encoder,
}

/// The files.
#[derive(Debug)]
struct Target {
    config: LogConfig,
    file: File,
    size: u64,
    /// The last line of the file has no end.
    torn: bool,
    compressor: Option<sys::process::Child>,
}

impl Writer {
    /// Opens the log; what is there already is kept and appended to.
    pub fn open(config: &LogConfig) -> io::Result<Self> {
        let target = match config.driver {
            LogDriver::None => None,
            LogDriver::JsonFile | LogDriver::Local => Some(Target::open(config)?),
        };
        let encoder = |stream| Encoder::new(stream, &config.attributes);
        Ok(Self {
            target,
            failing: false,
            stdout: encoder(Stream::Stdout),
            stderr: encoder(Stream::Stderr),
        })
    }

    /// Records output. An error is the first of a streak: the log is incomplete from here until writing works again.
    pub fn push(&mut self, stream: Stream, chunk: &[u8]) -> io::Result<()> {
        self.record(stream, |encoder| encoder.push(chunk, timestamp::now()))
    }

    /// The stream has ended: what has no newline is recorded as it is.
    pub fn finish(&mut self, stream: Stream) -> io::Result<()> {
        self.record(stream, |encoder| encoder.finish(timestamp::now()))
    }

    fn record(&mut self, stream: Stream, encode: impl FnOnce(&mut Encoder)) -> io::Result<()> {
        let Some(target) = &mut self.target else {
            return Ok(());
        };
        let encoder = match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        };
        encode(encoder);
        let outcome = target.write(encoder.ready());
        encoder.clear_ready();
        match outcome {
            Ok(()) => {
                self.failing = false;
                Ok(())
            }
            Err(_) if self.failing => Ok(()),
            Err(error) => {
                self.failing = true;
                Err(error)
            }
        }
    }
}

impl Target {
    fn open(config: &LogConfig) -> io::Result<Self> {
        files::remove_unfinished(&config.path);
        let mut file = files::open_for_append(&config.path)?;
        let size = file.metadata()?.len();
        let torn = ends_torn(&mut file, size)?;
        Ok(Self {
            config: config.clone(),
            file,
            size,
            torn,
            compressor: None,
        })
    }

    fn write(&mut self, entries: &[u8]) -> io::Result<()> {
        let mut rest = entries;
        while !rest.is_empty() {
            let room = match self.config.max_size {
                Some(max) => {
                    if self.size >= max {
                        self.make_room()?;
                    }
                    max.saturating_sub(self.size)
                }
                None => u64::MAX,
            };
            // Up to the end of the entry that fills the file.
            let count = match usize::try_from(room) {
                Ok(room) if room < rest.len() => {
                    let from = room.saturating_sub(1);
                    let more = rest.iter().skip(from).position(|byte| *byte == b'\n');
                    more.map_or(rest.len(), |more| from + more + 1)
                }
                _ => rest.len(),
            };
            let (now, later) = rest.split_at(count);
            self.append(now)?;
            rest = later;
        }
        Ok(())
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.torn {
            self.file.write_all(b"\n")?;
            self.size += 1;
            self.torn = false;
        }
        let mut rest = bytes;
        while !rest.is_empty() {
            match self.file.write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    self.size += count as u64;
                    rest = rest.get(count..).unwrap_or_default();
                    self.torn = !rest.is_empty();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Puts the full file aside. While the one before is still being compressed the file may grow to twice its
    /// limit before output waits for it.
    fn make_room(&mut self) -> io::Result<()> {
        if let Some(child) = &self.compressor {
            let urgent = self
                .config
                .max_size
                .is_some_and(|max| self.size >= max.saturating_mul(2));
            if !files::has_ended(child, urgent) {
                return Ok(());
            }
            reap(child);
            self.compressor = None;
        }
        if self.config.max_file < 2 {
            self.file.set_len(0)?;
        } else {
            self.file = files::rotate(&self.config.path, self.config.max_file)?;
            if self.config.compress {
                self.compressor = Some(files::compress_aside(&self.config.path)?);
            }
        }
        self.size = 0;
        self.torn = false;
        Ok(())
    }
}

/// Another part of the process may reap every child; then there is nothing left to do here.
fn reap(child: &sys::process::Child) {
    let _ = sys::process::try_wait(child.pidfd.as_fd());
}

impl Drop for Target {
    fn drop(&mut self) {
        if let Some(child) = &self.compressor {
            files::has_ended(child, true);
            reap(child);
        }
    }
}

fn ends_torn(file: &mut File, size: u64) -> io::Result<bool> {
    if size == 0 {
        return Ok(false);
    }
    let mut last = [0u8; 1];
    file.seek(SeekFrom::Start(size - 1))?;
    file.read_exact(&mut last)?;
    Ok(last != [b'\n'])
}
