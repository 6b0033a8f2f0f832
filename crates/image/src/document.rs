//! Reading manifests, indexes and configurations from the content store.
//!
//! Documents are immutable, so what was parsed once is kept, up to a bound. Whether a blob is still there is
//! always asked of the store, never of this cache.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use spec::Digest;
use spec::image::{Descriptor, Document, ImageConfig, Index, Manifest, media_type};
use store::Store;

use crate::error::ImageError;
use crate::platform::is_runnable;

/// Most bytes of a manifest or index.
pub(crate) const MAX_MANIFEST: u64 = 4 << 20;
/// Most bytes of a configuration. Docker has no limit; the largest known are below 1 MiB.
pub(crate) const MAX_CONFIG: u64 = 8 << 20;
/// Indexes may hold indexes; nobody nests deeper than this.
const MAX_DEPTH: usize = 4;
/// Most layers of one image: overlayfs and Docker stop near here, hostile manifests do not.
const MAX_LAYERS: usize = 512;
/// Documents kept of each kind: those of a thousand images that have an index, a manifest and an attestation.
const KEPT: usize = 4096;

#[derive(Default)]
pub(crate) struct Documents {
    manifests: Mutex<HashMap<Digest, Arc<Document>>>,
    configs: Mutex<HashMap<Digest, Arc<(ImageConfig, Vec<u8>)>>>,
}

impl Documents {
    /// The manifest or index of a descriptor.
    pub fn manifest(&self, store: &Store, of: &Descriptor) -> Result<Arc<Document>, ImageError> {
        if let Some(known) = locked(&self.manifests).get(&of.digest) {
            return Ok(known.clone());
        }
        let bytes = store.content().read(&of.digest, MAX_MANIFEST)?;
        let document = Arc::new(parse(&of.media_type, &of.digest, &bytes)?);
        keep(&self.manifests, &of.digest, &document);
        Ok(document)
    }

    /// The configuration of a manifest, with its bytes.
    pub fn config(&self, store: &Store, digest: &Digest) -> Result<Arc<(ImageConfig, Vec<u8>)>, ImageError> {
        if let Some(known) = locked(&self.configs).get(digest) {
            return Ok(known.clone());
        }
        let bytes = store.content().read(digest, MAX_CONFIG)?;
        let config = parse_config(digest, &bytes)?;
        let config = Arc::new((config, bytes));
        keep(&self.configs, digest, &config);
        Ok(config)
    }

    /// The manifests of single images below `target` that are here, in the index's order, each with its
    /// descriptor. A target that is a manifest is its own only one.
    pub fn manifests_here(
        &self,
        store: &Store,
        target: &Descriptor,
    ) -> Result<Vec<(Descriptor, Manifest)>, ImageError> {
        let mut found = Vec::new();
        self.walk_here(store, target, &mut |descriptor, document| {
            if let Document::Manifest(manifest) = document {
                found.push((descriptor.clone(), manifest.clone()));
            }
        })?;
        Ok(found)
    }

    /// Those of [`Documents::manifests_here`] that may be run: neither they nor an index on the way to them is marked as
    /// something else. Whatever chooses what to run chooses among these.
    pub fn images_here(
        &self,
        store: &Store,
        target: &Descriptor,
    ) -> Result<Vec<(Descriptor, Manifest)>, ImageError> {
        let mut found = Vec::new();
        let passed = |entry: &Descriptor| !is_runnable(entry);
        self.walk(store, target, 0, &passed, &mut |descriptor, document| {
            if let Document::Manifest(manifest) = document {
                found.push((descriptor.clone(), manifest.clone()));
            }
        })?;
        Ok(found)
    }

    /// Visits every manifest and index below `target` that is here, the target itself included.
    pub fn walk_here(
        &self,
        store: &Store,
        target: &Descriptor,
        visit: &mut dyn FnMut(&Descriptor, &Document),
    ) -> Result<(), ImageError> {
        self.walk(store, target, 0, &|_| false, visit)
    }

    /// Every blob below `target` that is here, the target itself included.
    pub fn blobs_here(&self, store: &Store, target: &Descriptor) -> Result<Vec<Descriptor>, ImageError> {
        self.blobs_here_but(store, target, &|_| false)
    }

