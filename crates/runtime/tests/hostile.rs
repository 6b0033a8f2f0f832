//! What hostile images and containers try: each test says which hole it stands for and how code with that hole
//! behaves.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::fs;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Stdio as Streams;
use std::sync::atomic::{AtomicBool, Ordering};

use runtime::{Exec, LaunchError, Running, Stdio};
use spec::runtime::{IdMapping, Mount, Namespace, NamespaceType};
use support::cli::Container;
use support::{Bundle, captured, finish, possible};
use sys::process::Exit;

fn bind(source: &Path, destination: &str, options: &[&str]) -> Mount {
    Mount {
        destination: PathBuf::from(destination),
        r#type: Some("bind".to_owned()),
        source: Some(source.display().to_string()),
        options: options.iter().map(|option| (*option).to_owned()).collect(),
        ..Mount::default()
    }
}

/// A running container with the reading end of its output.
fn start(bundle: &mut Bundle, script: &str) -> (Running, OwnedFd) {
    let (stdio, output) = captured();
    let running = bundle.shell(script).create(stdio).unwrap().start().unwrap();
    (running, output)
}

fn kill(running: Running, output: OwnedFd) -> String {
    sys::process::send_signal(running.pidfd.as_fd(), 9).unwrap();
    finish(running.pidfd, output).0
}

fn exec(bundle: &Bundle, target: &Running, cwd: &str, args: &[&str]) -> Result<(String, Exit), LaunchError> {
    let mut process = bundle.spec.process.clone().unwrap();
    process.args = args.iter().map(|arg| (*arg).to_owned()).collect();
    process.cwd = cwd.to_owned();
    let (stdio, output) = captured();
    let running = runtime::exec(Exec::new(target.pid, target.pidfd.as_fd(), &process, stdio))?;
    Ok(finish(running.pidfd, output))
}

/// A directory of the host, open in this process without close-on-exec: what a careless engine leaks.
fn leaked(directory: &Path) -> OwnedFd {
    let file = fs::File::open(directory).unwrap();
    rustix::io::fcntl_setfd(&file, rustix::io::FdFlags::empty()).unwrap();
    file.into()
}

/// CVE-2024-21626. With a descriptor of the host alive in the child, `/proc/self/fd/N` as working directory puts
/// the program outside of its root: `cat flag` then prints the host's file. Here every number is refused, for the
/// first process and for an exec, and the descriptor itself does not arrive.
#[test]
fn no_descriptor_of_the_host_becomes_a_working_directory() {
    if !possible() {
        return;
    }
    let host = tempfile::tempdir().unwrap();
    fs::write(host.path().join("flag"), "of the host").unwrap();
    let descriptor = leaked(host.path());
    let highest = descriptor.as_raw_fd() + 24;
    let mut bundle = Bundle::new();
    let (first, output) = start(&mut bundle, "sleep 100");
    for number in 3..highest {
        let cwd = format!("/proc/self/fd/{number}");
        bundle.process().cwd.clone_from(&cwd);
        let created = bundle.args(&["cat", "flag"]).run();
        assert!(created.is_err(), "create in {cwd}: {created:?}");
        let joined = exec(&bundle, &first, &cwd, &["cat", "flag"]);
        assert!(joined.is_err(), "exec in {cwd}: {joined:?}");
    }
    bundle.process().cwd = "/".to_owned();
    let listing = "for f in /proc/self/fd/*; do readlink $f; done; true";
    let seen = bundle.shell_output(listing) + &exec(&bundle, &first, "/", &["sh", "-c", listing]).unwrap().0;
    assert!(!seen.contains(host.path().to_str().unwrap()), "{seen}");
    drop(descriptor);
    kill(first, output);
}

