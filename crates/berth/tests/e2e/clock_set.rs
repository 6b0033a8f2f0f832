//! The machine's clock is set while containers run: a day ahead, then an hour behind the truth. Nothing comes too early or
//! never, and nothing that was said is lost.
//!
//! Only where the machine is the test's own, as the virtual one of `cargo xtask test --vm` is, which says so by
//! BERTH_OWN_MACHINE. Tests run there one after the other.

use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::support::{Daemon, retry, text};

const OWN: &str = "BERTH_OWN_MACHINE";
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
        if std::env::var_os(OWN).is_none() {
            println!(
                "skipped: sets the machine's clock, and this machine is not the test's own (xtask test --vm)"
            );
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

fn inspect(daemon: &Daemon, name: &str, format: &str) -> String {
    daemon.ok(&["inspect", "-f", format, name]).trim().to_owned()
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

#[test]
fn checks_and_restarts_keep_their_pace() {
    guard!();
    let Some(clock) = Clock::take() else { return };
    let mut daemon = Daemon::start();
    let check = |name: &str, probe: &str, more: &[&str]| {
        let args = [
            "run",
            "-d",
            "--name",
            name,
            "--health-cmd",
            probe,
            "--health-interval",
            "1s",
        ];
        daemon.ok(&[&args[..], more, &["box:1", "sleep", "100000"]].concat());
    };
    let begun = Instant::now();
    check("checked", "echo . >> /checks", &[]);
    // A day is longer than the period in which failures do not count.
    let lenient = [
        "--health-start-period",
        "12h",
        "--health-start-interval",
        "1s",
        "--health-retries",
        "1",
    ];
    check("starting", "echo . >> /checks; false", &lenient);
    daemon.ok(&[
        "run",
        "-d",
        "--name",
        "fails",
        "--restart",
        "always",
        "box:1",
        "sh",
        "-c",
        "exit 3",
    ]);
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
