//! Whose the files in a mount are, seen in the container and on the host.

use std::os::unix::fs::{MetadataExt, chown};
use std::path::Path;

use crate::support::{Daemon, text};

/// `uid:gid` on the host.
fn owner(path: &Path) -> String {
    let meta = std::fs::symlink_metadata(path).unwrap();
    format!("{}:{}", meta.uid(), meta.gid())
}

fn run(daemon: &Daemon, args: &[&str], script: &str) -> String {
    daemon.ok(&[&["run", "--rm"], args, &["box:1", "sh", "-c", script]].concat())
}

fn directory(daemon: &Daemon, name: &str, uid: u32, gid: u32) -> std::path::PathBuf {
    let path = daemon.dir.path().join(name);
    std::fs::create_dir(&path).unwrap();
    std::fs::write(path.join("there"), "text\n").unwrap();
    chown(path.join("there"), Some(uid), Some(gid)).unwrap();
    chown(&path, Some(uid), Some(gid)).unwrap();
    path
}

const SEEN: &str = "busybox stat -c %u:%g /d /d/there; echo more >> /d/there; mkdir /d/sub; touch /d/sub/made; \
                    busybox stat -c %u:%g /d/sub/made";

#[test]
fn what_the_containers_user_makes_belongs_to_the_owner_of_the_directory() {
    guard!();
    let daemon = Daemon::start();
    for (number, user, seen) in [
        (1, "0", "0:0"),
        (2, "33", "33:33"),
        (3, "33:44", "33:44"),
        (4, "1000:1001", "1000:1001"),
    ] {
        let path = directory(&daemon, &format!("host{number}"), 1000, 1001);
        let bind = format!("{}:/d:U", path.display());
        let shown = run(&daemon, &["-u", user, "-v", &bind], SEEN);
        assert_eq!(shown, format!("{seen}\n{seen}\n{seen}\n"), "{user}");
        for file in ["", "there", "sub", "sub/made"] {
            assert_eq!(owner(&path.join(file)), "1000:1001", "{user} {file}");
        }
    }
    // Others keep their ids: root of the container, beside a container's user.
    let path = directory(&daemon, "mixed", 1000, 1000);
    let bind = format!("type=bind,src={},dst=/d,U", path.display());
    daemon.ok(&[
        "run", "-d", "--name", "one", "-u", "33", "--mount", &bind, "box:1", "sleep", "1000",
    ]);
    daemon.ok(&["exec", "one", "touch", "/d/by-user"]);
    daemon.ok(&["exec", "-u", "0", "one", "touch", "/d/by-root"]);
    assert_eq!(owner(&path.join("by-user")), "1000:1000");
    assert_eq!(owner(&path.join("by-root")), "0:0");
    if let Some(output) = daemon.docker(&[
        "run",
        "--rm",
        "-u",
        "33",
        "-v",
        &format!("{}:/d:U", path.display()),
        "box:1",
        "touch",
        "/d/docker",
    ]) {
        assert!(output.status.success(), "{}", text(&output.stderr));
        assert_eq!(owner(&path.join("docker")), "1000:1000");
    }
}

#[test]
fn a_program_of_a_user_does_not_become_roots() {
    guard!();
    let daemon = Daemon::start();
    // Root of the container is 1000 in it. Whoever is 1000 in the container must not be root on the disk.
    let path = directory(&daemon, "host", 1000, 1000);
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let bind = format!("{}:/d:U", path.display());
    daemon.ok(&[
        "run", "-d", "--name", "one", "-v", &bind, "box:1", "sleep", "1000",
    ]);
    let refused = daemon.run(&["exec", "-u", "1000", "one", "touch", "/d/made"]);
    assert!(!refused.status.success() && !path.join("made").exists());
}

