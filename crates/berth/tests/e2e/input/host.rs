//! Hosts that lack what containers need: the daemon says what, and does nothing else.

use std::os::unix::process::CommandExt as _;
use std::process::{Command, Output, Stdio};

use sys::seccomp::{Instruction, load};
use syscalls::Sysno;

use crate::support::{BERTH, retry, text};

/// What the stage takes away: a call's number, what its third argument must be (or nothing), and the error instead.
const HIDDEN: &str = "BERTH_HIDDEN_CALL";

/// The arguments of a daemon on a directory of its own.
fn daemon(dir: &tempfile::TempDir) -> Vec<String> {
    let path = |name: &str| dir.path().join(name).display().to_string();
    vec![
        BERTH.to_owned(),
        "daemon".to_owned(),
        "--data-root".to_owned(),
        path("root"),
        "--exec-root".to_owned(),
        path("run"),
        "--host".to_owned(),
        format!("unix://{}", path("run/berth.sock")),
    ]
}

/// A daemon that must refuse to start, and leave nothing, when `lacking` starts it.
fn refused(lacking: impl FnOnce(&[String]) -> Output) -> String {
    let dir = tempfile::Builder::new().prefix("berth-e2e-").tempdir().unwrap();
    let output = lacking(&daemon(&dir));
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        !dir.path().join("root").exists(),
        "a refused daemon made its root"
    );
    let last = said.lines().last().unwrap_or_default().to_owned();
    assert!(last.starts_with("berth daemon: "), "{said}");
    last
}

/// In a mount namespace that `prepare` (a shell script) has changed.
fn without(prepare: &str) -> String {
    refused(|words| {
        let script = format!("{prepare} && exec \"$@\"");
        Command::new("unshare")
            .args(["-m", "sh", "-c", &script, "sh"])
            .args(words)
            .stdin(Stdio::null())
            .output()
            .unwrap()
    })
}

/// Under a filter that hides a call.
fn hiding(call: Sysno, third: Option<u32>, error: i32, words: &[String]) -> Command {
    let third = third.map(|value| value.to_string()).unwrap_or_default();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "input::host::stage", "--nocapture"])
        .env(HIDDEN, format!("{} {error} {third}", call.id()))
        .env("BERTH_HIDDEN_WORDS", words.join("\n"))
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    command
}

/// Run in a process of its own, which puts itself under the filter and becomes the daemon; does nothing when the suite
/// runs it.
#[test]
fn stage() {
    const LOAD: u16 = 0x20;
    const EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    const THIRD_ARGUMENT: u32 = 32;
    const ALLOW: u32 = 0x7fff_0000;
    const ERROR: u32 = 0x0005_0000;
    let (Ok(hidden), Ok(words)) = (std::env::var(HIDDEN), std::env::var("BERTH_HIDDEN_WORDS")) else {
        return;
    };
    let numbers: Vec<u32> = hidden.split_whitespace().map(|n| n.parse().unwrap()).collect();
    let step = |code, jump_true, jump_false, value| Instruction {
        code,
        jump_true,
        jump_false,
        value,
    };
    let refuse = step(RETURN, 0, 0, ERROR | numbers[1]);
    let mut program = vec![step(LOAD, 0, 0, 0)];
    match numbers.get(2) {
        Some(third) => program.extend([
            step(EQUAL, 0, 3, numbers[0]),
            step(LOAD, 0, 0, THIRD_ARGUMENT),
            step(EQUAL, 0, 1, *third),
            refuse,
        ]),
        None => program.extend([step(EQUAL, 0, 1, numbers[0]), refuse]),
    }
    program.push(step(RETURN, 0, 0, ALLOW));
    load(&program, 0).unwrap();
    let mut words = words.split('\n');
    let failed = Command::new(words.next().unwrap())
        .args(words)
        .env_remove(HIDDEN)
        .exec();
    panic!("{failed}");
}

const ENOSYS: i32 = 38;
const EPROTONOSUPPORT: i32 = 93;
const NETFILTER: u32 = 12;

#[test]
fn a_kernel_without_a_needed_feature_is_named() {
    guard!();
    for (prepare, words) in [
        (
            "umount -R /sys/fs/cgroup",
            &["no control groups", "/sys/fs/cgroup", "CONFIG_CGROUPS"][..],
        ),
        ("umount -l /proc", &["/proc is not there", "mount -t proc"]),
        (
            // The namespaces are looked for by their names there.
            "mount -t tmpfs none /proc/$$/ns",
            &["no pid namespaces", "CONFIG_NAMESPACES"],
        ),
    ] {
        let said = without(prepare);
        assert!(words.iter().all(|word| said.contains(word)), "{prepare}: {said}");
    }
}

#[test]
fn a_system_call_that_is_not_there_is_named() {
    guard!();
    for call in [
        Sysno::clone3,
        Sysno::fsopen,
        Sysno::open_tree,
        Sysno::move_mount,
        Sysno::mount_setattr,
        Sysno::pidfd_open,
        Sysno::openat2,
        Sysno::close_range,
    ] {
        let said = refused(|words| hiding(call, None, ENOSYS, words).output().unwrap());
        assert!(
            said.contains(&format!("the kernel has no {}, which Linux ", call.name()))
                && said.contains("filter"),
            "{said}"
        );
    }
}

#[test]
fn a_kernel_without_a_packet_filter_is_named() {
    guard!();
    let said = refused(|words| {
        let mut daemon = hiding(Sysno::socket, Some(NETFILTER), EPROTONOSUPPORT, words);
        daemon.output().unwrap()
    });
    assert!(
        said.contains("no nftables")
            && said.contains("CONFIG_NF_TABLES")
            && said.contains("Protocol not supported"),
        "{said}"
    );
}

/// Who wants no rules needs nobody to keep them.
#[test]
fn without_rules_a_packet_filter_is_not_missed() {
    guard!();
    let dir = tempfile::Builder::new().prefix("berth-e2e-").tempdir().unwrap();
    let words = [daemon(&dir), vec!["--iptables=false".to_owned()]].concat();
    let mut running = hiding(Sysno::socket, Some(NETFILTER), EPROTONOSUPPORT, &words)
        .spawn()
        .unwrap();
    let host = format!("unix://{}", dir.path().join("run/berth.sock").display());
    let serves = || {
        let client = Command::new(BERTH)
            .args(["-H", &host, "version"])
            .output()
            .unwrap();
        client.status.success().then_some(())
    };
    let served = retry(serves);
    let _ = Command::new("kill").arg(running.id().to_string()).status();
    assert!(running.wait().unwrap().success());
    assert!(served.is_some());
}

#[test]
fn a_daemon_without_a_needed_capability_names_it() {
    guard!();
    for (dropped, name) in [("-sys_admin", "CAP_SYS_ADMIN"), ("-net_admin", "CAP_NET_ADMIN")] {
        let said = refused(|words| {
            Command::new("setpriv")
                .arg(format!("--bounding-set={dropped}"))
                .args(words)
                .stdin(Stdio::null())
                .output()
                .unwrap()
        });
        assert!(
            said.contains(&format!("no {name}")) && said.contains("--privileged"),
            "{said}"
        );
    }
}
