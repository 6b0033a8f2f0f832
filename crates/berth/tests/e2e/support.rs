//! A daemon of its own for each test.

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::docker;

pub const BERTH: &str = env!("CARGO_BIN_EXE_berth");

/// Why these tests can't run here, if they can't.
pub fn missing() -> Option<&'static str> {
    let root = rustix_is_root();
    if !root {
        return Some("needs root");
    }
    (!Path::new("/bin/busybox").exists()).then_some("needs /bin/busybox (package busybox-static)")
}

pub fn rustix_is_root() -> bool {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata("/proc/self").is_ok_and(|m| m.uid() == 0)
}

/// For what every docker client does alike.
pub const ANY_DOCKER: u32 = 0;

/// Says that a test goes on without one of its parts; `cargo xtask test` counts the tests that do.
pub fn left_out(why: &str) {
    println!("skipped in part: {why}");
}

/// Names and programs of the clients that a test goes through: ours, and docker's of this major version or a later one
/// where there is one.
pub fn clients(least: u32) -> Vec<(&'static str, String)> {
    let mut clients = vec![("berth", BERTH.to_owned())];
    match docker::client(least) {
        Ok(program) => clients.push(("docker", program.display().to_string())),
        Err(why) => left_out(&why),
    }
    clients
}

/// Where the docker client and its plugins for building lie, which `cargo xtask test` fetches; else why they do not.
pub fn build_clients() -> Result<PathBuf, String> {
    let home = docker::fetched();
    let all = ["usr/bin/docker", "usr/libexec/docker/cli-plugins/docker-buildx"];
    if all.iter().all(|program| home.join(program).is_file()) {
        return Ok(home);
    }
    Err(match std::fs::read_to_string(home.join("missing")) {
        Ok(why) => format!(
            "the docker client with buildx could not be had: {}",
            why.replace('\n', " ")
        ),
        Err(_) => "needs the docker client with buildx, which cargo xtask test fetches".to_owned(),
    })
}

/// A daemon with its own root, socket and names; everything is removed when it is dropped.
pub struct Daemon {
    pub dir: tempfile::TempDir,
    pub args: Vec<String>,
    /// What the daemon has in its environment beside ours.
    pub environment: Vec<(String, String)>,
    pub child: Child,
}

impl Daemon {
    pub fn start() -> Daemon {
        Daemon::start_with(&[])
    }

    /// With further arguments of `berth daemon`, which the next one after a crash gets, too.
    pub fn start_with(args: &[&str]) -> Daemon {
        Daemon::start_in(args, &[])
    }

