//! Images between this engine and others, both ways, through a registry and in archives: Debian's dockerd, skopeo, podman and
//! umoci read what is pushed and saved here, and we what they push and save. What has a digest has the same one everywhere.

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;
use spec::Digest;

use crate::peer::Peer;
use crate::private::Registry;
use crate::support::{Daemon, left_out, text};

/// What a program of the host's prints; `None`, with the reason told, where there is none.
fn program(name: &str, args: &[&str]) -> Option<String> {
    let output = Command::new(name).args(args).stdin(Stdio::null()).output();
    let Ok(output) = output else {
        left_out(&format!("needs {name} (package {name})"));
        return None;
    };
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{name} {args:?}: {out}{err}");
    Some(out)
}

fn skopeo(args: &[&str]) -> Option<String> {
    program("skopeo", args)
}

/// A copy by skopeo, whose registries are all on loopback.
fn copy(options: &[&str], from: &str, to: &str) -> Option<()> {
    let open = ["copy", "-q", "--src-tls-verify=false", "--dest-tls-verify=false"];
    skopeo(&[&open[..], options, &[from, to]].concat()).map(drop)
}

/// podman with a storage of its own, which is never mounted.
struct Podman<'a>(&'a Path);

impl Podman<'_> {
    fn run(&self, args: &[&str]) -> Option<String> {
        let at = |name: &str| self.0.join(name).display().to_string();
        let own = [
            ("--root", at("podman")),
            ("--runroot", at("podman-run")),
            ("--tmpdir", at("podman-tmp")),
            ("--storage-driver", "vfs".to_owned()),
            ("--events-backend", "file".to_owned()),
            ("--cgroup-manager", "cgroupfs".to_owned()),
        ];
        let own: Vec<&str> = own
            .iter()
            .flat_map(|(flag, value)| [*flag, value.as_str()])
            .collect();
        program("podman", &[&own[..], args].concat())
    }
}

/// The digest after a word in what a pull or push says.
fn digest_after(said: &str, word: &str) -> String {
    let rest = said
        .split(word)
        .nth(1)
        .unwrap_or_else(|| panic!("no {word:?} in {said}"));
    let digest = rest.split_whitespace().next().unwrap_or_default();
    digest.parse::<Digest>().unwrap_or_else(|_| panic!("{said}"));
    digest.to_owned()
}

/// The digest of the configuration that a manifest names.
fn config_of(manifest: &str) -> String {
    let manifest: Value = serde_json::from_str(manifest).unwrap();
    manifest["config"]["digest"].as_str().unwrap().to_owned()
}

/// The digest of the configuration that an image in a docker archive has.
fn config_in(archive: &Path) -> String {
    let archive = archive.display().to_string();
    let listed = program("tar", &["-xOf", &archive, "manifest.json"]).unwrap();
    let listed: Value = serde_json::from_str(&listed).unwrap();
    let config = listed[0]["Config"].as_str().unwrap();
    let hex = config.rsplit('/').next().unwrap().trim_end_matches(".json");
    format!("sha256:{hex}")
}

/// An image of two layers on top of `box:1`, one of which removes something, under this name.
fn build(daemon: &Daemon, name: &str) {
    let context = daemon.dir.path().join("context");
    std::fs::create_dir_all(&context).unwrap();
    let dockerfile = "FROM box:1\nRUN echo first > /first && ln -s first /link && rm /etc/passwd\n\
                      RUN mkdir -m 700 /kept && echo second > /kept/second\nENV A=b\nCMD [\"cat\", \"/link\"]\n";
    std::fs::write(context.join("Dockerfile"), dockerfile).unwrap();
    daemon.ok(&["build", "-q", "-t", name, &context.display().to_string()]);
}

