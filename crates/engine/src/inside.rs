//! Looking inside images, and whom they are signed by.

use std::sync::Arc;

use image::{Auth, Comparison, Contents, NamedKey, PublicKey, Verified};
use spec::{Platform, Reference};

use crate::engine::{Engine, blocking};
use crate::error::{Error, Result};

impl Engine {
    /// What each layer of an image does, and what it wastes.
    pub async fn image_contents(&self, name: &str, platform: Option<&Platform>) -> Result<Contents> {
        let (inner, name, platform) = (Arc::clone(&self.inner), name.to_owned(), platform.cloned());
        blocking(move || {
            let image = inner.images.resolve_platform(&name, platform.as_ref())?;
            Ok(inner.images.contents(&image)?)
        })
        .await
    }

    /// What changes from one image to another.
    pub async fn image_compare(&self, old: &str, new: &str) -> Result<Comparison> {
        let (inner, old, new) = (Arc::clone(&self.inner), old.to_owned(), new.to_owned());
        blocking(move || {
            let (old, new) = (inner.images.resolve(&old)?, inner.images.resolve(&new)?);
            Ok(inner.images.compare(&old, &new)?)
        })
        .await
    }

    /// The signatures of an image by keys in PEM, each with a name, or by those of the rule for the image's name.
    pub async fn image_verify(
        &self,
        name: &Reference,
        auth: Option<Auth>,
        keys: Vec<(String, String)>,
    ) -> Result<Vec<Verified>> {
        let keys = keys
            .into_iter()
            .map(|(name, pem)| match PublicKey::from_pem(&pem) {
                Ok(key) => Ok(NamedKey { name, key }),
                Err(error) => Err(Error::invalid(format!("{name}: {error}"))),
            })
            .collect::<Result<Vec<_>>>()?;
        Ok(self.inner.images.verify(name, auth, keys).await?)
    }
}
