//! gzip in steps that know nothing of each other, so that all processors compress, and what cannot be compressed costs
//! nothing.
//!
//! ```text
//!   content ── steps of 256 KiB ──> threads ──> deflate, level 1, up to a byte's boundary ──> one member
//!                                          └──> stored, where samples become no smaller
//! ```
//!
//! What comes out depends on nothing but the content: layers that were let go are made again by it (`recipe`), so it may
//! never change. Any reader of gzip reads it. Source: RFC 1951 (3.2.4, stored blocks), RFC 1952.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use flate2::{Compress, Crc, FlushCompress};

/// A member without a name and a time, by a fast compressor, on Unix.
pub(crate) const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 4, 3];
/// A last block with nothing in it.
const END: [u8; 2] = [3, 0];
const STEP: usize = 256 << 10;
/// The most bytes of a stored block.
const STORED: usize = 65_535;
/// Where a step is looked at, in its eighths, and how much of it.
const SAMPLES: [usize; 4] = [1, 3, 5, 7];
const SAMPLE: usize = 4 << 10;
const MOST_THREADS: usize = 4;
/// Steps that wait for a thread.
const AHEAD: usize = 2;

/// Compresses steps, one at a time.
struct Packer {
    deflate: Compress,
}

impl Packer {
    fn new() -> Packer {
        Packer {
            deflate: Compress::new(flate2::Compression::new(1), false),
        }
    }

    fn pack(&mut self, step: &[u8]) -> io::Result<Vec<u8>> {
        let sample = |eighth: &usize| {
            let start = step.len() / 8 * eighth;
            step.get(start..start + SAMPLE)
        };
        // Less than that is compressed in no time.
        let samples: Option<Vec<&[u8]>> = SAMPLES.iter().map(sample).collect();
        let mut hopeless = samples.is_some();
        for sample in samples.unwrap_or_default() {
            hopeless = hopeless && self.deflate(sample)?.len() > SAMPLE / 32 * 31;
        }
        match hopeless {
            true => store(step),
            false => self.deflate(step),
        }
    }

    fn deflate(&mut self, bytes: &[u8]) -> io::Result<Vec<u8>> {
        self.deflate.reset();
        // More than it can become: a call that has to be gone on with may mark the boundary twice.
        let mut packed = Vec::with_capacity(bytes.len() + bytes.len() / 4 + 1024);
        self.deflate
            .compress_vec(bytes, &mut packed, FlushCompress::Sync)
            .map_err(io::Error::other)?;
        let all_in = self.deflate.total_in() == bytes.len() as u64;
        match all_in && packed.len() < packed.capacity() {
            true => Ok(packed),
            false => Err(io::Error::other("deflate made too much of a step")),
        }
    }
}

fn store(step: &[u8]) -> io::Result<Vec<u8>> {
    let mut stored = Vec::with_capacity(step.len() + 5 * step.len().div_ceil(STORED));
    for block in step.chunks(STORED) {
        let length = u16::try_from(block.len()).map_err(io::Error::other)?;
        stored.push(0);
        stored.extend(length.to_le_bytes());
        stored.extend((!length).to_le_bytes());
        stored.extend(block);
    }
    Ok(stored)
}

/// A thread that compresses what it is sent, in its order.
struct Worker {
    steps: mpsc::SyncSender<Vec<u8>>,
    packed: mpsc::Receiver<io::Result<Vec<u8>>>,
    thread: JoinHandle<()>,
}

impl Worker {
    fn start() -> io::Result<Worker> {
        let (steps, work) = mpsc::sync_channel::<Vec<u8>>(AHEAD);
        let (done, packed) = mpsc::sync_channel(AHEAD);
        let thread = thread::Builder::new()
            .name("compress".to_owned())
            .spawn(move || {
                let mut packer = Packer::new();
                for step in work {
                    if done.send(packer.pack(&step)).is_err() {
                        return;
                    }
                }
            })?;
        Ok(Worker {
            steps,
            packed,
            thread,
        })
    }
}

/// A compressor at work. Whoever drops it unfinished has written the beginning of a stream.
pub(crate) struct Steps<W: Write> {
    out: W,
    crc: Crc,
    step: Vec<u8>,
    packer: Packer,
    threads: usize,
    /// There from the second step on.
    workers: Vec<Worker>,
    /// Who compresses what was not written yet, in the order of the content.
    under_way: VecDeque<usize>,
    next: usize,
}

impl<W: Write> Steps<W> {
    /// With as many threads as this machine has processors for.
    pub(crate) fn new(out: W) -> io::Result<Steps<W>> {
        let processors = thread::available_parallelism().map_or(1, usize::from);
        Steps::with(out, processors.min(MOST_THREADS))
    }

    /// One thread is the caller's.
    pub(crate) fn with(mut out: W, threads: usize) -> io::Result<Steps<W>> {
        out.write_all(&HEADER)?;
        Ok(Steps {
            out,
            crc: Crc::new(),
            step: Vec::new(),
            packer: Packer::new(),
            threads,
            workers: Vec::new(),
            under_way: VecDeque::new(),
            next: 0,
        })
    }