#[test]
fn others_read_what_is_pushed_and_saved_here() {
    guard!();
    let Some(registry) = Registry::start("") else {
        return;
    };
    let daemon = Daemon::start();
    let dir = daemon.dir.path();
    let at = |name: &str| dir.join(name).display().to_string();
    let name = format!("127.0.0.1:{}/ours/made:1", registry.port);
    let remote = format!("docker://{name}");
    build(&daemon, &name);
    let digest = digest_after(&daemon.ok(&["push", &name]), "1: digest: ");

    // skopeo, which keeps the bytes of what it copies.
    let raw = skopeo(&["inspect", "--tls-verify=false", "--raw", &remote]);
    if let Some(raw) = &raw {
        assert_eq!(Digest::sha256(raw.as_bytes()).to_string(), digest);
        copy(&[], &remote, &format!("dir:{}", at("plain")));
        let copied = std::fs::read(dir.join("plain/manifest.json")).unwrap();
        assert_eq!(Digest::sha256(&copied).to_string(), digest);
        copy(&[], &remote, &format!("oci:{}:made", at("layout")));
        let index = std::fs::read_to_string(dir.join("layout/index.json")).unwrap();
        assert!(index.contains(&digest), "{index}");
        copy(
            &[],
            &remote,
            &format!("docker-archive:{}:made:1", at("docker.tar")),
        );
        assert_eq!(config_in(&dir.join("docker.tar")), config_of(raw));
        // umoci, of the layout that is byte for byte ours.
        let image = format!("{}:made", at("layout"));
        if program("umoci", &["unpack", "--image", &image, &at("bundle")]).is_some() {
            let root = dir.join("bundle/rootfs");
            assert_eq!(std::fs::read(root.join("kept/second")).unwrap(), b"second\n");
            assert_eq!(std::fs::read_link(root.join("link")).unwrap(), Path::new("first"));
            assert!(!root.join("etc/passwd").exists() && root.join("etc").is_dir());
        }
    }

    // dockerd, whose ID of an image is the digest of its configuration.
    if let Some(peer) = Peer::for_a_part() {
        assert_eq!(digest_after(&peer.ok(&["pull", &name]), "Digest: "), digest);
        let shown = peer.ok(&["run", "--rm", "--network", "none", &name]);
        assert_eq!(shown, "first\n");
        let id = peer.ok(&["image", "inspect", "-f", "{{.Id}}", &name]);
        if let Some(raw) = &raw {
            assert_eq!(id.trim(), config_of(raw));
        }
        peer.ok(&["rmi", &name]);
    }

    // podman, from the registry and from an archive of ours.
    let podman = Podman(dir);
    if podman.run(&["pull", "-q", "--tls-verify=false", &name]).is_some() {
        let inspect = [
            "image",
            "inspect",
            "--format",
            "{{.Digest}} {{.ID}}",
            name.as_str(),
        ];
        let pulled = podman.run(&inspect).unwrap();
        assert!(pulled.starts_with(&digest), "{pulled} instead of {digest}");
        podman.run(&["rmi", &name]);
        let saved = at("saved.tar");
        daemon.ok(&["save", "-o", &saved, &name]);
        podman.run(&["load", "-q", "-i", &saved]);
        let loaded = podman.run(&inspect).unwrap();
        assert_eq!(
            loaded.split(' ').nth(1),
            pulled.split(' ').nth(1),
            "{loaded}, {pulled}"
        );
    }
}

/// An image that somebody else pushed: it comes with the digest it has there, works, and goes elsewhere with the same one.
fn takes(daemon: &Daemon, registry: &Registry, name: &str, digest: &str) {
    assert_eq!(
        digest_after(&daemon.ok(&["pull", name]), "Digest: "),
        digest,
        "{name}"
    );
    let run = ["run", "--rm", "--network", "none", name, "/bin/cat", "/srv/seed"];
    assert_eq!(daemon.ok(&run), "from the image\n", "{name}");
    let path = name.split_once('/').unwrap().1;
    let copy = format!("127.0.0.1:{}/copied/{path}", registry.port);
    daemon.ok(&["tag", name, &copy]);
    assert_eq!(
        digest_after(&daemon.ok(&["push", &copy]), "1: digest: "),
        digest,
        "{name}"
    );
    daemon.ok(&["rmi", name, &copy]);
}

