//! `--userns-remap`: every container in the map of one user.

use std::os::unix::fs::{MetadataExt as _, chown};
use std::path::Path;
use std::process::Command;

use super::{daemon, first_range, host_user, pid_of, refusal, run, subordinate, words};
use crate::http;
use crate::support::{BERTH, retry, text};

const LINES: &str = "dockremap:300000:65536\n";
const REMAP: [&str; 2] = ["--userns-remap", "default"];

#[test]
fn containers_are_users_of_their_own_and_see_the_images_ids() {
    guard!();
    let ids = subordinate(LINES);
    let daemon = daemon(&ids, &REMAP);
    let options = daemon.ok(&["info", "-f", "{{.SecurityOptions}}"]);
    assert!(options.contains("name=userns"), "{options}");
    daemon.ok(&["run", "-d", "--name", "one", "box:1", "sleep", "1000"]);
    assert_eq!(first_range(&daemon, "one"), (300_000, 65_536));
    let pid = pid_of(&daemon, "one");
    assert_eq!(host_user(&pid), 300_000);
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    assert!(
        status.contains("\nGid:\t300000\t300000\t300000\t300000\n"),
        "{status}"
    );
    let user = daemon.ok(&["exec", "-u", "web", "one", "id"]);
    assert!(user.starts_with("uid=33(web) gid=33"), "{user}");

    // Files of the image and of the engine belong to the container's root, who may write them.
    let owners = daemon.ok(&[
        "exec",
        "one",
        "busybox",
        "stat",
        "-c",
        "%u:%g",
        "/",
        "/bin/busybox",
        "/etc/hosts",
        "/etc/hostname",
        "/etc/resolv.conf",
        "/dev",
        "/dev/null",
        "/dev/shm",
        "/dev/pts",
        "/proc/1",
        "/dev/mqueue",
    ]);
    assert!(words(&owners).iter().all(|owner| *owner == "0:0"), "{owners}");
    let written = daemon.ok(&[
        "exec", "one", "sh", "-c",
        "echo 192.0.2.1 there >> /etc/hosts && echo x > /dev/null && echo x > /dev/shm/x && busybox head -c 3 /dev/urandom | wc -c; \
         mkdir /sys/x 2>/dev/null || echo read-only; echo 1 > /proc/sys/kernel/panic || echo refused",
    ].map(|word| word));
    assert_eq!(words(&written), ["3", "read-only", "refused"]);
    // The network is the container's: raw sockets work, and nothing of the host's interfaces is seen.
    let gateway = daemon.ok(&[
        "inspect",
        "-f",
        "{{.NetworkSettings.Networks.bridge.Gateway}}",
        "one",
    ]);
    daemon.ok(&["exec", "one", "busybox", "ping", "-c", "1", gateway.trim()]);
    let links = daemon.ok(&["exec", "one", "ls", "/sys/class/net"]);
    assert_eq!(words(&links), ["eth0", "lo"]);
    let tools = run(
        &daemon,
        &[
            "--cap-add",
            "NET_ADMIN",
            "--device",
            "/dev/zero:/dev/deep/zero",
            "--tmpfs",
            "/scratch",
        ],
        "busybox ip link set lo down && echo down; busybox head -c 2 /dev/deep/zero | wc -c; busybox stat -c %u /scratch; \
         busybox mknod /x b 8 0 || echo refused",
    );
    assert_eq!(words(&tools), ["down", "2", "0", "refused"]);

    if let Some(output) = daemon.docker(&["run", "--rm", "box:1", "cat", "/proc/self/uid_map"]) {
        assert_eq!(words(&text(&output.stdout)), ["0", "300000", "65536"]);
    }
    // Who asks for the host's ids has them.
    let host = run(&daemon, &["--userns", "host"], "cat /proc/self/uid_map");
    assert_eq!(words(&host), ["0", "0", "4294967295"]);
    let refused = refusal(&daemon, &["run", "--rm", "-u", "70000", "box:1", "true"]);
    assert!(
        refused.contains("no user 70000") && refused.contains("0 to 65535"),
        "{refused}"
    );
    // Told in the exec's stream, as Docker does.
    let refused = daemon.run(&["exec", "-u", "70000", "one", "true"]);
    assert_eq!(refused.status.code(), Some(126));
    let refused = text(&refused.stdout);
    assert!(refused.contains("no user 70000"), "{refused}");
    daemon.ok(&[
        "run",
        "--rm",
        "--network",
        "none",
        "--ipc",
        "none",
        "--init",
        "--read-only",
        "box:1",
        "true",
    ]);
    daemon.ok(&[
        "run",
        "--rm",
        "--ipc",
        "host",
        "--uts",
        "host",
        "--cgroupns",
        "host",
        "box:1",
        "true",
    ]);
}

