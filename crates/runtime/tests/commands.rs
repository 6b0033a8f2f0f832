//! The commands and flags of the command line that engines drive a runtime by.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::event::{PollFd, PollFlags, poll};
use serde_json::{Value, json};
use spec::runtime::{
    CpuAffinity, DeviceCgroup, Memory, MemoryPolicy, Resources, Scheduler, Seccomp, SeccompSyscall,
};
use support::Bundle;
use support::cli::{Cli, nothing_is_left, prepared};

/// Runs to the end and gives what it prints.
fn run(cli: &Cli, bundle: &Bundle, id: &str) -> String {
    bundle.write_config();
    cli.ok(&["run", "--bundle", bundle.path().to_str().unwrap(), id])
}

/// Where no control group may be made, as in a container that was not given any.
#[test]
fn without_a_right_to_groups_a_container_runs_only_when_that_is_allowed_and_nothing_asks_for_one() {
    let Some((cli, mut bundle, id)) = prepared("rootless") else {
        return;
    };
    let command = |flag: &[&str], verb: &[&str]| {
        let script = "for m in $(grep cgroup /proc/mounts | cut -d' ' -f2); do mount -o remount,bind,ro $m; done; \
                      exec \"$@\"";
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "sh", "-c", script, "sh"])
            .arg(&cli.program)
            .arg("--root")
            .arg(cli.state.path())
            .args(flag)
            .args(verb)
            .stdin(Stdio::null());
        command
    };
    let sealed = |flag: &[&str], verb: &[&str]| command(flag, verb).output().unwrap();
    bundle.linux().cgroups_path = None;
    bundle.shell("echo ran");
    bundle.write_config();
    let path = bundle.path().to_str().unwrap().to_owned();
    let run = ["run", "--bundle", &path, &id];
    let output = sealed(&["--rootless=true"], &run);
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(
        (output.stdout.as_slice(), complaint.as_str()),
        (b"ran\n".as_slice(), "")
    );
    // All ids are the caller's, so it is not rootless by itself.
    for flag in [&["--rootless=false"][..], &["--rootless", "auto"], &[]] {
        let output = sealed(flag, &run);
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(
            !output.status.success() && complaint.contains("/sys/fs/cgroup"),
            "{complaint}"
        );
    }
    // What asks for a group must have it.
    bundle.linux().resources = Some(Resources {
        memory: Some(Memory {
            limit: Some(64 << 20),
            ..Memory::default()
        }),
        ..Resources::default()
    });
    bundle.write_config();
    let output = sealed(&["--rootless=true"], &run);
    assert!(!output.status.success());
    // Commands that are about the group say that there is none; the others work.
    bundle.linux().resources = None;
    bundle.shell("sleep 100");
    bundle.write_config();
    let detached = ["run", "--detach", "--bundle", &path, &id];
    let done = command(&["--rootless=true"], &detached)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert!(done.success());
    assert_eq!(cli.ok(&["exec", &id, "echo", "inside"]), "inside\n");
    let complaint = cli.fails(&["pause", &id]);
    assert!(complaint.contains("has no control group"), "{complaint}");
    cli.ok(&["delete", "--force", &id]);
    nothing_is_left(&cli, &id);
}

