//! Against canned servers: tokens, redirects, limits, mirrors, and registries that lie.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod support;

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use registry::{Access, Auth, Client, ClientConfig, Error, Rule};
use spec::Digest;
use spec::image::media_type;
use support::memory::{Fault, MemoryRegistry};
use support::{Answer, Canned, CuttingProxy, End, Request};

const BODY: &[u8] = br#"{"schemaVersion":2,"manifests":[]}"#;

fn manifest() -> Answer {
    Answer::new(200, BODY).with(
        "content-type",
        format!("{}; charset=utf-8", media_type::OCI_INDEX),
    )
}

fn client() -> Client {
    Client::new(ClientConfig::default()).unwrap()
}

fn basic() -> Auth {
    Auth::Basic {
        user: "u".into(),
        password: "p".into(),
    }
}

/// A registry that wants a bearer token, and its token server.
fn token_registry(grant: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> (Canned, Canned) {
    let tokens = Canned::start(grant);
    let realm = format!("http://{}/token", tokens.host());
    let registry = Canned::start(move |request| match request.header("authorization") {
        "Bearer GOOD" => manifest(),
        _ => Answer::new(
            401,
            r#"{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}"#,
        )
        .with(
            "www-authenticate",
            format!(r#"Bearer realm="{realm}",service="test.service",scope="repository:team/app:pull""#),
        ),
    });
    (registry, tokens)
}

#[tokio::test]
async fn a_token_is_fetched_once_and_kept() {
    let (registry, tokens) = token_registry(|_| Answer::new(200, r#"{"token":"GOOD","expires_in":300}"#));
    let client = client();
    let name = format!("{}/team/app", registry.host()).parse().unwrap();
    for _ in 0..2 {
        let repository = client.repository(&name, &basic(), Access::Pull).unwrap();
        assert_eq!(
            repository.manifest("latest").await.unwrap().media_type,
            media_type::OCI_INDEX
        );
    }
    let asked = tokens.seen();
    assert_eq!(asked.len(), 1, "{asked:?}");
    assert_eq!(asked[0].method, "GET");
    assert_eq!(asked[0].header("authorization"), "Basic dTpw");
    for part in [
        "service=test.service",
        "scope=repository%3Ateam%2Fapp%3Apull",
        "account=u",
    ] {
        assert!(asked[0].target.contains(part), "{}", asked[0].target);
    }
    // The password went to the token server alone.
    assert!(
        registry
            .seen()
            .iter()
            .all(|r| !r.header("authorization").starts_with("Basic"))
    );
}

#[tokio::test]
async fn an_identity_token_is_exchanged_by_post() {
    let (registry, tokens) = token_registry(|_| Answer::new(200, r#"{"access_token":"GOOD"}"#));
    let name = format!("{}/team/app", registry.host()).parse().unwrap();
    let repository = client()
        .repository(&name, &Auth::Identity("REFRESH".into()), Access::Pull)
        .unwrap();
    repository.manifest("latest").await.unwrap();
    let asked = tokens.seen();
    let body = String::from_utf8(asked[0].body.clone()).unwrap();
    assert_eq!(asked[0].method, "POST");
    for part in [
        "grant_type=refresh_token",
        "refresh_token=REFRESH",
        "service=test.service",
    ] {
        assert!(body.contains(part), "{body}");
    }
}

#[tokio::test]
async fn a_refused_token_is_told_and_not_asked_for_again() {
    let (registry, tokens) = token_registry(|_| Answer::new(200, r#"{"token":"BAD"}"#));
    let name = format!("{}/team/app", registry.host()).parse().unwrap();
    let error = client()
        .repository(&name, &Auth::Anonymous, Access::Pull)
        .unwrap()
        .manifest("latest")
        .await
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "pull access denied for {}/team/app, repository does not exist or may require 'docker login': \
             unauthorized: authentication required",
            registry.host()
        )
    );
    assert_eq!(tokens.seen().len(), 1);
}

#[tokio::test]
async fn a_login_gets_the_refresh_token() {
    let (registry, tokens) = token_registry(|request| match request.header("authorization") {
        "Basic dTpw" => Answer::new(200, r#"{"token":"GOOD","refresh_token":"KEEP"}"#),
        _ => Answer::new(401, r#"{"details":"incorrect username or password"}"#),
    });
    let result = client()
        .check_login(&format!("http://{}/v1/", registry.host()), &basic())
        .await
        .unwrap();
    assert_eq!(result.identity_token.as_deref(), Some("KEEP"));
    assert!(tokens.seen()[0].target.contains("offline_token=true"));
    let wrong = Auth::Basic {
        user: "u".into(),
        password: "x".into(),
    };
    let error = client().check_login(&registry.host(), &wrong).await.unwrap_err();
    assert!(
        error
            .to_string()
            .ends_with("unauthorized: incorrect username or password"),
        "{error}"
    );
}

#[tokio::test]
async fn credentials_do_not_follow_a_redirect() {
    let content = b"blob content".to_vec();
    let digest = Digest::sha256(&content);
    let storage = Canned::start(move |_| Answer::new(200, content.clone()));
    let target = format!("http://{}/elsewhere?signature=x", storage.host());
    let registry = Canned::start(move |request| match request.header("authorization") {
        "" => Answer::new(401, "").with("www-authenticate", "Basic realm=x"),
        _ => Answer::new(307, "").with("location", target.clone()),
    });
    let name = format!("{}/app", registry.host()).parse().unwrap();
    let mut reader = client()
        .repository(&name, &basic(), Access::Pull)
        .unwrap()
        .blob(&digest, 12, 0)
        .await
        .unwrap();
    assert_eq!(reader.chunk().await.unwrap().unwrap(), "blob content");
    assert_eq!(storage.seen().len(), 1);
    assert_eq!(storage.seen()[0].header("authorization"), "");
}

/// Where an upload goes on, and where a list does, is the registry's to say; a login is not told there.
#[tokio::test]
async fn credentials_do_not_follow_an_upload_or_a_list() {
    let storage = Canned::start(|request| match request.method.as_str() {
        "PATCH" => Answer::new(202, "").with("location", "/upload/2"),
        "PUT" => Answer::new(201, ""),
        _ => Answer::new(200, r#"{"tags":["two"]}"#),
    });
    let elsewhere = format!("http://{}", storage.host());
    let registry = Canned::start(move |request| {
        let is_list = request.target.contains("/tags/");
        match (request.header("authorization"), request.method.as_str()) {
            ("", _) => Answer::new(401, "").with("www-authenticate", "Basic realm=x"),
            (_, "POST") => Answer::new(202, "").with("location", format!("{elsewhere}/upload/1")),
            (_, "GET") if is_list => Answer::new(200, r#"{"tags":["one"]}"#)
                .with("link", format!(r#"<{elsewhere}/tags>; rel="next""#)),
            _ => Answer::new(404, ""),
        }
    });
    let name = format!("{}/app", registry.host()).parse().unwrap();
    let client = client();
    let push = client.repository(&name, &basic(), Access::Push).unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), b"content").unwrap();
    let path = file.path().to_owned();
    push.upload(
        &Digest::sha256(b"content"),
        7,
        Arc::new(move || std::fs::File::open(&path)),
    )
    .await
    .unwrap();
    let pull = client.repository(&name, &basic(), Access::Pull).unwrap();
    assert_eq!(pull.tags().await.unwrap(), ["one", "two"]);
    let seen = storage.seen();
    assert!(seen.iter().any(|request| request.method == "PUT"));
    assert!(seen.iter().any(|request| request.method == "GET"));
    for request in seen {
        assert_eq!(request.header("authorization"), "", "{request:?}");
    }
}

#[tokio::test]
async fn redirects_end() {
    let registry =
        Canned::start(|request| Answer::new(302, "").with("location", format!("{}x", request.target)));
    let name = format!("{}/app", registry.host()).parse().unwrap();
    let error = client()
        .repository(&name, &Auth::Anonymous, Access::Pull)
        .unwrap()
        .manifest("x")
        .await
        .unwrap_err();
    assert!(error.to_string().contains("more than 10 redirects"), "{error}");
}

#[tokio::test]
async fn a_busy_registry_is_asked_again() {
    let count = Arc::new(AtomicUsize::new(0));
    let counter = count.clone();
    let registry = Canned::start(move |_| match counter.fetch_add(1, Ordering::SeqCst) {
        0 => Answer::new(429, "").with("retry-after", "0"),
        1 => Answer::new(503, "").with("retry-after", "0"),
        _ => manifest(),
    });
    let name = format!("{}/app", registry.host()).parse().unwrap();
    client()
        .repository(&name, &Auth::Anonymous, Access::Pull)
        .unwrap()
        .manifest("x")
        .await
        .unwrap();
    assert_eq!(count.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn a_limit_that_stays_is_told() {
    let registry = Canned::start(|_| {
        Answer::new(
            429,
            r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"You have reached your pull rate limit."}]}"#,
        )
        .with("retry-after", "0")
    });
    let name = format!("{}/app", registry.host()).parse().unwrap();
    let error = client()
        .repository(&name, &Auth::Anonymous, Access::Pull)
        .unwrap()
        .manifest("x")
        .await
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "toomanyrequests: You have reached your pull rate limit."
    );
}

#[tokio::test]
async fn lies_are_found() {
    let other = Digest::sha256(b"something else");
    let claimed = other.clone();
    let registry = Canned::start(move |request| match request.target.as_str() {
        "/v2/app/manifests/huge" => Answer::new(200, vec![b' '; 5 << 20]),
        "/v2/app/manifests/claims" => manifest().with("docker-content-digest", claimed.to_string()),
        t if t.contains("/blobs/") => match request.header("range") {
            "" => Answer::new(200, "too long"),
            _ => Answer::new(206, "x").with("content-range", "bytes 0-0/5"),
        },
        _ => manifest(),
    });
    let name = format!("{}/app", registry.host()).parse().unwrap();
    let pull = client()
        .repository(&name, &Auth::Anonymous, Access::Pull)
        .unwrap();
    let error = pull.manifest("huge").await.unwrap_err();
    assert!(error.to_string().contains("larger than 4194304 bytes"), "{error}");
    assert!(matches!(
        pull.manifest("claims").await.unwrap_err(),
        Error::Digest { .. }
    ));
    assert!(matches!(
        pull.manifest(other.as_str()).await.unwrap_err(),
        Error::Digest { .. }
    ));
    let mut reader = pull.blob(&other, 5, 0).await.unwrap();
    let error = reader.chunk().await.unwrap_err();
    assert!(error.to_string().contains("longer than its 5 bytes"), "{error}");
    let error = pull.blob(&other, 5, 2).await.err().unwrap();
    assert!(error.to_string().contains("another range"), "{error}");
}

/// A registry that wants a token of its own, for which `answer` says what it has at a path.
fn with_token(answer: impl Fn(&str) -> Answer + Send + Sync + 'static) -> Canned {
    Canned::start(move |request| {
        let path = request.target.split('?').next().unwrap();
        if path != "/token" && request.header("authorization") != "Bearer GOOD" {
            let realm = format!(r#"Bearer realm="http://{}/token""#, request.header("host"));
            return Answer::new(401, "").with("www-authenticate", realm);
        }
        answer(path)
    })
}

/// Manifests, lists, searches and tokens; layers go on where they broke, which others test.
#[tokio::test]
async fn answers_that_break_off_or_fall_silent_are_asked_for_again() {
    for end in [End::Closed, End::Silent] {
        let asked: Arc<Mutex<HashMap<String, usize>>> = Arc::default();
        let counted = asked.clone();
        let registry = with_token(move |path| {
            let body: &[u8] = match path {
                "/token" => br#"{"token":"GOOD"}"#,
                "/v2/app/tags/list" => br#"{"tags":["one"]}"#,
                "/v1/search" => br#"{"results":[{"name":"box"}]}"#,
                _ => BODY,
            };
            let mut counted = counted.lock().unwrap();
            let count = counted.entry(path.to_owned()).or_default();
            *count += 1;
            match *count {
                1 => Answer {
                    claim: Some(body.len()),
                    end,
                    ..Answer::new(200, &body[..body.len() / 2])
                },
                _ => Answer::new(200, body),
            }
        });
        let config = ClientConfig {
            silence: Duration::from_secs(1),
            ..ClientConfig::default()
        };
        let client = Client::new(config).unwrap();
        let name = format!("{}/app", registry.host()).parse().unwrap();
        let pull = client.repository(&name, &Auth::Anonymous, Access::Pull).unwrap();
        assert_eq!(pull.manifest("latest").await.unwrap().bytes, BODY, "{end:?}");
        assert_eq!(pull.tags().await.unwrap(), ["one"], "{end:?}");
        assert_eq!(pull.referrers(&Digest::sha256(b"x"), None).await.unwrap(), []);
        let found = client
            .search(&registry.host(), "box", 10, &Auth::Anonymous)
            .await
            .unwrap();
        assert_eq!(found[0].name, "box", "{end:?}");
        let asked = asked.lock().unwrap();
        assert_eq!(asked.len(), 5, "{asked:?}");
        assert!(asked.values().all(|count| *count >= 2), "{end:?}: {asked:?}");
    }
}

#[tokio::test]
async fn answers_without_end_are_refused() {
    let endless = |status: u16| Answer {
        end: End::Endless,
        ..Answer::new(status, "")
    };
    let registry = with_token(move |path| match path {
        "/token" => Answer::new(200, r#"{"token":"GOOD"}"#),
        "/v2/app/manifests/missing" => endless(404),
        path if path.contains("/blobs/") => Answer {
            end: End::Endless,
            ..Answer::new(200, "12345")
        },
        _ => endless(200),
    });
    let name = format!("{}/app", registry.host()).parse().unwrap();
    let client = client();
    let pull = client.repository(&name, &Auth::Anonymous, Access::Pull).unwrap();
    let says = |error: Error, most: usize| {
        let text = error.to_string();
        assert!(text.contains(&format!("larger than {most} bytes")), "{text}");
    };
    says(pull.manifest("latest").await.unwrap_err(), 4 << 20);
    says(
        pull.referrers(&Digest::sha256(b"x"), None).await.unwrap_err(),
        4 << 20,
    );
    says(pull.tags().await.unwrap_err(), 16 << 20);
    let found = client.search(&registry.host(), "x", 1, &Auth::Anonymous).await;
    says(found.unwrap_err(), 16 << 20);
    // A refusal is one whatever else it says.
    let missing = pull.manifest("missing").await.unwrap_err();
    assert!(matches!(missing, Error::ManifestUnknown { .. }), "{missing}");
    // Of a blob nothing is taken beyond what it has.
    let mut taken = Vec::new();
    let mut reader = pull.blob(&Digest::sha256(b"12345"), 5, 0).await.unwrap();
    while let Ok(Some(bytes)) = reader.chunk().await {
        taken.extend_from_slice(&bytes);
    }
    assert!(taken.is_empty() || taken == b"12345", "{taken:?}");

    let tokens = Canned::start(move |_| endless(200));
    let realm = format!(r#"Bearer realm="http://{}/token""#, tokens.host());
    let registry = Canned::start(move |_| Answer::new(401, "").with("www-authenticate", realm.clone()));
    let name = format!("{}/app", registry.host()).parse().unwrap();
    let pull = client.repository(&name, &basic(), Access::Pull).unwrap();
    says(pull.manifest("latest").await.unwrap_err(), 1 << 20);
    says(
        client.check_login(&registry.host(), &basic()).await.unwrap_err(),
        1 << 20,
    );
}

/// Each page has one tag, and is followed by another.
#[tokio::test]
async fn a_list_of_tags_without_end_is_refused() {
    let pages = Arc::new(AtomicUsize::new(0));
    let counter = pages.clone();
    let registry = Canned::start(move |_| {
        let page = counter.fetch_add(1, Ordering::Relaxed);
        let tags = format!(r#"{{"tags":["{}"]}}"#, "t".repeat(1 << 20));
        Answer::new(200, tags).with("link", format!(r#"<?page={page}>; rel="next""#))
    });
    let name = format!("{}/app", registry.host()).parse().unwrap();
    let pull = client()
        .repository(&name, &Auth::Anonymous, Access::Pull)
        .unwrap();
    let error = pull.tags().await.unwrap_err().to_string();
    assert!(
        error.contains("more than 100000 tags, or 16777216 bytes"),
        "{error}"
    );
    assert!(pages.load(Ordering::Relaxed) <= 17);
}

#[tokio::test]
async fn a_server_without_ranges_is_read_past_what_is_known() {
    let registry = Canned::start(|_| Answer::new(200, "0123456789"));
    let name = format!("{}/app", registry.host()).parse().unwrap();
    let pull = client()
        .repository(&name, &Auth::Anonymous, Access::Pull)
        .unwrap();
    let mut reader = pull.blob(&Digest::sha256(b"x"), 10, 7).await.unwrap();
    assert_eq!(reader.chunk().await.unwrap().unwrap(), "789");
    assert_eq!(reader.chunk().await.unwrap(), None);
}

#[tokio::test]
async fn a_blob_that_always_ends_early_is_given_up() {
    let registry = Canned::start(|request| match request.header("range") {
        "" => Answer {
            claim: Some(10),
            ..Answer::new(200, "0123")
        },
        _ => Answer {
            claim: Some(6),
            ..Answer::new(206, "").with("content-range", "bytes 4-9/10")
        },
    });
    let config = ClientConfig {
        attempts: 2,
        ..ClientConfig::default()
    };
    let name = format!("{}/app", registry.host()).parse().unwrap();
    let pull = Client::new(config)
        .unwrap()
        .repository(&name, &Auth::Anonymous, Access::Pull)
        .unwrap();
    let mut reader = pull.blob(&Digest::sha256(b"x"), 10, 0).await.unwrap();
    assert_eq!(reader.chunk().await.unwrap().unwrap(), "0123");
    assert!(reader.chunk().await.is_err());
    assert_eq!(reader.position(), 4);
}

#[tokio::test]
async fn mirrors_are_tried_first_and_never_see_credentials() {
    let broken = Canned::start(|_| Answer::new(404, ""));
    let mirror = Canned::start(|request| match request.target.starts_with("/v2/cache/app/") {
        true => manifest(),
        false => Answer::new(404, ""),
    });
    let registry = Canned::start(|_| Answer::new(500, ""));
    let config = ClientConfig {
        rules: vec![Rule {
            prefix: format!("{}/team", registry.host()),
            mirrors: vec![
                format!("http://{}", broken.host()),
                format!("http://{}/cache", mirror.host()),
            ],
            ..Rule::default()
        }],
        ..ClientConfig::default()
    };
    let name = format!("{}/team/app", registry.host()).parse().unwrap();
    let pull = Client::new(config)
        .unwrap()
        .repository(&name, &basic(), Access::Pull)
        .unwrap();
    pull.manifest("latest").await.unwrap();
    // From then on the mirror that answered is asked first.
    pull.manifest("latest").await.unwrap();
    assert_eq!(broken.seen().len(), 1);
    assert_eq!(mirror.seen().len(), 2);
    assert!(registry.seen().is_empty());
    assert!(mirror.seen().iter().all(|r| r.header("authorization").is_empty()));
}

#[tokio::test]
async fn a_registry_that_limits_requests_gets_pieces() {
    let received = Arc::new(Mutex::new(Vec::new()));
    let store = received.clone();
    let registry = Canned::start(move |request| {
        let location = "/v2/app/blobs/uploads/1?state=s";
        let mut stored = store.lock().unwrap();
        match request.method.as_str() {
            "POST" => Answer::new(202, "").with("location", location),
            "PUT" if request.body.len() > (9 << 20) => Answer::new(413, ""),
            "PATCH" => {
                let range = format!("{}-{}", stored.len(), stored.len() + request.body.len() - 1);
                assert_eq!(request.header("content-range"), range);
                stored.extend_from_slice(&request.body);
                Answer::new(202, "").with("location", location)
            }
            "PUT" => Answer::new(201, ""),
            _ => Answer::new(404, ""),
        }
    });
    let bytes = support::noise(20 << 20, 9);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &bytes).unwrap();
    let path = file.path().to_owned();
    let name = format!("{}/app", registry.host()).parse().unwrap();
    let push = client()
        .repository(&name, &Auth::Anonymous, Access::Push)
        .unwrap();
    let source = Arc::new(move || std::fs::File::open(&path));
    push.upload(&Digest::sha256(&bytes), bytes.len() as u64, source)
        .await
        .unwrap();
    assert!(*received.lock().unwrap() == bytes);
}

/// After a break, a registry says that it has more than there is: the upload begins again.
#[tokio::test]
async fn an_upload_that_is_said_to_be_longer_than_its_blob_begins_again() {
    for said in ["0-18446744073709551615", "0-1000000", "0-7"] {
        let begun = Arc::new(AtomicUsize::new(0));
        let counter = begun.clone();
        let registry = Canned::start(move |request| match request.method.as_str() {
            "POST" => {
                let upload = counter.fetch_add(1, Ordering::Relaxed);
                Answer::new(202, "").with("location", format!("/v2/app/blobs/uploads/{upload}"))
            }
            "GET" => Answer::new(204, "").with("range", said),
            "PUT" if request.target.contains("/uploads/0") => Answer::new(503, ""),
            "PUT" if request.body == b"content" => Answer::new(201, ""),
            _ => Answer::new(400, ""),
        });
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), b"content").unwrap();
        let path = file.path().to_owned();
        let name = format!("{}/app", registry.host()).parse().unwrap();
        let push = client()
            .repository(&name, &Auth::Anonymous, Access::Push)
            .unwrap();
        let source = Arc::new(move || std::fs::File::open(&path));
        push.upload(&Digest::sha256(b"content"), 7, source).await.unwrap();
        assert_eq!(begun.load(Ordering::Relaxed), 2, "{said}");
    }
}

/// Uploads noise to `app` of a registry with a client that tries so often.
async fn upload(port: u16, attempts: u32, length: usize) -> Result<Digest, Error> {
    let bytes = support::noise(length, 11);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &bytes).unwrap();
    let path = file.path().to_owned();
    let config = ClientConfig {
        attempts,
        ..ClientConfig::default()
    };
    let name = format!("127.0.0.1:{port}/app").parse().unwrap();
    let push = Client::new(config)
        .unwrap()
        .repository(&name, &Auth::Anonymous, Access::Push)
        .unwrap();
    let digest = Digest::sha256(&bytes);
    let source = Arc::new(move || std::fs::File::open(&path));
    push.upload(&digest, length as u64, source).await?;
    Ok(digest)
}

#[tokio::test]
async fn an_upload_that_is_never_taken_is_offered_as_often_as_anything_is_asked() {
    let registry = Canned::start(|_| Answer::new(503, ""));
    let error = upload(registry.port, 2, 1000).await.unwrap_err().to_string();
    assert!(error.contains("503 Service Unavailable"), "{error}");
    let methods: Vec<String> = registry.seen().into_iter().map(|r| r.method).collect();
    assert_eq!(methods, ["POST", "POST"]);
}

/// How often uploads were begun at a registry.
fn begun(registry: &MemoryRegistry) -> usize {
    let seen = registry.server.seen();
    seen.iter().filter(|request| request.method == "POST").count()
}

/// The connection was cut once, and what had come was not sent again.
fn went_on(registry: &MemoryRegistry, proxy: &CuttingProxy, digest: &Digest) {
    assert!(registry.has_blob(digest));
    assert_eq!(proxy.cuts.load(Ordering::SeqCst), 1);
    assert_eq!(begun(registry), 1);
    assert!(registry.received() < 4 << 20, "{}", registry.received());
}

#[tokio::test]
async fn a_registry_that_is_too_busy_to_say_how_far_an_upload_got_is_asked_again() {
    // As often as one question is repeated.
    let registry = MemoryRegistry::start(|request, before| {
        (request.method == "GET" && before < 3).then_some(Fault::Status(503, None))
    });
    let proxy = CuttingProxy::start(registry.server.port, 1, 1 << 20, true);
    let digest = upload(proxy.port, 3, 3 << 20).await.unwrap();
    went_on(&registry, &proxy, &digest);
}

#[tokio::test]
async fn an_upload_goes_on_when_its_registry_is_there_again() {
    let registry = MemoryRegistry::start(|_, _| None);
    let proxy = CuttingProxy::start_leaving(registry.server.port, 1 << 20, Duration::from_secs(1));
    let digest = upload(proxy.port, 5, 3 << 20).await.unwrap();
    went_on(&registry, &proxy, &digest);
}

#[tokio::test]
async fn rules_block_rewrite_and_log_in() {
    let registry = Canned::start(|request| match request.header("authorization") {
        "Basic dTpw" if request.target.starts_with("/v2/moved/app/") => manifest(),
        "Basic dTpw" => Answer::new(404, ""),
        _ => Answer::new(401, "").with("www-authenticate", "Basic realm=r"),
    });
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("auth.json");
    let logins = format!(r#"{{"auths":{{"{}":{{"auth":"dTpw"}}}}}}"#, registry.host());
    std::fs::write(&file, logins).unwrap();
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let config = ClientConfig {
        rules: vec![
            Rule {
                prefix: "old.example/team".into(),
                location: Some(format!("{}/moved", registry.host())),
                auth_file: Some(file),
                ..Rule::default()
            },
            Rule {
                prefix: "old.example".into(),
                blocked: true,
                ..Rule::default()
            },
        ],
        ..ClientConfig::default()
    };
    let client = Client::new(config).unwrap();
    let repository = |name: &str, access| client.repository(&name.parse().unwrap(), &Auth::Anonymous, access);
    let pull = repository("old.example/team/app", Access::Pull).unwrap();
    pull.manifest("latest").await.unwrap();
    for access in [Access::Pull, Access::Push] {
        let refused = repository("old.example/other", access).err().unwrap();
        assert_eq!(refused.class(), spec::ErrorClass::Forbidden);
        let text = refused.to_string();
        assert!(
            text.contains("old.example/other is blocked") && text.contains("\"old.example\""),
            "{text}"
        );
    }
    let asked = registry.seen().len();
    assert!(repository("old.example/other", Access::Pull).is_err());
    assert_eq!(registry.seen().len(), asked, "a blocked registry was asked");
}

#[tokio::test]
async fn a_limit_for_hours_is_told_at_once_with_its_end() {
    let soon = jiff::Timestamp::now().as_second() + 2 * 3600 + 30;
    for (header, value, told) in [
        ("retry-after", "21600".to_owned(), "again in 6 h 0 min"),
        ("x-retry-after", soon.to_string(), "again in 2 h 0 min"),
    ] {
        let registry = Canned::start(move |_| Answer::new(429, "").with(header, value.clone()));
        let name = format!("{}/app", registry.host()).parse().unwrap();
        let pull = client()
            .repository(&name, &Auth::Anonymous, Access::Pull)
            .unwrap();
        let error = pull.manifest("latest").await.unwrap_err().to_string();
        assert!(
            error.contains("toomanyrequests") && error.contains(told),
            "{error}"
        );
        assert_eq!(registry.seen().len(), 1, "asked again before its time");
    }
}

/// A registry of one blob that sends parts, unless `answer` does something else.
fn blob_registry(
    bytes: Vec<u8>,
    answer: impl Fn(&Request, std::ops::Range<usize>) -> Option<Answer> + Send + Sync + 'static,
) -> Canned {
    Canned::start(move |request| {
        let asked = request
            .header("range")
            .strip_prefix("bytes=")
            .and_then(|r| r.split_once('-'));
        let Some((first, last)) = asked else {
            return answer(request, 0..bytes.len()).unwrap_or_else(|| Answer::new(200, bytes.clone()));
        };
        let range = first.parse::<usize>().unwrap()..last.parse::<usize>().unwrap() + 1;
        answer(request, range.clone()).unwrap_or_else(|| {
            let said = format!("bytes {first}-{last}/{}", bytes.len());
            Answer::new(206, &bytes[range]).with("content-range", said)
        })
    })
}

/// The blob as a reader gives it that finds every connection slow.
async fn in_parts(registry: &Canned, bytes: &[u8]) -> Result<Vec<u8>, Error> {
    let config = ClientConfig {
        ranges: registry::Ranges {
            part: 100_000,
            at_once: 3,
            enough: u64::MAX,
        },
        ..ClientConfig::default()
    };
    let name = format!("{}/app", registry.host()).parse().unwrap();
    let pull = Client::new(config)
        .unwrap()
        .repository(&name, &Auth::Anonymous, Access::Pull)?;
    let mut reader = pull.blob(&Digest::sha256(bytes), bytes.len() as u64, 0).await?;
    let mut all = Vec::new();
    while let Some(bytes) = reader.chunk().await? {
        all.extend_from_slice(&bytes);
    }
    Ok(all)
}

#[tokio::test]
async fn a_large_blob_comes_by_several_connections_at_once() {
    let bytes = support::noise(1_000_003, 7);
    // No part is answered before three were asked for.
    let (asked, enough) = (Arc::new(Mutex::new(0)), Arc::new(std::sync::Condvar::new()));
    let registry = blob_registry(bytes.clone(), move |_, range| {
        if range.start > 0 {
            let mut asked = asked.lock().unwrap();
            *asked += 1;
            enough.notify_all();
            drop(enough.wait_while(asked, |asked| *asked < 3).unwrap());
        }
        None
    });
    assert!(in_parts(&registry, &bytes).await.unwrap() == bytes);
    let requests = registry.seen();
    let mut ranges: Vec<_> = requests
        .iter()
        .map(|r| r.header("range"))
        .filter(|r| !r.is_empty())
        .collect();
    ranges.sort_unstable();
    ranges.dedup();
    assert!(
        ranges.len() >= 7 && ranges.len() + 1 == requests.len(),
        "{ranges:?}"
    );
}

#[tokio::test]
async fn parts_that_fail_are_read_over_one_connection() {
    let bytes = support::noise(1_000_003, 8);
    let whole = bytes.clone();
    let claims: [Box<dyn Fn(&Request, std::ops::Range<usize>) -> Option<Answer> + Send + Sync>; 3] = [
        // No ranges at all.
        Box::new(move |_, _| Some(Answer::new(200, whole.clone()))),
        // Another range than was asked for, while several connections ask.
        Box::new(|_, range| {
            (range.start > 0 && range.len() <= 100_000)
                .then(|| Answer::new(206, "x").with("content-range", "bytes 1-1/1000003"))
        }),
        // Several connections are too many.
        Box::new(|_, range| (range.start > 0 && range.len() <= 100_000).then(|| Answer::new(403, ""))),
    ];
    for claim in claims {
        let registry = blob_registry(bytes.clone(), claim);
        assert!(in_parts(&registry, &bytes).await.unwrap() == bytes);
    }
    // A part that breaks off is asked for again where it broke.
    let cut = AtomicUsize::new(0);
    let source = bytes.clone();
    let registry = blob_registry(bytes.clone(), move |_, range| {
        (range.start > 0 && cut.fetch_add(1, Ordering::Relaxed) == 1).then(|| {
            let said = format!("bytes {}-{}/1000003", range.start, range.end - 1);
            let half = source[range.start..range.start + range.len() / 2].to_vec();
            Answer {
                claim: Some(range.len()),
                ..Answer::new(206, half).with("content-range", said)
            }
        })
    });
    assert!(in_parts(&registry, &bytes).await.unwrap() == bytes);
}