/// What a container writes is on disk with image ids: whoever looks from outside sees the same as inside.
#[test]
fn copies_commits_and_exports_hold_the_images_ids() {
    guard!();
    let ids = subordinate(LINES);
    let daemon = daemon(&ids, &REMAP);
    let script = "echo x > /root-file; echo x > /web-file; busybox chown 33:33 /web-file; rm /srv/seed; exec sleep 1000";
    daemon.ok(&["run", "-d", "--name", "one", "box:1", "sh", "-c", script]);
    let there = retry(|| {
        daemon
            .run(&["exec", "one", "sh", "-c", "! ls /srv/seed"])
            .status
            .success()
            .then_some(())
    });
    there.unwrap();
    let changes = daemon.ok(&["diff", "one"]);
    for line in ["A /root-file", "A /web-file", "D /srv/seed"] {
        assert!(changes.contains(line), "{line} not in {changes}");
    }
    let dir = daemon.dir.path();
    let listing = |tar: &Path| {
        let listed = Command::new("tar")
            .arg("--numeric-owner")
            .arg("-tvf")
            .arg(tar)
            .output()
            .unwrap();
        text(&listed.stdout)
    };
    let owner_in = |listing: &str, name: &str| -> String {
        let line = listing.lines().find(|line| line.ends_with(name));
        words(line.unwrap_or_else(|| panic!("no {name} in {listing}")))[1].to_owned()
    };
    let tar = dir.join("export.tar");
    daemon.ok(&["export", "-o", &tar.display().to_string(), "one"]);
    let exported = listing(&tar);
    assert_eq!(owner_in(&exported, "root-file"), "0/0");
    assert_eq!(owner_in(&exported, "web-file"), "33/33");

    // Out of the running container, and into it.
    let out = Command::new(BERTH)
        .args(["cp", "one:/web-file", "-"])
        .env("DOCKER_HOST", daemon.socket())
        .output()
        .unwrap();
    let tar = dir.join("out.tar");
    std::fs::write(&tar, &out.stdout).unwrap();
    assert_eq!(
        owner_in(&listing(&tar), "web-file"),
        "33/33",
        "{}",
        text(&out.stderr)
    );
    let file = dir.join("given");
    std::fs::write(&file, "given").unwrap();
    chown(&file, Some(33), Some(33)).unwrap();
    daemon.ok(&["cp", "-a", &file.display().to_string(), "one:/tmp/kept"]);
    daemon.ok(&["cp", &file.display().to_string(), "one:/tmp/plain"]);
    let owners = daemon.ok(&[
        "exec",
        "one",
        "busybox",
        "stat",
        "-c",
        "%u:%g",
        "/tmp/kept",
        "/tmp/plain",
    ]);
    assert_eq!(words(&owners), ["33:33", "0:0"]);
    daemon.ok(&[
        "exec",
        "one",
        "sh",
        "-c",
        "echo more >> /tmp/plain && rm /tmp/kept",
    ]);

    daemon.ok(&["commit", "one", "kept:1"]);
    for flags in [&[][..], &["--userns", "host"]] {
        let args = [
            &["run", "--rm"],
            flags,
            &["kept:1", "busybox", "stat", "-c", "%u", "/root-file", "/web-file"],
        ]
        .concat();
        assert_eq!(words(&daemon.ok(&args)), ["0", "33"]);
    }
    daemon.ok(&["stop", "-t", "0", "one"]);
    daemon.ok(&["cp", &file.display().to_string(), "one:/tmp/later"]);
    daemon.ok(&["start", "one"]);
    let owner = daemon.ok(&[
        "exec",
        "one",
        "busybox",
        "stat",
        "-c",
        "%u",
        "/tmp/later",
        "/root-file",
    ]);
    assert_eq!(words(&owner), ["0", "0"]);
}

