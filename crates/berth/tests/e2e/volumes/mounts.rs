//! How binds and parts of volumes are mounted, and what nobody can make of that.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::inventory::Inventory;
use crate::support::{Daemon, host, text};

#[test]
fn a_part_of_a_volume_is_mounted_and_nothing_beyond_it() {
    guard!();
    let daemon = Daemon::start();
    daemon.ok(&[
        "run",
        "--rm",
        "-v",
        "data:/d",
        "box:1",
        "sh",
        "-c",
        "mkdir -p /d/sub/deep; echo in > /d/sub/file; ln -s sub /d/inside; ln -s /etc /d/absolute; \
         ln -s ../../../../../../../../../../etc /d/relative",
    ]);
    let mount = |part: &str| format!("type=volume,src=data,dst=/x,volume-subpath={part}");
    for part in ["sub", "sub/deep/..", "inside"] {
        let seen = daemon.ok(&["run", "--rm", "--mount", &mount(part), "box:1", "cat", "/x/file"]);
        assert_eq!(seen, "in\n", "{part}");
    }
    let before = Inventory::of(&daemon);
    for part in [
        "absolute",
        "relative",
        "../_data",
        "sub/../../..",
        "/etc",
        "nosuch",
    ] {
        let (code, said) = daemon.fails(&["run", "--rm", "--mount", &mount(part), "box:1", "ls", "/x"]);
        assert!(
            matches!(code, 125 | 127) && said.contains("cannot access path") && said.contains(part),
            "{part}: {code} {said}"
        );
    }
    before.assert_unchanged(&daemon, "refused parts");
}

/// A container that has the whole volume swaps the part for a link to the host, again and again, while others start.
#[test]
fn a_part_that_becomes_a_link_meanwhile_leads_nowhere() {
    guard!();
    let daemon = Daemon::start();
    let secret = daemon.dir.path().join("secret");
    std::fs::create_dir(&secret).unwrap();
    std::fs::write(secret.join("flag"), "host").unwrap();
    // Now and then it stands still, so that some get what they asked for.
    let swap = format!(
        "cd /d; while :; do for i in 1 2 3 4 5 6 7 8 9; do mkdir part; rmdir part; ln -s {} part; rm part; done; \
         mkdir part; touch part/own; busybox usleep 50000; rm -r part; done",
        secret.display()
    );
    daemon.ok(&[
        "run", "-d", "--name", "swapping", "-v", "data:/d", "box:1", "sh", "-c", &swap,
    ]);
    let mount = "type=volume,src=data,dst=/x,volume-subpath=part";
    let (mut mounted, mut refused) = (0, 0);
    let patience = Instant::now() + Duration::from_secs(60);
    let mut tries = 0;
    while tries < 60 || ((mounted == 0 || refused == 0) && Instant::now() < patience) {
        tries += 1;
        let output = daemon.run(&["run", "--rm", "--mount", mount, "box:1", "ls", "/x"]);
        let seen = text(&output.stdout);
        assert!(!seen.contains("flag"), "a directory of the host was mounted");
        match output.status.success() {
            true => mounted += 1,
            false => {
                let said = text(&output.stderr);
                assert!(said.contains("/part"), "refused for another reason: {said}");
                refused += 1;
            }
        }
    }
    println!("{mounted} mounted, {refused} refused");
    assert!(mounted > 0 && refused > 0, "{mounted} mounted, {refused} refused");
    let running = daemon.ok(&["inspect", "-f", "{{.State.Running}}", "swapping"]);
    assert_eq!(running, "true\n", "nothing was swapped any more");
    daemon.ok(&["rm", "-f", "swapping"]);
}

/// A directory of the host with mounts of its own below it.
pub(super) struct Shared(pub(super) PathBuf);

impl Shared {
    pub(super) fn make(path: &Path) -> Shared {
        std::fs::create_dir_all(path.join("sub")).unwrap();
        let shared = Shared(path.to_owned());
        let place = path.to_str().unwrap();
        host(&["mount", "--bind", place, place]);
        host(&["mount", "--make-shared", place]);
        shared
    }

