//! Against a real registry: uploads, manifests, mounts, tags, passwords, and broken connections.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod support;

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use registry::{Access, Auth, Client, ClientConfig, Error, Repository};
use spec::image::media_type;
use spec::{Digest, Reference};
use support::{CuttingProxy, DistributionRegistry, noise};

fn client() -> Client {
    Client::new(ClientConfig::default()).unwrap()
}

fn repository(name: &str, access: Access) -> Repository {
    client()
        .repository(&name.parse().unwrap(), &Auth::Anonymous, access)
        .unwrap()
}

async fn upload(to: &Repository, bytes: &[u8]) -> Result<Digest, Error> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    let path = file.path().to_owned();
    let digest = Digest::sha256(bytes);
    to.upload(&digest, bytes.len() as u64, Arc::new(move || File::open(&path)))
        .await?;
    Ok(digest)
}

async fn download(from: &Repository, digest: &Digest, size: usize, offset: u64) -> Result<Vec<u8>, Error> {
    let mut reader = from.blob(digest, size as u64, offset).await?;
    let mut bytes = Vec::new();
    while let Some(more) = reader.chunk().await? {
        bytes.extend_from_slice(&more);
    }
    Ok(bytes)
}

fn manifest(config: &Digest, size: usize) -> Vec<u8> {
    format!(
        r#"{{"schemaVersion":2,"mediaType":"{}","config":{{"mediaType":"{}","digest":"{config}","size":{size}}},"layers":[]}}"#,
        media_type::OCI_MANIFEST,
        media_type::OCI_CONFIG
    )
    .into_bytes()
}

#[tokio::test]
async fn blobs_and_manifests_make_the_round_trip() {
    let Some(server) = DistributionRegistry::start(false) else {
        return;
    };
    let push = repository(&server.name("team/app"), Access::Push);
    let bytes = noise(3 << 20, 1);
    let digest = upload(&push, &bytes).await.unwrap();
    assert_eq!(push.blob_size(&digest).await.unwrap(), Some(bytes.len() as u64));
    assert_eq!(push.blob_size(&Digest::sha256(b"absent")).await.unwrap(), None);
    assert_eq!(upload(&push, b"").await.unwrap(), Digest::sha256(b""));

    let document = manifest(&digest, bytes.len());
    push.manifest_put("v1", media_type::OCI_MANIFEST, document.clone().into())
        .await
        .unwrap();
    push.manifest_put("v2", media_type::OCI_MANIFEST, document.clone().into())
        .await
        .unwrap();

    let pull = repository(&server.name("team/app"), Access::Pull);
    let fetched = pull.manifest("v1").await.unwrap();
    assert_eq!(fetched.bytes, document);
    assert_eq!(fetched.media_type, media_type::OCI_MANIFEST);
    assert_eq!(
        pull.manifest(fetched.digest.as_str()).await.unwrap().bytes,
        document
    );
    let head = pull.manifest_head("v1").await.unwrap().unwrap();
    assert_eq!((head.digest, head.size), (fetched.digest, document.len() as u64));
    assert_eq!(pull.manifest_head("absent").await.unwrap(), None);
    let mut tags = pull.tags().await.unwrap();
    tags.sort();
    assert_eq!(tags, ["v1", "v2"]);
    assert_eq!(download(&pull, &digest, bytes.len(), 0).await.unwrap(), bytes);
    assert_eq!(
        download(&pull, &digest, bytes.len(), 1_000_000).await.unwrap(),
        bytes[1_000_000..]
    );

    let other = repository(&server.name("team/other"), Access::Push);
    assert_eq!(other.blob_size(&digest).await.unwrap(), None);
    assert!(other.mount(&digest, "team/app").await.unwrap());
    assert_eq!(other.blob_size(&digest).await.unwrap(), Some(bytes.len() as u64));
    assert!(!other.mount(&Digest::sha256(b"absent"), "team/app").await.unwrap());
}

