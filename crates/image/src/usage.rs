//! How much disk images take, and how much of it is shared.
//!
//! An image's size is its blobs and unpacked layers. Shared is what another image also has; unique is what
//! removing the image gives back.

use std::collections::HashMap;

use spec::Digest;

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

impl Images {
    /// Measures all images.
    pub fn disk_usage(&self) -> Result<DiskUsage, ImageError> {
        let store = &self.inner.store;
        let mut parts: HashMap<(bool, Digest), (u64, usize)> = HashMap::new();
        let mut images = Vec::new();
        for target in self.targets()? {
            let mut mine: HashMap<(bool, Digest), u64> = HashMap::new();
            for blob in self.inner.documents.blobs_here(store, &target)? {
                mine.insert((false, blob.digest), blob.size);
            }
            for (_, manifest) in self.inner.documents.manifests_here(store, &target)? {
                let Some(config) = self.config_here(&manifest) else {
                    continue;
                };
                for chain in chains(&config.0.rootfs.diff_ids) {
                    if let Some(snapshot) = store.snapshots().by_chain(&chain) {
                        mine.insert((true, chain), store.snapshots().usage(snapshot)?.bytes);
                    }
                }
            }
            for (key, size) in &mine {
                let part = parts.entry(key.clone()).or_insert((*size, 0));
                part.1 += 1;
            }
            images.push((target.digest, mine));
        }
        let images = images
            .into_iter()
            .map(|(id, mine)| {
                let size = mine.values().sum();
                let shared = mine
                    .iter()
                    .filter(|(key, _)| parts.get(key).is_some_and(|(_, users)| *users > 1))
                    .map(|(_, size)| size)
                    .sum();
                ImageUsage {
                    id,
                    size,
                    shared,
                    unique: size - shared,
                }
            })
            .collect();
        Ok(DiskUsage {
            total: parts.values().map(|(size, _)| size).sum(),
            images,
        })
    }
}