#[test]
fn chosen_ids_hold_for_binds_and_volumes_and_nothing_is_changed_on_the_disk() {
    guard!();
    let daemon = Daemon::start();
    let path = directory(&daemon, "host", 70_000, 70_001);
    let bind = format!(
        "type=bind,src={},dst=/d,idmap=70000:70001:10,idmap=33@80000:80000:1",
        path.display()
    );
    let shown = run(
        &daemon,
        &["--mount", &bind],
        "busybox stat -c %u:%g /d/there; touch /d/zero; busybox chown 5:6 /d/zero; touch /d/web; busybox chown 33:33 /d/web; \
         busybox chown 50 /d/web 2>/dev/null || echo refused",
    );
    assert_eq!(shown, "0:0\nrefused\n");
    assert_eq!(owner(&path.join("zero")), "70005:70007");
    assert_eq!(owner(&path.join("web")), "80000:80000");
    assert_eq!(owner(&path.join("there")), "70000:70001");
    // A volume, and another container without it.
    run(&daemon, &["--mount", "src=data,dst=/d,idmap=1000:1000:1"], "true");
    let data = daemon.ok(&["volume", "inspect", "-f", "{{.Mountpoint}}", "data"]);
    chown(data.trim(), Some(1000), Some(1000)).unwrap();
    run(
        &daemon,
        &["--mount", "src=data,dst=/d,idmap=1000:1000:1"],
        "touch /d/made",
    );
    assert_eq!(owner(&Path::new(data.trim()).join("made")), "1000:1000");
    assert_eq!(
        run(&daemon, &["-v", "data:/d"], "busybox stat -c %u:%g /d/made"),
        "1000:1000\n"
    );
    // inspect and another container that takes the mount over say the same.
    daemon.ok(&["create", "--name", "one", "--mount", &bind, "box:1", "true"]);
    let said = daemon.ok(&["inspect", "-f", "{{json .HostConfig.Mounts}}", "one"]);
    assert!(
        said.contains(r#""IDMap":["70000:70001:10","33@80000:80000:1"]"#),
        "{said}"
    );
    run(&daemon, &["--volumes-from", "one"], "touch /d/taken-over");
    assert_eq!(owner(&path.join("taken-over")), "70000:70001");
}

#[test]
fn in_a_user_namespace_too() {
    guard!();
    let daemon = Daemon::start();
    std::fs::write(daemon.dir.path().join("subuid"), "containers:300000:65536\n").unwrap();
    std::fs::write(daemon.dir.path().join("subgid"), "containers:300000:65536\n").unwrap();
    let mut daemon = daemon;
    daemon
        .args
        .extend(["--subid-dir".into(), daemon.dir.path().display().to_string()]);
    daemon.crash_and_restart();
    let path = directory(&daemon, "host", 1000, 1001);
    let bind = format!("{}:/d:U", path.display());
    let shown = run(&daemon, &["--userns", "auto", "-u", "33:44", "-v", &bind], SEEN);
    assert_eq!(shown, "33:44\n".repeat(3));
    assert_eq!(owner(&path.join("sub/made")), "1000:1001");
    let mount = format!("type=bind,src={},dst=/d,idmap=1000:1001:1", path.display());
    assert_eq!(
        run(
            &daemon,
            &["--userns", "auto", "--mount", &mount],
            "touch /d/x; busybox stat -c %u:%g /d/x"
        ),
        "0:0\n"
    );
    assert_eq!(owner(&path.join("x")), "1000:1001");
    run(
        &daemon,
        &["--userns", "auto", "--mount", "src=data,dst=/d,U", "-u", "33"],
        "touch /d/x",
    );
    let data = daemon.ok(&["volume", "inspect", "-f", "{{.Mountpoint}}", "data"]);
    assert_eq!(owner(&Path::new(data.trim()).join("x")), "0:0");
    let (code, said) = daemon.fails(&[
        "run",
        "--rm",
        "--userns",
        "auto",
        "--mount",
        "src=data,dst=/d,idmap=1000:1000:70000",
        "box:1",
        "true",
    ]);
    assert!(
        code == 125 && said.contains("no id 65536 in its user namespace"),
        "{said}"
    );
}

#[test]
fn what_cannot_be_is_refused_with_a_reason() {
    guard!();
    let daemon = Daemon::start();
    super::in_memory(&daemon, "memory");
    for (flag, mount, complaint) in [
        (
            "--mount",
            "type=bind,src=/sys/kernel,dst=/d,idmap=1000:1000:1",
            "does not support id-mapped mounts",
        ),
        ("-v", "/proc/sys:/d:U", "does not support id-mapped mounts"),
        (
            "--mount",
            "src=memory,dst=/d,U",
            "the volume's options mount something else",
        ),
        (
            "--mount",
            "type=tmpfs,dst=/d,U",
            "field IDMap must not be specified",
        ),
        (
            "--mount",
            "src=data,dst=/d,idmap=1000:1",
            "expected UID:GID:LENGTH",
        ),
        ("--mount", "src=data,dst=/d,idmap=1:1:5,idmap=3:9:1", "overlaps"),
        ("--mount", "src=data,dst=/d,U,idmap=3:9:1", "invalid id map \"U\""),
    ] {
        // The user is one for whom something has to be translated.
        let (code, said) = daemon.fails(&["run", "--rm", "-u", "33", flag, mount, "box:1", "true"]);
        assert!(code == 125 && said.contains(complaint), "{mount}: {code} {said}");
    }
    assert_eq!(daemon.ok(&["ps", "-aq"]), "");
    assert_eq!(daemon.ok(&["system", "check"]), "Nothing is wrong.\n");
}
