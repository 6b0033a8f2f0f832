//! The machine's clock is set while containers run: a day ahead, then an hour behind the truth. Nothing comes too early or
//! never, and nothing that was said is lost.
//!
//! Only where the machine is the test's own ([`own_machine`]), since everybody else on it would notice.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::health;
use crate::support::{BERTH, Daemon, inspect, own_machine, retry, text};

const DAY: i64 = 86_400;
const HOUR: i64 = 3_600;
/// Away from the truth, one after the other: the second is a step back by 25 hours.
const SHIFTS: [i64; 2] = [DAY, -HOUR];

/// The machine's clock; put right again when it is dropped.
struct Clock {
    taken: Instant,
    was: SystemTime,
}

impl Clock {
    fn take() -> Option<Clock> {
        if let Err(reason) = own_machine("sets the machine's clock") {
            println!("skipped: {reason}");
            return None;
        }
        Some(Clock {
            taken: Instant::now(),
            was: SystemTime::now(),
        })
    }

    /// Sets it so many seconds away from the truth; gives what it shows then, in seconds since 1970.
    fn set(&self, seconds: i64) -> i64 {
        let truth = (self.was + self.taken.elapsed())
            .duration_since(UNIX_EPOCH)
            .unwrap();
        let shown = i64::try_from(truth.as_secs()).unwrap() + seconds;
        let set = Command::new("date")
            .args(["-s", &format!("@{shown}")])
            .output()
            .unwrap();
        assert!(set.status.success(), "{}", text(&set.stderr));
        shown
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        self.set(0);
    }
}

fn number(text: &str) -> u64 {
    text.trim()
        .parse()
        .unwrap_or_else(|_| panic!("{text:?} is no number"))
}

/// Waits for something that an emulated machine may need minutes for, and that a clock which is waited for would bring
/// after an hour.
fn eventually<T>(what: &str, daemon: &Daemon, mut attempt: impl FnMut() -> Option<T>) -> T {
    for _ in 0..6 {
        if let Some(answer) = retry(&mut attempt) {
            return answer;
        }
    }
    panic!("{what}\n{}", daemon.log())
}

/// A client beside the test, and the file that it writes to; ended when it is dropped.
struct Beside {
    child: Child,
    output: PathBuf,
}

impl Beside {
    fn start(daemon: &Daemon, name: &str, args: &[&str]) -> Beside {
        let output = daemon.dir.path().join(name);
        let child = Command::new(BERTH)
            .args(args)
            .env("DOCKER_HOST", daemon.socket())
            .stdin(Stdio::null())
            .stdout(File::create(&output).unwrap())
            .spawn()
            .unwrap();
        Beside { child, output }
    }

    fn said(&self) -> String {
        std::fs::read_to_string(&self.output).unwrap()
    }

