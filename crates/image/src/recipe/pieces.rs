//! The pieces of a recipe: bytes as they are, and files of the layer.

use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::{Head, MAGIC, RecipeError};

const BYTES: u8 = 1;
const FILE: u8 = 2;
const END: u8 = 3;
/// Most bytes of one piece that are taken as they are, and of a name and the head.
const MOST: usize = 256 << 10;
/// The longest name.
const LONGEST: usize = 64 << 10;

/// One step.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece {
    Bytes(Vec<u8>),
    /// All of a file of the layer, which has so many bytes.
    File {
        path: PathBuf,
        size: u64,
    },
}

/// Writes a recipe.
pub(super) struct Pieces<W: Write> {
    out: zstd::Encoder<'static, W>,
    /// Taken as they are and not written yet.
    bytes: Vec<u8>,
}

impl<W: Write> Pieces<W> {
    pub(super) fn new(mut out: W, head: &Head) -> io::Result<Pieces<W>> {
        out.write_all(MAGIC)?;
        let mut out = zstd::Encoder::new(out, 3)?;
        let head = serde_json::to_vec(head)?;
        length(&mut out, head.len())?;
        out.write_all(&head)?;
        Ok(Pieces {
            out,
            bytes: Vec::with_capacity(MOST),
        })
    }

    pub(super) fn bytes(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let room = MOST.saturating_sub(self.bytes.len()).min(bytes.len());
            let (now, later) = bytes.split_at(room);
            self.bytes.extend_from_slice(now);
            bytes = later;
            if self.bytes.len() >= MOST {
                self.write_bytes()?;
            }
        }
        Ok(())
    }

    pub(super) fn file(&mut self, path: &Path, size: u64) -> io::Result<()> {
        self.write_bytes()?;
        let path = path.as_os_str().as_bytes();
        self.out.write_all(&[FILE])?;
        self.out.write_all(&size.to_le_bytes())?;
        length(&mut self.out, path.len())?;
        self.out.write_all(path)
    }

    pub(super) fn finish(mut self) -> io::Result<W> {
        self.write_bytes()?;
        self.out.write_all(&[END])?;
        self.out.finish()
    }

    fn write_bytes(&mut self) -> io::Result<()> {
        if self.bytes.is_empty() {
            return Ok(());
        }
        self.out.write_all(&[BYTES])?;
        length(&mut self.out, self.bytes.len())?;
        self.out.write_all(&self.bytes)?;
        self.bytes.clear();
        Ok(())
    }
}

fn length(out: &mut impl Write, length: usize) -> io::Result<()> {
    let length = u32::try_from(length).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    out.write_all(&length.to_le_bytes())
}

/// Reads a recipe.
pub(super) struct Recipe<'a> {
    input: Box<dyn Read + 'a>,
    pub(super) head: Head,
}

