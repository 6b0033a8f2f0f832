//! Archives of other tools under chance: they are read or refused, and nothing is written outside.
//!
//! `corpus/` holds small archives as GNU tar 1.34 writes them in each of its formats, with and without holes, one of Python's
//! and one of everything that layers have of their own.

use std::io::Read;

use fuzz::{Target, outcome};

use crate::bytes::Tar;
use crate::hostile::Scene;
use crate::{able, apply};

/// The archives, uncompressed.
fn corpus() -> Target {
    let everything = Tar::new()
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
        .finish();
    let read = |file: Vec<u8>| {
        let mut tar = Vec::new();
        let read = image::compression::decoder(file.as_slice()).read_to_end(&mut tar);
        // What failed once lies there as it is.
        if read.is_ok() { tar } else { file }
    };
    fuzz::target!("tests/layer/corpus")
        .read_by(read)
        .seeds([everything])
}

#[test]
fn the_corpus_is_read() {
    if !able() {
        return;
    }
    corpus().each(|tar| {
        let scene = Scene::new();
        apply(tar, &scene.dest, std::slice::from_ref(&scene.outside)).unwrap();
        scene.check();
    });
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

#[test]
fn fuzz_layer() {
    if !able() {
        return;
    }
    let words = [
        "..",
        "/",
        ".wh.",
        ".wh..wh..opq",
        "\0",
        "path=",
        "linkpath=",
        "size=",
        "mtime=",
        "GNU.sparse.map=",
        "SCHILY.xattr.user.a=",
        "7777777",
        "way/",
        "L",
        "K",
        "x",
        "g",
        "S",
        "1",
        "2",
        "3",
        "5",
    ];
    corpus().words(&words).unit(512).run(|bytes| {
        let scene = Scene::new();
        let mut tar = bytes.to_vec();
        repair(&mut tar);
        let applied = apply(&tar, &scene.dest, std::slice::from_ref(&scene.outside));
        scene.check();
        outcome(&applied)
    });
}
