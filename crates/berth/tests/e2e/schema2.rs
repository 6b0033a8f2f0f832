//! Images in Docker's own documents, manifests and manifest lists of its second schema, as most of Docker Hub has them: they
//! come from a registry and go to another one byte for byte.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use spec::Digest;

use crate::private::Registry;
use crate::support::{Daemon, text};
use crate::tarball::Tar;
use crate::web::{Page, Web};

const MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const CONFIG: &str = "application/vnd.docker.container.image.v1+json";
const LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";

/// A document or a blob.
#[derive(Clone)]
struct Blob {
    media: &'static str,
    bytes: Vec<u8>,
}

impl Blob {
    fn json(media: &'static str, value: &Value) -> Blob {
        // As Docker's tools write it; nobody may write it anew.
        let bytes = serde_json::to_string_pretty(value).unwrap().replace("  ", "   ");
        Blob {
            media,
            bytes: bytes.into_bytes(),
        }
    }

    fn digest(&self) -> Digest {
        Digest::sha256(&self.bytes)
    }

    fn described(&self) -> Value {
        json!({"mediaType": self.media, "size": self.bytes.len(), "digest": self.digest().to_string()})
    }
}

/// An image for one architecture.
struct Image {
    manifest: Blob,
    config: Blob,
    layer: Blob,
}

impl Image {
    fn of(architecture: &str) -> Image {
        let busybox = std::fs::read("/bin/busybox").unwrap();
        let layer = Tar::default()
            .directory("bin/")
            .program("bin/busybox", &busybox)
            .symlink("bin/cat", "busybox")
            .file("architecture", architecture.as_bytes())
            .finish();
        let config = json!({
            "architecture": architecture,
            "os": "linux",
            "config": {"Cmd": ["cat", "/architecture"], "Env": ["PATH=/bin"]},
            "rootfs": {"type": "layers", "diff_ids": [Digest::sha256(&layer).to_string()]},
        });
        let config = Blob::json(CONFIG, &config);
        let layer = Blob {
            media: LAYER,
            bytes: gzip(&layer),
        };
        let manifest = Blob::json(
            MANIFEST,
            &json!({
                "schemaVersion": 2,
                "mediaType": MANIFEST,
                "config": config.described(),
                "layers": [layer.described()],
            }),
        );
        Image {
            manifest,
            config,
            layer,
        }
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut child = Command::new("gzip")
        .arg("-nc")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let bytes = bytes.to_vec();
    let writer = std::thread::spawn(move || input.write_all(&bytes).unwrap());
    let packed = child.wait_with_output().unwrap().stdout;
    writer.join().unwrap();
    packed
}

/// Head, in small letters, and body of what a registry on loopback has at a path.
fn get(port: u16, path: &str) -> (String, Vec<u8>) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\nAccept: {MANIFEST}, {LIST}\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
    let body = bytes.split_off(end + 4);
    (text(&bytes).to_lowercase(), body)
}

fn serve(web: &Web, images: &[Image], list: &Blob) {
    web.put("/v2/", Page::of("{}"));
    let document = |name: &str, blob: &Blob| {
        let page = Page {
            headers: vec![
                ("Content-Type", blob.media.to_owned()),
                ("Docker-Content-Digest", blob.digest().to_string()),
            ],
            ..Page::of(blob.bytes.clone())
        };
        web.put(&format!("/v2/team/app/manifests/{name}"), page);
    };
    for image in images {
        document(&image.manifest.digest().to_string(), &image.manifest);
        for blob in [&image.config, &image.layer] {
            let path = format!("/v2/team/app/blobs/{}", blob.digest());
            web.put(&path, Page::of(blob.bytes.clone()));
        }
    }
    document("single", &images[0].manifest);
    document("many", list);
    document(&list.digest().to_string(), list);
}

