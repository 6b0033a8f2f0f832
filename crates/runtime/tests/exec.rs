//! `exec` by its flags: what a further process is, has and sees.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::fs;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Stdio;

use spec::runtime::{MemoryPolicy, Mount, Personality};
use support::Bundle;
use support::cli::Container;

/// The descriptor that comes over the socket, with what is said to it.
fn received(listener: &UnixListener) -> (OwnedFd, String) {
    let (stream, _) = listener.accept().unwrap();
    let mut said = [0; 64];
    let (count, mut fds) = sys::fd::recv_fds(&stream, &mut said).unwrap();
    let said = String::from_utf8_lossy(&said[..count]).into_owned();
    (fds.pop().unwrap(), said)
}

/// Everything that comes from a terminal's master, whose end is an error.
fn read_terminal(master: OwnedFd) -> String {
    let mut text = Vec::new();
    let _ = fs::File::from(master).read_to_end(&mut text);
    String::from_utf8_lossy(&text).into_owned()
}

#[test]
fn flags_change_user_groups_directory_and_environment() {
    let Some(container) = Container::run("exec-user", |bundle| {
        bundle.process().env.push("KEPT=as configured".to_owned());
    }) else {
        return;
    };
    let script = "id -u; id -G; pwd; echo $A; echo $KEPT; echo $HOME";
    let flags = [
        "--user",
        "33:44",
        "--additional-gids",
        "7",
        "-g",
        "8",
        "--cwd",
        "/tmp",
        "--env",
        "A=b c",
    ];
    assert_eq!(
        container.exec(&flags, &["sh", "-c", script]),
        "33\n44 7 8\n/tmp\nb c\nas configured\n/var/www\n"
    );
    assert_eq!(container.exec(&["--user", "33"], &["id", "-g"]), "0\n");
    for (flags, told) in [
        (&["--user", "web"][..], "UID[:GID]"),
        (&["--cwd", "tmp"], "process.cwd"),
        (&["--env", "nothing"], "process.env"),
    ] {
        let complaint = container.cli.fails(&container.exec_call(flags, &["true"]));
        assert!(complaint.contains(told), "{complaint}");
    }
}

#[test]
fn flags_change_rights() {
    let Some(container) = Container::run("exec-rights", |_| ()) else {
        return;
    };
    let rights = "grep -E '^(CapEff|CapPrm|CapBnd|CapAmb|NoNewPrivs)' /proc/self/status";
    let text = container.exec(&[], &["sh", "-c", rights]);
    assert_eq!(text.matches("00000000a80425fb").count(), 3, "{text}");
    let flags = ["--cap", "CAP_NET_ADMIN", "--no-new-privs"];
    let text = container.exec(&flags, &["sh", "-c", rights]);
    assert_eq!(text.matches("00000000a80435fb").count(), 3, "{text}");
    assert!(
        text.contains("NoNewPrivs:\t1") && text.contains("CapAmb:\t0000000000000000"),
        "{text}"
    );
}

#[test]
fn a_terminal_is_shown_or_handed_over() {
    let Some(container) = Container::run("exec-terminal", |_| ()) else {
        return;
    };
    let text = container.exec(&["--tty"], &["sh", "-c", "tty; test -t 2 && echo all"]);
    assert_eq!(text, "/dev/pts/0\r\nall\r\n");
    let path = container.bundle.path().join("console");
    let listener = UnixListener::bind(&path).unwrap();
    let flags = ["--tty", "--detach", "--console-socket", path.to_str().unwrap()];
    container
        .cli
        .quietly(&container.exec_call(&flags, &["sh", "-c", "tty"]));
    let (master, said) = received(&listener);
    assert_eq!(said, "/dev/ptmx");
    assert_eq!(read_terminal(master), "/dev/pts/0\r\n");
    let complaint = container
        .cli
        .fails(&container.exec_call(&["--tty", "--detach"], &["true"]));
    assert!(complaint.contains("--console-socket"), "{complaint}");
}

#[test]
fn a_detached_process_is_told_of_by_its_number_and_a_handle() {
    let Some(container) = Container::run("exec-handle", |_| ()) else {
        return;
    };
    let path = container.bundle.path().join("handle");
    let file = container.bundle.path().join("pid");
    let listener = UnixListener::bind(&path).unwrap();
    let flags = [
        "--detach",
        "--pidfd-socket",
        path.to_str().unwrap(),
        "--pid-file",
        file.to_str().unwrap(),
    ];
    container
        .cli
        .quietly(&container.exec_call(&flags, &["sleep", "1000"]));
    let number = sys::process::number(received(&listener).0.as_fd()).unwrap();
    assert_eq!(fs::read_to_string(file).unwrap(), number.to_string());
    let line = fs::read_to_string(format!("/proc/{number}/cmdline")).unwrap();
    assert_eq!(line, "sleep\x001000\0");
    assert!(container.group().pids().unwrap().contains(&number));
}

