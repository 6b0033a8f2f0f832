//! Volumes that may take only so much, on a filesystem with project quotas. `cargo xtask test --vm quota` has a kernel with
//! them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::path::Path;
use std::process::Command;

use store::Store;
use sys::mount::{Propagation, set_propagation};
use sys::namespace::Kind as Namespace;
use volume::{CreateVolume, VolumeError, Volumes};

/// How a filesystem is made that has project quotas, and how large it is: xfs makes none below 300 MiB.
struct Kind {
    name: &'static str,
    make: &'static [&'static str],
    package: &'static str,
    bytes: u64,
}

const EXT4: Kind = Kind {
    name: "ext4",
    make: &[
        "mke2fs",
        "-q",
        "-t",
        "ext4",
        "-O",
        "quota,project",
        "-E",
        "quotatype=prjquota",
    ],
    package: "e2fsprogs",
    bytes: 256 << 20,
};
const XFS: Kind = Kind {
    name: "xfs",
    make: &["mkfs.xfs", "-q"],
    package: "xfsprogs",
    bytes: 512 << 20,
};

/// A filesystem in a file, mounted for this thread alone.
struct Disk {
    dir: tempfile::TempDir,
}

impl Disk {
    /// Nothing, with the reason printed, where it cannot be mounted with `options`.
    fn new(kind: &Kind, options: &str) -> Option<Disk> {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: needs root");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("image");
        fs::File::create(&image).unwrap().set_len(kind.bytes).unwrap();
        let made = Command::new(kind.make[0])
            .args(&kind.make[1..])
            .arg(&image)
            .status();
        if !made.is_ok_and(|status| status.success()) {
            println!("skipped: needs {} (package {})", kind.make[0], kind.package);
            return None;
        }
        let root = dir.path().join("root");
        fs::create_dir(&root).unwrap();
        // The mount goes with the thread.
        sys::namespace::unshare([Namespace::Mount].into_iter().collect()).unwrap();
        set_propagation(Path::new("/"), Propagation::Private, true).unwrap();
        let mounted = Command::new("mount")
            .args(["-t", kind.name, "-o", options])
            .args([&image, &root])
            .output()
            .unwrap();
        if !mounted.status.success() {
            println!(
                "skipped: this kernel mounts no {} with project quotas: {}",
                kind.name,
                String::from_utf8_lossy(&mounted.stderr).trim()
            );
            return None;
        }
        Some(Disk { dir })
    }

    fn volumes(&self) -> Volumes {
        let store = Store::open(&self.dir.path().join("root")).unwrap();
        Volumes::open(store.clone(), store.root()).unwrap()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount")
            .arg("-l")
            .arg(self.dir.path().join("root"))
            .status();
    }
}

fn sized(name: &str, size: &str) -> CreateVolume {
    CreateVolume {
        name: Some(name.to_owned()),
        driver_opts: [("size".to_owned(), size.to_owned())].into(),
        ..CreateVolume::default()
    }
}

/// Writes as a container's root would, who lacks the right to exceed quotas. What went wrong, if something did.
fn write(path: &Path, mebibytes: u32) -> String {
    let output = Command::new("setpriv")
        .args(["--bounding-set", "-sys_resource", "--inh-caps", "-sys_resource"])
        .args(["dd", "if=/dev/zero", "bs=1M", "conv=fsync"])
        .arg(format!("count={mebibytes}"))
        .arg(format!("of={}", path.display()))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() {
        String::new()
    } else {
        said
    }
}

#[test]
fn a_volume_takes_no_more_than_its_quota_on_ext4() {
    if let Some(disk) = Disk::new(&EXT4, "loop,prjquota") {
        no_more_than_its_quota(&disk);
    }
}

#[test]
fn a_volume_takes_no_more_than_its_quota_on_xfs() {
    if let Some(disk) = Disk::new(&XFS, "loop,prjquota") {
        no_more_than_its_quota(&disk);
    }
}