/// Volumes are the engine's: any container finds its own ids in them. A directory of the host keeps the host's.
#[test]
fn volumes_are_translated_and_binds_are_not() {
    guard!();
    let ids = subordinate(LINES);
    let daemon = daemon(&ids, &REMAP);
    let write = "busybox stat -c %u:%a /srv /srv/seed; echo x > /srv/mine; busybox chown 33 /srv/mine";
    let first = run(&daemon, &["-v", "data:/srv"], write);
    assert_eq!(words(&first), ["0:755", "0:644"]);
    let look = "busybox stat -c %u /srv/seed /srv/mine";
    assert_eq!(words(&run(&daemon, &["-v", "data:/srv"], look)), ["0", "33"]);
    assert_eq!(
        words(&run(&daemon, &["-v", "data:/srv", "--userns", "host"], look)),
        ["0", "33"]
    );

    let shared = daemon.dir.path().join("shared");
    std::fs::create_dir(&shared).unwrap();
    std::fs::write(shared.join("hosts"), "x").unwrap();
    std::fs::write(shared.join("open"), "x").unwrap();
    chown(shared.join("open"), Some(300_000), Some(300_000)).unwrap();
    let bind = format!("{}:/shared", shared.display());
    let seen = run(
        &daemon,
        &["-v", &bind],
        "busybox stat -c %u /shared/hosts /shared/open; echo x > /shared/hosts || echo refused; echo y > /shared/open; \
         touch /shared/new || echo closed",
    );
    assert_eq!(words(&seen), ["65534", "0", "refused", "closed"]);
    chown(&shared, Some(300_000), None).unwrap();
    run(&daemon, &["-v", &bind], "touch /shared/new");
    assert_eq!(std::fs::metadata(shared.join("new")).unwrap().uid(), 300_000);
    let image = run(
        &daemon,
        &["--mount", "type=image,source=box:1,target=/other"],
        "busybox stat -c %u /other/bin/busybox",
    );
    assert_eq!(words(&image), ["0"]);
    daemon.ok(&[
        "run",
        "--name",
        "more",
        "box:1",
        "sh",
        "-c",
        "mkdir /part; touch /part/new",
    ]);
    daemon.ok(&["commit", "more", "layers:1"]);
    for (part, file) in [("part", "/other/new"), ("bin/busybox", "/other")] {
        let mount = format!("type=image,source=layers:1,target=/other,image-subpath={part}");
        let seen = run(
            &daemon,
            &["--mount", &mount],
            &format!("busybox stat -c %u {file}"),
        );
        assert_eq!(words(&seen), ["0"], "{part}");
    }
}

