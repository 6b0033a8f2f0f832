//! Archives that want to write elsewhere, through every door that takes one; and archives that are broken.

use std::path::{Path, PathBuf};

use crate::http::{Answer, request};
use crate::inventory::Inventory;
use crate::support::Daemon;
use crate::tarball::{Image, Tar};

const TAR: &str = "application/x-tar";

/// A directory of the host that archives are after.
struct Victim {
    dir: tempfile::TempDir,
}

impl Victim {
    fn new() -> Victim {
        let dir = tempfile::Builder::new()
            .prefix("berth-victim-")
            .tempdir_in("/tmp")
            .unwrap();
        std::fs::write(dir.path().join("secret"), "untouched").unwrap();
        Victim { dir }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn assert_untouched(&self, what: &str) {
        use std::os::unix::fs::MetadataExt;
        let names: Vec<PathBuf> = std::fs::read_dir(self.path())
            .unwrap()
            .flatten()
            .map(|e| e.path())
            .collect();
        let secret = self.path().join("secret");
        assert_eq!(names, std::slice::from_ref(&secret), "{what} wrote outside");
        assert_eq!(std::fs::read_to_string(&secret).unwrap(), "untouched", "{what}");
        assert_eq!(
            std::fs::metadata(&secret).unwrap().nlink(),
            1,
            "{what} linked outside"
        );
    }

    /// Archives by what they try.
    fn attacks(&self) -> Vec<(&'static str, Tar)> {
        let absolute = self.path().display().to_string();
        let climbing = format!("{}{}", "../".repeat(20), absolute.trim_start_matches('/'));
        let evil = b"evil".as_slice();
        let tar = Tar::default;
        vec![
            ("..", tar().file(&format!("{climbing}/new"), evil)),
            (
                ".. in the middle",
                tar().file(&format!("a/b/{climbing}/new"), evil),
            ),
            (
                ".. to the secret",
                tar().file(&format!("{climbing}/secret"), evil),
            ),
            (
                "a directory beyond ..",
                tar().directory(&format!("{climbing}/dir")),
            ),
            ("an absolute path", tar().file(&format!("{absolute}/new"), evil)),
            (
                "through a link",
                tar()
                    .symlink("out", &absolute)
                    .file("out/new", evil)
                    .file("out/secret", evil),
            ),
            (
                "through a climbing link",
                tar().symlink("out", &climbing).file("out/new", evil),
            ),
            (
                "through two links",
                tar()
                    .symlink("a", "/")
                    .symlink("b", &format!("a{absolute}"))
                    .file("b/new", evil),
            ),
            (
                "onto a link",
                tar()
                    .symlink("out", &format!("{absolute}/secret"))
                    .file("out", evil),
            ),
            (
                "a hard link to ..",
                tar().hard_link("stolen", &format!("{climbing}/secret")),
            ),
            (
                "a hard link to an absolute path",
                tar().hard_link("stolen", &format!("{absolute}/secret")),
            ),
            (
                "a hard link through a link",
                tar()
                    .symlink("out", &absolute)
                    .hard_link("stolen", "out/secret")
                    .file("stolen", evil),
            ),
            (
                "a directory in place of a link",
                tar()
                    .symlink("out", &absolute)
                    .directory("out")
                    .file("out/new", evil),
            ),
            (
                "a whiteout outside",
                tar().file(&format!("{climbing}/.wh.secret"), b""),
            ),
            (
                "a whiteout through a link",
                tar()
                    .symlink("out", &absolute)
                    .file("out/.wh.secret", b"")
                    .file("out/.wh..wh..opq", b""),
            ),
        ]
    }
}

/// Taken or refused as bad input; a server's failure is neither.
fn assert_orderly(answer: &Answer, what: &str) {
    assert!(
        answer.status == 200 || answer.status == 400,
        "{what}: {} {}",
        answer.status,
        answer.body
    );
}

#[test]
fn archives_put_into_containers_stay_inside() {
    guard!();
    let daemon = Daemon::start();
    let victim = Victim::new();
    daemon.ok(&["run", "-d", "--name", "running", "box:1", "sleep", "1000"]);
    daemon.ok(&["create", "--name", "created", "box:1", "true"]);
    for (what, tar) in victim.attacks() {
        for name in ["running", "created"] {
            let path = format!("/containers/{name}/archive?path=/tmp");
            let answer = request(&daemon, "PUT", &path, TAR, &tar.clone().finish());
            assert_orderly(&answer, what);
            victim.assert_untouched(what);
        }
    }
}

#[test]
fn archives_in_builds_stay_inside() {
    guard!();
    let daemon = Daemon::start();
    let victim = Victim::new();
    for (what, tar) in victim.attacks() {
        // As the context itself.
        let context = tar
            .clone()
            .file("Dockerfile", b"FROM box:1\nCOPY . /in/\n")
            .finish();
        let answer = request(&daemon, "POST", "/build?t=context:1", TAR, &context);
        assert_orderly(&answer, what);
        victim.assert_untouched(what);
        // As a file that ADD unpacks.
        let inner = tar.finish();
        let context = Tar::default()
            .file("inner.tar", &inner)
            .file("Dockerfile", b"FROM box:1\nADD inner.tar /in/\n")
            .finish();
        let answer = request(&daemon, "POST", "/build?t=added:1", TAR, &context);
        assert_orderly(&answer, what);
        victim.assert_untouched(what);
    }
    let tmp = std::fs::read_dir(daemon.dir.path().join("root/tmp")).unwrap();
    assert_eq!(tmp.count(), 0, "builds left their contexts");
}

#[test]
fn images_in_archives_stay_inside() {
    guard!();
    let daemon = Daemon::start();
    let victim = Victim::new();
    for (what, tar) in victim.attacks() {
        let layer = tar.finish();
        let before = Inventory::of(&daemon);
        let image = Image::of(std::slice::from_ref(&layer)).archive("hostile:1");
        let answer = request(&daemon, "POST", "/images/load?quiet=1", TAR, &image);
        assert_orderly(&answer, what);
        victim.assert_untouched(what);
        forget(&daemon, "hostile:1");
        before.assert_unchanged(&daemon, what);
        let answer = request(
            &daemon,
            "POST",
            "/images/create?fromSrc=-&repo=hostile&tag=1",
            TAR,
            &layer,
        );
        assert_orderly(&answer, what);
        victim.assert_untouched(what);
        forget(&daemon, "hostile:1");
        before.assert_unchanged(&daemon, what);
    }
}

#[test]
fn archives_that_become_volumes_stay_inside() {
    guard!();
    let daemon = Daemon::start();
    let victim = Victim::new();
    let before = Inventory::of(&daemon);
    let import = |tar: &[u8]| request(&daemon, "POST", "/volumes/hostile/import", TAR, tar);
    for (what, tar) in victim.attacks() {
        let answer = import(&tar.finish());
        assert!(
            answer.status == 201 || answer.status == 400,
            "{what}: {} {}",
            answer.status,
            answer.body
        );
        victim.assert_untouched(what);
        daemon.run(&["volume", "rm", "--purge", "hostile"]);
        before.assert_unchanged(&daemon, what);
    }
    let whole = Tar::default().file("file", &[7; 20_000]).finish();
    for (what, bytes) in [
        ("an archive cut in a file", &whole[..5000]),
        ("an archive cut in a header", &whole[..300]),
        ("no archive", b"no archive at all".as_slice()),
    ] {
        let answer = import(bytes);
        assert_eq!(answer.status, 400, "{what}: {}", answer.body);
        before.assert_unchanged(&daemon, what);
    }
    assert_eq!(import(&whole).status, 201, "the whole one is good");
}

/// Removes an image that may have been taken.
fn forget(daemon: &Daemon, name: &str) {
    daemon.run(&["rmi", "-f", name]);
}

#[test]
fn broken_archives_are_refused_whole() {
    guard!();
    let daemon = Daemon::start();
    let layer = Tar::default().file("etc/file", &[7; 20_000]).finish();
    let good = Image::of(std::slice::from_ref(&layer));
    let whole = good.archive("broken:1");
    let spoiled = |spoil: &dyn Fn(&mut Image)| {
        let mut image = good.clone();
        let blobs = image.blobs();
        spoil(&mut image);
        let bytes = [&image.manifest, &image.config, &image.layers[0]];
        let blobs: Vec<_> = blobs
            .into_iter()
            .zip(bytes)
            .map(|((digest, _), bytes)| (digest, bytes.clone()))
            .collect();
        crate::tarball::archive(
            &[(
                good.digest(),
                good.manifest.len(),
                Some("broken:1"),
                crate::tarball::MANIFEST,
            )],
            &blobs,
        )
    };
    let cut_layer = Image::of(&[layer[..5000].to_vec()]);
    let wrong_diff = {
        let mut image = Image::of(&[Tar::default().file("other", b"x").finish()]);
        let other = Image::of(std::slice::from_ref(&layer));
        image.layers = other.layers.clone();
        // The manifest names the real layer, the configuration another one.
        let text = String::from_utf8(other.manifest.clone()).unwrap();
        let (theirs, ours) = (
            spec::Digest::sha256(&other.config),
            spec::Digest::sha256(&image.config),
        );
        image.manifest = text.replace(theirs.hex(), ours.hex()).into_bytes();
        let size = format!("\"size\":{}", other.config.len());
        let text = String::from_utf8(image.manifest.clone()).unwrap();
        image.manifest = text
            .replace(&size, &format!("\"size\":{}", image.config.len()))
            .into_bytes();
        image
    };
    let before = Inventory::of(&daemon);
    let mut wrong = Vec::new();
    for (what, bytes, words) in [
        (
            "an archive cut in a blob",
            whole[..whole.len() / 2].to_vec(),
            "unexpected",
        ),
        (
            "an archive cut in a header",
            whole[..700].to_vec(),
            "invalid archive",
        ),
        ("an empty archive", Tar::default().finish(), "neither index.json"),
        (
            "a layer with other content",
            spoiled(&|image| image.layers[0][600] ^= 1),
            "has the digest",
        ),
        (
            "another manifest",
            spoiled(&|image| image.manifest.push(b' ')),
            "has the digest",
        ),
        (
            "another configuration",
            spoiled(&|image| image.config.push(b' ')),
            "has the digest",
        ),
        (
            "a layer that ends early",
            cut_layer.archive("broken:1"),
            "ends early",
        ),
        (
            "a layer of another diff ID",
            wrong_diff.archive("broken:1"),
            "diff ID",
        ),
    ] {
        let answer = request(&daemon, "POST", "/images/load?quiet=1", TAR, &bytes);
        if answer.status != 400 || !answer.message().contains(words) {
            wrong.push(format!(
                "{what}: {} {}, instead of {words:?}",
                answer.status, answer.body
            ));
        }
        before.assert_unchanged(&daemon, what);
        let path = daemon.dir.path().join("broken.tar");
        std::fs::write(&path, &bytes).unwrap();
        let (code, text) = daemon.fails(&["load", "-i", &path.display().to_string()]);
        if code != 1 || !text.contains(words) {
            wrong.push(format!(
                "{what} by the client: {code} {text}, instead of {words:?}"
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let answer = request(&daemon, "POST", "/images/load?quiet=1", TAR, &whole);
    assert_eq!(answer.status, 200, "the whole one is good: {}", answer.body);
}
