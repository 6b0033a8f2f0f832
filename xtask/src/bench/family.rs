//! What twenty related images take on the disk: Debian's dockerd, ours, and ours with `--store-dedup`.
//!
//! The family is made of trees that this machine has. Its base (busybox, a compiler, an interpreter with its library) was
//! built again for every fifth image, with upgrades: one file in forty differs, all have other times. Each image installed
//! its dependencies (the interpreter's packages) itself: one file in fifty is its own. Its own program are 200 small files.
//! All are pulled from a registry on loopback, and then the data roots are counted as du does.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::archive::{self, ADDRESS, Registry};
use super::docker::Peer;
use super::fixture;
use crate::engine::{self, Daemon, Profile, Scratch};
use crate::process::capture;

const IMAGES: usize = 20;
/// So many images have one base.
const OF_A_BASE: usize = 5;
const BASE: [&str; 3] = ["/usr/lib/gcc", "/usr/lib/python3.11", "/usr/share/perl"];
const DEPENDENCIES: [&str; 1] = ["/usr/lib/python3"];
/// At most this of what Docker takes.
const GOAL: f64 = 0.6;

pub fn run() -> Result<()> {
    let binary = engine::build_as(Profile::Development)?;
    let scratch = Scratch::new("berth-bench-family")?;
    let peer = Peer::start(&scratch.0)?;
    let daemon = |name: &str, args: &[&str]| -> Result<(Daemon, PathBuf)> {
        let dir = scratch.join(name);
        std::fs::create_dir_all(&dir)?;
        Ok((Daemon::start_with(&binary, &dir, args)?, dir.join("root")))
    };
    let (plain, plain_root) = daemon("plain", &[])?;
    let (sharing, sharing_root) = daemon("sharing", &["--store-dedup"])?;
    let _registries = [
        Registry::start(&scratch.0, false)?,
        Registry::start(&scratch.0, true)?,
    ];
    println!("{}\n", fixture::machine(&[("docker", peer.version()?)])?);
    let names = seed(&scratch)?;
    for name in &names {
        for mut pull in [&plain, &sharing].map(|ours| ours.client(&["pull", "-q", name])) {
            capture(&mut pull)?;
        }
        capture(&mut peer.client(&["pull", "-q", name]))?;
    }
    capture(Command::new("sync").arg("-f").arg(&scratch.0))?;
    let peer_root = peer.dir.join("root");
    let docker = used(&peer_root)?;
    println!("| {IMAGES} related images | MiB | of Docker's | of which compressed layers |");
    println!("|---|---|---|---|");
    println!("| docker, overlay2 | {} | | not kept |", docker >> 20);
    for (what, root) in [("berth", &plain_root), ("berth --store-dedup", &sharing_root)] {
        let (all, blobs) = (used(root)?, used(&root.join("content"))?);
        let part = all as f64 / docker as f64;
        println!(
            "| {what} | {} | {:.0} % | {} |",
            all >> 20,
            part * 100.0,
            blobs >> 20
        );
        let unpacked = (all - blobs) as f64 / docker as f64;
        println!(
            "| {what}, without them | {} | {:.0} % | |",
            (all - blobs) >> 20,
            unpacked * 100.0
        );
    }
    let part = used(&sharing_root)? as f64 / docker as f64;
    let verdict = if part <= GOAL { "reached" } else { "missed" };
    println!("\nat most {:.0} %: {verdict}", GOAL * 100.0);
    plain.clean_up()?;
    sharing.clean_up()
}

/// Makes the images and brings them to the registry; their names.
fn seed(scratch: &Scratch) -> Result<Vec<String>> {
    let mut names = Vec::new();
    let mut base = PathBuf::new();
    for image in 0..IMAGES {
        let dir = scratch.join(&format!("image{image}"));
        std::fs::create_dir_all(&dir)?;
        if image % OF_A_BASE == 0 {
            base = scratch.join(&format!("base{image}.tar"));
            let tree = dir.join("base");
            std::fs::create_dir_all(tree.join("bin"))?;
            std::fs::copy("/bin/busybox", tree.join("bin/busybox"))?;
            copy(&BASE, &tree)?;
            upgrade(&tree, image / OF_A_BASE, 40)?;
            archive::pack(&tree, &base, 1_600_000_000 + image as u64)?;
            std::fs::remove_dir_all(&tree)?;
        }
        let dependencies = dir.join("dependencies");
        copy(&DEPENDENCIES, &dependencies)?;
        upgrade(&dependencies, image, 50)?;
        let program = dir.join("program");
        std::fs::create_dir_all(program.join("srv"))?;
        for file in 0..200 {
            let line = format!("# file {file} of image {image}\n");
            std::fs::write(program.join(format!("srv/{file}.py")), line.repeat(file % 90 + 1))?;
        }
        let mut layers = vec![base.clone()];
        for (number, tree) in [dependencies, program].into_iter().enumerate() {
            let tar = dir.join(format!("layer{number}"));
            archive::pack(&tree, &tar, 1_700_000_000 + image as u64)?;
            std::fs::remove_dir_all(&tree)?;
            layers.push(tar);
        }
        let room = dir.join("room");
        std::fs::create_dir(&room)?;
        let packed = dir.join("image.tar");
        archive::write(&packed, &room, &layers)?;
        let name = format!("{ADDRESS}/family/image{image}:1");
        archive::seed(&packed, &name)?;
        names.push(name);
        std::fs::remove_dir_all(&dir)?;
    }
    Ok(names)
}

/// Copies trees of this machine below `into`.
fn copy(trees: &[&str], into: &Path) -> Result<()> {
    std::fs::create_dir_all(into)?;
    for tree in trees {
        ensure!(
            Path::new(tree).is_dir(),
            "the family of images is made of {tree}, which this machine does not have"
        );
        capture(Command::new("cp").args(["-a", "--parents", tree]).arg(into))?;
    }
    Ok(())
}

/// Changes one file of so many, others in each round.
fn upgrade(tree: &Path, round: usize, of: usize) -> Result<()> {
    let listed = capture(
        Command::new("find")
            .arg(tree)
            .args(["-type", "f", "-size", "+0", "-print"]),
    )?;
    let mut files: Vec<&str> = listed.lines().collect();
    files.sort_unstable();
    for file in files.iter().skip(round * 7 % of).step_by(of) {
        let mut bytes = std::fs::read(file)?;
        bytes.extend(format!("\n# round {round}\n").as_bytes());
        // Some are hard links; the others of the name stay as they are.
        std::fs::remove_file(file)?;
        std::fs::write(file, bytes)?;
    }
    Ok(())
}

/// Bytes on the disk.
fn used(root: &Path) -> Result<u64> {
    let told = capture(Command::new("du").args(["-s", "-B1"]).arg(root))?;
    let first = told.split_whitespace().next().context("du says nothing")?;
    Ok(first.parse()?)
}
