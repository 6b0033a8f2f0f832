//! Fields of the configuration by what a process inside finds of them: sets of capabilities, namespaces that are joined, names,
//! scheduling, and what the filter's actions do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::io::{BufRead, BufReader};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use spec::runtime::{Capabilities, Namespace, NamespaceType, Scheduler, Seccomp, SeccompSyscall};
use support::{Bundle, possible};
use sys::namespace::{self, Kind};
use sys::process::Exit;

/// A user without rights keeps what is ambient over the program's beginning.
#[test]
fn all_five_sets_of_capabilities_are_the_configured_ones() {
    if !possible() {
        return;
    }
    let mut bundle = Bundle::new();
    let own = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let process = bundle.process();
    (process.user.uid, process.user.gid) = (1000, 1000);
    process.capabilities = Some(Capabilities {
        bounding: own(&["CAP_NET_BIND_SERVICE", "CAP_KILL", "CAP_CHOWN"]),
        permitted: own(&["CAP_NET_BIND_SERVICE", "CAP_KILL"]),
        effective: own(&["CAP_NET_BIND_SERVICE", "CAP_KILL"]),
        inheritable: own(&["CAP_NET_BIND_SERVICE", "CAP_KILL"]),
        ambient: own(&["CAP_NET_BIND_SERVICE"]),
    });
    let (bind, kill, chown) = (1u64 << 10, 1u64 << 5, 1u64);
    let sets = |text: &str| -> Vec<u64> {
        ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"]
            .iter()
            .map(|name| {
                let line = text.lines().find(|line| line.starts_with(name)).unwrap();
                u64::from_str_radix(line.split_whitespace().nth(1).unwrap(), 16).unwrap()
            })
            .collect()
    };
    let text = bundle.shell_output("cat /proc/self/status");
    let expected = [bind | kill, bind, bind, bind | kill | chown, bind];
    assert_eq!(sets(&text), expected);
    // What the filter needs no right for, it takes none away from.
    bundle.linux().seccomp = Some(runtime::default_seccomp(&runtime::template::DEFAULT_CAPABILITIES));
    for no_new_privileges in [false, true] {
        bundle.process().no_new_privileges = no_new_privileges;
        let text = bundle.shell_output("cat /proc/self/status");
        assert_eq!(sets(&text), expected, "{no_new_privileges}");
    }
    // A right that is not inheritable cannot be ambient.
    let sets_of_it = bundle.process().capabilities.get_or_insert_default();
    sets_of_it.inheritable.clear();
    let text = bundle.shell_output("cat /proc/self/status");
    assert_eq!(sets(&text)[4], 0);
}

