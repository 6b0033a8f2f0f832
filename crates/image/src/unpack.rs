//! From a compressed layer to a snapshot: decompress, hash, apply, verify, commit. Several layers of an image are on this
//! way at once ([`crate::stack`]).
//!
//! ```text
//!   source ──> decompress (own thread) ──> hash ──> apply to snapshots/<n>/fs
//!                                           └── = diff ID? and source verified? ──> commit under chain ID
//! ```
//!
//! A snapshot becomes a layer only after both digests were verified; until then it is removed when dropped.

use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;

use spec::image::{Descriptor, ImageConfig, Manifest};
use spec::{Digest, Hasher};
use store::{Lease, Part, SnapshotId, Snapshots};

use crate::bounded::Bounded;
use crate::error::ImageError;
use crate::image::{Image, chains};
use crate::images::Images;
use crate::layer::Beneath;
use crate::registered::UnpackedManifest;
use crate::stack::{Below, unpack_stack};
use crate::{compression, layer};

/// Bytes handed from the decompressing thread at once.
const BLOCK: usize = 256 << 10;
/// Blocks that wait for the applying thread.
const BLOCKS: usize = 8;

/// A layer to unpack.
pub(crate) struct LayerJob {
    pub blob: Descriptor,
    pub diff: Digest,
    pub chain: Digest,
}

/// A snapshot being filled; removed unless it was committed.
pub(crate) struct Pending {
    snapshots: Snapshots,
    id: Option<SnapshotId>,
}

impl Pending {
    pub fn create(
        snapshots: &Snapshots,
        parent: Option<SnapshotId>,
        lease: &Lease,
    ) -> Result<Pending, ImageError> {
        let id = snapshots.create(parent, &format!("unpack:{}", lease.id()))?;
        // Before it becomes a layer: a garbage collection may come right after.
        lease.hold_snapshot(id);
        Ok(Pending {
            snapshots: snapshots.clone(),
            id: Some(id),
        })
    }

    pub fn part(&self) -> Result<Part, ImageError> {
        let id = self.id.ok_or(ImageError::Worker)?;
        Ok(self.snapshots.part(id)?)
    }

    pub fn commit(mut self, chain: &Digest, diff: &Digest) -> Result<SnapshotId, ImageError> {
        let id = self.id.ok_or(ImageError::Worker)?;
        let kept = self.snapshots.commit(id, Some(chain), Some(diff))?;
        self.id = None;
        Ok(kept)
    }

    /// The same above a layer that was not complete when this one was created.
    pub fn commit_on(
        mut self,
        parent: SnapshotId,
        chain: &Digest,
        diff: &Digest,
    ) -> Result<SnapshotId, ImageError> {
        let id = self.id.ok_or(ImageError::Worker)?;
        let kept = self.snapshots.commit_on(id, parent, Some(chain), Some(diff))?;
        self.id = None;
        Ok(kept)
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        let Some(id) = self.id else { return };
        if self.snapshots.remove(id).is_ok() {
            return;
        }
        // On a full disk the database cannot even note a removal: the content goes first and makes the room.
        let emptied = std::fs::remove_dir_all(self.snapshots.fs(id));
        if let Err(error) = self.snapshots.remove(id) {
            tracing::warn!(%id, %error, ?emptied, "a snapshot that was given up stays until the next start");
        }
    }
}

impl Images {
    /// The snapshot of the image's root filesystem: its top layer. Unpacks what is not unpacked. Blocks.
    pub fn snapshot(&self, image: &Image) -> Result<SnapshotId, ImageError> {
        self.snapshot_for(image, &self.inner.store.lease())
    }

    /// The same, held by `lease` besides; of a [`crate::Guest`] nothing else holds it. Blocks.
    pub fn snapshot_for(&self, image: &Image, lease: &Lease) -> Result<SnapshotId, ImageError> {
        if let Some(known) = self.snapshot_here(image, lease) {
            return Ok(known);
        }
        let top = self.unpack_stored(
            &image.manifest_digest,
            &image.manifest,
            &image.config,
            lease,
            &|_, _| {},
        )?;
        let unpacked = UnpackedManifest {
            manifest: image.manifest_digest.clone(),
            top,
        };
        self.record_snapshot(&image.id, &unpacked)?;
        Ok(top)
    }

    /// The same where it is unpacked already.
    pub fn snapshot_here(&self, image: &Image, lease: &Lease) -> Option<SnapshotId> {
        self.inner.store.snapshots().by_chain_kept(&image.chain()?, lease)
    }

