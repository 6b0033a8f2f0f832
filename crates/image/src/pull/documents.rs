//! The documents of a pull: target, manifest for the platform, configuration. Each is verified before it is
//! stored, and held by the pull's lease before that.

use bytes::Bytes;
use spec::image::{Descriptor, Document, ImageConfig};
use spec::{Digest, Hasher, Platform};

use super::{Pull, Resolved};
use crate::document::{MAX_CONFIG, parse, parse_config};
use crate::download::blocking;
use crate::error::ImageError;
use crate::image::target_descriptor;
use crate::platform::{candidates, score};
use crate::unpack::check_layers;

/// Indexes within indexes that are followed.
const MAX_DEPTH: usize = 4;

impl Pull<'_> {
    /// Fetches what `wanted`, a tag or digest, stands for.
    pub async fn documents(&self, wanted: &str, platform: Option<&Platform>) -> Result<Resolved, ImageError> {
        let fetched = self.target(wanted).await?;
        let target = fetched.0.clone();
        let mut current = fetched;
        for _ in 0..MAX_DEPTH {
            let (descriptor, document) = current;
            match document {
                Document::Manifest(manifest) => {
                    let config = self.config(&manifest.config).await?;
                    check_layers(&descriptor.digest, &manifest, &config)?;
                    if let Some(wanted) = platform
                        && !config.architecture.is_empty()
                        && score(wanted, &config.platform(), true).is_none()
                    {
                        return Err(ImageError::PlatformMissing {
                            name: self.reference.familiar(),
                            platform: wanted.clone(),
                        });
                    }
                    return Ok(Resolved {
                        target,
                        descriptor,
                        manifest,
                        config,
                    });
                }
                Document::Index(index) => {
                    let entry = candidates(&index, platform)
                        .first()
                        .map(|entry| (*entry).clone())
                        .ok_or_else(|| {
                            ImageError::NoPlatform(platform.cloned().unwrap_or_else(Platform::host))
                        })?;
                    let child = self.child(&entry).await?;
                    current = (entry, child);
                }
            }
        }
        Err(ImageError::Invalid {
            digest: target.digest,
            detail: "indexes are nested too deeply".into(),
        })
    }

    /// The target, without fetching it if the registry says it is one that is here.
    async fn target(&self, wanted: &str) -> Result<(Descriptor, Document), ImageError> {
        match self.repository.manifest_head(wanted).await {
            Ok(Some(head)) => {
                self.lease.hold_blob(&head.digest);
                if let Some(known) = self.stored(&head).await? {
                    return Ok(known);
                }
            }
            // Who can't be reached for a HEAD can't be for a GET.
            Err(error @ registry::Error::Connect { .. }) => return Err(error.into()),
            // A GET's refusal says why, a HEAD's cannot.
            Ok(None) | Err(_) => {}
        }
        let fetched = self.repository.manifest(wanted).await?;
        let document = parse(&fetched.media_type, &fetched.digest, &fetched.bytes)?;
        let descriptor = target_descriptor(
            &document,
            &fetched.media_type,
            &fetched.digest,
            fetched.bytes.len() as u64,
        );
        self.store(&fetched.digest, fetched.bytes).await?;
        Ok((descriptor, document))
    }

    async fn child(&self, entry: &Descriptor) -> Result<Document, ImageError> {
        self.lease.hold_blob(&entry.digest);
        if let Some((_, document)) = self.stored(entry).await? {
            return Ok(document);
        }
        let fetched = self.repository.manifest(entry.digest.as_str()).await?;
        let document = parse(&fetched.media_type, &entry.digest, &fetched.bytes)?;
        self.store(&entry.digest, fetched.bytes).await?;
        Ok(document)
    }

    async fn config(&self, of: &Descriptor) -> Result<ImageConfig, ImageError> {
        self.lease.hold_blob(&of.digest);
        let store = self.images.inner.store.clone();
        let digest = of.digest.clone();
        let here = blocking(move || store.content().read(&digest, MAX_CONFIG).ok()).await?;
        let bytes = match here {
            Some(bytes) => bytes,
            None => {
                if of.size > MAX_CONFIG {
                    return Err(ImageError::Invalid {
                        digest: of.digest.clone(),
                        detail: format!(
                            "configuration of {} bytes, at most {MAX_CONFIG} are supported",
                            of.size
                        ),
                    });
                }
                let mut bytes = Vec::new();
                let mut reader = self.repository.blob(&of.digest, of.size, 0).await?;
                while let Some(more) = reader.chunk().await? {
                    bytes.extend_from_slice(&more);
                }
                self.store(&of.digest, bytes.clone().into()).await?;
                bytes
            }
        };
        parse_config(&of.digest, &bytes)
    }

    /// The document if it is here.
    async fn stored(&self, of: &Descriptor) -> Result<Option<(Descriptor, Document)>, ImageError> {
        let (images, of) = (self.images.clone(), of.clone());
        blocking(
            move || match images.inner.documents.manifest(&images.inner.store, &of) {
                // The cache may know what the store has lost.
                Ok(_) if !images.inner.store.content().has(&of.digest) => Ok(None),
                Ok(document) => {
                    let size = images.inner.store.content().size(&of.digest).unwrap_or(of.size);
                    let descriptor = target_descriptor(&document, &of.media_type, &of.digest, size);
                    Ok(Some((descriptor, (*document).clone())))
                }
                Err(ImageError::Content(store::ContentError::NotFound(_))) => Ok(None),
                Err(error) => Err(error),
            },
        )
        .await?
    }

    /// Stores a small document that must have this digest.
    async fn store(&self, digest: &Digest, bytes: Bytes) -> Result<(), ImageError> {
        let mut hasher = Hasher::like(digest);
        hasher.update(&bytes);
        let actual = hasher.finish();
        if actual != *digest {
            return Err(ImageError::LayerDigest {
                expected: digest.clone(),
                actual,
            });
        }
        self.lease.hold_blob(digest);
        let (store, digest) = (self.images.inner.store.clone(), digest.clone());
        blocking(move || -> Result<(), ImageError> {
            if digest.algorithm() == "sha256" {
                store.content().put(&bytes)?;
                return Ok(());
            }
            let mut blob = crate::scratch::ScratchBlob::new(store.content())?;
            io_write(&mut blob, &bytes).map_err(|e| ImageError::Store(e, digest.clone()))?;
            blob.commit(Some(&digest))?;
            Ok(())
        })
        .await?
    }
}

fn io_write(to: &mut impl std::io::Write, bytes: &[u8]) -> std::io::Result<()> {
    to.write_all(bytes)
}