/// CVE-2021-30465. A volume that two containers share holds a directory that one of them keeps exchanging for a
/// link to a place of the host while the other one is being created with a mount below it. Code that checks the
/// path first and mounts by the path afterwards makes the mount's directory (and mounts) where the link points:
/// `made` then appears in the victim.
#[test]
fn a_mount_point_that_is_exchanged_for_a_link_stays_inside() {
    if !possible() {
        return;
    }
    let victim = tempfile::tempdir().unwrap();
    let volume = tempfile::tempdir().unwrap();
    fs::create_dir(volume.path().join("real")).unwrap();
    symlink(victim.path(), volume.path().join("link")).unwrap();
    let data = tempfile::tempdir().unwrap();
    let mut bundle = Bundle::new();
    bundle
        .spec
        .mounts
        .push(bind(volume.path(), "/volume", &["rbind"]));
    bundle
        .spec
        .mounts
        .push(bind(data.path(), "/volume/real/made/deep", &["rbind"]));
    // What the link means inside; and the directory, whichever name it has.
    let seen_from_inside = bundle.root().join(victim.path().strip_prefix("/").unwrap());
    fs::create_dir_all(&seen_from_inside).unwrap();
    let held = fs::File::open(volume.path().join("real")).unwrap();
    let directory = PathBuf::from(format!("/proc/self/fd/{}", held.as_raw_fd()));
    let taken_back = |below: &Path| fs::remove_dir_all(below.join("made")).is_ok();
    let stop = AtomicBool::new(false);
    let (mut escaped, mut direct, mut through_the_link) = (false, 0, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let volume = fs::File::open(volume.path()).unwrap();
            while !stop.load(Ordering::Relaxed) {
                let exchange = rustix::fs::RenameFlags::EXCHANGE;
                rustix::fs::renameat_with(&volume, "real", &volume, "link", exchange).unwrap();
            }
        });
        for turn in 0..1000 {
            if escaped || (turn >= 60 && direct > 0 && through_the_link > 0) {
                break;
            }
            // It may fail, for the walk notices some of the exchanges; it must not go where the link points.
            let _ = bundle.args(&["true"]).run();
            escaped = fs::read_dir(victim.path()).map_or(true, |mut entries| entries.next().is_some());
            direct += usize::from(taken_back(&directory));
            through_the_link += usize::from(taken_back(&seen_from_inside));
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(!escaped, "the link was followed out of the root");
    assert!(
        direct > 0 && through_the_link > 0,
        "{direct} mounts met the directory and {through_the_link} the link: nothing was tested"
    );
}

/// A `/dev` that the attacker prepared: null and console are links to what they want to have mounted or to mount on.
fn own_dev(bundle: &mut Bundle, target: &str) -> tempfile::TempDir {
    let dev = tempfile::tempdir().unwrap();
    for name in ["null", "console"] {
        symlink(target, dev.path().join(name)).unwrap();
    }
    for name in ["pts", "shm", "mqueue"] {
        fs::create_dir(dev.path().join(name)).unwrap();
    }
    for mount in &mut bundle.spec.mounts {
        if mount.destination == Path::new("/dev") {
            *mount = bind(dev.path(), "/dev", &["rbind"]);
        }
    }
    dev
}

/// CVE-2025-31133. Code that masks with the container's own /dev/null mounts whatever that link names: the masked
/// file then shows (and lets write) core_pattern. Here it is the kernel's null device, taken from the host.
#[test]
fn a_crafted_null_device_does_not_cover_masked_paths() {
    if !possible() {
        return;
    }
    let mut bundle = Bundle::new();
    let _dev = own_dev(&mut bundle, "/proc/sys/kernel/core_pattern");
    let text = bundle.shell_output(
        "stat -c %t:%T /proc/keys; cat /proc/keys; echo x > /proc/sys/kernel/core_pattern || echo refused",
    );
    assert!(text.starts_with("1:3\n"), "{text}");
    assert!(text.contains("refused") && text.lines().count() <= 3, "{text}");
}

/// CVE-2025-52565. Code that follows the link lays the terminal over a file of procfs, before the paths are masked
/// and before anything is written there. Here a console that is a link is an error.
#[test]
fn a_crafted_console_does_not_cover_procfs() {
    if !possible() {
        return;
    }
    let mut bundle = Bundle::new();
    let _dev = own_dev(&mut bundle, "/proc/self/attr/exec");
    bundle.args(&["true"]);
    let error = bundle.create(Stdio::Terminal).unwrap_err().to_string();
    assert!(
        error.contains("/dev/console") && error.contains("link"),
        "{error}"
    );
}

