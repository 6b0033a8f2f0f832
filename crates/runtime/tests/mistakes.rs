//! What is wrong with a bundle, an id or a call is told in one line, and nothing of it is left.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use spec::runtime::{Hook, Hooks};
use support::Bundle;
use support::cli::{Cli, nothing_is_left, prepared};

/// What creating complains of.
fn refused(cli: &Cli, bundle: &Bundle, id: &str, flags: &[&str]) -> String {
    let call = [
        &["create", "--bundle", bundle.path().to_str().unwrap()],
        flags,
        &[id],
    ]
    .concat();
    let complaint = cli.fails(&call);
    nothing_is_left(cli, id);
    assert_eq!(complaint.lines().count(), 1, "{complaint}");
    complaint
}

#[test]
fn a_mistake_in_the_configuration_is_told_with_its_place() {
    let Some((cli, bundle, id)) = prepared("mistake") else {
        return;
    };
    bundle.write_config();
    let path = bundle.path().join("config.json");
    let good: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let complaint = |pointer: &[&str], value: Value| {
        let mut bad = good.clone();
        let mut at = &mut bad;
        for key in pointer {
            at = &mut at[*key];
        }
        *at = value;
        fs::write(&path, bad.to_string()).unwrap();
        let complaint = cli.fails(&["create", "--bundle", bundle.path().to_str().unwrap(), &id]);
        nothing_is_left(&cli, &id);
        complaint
    };
    let cases: [(&[&str], Value, &str); 9] = [
        (
            &["process", "user", "uid"],
            json!("root"),
            "process.user.uid: invalid type",
        ),
        (
            &["linux", "namespaces"],
            json!([{"type": "moon"}]),
            "linux.namespaces[0].type: unknown variant",
        ),
        (
            &["process", "cwd"],
            json!("tmp"),
            "process.cwd \"tmp\" is not absolute",
        ),
        (&["process", "args"], json!([]), "process.args is empty"),
        (&["root"], json!(null), "root is missing"),
        (&["root", "path"], json!("nosuch"), "nosuch"),
        (
            &["linux", "sysctl"],
            json!({"kernel.panic": "1"}),
            "sysctl \"kernel.panic\"",
        ),
        (&["linux", "intelRdt"], json!({}), "linux.intelRdt"),
        (
            &["process", "scheduler"],
            json!({"policy": "SCHED_NONE"}),
            "process.scheduler.policy",
        ),
    ];
    for (pointer, value, expected) in cases {
        let complaint = complaint(pointer, value);
        assert!(complaint.contains(expected), "{pointer:?}: {complaint}");
        assert_eq!(complaint.lines().count(), 1, "{complaint}");
    }
}

#[test]
fn a_root_that_is_a_link_is_not_followed() {
    let Some((cli, mut bundle, id)) = prepared("link") else {
        return;
    };
    symlink("/", bundle.path().join("elsewhere")).unwrap();
    bundle.spec.root.as_mut().unwrap().path = "elsewhere".into();
    bundle.write_config();
    let complaint = refused(&cli, &bundle, &id, &[]);
    assert!(
        complaint.contains("root.path") && complaint.contains("symbolic link"),
        "{complaint}"
    );
    bundle.spec.root.as_mut().unwrap().path = "config.json".into();
    bundle.write_config();
    let complaint = refused(&cli, &bundle, &id, &[]);
    assert!(complaint.contains("no directory"), "{complaint}");
}

#[test]
fn hooks_that_fail_or_hang_end_the_creation() {
    let Some((cli, mut bundle, id)) = prepared("hooks") else {
        return;
    };
    let mut with = |script: &str| {
        bundle.spec.hooks = Some(Hooks {
            create_runtime: vec![Hook {
                path: "/bin/sh".into(),
                args: ["sh", "-c", script].map(str::to_owned).to_vec(),
                timeout: Some(1),
                ..Hook::default()
            }],
            ..Hooks::default()
        });
        bundle.write_config();
        refused(&cli, &bundle, &id, &[])
    };
    let complaint = with("echo no place >&2; exit 3");
    assert!(
        complaint.contains("createRuntime hook") && complaint.contains("no place"),
        "{complaint}"
    );
    let complaint = with("exec sleep 100");
    assert!(complaint.contains("timeout of 1 s"), "{complaint}");
}

