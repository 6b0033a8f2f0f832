//! A file that was put aside and compressed: gzip that any tool reads, written so that its end can be read without
//! its beginning.
//!
//! ```text
//!   member of about 1 MiB, whole entries      the first one's header names the original file
//!   member …
//!   empty member                              its header holds the length and number of entries of each
//!   empty member, 34 bytes                    its header says where the one before begins
//! ```
//!
//! What the headers say stands in the extra field (RFC 1952 §2.3.1.1). A file without the last two, by whomever, is
//! read from its beginning.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;

use flate2::bufread::MultiGzDecoder;
use flate2::{Compression, GzBuilder};

use super::files::Identity;
use super::format::Format;

/// Subfield of the first header: inode number and time of birth of the original.
const ORIGINAL: [u8; 2] = *b"Be";
/// Subfield of the index: pairs of four bytes, compressed length and entries.
const INDEX: [u8; 2] = *b"Bi";
/// Subfield of the last member: eight bytes, where the index begins.
const TRAILER: [u8; 2] = *b"Bt";
const TRAILER_LENGTH: u64 = 34;
const BLOCK: u64 = 1 << 20;
/// An extra field holds 64 KiB.
const MOST_BLOCKS: u64 = 8000;
const PAIR: usize = 8;

/// A compressed file being read.
pub(super) struct Compressed {
    /// None only while it is being replaced.
    decoder: Option<MultiGzDecoder<BufReader<File>>>,
}

impl Compressed {
    pub(super) fn open(file: File) -> Self {
        Self {
            decoder: Some(MultiGzDecoder::new(BufReader::new(file))),
        }
    }

    /// The file that was compressed, where its header says so.
    pub(super) fn original(&self) -> Option<Identity> {
        // The header has been read when the decoder was made.
        let extra = self.decoder.as_ref()?.header()?.extra()?;
        let numbers = subfield(extra, ORIGINAL)?;
        let number =
            |range: std::ops::Range<usize>| numbers.get(range)?.try_into().ok().map(u64::from_le_bytes);
        Some(Identity {
            inode: number(0..8)?,
            born: number(8..16)?,
        })
    }

    /// Goes to a place that `count` entries follow, or more: says how many follow, or how many there are at all when
    /// these are fewer (then it is at the beginning).
    pub(super) fn seek_last(&mut self, count: u64, format: Format) -> io::Result<u64> {
        let Some(decoder) = self.decoder.take() else {
            return Ok(0);
        };
        let mut file = decoder.into_inner().into_inner();
        let (mut at, mut entries) = (0, 0);
        match index_of(&file)? {
            Some((mut end, blocks)) => {
                for (length, inside) in blocks.iter().rev() {
                    end = end.saturating_sub(u64::from(*length));
                    entries += u64::from(*inside);
                    at = end;
                    if entries >= count {
                        break;
                    }
                }
            }
            None => {
                file.seek(SeekFrom::Start(0))?;
                entries = count_all(&mut MultiGzDecoder::new(BufReader::new(&file)), format);
            }
        }
        file.seek(SeekFrom::Start(at))?;
        *self = Self::open(file);
        Ok(entries)
    }
}

impl Read for Compressed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.decoder {
            Some(decoder) => decoder.read(buffer),
            None => Ok(0),
        }
    }
}

/// Where the blocks end, and what each is: compressed length and entries.
fn index_of(file: &File) -> io::Result<Option<(u64, Vec<(u32, u32)>)>> {
    let length = file.metadata()?.len();
    let Some(end) = length.checked_sub(TRAILER_LENGTH) else {
        return Ok(None);
    };
    let read = |at: u64, until: u64| -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(until.saturating_sub(at).min(128 << 10)).unwrap_or(0)];
        file.read_exact_at(&mut bytes, at)?;
        Ok(bytes)
    };
    let trailer = read(end, length)?;
    let start = extra_of(&trailer)
        .and_then(|extra| subfield(extra, TRAILER))
        .and_then(|bytes| Some(u64::from_le_bytes(bytes.try_into().ok()?)))
        .filter(|start| *start < end);
    let Some(start) = start else { return Ok(None) };
    let member = read(start, end)?;
    let Some(pairs) = extra_of(&member).and_then(|extra| subfield(extra, INDEX)) else {
        return Ok(None);
    };
    let number = |bytes: &[u8]| bytes.try_into().map_or(0, u32::from_le_bytes);
    let blocks = pairs
        .chunks_exact(PAIR)
        .map(|pair| {
            let (length, entries) = pair.split_at(PAIR / 2);
            (number(length), number(entries))
        })
        .collect();
    Ok(Some((start, blocks)))
}

/// The extra field of a member whose header has nothing else.
fn extra_of(member: &[u8]) -> Option<&[u8]> {
    let rest = member.strip_prefix(&[0x1f, 0x8b, 8, 4])?;
    let length = u16::from_le_bytes(rest.get(6..8)?.try_into().ok()?);
    rest.get(8..8 + usize::from(length))
}

fn subfield(mut extra: &[u8], name: [u8; 2]) -> Option<&[u8]> {
    loop {
        let found: [u8; 2] = extra.get(..2)?.try_into().ok()?;
        let length = usize::from(u16::from_le_bytes(extra.get(2..4)?.try_into().ok()?));
        let value = extra.get(4..4 + length)?;
        if found == name {
            return Some(value);
        }
        extra = extra.get(4 + length..)?;
    }
}

