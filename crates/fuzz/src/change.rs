//! How an input becomes another one.

use std::ops::Range;
use std::rc::Rc;

use proptest::collection::vec;
use proptest::prelude::any;
use proptest::prop_oneof;
use proptest::sample::{Index, select};
use proptest::strategy::Strategy;

/// What changes there are for an input.
#[derive(Debug, Clone)]
pub(crate) struct Shape {
    pub words: Vec<Vec<u8>>,
    pub unit: usize,
}

impl Default for Shape {
    fn default() -> Shape {
        Shape {
            words: Vec::new(),
            unit: 1,
        }
    }
}

/// One change. Places and lengths are of what there is when it is made.
#[derive(Debug, Clone)]
enum Change {
    Set(Index, u8),
    Flip(Index, u8),
    /// Another number where there are digits.
    Number(Index, u64),
    Insert(Index, Index, u8),
    Leave(Index, usize),
    Double(Index, usize),
    Cut(Index),
    /// A part of another input comes in.
    Graft {
        at: Index,
        from: Index,
        part: Index,
        length: usize,
    },
}

fn change() -> impl Strategy<Value = Change> {
    let at = any::<Index>;
    let number = select(vec![
        0,
        1,
        7,
        8,
        127,
        128,
        255,
        256,
        511,
        512,
        513,
        65_535,
        65_536,
        (1 << 20) + 1,
        1 << 31,
        u64::from(u32::MAX),
        1 << 63,
        u64::MAX,
    ]);
    prop_oneof![
        4 => (at(), any::<u8>()).prop_map(|(at, byte)| Change::Set(at, byte)),
        3 => (at(), 0u8..8).prop_map(|(at, bit)| Change::Flip(at, bit)),
        2 => (at(), number).prop_map(|(at, number)| Change::Number(at, number)),
        3 => (at(), at(), any::<u8>()).prop_map(|(at, word, byte)| Change::Insert(at, word, byte)),
        2 => (at(), 1usize..64).prop_map(|(at, length)| Change::Leave(at, length)),
        2 => (at(), 1usize..200).prop_map(|(at, length)| Change::Double(at, length)),
        1 => at().prop_map(Change::Cut),
        2 => (at(), at(), at(), 1usize..200)
            .prop_map(|(at, from, part, length)| Change::Graft { at, from, part, length }),
    ]
}

/// An input of the pool with some changes, of at most `longest` bytes.
pub(crate) fn changed(
    pool: Rc<Vec<Vec<u8>>>,
    shape: Shape,
    longest: usize,
) -> impl Strategy<Value = Vec<u8>> {
    (any::<Index>(), vec(change(), 1..8)).prop_map(move |(which, changes)| {
        let mut bytes = which.get(&pool).clone();
        for change in changes {
            apply(&mut bytes, change, &pool, &shape);
        }
        bytes.truncate(longest);
        bytes
    })
}

fn apply(bytes: &mut Vec<u8>, change: Change, pool: &[Vec<u8>], shape: &Shape) {
    if bytes.is_empty() {
        bytes.push(0);
    }
    match change {
        Change::Set(at, byte) => *at.get_mut(bytes) = byte,
        Change::Flip(at, bit) => *at.get_mut(bytes) ^= 1 << bit,
        Change::Number(at, number) => {
            let begin = at.index(bytes.len());
            let digit = |byte: &u8| byte.is_ascii_digit();
            let Some(first) = bytes
                .iter()
                .skip(begin)
                .position(digit)
                .map(|skipped| begin + skipped)
            else {
                return;
            };
            let length = bytes.iter().skip(first).take_while(|byte| digit(byte)).count();
            bytes.splice(first..first + length, number.to_string().into_bytes());
        }
        Change::Insert(at, word, byte) => {
            let place = at.index(bytes.len() + 1);
            let word = match shape.words.is_empty() {
                true => vec![byte],
                false => word.get(&shape.words).clone(),
            };
            bytes.splice(place..place, word);
        }
        Change::Leave(at, length) => drop(bytes.drain(span(at, length, bytes.len(), shape.unit))),
        Change::Double(at, length) => {
            let part = span(at, length, bytes.len(), shape.unit);
            let (place, again) = (part.start, bytes.get(part).unwrap_or_default().to_vec());
            bytes.splice(place..place, again);
        }
        Change::Cut(at) => bytes.truncate(at.index(bytes.len())),
        Change::Graft {
            at,
            from,
            part,
            length,
        } => {
            let other = from.get(pool);
            let part = span(part, length, other.len(), shape.unit);
            let place = span(at, 1, bytes.len(), shape.unit).start;
            bytes.splice(place..place, other.get(part).unwrap_or_default().to_vec());
        }
    }
}

/// A part of something of `whole` bytes.
fn span(at: Index, length: usize, whole: usize, unit: usize) -> Range<usize> {
    let begin = at.index(whole / unit + 1) * unit;
    let length = match unit {
        1 => length,
        unit => (length % 4 + 1) * unit,
    };
    begin.min(whole)..(begin + length).min(whole)
}
