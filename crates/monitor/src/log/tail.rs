//! Where the last lines of a file begin, without reading what comes before them.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;

const BLOCK: usize = 64 * 1024;

/// What a file has of the last lines.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// All of them, from this offset.
    At(u64),
    /// Only so many: it is to be read from its beginning.
    Only(u64),
}

/// Looks for the last `count` whole lines of a plain file, backwards from its end.
pub(super) fn last_lines(file: &File, count: u64) -> io::Result<Found> {
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
        for (at, byte) in block.iter().enumerate().rev() {
            if *byte != b'\n' {
                first = false;
                continue;
            }
            if first {
                // The end of the last line.
                first = false;
                continue;
            }
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

/// Number of lines of a file that can only be read forwards.
pub(super) fn count_lines(mut source: impl Read) -> io::Result<u64> {
    let mut buffer = vec![0u8; BLOCK];
    let mut count = 0u64;
    loop {
        match source.read(&mut buffer) {
            Ok(0) => return Ok(count),
            Ok(length) => {
                let block = buffer.get(..length).unwrap_or_default();
                count += block.iter().filter(|byte| **byte == b'\n').count() as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io::Write;

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
        assert_eq!(count_lines(&text[..]).unwrap(), lines);
    }
}