impl<'a> Recipe<'a> {
    pub(super) fn open(mut input: impl Read + 'a) -> Result<Recipe<'a>, RecipeError> {
        let mut magic = [0; MAGIC.len()];
        exact(&mut input, &mut magic)?;
        if magic != MAGIC {
            return Err(RecipeError::Broken("it is none, or one of another version"));
        }
        let mut input: Box<dyn Read + 'a> = Box::new(zstd::Decoder::new(input).map_err(RecipeError::Read)?);
        let head = block(&mut input, MOST)?;
        let head =
            serde_json::from_slice(&head).map_err(|_| RecipeError::Broken("its head makes no sense"))?;
        Ok(Recipe { input, head })
    }

    pub(super) fn next(&mut self) -> Result<Option<Piece>, RecipeError> {
        let mut kind = [0];
        exact(&mut self.input, &mut kind)?;
        match kind {
            [BYTES] => Ok(Some(Piece::Bytes(block(&mut self.input, MOST)?))),
            [FILE] => {
                let mut size = [0; 8];
                exact(&mut self.input, &mut size)?;
                let path = block(&mut self.input, LONGEST)?;
                Ok(Some(Piece::File {
                    path: Path::new(OsStr::from_bytes(&path)).to_owned(),
                    size: u64::from_le_bytes(size),
                }))
            }
            [END] => Ok(None),
            _ => Err(RecipeError::Broken("a piece of a kind that is not known")),
        }
    }
}

fn block(input: &mut impl Read, most: usize) -> Result<Vec<u8>, RecipeError> {
    let mut length = [0; 4];
    exact(input, &mut length)?;
    let length = usize::try_from(u32::from_le_bytes(length)).unwrap_or(usize::MAX);
    if length > most {
        return Err(RecipeError::Broken("a piece that is too long"));
    }
    let mut bytes = vec![0; length];
    exact(input, &mut bytes)?;
    Ok(bytes)
}

fn exact(input: &mut impl Read, bytes: &mut [u8]) -> Result<(), RecipeError> {
    input.read_exact(bytes).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => RecipeError::Broken("it ends early"),
        // zstd tells of what makes no sense so.
        io::ErrorKind::Other | io::ErrorKind::InvalidData => RecipeError::Broken("it cannot be decompressed"),
        _ => RecipeError::Read(error),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::compressor::Compressor;

    fn head() -> Head {
        Head {
            blob: spec::Digest::sha256(b"blob"),
            size: 4,
            diff: spec::Digest::sha256(b"tar"),
            compressor: Compressor::Gzip {
                level: 6,
                header: vec![0x1f, 0x8b, 8],
            },
        }
    }

    fn written() -> Vec<u8> {
        let mut pieces = Pieces::new(Vec::new(), &head()).unwrap();
        pieces.bytes(b"header").unwrap();
        pieces.bytes(&vec![7; MOST + 10]).unwrap();
        pieces.file(Path::new("usr/lib/\u{e9}"), u64::MAX).unwrap();
        pieces.bytes(b"end").unwrap();
        pieces.finish().unwrap()
    }

    fn read(bytes: &[u8]) -> Result<Vec<Piece>, RecipeError> {
        let mut recipe = Recipe::open(bytes)?;
        let mut pieces = Vec::new();
        while let Some(piece) = recipe.next()? {
            pieces.push(piece);
        }
        Ok(pieces)
    }

    #[test]
    fn what_is_written_is_read() {
        let bytes = written();
        assert_eq!(Recipe::open(bytes.as_slice()).unwrap().head, head());
        let pieces = read(&bytes).unwrap();
        let bytes_of = |piece: &Piece| match piece {
            Piece::Bytes(bytes) => bytes.clone(),
            Piece::File { .. } => Vec::new(),
        };
        let before: Vec<u8> = pieces[..2].iter().flat_map(bytes_of).collect();
        assert_eq!(before, [b"header".to_vec(), vec![7; MOST + 10]].concat());
        let file = Piece::File {
            path: "usr/lib/\u{e9}".into(),
            size: u64::MAX,
        };
        assert_eq!(pieces[2..], [file, Piece::Bytes(b"end".to_vec())]);
    }

    #[test]
    fn broken_ones_are_one_error() {
        let whole = written();
        for end in 0..whole.len() {
            assert!(read(&whole[..end]).is_err(), "cut at {end}");
        }
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 0x41;
            // Some changes show only in what comes of it; none takes the process along.
            let _ = read(&changed);
        }
    }

    #[test]
    fn lengths_are_bounded() {
        let pack = |content: &[u8]| {
            let mut bytes = MAGIC.to_vec();
            bytes.extend(zstd::encode_all(content, 1).unwrap());
            bytes
        };
        let head = serde_json::to_vec(&head()).unwrap();
        let with = |rest: &[u8]| {
            let length = u32::try_from(head.len()).unwrap().to_le_bytes();
            pack(&[&length[..], &head, rest].concat())
        };
        assert_eq!(read(&with(&[END])).unwrap(), []);
        for (rest, why) in [
            ([&[BYTES][..], &u32::MAX.to_le_bytes()].concat(), "too long"),
            (
                [&[FILE][..], &[0; 8], &u32::MAX.to_le_bytes()].concat(),
                "too long",
            ),
            (vec![9], "not known"),
            (vec![], "ends early"),
        ] {
            let error = read(&with(&rest)).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
        let error = read(&pack(&u32::MAX.to_le_bytes())).unwrap_err().to_string();
        assert!(error.contains("too long"), "{error}");
        assert!(
            read(b"something else entirely")
                .unwrap_err()
                .to_string()
                .contains("another version")
        );
    }
}