#[test]
fn limits_change_while_a_container_runs() {
    let Some((cli, mut bundle, id)) = prepared("update") else {
        return;
    };
    bundle.shell("sleep 100");
    bundle.write_config();
    cli.run_detached(bundle.path(), &id);
    let cgroup = cgroup::Cgroup::open("/", &id).unwrap();
    cli.ok(&["update", "--pids-limit", "77", "--memory", "67108864", &id]);
    assert_eq!(cgroup.stats().unwrap().pids.limit, Some(77));
    let file = bundle.path().join("limits");
    fs::write(&file, r#"{"pids":{"limit":78}}"#).unwrap();
    cli.ok(&["update", "--resources", file.to_str().unwrap(), &id]);
    let stats = cgroup.stats().unwrap();
    assert_eq!(
        (stats.pids.limit, stats.memory.limit),
        (Some(78), Some(67_108_864))
    );
    fs::write(&file, r#"{"memory":{"limit":"much"}}"#).unwrap();
    let complaint = cli.fails(&["update", "--resources", file.to_str().unwrap(), &id]);
    assert!(complaint.contains("memory.limit: invalid type"), "{complaint}");
    // What the kernel says is told, too.
    let complaint = cli.fails(&["update", "--cpuset-cpus", "4000", &id]);
    assert!(complaint.contains("cpuset.cpus: "), "{complaint}");
    let complaint = cli.fails(&["update", &id]);
    assert!(complaint.contains("at least one limit"), "{complaint}");
    cli.ok(&["delete", "--force", &id]);
    let complaint = cli.fails(&["update", "--pids-limit", "5", &id]);
    assert!(complaint.contains("does not exist"), "{complaint}");
    nothing_is_left(&cli, &id);
}

#[test]
fn events_tell_what_is_used_and_of_a_kill_for_want_of_memory() {
    let Some((cli, mut bundle, id)) = prepared("events") else {
        return;
    };
    bundle.linux().resources = Some(Resources {
        memory: Some(Memory {
            limit: Some(16 << 20),
            ..Memory::default()
        }),
        ..Resources::default()
    });
    // Waits for the word, then takes more than it may.
    bundle.shell("while ! test -e /go; do sleep 0.05; done; x=$(head -c 100000000 /dev/zero | tr '\\0' x)");
    bundle.write_config();
    cli.run_detached(bundle.path(), &id);
    let once: Value = serde_json::from_str(&cli.ok(&["events", "--stats", &id])).unwrap();
    assert_eq!((&once["type"], &once["id"]), (&json!("stats"), &json!(id)));
    assert!(
        once["data"]["memory"]["usage"]["usage"].as_u64().unwrap() > 0,
        "{once}"
    );
    assert_eq!(once["data"]["memory"]["usage"]["limit"], json!(16 << 20));
    let mut watching = Command::new(&cli.program)
        .arg("--root")
        .arg(cli.state.path())
        .args(["events", "--interval", "100ms", &id])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(watching.stdout.take().unwrap()).lines();
    let mut next = || {
        lines
            .next()
            .map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap())
    };
    assert_eq!(next().unwrap()["type"], json!("stats"));
    fs::write(bundle.root().join("go"), "").unwrap();
    let rest: Vec<Value> = std::iter::from_fn(&mut next).collect();
    assert!(rest.iter().any(|line| line["type"] == json!("oom")), "{rest:?}");
    assert!(watching.wait().unwrap().success(), "it ends with the container");
    cli.ok(&["delete", &id]);
    nothing_is_left(&cli, &id);
}

#[test]
fn descriptors_are_handed_on_and_no_others() {
    let Some((cli, mut bundle, id)) = prepared("fds") else {
        return;
    };
    bundle.shell("cat <&3; ls /proc/self/fd; echo fds=$LISTEN_FDS pid=$LISTEN_PID");
    bundle.write_config();
    let file = bundle.path().join("given");
    fs::write(&file, "from outside\n").unwrap();
    let call = |environment: &str, flags: &str| {
        let script = format!(
            "exec 3<{} 4</etc/passwd; {environment} exec {} --root {} run {flags} --bundle {} {id}",
            file.display(),
            cli.program.display(),
            cli.state.path().display(),
            bundle.path().display(),
        );
        let output = Command::new("sh").args(["-c", &script]).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        (text, String::from_utf8_lossy(&output.stderr).into_owned())
    };
    // The last number is the directory that ls reads.
    let (text, complaint) = call("", "--preserve-fds 1");
    assert_eq!(text, "from outside\n0\n1\n2\n3\n4\nfds= pid=\n", "{complaint}");
    let (text, complaint) = call("export LISTEN_FDS=1;", "");
    assert_eq!(text, "from outside\n0\n1\n2\n3\n4\nfds=1 pid=1\n", "{complaint}");
    let (text, complaint) = call("", "--preserve-fds 3");
    assert!(
        complaint.contains("descriptor 5 is not open"),
        "{text}{complaint}"
    );
    let (text, _) = call("", "");
    assert_eq!(text, "0\n1\n2\n3\nfds= pid=\n");
    nothing_is_left(&cli, &id);
}

#[test]
fn a_handle_of_the_process_is_handed_over() {
    let Some((cli, mut bundle, id)) = prepared("pidfd") else {
        return;
    };
    bundle.shell("sleep 100");
    bundle.write_config();
    let path = bundle.path().join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    let status = Command::new(&cli.program)
        .arg("--root")
        .arg(cli.state.path())
        .args(["run", "--detach", "--pidfd-socket"])
        .arg(&path)
        .arg("--bundle")
        .args([bundle.path(), Path::new(&id)])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
    let (stream, _) = listener.accept().unwrap();
    let (_, mut fds) = sys::fd::recv_fds(&stream, &mut [0; 64]).unwrap();
    let state: Value = serde_json::from_str(&cli.ok(&["state", &id])).unwrap();
    let number = sys::process::number(fds.pop().unwrap().as_fd()).unwrap();
    assert_eq!(json!(number), state["pid"]);
    let shown = cli.ok(&["ps", &id, "-e", "-o", "pid,args"]);
    assert_eq!(shown.lines().count(), 2, "{shown}");
    assert!(
        shown.contains(&number.to_string()) && shown.contains("sleep 100"),
        "{shown}"
    );
    cli.ok(&["delete", "--force", &id]);
}

/// Everything but the calls named is allowed; those are asked about at the socket.
fn asking(names: &[&str], listener: &Path) -> Seccomp {
    Seccomp {
        default_action: "SCMP_ACT_ALLOW".to_owned(),
        listener_path: Some(listener.display().to_string()),
        listener_metadata: Some("of the test".to_owned()),
        syscalls: vec![SeccompSyscall {
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            action: "SCMP_ACT_NOTIFY".to_owned(),
            ..SeccompSyscall::default()
        }],
        ..Seccomp::default()
    }
}

/// The listener's descriptor and the document that came with it, for the next filter that is loaded.
fn asked(listener: &UnixListener) -> (OwnedFd, Value) {
    let (stream, _) = listener.accept().unwrap();
    let mut buffer = [0; 4096];
    let (count, mut fds) = sys::fd::recv_fds(&stream, &mut buffer).unwrap();
    (
        fds.pop().unwrap(),
        serde_json::from_slice(&buffer[..count]).unwrap(),
    )
}

#[test]
fn whoever_listens_is_asked_about_system_calls() {
    let Some((cli, mut bundle, id)) = prepared("notify") else {
        return;
    };
    let path = bundle.path().join("agent");
    let listener = UnixListener::bind(&path).unwrap();
    bundle.shell("mkdir /tmp/made 2>/tmp/complaint; echo told >/tmp/end; sleep 100");
    bundle.linux().seccomp = Some(asking(&["mkdir", "mkdirat"], &path));
    bundle.write_config();
    cli.run_detached(bundle.path(), &id);
    let (notices, document) = asked(&listener);
    let state: Value = serde_json::from_str(&cli.ok(&["state", &id])).unwrap();
    assert_eq!(document["fds"], json!(["seccompFd"]));
    assert_eq!(document["metadata"], json!("of the test"));
    assert_eq!(
        (&document["pid"], &document["state"]["id"]),
        (&state["pid"], &json!(id))
    );
    // The call waits for the answer.
    let mut fds = [PollFd::new(&notices, PollFlags::IN)];
    assert_eq!(poll(&mut fds, None).unwrap(), 1);
    assert!(!bundle.root().join("tmp/end").exists());
    // Nobody is left who could answer: the kernel says so to the caller.
    drop(notices);
    while !bundle.root().join("tmp/end").exists() {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let complaint = fs::read_to_string(bundle.root().join("tmp/complaint")).unwrap();
    assert!(complaint.contains("not implemented"), "{complaint}");
    assert!(!bundle.root().join("tmp/made").exists());
    // A further process has a filter, and a listener, of its own.
    let exec = std::thread::scope(|scope| {
        let exec = scope.spawn(|| cli.command(&["exec", &id, "mkdir", "/tmp/made"]));
        let (notices, document) = asked(&listener);
        assert_ne!(document["pid"], document["state"]["pid"]);
        assert_eq!(document["state"]["status"], json!("running"));
        drop(notices);
        exec.join().unwrap()
    });
    assert!(String::from_utf8_lossy(&exec.stderr).contains("not implemented"));
    cli.ok(&["delete", "--force", &id]);
    nothing_is_left(&cli, &id);
}

#[test]
fn where_nobody_listens_nothing_is_started() {
    let Some((cli, mut bundle, id)) = prepared("nobody") else {
        return;
    };
    bundle.shell("echo ran");
    bundle.linux().seccomp = Some(asking(&["mkdir"], &bundle.path().join("nobody")));
    bundle.write_config();
    let complaint = cli.fails(&["run", "--bundle", bundle.path().to_str().unwrap(), &id]);
    assert!(complaint.contains("linux.seccomp.listenerPath"), "{complaint}");
    assert!(complaint.contains("no such file or directory"), "{complaint}");
    nothing_is_left(&cli, &id);
}

#[test]
fn scheduling_is_as_the_configuration_says() {
    let Some((cli, mut bundle, id)) = prepared("scheduler") else {
        return;
    };
    bundle.process().scheduler = Some(Scheduler {
        policy: "SCHED_BATCH".to_owned(),
        nice: 5,
        ..Scheduler::default()
    });
    // Fields 19 and 41 of stat(5).
    bundle.shell("set -- $(cat /proc/self/stat); echo ${19} ${41}");
    assert_eq!(run(&cli, &bundle, &id), "5 3\n");
    if Path::new("/proc/self/numa_maps").exists() {
        bundle.process().scheduler = None;
        bundle.linux().memory_policy = Some(MemoryPolicy {
            mode: "MPOL_BIND".to_owned(),
            nodes: "0".to_owned(),
            ..MemoryPolicy::default()
        });
        bundle.shell("grep -c bind:0 /proc/self/numa_maps");
        assert_ne!(run(&cli, &bundle, &id), "0\n");
    }
    nothing_is_left(&cli, &id);
}

#[test]
fn an_additional_process_runs_where_it_is_told() {
    let Some((cli, mut bundle, id)) = prepared("affinity") else {
        return;
    };
    bundle.shell("sleep 100");
    bundle.write_config();
    cli.run_detached(bundle.path(), &id);
    let mut process = bundle.spec.process.clone().unwrap();
    process.args = ["grep", "Cpus_allowed_list", "/proc/self/status"]
        .map(str::to_owned)
        .to_vec();
    let file = bundle.path().join("process");
    let mut with = |initial: &str, last: &str| {
        process.exec_cpu_affinity = Some(CpuAffinity {
            initial: initial.to_owned(),
            r#final: last.to_owned(),
        });
        fs::write(&file, serde_json::to_vec(&process).unwrap()).unwrap();
        ["exec", "--process", file.to_str().unwrap(), &id].map(str::to_owned)
    };
    let call = |args: [String; 4], runs: bool| {
        let args = args.each_ref().map(String::as_str);
        if runs { cli.ok(&args) } else { cli.fails(&args) }
    };
    assert_eq!(call(with("", "0"), true), "Cpus_allowed_list:\t0\n");
    assert_eq!(call(with("0-1", "0"), true), "Cpus_allowed_list:\t0\n");
    // The first is tried, too, and ahead of the last.
    let complaint = call(with("1023", "1022"), false);
    assert!(
        complaint.contains("process.execCPUAffinity [1023]"),
        "{complaint}"
    );
    let group = cgroup::Hierarchy::host().unwrap();
    if group.version() == cgroup::Version::V2 {
        // It lasts where entering the group changes nothing.
        assert_eq!(call(with("0", ""), true), "Cpus_allowed_list:\t0\n");
    } else {
        println!("skipped in part: entering a cpuset of version 1 undoes it");
    }
    cli.ok(&["pause", &id]);
    let complaint = cli.fails(&["exec", &id, "true"]);
    assert!(complaint.contains("paused"), "{complaint}");
    cli.ok(&["delete", "--force", &id]);
    nothing_is_left(&cli, &id);
}

#[test]
fn devices_are_out_of_reach_unless_allowed() {
    let Some((cli, mut bundle, id)) = prepared("devices") else {
        return;
    };
    let caps = bundle.process().capabilities.clone().unwrap();
    assert!(caps.effective.contains(&"CAP_MKNOD".to_owned()));
    // A loop device, which is there on every kernel that has block devices at all.
    bundle.shell("echo kept >/dev/null; mknod /tmp/disk b 7 0 && cat /tmp/disk 2>&1 | head -c 100");
    let text = run(&cli, &bundle, &id);
    assert!(text.contains("Operation not permitted"), "{text}");
    bundle.linux().resources = Some(Resources {
        devices: vec![DeviceCgroup {
            allow: true,
            r#type: Some("b".to_owned()),
            major: Some(7),
            minor: None,
            access: "r".to_owned(),
        }],
        ..Resources::default()
    });
    bundle.shell("cat /tmp/disk 2>&1 | head -c 100");
    let text = run(&cli, &bundle, &id);
    assert!(!text.contains("Operation not permitted"), "{text}");
    nothing_is_left(&cli, &id);
}

#[test]
fn the_root_changes_without_pivot_root() {
    let Some((cli, mut bundle, id)) = prepared("chroot") else {
        return;
    };
    bundle.shell("ls / | sort | head -n 3; echo $$");
    bundle.write_config();
    let flags = [
        "run",
        "--no-pivot",
        "--bundle",
        bundle.path().to_str().unwrap(),
        &id,
    ];
    assert_eq!(cli.ok(&flags), "bin\ndev\netc\n1\n");
    nothing_is_left(&cli, &id);
}
