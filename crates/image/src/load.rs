//! Loading: archives that `docker save`, `skopeo`, `umoci` or [`Images::save`] wrote, compressed or not.
//!
//! The archive is read once, as a stream: every file becomes a blob, whatever its name, and only then the
//! documents say which of them are images. So memory is bounded, and no path in the archive ever becomes a path
//! on disk. Files that no image needs go at the end.
//!
//! With an OCI layout in it (`index.json`) that counts; else the Docker archive (`manifest.json`), whose
//! manifests are written here, since it has none.

mod archive;
mod docker;
mod layout;

use std::collections::HashMap;
use std::io::Read;
use std::sync::{Mutex, PoisonError};

use spec::image::{Descriptor, Document, Manifest};
use spec::{Digest, Platform, Reference};
use store::Lease;

use crate::error::ImageError;
use crate::images::Images;
use crate::progress::{Progress, ProgressEvent, Reporter, short};
use crate::registered::UnpackedManifest;
use crate::signature::runnable_parts;

/// Most images of one archive: whole machines have some hundreds.
const MAX_IMAGES: usize = 4096;

/// How to load.
#[derive(Debug, Clone, Default)]
pub struct LoadOptions {
    /// Only these platforms, each of which the archive must have; none is everything it has.
    pub platforms: Vec<Platform>,
    /// No progress, only results.
    pub quiet: bool,
}

/// An image that was loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    pub id: Digest,
    /// The name it was given, if the archive had one.
    pub reference: Option<Reference>,
}

/// An image found in an archive.
pub(crate) struct Found {
    pub target: Descriptor,
    pub names: Vec<Reference>,
}

impl Images {
    /// Loads every image of an archive. Blocks; must not run on a thread of the async runtime.
    pub fn load(
        &self,
        reader: impl Read + Send,
        options: LoadOptions,
        progress: Progress,
    ) -> Result<Vec<Loaded>, ImageError> {
        let lease = self.inner.store.lease();
        let loaded = self.load_all(reader, &options, &lease, &Reporter(progress));
        // What no image of the archive needs goes at once: its own documents, platforms that nobody asked for, or all.
        drop(lease);
        self.sweep();
        loaded
    }

    fn load_all(
        &self,
        reader: impl Read + Send,
        options: &LoadOptions,
        lease: &Lease,
        report: &Reporter,
    ) -> Result<Vec<Loaded>, ImageError> {
        let files = archive::take_in(self, reader, lease)?;
        let (found, signatures) = match files.get("index.json") {
            Some(index) => layout::images(self, &files, index)?,
            None => match files.get("manifest.json") {
                Some(manifest) => (docker::images(self, &files, manifest, lease)?, Vec::new()),
                None => {
                    return Err(ImageError::Archive(
                        "it has neither index.json (OCI layout) nor manifest.json (docker save)".to_owned(),
                    ));
                }
            },
        };
        if found.is_empty() {
            return Err(ImageError::Archive("it has no images".to_owned()));
        }
        let mut loaded = Vec::new();
        for image in found {
            self.load_one(&image, &signatures, options, lease, report)?;
            let names: Vec<Option<Reference>> = match image.names.is_empty() {
                true => vec![None],
                false => image.names.into_iter().map(Some).collect(),
            };
            for reference in names {
                let status = match &reference {
                    Some(name) => format!("Loaded image: {}", name.familiar()),
                    None => format!("Loaded image ID: {}", self.id_of(&image.target)),
                };
                report.say_blocking(ProgressEvent {
                    status,
                    ..ProgressEvent::default()
                });
                loaded.push(Loaded {
                    id: self.id_of(&image.target),
                    reference,
                });
            }
        }
        Ok(loaded)
    }

    /// Verifies that an image may have its names and is whole, unpacks it and registers it.
    fn load_one(
        &self,
        image: &Found,
        signatures: &[Manifest],
        options: &LoadOptions,
        lease: &Lease,
        report: &Reporter,
    ) -> Result<(), ImageError> {
        let store = &self.inner.store;
        let document = self.inner.documents.manifest(store, &image.target)?;
        let parts = runnable_parts(&document);
        if let Document::Index(_) = &*document {
            let here = self.inner.documents.manifests_here(store, &image.target)?;
            if here.is_empty() {
                return Err(ImageError::NothingHere(image.target.digest.to_string()));
            }
        }
        for name in &image.names {
            self.demand_signature_of_brought(name, &image.target.digest, &parts, signatures)?;
        }
        let mut unpacked = Vec::new();
        let mut offered: Vec<Platform> = Vec::new();
        let mut taken = vec![image.target.clone()];
        let wanted = |offer: &Platform| {
            options.platforms.is_empty()
                || options
                    .platforms
                    .iter()
                    .any(|p| crate::platform::score(p, offer, true).is_some())
        };
        for (descriptor, manifest) in self.inner.documents.images_here(store, &image.target)? {
            // What cannot be read is told below, with the parts that are missing.
            let offer = match store.content().has(&manifest.config.digest) {
                true => Some(
                    self.inner
                        .documents
                        .config(store, &manifest.config.digest)?
                        .0
                        .platform(),
                ),
                false => descriptor.platform.clone(),
            };
            if offer.as_ref().is_some_and(|offer| !wanted(offer)) {
                continue;
            }
            taken.extend(self.inner.documents.blobs_here(store, &descriptor)?);
            for part in std::iter::once(&manifest.config).chain(&manifest.layers) {
                match store.content().size(&part.digest) {
                    Some(size) if size == part.size => {}
                    Some(size) => {
                        return Err(ImageError::Archive(format!(
                            "{} has {size} bytes, its manifest says {}",
                            part.digest, part.size
                        )));
                    }
                    None => return Err(ImageError::Archive(format!("{} is missing", part.digest))),
                }
            }
            let config = self.inner.documents.config(store, &manifest.config.digest)?;
            offered.push(config.0.platform());
            let samplers = Mutex::new(HashMap::new());
            let told = |layer: &Descriptor, read: u64| {
                if options.quiet {
                    return;
                }
                let mut samplers = samplers.lock().unwrap_or_else(PoisonError::into_inner);
                samplers
                    .entry(layer.digest.clone())
                    .or_insert_with(|| report.sampler(&short(&layer.digest), "Loading layer", layer.size))
                    .at(read);
            };
            let top = self.unpack_stored(&descriptor.digest, &manifest, &config.0, lease, &told)?;
            unpacked.push(UnpackedManifest {
                manifest: descriptor.digest.clone(),
                top,
            });
        }
        let missing = options.platforms.iter().find(|wanted| {
            !offered
                .iter()
                .any(|offer| crate::platform::score(wanted, offer, true).is_some())
        });
        if let Some(wanted) = missing {
            return Err(ImageError::PlatformMissing {
                name: image
                    .names
                    .first()
                    .map_or_else(|| image.target.digest.to_string(), Reference::familiar),
                platform: wanted.clone(),
            });
        }
        match options.platforms.is_empty() {
            true => self.register(&image.target, &image.names, &unpacked).map(drop),
            false => self.register_part(&image.target, &taken, &image.names, &unpacked),
        }
    }
}
