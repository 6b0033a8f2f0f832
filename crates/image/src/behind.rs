//! A blob that is written and hashed beside what makes it.
//!
//! Making a large layer is reading, hashing and compressing on one side, hashing and writing what comes of it on the other: two
//! processors do it at once. A small blob stays with whoever makes it, since a thread costs more than it.

use std::io::{self, Write};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use crate::scratch::ScratchBlob;

/// How much is handed over at once.
const PIECE: usize = 256 << 10;
/// How many pieces may wait.
const WAITING: usize = 8;
/// From how many bytes on a thread writes.
const LARGE: u64 = 2 << 20;

/// A blob under way. Dropped unfinished, it is gone when the drop ends.
pub(crate) struct Behind {
    piece: Vec<u8>,
    writer: Writer,
}

/// Who writes.
enum Writer {
    /// Whoever has the blob.
    Own(Box<ScratchBlob>),
    Thread(
        mpsc::SyncSender<Vec<u8>>,
        JoinHandle<io::Result<Box<ScratchBlob>>>,
    ),
    /// Nobody: that failed and was told.
    None,
}

fn ended() -> io::Error {
    io::Error::other("a thread that writes a blob has ended")
}

impl Behind {
    pub(crate) fn new(blob: ScratchBlob) -> Behind {
        Behind {
            piece: Vec::new(),
            writer: Writer::Own(Box::new(blob)),
        }
    }

    /// Waits until all of it is written; the blob, which is still to be made visible.
    pub(crate) fn finish(mut self) -> io::Result<ScratchBlob> {
        self.hand_over()?;
        match std::mem::replace(&mut self.writer, Writer::None) {
            Writer::Own(blob) => Ok(*blob),
            Writer::Thread(pieces, thread) => {
                drop(pieces);
                Ok(*thread.join().map_err(|_| ended())??)
            }
            Writer::None => Err(ended()),
        }
    }

    fn hand_over(&mut self) -> io::Result<()> {
        let piece = std::mem::take(&mut self.piece);
        let failed = match &mut self.writer {
            Writer::Own(blob) => {
                blob.write_all(&piece)?;
                false
            }
            Writer::Thread(pieces, _) => pieces.send(piece).is_err(),
            Writer::None => return Err(ended()),
        };
        match std::mem::replace(&mut self.writer, Writer::None) {
            Writer::Own(blob) if blob.size() >= LARGE => self.writer = begin(blob),
            // Nobody takes pieces any more: the thread has the reason.
            Writer::Thread(pieces, thread) if failed => {
                drop(pieces);
                let blob = thread.join().map_err(|_| ended())??;
                drop(blob);
                return Err(ended());
            }
            writer => self.writer = writer,
        }
        Ok(())
    }
}

/// Has a thread write the rest. Where none can be had, it stays with whoever makes it.
fn begin(blob: Box<ScratchBlob>) -> Writer {
    let (pieces, queue) = mpsc::sync_channel::<Vec<u8>>(WAITING);
    let (given, taken) = mpsc::sync_channel::<Box<ScratchBlob>>(1);
    let thread = thread::Builder::new()
        .name("write-blob".to_owned())
        .spawn(move || {
            let mut blob = taken.recv().map_err(|_| ended())?;
            for piece in queue {
                blob.write_all(&piece)?;
            }
            Ok(blob)
        });
    match thread {
        Ok(thread) => match given.send(blob) {
            Ok(()) => Writer::Thread(pieces, thread),
            Err(mpsc::SendError(blob)) => Writer::Own(blob),
        },
        Err(_) => Writer::Own(blob),
    }
}

impl Write for Behind {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.piece.extend_from_slice(bytes);
        if self.piece.len() >= PIECE {
            self.hand_over()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Behind {
    fn drop(&mut self) {
        if let Writer::Thread(pieces, thread) = std::mem::replace(&mut self.writer, Writer::None) {
            drop(pieces);
            // What it wrote goes with it.
            drop(thread.join());
        }
    }
}

#[cfg(test)]
mod tests {
    use spec::Digest;
    use store::Store;

    use super::*;

    #[test]
    fn what_is_written_comes_out_whoever_writes_it() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let large = usize::try_from(LARGE).unwrap();
        for length in [0, 5, PIECE, large, 3 * large + 7] {
            let bytes: Vec<u8> = (0..length).map(|at| (at / 251) as u8).collect();
            let mut behind = Behind::new(ScratchBlob::new(store.content()).unwrap());
            for piece in bytes.chunks(100_000) {
                behind.write_all(piece).unwrap();
            }
            let sealed = behind.finish().unwrap().seal().unwrap();
            assert_eq!(*sealed.digest(), Digest::sha256(&bytes), "{length} bytes");
            assert_eq!(sealed.size(), length as u64);
        }
    }

    #[test]
    fn an_unfinished_blob_is_gone_when_it_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let under_way = || {
            std::fs::read_dir(dir.path().join("content/ingest"))
                .unwrap()
                .count()
        };
        for pieces in [1, 40] {
            let mut behind = Behind::new(ScratchBlob::new(store.content()).unwrap());
            for _ in 0..pieces {
                behind.write_all(&[7; PIECE]).unwrap();
            }
            assert_eq!(under_way(), 1);
            drop(behind);
            assert_eq!(under_way(), 0, "{pieces} pieces");
        }
    }
}