#[test]
fn a_console_that_nobody_listens_to_ends_the_creation() {
    let Some((cli, mut bundle, id)) = prepared("console") else {
        return;
    };
    bundle.process().terminal = true;
    bundle.write_config();
    let complaint = refused(&cli, &bundle, &id, &[]);
    assert!(complaint.contains("--console-socket"), "{complaint}");
    let path = bundle.path().join("console");
    drop(UnixListener::bind(&path).unwrap());
    let complaint = refused(&cli, &bundle, &id, &["--console-socket", path.to_str().unwrap()]);
    assert!(
        complaint.contains("console socket") && complaint.contains("refused"),
        "{complaint}"
    );
}

#[test]
fn ids_that_are_taken_or_no_names_are_refused() {
    let Some((cli, mut bundle, id)) = prepared("taken") else {
        return;
    };
    bundle.shell("sleep 100");
    bundle.write_config();
    cli.run_detached(bundle.path(), &id);
    let path = bundle.path().to_str().unwrap();
    let complaint = cli.fails(&["create", "--bundle", path, &id]);
    assert!(
        complaint.contains("exists") && complaint.contains(&id),
        "{complaint}"
    );
    assert!(
        cli.ok(&["state", &id]).contains("running"),
        "the one that has it goes on"
    );
    for bad in ["../up", "a/b", "a b", ""] {
        let complaint = cli.fails(&["create", "--bundle", path, bad]);
        assert!(complaint.contains("invalid container id"), "{bad:?}: {complaint}");
    }
    cli.ok(&["delete", "--force", &id]);
    nothing_is_left(&cli, &id);
}

#[test]
fn a_bundle_that_changes_later_changes_nothing() {
    let Some((cli, mut bundle, id)) = prepared("changing") else {
        return;
    };
    bundle.shell("echo as created >/told; sleep 100");
    bundle.write_config();
    let created = Command::new(&cli.program)
        .arg("--root")
        .arg(cli.state.path())
        .args(["create", "--bundle", bundle.path().to_str().unwrap(), &id])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert!(created.success());
    let moved = bundle.path().join("moved");
    fs::rename(bundle.root(), &moved).unwrap();
    fs::create_dir(bundle.root()).unwrap();
    fs::write(bundle.path().join("config.json"), "{").unwrap();
    cli.ok(&["start", &id]);
    while !moved.join("told").exists() {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    cli.ok(&["exec", &id, "true"]);
    cli.ok(&["delete", "--force", &id]);
    nothing_is_left(&cli, &id);
}

/// Tells a thread that it is to end, however its test ends.
struct Stopping<'a>(&'a std::sync::atomic::AtomicBool);

impl Drop for Stopping<'_> {
    fn drop(&mut self) {
        self.0.store(true, std::sync::atomic::Ordering::Relaxed);
    }
}

