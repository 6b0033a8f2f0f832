//! What the engine fetches itself: archives to import, contexts to build.

use std::path::Path;

use crate::git::{git, has_git};
use crate::inventory::Inventory;
use crate::support::{Daemon, text};
use crate::tarball::Tar;
use crate::web::{Page, Web};

#[test]
fn an_archive_is_imported_by_its_url() {
    guard!();
    let daemon = Daemon::start();
    let web = Web::start();
    let rootfs = Tar::default().file("etc/motd", b"from afar\n").finish();
    web.put("/rootfs.tar", Page::of(rootfs.clone()));
    let printed = daemon.ok(&["import", "-c", "CMD [\"/x\"]", &web.url("/rootfs.tar"), "far:1"]);
    assert!(
        printed.lines().last().unwrap_or_default().starts_with("sha256:"),
        "{printed}"
    );
    assert_eq!(
        daemon.ok(&["inspect", "-f", "{{.Config.Cmd}}", "far:1"]).trim(),
        "[/x]"
    );
    assert!(
        daemon
            .ok(&["history", "--no-trunc", "far:1"])
            .contains("Imported from http://")
    );
    daemon.ok(&["create", "--name", "far", "far:1"]);
    daemon.ok(&[
        "cp",
        "far:/etc/motd",
        &daemon.dir.path().join("motd").display().to_string(),
    ]);
    assert_eq!(
        std::fs::read_to_string(daemon.dir.path().join("motd")).unwrap(),
        "from afar\n"
    );
    if let Some(docker) = daemon.docker(&["import", &web.url("/rootfs.tar"), "far:2"]) {
        assert!(docker.status.success(), "{}", text(&docker.stderr));
    }

    web.put(
        "/broken.tar",
        Page {
            cut: Some(700),
            ..Page::of(rootfs)
        },
    );
    web.put("/page.html", Page::of("<html>not an archive</html>"));
    let before = Inventory::of(&daemon);
    for (url, words) in [
        (web.url("/nosuch.tar"), "the server answered 404 Not Found"),
        (web.url("/broken.tar"), "/broken.tar"),
        (web.url("/page.html"), "archive"),
        ("http://127.0.0.1:1/x.tar".to_owned(), "Connection refused"),
        ("ftp://127.0.0.1/x.tar".to_owned(), "ftp"),
    ] {
        let (code, said) = daemon.fails(&["import", &url, "far:3"]);
        assert_eq!(code, 1, "{url}: {said}");
        assert!(said.contains(words), "{url}: {said}");
        before.assert_unchanged(&daemon, &url);
    }
}

#[test]
fn a_context_is_fetched_by_its_url() {
    guard!();
    let daemon = Daemon::start();
    let web = Web::start();
    let context = Tar::default()
        .file("Dockerfile", b"FROM box:1\nCOPY data /data\n")
        .file("other/Dockerfile", b"FROM box:1\nRUN echo other > /data\n")
        .file("data", b"in the archive\n")
        .finish();
    web.put("/context.tar", Page::of(context));
    web.put(
        "/Dockerfile.txt",
        Page::of("FROM box:1\nRUN echo alone > /data\n"),
    );
    let built = |args: &[&str]| {
        let line: Vec<&str> = ["build", "-t", "remote:1"].iter().chain(args).copied().collect();
        daemon.ok(&line);
        daemon
            .ok(&["run", "--rm", "remote:1", "cat", "/data"])
            .trim()
            .to_owned()
    };
    assert_eq!(built(&[&web.url("/context.tar")]), "in the archive");
    assert_eq!(
        built(&["-f", "other/Dockerfile", &web.url("/context.tar")]),
        "other"
    );
    assert_eq!(built(&[&web.url("/Dockerfile.txt")]), "alone");
    if let Some(docker) = daemon.docker(&["build", "-t", "remote:2", &web.url("/context.tar")]) {
        assert!(docker.status.success(), "{}", text(&docker.stderr));
    }

    web.put(
        "/cut.tar",
        Page {
            cut: Some(100),
            ..Page::of(vec![0; 10_000])
        },
    );
    let before = Inventory::of(&daemon);
    for (url, words) in [
        (web.url("/nosuch.tar"), "404 Not Found"),
        (web.url("/cut.tar"), "/cut.tar"),
        ("http://127.0.0.1:1/x.tar".to_owned(), "Connection refused"),
    ] {
        let (code, said) = daemon.fails(&["build", "-t", "remote:3", &url]);
        assert_eq!(code, 1, "{url}: {said}");
        assert!(
            said.contains("error downloading remote context") && said.contains(words),
            "{url}: {said}"
        );
        before.assert_unchanged(&daemon, &url);
    }
}

