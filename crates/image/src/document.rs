//! Reading manifests, indexes and configurations from the content store.
//!
//! Documents are immutable, so what was parsed once is kept, up to a bound. Whether a blob is still there is
//! always asked of the store, never of this cache.
//!
//! An index of some kilobytes can name one document any number of times, and that one the next, so that their paths are more than
//! anybody can follow. Each document below a target is visited once, and all of them together are bounded.

use std::collections::{HashMap, HashSet};
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
/// Most entries of one index: those that people make have some dozens.
const MAX_ENTRIES: usize = 2048;
/// Most bytes of all manifests and indexes below one target.
const MAX_DOCUMENTS: u64 = 64 << 20;
/// Bytes of documents kept of each kind, as they are stored: those of some thousand images. Parsed they take some times as much.
const KEPT: u64 = 16 << 20;
/// Of a larger one nothing is kept.
const KEPT_EACH: u64 = 256 << 10;

#[derive(Default)]
pub(crate) struct Documents {
    manifests: Mutex<Kept<Document>>,
    configs: Mutex<Kept<(ImageConfig, Vec<u8>)>>,
}

/// What was parsed, each with its bytes.
struct Kept<T> {
    documents: HashMap<Digest, (Arc<T>, u64)>,
    bytes: u64,
}

impl<T> Default for Kept<T> {
    fn default() -> Kept<T> {
        Kept {
            documents: HashMap::new(),
            bytes: 0,
        }
    }
}

/// What was visited below a target.
#[derive(Default)]
struct Visited {
    documents: HashSet<Digest>,
    bytes: u64,
}

impl Documents {
    /// The manifest or index of a descriptor.
    pub fn manifest(&self, store: &Store, of: &Descriptor) -> Result<Arc<Document>, ImageError> {
        Ok(self.measured(store, of)?.0)
    }

    /// The same with its bytes.
    fn measured(&self, store: &Store, of: &Descriptor) -> Result<(Arc<Document>, u64), ImageError> {
        if let Some(known) = locked(&self.manifests).documents.get(&of.digest) {
            return Ok(known.clone());
        }
        let bytes = store.content().read(&of.digest, MAX_MANIFEST)?;
        let document = Arc::new(parse(&of.media_type, &of.digest, &bytes)?);
        let size = bytes.len() as u64;
        keep(&self.manifests, &of.digest, &document, size);
        Ok((document, size))
    }

    /// The configuration of a manifest, with its bytes.
    pub fn config(&self, store: &Store, digest: &Digest) -> Result<Arc<(ImageConfig, Vec<u8>)>, ImageError> {
        if let Some((known, _)) = locked(&self.configs).documents.get(digest) {
            return Ok(known.clone());
        }
        let bytes = store.content().read(digest, MAX_CONFIG)?;
        let config = parse_config(digest, &bytes)?;
        let size = bytes.len() as u64;
        let config = Arc::new((config, bytes));
        keep(&self.configs, digest, &config, size);
        Ok(config)
    }

    /// The manifests of single images below `target` that are here, in the index's order, each once, with its first
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
        let visited = &mut Visited::default();
        self.walk(store, target, 0, visited, &passed, &mut |descriptor, document| {
            if let Document::Manifest(manifest) = document {
                found.push((descriptor.clone(), manifest.clone()));
            }
        })?;
        Ok(found)
    }

    /// Visits every manifest and index below `target` that is here, the target itself included, each once.
    pub fn walk_here(
        &self,
        store: &Store,
        target: &Descriptor,
        visit: &mut dyn FnMut(&Descriptor, &Document),
    ) -> Result<(), ImageError> {
        self.walk(store, target, 0, &mut Visited::default(), &|_| false, visit)
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
        let visited = &mut Visited::default();
        self.walk(store, target, 0, visited, passed, &mut |descriptor, document| {
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
        visited: &mut Visited,
        passed: &dyn Fn(&Descriptor) -> bool,
        visit: &mut dyn FnMut(&Descriptor, &Document),
    ) -> Result<(), ImageError> {
        let invalid = |detail: String| ImageError::Invalid {
            digest: of.digest.clone(),
            detail,
        };
        if depth > MAX_DEPTH {
            return Err(invalid("indexes are nested too deeply".into()));
        }
        if !visited.documents.insert(of.digest.clone()) {
            return Ok(());
        }
        let (document, bytes) = match self.measured(store, of) {
            Ok(found) => found,
            // Other platforms of an index are usually not here.
            Err(ImageError::Content(store::ContentError::NotFound(_))) if depth > 0 => return Ok(()),
            Err(error) => return Err(error),
        };
        visited.bytes += bytes;
        if visited.bytes > MAX_DOCUMENTS {
            let most = MAX_DOCUMENTS >> 20;
            return Err(invalid(format!(
                "its manifests take more than {most} MiB together"
            )));
        }
        visit(of, &document);
        if let Document::Index(index) = &*document {
            for child in children(index).filter(|child| !passed(child)) {
                self.walk(store, child, depth + 1, visited, passed, visit)?;
            }
        }
        Ok(())
    }

    /// Forgets everything, after blobs were removed.
    pub fn clear(&self) {
        *locked(&self.manifests) = Kept::default();
        *locked(&self.configs) = Kept::default();
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
    let (count, most, what) = match &document {
        Document::Manifest(manifest) => (manifest.layers.len(), MAX_LAYERS, "layers"),
        Document::Index(index) => (index.manifests.len(), MAX_ENTRIES, "entries"),
    };
    match count > most {
        true => Err(ImageError::Invalid {
            digest: digest.clone(),
            detail: format!("{count} {what}, at most {most} are supported"),
        }),
        false => Ok(document),
    }
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

/// Keeps a document that takes so many bytes where it is stored.
fn keep<T>(cache: &Mutex<Kept<T>>, digest: &Digest, value: &Arc<T>, bytes: u64) {
    if bytes > KEPT_EACH {
        return;
    }
    let mut cache = locked(cache);
    if cache.bytes + bytes > KEPT {
        // Half of them, so that a list of more images than this still finds many.
        let mut stays = false;
        cache.documents.retain(|_, _| {
            stays = !stays;
            stays
        });
        cache.bytes = cache.documents.values().map(|(_, bytes)| bytes).sum();
    }
    if cache
        .documents
        .insert(digest.clone(), (value.clone(), bytes))
        .is_none()
    {
        cache.bytes += bytes;
    }
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