    /// Unpacks every layer of a manifest from blobs that are here. `told` is called with the layer and the bytes
    /// of it that were read, by several threads.
    pub(crate) fn unpack_stored(
        &self,
        manifest_digest: &Digest,
        manifest: &Manifest,
        config: &ImageConfig,
        lease: &Lease,
        told: &(dyn Fn(&Descriptor, u64) + Sync),
    ) -> Result<SnapshotId, ImageError> {
        check_layers(manifest_digest, manifest, config)?;
        let jobs: Vec<LayerJob> = jobs(manifest, config).map(|(job, _)| job).collect();
        let stop = Arc::new(AtomicBool::new(false));
        let top = unpack_stack(jobs.len(), &stop, &|index, below| {
            let job = jobs.get(index).ok_or(ImageError::Worker)?;
            let open = || {
                Ok(Stoppable {
                    inner: self.inner.store.content().open(&job.blob.digest)?,
                    stop: stop.clone(),
                })
            };
            let whole = || match stop.load(Ordering::Relaxed) {
                true => Err(ImageError::GivenUp),
                false => Ok(()),
            };
            self.layer(job, below, lease, open, |read| told(&job.blob, read), whole)
        })?;
        match top {
            Some(top) => Ok(top),
            None => self.empty_snapshot(lease),
        }
    }

    /// Unpacks one layer unless its chain is known, while those below it may be under way. `source` opens the compressed
    /// bytes, `verified` is asked at the end whether they are what they should be.
    pub(crate) fn layer<R: Read + Send>(
        &self,
        job: &LayerJob,
        below: &Below<'_>,
        lease: &Lease,
        source: impl FnOnce() -> Result<R, ImageError>,
        told: impl FnMut(u64) + Send,
        verified: impl FnOnce() -> Result<(), ImageError>,
    ) -> Result<SnapshotId, ImageError> {
        let snapshots = self.inner.store.snapshots();
        let _turn = self.inner.chains.lock(&job.chain);
        if let Some(known) = snapshots.by_chain_kept(&job.chain, lease) {
            return Ok(known);
        }
        // A copy of what is below can be made only when that is complete.
        let under = match snapshots.makes_whole() {
            true => below.wait()?,
            false => None,
        };
        let pending = Pending::create(snapshots, under, lease)?;
        let part = pending.part()?;
        let counted = Counted {
            inner: source()?,
            read: 0,
            told,
        };
        let lowers = || {
            let parent = below.wait().map_err(io::Error::other)?;
            snapshots.directories(parent).map_err(io::Error::other)
        };
        let beneath = match (below.is_nothing(), under) {
            (true, _) => Beneath::Here(&[]),
            (false, Some(_)) => Beneath::Inside,
            (false, None) => Beneath::Coming(&lowers),
        };
        let gate = self.inner.store.room().gate();
        let outcome = apply_layer(
            counted,
            self.max_layer(),
            &part.dir,
            beneath,
            &job.blob.digest,
            gate,
        );
        // A broken source explains a failed unpacking better than the unpacking does.
        verified()?;
        let actual = outcome?;
        if actual != job.diff {
            return Err(ImageError::DiffId {
                blob: job.blob.digest.clone(),
                expected: job.diff.clone(),
                actual,
            });
        }
        let id = match below.wait()?.filter(|_| under.is_none()) {
            Some(parent) => pending.commit_on(parent, &job.chain, &job.diff)?,
            None => pending.commit(&job.chain, &job.diff)?,
        };
        lease.hold_snapshot(id);
        self.record_layer(&job.diff, &job.blob)?;
        Ok(id)
    }

    /// The root filesystem of images without layers: an empty directory under a chain ID of its own, which no
    /// layer can have, since no layer is empty of bytes.
    pub(crate) fn empty_snapshot(&self, lease: &Lease) -> Result<SnapshotId, ImageError> {
        let snapshots = self.inner.store.snapshots();
        let nothing = Digest::sha256(b"");
        let _turn = self.inner.chains.lock(&nothing);
        let id = match snapshots.by_chain(&nothing) {
            Some(id) => id,
            None => Pending::create(snapshots, None, lease)?.commit(&nothing, &nothing)?,
        };
        lease.hold_snapshot(id);
        Ok(id)
    }
}

/// What a manifest's layers unpack to, lowest first.
pub(crate) fn jobs<'a>(
    manifest: &'a Manifest,
    config: &ImageConfig,
) -> impl Iterator<Item = (LayerJob, &'a Descriptor)> {
    let diffs = config.rootfs.diff_ids.clone();
    let chains = chains(&diffs);
    manifest
        .layers
        .iter()
        .zip(diffs.into_iter().zip(chains))
        .map(|(blob, (diff, chain))| {
            (
                LayerJob {
                    blob: blob.clone(),
                    diff,
                    chain,
                },
                blob,
            )
        })
}