#[test]
fn descriptors_are_handed_on_and_no_others() {
    let Some(container) = Container::run("exec-fds", |_| ()) else {
        return;
    };
    let file = container.bundle.path().join("given");
    fs::write(&file, "from outside\n").unwrap();
    let call = |flags: &str| {
        let script = format!(
            "exec 3<{} 4</etc/passwd; exec {} --root {} exec {flags} {} sh -c 'cat <&3; ls /proc/self/fd'",
            file.display(),
            container.cli.program.display(),
            container.cli.state.path().display(),
            container.id,
        );
        let output = std::process::Command::new("sh")
            .args(["-c", &script])
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    // The last number is the directory that ls reads.
    assert_eq!(call("--preserve-fds 1"), "from outside\n0\n1\n2\n3\n4\n");
    assert_eq!(call(""), "0\n1\n2\n3\n");
}

/// A frozen group holds whoever comes into it.
#[test]
fn a_paused_container_takes_a_process_only_when_that_is_asked_for() {
    let Some(container) = Container::run("exec-paused", |_| ()) else {
        return;
    };
    let before = container.group().pids().unwrap().len();
    container.cli.ok(&["pause", &container.id]);
    let complaint = container.cli.fails(&container.exec_call(&[], &["true"]));
    assert!(complaint.contains("paused"), "{complaint}");
    let mut late = container
        .cli
        .call(&container.exec_call(&["--ignore-paused"], &["echo", "late"]))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    while container.group().pids().unwrap().len() == before {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    assert!(late.try_wait().unwrap().is_none(), "it waits");
    container.cli.ok(&["resume", &container.id]);
    assert_eq!(
        String::from_utf8(late.wait_with_output().unwrap().stdout).unwrap(),
        "late\n"
    );
}

/// Engines look around in a container before its program runs.
#[test]
fn a_created_container_takes_a_process() {
    let Some(container) = Container::create("exec-created", |bundle| {
        bundle.shell("test -e /tmp/made && echo seen >/tmp/seen; sleep 1000");
    }) else {
        return;
    };
    assert_eq!(container.state()["status"], "created");
    let text = container.exec(&[], &["sh", "-c", "touch /tmp/made; hostname; cat /proc/1/comm"]);
    assert!(text.starts_with("berth\n"), "{text}");
    assert_eq!(container.state()["status"], "created", "it still waits");
    container.cli.ok(&["start", &container.id]);
    let seen = container.bundle.root().join("tmp/seen");
    while !seen.exists() {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

#[test]
fn what_holds_for_the_container_holds_for_a_further_process() {
    let Some(container) = Container::run("exec-domain", |bundle| {
        std::os::unix::fs::symlink("busybox", bundle.root().join("bin/uname")).unwrap();
        bundle.linux().personality = Some(Personality {
            domain: "LINUX32".to_owned(),
            ..Personality::default()
        });
        if Path::new("/proc/self/numa_maps").exists() {
            bundle.linux().memory_policy = Some(MemoryPolicy {
                mode: "MPOL_BIND".to_owned(),
                nodes: "0".to_owned(),
                ..MemoryPolicy::default()
            });
        }
    }) else {
        return;
    };
    let machine = container.exec(&[], &["uname", "-m"]);
    assert_ne!(machine.trim(), std::env::consts::ARCH);
    if Path::new("/proc/self/numa_maps").exists() {
        let bound = container.exec(&[], &["grep", "-c", "bind:0", "/proc/self/numa_maps"]);
        assert_ne!(bound, "0\n");
    }
}

#[test]
fn a_process_begins_in_a_group_below_the_containers() {
    let Some(container) = Container::run("exec-group", |_| ()) else {
        return;
    };
    let group = container.group();
    let v2 = group.version() == cgroup::Version::V2;
    let (word, expected) = if v2 {
        ("inner", "0::/inner")
    } else {
        ("pids:inner", ":pids:/inner")
    };
    let paths = group.paths();
    let tree = paths
        .iter()
        .find(|path| v2 || path.controllers.iter().any(|name| name == "pids"));
    fs::create_dir(tree.unwrap().directory.join("inner")).unwrap();
    let text = container.exec(&["--cgroup", word], &["cat", "/proc/self/cgroup"]);
    assert!(text.lines().any(|line| line.ends_with(expected)), "{text}");
    let text = container.exec(&[], &["cat", "/proc/self/cgroup"]);
    assert!(!text.contains("inner"), "{text}");
    for (word, told) in [
        ("../other", "not below"),
        ("nosuch:inner", "nosuch"),
        (if v2 { "nosuch" } else { "pids:nosuch" }, "nosuch"),
    ] {
        let complaint = container
            .cli
            .fails(&container.exec_call(&["--cgroup", word], &["true"]));
        assert!(complaint.contains(told), "{word}: {complaint}");
    }
}

/// Few machines have the filesystem of classes; its files are plain ones here.
#[test]
fn a_process_goes_into_the_class_of_the_container() {
    let Some(container) = Container::run("exec-class", |_| ()) else {
        return;
    };
    let class = container.bundle.path().join("class");
    fs::create_dir(&class).unwrap();
    let record = container.cli.state.path().join(&container.id).join("state.json");
    let mut document: serde_json::Value = serde_json::from_slice(&fs::read(&record).unwrap()).unwrap();
    document["classed"] = serde_json::json!([class]);
    fs::write(&record, document.to_string()).unwrap();
    container.exec(&[], &["true"]);
    let entered = fs::read_to_string(class.join("tasks")).unwrap();
    assert!(entered.parse::<u32>().is_ok_and(|pid| pid > 1), "{entered}");
    // And its lines change with the container's.
    let change = ["update", "--mem-bw-schema", "MB:0=20", &container.id];
    container.cli.ok(&change);
    assert_eq!(fs::read_to_string(class.join("schemata")).unwrap(), "MB:0=20\n");
    document["classed"] = serde_json::json!([]);
    fs::write(&record, document.to_string()).unwrap();
    let complaint = container.cli.fails(&change);
    assert!(complaint.contains("linux.intelRdt"), "{complaint}");
}

/// Prints the number of the session keyring.
fn with_keyring_probe(bundle: &mut Bundle) -> Option<[String; 3]> {
    if !Path::new("/usr/bin/perl").exists() || !Path::new("/lib64").exists() {
        println!("skipped: needs /usr/bin/perl (package perl-base)");
        return None;
    }
    for directory in ["/usr", "/lib", "/lib64"] {
        bundle.spec.mounts.push(Mount {
            destination: directory.into(),
            source: Some(directory.to_owned()),
            options: ["rbind", "ro"].map(str::to_owned).to_vec(),
            ..Mount::default()
        });
    }
    let keyctl = if cfg!(target_arch = "x86_64") { 250 } else { 219 };
    let probe = format!("print syscall({keyctl}, 0, -3, 0), qq(\\n)");
    Some(["perl".to_owned(), "-e".to_owned(), probe])
}

#[test]
fn keys_are_fresh_unless_the_callers_are_wanted() {
    for (flags, fresh) in [(&[][..], true), (&["--no-new-keyring"], false)] {
        let Some((cli, mut bundle, id)) = support::cli::prepared("exec-keys") else {
            return;
        };
        let Some(probe) = with_keyring_probe(&mut bundle) else {
            return;
        };
        let probe = probe.each_ref().map(String::as_str);
        sys::process::new_session_keyring().unwrap();
        let own = std::process::Command::new("/usr/bin/perl")
            .args(&probe[1..])
            .output()
            .unwrap();
        let own = String::from_utf8(own.stdout).unwrap();
        assert!(own.trim().parse::<i64>().is_ok_and(|key| key > 0), "{own}");
        bundle.args(&probe);
        bundle.write_config();
        let path = bundle.path().to_str().unwrap();
        let first = cli.ok(&[&["run"], flags, &["--bundle", path, &id]].concat());
        assert_eq!(first != own, fresh, "{flags:?}: {first} {own}");
        bundle.shell("sleep 1000");
        bundle.write_config();
        let path = bundle.path().to_str().unwrap();
        cli.quietly(&[&["run", "--detach"], flags, &["--bundle", path, &id]].concat());
        let further = cli.ok(&[&["exec", id.as_str()], &probe[..]].concat());
        assert_eq!(further != own, fresh, "{flags:?}: {further} {own}");
        cli.ok(&["delete", "--force", &id]);
    }
}
