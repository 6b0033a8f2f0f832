//! Volumes from creation to removal, across a restart, and their first fill from an image.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use store::Store;
use volume::{CreateVolume, Stray, VolumeError, Volumes, copy_up};

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

/// As a crash leaves it: the row is gone, the directory is there.
#[test]
fn a_removal_that_was_cut_off_is_finished_and_lost_rows_are_not_removals() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let volumes = Volumes::open(store.clone(), store.root()).unwrap();
    for name in ["going", "lost"] {
        let (volume, _) = volumes.create(named(name)).unwrap();
        fs::write(volume.mountpoint.join("data"), name).unwrap();
    }
    store
        .db()
        .write(|tx| {
            tx.execute("DELETE FROM volume", ())
                .map_err(store::DbError::from)?;
            tx.execute("INSERT INTO volume_removal (name) VALUES ('going')", ())
                .map_err(store::DbError::from)?;
            Ok::<_, store::DbError>(())
        })
        .unwrap();
    assert_eq!(
        volumes.strays().unwrap(),
        [Stray::Removing("going".into()), Stray::Unrecorded("lost".into())]
    );
    drop(volumes);
    let volumes = Volumes::open(store.clone(), store.root()).unwrap();
    let names: Vec<String> = volumes.list().unwrap().into_iter().map(|v| v.name).collect();
    assert_eq!(names, ["lost"]);
    assert_eq!(
        fs::read_to_string(volumes.path("lost").join("data")).unwrap(),
        "lost"
    );
    assert!(!dir.path().join("volumes/going").exists());
    assert_eq!(volumes.strays().unwrap(), []);
    // The name is free, and what takes it is new.
    let (again, created) = volumes.create(named("going")).unwrap();
    assert!(created && fs::read_dir(&again.mountpoint).unwrap().next().is_none());
}

#[test]
fn a_volume_goes_when_what_it_was_made_for_never_came() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let open = || Volumes::open(store.clone(), store.root()).unwrap();
    let volumes = open();
    let pending = |name: &str| CreateVolume {
        pending: true,
        ..named(name)
    };
    for name in ["settled", "shared", "orphan"] {
        assert!(volumes.create(pending(name)).unwrap().1);
    }
    store
        .db()
        .write(|tx| volumes.settle(tx, &["settled".to_owned()]))
        .unwrap();
    // Somebody else took it meanwhile.
    assert!(!volumes.create(pending("shared")).unwrap().1);
    drop(volumes);
    let names: Vec<String> = open().list().unwrap().into_iter().map(|v| v.name).collect();
    assert_eq!(names, ["settled", "shared"]);
    assert!(!dir.path().join("volumes/orphan").exists());
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
    let attribute = |path: &Path| {
        let mut value = [0; 16];
        let length = rustix::fs::getxattr(path, "user.note", &mut value).unwrap();
        value[..length].to_vec()
    };
    let file = image.join("srv/sub/file");
    rustix::fs::setxattr(&file, "user.note", b"kept", rustix::fs::XattrFlags::empty()).unwrap();
    symlink("/etc/passwd", image.join("srv/link")).unwrap();
    fs::set_permissions(image.join("srv"), fs::Permissions::from_mode(0o1770)).unwrap();
    symlink("/srv", image.join("way")).unwrap();
    let root = fs::File::open(&image).unwrap();
    assert!(copy_up(&volume, root.as_fd(), "/way").unwrap());
    assert_eq!(fs::metadata(&volume).unwrap().mode() & 0o7777, 0o1770);
    let file = fs::metadata(volume.join("sub/file")).unwrap();
    assert_eq!((file.uid(), file.gid(), file.nlink()), (5, 6, 2));
    assert_eq!(file.ino(), fs::metadata(volume.join("twin")).unwrap().ino());
    assert_eq!(attribute(&volume.join("sub/file")), b"kept");
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

