//! Every kernel operation on the way to a container fails once: whatever it is, nothing is left behind.
//!
//! strace(1) counts the operations of a run that succeeds, then makes the n-th of each kind fail, for every n. Calls by
//! which things are taken away again are left alone: nothing can be undone by a kernel that refuses to.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use spec::runtime::{
    Device, Hook, Hooks, IdMapping, IoPriority, Namespace, NamespaceType, Rlimit, Scheduler,
};
use support::cli::{Cli, id};
use support::{Bundle, possible};

struct Traced {
    cli: Cli,
    bundle: Bundle,
    id: String,
    /// A process whose network namespace is joined.
    holder: Option<Child>,
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
        Some(Traced {
            cli,
            bundle,
            id,
            holder: None,
        })
    }

    /// One that has what the other has not: a user namespace, a terminal, hooks, a namespace of somebody else, limits, a device
    /// of its own, a policy of scheduling.
    fn rich(name: &str) -> Option<Traced> {
        let mut traced = Traced::new(name)?;
        let holder = Command::new("unshare")
            .args(["--net", "sleep", "1000"])
            .spawn()
            .unwrap();
        let path = PathBuf::from(format!("/proc/{}/ns/net", holder.id()));
        let own = fs::read_link("/proc/self/ns/net").unwrap();
        while fs::read_link(&path).is_ok_and(|theirs| theirs == own) {
            std::thread::sleep(Duration::from_millis(5));
        }
        traced.holder = Some(holder);
        let map = vec![IdMapping {
            container_id: 0,
            host_id: 200_000,
            size: 2000,
        }];
        let bundle = &mut traced.bundle;
        // Root inside is nobody to whom the image belongs, so it makes nothing there.
        fs::create_dir_all(bundle.root().join("made/for/it")).unwrap();
        let linux = bundle.linux();
        (linux.uid_mappings, linux.gid_mappings) = (map.clone(), map);
        linux
            .namespaces
            .retain(|one| one.r#type != NamespaceType::Network);
        for (kind, path) in [(NamespaceType::User, None), (NamespaceType::Network, Some(path))] {
            linux.namespaces.push(Namespace { r#type: kind, path });
        }
        linux.devices.push(Device {
            path: "/dev/own".into(),
            r#type: "c".to_owned(),
            major: 1,
            minor: 5,
            uid: Some(7),
            ..Device::default()
        });
        let process = bundle.process();
        process.terminal = true;
        process.user.uid = 1000;
        process.rlimits = vec![Rlimit {
            r#type: "RLIMIT_CORE".to_owned(),
            hard: 0,
            soft: 0,
        }];
        process.scheduler = Some(Scheduler {
            policy: "SCHED_BATCH".to_owned(),
            ..Scheduler::default()
        });
        process.io_priority = Some(IoPriority {
            class: "IOPRIO_CLASS_BE".to_owned(),
            priority: 6,
        });
        let hook = || {
            vec![Hook {
                path: "/bin/true".into(),
                ..Hook::default()
            }]
        };
        bundle.spec.hooks = Some(Hooks {
            create_runtime: hook(),
            poststop: hook(),
            ..Hooks::default()
        });
        bundle.write_config();
        Some(traced)
    }

    fn call(&self, verb: Verb, words: &[&str]) -> Output {
        let bundle = self.bundle.path().to_str().unwrap();
        let args = match verb {
            Verb::Run => vec!["run", "--bundle", bundle, &self.id],
            Verb::RunByChroot => vec!["run", "--no-pivot", "--bundle", bundle, &self.id],
            Verb::Create => vec!["create", "--bundle", bundle, &self.id],
            Verb::Start => vec!["start", &self.id],
            Verb::Exec => vec!["exec", &self.id, "echo", "ran"],
        };
        let (trace, said) = (self.trace(), self.bundle.path().join("said"));
        let mut command = Command::new("strace");
        command
            .args(["-f", "-qq", "-o"])
            .arg(trace)
            .args(words)
            .arg(&self.cli.program)
            .arg("--root")
            .arg(self.cli.state.path())
            .args(args)
            .stdin(Stdio::null());
        if verb != Verb::Create {
            return command.output().unwrap();
        }
        // What waits for its start has the streams, and would keep pipes open.
        let stderr = fs::File::create(&said).unwrap();
        let mut traced = command.stdout(Stdio::null()).stderr(stderr).spawn().unwrap();
        // And strace stays with it as long as it lives.
        let record = self.cli.state.path().join(&self.id).join("state.json");
        let status = loop {
            if let Some(status) = traced.try_wait().unwrap() {
                break status;
            }
            if record.exists() {
                let _ = self.cli.command(&["delete", "--force", &self.id]);
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        Output {
            status,
            stdout: Vec::new(),
            stderr: fs::read(&said).unwrap(),
        }
    }

    /// A run with these words for strace.
    fn run(&self, words: &[&str]) -> Output {
        self.call(Verb::Run, words)
    }

    fn trace(&self) -> std::path::PathBuf {
        self.bundle.path().join("trace")
    }

    /// Brings about what the command begins with.
    fn prepare(&self, verb: Verb) {
        let bundle = self.bundle.path().to_str().unwrap();
        match verb {
            Verb::Run | Verb::RunByChroot | Verb::Create => {}
            Verb::Start => self.cli.quietly(&["create", "--bundle", bundle, &self.id]),
            Verb::Exec => {
                if !self.cli.state.path().join(&self.id).exists() {
                    self.cli.run_detached(self.bundle.path(), &self.id);
                }
            }
        }
    }

    /// How often each call is made, by the process that makes it most often: strace counts for each by itself.
    fn counts(&self, verb: Verb, calls: &[&str]) -> BTreeMap<String, usize> {
        self.prepare(verb);
        let output = self.call(verb, &["-e", &format!("trace={}", calls.join(","))]);
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        if verb != Verb::Exec {
            let _ = self.cli.command(&["delete", "--force", &self.id]);
        }
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

    /// Processes of this test's containers: each has come from a command with its root, or is in its group.
    fn processes(&self) -> Vec<String> {
        let root = self.cli.state.path().display().to_string();
        let all = fs::read_dir("/proc").unwrap().flatten();
        let lines = all.filter_map(|entry| fs::read_to_string(entry.path().join("cmdline")).ok());
        let mut found: Vec<String> = lines.filter(|line| line.contains(&root)).collect();
        if let Ok(group) = cgroup::Cgroup::open("/", &self.id) {
            found.extend(group.pids().unwrap_or_default().iter().map(ToString::to_string));
        }
        found.sort();
        found
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
        self.assert_processes(what, &[]);
    }

    /// One that was killed may be on its way out.
    fn assert_processes(&self, what: &str, expected: &[String]) {
        for _ in 0..200 {
            if self.processes() == expected {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(self.processes(), expected, "{what}: processes");
    }
}

impl Drop for Traced {
    fn drop(&mut self) {
        let _ = self.cli.command(&["delete", "--force", &self.id]);
        if let Some(holder) = &mut self.holder {
            let _ = holder.kill();
            let _ = holder.wait();
        }
    }
}

/// What is traced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verb {
    Run,
    RunByChroot,
    Create,
    Start,
    Exec,
}

/// Makes every one of these calls fail.
fn each_fails(name: &str, calls: &[&str]) {
    let Some(traced) = Traced::new(name) else { return };
    each_of(&traced, Verb::Run, calls);
}

fn each_of(traced: &Traced, verb: Verb, calls: &[&str]) {
    let counts = traced.counts(verb, calls);
    for call in calls {
        assert!(
            counts.contains_key(*call),
            "{verb:?}: {call} is not made any more"
        );
    }
    let mounts = Traced::mounts();
    let before = traced.processes();
    let (mut refused, mut twice) = (0, 0);
    let tried: usize = counts.values().sum();
    for (call, count) in counts {
        for number in 1..=count {
            let what = format!("{verb:?}: {call} number {number}");
            traced.prepare(verb);
            let trace = format!("trace={call}");
            let inject = format!("inject={call}:error=EIO:when={number}");
            let output = traced.call(verb, &["-e", &trace, "-e", &inject]);
            let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
            let printed = String::from_utf8_lossy(&output.stdout).replace('\r', "");
            assert!(!complaint.contains("panicked"), "{what}: {complaint}");
            assert!(printed.is_empty() || printed == "ran\n", "{what}: {printed}");
            let done = output.status.success();
            match verb {
                // The container goes on as it was.
                Verb::Exec => traced.assert_processes(&what, &before),
                // What has come to its end, or is left where it can be used, is removed as every container is; so is one of which the
                // removal itself has failed.
                _ if done || !printed.is_empty() => {
                    traced.cli.ok(&["delete", "--force", &traced.id]);
                    traced.assert_clean(&what);
                }
                // A container that could not be started is there to be looked at.
                Verb::Start => {
                    traced.cli.ok(&["delete", "--force", &traced.id]);
                    traced.assert_clean(&what);
                }
                // The n-th call of one process can be a part of the creation, and that of another one a part of its undoing.
                _ if complaint.contains("removes what is left") => {
                    traced.cli.ok(&["delete", "--force", &traced.id]);
                    traced.assert_clean(&what);
                    twice += 1;
                }
                _ => traced.assert_clean(&what),
            }
            refused += usize::from(!done);
        }
    }
    println!("faults: {verb:?}: {tried} operations refused one by one, {refused} times it failed");
    // The undoing makes few calls, so few of them can coincide.
    assert!(twice <= 2, "what was made was not taken back {twice} times");
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

/// Calls that only some configurations need.
#[test]
fn what_few_containers_need_fails() {
    let Some(traced) = Traced::rich("fault-rich") else {
        return;
    };
    each_of(
        &traced,
        Verb::Run,
        &[
            "setns",
            "prlimit64",
            "ioctl",
            "fchownat",
            "memfd_create",
            "sched_setattr",
            "ioprio_set",
            "clone3",
            "mknodat",
            "setresuid",
            "move_mount",
            "open_tree",
        ],
    );
}

#[test]
fn files_that_are_opened_fail() {
    each_fails("fault-open", &["openat"]);
}

#[test]
fn what_is_written_fails() {
    each_fails("fault-write", &["write", "rename"]);
}

#[test]
fn sockets_fail() {
    each_fails(
        "fault-sockets",
        &["socket", "bind", "listen", "connect", "accept4", "pidfd_open"],
    );
}

#[test]
fn a_root_that_is_changed_by_chroot_fails() {
    let Some(traced) = Traced::new("fault-chroot") else {
        return;
    };
    each_of(&traced, Verb::RunByChroot, &["chroot", "fchdir"]);
}

#[test]
fn a_creation_and_a_start_fail() {
    let Some(traced) = Traced::new("fault-steps") else {
        return;
    };
    each_of(
        &traced,
        Verb::Create,
        &["clone3", "sendmsg", "recvmsg", "bind", "listen", "rename"],
    );
    each_of(
        &traced,
        Verb::Start,
        &["connect", "sendmsg", "recvmsg", "pidfd_open"],
    );
}

#[test]
fn an_additional_process_fails() {
    let Some(mut traced) = Traced::new("fault-exec") else {
        return;
    };
    traced.bundle.shell("sleep 1000");
    traced.bundle.write_config();
    each_of(
        &traced,
        Verb::Exec,
        &[
            "clone3",
            "socketpair",
            "setns",
            "sendmsg",
            "recvmsg",
            "close_range",
            "openat",
            "write",
            "execve",
            "setresuid",
            "setgroups",
            "capset",
            "prctl",
            "seccomp",
            "keyctl",
        ],
    );
}
