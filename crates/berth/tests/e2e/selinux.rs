//! Containers with labels of SELinux. Where none is in force these tests are skipped but for the last: `cargo xtask test --vm
//! selinux` boots a machine where it is, with the policy in xtask/src/vm/guest/policy.conf.

use std::collections::BTreeSet;
use std::path::Path;

use crate::support::{Daemon, inspect, retry, text};

/// Ends a test where no policy with labels for containers is in force.
macro_rules! labels {
    () => {
        guard!();
        if !sys::selinux::is_known("system_u:system_r:container_t:s0") || !sys::selinux::is_enabled() {
            println!("skipped: needs SELinux with the test's policy (cargo xtask test --vm selinux)");
            return;
        }
    };
}

const OWN: &str = "busybox tr -d '\\0' < /proc/self/attr/current";

fn start() -> Daemon {
    Daemon::start_with(&["--selinux-enabled"])
}

fn shell(daemon: &Daemon, options: &[&str], script: &str) -> String {
    daemon.ok(&[&["run", "--rm"], options, &["box:1", "sh", "-c", script]].concat())
}

fn label_of(path: &Path) -> String {
    let parent = std::fs::File::open(path.parent().unwrap()).unwrap();
    let name = path.file_name().unwrap();
    let value = sys::beneath::get_xattr(std::os::fd::AsFd::as_fd(&parent), name, "security.selinux").unwrap();
    text(&value.unwrap()).trim_end_matches('\0').to_owned()
}

#[test]
fn every_container_is_confined_at_a_level_of_its_own() {
    labels!();
    let mut daemon = start();
    assert!(
        daemon
            .ok(&["info", "--format", "{{json .SecurityOptions}}"])
            .contains("\"name=selinux\"")
    );
    let mut levels = BTreeSet::new();
    for name in ["one", "two", "three"] {
        daemon.ok(&["run", "-d", "--name", name, "box:1", "sleep", "1000"]);
        let process = inspect(&daemon, name, "{{.ProcessLabel}}");
        let level = process
            .strip_prefix("system_u:system_r:container_t:s0:c")
            .unwrap()
            .to_owned();
        assert_eq!(
            inspect(&daemon, name, "{{.MountLabel}}"),
            format!("system_u:object_r:container_file_t:s0:c{level}")
        );
        levels.insert(level);
        let pid = inspect(&daemon, name, "{{.State.Pid}}");
        let really = std::fs::read_to_string(format!("/proc/{pid}/attr/current")).unwrap();
        assert_eq!(really.trim_end_matches('\0'), process);
    }
    assert_eq!(levels.len(), 3, "{levels:?}");
    // They use what is theirs: the image's files, what they write, the engine's files, devices.
    let uses = "cat /etc/hosts > /tmp/copy && busybox rm /bin/wc && : > /dev/null && ls /dev/shm /dev/mqueue && echo fine > /new && cat /new";
    assert!(shell(&daemon, &[], uses).ends_with("fine\n"));
    // And keep it when the daemon is another one, which gives out none of their levels.
    daemon.crash_and_restart();
    let process = inspect(&daemon, "one", "{{.ProcessLabel}}");
    assert_eq!(daemon.ok(&["exec", "one", "sh", "-c", OWN]), process);
    daemon.ok(&["restart", "-t", "0", "one"]);
    assert_eq!(daemon.ok(&["exec", "one", "sh", "-c", OWN]), process);
    let report = daemon.ok(&["inspect", "--isolation", "one"]);
    assert!(report.contains(&process), "{report}");
}

