//! Following a recipe: the layer's files and the recipe's own bytes, compressed as they were.

use std::io::{self, Read, Write};

use spec::{Digest, Hasher};
use store::{Stop, Stoppable};

use super::RecipeError;
use super::compressor::Press;
use super::pieces::{Piece, Recipe};
use crate::compression::Even;
use crate::layer::Files;

/// Step of reading files.
const BUFFER: usize = 256 << 10;

/// Writes what comes of the recipe to `out`, which has to look at the digest. `stop` ends it.
pub(super) fn replay<W: Write>(
    mut recipe: Recipe<'_>,
    files: &Files,
    out: W,
    stop: &Stop<'_>,
) -> Result<W, RecipeError> {
    let mut tar = Tar {
        press: Even::new(Press::new(out, &recipe.head.compressor).map_err(RecipeError::Write)?),
        hasher: Hasher::like(&recipe.head.diff),
    };
    let mut buffer = vec![0; BUFFER];
    while let Some(piece) = recipe.next()? {
        match piece {
            Piece::Bytes(bytes) => tar.write(&bytes)?,
            Piece::File { path, size } => {
                let wrong = |detail: &str| RecipeError::Layer {
                    path: path.display().to_string(),
                    detail: detail.to_owned(),
                };
                // What cannot be read now may be later; what is not as it was will not be again.
                let unread = |error: io::Error| {
                    let why = format!("{} of the unpacked layer: {error}", path.display());
                    RecipeError::Read(io::Error::new(error.kind(), why))
                };
                let found = files.file(&path).map_err(unread)?;
                let (file, found) = found.ok_or_else(|| wrong("is not there"))?;
                let mut file = Stoppable::new(file, stop);
                if found != size {
                    return Err(wrong(&format!("has {found} bytes instead of {size}")));
                }
                let mut left = size;
                while left > 0 {
                    let most = usize::try_from(left).unwrap_or(usize::MAX).min(BUFFER);
                    let read = match file.read(buffer.get_mut(..most).unwrap_or_default()) {
                        Ok(0) => return Err(wrong("ends early")),
                        Ok(read) => read,
                        Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                        Err(error) => return Err(unread(error)),
                    };
                    tar.write(buffer.get(..read).unwrap_or_default())?;
                    left -= read as u64;
                }
            }
        }
    }
    let wanted = recipe.head.diff.clone();
    let (out, found) = tar.finish()?;
    match found == wanted {
        true => Ok(out),
        false => Err(RecipeError::Other(found)),
    }
}

/// The archive on its way to the compressor.
struct Tar<W: Write> {
    press: Even<Press<W>>,
    hasher: Hasher,
}

impl<W: Write> Tar<W> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), RecipeError> {
        self.hasher.update(bytes);
        self.press.write_all(bytes).map_err(RecipeError::Write)
    }

    fn finish(self) -> Result<(W, Digest), RecipeError> {
        let press = self.press.finish().map_err(RecipeError::Write)?;
        let out = press.finish().map_err(RecipeError::Write)?;
        Ok((out, self.hasher.finish()))
    }
}