/// Two documents and two things at the root's place change places all the time, one of them a link to the host's root. Each run
/// has one document as a whole and the directory, or is refused.
#[test]
fn a_bundle_that_changes_while_it_is_read_is_one_or_the_other() {
    let Some((cli, mut bundle, id)) = prepared("exchanged") else {
        return;
    };
    let exchange = |one: &Path, other: &Path| {
        let flags = rustix::fs::RenameFlags::EXCHANGE;
        rustix::fs::renameat_with(rustix::fs::CWD, one, rustix::fs::CWD, other, flags).unwrap();
    };
    fs::write(bundle.root().join("inside"), "").unwrap();
    let path = bundle.path().to_owned();
    for (name, hostname) in [("other.json", "second"), ("config.json", "first")] {
        bundle.spec.hostname = hostname.to_owned();
        bundle.shell(&format!(
            "test -e /inside && echo inside; echo {hostname} $(hostname)"
        ));
        bundle.write_config();
        fs::rename(path.join("config.json"), path.join(name)).unwrap();
    }
    symlink("/", path.join("trap")).unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        // Also when the test fails: the scope waits for the other thread.
        let stopping = Stopping(&stop);
        let exchanging = scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                exchange(&path.join("config.json"), &path.join("other.json"));
                exchange(&path.join("rootfs"), &path.join("trap"));
            }
            // The directory is left at its place, for the bundle to be removed.
            if path.join("trap").symlink_metadata().unwrap().is_dir() {
                exchange(&path.join("rootfs"), &path.join("trap"));
            }
        });
        for _ in 0..60 {
            let output = cli.command(&["run", "--bundle", path.to_str().unwrap(), &id]);
            let (text, told) = (
                String::from_utf8_lossy(&output.stdout).into_owned(),
                String::from_utf8_lossy(&output.stderr).into_owned(),
            );
            let whole = ["first", "second"]
                .iter()
                .any(|name| text == format!("inside\n{name} {name}\n"));
            let refused = text.is_empty() && told.contains("symbolic link");
            assert!(whole || refused, "{text}{told}");
            nothing_is_left(&cli, &id);
        }
        drop(stopping);
        exchanging.join().unwrap();
    });
}

#[test]
fn a_damaged_record_is_named_and_can_be_removed() {
    let Some((cli, mut bundle, id)) = prepared("damaged") else {
        return;
    };
    bundle.shell("true");
    bundle.write_config();
    cli.run_detached(bundle.path(), &id);
    let record = cli.state.path().join(&id).join("state.json");
    fs::write(&record, "{").unwrap();
    for command in ["state", "delete", "start", "ps"] {
        let complaint = cli.fails(&[command, &id]);
        assert!(
            complaint.contains("state.json") && complaint.contains("EOF"),
            "{command}: {complaint}"
        );
    }
    assert_eq!(cli.ok(&["list", "--quiet"]), "", "it hides no other container");
    cli.ok(&["delete", "--force", &id]);
    assert_eq!(fs::read_dir(cli.state.path()).unwrap().count(), 0);
    // The record named the cgroup; the caller has to know it now.
    cgroup::Cgroup::open("/", &id).unwrap().remove().unwrap();
}

#[test]
fn a_group_in_which_another_container_lives_is_left_alone() {
    let Some((cli, mut bundle, id)) = prepared("occupied") else {
        return;
    };
    bundle.shell("sleep 100");
    bundle.write_config();
    cli.run_detached(bundle.path(), &id);
    let group = cgroup::Cgroup::open("/", &id).unwrap();
    let below = group.paths()[0].directory.join("below");
    fs::create_dir(&below).unwrap();
    let other = format!("{id}-other");
    let complaint = cli.fails(&["create", "--bundle", bundle.path().to_str().unwrap(), &other]);
    assert!(complaint.contains("already exists and holds"), "{complaint}");
    assert!(below.is_dir(), "the subgroup of the one that lives there");
    assert!(cli.ok(&["state", &id]).contains("running"));
    cli.ok(&["delete", "--force", &id]);
    nothing_is_left(&cli, &id);
}

/// Puts `patch` over `value`, key by key; null takes a key away.
fn merge(value: &mut Value, patch: &Value) {
    match (value, patch) {
        (Value::Object(old), Value::Object(new)) => {
            for (key, patch) in new {
                if patch.is_null() {
                    old.remove(key);
                } else {
                    merge(old.entry(key.clone()).or_insert(Value::Null), patch);
                }
            }
        }
        (value, patch) => *value = patch.clone(),
    }
}

