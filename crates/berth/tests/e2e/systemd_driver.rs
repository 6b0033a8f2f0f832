//! The daemon where systemd makes the control groups: a real systemd in namespaces of its own, the daemon among its
//! processes.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use cgroup::Version;

use crate::support::{BERTH, Daemon, command, log_of, tag_of, text};
use crate::systemd::Systemd;

const DRIVER: &str = "native.cgroupdriver=systemd";

/// A daemon under a systemd. Its socket is reached from outside; the systemd ends it.
struct Host {
    daemon: Daemon,
    systemd: Systemd,
}

impl Drop for Host {
    fn drop(&mut self) {
        // In peace: one that ends with its systemd would leave its bridge and rules on the host.
        if matches!(self.daemon.child.try_wait(), Ok(None)) && !std::thread::panicking() {
            self.daemon.clear();
            self.end("-TERM");
        }
    }
}

fn spawn(systemd: &Systemd, dir: &Path, args: &[String]) -> Child {
    let daemon = command(dir, args);
    systemd
        .command(Path::new(BERTH))
        .args(daemon.get_args())
        .stdout(Stdio::null())
        .stderr(log_of(dir))
        .spawn()
        .unwrap()
}

impl Host {
    fn new(name: &str) -> Option<Host> {
        let systemd = Systemd::boot(name)?;
        let dir = tempfile::Builder::new().prefix("berth-e2e-").tempdir().unwrap();
        let args = vec!["--exec-opt".to_owned(), DRIVER.to_owned()];
        let child = spawn(&systemd, dir.path(), &args);
        let daemon = Daemon::of(dir, args, child);
        Some(Host { daemon, systemd })
    }

    /// What is a child of ours only waits for the daemon, whose number is one of the systemd's namespace.
    fn end(&mut self, signal: &str) {
        let number = std::fs::read_to_string(self.daemon.dir.path().join("run/berth.pid")).unwrap();
        let killed = self
            .systemd
            .command(Path::new("kill"))
            .args([signal, number.trim()])
            .status();
        assert!(killed.unwrap().success());
        self.daemon.child.wait().unwrap();
    }

    fn crash_and_restart(&mut self) {
        self.end("-9");
        self.daemon.child = spawn(&self.systemd, self.daemon.dir.path(), &self.daemon.args);
        self.daemon.wait_until_ready();
    }

    fn scope(&self, container: &str) -> String {
        let id = self.daemon.ok(&["inspect", "-f", "{{.Id}}", container]);
        let tag = tag_of(&self.daemon.dir.path().join("root"));
        format!("berth-{tag}-{}.scope", id.trim())
    }

    fn directories(&self, slice: &str, scope: &str) -> Vec<PathBuf> {
        let paths = self.systemd.group.paths();
        paths
            .iter()
            .map(|path| path.directory.join(slice).join(scope))
            .collect()
    }

    fn memory_limit(&self, slice: &str, scope: &str) -> String {
        let (tree, file) = match self.systemd.group.version() {
            Version::V2 => ("", "memory.max"),
            Version::V1 | Version::Hybrid => ("memory", "memory.limit_in_bytes"),
        };
        let paths = self.systemd.group.paths();
        let path = paths
            .iter()
            .find(|path| tree.is_empty() || path.controllers.iter().any(|name| name == tree))
            .unwrap();
        let text = std::fs::read_to_string(path.directory.join(slice).join(scope).join(file)).unwrap();
        text.trim().to_owned()
    }

    fn gone(&self, slice: &str, scope: &str) {
        let left = || -> Vec<PathBuf> {
            let all = self.directories(slice, scope).into_iter();
            all.filter(|directory| directory.exists()).collect()
        };
        let gone = crate::support::retry(|| left().is_empty().then_some(()));
        assert!(gone.is_some(), "{:?}", left());
        assert_eq!(self.systemd.property(scope, "LoadState"), "not-found");
    }
}

