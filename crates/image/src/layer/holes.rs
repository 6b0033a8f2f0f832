//! Files with holes: which parts of them hold data, and reading those alone.
//!
//! Source: lseek(2), SEEK_DATA and SEEK_HOLE. A filesystem that does not know them says that all of a file is data.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;

use rustix::fs::{SeekFrom, Stat, seek};
use rustix::io::Errno;

use super::tar::Chunk;

/// A file in more parts than this is written whole: its map would be larger than what it saves.
const MOST: usize = 10_000;
/// `st_blocks` counts these.
const UNIT: u64 = 512;

/// The parts that hold data, and an empty one where the file ends in a hole. None for a file without holes.
pub(super) fn parts(file: &File, stat: &Stat) -> io::Result<Option<Vec<Chunk>>> {
    let size = u64::try_from(stat.st_size).unwrap_or(0);
    let blocks = u64::try_from(stat.st_blocks).unwrap_or(0);
    if blocks.saturating_mul(UNIT) >= size {
        return Ok(None);
    }
    let mut parts = Vec::new();
    let (mut at, mut stored) = (0, 0);
    while at < size {
        let data = match seek(file, SeekFrom::Data(at)) {
            Ok(data) => data.min(size),
            Err(Errno::NXIO) => size,
            Err(error) => return Err(error.into()),
        };
        if data == size {
            break;
        }
        if parts.len() == MOST {
            return whole(file);
        }
        at = seek(file, SeekFrom::Hole(data))?.min(size);
        stored += at - data;
        parts.push(Chunk {
            offset: data,
            length: at - data,
        });
    }
    if stored == size {
        return whole(file);
    }
    if at < size {
        parts.push(Chunk {
            offset: size,
            length: 0,
        });
    }
    Ok(Some(parts))
}

/// As if nothing had been looked for.
fn whole(file: &File) -> io::Result<Option<Vec<Chunk>>> {
    seek(file, SeekFrom::Start(0))?;
    Ok(None)
}

/// Reads the parts of a file one after the other; what the file has lost meanwhile is zeros.
pub(super) struct Parts {
    file: File,
    parts: std::vec::IntoIter<Chunk>,
    at: u64,
    left: u64,
}

impl Parts {
    pub(super) fn new(file: File, parts: Vec<Chunk>) -> Parts {
        Parts {
            file,
            parts: parts.into_iter(),
            at: 0,
            left: 0,
        }
    }
}

impl Read for Parts {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.left == 0 {
            let Some(next) = self.parts.next() else {
                return Ok(0);
            };
            (self.at, self.left) = (next.offset, next.length);
        }
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let Some(buffer) = buffer.get_mut(..most) else {
            return Ok(0);
        };
        let count = match self.file.read_at(buffer, self.at)? {
            0 => {
                buffer.fill(0);
                most
            }
            count => count,
        };
        self.at += count as u64;
        self.left -= count as u64;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_between_holes() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(1 << 30).unwrap();
        file.write_all_at(b"here", 1 << 20).unwrap();
        let stat = rustix::fs::fstat(&file).unwrap();
        let parts = parts(&file, &stat).unwrap().unwrap();
        let holds = parts
            .iter()
            .any(|part| part.offset <= 1 << 20 && part.offset + part.length >= (1 << 20) + 4);
        assert!(holds, "{parts:?}");
        let stored: u64 = parts.iter().map(|part| part.length).sum();
        assert!(stored < 1 << 21, "{parts:?}");
        let mut bytes = Vec::new();
        Parts::new(file, parts).read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes.len() as u64, stored);
        assert!(bytes.windows(4).any(|window| window == b"here"));
    }

    #[test]
    fn a_file_without_holes_is_read_from_its_beginning() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all_at(&[7; 5000], 0).unwrap();
        let stat = rustix::fs::fstat(&file).unwrap();
        assert_eq!(parts(&file, &stat).unwrap(), None);
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes.len(), 5000);
    }
}