/// Fields with values that make no sense, and how the complaint about each begins.
fn wrong_fields() -> Vec<(Value, &'static str)> {
    let user = |maps: Value| {
        let namespaces = json!([{"type": "mount"}, {"type": "user"}, {"type": "uts"}]);
        let mut linux = json!({"namespaces": namespaces, "sysctl": null,
            "uidMappings": [{"containerID": 0, "hostID": 1000, "size": 9}],
            "gidMappings": [{"containerID": 0, "hostID": 1000, "size": 9}]});
        merge(&mut linux, &maps);
        json!({"linux": linux})
    };
    let process = |patch: Value| json!({"process": patch});
    let linux = |patch: Value| json!({"linux": patch});
    let resources = |patch: Value| json!({"linux": {"resources": patch}});
    let seccomp = |patch: Value| {
        let mut filter = json!({"defaultAction": "SCMP_ACT_ALLOW"});
        merge(&mut filter, &patch);
        json!({"linux": {"seccomp": filter}})
    };
    let mount = |patch: Value| {
        let mut mount = json!({"destination": "/x", "source": "/etc", "options": ["rbind", "ro"]});
        merge(&mut mount, &patch);
        json!({"mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}, mount]})
    };
    let hook = |patch: Value| {
        let mut hook = json!({"path": "/bin/true"});
        merge(&mut hook, &patch);
        json!({"hooks": {"poststart": [{"path": "/bin/true"}, hook]}})
    };
    let device = |patch: Value| {
        let mut device = json!({"path": "/dev/x", "type": "c", "major": 1, "minor": 3});
        merge(&mut device, &patch);
        json!({"linux": {"devices": [device]}})
    };
    let namespaces = |list: Value| linux(json!({"namespaces": list, "sysctl": null}));
    let nothing = json!({"syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO"}, {"names": [], "action": "SCMP_ACT_ERRNO"}]});
    vec![
        (json!({"ociVersion": null}), "ociVersion is missing"),
        (json!({"ociVersion": "2.0.0"}), "ociVersion \"2.0.0\": "),
        (json!({"root": null}), "root is missing"),
        (json!({"root": {"path": "nosuch"}}), "root.path "),
        (json!({"process": null}), "process is missing"),
        (json!({"linux": null}), "linux is missing"),
        (process(json!({"args": []})), "process.args is empty"),
        (process(json!({"args": ["sh", "a\u{0}b"]})), "process.args[1]: "),
        (process(json!({"cwd": "tmp"})), "process.cwd \"tmp\""),
        (process(json!({"env": ["A=1", "B"]})), "process.env[1]: "),
        (process(json!({"env": ["=1"]})), "process.env[0]: "),
        (process(json!({"user": {"uid": "root"}})), "process.user.uid: "),
        (process(json!({"user": {"umask": 512}})), "process.user.umask: "),
        (process(json!({"oomScoreAdj": 1001})), "process.oomScoreAdj: "),
        (
            process(json!({"rlimits": [{"type": "RLIMIT_MOON", "soft": 1, "hard": 1}]})),
            "process.rlimits[0].type: ",
        ),
        (
            process(json!({"rlimits": [{"type": "RLIMIT_CORE", "soft": 2, "hard": 1}]})),
            "process.rlimits[0].soft: ",
        ),
        (
            process(json!({"rlimits": [{"type": "RLIMIT_CORE", "soft": 1, "hard": 1},
                                       {"type": "RLIMIT_CORE", "soft": 1, "hard": 1}]})),
            "process.rlimits[1].type: ",
        ),
        (
            process(json!({"rlimits": [{"type": "RLIMIT_CORE", "soft": -1, "hard": 1}]})),
            "process.rlimits[0].soft: ",
        ),
        (
            process(json!({"scheduler": {"policy": "SCHED_NONE"}})),
            "process.scheduler.policy: ",
        ),
        (
            process(json!({"scheduler": {"policy": "SCHED_OTHER", "nice": 20}})),
            "process.scheduler.nice: ",
        ),
        (
            process(json!({"scheduler": {"policy": "SCHED_OTHER", "flags": ["SCHED_FLAG_X"]}})),
            "process.scheduler.flags[0]: ",
        ),
        (
            process(json!({"ioPriority": {"class": "IOPRIO_CLASS_X", "priority": 1}})),
            "process.ioPriority.class: ",
        ),
        (
            process(json!({"ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 8}})),
            "process.ioPriority.priority: ",
        ),
        (
            process(json!({"execCPUAffinity": {"final": "3-1"}})),
            "process.execCPUAffinity.final: ",
        ),
        (json!({"hostname": "x".repeat(65)}), "hostname "),
        (
            json!({"domainname": "a.b", "hostname": null, "linux": {"namespaces": [{"type": "mount"}], "sysctl": null}}),
            "domainname \"a.b\": ",
        ),
        (
            mount(json!({"destination": ""})),
            "mounts[1].destination is missing",
        ),
        (
            mount(json!({"destination": "/a\u{0}b"})),
            "mounts[1].destination: ",
        ),
        (mount(json!({"source": null})), "mounts[1].source is missing"),
        (
            mount(json!({"source": "/no/such"})),
            "mounts[1].source: /no/such: ",
        ),
        (
            mount(json!({"options": ["rbind", "ro", "size=1m"]})),
            "mounts[1].options[2]: \"size=1m\"",
        ),
        (
            mount(json!({"options": ["rbind", "tmpcopyup"]})),
            "mounts[1].options[1]: \"tmpcopyup\"",
        ),
        (mount(json!({"options": ["ro"]})), "mounts[1].type is missing"),
        (
            mount(json!({"type": "cgroup", "source": "cgroup", "options": ["mode=755"]})),
            "mounts[1].options[0]: \"mode=755\"",
        ),
        (
            mount(json!({"options": ["rbind", "idmap"]})),
            "mounts[1].uidMappings ",
        ),
        (
            mount(
                json!({"options": ["rbind", "idmap"], "uidMappings": [{"containerID": 0, "hostID": 1, "size": 1}]}),
            ),
            "mounts[1].uidMappings ",
        ),
        (
            mount(
                json!({"uidMappings": [{"containerID": 0, "hostID": 1, "size": 0}],
                         "gidMappings": [{"containerID": 0, "hostID": 1, "size": 1}]}),
            ),
            "mounts[1].uidMappings[0]: ",
        ),
        (
            mount(
                json!({"type": "tmpfs", "options": ["idmap"], "uidMappings": [{"containerID": 0, "hostID": 1, "size": 1}],
                         "gidMappings": [{"containerID": 0, "hostID": 1, "size": 1}]}),
            ),
            "mounts[1].uidMappings: ",
        ),
        (hook(json!({"path": "true"})), "hooks.poststart[1].path: "),
        (hook(json!({"timeout": 0})), "hooks.poststart[1].timeout: "),
        (hook(json!({"timeout": -3})), "hooks.poststart[1].timeout: "),
        (
            hook(json!({"env": ["A=1", "PATH"]})),
            "hooks.poststart[1].env[1]: ",
        ),
        (
            namespaces(json!([{"type": "moon"}])),
            "linux.namespaces[0].type: ",
        ),
        (
            namespaces(json!([{"type": "mount"}, {"type": "pid"}, {"type": "pid"}])),
            "linux.namespaces[2]: ",
        ),
        (
            namespaces(json!([{"type": "mount"}, {"type": "uts", "path": "ns/uts"}])),
            "linux.namespaces[1].path: ",
        ),
        (
            namespaces(json!([{"type": "mount"}, {"type": "uts", "path": "/no/such"}])),
            "linux.namespaces[1].path: ",
        ),
        (
            namespaces(json!([{"type": "mount"}, {"type": "uts", "path": "/proc/self/ns/ipc"}])),
            "linux.namespaces[1].path: /proc/self/ns/ipc: it is a namespace of another kind (ipc)",
        ),
        (
            namespaces(json!([{"type": "mount"}, {"type": "uts", "path": "/proc/self/status"}])),
            "linux.namespaces[1].path: /proc/self/status: it is not a namespace",
        ),
        (
            user(json!({"namespaces": [{"type": "user"}]})),
            "linux.namespaces: ",
        ),
        (user(json!({"uidMappings": null})), "linux.uidMappings is missing"),
        (
            user(json!({"gidMappings": [{"containerID": 0, "hostID": 1, "size": 0}]})),
            "linux.gidMappings[0]: ",
        ),
        (
            user(
                json!({"uidMappings": [{"containerID": 0, "hostID": 1000, "size": 9},
                                        {"containerID": 8, "hostID": 5000, "size": 1}]}),
            ),
            "linux.uidMappings[1]: ",
        ),
        (
            user(json!({"uidMappings": [{"containerID": 0, "hostID": 9, "size": 4_294_967_295u32}]})),
            "linux.uidMappings[0]: ",
        ),
        (
            user(json!({"gidMappings": [{"containerID": 5, "hostID": 5, "size": 1}]})),
            "linux.gidMappings: ",
        ),
        (
            {
                let mut both = user(json!({}));
                merge(&mut both, &process(json!({"user": {"uid": 9}})));
                both
            },
            "process.user.uid: 9 ",
        ),
        (
            linux(json!({"uidMappings": [{"containerID": 0, "hostID": 1, "size": 1}]})),
            "linux.uidMappings needs",
        ),
        (
            linux(json!({"timeOffsets": {"wall": {"secs": 1}}})),
            "linux.timeOffsets: ",
        ),
        (
            linux(json!({"timeOffsets": {"boottime": {"nanosecs": 1_000_000_000}}})),
            "linux.timeOffsets.boottime.nanosecs: ",
        ),
        (device(json!({"type": "x"})), "linux.devices[0].type: "),
        (device(json!({"path": "dev/x"})), "linux.devices[0].path: "),
        (device(json!({"major": -1})), "linux.devices[0].major: "),
        (device(json!({"major": 4096})), "linux.devices[0].major: "),
        (device(json!({"minor": 1_048_576})), "linux.devices[0].minor: "),
        (
            linux(json!({"maskedPaths": ["/proc/kcore", "proc/keys"]})),
            "linux.maskedPaths[1]: ",
        ),
        (linux(json!({"readonlyPaths": [""]})), "linux.readonlyPaths[0]: "),
        (
            linux(json!({"rootfsPropagation": "sideways"})),
            "linux.rootfsPropagation: ",
        ),
        (
            linux(json!({"sysctl": {"kernel.panic": "1"}})),
            "linux.sysctl \"kernel.panic\"",
        ),
        (
            linux(json!({"netDevices": {"a/b": {}}})),
            "linux.netDevices.a/b: ",
        ),
        (
            linux(json!({"personality": {"domain": "SOLARIS"}})),
            "linux.personality.domain: ",
        ),
        (
            linux(json!({"personality": {"domain": "LINUX", "flags": ["X"]}})),
            "linux.personality.flags[0]: ",
        ),
        (
            linux(json!({"memoryPolicy": {"mode": "MPOL_X"}})),
            "linux.memoryPolicy.mode: ",
        ),
        (
            linux(json!({"memoryPolicy": {"mode": "MPOL_BIND"}})),
            "linux.memoryPolicy.nodes: ",
        ),
        (
            linux(json!({"memoryPolicy": {"mode": "MPOL_BIND", "nodes": "0", "flags": ["X"]}})),
            "linux.memoryPolicy.flags[0]: ",
        ),
        (
            linux(json!({"intelRdt": {"closID": "a/b"}})),
            "linux.intelRdt.closID: ",
        ),
        (
            linux(json!({"intelRdt": {"memBwSchema": "L3:0=f"}})),
            "linux.intelRdt.memBwSchema: ",
        ),
        (
            resources(json!({"memory": {"limit": "much"}})),
            "linux.resources.memory.limit: ",
        ),
        (
            resources(json!({"memory": {"limit": -2}})),
            "linux.resources.memory.limit: ",
        ),
        (
            resources(json!({"memory": {"limit": 9000, "swap": 8000}})),
            "linux.resources.memory.swap: ",
        ),
        (
            resources(json!({"memory": {"swappiness": 101}})),
            "linux.resources.memory.swappiness: ",
        ),
        (
            resources(json!({"cpu": {"cpus": "x"}})),
            "linux.resources.cpu.cpus: ",
        ),
        (
            resources(json!({"cpu": {"shares": -1}})),
            "linux.resources.cpu.shares: ",
        ),
        (
            resources(json!({"pids": {"limit": -7}})),
            "linux.resources.pids.limit: ",
        ),
        (
            resources(json!({"blockIO": {"leafWeight": 300}})),
            "linux.resources.blockIO.leafWeight: ",
        ),
        (
            resources(json!({"devices": [{"allow": true, "access": "x"}]})),
            "linux.resources.devices[0]: ",
        ),
        (
            resources(json!({"hugepageLimits": [{"pageSize": "2", "limit": 1}]})),
            "linux.resources.hugepageLimits[0].pageSize: ",
        ),
        (
            resources(json!({"rdma": {"mlx5_1": {}}})),
            "linux.resources.rdma.mlx5_1: ",
        ),
        (
            resources(json!({"unified": {"../x": "1"}})),
            "linux.resources.unified.../x: ",
        ),
        (
            seccomp(json!({"defaultAction": "SCMP_ACT_X"})),
            "linux.seccomp.defaultAction: ",
        ),
        (
            seccomp(json!({"defaultErrnoRet": 5})),
            "linux.seccomp.defaultErrnoRet: ",
        ),
        (
            seccomp(json!({"architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_Z80"]})),
            "linux.seccomp.architectures[1]: ",
        ),
        (
            seccomp(json!({"flags": ["SECCOMP_FILTER_FLAG_X"]})),
            "linux.seccomp.flags[0]: ",
        ),
        (
            seccomp(json!({"listenerMetadata": "x"})),
            "linux.seccomp.listenerMetadata: ",
        ),
        (
            seccomp(json!({"syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_X"}]})),
            "linux.seccomp.syscalls[0].action: ",
        ),
        (
            seccomp(json!({"syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_ALLOW", "errnoRet": 1}]})),
            "linux.seccomp.syscalls[0].errnoRet: ",
        ),
        (
            seccomp(
                json!({"syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": 5000}]}),
            ),
            "linux.seccomp.syscalls[0].errnoRet: ",
        ),
        (seccomp(nothing), "linux.seccomp.syscalls[1].names: "),
        (
            seccomp(
                json!({"syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO",
                                         "args": [{"index": 6, "value": 1, "op": "SCMP_CMP_EQ"}]}]}),
            ),
            "linux.seccomp.syscalls[0].args[0].index: ",
        ),
        (
            seccomp(
                json!({"syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO",
                                         "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_X"}]}]}),
            ),
            "linux.seccomp.syscalls[0].args[0].op: ",
        ),
        (
            seccomp(json!({"syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}]})),
            "linux.seccomp.syscalls[0].action: ",
        ),
    ]
}

/// Each field with a bad value, one after the other: one line that names its place, and not even the directory of states is
/// made, which comes before the cgroup and everything else.
#[test]
fn a_field_that_makes_no_sense_is_told_with_its_place_before_anything_is_made() {
    let Some((cli, bundle, id)) = prepared("senseless") else {
        return;
    };
    bundle.write_config();
    let file = bundle.path().join("config.json");
    let good: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    let root = cli.state.path().join("fresh");
    for (patch, place) in wrong_fields() {
        let mut bad = good.clone();
        merge(&mut bad, &patch);
        fs::write(&file, bad.to_string()).unwrap();
        let output = Command::new(&cli.program)
            .arg("--root")
            .arg(&root)
            .args(["create", "--bundle", bundle.path().to_str().unwrap(), &id])
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{patch}");
        assert_eq!(complaint.lines().count(), 1, "{patch}: {complaint}");
        let at = [
            ": invalid configuration: ",
            ": not supported: ",
            "config.json: ",
            "berth runtime: ",
        ]
        .iter()
        .any(|start| complaint.contains(&format!("{start}{place}")));
        assert!(at, "{patch}: {complaint}");
        assert!(!root.exists(), "{patch}: something was made");
    }
    // The same document with nothing wrong in it is taken.
    fs::write(&file, good.to_string()).unwrap();
    cli.quietly(&["create", "--bundle", bundle.path().to_str().unwrap(), &id]);
    cli.ok(&["delete", &id]);
    nothing_is_left(&cli, &id);
}
