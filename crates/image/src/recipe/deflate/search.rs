//! Finding repeats: where four bytes have been before is kept in chains, the newest first.
//!
//! The window holds twice what a repeat may reach back. When fewer than [`AHEAD`] bytes of it are left, its older half goes;
//! the decisions depend on no more than that, so the bytes may come in any portions.

use super::Token;

/// How far back a repeat may be.
const REACH: usize = 32 << 10;
const SHORTEST: usize = 4;
const LONGEST: usize = 258;
/// Bytes that must be known from a position on, unless they are the last.
const AHEAD: usize = SHORTEST + LONGEST;
/// Repeats of the shortest length count only where they are this near.
const NEAR: usize = 4096;
const HASH_BITS: u32 = 17;
/// Tokens of a block.
const BLOCK: usize = 1 << 14;

/// What a level looks for.
struct Level {
    /// The repeat at a position is given up for a longer one at the next unless it is so long; `None` takes each at once.
    lazy: Option<usize>,
    /// A repeat of this length is not improved on.
    nice: usize,
    /// Positions that are looked at.
    tries: usize,
    /// Of longer repeats the positions within are not noted.
    noted: usize,
}

impl Level {
    fn new(level: u32) -> Level {
        let (lazy, nice, tries, noted) = match level {
            2 => (None, 16, 8, 5),
            3 => (None, 32, 32, 6),
            4 => (Some(4), 16, 16, LONGEST),
            5 => (Some(16), 32, 32, LONGEST),
            6 => (Some(16), 128, 128, LONGEST),
            7 => (Some(32), 128, 256, LONGEST),
            8 => (Some(128), 258, 1024, LONGEST),
            _ => (Some(258), 258, 4096, LONGEST),
        };
        Level {
            lazy,
            nice,
            tries,
            noted,
        }
    }
}

pub(super) struct Search {
    level: Level,
    window: Box<[u8]>,
    end: usize,
    at: usize,
    /// What is added to a position in the window where it is noted, modulo 2^32. Begins where nothing noted as 0 is in reach.
    base: u32,
    heads: Box<[u32]>,
    /// By position modulo [`REACH`]: the one before with the same hash.
    before: Box<[u32]>,
    /// The head of the last chain that was looked up. Where too few bytes are left for a hash it is looked at again.
    head: u32,
    /// What the last position repeats, and whether its byte waits for what this one has.
    last: Found,
    waits: bool,
    tokens: Vec<Token>,
    /// Where the block's bytes begin, while all of them are in the window.
    begin: Option<usize>,
}

#[derive(Clone, Copy)]
struct Found {
    length: usize,
    distance: usize,
}

const NOTHING: Found = Found {
    length: SHORTEST - 1,
    distance: 0,
};

/// Takes a block's tokens, and its bytes where they are known.
pub(super) type Sink<'a> = &'a mut dyn FnMut(&[Token], Option<&[u8]>);

impl Search {
    pub(super) fn new(level: u32) -> Search {
        Search {
            level: Level::new(level),
            window: vec![0; 2 * REACH].into_boxed_slice(),
            end: 0,
            at: 0,
            base: 4 * REACH as u32,
            heads: vec![0; 1 << HASH_BITS].into_boxed_slice(),
            before: vec![0; REACH].into_boxed_slice(),
            head: 0,
            last: NOTHING,
            waits: false,
            tokens: Vec::with_capacity(BLOCK),
            begin: Some(0),
        }
    }

    /// Takes what fits into the window; how much that was.
    pub(super) fn take(&mut self, bytes: &[u8]) -> usize {
        if self.at >= 2 * REACH - AHEAD {
            self.window.copy_within(REACH.., 0);
            self.at -= REACH;
            self.end -= REACH;
            self.begin = self.begin.and_then(|begin| begin.checked_sub(REACH));
            self.base = self.base.wrapping_add(REACH as u32);
        }
        let taken = bytes.len().min(self.window.len() - self.end);
        self.window[self.end..self.end + taken].copy_from_slice(&bytes[..taken]);
        self.end += taken;
        taken
    }

    /// Goes on as far as what was taken allows, or to its end.
    pub(super) fn run(&mut self, last: bool, sink: Sink<'_>) {
        while self.end - self.at >= AHEAD || last && self.at < self.end {
            self.note_and_look_up();
            match self.level.lazy {
                Some(lazy) => self.step_lazily(lazy, sink),
                None => self.step(sink),
            }
        }
        if last {
            if std::mem::take(&mut self.waits) {
                self.tokens.push(Token::Byte(self.window[self.at - 1]));
            }
            if !self.tokens.is_empty() {
                self.close(self.at, sink);
            }
        }
    }

