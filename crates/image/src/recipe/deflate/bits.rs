//! Bits of a stream, the lowest first (RFC 1951, 3.1.1).

#[derive(Default)]
pub(super) struct Bits {
    held: u64,
    /// How many of `held` count; less than 32 between calls.
    count: u32,
    bytes: Vec<u8>,
}

impl Bits {
    /// At most 32.
    pub(super) fn push(&mut self, bits: u32, count: u32) {
        self.held |= u64::from(bits) << self.count;
        self.count += count;
        if self.count >= 32 {
            self.bytes.extend_from_slice(&(self.held as u32).to_le_bytes());
            self.held >>= 32;
            self.count -= 32;
        }
    }

    /// Goes on at the next whole byte.
    pub(super) fn align(&mut self) {
        let whole = self.count.div_ceil(8) as usize;
        let held = self.held.to_le_bytes();
        self.bytes
            .extend_from_slice(held.get(..whole).unwrap_or_default());
        (self.held, self.count) = (0, 0);
    }

    /// A block of at most 65,535 bytes as they are.
    pub(super) fn stored(&mut self, bytes: &[u8], last: bool) {
        self.push(u32::from(last), 3);
        self.align();
        let length = bytes.len() as u16;
        self.push(u32::from(length) | u32::from(!length) << 16, 32);
        self.bytes.extend_from_slice(bytes);
    }

    /// Whole bytes so far.
    pub(super) fn ready(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn clear(&mut self) {
        self.bytes.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_bits_come_first() {
        let mut bits = Bits::default();
        bits.push(0b1, 1);
        bits.push(0b10, 2);
        bits.push(0xffff_ffff, 32);
        bits.align();
        assert_eq!(bits.ready(), [0b1111_1101, 0xff, 0xff, 0xff, 0b111]);
        bits.clear();
        bits.stored(b"ab", true);
        assert_eq!(bits.ready(), [1, 2, 0, 0xfd, 0xff, b'a', b'b']);
    }
}
