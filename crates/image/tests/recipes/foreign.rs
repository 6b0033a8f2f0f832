//! Layers that others compressed: what Go's library did is done again, what nothing here does is kept or fetched again.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use image::{BlobPolicy, Image, LoadOptions, PullOptions, PushOptions, Reduced};
use registry::{Auth, ClientConfig, Rule};
use spec::{Digest, ErrorClass};

use crate::support::servers::DistributionRegistry;
use crate::support::servers::memory::{Fault, MemoryRegistry};
use crate::support::{World, blocking, is_root, log, statuses, tar_of};
use crate::{bytes, reduce, reopened, save, serve, stored, text};

/// By another compressor than any of ours.
pub fn foreign_gzip(bytes: &[u8]) -> Vec<u8> {
    let mut child = Command::new("gzip")
        .args(["-n", "-7"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let bytes = bytes.to_vec();
    let writing = std::thread::spawn(move || stdin.write_all(&bytes).unwrap());
    let mut out = Vec::new();
    child.stdout.take().unwrap().read_to_end(&mut out).unwrap();
    writing.join().unwrap();
    assert!(child.wait().unwrap().success());
    out
}

/// A layer as Docker pushes it: GNU tar through Go's compress/gzip at its default level (Go 1.19).
const BY_GO: &[u8] = include_bytes!("layers/go-6.tar.gz");

#[tokio::test(flavor = "multi_thread")]
async fn what_docker_compressed_is_made_again() {
    if !is_root() {
        return;
    }
    let mut tar = Vec::new();
    std::io::copy(&mut image::compression::decoder(BY_GO), &mut tar).unwrap();
    let registry = MemoryRegistry::start(|_, _| None);
    let elsewhere = MemoryRegistry::start(|_, _| None);
    let digest = serve(&registry, &tar, BY_GO);
    let world = World::new();
    let name = registry.name("app:1");
    let (image, _) = world.pull(&name).await.unwrap();
    assert_eq!(reduce(&world.images, BlobPolicy::Recipe).await.blobs, 1);
    assert_eq!(stored(&world.images, &image), [false]);
    // There is nowhere to fetch it from.
    drop(registry);
    assert!(bytes(&world.images, &digest).await.unwrap() == BY_GO);
    reduce(&world.images, BlobPolicy::Recipe).await;
    let copy = elsewhere.name("copy:1");
    world.images.tag(&name, &copy.parse().unwrap()).unwrap();
    world.push(&copy).await.unwrap();
    assert!(elsewhere.has_blob(&digest));
}

fn login() -> Auth {
    Auth::Basic {
        user: "user".to_owned(),
        password: "secret".to_owned(),
    }
}

/// Brings an image whose layer nothing here makes to a registry that wants a login.
async fn push_foreign(name: &str) -> Digest {
    let tar = tar_of(&[("a", &text(1 << 20, 21))]);
    let layer = foreign_gzip(&tar);
    let origin = MemoryRegistry::start(|_, _| None);
    let digest = serve(&origin, &tar, &layer);
    let world = World::new();
    world.pull(&origin.name("app:1")).await.unwrap();
    let target = name.parse().unwrap();
    world.images.tag(&origin.name("app:1"), &target).unwrap();
    let options = PushOptions {
        auth: Some(login()),
        ..PushOptions::default()
    };
    world.images.push(&target, options, log().0).await.unwrap();
    digest
}

async fn pull_with_login(world: &World, name: &str) -> Image {
    let options = PullOptions {
        auth: Some(login()),
        ..PullOptions::default()
    };
    world
        .images
        .pull(&name.parse().unwrap(), options, log().0)
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_behind_a_login_is_fetched_again_with_the_one_that_brought_it() {
    let (true, Some(registry)) = (is_root(), DistributionRegistry::start(true)) else {
        return;
    };
    let name = registry.name("team/app:1");
    let digest = push_foreign(&name).await;
    let world = World::with(ClientConfig {
        attempts: 1,
        ..ClientConfig::default()
    });
    let image = pull_with_login(&world, &name).await;
    assert_eq!(reduce(&world.images, BlobPolicy::Drop).await.blobs, 1);
    assert_eq!(stored(&world.images, &image), [false]);
    assert_eq!(
        Digest::sha256(&bytes(&world.images, &digest).await.unwrap()),
        digest
    );

    // Another process has no login: one error that says so, and a pull with one mends it.
    reduce(&world.images, BlobPolicy::Drop).await;
    let World { images, dir } = world;
    drop(images);
    let open = |rules: Vec<Rule>| {
        let config = ClientConfig {
            attempts: 1,
            rules,
            ..ClientConfig::default()
        };
        let store = reopened(&dir.path().join("root"));
        image::Images::open(store, registry::Client::new(config).unwrap()).unwrap()
    };
    let images = open(Vec::new());
    let said = bytes(&images, &digest).await.unwrap_err().to_string();
    assert!(
        said.contains(digest.as_str()) && said.contains("pull or load the image once more"),
        "{said}"
    );
    let options = PullOptions {
        auth: Some(login()),
        ..PullOptions::default()
    };
    images
        .pull(&name.parse().unwrap(), options, log().0)
        .await
        .unwrap();
    assert!(images.store().content().is_stored(&digest));
    reduce(&images, BlobPolicy::Drop).await;
    assert!(!images.store().content().is_stored(&digest));
    drop(images);

    // With a file of logins in a rule another process has one, too.
    let file = dir.path().join("logins.json");
    let json = format!(
        r#"{{"auths": {{"127.0.0.1:{}": {{"auth": "dXNlcjpzZWNyZXQ="}}}}}}"#,
        registry.port
    );
    std::fs::write(&file, json).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let rule = Rule {
        prefix: format!("127.0.0.1:{}", registry.port),
        auth_file: Some(file),
        ..Rule::default()
    };
    let images = open(vec![rule]);
    assert_eq!(Digest::sha256(&bytes(&images, &digest).await.unwrap()), digest);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_compressor_here_makes_is_kept_or_fetched_again() {
    if !is_root() {
        return;
    }
    let gone = Arc::new(AtomicBool::new(false));
    let is_gone = gone.clone();
    let registry = MemoryRegistry::start(move |_, _| {
        is_gone
            .load(Ordering::Relaxed)
            .then_some(Fault::Status(503, None))
    });
    let elsewhere = MemoryRegistry::start(|_, _| None);
    let tar = tar_of(&[("a", &text(2 << 20, 5))]);
    let layer = foreign_gzip(&tar);
    let digest = serve(&registry, &tar, &layer);
    let world = World::with(ClientConfig {
        attempts: 1,
        ..ClientConfig::default()
    });
    let name = registry.name("app:1");
    let (image, _) = world.pull(&name).await.unwrap();

    assert_eq!(
        reduce(&world.images, BlobPolicy::Recipe).await,
        Reduced::default()
    );
    assert_eq!(stored(&world.images, &image), [true]);
    assert_eq!(reduce(&world.images, BlobPolicy::Drop).await.blobs, 1);
    assert_eq!(stored(&world.images, &image), [false]);
    // A pull of what is here asks for nothing.
    let sent = registry.sent(&digest);
    let said = statuses(&world.pull(&name).await.unwrap().1);
    assert!(said.contains(&"Already exists".to_owned()), "{said:?}");
    assert_eq!(registry.sent(&digest), sent);

    let copy = elsewhere.name("copy:1");
    world.images.tag(&name, &copy.parse().unwrap()).unwrap();
    // Where it came from does not answer: one clear error, and another day it works.
    gone.store(true, Ordering::Relaxed);
    let refused = world.push(&copy).await.unwrap_err();
    let said = refused.to_string();
    assert!(
        said.contains(digest.as_str()) && said.contains("cannot be had again") && said.contains("once more"),
        "{said}"
    );
    assert_ne!(refused.class(), ErrorClass::Internal, "{said}");
    gone.store(false, Ordering::Relaxed);
    world.push(&copy).await.unwrap();
    assert_eq!(registry.sent(&digest) - sent, layer.len());
    assert!(elsewhere.has_blob(&digest));
    assert_eq!(bytes(&world.images, &digest).await.unwrap(), layer);

    // What came in an archive comes from nowhere else.
    let saved = save(&world.images, &copy).await;
    let loaded = World::new();
    let images = loaded.images.clone();
    blocking(move || {
        images
            .load(saved.as_slice(), LoadOptions::default(), log().0)
            .unwrap()
    })
    .await;
    assert_eq!(reduce(&loaded.images, BlobPolicy::Drop).await, Reduced::default());
    assert_eq!(bytes(&loaded.images, &digest).await.unwrap(), layer);
}
