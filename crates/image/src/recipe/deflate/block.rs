//! A block: its tokens in the shortest of the three forms (RFC 1951, 3.2.3).

use std::sync::LazyLock;

use super::Token;
use super::bits::Bits;
use super::lengths::{self, Code};

const LITERALS: usize = 286;
const DISTANCES: usize = 30;
const END_OF_BLOCK: usize = 256;
/// Most bytes of a stored block.
const STORED: usize = 65535;

/// The order in which the lengths of the lengths' codes are written.
const ORDER: [usize; 19] = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];

/// A symbol that stands for several values, of which further bits tell one.
#[derive(Clone, Copy)]
struct Range {
    first: u16,
    extra: u8,
}

/// Lengths from 3 on, RFC 1951, 3.2.5. The last one is for 258 alone.
static LENGTH_RANGES: LazyLock<Vec<Range>> = LazyLock::new(|| {
    let mut ranges = ranges(8, 4, 28, 3);
    ranges.push(Range { first: 258, extra: 0 });
    ranges
});

/// Distances from 1 on.
static DISTANCE_RANGES: LazyLock<Vec<Range>> = LazyLock::new(|| ranges(4, 2, DISTANCES, 1));

/// Which symbol stands for a length.
static LENGTH_SYMBOLS: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let symbol = |length: u16| LENGTH_RANGES.partition_point(|range| range.first <= length) - 1;
    (0..=258_u16).map(|length| symbol(length.max(3)) as u8).collect()
});

/// `plain` symbols for one value each, then `step` for each number of extra bits.
fn ranges(plain: usize, step: usize, count: usize, from: u16) -> Vec<Range> {
    let mut first = from;
    let mut ranges = Vec::with_capacity(count);
    for symbol in 0..count {
        let extra = symbol.checked_sub(plain).map_or(0, |above| above / step + 1) as u8;
        ranges.push(Range { first, extra });
        first = first.wrapping_add(1 << extra);
    }
    ranges
}

fn distance_symbol(distance: u16) -> usize {
    let below = u32::from(distance) - 1;
    match below {
        0..=3 => below as usize,
        _ => {
            let bits = below.ilog2();
            (2 * bits + (below >> (bits - 1) & 1)) as usize
        }
    }
}

/// The codes of the fixed form (3.2.6).
static FIXED: LazyLock<(Vec<Code>, Vec<Code>)> = LazyLock::new(|| {
    let length = |symbol| match symbol {
        0..144 => 8,
        144..256 => 9,
        256..280 => 7,
        _ => 8,
    };
    // 288 and 32 have codes, which decides what the codes before them are.
    let literals: Vec<u8> = (0..288).map(length).collect();
    (lengths::codes(&literals), lengths::codes(&[5; 32]))
});

#[derive(Default)]
pub(super) struct Blocks {
    literals: Vec<u32>,
    distances: Vec<u32>,
}

/// Codes for a block, and how they are told.
struct Dynamic {
    literals: Vec<Code>,
    distances: Vec<Code>,
    /// How many of each are told.
    told: (usize, usize),
    runs: Vec<Run>,
    run_codes: Vec<Code>,
    /// How many of the lengths of the codes of runs.
    orders: usize,
}

/// Lengths of codes as they are told (3.2.7): a symbol, and for 16 to 18 how often.
struct Run {
    symbol: u8,
    extra: u8,
    bits: u8,
}

impl Blocks {
    /// `bytes` are what the tokens stand for, where they may be stored.
    pub(super) fn write(&mut self, tokens: &[Token], bytes: Option<&[u8]>, out: &mut Bits) {
        self.count(tokens);
        let bytes = bytes.filter(|bytes| bytes.len() <= STORED);
        // The same in both forms of codes, so it counts only against bytes as they are.
        let extra = bytes.map_or(0, |_| self.extra_bits());
        let dynamic = self.dynamic();
        let fixed_size = 3 + self.size(&FIXED.0, &FIXED.1) + extra;
        let dynamic_size = dynamic.size() + self.size(&dynamic.literals, &dynamic.distances) + extra;
        if let Some(bytes) = bytes
            && (bytes.len() as u64 + 5) * 8 < fixed_size.min(dynamic_size)
        {
            out.stored(bytes, false);
            return;
        }
        if dynamic_size < fixed_size {
            dynamic.write(out);
            write_tokens(tokens, &dynamic.literals, &dynamic.distances, out);
        } else {
            out.push(0b010, 3);
            write_tokens(tokens, &FIXED.0, &FIXED.1, out);
        }
    }

    fn count(&mut self, tokens: &[Token]) {
        self.literals.clear();
        self.literals.resize(LITERALS, 0);
        self.distances.clear();
        self.distances.resize(DISTANCES, 0);
        for token in tokens {
            match *token {
                Token::Byte(byte) => self.literals[usize::from(byte)] += 1,
                Token::Repeat { length, distance } => {
                    self.literals[END_OF_BLOCK + 1 + usize::from(LENGTH_SYMBOLS[usize::from(length)])] += 1;
                    self.distances[distance_symbol(distance)] += 1;
                }
            }
        }
        self.literals[END_OF_BLOCK] += 1;
        if self.distances.iter().all(|often| *often == 0) {
            // One has to be told.
            self.distances[0] = 1;
        }
    }

