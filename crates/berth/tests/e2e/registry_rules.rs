//! What the daemon's configuration says about registries and the disk, as clients meet it.

use crate::inventory::Inventory;
use crate::support::{Daemon, text};
use crate::tarball::{Image, Tar};
use crate::web::Web;

fn image() -> Image {
    Image::of(&[Tar::default().file("etc/motd", b"ruled\n").finish()])
}

/// A daemon with a configuration file, which stays where it is as long as the directory.
fn configured(config: &str) -> (tempfile::TempDir, Daemon) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("daemon.json");
    std::fs::write(&file, config).unwrap();
    let daemon = Daemon::start_with(&["--config-file", &file.display().to_string()]);
    (dir, daemon)
}

/// Has the daemon read its configuration again.
fn hang_up(daemon: &Daemon) {
    let pid = daemon.child.id().to_string();
    let done = std::process::Command::new("kill").args(["-HUP", &pid]).status();
    assert!(done.unwrap().success());
}

#[test]
fn names_are_fetched_from_where_the_rules_say() {
    guard!();
    let web = Web::start();
    web.serve_image("mirrored/app", &image());
    let (dir, daemon) = configured(&format!(
        r#"{{"registries": [
            {{"prefix": "quay.invalid/team", "location": "{0}/mirrored"}},
            {{"prefix": "quay.invalid", "blocked": true}},
            {{"prefix": "hub.invalid", "mirrors": ["http://{0}/mirrored"], "only-mirrors": true}}
        ]}}"#,
        web.address
    ));
    for name in ["quay.invalid/team/app:1", "hub.invalid/app:1"] {
        daemon.ok(&["pull", name]);
        assert!(
            daemon
                .ok(&["images", "--format", "{{.Repository}}:{{.Tag}}"])
                .contains(name)
        );
        daemon.ok(&["rmi", name]);
    }
    let before = Inventory::of(&daemon);
    for command in ["pull", "push"] {
        daemon.ok(&["tag", "box:1", "quay.invalid/other:1"]);
        let (code, said) = daemon.fails(&[command, "quay.invalid/other:1"]);
        assert!(
            code == 1 && said.contains("blocked") && said.contains("\"quay.invalid\""),
            "{said}"
        );
        daemon.ok(&["rmi", "quay.invalid/other:1"]);
    }
    if let Some(docker) = daemon.docker(&["pull", "quay.invalid/other:1"]) {
        assert!(
            text(&docker.stderr).contains("blocked"),
            "{}",
            text(&docker.stderr)
        );
    }
    before.assert_unchanged(&daemon, "blocked names");

    // A running daemon takes over other rules; a mistake changes nothing and is told with its place.
    let file = dir.path().join("daemon.json");
    let reload = |config: &str| {
        std::fs::write(&file, config).unwrap();
        hang_up(&daemon);
    };
    reload(r#"{"registries": [{"prefix": "a.lan"}, {"prefix": "b.lan", "mirors": []}]}"#);
    let told = crate::support::retry(|| {
        daemon
            .log()
            .contains("rule 2: unknown field `mirors`")
            .then_some(())
    });
    assert!(told.is_some(), "{}", daemon.log());
    assert!(
        daemon
            .fails(&["pull", "quay.invalid/other:1"])
            .1
            .contains("blocked")
    );
    reload("{}");
    let lifted = crate::support::retry(|| {
        (!daemon
            .fails(&["pull", "quay.invalid/other:1"])
            .1
            .contains("blocked"))
        .then_some(())
    });
    assert!(lifted.is_some(), "{}", daemon.log());
}

/// Docker's own key. The Hub itself is asked only for what no mirror has.
#[test]
fn names_of_docker_hub_are_fetched_from_its_mirrors() {
    guard!();
    let (empty, web) = (Web::start(), Web::start());
    web.serve_image("library/ruled", &image());
    web.serve_image("team/app", &image());
    let (_dir, daemon) = configured(&format!(
        r#"{{"registry-mirrors": ["http://{}", "http://{}"]}}"#,
        empty.address, web.address
    ));
    let digest = image().digest();
    for (name, known) in [
        ("ruled:1", "ruled"),
        ("team/app:1", "team/app"),
        ("docker.io/library/ruled:1", "ruled"),
    ] {
        let fetched = |said: &str| {
            assert!(said.contains(&format!("Digest: {digest}\n")), "{name}: {said}");
            let digests = daemon.ok(&["image", "inspect", "-f", "{{json .RepoDigests}}", name]);
            assert_eq!(digests.trim(), format!(r#"["{known}@{digest}"]"#), "{name}");
            daemon.ok(&["rmi", name]);
        };
        fetched(&daemon.ok(&["pull", name]));
        if let Some(docker) = daemon.docker(&["pull", name]) {
            let said = format!("{}{}", text(&docker.stdout), text(&docker.stderr));
            assert!(docker.status.success(), "{name}: {said}");
            fetched(&said);
        }
    }
}

#[test]
fn a_nearly_full_disk_takes_no_images() {
    guard!();
    let web = Web::start();
    let served = web.serve_image("room", &image());
    let (dir, daemon) = configured("{}");
    daemon.ok(&["create", "--name", "kept", "box:1", "sleep", "100"]);
    let archive = dir.path().join("saved.tar").display().to_string();
    daemon.ok(&["save", "-o", &archive, "box:1"]);
    std::fs::write(dir.path().join("Dockerfile"), "FROM box:1\nRUN echo x > /x\n").unwrap();
    let before = Inventory::of(&daemon);
    let file = dir.path().join("daemon.json");
    let reload = |config: &str| {
        std::fs::write(&file, config).unwrap();
        hang_up(&daemon);
    };
    reload(r#"{"min-free": "99%"}"#);
    let pull = ["pull", served.name.as_str()];
    let refused = crate::support::retry(|| {
        let pulled = daemon.run(&pull);
        (!pulled.status.success()).then(|| text(&pulled.stderr))
    });
    assert!(refused.is_some_and(|said| said.contains("min-free") && said.contains("system prune")));
    for args in [
        vec!["load", "-i", &archive],
        vec!["import", &archive, "imported:1"],
        vec!["build", "-t", "built:1", dir.path().to_str().unwrap()],
    ] {
        let output = daemon.run(&args);
        let said = format!("{}{}", text(&output.stdout), text(&output.stderr));
        assert!(
            !output.status.success() && said.contains("min-free"),
            "{args:?}: {said}"
        );
    }
    before.assert_unchanged(&daemon, "what had no room");
    // What is here works, and can be removed.
    daemon.ok(&["start", "kept"]);
    daemon.ok(&["rm", "-f", "kept"]);
    reload(r#"{"min-free": "1k"}"#);
    assert!(crate::support::retry(|| daemon.run(&pull).status.success().then_some(())).is_some());
}
