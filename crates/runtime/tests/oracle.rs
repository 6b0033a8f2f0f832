//! The command line, and the same bundle under another runtime: both processes must see the same.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use spec::runtime::{
    Capabilities, Device, IdMapping, Mount, Namespace, NamespaceType, Rlimit, Seccomp, SeccompArg,
    SeccompSyscall,
};
use support::cli::{Cli, id, program};
use support::{Bundle, possible};

/// What the field's runtimes agree on.
const PROBE: &str = "grep -E '^(Cap|NoNewPrivs|Seccomp:|Groups|Uid|Gid)' /proc/self/status; \
    for m in $(sort /proc/self/mountinfo | while read a b c d e f; do echo $e; done | sort -u); do echo mount $m; done; \
    ls /dev | grep -vx -e console -e core; hostname; pwd; id; env | sort; \
    ls -l /proc/self/fd | wc -l; cat /proc/self/oom_score_adj; ls /sys/firmware | wc -l; wc -c < /proc/keys";

/// The lines that a bundle's process prints under our runtime and under crun, which must be the same, whatever their order.
/// `change` makes the bundle more than the usual one.
fn contest(name: &str, change: impl FnOnce(&mut Bundle)) {
    if !possible() {
        return;
    }
    if Command::new("crun").arg("--version").output().is_err() {
        println!("skipped: needs crun");
        return;
    }
    let Some(cli) = Cli::new() else { return };
    let mut bundle = Bundle::new();
    // Its view of a version 1 cgroup tree is arranged differently.
    bundle
        .spec
        .mounts
        .retain(|mount| mount.destination != Path::new("/sys/fs/cgroup"));
    bundle.linux().cgroups_path = Some(format!("/{}", id(&format!("berth-{name}"))));
    // crun of Debian 12 knows no time namespaces.
    bundle
        .linux()
        .namespaces
        .retain(|namespace| namespace.r#type != NamespaceType::Time);
    bundle.linux().resources = None;
    // Older than the specification's present version.
    bundle.spec.oci_version = "1.0.2".to_owned();
    change(&mut bundle);
    bundle.write_config();
    let path = bundle.path().to_str().unwrap();
    let id = id(name);
    let ours = cli.command(&["run", "--bundle", path, &id]);
    // Where both cgroup versions are mounted it refuses to run, so it gets to see the first only.
    let script = format!(
        "umount -l /sys/fs/cgroup/unified 2>/dev/null; exec crun --cgroup-manager cgroupfs run --bundle {path} {id}"
    );
    let theirs = Command::new("unshare")
        .args(["-m", "sh", "-c", &script])
        .output()
        .unwrap();
    let lines = |output: &Output| -> Vec<String> {
        let text = String::from_utf8_lossy(&output.stdout);
        text.lines().map(str::to_owned).collect()
    };
    let complaints = [&ours, &theirs].map(|output| String::from_utf8_lossy(&output.stderr).into_owned());
    assert_eq!(ours.status.code(), theirs.status.code(), "{name}: {complaints:?}");
    let (ours, theirs) = (lines(&ours), lines(&theirs));
    let missing: Vec<_> = theirs.iter().filter(|line| !ours.contains(line)).collect();
    let extra: Vec<_> = ours.iter().filter(|line| !theirs.contains(line)).collect();
    assert!(
        missing.is_empty() && extra.is_empty() && !ours.is_empty(),
        "{name}: only crun: {missing:?}\nonly ours: {extra:?}\n{complaints:?}"
    );
}

#[test]
fn the_same_bundle_looks_the_same_under_crun() {
    contest("oracle", |bundle| {
        // Kernel and libseccomp of the other runtime may know fewer names; the mode is what is compared.
        bundle.linux().seccomp = Some(runtime::default_seccomp(&runtime::template::DEFAULT_CAPABILITIES));
        bundle.shell(PROBE);
    });
}

#[test]
fn a_user_namespace_is_the_same() {
    contest("oracle-user", |bundle| {
        let map = IdMapping {
            container_id: 0,
            host_id: 200_000,
            size: 1000,
        };
        let root = bundle.root();
        chown(&root, Some(200_000), Some(200_000)).unwrap();
        // Whose the files below are is the image's business; a user who is nobody here needs a way in.
        fs::set_permissions(bundle.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let linux = bundle.linux();
        (linux.uid_mappings, linux.gid_mappings) = (vec![map], vec![map]);
        linux.namespaces.push(Namespace {
            r#type: NamespaceType::User,
            path: None,
        });
        bundle.process().user.uid = 7;
        bundle.process().user.gid = 8;
        bundle.process().user.additional_gids = vec![9];
        bundle.shell(
            "id; cat /proc/self/uid_map /proc/self/gid_map /proc/self/setgroups; stat -c '%n %u:%g' / /proc/self; \
             grep -E '^(Cap|NoNewPrivs|Groups)' /proc/self/status; hostname; mknod /tmp/x c 1 3 2>&1; \
             touch /root/x 2>&1; echo x >/dev/null && echo null",
        );
    });
}

#[test]
fn mounts_are_the_same() {
    contest("oracle-mounts", |bundle| {
        let host = bundle.path().join("host");
        fs::create_dir_all(host.join("deep")).unwrap();
        fs::write(host.join("file"), "of the host\n").unwrap();
        let source = host.display().to_string();
        let file = host.join("file").display().to_string();
        let mut mount = |destination: &str, kind: Option<&str>, source: &str, options: &[&str]| {
            bundle.spec.mounts.push(Mount {
                destination: destination.into(),
                r#type: kind.map(str::to_owned),
                source: Some(source.to_owned()),
                options: options.iter().map(|option| (*option).to_owned()).collect(),
                ..Mount::default()
            });
        };
        mount(
            "/data",
            None,
            &source,
            &["rbind", "ro", "nosuid", "nodev", "noexec"],
        );
        mount("/made/for/it", None, &source, &["bind", "rw", "rprivate"]);
        mount("/etc/one", None, &file, &["bind", "ro"]);
        mount(
            "/small",
            Some("tmpfs"),
            "tmpfs",
            &["size=1m", "mode=1770", "uid=3", "gid=4", "noatime"],
        );
        mount("/read", Some("tmpfs"), "tmpfs", &["ro", "mode=755"]);
        mount("relative/place", Some("tmpfs"), "tmpfs", &["mode=700"]);
        mount(
            "/kernel",
            Some("sysfs"),
            "sysfs",
            &["ro", "nosuid", "nodev", "noexec"],
        );
        bundle.shell(
            "while read a b c d at options rest; do case $at in /data|/made*|/etc*|/small|/read|/relative*|/kernel) \
             echo $at $options ${rest%% -*};; esac; done </proc/self/mountinfo | sed 's/:[0-9]*//'; \
             stat -c '%n %a %u:%g' /small /read /relative/place /made /made/for; cat /etc/one; \
             for f in /data /made/for/it /etc/one /read /small; do (touch $f/x) 2>/dev/null && echo $f written; done; ls /data",
        );
        symlink("busybox", bundle.root().join("bin/sed")).unwrap();
    });
}

#[test]
fn rights_and_limits_are_the_same() {
    for (name, uid) in [("oracle-root", 0), ("oracle-nobody", 1000)] {
        contest(name, |bundle| {
            let own = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
            let process = bundle.process();
            process.user.uid = uid;
            process.user.umask = Some(0o027);
            process.capabilities = Some(Capabilities {
                bounding: own(&["CAP_CHOWN", "CAP_NET_RAW", "CAP_KILL", "CAP_SETUID"]),
                permitted: own(&["CAP_CHOWN", "CAP_NET_RAW"]),
                effective: own(&["CAP_CHOWN"]),
                inheritable: own(&["CAP_NET_RAW"]),
                ambient: own(&["CAP_NET_RAW"]),
            });
            process.no_new_privileges = true;
            process.oom_score_adj = Some(123);
            process.env.push("HOME=/somewhere".to_owned());
            process.cwd = "/made/here".to_owned();
            for (kind, soft, hard) in [
                ("RLIMIT_NOFILE", 77, 99),
                ("RLIMIT_CORE", 0, 0),
                ("RLIMIT_STACK", 1 << 22, 1 << 23),
                ("RLIMIT_CPU", 50, 60),
            ] {
                process.rlimits.push(Rlimit {
                    r#type: kind.to_owned(),
                    soft,
                    hard,
                });
            }
            bundle.shell(
                "grep -E '^(Cap|NoNewPrivs|Groups|Uid|Gid)' /proc/self/status; cat /proc/self/limits /proc/self/oom_score_adj; \
                 umask; pwd; env | sort; id",
            );
        });
    }
}

#[test]
fn filters_do_the_same() {
    contest("oracle-filter", |bundle| {
        let rule = |name: &str, action: &str, errno_ret: Option<u32>, args: Vec<SeccompArg>| SeccompSyscall {
            names: vec![name.to_owned(), format!("{name}at")],
            action: action.to_owned(),
            errno_ret,
            args,
        };
        let mode = |op: &str, value: u64, value_two: u64| {
            vec![SeccompArg {
                index: 1,
                value,
                value_two,
                op: op.to_owned(),
            }]
        };
        bundle.linux().seccomp = Some(Seccomp {
            default_action: "SCMP_ACT_ALLOW".to_owned(),
            syscalls: vec![
                rule("unlink", "SCMP_ACT_ERRNO", Some(5), Vec::new()),
                rule("link", "SCMP_ACT_KILL", None, Vec::new()),
                SeccompSyscall {
                    names: vec!["chmod".to_owned()],
                    ..rule("", "SCMP_ACT_ERRNO", Some(30), mode("SCMP_CMP_EQ", 0o700, 0))
                },
                SeccompSyscall {
                    names: vec!["chmod".to_owned()],
                    ..rule(
                        "",
                        "SCMP_ACT_ERRNO",
                        Some(28),
                        mode("SCMP_CMP_MASKED_EQ", 0o4000, 0o4000),
                    )
                },
                rule("rmdir", "SCMP_ACT_LOG", None, Vec::new()),
                rule("symlink", "SCMP_ACT_TRACE", None, Vec::new()),
            ],
            ..Seccomp::default()
        });
        for applet in ["rm", "ln", "chmod", "rmdir"] {
            symlink("busybox", bundle.root().join("bin").join(applet)).unwrap();
        }
        bundle.shell(
            "cd /tmp; touch a; mkdir -p d; for c in 'rm -f a' 'ln a b' 'chmod 700 a' 'chmod 4711 a' 'chmod 711 a' 'rmdir d' \
             'ln -s a c'; do (exec $c) 2>&1; echo $c: $?; done; grep Seccomp: /proc/self/status",
        );
    });
}

#[test]
fn devices_names_and_the_kernels_settings_are_the_same() {
    contest("oracle-devices", |bundle| {
        let device = |path: &str, kind: &str, major, minor, file_mode, uid| Device {
            path: path.into(),
            r#type: kind.to_owned(),
            major,
            minor,
            file_mode: Some(file_mode),
            uid: Some(uid),
            gid: Some(4),
        };
        bundle.spec.hostname = "contest".to_owned();
        bundle.spec.root.as_mut().unwrap().readonly = true;
        let linux = bundle.linux();
        linux.devices = vec![
            device("/dev/own", "c", 1, 5, 0o640, 3),
            device("/dev/deep/disk", "b", 7, 0, 0o600, 0),
            device("/dev/pipe", "p", 0, 0, 0o666, 0),
        ];
        for (key, value) in [("net.ipv4.ip_forward", "1"), ("kernel.msgmax", "9000")] {
            linux.sysctl.insert(key.to_owned(), value.to_owned());
        }
        linux.masked_paths.push("/etc/hidden".to_owned());
        linux.readonly_paths.push("/dev/shm".to_owned());
        fs::write(bundle.root().join("etc/hidden"), "secret").unwrap();
        bundle.shell(
            "cd /dev; stat -c '%n %F %t:%T %a %u:%g' own deep/disk pipe null zero full random urandom tty ptmx; \
             for l in fd stdin stdout stderr; do readlink $l; done; hostname; \
             cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/msgmax; wc -c </etc/hidden; \
             for f in / /dev /dev/shm /tmp /proc/sys/kernel/msgmax; do touch $f/x 2>&1; done; head -c 3 own | wc -c",
        );
    });
}

#[test]
fn a_life_by_command_line() {
    if !possible() {
        return;
    }
    let Some(cli) = Cli::new() else { return };
    let mut bundle = Bundle::new();
    bundle.shell("trap 'exit 0' TERM; while true; do sleep 0.05; done");
    bundle.linux().cgroups_path = Some(format!("/{}", id("berth-life")));
    bundle.write_config();
    let id = id("life");
    let pid_file = bundle.path().join("pid");
    let create = Command::new(&cli.program)
        .arg("--root")
        .arg(cli.state.path())
        .args(["create", "--bundle"])
        .arg(bundle.path())
        .arg("--pid-file")
        .arg(&pid_file)
        .arg(&id)
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .status()
        .unwrap();
    assert!(create.success());
    let status = |cli: &Cli| {
        let state: serde_json::Value = serde_json::from_str(&cli.ok(&["state", &id])).unwrap();
        state["status"].as_str().unwrap().to_owned()
    };
    assert_eq!(status(&cli), "created");
    assert!(
        !cli.command(&["create", "--bundle", bundle.path().to_str().unwrap(), &id])
            .status
            .success()
    );
    cli.ok(&["start", &id]);
    assert_eq!(status(&cli), "running");
    assert!(!cli.command(&["start", &id]).status.success());
    assert_eq!(cli.ok(&["exec", &id, "echo", "inside"]), "inside\n");
    assert_eq!(cli.command(&["exec", &id, "nosuch"]).status.code(), Some(127));
    let pid = std::fs::read_to_string(&pid_file).unwrap();
    assert!(cli.ok(&["ps", "--format", "json", &id]).contains(&pid));
    assert!(cli.ok(&["list", "--quiet"]).contains(&id));
    cli.ok(&["pause", &id]);
    assert_eq!(status(&cli), "paused");
    cli.ok(&["resume", &id]);
    assert!(!cli.command(&["delete", &id]).status.success());
    cli.ok(&["kill", &id, "KILL"]);
    cli.ok(&["delete", "--force", &id]);
    assert!(!cli.command(&["state", &id]).status.success());
    assert_eq!(std::fs::read_dir(cli.state.path()).unwrap().count(), 0);
    cli.ok(&["features"]);
}

#[test]
fn init_reaps_forwards_and_tells_the_code() {
    if !possible() {
        return;
    }
    let Some(program) = program() else { return };
    let file = std::fs::File::open(program).unwrap();
    let mut bundle = Bundle::new();
    let caps = &runtime::template::DEFAULT_CAPABILITIES;
    bundle.linux().seccomp = Some(runtime::default_seccomp(caps));
    // The test's program is not static, so it brings its libraries along.
    for library in ["/lib", "/lib64", "/usr/lib"] {
        if Path::new(library).exists() {
            bundle.spec.mounts.push(spec::runtime::Mount {
                destination: PathBuf::from(library),
                source: Some(library.to_owned()),
                options: vec!["rbind".to_owned(), "ro".to_owned()],
                ..Default::default()
            });
        }
    }
    let script = "trap 'echo told; exit 6' TERM; echo $(test $$ = 1 || echo child); kill -TERM 1; for i in 1 2 3 4 5 6 7 8 9; do sleep 0.1; done; exit 5";
    bundle.args(&["/sbin/docker-init", "--", "sh", "-c", script]);
    let (stdio, output) = support::captured();
    let root = bundle.root();
    let mut launch = runtime::Launch::new(
        "init",
        bundle.path(),
        &bundle.spec,
        runtime::RootFs::Path(&root),
        stdio,
    );
    launch.init = Some(std::os::fd::AsFd::as_fd(&file));
    let running = runtime::create(launch).unwrap().start().unwrap();
    let (text, exit) = support::finish(running.pidfd, output);
    assert_eq!(
        (text.as_str(), exit),
        ("child\ntold\n", sys::process::Exit::Code(6))
    );
}