/// A configuration names one diff ID for each layer of the manifest.
pub(crate) fn check_layers(
    digest: &Digest,
    manifest: &Manifest,
    config: &ImageConfig,
) -> Result<(), ImageError> {
    let (layers, diffs) = (manifest.layers.len(), config.rootfs.diff_ids.len());
    if layers == diffs {
        return Ok(());
    }
    Err(ImageError::Invalid {
        digest: digest.clone(),
        detail: format!(
            "the manifest has {layers} layers and the configuration {diffs} diff IDs; it may not be a container image"
        ),
    })
}

/// Applies a compressed layer of at most `most` bytes to a directory and gives back its diff ID.
pub(crate) fn apply_layer(
    source: impl Read + Send,
    most: u64,
    directory: &Path,
    beneath: Beneath<'_>,
    blob: &Digest,
    gate: store::Gate,
) -> Result<Digest, ImageError> {
    std::thread::scope(|scope| {
        let (blocks, queue) = mpsc::sync_channel(BLOCKS);
        let (used, spare) = mpsc::channel();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        scope.spawn(move || decompress(source, most, &blocks, &spare, &stopped));
        let mut reader = Hashed {
            inner: Blocks {
                gate: Some(gate),
                used: Some(used),
                ..Blocks::new(queue)
            },
            hasher: Hasher::new(),
        };
        // Reads to the end of the stream: what follows the archive belongs to the diff ID as well.
        let outcome =
            layer::apply_above(&mut reader, directory, beneath).map_err(|source| ImageError::Unpack {
                blob: blob.clone(),
                source,
            });
        stop.store(true, Ordering::Relaxed);
        outcome.map(|_| reader.hasher.finish())
    })
}

fn decompress(
    source: impl Read + Send,
    most: u64,
    blocks: &mpsc::SyncSender<io::Result<Vec<u8>>>,
    spare: &mpsc::Receiver<Vec<u8>>,
    stop: &AtomicBool,
) {
    let work = || -> io::Result<()> {
        let mut decoder = Bounded::new(compression::decoder(source), most);
        while !stop.load(Ordering::Relaxed) {
            // Memory that was used already costs the kernel nothing.
            let mut block = spare.try_recv().unwrap_or_default();
            block.resize(BLOCK, 0);
            let filled = fill(&mut decoder, &mut block)?;
            block.truncate(filled);
            if block.is_empty() || blocks.send(Ok(block)).is_err() {
                break;
            }
        }
        Ok(())
    };
    if let Err(error) = work() {
        let _ = blocks.send(Err(error));
    }
}

/// Reads until the buffer is full or the source ends; how much that was.
pub(crate) fn fill(from: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match from.read(rest) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// Blocks from another thread as a reader. The sender's end is the end.
pub(crate) struct Blocks {
    queue: mpsc::Receiver<io::Result<Vec<u8>>>,
    block: io::Cursor<Vec<u8>>,
    /// Takes back what was read.
    used: Option<mpsc::Sender<Vec<u8>>>,
    /// Asked before a block is given on, where it is going to be written.
    gate: Option<store::Gate>,
}

impl Blocks {
    pub fn new(queue: mpsc::Receiver<io::Result<Vec<u8>>>) -> Blocks {
        Blocks {
            queue,
            block: io::Cursor::default(),
            used: None,
            gate: None,
        }
    }
}

impl Read for Blocks {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = self.block.read(buffer)?;
            if read > 0 || buffer.is_empty() {
                return Ok(read);
            }
            match self.queue.recv() {
                Ok(block) => {
                    let block = block?;
                    if let Some(gate) = &mut self.gate {
                        gate.pass(block.len())?;
                    }
                    let read = std::mem::replace(&mut self.block, io::Cursor::new(block));
                    if let Some(used) = &self.used {
                        // Nobody takes it once the stream has ended.
                        let _ = used.send(read.into_inner());
                    }
                }
                Err(_) => return Ok(0),
            }
        }
    }
}

pub(crate) struct Hashed<R> {
    pub inner: R,
    pub hasher: Hasher,
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.hasher.update(buffer.get(..read).unwrap_or_default());
        Ok(read)
    }
}

/// Ends reading when nobody wants the rest any more.
pub(crate) struct Stoppable<R> {
    pub inner: R,
    pub stop: Arc<AtomicBool>,
}

impl<R: Read> Read for Stoppable<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(io::Error::other("the unpacking was given up"));
        }
        self.inner.read(buffer)
    }
}

struct Counted<R, F> {
    inner: R,
    read: u64,
    told: F,
}

impl<R: Read, F: FnMut(u64)> Read for Counted<R, F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.read += read as u64;
        (self.told)(self.read);
        Ok(read)
    }
}