/// Every file of a bare repository as a page: the protocol of servers that know nothing of git.
fn serve(web: &Web, dir: &Path, below: &str) {
    for entry in std::fs::read_dir(dir).unwrap().flatten() {
        let path = format!("{below}/{}", entry.file_name().to_string_lossy());
        match entry.path().is_dir() {
            true => serve(web, &entry.path(), &path),
            false => web.put(&path, Page::of(std::fs::read(entry.path()).unwrap())),
        }
    }
}

#[test]
fn a_context_is_cloned_from_a_repository() {
    guard!();
    if !has_git() {
        return;
    }
    let daemon = Daemon::start();
    let web = Web::start();
    let work = daemon.dir.path().join("work");
    std::fs::create_dir_all(work.join("sub")).unwrap();
    let write = |name: &str, content: &str| std::fs::write(work.join(name), content).unwrap();
    git(&work, &["init", "-q"]);
    write("Dockerfile", "FROM box:1\nRUN echo main > /data\n");
    write("sub/Dockerfile", "FROM box:1\nCOPY . /in\nRUN echo sub > /data\n");
    std::os::unix::fs::symlink("/etc", work.join("out")).unwrap();
    git(&work, &["add", "."]);
    git(&work, &["commit", "-q", "-m", "one"]);
    git(&work, &["checkout", "-q", "-b", "other"]);
    write("Dockerfile", "FROM box:1\nRUN echo other > /data\n");
    git(&work, &["commit", "-q", "-a", "-m", "two"]);
    git(&work, &["tag", "v1"]);
    git(&work, &["checkout", "-q", "main"]);
    let bare = daemon.dir.path().join("bare.git");
    git(daemon.dir.path(), &["clone", "-q", "--bare", "work", "bare.git"]);
    git(&bare, &["update-server-info"]);
    serve(&web, &bare, "/app.git");
    let url = web.url("/app.git");
    for (fragment, expected) in [
        ("", "main"),
        ("#other", "other"),
        ("#v1", "other"),
        ("#:sub", "sub"),
        ("#main:sub", "sub"),
    ] {
        daemon.ok(&["build", "-t", "cloned:1", &format!("{url}{fragment}")]);
        assert_eq!(
            daemon.ok(&["run", "--rm", "cloned:1", "cat", "/data"]).trim(),
            expected,
            "{fragment}"
        );
    }
    let before = Inventory::of(&daemon);
    for (fragment, words) in [
        ("#nosuch", "no branch, tag or commit \"nosuch\""),
        ("#main:nosuch", "nosuch"),
        ("#main:out", "it is no directory"),
        ("#main:..", "it leads outside"),
        ("#--upload-pack=x", "invalid git reference"),
    ] {
        let (code, said) = daemon.fails(&["build", "-t", "cloned:2", &format!("{url}{fragment}")]);
        assert_eq!(code, 1, "{fragment}: {said}");
        assert!(said.contains(words), "{fragment}: {said}");
        before.assert_unchanged(&daemon, fragment);
    }
    let (_, said) = daemon.fails(&["build", &web.url("/nosuch.git")]);
    assert!(said.contains("git fetch failed"), "{said}");
    before.assert_unchanged(&daemon, "a repository that is not there");
}
