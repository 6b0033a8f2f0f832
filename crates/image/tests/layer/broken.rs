//! Archives of other tools with bytes changed, left out and doubled: they are read or refused, and nothing is written outside.
//!
//! `corpus/` holds small archives as GNU tar 1.34 writes them in each of its formats, with and without holes, one of Python's
//! and one of everything that layers have of their own. `PROPTEST_CASES=100000` runs it for longer.

use std::fs;
use std::io::Read;

use proptest::prelude::*;

use crate::bytes::Tar;
use crate::hostile::Scene;
use crate::{able, apply};

fn corpus() -> Vec<Vec<u8>> {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/layer/corpus");
    let mut paths: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    let read = |path: &std::path::PathBuf| {
        let mut tar = Vec::new();
        let file = fs::File::open(path).unwrap();
        image::compression::decoder(file).read_to_end(&mut tar).unwrap();
        tar
    };
    let mut all: Vec<Vec<u8>> = paths.iter().map(read).collect();
    all.push(
        Tar::new()
            .directory("d", 0o755)
            .pax(&[
                ("path", b"d/long"),
                ("SCHILY.xattr.user.x", b"y"),
                ("mtime", b"1.5"),
            ])
            .file("short", &[3; 700])
            .symlink("way", "../outside")
            .file("way/x", b"x")
            .hard_link("hard", "d/long")
            .pax(&[("GNU.sparse.map", b"0,1,100,1"), ("GNU.sparse.size", b"1000")])
            .file("sparse", b"ab")
            .file("d/.wh.gone", b"")
            .file("d/.wh..wh..opq", b"")
            .finish(),
    );
    all
}

#[test]
fn the_corpus_is_read() {
    if !able() {
        return;
    }
    for tar in corpus() {
        let scene = Scene::new();
        apply(&tar, &scene.dest, std::slice::from_ref(&scene.outside)).unwrap();
        scene.check();
    }
}

/// Rewrites checksums, so that a change gets past the first look.
fn repair(tar: &mut [u8]) {
    for block in tar.chunks_exact_mut(512) {
        if &block[257..262] == b"ustar" {
            block[148..156].copy_from_slice(b"        ");
            let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
            block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
    }
}

#[derive(Debug, Clone)]
enum Change {
    Set(prop::sample::Index, u8),
    Leave(prop::sample::Index, usize),
    Double(prop::sample::Index, usize),
}

fn change() -> impl Strategy<Value = Change> {
    let at = any::<prop::sample::Index>;
    prop_oneof![
        4 => (at(), any::<u8>()).prop_map(|(at, byte)| Change::Set(at, byte)),
        1 => (at(), 1usize..3).prop_map(|(at, blocks)| Change::Leave(at, blocks)),
        1 => (at(), 1usize..3).prop_map(|(at, blocks)| Change::Double(at, blocks)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn broken_archives_neither_panic_nor_escape(
        tar in prop::sample::select(corpus()),
        changes in prop::collection::vec(change(), 1..12),
    ) {
        if !able() {
            return Ok(());
        }
        let scene = Scene::new();
        let mut tar = tar;
        for change in changes {
            let blocks = tar.len() / 512;
            match change {
                _ if blocks < 4 => break,
                Change::Set(at, byte) => {
                    let at = at.index(tar.len());
                    tar[at] = byte;
                }
                Change::Leave(at, count) => {
                    let at = at.index(blocks - count) * 512;
                    tar.drain(at..at + 512 * count);
                }
                Change::Double(at, count) => {
                    let at = at.index(blocks - count) * 512;
                    let part = tar[at..at + 512 * count].to_vec();
                    tar.splice(at..at, part);
                }
            }
        }
        repair(&mut tar);
        let _ = apply(&tar, &scene.dest, std::slice::from_ref(&scene.outside));
        scene.check();
    }
}
