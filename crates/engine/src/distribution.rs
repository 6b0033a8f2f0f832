//! Manifests at registries, without images here: reading one, and pushing an index of several.

use image::Auth;
use registry::{Access, RemoteManifest};
use serde::{Deserialize, Serialize};
use spec::image::{Descriptor, Document, ImageConfig};
use spec::{Digest, Platform, Reference};

use crate::engine::Engine;
use crate::error::{Error, Result, chain};

/// Most bytes of a configuration that is read for its platform.
const MAX_CONFIG: u64 = 8 << 20;

/// A manifest as a registry has it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ManifestAt {
    pub descriptor: Descriptor,
    /// Exactly the bytes that the digest is of.
    pub raw: String,
}

/// An index to push, with the images that it names.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ManifestPush {
    pub media_type: String,
    pub raw: String,
    /// `name@digest` of each entry, which may lie in other repositories of the same registry.
    pub sources: Vec<String>,
}

fn told(error: registry::Error) -> Error {
    Error::new(error.class(), chain(&error))
}

fn wanted(name: &Reference) -> String {
    match (name.digest(), name.tag()) {
        (Some(digest), _) => digest.to_string(),
        (None, tag) => tag.unwrap_or("latest").to_owned(),
    }
}

impl Engine {
    /// The manifest or index that a name stands for at its registry; of a single image with its platform.
    pub async fn manifest_at(&self, name: &Reference, auth: Option<Auth>) -> Result<ManifestAt> {
        let auth = auth.unwrap_or_default();
        let repository = self
            .inner
            .images
            .registry()
            .repository(name, &auth, Access::Pull)
            .map_err(told)?;
        let found = repository.manifest(&wanted(name)).await.map_err(told)?;
        let mut descriptor =
            Descriptor::new(&found.media_type, found.digest.clone(), found.bytes.len() as u64);
        if let Document::Manifest(manifest) = document(&found)? {
            let config = &manifest.config;
            if config.size <= MAX_CONFIG {
                let mut bytes = Vec::new();
                let mut reader = repository
                    .blob(&config.digest, config.size, 0)
                    .await
                    .map_err(told)?;
                while let Some(more) = reader.chunk().await.map_err(told)? {
                    bytes.extend_from_slice(&more);
                }
                if Digest::sha256(&bytes) == config.digest
                    && let Ok(config) = serde_json::from_slice::<ImageConfig>(&bytes)
                    && !config.architecture.is_empty()
                {
                    let platform = config.platform();
                    let variant = platform.variant.as_deref();
                    descriptor.platform = Some(Platform::new(&platform.os, &platform.architecture, variant));
                }
            }
        }
        let raw = String::from_utf8(found.bytes.to_vec())
            .map_err(|_| Error::internal(format!("the manifest of {} is not UTF-8", name.familiar())))?;
        Ok(ManifestAt { descriptor, raw })
    }

    /// Pushes an index under a name. What it names is brought into the repository first, by mounts: nothing is
    /// downloaded.
    pub async fn manifest_push(
        &self,
        name: &Reference,
        push: ManifestPush,
        auth: Option<Auth>,
    ) -> Result<Digest> {
        let auth = auth.unwrap_or_default();
        let client = self.inner.images.registry();
        let target = client.repository(name, &auth, Access::Push).map_err(told)?;
        for source in &push.sources {
            let source =
                Reference::parse_normalized(source).map_err(|error| Error::invalid(error.to_string()))?;
            let Some(digest) = source.digest() else {
                return Err(Error::invalid(format!("{} has no digest", source.familiar())));
            };
            if source.domain() != name.domain() {
                return Err(Error::invalid(format!(
                    "cannot use source images from a different registry than the target image: {} != {}",
                    source.domain(),
                    name.domain()
                )));
            }
            if source.path() == name.path() {
                continue;
            }
            let from = client.repository(&source, &auth, Access::Pull).map_err(told)?;
            let found = from.manifest(digest.as_str()).await.map_err(told)?;
            if let Document::Manifest(manifest) = document(&found)? {
                for blob in manifest.layers.iter().chain([&manifest.config]) {
                    if target.blob_size(&blob.digest).await.map_err(told)?.is_none()
                        && !target.mount(&blob.digest, source.path()).await.map_err(told)?
                    {
                        return Err(Error::conflict(format!(
                            "the registry does not mount {} from {}: pull that image and push it to {} first",
                            blob.digest,
                            source.familiar_name(),
                            name.familiar_name()
                        )));
                    }
                }
            }
            target
                .manifest_put(digest.as_str(), &found.media_type, found.bytes)
                .await
                .map_err(told)?;
        }
        let digest = Digest::sha256(push.raw.as_bytes());
        let at = match name.tag() {
            Some(tag) => tag.to_owned(),
            None => "latest".to_owned(),
        };
        target
            .manifest_put(&at, &push.media_type, push.raw.into_bytes().into())
            .await
            .map_err(told)?;
        Ok(digest)
    }
}

fn document(found: &RemoteManifest) -> Result<Document> {
    Document::parse(&found.media_type, &found.bytes).map_err(|error| Error::internal(error.to_string()))
}
