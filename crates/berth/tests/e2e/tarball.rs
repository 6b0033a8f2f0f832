//! Archives no honest tool writes, and images made of them.

use serde_json::json;
use spec::Digest;

/// A tar, entry by entry, with names exactly as given.
#[derive(Default, Clone)]
pub struct Tar(Vec<u8>);

impl Tar {
    pub fn file(self, name: &str, bytes: &[u8]) -> Tar {
        let mut tar = self.entry(b'0', name, "", bytes.len());
        tar.0.extend_from_slice(bytes);
        let padded = tar.0.len().next_multiple_of(512);
        tar.0.resize(padded, 0);
        tar
    }

    /// A file that can be run.
    pub fn program(self, name: &str, bytes: &[u8]) -> Tar {
        let mut tar = self.head(b'0', name, "", bytes.len(), "0000755");
        tar.0.extend_from_slice(bytes);
        let padded = tar.0.len().next_multiple_of(512);
        tar.0.resize(padded, 0);
        tar
    }

    pub fn directory(self, name: &str) -> Tar {
        self.entry(b'5', name, "", 0)
    }

    pub fn symlink(self, name: &str, target: &str) -> Tar {
        self.entry(b'2', name, target, 0)
    }

    /// A character device.
    pub fn device(self, name: &str, (major, minor): (u64, u64)) -> Tar {
        let mut tar = self.head(b'3', name, "", 0, "0000666");
        let head = tar.0.len() - 512;
        for (at, number) in [(329, major), (337, minor)] {
            tar.0[head + at..head + at + 7].copy_from_slice(format!("{number:07o}").as_bytes());
        }
        tar.sum()
    }

    pub fn hard_link(self, name: &str, target: &str) -> Tar {
        self.entry(b'1', name, target, 0)
    }

    pub fn finish(mut self) -> Vec<u8> {
        self.0.extend([0; 1024]);
        self.0
    }

    fn entry(self, kind: u8, name: &str, target: &str, size: usize) -> Tar {
        let mode = if kind == b'5' { "0000755" } else { "0000644" };
        self.head(kind, name, target, size, mode)
    }

    fn head(mut self, kind: u8, name: &str, target: &str, size: usize, mode: &str) -> Tar {
        let mut head = [0; 512];
        head[..name.len()].copy_from_slice(name.as_bytes());
        for (at, text) in [
            (100, mode),
            (108, "0000000"),
            (116, "0000000"),
            (136, "00000000000"),
        ] {
            head[at..at + text.len()].copy_from_slice(text.as_bytes());
        }
        head[124..135].copy_from_slice(format!("{size:011o}").as_bytes());
        head[156] = kind;
        head[157..157 + target.len()].copy_from_slice(target.as_bytes());
        head[257..265].copy_from_slice(b"ustar\x0000");
        self.0.extend_from_slice(&head);
        self.sum()
    }

    /// The last header with its checksum.
    fn sum(mut self) -> Tar {
        let at = self.0.len() - 512;
        let head = &mut self.0[at..];
        head[148..156].copy_from_slice(b"        ");
        let sum: u32 = head.iter().map(|byte| u32::from(*byte)).sum();
        head[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self
    }
}

/// An image as its documents and layers, each of which a test may spoil.
#[derive(Clone)]
pub struct Image {
    pub manifest: Vec<u8>,
    pub config: Vec<u8>,
    pub layers: Vec<Vec<u8>>,
}

impl Image {
    /// Of uncompressed layers.
    pub fn of(layers: &[Vec<u8>]) -> Image {
        Image::for_platform(layers, "amd64")
    }

    pub fn for_platform(layers: &[Vec<u8>], architecture: &str) -> Image {
        let digests: Vec<String> = layers
            .iter()
            .map(|layer| Digest::sha256(layer).to_string())
            .collect();
        let config = json!({
            "architecture": architecture,
            "os": "linux",
            "config": {"Cmd": ["/bin/true"]},
            "rootfs": {"type": "layers", "diff_ids": digests},
        });
        let config = serde_json::to_vec(&config).unwrap();
        let described = |media: &str, bytes: &[u8]| json!({"mediaType": media, "digest": Digest::sha256(bytes).to_string(), "size": bytes.len()});
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": described("application/vnd.oci.image.config.v1+json", &config),
            "layers": layers
                .iter()
                .map(|layer| described("application/vnd.oci.image.layer.v1.tar", layer))
                .collect::<Vec<_>>(),
        });
        Image {
            manifest: serde_json::to_vec(&manifest).unwrap(),
            config,
            layers: layers.to_vec(),
        }
    }

    pub fn digest(&self) -> Digest {
        Digest::sha256(&self.manifest)
    }

    /// Every blob by the digest its content *should* have.
    pub fn blobs(&self) -> Vec<(Digest, Vec<u8>)> {
        let documents = [&self.manifest, &self.config];
        let all = documents.into_iter().chain(&self.layers);
        all.map(|bytes| (Digest::sha256(bytes), bytes.clone())).collect()
    }

    /// As an archive that `load` reads.
    pub fn archive(&self, name: &str) -> Vec<u8> {
        archive(
            &[(self.digest(), self.manifest.len(), Some(name), MANIFEST)],
            &self.blobs(),
        )
    }
}

pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// An OCI layout with these targets and blobs.
pub fn archive(targets: &[(Digest, usize, Option<&str>, &str)], blobs: &[(Digest, Vec<u8>)]) -> Vec<u8> {
    let mut tar = Tar::default().file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#);
    for (digest, bytes) in blobs {
        tar = tar.file(&format!("blobs/sha256/{}", digest.hex()), bytes);
    }
    let manifests: Vec<_> = targets
        .iter()
        .map(|(digest, size, name, media)| {
            let name = name.map(|name| format!("docker.io/library/{name}"));
            json!({
                "mediaType": media,
                "digest": digest.to_string(),
                "size": size,
                "annotations": name.map(|name| json!({"io.containerd.image.name": name})),
            })
        })
        .collect();
    let index = json!({"schemaVersion": 2, "manifests": manifests});
    tar.file("index.json", &serde_json::to_vec(&index).unwrap())
        .finish()
}
