//! Output that a listener has not taken yet: the first of it in memory, what follows in a file without a name.
//!
//! Bytes come out in the order in which they went in, and what went in is kept: a file that cannot be written or made
//! (a full disk) makes the backlog full, it loses nothing. Being full is a word to whoever fills it, not a refusal.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::rc::Rc;

use rustix::fs::{Mode, OFlags};

/// Bytes kept in memory before a file is used.
const MEMORY: usize = 128 * 1024;
/// Bytes kept before the backlog is full.
pub(super) const LIMIT: u64 = 64 * 1024 * 1024;

#[derive(Debug)]
pub(super) struct Backlog {
    /// Where the file is made.
    dir: Rc<Path>,
    memory: Vec<u8>,
    /// How much of `memory` is taken.
    taken: usize,
    spill: Option<Spill>,
    /// What the file did not take.
    rest: Vec<u8>,
}

#[derive(Debug)]
struct Spill {
    file: File,
    read: u64,
    written: u64,
}

impl Backlog {
    pub(super) fn new(dir: Rc<Path>) -> Self {
        Self {
            dir,
            memory: Vec::new(),
            taken: 0,
            spill: None,
            rest: Vec::new(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.head().is_empty()
    }

    pub(super) fn is_full(&self) -> bool {
        let spilled = self.spill.as_ref().map_or(0, |spill| spill.written - spill.read);
        spilled >= LIMIT || !self.rest.is_empty()
    }

    /// What is to be taken next; all of it when this is empty.
    pub(super) fn head(&self) -> &[u8] {
        self.memory.get(self.taken..).unwrap_or_default()
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        let fits = self.head().len() + bytes.len() <= MEMORY || self.is_empty();
        if self.spill.is_none() && self.rest.is_empty() && fits {
            // Who is always a little behind would otherwise keep all that was ever said.
            self.memory.drain(..self.taken);
            self.taken = 0;
            self.memory.extend_from_slice(bytes);
        } else if !self.rest.is_empty() || self.write(bytes).is_err() {
            self.rest.extend_from_slice(bytes);
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let spill = match &mut self.spill {
            Some(spill) => spill,
            None => {
                let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
                let file = rustix::fs::open(&*self.dir, flags, Mode::RUSR | Mode::WUSR)?;
                self.spill.insert(Spill {
                    file: File::from(file),
                    read: 0,
                    written: 0,
                })
            }
        };
        spill.file.write_all_at(bytes, spill.written)?;
        spill.written += bytes.len() as u64;
        Ok(())
    }

    /// Forgets the first `count` bytes of the head. Fails when what follows cannot be read.
    pub(super) fn take(&mut self, count: usize) -> io::Result<()> {
        self.taken += count;
        if !self.is_empty() {
            return Ok(());
        }
        self.taken = 0;
        self.memory = Vec::new();
        if let Some(spill) = &mut self.spill {
            let left = usize::try_from(spill.written - spill.read).unwrap_or(usize::MAX);
            self.memory.resize(left.min(MEMORY), 0);
            spill.file.read_exact_at(&mut self.memory, spill.read)?;
            spill.read += self.memory.len() as u64;
            if spill.read == spill.written {
                self.spill = None;
            }
        }
        if self.memory.is_empty() {
            self.memory = std::mem::take(&mut self.rest);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(number: usize, length: usize) -> Vec<u8> {
        (0..length).map(|at| ((number * 31 + at) % 251) as u8).collect()
    }

    #[test]
    fn bytes_come_out_in_their_order_from_memory_and_file() {
        let dir = tempfile::tempdir().unwrap();
        let mut backlog = Backlog::new(dir.path().into());
        let (mut all, mut got) = (Vec::new(), Vec::new());
        for number in 0..400 {
            let bytes = chunk(number, 1 + number * 7 % 4096);
            all.extend_from_slice(&bytes);
            backlog.push(&bytes);
            // Taken at another pace than it comes, so that it is empty at times and long at others.
            if number % 100 > 60 {
                let count = backlog.head().len().min(number * 100);
                got.extend_from_slice(&backlog.head()[..count]);
                backlog.take(count).unwrap();
            }
        }
        while !backlog.is_empty() {
            let count = backlog.head().len().min(10_000);
            got.extend_from_slice(&backlog.head()[..count]);
            backlog.take(count).unwrap();
        }
        assert!(got == all);
        assert!(!backlog.is_full());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn without_a_place_for_a_file_it_is_full_and_loses_nothing() {
        let mut backlog = Backlog::new(Path::new("/nonexistent").into());
        let bytes = chunk(1, MEMORY - 1);
        backlog.push(&bytes);
        assert!(!backlog.is_full());
        backlog.push(b"more");
        backlog.push(b" and more");
        assert!(backlog.is_full());
        assert_eq!(backlog.head(), bytes);
        backlog.take(bytes.len()).unwrap();
        assert!(!backlog.is_full());
        assert_eq!(backlog.head(), b"more and more");
    }

    #[test]
    fn who_is_always_a_little_behind_keeps_a_little() {
        let mut backlog = Backlog::new(Path::new("/nonexistent").into());
        for number in 0..10_000 {
            backlog.push(&chunk(number, 1000));
            if number > 10 {
                backlog.take(1000).unwrap();
            }
        }
        assert!(!backlog.is_empty() && backlog.memory.len() <= 2 * MEMORY);
    }

    #[test]
    fn a_long_one_is_full() {
        let dir = tempfile::tempdir().unwrap();
        let mut backlog = Backlog::new(dir.path().into());
        let bytes = vec![7; 1 << 20];
        while !backlog.is_full() {
            backlog.push(&bytes);
        }
        let mut count = 0;
        while !backlog.is_empty() {
            count += backlog.head().len() as u64;
            backlog.take(backlog.head().len()).unwrap();
        }
        assert_eq!(count, LIMIT + (1 << 20));
    }
}
