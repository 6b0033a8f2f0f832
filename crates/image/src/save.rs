//! Saving: one tar that is a Docker archive and an OCI layout at once, so that every tool reads it.
//!
//! ```text
//!   blobs/sha256/<hex>   every blob once, in the order of the digests
//!   index.json           OCI: one descriptor per name (image-layout 1.1)
//!   manifest.json        Docker: configuration, names and layers of each image, by their place in blobs/
//!   oci-layout
//! ```
//!
//! The same images give the same bytes: times are zero, owners root, order fixed.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};

use serde::Serialize;
use spec::image::{Descriptor, Index, Manifest, media_type};
use spec::{Digest, Platform, Reference};
use store::Lease;

use crate::error::ImageError;
use crate::image::Image;
use crate::images::Images;

/// How to save.
#[derive(Debug, Clone, Default)]
pub struct SaveOptions {
    /// Only these platforms of an index. One gives its manifest alone, several keep the index around them; none is
    /// everything that is here.
    pub platforms: Vec<Platform>,
}

/// Annotation by which containerd's tools find the full name.
pub(crate) const FULL_NAME: &str = "io.containerd.image.name";
/// Annotation of the tag alone (image-spec 1.1).
pub(crate) const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// An entry of `manifest.json`.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct DockerEntry {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

#[derive(Default)]
struct Saved {
    blobs: BTreeMap<Digest, u64>,
    index: Vec<Descriptor>,
    docker: Vec<DockerEntry>,
    seen: BTreeSet<Digest>,
}

impl Images {
    /// Writes the named images to `out`. Blocks.
    pub fn save(&self, names: &[String], out: impl Write, options: SaveOptions) -> Result<(), ImageError> {
        // All names of one image go into one entry, in the order they were asked for.
        let mut wanted: Vec<(Vec<Image>, Vec<Reference>)> = Vec::new();
        for name in names {
            let images = match options.platforms.as_slice() {
                [] => vec![self.resolve(name)?],
                platforms => platforms
                    .iter()
                    .map(|platform| self.resolve_platform(name, Some(platform)))
                    .collect::<Result<_, _>>()?,
            };
            let reference = images.first().and_then(|image| self.name_for(name, image));
            let same = |known: &[Image]| known.iter().map(|i| &i.id).eq(images.iter().map(|i| &i.id));
            match wanted.iter_mut().find(|(known, _)| same(known)) {
                Some((_, references)) => references.extend(reference.filter(|r| !references.contains(r))),
                None => wanted.push((images, reference.into_iter().collect())),
            }
        }
        self.save_images(wanted, out, &options)
    }

    /// Writes images, each with the names it gets in the archive.
    pub(crate) fn save_images(
        &self,
        wanted: Vec<(Vec<Image>, Vec<Reference>)>,
        out: impl Write,
        options: &SaveOptions,
    ) -> Result<(), ImageError> {
        let lease = self.inner.store.lease();
        let mut saved = Saved::default();
        for (images, references) in &wanted {
            self.add(&mut saved, images, references, options)?;
        }
        for digest in saved.blobs.keys() {
            lease.hold_blob(digest);
        }
        let written = self.write_archive(&saved, out);
        drop(lease);
        self.inner.changed.notify_one();
        written
    }

    /// Every blob of an image, each after those that it names; all of them stay while the lease is held.
    pub fn blobs_of(&self, image: &Image) -> Result<(Vec<Descriptor>, Lease), ImageError> {
        let lease = self.inner.store.lease();
        let mut saved = Saved::default();
        self.add(
            &mut saved,
            std::slice::from_ref(image),
            &[],
            &SaveOptions::default(),
        )?;
        let mut blobs = vec![image.target.clone()];
        blobs.extend(
            self.inner
                .documents
                .blobs_here(&self.inner.store, &image.target)?,
        );
        blobs.iter().for_each(|blob| lease.hold_blob(&blob.digest));
        // An index names manifests, a manifest everything else.
        let rank = |blob: &Descriptor| match blob.media_type.as_str() {
            kind if media_type::is_index(kind) => 2,
            kind if media_type::is_manifest(kind) => 1,
            _ => 0,
        };
        blobs.sort_by(|a, b| (rank(a), &a.digest).cmp(&(rank(b), &b.digest)));
        blobs.dedup_by(|a, b| a.digest == b.digest);
        Ok((blobs, lease))
    }

