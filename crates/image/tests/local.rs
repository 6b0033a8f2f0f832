//! Names, lists, histories, commits, and what garbage collection leaves.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod support;

use image::{CommitLayers, ImageError};
use spec::image::{History, ImageConfig};
use spec::{Platform, Reference};
use store::Roots;
use support::{World, is_root, tar_of};

fn name(text: &str) -> Reference {
    text.parse().unwrap()
}

#[tokio::test]
async fn images_are_found_by_every_kind_of_name() {
    if !is_root() {
        return;
    }
    let world = World::new();
    let image = world.import("app:1", tar_of(&[("a", b"a")])).await;
    world.images.tag("app:1", &name("other/name")).unwrap();
    let hex = image.id.hex();
    for text in [
        "app:1",
        "docker.io/library/app:1",
        "other/name",
        "other/name:latest",
        hex,
        &hex[..12],
        &hex[..6],
    ] {
        assert_eq!(world.images.resolve(text).unwrap().id, image.id, "{text}");
    }
    for text in [
        image.id.to_string(),
        format!("sha256:{}", &hex[..9]),
        format!("app@{}", image.id),
        format!("other/name:x@{}", image.id),
    ] {
        assert_eq!(world.images.resolve(&text).unwrap().id, image.id, "{text}");
    }
    let text = |asked: &str| world.images.resolve(asked).unwrap_err().to_string();
    assert_eq!(text("nosuch"), "No such image: nosuch:latest");
    assert_eq!(text("app"), "No such image: app:latest");
    assert_eq!(
        text("UPPER:tag"),
        "invalid reference format: repository name (library/UPPER) must be lowercase"
    );
    assert!(matches!(
        world.images.resolve(&format!("third@{}", image.id)),
        Err(ImageError::NotFound(_))
    ));
    assert_eq!(image.repo_tags(), ["app:1"]);
    assert_eq!(
        world.images.resolve(hex).unwrap().repo_tags(),
        ["app:1", "other/name:latest"]
    );
}

#[tokio::test]
async fn names_move_and_go() {
    if !is_root() {
        return;
    }
    let world = World::new();
    let first = world.import("app", tar_of(&[("a", b"1")])).await;
    let second = world.import("app", tar_of(&[("a", b"2")])).await;
    assert_eq!(world.images.resolve("app").unwrap().id, second.id);
    // The first one dangles, but is here.
    assert!(
        world
            .images
            .resolve(first.id.as_str())
            .unwrap()
            .references
            .is_empty()
    );
    let listed = world.images.list().unwrap();
    assert_eq!(listed.len(), 2);
    for line in &listed {
        let image = world.images.resolve(line.id.as_str()).unwrap();
        assert_eq!(line.size, image.size);
        assert_eq!(line.references, image.references);
    }
    // A name that is given again stays, with a new time; given to another image it moves.
    let tagged = |id: &spec::Digest| world.images.resolve(id.as_str()).unwrap().last_tagged;
    let before = tagged(&second.id);
    world.images.tag(second.id.as_str(), &name("app")).unwrap();
    assert_ne!(tagged(&second.id), before);
    world.images.tag(first.id.as_str(), &name("app")).unwrap();
    assert_eq!(world.images.resolve("app").unwrap().id, first.id);
    world.images.tag(second.id.as_str(), &name("app")).unwrap();
    let untagged = world.images.untag(&name("app")).unwrap();
    assert_eq!((untagged.id, untagged.remaining), (second.id.clone(), 0));
    assert!(matches!(
        world.images.untag(&name("app")),
        Err(ImageError::NotFound(_))
    ));
    world.images.remove_by_digest(&first.id).unwrap();
    world.images.remove_by_digest(&second.id).unwrap();
    assert!(world.images.remove_by_digest(&second.id).is_err());
    assert!(matches!(
        world.images.tag("app", &name("x")),
        Err(ImageError::NotFound(_))
    ));
    assert!(matches!(
        world.images.tag("app", &name("x").with_digest(&first.id)),
        Err(ImageError::TagWithDigest)
    ));
    let freed = world.images.gc(|_| Ok(Roots::default())).unwrap();
    assert_eq!((freed.snapshots.len(), freed.blobs.len()), (2, 6));
    assert!(world.images.store().content().list().unwrap().is_empty());
}

#[tokio::test]
async fn garbage_collection_keeps_what_is_in_use() {
    if !is_root() {
        return;
    }
    let world = World::new();
    let image = world.import("app", tar_of(&[("a", b"1")])).await;
    let gone = world.import("gone", tar_of(&[("a", b"2")])).await;
    let kept = world.import("kept", tar_of(&[("a", b"3")])).await;
    let top = world.images.snapshot(&kept).unwrap();
    world.images.keep_also(move |_| {
        Ok(Roots {
            snapshots: [top].into(),
            ..Roots::default()
        })
    });
    for image in [&gone, &kept] {
        world.images.remove_by_digest(&image.id).unwrap();
    }
    let freed = world.images.gc(|_| Ok(Roots::default())).unwrap();
    assert_eq!((freed.snapshots.len(), freed.blobs.len()), (1, 6));
    assert!(world.images.store().snapshots().get(top).is_ok());
    assert_eq!(world.read(&image, "a").as_deref(), Some("1"));
}