fn no_more_than_its_quota(disk: &Disk) {
    let volumes = disk.volumes();
    let (small, _) = volumes.create(sized("small", "8m")).unwrap();
    let (large, _) = volumes.create(sized("large", "32M")).unwrap();
    // To xfs a project is as a disk of that size.
    let full = |path: &Path, mebibytes| {
        let said = write(path, mebibytes);
        said.contains("Disk quota exceeded") || said.contains("No space left on device")
    };
    assert_eq!(write(&small.mountpoint.join("some"), 6), "");
    assert!(full(&small.mountpoint.join("more"), 6));
    assert_eq!(write(&large.mountpoint.join("some"), 24), "");
    // What is below counts, and what is removed no longer does.
    fs::remove_file(small.mountpoint.join("more")).unwrap();
    fs::create_dir(small.mountpoint.join("below")).unwrap();
    assert!(full(&small.mountpoint.join("below/more"), 6));
    fs::remove_dir_all(small.mountpoint.join("below")).unwrap();
    fs::remove_file(small.mountpoint.join("some")).unwrap();
    assert_eq!(write(&small.mountpoint.join("again"), 7), "");
    // Other volumes have none, and the size goes where the volume goes.
    let (free, _) = volumes
        .create(CreateVolume {
            name: Some("free".to_owned()),
            ..CreateVolume::default()
        })
        .unwrap();
    assert_eq!(write(&free.mountpoint.join("much"), 64), "");
    let renamed = volumes.rename("small", "renamed").unwrap();
    assert!(full(&renamed.mountpoint.join("more"), 4));
    fs::remove_file(renamed.mountpoint.join("more")).unwrap();
    let copy = volumes.clone_volume("renamed", "copy").unwrap();
    assert_eq!(copy.options, renamed.options);
    assert!(full(&copy.mountpoint.join("more"), 4));
    volumes.snapshot_create("renamed", Some("then")).unwrap();
    volumes.snapshot_restore("renamed", "then").unwrap();
    assert!(full(&renamed.mountpoint.join("more"), 4));
    drop(volumes);
    let volumes = disk.volumes();
    assert!(full(&volumes.path("copy").join("more"), 4));
    // A limit that somebody lifted is back with the next use, and that of a removed volume goes.
    let directory = fs::File::open(&large.mountpoint).unwrap();
    let file = std::os::fd::AsFd::as_fd(&directory);
    let project = sys::quota::project_of(file).unwrap();
    assert_eq!(sys::quota::project(file, project).unwrap().limit, 32 << 20);
    sys::quota::limit(file, project, 0).unwrap();
    volumes.mount("large", "holder").unwrap();
    assert_eq!(sys::quota::project(file, project).unwrap().limit, 32 << 20);
    drop(directory);
    volumes.remove("large", false).unwrap();
    let top = fs::File::open(disk.dir.path().join("root")).unwrap();
    let left = || sys::quota::project(std::os::fd::AsFd::as_fd(&top), project).unwrap();
    assert_eq!(left().limit, 0);
    // What was in it is given back in the background, on xfs.
    let mut tries = 0;
    while left() != sys::quota::Project::default() {
        assert!(tries < 300, "{:?}", left());
        tries += 1;
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
}

#[test]
fn without_quotas_that_are_enforced_a_size_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(root.path()).unwrap();
    let volumes = Volumes::open(store.clone(), store.root()).unwrap();
    if sys::quota::is_enforced(std::os::fd::AsFd::as_fd(&fs::File::open(root.path()).unwrap())) {
        println!("skipped: the filesystem of temporary files enforces project quotas");
        return;
    }
    let refused = |volumes: &Volumes| {
        let error = volumes.create(sized("some", "8m")).unwrap_err();
        assert!(matches!(error, VolumeError::NoQuota(_)), "{error}");
        assert!(volumes.list().unwrap().is_empty());
    };
    refused(&volumes);
    // Counting alone limits nothing.
    for (kind, options) in [(EXT4, "loop,noquota"), (XFS, "loop,pqnoenforce")] {
        if let Some(disk) = Disk::new(&kind, options) {
            refused(&disk.volumes());
        }
    }
}