    /// The tag that `asked` stands for; none if it was an ID or a digest.
    fn name_for(&self, asked: &str, image: &Image) -> Option<Reference> {
        let reference = Reference::parse_normalized(asked).ok()?.or_latest();
        image
            .references
            .iter()
            .find(|r| **r == reference && r.tag().is_some())
            .cloned()
    }

    fn add(
        &self,
        saved: &mut Saved,
        images: &[Image],
        references: &[Reference],
        options: &SaveOptions,
    ) -> Result<(), ImageError> {
        let store = &self.inner.store;
        let manifest_of = |image: &Image| {
            let size = store.content().size(&image.manifest_digest);
            Descriptor::new(
                &image.manifest_descriptor.media_type,
                image.manifest_digest.clone(),
                size.unwrap_or(image.manifest_descriptor.size),
            )
        };
        let Some(first) = images.first() else {
            return Ok(());
        };
        let target = match options.platforms.len() {
            1 => manifest_of(first),
            _ => first.target.clone(),
        };
        let roots: Vec<Descriptor> = match options.platforms.is_empty() {
            true => vec![target.clone()],
            false => images.iter().map(manifest_of).collect(),
        };
        saved.blobs.insert(target.digest.clone(), target.size);
        for root in &roots {
            for blob in self.inner.documents.blobs_here(store, root)? {
                saved.blobs.insert(blob.digest, blob.size);
            }
        }
        let missing = images
            .iter()
            .flat_map(|image| &image.manifest.layers)
            .find(|l| !store.content().has(&l.digest));
        if let Some(missing) = missing {
            return Err(store::ContentError::NotFound(missing.digest.clone()).into());
        }
        for reference in references {
            let mut entry = target.clone();
            entry
                .annotations
                .insert(FULL_NAME.to_owned(), reference.canonical());
            entry.annotations.insert(
                REF_NAME.to_owned(),
                reference.tag().unwrap_or_default().to_owned(),
            );
            saved.index.push(entry);
        }
        if references.is_empty() {
            saved.index.push(target);
        }
        for image in images {
            if saved.seen.insert(image.manifest_digest.clone()) {
                saved.docker.push(docker_entry(&image.manifest, references));
            }
        }
        Ok(())
    }

    fn write_archive(&self, saved: &Saved, out: impl Write) -> Result<(), ImageError> {
        let mut archive = tar::Builder::new(out);
        let mut directories = BTreeSet::from(["blobs/".to_owned()]);
        for digest in saved.blobs.keys() {
            directories.insert(format!("blobs/{}/", digest.algorithm()));
        }
        for directory in &directories {
            let mut header = header(tar::EntryType::Directory, 0, 0o755);
            archive
                .append_data(&mut header, directory, std::io::empty())
                .map_err(ImageError::Write)?;
        }
        for (digest, size) in &saved.blobs {
            let file = self.inner.store.content().open(digest)?;
            let mut header = header(tar::EntryType::Regular, *size, 0o644);
            archive
                .append_data(&mut header, place(digest), file.take(*size))
                .map_err(ImageError::Write)?;
        }
        let index = Index {
            schema_version: 2,
            media_type: Some(media_type::OCI_INDEX.to_owned()),
            artifact_type: None,
            manifests: saved.index.clone(),
            annotations: BTreeMap::new(),
            extra: BTreeMap::new(),
        };
        let documents = [
            ("index.json", serde_json::to_vec(&index)?),
            ("manifest.json", serde_json::to_vec(&saved.docker)?),
            ("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()),
        ];
        for (name, bytes) in &documents {
            let mut header = header(tar::EntryType::Regular, bytes.len() as u64, 0o644);
            archive
                .append_data(&mut header, name, bytes.as_slice())
                .map_err(ImageError::Write)?;
        }
        archive
            .into_inner()
            .and_then(|mut out| out.flush())
            .map_err(ImageError::Write)
    }
}

fn docker_entry(manifest: &Manifest, references: &[Reference]) -> DockerEntry {
    let tags: Vec<String> = references.iter().map(Reference::familiar).collect();
    DockerEntry {
        config: place(&manifest.config.digest),
        repo_tags: (!tags.is_empty()).then_some(tags),
        layers: manifest.layers.iter().map(|l| place(&l.digest)).collect(),
    }
}

fn place(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm(), digest.hex())
}

fn header(kind: tar::EntryType, size: u64, mode: u32) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}
