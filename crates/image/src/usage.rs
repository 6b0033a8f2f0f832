//! How much disk images take, and how much of it is shared.
//!
//! An image's size is its blobs and unpacked layers. Shared is what another image also has; unique is what
//! removing the image gives back. Where layers share files, each is counted once, in an image as in all of them.

use std::collections::{BTreeSet, HashMap};

use spec::Digest;
use store::SnapshotError;

use crate::error::ImageError;
use crate::image::chains;
use crate::images::Images;

/// The disk usage of all images.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DiskUsage {
    /// Bytes of everything images have, each thing counted once.
    pub total: u64,
    pub images: Vec<ImageUsage>,
}

/// The disk usage of one image, in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageUsage {
    pub id: Digest,
    pub size: u64,
    pub shared: u64,
    pub unique: u64,
}

/// The content of a file that layers share.
#[derive(Default)]
struct File {
    bytes: u64,
    /// Which of the images have it.
    images: BTreeSet<usize>,
}

impl Images {
    /// Measures all images.
    pub fn disk_usage(&self) -> Result<DiskUsage, ImageError> {
        let store = &self.inner.store;
        let mut parts: HashMap<(bool, Digest), (u64, usize)> = HashMap::new();
        let mut files: HashMap<u64, File> = HashMap::new();
        let mut images = Vec::new();
        for (number, target) in self.targets()?.into_iter().enumerate() {
            let mut mine: HashMap<(bool, Digest), u64> = HashMap::new();
            for blob in self.inner.documents.blobs_here(store, &target)? {
                let held = store.content().held_bytes(&blob.digest, blob.size);
                mine.insert((false, blob.digest), held);
            }
            for (_, manifest) in self.inner.documents.manifests_here(store, &target)? {
                let Some(config) = self.config_here(&manifest) else {
                    continue;
                };
                for chain in chains(&config.0.rootfs.diff_ids) {
                    if let Some(snapshot) = store.snapshots().by_chain(&chain) {
                        let mut bytes = store.snapshots().usage(snapshot)?.bytes;
                        let held = store.snapshots().held(snapshot).map_err(SnapshotError::from)?;
                        for held in held {
                            bytes = bytes.saturating_sub(held.bytes);
                            let file = files.entry(held.inode).or_default();
                            file.bytes = held.bytes;
                            file.images.insert(number);
                        }
                        mine.insert((true, chain), bytes);
                    }
                }
            }
            for (key, size) in &mine {
                let part = parts.entry(key.clone()).or_insert((*size, 0));
                part.1 += 1;
            }
            images.push((target.digest, mine));
        }
        let mut of_files = vec![(0, 0); images.len()];
        for file in files.values() {
            for image in &file.images {
                if let Some((all, shared)) = of_files.get_mut(*image) {
                    *all += file.bytes;
                    *shared += if file.images.len() > 1 { file.bytes } else { 0 };
                }
            }
        }
        let images = images
            .into_iter()
            .zip(of_files)
            .map(|((id, mine), (files, shared_files))| {
                let size = mine.values().sum::<u64>() + files;
                let shared = mine
                    .iter()
                    .filter(|(key, _)| parts.get(key).is_some_and(|(_, users)| *users > 1))
                    .map(|(_, size)| size)
                    .sum::<u64>()
                    + shared_files;
                ImageUsage {
                    id,
                    size,
                    shared,
                    unique: size - shared,
                }
            })
            .collect();
        Ok(DiskUsage {
            total: parts.values().map(|(size, _)| size).sum::<u64>()
                + files.values().map(|file| file.bytes).sum::<u64>(),
            images,
        })
    }
}
