//! Several images, one for each platform, under one digest; and what is said about them beside them.
//!
//! ```text
//!   index ──┬── manifest of an image
//!           └── manifest of its statements (unknown/unknown, named by annotations) ── in-toto documents as layers
//! ```
//!
//! Statements lie where BuildKit's attestation storage puts them, so that its tools find them.

use std::collections::BTreeMap;

use serde_json::json;
use spec::image::{Descriptor, Index, media_type};
use spec::{Digest, Platform};
use store::Lease;

use crate::error::ImageError;
use crate::image::Image;
use crate::images::Images;

/// The type of in-toto documents.
const IN_TOTO: &str = "application/vnd.in-toto+json";
/// Annotations by which tools find what a manifest is about.
const PREDICATE: &str = "in-toto.io/predicate-type";
const REFERENCE_DIGEST: &str = "vnd.docker.reference.digest";
const REFERENCE_TYPE: &str = "vnd.docker.reference.type";

/// Something that is said about an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// Digest of the manifest that it is about.
    pub about: Digest,
    pub predicate_type: String,
    /// An in-toto statement.
    pub document: Vec<u8>,
}

impl Images {
    /// Writes an index of `images`, each by its manifest's descriptor, and registers it. What was unpacked of them stays
    /// unpacked. Blocks.
    pub fn commit_index(
        &self,
        images: &[Image],
        statements: &[Statement],
        annotations: BTreeMap<String, String>,
    ) -> Result<Image, ImageError> {
        let lease = self.inner.store.lease();
        let manifests = images.iter().map(|image| {
            let mut descriptor = image.manifest_descriptor.clone();
            descriptor.digest = image.manifest_digest.clone();
            descriptor.platform = Some(image.platform.clone());
            for part in std::iter::once(&image.manifest_digest)
                .chain([&image.config_digest])
                .chain(image.manifest.layers.iter().map(|layer| &layer.digest))
            {
                lease.hold_blob(part);
            }
            descriptor
        });
        let mut manifests: Vec<Descriptor> = manifests.collect();
        for image in images {
            let about = &image.manifest_digest;
            let said: Vec<&Statement> = statements.iter().filter(|said| said.about == *about).collect();
            if !said.is_empty() {
                manifests.push(self.put_statements(about, &said, &lease)?);
            }
        }
        let index = Index {
            schema_version: 2,
            media_type: Some(media_type::OCI_INDEX.to_owned()),
            artifact_type: None,
            manifests,
            annotations,
            extra: Default::default(),
        };
        let target = self.put_document(&serde_json::to_vec(&index)?, media_type::OCI_INDEX, &lease)?;
        self.register(&target, &[], &[])?;
        self.view(&target, None, target.digest.as_str())
    }

    /// Writes what is said about one manifest.
    fn put_statements(
        &self,
        about: &Digest,
        statements: &[&Statement],
        lease: &Lease,
    ) -> Result<Descriptor, ImageError> {
        let mut layers = Vec::new();
        for statement in statements {
            let mut layer = self.put_document(&statement.document, IN_TOTO, lease)?;
            layer
                .annotations
                .insert(PREDICATE.to_owned(), statement.predicate_type.clone());
            layers.push(layer);
        }
        let content: Vec<&Digest> = layers.iter().map(|layer| &layer.digest).collect();
        let config = json!({
            "architecture": "unknown",
            "os": "unknown",
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": content},
        });
        let config = self.put_document(&serde_json::to_vec(&config)?, media_type::OCI_CONFIG, lease)?;
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": media_type::OCI_MANIFEST,
            "config": config,
            "layers": layers,
        });
        let mut descriptor =
            self.put_document(&serde_json::to_vec(&manifest)?, media_type::OCI_MANIFEST, lease)?;
        descriptor.platform = Some(Platform::new("unknown", "unknown", None));
        descriptor.annotations = BTreeMap::from([
            (REFERENCE_DIGEST.to_owned(), about.to_string()),
            (REFERENCE_TYPE.to_owned(), "attestation-manifest".to_owned()),
        ]);
        Ok(descriptor)
    }

    /// Writes an image to `out` under names that it need not have here, with what its descriptor says. Blocks.
    pub fn save_as(
        &self,
        image: &Image,
        names: &[spec::Reference],
        out: impl std::io::Write,
    ) -> Result<(), ImageError> {
        self.save_images(
            vec![(vec![image.clone()], names.to_vec())],
            out,
            &Default::default(),
        )
    }
}
