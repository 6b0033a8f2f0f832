//! One stream's output cut into lines, however the chunks fall.
//!
//! A line is kept whole up to a limit; what is longer comes in pieces that say so ([`Partial`]), each but the last
//! as long as the limit allows without tearing a character. What has no newline yet stays inside.

use memchr::memchr;

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    pub fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }

    /// Its number in the frames of an attach stream.
    pub fn number(self) -> u8 {
        match self {
            Self::Stdout => 1,
            Self::Stderr => 2,
        }
    }

    pub(crate) fn of(name: &str) -> Option<Self> {
        match name {
            "stdout" => Some(Self::Stdout),
            "stderr" => Some(Self::Stderr),
            _ => None,
        }
    }
}

/// A piece of a line that was too long, as Docker's drivers tell it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partial {
    /// The same for all pieces of a line.
    pub id: String,
    /// From 1.
    pub ordinal: u32,
    /// The line ends here. Output that ends without a newline has no such piece.
    pub last: bool,
}

/// A line, or a piece of one, without its newline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry<'a> {
    pub(crate) stream: Stream,
    /// Nanoseconds since 1970.
    pub(crate) time: u64,
    pub(crate) text: &'a [u8],
    pub(crate) partial: Option<Partial>,
}

impl Entry<'_> {
    /// Whether a newline followed.
    pub(crate) fn ends_line(&self) -> bool {
        self.partial.as_ref().is_none_or(|partial| partial.last)
    }
}

/// A held line that needed more than this gives its memory back.
const KEPT: usize = 8 * 1024;

#[derive(Debug)]
pub(super) struct Splitter {
    stream: Stream,
    most: usize,
    held: Vec<u8>,
    /// Pieces of the line in progress that are out already, and when it began.
    pieces: Option<(Partial, u64)>,
}

impl Splitter {
    pub(super) fn new(stream: Stream, most: usize) -> Self {
        Self {
            stream,
            most: most.max(4),
            held: Vec::new(),
            pieces: None,
        }
    }

    /// Takes a chunk of output that was read at `now`, and gives every line that it ends.
    pub(super) fn push(&mut self, chunk: &[u8], now: u64, mut give: impl FnMut(&Entry<'_>)) {
        let mut rest = chunk;
        while !rest.is_empty() {
            let room = self.most.saturating_sub(self.held.len());
            // A newline after a line of just the limit still belongs to it.
            let window = rest.get(..rest.len().min(room + 1)).unwrap_or_default();
            if let Some(end) = memchr(b'\n', window) {
                let (line, after) = rest.split_at(end);
                rest = after.get(1..).unwrap_or_default();
                if self.held.is_empty() {
                    let entry = self.entry(line, now, true);
                    give(&entry);
                } else {
                    self.held.extend_from_slice(line);
                    self.give_held(now, true, &mut give);
                }
                self.pieces = None;
            } else if rest.len() <= room {
                self.held.extend_from_slice(rest);
                break;
            } else {
                let (piece, after) = rest.split_at(room);
                self.held.extend_from_slice(piece);
                rest = after;
                let torn = torn_character(&self.held, rest.first().copied());
                let tail = self.held.split_off(self.held.len() - torn);
                self.give_held(now, false, &mut give);
                self.held.extend_from_slice(&tail);
            }
        }
    }

    /// The output has ended: what is left is a piece that no newline followed.
    pub(super) fn finish(&mut self, now: u64, mut give: impl FnMut(&Entry<'_>)) {
        if !self.held.is_empty() {
            self.give_held(now, false, &mut give);
        }
        self.pieces = None;
    }

    fn give_held(&mut self, now: u64, ends: bool, give: &mut impl FnMut(&Entry<'_>)) {
        let mut held = std::mem::take(&mut self.held);
        let entry = self.entry(&held, now, ends);
        give(&entry);
        if held.capacity() <= KEPT {
            held.clear();
            self.held = held;
        }
    }

    fn entry<'a>(&mut self, text: &'a [u8], now: u64, ends: bool) -> Entry<'a> {
        let mut entry = Entry {
            stream: self.stream,
            time: now,
            text,
            partial: None,
        };
        if ends && self.pieces.is_none() {
            return entry;
        }
        let (partial, began) = match self.pieces.take() {
            Some((mut partial, began)) => {
                partial.ordinal += 1;
                (partial, began)
            }
            None => (
                Partial {
                    id: random_id(),
                    ordinal: 1,
                    last: false,
                },
                now,
            ),
        };
        entry.time = began;
        entry.partial = Some(Partial {
            last: ends,
            ..partial.clone()
        });
        self.pieces = Some((partial, began));
        entry
    }
}

/// How many bytes at the end of `text` begin a character that `next` goes on with.
fn torn_character(text: &[u8], next: Option<u8>) -> usize {
    if next.is_none_or(|byte| byte & 0xc0 != 0x80) {
        return 0;
    }
    let back = text
        .iter()
        .rev()
        .take(3)
        .position(|byte| byte & 0xc0 == 0xc0)
        .map_or(0, |position| position + 1);
    // A text of nothing else would never be given.
    if back < text.len() { back } else { 0 }
}

fn random_id() -> String {
    let mut bytes = [0u8; 32];
    // Without randomness the pieces are told apart by time and place alone.
    let _ = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    type Given = (Vec<u8>, Option<(u32, bool)>);

    fn split(most: usize, chunks: &[&[u8]]) -> Vec<Given> {
        let mut splitter = Splitter::new(Stream::Stdout, most);
        let mut given = Vec::new();
        let mut give = |entry: &Entry<'_>| {
            given.push((
                entry.text.to_vec(),
                entry.partial.as_ref().map(|p| (p.ordinal, p.last)),
            ));
        };
        for chunk in chunks {
            splitter.push(chunk, 1, &mut give);
        }
        splitter.finish(1, &mut give);
        given
    }

