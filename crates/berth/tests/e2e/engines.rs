//! Other engines run containers with our runtime, unchanged: they are told its path and nothing else.

use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::support::{BERTH, Daemon, text};

/// A directory with the runtime under the name it has for engines, and the image `box:1` as an archive.
struct Fixture {
    dir: tempfile::TempDir,
    runtime: PathBuf,
    archive: PathBuf,
}

impl Fixture {
    fn new(programs: &[&str]) -> Option<Fixture> {
        for program in programs {
            if Command::new(program).arg("--version").output().is_err() {
                println!("skipped: needs {program}");
                return None;
            }
        }
        let daemon = Daemon::start();
        let dir = tempfile::Builder::new()
            .prefix("berth-engine-")
            .tempdir()
            .unwrap();
        let archive = dir.path().join("box.tar");
        daemon.ok(&["save", "-o", archive.to_str().unwrap(), "box:1"]);
        let runtime = dir.path().join("berth-runtime");
        symlink(BERTH, &runtime).unwrap();
        Some(Fixture {
            dir,
            runtime,
            archive,
        })
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }
}

fn succeeds(output: Output) -> String {
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{}\n{out}{err}", output.status);
    out
}

/// Podman with storage of its own. This host may not raise limits, so Podman's defaults are below its own.
struct Podman {
    fixture: Fixture,
    runtime: String,
}

impl Podman {
    fn new() -> Option<Podman> {
        let fixture = Fixture::new(&["podman", "conmon"])?;
        let config = "[containers]\ndefault_ulimits = [\"nofile=1024:1024\", \"nproc=1024:1024\"]\n";
        std::fs::write(fixture.path("containers.conf"), config).unwrap();
        // Podman leaves the state's place to the runtime; the test wants it where it can be looked at.
        let wrapper = fixture.path("runtime");
        let script = format!(
            "#!/bin/sh\nexec {} --root {} \"$@\"\n",
            fixture.runtime.display(),
            fixture.path("state")
        );
        std::fs::write(&wrapper, script).unwrap();
        std::fs::set_permissions(&wrapper, std::fs::Permissions::from_mode(0o755)).unwrap();
        let podman = Podman {
            fixture,
            runtime: wrapper,
        };
        let archive = podman.fixture.archive.display().to_string();
        succeeds(podman.run(&["load", "-i", &archive]));
        Some(podman)
    }

