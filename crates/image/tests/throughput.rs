//! How fast a large image goes to a registry on loopback and comes back. Run by hand, since it takes long and
//! asserts nothing about time: `cargo nextest run -p image --run-ignored only throughput --no-capture`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod support;

use std::process::Command;
use std::time::Instant;

use image::{CommitLayers, SaveOptions};
use support::servers::{DistributionRegistry, noise};
use support::{World, blocking, is_root, tar_of};

const LAYERS: usize = 4;
const FILES: usize = 64;

/// A file of 1 MiB that compresses to about half.
fn file(seed: u64) -> Vec<u8> {
    let mut bytes = noise(1 << 20, seed);
    for (index, byte) in bytes.iter_mut().enumerate() {
        if index / 64 % 2 == 0 {
            *byte = b'a' + (index % 16) as u8;
        }
    }
    bytes
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes long; prints numbers"]
async fn throughput() {
    let (true, Some(server)) = (is_root(), DistributionRegistry::start(false)) else {
        return;
    };
    let here = World::new();
    let base = here.import("base", tar_of(&[("start", b"x")])).await;
    let name = server.name("big:1");
    let (images, reference) = (here.images.clone(), name.parse().unwrap());
    let started = Instant::now();
    let image = blocking(move || {
        let snapshots = images.store().snapshots();
        let mut top = images.snapshot(&base).unwrap();
        let mut layers = Vec::new();
        for layer in 0..LAYERS {
            let id = snapshots.create(Some(top), "build:test").unwrap();
            for index in 0..FILES {
                let seed = (layer * FILES + index) as u64 + 1;
                std::fs::write(snapshots.fs(id).join(format!("{layer}-{index}")), file(seed)).unwrap();
            }
            top = snapshots.commit(id, None, None).unwrap();
            layers.push(top);
        }
        let config = base.config.clone();
        images
            .commit_layers(CommitLayers {
                parent: Some(base),
                layers,
                config,
                names: vec![reference],
            })
            .unwrap()
    })
    .await;
    let unpacked = (LAYERS * FILES) as f64;
    let packed: u64 = image.manifest.layers.iter().map(|l| l.size).sum();
    let packed = packed as f64 / f64::from(1 << 20);
    let tell = |what: &str, started: Instant| {
        let seconds = started.elapsed().as_secs_f64();
        println!(
            "{what}: {seconds:.2} s, {:.0} MiB/s compressed, {:.0} MiB/s unpacked",
            packed / seconds,
            unpacked / seconds
        );
    };
    println!("image of {unpacked} MiB, {packed:.0} MiB compressed");
    tell("commit (with writing the files)", started);
    let started = Instant::now();
    here.push(&name).await.unwrap();
    tell("push", started);
    for _ in 0..2 {
        let there = World::new();
        let started = Instant::now();
        there.pull(&name).await.unwrap();
        tell("pull and unpack", started);
    }
    let (images, file) = (here.images.clone(), here.dir.path().join("saved.tar"));
    let started = Instant::now();
    blocking(move || {
        let out = std::fs::File::create(file).unwrap();
        images.save(&[name], out, SaveOptions::default()).unwrap();
    })
    .await;
    tell("save", started);
    let peer = tempfile::tempdir().unwrap();
    let from = format!("docker://{}", server.name("big:1"));
    let to = format!("dir:{}", peer.path().join("copy").display());
    let started = Instant::now();
    let copied = Command::new("skopeo")
        .args(["copy", "-q", "--src-tls-verify=false", &from, &to])
        .status();
    if copied.is_ok_and(|s| s.success()) {
        tell("skopeo copy to a directory (nothing is unpacked)", started);
    }
}