fn join(bundle: &mut Bundle, kind: NamespaceType, path: PathBuf) {
    let namespaces = &mut bundle.linux().namespaces;
    namespaces.retain(|namespace| namespace.r#type != kind);
    namespaces.push(Namespace {
        r#type: kind,
        path: Some(path),
    });
}

#[test]
fn names_and_groups_of_somebody_else_are_joined_by_their_paths() {
    if !possible() {
        return;
    }
    for (kind, of_kernel) in [
        (NamespaceType::Uts, Kind::Uts),
        (NamespaceType::Cgroup, Kind::Cgroup),
        (NamespaceType::Ipc, Kind::Ipc),
        (NamespaceType::Network, Kind::Network),
    ] {
        let made = namespace::create(of_kernel).unwrap();
        let path = format!("/proc/self/fd/{}", made.as_raw_fd());
        let number = std::fs::metadata(&path).unwrap().ino();
        let mut bundle = Bundle::new();
        if kind == NamespaceType::Uts {
            // Its name stays its own unless the configuration says so.
            bundle.spec.hostname.clear();
        }
        join(&mut bundle, kind, PathBuf::from(path));
        let name = kind.proc_name();
        let text = bundle.shell_output(&format!("readlink /proc/self/ns/{name}"));
        assert_eq!(text, format!("{name}:[{number}]\n"));
    }
    // Of the wrong kind.
    let made = namespace::create(Kind::Uts).unwrap();
    let mut bundle = Bundle::new();
    let path = PathBuf::from(format!("/proc/self/fd/{}", made.as_raw_fd()));
    join(&mut bundle, NamespaceType::Ipc, path);
    let error = bundle.shell("true").run().unwrap_err().to_string();
    assert!(error.contains("ipc namespace"), "{error}");
}

/// Whoever makes a time namespace is not in it, but what it starts is.
struct Shifted {
    unshare: Child,
    path: PathBuf,
}

impl Shifted {
    fn new() -> Option<Shifted> {
        let mut unshare = Command::new("unshare")
            .args(["--time", "--boottime", "86400", "--fork", "--kill-child"])
            .args(["sh", "-c", "echo $$; exec sleep 1000"])
            .stdout(Stdio::piped())
            .spawn()
            .ok()?;
        let mut number = String::new();
        BufReader::new(unshare.stdout.take()?)
            .read_line(&mut number)
            .ok()?;
        let path = PathBuf::from(format!("/proc/{}/ns/time", number.trim()));
        Some(Shifted { unshare, path })
    }
}

impl Drop for Shifted {
    fn drop(&mut self) {
        let _ = self.unshare.kill();
        let _ = self.unshare.wait();
    }
}

#[test]
fn clocks_of_somebody_else_are_joined_by_their_path() {
    if !possible() {
        return;
    }
    let Some(shifted) = Shifted::new() else {
        println!("skipped: needs unshare (package util-linux)");
        return;
    };
    let path = shifted.path.clone();
    let theirs = std::fs::read_link(&path).unwrap();
    let mut bundle = Bundle::new();
    join(&mut bundle, NamespaceType::Time, path);
    let text = bundle.shell_output("readlink /proc/self/ns/time; cat /proc/uptime");
    let (name, rest) = text.split_once('\n').unwrap();
    assert_eq!(Path::new(name), theirs);
    let uptime = |text: &str| text.split('.').next().unwrap().parse::<u64>().unwrap();
    let host = uptime(&std::fs::read_to_string("/proc/uptime").unwrap());
    assert!(uptime(rest) + 60 > host + 86_400, "{text}");
}

#[test]
fn the_domain_and_the_mask_of_new_files_are_the_configured_ones() {
    if !possible() {
        return;
    }
    let mut bundle = Bundle::new();
    bundle.spec.domainname = "example.test".to_owned();
    let script = "cat /proc/sys/kernel/domainname; umask; touch /tmp/made; stat -c %a /tmp/made";
    assert_eq!(bundle.shell_output(script), "example.test\n0022\n644\n");
    std::fs::remove_file(bundle.root().join("tmp/made")).unwrap();
    bundle.process().user.umask = Some(0o077);
    bundle.spec.domainname.clear();
    assert_eq!(bundle.shell_output(script), "(none)\n0077\n600\n");
}

/// Whether this machine lets a process have such a policy.
fn realtime_is_allowed() -> bool {
    let tried = Command::new("chrt").args(["--fifo", "1", "true"]).output();
    let allowed = tried.is_ok_and(|output| output.status.success());
    if !allowed {
        println!("skipped in part: real-time policies are not allowed here");
    }
    allowed
}

#[test]
fn each_policy_of_scheduling_is_the_kernels() {
    if !possible() {
        return;
    }
    let mut cases = vec![
        ("SCHED_OTHER", 7, 0, &[][..], "7 0 0", "7 0 0"),
        ("SCHED_BATCH", -3, 0, &[], "-3 0 3", "-3 0 3"),
        ("SCHED_IDLE", 0, 0, &[], "0 0 5", "0 0 5"),
        // The flag takes from children what only some may give themselves.
        (
            "SCHED_BATCH",
            -4,
            0,
            &["SCHED_FLAG_RESET_ON_FORK"],
            "-4 0 3",
            "0 0 3",
        ),
    ];
    if realtime_is_allowed() {
        cases.push(("SCHED_FIFO", 0, 7, &[], "0 7 1", "0 7 1"));
        cases.push(("SCHED_RR", 0, 99, &[], "0 99 2", "0 99 2"));
        cases.push((
            "SCHED_FIFO",
            0,
            5,
            &["SCHED_FLAG_RESET_ON_FORK"],
            "0 5 1",
            "0 0 0",
        ));
    }
    for (policy, nice, priority, flags, own, childs) in cases {
        let mut bundle = Bundle::new();
        bundle.process().scheduler = Some(Scheduler {
            policy: policy.to_owned(),
            nice,
            priority,
            flags: flags.iter().map(|flag: &&str| (*flag).to_owned()).collect(),
            ..Scheduler::default()
        });
        // Fields 19, 40 and 41 of stat(5): of the shell itself, and of one that it starts.
        let script = "read line </proc/self/stat; set -- $line; echo ${19} ${40} ${41}; \
                      set -- $(cat /proc/self/stat); echo ${19} ${40} ${41}";
        let text = bundle.shell_output(script);
        assert_eq!(text, format!("{own}\n{childs}\n"), "{policy} {flags:?}");
    }
}

/// Everything but making directories is allowed; that has this action.
fn filtered(action: &str, errno_ret: Option<u32>) -> Seccomp {
    Seccomp {
        default_action: "SCMP_ACT_ALLOW".to_owned(),
        syscalls: vec![SeccompSyscall {
            names: vec!["mkdir".to_owned(), "mkdirat".to_owned()],
            action: action.to_owned(),
            errno_ret,
            ..SeccompSyscall::default()
        }],
        ..Seccomp::default()
    }
}

#[test]
fn each_action_of_a_filter_does_what_its_name_says() {
    if !possible() {
        return;
    }
    const SIGSYS: i32 = 31;
    for (action, errno, code, made) in [
        ("SCMP_ACT_ALLOW", None, 0, true),
        ("SCMP_ACT_LOG", None, 0, true),
        ("SCMP_ACT_ERRNO", None, 1, false),
        ("SCMP_ACT_ERRNO", Some(5), 1, false),
        // Nobody traces, so there is no such call.
        ("SCMP_ACT_TRACE", None, 1, false),
        ("SCMP_ACT_TRACE", Some(7), 1, false),
        ("SCMP_ACT_TRAP", None, 128 + SIGSYS, false),
        ("SCMP_ACT_KILL", None, 128 + SIGSYS, false),
        ("SCMP_ACT_KILL_THREAD", None, 128 + SIGSYS, false),
        ("SCMP_ACT_KILL_PROCESS", None, 128 + SIGSYS, false),
    ] {
        let mut bundle = Bundle::new();
        bundle.linux().seccomp = Some(filtered(action, errno));
        // In a process of its own, for some of them end it.
        let script = "{ (exec mkdir /tmp/made); echo code $?; } 2>/tmp/complaint; test -d /tmp/made && echo made; \
                      cat /tmp/complaint";
        let (text, exit) = bundle.shell(script).run().unwrap();
        assert_eq!(exit, Exit::Code(0), "{action}: {text}");
        assert!(text.starts_with(&format!("code {code}\n")), "{action}: {text}");
        assert_eq!(text.contains("\nmade\n"), made, "{action}: {text}");
        let told = match (action, errno) {
            ("SCMP_ACT_ERRNO", None) => "Operation not permitted",
            ("SCMP_ACT_ERRNO", Some(_)) => "Input/output error",
            ("SCMP_ACT_TRACE", _) => "Function not implemented",
            _ => "",
        };
        assert!(text.contains(told), "{action}: {text}");
    }
    // The same for what nothing is said of, where the rest is named.
    let mut bundle = Bundle::new();
    let mut document = filtered("SCMP_ACT_ALLOW", None);
    document.default_action = "SCMP_ACT_LOG".to_owned();
    bundle.linux().seccomp = Some(document);
    assert_eq!(bundle.shell_output("mkdir /tmp/made && echo made"), "made\n");
}
