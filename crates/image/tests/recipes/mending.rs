//! A damaged file that layers share is had again of the archive of a layer: here, made, or fetched.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use super::*;

fn objects(images: &Images) -> Vec<PathBuf> {
    let files = images.store().root().join("objects/files");
    fs::read_dir(files)
        .unwrap()
        .flat_map(|dir| fs::read_dir(dir.unwrap().path()).unwrap())
        .map(|file| file.unwrap().path())
        .collect()
}

/// Puts bytes into the object that are not its own; gives its name.
fn damage(object: &Path) -> String {
    fs::write(object, "damaged").unwrap();
    let part = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    part(object.parent().unwrap()) + &part(object)
}

/// The only object, damaged: its name and where it is.
fn damaged(images: &Images) -> (String, PathBuf) {
    let [object]: [PathBuf; 1] = objects(images).try_into().unwrap();
    (damage(&object), object)
}

async fn mend(images: &Images, object: &str) -> bool {
    let (images, object) = (images.clone(), object.to_owned());
    blocking(move || images.mend_object(&object, &|| false).unwrap()).await
}

fn assert_mended(images: &Images, object: &Path, bytes: &[u8]) {
    assert!(fs::read(object).unwrap() == bytes, "other bytes");
    let damaged = images.store().snapshots().damaged_objects(&|| false).unwrap();
    assert!(damaged.is_empty(), "{damaged:?}");
    let mode = fs::metadata(object).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o444, "the mark is gone");
}

/// An archive in which the file is neither the first nor alone with its size.
fn archive(file: &[u8]) -> Vec<u8> {
    let other = text(file.len(), 61);
    tar_of(&[
        ("a/other", &other),
        ("a/empty", b""),
        ("a/file", file),
        ("z", b"last"),
    ])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shared_file_is_taken_out_of_a_layer_that_is_here() {
    if !is_root() {
        return;
    }
    let world = sharing();
    let file = text(900_000, 60);
    world.import("local/app:1", archive(&file)).await;
    let objects = objects(&world.images);
    assert_eq!(objects.len(), 2);
    for object in objects {
        let before = fs::read(&object).unwrap();
        let name = damage(&object);
        assert!(mend(&world.images, &name).await);
        assert_mended(&world.images, &object, &before);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shared_file_is_fetched_with_its_layer() {
    if !is_root() {
        return;
    }
    let registry = MemoryRegistry::start(|_, _| None);
    let (file, world) = (text(900_000, 62), sharing());
    let tar = tar_of(&[("file", &file)]);
    let digest = serve(&registry, &tar, &tar);
    world.pull(&registry.name("app:1")).await.unwrap();
    let content = world.images.store().content();
    content.remove(&digest).unwrap();
    let (name, object) = damaged(&world.images);
    assert!(mend(&world.images, &name).await);
    assert_mended(&world.images, &object, &file);
    assert_eq!(registry.sent(&digest), 2 * tar.len());
}

/// One copy of the layer has the file itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_shared_file_is_had_of_a_layer_that_is_made_again() {
    if !is_root() {
        return;
    }
    let registry = MemoryRegistry::start(|_, _| None);
    let file = text(900_000, 63);
    let (tar, below) = (tar_of(&[("file", &file)]), tar_of(&[("below", b"below")]));
    let name = registry.name("app:1");
    let world = World::new();
    support::serve(&registry, std::slice::from_ref(&tar));
    world.pull(&name).await.unwrap();
    let World { images, dir } = world;
    let root = images.store().root().to_owned();
    drop(images);
    let store = reopened_as(&root, SHARING);
    let images = Images::open(store, Client::new(ClientConfig::default()).unwrap()).unwrap();
    let world = World { images, dir };
    world
        .images
        .tag(&name, &"local/first:1".parse().unwrap())
        .unwrap();
    support::serve(&registry, &[below, tar.clone()]);
    world.pull(&name).await.unwrap();
    drop(registry);
    let digest = Digest::sha256(&tar);
    assert!(reduce(&world.images, BlobPolicy::Recipe).await.blobs >= 1);
    assert!(!world.images.store().content().is_stored(&digest));
    let (object, path) = damaged(&world.images);
    assert!(mend(&world.images, &object).await);
    assert_mended(&world.images, &path, &file);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shared_file_that_no_archive_has_comes_with_the_next_layer() {
    if !is_root() {
        return;
    }
    let (file, world) = (text(900_000, 64), sharing());
    let image = world.import("local/app:1", tar_of(&[("file", &file)])).await;
    let layer = image.manifest.layers[0].digest.clone();
    world.images.store().content().remove(&layer).unwrap();
    let (name, object) = damaged(&world.images);
    assert!(!mend(&world.images, &name).await);
    assert_eq!(fs::read(&object).unwrap(), b"damaged");
    let told = world.images.with_layer(world.images.snapshot(&image).unwrap());
    assert_eq!(told.unwrap(), ["local/app:1"]);
    world
        .import("local/other:1", tar_of(&[("elsewhere", &file)]))
        .await;
    assert_mended(&world.images, &object, &file);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_asks_can_end_it() {
    if !is_root() {
        return;
    }
    let (file, world) = (text(900_000, 65), sharing());
    world.import("local/app:1", tar_of(&[("file", &file)])).await;
    let (name, object) = damaged(&world.images);
    let images = world.images.clone();
    let ended = blocking(move || images.mend_object(&name, &|| true)).await;
    assert!(ended.is_err());
    assert_eq!(fs::read(&object).unwrap(), b"damaged");
}