    fn run(&self, args: &[&str]) -> Output {
        let mut command = Command::new("podman");
        for (flag, name) in [("--root", "storage"), ("--runroot", "run"), ("--tmpdir", "tmp")] {
            command.arg(flag).arg(self.fixture.path(name));
        }
        command
            .args([
                "--cgroup-manager",
                "cgroupfs",
                "--events-backend",
                "file",
                "--runtime",
            ])
            .arg(&self.runtime)
            .args(args)
            .env("CONTAINERS_CONF", self.fixture.path("containers.conf"))
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    fn ok(&self, args: &[&str]) -> String {
        succeeds(self.run(args))
    }
}

/// Removes groups that an engine makes above its containers' and never takes away; those in which somebody lives stay.
fn remove_groups(names: &[&str]) {
    let trees = std::fs::read_dir("/sys/fs/cgroup")
        .into_iter()
        .flatten()
        .flatten();
    let mut trees: Vec<_> = trees.map(|tree| tree.path()).collect();
    trees.push("/sys/fs/cgroup".into());
    for tree in &trees {
        for name in names {
            let _ = std::fs::remove_dir(tree.join(name));
        }
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        let _ = self.run(&["rm", "--all", "--force", "--time", "0"]);
        // Its storage stays mounted as long as it is not told to let go.
        let _ = self.run(&["umount", "--all", "--force"]);
        remove_groups(&["libpod_parent/conmon", "libpod_parent"]);
    }
}

#[test]
fn podman_runs_containers_with_our_runtime() {
    guard!();
    let Some(podman) = Podman::new() else { return };
    let run = ["run", "--rm", "--network"];
    let once = |flags: &[&str], script: &str| {
        let image = ["box:1", "sh", "-c", script];
        let network = if flags.contains(&"--privileged") {
            "host"
        } else {
            "none"
        };
        podman.run(&[&run[..], &[network], flags, &image[..]].concat())
    };
    let output = once(&[], "id -u; echo out; echo err >&2; exit 7");
    assert_eq!(output.status.code(), Some(7), "{}", text(&output.stderr));
    assert_eq!(
        (text(&output.stdout).as_str(), text(&output.stderr).as_str()),
        ("0\nout\n", "err\n")
    );
    let maps = once(
        &["--uidmap", "0:200000:1000", "--gidmap", "0:200000:1000"],
        "cat /proc/self/uid_map",
    );
    assert_eq!(
        succeeds(maps).split_whitespace().collect::<Vec<_>>(),
        ["0", "200000", "1000"]
    );
    // A mount with translated ids: what is root's on the host is root's inside, and what is made there is again.
    let shared = podman.fixture.path("shared");
    std::fs::create_dir(&shared).unwrap();
    let mapped = ["--uidmap", "0:200000:1000", "--gidmap", "0:200000:1000", "-v"];
    let owner = |options: &str| {
        let volume = format!("{shared}:/shared{options}");
        let flags = [&mapped[..], &[volume.as_str()]].concat();
        let script = "busybox stat -c %u /shared; touch /shared/made 2>/dev/null; true";
        succeeds(once(&flags, script)).trim().to_owned()
    };
    assert_eq!(owner(""), "65534");
    assert_eq!(owner(":idmap"), "0");
    let made = std::fs::metadata(podman.fixture.dir.path().join("shared/made")).unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&made), 0);
    assert_eq!(
        succeeds(once(&["-t"], "test -t 0 && echo terminal")).trim(),
        "terminal"
    );
    assert_eq!(succeeds(once(&["--privileged"], "id -u")), "0\n");
    let flags = [
        "--read-only",
        "--cap-drop",
        "all",
        "--security-opt",
        "no-new-privileges",
        "--init",
    ];
    let output = once(
        &flags,
        "cat /proc/self/status | while read k v; do case $k in CapEff:|NoNewPrivs:) echo $v;; esac; done; touch /x",
    );
    assert_eq!(text(&output.stdout), "0000000000000000\n1\n");
    assert!(
        text(&output.stderr).contains("Read-only"),
        "{}",
        text(&output.stderr)
    );
    let missing = podman.run(&[&run[..], &["none", "box:1", "nosuch"]].concat());
    assert_eq!(missing.status.code(), Some(127), "{}", text(&missing.stderr));

    let script = "echo begun; trap 'exit 3' TERM; while true; do sleep 0.1; done";
    podman.ok(&[
        "run",
        "-d",
        "--name",
        "web",
        "--network",
        "none",
        "--memory",
        "64m",
        "box:1",
        "sh",
        "-c",
        script,
    ]);
    assert_eq!(podman.ok(&["exec", "web", "echo", "inside"]), "inside\n");
    assert_eq!(
        podman.run(&["exec", "web", "sh", "-c", "exit 9"]).status.code(),
        Some(9)
    );
    podman.ok(&["update", "--memory", "96m", "web"]);
    podman.ok(&["pause", "web"]);
    let state = |format: &str| {
        podman
            .ok(&["inspect", "--format", format, "web"])
            .trim()
            .to_owned()
    };
    assert_eq!(state("{{.State.Status}}"), "paused");
    podman.ok(&["unpause", "web"]);
    assert!(podman.ok(&["top", "web", "pid", "args"]).contains("sleep 0.1"));
    assert_eq!(podman.ok(&["logs", "web"]), "begun\n");
    podman.ok(&["stop", "--time", "5", "web"]);
    assert_eq!(
        state("{{.State.ExitCode}} {{.OCIRuntime}}"),
        format!("3 {}", podman.runtime)
    );
    podman.ok(&["start", "web"]);
    podman.ok(&["kill", "web"]);
    podman.ok(&["wait", "web"]);
    podman.ok(&["rm", "web"]);
    let left = std::fs::read_dir(podman.fixture.path("state")).unwrap().count();
    assert_eq!(left, 0, "the runtime keeps nothing of containers that are gone");
}

/// containerd on a socket of its own.
struct Containerd {
    fixture: Fixture,
    child: Child,
}

