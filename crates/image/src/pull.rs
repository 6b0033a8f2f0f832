//! Pulling: name -> manifest -> platform -> configuration and layers -> snapshots -> a registered image.
//!
//! Documents are fetched one after the other, layers a few at a time. A layer is unpacked while it is still
//! arriving, as soon as its parent is there. A pull that fails or is dropped leaves the beginnings of downloads
//! and nothing else that counts: blobs without an image go with the next garbage collection.

mod documents;
mod layers;

use std::sync::Arc;

use registry::{Access, Auth, Repository};
use spec::image::{Descriptor, ImageConfig, Manifest};
use spec::{Platform, Reference};
use store::Lease;

use crate::download::blocking;
use crate::error::ImageError;
use crate::image::Image;
use crate::images::Images;
use crate::progress::{Progress, Reporter};
use crate::registered::UnpackedManifest;

/// How to pull.
#[derive(Debug, Clone, Default)]
pub struct PullOptions {
    /// The host's platform if none.
    pub platform: Option<Platform>,
    pub auth: Option<Auth>,
    /// Every tag of the repository.
    pub all_tags: bool,
    /// Most bytes a second.
    pub limit_rate: Option<u64>,
}

/// A manifest on its way in.
pub(crate) struct Resolved {
    /// What the name points to: index or manifest.
    pub target: Descriptor,
    /// The manifest for the platform.
    pub descriptor: Descriptor,
    pub manifest: Manifest,
    pub config: ImageConfig,
}

struct Pull<'a> {
    images: &'a Images,
    repository: Arc<Repository>,
    reference: &'a Reference,
    lease: Arc<Lease>,
    report: Reporter,
}

impl Images {
    /// Pulls `reference` and gives back the image; with `all_tags` every tag, and the last one's image.
    pub async fn pull(
        &self,
        reference: &Reference,
        options: PullOptions,
        progress: Progress,
    ) -> Result<Image, ImageError> {
        self.inner.store.room().check()?;
        let report = Reporter(progress);
        let auth = options.auth.clone().unwrap_or_default();
        let names = if options.all_tags {
            let repository = self.inner.registry.repository(reference, &auth, Access::Pull)?;
            let tags = repository.tags().await?;
            tags.iter()
                .filter_map(|tag| reference.with_tag(tag).ok())
                .collect()
        } else {
            vec![reference.or_latest()]
        };
        let mut last = None;
        for name in &names {
            let pulled = self.pull_one(name, &options, &auth, &report).await;
            if let Err(error) = &pulled
                && (error.is_bad_content() || error.is_full())
            {
                // What came is kept for the next attempt after a break; of rubbish, and on a full disk, nothing is.
                let images = self.clone();
                blocking(move || {
                    images.sweep();
                    images.forget_partial();
                })
                .await?;
            }
            last = Some(pulled?);
        }
        last.ok_or_else(|| ImageError::NotFound(reference.familiar()))
    }

    async fn pull_one(
        &self,
        name: &Reference,
        options: &PullOptions,
        auth: &Auth,
        report: &Reporter,
    ) -> Result<Image, ImageError> {
        // With both a tag and a digest the digest decides, and the name that is kept is the digest's.
        let name = match name.digest() {
            Some(digest) => name.with_digest(digest),
            None => name.clone(),
        };
        let wanted = match (name.tag(), name.digest()) {
            (_, Some(digest)) => digest.to_string(),
            (Some(tag), None) => tag.to_owned(),
            (None, None) => "latest".to_owned(),
        };
        let repository = self.inner.registry.repository(&name, auth, Access::Pull)?;
        let pull = Pull {
            images: self,
            repository: Arc::new(repository.limited(options.limit_rate)),
            reference: &name,
            lease: Arc::new(self.inner.store.lease()),
            report: report.clone(),
        };
        let before = self.named(&name)?;
        let resolved = pull.documents(&wanted, options.platform.as_ref()).await?;
        self.demand_signature(&pull.repository, &name, &resolved.target)
            .await?;
        // Not before the registry has it: until a word is said, a refusal is an answer and no broken stream.
        report
            .say_at(&wanted, format!("Pulling from {}", shown_path(&name)))
            .await;
        let top = pull.layers(&resolved).await?;
        let target = resolved.target.clone();
        let digest = target.digest.clone();
        report.say(format!("Digest: {digest}")).await;
        let unpacked = UnpackedManifest {
            manifest: resolved.descriptor.digest.clone(),
            top,
        };
        let (images, lease, kept) = (self.clone(), pull.lease.clone(), name.clone());
        let (platform, asked) = (options.platform.clone(), name.familiar());
        let image = blocking(move || -> Result<Image, ImageError> {
            images.register(&target, std::slice::from_ref(&kept), &[unpacked])?;
            let blobs: Vec<_> = resolved
                .manifest
                .layers
                .iter()
                .map(|l| l.digest.clone())
                .collect();
            images.record_origin(&blobs, &kept)?;
            drop(lease);
            images.view(&target, platform.as_ref(), &asked)
        })
        .await??;
        let status = match before == Some(digest) {
            true => format!("Status: Image is up to date for {}", name.familiar()),
            false => format!("Status: Downloaded newer image for {}", name.familiar()),
        };
        report.say(status).await;
        self.inner.logins.worked(&name, auth);
        Ok(image)
    }
}

/// The repository as Docker's `Pulling from` line names it: without the registry.
fn shown_path(name: &Reference) -> String {
    name.path().to_owned()
}
