//! End to end: the binary as a daemon on a root of its own, asked by our client and by the real docker client,
//! looked at from inside the containers and from the host.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const BERTH: &str = env!("CARGO_BIN_EXE_berth");

/// Why these tests can't run here, if they can't.
fn missing() -> Option<&'static str> {
    let root = rustix_is_root();
    if !root {
        return Some("needs root");
    }
    (!Path::new("/bin/busybox").exists()).then_some("needs /bin/busybox (package busybox-static)")
}

fn rustix_is_root() -> bool {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata("/proc/self").is_ok_and(|m| m.uid() == 0)
}

macro_rules! guard {
    () => {
        if let Some(reason) = missing() {
            println!("skipped: {reason}");
            return;
        }
    };
}

/// A daemon with its own root, socket and names; everything is removed when it is dropped.
struct Daemon {
    dir: tempfile::TempDir,
    child: Child,
}

impl Daemon {
    fn start() -> Daemon {
        let dir = tempfile::Builder::new().prefix("berth-e2e-").tempdir().unwrap();
        let child = spawn(dir.path());
        let daemon = Daemon { dir, child };
        daemon.wait_until_ready();
        daemon.import_base();
        daemon
    }

    fn socket(&self) -> String {
        format!("unix://{}", self.dir.path().join("run/berth.sock").display())
    }

