//! What the ends of a plain file tell, without reading what lies between: where the last entries begin, whether the
//! last one is whole, when the first one was written.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::format::{Format, Head};
use super::local;

const BLOCK: usize = 64 * 1024;

/// What a file has of the last entries.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// All of them, from this offset.
    At(u64),
    /// Only so many: it is to be read from its beginning.
    Only(u64),
}

/// Looks for the last `count` entries of a plain file, backwards from its end.
pub(super) fn last_entries(file: &File, format: Format, count: u64) -> io::Result<Found> {
    match format {
        Format::Json => last_lines(file, count),
        Format::Local => last_frames(file, count),
    }
}

fn last_lines(file: &File, count: u64) -> io::Result<Found> {
    let mut end = file.metadata()?.len();
    if count == 0 {
        return Ok(Found::At(end));
    }
    let mut buffer = vec![0u8; BLOCK];
    let mut seen = 0u64;
    // A line in the making at the end counts as one: its reader will get it whole later.
    let mut first = true;
    while end > 0 {
        let length = usize::try_from(end).unwrap_or(BLOCK).min(BLOCK);
        let begin = end - length as u64;
        let block = buffer.get_mut(..length).unwrap_or_default();
        file.read_exact_at(block, begin)?;
        let mut rest = &*block;
        if first {
            // The end of the last line.
            rest = rest.strip_suffix(b"\n").unwrap_or(rest);
            first = false;
        }
        for at in memchr::memrchr_iter(b'\n', rest) {
            seen += 1;
            if seen == count {
                return Ok(Found::At(begin + at as u64 + 1));
            }
        }
        end = begin;
    }
    // The first line has no newline before it.
    let total = seen + u64::from(!first);
    Ok(if total >= count {
        Found::At(0)
    } else {
        Found::Only(total)
    })
}

/// Each frame says its length at its end, too.
fn last_frames(file: &File, count: u64) -> io::Result<Found> {
    let mut end = whole_frames(file)?;
    for seen in 0..count {
        if end == 0 {
            return Ok(Found::Only(seen));
        }
        let Some(begin) = frame_before(file, end)? else {
            // Damage: what lies before is not counted.
            return Ok(Found::At(end));
        };
        end = begin;
    }
    Ok(Found::At(end))
}

/// Where the frame that ends at `end` begins.
fn frame_before(file: &File, end: u64) -> io::Result<Option<u64>> {
    const LENGTH: u64 = local::LENGTH as u64;
    let read = |at: u64| -> io::Result<Option<u64>> {
        let mut bytes = [0u8; local::LENGTH];
        file.read_exact_at(&mut bytes, at)?;
        Ok(local::length_at(&bytes, 0).map(|length| length as u64))
    };
    let Some(last) = end.checked_sub(LENGTH) else {
        return Ok(None);
    };
    let Some(length) = read(last)? else {
        return Ok(None);
    };
    let Some(begin) = last.checked_sub(length + LENGTH) else {
        return Ok(None);
    };
    Ok((read(begin)? == Some(length)).then_some(begin))
}

/// How long a file of frames is up to the end of its last whole one.
pub(super) fn whole_frames(file: &File) -> io::Result<u64> {
    let size = file.metadata()?.len();
    if size == 0 || frame_before(file, size)?.is_some() {
        return Ok(size);
    }
    // Something is torn or being written: from the beginning, once.
    let (mut whole, mut buffer) = (0u64, Vec::new());
    let mut chunk = vec![0u8; BLOCK];
    let mut at = 0u64;
    loop {
        let count = file.read_at(&mut chunk, at)?;
        if count == 0 {
            return Ok(whole);
        }
        at += count as u64;
        buffer.extend_from_slice(chunk.get(..count).unwrap_or_default());
        let complete = Format::Local.whole(&buffer);
        buffer.drain(..complete);
        whole += complete as u64;
        if Format::Local.head(&buffer, 0) == Head::Damaged {
            return Ok(whole);
        }
    }
}

/// When the first entry of a file was written, in nanoseconds since 1970.
pub(super) fn first_time(file: &File, format: Format) -> Option<u64> {
    let mut chunk = vec![0u8; BLOCK];
    let count = file.read_at(&mut chunk, 0).ok()?;
    let bytes = chunk.get(..count)?;
    let Head::Entry(length) = format.head(bytes, 0) else {
        return None;
    };
    let line = format.decode(bytes.get(..length)?)?;
    u64::try_from(line.time.as_nanosecond()).ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io::Write;

    use super::super::lines::{Entry, Stream};
    use super::*;

    fn file(text: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(text).unwrap();
        file
    }

    #[test]
    fn lines_are_found_from_the_end() {
        let three = file(b"a\nbb\nccc\n");
        assert_eq!(last_lines(&three, 0).unwrap(), Found::At(9));
        assert_eq!(last_lines(&three, 1).unwrap(), Found::At(5));
        assert_eq!(last_lines(&three, 2).unwrap(), Found::At(2));
        assert_eq!(last_lines(&three, 3).unwrap(), Found::At(0));
        assert_eq!(last_lines(&three, 4).unwrap(), Found::Only(3));
        assert_eq!(last_lines(&file(b""), 2).unwrap(), Found::Only(0));
        assert_eq!(last_lines(&file(b"a\nb"), 1).unwrap(), Found::At(2));
    }

    #[test]
    fn blocks_do_not_matter() {
        let text: Vec<u8> = (0..BLOCK).flat_map(|_| *b"xy\n").collect();
        let file = file(&text);
        let lines = BLOCK as u64;
        for count in [1, 1000, 21_845, 21_846, 40_000, lines] {
            assert_eq!(
                last_lines(&file, count).unwrap(),
                Found::At((lines - count) * 3),
                "{count}"
            );
        }
        assert_eq!(last_lines(&file, lines + 1).unwrap(), Found::Only(lines));
    }

    #[test]
    fn frames_are_found_from_the_end_and_torn_ones_left_out() {
        let mut text = Vec::new();
        let mut begins = vec![0u64];
        for number in 0u64..40 {
            let long = vec![b'x'; usize::try_from(number * 300).unwrap()];
            let entry = Entry {
                stream: Stream::Stdout,
                time: number + 5,
                text: &long,
                partial: None,
            };
            local::append(&entry, &mut text);
            begins.push(text.len() as u64);
        }
        let whole = file(&text);
        let frames = |count| last_entries(&whole, Format::Local, count).unwrap();
        assert_eq!(frames(0), Found::At(begins[40]));
        assert_eq!(frames(1), Found::At(begins[39]));
        assert_eq!(frames(40), Found::At(0));
        assert_eq!(frames(41), Found::Only(40));
        assert_eq!(first_time(&whole, Format::Local), Some(5));
        let torn = file(&text[..text.len() - 3]);
        assert_eq!(whole_frames(&torn).unwrap(), begins[39]);
        assert_eq!(
            last_entries(&torn, Format::Local, 1).unwrap(),
            Found::At(begins[38])
        );
    }
}
