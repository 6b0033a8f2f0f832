//! Random work by many clients at once, held against a small model of what must be true, while the daemon is killed again
//! and again. At the end nothing is left: what the host has is what it had before.
//!
//! Short by default; `cargo xtask soak SECONDS` goes on for longer. The seed is printed and can be given
//! (`BERTH_SOAK_SEED`), though threads and kills make no two runs the same.

use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use crate::inventory::{self, Inventory};
use crate::support::{BERTH, Daemon, text};

const CLIENTS: usize = 16;
const BETWEEN_KILLS: Duration = Duration::from_millis(1200);

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(default)
}

/// What a client knows of its container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Model {
    Gone,
    Created,
    Running,
    Paused,
    Exited,
}

/// Odd while no daemon answers; each kill makes it two higher.
#[derive(Default)]
struct Epoch(AtomicU64);

impl Epoch {
    fn now(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }

    fn next(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

struct Shared {
    socket: String,
    epoch: Epoch,
    stop: AtomicBool,
    done: AtomicUsize,
    disturbed: AtomicUsize,
}

/// Ends the clients when it is dropped.
struct StopAtEnd<'a>(&'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

struct Client<'a> {
    shared: &'a Shared,
    random: StdRng,
    name: String,
    model: Model,
}

impl Client<'_> {
    fn command(&self, args: &[&str]) -> Output {
        Command::new(BERTH)
            .args(args)
            .env("DOCKER_HOST", &self.shared.socket)
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    fn work(&mut self) {
        while !self.shared.stop.load(Ordering::SeqCst) {
            let epoch = self.shared.epoch.now();
            let step = self.random.random_range(0..100);
            let (args, next, possible) = self.choose(step);
            let words: Vec<&str> = args.iter().map(String::as_str).collect();
            let output = self.command(&words);
            self.shared.done.fetch_add(1, Ordering::SeqCst);
            if epoch % 2 == 1 || self.shared.epoch.now() != epoch {
                self.shared.disturbed.fetch_add(1, Ordering::SeqCst);
                self.settle();
                continue;
            }
            let complaint = text(&output.stderr);
            assert_eq!(
                output.status.success(),
                possible,
                "{words:?} with {:?} is {:?}: {complaint}",
                self.name,
                self.model
            );
            if possible {
                self.model = next;
                if words.first() == Some(&"rename") {
                    self.name = self.other_name();
                }
                // What was killed ends soon after that was said; who waits for it may be cut off.
                if words.first() == Some(&"kill") && !self.command(&["wait", &self.name]).status.success() {
                    self.shared.disturbed.fetch_add(1, Ordering::SeqCst);
                    self.settle();
                    continue;
                }
            }
            self.check();
        }
    }

    /// A command, what the container is afterwards, and whether it can succeed.
    fn choose(&mut self, step: u32) -> (Vec<String>, Model, bool) {
        use Model::{Created, Exited, Gone, Paused, Running};
        let name = self.name.clone();
        let own = |words: &[&str]| -> Vec<String> {
            let mut args: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
            args.push(name.clone());
            args
        };
        let make = |verb: &[&str]| -> Vec<String> {
            let flags = [
                "--name",
                &name,
                "-p",
                "127.0.0.1:0:80",
                "-v",
                "/data",
                "box:1",
                "sleep",
                "1000",
            ];
            verb.iter().chain(&flags).map(|word| (*word).to_owned()).collect()
        };
        let model = self.model;
        match model {
            Gone if step < 40 => (make(&["create"]), Created, true),
            Gone if step < 90 => (make(&["run", "-d"]), Running, true),
            Gone => (own(&["start"]), Gone, false),
            _ if step < 8 => (own(&["rm", "-f", "-v"]), Gone, true),
            _ if step < 14 => {
                let mut args = own(&["rename"]);
                args.push(self.other_name());
                (args, model, true)
            }
            Created if step < 70 => (own(&["start"]), Running, true),
            Exited if step < 70 => (own(&["start"]), Running, true),
            Created | Exited if step < 80 => (own(&["pause"]), model, false),
            Created | Exited => (own(&["rm", "-v"]), Gone, true),
            Running if step < 40 => {
                let mut args = own(&["exec"]);
                args.extend(["sh", "-c", "echo inside; exit 0"].map(str::to_owned));
                (args, Running, true)
            }
            Running if step < 52 => (own(&["pause"]), Paused, true),
            Running if step < 62 => (own(&["restart", "-t", "0"]), Running, true),
            Running if step < 70 => (own(&["stop", "-t", "0"]), Exited, true),
            Running if step < 74 => (own(&["kill"]), Exited, true),
            Running if step < 84 => {
                let connected = self.is_connected();
                (own(&["network", "connect", "own"]), Running, !connected)
            }
            Running if step < 90 => (own(&["rm"]), Running, false),
            Running => (own(&["unpause"]), Running, false),
            Paused if step < 60 => (own(&["unpause"]), Running, true),
            Paused if step < 80 => (own(&["pause"]), Paused, false),
            Paused => (own(&["logs"]), Paused, true),
        }
    }

    /// Renaming goes to and fro.
    fn other_name(&self) -> String {
        match self.name.strip_suffix("-x") {
            Some(name) => name.to_owned(),
            None => format!("{}-x", self.name),
        }
    }

    fn is_connected(&self) -> bool {
        let format = "{{range $k, $v := .NetworkSettings.Networks}}{{$k}} {{end}}";
        let output = self.command(&["inspect", "-f", format, &self.name]);
        text(&output.stdout).contains("own")
    }

    /// After a command that was cut short: a signal that it had sent may still be on its way.
    fn settle(&mut self) {
        loop {
            self.look();
            let seen = (self.model, self.name.clone());
            std::thread::sleep(Duration::from_millis(250));
            self.look();
            if (self.model, self.name.clone()) == seen || self.shared.stop.load(Ordering::SeqCst) {
                return;
            }
        }
    }

    /// Asks until a daemon answers in peace, and takes what it says.
    fn look(&mut self) {
        let other = self.other_name();
        loop {
            if self.shared.stop.load(Ordering::SeqCst) {
                return;
            }
            let epoch = self.shared.epoch.now();
            if epoch % 2 == 1 {
                std::thread::sleep(Duration::from_millis(20));
                continue;
            }
            let states = [self.name.clone(), other.clone()].map(|name| {
                let output =
                    self.command(&["inspect", "--type", "container", "-f", "{{.State.Status}}", &name]);
                (name, output)
            });
            if self.shared.epoch.now() != epoch {
                continue;
            }
            let there = states.into_iter().find(|(_, output)| output.status.success());
            let Some((name, output)) = there else {
                self.model = Model::Gone;
                return;
            };
            self.name = name;
            self.model = match text(&output.stdout).trim() {
                "created" => Model::Created,
                "running" => Model::Running,
                "paused" => Model::Paused,
                "exited" => Model::Exited,
                // On its way.
                _ => {
                    std::thread::sleep(Duration::from_millis(20));
                    continue;
                }
            };
            return;
        }
    }

    /// The daemon says the same as the model.
    fn check(&mut self) {
        let epoch = self.shared.epoch.now();
        let before = (self.model, self.name.clone());
        self.look();
        if self.shared.stop.load(Ordering::SeqCst) {
            return;
        }
        if epoch.is_multiple_of(2) && self.shared.epoch.now() == epoch {
            assert_eq!(self.model, before.0, "{}", before.1);
        }
    }
}

#[test]
fn random_work_and_kills_leave_nothing() {
    guard!();
    let seconds = setting("BERTH_SOAK_SECONDS", 14);
    let seed = setting("BERTH_SOAK_SEED", rand::random::<u32>().into());
    println!("seed {seed}");
    let mut daemon = Daemon::start();
    daemon.ok(&["network", "create", "own"]);
    // What the first container of an image brings for those after it.
    daemon.ok(&["run", "--rm", "-v", "/data", "box:1", "true"]);
    let before = Inventory::of(&daemon);
    let files = inventory::files(&daemon);
    let held = inventory::descriptors(&daemon);
    let shared = Shared {
        socket: daemon.socket(),
        epoch: Epoch::default(),
        stop: AtomicBool::new(false),
        done: AtomicUsize::new(0),
        disturbed: AtomicUsize::new(0),
    };
    let mut kills = 0;
    std::thread::scope(|scope| {
        // Also when the next daemon does not come up: the clients would wait for one for ever.
        let stop = StopAtEnd(&shared.stop);
        let clients: Vec<_> = (0..CLIENTS)
            .map(|number| {
                let shared = &shared;
                scope.spawn(move || {
                    let mut client = Client {
                        shared,
                        random: StdRng::seed_from_u64(seed.wrapping_add(number as u64)),
                        name: format!("soak{number}"),
                        model: Model::Gone,
                    };
                    // Whoever fails ends the work of all, so that the failure is told.
                    let worked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| client.work()));
                    shared.stop.store(true, Ordering::SeqCst);
                    worked
                })
            })
            .collect();
        let end = Instant::now() + Duration::from_secs(seconds);
        let mut next_kill = Instant::now() + BETWEEN_KILLS;
        while Instant::now() < end && !shared.stop.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(50));
            if Instant::now() >= next_kill {
                shared.epoch.next();
                daemon.crash_and_restart();
                shared.epoch.next();
                kills += 1;
                next_kill = Instant::now() + BETWEEN_KILLS;
            }
        }
        drop(stop);
        for client in clients {
            if let Err(panic) = client.join().unwrap() {
                println!("{}", daemon.log());
                std::panic::resume_unwind(panic);
            }
        }
    });
    let done = shared.done.load(Ordering::SeqCst);
    let disturbed = shared.disturbed.load(Ordering::SeqCst);
    println!(
        "{done} commands by {CLIENTS} clients, {kills} kills of the daemon, {disturbed} commands cut short"
    );
    assert!(done > 50, "hardly anything was done: {done}");
    assert_eq!(daemon.ok(&["system", "check"]), "Nothing is wrong.\n");
    for id in daemon.ok(&["ps", "-aq"]).split_whitespace() {
        daemon.ok(&["rm", "-f", "-v", id]);
    }
    // What a kill cut off from its container is nobody's, and goes as unused volumes do.
    daemon.ok(&["volume", "prune", "--purge", "-f"]);
    assert_eq!(daemon.ok(&["system", "check"]), "Nothing is wrong.\n");
    before.assert_unchanged(&daemon, "random work with kills");
    inventory::assert_same_files(&daemon, &files);
    inventory::assert_let_go(&daemon, &held);
}
