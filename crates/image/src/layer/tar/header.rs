//! The 512-byte header block.

use super::BLOCK;

pub(super) type Block = [u8; BLOCK];

/// Which dialect a header is written in; it decides what stands behind byte 345.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    /// Seventh edition: no prefix.
    Old,
    Ustar,
    /// GNU: times and the sparse map instead of the prefix.
    Gnu,
    /// star: a shorter prefix, then times.
    Star,
}

pub(super) struct Header<'a> {
    block: &'a Block,
}

/// A field does not hold what it should.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Invalid(pub(super) &'static str);

impl<'a> Header<'a> {
    pub(super) fn new(block: &'a Block) -> Result<Header<'a>, Invalid> {
        let header = Header { block };
        let stored = header.number(148, 8, "the checksum is no number")?;
        let (unsigned, signed) = checksums(block);
        if stored == unsigned || stored == signed {
            Ok(header)
        } else {
            Err(Invalid("the header's checksum is wrong"))
        }
    }

    pub(super) fn dialect(&self) -> Dialect {
        match self.field(257, 8) {
            b"ustar  \0" => Dialect::Gnu,
            magic if magic.starts_with(b"ustar\0") => {
                if self.field(508, 4) == b"tar\0" {
                    Dialect::Star
                } else {
                    Dialect::Ustar
                }
            }
            _ => Dialect::Old,
        }
    }

    pub(super) fn typeflag(&self) -> u8 {
        self.field(156, 1).first().copied().unwrap_or(0)
    }

    pub(super) fn path(&self) -> Vec<u8> {
        let name = self.text(0, 100);
        let prefix = match self.dialect() {
            Dialect::Ustar => self.text(345, 155),
            Dialect::Star => self.text(345, 131),
            Dialect::Old | Dialect::Gnu => &[],
        };
        if prefix.is_empty() {
            name.to_vec()
        } else {
            [prefix, b"/", name].concat()
        }
    }

    pub(super) fn link(&self) -> Vec<u8> {
        self.text(157, 100).to_vec()
    }

    pub(super) fn mode(&self) -> Result<i64, Invalid> {
        self.number(100, 8, "the mode is no number")
    }

    pub(super) fn uid(&self) -> Result<i64, Invalid> {
        self.number(108, 8, "the user id is no number")
    }

    pub(super) fn gid(&self) -> Result<i64, Invalid> {
        self.number(116, 8, "the group id is no number")
    }

    pub(super) fn size(&self) -> Result<i64, Invalid> {
        self.number(124, 12, "the size is no number")
    }

    pub(super) fn mtime(&self) -> Result<i64, Invalid> {
        self.number(136, 12, "the time is no number")
    }

    pub(super) fn major(&self) -> Result<i64, Invalid> {
        self.number(329, 8, "the device number is no number")
    }

    pub(super) fn minor(&self) -> Result<i64, Invalid> {
        self.number(337, 8, "the device number is no number")
    }

    /// The bytes `start..start + length` of the block.
    pub(super) fn field(&self, start: usize, length: usize) -> &'a [u8] {
        self.block.get(start..start + length).unwrap_or(&[])
    }

    fn text(&self, start: usize, length: usize) -> &'a [u8] {
        let field = self.field(start, length);
        field.split(|byte| *byte == 0).next().unwrap_or(field)
    }

    fn number(&self, start: usize, length: usize, reason: &'static str) -> Result<i64, Invalid> {
        number(self.field(start, length)).ok_or(Invalid(reason))
    }
}

/// A numeric field: octal text, or big-endian two's complement when the first bit is set. Empty is zero.
pub(super) fn number(field: &[u8]) -> Option<i64> {
    match field.first() {
        Some(first) if first & 0x80 != 0 => {
            let negative = first & 0x40 != 0;
            // The first byte's highest bit is the mark, the next one the sign.
            let mut value: i128 = if negative { -1 } else { 0 };
            for (index, byte) in field.iter().enumerate() {
                let byte = if index == 0 && !negative {
                    byte & 0x7f
                } else {
                    *byte
                };
                value = (value << 8) | i128::from(byte);
            }
            i64::try_from(value).ok()
        }
        _ => octal(field),
    }
}

fn octal(field: &[u8]) -> Option<i64> {
    let text = field.split(|byte| *byte == 0).next().unwrap_or(field);
    let text = text.trim_ascii();
    let mut value: i64 = 0;
    for byte in text {
        let digit = byte.checked_sub(b'0').filter(|digit| *digit < 8)?;
        value = value.checked_mul(8)?.checked_add(i64::from(digit))?;
    }
    Some(value)
}

/// Of a block with its checksum field taken as spaces: as unsigned bytes, and as some old programs summed up.
pub(super) fn checksums(block: &Block) -> (i64, i64) {
    let mut unsigned = 0;
    let mut signed = 0;
    for (index, byte) in block.iter().enumerate() {
        let byte = if (148..156).contains(&index) { b' ' } else { *byte };
        unsigned += i64::from(byte);
        signed += i64::from(byte.cast_signed());
    }
    (unsigned, signed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_in_two_forms() {
        assert_eq!(number(b"0000644\0"), Some(0o644));
        assert_eq!(number(b"   644 \0"), Some(0o644));
        assert_eq!(number(b"\0\0\0\0"), Some(0));
        assert_eq!(number(b"12345678"), None);
        assert_eq!(number(b"777777777777"), Some(0o777_777_777_777));
        assert_eq!(
            number(&[0x80, 0, 0, 0, 0x12, 0x34, 0x56, 0x78]),
            Some(0x1234_5678)
        );
        assert_eq!(number(&[0xff; 12]), Some(-1));
        assert_eq!(
            number(&[0x80, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
            None
        );
        assert_eq!(number(b"-1\0"), None);
    }
}