fn subfield_of(name: [u8; 2], value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(value.len()).unwrap_or(u16::MAX).to_le_bytes();
    [&name[..], &length, value].concat()
}

/// A member without content: header, an empty final block, checksum and size of nothing.
fn empty_member(extra: &[u8]) -> Vec<u8> {
    let length = u16::try_from(extra.len()).unwrap_or(u16::MAX).to_le_bytes();
    [
        &[0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 255][..],
        &length,
        extra,
        &[3, 0],
        &[0; 8],
    ]
    .concat()
}

fn count_all(source: &mut impl Read, format: Format) -> u64 {
    let mut buffer = Vec::new();
    let mut count = 0;
    loop {
        let read = source.take(BLOCK).read_to_end(&mut buffer);
        let whole = format.whole(&buffer);
        count += format.count(buffer.get(..whole).unwrap_or_default());
        buffer.drain(..whole);
        // What is damaged ends there.
        if !read.is_ok_and(|count| count > 0) {
            return count;
        }
    }
}

/// Compresses a file of whole entries, and keeps the time of its last change.
pub(super) fn write(source: &File, target: &File, format: Format) -> io::Result<()> {
    let metadata = source.metadata()?;
    let identity = Identity::from(&metadata);
    let original = [identity.inode.to_le_bytes(), identity.born.to_le_bytes()].concat();
    let mut out = Counted {
        inner: target,
        count: 0,
    };
    let wanted = BLOCK.max(metadata.len().div_ceil(MOST_BLOCKS));
    let mut index = Vec::new();
    let mut block = Vec::new();
    loop {
        let read = source.take(wanted).read_to_end(&mut block)?;
        // At the end a torn entry goes along.
        let whole = if read == 0 {
            block.len()
        } else {
            format.whole(&block)
        };
        if whole > 0 {
            let entries = block.get(..whole).unwrap_or_default();
            let before = out.count;
            let mut builder = GzBuilder::new();
            if index.is_empty() {
                builder = builder.extra(subfield_of(ORIGINAL, &original));
            }
            // Level 3: nearly as small as 6 for logs, in half the time.
            let mut encoder = builder.write(&mut out, Compression::new(3));
            encoder.write_all(entries)?;
            encoder.finish()?;
            let length = u32::try_from(out.count - before).unwrap_or(u32::MAX);
            let count = u32::try_from(format.count(entries)).unwrap_or(u32::MAX);
            index.extend_from_slice(&length.to_le_bytes());
            index.extend_from_slice(&count.to_le_bytes());
            block.drain(..whole);
        }
        if read == 0 {
            break;
        }
    }
    if index.len() < usize::from(u16::MAX) - 4 {
        let start = out.count;
        out.write_all(&empty_member(&subfield_of(INDEX, &index)))?;
        out.write_all(&empty_member(&subfield_of(TRAILER, &start.to_le_bytes())))?;
    }
    target.set_modified(metadata.modified()?)
}

struct Counted<'a> {
    inner: &'a File,
    count: u64,
}

impl Write for Counted<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.count += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn text(lines: std::ops::Range<u32>) -> Vec<u8> {
        lines
            .flat_map(|n| format!("line {n:08} {}\n", "x".repeat(40)).into_bytes())
            .collect()
    }

    fn compressed(content: &[u8]) -> File {
        let mut source = tempfile::tempfile().unwrap();
        source.write_all(content).unwrap();
        source.seek(SeekFrom::Start(0)).unwrap();
        let identity = Identity::from(&source.metadata().unwrap());
        let target = tempfile::tempfile().unwrap();
        write(&source, &target, Format::Json).unwrap();
        (&target).seek(SeekFrom::Start(0)).unwrap();
        let mut source = Compressed::open(target.try_clone().unwrap());
        assert_eq!(source.original(), Some(identity));
        let mut all = Vec::new();
        source.read_to_end(&mut all).unwrap();
        assert!(all == content, "what was compressed comes back");
        target
    }

    #[test]
    fn the_end_is_read_without_the_beginning() {
        let total = 60_000;
        let content = text(0..total);
        let file = compressed(&content);
        for count in [0u32, 1, 500, 17_000, 59_999, 60_000, 70_000] {
            let mut source = Compressed::open(file.try_clone().unwrap());
            let follow = source.seek_last(u64::from(count), Format::Json).unwrap();
            assert!(follow >= u64::from(count.min(total)), "{count}");
            if count < 1000 {
                assert!(follow < 20_000, "a whole file was looked at for {count} lines");
            }
            let mut rest = Vec::new();
            source.read_to_end(&mut rest).unwrap();
            let from = total - u32::try_from(follow).unwrap();
            assert!(rest == text(from..total), "{count}");
        }
    }

    #[test]
    fn gzip_of_others_is_read_from_its_beginning() {
        let content = text(0..30_000);
        let target = tempfile::tempfile().unwrap();
        let mut encoder = GzBuilder::new().write(&target, Compression::new(1));
        encoder.write_all(&content).unwrap();
        encoder.finish().unwrap();
        let mut source = Compressed::open(target);
        assert_eq!(source.original(), None);
        assert_eq!(source.seek_last(5, Format::Json).unwrap(), 30_000);
    }
}
