//! Signatures of images, as cosign makes them with a key: a payload that names the image's digest, signed.
//!
//! ```text
//!   IMAGE@sha256:<hex> <── tag sha256-<hex>.sig, or a referrer of the image
//!        manifest ── layers[] ── blob: {"critical": {"image": {"docker-manifest-digest": "sha256:<hex>"}, …}}
//!                       └── annotation dev.cosignproject.cosign/signature: base64 of the signature over that blob
//! ```
//!
//! A signature counts when one of the wanted keys verifies it and its payload names the image; what else is there is
//! passed over, since anybody who may push may put more beside an image. An index is signed as a whole: itself, as cosign
//! signs what a name leads to, or by all its entries that may be run; one entry alone says nothing of what the name stands
//! for elsewhere. Sources: cosign's SIGNATURE_SPEC.md and
//! containers' container-signature(5).

mod brought;
mod key;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use registry::{Access, Auth, Repository};
use serde::{Deserialize, Serialize};
use spec::image::{Descriptor, Document, Manifest};
use spec::{Digest, Reference};

use crate::document::{children, parse};
use crate::error::ImageError;
use crate::images::Images;
use crate::platform::is_runnable;

pub(crate) use brought::is_signatures;
pub use key::{KeyError, PublicKey};

const PAYLOAD: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
const ARTIFACT: &str = "application/vnd.dev.cosign.artifact.sig.v1+json";
const ANNOTATION: &str = "dev.cosignproject.cosign/signature";
const TYPE: &str = "cosign container image signature";
/// Most bytes of a payload; they are a few hundred.
const MAX_PAYLOAD: u64 = 1 << 20;
/// Most signatures of one image that are looked at.
const MOST: usize = 256;
/// Most entries of an index whose signatures are asked for one by one.
const MOST_PARTS: usize = 64;
/// Most bytes of a file with a key.
const MAX_KEY: u64 = 64 << 10;

/// A key with the name it is told by.
#[derive(Debug, Clone)]
pub struct NamedKey {
    pub name: String,
    pub key: PublicKey,
}

/// A signature that counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Verified {
    /// What was signed.
    pub digest: Digest,
    /// The name of the key that verifies it.
    pub key: String,
    /// What the signer called the image.
    pub identity: String,
    /// Everything the signer said.
    pub payload: serde_json::Value,
}

#[derive(Deserialize)]
struct Payload {
    critical: Critical,
}

#[derive(Deserialize)]
struct Critical {
    #[serde(default)]
    identity: Identity,
    image: Named,
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Default, Deserialize)]
struct Identity {
    #[serde(default, rename = "docker-reference")]
    reference: String,
}

#[derive(Deserialize)]
struct Named {
    #[serde(rename = "docker-manifest-digest")]
    digest: Digest,
}

/// Reads the public keys that a rule names.
pub fn read_keys(paths: &[PathBuf]) -> Result<Vec<NamedKey>, ImageError> {
    let read = |path: &Path| -> Result<NamedKey, String> {
        let size = std::fs::metadata(path).map_err(|error| error.to_string())?.len();
        if size > MAX_KEY {
            return Err(format!("{size} bytes are no key"));
        }
        let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
        let key = PublicKey::from_pem(&text).map_err(|error| error.to_string())?;
        Ok(NamedKey {
            name: path.display().to_string(),
            key,
        })
    };
    paths
        .iter()
        .map(|path| {
            read(path).map_err(|detail| ImageError::Key {
                path: path.clone(),
                detail,
            })
        })
        .collect()
}

/// What is said of an image that its rule does not let in.
fn unsigned(name: &Reference, prefix: String, keys: Vec<NamedKey>) -> ImageError {
    let keys: Vec<String> = keys.into_iter().map(|key| key.name).collect();
    ImageError::Unsigned {
        name: name.familiar(),
        prefix,
        keys: keys.join(", "),
    }
}

impl Images {
    /// The signatures of `digest` in the repository that one of `keys` made.
    pub async fn signatures(
        &self,
        repository: &Repository,
        digest: &Digest,
        keys: &[NamedKey],
    ) -> Result<Vec<Verified>, ImageError> {
        let mut found = Vec::new();
        for manifest in signature_manifests(repository, digest).await? {
            for layer in manifest.layers.iter().take(MOST) {
                if let Some(verified) = check(repository, layer, digest, keys).await? {
                    found.push(verified);
                }
            }
        }
        Ok(found)
    }

    /// The signatures by which all that a name stands for is signed: those of the target or, where that is an index without
    /// any, of each of its entries that may be run; none as soon as one of these has none.
    async fn signatures_of_all(
        &self,
        repository: &Repository,
        target: &Digest,
        document: &Document,
        keys: &[NamedKey],
    ) -> Result<Vec<Verified>, ImageError> {
        let found = self.signatures(repository, target, keys).await?;
        let parts = runnable_parts(document);
        if !found.is_empty() || parts.len() > MOST_PARTS {
            return Ok(found);
        }
        let mut all = Vec::new();
        for part in parts {
            let found = self.signatures(repository, part, keys).await?;
            if found.is_empty() {
                return Ok(Vec::new());
            }
            all.extend(found);
        }
        Ok(all)
    }