    fn wait_until_ready(&self) {
        let path = self.dir.path().join("run/berth.sock");
        let deadline = Instant::now() + Duration::from_secs(30);
        while std::os::unix::net::UnixStream::connect(&path).is_err() {
            assert!(
                Instant::now() < deadline,
                "the daemon did not come up:\n{}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// busybox and its links as the image `box`.
    fn import_base(&self) {
        let root = self.dir.path().join("base");
        for dir in ["bin", "etc", "tmp", "srv"] {
            std::fs::create_dir_all(root.join(dir)).unwrap();
        }
        std::fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
        for applet in [
            "sh", "true", "false", "sleep", "echo", "cat", "hostname", "id", "ls", "nc", "nslookup", "ln",
            "touch", "wc",
        ] {
            std::os::unix::fs::symlink("busybox", root.join("bin").join(applet)).unwrap();
        }
        std::fs::write(
            root.join("etc/passwd"),
            "root:x:0:0:root:/root:/bin/sh\nweb:x:33:33::/srv:/bin/sh\n",
        )
        .unwrap();
        std::fs::write(root.join("srv/seed"), "from the image\n").unwrap();
        let tar = self.dir.path().join("base.tar");
        let done = Command::new("tar")
            .arg("-cf")
            .arg(&tar)
            .arg("-C")
            .arg(&root)
            .arg(".")
            .status()
            .unwrap();
        assert!(done.success());
        self.ok(&["import", &tar.display().to_string(), "box:1"]);
    }

    fn run(&self, args: &[&str]) -> Output {
        Command::new(BERTH)
            .args(args)
            .env("DOCKER_HOST", self.socket())
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    /// What a command prints that must succeed.
    fn ok(&self, args: &[&str]) -> String {
        let output = self.run(args);
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        assert!(
            output.status.success(),
            "{args:?}: {}\n{out}{err}\n{}",
            output.status,
            self.log()
        );
        out
    }

    /// Exit code and error text of a command that must fail.
    fn fails(&self, args: &[&str]) -> (i32, String) {
        let output = self.run(args);
        assert!(
            !output.status.success(),
            "{args:?} succeeded: {}",
            text(&output.stdout)
        );
        (output.status.code().unwrap_or(-1), text(&output.stderr))
    }

    fn docker(&self, args: &[&str]) -> Option<Output> {
        let mut command = Command::new("docker");
        command
            .args(args)
            .env("DOCKER_HOST", self.socket())
            .env("DOCKER_BUILDKIT", "0")
            .stdin(Stdio::null());
        command.output().ok()
    }

    /// Kills the daemon without warning and starts the next one.
    fn crash_and_restart(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.child = spawn(self.dir.path());
        self.wait_until_ready();
    }
}

fn spawn(dir: &Path) -> Child {
    let log = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(dir.join("log"))
        .unwrap();
    // Each daemon has a subnet of its own, since several run at once.
    Command::new(BERTH)
        .args(["daemon", "--data-root"])
        .arg(dir.join("root"))
        .arg("--exec-root")
        .arg(dir.join("run"))
        .arg("--host")
        .arg(format!("unix://{}", dir.join("run/berth.sock").display()))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap()
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let ids = self.run(&["ps", "-aq"]);
        for id in text(&ids.stdout).split_whitespace() {
            self.run(&["rm", "-f", "-v", id]);
        }
        let networks = self.run(&["network", "ls", "-q", "--filter", "type=custom"]);
        for id in text(&networks.stdout).split_whitespace() {
            self.run(&["network", "rm", id]);
        }
        // SIGTERM, so that bridge and rules of the instance go too where the daemon removes them.
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        let _ = self.child.wait();
        let tag = format!("berth-{}", &tag_of(&self.dir.path().join("root")));
        let _ = Command::new("ip")
            .args(["link", "del", &tag])
            .stderr(Stdio::null())
            .status();
        for family in ["inet", "ip", "ip6"] {
            let _ = Command::new("nft")
                .args(["delete", "table", family, &tag])
                .stderr(Stdio::null())
                .status();
        }
    }
}

/// The six digits an instance's names carry.
fn tag_of(root: &Path) -> String {
    let instance = spec::Instance::of_root(root);
    instance.tag.trim_start_matches("berth-").to_owned()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_container_is_isolated_and_its_exit_code_is_told() {
    guard!();
    let daemon = Daemon::start();
    let inside = daemon.ok(&[
        "run",
        "--rm",
        "--hostname",
        "inside",
        "box:1",
        "sh",
        "-c",
        "hostname; echo $$; id -u; ls /proc/1/ns",
    ]);
    let mut lines = inside.lines();
    assert_eq!(
        (lines.next(), lines.next(), lines.next()),
        (Some("inside"), Some("1"), Some("0")),
        "{inside}"
    );
    for code in [0, 1, 42] {
        let output = daemon.run(&["run", "--rm", "box:1", "sh", "-c", &format!("exit {code}")]);
        assert_eq!(output.status.code(), Some(code));
    }
    assert_eq!(
        daemon
            .ok(&["run", "--rm", "-u", "web", "box:1", "id", "-u"])
            .trim(),
        "33"
    );
    // The host never sees the root filesystem mounted.
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(!mounts.contains(daemon.dir.path().to_str().unwrap()), "{mounts}");
    assert_eq!(daemon.ok(&["ps", "-aq"]), "", "--rm leaves nothing");
}

#[test]
fn the_built_in_image_needs_no_registry() {
    guard!();
    let daemon = Daemon::start();
    assert!(
        daemon
            .ok(&["run", "--rm", "hello-berth"])
            .contains("Hello from Berth!")
    );
}

#[test]
fn bad_input_is_refused_with_the_right_code() {
    guard!();
    let daemon = Daemon::start();
    let (code, text) = daemon.fails(&["run", "--rm", "box:1", "nosuch"]);
    assert_eq!(code, 127, "{text}");
    assert!(text.contains("executable file not found in $PATH"), "{text}");
    assert_eq!(daemon.fails(&["run", "--rm", "box:1", "/etc/passwd"]).0, 126);
    assert_eq!(
        daemon
            .fails(&["run", "--rm", "--pull", "never", "nosuch:1", "true"])
            .0,
        125
    );
    assert!(
        daemon
            .fails(&["rm", "nosuch"])
            .1
            .contains("No such container: nosuch")
    );
    assert!(
        daemon
            .fails(&["volume", "rm", "nosuch"])
            .1
            .contains("no such volume")
    );
    assert!(
        daemon
            .fails(&["network", "rm", "nosuch"])
            .1
            .contains("network nosuch not found")
    );
    daemon.ok(&["create", "--name", "taken", "box:1", "true"]);
    assert!(
        daemon
            .fails(&["create", "--name", "taken", "box:1", "true"])
            .1
            .contains("is already in use by container")
    );
    assert_eq!(
        daemon.ok(&["ps", "-aq"]).lines().count(),
        1,
        "failures leave nothing behind"
    );
    // A second daemon on the same root is told who has it.
    let second = Command::new(BERTH)
        .args(["daemon", "--data-root"])
        .arg(daemon.dir.path().join("root"))
        .arg("--exec-root")
        .arg(daemon.dir.path().join("run2"))
        .output()
        .unwrap();
    assert!(!second.status.success());
}

#[test]
fn a_killed_daemon_loses_nothing() {
    guard!();
    let mut daemon = Daemon::start();
    daemon.ok(&[
        "run",
        "-d",
        "--name",
        "long",
        "box:1",
        "sh",
        "-c",
        "echo before; sleep 1000",
    ]);
    daemon.ok(&[
        "run",
        "-d",
        "--name",
        "short",
        "box:1",
        "sh",
        "-c",
        "echo gone; sleep 1; exit 7",
    ]);
    daemon.child.kill().unwrap();
    daemon.child.wait().unwrap();
    // The short one ends while nobody looks.
    std::thread::sleep(Duration::from_millis(1500));
    daemon.child = spawn(daemon.dir.path());
    daemon.wait_until_ready();
    assert_eq!(
        daemon.ok(&["inspect", "-f", "{{.State.Running}}", "long"]).trim(),
        "true"
    );
    assert_eq!(daemon.ok(&["logs", "long"]).trim(), "before");
    assert_eq!(
        daemon.ok(&["exec", "long", "echo", "still here"]).trim(),
        "still here"
    );
    assert_eq!(
        daemon
            .ok(&["inspect", "-f", "{{.State.ExitCode}}", "short"])
            .trim(),
        "7"
    );
    assert_eq!(daemon.ok(&["logs", "short"]).trim(), "gone");
    daemon.crash_and_restart();
    daemon.ok(&["stop", "-t", "1", "long"]);
    assert_eq!(
        daemon.ok(&["inspect", "-f", "{{.State.Status}}", "long"]).trim(),
        "exited"
    );
}

#[test]
fn an_exec_that_ends_at_once_is_still_told() {
    guard!();
    let daemon = Daemon::start();
    daemon.ok(&["run", "-d", "--name", "web", "box:1", "sleep", "1000"]);
    // Two at a time, so that one ends while the monitor is busy starting the other.
    std::thread::scope(|scope| {
        for code in ["0", "3"] {
            let daemon = &daemon;
            scope.spawn(move || {
                for _ in 0..25 {
                    let output = daemon.run(&["exec", "web", "sh", "-c", &format!("exit {code}")]);
                    assert_eq!(
                        output.status.code(),
                        code.parse().ok(),
                        "{}",
                        text(&output.stderr)
                    );
                }
            });
        }
    });
}

#[test]
fn a_stopped_daemon_leaves_nothing_on_the_host() {
    guard!();
    let mut daemon = Daemon::start();
    let tag = format!("berth-{}", tag_of(&daemon.dir.path().join("root")));
    daemon.ok(&["network", "create", "app"]);
    daemon.ok(&[
        "run",
        "--rm",
        "--network",
        "app",
        "-p",
        "127.0.0.1::80",
        "box:1",
        "true",
    ]);
    let stop = |daemon: &mut Daemon| {
        assert!(
            Command::new("kill")
                .arg(daemon.child.id().to_string())
                .status()
                .unwrap()
                .success()
        );
        assert!(daemon.child.wait().unwrap().success());
    };
    let host = || {
        let links = Command::new("ip").args(["-d", "link"]).output().unwrap();
        let tables = Command::new("nft").args(["list", "tables"]).output().unwrap();
        let groups = std::fs::read_dir("/sys/fs/cgroup").unwrap().flatten();
        let group = groups
            .map(|tree| tree.path().join(&tag))
            .find(|path| path.exists());
        (
            text(&links.stdout).contains(&tag),
            text(&tables.stdout).contains(&tag),
            group,
        )
    };
    stop(&mut daemon);
    assert_eq!(host(), (false, false, None), "{}", daemon.log());
    // The next one makes it all again, and leaves it while a container needs it.
    daemon.child = spawn(daemon.dir.path());
    daemon.wait_until_ready();
    daemon.ok(&[
        "run",
        "-d",
        "--name",
        "needs-it",
        "--network",
        "app",
        "box:1",
        "sleep",
        "1000",
    ]);
    stop(&mut daemon);
    let (link, table, group) = host();
    assert!(
        link && table && group.is_some(),
        "a living container lost its network"
    );
    daemon.child = spawn(daemon.dir.path());
    daemon.wait_until_ready();
    assert_eq!(daemon.ok(&["exec", "needs-it", "echo", "well"]).trim(), "well");
}

#[test]
fn files_are_copied_and_never_outside_of_the_container() {
    guard!();
    let daemon = Daemon::start();
    let host = daemon.dir.path().join("host");
    let victim = daemon.dir.path().join("victim");
    for dir in [&host, &victim] {
        std::fs::create_dir_all(dir).unwrap();
    }
    std::fs::write(host.join("file"), "from the host\n").unwrap();
    let source = host.join("file").display().to_string();
    // The container points a link at a directory of the host, by its absolute path and by climbing.
    let links = format!(
        "ln -s {0} /absolute; ln -s ../../../../../../..{0} /climbing; sleep 1000",
        victim.display()
    );
    daemon.ok(&["run", "-d", "--name", "box", "box:1", "sh", "-c", &links]);
    for state in ["running", "stopped"] {
        daemon.ok(&["cp", &source, "box:/tmp/copied"]);
        let back = host.join(state).display().to_string();
        daemon.ok(&["cp", "box:/tmp/copied", &back]);
        assert_eq!(
            std::fs::read_to_string(&back).unwrap(),
            "from the host\n",
            "{state}"
        );
        for link in ["absolute", "climbing"] {
            // Whether it is refused or lands inside is the client's business; outside it must not be.
            daemon.run(&["cp", &source, &format!("box:/{link}/file")]);
            daemon.run(&["cp", &source, &format!("box:/{link}")]);
        }
        assert_eq!(
            std::fs::read_dir(&victim).unwrap().count(),
            0,
            "{state}: a copy left the container"
        );
        daemon.ok(&["stop", "-t", "0", "box"]);
    }
    assert!(
        daemon
            .fails(&["cp", "box:/nosuch", "-"])
            .1
            .contains("Could not find the file /nosuch in container box")
    );
}

#[test]
fn volumes_are_filled_shared_and_outlive_containers() {
    guard!();
    let daemon = Daemon::start();
    daemon.ok(&["volume", "create", "data"]);
    assert_eq!(
        daemon
            .ok(&["run", "--rm", "-v", "data:/srv", "box:1", "cat", "/srv/seed"])
            .trim(),
        "from the image"
    );
    daemon.ok(&[
        "run",
        "--rm",
        "-v",
        "data:/srv",
        "box:1",
        "sh",
        "-c",
        "echo kept > /srv/note",
    ]);
    assert_eq!(
        daemon
            .ok(&["run", "--rm", "-v", "data:/x:ro", "box:1", "cat", "/x/note"])
            .trim(),
        "kept"
    );
    let (_, text) = daemon.fails(&["run", "--rm", "-v", "data:/x:ro", "box:1", "touch", "/x/new"]);
    assert!(text.contains("Read-only"), "{text}");
    daemon.ok(&["volume", "rm", "data"]);
}

#[test]
fn a_mounted_image_stays_usable_when_its_name_is_gone() {
    guard!();
    let daemon = Daemon::start();
    let context = daemon.dir.path().join("context");
    std::fs::create_dir_all(&context).unwrap();
    std::fs::write(context.join("Dockerfile"), "FROM box:1\nRUN echo kept > /data\n").unwrap();
    daemon.ok(&["build", "-t", "mounted:1", &context.display().to_string()]);
    let mount = "type=image,source=mounted:1,target=/image";
    daemon.ok(&[
        "create",
        "--name",
        "user",
        "--mount",
        mount,
        "box:1",
        "cat",
        "/image/data",
    ]);
    daemon.ok(&["rmi", "-f", "mounted:1"]);
    daemon.ok(&["builder", "prune", "-a", "-f"]);
    daemon.ok(&["image", "prune", "-f"]);
    assert_eq!(daemon.ok(&["start", "-a", "user"]).trim(), "kept");
}

#[test]
fn containers_find_each_other_by_name_and_ports_reach_them() {
    guard!();
    let daemon = Daemon::start();
    daemon.ok(&["network", "create", "app"]);
    let serve = "while true; do echo hello | nc -l -p 80; done";
    daemon.ok(&[
        "run",
        "-d",
        "--name",
        "server",
        "--network",
        "app",
        "-p",
        "127.0.0.1::80",
        "box:1",
        "sh",
        "-c",
        serve,
    ]);
    let ask = "nc -w 2 server 80 </dev/null";
    let answer = retry(|| {
        let output = daemon.run(&["run", "--rm", "--network", "app", "box:1", "sh", "-c", ask]);
        Some(text(&output.stdout)).filter(|t| t.contains("hello"))
    });
    assert!(answer.is_some(), "no answer by name\n{}", daemon.log());
    let port = daemon.ok(&["port", "server", "80"]);
    let address = port.trim().to_owned();
    let answer = retry(|| {
        let mut stream = std::net::TcpStream::connect(&address).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
        stream.write_all(b"x").ok()?;
        let mut text = String::new();
        let _ = stream.read_to_string(&mut text);
        Some(text).filter(|t| t.contains("hello"))
    });
    assert!(answer.is_some(), "no answer on {address}\n{}", daemon.log());
}

fn retry<T>(mut attempt: impl FnMut() -> Option<T>) -> Option<T> {
    for _ in 0..20 {
        if let Some(value) = attempt() {
            return Some(value);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    None
}

#[test]
fn a_dockerfile_becomes_an_image_and_is_cached() {
    guard!();
    let daemon = Daemon::start();
    let context = daemon.dir.path().join("context");
    std::fs::create_dir_all(&context).unwrap();
    std::fs::write(context.join("file"), "copied\n").unwrap();
    let dockerfile = "FROM box:1 AS one\nRUN echo built > /built\nFROM box:1\nCOPY --from=one /built /built\nCOPY file /file\nENV A=b\nCMD [\"sh\", \"-c\", \"cat /built /file; echo $A\"]\n";
    std::fs::write(context.join("Dockerfile"), dockerfile).unwrap();
    let path = context.display().to_string();
    daemon.ok(&["build", "-t", "app:1", &path]);
    assert_eq!(daemon.ok(&["run", "--rm", "app:1"]), "built\ncopied\nb\n");
    let first = daemon.ok(&["inspect", "-f", "{{.Id}}", "app:1"]);
    daemon.ok(&["build", "-t", "app:2", &path]);
    assert_eq!(
        daemon.ok(&["inspect", "-f", "{{.Id}}", "app:2"]),
        first,
        "all of it came from the cache"
    );
    std::fs::write(context.join("Dockerfile"), "FROM box:1\nRUN exit 9\n").unwrap();
    let (_, text) = daemon.fails(&["build", &path]);
    assert!(text.contains("returned a non-zero code: 9"), "{text}");
}

#[test]
fn the_real_docker_client_works() {
    guard!();
    let daemon = Daemon::start();
    let docker = |args: &[&str]| {
        let output = daemon.docker(args)?;
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        assert!(
            output.status.success(),
            "docker {args:?}: {}\n{out}{err}\n{}",
            output.status,
            daemon.log()
        );
        Some(out)
    };
    if daemon.docker(&["--version"]).is_none() {
        println!("skipped: needs the docker client (package docker.io)");
        return;
    }
    assert_eq!(docker(&["run", "--rm", "box:1", "echo", "hi"]).unwrap(), "hi\n");
    docker(&[
        "run", "-d", "--name", "web", "-e", "A=b", "box:1", "sleep", "1000",
    ]);
    assert_eq!(docker(&["exec", "web", "sh", "-c", "echo $A"]).unwrap(), "b\n");
    assert!(docker(&["ps"]).unwrap().contains("web"));
    assert!(docker(&["top", "web"]).unwrap().contains("sleep 1000"));
    assert!(docker(&["stats", "--no-stream", "web"]).unwrap().contains("web"));
    docker(&["exec", "web", "touch", "/new"]);
    assert!(docker(&["diff", "web"]).unwrap().contains("A /new"));
    docker(&["commit", "web", "saved:1"]);
    docker(&["pause", "web"]);
    docker(&["unpause", "web"]);
    docker(&["rename", "web", "other"]);
    docker(&["stop", "-t", "1", "other"]);
    assert!(
        docker(&["run", "--rm", "saved:1", "ls", "/new"])
            .unwrap()
            .contains("/new")
    );
    docker(&["rm", "other"]);
    docker(&["images"]);
    docker(&["info"]);
    docker(&["version"]);
    docker(&["volume", "ls"]);
    docker(&["network", "ls"]);
    docker(&["system", "df"]);
    let file: PathBuf = daemon.dir.path().join("saved.tar");
    docker(&["save", "-o", file.to_str().unwrap(), "saved:1"]);
    docker(&["rmi", "saved:1"]);
    docker(&["load", "-i", file.to_str().unwrap()]);
}
