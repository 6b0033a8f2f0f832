//! Our own client over BuildKit's protocol: what it lends, what becomes of results, what it shows.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use bollard_buildkit_proto::moby::buildkit::v1::BuildHistoryRequest;
use bollard_buildkit_proto::moby::buildkit::v1::control_client::ControlClient;
use serde_json::Value;

use crate::http::request;
use crate::support::{BERTH, Daemon, left_out, retry, text};

/// A daemon, and a directory to build from.
pub(super) struct Place {
    pub daemon: Daemon,
}

impl Place {
    pub fn start() -> Place {
        let daemon = Daemon::start();
        std::fs::create_dir_all(daemon.dir.path().join("context")).unwrap();
        Place { daemon }
    }

    fn context(&self) -> PathBuf {
        self.daemon.dir.path().join("context")
    }

    pub fn write(&self, name: &str, content: &str) {
        let path = self.context().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(BERTH);
        command
            .arg("build")
            .args(args)
            .current_dir(self.context())
            .env("DOCKER_HOST", self.daemon.socket())
            .stdin(Stdio::null());
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// Standard output and standard error of a build that must succeed.
    pub fn ok(&self, args: &[&str]) -> (Vec<u8>, String) {
        let output = self.run(args);
        let shown = text(&output.stderr);
        assert!(output.status.success(), "{args:?}: {shown}{}", self.daemon.log());
        (output.stdout, shown)
    }

    pub fn fails(&self, args: &[&str]) -> (i32, String) {
        let output = self.run(args);
        assert!(!output.status.success(), "{args:?} succeeded");
        (output.status.code().unwrap_or(-1), text(&output.stderr))
    }

    pub fn said(&self, image: &str, script: &str) -> String {
        self.daemon.ok(&["run", "--rm", image, "sh", "-c", script])
    }
}

pub(super) fn until(what: &str, holds: &dyn Fn() -> bool) {
    assert!(retry(|| holds().then_some(())).is_some(), "{what}");
}

pub(super) fn json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

const FILES: &str = "FROM scratch\nCOPY a /dir/a\nCOPY link /dir/\n";

#[test]
fn results_go_where_the_client_wants_them() {
    guard!();
    let place = Place::start();
    place.write("a", "content\n");
    std::os::unix::fs::symlink("a", place.context().join("link")).unwrap();
    place.write("Dockerfile", FILES);
    let out = place.daemon.dir.path().join("out");
    // Over what is there.
    std::fs::create_dir_all(out.join("dir")).unwrap();
    std::fs::write(out.join("dir/kept"), "kept").unwrap();
    place.ok(&["-o", &out.display().to_string(), "."]);
    assert_eq!(read(&out.join("dir/a")), "content\n");
    assert_eq!(read(&out.join("dir/kept")), "kept");
    let left: Vec<_> = std::fs::read_dir(&out)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(left, ["dir"], "what was under way is gone");
    let (tar, _) = place.ok(&["-o", "-", "."]);
    let listed = unpack(&tar, &place.daemon.dir.path().join("tar"));
    assert_eq!(listed, ["dir", "dir/a", "dir/link"]);
    // Nothing but the cache.
    let before = place.daemon.ok(&["images", "-aq"]);
    place.ok(&["-o", "type=cacheonly", "-t", "never:1", "."]);
    assert_eq!(place.daemon.ok(&["images", "-aq"]), before);
    let archive = place.daemon.dir.path().join("image.tar");
    let to = format!("type=docker,dest={}", archive.display());
    place.ok(&["-t", "kept:1", "-o", &to, "."]);
    place.daemon.fails(&["image", "inspect", "kept:1"]);
    place.daemon.ok(&["load", "-i", &archive.display().to_string()]);
    place.daemon.ok(&["image", "inspect", "kept:1"]);
    // Two at once: an archive and the engine.
    let to = format!("type=oci,dest={}", archive.display());
    place.ok(&["-t", "both:1", "-o", &to, "--load", "."]);
    place.daemon.ok(&["image", "inspect", "both:1"]);
    let unpacked = place.daemon.dir.path().join("oci");
    assert!(unpack(&std::fs::read(&archive).unwrap(), &unpacked).contains(&"index.json".to_owned()));
    for (output, words) in [
        ("type=tape", "unknown type of output"),
        ("type=local", "dest is required"),
        ("type=tar,dest=/no/such/place", "/no/such/place"),
        ("type=image,compression=estargz", "estargz"),
    ] {
        let (_, said) = place.fails(&["-o", output, "."]);
        assert!(said.contains(words), "{output}: {said}");
    }
}

/// The names in an archive, which is unpacked into a directory.
fn unpack(archive: &[u8], into: &Path) -> Vec<String> {
    std::fs::create_dir_all(into).unwrap();
    let mut tar = Command::new("tar")
        .args(["-x", "-v", "-C"])
        .arg(into)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = tar.stdin.take().unwrap();
    let archive = archive.to_vec();
    let writer = std::thread::spawn(move || stdin.write_all(&archive));
    let output = tar.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(output.status.success());
    let listed = text(&output.stdout);
    let mut names: Vec<String> = listed
        .lines()
        .map(|line| line.trim_end_matches('/').to_owned())
        .collect();
    names.sort();
    names
}

#[test]
fn layers_are_compressed_as_asked_and_manifests_annotated() {
    guard!();
    let place = Place::start();
    place.write("a", "content\n");
    place.write("Dockerfile", "FROM box:1\nCOPY a /a\n");
    let layout = |options: &str| {
        let dir = tempfile::tempdir().unwrap();
        let to = format!("type=oci,tar=false,dest={},{options}", dir.path().display());
        place.ok(&[
            "-t",
            "x:1",
            "--annotation",
            "org.example.word=said",
            "-o",
            &to,
            ".",
        ]);
        let blob = |digest: &Value| {
            let (algorithm, hex) = digest.as_str().unwrap().split_once(':').unwrap();
            dir.path().join("blobs").join(algorithm).join(hex)
        };
        let index = json(&dir.path().join("index.json"));
        let manifest = json(&blob(&index["manifests"][0]["digest"]));
        assert_eq!(manifest["annotations"]["org.example.word"], "said");
        assert_eq!(
            index["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"],
            "1"
        );
        let layers = manifest["layers"].as_array().unwrap().clone();
        let heads = layers.iter().map(|layer| {
            let kind = layer["mediaType"]
                .as_str()
                .unwrap()
                .rsplit('.')
                .next()
                .unwrap()
                .to_owned();
            let bytes = std::fs::read(blob(&layer["digest"])).unwrap();
            (kind, bytes[..2].to_vec())
        });
        heads.collect::<Vec<_>>()
    };
    let zstd = ("tar+zstd".to_owned(), vec![0x28, 0xb5]);
    let plain = layout("compression=gzip");
    let base = plain[0].clone();
    assert_eq!(plain[1], ("tar+gzip".to_owned(), vec![0x1f, 0x8b]));
    // What was not made here stays as it is, unless it must not.
    assert_eq!(
        layout("compression=zstd,compression-level=3"),
        [base, zstd.clone()]
    );
    assert_eq!(
        layout("compression=zstd,force-compression=true"),
        [zstd.clone(), zstd]
    );
    let tar = layout("compression=uncompressed");
    assert_eq!(tar[1].0, "tar");
    let (_, said) = place.fails(&["-o", "type=oci,dest=x,compression-level=99,compression=zstd", "."]);
    assert!(said.contains("at most 22"), "{said}");
}

#[test]
fn a_layout_knows_its_own_image_beside_other_outputs() {
    guard!();
    let place = Place::start();
    place.write("a", "content\n");
    place.write("Dockerfile", "FROM box:1\nCOPY a /a\n");
    let dir = place.daemon.dir.path().join("layout");
    let to = format!("type=oci,tar=false,compression=zstd,dest={}", dir.display());
    place.ok(&["-t", "x:1", "-o", &to, "--load", "."]);
    let index = json(&dir.join("index.json"));
    let listed = index["manifests"].as_array().unwrap();
    assert_eq!(listed.len(), 1, "{index}");
    let digest = listed[0]["digest"].as_str().unwrap();
    let hex = digest.strip_prefix("sha256:").unwrap();
    assert!(dir.join("blobs/sha256").join(hex).exists(), "{index}");
    // The one that stays here is compressed otherwise.
    let here = place.daemon.ok(&["inspect", "-f", "{{.Id}}", "x:1"]);
    assert_ne!(here.trim(), digest);
}

#[test]
fn an_ignore_file_may_have_many_lines() {
    guard!();
    let place = Place::start();
    let lines: String = (0..2000).map(|number| format!("left-{number}\n")).collect();
    place.write(".dockerignore", &lines);
    place.write("left-7", "x");
    place.write("left-1999", "x");
    place.write("kept", "x");
    place.write("Dockerfile", "FROM box:1\nCOPY . /all\n");
    place.ok(&["-t", "long:1", "."]);
    assert_eq!(place.said("long:1", "ls /all"), "Dockerfile\nkept\n");
}

#[test]
fn a_failure_is_told_however_long_the_dockerfile_is() {
    guard!();
    let place = Place::start();
    let comments = "# a word about what comes of all this\n".repeat(600);
    place.write("Dockerfile", &format!("FROM box:1\n{comments}RUN exit 3\n"));
    let (code, said) = place.fails(&["."]);
    assert_eq!(code, 3, "{said}");
    for words in ["602 | RUN exit 3", "^^^"] {
        assert!(said.contains(words), "{words:?}: {said}");
    }
}

#[test]
fn annotations_are_said_where_they_belong() {
    guard!();
    let place = Place::start();
    place.write("a", "content\n");
    place.write("Dockerfile", "FROM scratch\nCOPY a /a\n");
    let said = [
        "--annotation",
        "index:org.i=1",
        "--annotation",
        "index-descriptor:org.top=2",
        "--annotation",
        "manifest-descriptor[linux/arm64]:org.entry=3",
        "--annotation",
        "manifest[linux/amd64]:org.m=4",
        "--annotation",
        "org.all=5",
        "--annotation",
        "[linux/arm64]:org.short=6",
        "--annotation",
        "index[linux/amd64],manifest[linux/amd64]:org.both=7",
    ];
    let layout = tempfile::tempdir().unwrap();
    let archive = place.daemon.dir.path().join("archive.tar");
    let outputs = [
        format!("type=oci,tar=false,dest={}", layout.path().display()),
        format!("type=oci,dest={}", archive.display()),
    ];
    let platforms = ["--platform", "linux/amd64,linux/arm64"];
    let to = ["-o", &outputs[0], "-o", &outputs[1], "."];
    place.ok(&[&platforms[..], &said, &to].concat());
    let unpacked = tempfile::tempdir().unwrap();
    unpack(&std::fs::read(&archive).unwrap(), unpacked.path());
    for root in [layout.path(), unpacked.path()] {
        let blob = |descriptor: &Value| {
            let (algorithm, hex) = descriptor["digest"].as_str().unwrap().split_once(':').unwrap();
            json(&root.join("blobs").join(algorithm).join(hex))
        };
        let top = json(&root.join("index.json"))["manifests"][0].clone();
        assert_eq!(top["annotations"]["org.top"], "2", "{top}");
        let index = blob(&top);
        let of_index = serde_json::json!({"org.i": "1", "org.both": "7"});
        assert_eq!(index["annotations"], of_index);
        for (architecture, entry, manifest) in [
            (
                "amd64",
                Value::Null,
                serde_json::json!({"org.m": "4", "org.all": "5", "org.both": "7"}),
            ),
            (
                "arm64",
                serde_json::json!({"org.entry": "3"}),
                serde_json::json!({"org.all": "5", "org.short": "6"}),
            ),
        ] {
            let all = index["manifests"].as_array().unwrap();
            let of = |entry: &&Value| entry["platform"]["architecture"] == architecture;
            let found = all.iter().find(of).unwrap();
            assert_eq!(found["annotations"], entry, "{architecture}");
            assert_eq!(blob(found)["annotations"], manifest, "{architecture}");
        }
    }
    // One image alone has no index, and its descriptor is the only one.
    let (_, refused) = place.fails(&["--annotation", "index:org.i=1", "."]);
    assert!(refused.contains("not supported for single platform"), "{refused}");
    let told = place.daemon.dir.path().join("told.json");
    let words = [
        "--annotation",
        "manifest-descriptor:org.entry=3",
        "--metadata-file",
    ];
    place.ok(&[&words[..], &[&told.display().to_string(), "."]].concat());
    assert_eq!(
        json(&told)["containerimage.descriptor"]["annotations"]["org.entry"],
        "3"
    );
}

#[test]
fn only_files_that_changed_travel() {
    guard!();
    let place = Place::start();
    let large: String = (0..200_000).map(|number| format!("{number}\n")).collect();
    place.write("src/large", &large);
    place.write("src/small", "one");
    // A file that is younger than the transfer is sent again, since it may have changed meanwhile.
    let old = std::time::SystemTime::now() - std::time::Duration::from_millis(60_123);
    let written = std::fs::File::options()
        .append(true)
        .open(place.context().join("src/large"))
        .unwrap();
    written.set_modified(old).unwrap();
    place.write("left-out", &large);
    place.write(".dockerignore", "left-*\n");
    place.write("Dockerfile", "FROM box:1\nCOPY . /all\n");
    // `transferring context: 1.23MB done`; the first is that of the ignore file.
    let sent = |shown: &str| {
        let mut lines = shown.lines().rev();
        let line = lines.find_map(|line| line.split_once("transferring context: "));
        line.map_or_else(String::new, |(_, rest)| rest.to_owned())
    };
    let (_, first) = place.ok(&["-t", "sent:1", "."]);
    assert!(sent(&first).contains("MB"), "{first}");
    assert_eq!(
        place.said("sent:1", "ls /all; cat /all/src/small"),
        "Dockerfile\nsrc\none"
    );
    place.write("src/small", "two");
    let (_, again) = place.ok(&["-t", "sent:1", "."]);
    assert!(
        !sent(&again).contains("MB") && !sent(&again).is_empty(),
        "{again}"
    );
    assert_eq!(place.said("sent:1", "cat /all/src/small"), "two");
    // Nothing is sent of what no step needs.
    place.write("Dockerfile", "FROM box:1\nCOPY src/small /\n");
    std::fs::remove_dir_all(place.daemon.dir.path().join("context/src")).unwrap();
    place.write("src/other", &large);
    place.write("src/small", "three");
    let (_, shown) = place.ok(&["-t", "sent:1", "."]);
    assert!(!sent(&shown).contains("MB"), "{shown}");
}

#[test]
fn contexts_come_from_standard_input() {
    guard!();
    let place = Place::start();
    place.write("file", "from the archive\n");
    place.write("D", "FROM box:1\nCOPY file /\n");
    let archive = Command::new("tar")
        .args(["-cz", "-C"])
        .arg(place.context())
        .arg(".")
        .output()
        .unwrap();
    let fed = |args: &[&str], input: &[u8]| {
        let mut build = place
            .command(args)
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = build.stdin.take().unwrap();
        let input = input.to_vec();
        let writer = std::thread::spawn(move || stdin.write_all(&input));
        let output = build.wait_with_output().unwrap();
        let _ = writer.join().unwrap();
        (output.status.success(), text(&output.stderr))
    };
    let (done, said) = fed(&["-t", "archive:1", "-f", "D", "-"], &archive.stdout);
    assert!(done, "{said}{}", place.daemon.log());
    assert_eq!(place.said("archive:1", "cat /file"), "from the archive\n");
    let (done, said) = fed(&["-t", "text:1", "-"], b"FROM box:1\nRUN echo said > /said\n");
    assert!(done, "{said}");
    assert_eq!(place.said("text:1", "cat /said"), "said\n");
    // The Dockerfile alone, and the context from the directory.
    let (done, said) = fed(&["-t", "file:1", "-f", "-", "."], b"FROM box:1\nCOPY file /f\n");
    assert!(done, "{said}");
    assert_eq!(place.said("file:1", "cat /f"), "from the archive\n");
    let (done, said) = fed(
        &["-t", "none:1", "-"],
        &archive.stdout[..archive.stdout.len() / 2],
    );
    assert!(!done, "{said}");
}

#[test]
fn names_stand_for_directories_images_and_layouts() {
    guard!();
    let place = Place::start();
    let other = place.daemon.dir.path().join("other");
    std::fs::create_dir(&other).unwrap();
    std::fs::write(other.join("file"), "of the other\n").unwrap();
    std::fs::write(other.join("ignored"), "x").unwrap();
    std::fs::write(other.join(".dockerignore"), "ignored\n").unwrap();
    place.write("Dockerfile", "FROM box:1\nRUN echo first > /first\n");
    let layout = place.daemon.dir.path().join("layout");
    let to = format!("type=oci,tar=false,dest={}", layout.display());
    place.ok(&["-o", &to, "."]);
    place.daemon.ok(&["image", "prune", "-f"]);
    place.daemon.ok(&["builder", "prune", "-af"]);
    let base = format!("base=oci-layout://{}", layout.display());
    let src = format!("src={}", other.display());
    place.write(
        "Dockerfile",
        "FROM base\nCOPY --from=src . /src\nCOPY --from=tool /bin/sh /tool\nRUN --mount=from=src,target=/m cat /m/file > /read\n",
    );
    let args = ["-t", "named:1", "--build-context", &base, "--build-context", &src];
    let args = [&args[..], &["--build-context", "tool=docker-image://box:1", "."]].concat();
    place.ok(&args);
    assert_eq!(
        place.said("named:1", "cat /first /read; ls /src; test -x /tool && echo tool"),
        "first\nof the other\nfile\ntool\n"
    );
    // What the layout held was here for the build alone, whatever came of it.
    let out = place.daemon.dir.path().join("out");
    place.write(
        "Dockerfile",
        "FROM base AS made\nFROM scratch\nCOPY --from=made /first /\n",
    );
    place.ok(&["--build-context", &base, "-o", &out.display().to_string(), "."]);
    assert_eq!(read(&out.join("first")), "first\n");
    let nameless = ["images", "-a", "-q", "--filter", "dangling=true"];
    assert_eq!(place.daemon.ok(&nameless), "");
    for (context, words) in [
        ("x", "expected NAME=VALUE"),
        ("x=/no/such/directory", "/no/such/directory"),
        (
            &format!("x=oci-layout://{}:nosuch", layout.display()),
            "there is no image nosuch",
        ),
        (
            &format!("base=oci-layout://{}@sha256:{}", layout.display(), "0".repeat(64)),
            "0000",
        ),
    ] {
        let (_, said) = place.fails(&["--build-context", context, "."]);
        assert!(said.contains(words), "{context}: {said}");
    }
}

#[test]
fn secrets_agents_and_permissions_are_lent() {
    guard!();
    let place = Place::start();
    place.write(
        "Dockerfile",
        "FROM box:1\nRUN --mount=type=secret,id=word --mount=type=ssh,id=mine,required \
         test -S \"$SSH_AUTH_SOCK\" && wc -c < /run/secrets/word > /length\n",
    );
    let socket = place.daemon.dir.path().join("agent");
    let _agent = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let secret = place.daemon.dir.path().join("word");
    std::fs::write(&secret, "hidden word").unwrap();
    let (ssh, secret) = (
        format!("mine={}", socket.display()),
        format!("id=word,src={}", secret.display()),
    );
    place.ok(&["-t", "lent:1", "--ssh", &ssh, "--secret", &secret, "."]);
    assert_eq!(place.said("lent:1", "cat /length"), "11\n");
    let (_, said) = place.fails(&["--no-cache", "--secret", &secret, "."]);
    assert!(said.contains("ssh mine: not found"), "{said}");
    let (_, said) = place.fails(&["--ssh", "mine=/dev/null", "."]);
    assert!(said.contains("the key /dev/null cannot be lent"), "{said}");
    let key = place.daemon.dir.path().join("key");
    let made = Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-f"])
        .arg(&key)
        .status();
    match made.is_ok_and(|status| status.success()) {
        true => {
            let key = format!("mine={}", key.display());
            place.ok(&["--no-cache", "--ssh", &key, "--secret", &secret, "."]);
        }
        false => left_out("lending a key file needs ssh-keygen (package openssh-client)"),
    }
    place.write(
        "Dockerfile",
        "FROM box:1\nRUN --security=insecure echo done > /done\n",
    );
    let (_, said) = place.fails(&["."]);
    assert!(said.contains("security.insecure"), "{said}");
    place.ok(&["--allow", "security.insecure", "-t", "free:1", "."]);
    assert_eq!(place.said("free:1", "cat /done"), "done\n");
}

#[test]
fn several_platforms_become_an_index() {
    guard!();
    let place = Place::start();
    place.write("file", "for all\n");
    place.write(
        "Dockerfile",
        "FROM scratch\nARG TARGETARCH\nLABEL for=$TARGETARCH\nCOPY file /\n",
    );
    let told = place.daemon.dir.path().join("told");
    let metadata = told.display().to_string();
    let platforms = ["--platform", "linux/amd64,linux/arm64"];
    place.ok(&[
        &platforms[..],
        &["-t", "many:1", "--metadata-file", &metadata, "."],
    ]
    .concat());
    for architecture in ["amd64", "arm64"] {
        let platform = format!("linux/{architecture}");
        let args = [
            "image",
            "inspect",
            "--platform",
            &platform,
            "-f",
            "{{.Architecture}} {{.Config.Labels.for}}",
        ];
        let said = place.daemon.ok(&[&args[..], &["many:1"]].concat());
        assert_eq!(said.trim(), format!("{architecture} {architecture}"));
    }
    let told = json(&told);
    let kind = told["containerimage.descriptor"]["mediaType"].as_str().unwrap();
    assert!(kind.contains("index"), "{told}");
    assert!(told["buildx.build.provenance/linux/arm64"].is_object(), "{told}");
    // A command of another processor runs where the host knows how; where it does not, that is said.
    let (_, said) = place.fails(&["--platform", "linux/s390x,linux/nonsense/a/b", "."]);
    assert!(said.contains("linux/nonsense/a/b"), "{said}");
}

#[test]
fn what_came_of_a_build_is_written_down() {
    guard!();
    let place = Place::start();
    place.write("file", "x");
    place.write(
        "Dockerfile",
        "FROM scratch\nCOPY --from=box:1 /bin/sh /sh\nCOPY file /\n",
    );
    let (metadata, iid) = (
        place.daemon.dir.path().join("metadata"),
        place.daemon.dir.path().join("iid"),
    );
    let (to, id) = (metadata.display().to_string(), iid.display().to_string());
    place.ok(&["-t", "told:1", "--metadata-file", &to, "--iidfile", &id, "."]);
    let told = json(&metadata);
    let here = place.daemon.ok(&["inspect", "-f", "{{.Id}}", "told:1"]);
    assert_eq!(told["containerimage.digest"], here.trim());
    assert_eq!(read(&iid), here.trim());
    assert_eq!(told["image.name"], "docker.io/library/told:1");
    assert!(told.get("berth.explained").is_none(), "{told}");
    let provenance = &told["buildx.build.provenance"];
    let materials = &provenance["buildDefinition"]["resolvedDependencies"];
    // Files were taken from it.
    assert!(
        materials[0]["uri"]
            .as_str()
            .unwrap()
            .starts_with("pkg:docker/box@1"),
        "{provenance}"
    );
    place.ok(&["--provenance=false", "--metadata-file", &to, "."]);
    assert!(json(&metadata).get("buildx.build.provenance").is_none());
    let (_, said) = place.fails(&["--attest", "type=vex", "."]);
    assert!(said.contains("unknown attestation type \"vex\""), "{said}");
    let (_, said) = place.fails(&["-o", "files", "--iidfile", &id, "."]);
    assert!(said.contains("incompatible with image ID file"), "{said}");
}

#[test]
fn progress_is_shown_as_asked() {
    guard!();
    let place = Place::start();
    place.write(
        "Dockerfile",
        "FROM box:1\nRUN echo one; echo two >&2\nRUN echo three\n",
    );
    let (out, shown) = place.ok(&["-t", "shown:1", "."]);
    assert!(out.is_empty(), "{}", text(&out));
    for line in [
        "[2/3] RUN echo one; echo two >&2",
        " one\n",
        " two\n",
        " DONE ",
        "naming to docker.io/library/shown:1",
    ] {
        assert!(shown.contains(line), "{line:?}: {shown}");
    }
    let (_, shown) = place.ok(&["."]);
    assert_eq!(shown.matches(" CACHED").count(), 2, "{shown}");
    let (_, raw) = place.ok(&["--progress", "rawjson", "."]);
    let lines: Vec<Value> = raw
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    // A line may tell of several steps.
    let steps = lines
        .iter()
        .filter_map(|line| line["vertexes"].as_array())
        .flatten();
    assert_eq!(steps.filter(|step| step["cached"] == true).count(), 2, "{raw}");
    let (out, quiet) = place.ok(&["-q", "."]);
    assert_eq!(
        (text(&out).trim(), quiet.as_str()),
        (
            place.daemon.ok(&["inspect", "-f", "{{.Id}}", "shown:1"]).trim(),
            ""
        )
    );
    let (_, said) = place.fails(&["--progress", "fancy", "."]);
    assert!(said.contains("use auto, plain, tty, rawjson or quiet"), "{said}");
    // One stage only is made again, and its reason is told.
    place.write(
        "Dockerfile",
        "FROM box:1 AS one\nRUN echo 1 > /1\nFROM box:1\nRUN echo 2 > /2\nCOPY --from=one /1 /1\n",
    );
    place.ok(&["."]);
    let (_, shown) = place.ok(&["--no-cache-filter", "one", "--explain", "."]);
    assert!(shown.contains("cache miss: "), "{shown}");
    let lines: Vec<&str> = shown.lines().collect();
    let after = |title: &str| {
        let at = lines.iter().position(|line| line.contains(title));
        at.and_then(|at| lines.get(at + 1)).map_or("", |line| line)
    };
    assert!(!after("[one 2/2] RUN").contains("CACHED"), "{shown}");
    assert!(after("RUN echo 2").contains("CACHED"), "{shown}");
    // A quiet build that fails tells everything after all.
    place.write("Dockerfile", "FROM box:1\nRUN echo told; exit 4\n");
    let (code, said) = place.fails(&["-q", "."]);
    assert_eq!(code, 4);
    for words in [
        "told\n",
        "2 | RUN echo told; exit 4",
        "^^^",
        "returned a non-zero code: 4",
    ] {
        assert!(said.contains(words), "{words:?}: {said}");
    }
    place.write("Dockerfile", "FROM box:1\nCOPPY a b\n");
    let (_, said) = place.fails(&["."]);
    assert!(
        said.contains("2 | COPPY a b") && said.contains("^^^^^") && said.contains("COPY"),
        "{said}"
    );
}

/// The build that is under way.
fn running(daemon: &Daemon) -> Option<String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let channel = super::definitions::connect(daemon).await;
        let request = BuildHistoryRequest {
            active_only: true,
            early_exit: true,
            ..BuildHistoryRequest::default()
        };
        let mut events = ControlClient::new(channel)
            .listen_build_history(request)
            .await
            .unwrap()
            .into_inner();
        let event = events.message().await.unwrap()?;
        Some(event.record?.r#ref)
    })
}