    /// The same without what only the entries that are `passed` over need.
    pub fn blobs_here_but(
        &self,
        store: &Store,
        target: &Descriptor,
        passed: &dyn Fn(&Descriptor) -> bool,
    ) -> Result<Vec<Descriptor>, ImageError> {
        let mut found = Vec::new();
        // Sizes are the store's: what foreign documents claim must not reach sums.
        let mut add = |descriptor: &Descriptor| {
            if let Some(size) = store.content().size(&descriptor.digest) {
                found.push(Descriptor {
                    size,
                    ..descriptor.clone()
                });
            }
        };
        self.walk(store, target, 0, passed, &mut |descriptor, document| {
            add(descriptor);
            if let Document::Manifest(manifest) = document {
                add(&manifest.config);
                manifest.layers.iter().for_each(&mut add);
            }
        })?;
        found.sort_by(|a, b| a.digest.cmp(&b.digest));
        found.dedup_by(|a, b| a.digest == b.digest);
        Ok(found)
    }

    fn walk(
        &self,
        store: &Store,
        of: &Descriptor,
        depth: usize,
        passed: &dyn Fn(&Descriptor) -> bool,
        visit: &mut dyn FnMut(&Descriptor, &Document),
    ) -> Result<(), ImageError> {
        if depth > MAX_DEPTH {
            return Err(ImageError::Invalid {
                digest: of.digest.clone(),
                detail: "indexes are nested too deeply".into(),
            });
        }
        let document = match self.manifest(store, of) {
            Ok(document) => document,
            // Other platforms of an index are usually not here.
            Err(ImageError::Content(store::ContentError::NotFound(_))) if depth > 0 => return Ok(()),
            Err(error) => return Err(error),
        };
        visit(of, &document);
        if let Document::Index(index) = &*document {
            for child in children(index).filter(|child| !passed(child)) {
                self.walk(store, child, depth + 1, passed, visit)?;
            }
        }
        Ok(())
    }

    /// Forgets everything, after blobs were removed.
    pub fn clear(&self) {
        locked(&self.manifests).clear();
        locked(&self.configs).clear();
    }
}

/// The entries of an index that are manifests or indexes.
pub(crate) fn children(index: &Index) -> impl Iterator<Item = &Descriptor> {
    index
        .manifests
        .iter()
        .filter(|d| media_type::is_index(&d.media_type) || media_type::is_manifest(&d.media_type))
}

/// Parses a manifest or index, within the limits.
pub(crate) fn parse(media_type: &str, digest: &Digest, bytes: &[u8]) -> Result<Document, ImageError> {
    let document = Document::parse(media_type, bytes).map_err(|source| ImageError::Document {
        what: "manifest",
        digest: digest.clone(),
        source,
    })?;
    if let Document::Manifest(manifest) = &document
        && manifest.layers.len() > MAX_LAYERS
    {
        return Err(ImageError::Invalid {
            digest: digest.clone(),
            detail: format!(
                "{} layers, at most {MAX_LAYERS} are supported",
                manifest.layers.len()
            ),
        });
    }
    Ok(document)
}

pub(crate) fn parse_config(digest: &Digest, bytes: &[u8]) -> Result<ImageConfig, ImageError> {
    serde_json::from_slice(bytes).map_err(|source| ImageError::Document {
        what: "image configuration",
        digest: digest.clone(),
        source: source.into(),
    })
}

/// The media type a document is stored under: what it says itself, else what whoever sent it said.
pub(crate) fn declared_type(document: &Document, said: &str) -> String {
    let (own, fallback) = match document {
        Document::Manifest(m) => (m.media_type.as_deref(), media_type::OCI_MANIFEST),
        Document::Index(i) => (i.media_type.as_deref(), media_type::OCI_INDEX),
    };
    match own {
        Some(own) => own.to_owned(),
        None if media_type::is_index(said) || media_type::is_manifest(said) => said.to_owned(),
        None => fallback.to_owned(),
    }
}

fn keep<T>(cache: &Mutex<HashMap<Digest, Arc<T>>>, digest: &Digest, value: &Arc<T>) {
    let mut cache = locked(cache);
    if cache.len() >= KEPT {
        // Half of them, so that a list of more images than this still finds many.
        let mut stays = false;
        cache.retain(|_, _| {
            stays = !stays;
            stays
        });
    }
    cache.insert(digest.clone(), value.clone());
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
