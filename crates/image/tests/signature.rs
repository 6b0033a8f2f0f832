//! Signatures as cosign lays them beside an image, made by openssl, and rules that want them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use image::{ImageError, NamedKey, PublicKey};
use registry::{Access, Auth, ClientConfig, Repository, Rule};
use spec::image::{Descriptor, media_type};
use spec::{Digest, ErrorClass};
use support::servers::DistributionRegistry;
use support::{World, is_root, tar_of};

fn openssl(arguments: &[&str]) {
    let done = Command::new("openssl").args(arguments).output().unwrap();
    assert!(
        done.status.success(),
        "{arguments:?}: {}",
        String::from_utf8_lossy(&done.stderr)
    );
}

/// A key pair in files; gives the names of the private and the public one.
fn key_pair(dir: &Path, name: &str, kind: &[&str]) -> (String, PathBuf) {
    let private = dir.join(format!("{name}.key")).display().to_string();
    let public = dir.join(format!("{name}.pub"));
    openssl(&[&["genpkey", "-out", &private], kind].concat());
    openssl(&[
        "pkey",
        "-in",
        &private,
        "-pubout",
        "-out",
        &public.display().to_string(),
    ]);
    (private, public)
}

const P256: &[&str] = &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"];

fn sign(dir: &Path, key: &str, hash: &str, payload: &[u8]) -> Vec<u8> {
    let (message, out) = (dir.join("message"), dir.join("signature"));
    std::fs::write(&message, payload).unwrap();
    let [message, out] = [message, out].map(|path| path.display().to_string());
    openssl(&["dgst", hash, "-sign", key, "-out", &out, &message]);
    std::fs::read(out).unwrap()
}

fn payload(digest: &Digest) -> Vec<u8> {
    format!(
        r#"{{"critical":{{"identity":{{"docker-reference":"reg.example/app"}},"image":{{"docker-manifest-digest":"{digest}"}},"type":"cosign container image signature"}},"optional":null}}"#
    )
    .into_bytes()
}

async fn upload(to: &Repository, bytes: Vec<u8>, media_type: &str) -> Descriptor {
    let digest = Digest::sha256(&bytes);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &bytes).unwrap();
    let path = file.path().to_owned();
    let size = bytes.len() as u64;
    to.upload(&digest, size, Arc::new(move || std::fs::File::open(&path)))
        .await
        .unwrap();
    Descriptor::new(media_type, digest, size)
}

/// Lays signatures, each with its payload, where cosign does.
async fn attach(to: &Repository, at: &str, signatures: Vec<(Vec<u8>, Vec<u8>)>) -> Descriptor {
    use base64::Engine as _;
    let config = upload(to, b"{}".to_vec(), media_type::OCI_CONFIG).await;
    let mut layers = Vec::new();
    for (payload, signature) in signatures {
        let mut layer = upload(to, payload, "application/vnd.dev.cosign.simplesigning.v1+json").await;
        let text = base64::engine::general_purpose::STANDARD.encode(signature);
        layer
            .annotations
            .insert("dev.cosignproject.cosign/signature".into(), text);
        layers.push(layer);
    }
    let manifest = serde_json::json!({
        "schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST, "config": config, "layers": layers,
    });
    let bytes = serde_json::to_vec(&manifest).unwrap();
    let descriptor = Descriptor::new(
        media_type::OCI_MANIFEST,
        Digest::sha256(&bytes),
        bytes.len() as u64,
    );
    let at = if at.is_empty() {
        descriptor.digest.to_string()
    } else {
        at.to_owned()
    };
    to.manifest_put(&at, media_type::OCI_MANIFEST, bytes.into())
        .await
        .unwrap();
    descriptor
}

