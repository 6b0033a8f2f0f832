//! Making layers: a tar stream is hashed, compressed, stored, and where needed applied to a snapshot, all in
//! one pass.
//!
//! ```text
//!   producer ──tar──┬── hash (diff ID)
//!                   ├── gzip, several threads ──> own thread: blob (hash: its digest)
//!                   └── blocks ──own thread──> apply to a snapshot
//! ```

use std::io::{self, Write};
use std::sync::mpsc;

use spec::image::{Descriptor, media_type};
use spec::{Digest, Hasher};
use store::{Content, Part, Sealed};

use crate::behind::Behind;
use crate::error::ImageError;
use crate::layer;
use crate::scratch::ScratchBlob;
use crate::steps::Steps;
use crate::unpack::Blocks;

const BLOCK: usize = 256 << 10;
const BLOCKS: usize = 8;

/// A layer that was made.
pub(crate) struct WrittenLayer {
    pub diff: Digest,
    pub blob: Descriptor,
}

/// A layer whose blob is still to be made visible.
pub(crate) struct SealedLayer {
    pub layer: WrittenLayer,
    pub sealed: Sealed,
}

impl SealedLayer {
    fn publish(self, content: &Content) -> Result<WrittenLayer, ImageError> {
        content.publish(vec![self.sealed])?;
        Ok(self.layer)
    }
}

/// Runs `produce`, which writes an uncompressed tar, and writes that as a layer.
pub(crate) fn seal_layer(
    content: &Content,
    produce: impl FnOnce(&mut dyn Write) -> Result<(), ImageError>,
) -> Result<SealedLayer, ImageError> {
    let mut sink = Sink::new(content, None)?;
    produce(&mut sink)?;
    sink.finish()
}

/// Runs `produce`, which writes an uncompressed tar, stores what it wrote, and applies it to a snapshot.
pub(crate) fn write_layer(
    content: &Content,
    part: &Part,
    produce: impl FnOnce(&mut dyn Write) -> Result<(), ImageError>,
) -> Result<WrittenLayer, ImageError> {
    let sealed = std::thread::scope(|scope| {
        let (blocks, queue) = mpsc::sync_channel(BLOCKS);
        let applying = scope.spawn(move || {
            let mut reader = Blocks::new(queue);
            layer::apply_part(&mut reader, part).map_err(ImageError::Layer)?;
            Ok::<(), ImageError>(())
        });
        let mut sink = Sink::new(content, Some((blocks, Vec::with_capacity(BLOCK))))?;
        let produced = produce(&mut sink).and_then(|()| sink.flush_block().map_err(ImageError::Write));
        let blocks = sink.blocks.take();
        if produced.is_err() {
            // A cut stream must not look like a complete one.
            if let Some((blocks, _)) = &blocks {
                let _ = blocks.send(Err(io::ErrorKind::UnexpectedEof.into()));
            }
        }
        drop(blocks);
        let applied = applying.join().map_err(|_| ImageError::Worker)?;
        match (produced, applied) {
            // The producer failed because nobody took its bytes: the taker has the reason.
            (Err(ImageError::Write(error)), Err(reason)) if error.kind() == io::ErrorKind::BrokenPipe => {
                Err(reason)
            }
            (Err(error), _) => Err(error),
            (Ok(()), Err(reason)) => Err(reason),
            (Ok(()), Ok(())) => sink.finish(),
        }
    })?;
    sealed.publish(content)
}

struct Sink {
    hasher: Hasher,
    encoder: Steps<Behind>,
    blocks: Option<(mpsc::SyncSender<io::Result<Vec<u8>>>, Vec<u8>)>,
}

impl Sink {
    fn new(
        content: &Content,
        blocks: Option<(mpsc::SyncSender<io::Result<Vec<u8>>>, Vec<u8>)>,
    ) -> Result<Sink, ImageError> {
        Ok(Sink {
            hasher: Hasher::new(),
            encoder: Steps::new(Behind::new(ScratchBlob::new(content)?)).map_err(ImageError::Write)?,
            blocks,
        })
    }

    fn flush_block(&mut self) -> io::Result<()> {
        if let Some((blocks, block)) = &mut self.blocks
            && !block.is_empty()
        {
            let full = std::mem::replace(block, Vec::with_capacity(BLOCK));
            blocks
                .send(Ok(full))
                .map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        }
        Ok(())
    }

    fn finish(self) -> Result<SealedLayer, ImageError> {
        let blob = self.encoder.finish().and_then(Behind::finish);
        let sealed = blob.map_err(ImageError::Write)?.seal()?;
        let (digest, size) = (sealed.digest().clone(), sealed.size());
        let layer = WrittenLayer {
            diff: self.hasher.finish(),
            blob: Descriptor::new(media_type::OCI_LAYER_GZIP, digest, size),
        };
        Ok(SealedLayer { layer, sealed })
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.encoder.write_all(bytes)?;
        self.hasher.update(bytes);
        if let Some((_, block)) = &mut self.blocks {
            block.extend_from_slice(bytes);
            if block.len() >= BLOCK {
                self.flush_block()?;
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
