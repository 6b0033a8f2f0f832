//! The machine's system: a Debian root filesystem, its kernel, and the first filesystem that finds the disk.
//!
//! Made once with mmdebstrap from the host's package mirror and kept under `target/vm/<key>`, where the key changes
//! with everything that goes in. QEMU writes to a snapshot of the disk, never to the disk. The first filesystem, which has
//! the ring's scripts, is put together for each run from what is kept beside the disk:
//!
//!     vmlinuz, root.img       kernel and disk
//!     first/                  busybox and the disk's modules

use std::collections::BTreeSet;
use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::packages;
use crate::process::{output, root, run};

const SUITE: &str = "bookworm";
/// Beside what the tests need: loading of modules, of AppArmor's profiles and of SELinux's policy, an init system, a server of
/// files and a filesystem with quotas of its own.
const SYSTEM: &[&str] = &[
    "apparmor",
    "checkpolicy",
    "dbus",
    "kmod",
    "nfs-kernel-server",
    "procps",
    "systemd",
    "util-linux",
    "xfsprogs",
];
/// Puts the kernel's modules into the new root and the kernel beside it.
const KERNEL_HOOK: &str = include_str!("guest/kernel.sh");
/// The first process: finds the disks and hands over.
const BOOT: &str = include_str!("guest/boot.sh");
/// What runs the tests there.
const RING: &str = include_str!("guest/ring.sh");
/// What SELinux enforces where it is the module that is chosen at the boot.
const POLICY: &str = include_str!("guest/policy.conf");
/// What the first filesystem needs to see a disk.
const DISK_MODULES: &[&str] = &["virtio_pci", "virtio_blk", "ext4", "crc32c_generic"];
/// Sparse: the disk takes what is in it.
const DISK_SIZE: u64 = 3 << 30;

/// A bootable system.
pub struct Image {
    pub kernel: PathBuf,
    pub initramfs: PathBuf,
    pub disk: PathBuf,
}

impl Image {
    /// The kept one, or a new one in its place; what is made anew for each run goes to `scratch`.
    pub fn prepare(scratch: &Path) -> Result<Image> {
        let names = names();
        let mut hasher = DefaultHasher::new();
        (SUITE, &names, KERNEL_HOOK, DISK_MODULES, DISK_SIZE).hash(&mut hasher);
        let kept = root().join("target/vm");
        let directory = kept.join(format!("{:016x}", hasher.finish()));
        let image = Image {
            kernel: directory.join("vmlinuz"),
            initramfs: scratch.join("initramfs"),
            disk: directory.join("root.img"),
        };
        let first = directory.join("first");
        if directory.exists() {
            initramfs(&first, scratch, &image.initramfs)?;
            return Ok(image);
        }
        // What another key or an interrupted run left is of no more use.
        let _ = fs::remove_dir_all(&kept);
        println!("making a Debian {SUITE} for the virtual machine; this takes some minutes, once");
        let fresh = kept.join("new");
        fs::create_dir_all(&fresh).with_context(|| format!("cannot create {}", fresh.display()))?;
        make(&fresh, &names)?;
        fs::rename(&fresh, &directory)?;
        initramfs(&first, scratch, &image.initramfs)?;
        Ok(image)
    }
}

fn names() -> Vec<&'static str> {
    let tools = packages::TEST.iter().map(|package| package.name);
    let names: BTreeSet<&str> = tools.chain(SYSTEM.iter().copied()).collect();
    names.into_iter().collect()
}

fn make(directory: &Path, names: &[&str]) -> Result<()> {
    let tree = directory.join("tree");
    let hook = directory.join("kernel.sh");
    fs::write(&hook, KERNEL_HOOK)?;
    let mut debian = Command::new("mmdebstrap");
    debian
        .args(["--quiet", "--variant=minbase", "--mode=root"])
        .arg(format!("--include={}", names.join(",")));
    for path in ["doc", "locale", "man", "info"] {
        debian.arg(format!("--dpkgopt=path-exclude=/usr/share/{path}/*"));
    }
    debian
        .arg(format!(
            "--customize-hook=sh {} \"$1\" {}",
            hook.display(),
            directory.display()
        ))
        .arg(SUITE)
        .arg(&tree);
    run(&mut debian)?;
    first(&directory.join("first"), &tree)?;
    filesystem(&tree, &directory.join("root.img"))?;
    fs::remove_dir_all(&tree)?;
    fs::remove_file(&hook)?;
    Ok(())
}

/// A disk that holds what a directory holds.
pub fn filesystem(tree: &Path, disk: &Path) -> Result<()> {
    // With the file there already, mke2fs has nothing to announce.
    fs::File::create(disk)?.set_len(DISK_SIZE)?;
    run(Command::new("mke2fs")
        .args(["-q", "-t", "ext4", "-O", "^has_journal", "-d"])
        .args([tree, disk]))
}

/// busybox, and the disk's modules in the order of their loading.
fn first(files: &Path, tree: &Path) -> Result<()> {
    for name in ["bin", "proc", "sys", "dev", "new", "modules"] {
        fs::create_dir_all(files.join(name))?;
    }
    fs::copy(tree.join("bin/busybox"), files.join("bin/busybox"))?;
    std::os::unix::fs::symlink("busybox", files.join("bin/sh"))?;
    for (number, module) in modules(tree)?.iter().enumerate() {
        let name = module.file_name().unwrap_or_default().to_string_lossy();
        fs::copy(module, files.join(format!("modules/{number:02}-{name}")))?;
    }
    Ok(())
}

/// What was kept and the ring's own files, as the kernel unpacks them.
fn initramfs(first: &Path, scratch: &Path, archive: &Path) -> Result<()> {
    let files = scratch.join("first");
    run(Command::new("cp").arg("-a").args([first, files.as_path()]))?;
    fs::write(files.join("init"), BOOT)?;
    fs::write(files.join("ring"), RING)?;
    fs::write(files.join("policy.conf"), POLICY)?;
    run(Command::new("chmod")
        .arg("755")
        .args([files.join("init"), files.join("ring")]))?;
    let made = output(
        Command::new("sh")
            .args(["-c", "find . | /bin/busybox cpio -o -H newc"])
            .current_dir(&files),
    )?;
    ensure!(
        made.status.success(),
        "cpio failed: {}",
        String::from_utf8_lossy(&made.stderr)
    );
    fs::write(archive, made.stdout)?;
    Ok(())
}

/// The modules for disks with all that they need, needed ones first (modules.dep(5)).
fn modules(tree: &Path) -> Result<Vec<PathBuf>> {
    let versions = tree.join("usr/lib/modules");
    let version = fs::read_dir(&versions)
        .with_context(|| format!("cannot read {}", versions.display()))?
        .flatten()
        .next()
        .context("the kernel package brought no modules")?
        .path();
    let table = fs::read_to_string(version.join("modules.dep"))?;
    let mut ordered: Vec<PathBuf> = Vec::new();
    for wanted in DISK_MODULES {
        let line = table
            .lines()
            .find(|line| {
                line.split_once(':')
                    .is_some_and(|(path, _)| path.ends_with(&format!("/{wanted}.ko")))
            })
            .with_context(|| format!("the kernel has no module {wanted}"))?;
        let (own, needs) = line.split_once(':').unwrap_or((line, ""));
        // The table lists the nearest first; loading starts at the farthest.
        for path in needs.split_whitespace().rev().chain([own]) {
            let path = version.join(path);
            if !ordered.contains(&path) {
                ordered.push(path);
            }
        }
    }
    Ok(ordered)
}
