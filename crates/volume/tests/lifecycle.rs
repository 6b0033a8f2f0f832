//! Volumes from creation to removal, across a restart, and their first fill from an image.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use store::Store;
use volume::{CreateVolume, VolumeError, Volumes, copy_up};

fn named(name: &str) -> CreateVolume {
    CreateVolume {
        name: Some(name.to_owned()),
        ..CreateVolume::default()
    }
}

#[test]
fn volumes_outlive_a_restart_and_go_when_asked() {
    let dir = tempfile::tempdir().unwrap();
    let open = || {
        let store = Store::open(dir.path()).unwrap();
        Volumes::open(store.clone(), store.root()).unwrap()
    };
    let volumes = open();
    let (volume, created) = volumes.create(named("data")).unwrap();
    assert!(created && volume.mountpoint.is_dir());
    assert!(!volumes.create(named("data")).unwrap().1);
    let (anonymous, _) = volumes.create(CreateVolume::default()).unwrap();
    assert!(anonymous.anonymous && anonymous.name.len() == 64);
    fs::write(volume.mountpoint.join("kept"), "x").unwrap();
    drop(volumes);

    let volumes = open();
    assert_eq!(volumes.list().unwrap().len(), 2);
    assert_eq!(volumes.get("data").unwrap(), volume);
    volumes.remove("data", false).unwrap();
    assert!(!volume.mountpoint.exists());
    let error = volumes.remove("data", false).unwrap_err();
    assert!(matches!(error, VolumeError::NotFound(_)));
    assert_eq!(error.to_string(), "get data: no such volume");
    volumes.remove("data", true).unwrap();
}

#[test]
fn an_empty_volume_is_filled_once() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: changing owners needs root");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("image");
    let volume = dir.path().join("volume/_data");
    fs::create_dir_all(image.join("srv/sub")).unwrap();
    fs::create_dir_all(&volume).unwrap();
    fs::write(image.join("srv/sub/file"), "content").unwrap();
    std::os::unix::fs::chown(image.join("srv/sub/file"), Some(5), Some(6)).unwrap();
    fs::hard_link(image.join("srv/sub/file"), image.join("srv/twin")).unwrap();
    symlink("/etc/passwd", image.join("srv/link")).unwrap();
    fs::set_permissions(image.join("srv"), fs::Permissions::from_mode(0o1770)).unwrap();
    symlink("/srv", image.join("way")).unwrap();
    let root = fs::File::open(&image).unwrap();
    assert!(copy_up(&volume, root.as_fd(), "/way").unwrap());
    assert_eq!(fs::metadata(&volume).unwrap().mode() & 0o7777, 0o1770);
    let file = fs::metadata(volume.join("sub/file")).unwrap();
    assert_eq!((file.uid(), file.gid(), file.nlink()), (5, 6, 2));
    assert_eq!(file.ino(), fs::metadata(volume.join("twin")).unwrap().ino());
    assert!(fs::symlink_metadata(volume.join("link")).unwrap().is_symlink());
    fs::remove_file(volume.join("twin")).unwrap();
    assert!(!copy_up(&volume, root.as_fd(), "/srv").unwrap());
    assert!(!copy_up(&volume, root.as_fd(), "/nosuch").unwrap());
    assert!(!volume.join("twin").exists());
    // Cut off in the middle: gone on with, without touching what is there.
    fs::write(volume.parent().unwrap().join("copying"), "").unwrap();
    fs::write(volume.join("sub/file"), "written since").unwrap();
    assert!(copy_up(&volume, root.as_fd(), "/srv").unwrap());
    assert!(volume.join("twin").exists());
    assert_eq!(fs::read(volume.join("sub/file")).unwrap(), b"written since");
}
