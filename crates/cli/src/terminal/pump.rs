//! Copies between the user's standard streams and a container's.
//!
//! Two threads, each blocking in its reads: one from the socket to stdout and stderr, one from stdin to the socket. The
//! output decides when it is over; a read of stdin can't be cut short, so that thread is left to the process's end.
//! Where there is nothing to do but to copy the output, [`output`] does it without a thread.

use super::keys::{DetachKeys, KeyWatch};
use crate::client::hijack::Hijacked;
use std::fs::File;
use std::io::{self, Read, Write};
use std::thread;
use tokio::sync::oneshot;

/// What to copy.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    /// The stream is raw; otherwise it has 8-byte headers.
    pub raw: bool,
    pub detach: Option<DetachKeys>,
}

/// A copy under way.
pub struct Pump {
    /// Everything the container wrote has been written here. The exit code, where the stream told it.
    pub output: oneshot::Receiver<io::Result<Option<i32>>>,
    /// The user typed the detach keys.
    pub detached: oneshot::Receiver<()>,
}

const BUFFER: usize = 64 << 10;
/// Most commands say little; a buffer costs by its size, because each page of it is made first.
const FIRST: usize = 4 << 10;

pub fn start(hijacked: Hijacked, wanted: Wanted) -> io::Result<Pump> {
    let (output_done, output) = oneshot::channel();
    let (detach, detached) = oneshot::channel();
    let writer = hijacked.socket.try_clone()?;
    let reader = hijacked.socket;
    let early = hijacked.early;
    let (stdout, stderr, raw) = (wanted.stdout, wanted.stderr, wanted.raw);
    thread::Builder::new().name("output".into()).spawn(move || {
        let source = io::Cursor::new(early).chain(reader);
        let result = if raw {
            copy_raw(source, stdout).map(|()| None)
        } else {
            copy_frames(source, stdout, stderr)
        };
        let _ = output_done.send(result);
    })?;
    if wanted.stdin {
        let keys = wanted.detach;
        thread::Builder::new().name("input".into()).spawn(move || {
            if copy_input(&writer, keys) {
                let _ = detach.send(());
            } else {
                Hijacked::close_write(&writer);
                // Keeps `detached` pending: end of input is not detaching.
                std::mem::forget(detach);
            }
        })?;
    } else {
        Hijacked::close_write(&writer);
        std::mem::forget(detach);
    }
    Ok(Pump { output, detached })
}

/// Copies framed output to its end, with no input. The exit code, where the stream told it.
pub fn output(hijacked: Hijacked) -> io::Result<Option<i32>> {
    Hijacked::close_write(&hijacked.socket);
    copy_frames(io::Cursor::new(hijacked.early).chain(hijacked.socket), true, true)
}

/// Answers whether the detach keys were typed.
fn copy_input(mut socket: &File, keys: Option<DetachKeys>) -> bool {
    let mut watch = keys.map(KeyWatch::new);
    let mut stdin = io::stdin().lock();
    let mut buffer = vec![0; 32 << 10];
    loop {
        let bytes = match stdin.read(&mut buffer) {
            Ok(0) => return false,
            Ok(count) => buffer.get(..count).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => return false,
        };
        let written = match &mut watch {
            None => socket.write_all(bytes),
            Some(watch) => {
                let (pass, detached) = watch.filter(bytes);
                if detached {
                    return true;
                }
                socket.write_all(&pass)
            }
        };
        if written.is_err() {
            return false;
        }
    }
}

fn copy_raw(mut source: impl Read, show: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let mut buffer = vec![0; BUFFER];
    loop {
        let count = match source.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(()),
            Err(error) => return Err(error),
        };
        if show {
            out.write_all(buffer.get(..count).unwrap_or_default())?;
            out.flush()?;
        }
    }
}

/// The frame that tells an exit code, in decimal digits.
const EXIT: u8 = 4;