/// On disk a container's root is the host's: a set-uid program that it leaves there would make whoever runs it root.
/// The directories above let no user of the host come near.
#[test]
fn a_set_uid_program_of_a_container_is_out_of_reach_for_users_of_the_host() {
    use std::os::unix::fs::PermissionsExt as _;
    guard!();
    let ids = subordinate(LINES);
    let daemon = daemon(&ids, &REMAP);
    let make = "for f in /data/busybox-left /busybox-left; do busybox cp /bin/busybox $f && busybox chmod 4755 $f; done";
    daemon.ok(&[
        "run",
        "--name",
        "one",
        "-v",
        "data:/data",
        "box:1",
        "sh",
        "-c",
        make,
    ]);
    // The fixture's own directory is closed to others, which a data root need not be.
    std::fs::set_permissions(daemon.dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let root = daemon.dir.path().join("root");
    let snapshots = std::fs::read_dir(root.join("snapshots")).unwrap().flatten();
    let left: Vec<_> = snapshots
        .map(|entry| entry.path().join("fs/busybox-left"))
        .chain([root.join("volumes/data/_data/busybox-left")])
        .filter(|path| path.exists())
        .collect();
    assert_eq!(left.len(), 2, "{left:?}");
    for program in left {
        let file = std::fs::metadata(&program).unwrap();
        assert_eq!((file.uid(), file.mode() & 0o7777), (0, 0o4755));
        // By a shell: the one who becomes the user still has root's rights when it looks for a program.
        let script = format!("{} id -u", program.display());
        let user = ["--reuid", "4711", "--regid", "4711", "--clear-groups", "sh", "-c"];
        let refused = Command::new("setpriv").args(user).arg(&script).output().unwrap();
        assert!(!refused.status.success(), "{}", program.display());
        let said = text(&refused.stderr);
        assert!(said.to_lowercase().contains("permission denied"), "{said}");
        // It would run, if it could be reached.
        let copied = daemon.dir.path().join("busybox-reached");
        std::fs::copy(&program, &copied).unwrap();
        std::fs::set_permissions(&copied, std::fs::Permissions::from_mode(0o4755)).unwrap();
        let script = format!("{} id -u", copied.display());
        let ran = Command::new("setpriv").args(user).arg(&script).output().unwrap();
        assert!(ran.status.success(), "{}", text(&ran.stderr));
        std::fs::remove_file(copied).unwrap();
    }
}

/// The kernel lets no user namespace mount a disk: it is mounted for it, with the ids of the container.
#[test]
fn a_volume_with_a_filesystem_of_its_own_is_mounted_for_the_container() {
    guard!();
    let ids = subordinate(LINES);
    let daemon = daemon(&ids, &REMAP);
    let image = daemon.dir.path().join("disk");
    std::fs::File::create(&image).unwrap().set_len(8 << 20).unwrap();
    let made = Command::new("mkfs.ext4").arg("-q").arg(&image).status();
    let device = Command::new("losetup")
        .args(["--find", "--show"])
        .arg(&image)
        .output();
    let (Ok(made), Ok(device)) = (made, device) else {
        println!("skipped: needs mkfs.ext4 and losetup");
        return;
    };
    if !made.success() || !device.status.success() {
        println!("skipped: no loop device: {}", text(&device.stderr));
        return;
    }
    let device = text(&device.stdout).trim().to_owned();
    let detached = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let source = format!("device={device}");
        daemon.ok(&["volume", "create", "--opt", "type=ext4", "--opt", &source, "disk"]);
        let seen = run(
            &daemon,
            &["-v", "disk:/disk"],
            "busybox stat -c %u /disk; echo x > /disk/file; busybox chown 33 /disk/file",
        );
        assert_eq!(words(&seen), ["0"]);
        let seen = run(
            &daemon,
            &["-v", "disk:/disk:ro", "--userns", "host"],
            "busybox stat -c %u /disk/file; touch /disk/x 2>/dev/null || echo closed",
        );
        assert_eq!(words(&seen), ["33", "closed"]);
    }));
    Command::new("losetup").args(["-d", &device]).status().unwrap();
    if let Err(failure) = detached {
        std::panic::resume_unwind(failure);
    }
}