#[tokio::test]
async fn what_is_absent_is_told_in_dockers_words() {
    let Some(server) = DistributionRegistry::start(false) else {
        return;
    };
    let name = server.name("nosuch");
    let pull = repository(&name, Access::Pull);
    let error = pull.manifest("latest").await.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("manifest for {name}:latest not found: manifest unknown: manifest unknown")
    );
    let error = download(&pull, &Digest::sha256(b"absent"), 5, 0)
        .await
        .unwrap_err();
    assert!(matches!(error, Error::BlobUnknown { .. }), "{error}");
}

#[tokio::test]
async fn nobody_listening_is_told_at_once() {
    let port = support::free_port();
    let pull = repository(&format!("127.0.0.1:{port}/x"), Access::Pull);
    let error = pull.manifest("latest").await.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "Get \"http://127.0.0.1:{port}/v2/x/manifests/latest\": dial tcp 127.0.0.1:{port}: connect: connection refused"
        )
    );
}

#[tokio::test]
async fn a_cut_download_goes_on_where_it_broke() {
    let Some(server) = DistributionRegistry::start(false) else {
        return;
    };
    let bytes = noise(4 << 20, 2);
    let digest = upload(&repository(&server.name("app"), Access::Push), &bytes)
        .await
        .unwrap();
    let proxy = CuttingProxy::start(server.port, 3, 1 << 20, false);
    let pull = repository(&format!("127.0.0.1:{}/app", proxy.port), Access::Pull);
    assert_eq!(download(&pull, &digest, bytes.len(), 0).await.unwrap(), bytes);
    assert_eq!(proxy.cuts.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn a_cut_upload_goes_on_where_it_broke() {
    let Some(server) = DistributionRegistry::start(false) else {
        return;
    };
    let bytes = noise(4 << 20, 3);
    let proxy = CuttingProxy::start(server.port, 2, 1 << 20, true);
    let push = repository(&format!("127.0.0.1:{}/app", proxy.port), Access::Push);
    let digest = upload(&push, &bytes).await.unwrap();
    assert_eq!(proxy.cuts.load(Ordering::SeqCst), 2);
    let pull = repository(&server.name("app"), Access::Pull);
    assert_eq!(download(&pull, &digest, bytes.len(), 0).await.unwrap(), bytes);
}

#[tokio::test]
async fn passwords_are_asked_for_and_checked() {
    let Some(server) = DistributionRegistry::start(true) else {
        return;
    };
    let right = Auth::Basic {
        user: "user".into(),
        password: "secret".into(),
    };
    let wrong = Auth::Basic {
        user: "user".into(),
        password: "wrong".into(),
    };
    let name: Reference = server.name("app").parse().unwrap();
    let host = format!("127.0.0.1:{}", server.port);

    let result = client().check_login(&host, &right).await.unwrap();
    assert_eq!(
        (result.status.as_str(), result.identity_token),
        ("Login Succeeded", None)
    );
    let error = client().check_login(&host, &wrong).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("login attempt to http://{host}/v2/ failed with status: 401 Unauthorized")
    );
    assert_eq!(error.class(), spec::ErrorClass::Unauthorized);

    let push = client().repository(&name, &right, Access::Push).unwrap();
    let digest = upload(&push, b"content").await.unwrap();
    assert_eq!(
        download(
            &client().repository(&name, &right, Access::Pull).unwrap(),
            &digest,
            7,
            0
        )
        .await
        .unwrap(),
        b"content"
    );
    for auth in [Auth::Anonymous, wrong] {
        let error = client()
            .repository(&name, &auth, Access::Pull)
            .unwrap()
            .manifest("x")
            .await
            .unwrap_err();
        let text = error.to_string();
        assert!(
            text.starts_with(&format!(
                "pull access denied for {host}/app, repository does not exist"
            )),
            "{text}"
        );
        let error = upload(
            &client().repository(&name, &auth, Access::Push).unwrap(),
            b"content",
        )
        .await
        .unwrap_err();
        assert!(matches!(error, Error::PushDenied { .. }), "{error}");
    }
}