/// A store whose rule for everything at `host` wants a signature by one of the keys.
fn strict(host: &str, keys: &[&PathBuf]) -> World {
    World::with(ClientConfig {
        rules: vec![Rule {
            prefix: host.to_owned(),
            signed_by: keys.iter().map(|key| (*key).clone()).collect(),
            ..Rule::default()
        }],
        ..ClientConfig::default()
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_must_be_signed_is() {
    if !is_root() {
        return;
    }
    let Some(server) = DistributionRegistry::start(false) else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let (private, public) = key_pair(dir.path(), "ours", P256);
    let (foreign, other) = key_pair(dir.path(), "other", P256);
    let name = server.name("app:1");
    let world = World::new();
    let image = world.import(&name, tar_of(&[("file", b"signed")])).await;
    world.push(&name).await.unwrap();
    let host = format!("127.0.0.1:{}", server.port);
    let user = strict(&host, &[&public]);

    let refused = user.pull(&name).await.unwrap_err();
    assert_eq!(refused.class(), ErrorClass::Forbidden);
    let text = refused.to_string();
    assert!(
        text.contains("not signed") && text.contains(&host) && text.contains("ours.pub"),
        "{text}"
    );
    assert!(
        user.images.list().unwrap().is_empty() && user.images.store().snapshots().list().unwrap().is_empty()
    );

    // Rubbish, somebody else's signature, and a true one for another image: none counts.
    let client = world.images.registry();
    let push = client
        .repository(&name.parse().unwrap(), &Auth::Anonymous, Access::Push)
        .unwrap();
    let tag = format!("{}.sig", image.id.to_string().replace(':', "-"));
    let right = payload(&image.id);
    let wrong = payload(&Digest::sha256(b"another image"));
    let signatures = vec![
        (right.clone(), b"rubbish".to_vec()),
        (right.clone(), sign(dir.path(), &foreign, "-sha256", &right)),
        (wrong.clone(), sign(dir.path(), &private, "-sha256", &wrong)),
        (
            b"no payload".to_vec(),
            sign(dir.path(), &private, "-sha256", b"no payload"),
        ),
    ];
    attach(&push, &tag, signatures).await;
    assert!(matches!(user.pull(&name).await, Err(ImageError::Unsigned { .. })));

    attach(
        &push,
        &tag,
        vec![(right.clone(), sign(dir.path(), &private, "-sha256", &right))],
    )
    .await;
    user.pull(&name).await.unwrap();
    let reference = name.parse().unwrap();
    let found = user.images.verify(&reference, None, Vec::new()).await.unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(
        (&found[0].digest, found[0].identity.as_str()),
        (&image.id, "reg.example/app")
    );
    let key = PublicKey::from_pem(&std::fs::read_to_string(&other).unwrap()).unwrap();
    let keys = vec![NamedKey {
        name: "other".into(),
        key,
    }];
    assert!(matches!(
        user.images.verify(&reference, None, keys).await,
        Err(ImageError::NotSigned { .. })
    ));
    assert!(matches!(
        world.images.verify(&reference, None, Vec::new()).await,
        Err(ImageError::NoKey(_))
    ));

    // A key that is gone stops pulls, instead of letting anything in.
    std::fs::remove_file(&public).unwrap();
    assert!(matches!(user.pull(&name).await, Err(ImageError::Key { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn signatures_are_found_as_referrers_and_by_every_kind_of_key() {
    if !is_root() {
        return;
    }
    let Some(server) = DistributionRegistry::start(false) else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let kinds: [(&str, &[&str], &str); 3] = [
        ("p-256", P256, "-sha256"),
        (
            "p-384",
            &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"],
            "-sha384",
        ),
        (
            "rsa",
            &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"],
            "-sha256",
        ),
    ];
    for (kind, arguments, hash) in kinds {
        let (private, public) = key_pair(dir.path(), kind, arguments);
        let name = server.name(&format!("{kind}:1"));
        let world = World::new();
        let image = world.import(&name, tar_of(&[("file", kind.as_bytes())])).await;
        world.push(&name).await.unwrap();
        let client = world.images.registry();
        let push = client
            .repository(&name.parse().unwrap(), &Auth::Anonymous, Access::Push)
            .unwrap();
        let right = payload(&image.id);
        let mut entry = attach(
            &push,
            "",
            vec![(right.clone(), sign(dir.path(), &private, hash, &right))],
        )
        .await;
        entry.artifact_type = Some("application/vnd.dev.cosign.artifact.sig.v1+json".into());
        // This registry keeps no list of referrers, so it lies under the tag that stands for one.
        let index = serde_json::json!({
            "schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": [entry],
        });
        let tag = image.id.to_string().replace(':', "-");
        let bytes = serde_json::to_vec(&index).unwrap();
        push.manifest_put(&tag, media_type::OCI_INDEX, bytes.into())
            .await
            .unwrap();
        let user = strict(&format!("127.0.0.1:{}/{kind}", server.port), &[&public]);
        user.pull(&name)
            .await
            .unwrap_or_else(|error| panic!("{kind}: {error}"));
    }
}

/// An OCI layout of blobs, with the entries of its index.
fn layout(blobs: &[Vec<u8>], index: &serde_json::Value) -> Vec<u8> {
    let mut files = vec![
        (
            "oci-layout".to_owned(),
            br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec(),
        ),
        ("index.json".to_owned(), serde_json::to_vec(index).unwrap()),
    ];
    for blob in blobs {
        let digest = Digest::sha256(blob);
        files.push((format!("blobs/sha256/{}", digest.hex()), blob.clone()));
    }
    let borrowed: Vec<(&str, &[u8])> = files
        .iter()
        .map(|(name, bytes)| (name.as_str(), bytes.as_slice()))
        .collect();
    tar_of(&borrowed)
}

async fn load(world: &World, archive: Vec<u8>) -> Result<Vec<image::Loaded>, ImageError> {
    let images = world.images.clone();
    support::blocking(move || {
        let (progress, _events) = support::log();
        images.load(archive.as_slice(), image::LoadOptions::default(), progress)
    })
    .await
}

/// Whatever way an image comes in, its name's rule counts.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_loaded_under_a_name_that_wants_a_signature_has_one() {
    if !is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (private, public) = key_pair(dir.path(), "ours", P256);
    let (foreign, _) = key_pair(dir.path(), "other", P256);
    let world = World::new();
    // Nobody listens there: an archive must bring what is wanted.
    let name = "127.0.0.1:9/app:1";
    let image = world.import(name, tar_of(&[("file", b"signed")])).await;
    let content = world.images.store().content();
    let read = |digest: &Digest| content.read(digest, 1 << 20).unwrap();
    let mut blobs = vec![read(&image.id), read(&image.manifest.config.digest)];
    blobs.extend(image.manifest.layers.iter().map(|layer| read(&layer.digest)));
    let entry = |name: &str| {
        serde_json::json!({
            "mediaType": media_type::OCI_MANIFEST, "digest": image.id, "size": read(&image.id).len(),
            "annotations": {"io.containerd.image.name": name},
        })
    };
    let unsigned = |name: &str| {
        layout(
            &blobs,
            &serde_json::json!({"schemaVersion": 2, "manifests": [entry(name)]}),
        )
    };
    let signed = |payload: &[u8], signature: &[u8]| {
        use base64::Engine as _;
        let text = base64::engine::general_purpose::STANDARD.encode(signature);
        let manifest = serde_json::to_vec(&serde_json::json!({
            "schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST,
            "config": {"mediaType": media_type::OCI_CONFIG, "digest": Digest::sha256(b"{}"), "size": 2},
            "layers": [{
                "mediaType": "application/vnd.dev.cosign.simplesigning.v1+json",
                "digest": Digest::sha256(payload), "size": payload.len(),
                "annotations": {"dev.cosignproject.cosign/signature": text},
            }],
        }))
        .unwrap();
        let beside = serde_json::json!({
            "mediaType": media_type::OCI_MANIFEST, "digest": Digest::sha256(&manifest), "size": manifest.len(),
        });
        let mut all = blobs.clone();
        all.extend([manifest, payload.to_vec(), b"{}".to_vec()]);
        let index = serde_json::json!({"schemaVersion": 2, "manifests": [entry(name), beside]});
        layout(&all, &index)
    };
    let user = strict("127.0.0.1:9", &[&public]);
    let (right, wrong) = (payload(&image.id), payload(&Digest::sha256(b"another image")));
    for (what, archive) in [
        ("no signature", unsigned(name)),
        (
            "somebody else's",
            signed(&right, &sign(dir.path(), &foreign, "-sha256", &right)),
        ),
        (
            "of another image",
            signed(&wrong, &sign(dir.path(), &private, "-sha256", &wrong)),
        ),
        ("rubbish", signed(&right, b"rubbish")),
    ] {
        let refused = load(&user, archive).await.unwrap_err();
        assert_eq!(refused.class(), ErrorClass::Forbidden, "{what}: {refused}");
        assert!(refused.to_string().contains("ours.pub"), "{what}: {refused}");
        let store = user.images.store();
        assert!(user.images.list().unwrap().is_empty(), "{what}");
        assert!(store.snapshots().list().unwrap().is_empty(), "{what}");
        assert!(store.content().list().unwrap().is_empty(), "{what}");
    }
    // Under another name it is nobody's business.
    load(&user, unsigned("other.example/app:1")).await.unwrap();
    let loaded = load(
        &user,
        signed(&right, &sign(dir.path(), &private, "-sha256", &right)),
    )
    .await
    .unwrap();
    // The signature is no image.
    assert_eq!(loaded.len(), 1);
    assert_eq!(loaded[0].id, image.id);
    assert!(user.images.resolve(name).is_ok());

    let images = user.images.clone();
    let refused = support::blocking(move || {
        let options = image::ImportOptions {
            reference: Some("127.0.0.1:9/tree:1".parse().unwrap()),
            ..image::ImportOptions::default()
        };
        let (progress, _events) = support::log();
        images.import(tar_of(&[("file", b"x")]).as_slice(), options, progress)
    })
    .await
    .unwrap_err();
    assert_eq!(refused.class(), ErrorClass::Forbidden);
    assert!(refused.to_string().contains("cannot be imported"), "{refused}");
}

/// An image in an archive: its manifest and everything it names, and the manifest's digest.
struct Packed {
    digest: Digest,
    size: usize,
    blobs: Vec<Vec<u8>>,
}

impl Packed {
    async fn new(world: &World, name: &str) -> Packed {
        let name = format!("packed.example/{name}:1");
        let image = world.import(&name, tar_of(&[("file", name.as_bytes())])).await;
        let read = |digest: &Digest| world.images.store().content().read(digest, 1 << 20).unwrap();
        let manifest = read(&image.id);
        let size = manifest.len();
        let mut blobs = vec![manifest, read(&image.manifest.config.digest)];
        blobs.extend(image.manifest.layers.iter().map(|layer| read(&layer.digest)));
        Packed {
            digest: image.id,
            size,
            blobs,
        }
    }

    fn index(entries: &[serde_json::Value]) -> Packed {
        let bytes = serde_json::to_vec(&serde_json::json!({
            "schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": entries,
        }))
        .unwrap();
        Packed {
            digest: Digest::sha256(&bytes),
            size: bytes.len(),
            blobs: vec![bytes],
        }
    }

    /// As an index names it; `platform` is `os/architecture`.
    fn entry(&self, media_type: &str, platform: &str) -> serde_json::Value {
        let (os, architecture) = platform.split_once('/').unwrap();
        serde_json::json!({
            "mediaType": media_type, "digest": self.digest, "size": self.size,
            "platform": {"os": os, "architecture": architecture},
        })
    }

    /// A manifest of signatures of the digests, with its entry.
    fn signatures(dir: &Path, key: &str, of: &[&Digest]) -> (Packed, serde_json::Value) {
        use base64::Engine as _;
        let (mut blobs, mut layers) = (vec![b"{}".to_vec()], Vec::new());
        for digest in of {
            let payload = payload(digest);
            let text = base64::engine::general_purpose::STANDARD.encode(sign(dir, key, "-sha256", &payload));
            layers.push(serde_json::json!({
                "mediaType": "application/vnd.dev.cosign.simplesigning.v1+json",
                "digest": Digest::sha256(&payload), "size": payload.len(),
                "annotations": {"dev.cosignproject.cosign/signature": text},
            }));
            blobs.push(payload);
        }
        let manifest = serde_json::to_vec(&serde_json::json!({
            "schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST,
            "config": {"mediaType": media_type::OCI_CONFIG, "digest": Digest::sha256(b"{}"), "size": 2},
            "layers": layers,
        }))
        .unwrap();
        let entry = serde_json::json!({
            "mediaType": media_type::OCI_MANIFEST, "digest": Digest::sha256(&manifest), "size": manifest.len(),
        });
        blobs.push(manifest.clone());
        let packed = Packed {
            digest: Digest::sha256(&manifest),
            size: manifest.len(),
            blobs,
        };
        (packed, entry)
    }
}

/// An index gets a ruled name only when nothing can ever be run under it that nobody signed.
#[tokio::test(flavor = "multi_thread")]
async fn every_entry_of_a_loaded_index_that_may_be_run_is_signed() {
    if !is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (private, public) = key_pair(dir.path(), "ours", P256);
    let world = World::new();
    let signed = Packed::new(&world, "signed").await;
    let twin = Packed::new(&world, "twin").await;
    let evil = Packed::new(&world, "evil").await;
    let host = spec::Platform::host();
    let host = format!("{}/{}", host.os, host.architecture);
    let manifest = |image: &Packed, platform: &str| image.entry(media_type::OCI_MANIFEST, platform);
    let attested = || {
        let mut entry = manifest(&evil, &host);
        entry["annotations"] = serde_json::json!({"vnd.docker.reference.type": "attestation-manifest"});
        entry
    };
    let name = "127.0.0.1:9/app:1";
    // The image `top` with all the others, and signatures of those in `of`.
    let archive = |top: &Packed, others: &[&Packed], of: &[&Digest]| {
        let (beside, beside_entry) = Packed::signatures(dir.path(), &private, of);
        let mut blobs = [&top.blobs[..], &beside.blobs].concat();
        blobs.extend(others.iter().flat_map(|other| other.blobs.clone()));
        let entry = serde_json::json!({
            "mediaType": media_type::OCI_INDEX, "digest": top.digest, "size": top.size,
            "annotations": {"io.containerd.image.name": name},
        });
        layout(
            &blobs,
            &serde_json::json!({"schemaVersion": 2, "manifests": [entry, beside_entry]}),
        )
    };
    let of = [&signed.digest, &twin.digest];

    let unknown = Packed::index(&[manifest(&evil, "unknown/unknown")]);
    let marked = Packed::index(&[attested()]);
    let plain = Packed::index(&[manifest(&signed, &host)]);
    let nested = |index: &Packed| index.entry(media_type::OCI_INDEX, &host);
    for (what, entries, others) in [
        (
            "of an unknown platform in a nested index",
            vec![nested(&unknown), manifest(&signed, &host)],
            vec![&unknown, &evil, &signed],
        ),
        (
            "marked as an attestation in a nested index",
            vec![nested(&marked), manifest(&signed, &host)],
            vec![&marked, &evil, &signed],
        ),
        (
            "a nested index that is not signed itself",
            vec![nested(&plain)],
            vec![&plain, &signed],
        ),
        (
            "not here yet",
            vec![manifest(&evil, &host), manifest(&signed, &host)],
            vec![&signed],
        ),
        (
            "for another platform, not here yet",
            vec![manifest(&signed, &host), manifest(&evil, "linux/s390x")],
            vec![&signed],
        ),
        ("nothing to run", vec![attested()], vec![&evil]),
    ] {
        let user = strict("127.0.0.1:9", &[&public]);
        let top = Packed::index(&entries);
        let refused = load(&user, archive(&top, &others, &of)).await.unwrap_err();
        assert_eq!(refused.class(), ErrorClass::Forbidden, "{what}: {refused}");
        assert!(user.images.list().unwrap().is_empty(), "{what}");
        assert!(user.images.store().content().list().unwrap().is_empty(), "{what}");
    }

    // What is marked as something else is never run, at any depth.
    for (what, entries, others) in [
        (
            "each signed",
            vec![manifest(&signed, &host), manifest(&twin, "linux/s390x")],
            vec![&signed, &twin],
        ),
        (
            "an attestation beside it",
            vec![attested(), manifest(&signed, &host)],
            vec![&evil, &signed],
        ),
        (
            "an unknown index before one for another platform",
            vec![
                plain_of(&evil, &host).entry(media_type::OCI_INDEX, "unknown/unknown"),
                manifest(&signed, "linux/s390x"),
            ],
            vec![&evil, &signed],
        ),
    ] {
        let user = strict("127.0.0.1:9", &[&public]);
        let top = Packed::index(&entries);
        let unknown = plain_of(&evil, &host);
        let others = [&others[..], &[&unknown]].concat();
        load(&user, archive(&top, &others, &of))
            .await
            .unwrap_or_else(|error| panic!("{what}: {error}"));
        let chosen = user.images.resolve(name).unwrap().manifest_digest;
        assert_eq!(chosen, signed.digest, "{what}");
    }
    // A signature of the index is one of all it names.
    let user = strict("127.0.0.1:9", &[&public]);
    let top = Packed::index(&[nested(&plain), manifest(&twin, "linux/s390x")]);
    load(&user, archive(&top, &[&plain, &signed], &[&top.digest]))
        .await
        .unwrap();
}

fn plain_of(image: &Packed, platform: &str) -> Packed {
    Packed::index(&[image.entry(media_type::OCI_MANIFEST, platform)])
}

/// An archive without signatures is let in when the registry of its name has one.
#[tokio::test(flavor = "multi_thread")]
async fn a_loaded_image_may_be_signed_at_its_registry() {
    if !is_root() {
        return;
    }
    let Some(server) = DistributionRegistry::start(false) else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let (private, public) = key_pair(dir.path(), "ours", P256);
    let name = server.name("app:1");
    let world = World::new();
    let image = world.import(&name, tar_of(&[("file", b"signed")])).await;
    world.push(&name).await.unwrap();
    let images = world.images.clone();
    let saved = {
        let name = name.clone();
        support::blocking(move || {
            let mut archive = Vec::new();
            images
                .save(&[name], &mut archive, image::SaveOptions::default())
                .unwrap();
            archive
        })
        .await
    };
    let user = strict(&format!("127.0.0.1:{}", server.port), &[&public]);
    assert!(matches!(
        load(&user, saved.clone()).await,
        Err(ImageError::Unsigned { .. })
    ));
    let push = world
        .images
        .registry()
        .repository(&name.parse().unwrap(), &Auth::Anonymous, Access::Push)
        .unwrap();
    let right = payload(&image.id);
    let tag = format!("{}.sig", image.id.to_string().replace(':', "-"));
    attach(
        &push,
        &tag,
        vec![(right.clone(), sign(dir.path(), &private, "-sha256", &right))],
    )
    .await;
    load(&user, saved).await.unwrap();
}

/// A name that leads to an index stands for every platform of it: one signed entry does not let it in.
#[tokio::test(flavor = "multi_thread")]
async fn an_index_is_pulled_when_it_is_signed_or_all_of_it() {
    if !is_root() {
        return;
    }
    let Some(server) = DistributionRegistry::start(false) else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let (private, public) = key_pair(dir.path(), "ours", P256);
    let world = World::new();
    let host = spec::Platform::host();
    let host = format!("{}/{}", host.os, host.architecture);
    let (name, other) = (server.name("app:1"), server.name("app:other"));
    let mine = world
        .import(&name, tar_of(&[("file", b"for this machine")]))
        .await;
    let theirs = world.import(&other, tar_of(&[("file", b"for another")])).await;
    world.push(&name).await.unwrap();
    world.push(&other).await.unwrap();
    let push = world
        .images
        .registry()
        .repository(&name.parse().unwrap(), &Auth::Anonymous, Access::Push)
        .unwrap();
    let entry = |image: &image::Image, platform: &str| {
        let (os, architecture) = platform.split_once('/').unwrap();
        serde_json::json!({
            "mediaType": media_type::OCI_MANIFEST, "digest": image.id, "size": image.target.size,
            "platform": {"os": os, "architecture": architecture},
        })
    };
    // What is never run needs no signature.
    let about = attach(&push, "", vec![(b"about it".to_vec(), b"nothing".to_vec())]).await;
    let attested = serde_json::json!({
        "mediaType": media_type::OCI_MANIFEST, "digest": about.digest, "size": about.size,
        "platform": {"os": "unknown", "architecture": "unknown"},
        "annotations": {"vnd.docker.reference.type": "attestation-manifest"},
    });
    let index = Packed::index(&[entry(&mine, &host), entry(&theirs, "linux/riscv64"), attested]);
    let bytes = index.blobs[0].clone();
    push.manifest_put("1", media_type::OCI_INDEX, bytes.into())
        .await
        .unwrap();
    let tag = |digest: &Digest| format!("{}.sig", digest.to_string().replace(':', "-"));
    let signed = async |digest: &Digest| {
        let right = payload(digest);
        let signature = sign(dir.path(), &private, "-sha256", &right);
        attach(&push, &tag(digest), vec![(right, signature)]).await;
    };
    let reference: spec::Reference = name.parse().unwrap();
    let strict = || strict(&format!("127.0.0.1:{}", server.port), &[&public]);

    signed(&mine.id).await;
    let user = strict();
    assert!(matches!(user.pull(&name).await, Err(ImageError::Unsigned { .. })));
    let verified = user.images.verify(&reference, None, Vec::new()).await;
    assert!(matches!(verified, Err(ImageError::NotSigned { .. })));
    // What is signed can be had by its own digest.
    let alone = format!("{}@{}", server.name("app"), mine.id);
    assert_eq!(user.pull(&alone).await.unwrap().0.id, mine.id);

    signed(&theirs.id).await;
    let (image, _) = user.pull(&name).await.unwrap();
    assert_eq!(image.id, index.digest);
    let verified = user.images.verify(&reference, None, Vec::new()).await.unwrap();
    let digests: Vec<&Digest> = verified.iter().map(|verified| &verified.digest).collect();
    let (mut wanted, mut digests) = (vec![&mine.id, &theirs.id], digests);
    wanted.sort();
    digests.sort();
    assert_eq!(digests, wanted);

    // The index's own signature says all of it.
    attach(
        &push,
        &tag(&mine.id),
        vec![(payload(&mine.id), b"rubbish".to_vec())],
    )
    .await;
    let fresh = strict();
    assert!(matches!(
        fresh.pull(&name).await,
        Err(ImageError::Unsigned { .. })
    ));
    signed(&index.digest).await;
    fresh.pull(&name).await.unwrap();
    let verified = fresh.images.verify(&reference, None, Vec::new()).await.unwrap();
    assert_eq!(verified.len(), 1);
    assert_eq!(verified[0].digest, index.digest);
}
