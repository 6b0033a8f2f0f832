//! What containers do to their files.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use rustix::fs::{CWD, FileType, Mode, XattrFlags, lsetxattr, makedev, mknodat};

use crate::{Bench, each_driver};

each_driver!(
    an_idle_one_changes_nothing,
    what_is_deleted_is_gone,
    what_is_made_anew_hides_the_old,
    files_of_several_names_stay_one,
    owners_modes_attributes_and_times_are_kept,
    a_change_that_hides_behind_its_time_is_found,
    devices_and_pipes_are_kept_and_sockets_are_nothing,
    a_socket_below_is_no_change,
    names_like_those_of_half_made_copies_are_kept,
    directories_are_renamed,
    kinds_change,
    holes_and_names_are_kept,
);

/// Some of everything.
fn image(root: &Path) {
    for dir in ["etc", "usr/lib/deep", "var/log", "srv"] {
        fs::create_dir_all(root.join(dir)).unwrap();
    }
    for (name, text) in [
        ("etc/passwd", "root"),
        ("usr/lib/tool", "tool"),
        ("usr/lib/deep/file", "deep"),
    ] {
        fs::write(root.join(name), text).unwrap();
    }
    fs::hard_link(root.join("usr/lib/tool"), root.join("usr/lib/twin")).unwrap();
    symlink("usr/lib", root.join("lib")).unwrap();
    fs::set_permissions(root.join("usr/lib/tool"), fs::Permissions::from_mode(0o4755)).unwrap();
    std::os::unix::fs::chown(root.join("srv"), Some(100_000), Some(200_000)).unwrap();
    fs::set_permissions(root.join("srv"), fs::Permissions::from_mode(0o1777)).unwrap();
}

fn an_idle_one_changes_nothing(bench: Bench) {
    let image = bench.layer(None, |root| image(root));
    let container = bench.container(image);
    let root = bench.root(container);
    assert_eq!(fs::read_to_string(root.path.join("lib/tool")).unwrap(), "tool");
    drop(root);
    assert_eq!(bench.changes(container), [""; 0]);
    assert!(
        bench.tar(container).iter().all(|byte| *byte == 0),
        "the archive holds something"
    );
    crate::picture::assert_same(&bench.picture(image), &bench.picture(container));
}

fn what_is_deleted_is_gone(bench: Bench) {
    let image = bench.layer(None, |root| image(root));
    let container = bench.container(image);
    let root = bench.root(container);
    fs::remove_file(root.path.join("etc/passwd")).unwrap();
    fs::remove_dir_all(root.path.join("usr/lib/deep")).unwrap();
    fs::write(root.path.join("made"), "").unwrap();
    fs::remove_file(root.path.join("made")).unwrap();
    drop(root);
    assert_eq!(
        bench.changes(container),
        [
            "C /etc",
            "D /etc/passwd",
            "C /usr",
            "C /usr/lib",
            "D /usr/lib/deep"
        ]
    );
    let layer = bench.assert_committed(container);
    let next = bench.container(layer);
    assert!(!bench.root(next).path.join("etc/passwd").exists());
    // A later one brings it back.
    fs::write(bench.root(next).path.join("etc/passwd"), "again").unwrap();
    assert_eq!(bench.changes(next), ["C /etc", "A /etc/passwd"]);
    bench.assert_committed(next);
}