/// An exec is born in the container's pid namespace. Code that lets it be born there before it has left the host's
/// mounts shows them as `/proc/N/root` to a container that may trace (CAP_SYS_PTRACE); it prints `leak` in the
/// first few dozen of these execs.
#[test]
fn an_exec_never_shows_the_hosts_files_to_a_container_that_may_trace() {
    if !possible() {
        return;
    }
    let host = tempfile::tempdir().unwrap();
    let flag = host.path().join("flag");
    fs::write(&flag, "").unwrap();
    let mut bundle = Bundle::new();
    let sets = bundle.process().capabilities.as_mut().unwrap();
    for set in [&mut sets.bounding, &mut sets.permitted, &mut sets.effective] {
        set.push("CAP_SYS_PTRACE".to_owned());
    }
    let script = format!(
        "while :; do for p in /proc/[0-9]*; do for w in root cwd; do [ -e $p/$w{} ] && echo leak; done; done; done 2>/dev/null",
        flag.display()
    );
    let (first, output) = start(&mut bundle, &script);
    for _ in 0..300 {
        exec(&bundle, &first, "/", &["true"]).unwrap();
    }
    let leaks = kill(first, output).lines().count();
    assert_eq!(
        leaks, 0,
        "looks at the host's files through a process of the engine"
    );
}

/// A process that joins a user namespace has every right in it until it gives them up. Code that forgets to do so
/// shows 1ffffffffff and an inheritable or ambient set. What it gets is what its own configuration says, and ids
/// of the host that are not mapped cannot be had.
#[test]
fn a_joined_user_namespace_gives_no_more_than_was_asked_for() {
    if !possible() {
        return;
    }
    let mut bundle = Bundle::new();
    let map = IdMapping {
        container_id: 0,
        host_id: 310_000,
        size: 1000,
    };
    let linux = bundle.linux();
    linux.uid_mappings = vec![map];
    linux.gid_mappings = vec![map];
    linux.namespaces.push(Namespace {
        r#type: NamespaceType::User,
        path: None,
    });
    let (first, output) = start(&mut bundle, "sleep 100");
    let status = "grep -E '^(Cap|Groups)' /proc/self/status";
    let (text, _) = exec(&bundle, &first, "/", &["sh", "-c", status]).unwrap();
    for line in [
        "CapInh:\t0000000000000000",
        "CapEff:\t00000000a80425fb",
        "CapBnd:\t00000000a80425fb",
        "CapAmb:\t0000000000000000",
    ] {
        assert!(text.contains(line), "{line} not in {text}");
    }
    // No group of the caller came along: there is none, or only the mapped root's.
    let groups = text
        .lines()
        .find_map(|line| line.strip_prefix("Groups:"))
        .unwrap()
        .trim();
    assert!(groups.is_empty() || groups == "0", "{groups:?}");

    bundle.process().capabilities = Some(spec::runtime::Capabilities::default());
    let (text, _) = exec(&bundle, &first, "/", &["sh", "-c", status]).unwrap();
    for set in ["Inh", "Prm", "Eff", "Bnd", "Amb"] {
        assert!(text.contains(&format!("Cap{set}:\t0000000000000000")), "{text}");
    }
    bundle.process().user.uid = 5000;
    let error = exec(&bundle, &first, "/", &["true"]).unwrap_err().to_string();
    assert!(error.contains("5000"), "{error}");
    kill(first, output);
}

