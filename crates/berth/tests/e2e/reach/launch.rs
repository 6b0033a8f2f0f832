//! A client that finds no daemon and was told of none starts one.
//!
//! It uses the system's places, so the tests run in mount, network and process namespaces of their own: what is started
//! there sees a fresh /run and /var/lib, and ends with the namespaces.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use crate::support::{ANY_DOCKER, BERTH, clients, control_group_roots, retry, text};

const ROOT: &str = "/var/lib/berth";

/// A machine of its own as far as a daemon's places go. Control groups are named after the root and shared, so there is
/// one at a time.
struct Machine {
    holder: Child,
    _alone: File,
}

impl Machine {
    fn start() -> Machine {
        // The program is there anyway, and a file for this alone would be left.
        let alone = File::open(BERTH).unwrap();
        alone.lock().unwrap();
        let mut holder = Command::new("unshare")
            .args([
                "--net",
                "--mount",
                "--pid",
                "--fork",
                "--kill-child",
                "--mount-proc",
            ])
            .args(["--propagation", "private", "sh", "-c"])
            .arg("ip link set lo up && mount -t tmpfs run /run && mount -t tmpfs lib /var/lib && echo ready && exec sleep 1000")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut out = std::io::BufReader::new(holder.stdout.take().unwrap());
        std::io::BufRead::read_line(&mut out, &mut line).unwrap();
        assert_eq!(line, "ready\n", "the namespaces were not made");
        Machine {
            holder,
            _alone: alone,
        }
    }

