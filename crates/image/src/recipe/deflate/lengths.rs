//! Lengths of codes: the optimum for given frequencies under a limit (package-merge, Larmore and Hirschberg 1990).

/// A symbol that occurs, with how often.
#[derive(Clone, Copy)]
struct Leaf {
    often: u64,
    symbol: usize,
}

/// The length of each symbol's code, 0 for those that do not occur. Of two optima it is the one in which pairs come before
/// symbols of the same weight.
pub(super) fn of(frequencies: &[u32], limit: usize) -> Vec<u8> {
    let mut lengths = vec![0; frequencies.len()];
    let mut leaves: Vec<Leaf> = frequencies
        .iter()
        .enumerate()
        .filter(|(_, often)| **often > 0)
        .map(|(symbol, often)| Leaf {
            often: u64::from(*often),
            symbol,
        })
        .collect();
    if leaves.len() <= 2 {
        for leaf in &leaves {
            set(&mut lengths, leaf.symbol, 1);
        }
        return lengths;
    }
    leaves.sort_by_key(|leaf| (leaf.often, leaf.symbol));
    let most = limit.min(leaves.len() - 1);
    let rows = rows(&leaves, most);
    // From the last row so many are taken, and of each row below what the pairs that were taken are made of.
    let mut taken = 2 * leaves.len() - 2;
    for row in rows.iter().rev() {
        let symbols = row.iter().take(taken).filter(|item| item.is_leaf).count();
        for leaf in leaves.iter().take(symbols) {
            if let Some(length) = lengths.get_mut(leaf.symbol) {
                *length += 1;
            }
        }
        taken = 2 * (taken - symbols);
    }
    lengths
}

#[derive(Clone, Copy)]
struct Item {
    weight: u64,
    is_leaf: bool,
}

/// Each row holds all symbols and the pairs of the row before, by weight.
fn rows(leaves: &[Leaf], count: usize) -> Vec<Vec<Item>> {
    let mut rows: Vec<Vec<Item>> = Vec::with_capacity(count);
    for _ in 0..count {
        let below = rows.last().map_or(&[][..], Vec::as_slice);
        let mut pairs = below
            .chunks_exact(2)
            .map(|pair| pair.iter().map(|item| item.weight).sum::<u64>())
            .peekable();
        let mut row = Vec::with_capacity(2 * leaves.len());
        for leaf in leaves {
            while let Some(weight) = pairs.next_if(|weight| *weight <= leaf.often) {
                row.push(Item {
                    weight,
                    is_leaf: false,
                });
            }
            row.push(Item {
                weight: leaf.often,
                is_leaf: true,
            });
        }
        row.extend(pairs.map(|weight| Item {
            weight,
            is_leaf: false,
        }));
        rows.push(row);
    }
    rows
}

fn set(lengths: &mut [u8], symbol: usize, to: u8) {
    if let Some(length) = lengths.get_mut(symbol) {
        *length = to;
    }
}

/// A code, its first bit the lowest, and its length.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Code {
    pub bits: u16,
    pub length: u8,
}

/// The codes that lengths stand for (RFC 1951, 3.2.2).
pub(super) fn codes(lengths: &[u8]) -> Vec<Code> {
    let mut next = [0_u16; 17];
    for length in 1..16 {
        let shorter = lengths.iter().filter(|one| usize::from(**one) == length).count();
        let first = next.get(length).copied().unwrap_or(0);
        if let Some(next) = next.get_mut(length + 1) {
            *next = (first + shorter as u16) << 1;
        }
    }
    let code = |length: &u8| match next.get_mut(usize::from(*length)) {
        Some(next) if *length > 0 => {
            let bits = next.reverse_bits() >> (16 - u32::from(*length));
            *next += 1;
            Code {
                bits,
                length: *length,
            }
        }
        _ => Code::default(),
    };
    lengths.iter().map(code).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_those_of_the_specification() {
        // RFC 1951, 3.2.2: the example with lengths 3, 3, 3, 3, 3, 2, 4, 4.
        let codes = codes(&[3, 3, 3, 3, 3, 2, 4, 4]);
        let straight: Vec<u16> = codes
            .iter()
            .map(|code| code.bits.reverse_bits() >> (16 - u32::from(code.length)))
            .collect();
        assert_eq!(straight, [2, 3, 4, 5, 6, 0, 14, 15]);
    }

    #[test]
    fn lengths_are_optimal_and_limited() {
        assert_eq!(of(&[0, 0, 0], 15), [0, 0, 0]);
        assert_eq!(of(&[0, 7, 0], 15), [0, 1, 0]);
        assert_eq!(of(&[5, 1], 15), [1, 1]);
        assert_eq!(of(&[1, 1, 2, 4], 15), [3, 3, 2, 1]);
        // Without a limit the rarest would have 19 bits.
        let fibonacci: Vec<u32> = (0..20)
            .scan((1, 1), |(a, b), _| {
                (*a, *b) = (*b, *a + *b);
                Some(*a)
            })
            .collect();
        let lengths = of(&fibonacci, 7);
        assert_eq!(lengths.iter().max(), Some(&7));
        let space: u32 = lengths.iter().map(|length| 128 >> length).sum();
        assert_eq!(space, 128, "no code is left unused: {lengths:?}");
    }
}
