//! Registries that lie, break off, refuse, or are not there.

use std::net::TcpListener;
use std::process::Output;

use crate::inventory::Inventory;
use crate::support::{Daemon, text};
use crate::tarball::{Image, Tar};
use crate::web::{Page, Web};

fn image() -> Image {
    let noise: Vec<u8> = (0..200_000u32)
        .flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes())
        .collect();
    Image::of(&[
        Tar::default().file("etc/first", b"one").finish(),
        Tar::default().file("etc/second", &noise).finish(),
    ])
}

#[test]
fn a_registry_that_lies_is_found_out() {
    guard!();
    let daemon = Daemon::start();
    let web = Web::start();
    let image = image();
    let before = Inventory::of(&daemon);
    let lies: &[(&str, &dyn Fn(&Web, &crate::web::Served), &str)] = &[
        (
            "another layer",
            &|web, served| web.change(&served.layers[1], |page| page.body[1000] ^= 1),
            "filesystem layer verification failed for digest sha256:",
        ),
        (
            "a longer layer",
            &|web, served| web.change(&served.layers[1], |page| page.body.extend([0; 4096])),
            "sha256:",
        ),
        (
            "another configuration",
            &|web, served| web.change(&served.config, |page| page.body[20] ^= 1),
            "sha256:",
        ),
        (
            "another manifest than it says",
            &|web, served| {
                for path in &served.manifests {
                    web.change(path, |page| page.body.push(b' '));
                }
            },
            "sha256:",
        ),
        (
            "a manifest that is none",
            &|web, served| {
                for path in &served.manifests {
                    web.put(
                        path,
                        Page {
                            headers: Vec::new(),
                            ..Page::of("<html>")
                        },
                    );
                }
            },
            "manifest",
        ),
        (
            "a manifest that is larger than any",
            &|web, served| {
                for path in &served.manifests {
                    web.put(path, Page::of(vec![b' '; 5 << 20]));
                }
            },
            "larger than 4194304 bytes",
        ),
        (
            "a manifest that says it is an index",
            &|web, served| {
                let body = r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","config":{}}"#;
                for path in &served.manifests {
                    web.put(path, Page::of(body));
                }
            },
            "unsupported manifest media type",
        ),
    ];
    let mut wrong = Vec::new();
    for (lie, tell, words) in lies {
        let served = web.serve_image("lies", &image);
        tell(&web, &served);
        let (code, text) = daemon.fails(&["pull", &served.name]);
        if code != 1 || !text.contains(words) {
            wrong.push(format!("{lie}: {code} {text}, instead of {words:?}"));
        }
        before.assert_unchanged(&daemon, lie);
        let (code, text) = daemon.fails(&["run", "--rm", &served.name]);
        assert_eq!(code, 125, "{lie}: {text}");
        before.assert_unchanged(&daemon, lie);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // The truth is taken after all that.
    let served = web.serve_image("lies", &image);
    daemon.ok(&["pull", &served.name]);
}

#[test]
fn a_registry_that_breaks_off_is_resumed_where_it_was() {
    guard!();
    let daemon = Daemon::start();
    let web = Web::start();
    let before = Inventory::of(&daemon);
    let served = web.serve_image("breaks", &image());
    web.change(&served.layers[1], |page| page.cut = Some(10_000));
    let (code, text) = daemon.fails(&["pull", &served.name]);
    assert_eq!(code, 1, "{text}");
    assert!(text.contains(&web.address), "{text}");
    // What came is kept for the next attempt, until somebody wants the space.
    daemon.ok(&["image", "prune", "-f"]);
    before.assert_unchanged(&daemon, "a pruned download");
    daemon.fails(&["pull", &served.name]);
    assert!(
        !daemon
            .ok(&["images", "--format", "{{.Repository}}"])
            .contains("breaks")
    );
    web.change(&served.layers[1], |page| page.cut = None);
    daemon.ok(&["pull", &served.name]);
    assert!(
        daemon
            .ok(&["images", "--format", "{{.Repository}}"])
            .contains("breaks")
    );
    // Nothing half is left once the whole is here.
    let downloads = std::fs::read_dir(daemon.dir.path().join("root/content/ingest")).unwrap();
    assert_eq!(downloads.count(), 0);
}

#[test]
fn a_registry_that_refuses_or_is_not_there_is_named() {
    guard!();
    let daemon = Daemon::start();
    let web = Web::start();
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let before = Inventory::of(&daemon);
    let refuse = |status: u16, body: &str| {
        for path in ["/v2/", "/v2/no/manifests/1"] {
            web.put(
                path,
                Page {
                    status,
                    ..Page::of(body)
                },
            );
        }
    };
    let name = format!("{}/no:1", web.address);
    let mut wrong = Vec::new();
    for (status, body, words) in [
        (
            404,
            r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#,
            "not found",
        ),
        (
            403,
            r#"{"errors":[{"code":"DENIED","message":"not for you"}]}"#,
            "not for you",
        ),
        (
            401,
            r#"{"errors":[{"code":"UNAUTHORIZED","message":"who are you"}]}"#,
            "docker login",
        ),
        (
            429,
            r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"slow down"}]}"#,
            "toomanyrequests: slow down",
        ),
        (500, "broken", "500"),
    ] {
        refuse(status, body);
        let (code, text) = daemon.fails(&["pull", &name]);
        if code != 1 || !text.contains(words) {
            wrong.push(format!("{status}: {code} {text}, instead of {words:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let (code, text) = daemon.fails(&["pull", &format!("{closed}/no:1")]);
    assert_eq!(code, 1, "{text}");
    assert!(
        text.contains("connection refused") && text.contains(&closed.to_string()),
        "{text}"
    );
    let (_, text) = daemon.fails(&["pull", "registry.invalid/no:1"]);
    assert!(text.contains("registry.invalid"), "{text}");
    before.assert_unchanged(&daemon, "refusing registries");
}

/// What a push is told by a registry that is not there, refuses, or breaks off; by either client.
#[test]
fn a_push_that_is_not_taken_says_why_and_leaves_nothing() {
    guard!();
    let daemon = Daemon::start();
    let web = Web::start();
    let image = image();
    let archive = daemon.dir.path().join("image.tar");
    std::fs::write(&archive, image.archive("no:1")).unwrap();
    daemon.ok(&["load", "-i", &archive.display().to_string()]);
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let name = format!("{}/no:1", web.address);
    let closed = format!("{closed}/no:1");
    for name in [&name, &closed] {
        daemon.ok(&["tag", "no:1", name]);
    }
    let uploads = "/v2/no/blobs/uploads/";
    let upload = "/v2/no/blobs/uploads/1";
    let manifest = "/v2/no/manifests/1";
    let says = |status: u16, code: &str, message: &str| Page {
        status,
        ..Page::of(format!(
            r#"{{"errors":[{{"code":"{code}","message":"{message}"}}]}}"#
        ))
    };
    let begun = Page {
        headers: vec![("Location", upload.to_owned())],
        ..Page::status(202)
    };
    let before = Inventory::of(&daemon);
    let mut wrong = Vec::new();
    let mut judge = |what: &str, output: &Output, words: &str| {
        let said = text(&output.stderr);
        if output.status.code() != Some(1) || !said.contains(words) {
            wrong.push(format!("{what}: {}, instead of {words:?}: {said}", output.status));
        }
    };
    web.put("/v2/", Page::of("{}"));
    for (status, code, message, words) in [
        (401, "UNAUTHORIZED", "who are you", "push access denied"),
        (403, "DENIED", "not for you", "not for you"),
        (404, "NAME_UNKNOWN", "no such place", "no such place"),
    ] {
        web.put(uploads, says(status, code, message));
        judge("no upload begins", &daemon.run(&["push", &name]), words);
        if let Some(theirs) = daemon.docker(&["push", &name]) {
            judge("no upload begins, docker", &theirs, words);
        }
    }
    web.put(uploads, begun);
    web.put(upload, says(507, "DENIED", "the disk is full"));
    judge(
        "an upload ends",
        &daemon.run(&["push", &name]),
        "the disk is full",
    );
    // It takes the blobs and no manifest.
    web.put(upload, Page::status(201));
    web.put(manifest, says(400, "MANIFEST_INVALID", "manifest invalid"));
    judge("no manifest", &daemon.run(&["push", &name]), "manifest invalid");
    // These are tried again for some seconds, in which a registry may come back.
    std::thread::scope(|scope| {
        web.put(
            manifest,
            Page {
                hangs_up: true,
                ..Page::default()
            },
        );
        let gone = scope.spawn(|| daemon.run(&["push", &name]));
        let nobody = scope.spawn(|| daemon.run(&["push", &closed]));
        judge(
            "it breaks off",
            &gone.join().unwrap(),
            "/v2/no/manifests/1\": connection closed",
        );
        judge("nobody listens", &nobody.join().unwrap(), "connection refused");
    });
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    before.assert_unchanged(&daemon, "pushes that were not taken");
    daemon.ok(&["image", "inspect", &name]);
}