    pub(super) fn mount_below(&self, name: &str) {
        let place = self.0.join(name);
        std::fs::create_dir_all(&place).unwrap();
        host(&["mount", "-t", "tmpfs", "berth-test", place.to_str().unwrap()]);
        std::fs::write(place.join("file"), "below\n").unwrap();
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-R").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn mounts_come_through_where_that_was_asked_for() {
    guard!();
    let daemon = Daemon::start();
    let shared = Shared::make(&daemon.dir.path().join("tree"));
    let place = shared.0.to_str().unwrap();
    for (name, mode) in [("private", ""), ("slave", ":rslave"), ("shared", ":rshared")] {
        let bind = format!("{place}:/d{mode}");
        daemon.ok(&[
            "run",
            "-d",
            "--name",
            name,
            "--cap-add",
            "SYS_ADMIN",
            "-v",
            &bind,
            "box:1",
            "sleep",
            "1000",
        ]);
    }
    shared.mount_below("sub");
    assert_eq!(daemon.ok(&["exec", "private", "ls", "/d/sub"]), "");
    for name in ["slave", "shared"] {
        assert_eq!(
            daemon.ok(&["exec", name, "cat", "/d/sub/file"]),
            "below\n",
            "{name}"
        );
    }
    // And back.
    for name in ["private", "slave", "shared"] {
        let own = format!(
            "mkdir /d/of-{name}; busybox mount -t tmpfs own /d/of-{name}; echo up > /d/of-{name}/file"
        );
        daemon.ok(&["exec", name, "sh", "-c", &own]);
        let seen = std::fs::read_to_string(shared.0.join(format!("of-{name}/file"))).ok();
        assert_eq!(seen.is_some(), name == "shared", "{name}");
    }
    daemon.ok(&["rm", "-f", "private", "slave", "shared"]);
}

/// Nothing comes through a mount that is nobody's peer, and to say otherwise would be silence about it.
#[test]
fn what_cannot_come_through_is_refused() {
    guard!();
    let daemon = Daemon::start();
    let shared = Shared::make(&daemon.dir.path().join("tree"));
    let follower = Shared::make(&daemon.dir.path().join("follower"));
    let (tree, place) = (shared.0.to_str().unwrap(), follower.0.to_str().unwrap());
    host(&["mount", "--make-private", place]);
    let run = |mode: &str| {
        let bind = format!("{place}:/d:{mode}");
        let output = daemon.run(&["run", "--rm", "-v", &bind, "box:1", "true"]);
        (output.status.success(), text(&output.stderr).to_owned())
    };
    // The first container unpacks the image.
    assert_eq!(run("rprivate"), (true, String::new()));
    let before = Inventory::of(&daemon);
    for (mode, wanted) in [
        ("rslave", "shared or slave"),
        ("slave", "shared or slave"),
        ("rshared", "shared"),
        ("shared", "shared"),
    ] {
        let (done, said) = run(mode);
        let why = format!("path {place} is mounted on {place} but it is not a {wanted} mount");
        assert!(!done && said.contains(&why), "{mode}: {said}");
    }
    before.assert_unchanged(&daemon, "refused propagations");
    // One that follows another can be followed, and has nothing to give.
    host(&["umount", place]);
    host(&["mount", "--bind", tree, place]);
    host(&["mount", "--make-slave", place]);
    assert_eq!(run("rslave"), (true, String::new()));
    assert!(run("rshared").1.contains("not a shared mount"));
}

/// A volume with a device of its own has no directory on the host to find a part in: better none of it than all of it.
#[test]
fn a_part_of_a_volume_with_a_device_is_refused() {
    guard!();
    let daemon = Daemon::start();
    daemon.ok(&[
        "volume",
        "create",
        "-o",
        "type=tmpfs",
        "-o",
        "device=tmpfs",
        "scratch",
    ]);
    let mount = |more: &str| format!("type=volume,src=scratch,dst=/x{more}");
    daemon.ok(&["run", "--rm", "--mount", &mount(""), "box:1", "ls", "/x"]);
    let before = Inventory::of(&daemon);
    let (_, said) = daemon.fails(&[
        "run",
        "--rm",
        "--mount",
        &mount(",volume-subpath=sub"),
        "box:1",
        "ls",
        "/x",
    ]);
    assert!(said.contains("volume scratch") && said.contains("sub"), "{said}");
    before.assert_unchanged(&daemon, "a refused part");
    daemon.ok(&["volume", "rm", "scratch"]);
}

#[test]
fn read_only_goes_as_deep_as_it_was_said() {
    guard!();
    let daemon = Daemon::start();
    let shared = Shared::make(&daemon.dir.path().join("tree"));
    shared.mount_below("sub");
    let place = shared.0.to_str().unwrap();
    let run = |more: &str, script: &str| {
        let bind = format!("type=bind,src={place},dst=/d{more}");
        daemon.run(&["run", "--rm", "--mount", &bind, "box:1", "sh", "-c", script])
    };
    let whole = "cat /d/sub/file; touch /d/sub/x 2>/dev/null || echo no; touch /d/x 2>/dev/null || echo no";
    for (more, seen) in [
        (",readonly", "below\nno\nno\n"),
        (
            ",readonly,bind-propagation=rprivate,bind-recursive=readonly",
            "below\nno\nno\n",
        ),
        (",readonly,bind-recursive=writable", "below\nno\n"),
        ("", "below\n"),
    ] {
        let output = run(more, whole);
        assert_eq!(text(&output.stdout), seen, "{more}: {}", text(&output.stderr));
    }
    let output = run(",bind-recursive=disabled", "ls /d/sub");
    assert_eq!(text(&output.stdout), "", "{}", text(&output.stderr));
}

#[test]
fn sources_that_are_not_what_they_were() {
    guard!();
    let daemon = Daemon::start();
    let at = |name: &str| daemon.dir.path().join(name);
    std::fs::create_dir(at("real")).unwrap();
    std::fs::write(at("real").join("file"), "real\n").unwrap();
    std::os::unix::fs::symlink("real", at("link")).unwrap();
    std::fs::write(at("plain"), "plain\n").unwrap();
    let bind = |name: &str, more: &str| format!("type=bind,src={},dst=/d{more}", at(name).display());
    // A link is where it leads, as it is at the start.
    let seen = daemon.ok(&[
        "run",
        "--rm",
        "--mount",
        &bind("link", ""),
        "box:1",
        "cat",
        "/d/file",
    ]);
    assert_eq!(seen, "real\n");
    // One that is to be made.
    daemon.ok(&[
        "run",
        "--rm",
        "--mount",
        &bind("made/deep", ",bind-create-src"),
        "box:1",
        "touch",
        "/d/x",
    ]);
    assert!(at("made/deep/x").exists());
    // A file over a directory, and a directory over a file.
    let before = Inventory::of(&daemon);
    for (source, target) in [("plain", "/bin"), ("real", "/bin/busybox")] {
        let mount = format!("type=bind,src={},dst={target}", at(source).display());
        let (code, said) = daemon.fails(&["run", "--rm", "--mount", &mount, "box:1", "true"]);
        assert!(
            matches!(code, 125..=127) && said.contains(target),
            "{source}: {code} {said}"
        );
    }
    before.assert_unchanged(&daemon, "what does not fit");
    // One that goes between creation and start; and it is usable when it is back.
    std::fs::create_dir(at("going")).unwrap();
    daemon.ok(&[
        "create",
        "--name",
        "waiting",
        "--mount",
        &bind("going", ""),
        "box:1",
        "ls",
        "/d",
    ]);
    std::fs::remove_dir(at("going")).unwrap();
    let (_, said) = daemon.fails(&["start", "waiting"]);
    assert!(
        said.contains("bind source path does not exist") && said.contains("going"),
        "{said}"
    );
    std::fs::create_dir(at("going")).unwrap();
    daemon.ok(&["start", "-a", "waiting"]);
}