#[test]
fn another_name_keeps_everything() {
    let dir = tempfile::tempdir().unwrap();
    let open = || {
        let store = Store::open(dir.path()).unwrap();
        Volumes::open(store.clone(), store.root()).unwrap()
    };
    let volumes = open();
    let (volume, _) = volumes
        .create(CreateVolume {
            labels: [("keep".to_owned(), "yes".to_owned())].into(),
            ..named("old")
        })
        .unwrap();
    volumes.create(named("other")).unwrap();
    fs::write(volume.mountpoint.join("note"), "x").unwrap();
    let renamed = volumes.rename("old", "new").unwrap();
    assert_eq!(
        (renamed.labels, renamed.created_at),
        (volume.labels, volume.created_at)
    );
    assert_eq!(fs::read_to_string(renamed.mountpoint.join("note")).unwrap(), "x");
    assert!(matches!(
        volumes.get("old").unwrap_err(),
        VolumeError::NotFound(_)
    ));
    assert!(!volume.mountpoint.exists());
    for (old, new) in [
        ("new", "other"),
        ("new", "new"),
        ("new", "../x"),
        ("old", "fresh"),
    ] {
        assert!(volumes.rename(old, new).is_err(), "{old} {new}");
    }
    assert_eq!(volumes.strays().unwrap(), []);
    drop(volumes);
    assert_eq!(open().list().unwrap().len(), 2);
}

#[test]
fn a_crash_between_the_names_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let volumes = Volumes::open(store.clone(), store.root()).unwrap();
    let (volume, _) = volumes.create(named("old")).unwrap();
    fs::write(volume.mountpoint.join("note"), "x").unwrap();
    let renamed = volumes.rename("old", "new").unwrap();
    // As a daemon leaves it that is killed before it moves the directory.
    fs::rename(
        renamed.mountpoint.parent().unwrap(),
        volume.mountpoint.parent().unwrap(),
    )
    .unwrap();
    let intend = "INSERT INTO volume_rename (old, new) VALUES ('old', 'new')";
    let written: Result<(), store::DbError> = store.db().write_durable(|tx| {
        tx.execute(intend, [])?;
        Ok(())
    });
    written.unwrap();
    drop((volumes, store));
    let store = Store::open(dir.path()).unwrap();
    let volumes = Volumes::open(store.clone(), store.root()).unwrap();
    let names: Vec<String> = volumes.list().unwrap().into_iter().map(|v| v.name).collect();
    assert_eq!(names, ["new"]);
    assert_eq!(fs::read_to_string(volumes.path("new").join("note")).unwrap(), "x");
}

#[test]
fn a_clone_is_a_volume_of_its_own() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: changing owners needs root");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let volumes = Volumes::open(store.clone(), store.root()).unwrap();
    let (volume, _) = volumes.create(named("data")).unwrap();
    let at = |name: &str| volume.mountpoint.join(name);
    fs::create_dir(at("sub")).unwrap();
    fs::write(at("sub/file"), "content").unwrap();
    fs::set_permissions(at("sub/file"), fs::Permissions::from_mode(0o640)).unwrap();
    std::os::unix::fs::chown(at("sub/file"), Some(1234), Some(4321)).unwrap();
    fs::hard_link(at("sub/file"), at("twin")).unwrap();
    symlink("/etc/passwd", at("link")).unwrap();
    let copy = volumes.clone_volume("data", "copy").unwrap();
    let of = |name: &str| copy.mountpoint.join(name);
    let meta = fs::metadata(of("sub/file")).unwrap();
    assert_eq!((meta.uid(), meta.gid(), meta.mode() & 0o777), (1234, 4321, 0o640));
    assert_eq!(meta.ino(), fs::metadata(of("twin")).unwrap().ino());
    assert_eq!(fs::read_link(of("link")).unwrap().to_str(), Some("/etc/passwd"));
    fs::write(of("sub/file"), "changed").unwrap();
    assert_eq!(fs::read_to_string(at("sub/file")).unwrap(), "content");
    // The directory itself, too, and an empty one.
    assert_eq!(
        fs::metadata(&copy.mountpoint).unwrap().mode(),
        fs::metadata(&volume.mountpoint).unwrap().mode()
    );
    volumes.create(named("empty")).unwrap();
    volumes.clone_volume("empty", "empty2").unwrap();
    for (source, new) in [("data", "copy"), ("nosuch", "fresh"), ("data", "a/b")] {
        assert!(volumes.clone_volume(source, new).is_err(), "{source} {new}");
    }
    let mounted = CreateVolume {
        driver_opts: [("type", "tmpfs"), ("device", "tmpfs")]
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .into(),
        ..named("elsewhere")
    };
    volumes.create(mounted).unwrap();
    let refused = volumes.clone_volume("elsewhere", "fresh").unwrap_err();
    assert!(matches!(refused, VolumeError::NotLocal { .. }), "{refused}");
    assert_eq!(volumes.strays().unwrap(), []);
    assert_eq!(volumes.list().unwrap().len(), 5);
}

