//! Image stores in temporary directories, root filesystems to import, and a progress log.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "test support"
)]

#[path = "../../../registry/tests/support/mod.rs"]
pub mod servers;

use std::path::PathBuf;

use image::{Image, Images, ImportOptions, Progress, ProgressEvent, PullOptions, PushOptions};
use registry::{Client, ClientConfig};
use servers::memory::MemoryRegistry;
use spec::image::media_type;
use spec::{Digest, Reference};
use store::Store;
use tokio::sync::mpsc;

/// Unpacking makes devices and owners: root only.
pub fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        println!("skipped: needs root");
    }
    root
}

/// Has the registry serve an image of these layers as `app:1`; gives the layers' digests.
pub fn serve(registry: &MemoryRegistry, layers: &[Vec<u8>]) -> Vec<Digest> {
    let digests: Vec<Digest> = layers.iter().map(|layer| registry.put_blob(layer)).collect();
    let config = serde_json::json!({
        "architecture": spec::Platform::host().architecture, "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": digests},
    });
    let config = serde_json::to_vec(&config).unwrap();
    let described = |kind: &str, digest: &Digest, size: usize| serde_json::json!({"mediaType": kind, "digest": digest, "size": size});
    let layers = digests.iter().zip(layers);
    let manifest = serde_json::json!({
        "schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST,
        "config": described(media_type::OCI_CONFIG, &registry.put_blob(&config), config.len()),
        "layers": layers.map(|(digest, layer)| described(media_type::OCI_LAYER, digest, layer.len())).collect::<Vec<_>>(),
    });
    let manifest = serde_json::to_vec(&manifest).unwrap();
    registry.put_manifest("app", "1", media_type::OCI_MANIFEST, manifest);
    digests
}

pub struct World {
    pub images: Images,
    pub dir: tempfile::TempDir,
}

impl World {
    pub fn new() -> World {
        World::with(ClientConfig::default())
    }

    pub fn with(config: ClientConfig) -> World {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("root")).unwrap();
        let images = Images::open(store, Client::new(config).unwrap()).unwrap();
        World { images, dir }
    }

    /// Imports a root filesystem on a blocking thread.
    pub async fn import(&self, name: &str, tar: Vec<u8>) -> Image {
        let (images, reference) = (self.images.clone(), name.parse().unwrap());
        blocking(move || {
            let options = ImportOptions {
                reference: Some(reference),
                message: "made".into(),
                ..Default::default()
            };
            images.import(tar.as_slice(), options, log().0)
        })
        .await
        .unwrap()
    }

    pub async fn push(&self, name: &str) -> Result<Vec<ProgressEvent>, image::ImageError> {
        let (progress, events) = log();
        self.images
            .push(&name.parse().unwrap(), PushOptions::default(), progress)
            .await?;
        Ok(drain(events))
    }

    pub async fn pull(&self, name: &str) -> Result<(Image, Vec<ProgressEvent>), image::ImageError> {
        let (progress, events) = log();
        let reference: Reference = name.parse().unwrap();
        let image = self
            .images
            .pull(&reference, PullOptions::default(), progress)
            .await?;
        Ok((image, drain(events)))
    }

    /// What a file of the image holds.
    pub fn read(&self, image: &Image, path: &str) -> Option<String> {
        let snapshots = self.images.store().snapshots();
        let mut next = Some(self.images.snapshot(image).unwrap());
        while let Some(id) = next {
            if let Ok(text) = std::fs::read_to_string(snapshots.fs(id).join(path)) {
                return Some(text);
            }
            next = snapshots.parent(id);
        }
        None
    }

    pub fn partial_downloads(&self) -> Vec<PathBuf> {
        std::fs::read_dir(self.images.store().root().join("content/ingest"))
            .unwrap()
            .map(|e| e.unwrap().path())
            .collect()
    }
}

pub fn log() -> (Progress, mpsc::Receiver<ProgressEvent>) {
    mpsc::channel(10_000)
}

pub fn drain(mut events: mpsc::Receiver<ProgressEvent>) -> Vec<ProgressEvent> {
    let mut all = Vec::new();
    while let Ok(event) = events.try_recv() {
        all.push(event);
    }
    all
}

pub fn statuses(events: &[ProgressEvent]) -> Vec<String> {
    events.iter().map(|e| e.status.clone()).collect()
}

pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap()
}

/// A tar of regular files.
pub fn tar_of(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (path, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_mtime(1_700_000_000);
        archive.append_data(&mut header, path, *content).unwrap();
    }
    archive.into_inner().unwrap()
}
