//! From what a user typed to an image: a name, `name@digest`, a full ID or the beginning of one.
//!
//! Order, as Docker's: a full ID; a name; the beginning of an ID. So a tag that looks like hexadecimal digits
//! wins over an ID. Where IDs are of configurations and several images have the same one, it is the newest of them.

use spec::image::{Descriptor, ImageConfig};
use spec::{Digest, Platform, Reference, ReferenceError};

use crate::error::ImageError;
use crate::image::Image;
use crate::images::Images;

/// Fewest digits of a short ID. One would do for Docker as well.
const MIN_SHORT: usize = 1;

impl Images {
    /// The image `name_or_id` stands for, for the host's platform or, if that is not here, whatever is.
    pub fn resolve(&self, name_or_id: &str) -> Result<Image, ImageError> {
        self.resolve_platform(name_or_id, None)
    }

    /// The digest of the target that `name_or_id` stands for, without a look at what of it is here.
    pub fn id(&self, name_or_id: &str) -> Result<Digest, ImageError> {
        Ok(self.find(name_or_id)?.digest)
    }

    /// The configuration alone of the image that [`Images::resolve`] gives.
    pub fn config(&self, name_or_id: &str) -> Result<ImageConfig, ImageError> {
        let target = self.find(name_or_id)?;
        let (_, config) = self.choose(&target, None, name_or_id)?;
        Ok(config.0.clone())
    }

    /// The image for exactly this platform.
    pub fn resolve_platform(
        &self,
        name_or_id: &str,
        platform: Option<&Platform>,
    ) -> Result<Image, ImageError> {
        let target = self.find(name_or_id)?;
        self.view(&target, platform, name_or_id)
    }

    /// The target `name_or_id` stands for.
    pub(crate) fn find(&self, name_or_id: &str) -> Result<Descriptor, ImageError> {
        let full: Option<Digest> = match is_hex(name_or_id) && name_or_id.len() == 64 {
            true => format!("sha256:{name_or_id}").parse().ok(),
            false => name_or_id.parse().ok(),
        };
        if let Some(id) = full {
            return match self.target(&id)? {
                Some(target) => Ok(target),
                None => self
                    .targets_by_config(id.hex())?
                    .into_iter()
                    .next()
                    .ok_or_else(|| ImageError::NotFound(id.to_string())),
            };
        }
        let short = name_or_id.strip_prefix("sha256:").unwrap_or(name_or_id);
        let reference = match Reference::parse_normalized(name_or_id) {
            Ok(reference) => reference,
            Err(ReferenceError::LooksLikeId(_)) => return Err(ImageError::NotFound(name_or_id.to_owned())),
            Err(error) => return Err(error.into()),
        };
        if let Some(found) = self.find_named(&reference)? {
            return Ok(found);
        }
        if is_hex(short) && (MIN_SHORT..64).contains(&short.len()) {
            let mut found = self.targets_by_prefix(short)?;
            if found.len() > 1 {
                return Err(ImageError::Ambiguous(short.to_owned()));
            }
            let by_config = self.targets_by_config(short)?;
            let ids: std::collections::BTreeSet<Digest> = by_config
                .iter()
                .chain(&found)
                .map(|target| self.id_of(target))
                .collect();
            if ids.len() > 1 {
                return Err(ImageError::Ambiguous(short.to_owned()));
            }
            found.extend(by_config.into_iter().next());
            if let Some(found) = found.pop() {
                return Ok(found);
            }
        }
        Err(ImageError::no_such(&reference))
    }

    fn find_named(&self, reference: &Reference) -> Result<Option<Descriptor>, ImageError> {
        let Some(digest) = reference.digest() else {
            return self.target_of(&reference.or_latest().canonical());
        };
        // With a digest the tag says nothing: any name in that repository that leads to the digest will do.
        if let Some(found) = self.target_of(&reference.with_digest(digest).canonical())? {
            return Ok(Some(found));
        }
        let (names, _) = self.names_of(digest)?;
        if names.iter().any(|n| n.name() == reference.name()) {
            return self.target(digest);
        }
        Ok(None)
    }
}

fn is_hex(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}
