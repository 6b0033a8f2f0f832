//! What comes without a registry: archives that are loaded or imported under a name whose rule wants a signature.
//!
//! A signature may lie in the archive beside the image, as `cosign save` and others put it: a manifest of payloads in
//! `index.json`. One that does not is asked of the registry of the name, as a pull would. A payload names the digest it is
//! about, so where a manifest lies says nothing. An imported tree has a digest that nobody signed.

use std::collections::BTreeSet;

use spec::image::Manifest;
use spec::{Digest, Reference};

use super::{ANNOTATION, MAX_PAYLOAD, MOST, NamedKey, PAYLOAD, Verified, counts, read_keys};
use crate::error::ImageError;
use crate::images::Images;
use registry::{Access, Auth};

/// Whether a manifest holds signatures and nothing else.
pub(crate) fn is_signatures(manifest: &Manifest) -> bool {
    !manifest.layers.is_empty()
        && manifest
            .layers
            .iter()
            .all(|layer| layer.media_type == PAYLOAD && layer.annotations.contains_key(ANNOTATION))
}

impl Images {
    /// Refuses what an archive brings under `name` if a rule wants it signed and neither `target` is nor, where it is an
    /// index, each of `parts`: all its entries that may be run, for whatever platform and also those that are not here,
    /// since they may come under another name. An entry that is an index is signed itself; signatures of what is below it
    /// do not count. Blocks.
    pub(crate) fn demand_signature_of_brought(
        &self,
        name: &Reference,
        target: &Digest,
        parts: &BTreeSet<&Digest>,
        beside: &[Manifest],
    ) -> Result<(), ImageError> {
        let Some(rule) = self
            .inner
            .registry
            .rule(name)
            .filter(|rule| !rule.signed_by.is_empty())
        else {
            return Ok(());
        };
        let keys = read_keys(&rule.signed_by)?;
        let signed = |digest: &Digest| -> Result<bool, ImageError> {
            Ok(self.is_signed_here(digest, &keys, beside)? || self.is_signed_there(name, digest, &keys))
        };
        if signed(target)? {
            return Ok(());
        }
        let mut all = !parts.is_empty();
        for part in parts {
            all = all && signed(part)?;
        }
        match all {
            true => Ok(()),
            false => Err(super::unsigned(name, rule.prefix, keys)),
        }
    }

    /// Refuses a name for an image that nobody can have signed, since it is made here of what comes from outside.
    pub(crate) fn refuse_signed_name(&self, name: &Reference) -> Result<(), ImageError> {
        match self.inner.registry.rule(name) {
            Some(rule) if !rule.signed_by.is_empty() => Err(ImageError::Unsignable {
                name: name.familiar(),
                prefix: rule.prefix,
            }),
            _ => Ok(()),
        }
    }

    fn is_signed_here(
        &self,
        digest: &Digest,
        keys: &[NamedKey],
        beside: &[Manifest],
    ) -> Result<bool, ImageError> {
        let content = self.inner.store.content();
        for layer in beside
            .iter()
            .flat_map(|manifest| manifest.layers.iter().take(MOST))
        {
            if !content.has(&layer.digest) || layer.size > MAX_PAYLOAD {
                continue;
            }
            let payload = content.read(&layer.digest, MAX_PAYLOAD)?;
            if counts(layer, &payload, digest, keys).is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// A registry that cannot be asked has no signature to show.
    fn is_signed_there(&self, name: &Reference, digest: &Digest, keys: &[NamedKey]) -> bool {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return false;
        };
        let asked = || -> Result<Vec<Verified>, ImageError> {
            let repository = self
                .inner
                .registry
                .repository(name, &Auth::default(), Access::Pull)?;
            runtime.block_on(self.signatures(&repository, digest, keys))
        };
        match asked() {
            Ok(found) => !found.is_empty(),
            Err(error) => {
                tracing::warn!(name = name.familiar(), %error, "cannot ask for signatures of a loaded image");
                false
            }
        }
    }
}