/// Takes Docker's framing apart: `{stream, 0, 0, 0, length (big endian)}` and as many bytes.
#[derive(Default)]
pub struct Frames {
    header: Vec<u8>,
    stream: u8,
    left: usize,
}

impl Frames {
    /// Hands each piece of payload to `sink` with its stream (1 stdout, 2 stderr, 3 an error of the daemon, 4 an exit code).
    pub fn feed(
        &mut self,
        mut bytes: &[u8],
        sink: &mut dyn FnMut(u8, &[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        while !bytes.is_empty() {
            if self.left == 0 {
                let (head, rest) = bytes.split_at(bytes.len().min(8 - self.header.len()));
                self.header.extend_from_slice(head);
                bytes = rest;
                if let [stream, _, _, _, a, b, c, d] = *self.header.as_slice() {
                    if stream > EXIT {
                        let text = format!("unrecognized stream: {stream}");
                        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
                    }
                    self.stream = stream;
                    self.left = u32::from_be_bytes([a, b, c, d]) as usize;
                    self.header.clear();
                }
                continue;
            }
            let (payload, rest) = bytes.split_at(bytes.len().min(self.left));
            sink(self.stream, payload)?;
            self.left -= payload.len();
            bytes = rest;
        }
        Ok(())
    }
}

/// A sink that writes to the user's stdout and stderr.
pub fn to_standard(show_out: bool, show_err: bool) -> impl FnMut(u8, &[u8]) -> io::Result<()> {
    move |stream, bytes| match stream {
        2 if show_err => io::stderr().write_all(bytes),
        2 => Ok(()),
        3 => Err(io::Error::other(format!(
            "error from daemon in stream: {}",
            String::from_utf8_lossy(bytes)
        ))),
        _ if show_out => {
            let mut out = io::stdout().lock();
            out.write_all(bytes)?;
            out.flush()
        }
        _ => Ok(()),
    }
}

fn copy_frames(mut source: impl Read, show_out: bool, show_err: bool) -> io::Result<Option<i32>> {
    let mut frames = Frames::default();
    let mut sink = to_standard(show_out, show_err);
    let mut digits = String::new();
    let mut buffer = vec![0; FIRST];
    loop {
        let count = match source.read(&mut buffer) {
            Ok(0) => return Ok(digits.parse().ok()),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(digits.parse().ok()),
            Err(error) => return Err(error),
        };
        frames.feed(buffer.get(..count).unwrap_or_default(), &mut |stream, bytes| {
            if stream == EXIT {
                digits.push_str(&String::from_utf8_lossy(bytes));
                return Ok(());
            }
            sink(stream, bytes)
        })?;
        if count == buffer.len() {
            buffer.resize(BUFFER, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_frame_tells_the_exit_code() {
        let told = |bytes: &[u8]| copy_frames(bytes, false, false).unwrap();
        assert_eq!(told(b"\x01\0\0\0\0\0\0\x01a\x04\0\0\0\0\0\0\x03137"), Some(137));
        assert_eq!(told(b"\x01\0\0\0\0\0\0\x01a"), None);
    }

    #[test]
    fn frames_survive_any_cut() {
        let stream = b"\x01\0\0\0\0\0\0\x03abc\x02\0\0\0\0\0\0\x01e\x01\0\0\0\0\0\0\x00\x01\0\0\0\0\0\0\x01z";
        for cut in 1..stream.len() {
            let mut frames = Frames::default();
            let mut got: Vec<(u8, u8)> = Vec::new();
            for piece in stream.chunks(cut) {
                frames
                    .feed(piece, &mut |stream, bytes| {
                        got.extend(bytes.iter().map(|byte| (stream, *byte)));
                        Ok(())
                    })
                    .unwrap();
            }
            assert_eq!(got, [(1, b'a'), (1, b'b'), (1, b'c'), (2, b'e'), (1, b'z')]);
        }
        assert!(
            Frames::default()
                .feed(b"\x05\0\0\0\0\0\0\x01", &mut |_, _| Ok(()))
                .is_err()
        );
    }
}
