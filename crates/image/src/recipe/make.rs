//! Finding out whether a layer's blob can be made again, and writing down how.

use std::io::{self, Read, Seek, Write};

use spec::image::Descriptor;
use spec::{Digest, Hasher};
use store::{Lease, Part};

use super::compressor::{Compressor, PROBE, TAIL};
use super::pieces::{Pieces, Recipe};
use super::replay::replay;
use super::split::{Split, split};
use super::{Head, RecipeError};
use crate::compression;
use crate::error::ImageError;
use crate::images::Images;
use crate::layer::Files;
use crate::scratch::ScratchBlob;
use crate::unpack::fill;

/// A recipe is worth it where it takes at most this part of the blob. What is the recipe's own is mostly headers, which
/// shrink to less than a tenth.
const PART: u64 = 4;
const SHRINKS: u64 = 8;

impl Images {
    /// A recipe of the blob, stored; none if nothing here makes the same bytes. Whoever asks holds the blob and the layer.
    pub(super) fn make_recipe(
        &self,
        blob: &Descriptor,
        diff: &Digest,
        layer: &Part,
        lease: &Lease,
    ) -> Result<Option<Digest>, ImageError> {
        let content = self.inner.store.content();
        let files = Files::open(layer).map_err(ImageError::Read)?;
        let mut beginning = vec![0; PROBE];
        let filled = fill(&mut content.open(&blob.digest)?, &mut beginning).map_err(ImageError::Read)?;
        beginning.truncate(filled);
        let tail = tail(content.open(&blob.digest)?).map_err(ImageError::Read)?;
        let mut decoder = compression::decoder(content.open(&blob.digest)?);
        let mut sample = vec![0; PROBE];
        let filled = fill(&mut decoder, &mut sample).map_err(ImageError::Read)?;
        let whole = filled < PROBE;
        sample.truncate(filled);
        drop(decoder);
        for compressor in Compressor::guess(&beginning, &tail, &sample, whole) {
            let head = Head {
                blob: blob.digest.clone(),
                size: blob.size,
                diff: diff.clone(),
                compressor,
            };
            let tar = compression::decoder(content.open(&blob.digest)?);
            match self.write_recipe(&head, tar, &files) {
                Ok(Some(recipe)) => {
                    // Hold first, look second: it may have gone between the two.
                    lease.hold_blob(&recipe);
                    if self.is_right(&recipe, &head, &files)? {
                        return Ok(Some(recipe));
                    }
                    content.remove(&recipe)?;
                }
                Ok(None) => return Ok(None),
                Err(RecipeError::Read(error)) => return Err(ImageError::Read(error)),
                Err(RecipeError::Write(error)) => return Err(ImageError::Write(error)),
                // An archive that only other readers understand.
                Err(_) => return Ok(None),
            }
        }
        Ok(None)
    }

    fn write_recipe(
        &self,
        head: &Head,
        tar: impl Read,
        files: &Files,
    ) -> Result<Option<Digest>, RecipeError> {
        let other = |error: ImageError| RecipeError::Write(io::Error::other(error));
        let scratch = ScratchBlob::new(self.inner.store.content()).map_err(other)?;
        let mut pieces = Pieces::new(scratch, head).map_err(RecipeError::Write)?;
        let dear = |split: &Split| split.own / SHRINKS > head.size / PART + (64 << 10);
        if split(tar, files, &mut pieces, &dear)?.is_none() {
            return Ok(None);
        }
        let scratch = pieces.finish().map_err(RecipeError::Write)?;
        if scratch.size() > head.size / PART + (4 << 10) || scratch.size() >= head.size {
            return Ok(None);
        }
        let (digest, _) = scratch.commit(None).map_err(other)?;
        Ok(Some(digest))
    }

    /// Whether following the recipe gives the blob.
    fn is_right(&self, recipe: &Digest, head: &Head, files: &Files) -> Result<bool, ImageError> {
        let input = self.inner.store.content().open(recipe)?;
        let made = Recipe::open(input).and_then(|recipe| {
            let out = Hashed {
                hasher: Hasher::like(&head.blob),
                size: 0,
                most: head.size,
            };
            replay(recipe, files, out, &|| false)
        });
        match made {
            Ok(out) => Ok(out.size == head.size && out.hasher.finish() == head.blob),
            Err(RecipeError::Read(error)) => Err(ImageError::Read(error)),
            // What was asked of the layer it has not, or something else comes out.
            Err(_) => Ok(false),
        }
    }
}

/// The last bytes of a blob; of one that has fewer, all.
fn tail(mut blob: std::fs::File) -> io::Result<Vec<u8>> {
    let length = blob.metadata()?.len();
    blob.seek(io::SeekFrom::Start(length.saturating_sub(TAIL as u64)))?;
    let mut tail = Vec::with_capacity(TAIL);
    blob.take(TAIL as u64).read_to_end(&mut tail)?;
    Ok(tail)
}

/// Looks at bytes and keeps none.
struct Hashed {
    hasher: Hasher,
    size: u64,
    most: u64,
}

impl Write for Hashed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.size += bytes.len() as u64;
        if self.size > self.most {
            // The rest could not make it right.
            return Err(io::ErrorKind::InvalidData.into());
        }
        self.hasher.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
