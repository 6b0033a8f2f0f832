//! An image as its users see it: a target, the manifest that was chosen from it, and its configuration.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use spec::image::{Descriptor, Document, ImageConfig, Manifest};
use spec::{Digest, Platform, Reference, chain_id};
use store::RememberedSizes;

use crate::document::declared_type;
use crate::error::ImageError;
use crate::images::Images;
use crate::lineage;
use crate::names;
use crate::platform::{candidates, score};

/// One image for one platform.
#[derive(Debug, Clone)]
pub struct Image {
    /// Digest of the target: of an index or of a manifest.
    pub id: Digest,
    /// What users know it by: the same, or the digest of the configuration ([`crate::ImageIds`]).
    pub shown: Digest,
    pub target: Descriptor,
    pub manifest: Manifest,
    pub manifest_digest: Digest,
    /// The manifest's own descriptor, as the index has it.
    pub manifest_descriptor: Descriptor,
    pub config_digest: Digest,
    pub config: ImageConfig,
    /// The configuration as it came.
    pub raw_config: Vec<u8>,
    /// Names of the image, tags first.
    pub references: Vec<Reference>,
    /// `name@digest` of each repository that names the image.
    pub repo_digests: Vec<String>,
    pub platform: Platform,
    /// Bytes on the disk of its blobs and of the unpacked layers of all its platforms, each counted once.
    pub size: u64,
    /// RFC 3339 time of the last change to its names, empty if it has none.
    pub last_tagged: String,
    /// What it was committed from.
    pub parent: Option<Digest>,
}

impl Image {
    /// Names with a tag, as people write them.
    pub fn repo_tags(&self) -> Vec<String> {
        self.references
            .iter()
            .filter(|r| r.tag().is_some())
            .map(Reference::familiar)
            .collect()
    }

    /// Chain IDs of the layers, lowest first.
    pub fn chains(&self) -> Vec<Digest> {
        chains(&self.config.rootfs.diff_ids)
    }

    /// The chain ID of the whole root filesystem. `None` for an image without layers.
    pub fn chain(&self) -> Option<Digest> {
        self.chains().pop()
    }
}

/// A line of the list of images.
#[derive(Debug, Clone)]
pub struct ImageSummary {
    pub id: Digest,
    /// What users know it by.
    pub shown: Digest,
    pub target: Descriptor,
    pub references: Vec<Reference>,
    pub repo_digests: Vec<String>,
    /// RFC 3339 time from the configuration, if it has one.
    pub created: Option<String>,
    pub media_type: String,
    /// Bytes of blobs and unpacked layers.
    pub size: u64,
    pub labels: BTreeMap<String, String>,
    pub platform: Platform,
    /// What it was committed from.
    pub parent: Option<Digest>,
}

/// One manifest of an image.
#[derive(Debug, Clone)]
pub struct ManifestSummary {
    pub descriptor: Descriptor,
    /// Its manifest, configuration and all layers are here.
    pub available: bool,
    /// Stands for an attestation, not for something to run.
    pub attestation: bool,
    pub platform: Option<Platform>,
    /// Bytes of its blobs that are here.
    pub content_size: u64,
    /// Bytes of its unpacked layers.
    pub unpacked_size: u64,
}

/// A configuration with its bytes.
pub(crate) type Config = Arc<(ImageConfig, Vec<u8>)>;

pub(crate) fn chains(diffs: &[Digest]) -> Vec<Digest> {
    let mut found: Vec<Digest> = Vec::with_capacity(diffs.len());
    for diff in diffs {
        let next = chain_id(found.last(), diff);
        found.push(next);
    }
    found
}

impl Images {
    /// Builds the view of `target` for `platform`, or for the host, from what is here.
    pub(crate) fn view(
        &self,
        target: &Descriptor,
        platform: Option<&Platform>,
        name: &str,
    ) -> Result<Image, ImageError> {
        self.view_of(target, platform, name, None)
    }

    /// The same where it may be known which of its blobs are here.
    pub(crate) fn view_of(
        &self,
        target: &Descriptor,
        platform: Option<&Platform>,
        name: &str,
        blobs: Option<Vec<Descriptor>>,
    ) -> Result<Image, ImageError> {
        let (descriptor, known) = self.choose(target, platform, name)?;
        let manifest = self.manifest_of(&descriptor)?;
        let (config, raw_config) = (known.0.clone(), known.1.clone());
        if let Some(wanted) = platform
            && score(wanted, &config.platform(), true).is_none()
            && !config.architecture.is_empty()
        {
            return Err(ImageError::PlatformMissing {
                name: name.to_owned(),
                platform: wanted.clone(),
            });
        }
        let blobs = match blobs {
            Some(blobs) => blobs,
            None => self.inner.documents.blobs_here(&self.inner.store, target)?,
        };
        let layers = self.layers_of(target)?;
        let (names, parent, unpacked) = self.inner.store.db().read(|db| {
            let names = names::rows_of(db, &target.digest)?;
            let parent = lineage::parent_in(db, &target.digest)?;
            Ok((names, parent, RememberedSizes::read(db, layers)?))
        })?;
        let (references, last_tagged) = names::read(&names);
        let repo_digests = repo_digests(&references, &target.digest);
        let size = self.bytes_of(&blobs) + self.inner.store.snapshots().bytes_of(unpacked)?;
        Ok(Image {
            id: target.digest.clone(),
            shown: self.id_of(target),
            target: target.clone(),
            manifest_digest: descriptor.digest.clone(),
            config_digest: manifest.config.digest.clone(),
            platform: config.platform(),
            manifest,
            manifest_descriptor: descriptor,
            config,
            raw_config,
            references,
            repo_digests,
            size,
            last_tagged,
            parent: parent.map(|parent| self.shown(&parent)).transpose()?,
        })
    }