#[test]
fn ports_execs_terminals_logs_and_restarts_work_and_survive_the_daemon() {
    guard!();
    let ids = subordinate(LINES);
    let mut daemon = daemon(&ids, &REMAP);
    let serve =
        "echo up > /dev/stdout; echo oops >&2; while :; do echo served | nc -l -p 80 > /dev/null; done";
    daemon.ok(&[
        "run",
        "-d",
        "--name",
        "web",
        "-p",
        "127.0.0.1::80",
        "-u",
        "web",
        "--restart",
        "always",
        "box:1",
        "sh",
        "-c",
        serve,
    ]);
    let logged = retry(|| {
        let output = daemon.run(&["logs", "web"]);
        (text(&output.stdout) == "up\n" && text(&output.stderr) == "oops\n").then_some(())
    });
    logged.expect("a user that is not root opens its standard output again");
    let port = daemon.ok(&["port", "web", "80"]);
    let port = port.trim().to_owned();
    let served = || {
        use std::io::Read as _;
        let mut stream = std::net::TcpStream::connect(&port).ok()?;
        stream
            .set_read_timeout(Some(std::time::Duration::from_secs(5)))
            .ok()?;
        let mut line = [0; 6];
        stream.read_exact(&mut line).ok()?;
        (&line == b"served").then_some(())
    };
    retry(served).expect("the published port answers");
    let tty = daemon.ok(&[
        "run",
        "--rm",
        "-t",
        "box:1",
        "busybox",
        "stat",
        "-c",
        "%u",
        "/dev/console",
        "/dev/pts/0",
    ]);
    assert_eq!(words(&tty), ["0", "0"]);
    let tty = daemon.ok(&["exec", "-t", "web", "busybox", "stat", "-c", "%u", "/dev/pts/0"]);
    assert_eq!(words(&tty), ["33"]);
    let used = daemon.ok(&["stats", "--no-stream", "--format", "{{.Name}} {{.PIDs}}"]);
    assert!(used.starts_with("web ") && !used.contains(" 0"), "{used}");

    let before = pid_of(&daemon, "web");
    daemon.crash_and_restart();
    assert_eq!(pid_of(&daemon, "web"), before, "adopted, not started again");
    assert_eq!(words(&daemon.ok(&["exec", "web", "id", "-u"])), ["33"]);
    retry(served).expect("the published port still answers");
    // Its end is seen, and the policy starts the next one in a namespace like the first.
    Command::new("kill").args(["-9", &before]).status().unwrap();
    let again = retry(|| Some(pid_of(&daemon, "web")).filter(|pid| *pid != before && *pid != "0"));
    let after = again.expect("started again");
    assert_eq!(host_user(&after), 300_033);
    daemon.ok(&["restart", "-t", "0", "web"]);
    assert_eq!(first_range(&daemon, "web").0, 300_000);
}

