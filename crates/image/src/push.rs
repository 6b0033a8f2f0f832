//! Pushing: every blob of an image that the registry lacks, then its manifests, the name last.
//!
//! A name that points to an index is pushed as the index when all its manifests are here. Otherwise, as Docker
//! does, the manifest of the platform that is here is pushed in its place, and the watcher is told.

mod blobs;

pub use blobs::MAX_UPLOADS;

use std::sync::Arc;

use registry::{Access, Auth, Repository};
use spec::image::{Descriptor, Document};
use spec::{Digest, Platform, Reference};

use crate::document::MAX_MANIFEST;
use crate::download::blocking;
use crate::error::ImageError;
use crate::images::Images;
use crate::progress::{Progress, Reporter};

/// How to push.
#[derive(Debug, Clone, Default)]
pub struct PushOptions {
    pub auth: Option<Auth>,
    /// Push this platform's manifest instead of the index.
    pub platform: Option<Platform>,
    /// Most bytes a second.
    pub limit_rate: Option<u64>,
}

/// What the name points to at the registry now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PushResult {
    pub digest: Digest,
    pub size: u64,
}

/// What goes over.
pub(crate) struct Plan {
    /// What the name will point to.
    pub target: Descriptor,
    /// Every manifest and index, leaves first, the target last.
    pub documents: Vec<Descriptor>,
    /// Configurations and layers.
    pub blobs: Vec<Descriptor>,
    pub layers: Vec<Digest>,
    /// The index the target stands in for.
    pub instead_of: Option<Descriptor>,
}

impl Images {
    /// Pushes the image that `name` names to where the name says.
    pub async fn push(
        &self,
        name: &Reference,
        options: PushOptions,
        progress: Progress,
    ) -> Result<PushResult, ImageError> {
        let report = Reporter(progress);
        let name = name.or_latest();
        let lease = self.inner.store.lease();
        let (images, of, platform) = (self.clone(), name.clone(), options.platform.clone());
        let plan = blocking(move || images.push_plan(&of, platform.as_ref())).await??;
        for part in plan.documents.iter().chain(&plan.blobs) {
            lease.hold_blob(&part.digest);
        }
        report
            .say(format!("The push refers to repository [{}]", name.name()))
            .await;
        let pushed = self.push_plan_to(&name, &plan, &options, &report).await;
        drop(lease);
        self.inner.changed.notify_one();
        pushed?;
        let tag = tag_of(&name, &plan);
        let (digest, size) = (plan.target.digest.clone(), plan.target.size);
        if let Some(index) = &plan.instead_of {
            report
                .aux(serde_json::json!({
                    "manifestPushedInsteadOfIndex": true,
                    "originalIndex": index,
                    "selectedManifest": plan.target,
                }))
                .await;
        }
        report.say(format!("{tag}: digest: {digest} size: {size}")).await;
        report
            .aux(serde_json::json!({ "Tag": tag, "Digest": digest, "Size": size }))
            .await;
        Ok(PushResult { digest, size })
    }

    /// Pushes what is planned: blobs, then documents, the name last.
    pub(crate) async fn push_plan_to(
        &self,
        name: &Reference,
        plan: &Plan,
        options: &PushOptions,
        report: &Reporter,
    ) -> Result<(), ImageError> {
        let auth = options.auth.clone().unwrap_or_default();
        let repository = self.inner.registry.repository(name, &auth, Access::Push)?;
        if self.inner.logins.of(name) == Auth::Anonymous {
            // A layer that was let go may have to come from there before anything has gone over.
            self.inner.logins.worked(name, &auth);
        }
        let repository = Arc::new(repository.limited(options.limit_rate));
        self.push_blobs(&repository, name, plan, report).await?;
        let tag = tag_of(name, plan);
        for document in &plan.documents {
            let last = document.digest == plan.target.digest;
            let at = if last {
                tag.as_str()
            } else {
                document.digest.as_str()
            };
            self.push_document(&repository, document, at).await?;
        }
        self.inner.logins.worked(name, &auth);
        let (images, origins, at) = (self.clone(), plan.layers.clone(), name.clone());
        blocking(move || images.record_origin(&origins, &at)).await?
    }

    async fn push_document(
        &self,
        repository: &Repository,
        document: &Descriptor,
        at: &str,
    ) -> Result<(), ImageError> {
        let (store, digest) = (self.inner.store.clone(), document.digest.clone());
        let bytes = blocking(move || store.content().read(&digest, MAX_MANIFEST)).await??;
        Ok(repository
            .manifest_put(at, &document.media_type, bytes.into())
            .await?)
    }

    fn push_plan(&self, name: &Reference, platform: Option<&Platform>) -> Result<Plan, ImageError> {
        let store = &self.inner.store;
        let registered = self
            .target_of(&name.canonical())?
            .ok_or_else(|| ImageError::NotLocal(name.familiar_name()))?;
        let document = self.inner.documents.manifest(store, &registered)?;
        let whole = matches!(*document, Document::Manifest(_))
            || self.manifests(&registered)?.iter().all(|m| m.available);
        let (target, instead_of) = if whole && platform.is_none() {
            (registered, None)
        } else {
            let image = self.view(&registered, platform, &name.familiar())?;
            let manifest = Descriptor::new(
                &image.manifest_descriptor.media_type,
                image.manifest_digest.clone(),
                store
                    .content()
                    .size(&image.manifest_digest)
                    .unwrap_or(image.manifest_descriptor.size),
            );
            match manifest.digest == registered.digest {
                true => (registered, None),
                false => (manifest, Some(registered)),
            }
        };
        let mut plan = Plan {
            target: target.clone(),
            documents: Vec::new(),
            blobs: Vec::new(),
            layers: Vec::new(),
            instead_of,
        };
        self.collect(&target, &mut plan, 0)?;
        Ok(plan)
    }

    /// Leaves first, so that the registry never sees a document whose parts it lacks.
    fn collect(&self, of: &Descriptor, plan: &mut Plan, depth: usize) -> Result<(), ImageError> {
        if depth > 4 || plan.documents.iter().any(|d| d.digest == of.digest) {
            return Ok(());
        }
        let document = self.inner.documents.manifest(&self.inner.store, of)?;
        match &*document {
            Document::Index(index) => {
                for child in &index.manifests {
                    self.collect(child, plan, depth + 1)?;
                }
            }
            Document::Manifest(manifest) => {
                for layer in &manifest.layers {
                    plan.layers.push(layer.digest.clone());
                }
                for part in manifest.layers.iter().chain([&manifest.config]) {
                    if !plan.blobs.iter().any(|b| b.digest == part.digest) {
                        plan.blobs.push(part.clone());
                    }
                }
            }
        }
        plan.documents.push(of.clone());
        Ok(())
    }
}

/// By what the registry is to know the target.
fn tag_of(name: &Reference, plan: &Plan) -> String {
    match (name.tag(), name.digest()) {
        (Some(tag), _) => tag.to_owned(),
        _ => plan.target.digest.to_string(),
    }
}
