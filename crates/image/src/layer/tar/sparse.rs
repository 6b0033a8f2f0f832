//! Sparse files, in the four ways GNU tar has written them: the old GNU header with its continuation blocks,
//! and PAX versions 0.0 and 0.1 (the map in records) and 1.0 (the map before the content).

use super::header::{Block, number};
use super::pax::{decimal, record};
use super::{BLOCK, Chunk};

/// A map of more parts is taken for an attack on memory.
pub(super) const MAX_CHUNKS: usize = 1_000_000;

/// What the records of an extended header say about a sparse file.
#[derive(Debug, Default)]
pub(super) struct Records {
    pub(super) size: Option<u64>,
    pub(super) name: Option<Vec<u8>>,
    /// The map follows in the content (version 1.0).
    pub(super) in_content: bool,
    map: Vec<Chunk>,
    has_map: bool,
    offset: Option<u64>,
}

impl Records {
    /// Takes a record in; `None` when it makes no sense.
    pub(super) fn take(&mut self, key: &[u8], value: &[u8]) -> Option<()> {
        match key {
            b"major" => self.in_content = decimal(value)? >= 1,
            b"minor" | b"numblocks" => {}
            b"name" => self.name = Some(value.to_vec()),
            b"size" | b"realsize" => self.size = Some(decimal(value)?),
            b"offset" => self.offset = Some(decimal(value)?),
            b"numbytes" => {
                let offset = self.offset.take()?;
                self.push(offset, decimal(value)?)?;
            }
            b"map" => {
                let mut numbers = value.split(|byte| *byte == b',');
                self.has_map = true;
                while let Some(offset) = numbers.next() {
                    if offset.is_empty() && numbers.next().is_none() {
                        break;
                    }
                    self.push(decimal(offset)?, decimal(numbers.next()?)?)?;
                }
            }
            _ => {}
        }
        Some(())
    }

    fn push(&mut self, offset: u64, length: u64) -> Option<()> {
        self.has_map = true;
        if self.map.len() >= MAX_CHUNKS {
            return None;
        }
        self.map.push(Chunk { offset, length });
        Some(())
    }

    /// The map, when it was in the records.
    pub(super) fn into_map(self) -> Option<Vec<Chunk>> {
        self.has_map.then_some(self.map)
    }
}

/// The parts listed at `start` of an old GNU header (or continuation block), and whether more blocks follow.
pub(super) fn old_gnu(block: &Block, start: usize, count: usize) -> Option<(Vec<Chunk>, bool)> {
    let mut chunks = Vec::new();
    for index in 0..count {
        let at = start + index * 24;
        let offset = block.get(at..at + 12)?;
        let length = block.get(at + 12..at + 24)?;
        if offset.first() == Some(&0) {
            break;
        }
        chunks.push(Chunk {
            offset: number(offset).and_then(|value| u64::try_from(value).ok())?,
            length: number(length).and_then(|value| u64::try_from(value).ok())?,
        });
    }
    let more = block.get(start + count * 24).copied()?;
    Some((chunks, more != 0))
}

/// Whether the parts are in order, within the file, and together as long as what the archive holds.
pub(super) fn is_consistent(chunks: &[Chunk], size: u64, stored: u64) -> bool {
    let mut end = 0u64;
    let mut total = 0u64;
    for chunk in chunks {
        let Some(next) = chunk.offset.checked_add(chunk.length) else {
            return false;
        };
        if chunk.offset < end || next > size {
            return false;
        }
        end = next;
        total += chunk.length;
    }
    total == stored
}

/// The records of version 1.0 for a file of `size` bytes.
pub(super) fn records(path: &[u8], size: u64) -> Vec<u8> {
    let size = size.to_string();
    [
        (&b"GNU.sparse.major"[..], &b"1"[..]),
        (b"GNU.sparse.minor", b"0"),
        (b"GNU.sparse.name", path),
        (b"GNU.sparse.realsize", size.as_bytes()),
    ]
    .iter()
    .flat_map(|(key, value)| record(key, value))
    .collect()
}