/// As dockerd refuses them: the words and the status.
#[test]
fn what_needs_the_hosts_rights_is_refused_unless_the_host_is_asked_for() {
    guard!();
    let ids = subordinate(LINES);
    let daemon = daemon(&ids, &REMAP);
    for (setting, words) in [
        (
            r#""Privileged":true"#,
            "privileged mode is incompatible with user namespaces.  You must run the container in the host namespace \
             when running privileged mode",
        ),
        (
            r#""NetworkMode":"host""#,
            "cannot share the host's network namespace when user namespaces are enabled",
        ),
        (
            r#""PidMode":"host""#,
            "cannot share the host PID namespace when user namespaces are enabled",
        ),
    ] {
        let create = |more: &str| {
            let body = format!(r#"{{"Image":"box:1","Cmd":["true"],"HostConfig":{{{setting}{more}}}}}"#);
            http::request(
                &daemon,
                "POST",
                "/v1.47/containers/create",
                "application/json",
                body.as_bytes(),
            )
        };
        let refused = create("");
        assert_eq!(
            (refused.status, refused.message().as_str()),
            (400, words),
            "{setting}"
        );
        assert_eq!(create(r#","UsernsMode":"host""#).status, 201, "{setting}");
    }
    daemon.ok(&["run", "--rm", "--privileged", "--userns", "host", "box:1", "true"]);
    daemon.ok(&[
        "run",
        "--rm",
        "--network",
        "host",
        "--userns",
        "host",
        "box:1",
        "true",
    ]);
}

/// What belongs to a container's user namespace is joined together with it.
#[test]
fn a_container_that_joins_another_one_is_in_its_user_namespace() {
    guard!();
    let ids = subordinate("dockremap:300000:65536\ncontainers:400000:131072\n");
    let daemon = daemon(&ids, &REMAP);
    daemon.ok(&[
        "run",
        "-d",
        "--name",
        "one",
        "--ipc",
        "shareable",
        "--userns",
        "auto",
        "box:1",
        "sleep",
        "1000",
    ]);
    let namespace =
        |name: &str| std::fs::read_link(format!("/proc/{}/ns/user", pid_of(&daemon, name))).unwrap();
    daemon.ok(&[
        "run",
        "-d",
        "--name",
        "two",
        "--network",
        "container:one",
        "--pid",
        "container:one",
        "--ipc",
        "container:one",
        "box:1",
        "sleep",
        "1000",
    ]);
    assert_eq!(namespace("one"), namespace("two"));
    assert_eq!(first_range(&daemon, "two"), (400_000, 65_536));
    // It has the rights over what it joined, and its files are its own.
    let seen = daemon.ok(&[
        "exec", "two", "sh", "-c",
        "busybox kill -0 1 && ls /sys/class/net && busybox stat -c %u /etc/hosts /dev/shm /proc/1 && busybox ping -c 1 127.0.0.1",
    ]);
    assert!(seen.starts_with("eth0\nlo\n0\n0\n0\n"), "{seen}");
    daemon.ok(&["run", "--rm", "--userns", "container:one", "box:1", "true"]);
    let refused = refusal(
        &daemon,
        &[
            "run",
            "--rm",
            "--userns",
            "container:one",
            "--privileged",
            "box:1",
            "true",
        ],
    );
    assert!(refused.contains("privileged mode is incompatible"), "{refused}");
    // Different ones cannot be joined at once.
    daemon.ok(&["run", "-d", "--name", "three", "box:1", "sleep", "1000"]);
    let refused = refusal(
        &daemon,
        &[
            "run",
            "--rm",
            "--network",
            "container:one",
            "--pid",
            "container:three",
            "box:1",
            "true",
        ],
    );
    assert!(refused.contains("different user namespaces"), "{refused}");
    let refused = refusal(
        &daemon,
        &[
            "run",
            "--rm",
            "--userns",
            "auto",
            "--network",
            "container:one",
            "box:1",
            "true",
        ],
    );
    assert!(refused.contains("conflicting options"), "{refused}");
    // One of the host's ids gives its own.
    daemon.ok(&[
        "run", "-d", "--name", "four", "--userns", "host", "box:1", "sleep", "1000",
    ]);
    let map = run(
        &daemon,
        &["--network", "container:four"],
        "cat /proc/self/uid_map",
    );
    assert_eq!(words(&map), ["0", "0", "4294967295"]);
}

#[test]
fn builds_run_in_the_namespace_and_write_image_ids() {
    guard!();
    let ids = subordinate(LINES);
    let daemon = daemon(&ids, &REMAP);
    let context = daemon.dir.path().join("context");
    std::fs::create_dir(&context).unwrap();
    std::fs::write(context.join("given"), "x").unwrap();
    let file = "FROM box:1\nCOPY given /given\nRUN cat /proc/self/uid_map > /map && busybox stat -c %u /given /bin/sh >> /map\n\
                RUN touch /made && busybox chown 33 /made\nRUN busybox stat -c %u /made >> /map\n";
    std::fs::write(context.join("Dockerfile"), file).unwrap();
    daemon.ok(&["build", "-t", "made:1", &context.display().to_string()]);
    let look = [
        "run",
        "--rm",
        "--userns",
        "host",
        "made:1",
        "sh",
        "-c",
        "cat /map; busybox stat -c %u /given /map /made",
    ];
    let text = daemon.ok(&look);
    assert_eq!(
        words(&text),
        ["0", "300000", "65536", "0", "0", "33", "0", "0", "33"]
    );
}

#[test]
fn settings_that_cannot_keep_containers_apart_are_refused() {
    guard!();
    let validate = |lines: &str, remap: &str| {
        let ids = subordinate(lines);
        let output = std::process::Command::new(BERTH)
            .args([
                "daemon",
                "--validate",
                "--config-file",
                "/dev/null",
                "--userns-remap",
                remap,
                "--subid-dir",
            ])
            .arg(ids.path())
            .output()
            .unwrap();
        (output.status.success(), text(&output.stderr))
    };
    assert!(validate(LINES, "default").0);
    assert!(validate("root:300000:65536\n", "0:0").0);
    for (lines, remap, words) in [
        (LINES, "nosuchuser", "no such user: nosuchuser"),
        (LINES, "root:nosuchgroup", "no such group: nosuchgroup"),
        ("", "default", "add the line dockremap:100000:65536"),
        ("dockremap:300000:100\n", "default", "a larger range"),
        (
            "dockremap:300000:65536\neve:310000:10\n",
            "default",
            "overlaps with eve:310000:10",
        ),
        ("dockremap:0:65536\n", "default", "begins with root"),
    ] {
        let (fine, said) = validate(lines, remap);
        assert!(
            !fine && said.contains(words) && said.contains("--userns-remap"),
            "{remap}: {said}"
        );
    }
}
