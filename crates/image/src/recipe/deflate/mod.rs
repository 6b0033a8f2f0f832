//! DEFLATE (RFC 1951) as Go's standard library writes it, bit for bit: it is what compressed the layers that Docker, containerd
//! and BuildKit push.
//!
//! The format leaves open which repeats are found, where a block ends and how long its codes are. Here the answers are those
//! of that library for levels 2 to 9 (6 is what everybody uses), which have not changed since 2016:
//!
//! ```text
//!   bytes ──search──> tokens: a byte, or (length 4 to 258, distance) ──16,384 of them──> block: stored, fixed or dynamic codes
//! ```
//!
//! - repeats: chains of positions with equal hashes of four bytes ([`search`]);
//! - a block's form: the shortest of the three, computed before it is written ([`block`]);
//! - the lengths of codes: optimal ones of at most 15 bits, pairs before leaves where both weigh the same ([`lengths`]);
//! - the end: an empty stored block.
//!
//! How the bytes come in makes no difference.

mod bits;
mod block;
mod lengths;
mod search;

use std::io::{self, Write};

use bits::Bits;
use block::Blocks;
use search::Search;

/// Levels that are known.
pub(super) const LEVELS: std::ops::RangeInclusive<u32> = 2..=9;
/// What a stream ends with: the empty block, whose first bits are in the byte before or in this one.
pub(super) const END: [u8; 4] = [0, 0, 0xff, 0xff];

/// A part of the content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token {
    Byte(u8),
    /// The same bytes as so far back.
    Repeat {
        length: u16,
        distance: u16,
    },
}

/// Compresses what is written to it.
pub(super) struct Encoder<W> {
    out: W,
    search: Search,
    blocks: Blocks,
    bits: Bits,
}

impl<W: Write> Encoder<W> {
    /// A level outside [`LEVELS`] is taken for the nearest.
    pub(super) fn new(out: W, level: u32) -> Encoder<W> {
        Encoder {
            out,
            search: Search::new(level.clamp(*LEVELS.start(), *LEVELS.end())),
            blocks: Blocks::default(),
            bits: Bits::default(),
        }
    }

    pub(super) fn get_mut(&mut self) -> &mut W {
        &mut self.out
    }

    pub(super) fn finish(mut self) -> io::Result<W> {
        self.search.run(true, &mut |tokens, bytes| {
            self.blocks.write(tokens, bytes, &mut self.bits)
        });
        self.bits.stored(&[], true);
        self.bits.align();
        self.out.write_all(self.bits.ready())?;
        Ok(self.out)
    }
}

impl<W: Write> Write for Encoder<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = self.search.take(bytes);
        self.search.run(false, &mut |tokens, bytes| {
            self.blocks.write(tokens, bytes, &mut self.bits)
        });
        self.out.write_all(self.bits.ready())?;
        self.bits.clear();
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        // A flush would show in the stream.
        Ok(())
    }
}