    fn ended(&mut self, daemon: &Daemon, what: &str) -> ExitStatus {
        eventually(what, daemon, || self.child.try_wait().unwrap())
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_stop_takes_as_long_as_it_was_told() {
    guard!();
    let Some(clock) = Clock::take() else { return };
    let daemon = Daemon::start();
    const PATIENCE: Duration = Duration::from_secs(15);
    for shift in SHIFTS {
        clock.set(0);
        let script = "trap 'echo x > /heard' TERM; while :; do sleep 1; done";
        daemon.ok(&["run", "-d", "--name", "deaf", "box:1", "sh", "-c", script]);
        let begun = Instant::now();
        let mut stop = Beside::start(&daemon, "stop", &["stop", "-t", "15", "deaf"]);
        eventually("the signal is not heard", &daemon, || {
            let heard = daemon.run(&["exec", "deaf", "cat", "/heard"]);
            heard.status.success().then_some(())
        });
        clock.set(shift);
        assert!(stop.ended(&daemon, "the stop goes on").success());
        let took = begun.elapsed();
        assert!(took >= PATIENCE, "{shift}: killed after {took:?}");
        assert_eq!(inspect(&daemon, "deaf", "{{.State.ExitCode}}"), "137");
        daemon.ok(&["rm", "deaf"]);
    }
}

#[test]
fn logs_lose_nothing_and_followers_end() {
    guard!();
    let Some(clock) = Clock::take() else { return };
    let daemon = Daemon::start();
    // A day ahead, all that was written before is older than this.
    let aging = ["--log-opt", "max-age=6h", "--log-opt", "max-file=3"];
    let script = "busybox mkfifo /in; while :; do cat /in; done";
    let run = ["run", "-d", "--name", "says"];
    daemon.ok(&[&run[..], &aging, &["box:1", "sh", "-c", script]].concat());
    eventually("the container does not listen", &daemon, || {
        let there = daemon.run(&["exec", "says", "sh", "-c", "[ -p /in ]"]);
        there.status.success().then_some(())
    });
    let mut follower = Beside::start(&daemon, "followed", &["logs", "-f", "says"]);
    let mut shown = Vec::new();
    for (word, shift) in [("one", 0), ("two", DAY), ("three", -HOUR)] {
        shown.push(clock.set(shift));
        daemon.ok(&["exec", "says", "sh", "-c", &format!("echo {word} > /in")]);
        eventually("a line is missing", &daemon, || {
            daemon.ok(&["logs", "says"]).contains(word).then_some(())
        });
    }
    let all = "one\ntwo\nthree\n";
    assert_eq!(daemon.ok(&["logs", "says"]), all);
    let first = shown[0].to_string();
    assert_eq!(daemon.ok(&["logs", "--since", &first, "says"]), "one\ntwo\n");
    let after_first = (shown[0] + 600).to_string();
    let until = ["logs", "--until", &after_first, "says"];
    assert_eq!(daemon.ok(&until), "one\nthree\n");
    assert_eq!(daemon.ok(&["logs", "--tail", "2", "says"]), "two\nthree\n");
    // An end that is near stays near when the clock is put back.
    let soon = (clock.set(0) + 30).to_string();
    let following = ["logs", "-f", "--until", &soon, "says"];
    let mut until = Beside::start(&daemon, "until", &following);
    eventually("it does not follow", &daemon, || {
        until.said().contains("three").then_some(())
    });
    clock.set(-HOUR);
    assert!(until.ended(&daemon, "it follows for an hour").success());
    assert_eq!(until.said(), "one\nthree\n");
    daemon.ok(&["rm", "-f", "says"]);
    assert!(follower.ended(&daemon, "it follows what is gone").success());
    assert_eq!(follower.said(), all);
}

#[test]
fn events_are_known_by_the_time_they_were_said_to_have() {
    guard!();
    let Some(clock) = Clock::take() else { return };
    let daemon = Daemon::start();
    let shape = [
        "--filter",
        "event=create",
        "--filter",
        "type=container",
        "--format",
    ];
    let shape = [&shape[..], &["{{.Actor.Attributes.name}}"]].concat();
    let follower = Beside::start(&daemon, "followed", &[&["events"], &shape[..]].concat());
    // It has come before anything happens.
    eventually("it does not follow", &daemon, || {
        daemon.run(&["create", "--name", "zero", "box:1", "true"]);
        daemon.run(&["rm", "zero"]);
        follower.said().contains("zero").then_some(())
    });
    let mut shown = Vec::new();
    for (name, shift) in [("one", 0), ("two", DAY), ("three", -HOUR)] {
        shown.push(clock.set(shift));
        daemon.ok(&["create", "--name", name, "box:1", "true"]);
    }
    let past = |since: i64, until: i64| {
        let (since, until) = (since.to_string(), until.to_string());
        let bounds = ["events", "--since", &since, "--until", &until];
        daemon.ok(&[&bounds[..], &shape].concat()).replace("zero\n", "")
    };
    // Later than all that was shown, so that every end has passed.
    clock.set(2 * DAY);
    assert_eq!(past(shown[0], shown[1] + 600), "one\ntwo\n");
    assert_eq!(past(shown[2], shown[0] + 600), "one\nthree\n");
    assert_eq!(past(1, shown[1] + 600), "one\ntwo\nthree\n");
    eventually("an event is missing", &daemon, || {
        (follower.said().replace("zero\n", "") == "one\ntwo\nthree\n").then_some(())
    });
    let soon = (clock.set(0) + 30).to_string();
    let following = ["events", "--until", &soon];
    let mut until = Beside::start(&daemon, "until", &[&following[..], &shape].concat());
    eventually("it does not begin", &daemon, || {
        until.said().contains("three").then_some(())
    });
    clock.set(-HOUR);
    assert!(until.ended(&daemon, "it follows for an hour").success());
}

#[test]
fn removed_volumes_stay_as_long_as_they_were_to() {
    guard!();
    let Some(clock) = Clock::take() else { return };
    let discard = |daemon: &Daemon, name: &str| {
        let mount = format!("{name}:/d");
        daemon.ok(&["run", "--rm", "-v", &mount, "box:1", "touch", "/d/note"]);
        daemon.ok(&["volume", "rm", name]);
    };
    let trash = |daemon: &Daemon| daemon.ok(&["volume", "trash", "ls", "--format", "{{.Name}}"]);
    let daemon = Daemon::start_with(&["--volume-trash-ttl", "12h"]);
    discard(&daemon, "first");
    assert_eq!(trash(&daemon), "first\n");
    clock.set(DAY);
    // The trash is looked at when something comes into it, and from then on every five seconds.
    discard(&daemon, "second");
    std::thread::sleep(Duration::from_secs(12));
    assert_eq!(trash(&daemon), "first\nsecond\n");
    drop(daemon);
    let daemon = Daemon::start_with(&["--volume-trash-ttl", "20s"]);
    discard(&daemon, "third");
    clock.set(-HOUR);
    eventually("it stays for an hour", &daemon, || {
        trash(&daemon).is_empty().then_some(())
    });
}

#[test]
fn checks_and_restarts_keep_their_pace() {
    guard!();
    let Some(clock) = Clock::take() else { return };
    let mut daemon = Daemon::start();
    let begun = Instant::now();
    health::probed(&daemon, "checked", "echo . >> /checks", "1s", &[]);
    // A day is longer than the period in which failures do not count.
    let lenient = [
        "--health-start-period",
        "12h",
        "--health-start-interval",
        "1s",
        "--health-retries",
        "1",
    ];
    health::probed(&daemon, "starting", "echo . >> /checks; false", "1s", &lenient);
    daemon.keep("fails", &["--restart", "always"], &["sh", "-c", "exit 3"]);
    let checks = |daemon: &Daemon, name: &str| {
        number(&daemon.ok(&["exec", name, "sh", "-c", "wc -l < /checks || echo 0"]))
    };
    let restarts = |daemon: &Daemon| number(&inspect(daemon, "fails", "{{.RestartCount}}"));
    for shift in SHIFTS {
        eventually("not healthy", &daemon, || {
            (inspect(&daemon, "checked", "{{.State.Health.Status}}") == "healthy").then_some(())
        });
        let before = (
            checks(&daemon, "checked"),
            checks(&daemon, "starting"),
            restarts(&daemon),
        );
        clock.set(shift);
        for (name, before) in [("checked", before.0), ("starting", before.1)] {
            eventually("no check comes any more", &daemon, || {
                (checks(&daemon, name) > before + 1).then_some(())
            });
            // One a second at most, whatever the clock shows.
            let (done, seconds) = (checks(&daemon, name), begun.elapsed().as_secs());
            assert!(done <= seconds + 1, "{name}: {done} checks in {seconds} s");
        }
        assert_eq!(
            inspect(&daemon, "starting", "{{.State.Health.Status}}"),
            "starting",
            "{shift}"
        );
        // The pauses go on to double, from 100 ms; a run that the clock makes a day long would begin them anew.
        eventually("no restart comes any more", &daemon, || {
            (restarts(&daemon) > before.2).then_some(())
        });
        let (done, took) = (restarts(&daemon), begun.elapsed());
        let pauses = Duration::from_millis(100) * ((1 << done) - 1);
        assert!(
            took >= pauses,
            "{done} restarts in {took:?}, and their pauses alone are {pauses:?}"
        );
    }
    // The next daemon knows how old its containers are by the kernel, not by the clock.
    clock.set(DAY);
    daemon.crash_and_restart();
    let before = checks(&daemon, "starting");
    eventually("no check comes any more", &daemon, || {
        (checks(&daemon, "starting") > before + 1).then_some(())
    });
    assert_eq!(
        inspect(&daemon, "starting", "{{.State.Health.Status}}"),
        "starting"
    );
    assert_eq!(daemon.ok(&["system", "check"]), "Nothing is wrong.\n");
}
