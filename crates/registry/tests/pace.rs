//! Transfers under a limit: they keep to it, and the waiting that is our own doing is not taken for a registry that fell
//! silent.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod support;

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use registry::{Access, Auth, Client, ClientConfig, Error, Repository};
use spec::Digest;
use support::memory::{Fault, MemoryRegistry};

/// The repository `app` of a registry, for a client that takes a second without progress for silence.
fn app(host: &str, access: Access, rate: u64, attempts: u32) -> Repository {
    let config = ClientConfig {
        silence: Duration::from_secs(1),
        limit_rate: Some(rate),
        attempts,
        ..ClientConfig::default()
    };
    let name = format!("{host}/app").parse().unwrap();
    Client::new(config)
        .unwrap()
        .repository(&name, &Auth::Anonymous, access)
        .unwrap()
}

async fn download(pull: &Repository, digest: &Digest, size: usize) -> Vec<u8> {
    let mut reader = pull.blob(digest, size as u64, 0).await.unwrap();
    let mut all = Vec::new();
    while let Some(bytes) = reader.chunk().await.unwrap() {
        all.extend_from_slice(&bytes);
    }
    all
}

async fn upload(push: &Repository, bytes: &[u8]) -> Result<(), Error> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    let path = file.path().to_owned();
    let source = Arc::new(move || std::fs::File::open(&path));
    push.upload(&Digest::sha256(bytes), bytes.len() as u64, source)
        .await
}

#[tokio::test]
async fn transfers_keep_to_their_limit() {
    let bytes = support::noise(300_000, 9);
    let registry = MemoryRegistry::start(|_, _| None);
    let digest = registry.put_blob(&bytes);
    let pull = app(&registry.server.host(), Access::Pull, 1_000_000, 1);
    let begun = std::time::Instant::now();
    assert!(download(&pull, &digest, bytes.len()).await == bytes);
    // A tenth of a second is free; a loaded machine only makes it longer.
    assert!(
        begun.elapsed() >= Duration::from_millis(190),
        "{:?}",
        begun.elapsed()
    );
}

/// Each piece waits for longer than a silence may last; the registry cuts the download and what came is not asked for again.
#[tokio::test]
async fn waiting_for_the_own_limit_is_no_silence() {
    let registry = MemoryRegistry::start(|request, before| {
        (request.method == "GET" && before == 0).then_some(Fault::Cut(700))
    });
    let host = registry.server.host();
    let bytes = support::noise(1500, 3);
    upload(&app(&host, Access::Push, 512, 2), &bytes).await.unwrap();
    assert!(registry.has_blob(&Digest::sha256(&bytes)));
    let methods = || -> Vec<String> {
        let seen = registry.server.seen();
        seen.into_iter().map(|request| request.method).collect()
    };
    let begun = |method: &str| methods().iter().filter(|seen| *seen == method).count();
    assert_eq!((begun("POST"), begun("PUT")), (1, 1), "{:?}", methods());
    assert_eq!(registry.received(), bytes.len());

    let digest = registry.put_blob(&bytes);
    let pull = app(&host, Access::Pull, 512, 2);
    assert!(download(&pull, &digest, bytes.len()).await == bytes);
    assert_eq!(registry.sent(&digest), bytes.len());
}

/// A registry that begins uploads and then reads nothing of them.
fn deaf() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap().to_string();
    // Connections stay open as long as the test.
    let open = Mutex::new(Vec::new());
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            // Somebody asks whether there is TLS.
            let mut first = [0];
            if !stream.peek(&mut first).is_ok_and(|read| read == 1) || first == [0x16] {
                continue;
            }
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let mut method = String::new();
            let mut line = String::new();
            while reader.read_line(&mut line).is_ok_and(|read| read > 2) {
                if method.is_empty() {
                    method = line.split(' ').next().unwrap().to_owned();
                }
                line.clear();
            }
            let head = "HTTP/1.1 202 X\r\ncontent-length: 0\r\nconnection: close\r\nlocation: /v2/app/blobs/uploads/1\r\n\r\n";
            if method != "PUT" {
                let _ = stream.write_all(head.as_bytes());
                continue;
            }
            open.lock().unwrap().push(stream);
        }
    });
    host
}

#[tokio::test]
async fn a_registry_that_takes_nothing_is_silent_under_a_limit_too() {
    let bytes = support::noise(32 << 20, 5);
    let push = app(&deaf(), Access::Push, 8 << 20, 1);
    let error = upload(&push, &bytes).await.unwrap_err().to_string();
    assert!(
        error.contains("no answer and no progress for 1 seconds"),
        "{error}"
    );
}
