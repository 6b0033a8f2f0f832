//! What twenty related images take on the disk: Debian's dockerd, ours, and ours with `--store-dedup`.
//!
//! The family is made of trees that this machine has. Its base (busybox, a compiler, an interpreter with its library) was
//! built again for every fifth image, with upgrades: one file in forty differs, all have other times. Each image installed
//! its dependencies (the interpreter's packages) itself: one file in fifty is its own. Its own program are 200 small files.
//! All were pushed by dockerd, as most images are, to a registry on loopback, and are pulled from there; then the data roots
//! are counted as du does. Once more they come as skopeo compresses them, which nothing here can do again: such layers stay.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::archive::{self, ADDRESS, Registry};
use super::docker::Peer;
use super::fixture;
use crate::engine::{Daemon, Scratch};
use crate::process::capture;

const IMAGES: usize = 20;
/// So many images have one base.
const OF_A_BASE: usize = 5;
const BASE: [&str; 3] = ["/usr/lib/gcc", "/usr/lib/python3.11", "/usr/share/perl"];
const DEPENDENCIES: [&str; 1] = ["/usr/lib/python3"];
/// At most this of what Docker takes.
const GOAL: f64 = 0.6;
/// How long a store that is settling has to stand still, and how long that is waited for.
const STILL: Duration = Duration::from_secs(100);
const MOST: Duration = Duration::from_secs(1200);

pub fn run() -> Result<()> {
    let binary = fixture::binary()?;
    let scratch = Scratch::new("berth-bench-family")?;
    let peer = Peer::start(&scratch.0)?;
    let store = |name: &str, args: &[&str]| -> Result<Store> {
        let dir = scratch.join(name);
        std::fs::create_dir_all(&dir)?;
        Ok(Store {
            daemon: Daemon::start_with(&binary, &dir, args)?,
            dir,
        })
    };
    let _registries = [
        Registry::start(&scratch.0, false)?,
        Registry::start(&scratch.0, true)?,
    ];
    println!("{}\n", fixture::machine(&[("docker", peer.version()?)])?);
    let archives = family(&scratch)?;
    let pushed = bring(&archives, "docker", |archive, name| push(&peer, archive, name))?;
    capture(&mut peer.client(&["system", "prune", "-a", "-f"]))?;
    for name in &pushed {
        capture(&mut peer.client(&["pull", "-q", name]))?;
    }
    let docker = used(&peer.dir.join("root"))?;
    println!("| {IMAGES} related images | MiB | of Docker's | of which compressed layers |");
    println!("|---|---|---|---|");
    println!("| docker, overlay2 | {} | | not kept |", docker >> 20);

    let plain = store("plain", &[])?;
    plain.pull(&pushed)?;
    plain.tell("berth", docker)?;
    plain.daemon.clean_up()?;
    let sharing = store("sharing", &["--store-dedup"])?;
    sharing.pull(&pushed)?;
    sharing.tell("berth --store-dedup, as they came", docker)?;
    sharing.settle()?;
    let part = sharing.tell("berth --store-dedup", docker)?;
    sharing.daemon.clean_up()?;
    let copied = bring(&archives, "skopeo", archive::seed)?;
    let foreign = store("foreign", &["--store-dedup"])?;
    foreign.pull(&copied)?;
    foreign.settle()?;
    foreign.tell("berth --store-dedup, pushed by skopeo", docker)?;
    foreign.daemon.clean_up()?;
    let verdict = if part <= GOAL { "reached" } else { "missed" };
    println!("\nat most {:.0} %: {verdict}", GOAL * 100.0);
    Ok(())
}

/// One of our daemons, and what it has.
struct Store {
    daemon: Daemon,
    dir: PathBuf,
}

impl Store {
    fn pull(&self, names: &[String]) -> Result<()> {
        for name in names {
            capture(&mut self.daemon.client(&["pull", "-q", name]))?;
        }
        Ok(())
    }

    /// Waits until compressed layers went as the policy says, which is a minute after the last pull.
    fn settle(&self) -> Result<()> {
        let content = self.dir.join("root/content");
        let begun = Instant::now();
        let (mut last, mut since) = (used(&content)?, Instant::now());
        while begun.elapsed() < MOST && since.elapsed() < STILL {
            std::thread::sleep(Duration::from_secs(5));
            let now = used(&content)?;
            if now != last {
                (last, since) = (now, Instant::now());
            }
        }
        Ok(())
    }

    /// A row of the table; what part of Docker's it is.
    fn tell(&self, what: &str, docker: u64) -> Result<f64> {
        let root = self.dir.join("root");
        let (all, blobs) = (used(&root)?, used(&root.join("content"))?);
        let part = all as f64 / docker as f64;
        println!(
            "| {what} | {} | {:.0} % | {} |",
            all >> 20,
            part * 100.0,
            blobs >> 20
        );
        Ok(part)
    }
}

/// As a user brings an image to a registry with docker.
fn push(peer: &Peer, archive: &Path, name: &str) -> Result<()> {
    let loaded = capture(&mut peer.client(&["load", "-q", "-i", &archive.display().to_string()]))?;
    let id = loaded.trim().rsplit(' ').next().unwrap_or_default();
    capture(&mut peer.client(&["tag", id, name]))?;
    capture(&mut peer.client(&["push", "-q", name]))?;
    Ok(())
}

/// Brings the images to the registry; their names there.
fn bring(archives: &[PathBuf], by: &str, how: impl Fn(&Path, &str) -> Result<()>) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for (number, archive) in archives.iter().enumerate() {
        let name = format!("{ADDRESS}/{by}/image{number}:1");
        how(archive, &name)?;
        names.push(name);
    }
    Ok(names)
}

/// Makes the images, as archives.
fn family(scratch: &Scratch) -> Result<Vec<PathBuf>> {
    let mut archives = Vec::new();
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
        let packed = scratch.join(&format!("image{image}.tar"));
        archive::write(&packed, &room, &layers)?;
        archives.push(packed);
        std::fs::remove_dir_all(&dir)?;
    }
    Ok(archives)
}

/// Copies trees of this machine below `into`.
fn copy(trees: &[&str], into: &Path) -> Result<()> {
    std::fs::create_dir_all(into)?;
    for tree in trees {
        ensure!(
            Path::new(tree).is_dir(),
            "the family of images is made of {tree}, which this machine does not have"
        );
        // With a relative view of its parents, whose modes it looks at where it stands.
        capture(
            Command::new("cp")
                .args(["-a", "--parents", tree])
                .arg(into)
                .current_dir("/"),
        )?;
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

/// Bytes on the disk, once everything is there.
fn used(root: &Path) -> Result<u64> {
    capture(Command::new("sync").arg("-f").arg(root))?;
    let told = capture(Command::new("du").args(["-s", "-B1"]).arg(root))?;
    let first = told.split_whitespace().next().context("du says nothing")?;
    Ok(first.parse()?)
}