#[test]
fn what_somebody_uses_by_now_is_not_restored() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let volumes = Volumes::open(store.clone(), store.root()).unwrap();
    let (volume, _) = volumes.create(named("data")).unwrap();
    let note = volume.mountpoint.join("note");
    fs::write(&note, "old").unwrap();
    volumes.snapshot_create("data", Some("first")).unwrap();
    fs::write(&note, "new").unwrap();
    volumes.mount("data", "holder").unwrap();
    let refused = volumes.snapshot_restore("data", "first").unwrap_err();
    assert!(refused.to_string().contains("[holder]"), "{refused}");
    assert_eq!(fs::read_to_string(&note).unwrap(), "new");
    assert_eq!(volumes.strays().unwrap(), []);
    volumes.release("holder");
    volumes.snapshot_restore("data", "first").unwrap();
    assert_eq!(fs::read_to_string(&note).unwrap(), "old");
}

#[test]
fn snapshots_are_content_worth_keeping() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let volumes = Volumes::open(store.clone(), store.root()).unwrap();
    let (volume, _) = volumes.create(named("data")).unwrap();
    fs::write(volume.mountpoint.join("note"), "x").unwrap();
    volumes.snapshot_create("data", Some("first")).unwrap();
    fs::remove_file(volume.mountpoint.join("note")).unwrap();
    assert!(volumes.discard("data").unwrap().is_some());
    volumes.restore("data", None).unwrap();
    volumes.snapshot_restore("data", "first").unwrap();
    assert_eq!(fs::read_to_string(volume.mountpoint.join("note")).unwrap(), "x");
}

fn execute(store: &Store, statement: &str) {
    let done: Result<(), store::DbError> = store.db().write_durable(|tx| {
        tx.execute(statement, [])?;
        Ok(())
    });
    done.unwrap();
}