    /// The manifest of `target` for the platform, among those that are here, and its configuration.
    pub(crate) fn choose(
        &self,
        target: &Descriptor,
        platform: Option<&Platform>,
        name: &str,
    ) -> Result<(Descriptor, Config), ImageError> {
        let store = &self.inner.store;
        let document = self.inner.documents.manifest(store, target)?;
        let index = match &*document {
            Document::Manifest(manifest) => {
                let config = self.inner.documents.config(store, &manifest.config.digest)?;
                return Ok((target.clone(), config));
            }
            Document::Index(index) => index,
        };
        for entry in candidates(index, platform) {
            let here = match self.inner.documents.images_here(store, entry) {
                Ok(here) => here,
                Err(ImageError::Content(store::ContentError::NotFound(_))) => continue,
                Err(error) => return Err(error),
            };
            for (descriptor, manifest) in here {
                if !store.content().has(&manifest.config.digest) {
                    continue;
                }
                let config = self.inner.documents.config(store, &manifest.config.digest)?;
                let host = Platform::host();
                let wanted = platform.unwrap_or(&host);
                let silent = entry.platform.is_none() && config.0.architecture.is_empty();
                if silent
                    || entry.platform.is_some()
                    || score(wanted, &config.0.platform(), platform.is_some()).is_some()
                {
                    return Ok((descriptor, config));
                }
            }
        }
        if let Some(platform) = platform {
            return Err(ImageError::PlatformMissing {
                name: name.to_owned(),
                platform: platform.clone(),
            });
        }
        // Nobody asked for a platform: whatever is here describes the image.
        let here = self.inner.documents.images_here(store, target)?;
        here.into_iter()
            .find_map(|(descriptor, manifest)| Some((descriptor, self.config_here(&manifest)?)))
            .ok_or_else(|| ImageError::NothingHere(name.to_owned()))
    }

    pub(crate) fn manifest_of(&self, descriptor: &Descriptor) -> Result<Manifest, ImageError> {
        match &*self.inner.documents.manifest(&self.inner.store, descriptor)? {
            Document::Manifest(manifest) => Ok(manifest.clone()),
            Document::Index(_) => Err(ImageError::NothingHere(descriptor.digest.to_string())),
        }
    }

    /// Bytes on the disk for blobs that are here.
    pub(crate) fn bytes_of(&self, blobs: &[Descriptor]) -> u64 {
        let content = self.inner.store.content();
        blobs
            .iter()
            .map(|blob| content.held_bytes(&blob.digest, blob.size))
            .sum()
    }

    /// Chain IDs of the layers of all platforms that are here.
    pub(crate) fn layers_of(&self, target: &Descriptor) -> Result<HashSet<Digest>, ImageError> {
        let mut layers = HashSet::new();
        for (_, manifest) in self.inner.documents.manifests_here(&self.inner.store, target)? {
            if let Some(config) = self.config_here(&manifest) {
                layers.extend(chains(&config.0.rootfs.diff_ids));
            }
        }
        Ok(layers)
    }

    /// The configuration of a manifest that is here and can be read.
    pub(crate) fn config_here(&self, manifest: &Manifest) -> Option<Config> {
        let (store, digest) = (&self.inner.store, &manifest.config.digest);
        let here = store.content().has(digest);
        here.then(|| self.inner.documents.config(store, digest).ok())
            .flatten()
    }

    /// Bytes of those of the layers that are unpacked.
    pub(crate) fn unpacked_size(&self, layers: impl IntoIterator<Item = Digest>) -> Result<u64, ImageError> {
        Ok(self.inner.store.snapshots().bytes_of_chains(layers)?)
    }
}

/// Stores a manifest or index as its target's descriptor.
pub(crate) fn target_descriptor(document: &Document, said: &str, digest: &Digest, size: u64) -> Descriptor {
    Descriptor::new(&declared_type(document, said), digest.clone(), size)
}

pub(crate) fn repo_digests(references: &[Reference], digest: &Digest) -> Vec<String> {
    let mut found: Vec<String> = references
        .iter()
        .map(|r| format!("{}@{digest}", r.familiar_name()))
        .collect();
    found.sort();
    found.dedup();
    found
}
