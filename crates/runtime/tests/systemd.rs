//! Control groups made by systemd. A real one is started for each test, in namespaces of its own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "support/systemd.rs"]
mod booted;
mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use booted::Systemd;
use cgroup::Version;
use spec::runtime::{Cpu, Memory, Pids, Resources};
use support::cli::Cli;
use support::{Bundle, possible};

/// The slice of the tests and where it lies.
const SLICE: &str = "berth-test.slice";
const PLACE: &str = "berth.slice/berth-test.slice";

struct Host {
    systemd: Systemd,
    cli: Cli,
    bundle: Bundle,
}

impl Host {
    fn new(name: &str) -> Option<Host> {
        if !possible() {
            return None;
        }
        let mut host = Host {
            cli: Cli::new()?,
            systemd: Systemd::boot(name)?,
            bundle: Bundle::new(),
        };
        host.bundle.linux().cgroups_path = Some(format!("{SLICE}:rt:one"));
        host.bundle.linux().resources = None;
        host.bundle.shell("sleep 100");
        Some(host)
    }

    fn runtime(&self, args: &[&str]) -> Output {
        self.systemd
            .command(&self.cli.program)
            .arg("--root")
            .arg(self.cli.state.path())
            .args(args)
            .output()
            .unwrap()
    }

    fn ok(&self, args: &[&str]) -> String {
        let output = self.runtime(args);
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{args:?}: {complaint}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn fails(&self, args: &[&str]) -> String {
        let output = self.runtime(args);
        assert!(!output.status.success(), "{args:?} succeeded");
        String::from_utf8(output.stderr).unwrap()
    }

    fn bundle_path(&self) -> &str {
        self.bundle.write_config();
        self.bundle.path().to_str().unwrap()
    }

    /// The container goes on, so its output must not be waited for.
    fn run_detached(&self) {
        let complaints = self.bundle.path().join("complaints");
        let done = self
            .systemd
            .command(&self.cli.program)
            .arg("--root")
            .arg(self.cli.state.path())
            .args([
                "--systemd-cgroup",
                "run",
                "--detach",
                "--bundle",
                self.bundle_path(),
                "one",
            ])
            .stdout(Stdio::null())
            .stderr(fs::File::create(&complaints).unwrap())
            .status()
            .unwrap();
        assert!(done.success(), "{}", fs::read_to_string(&complaints).unwrap());
    }

    /// The scope's directory in every tree, seen from outside.
    fn directories(&self) -> Vec<PathBuf> {
        let paths = self.systemd.group.paths();
        let scope = Path::new(PLACE).join("rt-one.scope");
        paths.iter().map(|path| path.directory.join(&scope)).collect()
    }

    fn nothing_is_left(&self) {
        for directory in self.directories() {
            assert!(!directory.exists(), "{}", directory.display());
        }
        assert_eq!(self.systemd.property("rt-one.scope", "LoadState"), "not-found");
        assert_eq!(fs::read_dir(self.cli.state.path()).map_or(0, Iterator::count), 0);
    }

    /// A file of the scope, whichever version of control groups has it.
    fn value(&self, v1: (&str, &str), v2: &str) -> String {
        let group = &self.systemd.group;
        let file = match group.version() {
            Version::V2 => v2,
            Version::V1 | Version::Hybrid => v1.1,
        };
        let tree = group.paths().into_iter().find(|path| match group.version() {
            Version::V2 => true,
            Version::V1 | Version::Hybrid => path.controllers.iter().any(|name| name == v1.0),
        });
        let path = tree
            .unwrap()
            .directory
            .join(PLACE)
            .join("rt-one.scope")
            .join(file);
        fs::read_to_string(&path)
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
            .trim()
            .to_owned()
    }

    fn limits(&self) -> [String; 4] {
        [
            self.value(("memory", "memory.limit_in_bytes"), "memory.max"),
            self.value(("pids", "pids.max"), "pids.max"),
            self.value(("cpu", "cpu.cfs_quota_us"), "cpu.max"),
            self.value(("cpuset", "cpuset.cpus"), "cpuset.cpus"),
        ]
    }

    /// The allow list of version 1; version 2 has a program in its place.
    fn devices(&self) -> Option<String> {
        let old = self.systemd.group.version() != Version::V2;
        old.then(|| self.value(("devices", "devices.list"), ""))
            .map(|list| {
                let mut lines: Vec<&str> = list.lines().collect();
                lines.sort_unstable();
                lines.join("\n")
            })
    }
}

#[test]
fn systemd_keeps_what_is_asked_of_a_scope() {
    let Some(mut host) = Host::new("sdscope") else {
        return;
    };
    host.bundle.linux().resources = Some(Resources {
        memory: Some(Memory {
            limit: Some(64 << 20),
            ..Memory::default()
        }),
        cpu: Some(Cpu {
            quota: Some(30_000),
            period: Some(100_000),
            cpus: "0".to_owned(),
            ..Cpu::default()
        }),
        pids: Some(Pids { limit: 50 }),
        ..Resources::default()
    });
    host.run_detached();
    let unit = "rt-one.scope";
    assert_eq!(host.systemd.property(unit, "ActiveState"), "active");
    assert_eq!(host.systemd.property(unit, "Slice"), SLICE);
    assert_eq!(
        host.systemd.property(unit, "ControlGroup"),
        format!("/{PLACE}/{unit}")
    );
    assert_eq!(host.systemd.property(unit, "Delegate"), "yes");
    for directory in host.directories() {
        let inside = fs::read_to_string(directory.join("cgroup.procs")).unwrap();
        assert_eq!(
            inside.lines().count(),
            1,
            "{}: the container's process alone",
            directory.display()
        );
    }
    let made = host.limits();
    assert_eq!((made[0].as_str(), made[1].as_str()), ("67108864", "50"));
    assert!(made[2].starts_with("30000") && made[3] == "0", "{made:?}");
    let devices = host.devices();
    host.systemd.systemctl(&["daemon-reload"]);
    assert_eq!((host.limits(), host.devices()), (made, devices.clone()));

    host.ok(&["update", "--memory", "134217728", "--pids-limit", "60", "one"]);
    let updated = host.limits();
    assert_eq!((updated[0].as_str(), updated[1].as_str()), ("134217728", "60"));
    assert!(updated[2].starts_with("30000"), "{updated:?}");
    let memory = match host.systemd.group.version() {
        Version::V2 => "MemoryMax",
        Version::V1 | Version::Hybrid => "MemoryLimit",
    };
    assert_eq!(host.systemd.property(unit, memory), "134217728");
    assert_eq!(host.systemd.property(unit, "TasksMax"), "60");
    host.systemd.systemctl(&["daemon-reload"]);
    // Somebody else's word on the unit makes systemd write all of it again.
    host.systemd
        .systemctl(&["set-property", "--runtime", unit, "CPUAccounting=yes"]);
    host.systemd.systemctl(&["daemon-reload"]);
    assert_eq!(host.limits()[..2], updated[..2]);
    assert_eq!(host.devices(), devices);

    assert_eq!(host.ok(&["exec", "one", "echo", "inside"]), "inside\n");
    host.ok(&["pause", "one"]);
    assert!(host.ok(&["state", "one"]).contains("paused"));
    host.ok(&["delete", "--force", "one"]);
    host.nothing_is_left();
}

#[test]
fn a_scope_ends_with_its_container() {
    let Some(mut host) = Host::new("sdends") else {
        return;
    };
    host.bundle.shell("cat /proc/self/cgroup");
    let path = host.bundle_path().to_owned();
    let groups = host.ok(&["--systemd-cgroup", "run", "--bundle", &path, "one"]);
    // In a cgroup namespace of its own the scope is the root, in every tree.
    for line in groups.lines() {
        assert!(line.ends_with(":/"), "{groups}");
    }
    host.nothing_is_left();
    // A failure after the scope was made takes it back.
    host.bundle.args(&["/no/such/program"]);
    let path = host.bundle_path().to_owned();
    let complaint = host.fails(&["--systemd-cgroup", "run", "--bundle", &path, "one"]);
    assert!(complaint.contains("no such file"), "{complaint}");
    host.nothing_is_left();
    // A path of the other driver's form is refused before anything is made.
    host.bundle.linux().cgroups_path = Some("/some/where".to_owned());
    let path = host.bundle_path().to_owned();
    let complaint = host.fails(&["--systemd-cgroup", "run", "--bundle", &path, "one"]);
    assert!(complaint.contains("slice:prefix:name"), "{complaint}");
    host.nothing_is_left();
}

#[test]
fn a_living_unit_of_the_name_is_left_alone() {
    let Some(mut host) = Host::new("sdtaken") else {
        return;
    };
    host.run_detached();
    host.bundle.shell("true");
    let path = host.bundle_path().to_owned();
    let complaint = host.fails(&["--systemd-cgroup", "run", "--bundle", &path, "two"]);
    assert!(complaint.contains("rt-one.scope"), "{complaint}");
    assert_eq!(host.systemd.property("rt-one.scope", "ActiveState"), "active");
    assert!(host.ok(&["state", "one"]).contains("running"));
    host.ok(&["delete", "--force", "one"]);
    host.nothing_is_left();
}

#[test]
fn without_systemd_the_driver_says_what_is_missing() {
    if !possible() {
        return;
    }
    if Path::new("/run/systemd/private").exists() || Path::new("/run/dbus/system_bus_socket").exists() {
        println!("skipped: a systemd runs here");
        return;
    }
    let Some(cli) = Cli::new() else { return };
    let mut bundle = Bundle::new();
    bundle.linux().cgroups_path = None;
    bundle.write_config();
    let path = bundle.path().to_str().unwrap();
    let complaint = cli.fails(&["--systemd-cgroup", "run", "--bundle", path, "none"]);
    assert!(
        complaint.contains("no systemd can be reached") && complaint.contains("/run/systemd/private"),
        "{complaint}"
    );
    assert_eq!(fs::read_dir(cli.state.path()).map_or(0, Iterator::count), 0);
}