impl Containerd {
    fn new() -> Option<Containerd> {
        let fixture = Fixture::new(&["containerd", "ctr"])?;
        let config = format!(
            "version = 2\nroot = \"{}\"\nstate = \"{}\"\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n\
             [grpc]\naddress = \"{}\"\n",
            fixture.path("root"),
            fixture.path("tasks"),
            fixture.path("socket")
        );
        std::fs::write(fixture.path("config.toml"), config).unwrap();
        let log = std::fs::File::create(fixture.path("log")).unwrap();
        let child = Command::new("containerd")
            .args(["--config", &fixture.path("config.toml")])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let containerd = Containerd { fixture, child };
        let deadline = Instant::now() + Duration::from_secs(30);
        while !containerd.ctr(&["version"]).status.success() {
            assert!(Instant::now() < deadline, "{}", containerd.log());
            std::thread::sleep(Duration::from_millis(50));
        }
        let archive = containerd.fixture.archive.display().to_string();
        containerd.ok(&["images", "import", &archive]);
        Some(containerd)
    }

    fn ctr(&self, args: &[&str]) -> Output {
        Command::new("ctr")
            .args(["--address", &self.fixture.path("socket")])
            .args(args)
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    fn ok(&self, args: &[&str]) -> String {
        succeeds(self.ctr(args))
    }

    fn run(&self, flags: &[&str], id: &str, command: &[&str]) -> Output {
        let image = self.ok(&["images", "ls", "-q"]);
        let (runtime, root) = (
            self.fixture.runtime.display().to_string(),
            self.fixture.path("state"),
        );
        let ours = [
            "--snapshotter",
            "native",
            "--runc-binary",
            &runtime,
            "--runc-root",
            &root,
        ];
        self.ctr(&[&["run"], flags, &ours[..], &[image.trim(), id], command].concat())
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.fixture.path("log")).unwrap_or_default()
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        // The name of its namespace.
        remove_groups(&["default"]);
    }
}

#[test]
fn containerd_runs_containers_with_our_runtime() {
    guard!();
    let Some(containerd) = Containerd::new() else {
        return;
    };
    let id = format!("berth-e2e-{}", std::process::id());
    let output = containerd.run(&["--rm"], &id, &["sh", "-c", "echo from inside; exit 5"]);
    assert_eq!(
        output.status.code(),
        Some(5),
        "{}{}",
        text(&output.stderr),
        containerd.log()
    );
    assert_eq!(text(&output.stdout), "from inside\n");

    succeeds(containerd.run(&["-d", "--memory-limit", "67108864"], &id, &["sleep", "100"]));
    let listed = || containerd.ok(&["task", "ls"]);
    assert!(listed().contains("RUNNING"), "{}", listed());
    assert_eq!(
        containerd.ok(&["task", "exec", "--exec-id", "one", &id, "echo", "inside"]),
        "inside\n"
    );
    containerd.ok(&["task", "pause", &id]);
    assert!(listed().contains("PAUSED"), "{}", listed());
    containerd.ok(&["task", "resume", &id]);
    assert!(containerd.ok(&["task", "metrics", &id]).contains("memory"));
    containerd.ok(&["task", "kill", "--signal", "KILL", &id]);
    let deadline = Instant::now() + Duration::from_secs(30);
    while !listed().contains("STOPPED") {
        assert!(Instant::now() < deadline, "{}", listed());
        std::thread::sleep(Duration::from_millis(20));
    }
    // What the runtime says of one that has ended is understood, and not taken for a failure of its own.
    let late = containerd.ctr(&["task", "kill", "--signal", "USR1", &id]);
    let told = text(&late.stderr);
    assert!(late.status.success() || told.contains("not found"), "{told}");
    let ended = containerd.ctr(&["task", "rm", &id]);
    assert!(
        text(&ended.stderr).contains("exit code 137"),
        "{}",
        text(&ended.stderr)
    );
    containerd.ok(&["containers", "rm", &id]);
    let left: Vec<_> = std::fs::read_dir(Path::new(&containerd.fixture.path("state")).join("default"))
        .unwrap()
        .collect();
    assert!(left.is_empty(), "{left:?}");
}