#[test]
fn a_containers_files_are_out_of_reach_for_another() {
    labels!();
    let daemon = start();
    let dir = tempfile::tempdir().unwrap();
    let bind = |options: &str| format!("{}:/srv{options}", dir.path().display());
    let write = "echo mine > /srv/mine && sleep 1000";
    daemon.ok(&[
        "run",
        "-d",
        "--name",
        "one",
        "-v",
        &bind(":Z"),
        "box:1",
        "sh",
        "-c",
        write,
    ]);
    let written = || {
        std::fs::read_to_string(dir.path().join("mine"))
            .ok()
            .filter(|text| !text.is_empty())
    };
    retry(written).expect("nothing was written");
    // Made by the container, so with its label.
    assert_eq!(
        label_of(&dir.path().join("mine")),
        inspect(&daemon, "one", "{{.MountLabel}}")
    );
    let script = "cat /srv/mine 2>&1 || true";
    let refused = shell(&daemon, &["-v", &bind("")], script);
    assert!(refused.contains("Permission denied"), "{refused}");
    let label = inspect(&daemon, "one", "{{.ProcessLabel}}");
    let level = label.split_once("container_t:").unwrap().1;
    let same = format!("label=level:{level}");
    assert_eq!(
        shell(&daemon, &["--security-opt", &same, "-v", &bind("")], script),
        "mine\n"
    );
}

#[test]
fn binds_are_for_containers_when_they_are_relabelled() {
    labels!();
    let daemon = start();
    let host = tempfile::tempdir().unwrap();
    let (shown, deep) = (host.path().join("shown"), host.path().join("shown/a/b"));
    std::fs::create_dir_all(&deep).unwrap();
    std::fs::write(deep.join("file"), "content\n").unwrap();
    let bind = |options: &str| format!("{}:/host{options}", shown.display());
    let read = "cat /host/a/b/file 2>&1 || true";
    assert!(shell(&daemon, &["-v", &bind("")], read).contains("Permission denied"));
    assert_eq!(shell(&daemon, &["-v", &bind(":z")], read), "content\n");
    assert_eq!(
        label_of(&deep.join("file")),
        "system_u:object_r:container_file_t:s0"
    );
    // It is for all now.
    assert_eq!(shell(&daemon, &["-v", &bind(":ro")], read), "content\n");
    daemon.ok(&[
        "run",
        "-d",
        "--name",
        "owner",
        "-v",
        &bind(":ro,Z"),
        "box:1",
        "sleep",
        "1000",
    ]);
    let own = daemon.ok(&["exec", "owner", "cat", "/host/a/b/file"]);
    assert_eq!(own, "content\n");
    assert_eq!(
        label_of(&deep.join("file")),
        inspect(&daemon, "owner", "{{.MountLabel}}")
    );
    // And now for one.
    assert!(shell(&daemon, &["-v", &bind("")], read).contains("Permission denied"));
    let (_, error) = daemon.fails(&["run", "--rm", "-v", "/usr:/host:z", "box:1", "true"]);
    assert!(
        error.contains("SELinux relabeling of /usr is not allowed"),
        "{error}"
    );
    let (code, error) = daemon.fails(&["run", "--rm", "-v", &bind(":z,Z"), "box:1", "true"]);
    assert!(code == 125 && error.contains("invalid mode: z,Z"), "{error}");
}

#[test]
fn volumes_are_for_all_containers_unless_one_wants_them_alone() {
    labels!();
    let daemon = start();
    let write = ["-v", "data:/etc"];
    assert_eq!(
        shell(
            &daemon,
            &write,
            "echo x > /etc/made && cat /etc/passwd | head -c 4"
        ),
        "root"
    );
    assert_eq!(shell(&daemon, &write, "cat /etc/made"), "x\n");
    let place = inspect(&daemon, "data", "{{.Mountpoint}}");
    assert_eq!(
        label_of(Path::new(&place)),
        "system_u:object_r:container_file_t:s0"
    );
    daemon.ok(&[
        "run",
        "-d",
        "--name",
        "alone",
        "-v",
        "data:/data:Z",
        "box:1",
        "sleep",
        "1000",
    ]);
    assert_eq!(daemon.ok(&["exec", "alone", "cat", "/data/made"]), "x\n");
    let refused = shell(&daemon, &["-v", "data:/data"], "cat /data/made 2>&1 || true");
    assert!(refused.contains("Permission denied"), "{refused}");
}