#[test]
fn dockers_manifests_and_lists_travel_unchanged() {
    guard!();
    let Some(registry) = Registry::start("") else {
        return;
    };
    let web = Web::start();
    let images = ["amd64", "arm64"].map(Image::of);
    let entry = |image: &Image, architecture: &str| {
        let mut entry = image.manifest.described();
        entry["platform"] = json!({"architecture": architecture, "os": "linux"});
        entry
    };
    let list = Blob::json(
        LIST,
        &json!({
            "schemaVersion": 2,
            "mediaType": LIST,
            "manifests": [entry(&images[0], "amd64"), entry(&images[1], "arm64")],
        }),
    );
    serve(&web, &images, &list);
    let [single, many] = [&images[0].manifest, &list].map(Blob::digest);
    let daemon = Daemon::start();
    let from = |reference: &str| format!("{}/team/app{reference}", web.address);
    let to = |reference: &str| format!("127.0.0.1:{}/copy/app{reference}", registry.port);

    // By tag and by digest, one manifest and one of a list.
    for (reference, digest) in [
        (":single".to_owned(), &single),
        (":many".to_owned(), &many),
        (format!("@{single}"), &single),
        (format!("@{many}"), &many),
    ] {
        let name = from(&reference);
        let pulled = daemon.ok(&["pull", &name]);
        assert!(
            pulled.contains(&format!("Digest: {digest}\n")),
            "{name}: {pulled}"
        );
        assert_eq!(
            daemon.ok(&["run", "--rm", "--network", "none", &name]),
            "amd64",
            "{name}"
        );
        let known = daemon.ok(&["image", "inspect", "-f", "{{json .RepoDigests}}", &name]);
        assert!(known.contains(&from(&format!("@{digest}"))), "{name}: {known}");
    }
    // The other platform joins the first one under the same name.
    let name = from(":many");
    daemon.ok(&["pull", "--platform", "linux/arm64", &name]);
    daemon.ok(&["create", "--platform", "linux/arm64", "--name", "other", &name]);
    let file = daemon.dir.path().join("architecture");
    daemon.ok(&["cp", "other:/architecture", &file.display().to_string()]);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "arm64");
    daemon.ok(&["rm", "other"]);
    let (_, said) = daemon.fails(&["pull", "--platform", "linux/s390x", &name]);
    assert!(said.contains("no matching manifest for linux/s390x"), "{said}");

    // To the other registry, which gets the same bytes under the same media types.
    for (tag, digest) in [(":single", &single), (":many", &many)] {
        daemon.ok(&["tag", &from(tag), &to(tag)]);
        let pushed = daemon.ok(&["push", &to(tag)]);
        assert!(pushed.contains(&format!("digest: {digest} size: ")), "{pushed}");
    }
    let manifests = [("single", &images[0].manifest), ("many", &list)];
    let by_digest = images
        .iter()
        .map(|image| (image.manifest.digest().to_string(), &image.manifest));
    let all = manifests
        .map(|(tag, blob)| (tag.to_owned(), blob))
        .into_iter()
        .chain(by_digest);
    for (name, blob) in all {
        let (head, body) = get(registry.port, &format!("/v2/copy/app/manifests/{name}"));
        assert!(
            head.contains(&format!("content-type: {}\r\n", blob.media)),
            "{name}: {head}"
        );
        assert_eq!(text(&body), text(&blob.bytes), "{name}");
    }
    for image in &images {
        for blob in [&image.config, &image.layer] {
            let (head, body) = get(registry.port, &format!("/v2/copy/app/blobs/{}", blob.digest()));
            assert!(
                head.starts_with("http/1.1 200") && body == blob.bytes,
                "{}: {head}",
                blob.media
            );
        }
    }

    // And back, where nothing of it is left, by each client.
    let there = Daemon::start();
    for (tag, digest) in [(":single", &single), (":many", &many)] {
        let told = format!("Digest: {digest}\n");
        let pulled = there.ok(&["pull", &to(tag)]);
        assert!(pulled.contains(&told), "{pulled}");
        assert_eq!(there.ok(&["run", "--rm", "--network", "none", &to(tag)]), "amd64");
        there.ok(&["rmi", &to(tag)]);
        if let Some(docker) = there.docker(&["pull", &to(tag)]) {
            let said = format!("{}{}", text(&docker.stdout), text(&docker.stderr));
            assert!(docker.status.success() && said.contains(&told), "{said}");
        }
    }
}
