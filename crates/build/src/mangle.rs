//! Texts with mistakes for the tests of parsers: the same ones on every machine and in every run.

/// A corpus is read in pieces of so many lines.
const LINES: usize = 24;

/// Numbers by Marsaglia's xorshift.
struct Dice(u64);

impl Dice {
    fn below(&mut self, most: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % most.max(1) as u64).unwrap_or(0)
    }
}

/// Calls `read` with every piece of `corpus`, as it is and with `times` changes of one kind or another.
pub fn mangle(corpus: &str, times: usize, mut read: impl FnMut(&[u8])) {
    let lines: Vec<&str> = corpus.lines().collect();
    let mut dice = Dice(0x2545_f491_4f6c_dd1d);
    for piece in lines.chunks(LINES) {
        let text = piece.join("\n").into_bytes();
        read(&text);
        for _ in 0..times {
            let mut changed = text.clone();
            for _ in 0..=dice.below(4) {
                change(&mut changed, &mut dice);
            }
            read(&changed);
        }
    }
}

fn change(text: &mut Vec<u8>, dice: &mut Dice) {
    const TOKENS: [&[u8]; 12] = [
        b"\\\n",
        b"\"",
        b"'",
        b"<<EOF\n",
        b"${",
        b"}",
        b"\0",
        b"\xff\xfe",
        b"[[",
        b"-1",
        b"=",
        b"\r\n",
    ];
    let (from, to) = (dice.below(text.len()), dice.below(text.len()));
    let range = from.min(to)..from.max(to);
    match dice.below(5) {
        0 => {
            let value = u8::try_from(dice.below(256)).unwrap_or(0);
            if let Some(byte) = text.get_mut(from) {
                *byte = value;
            }
        }
        1 => drop(text.drain(range)),
        2 => {
            let again: Vec<u8> = text.get(range).unwrap_or_default().to_vec();
            text.splice(to..to, again);
        }
        3 => text.truncate(from),
        _ => {
            let token = TOKENS.get(dice.below(TOKENS.len())).copied().unwrap_or_default();
            text.splice(from..from, token.iter().copied());
        }
    }
}