/// The map of version 1.0, in whole blocks.
pub(super) fn map_text(chunks: &[Chunk]) -> Vec<u8> {
    let mut text = format!("{}\n", chunks.len());
    for Chunk { offset, length } in chunks {
        text.push_str(&format!("{offset}\n{length}\n"));
    }
    let mut bytes = text.into_bytes();
    bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
    bytes
}

/// Reads the map of version 1.0 from the beginning of the content: decimal numbers, one a line, in whole
/// blocks. Gives the map and the number of bytes it took.
pub(super) fn map_in_content<E>(
    mut next_block: impl FnMut(&mut Block) -> Result<bool, E>,
) -> Result<Option<(Vec<Chunk>, u64)>, E> {
    let mut text: Vec<u8> = Vec::new();
    let mut at = 0;
    let mut taken = 0u64;
    let mut numbers = Vec::new();
    let mut wanted: Option<usize> = None;
    loop {
        while let Some(length) = text
            .get(at..)
            .and_then(|rest| rest.iter().position(|byte| *byte == b'\n'))
        {
            let Some(value) = text.get(at..at + length).and_then(decimal) else {
                return Ok(None);
            };
            at += length + 1;
            match wanted {
                None => match usize::try_from(value) {
                    Ok(count) if count <= MAX_CHUNKS => wanted = Some(count * 2),
                    _ => return Ok(None),
                },
                Some(_) => numbers.push(value),
            }
            if wanted == Some(numbers.len()) {
                let chunks = numbers
                    .chunks_exact(2)
                    .filter_map(|pair| match pair {
                        [offset, length] => Some(Chunk {
                            offset: *offset,
                            length: *length,
                        }),
                        _ => None,
                    })
                    .collect();
                return Ok(Some((chunks, taken)));
            }
        }
        // A number has at most 20 digits: a longer line without an end is none.
        if text.len().saturating_sub(at) > 32 {
            return Ok(None);
        }
        text.drain(..at);
        at = 0;
        let mut block = [0; BLOCK];
        if !next_block(&mut block)? {
            return Ok(None);
        }
        taken += BLOCK as u64;
        text.extend_from_slice(&block);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(offset: u64, length: u64) -> Chunk {
        Chunk { offset, length }
    }

    #[test]
    fn maps_must_fit_the_file() {
        let map = [chunk(0, 10), chunk(20, 5)];
        assert!(is_consistent(&map, 25, 15));
        assert!(!is_consistent(&map, 24, 15));
        assert!(!is_consistent(&map, 25, 14));
        assert!(!is_consistent(&[chunk(20, 5), chunk(0, 10)], 25, 15));
        assert!(!is_consistent(&[chunk(u64::MAX, 5)], u64::MAX, 5));
    }

    #[test]
    fn maps_in_records() {
        let mut records = Records::default();
        records.take(b"map", b"0,10,20,5").unwrap();
        assert_eq!(records.into_map(), Some(vec![chunk(0, 10), chunk(20, 5)]));
        let mut records = Records::default();
        for (key, value) in [("offset", "4"), ("numbytes", "2")] {
            records.take(key.as_bytes(), value.as_bytes()).unwrap();
        }
        assert_eq!(records.into_map(), Some(vec![chunk(4, 2)]));
        assert_eq!(Records::default().take(b"map", b"0,10,20"), None);
    }

    #[test]
    fn a_map_in_the_content_spans_blocks() {
        let mut text = String::from("100\n");
        for index in 0..100 {
            text.push_str(&format!("{}\n{}\n", index * 1000, 10));
        }
        let mut bytes = text.into_bytes();
        let blocks = bytes.len().div_ceil(BLOCK);
        bytes.resize(blocks * BLOCK, 0);
        let mut parts = bytes.chunks_exact(BLOCK);
        let result =
            map_in_content::<()>(|block| Ok(parts.next().map(|part| block.copy_from_slice(part)).is_some()));
        let (chunks, taken) = result.unwrap().unwrap();
        assert_eq!(chunks.len(), 100);
        assert_eq!(chunks[99], chunk(99_000, 10));
        assert_eq!(taken, (blocks * BLOCK) as u64);
    }
}