#[test]
fn what_others_push_comes_and_goes_with_its_digest() {
    guard!();
    let Some(registry) = Registry::start("") else {
        return;
    };
    let daemon = Daemon::start();
    let dir = daemon.dir.path();
    let at = |name: &str| dir.join(name).display().to_string();
    let named = |rest: &str| format!("127.0.0.1:{}/{rest}:1", registry.port);
    let archive = at("box.tar");
    daemon.ok(&["save", "-o", &archive, "box:1"]);

    if let Some(peer) = Peer::for_a_part() {
        let name = named("docker/app");
        peer.ok(&["load", "-i", &archive]);
        std::fs::write(dir.join("more"), "more\n").unwrap();
        peer.ok(&["create", "--name", "changed", "box:1", "true"]);
        peer.ok(&["cp", &at("more"), "changed:/more"]);
        peer.ok(&["commit", "changed", &name]);
        let digest = digest_after(&peer.ok(&["push", &name]), "1: digest: ");
        takes(&daemon, &registry, &name, &digest);
        // And there it is the same image again.
        let id = peer.ok(&["image", "inspect", "-f", "{{.Id}}", &name]);
        let copy = named("copied/docker/app");
        assert_eq!(digest_after(&peer.ok(&["pull", &copy]), "Digest: "), digest);
        assert_eq!(peer.ok(&["image", "inspect", "-f", "{{.Id}}", &copy]), id);
        peer.ok(&["rm", "changed"]);
    }

    // Every kind of manifest and compression that skopeo makes, and what is read as its plain form. Each has a layer of its
    // own, since skopeo takes what the registry has already.
    for (what, options) in [
        ("oci", &["--format", "oci"][..]),
        ("v2s2", &["--format", "v2s2"][..]),
        ("zstd", &["--format", "oci", "--dest-compress-format", "zstd"][..]),
        (
            "chunked",
            &["--format", "oci", "--dest-compress-format", "zstd:chunked"][..],
        ),
        (
            "gzip",
            &["--dest-compress-format", "gzip", "--dest-compress-level", "1"][..],
        ),
    ] {
        let (name, file) = (named(&format!("skopeo/{what}")), at(&format!("{what}.digest")));
        let options = [options, &["--digestfile", file.as_str()]].concat();
        let (context, made) = (dir.join("context"), at("made.tar"));
        std::fs::create_dir_all(&context).unwrap();
        let dockerfile = format!("FROM box:1\nRUN echo {what} > /kind\n");
        std::fs::write(context.join("Dockerfile"), dockerfile).unwrap();
        daemon.ok(&["build", "-q", "-t", "kind:1", &context.display().to_string()]);
        daemon.ok(&["save", "-o", &made, "kind:1"]);
        let (from, to) = (format!("docker-archive:{made}"), format!("docker://{name}"));
        if copy(&options, &from, &to).is_some() {
            let pushed = skopeo(&["inspect", "--tls-verify=false", "--raw", &to]).unwrap();
            let kind = match what {
                "zstd" => "tar+zstd",
                "chunked" => "io.containers.zstd-chunked.manifest-position",
                _ => "gzip",
            };
            assert!(pushed.contains(kind), "{what}: {pushed}");
            let digest = std::fs::read_to_string(&file).unwrap();
            takes(&daemon, &registry, &name, digest.trim());
        }
    }

    let podman = Podman(dir);
    if podman.run(&["load", "-q", "-i", &archive]).is_some() {
        let (name, file) = (named("podman/app"), at("podman.digest"));
        let ids = podman.run(&["images", "-q", "--no-trunc"]).unwrap();
        podman.run(&["tag", ids.trim(), &name]);
        podman.run(&["push", "-q", "--tls-verify=false", "--digestfile", &file, &name]);
        takes(
            &daemon,
            &registry,
            &name,
            std::fs::read_to_string(&file).unwrap().trim(),
        );
        for format in ["docker-archive", "oci-archive"] {
            let saved = at(&format!("podman-{format}.tar"));
            podman.run(&["save", "-q", "--format", format, "-o", &saved, &name]);
            daemon.ok(&["load", "-i", &saved]);
            if format == "docker-archive" {
                // podman's ID is the configuration's digest.
                let again = dir.join("again.tar");
                daemon.ok(&["save", "-o", &again.display().to_string(), &name]);
                assert_eq!(config_in(&again), ids.trim());
            } else {
                let index = program("tar", &["-xOf", &saved, "index.json"]).unwrap();
                let id = daemon.ok(&["image", "inspect", "-f", "{{.Id}}", &name]);
                assert!(index.contains(id.trim()), "{id}: {index}");
            }
            let run = [
                "run",
                "--rm",
                "--network",
                "none",
                name.as_str(),
                "cat",
                "/srv/seed",
            ];
            assert_eq!(daemon.ok(&run), "from the image\n", "{format}");
            daemon.ok(&["rmi", &name]);
        }
    }

    // An image that umoci made of a tree, in a layout, packed and pushed.
    let layout = at("layout");
    if program("umoci", &["init", "--layout", &layout]).is_some() {
        let image = format!("{layout}:made");
        let umoci = |args: &[&str]| program("umoci", args).unwrap();
        umoci(&["new", "--image", &image]);
        umoci(&["unpack", "--image", &image, &at("bundle")]);
        let copied = Command::new("cp")
            .arg("-a")
            .arg(dir.join("base/."))
            .arg(dir.join("bundle/rootfs"))
            .status();
        assert!(copied.unwrap().success());
        umoci(&["repack", "--image", &image, &at("bundle")]);
        std::fs::write(dir.join("bundle/rootfs/more"), "more\n").unwrap();
        std::fs::remove_file(dir.join("bundle/rootfs/etc/passwd")).unwrap();
        umoci(&["repack", "--refresh-bundle", "--image", &image, &at("bundle")]);
        umoci(&[
            "config",
            "--image",
            &image,
            "--config.cmd",
            "/bin/cat",
            "--config.cmd",
            "/more",
        ]);
        let packed = at("layout.tar");
        program("tar", &["-cf", &packed, "-C", &layout, "."]);
        let loaded = daemon.ok(&["load", "-i", &packed]);
        let loaded = loaded
            .split("sha256:")
            .nth(1)
            .map(|hex| format!("sha256:{}", hex.trim()));
        let index: Value =
            serde_json::from_slice(&std::fs::read(dir.join("layout/index.json")).unwrap()).unwrap();
        let digest = index["manifests"][0]["digest"].as_str().unwrap();
        let shown = loaded.as_deref().unwrap();
        assert_eq!(daemon.ok(&["run", "--rm", "--network", "none", shown]), "more\n");
        let listed = daemon.ok(&["run", "--rm", "--network", "none", shown, "/bin/ls", "/etc"]);
        assert!(!listed.contains("passwd"), "{listed}");
        let (name, from) = (named("umoci/app"), format!("oci:{image}"));
        if copy(&[], &from, &format!("docker://{name}")).is_some() {
            takes(&daemon, &registry, &name, digest);
        }
    }
}