#[test]
fn a_build_is_ended_by_its_name_and_by_its_client() {
    guard!();
    let place = Place::start();
    place.write("Dockerfile", "FROM box:1\nRUN echo begun; sleep 600\n");
    let containers = place.daemon.dir.path().join("root/containers");
    let runs = || std::fs::read_dir(&containers).is_ok_and(|mut entries| entries.next().is_some());
    let start = || place.command(&["."]).stderr(Stdio::piped()).spawn().unwrap();
    let build = start();
    until("the step runs", &runs);
    let name = running(&place.daemon).unwrap();
    let answer = request(
        &place.daemon,
        "POST",
        &format!("/build/cancel?id={name}"),
        "",
        b"",
    );
    assert_eq!(answer.status, 200, "{}", answer.body);
    let output = build.wait_with_output().unwrap();
    assert!(!output.status.success());
    assert!(
        text(&output.stderr).to_lowercase().contains("cancel"),
        "{}",
        text(&output.stderr)
    );
    until("the step has ended", &|| !runs());
    assert_eq!(running(&place.daemon), None);
    for (path, status) in [("/build/cancel?id=nosuch", 404), ("/build/cancel", 400)] {
        assert_eq!(
            request(&place.daemon, "POST", path, "", b"").status,
            status,
            "{path}"
        );
    }
    let mut build = start();
    until("the step runs", &runs);
    build.kill().unwrap();
    build.wait().unwrap();
    until("the step has ended", &|| !runs());
    place.daemon.ok(&["system", "check"]);
}