    /// Refuses a target that a rule wants signed and that is not, as a whole ([`Images::signatures_of_all`]): its name will
    /// stand for all of it, for every platform.
    pub(crate) async fn demand_signature(
        &self,
        repository: &Repository,
        name: &Reference,
        target: &Descriptor,
    ) -> Result<(), ImageError> {
        let Some(rule) = self
            .inner
            .registry
            .rule(name)
            .filter(|rule| !rule.signed_by.is_empty())
        else {
            return Ok(());
        };
        let paths = rule.signed_by.clone();
        let keys = crate::download::blocking(move || read_keys(&paths)).await??;
        let (images, of) = (self.clone(), target.clone());
        let document = move || images.inner.documents.manifest(&images.inner.store, &of);
        let document = crate::download::blocking(document).await??;
        let found = self
            .signatures_of_all(repository, &target.digest, &document, &keys)
            .await?;
        match found.is_empty() {
            true => Err(unsigned(name, rule.prefix, keys)),
            false => Ok(()),
        }
    }

    /// Verifies the image `name` with `keys`, or with those of the rule for its name. What is here under the name is
    /// what is verified; a name that is not here is asked of its registry.
    pub async fn verify(
        &self,
        name: &Reference,
        auth: Option<Auth>,
        keys: Vec<NamedKey>,
    ) -> Result<Vec<Verified>, ImageError> {
        let name = name.or_latest();
        let repository = self
            .inner
            .registry
            .repository(&name, &auth.unwrap_or_default(), Access::Pull)?;
        let keys = match keys.is_empty() {
            false => keys,
            true => {
                let rule = self.inner.registry.rule(&name).map(|rule| rule.signed_by);
                let paths = rule
                    .filter(|paths| !paths.is_empty())
                    .ok_or_else(|| ImageError::NoKey(name.familiar()))?;
                crate::download::blocking(move || read_keys(&paths)).await??
            }
        };
        let images = self.clone();
        let of = name.clone();
        let here = move || -> Result<(Digest, Document), ImageError> {
            let target = images.find(&of.canonical())?;
            let document = images.inner.documents.manifest(&images.inner.store, &target)?;
            Ok((target.digest, Document::clone(&document)))
        };
        let (target, document) = match crate::download::blocking(here).await? {
            Ok(here) => here,
            Err(ImageError::NotFound(_)) => {
                let wanted = match (name.digest(), name.tag()) {
                    (Some(digest), _) => digest.to_string(),
                    (None, tag) => tag.unwrap_or("latest").to_owned(),
                };
                let fetched = repository.manifest(&wanted).await?;
                let document = parse(&fetched.media_type, &fetched.digest, &fetched.bytes)?;
                (fetched.digest, document)
            }
            Err(error) => return Err(error),
        };
        let found = self
            .signatures_of_all(&repository, &target, &document, &keys)
            .await?;
        if !found.is_empty() {
            return Ok(found);
        }
        Err(ImageError::NotSigned {
            name: name.familiar(),
            keys: keys
                .into_iter()
                .map(|key| key.name)
                .collect::<Vec<_>>()
                .join(", "),
        })
    }
}

/// The entries of an index that may be run, for whatever platform.
pub(crate) fn runnable_parts(document: &Document) -> BTreeSet<&Digest> {
    match document {
        Document::Manifest(_) => BTreeSet::new(),
        Document::Index(index) => children(index)
            .filter(|entry| is_runnable(entry))
            .map(|entry| &entry.digest)
            .collect(),
    }
}

/// Manifests with signatures of `digest`: by cosign's tag, and those that refer to it.
async fn signature_manifests(repository: &Repository, digest: &Digest) -> Result<Vec<Manifest>, ImageError> {
    let tag = format!("{}.sig", digest.to_string().replace(':', "-"));
    let mut found = Vec::new();
    match repository.manifest(&tag).await {
        Ok(fetched) => {
            if let Document::Manifest(manifest) = parse(&fetched.media_type, &fetched.digest, &fetched.bytes)?
            {
                found.push(manifest);
            }
        }
        Err(registry::Error::ManifestUnknown { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    for referrer in repository
        .referrers(digest, Some(ARTIFACT))
        .await?
        .into_iter()
        .take(MOST)
    {
        let fetched = repository.manifest(referrer.digest.as_str()).await?;
        if let Document::Manifest(manifest) = parse(&fetched.media_type, &fetched.digest, &fetched.bytes)? {
            found.push(manifest);
        }
    }
    Ok(found)
}

/// The signature that a layer holds, if it counts.
async fn check(
    repository: &Repository,
    layer: &Descriptor,
    digest: &Digest,
    keys: &[NamedKey],
) -> Result<Option<Verified>, ImageError> {
    if layer.media_type != PAYLOAD || layer.size > MAX_PAYLOAD || !layer.annotations.contains_key(ANNOTATION)
    {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    let mut reader = repository.blob(&layer.digest, layer.size, 0).await?;
    while let Some(more) = reader.chunk().await? {
        bytes.extend_from_slice(&more);
    }
    Ok(counts(layer, &bytes, digest, keys))
}

/// The signature of `layer`, whose content is `bytes`, if one of the keys made it for `digest`.
fn counts(layer: &Descriptor, bytes: &[u8], digest: &Digest, keys: &[NamedKey]) -> Option<Verified> {
    let signature = STANDARD.decode(layer.annotations.get(ANNOTATION)?).ok()?;
    let key = keys.iter().find(|key| key.key.verifies(bytes, &signature))?;
    let payload: Payload = serde_json::from_slice(bytes).ok()?;
    if payload.critical.kind != TYPE || payload.critical.image.digest != *digest {
        return None;
    }
    Some(Verified {
        digest: digest.clone(),
        key: key.name.clone(),
        identity: payload.critical.identity.reference,
        payload: serde_json::from_slice(bytes).unwrap_or_default(),
    })
}