    fn command(&self, args: &[&str]) -> Command {
        let namespace = |kind: &str| format!("/proc/{}/ns/{kind}", self.holder.id());
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--mount={}", namespace("mnt")))
            .arg(format!("--net={}", namespace("net")))
            .arg(format!("--pid={}", namespace("pid_for_children")))
            .arg("--")
            .args(args)
            .stdin(Stdio::null());
        for name in ["DOCKER_HOST", "BERTH_HOST", "DOCKER_CONTEXT", "DOCKER_CONFIG"] {
            command.env_remove(name);
        }
        command.env("HOME", "/run");
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    fn ok(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(
            output.status.success(),
            "{args:?}: {}{}\n{}",
            text(&output.stdout),
            text(&output.stderr),
            self.log()
        );
        text(&output.stdout)
    }

    fn log(&self) -> String {
        text(&self.run(&["cat", &format!("{ROOT}/daemon.log")]).stdout)
    }

    /// Process ids, as the machine sees them, of the daemons that run in it.
    fn daemons(&self) -> Vec<String> {
        let listed = self.ok(&[
            "sh",
            "-c",
            "for p in /proc/[0-9]*; do tr '\\0' ' ' < $p/cmdline | grep -q '^[b]erth daemon ' && echo ${p#/proc/}; done; true",
        ]);
        listed.lines().map(str::to_owned).collect()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        for pid in self.daemons() {
            self.run(&["kill", &pid]);
            retry(|| self.daemons().is_empty().then_some(()));
        }
        let _ = self.holder.kill();
        let _ = self.holder.wait();
        // The one thing that namespaces do not take along.
        let tag = spec::Instance::of_root(Path::new(ROOT)).tag;
        for root in control_group_roots() {
            let _ = std::fs::remove_dir(root.join(&tag));
        }
    }
}

/// Nobody else's daemon may lie at the default place, since control groups are shared.
fn free() -> bool {
    let free = !PathBuf::from("/run/berth/berth.sock").exists();
    if !free {
        println!("skipped: a daemon of this machine uses the default places");
    }
    free
}

#[test]
fn a_client_that_finds_none_starts_one() {
    guard!();
    if !free() {
        return;
    }
    let machine = Machine::start();
    assert_eq!(machine.ok(&[BERTH, "ps", "-q"]), "");
    let running = machine.daemons();
    assert_eq!(running.len(), 1, "{running:?}");
    // It outlives its client and belongs to no terminal: it leads a session of its own.
    let status = machine.ok(&["cat", &format!("/proc/{}/stat", running[0])]);
    let session = status.rsplit(") ").next().unwrap().split(' ').nth(3).unwrap();
    assert_eq!(session, running[0], "{status}");
    // Nor to the directory that its client was called in.
    let directory = machine.ok(&["readlink", &format!("/proc/{}/cwd", running[0])]);
    assert_eq!(directory, "/\n");
    assert!(machine.log().contains("ready"), "{}", machine.log());
    // Later clients find it, docker's by its socket too.
    assert!(
        !machine
            .ok(&[BERTH, "run", "--rm", "--network", "none", "hello-berth"])
            .is_empty()
    );
    for (_, program) in clients(ANY_DOCKER) {
        let listed = machine
            .command(&[&program, "ps", "-q"])
            .env("DOCKER_HOST", "unix:///run/berth/berth.sock")
            .output()
            .unwrap();
        assert!(listed.status.success(), "{program}: {}", text(&listed.stderr));
    }
    assert_eq!(machine.daemons(), running);
    // One that was stopped, or killed, is started again.
    machine.ok(&["kill", "-9", &running[0]]);
    retry(|| machine.daemons().is_empty().then_some(())).unwrap();
    assert!(machine.ok(&[BERTH, "images", "-q"]).lines().count() == 1);
    assert_eq!(machine.daemons().len(), 1);
}

#[test]
fn clients_that_come_at_once_start_one_daemon() {
    guard!();
    if !free() {
        return;
    }
    let machine = Machine::start();
    let clients: Vec<Child> = (0..4)
        .map(|_| {
            let mut command = machine.command(&[BERTH, "version", "-f", "{{.Server.Version}}"]);
            command
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    for client in clients {
        let output = client.wait_with_output().unwrap();
        assert!(
            output.status.success(),
            "{}\n{}",
            text(&output.stderr),
            machine.log()
        );
        assert_ne!(text(&output.stdout).trim(), "");
    }
    retry(|| (machine.daemons().len() == 1).then_some(())).unwrap();
}

#[test]
fn none_is_started_for_a_client_that_was_told_of_one() {
    guard!();
    if !free() {
        return;
    }
    let machine = Machine::start();
    let named = [
        (&[BERTH, "-H", "unix:///run/berth/berth.sock", "ps"][..], ""),
        (&[BERTH, "ps"], "unix:///run/berth/berth.sock"),
        (&[BERTH, "--host", "tcp://127.0.0.1:1", "ps"], ""),
    ];
    for (args, host) in named {
        let mut command = machine.command(args);
        if !host.is_empty() {
            command.env("DOCKER_HOST", host);
        }
        let refused = command.output().unwrap();
        let said = text(&refused.stderr);
        assert_eq!(refused.status.code(), Some(1), "{args:?}: {said}");
        assert!(
            said.starts_with("Cannot connect to the Docker daemon at ")
                && said.contains("Is the docker daemon running?"),
            "{args:?}: {said}"
        );
    }
    // Nor for one that could not: the hint says what to do.
    let user = machine.run(&["setpriv", "--reuid", "65534", "--clear-groups", BERTH, "ps"]);
    let said = text(&user.stderr);
    assert_eq!(user.status.code(), Some(1), "{said}");
    assert!(
        said.contains("Cannot connect") && said.contains("sudo berth daemon"),
        "{said}"
    );
    // A daemon that cannot start says why, once.
    machine.ok(&["mount", "-t", "tmpfs", "etc", "/etc"]);
    machine.ok(&["mkdir", "-p", "/etc/berth"]);
    machine.ok(&["sh", "-c", "echo '{\"nope\":1}' > /etc/berth/daemon.json"]);
    let broken = machine.run(&[BERTH, "ps"]);
    let said = text(&broken.stderr);
    assert_eq!(broken.status.code(), Some(1), "{said}");
    assert!(
        said.contains("the daemon started on demand ended")
            && said.contains("keys this daemon does not know: nope"),
        "{said}"
    );
    assert_eq!(machine.daemons(), Vec::<String>::new());
}