#[test]
fn containers_are_scopes_of_systemd_from_start_to_removal() {
    guard!();
    let Some(mut host) = Host::new("berth-e2e-systemd") else {
        return;
    };
    assert_eq!(host.daemon.ok(&["info", "-f", "{{.CgroupDriver}}"]), "systemd\n");
    host.daemon.ok(&[
        "run", "-d", "--name", "web", "-m", "64m", "box:1", "sleep", "1000",
    ]);
    let scope = host.scope("web");
    assert_eq!(host.systemd.property(&scope, "ActiveState"), "active");
    assert_eq!(host.systemd.property(&scope, "Delegate"), "yes");
    assert_eq!(host.memory_limit("system.slice", &scope), "67108864");
    // systemd knows of the limit, so that a reload of its own does not undo it.
    host.daemon
        .ok(&["update", "-m", "96m", "--memory-swap", "-1", "web"]);
    host.systemd.systemctl(&["daemon-reload"]);
    assert_eq!(host.memory_limit("system.slice", &scope), "100663296");
    // The next daemon finds its containers, can look at them, stop and remove them.
    host.crash_and_restart();
    assert_eq!(
        host.daemon.ok(&["inspect", "-f", "{{.State.Status}}", "web"]),
        "running\n"
    );
    assert!(host.daemon.ok(&["stats", "--no-stream", "web"]).contains("96MiB"));
    assert_eq!(host.daemon.ok(&["exec", "web", "echo", "inside"]), "inside\n");
    host.daemon.ok(&["pause", "web"]);
    host.daemon.ok(&["unpause", "web"]);
    assert_eq!(host.daemon.ok(&["system", "check"]).matches("cgroup").count(), 0);
    host.daemon.ok(&["stop", "-t", "0", "web"]);
    host.gone("system.slice", &scope);
    // The name is free for the next run.
    host.daemon.ok(&["start", "web"]);
    assert_eq!(host.systemd.property(&scope, "ActiveState"), "active");
    host.daemon.ok(&["rm", "-f", "web"]);
    host.gone("system.slice", &scope);
}

#[test]
fn a_parent_is_a_slice() {
    guard!();
    let Some(host) = Host::new("berth-e2e-slice") else {
        return;
    };
    let parent = [
        "run",
        "-d",
        "--name",
        "web",
        "--cgroup-parent",
        "tests-web.slice",
        "box:1",
        "sleep",
        "1000",
    ];
    host.daemon.ok(&parent);
    let scope = host.scope("web");
    let slice = "tests.slice/tests-web.slice";
    assert!(
        host.directories(slice, &scope)
            .iter()
            .any(|directory| directory.exists())
    );
    assert_eq!(host.systemd.property(&scope, "Slice"), "tests-web.slice");
    host.daemon.ok(&["rm", "-f", "web"]);
    host.gone(slice, &scope);
    for bad in ["/tests", ".slice", "tests"] {
        let (code, error) = host
            .daemon
            .fails(&["run", "--rm", "--cgroup-parent", bad, "box:1", "true"]);
        assert!(
            code == 125 && error.contains("should be a valid slice named as \"xxx.slice\""),
            "{error}"
        );
    }
    assert_eq!(host.daemon.ok(&["ps", "-aq"]), "");
}

#[test]
fn without_a_systemd_the_daemon_says_so_and_does_not_start() {
    guard!();
    if Path::new("/run/systemd/private").exists() {
        println!("skipped: a systemd runs here");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let args = ["--exec-opt".to_owned(), DRIVER.to_owned()];
    let output = command(dir.path(), &args).stdin(Stdio::null()).output().unwrap();
    let said = text(&output.stderr);
    assert!(!output.status.success());
    let tag = format!("berth-{}", tag_of(&dir.path().join("root")));
    for (program, args) in [("ip", &["link"][..]), ("nft", &["list", "tables"])] {
        let there = text(&Command::new(program).args(args).output().unwrap().stdout);
        assert!(!there.contains(&tag), "left: {there}");
    }
    assert!(
        !dir.path().join("root").exists(),
        "a refused daemon made its root"
    );
    assert!(
        said.contains("no systemd can be reached") && said.contains("use the cgroupfs driver"),
        "{said}"
    );
    let bad = Command::new(BERTH)
        .args(["daemon", "--validate", "--exec-opt", "native.cgroupdriver=magic"])
        .output()
        .unwrap();
    assert!(!bad.status.success());
    let said = text(&bad.stderr);
    assert!(
        said.contains("expected native.cgroupdriver=cgroupfs or"),
        "{said}"
    );
}
