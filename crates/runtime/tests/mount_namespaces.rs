//! Containers in a mount namespace that was there before, by its path or because the configuration names none: as the
//! field's runtimes have it inside, and nothing of it in the host's table.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use spec::runtime::{Hook, Hooks, IdMapping, Namespace, NamespaceType};
use support::Bundle;
use support::cli::{Cli, nothing_is_left, prepared};

/// The namespace, the files at the top, what is mounted where the table can be seen, and whether it all works.
const PROBE: &str = "readlink /proc/self/ns/mnt; ls /; ls /dev | grep -vx -e core -e console; pwd; wc -c </proc/keys; \
    echo x >/dev/null && cat /proc/self/comm";
const TABLE: &str = "while read a b c d e f; do echo at $e; done </proc/self/mountinfo | sort -u";

/// A process in a mount namespace of its own.
struct Holder(Child);

impl Holder {
    fn new() -> Holder {
        let child = Command::new("unshare")
            .args(["--mount", "sleep", "100"])
            .spawn()
            .unwrap();
        let holder = Holder(child);
        while holder.namespace() == own() {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        holder
    }

    fn path(&self) -> PathBuf {
        format!("/proc/{}/ns/mnt", self.0.id()).into()
    }

    fn namespace(&self) -> PathBuf {
        fs::read_link(self.path()).unwrap()
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn own() -> PathBuf {
    fs::read_link("/proc/self/ns/mnt").unwrap()
}

fn with_mounts_of(bundle: &mut Bundle, path: Option<&Path>) {
    let namespaces = &mut bundle.linux().namespaces;
    // crun of Debian 12 knows no time namespaces.
    namespaces.retain(|one| !matches!(one.r#type, NamespaceType::Mount | NamespaceType::Time));
    namespaces.extend(path.map(|path| Namespace {
        r#type: NamespaceType::Mount,
        path: Some(path.to_owned()),
    }));
    // Its view of a version 1 cgroup tree is arranged differently.
    bundle
        .spec
        .mounts
        .retain(|mount| mount.destination != Path::new("/sys/fs/cgroup"));
    bundle.spec.oci_version = "1.0.2".to_owned();
    bundle.write_config();
}

/// What another runtime prints, in a mount namespace to be thrown away: it leaves mounts in the one that it is in.
fn other(command: &str, bundle: &Bundle, id: &str) -> Option<(PathBuf, String)> {
    let program = command.split(' ').next().unwrap_or_default();
    if Command::new(program).arg("--version").output().is_err() {
        println!("skipped: needs {program}");
        return None;
    }
    // Where both cgroup versions are mounted crun refuses to run.
    let script = format!(
        "umount -l /sys/fs/cgroup/unified 2>/dev/null; readlink /proc/self/ns/mnt; exec {command} run --bundle {} {id}",
        bundle.path().display()
    );
    let output = Command::new("unshare")
        .args(["--mount", "sh", "-c", &script])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    // crun without a mount namespace fails in the end, after the program has run; what that saw is what is compared.
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(text.lines().count() > 1, "{command}: {text}{complaint}");
    let (namespace, rest) = text.split_once('\n').unwrap();
    Some((namespace.into(), rest.to_owned()))
}

fn mounts_of(bundle: &Bundle) -> Vec<String> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let place = bundle.path().display().to_string();
    let lines = table.lines().filter(|line| line.contains(&place));
    lines.map(str::to_owned).collect()
}

fn run(cli: &Cli, bundle: &Bundle, id: &str) -> String {
    cli.ok(&["run", "--bundle", bundle.path().to_str().unwrap(), id])
}

#[test]
fn a_mount_namespace_that_is_joined_by_its_path_becomes_the_containers() {
    let Some((cli, mut bundle, id)) = prepared("mnt-path") else {
        return;
    };
    bundle.shell(&format!("{PROBE}; {TABLE}"));
    let compare = |bundle: &mut Bundle, run: &dyn Fn(&Bundle) -> Option<String>| {
        let holder = Holder::new();
        with_mounts_of(bundle, Some(&holder.path()));
        let text = run(bundle)?;
        let (namespace, rest) = text.split_once('\n').unwrap();
        assert_eq!(Path::new(namespace), holder.namespace(), "{text}");
        Some(rest.to_owned())
    };
    let ours = compare(&mut bundle, &|bundle| Some(run(&cli, bundle, &id))).unwrap();
    assert_eq!(mounts_of(&bundle), [""; 0], "in the host's table");
    assert!(
        ours.contains("at /proc\n") && ours.contains("at /dev\n"),
        "{ours}"
    );
    nothing_is_left(&cli, &id);
    for command in ["crun --cgroup-manager cgroupfs", "runc"] {
        let theirs = compare(&mut bundle, &|bundle| Some(other(command, bundle, &id)?.1));
        if let Some(theirs) = theirs {
            assert_eq!(ours, theirs, "{command}");
        }
    }
}

#[test]
fn without_a_mount_namespace_the_hosts_is_the_containers_and_shows_nothing_of_it() {
    let Some((cli, mut bundle, id)) = prepared("mnt-none") else {
        return;
    };
    bundle.shell(PROBE);
    for path in [None, Some(Path::new("/proc/self/ns/mnt"))] {
        with_mounts_of(&mut bundle, path);
        let ours = run(&cli, &bundle, &id);
        let (namespace, rest) = ours.split_once('\n').unwrap();
        assert_eq!(Path::new(namespace), own(), "{ours}");
        assert!(rest.contains("bin\n") && rest.ends_with("/\n0\ncat\n"), "{rest}");
        nothing_is_left(&cli, &id);
        // runc refuses to mask anything there.
        if let Some((namespace, theirs)) = other("crun --cgroup-manager cgroupfs", &bundle, &id) {
            assert_eq!(
                theirs.split_once('\n').unwrap(),
                (namespace.to_str().unwrap(), rest)
            );
        }
    }
    // While it lives.
    bundle.shell("sleep 100");
    with_mounts_of(&mut bundle, None);
    let before = fs::read_to_string("/proc/self/mountinfo")
        .unwrap()
        .lines()
        .count();
    cli.run_detached(bundle.path(), &id);
    assert_eq!(mounts_of(&bundle), [""; 0]);
    let during = fs::read_to_string("/proc/self/mountinfo")
        .unwrap()
        .lines()
        .count();
    // Others on this machine mount and unmount meanwhile.
    assert!(during < before + 5, "{before} {during}");
    let inside = cli.ok(&["exec", &id, "sh", "-c", PROBE]);
    assert_eq!(inside.split_once('\n').unwrap().0, own().to_str().unwrap());
    assert!(inside.ends_with("/\n0\ncat\n"), "{inside}");
    // Up is nothing but the root, however far one goes.
    let up = cli.ok(&["exec", &id, "sh", "-c", "cd /../../..; pwd; ls"]);
    assert!(up.starts_with("/\nbin\n"), "{up}");
    cli.ok(&["delete", "--force", &id]);
    nothing_is_left(&cli, &id);
}

#[test]
fn what_cannot_be_without_a_mount_namespace_of_its_own_is_refused_by_name() {
    let Some((cli, mut bundle, id)) = prepared("mnt-refused") else {
        return;
    };
    bundle.shell("true");
    bundle.linux().rootfs_propagation = "shared".to_owned();
    with_mounts_of(&mut bundle, None);
    let path = bundle.path().to_str().unwrap().to_owned();
    let complaint = cli.fails(&["run", "--bundle", &path, &id]);
    assert!(
        complaint.contains("linux.rootfsPropagation needs a mount namespace"),
        "{complaint}"
    );
    bundle.linux().rootfs_propagation = String::new();
    let map = IdMapping {
        container_id: 0,
        host_id: 300_000,
        size: 65_536,
    };
    let linux = bundle.linux();
    (linux.uid_mappings, linux.gid_mappings) = (vec![map], vec![map]);
    linux.namespaces.push(Namespace {
        r#type: NamespaceType::User,
        path: None,
    });
    let holder = Holder::new();
    for (path_of_mounts, expected) in [
        (None, "a user namespace needs a mount namespace"),
        (Some(holder.path()), "join the user namespace that owns it"),
    ] {
        with_mounts_of(&mut bundle, path_of_mounts.as_deref());
        let complaint = cli.fails(&["run", "--bundle", &path, &id]);
        assert!(
            complaint.contains("linux.namespaces") && complaint.contains(expected),
            "{complaint}"
        );
        nothing_is_left(&cli, &id);
    }
}

/// The hook has the root at its path in the host's files; a process that comes in later must not begin at theirs.
#[test]
fn an_exec_into_a_root_that_was_not_pivoted_to_is_in_the_container() {
    let Some((cli, mut bundle, id)) = prepared("mnt-no-pivot") else {
        return;
    };
    bundle.shell("sleep 100");
    bundle.spec.hooks = Some(Hooks {
        create_runtime: vec![Hook {
            path: "/bin/true".into(),
            ..Hook::default()
        }],
        ..Hooks::default()
    });
    fs::write(bundle.root().join("etc/whose"), "the container's").unwrap();
    bundle.write_config();
    let path = bundle.path().to_str().unwrap();
    let done = Command::new(&cli.program)
        .arg("--root")
        .arg(cli.state.path())
        .args(["run", "--no-pivot", "--detach", "--bundle", path, &id])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert!(done.success());
    assert_eq!(cli.ok(&["exec", &id, "cat", "/etc/whose"]), "the container's");
    assert_eq!(mounts_of(&bundle), [""; 0]);
    cli.ok(&["delete", "--force", &id]);
    nothing_is_left(&cli, &id);
}