    fn extra_bits(&self) -> u64 {
        let of = |often: &[u32], ranges: &[Range]| -> u64 {
            let each = often.iter().zip(ranges);
            each.map(|(often, range)| u64::from(*often) * u64::from(range.extra))
                .sum()
        };
        of(&self.literals[END_OF_BLOCK + 1..], &LENGTH_RANGES) + of(&self.distances, &DISTANCE_RANGES)
    }

    fn size(&self, literals: &[Code], distances: &[Code]) -> u64 {
        bits(&self.literals, literals) + bits(&self.distances, distances)
    }

    fn dynamic(&self) -> Dynamic {
        let literals = lengths::of(&self.literals, 15);
        let distances = lengths::of(&self.distances, 15);
        let used = |lengths: &[u8]| {
            lengths
                .iter()
                .rposition(|length| *length > 0)
                .map_or(0, |last| last + 1)
        };
        let told = (used(&literals), used(&distances));
        let runs = runs(&[&literals[..told.0], &distances[..told.1]].concat());
        let mut often = [0; 19];
        for run in &runs {
            often[usize::from(run.symbol)] += 1;
        }
        let lengths_of_runs = lengths::of(&often, 7);
        let orders = ORDER.iter().rposition(|symbol| lengths_of_runs[*symbol] > 0);
        Dynamic {
            literals: lengths::codes(&literals),
            distances: lengths::codes(&distances),
            told,
            runs,
            run_codes: lengths::codes(&lengths_of_runs),
            orders: orders.map_or(0, |last| last + 1).max(4),
        }
    }
}

fn bits(often: &[u32], codes: &[Code]) -> u64 {
    let each = often.iter().zip(codes);
    each.map(|(often, code)| u64::from(*often) * u64::from(code.length))
        .sum()
}

impl Dynamic {
    /// Bits of the header.
    fn size(&self) -> u64 {
        let run = |run: &Run| u64::from(self.run_codes[usize::from(run.symbol)].length + run.bits);
        3 + 5 + 5 + 4 + 3 * self.orders as u64 + self.runs.iter().map(run).sum::<u64>()
    }

    fn write(&self, out: &mut Bits) {
        out.push(0b100, 3);
        out.push(self.told.0 as u32 - 257, 5);
        out.push(self.told.1 as u32 - 1, 5);
        out.push(self.orders as u32 - 4, 4);
        for symbol in ORDER.iter().take(self.orders) {
            out.push(u32::from(self.run_codes[*symbol].length), 3);
        }
        for run in &self.runs {
            push(out, self.run_codes[usize::from(run.symbol)]);
            out.push(u32::from(run.extra), u32::from(run.bits));
        }
    }
}

/// Lengths told shortly, those of literals and of distances in one row.
fn runs(lengths: &[u8]) -> Vec<Run> {
    let mut runs = Vec::new();
    for equal in lengths.chunk_by(|one, next| one == next) {
        let Some(length) = equal.first().copied() else {
            continue;
        };
        let plain = Run {
            symbol: length,
            extra: 0,
            bits: 0,
        };
        let mut left = equal.len();
        if length == 0 {
            while left >= 11 {
                let many = left.min(138);
                runs.push(Run {
                    symbol: 18,
                    extra: (many - 11) as u8,
                    bits: 7,
                });
                left -= many;
            }
            if left >= 3 {
                runs.push(Run {
                    symbol: 17,
                    extra: (left - 3) as u8,
                    bits: 3,
                });
                left = 0;
            }
        } else {
            runs.push(Run { ..plain });
            left -= 1;
            while left >= 3 {
                let many = left.min(6);
                runs.push(Run {
                    symbol: 16,
                    extra: (many - 3) as u8,
                    bits: 2,
                });
                left -= many;
            }
        }
        runs.extend((0..left).map(|_| Run { ..plain }));
    }
    runs
}

fn push(out: &mut Bits, code: Code) {
    out.push(u32::from(code.bits), u32::from(code.length));
}

fn write_tokens(tokens: &[Token], literals: &[Code], distances: &[Code], out: &mut Bits) {
    for token in tokens {
        match *token {
            Token::Byte(byte) => push(out, literals[usize::from(byte)]),
            Token::Repeat { length, distance } => {
                let symbol = usize::from(LENGTH_SYMBOLS[usize::from(length)]);
                push(out, literals[END_OF_BLOCK + 1 + symbol]);
                let range = LENGTH_RANGES[symbol];
                out.push(u32::from(length - range.first), u32::from(range.extra));
                let symbol = distance_symbol(distance);
                push(out, distances[symbol]);
                let range = DISTANCE_RANGES[symbol];
                out.push(u32::from(distance - range.first), u32::from(range.extra));
            }
        }
    }
    push(out, literals[END_OF_BLOCK]);
}