/// Each way onto a name, when a removal of the volume that had it before was cut off.
#[test]
fn every_way_onto_a_name_is_free_of_what_was_there() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let volumes = Volumes::open(store.clone(), store.root()).unwrap();
    for name in ["source", "spare"] {
        let (volume, _) = volumes.create(named(name)).unwrap();
        fs::write(volume.mountpoint.join("note"), name).unwrap();
    }
    let trashed = volumes.discard("spare").unwrap().unwrap();
    type Way<'a> = &'a dyn Fn(&str) -> Result<volume::Volume, VolumeError>;
    let ways: [(&str, Way<'_>); 4] = [
        ("", &|name| Ok(volumes.create(named(name))?.0)),
        ("source", &|name| volumes.clone_volume("source", name)),
        ("spare", &|name| volumes.restore(&trashed.id, Some(name))),
        ("source", &|name| volumes.rename("source", name)),
    ];
    for (note, way) in ways {
        let (old, _) = volumes.create(named("name")).unwrap();
        fs::write(old.mountpoint.join("gone"), "").unwrap();
        execute(&store, "DELETE FROM volume WHERE name = 'name'");
        execute(&store, "INSERT INTO volume_removal (name) VALUES ('name')");
        let now = way("name").unwrap();
        assert!(!now.mountpoint.join("gone").exists());
        let found = fs::read_to_string(now.mountpoint.join("note")).unwrap_or_default();
        assert_eq!(found, note);
        assert!(
            !volumes
                .strays()
                .unwrap()
                .contains(&Stray::Removing("name".to_owned()))
        );
        volumes.remove("name", false).unwrap();
        // A directory whose row is lost is data, and has the name.
        fs::create_dir_all(volumes.path("name")).unwrap();
        fs::write(volumes.path("name").join("kept"), "").unwrap();
        match way("name") {
            Ok(volume) => assert!(note.is_empty() && volume.name == "name"),
            Err(VolumeError::NameTaken(_) | VolumeError::NotFound(_) | VolumeError::NotInTrash(_)) => {}
            Err(error) => panic!("{error}"),
        }
        assert!(volumes.path("name").join("kept").exists());
        if volumes.get("name").is_ok() {
            volumes.remove("name", false).unwrap();
        } else {
            fs::remove_dir_all(volumes.path("name").parent().unwrap()).unwrap();
        }
    }
    // What has the name by now is not what was to be removed.
    let (kept, _) = volumes.create(named("name")).unwrap();
    fs::write(kept.mountpoint.join("note"), "x").unwrap();
    execute(&store, "INSERT INTO volume_removal (name) VALUES ('name')");
    let removing = Stray::Removing("name".to_owned());
    assert!(!volumes.strays().unwrap().contains(&removing));
    volumes.repair(&removing).unwrap();
    assert!(kept.mountpoint.join("note").exists());
}

#[test]
fn two_directories_that_meet_both_stay_and_the_rest_is_opened() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let volumes = Volumes::open(store.clone(), store.root()).unwrap();
    let (volume, _) = volumes.create(named("old")).unwrap();
    fs::write(volume.mountpoint.join("note"), "old").unwrap();
    volumes.rename("old", "new").unwrap();
    fs::create_dir_all(&volume.mountpoint).unwrap();
    fs::write(volume.mountpoint.join("note"), "other").unwrap();
    execute(
        &store,
        "INSERT INTO volume_rename (old, new) VALUES ('old', 'new')",
    );
    drop(volumes);
    let volumes = Volumes::open(store.clone(), store.root()).unwrap();
    let moving = Stray::Moving {
        old: "old".to_owned(),
        new: "new".to_owned(),
    };
    assert_eq!(volumes.strays().unwrap(), std::slice::from_ref(&moving));
    assert!(volumes.repair(&moving).is_err());
    assert!(volumes.create(named("old")).is_err());
    for (name, note) in [("old", "other"), ("new", "old")] {
        let path = volumes.path(name).join("note");
        assert_eq!(fs::read_to_string(path).unwrap(), note);
    }
    // Without the one in the way, it goes on.
    fs::remove_dir_all(volumes.path("new").parent().unwrap()).unwrap();
    volumes.repair(&moving).unwrap();
    assert_eq!(
        fs::read_to_string(volumes.path("new").join("note")).unwrap(),
        "other"
    );
}

#[test]
fn a_copy_that_cannot_be_recorded_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let volumes = Volumes::open(store.clone(), store.root()).unwrap();
    let (volume, _) = volumes.create(named("data")).unwrap();
    fs::write(volume.mountpoint.join("note"), "x").unwrap();
    execute(
        &store,
        "CREATE TRIGGER full BEFORE INSERT ON volume BEGIN SELECT RAISE(ABORT, 'no'); END",
    );
    assert!(volumes.clone_volume("data", "copy").is_err());
    assert_eq!(volumes.strays().unwrap(), []);
    assert!(!dir.path().join("volumes/copy").exists());
}