    #[test]
    fn lines_come_out_however_they_were_cut() {
        let text = "one\n\nthree é ✓ 🦀\nlast".as_bytes();
        let whole = split(100, &[text]);
        assert_eq!(whole.len(), 4);
        assert_eq!(whole[3], (b"last".to_vec(), Some((1, false))));
        for at in 0..text.len() {
            assert_eq!(split(100, &[&text[..at], &text[at..]]), whole, "cut at {at}");
        }
    }

    #[test]
    fn the_limit_is_kept_and_pieces_are_numbered() {
        let exact = split(8, &[b"12345678\n"]);
        assert_eq!(exact, [(b"12345678".to_vec(), None)]);
        let long = split(8, &[b"12345678abcdefgh!\nx\n"]);
        assert_eq!(
            long,
            [
                (b"12345678".to_vec(), Some((1, false))),
                (b"abcdefgh".to_vec(), Some((2, false))),
                (b"!".to_vec(), Some((3, true))),
                (b"x".to_vec(), None),
            ]
        );
        for at in 0..18 {
            let text = b"12345678abcdefgh!\nx\n";
            assert_eq!(split(8, &[&text[..at], &text[at..]]), long, "cut at {at}");
        }
    }

    #[test]
    fn a_line_of_pieces_has_one_name_and_one_time() {
        let mut splitter = Splitter::new(Stream::Stderr, 4);
        let mut seen = Vec::new();
        splitter.push(b"abcde", 7, |entry| {
            seen.push((entry.time, entry.partial.clone().unwrap().id));
        });
        splitter.push(b"f\n", 9, |entry| {
            seen.push((entry.time, entry.partial.clone().unwrap().id));
        });
        assert_eq!(seen.len(), 2);
        assert_eq!(seen[0], seen[1]);
        assert_eq!((seen[0].0, seen[0].1.len()), (7, 64));
    }

    #[test]
    fn characters_are_not_torn() {
        let text: Vec<u8> = "aé".repeat(50).into_bytes();
        for most in 4..12 {
            for (piece, _) in split(most, &[&text]) {
                assert!(std::str::from_utf8(&piece).is_ok(), "most {most}");
                assert!(piece.len() <= most);
            }
        }
        // What is not text is cut anyway.
        let all: Vec<u8> = split(4, &[&[0x80; 11]]).into_iter().flat_map(|g| g.0).collect();
        assert_eq!(all, [0x80; 11]);
    }
}