/// Whoever waits for images that are new hears of every one.
#[tokio::test]
async fn a_commit_is_a_change() {
    if !is_root() {
        return;
    }
    let world = World::new();
    let changed = world.images.changed();
    let heard = async || {
        let now = std::time::Duration::ZERO;
        tokio::time::timeout(now, changed.notified()).await.is_ok()
    };
    let base = world.import("base", tar_of(&[("a", b"1")])).await;
    assert!(heard().await);
    assert!(!heard().await);
    let snapshots = world.images.store().snapshots();
    let top = world.images.snapshot(&base).unwrap();
    let writable = snapshots.create(Some(top), "container:x").unwrap();
    std::fs::write(snapshots.fs(writable).join("a"), "2").unwrap();
    let commit = CommitLayers {
        parent: Some(base.clone()),
        layers: vec![writable],
        config: base.config.clone(),
        names: Vec::new(),
    };
    world.images.commit_child(commit).unwrap();
    assert!(heard().await);
}

#[tokio::test]
async fn commits_stack_layers_and_histories() {
    if !is_root() {
        return;
    }
    let world = World::new();
    let base = world.import("base", tar_of(&[("a", b"1"), ("b", b"1")])).await;
    let snapshots = world.images.store().snapshots();
    let top = world.images.snapshot(&base).unwrap();
    let writable = snapshots.create(Some(top), "container:x").unwrap();
    std::fs::write(snapshots.fs(writable).join("a"), "2").unwrap();
    let mut config = base.config.clone();
    config.config.cmd = Some(vec!["sh".into()]);
    config.history.push(History {
        created_by: Some("made a".into()),
        ..History::default()
    });
    config.history.push(History {
        created_by: Some("set".into()),
        empty_layer: true,
        ..History::default()
    });
    let commit = |config: ImageConfig| CommitLayers {
        parent: Some(base.clone()),
        layers: vec![writable],
        config,
        names: vec![name("app:2")],
    };
    let image = world.images.commit_layers(commit(config.clone())).unwrap();
    // The container's own layer stays the container's.
    assert!(!snapshots.get(writable).unwrap().committed);
    assert_eq!(world.read(&image, "a").as_deref(), Some("2"));
    assert_eq!(world.read(&image, "b").as_deref(), Some("1"));
    assert_eq!(image.manifest.layers[0].digest, base.manifest.layers[0].digest);
    assert_eq!(
        snapshots.parent(world.images.snapshot(&image).unwrap()),
        Some(top)
    );
    // The same again is the same image.
    assert_eq!(
        world.images.commit_layers(commit(config.clone())).unwrap().id,
        image.id
    );
    // And without a name it leaves no trace, once all there is to know is known.
    let of_layers = || CommitLayers {
        parent: Some(base.clone()),
        layers: vec![world.images.snapshot(&image).unwrap()],
        config: config.clone(),
        names: Vec::new(),
    };
    let version = || {
        let look = |db: &store::rusqlite::Connection| {
            db.query_row("PRAGMA data_version", [], |row| row.get::<_, i64>(0))
        };
        world.images.store().db().read(look).unwrap()
    };
    assert_eq!(world.images.commit_layers(of_layers()).unwrap().id, image.id);
    let before = version();
    assert_eq!(world.images.commit_layers(of_layers()).unwrap().id, image.id);
    assert_eq!(version(), before, "what was there was written again");

    let history = world.images.history(&image).unwrap();
    let told: Vec<_> = history
        .iter()
        .map(|h| (h.created_by.as_str(), h.size > 0))
        .collect();
    assert_eq!(told, [("set", false), ("made a", true), ("", true)]);
    assert_eq!(history[0].id, image.id.to_string());
    assert_eq!(history[1].id, "<missing>");
    assert_eq!(history[2].comment, "made");

    let usage = world.images.disk_usage().unwrap();
    let of = |id: &spec::Digest| usage.images.iter().find(|u| u.id == *id).unwrap();
    assert!(of(&image.id).shared > 0 && of(&image.id).unique > 0);
    assert_eq!(of(&image.id).shared, of(&base.id).shared);
    assert_eq!(usage.total, of(&image.id).size + of(&base.id).unique);
    assert_eq!(of(&image.id).size, world.images.resolve("app:2").unwrap().size);
}

#[tokio::test]
async fn an_image_without_layers_is_an_empty_directory() {
    if !is_root() {
        return;
    }
    let world = World::new();
    let config = ImageConfig::new(&Platform::host());
    let commit = CommitLayers {
        parent: None,
        layers: Vec::new(),
        config,
        names: vec![name("empty")],
    };
    let image = world.images.commit_layers(commit).unwrap();
    let top = world.images.snapshot(&image).unwrap();
    assert_eq!(
        std::fs::read_dir(world.images.store().snapshots().fs(top))
            .unwrap()
            .count(),
        0
    );
    assert!(world.images.history(&image).unwrap().is_empty());
}

#[tokio::test]
async fn lost_layers_are_unpacked_again() {
    if !is_root() {
        return;
    }
    let world = World::new();
    let image = world.import("app", tar_of(&[("a", b"1")])).await;
    let top = world.images.snapshot(&image).unwrap();
    world.images.store().snapshots().remove(top).unwrap();
    assert_eq!(world.read(&image, "a").as_deref(), Some("1"));
}

#[tokio::test]
async fn an_empty_import_is_refused() {
    if !is_root() {
        return;
    }
    let world = World::new();
    let images = world.images.clone();
    let error =
        support::blocking(move || images.import(std::io::empty(), Default::default(), support::log().0))
            .await
            .unwrap_err();
    assert!(error.to_string().contains("empty"), "{error}");
    assert!(world.images.store().snapshots().list().unwrap().is_empty());
    assert!(world.partial_downloads().is_empty());
}