#[test]
fn what_is_said_about_labels_counts() {
    labels!();
    let daemon = start();
    let with = |options: &[&str]| {
        let mut words = Vec::new();
        for option in options {
            words.extend(["--security-opt", option]);
        }
        shell(&daemon, &words, OWN)
    };
    assert_eq!(
        with(&[
            "label=type:container_viewer_t",
            "label=level:s0:c7,c9",
            "label=user:system_u",
            "label=role:system_r"
        ]),
        "system_u:system_r:container_viewer_t:s0:c7,c9"
    );
    for options in [
        &["--security-opt", "label=disable"][..],
        &["--privileged"],
        &["--pid", "host"],
        &["--ipc", "host"],
    ] {
        let free = shell(&daemon, options, OWN);
        assert!(free.contains(":kernel_t:"), "{options:?}: {free}");
    }
    daemon.ok(&["create", "--name", "all", "--privileged", "box:1", "true"]);
    assert_eq!(
        inspect(&daemon, "all", "{{json .HostConfig.SecurityOpt}}"),
        "[\"label=disable\"]"
    );
    for (option, expected) in [
        (
            "label=type:no_such_t",
            "has no label \"system_u:system_r:no_such_t:",
        ),
        (
            "label=filetype:no_such_t",
            "has no label \"system_u:object_r:no_such_t:",
        ),
        ("label=kind:x", "bad label option \"kind:x\""),
    ] {
        let (code, error) = daemon.fails(&["run", "--rm", "--security-opt", option, "box:1", "true"]);
        assert!(code == 125 && error.contains(expected), "{error}");
    }
    // Who shares a namespace with a container can be no more apart from it than that.
    daemon.keep("first", &["--ipc", "shareable"], &["sleep", "1000"]);
    let joined = shell(
        &daemon,
        &["--ipc", "container:first", "--pid", "container:first"],
        OWN,
    );
    assert_eq!(joined, inspect(&daemon, "first", "{{.ProcessLabel}}"));
    // The policy lets this type send no signals, whoever the user is.
    let script = "kill -CONT $$ && echo sent";
    assert_eq!(shell(&daemon, &[], script), "sent\n");
    let quiet = [
        "run",
        "--rm",
        "--security-opt",
        "label=type:container_viewer_t",
        "box:1",
        "sh",
        "-c",
        script,
    ];
    let (_, said) = daemon.fails(&quiet);
    assert!(!said.contains("sent"), "{said}");
}

#[test]
fn a_build_and_its_containers_work_beside_labels() {
    labels!();
    let daemon = start();
    let context = tempfile::tempdir().unwrap();
    std::fs::write(
        context.path().join("Dockerfile"),
        "FROM box:1\nRUN --mount=type=cache,target=/cache echo kept > /cache/x && cat /cache/x > /made\n",
    )
    .unwrap();
    daemon.built(&["-t", "made:1", context.path().to_str().unwrap()]);
    assert_eq!(daemon.ok(&["run", "--rm", "made:1", "cat", "/made"]), "kept\n");
    // A label belongs to this host and is no part of an image.
    daemon.ok(&[
        "run",
        "--name",
        "changed",
        "made:1",
        "sh",
        "-c",
        "echo more > /more",
    ]);
    daemon.ok(&["commit", "changed", "made:2"]);
    assert_eq!(daemon.ok(&["run", "--rm", "made:2", "cat", "/more"]), "more\n");
}

#[test]
fn without_the_daemons_word_labels_are_taken_and_change_nothing() {
    guard!();
    let daemon = Daemon::start();
    let asked = ["--name", "plain", "--security-opt", "label=type:container_t"];
    let output = daemon.run(&[&["create"], &asked[..], &["box:1", "true"]].concat());
    let told = text(&output.stderr);
    assert!(output.status.success(), "{told}");
    assert!(told.contains("SELinux labels are not applied"), "{told}");
    let quiet = daemon.run(&["create", "--security-opt", "label=disable", "box:1", "true"]);
    assert_eq!(text(&quiet.stderr), "");
    assert_eq!(inspect(&daemon, "plain", "<{{.ProcessLabel}}>"), "<>");
    daemon.ok(&["start", "plain"]);
    assert!(
        !daemon
            .ok(&["info", "--format", "{{json .SecurityOptions}}"])
            .contains("selinux")
    );
}
