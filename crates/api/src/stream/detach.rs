//! Detach keys: the sequence that lets a client leave a terminal without ending what runs there.
//!
//! Bytes that may be the start of the sequence are held back until the next byte decides. Source: docker attach,
//! `--detach-keys`.

use crate::error::{ApiError, Result};

/// The keys where the client names none: ctrl-p, ctrl-q.
const DEFAULT: [u8; 2] = [16, 17];

/// A sequence being looked for in a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DetachKeys {
    keys: Vec<u8>,
    seen: usize,
}

impl DetachKeys {
    /// Reads `ctrl-p,ctrl-q` or `a,ctrl-[`; empty means the default.
    pub fn parse(text: &str) -> Result<Self> {
        if text.is_empty() {
            return Ok(Self {
                keys: DEFAULT.to_vec(),
                seen: 0,
            });
        }
        let keys = text.split(',').map(key).collect::<Option<Vec<u8>>>();
        keys.map(|keys| Self { keys, seen: 0 })
            .ok_or_else(|| ApiError::invalid(format!("Invalid detach keys ({text}) provided")))
    }

    /// Passes input through; gives what may go on to the container, and whether the sequence was completed (what comes after
    /// it is dropped).
    pub fn filter(&mut self, input: &[u8]) -> (Vec<u8>, bool) {
        let mut passed = Vec::with_capacity(input.len());
        for &byte in input {
            if self.keys.get(self.seen) == Some(&byte) {
                self.seen += 1;
                if self.seen == self.keys.len() {
                    self.seen = 0;
                    return (passed, true);
                }
                continue;
            }
            if self.seen > 0 {
                passed.extend(self.keys.iter().take(self.seen));
                self.seen = 0;
                // The byte that broke the sequence may begin it anew.
                if self.keys.first() == Some(&byte) {
                    self.seen = 1;
                    continue;
                }
            }
            passed.push(byte);
        }
        (passed, false)
    }

    /// What is still held back, at the end of input.
    pub fn rest(&mut self) -> Vec<u8> {
        let rest = self.keys.iter().take(self.seen).copied().collect();
        self.seen = 0;
        rest
    }
}

/// One key: a character, or `ctrl-` with a letter or one of `@ [ \ ] ^ _`.
fn key(text: &str) -> Option<u8> {
    let mut characters = text.bytes();
    if let (Some(byte), None) = (characters.next(), characters.next()) {
        return byte.is_ascii().then_some(byte);
    }
    let control = text.strip_prefix("ctrl-")?;
    match control.as_bytes() {
        [letter @ b'a'..=b'z'] => Some(letter - b'a' + 1),
        [b'@'] => Some(0),
        [sign @ b'['..=b'_'] => Some(sign - b'@'),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_are_read() {
        let keys = |text: &str| DetachKeys::parse(text).map(|keys| keys.keys);
        assert_eq!(keys("").unwrap(), [16, 17]);
        assert_eq!(keys("ctrl-a,x").unwrap(), [1, b'x']);
        assert_eq!(keys("ctrl-[,ctrl-@,ctrl-_").unwrap(), [27, 0, 31]);
        for bad in ["ctrl-", "ctrl-A,", "foo", "ctrl-é"] {
            let error = keys(bad).unwrap_err();
            assert_eq!(error.message, format!("Invalid detach keys ({bad}) provided"));
        }
    }

    #[test]
    fn the_sequence_ends_the_stream_across_reads() {
        let mut keys = DetachKeys::parse("").unwrap();
        assert_eq!(keys.filter(b"ab\x10"), (b"ab".to_vec(), false));
        assert_eq!(keys.filter(b"\x11cd"), (vec![], true));
    }

    #[test]
    fn a_broken_sequence_is_passed_on() {
        let mut keys = DetachKeys::parse("").unwrap();
        assert_eq!(keys.filter(b"\x10x"), (b"\x10x".to_vec(), false));
        assert_eq!(keys.filter(b"\x10\x10\x11"), (b"\x10".to_vec(), true));
        assert_eq!(keys.filter(b"\x10"), (vec![], false));
        assert_eq!(keys.rest(), b"\x10");
    }
}