/// CVE-2022-29162 and CVE-2022-36109. Inheritable capabilities would be permitted to any file that asks for them;
/// a primary group that is missing among the additional ones can be dropped to pass a file's "all but this group".
#[test]
fn groups_are_whole_and_nothing_is_inheritable() {
    if !possible() {
        return;
    }
    let mut bundle = Bundle::new();
    let status = "grep -E '^(CapInh|CapAmb|Groups)' /proc/self/status";
    let user = bundle.process();
    user.user.uid = 33;
    user.user.gid = 44;
    user.user.additional_gids = vec![44, 7];
    let (first, output) = start(&mut bundle, "sleep 100");
    let texts = [
        bundle.shell_output(status),
        exec(&bundle, &first, "/", &["sh", "-c", status]).unwrap().0,
    ];
    for text in texts {
        let groups = text
            .lines()
            .find_map(|line| line.strip_prefix("Groups:"))
            .unwrap();
        let mut groups: Vec<&str> = groups.split_whitespace().collect();
        groups.sort_unstable();
        assert_eq!(groups, ["44", "7"]);
        assert_eq!(text.matches("0000000000000000").count(), 2, "{text}");
    }
    kill(first, output);
}

/// CVE-2019-5736. What a container's process could reach by `/proc/N/exe` is the runtime's own program as long as that waits for
/// the start, brings a further process in, or attends a container: the file behind it could be opened for writing when the
/// process has ended. Here it is a read-only mount of it, whoever asks; from the file itself the answer is that it is busy.
#[test]
fn the_runtimes_program_cannot_be_written_through() {
    const EROFS: i32 = 30;
    let refused = |pid: u64| {
        let opened = fs::OpenOptions::new()
            .write(true)
            .truncate(true)
            .open(format!("/proc/{pid}/exe"));
        assert_eq!(opened.unwrap_err().raw_os_error(), Some(EROFS), "process {pid}");
    };
    let Some(created) = Container::create("sealed-created", |_| ()) else {
        return;
    };
    refused(created.state()["pid"].as_u64().unwrap());
    let Some(running) = Container::run("sealed-run", |_| ()) else {
        return;
    };
    // As long as these attend something, they are the sealed program.
    let mut attends = running
        .cli
        .call(&running.exec_call(&[], &["sh", "-c", "echo here; read until"]))
        .stdin(Streams::piped())
        .stdout(Streams::piped())
        .spawn()
        .unwrap();
    let mut line = [0; 5];
    attends.stdout.as_mut().unwrap().read_exact(&mut line).unwrap();
    refused(u64::from(attends.id()));
    drop(attends.stdin.take());
    attends.wait().unwrap();
}

/// A caller with a session keyring hands it to whatever it starts. Without one of its own each container uses that:
/// the second one then prints `hidden`, which the first one put there.
#[test]
fn the_callers_keyring_is_not_shared_by_containers() {
    if !possible() {
        return;
    }
    if !Path::new("/usr/bin/perl").exists() || !Path::new("/lib64").exists() {
        println!("skipped: needs /usr/bin/perl (package perl-base)");
        return;
    }
    let add_key = if cfg!(target_arch = "x86_64") { 248 } else { 217 };
    let keyctl = add_key + 2;
    sys::process::new_session_keyring().unwrap();
    let mut bundle = Bundle::new();
    for directory in ["/usr", "/lib", "/lib64"] {
        bundle
            .spec
            .mounts
            .push(bind(Path::new(directory), directory, &["rbind", "ro"]));
    }
    let keep = format!(
        "$| = 1; ($t, $d, $p) = ('user', 'berth', 'hidden'); print syscall({add_key}, $t, $d, $p, 6, -3), \"\\n\"; sleep 100"
    );
    let (stdio, output) = captured();
    let first = bundle
        .args(&["perl", "-e", &keep])
        .create(stdio)
        .unwrap()
        .start()
        .unwrap();
    let mut line = [0; 32];
    let count = rustix::io::read(&output, &mut line).unwrap();
    let key = std::str::from_utf8(&line[..count]).unwrap().trim().to_owned();
    assert!(key.parse::<i64>().is_ok_and(|key| key > 0), "{key:?}");
    let read = format!(
        "$b = \"\\0\" x 64; $n = syscall({keyctl}, 11, {key}, $b, 64); print $n > 0 ? substr($b, 0, $n) : 0 + $!"
    );
    let text = bundle.args(&["perl", "-e", &read]).output();
    kill(first, output);
    assert_eq!(text, "13", "EACCES");
}
