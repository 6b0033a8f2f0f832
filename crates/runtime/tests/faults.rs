//! Every kernel operation on the way to a container fails once: whatever it is, nothing is left behind.
//!
//! strace(1) counts the operations of a run that succeeds, then makes the n-th of each kind fail, for every n. Calls by
//! which things are taken away again are left alone: nothing can be undone by a kernel that refuses to.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use support::cli::{Cli, id};
use support::{Bundle, possible};

struct Traced {
    cli: Cli,
    bundle: Bundle,
    id: String,
}

impl Traced {
    fn new(name: &str) -> Option<Traced> {
        if !possible() {
            return None;
        }
        if Command::new("strace").arg("--version").output().is_err() {
            println!("skipped: needs strace");
            return None;
        }
        let cli = Cli::new()?;
        let mut bundle = Bundle::new();
        let id = id(name);
        bundle.shell("echo ran");
        bundle.linux().cgroups_path = Some(format!("/{id}"));
        bundle.linux().seccomp = Some(runtime::default_seccomp(&runtime::template::DEFAULT_CAPABILITIES));
        let host = bundle.path().join("host");
        fs::create_dir(&host).unwrap();
        bundle.spec.mounts.push(spec::runtime::Mount {
            destination: "/made/for/it".into(),
            source: Some(host.display().to_string()),
            options: vec!["rbind".to_owned(), "ro".to_owned()],
            ..Default::default()
        });
        bundle.write_config();
        Some(Traced { cli, bundle, id })
    }

    /// A run with these words for strace.
    fn run(&self, words: &[&str]) -> Output {
        Command::new("strace")
            .args(["-f", "-qq", "-o"])
            .arg(self.trace())
            .args(words)
            .arg(&self.cli.program)
            .arg("--root")
            .arg(self.cli.state.path())
            .args(["run", "--bundle"])
            .args([self.bundle.path(), Path::new(&self.id)])
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    fn trace(&self) -> std::path::PathBuf {
        self.bundle.path().join("trace")
    }

    /// How often each call is made, by the process that makes it most often: strace counts for each by itself.
    fn counts(&self, calls: &[&str]) -> BTreeMap<String, usize> {
        let output = self.run(&["-e", &format!("trace={}", calls.join(","))]);
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let mut by_process: BTreeMap<(String, String), usize> = BTreeMap::new();
        for line in fs::read_to_string(self.trace()).unwrap().lines() {
            let Some((pid, rest)) = line.split_once(' ') else {
                continue;
            };
            let Some((call, _)) = rest.trim_start().split_once('(') else {
                continue;
            };
            *by_process.entry((call.to_owned(), pid.to_owned())).or_default() += 1;
        }
        let mut most = BTreeMap::new();
        for ((call, _), count) in by_process {
            let known = most.entry(call).or_insert(0);
            *known = count.max(*known);
        }
        most
    }

    fn mounts() -> usize {
        fs::read_to_string("/proc/self/mountinfo")
            .unwrap()
            .lines()
            .count()
    }

    /// What a run must never leave.
    fn assert_clean(&self, what: &str) {
        assert_eq!(
            fs::read_dir(self.cli.state.path()).map_or(0, Iterator::count),
            0,
            "{what}: state"
        );
        let cgroup = cgroup::Cgroup::open("/", &self.id);
        assert!(!cgroup.is_ok_and(|cgroup| cgroup.exists()), "{what}: cgroup");
        let own = self.bundle.path().display().to_string();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(&own), "{what}: mount");
    }
}

/// Makes every one of these calls fail.
fn each_fails(name: &str, calls: &[&str]) {
    let Some(traced) = Traced::new(name) else { return };
    let counts = traced.counts(calls);
    for call in calls {
        assert!(counts.contains_key(*call), "{call} is not made any more");
    }
    let mounts = Traced::mounts();
    let mut refused = 0;
    for (call, count) in counts {
        for number in 1..=count {
            let what = format!("{call} number {number}");
            let trace = format!("trace={call}");
            let output = traced.run(&[
                "-e",
                &trace,
                "-e",
                &format!("inject={call}:error=EIO:when={number}"),
            ]);
            traced.assert_clean(&what);
            let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
            if output.status.success() {
                assert_eq!(output.stdout, b"ran\n", "{what}");
                continue;
            }
            refused += 1;
            assert!(!complaint.contains("panicked"), "{what}: {complaint}");
            assert!(output.stdout.is_empty() || output.stdout == b"ran\n", "{what}");
        }
    }
    assert!(refused > calls.len() / 2, "hardly anything failed: {refused}");
    // Others on this machine mount and unmount meanwhile, but not ever more.
    assert!(Traced::mounts() < mounts + 20);
}

/// Setting the limits of a process that has another user by then needs a right (CAP_SYS_RESOURCE) that not every host
/// gives; a slow caller must not come too late.
#[test]
fn limits_are_set_before_the_process_becomes_its_user() {
    let Some(mut traced) = Traced::new("fault-slow") else {
        return;
    };
    let process = traced.bundle.process();
    (process.user.uid, process.user.gid) = (1000, 1000);
    process.rlimits = vec![spec::runtime::Rlimit {
        r#type: "RLIMIT_CORE".to_owned(),
        hard: 0,
        soft: 0,
    }];
    traced.bundle.shell("id -u; ulimit -c");
    traced.bundle.write_config();
    let output = traced.run(&["-e", "inject=prlimit64:delay_enter=300000"]);
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "1000\n0\n",
        "{complaint}"
    );
    traced.assert_clean("a slow caller");
}

#[test]
fn mounts_fail() {
    each_fails(
        "fault-mounts",
        &[
            "open_tree",
            "move_mount",
            "mount_setattr",
            "fsopen",
            "fsmount",
            "mount",
            "pivot_root",
            "umount2",
        ],
    );
}

#[test]
fn the_settings_of_mounts_fail() {
    each_fails("fault-settings", &["fsconfig"]);
}

#[test]
fn files_and_nodes_fail() {
    each_fails(
        "fault-files",
        &["openat2", "mknodat", "symlinkat", "mkdirat", "mkdir"],
    );
}

#[test]
fn processes_and_conversation_fail() {
    each_fails(
        "fault-processes",
        &[
            "clone3",
            "socketpair",
            "sendmsg",
            "recvmsg",
            "close_range",
            "unshare",
            "execve",
            "fchdir",
            "chdir",
        ],
    );
}

#[test]
fn rights_fail() {
    each_fails(
        "fault-rights",
        &[
            "setgroups",
            "setresgid",
            "setresuid",
            "capset",
            "prctl",
            "seccomp",
            "keyctl",
            "sethostname",
            "setdomainname",
        ],
    );
}