fn what_is_made_anew_hides_the_old(bench: Bench) {
    let image = bench.layer(None, |root| image(root));
    let container = bench.container(image);
    let root = bench.root(container);
    fs::remove_dir_all(root.path.join("usr/lib")).unwrap();
    fs::create_dir(root.path.join("usr/lib")).unwrap();
    fs::write(root.path.join("usr/lib/only"), "only").unwrap();
    drop(root);
    let changes = bench.changes(container);
    for told in ["A /usr/lib/only", "D /usr/lib/tool", "D /usr/lib/deep"] {
        assert!(
            changes.iter().any(|change| change == told),
            "{told} of {changes:?}"
        );
    }
    let layer = bench.assert_committed(container);
    let left: Vec<_> = fs::read_dir(bench.root(layer).path.join("usr/lib"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(left, ["only"]);
}

fn files_of_several_names_stay_one(bench: Bench) {
    let image = bench.layer(None, |root| image(root));
    let container = bench.container(image);
    let root = bench.root(container);
    fs::hard_link(root.path.join("usr/lib/deep/file"), root.path.join("srv/second")).unwrap();
    fs::write(root.path.join("one"), "x").unwrap();
    fs::hard_link(root.path.join("one"), root.path.join("other")).unwrap();
    drop(root);
    let layer = bench.assert_committed(container);
    let root = bench.root(layer);
    for (one, other) in [("usr/lib/deep/file", "srv/second"), ("one", "other")] {
        let (one, other) = (root.path.join(one), root.path.join(other));
        let (one, other) = (fs::metadata(one).unwrap(), fs::metadata(other).unwrap());
        assert_eq!((one.ino(), one.nlink()), (other.ino(), 2));
    }
}

fn owners_modes_attributes_and_times_are_kept(bench: Bench) {
    let image = bench.layer(None, |root| image(root));
    let container = bench.container(image);
    let root = bench.root(container);
    let tool = root.path.join("usr/lib/deep/file");
    lsetxattr(&tool, "user.note", b"kept", XattrFlags::empty()).unwrap();
    // A capability (net_raw) as setcap writes it.
    let capability = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    lsetxattr(&tool, "security.capability", &capability, XattrFlags::empty()).unwrap();
    std::os::unix::fs::chown(root.path.join("etc/passwd"), Some(70_000), Some(3_000_000)).unwrap();
    fs::set_permissions(root.path.join("var/log"), fs::Permissions::from_mode(0o2770)).unwrap();
    let time = UNIX_EPOCH + Duration::new(1_234_567_890, 123_456_789);
    fs::File::open(&tool).unwrap().set_modified(time).unwrap();
    drop(root);
    assert_eq!(
        bench.changes(container),
        [
            "C /etc",
            "C /etc/passwd",
            "C /usr",
            "C /usr/lib",
            "C /usr/lib/deep",
            "C /usr/lib/deep/file",
            "C /var",
            "C /var/log"
        ]
    );
    let layer = bench.assert_committed(container);
    let meta = fs::metadata(bench.root(layer).path.join("usr/lib/deep/file")).unwrap();
    assert_eq!((meta.mtime(), meta.mtime_nsec()), (1_234_567_890, 123_456_789));
}

/// As long and as old as before, and not the same.
fn a_change_that_hides_behind_its_time_is_found(bench: Bench) {
    let image = bench.layer(None, |root| image(root));
    let container = bench.container(image);
    let root = bench.root(container);
    let file = root.path.join("etc/passwd");
    let time = fs::metadata(&file).unwrap().modified().unwrap();
    fs::write(&file, "ROOT").unwrap();
    fs::File::open(&file).unwrap().set_modified(time).unwrap();
    drop(root);
    let layer = bench.assert_committed(container);
    assert_eq!(
        fs::read_to_string(bench.root(layer).path.join("etc/passwd")).unwrap(),
        "ROOT"
    );
}

fn devices_and_pipes_are_kept_and_sockets_are_nothing(bench: Bench) {
    let image = bench.layer(None, |root| image(root));
    let container = bench.container(image);
    let root = bench.root(container);
    let make = |name: &str, kind, device| {
        mknodat(
            CWD,
            root.path.join(name),
            kind,
            Mode::from_raw_mode(0o640),
            device,
        )
        .unwrap();
    };
    make("srv/null", FileType::CharacterDevice, makedev(1, 3));
    make("srv/disk", FileType::BlockDevice, makedev(7, 5));
    make("srv/pipe", FileType::Fifo, 0);
    drop(root);
    let layer = bench.assert_committed(container);
    let root = bench.root(layer);
    let disk = fs::symlink_metadata(root.path.join("srv/disk")).unwrap();
    assert!(disk.file_type().is_block_device() && disk.rdev() == makedev(7, 5));
    drop(root);
    let next = bench.container(layer);
    let root = bench.root(next);
    drop(UnixListener::bind(root.path.join("srv/socket")).unwrap());
    fs::write(root.path.join("srv/beside"), "x").unwrap();
    drop(root);
    let layer = bench.commit(next);
    let root = bench.root(layer);
    assert!(root.path.join("srv/beside").exists() && !root.path.join("srv/socket").exists());
}

/// A step of a build may leave one in its layer.
fn a_socket_below_is_no_change(bench: Bench) {
    let image = bench.layer(None, |root| {
        image(root);
        drop(UnixListener::bind(root.join("srv/socket")).unwrap());
        fs::set_permissions(root.join("srv/socket"), fs::Permissions::from_mode(0o660)).unwrap();
    });
    let container = bench.container(image);
    let shown = fs::symlink_metadata(bench.root(container).path.join("srv/socket")).unwrap();
    assert!(shown.file_type().is_socket() && shown.mode() & 0o7777 == 0o660);
    assert_eq!(bench.changes(container), [""; 0]);
    fs::write(bench.root(container).path.join("srv/beside"), "x").unwrap();
    assert_eq!(bench.changes(container), ["C /srv", "A /srv/beside"]);
}

fn names_like_those_of_half_made_copies_are_kept(bench: Bench) {
    let image = bench.layer(None, |root| {
        for number in 0..12 {
            fs::write(root.join(format!(".copying-{number}")), number.to_string()).unwrap();
            fs::write(root.join(format!("other-{number}")), "x").unwrap();
        }
        fs::create_dir(root.join(".copying-13")).unwrap();
        symlink("other-1", root.join(".copying-14")).unwrap();
        fs::hard_link(root.join(".copying-3"), root.join(".copying-15")).unwrap();
    });
    let container = bench.container(image);
    crate::picture::assert_same(&bench.picture(image), &bench.picture(container));
    assert_eq!(bench.changes(container), [""; 0]);
}

/// As mv(1): by a copy where the filesystem refuses.
fn directories_are_renamed(bench: Bench) {
    let image = bench.layer(None, |root| image(root));
    let container = bench.container(image);
    let root = bench.root(container);
    let moved = std::process::Command::new("mv")
        .arg(root.path.join("usr/lib"))
        .arg(root.path.join("srv/moved"))
        .status()
        .unwrap();
    assert!(moved.success());
    fs::create_dir(root.path.join("own")).unwrap();
    fs::rename(root.path.join("own"), root.path.join("renamed")).unwrap();
    drop(root);
    let layer = bench.assert_committed(container);
    let root = bench.root(layer);
    assert_eq!(
        fs::read_to_string(root.path.join("srv/moved/deep/file")).unwrap(),
        "deep"
    );
    assert!(!root.path.join("usr/lib").exists() && root.path.join("renamed").is_dir());
}

fn kinds_change(bench: Bench) {
    let image = bench.layer(None, |root| image(root));
    let container = bench.container(image);
    let root = bench.root(container);
    fs::remove_file(root.path.join("lib")).unwrap();
    fs::create_dir(root.path.join("lib")).unwrap();
    fs::write(root.path.join("lib/own"), "").unwrap();
    fs::remove_dir_all(root.path.join("usr/lib")).unwrap();
    fs::write(root.path.join("usr/lib"), "a file").unwrap();
    fs::remove_file(root.path.join("etc/passwd")).unwrap();
    symlink("shadow", root.path.join("etc/passwd")).unwrap();
    drop(root);
    let layer = bench.assert_committed(container);
    let next = bench.container(layer);
    crate::picture::assert_same(&bench.picture(layer), &bench.picture(next));
}

fn holes_and_names_are_kept(bench: Bench) {
    use std::os::unix::ffi::OsStrExt as _;
    let strange = std::ffi::OsStr::from_bytes(b"not \xff text\n");
    let image = bench.layer(None, |root| {
        let file = fs::File::create(root.join("sparse")).unwrap();
        file.set_len(64 << 20).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, b"here", 32 << 20).unwrap();
        fs::write(root.join(strange), "strange").unwrap();
        fs::create_dir_all(root.join("d/".repeat(200))).unwrap();
    });
    let container = bench.container(image);
    let root = bench.root(container);
    let sparse = fs::metadata(root.path.join("sparse")).unwrap();
    assert!(
        sparse.len() == 64 << 20 && sparse.blocks() * 512 < 8 << 20,
        "{sparse:?}"
    );
    fs::write(root.path.join("d/".repeat(200)).join("deepest"), "x").unwrap();
    drop(root);
    let layer = bench.assert_committed(container);
    let root = bench.root(layer);
    assert_eq!(fs::read_to_string(root.path.join(strange)).unwrap(), "strange");
    assert!(root.path.join("d/".repeat(200)).join("deepest").exists());
}