    /// One position of the levels that take what they find.
    fn step(&mut self, sink: Sink<'_>) {
        let left = self.end - self.at;
        let found = match left >= SHORTEST {
            true => self.look(left),
            false => NOTHING,
        };
        if found.length < SHORTEST {
            self.tokens.push(Token::Byte(self.window[self.at]));
            self.at += 1;
        } else {
            self.push_repeat(found);
            if found.length <= self.level.noted {
                self.note_within(self.at + found.length);
            } else {
                self.at += found.length;
            }
        }
        if self.tokens.len() == BLOCK {
            self.close(self.at, sink);
        }
    }

    /// One position of the levels that look whether the next one has something better.
    fn step_lazily(&mut self, lazy: usize, sink: Sink<'_>) {
        let left = self.end - self.at;
        let last = std::mem::replace(&mut self.last, NOTHING);
        if left > last.length && last.length < lazy {
            self.last = self.look(left);
        }
        if last.length >= SHORTEST && self.last.length <= last.length {
            self.push_repeat(last);
            self.note_within(self.at + last.length - 1);
            (self.last, self.waits) = (NOTHING, false);
            if self.tokens.len() == BLOCK {
                self.close(self.at, sink);
            }
            return;
        }
        if self.waits {
            self.tokens.push(Token::Byte(self.window[self.at - 1]));
            if self.tokens.len() == BLOCK {
                self.close(self.at, sink);
            }
        }
        self.waits = true;
        self.at += 1;
    }

    fn push_repeat(&mut self, found: Found) {
        self.tokens.push(Token::Repeat {
            length: found.length as u16,
            distance: found.distance as u16,
        });
    }

    /// Goes to `to` and notes what is passed.
    fn note_within(&mut self, to: usize) {
        for at in self.at + 1..to {
            self.note(at);
        }
        self.at = to;
    }

    fn note_and_look_up(&mut self) {
        if let Some(head) = self.note(self.at) {
            self.head = head;
        }
    }

    /// Makes a position the newest of its chain, and tells which was. The last three have too few bytes.
    fn note(&mut self, at: usize) -> Option<u32> {
        if at + SHORTEST > self.end {
            return None;
        }
        let word = u32::from_be_bytes(*self.window[at..].first_chunk()?);
        let hash = word.wrapping_mul(0x1e35_a7bd) >> (32 - HASH_BITS);
        let noted = (at as u32).wrapping_add(self.base);
        let head = std::mem::replace(&mut self.heads[hash as usize], noted);
        self.before[at % REACH] = head;
        Some(head)
    }

    /// How far before `at` something noted is, as far as it is in the window and in reach.
    fn distance(&self, at: usize, noted: u32) -> Option<usize> {
        let distance = (at as u32).wrapping_add(self.base).wrapping_sub(noted) as usize;
        (1..=at.min(REACH)).contains(&distance).then_some(distance)
    }

    /// The longest repeat at this position, of which at least [`SHORTEST`] bytes are left.
    fn look(&self, left: usize) -> Found {
        let at = self.at;
        let most = left.min(LONGEST);
        let nice = self.level.nice.min(most);
        let here = &self.window[at..at + most];
        let mut found = NOTHING;
        let mut noted = self.head;
        for _ in 0..self.level.tries {
            let Some(distance) = self.distance(at, noted) else {
                break;
            };
            let there = &self.window[at - distance..at - distance + most];
            if there[found.length] == here[found.length] {
                let length = equal(here, there);
                if length > found.length && (length > SHORTEST || distance <= NEAR) {
                    found = Found { length, distance };
                    if length >= nice {
                        break;
                    }
                }
            }
            if distance == REACH {
                // What was before it has been written over.
                break;
            }
            noted = self.before[(at - distance) % REACH];
        }
        found
    }

    /// Gives the tokens to the sink as a block that ends at `end`.
    fn close(&mut self, end: usize, sink: Sink<'_>) {
        let bytes = self.begin.filter(|begin| *begin <= end);
        sink(&self.tokens, bytes.map(|begin| &self.window[begin..end]));
        self.begin = Some(end);
        self.tokens.clear();
    }
}

/// How many bytes are equal from the beginning; both have the same length.
fn equal(one: &[u8], other: &[u8]) -> usize {
    let mut length = 0;
    while let (Some(a), Some(b)) = (one[length..].first_chunk(), other[length..].first_chunk()) {
        let differ = u64::from_le_bytes(*a) ^ u64::from_le_bytes(*b);
        if differ != 0 {
            return length + (differ.trailing_zeros() / 8) as usize;
        }
        length += 8;
    }
    let rest = one[length..].iter().zip(&other[length..]);
    length + rest.take_while(|(a, b)| a == b).count()
}