    pub(crate) fn finish(mut self) -> io::Result<W> {
        let last = std::mem::take(&mut self.step);
        self.drain(0)?;
        if !last.is_empty() {
            let packed = self.packer.pack(&last)?;
            self.out.write_all(&packed)?;
        }
        self.out.write_all(&END)?;
        self.out.write_all(&self.crc.sum().to_le_bytes())?;
        // Modulo 2^32, as the format wants it.
        self.out.write_all(&self.crc.amount().to_le_bytes())?;
        for Worker { steps, thread, .. } in self.workers {
            drop(steps);
            thread
                .join()
                .map_err(|_| io::Error::other("a thread that compresses has ended"))?;
        }
        Ok(self.out)
    }

    /// What came out of the whole steps so far.
    pub(crate) fn so_far(mut self) -> io::Result<W> {
        self.drain(0)?;
        Ok(self.out)
    }

    /// Writes what was compressed, up to so many steps that may wait.
    fn drain(&mut self, waiting: usize) -> io::Result<()> {
        let ended = || io::Error::other("a thread that compresses has ended");
        while self.under_way.len() > waiting {
            let worker = self.under_way.pop_front().and_then(|at| self.workers.get(at));
            let packed = worker.ok_or_else(ended)?.packed.recv().map_err(|_| ended())??;
            self.out.write_all(&packed)?;
        }
        Ok(())
    }

    fn whole_step(&mut self) -> io::Result<()> {
        if self.threads < 2 {
            let packed = self.packer.pack(&self.step)?;
            self.out.write_all(&packed)?;
            self.step.clear();
            return Ok(());
        }
        while self.workers.len() < self.threads {
            match Worker::start() {
                Ok(worker) => self.workers.push(worker),
                // Where no more threads are to be had, those that are there do.
                Err(_) if self.workers.len() > 1 => self.threads = self.workers.len(),
                Err(_) => {
                    (self.threads, self.workers) = (1, Vec::new());
                    return self.whole_step();
                }
            }
        }
        let step = std::mem::replace(&mut self.step, Vec::with_capacity(STEP));
        let worker = self.workers.get(self.next);
        let sent = worker.is_some_and(|worker| worker.steps.send(step).is_ok());
        if !sent {
            return Err(io::Error::other("a thread that compresses has ended"));
        }
        self.under_way.push_back(self.next);
        self.next = (self.next + 1) % self.threads;
        // Nobody waits for a place that only this thread makes free.
        self.drain(self.threads * AHEAD - 1)
    }
}

impl<W: Write> Write for Steps<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = STEP.saturating_sub(self.step.len()).min(bytes.len());
        let taken = bytes.get(..room).unwrap_or_default();
        self.step.extend_from_slice(taken);
        self.crc.update(taken);
        if self.step.len() >= STEP {
            self.whole_step()?;
        }
        Ok(room)
    }

    fn flush(&mut self) -> io::Result<()> {
        // A flush would show in what is made.
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    fn noise(length: usize) -> Vec<u8> {
        let mut state = 0x2545_f491_4f6c_dd1d_u64;
        let words = std::iter::repeat_with(move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        });
        words.flat_map(u64::to_le_bytes).take(length).collect()
    }

    fn packed(content: &[u8], threads: usize, pieces: usize) -> Vec<u8> {
        let mut steps = Steps::with(Vec::new(), threads).unwrap();
        for piece in content.chunks(pieces) {
            steps.write_all(piece).unwrap();
        }
        steps.finish().unwrap()
    }

    #[test]
    fn every_content_comes_back_whoever_compresses() {
        let text = b"the quick brown fox ".repeat(100_000);
        let mixed = [&text[..700_000], &noise(1_300_000), &text[..5]].concat();
        for content in [&[][..], b"x", &text, &noise(STEP), &noise(STEP * 9 + 1), &mixed] {
            let alone = packed(content, 1, 1000);
            for (threads, pieces) in [(2, 512), (3, 100_000), (4, 1 << 20)] {
                let together = packed(content, threads, pieces);
                assert!(together == alone, "{} bytes, {threads} threads", content.len());
            }
            let mut back = Vec::new();
            flate2::read::GzDecoder::new(&alone[..])
                .read_to_end(&mut back)
                .unwrap();
            assert!(back == content, "{} bytes", content.len());
        }
    }

    #[test]
    fn what_cannot_be_compressed_is_stored_and_what_can_is_not() {
        let stored = packed(&noise(4 << 20), 2, 1 << 20);
        assert!(stored.len() < (4 << 20) + 16 * 5 * 5 + 100, "{}", stored.len());
        let text = b"the quick brown fox ".repeat(100_000);
        assert!(packed(&text, 2, 1 << 20).len() < text.len() / 20);
        // One sample that becomes smaller is enough.
        let mut partly = noise(STEP);
        partly[STEP / 8 * 5..STEP / 8 * 7].fill(b'a');
        assert!(packed(&partly, 1, STEP).len() < STEP / 10 * 9);
    }
}