    /// The same with more in the environment.
    pub fn start_in(args: &[&str], environment: &[(&str, &str)]) -> Daemon {
        let environment: Vec<(String, String)> = environment
            .iter()
            .map(|&(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        let dir = tempfile::Builder::new().prefix("berth-e2e-").tempdir().unwrap();
        let args: Vec<String> = args.iter().map(|&arg| arg.to_owned()).collect();
        let child = spawn(dir.path(), &args, &environment);
        let mut daemon = Daemon::of(dir, args, child);
        daemon.environment = environment;
        daemon
    }

    /// The one that was started on a directory with these arguments, once it answers and has its image.
    pub fn of(dir: tempfile::TempDir, args: Vec<String>, child: Child) -> Daemon {
        let daemon = Daemon {
            dir,
            args,
            environment: Vec::new(),
            child,
        };
        daemon.wait_until_ready();
        daemon.import_base();
        daemon
    }

    pub fn socket(&self) -> String {
        format!("unix://{}", self.dir.path().join("run/berth.sock").display())
    }

    pub fn wait_until_ready(&self) {
        let path = self.dir.path().join("run/berth.sock");
        // An emulated machine that has just booted reads the program for half a minute.
        let deadline = Instant::now() + Duration::from_secs(120);
        // That somebody listens is not enough: a child that the last daemon was about to start when it was killed holds its
        // socket until it has become another program.
        let answers = || {
            let mut stream = std::os::unix::net::UnixStream::connect(&path)?;
            stream.set_read_timeout(Some(Duration::from_secs(2)))?;
            stream.write_all(b"GET /_ping HTTP/1.0\r\nHost: test\r\n\r\n")?;
            stream.read_exact(&mut [0])
        };
        while answers().is_err() {
            assert!(
                Instant::now() < deadline && !self.has_ended(),
                "the daemon did not come up:\n{}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Its process has ended, whoever has to hear of it.
    fn has_ended(&self) -> bool {
        let process = format!("/proc/{}", self.child.id());
        let is_dead = || {
            let stat = std::fs::read_to_string(format!("{process}/stat")).unwrap_or_default();
            let state = stat.rsplit(") ").next().and_then(|rest| rest.chars().next());
            matches!(state, None | Some('Z' | 'X'))
        };
        // The first thread is a zombie, too, while another one becomes a new program, and may have become it by the time at
        // which threads are counted.
        let threads = || std::fs::read_dir(format!("{process}/task")).map_or(0, Iterator::count);
        is_dead() && threads() < 2 && is_dead()
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// busybox and its links as the image `box`.
    pub fn import_base(&self) {
        let root = self.dir.path().join("base");
        for dir in ["bin", "etc", "tmp", "srv"] {
            std::fs::create_dir_all(root.join(dir)).unwrap();
        }
        std::fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
        for applet in [
            "sh", "true", "false", "sleep", "echo", "cat", "hostname", "id", "ls", "nc", "nslookup", "ln",
            "touch", "wc", "head",
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

    pub fn run(&self, args: &[&str]) -> Output {
        Command::new(BERTH)
            .args(args)
            .env("DOCKER_HOST", self.socket())
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    /// What a command prints that must succeed.
    pub fn ok(&self, args: &[&str]) -> String {
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

    /// What a build by our client shows that must succeed.
    pub fn built(&self, args: &[&str]) -> String {
        let output = self.run(&[&["build"], args].concat());
        let shown = text(&output.stderr);
        assert!(
            output.status.success(),
            "{args:?}: {}\n{shown}\n{}",
            output.status,
            self.log()
        );
        shown
    }

    /// Starts a container of the image `box` that stays, in the background.
    pub fn keep(&self, name: &str, options: &[&str], program: &[&str]) {
        let run = ["run", "-d", "--name", name];
        self.ok(&[&run[..], options, &["box:1"], program].concat());
    }

    /// Runs a container of the image `box` that takes more memory than the 16 MiB it may have, so that the kernel ends it.
    pub fn run_hungry(&self, name: &str) {
        let limits = ["-m", "16m", "--memory-swap", "16m"];
        let script = "x=1234567890; while :; do x=$x$x; done";
        let run = ["run", "--name", name];
        let output = self.run(&[&run[..], &limits, &["box:1", "sh", "-c", script]].concat());
        assert_eq!(output.status.code(), Some(137), "{}", text(&output.stderr));
        assert_eq!(inspect(self, name, "{{.State.OOMKilled}}"), "true");
    }

    /// What the daemon has told so far, of what passes the filters.
    pub fn told(&self, filters: &[&str], format: &str) -> String {
        let mut args = vec!["events", "--since", "1", "--until", "0s", "--format", format];
        args.extend(filters.iter().flat_map(|filter| ["--filter", filter]));
        self.ok(&args)
    }

    /// Exit code and error text of a command that must fail.
    pub fn fails(&self, args: &[&str]) -> (i32, String) {
        let output = self.run(args);
        assert!(
            !output.status.success(),
            "{args:?} succeeded: {}",
            text(&output.stdout)
        );
        (output.status.code().unwrap_or(-1), text(&output.stderr))
    }

    /// What the docker client does, of whatever version. Without one, the part of the test that asks it is left out.
    pub fn docker(&self, args: &[&str]) -> Option<Output> {
        let program = docker::client(ANY_DOCKER).inspect_err(|why| left_out(why)).ok()?;
        let mut command = Command::new(program);
        command
            .args(args)
            .env("DOCKER_HOST", self.socket())
            .env("DOCKER_BUILDKIT", "0")
            .stdin(Stdio::null());
        Some(command.output().unwrap())
    }

    /// The next daemon on the same root, after the last one has ended.
    pub fn start_again(&mut self) {
        self.child = spawn(self.dir.path(), &self.args, &self.environment);
        self.wait_until_ready();
    }

    /// Kills the daemon without warning and starts the next one.
    pub fn crash_and_restart(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.start_again();
    }
}

/// Where control groups may be named after a daemon: in one tree for each controller, or in one tree for all of them.
pub fn control_group_roots() -> Vec<PathBuf> {
    let root = Path::new("/sys/fs/cgroup");
    let trees = std::fs::read_dir(root).into_iter().flatten().flatten();
    let trees = trees.map(|tree| tree.path());
    std::iter::once(root.to_owned()).chain(trees).collect()
}

/// In the environment of a daemon and of everything it starts: its directory.
pub const OF_DAEMON: &str = "BERTH_TEST_DAEMON";

fn spawn(dir: &Path, args: &[String], environment: &[(String, String)]) -> Child {
    quiet(&mut command(dir, args), dir)
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .spawn()
        .unwrap()
}

/// What a daemon on this directory has to say goes into its log, and nobody asks it anything.
fn quiet<'a>(command: &'a mut Command, dir: &Path) -> &'a mut Command {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log_of(dir))
}

/// Where a daemon on this directory writes what it has to say.
pub fn log_of(dir: &Path) -> std::fs::File {
    let mut options = std::fs::OpenOptions::new();
    options.create(true).append(true).open(dir.join("log")).unwrap()
}

/// A daemon on this directory.
pub fn command(dir: &Path, args: &[String]) -> Command {
    // Each daemon has a subnet of its own, since several run at once.
    let mut command = Command::new(BERTH);
    command
        .args(["daemon", "--data-root"])
        .arg(dir.join("root"))
        .arg("--exec-root")
        .arg(dir.join("run"))
        .arg("--host")
        .arg(format!("unix://{}", dir.join("run/berth.sock").display()))
        .args(args)
        .env(OF_DAEMON, dir);
    command
}

/// A daemon on this directory that another program becomes: words before the daemon's own.
pub fn wrapped(wrapper: &[&str], dir: &Path) -> Command {
    let daemon = command(dir, &[]);
    let mut command = Command::new(wrapper[0]);
    command
        .args(&wrapper[1..])
        .arg(daemon.get_program())
        .args(daemon.get_args())
        .env(OF_DAEMON, dir);
    quiet(&mut command, dir);
    command
}

impl Daemon {
    /// Removes what it has on the host: its containers and networks.
    pub fn clear(&self) {
        let ids = self.run(&["ps", "-aq"]);
        for id in text(&ids.stdout).split_whitespace() {
            self.run(&["rm", "-f", "-v", id]);
        }
        let networks = self.run(&["network", "ls", "-q", "--filter", "type=custom"]);
        for id in text(&networks.stdout).split_whitespace() {
            self.run(&["network", "rm", id]);
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Not where the test has ended it: its number may be another's by now.
        if matches!(self.child.try_wait(), Ok(None)) {
            self.clear();
            // SIGTERM, so that bridge and rules of the instance go too where the daemon removes them.
            let _ = Command::new("kill").arg(self.child.id().to_string()).status();
            let _ = self.child.wait();
        }
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

/// A program that is ended with the test, whatever becomes of that.
pub struct Running(pub Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The six digits an instance's names carry.
pub fn tag_of(root: &Path) -> String {
    let instance = spec::Instance::of_root(root);
    instance.tag.trim_start_matches("berth-").to_owned()
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Runs a program of the host's, which must succeed.
pub fn host(words: &[&str]) -> String {
    let output = Command::new(words[0]).args(&words[1..]).output().unwrap();
    assert!(output.status.success(), "{words:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

pub fn signal(process: &str, signal: &str) {
    let sent = Command::new("kill").args([signal, process]).status().unwrap();
    assert!(sent.success());
}

/// What a template makes of a container, without the space around it.
pub fn inspect(daemon: &Daemon, name: &str, format: &str) -> String {
    daemon.ok(&["inspect", "-f", format, name]).trim().to_owned()
}

/// Waits for a template to give a text, minutes where a machine is emulated.
pub fn becomes(daemon: &Daemon, name: &str, format: &str, wanted: &str) {
    let mut last = String::new();
    let mut is_so = || {
        last = inspect(daemon, name, format);
        (last == wanted).then_some(())
    };
    let reached = (0..15).any(|_| retry(&mut is_so).is_some());
    assert!(reached, "{name}: {last}, not {wanted}\n{}", daemon.log());
}

/// Why a test that changes what everybody on the machine has cannot run here, if it cannot: it is for a machine of its
/// own, as the virtual one of `cargo xtask test --vm` is, which says so by BERTH_OWN_MACHINE. Tests run there one after the
/// other.
pub fn own_machine(does: &str) -> Result<(), String> {
    match std::env::var_os("BERTH_OWN_MACHINE") {
        Some(_) => Ok(()),
        None => Err(format!(
            "{does}, and this machine is not the test's own (cargo xtask test --vm)"
        )),
    }
}

/// Asks until there is an answer. Only what never comes waits so long, so the patience is a loaded machine's.
pub fn retry<T>(mut attempt: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let answer = attempt();
        if answer.is_some() || Instant::now() > deadline {
            return answer;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// False, with the reason printed, where the kernel has no IPv6.
pub fn has_ipv6() -> bool {
    let there = Path::new("/proc/net/if_inet6").exists();
    if !there {
        println!("skipped: the kernel has no IPv6");
    }
    there
}
