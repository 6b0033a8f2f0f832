//! Restart policies. How long the pauses are is told by the unit tests of `engine::container::restart`.

use super::STATE;
use crate::silent::monitor_of;
use crate::support::{Daemon, becomes, inspect, retry, signal};

fn run(daemon: &Daemon, name: &str, policy: &str, program: &[&str]) {
    let words = ["run", "-d", "--name", name, "--restart", policy, "box:1"];
    daemon.ok(&[&words, program].concat());
}

const FOR_EVER: &[&str] = &["sleep", "1000"];

#[test]
fn on_failure_counts_failures_and_leaves_successes_alone() {
    guard!();
    let daemon = Daemon::start();
    let with_count = "{{.State.Status}} {{.State.ExitCode}} {{.RestartCount}}";
    run(&daemon, "bad", "on-failure:2", &["sh", "-c", "exit 3"]);
    run(&daemon, "good", "on-failure:2", &["true"]);
    run(&daemon, "never", "no", &["sh", "-c", "exit 3"]);
    becomes(&daemon, "bad", with_count, "exited 3 2");
    becomes(&daemon, "good", with_count, "exited 0 0");
    becomes(&daemon, "never", with_count, "exited 3 0");
    // By hand it begins to count anew.
    daemon.ok(&["start", "bad"]);
    becomes(&daemon, "bad", with_count, "exited 3 2");
    let codes = "{{.Actor.Attributes.exitCode}}";
    let events = daemon.told(&["container=bad", "event=die"], codes);
    assert_eq!(events, "3\n".repeat(6), "three runs, twice");
}

#[test]
fn a_start_that_fails_is_tried_again() {
    guard!();
    let daemon = Daemon::start();
    let source = daemon.dir.path().join("source");
    let away = daemon.dir.path().join("away");
    std::fs::create_dir(&source).unwrap();
    let mount = format!("type=bind,source={},target=/data", source.display());
    let script = "while ! [ -e /data/end ]; do sleep 0.05; done; rm /data/end; exit 3";
    for (name, policy) in [("always", "always"), ("thrice", "on-failure:3")] {
        daemon.ok(&[
            "run",
            "-d",
            "--name",
            name,
            "--restart",
            policy,
            "--mount",
            &mount,
            "box:1",
            "sh",
            "-c",
            script,
        ]);
    }
    // Those who run keep it; the next start does not find it.
    std::fs::rename(&source, &away).unwrap();
    for name in ["always", "thrice"] {
        std::fs::write(away.join("end"), "").unwrap();
        let taken = retry(|| (!away.join("end").exists()).then_some(()));
        assert!(taken.is_some(), "{name}");
    }
    // Every failure counts and is told.
    becomes(
        &daemon,
        "thrice",
        "{{.State.Status}} {{.RestartCount}}",
        "exited 3",
    );
    let error = inspect(&daemon, "thrice", "{{.State.Error}}");
    assert!(error.contains(&source.display().to_string()), "{error}");
    becomes(&daemon, "always", "{{.State.Status}}", "restarting");
    assert!(
        inspect(&daemon, "always", "{{.RestartCount}}")
            .parse::<u32>()
            .unwrap()
            >= 1
    );
    // Between two tries it can be waited for, stopped and removed; left alone it comes back when the reason is gone.
    std::fs::rename(&away, &source).unwrap();
    becomes(&daemon, "always", "{{.State.Status}} {{.State.Error}}", "running");
    daemon.ok(&["rm", "-f", "always"]);
    daemon.ok(&["rm", "thrice"]);
    assert_eq!(daemon.ok(&["system", "check"]), "Nothing is wrong.\n");
}

/// Ends containers while no daemon looks, also with their monitors after that, as a reboot does, and asks the next daemon
/// what became of each: name, policy, exit code, state.
fn ended_between_two_daemons(with_monitors: bool, cases: &[(&str, &str, i32, &str)]) {
    let mut daemon = Daemon::start();
    let end = |daemon: &Daemon, name: &str| {
        std::fs::write(daemon.dir.path().join(name).join("end"), "").unwrap();
    };
    for (name, policy, code, _) in cases {
        let dir = daemon.dir.path().join(name);
        std::fs::create_dir(&dir).unwrap();
        let mount = format!("{}:/data", dir.display());
        let script =
            format!("while ! [ -e /data/end ]; do sleep 0.05; done; busybox rm /data/end; exit {code}");
        let program = ["sh", "-c", &script];
        daemon.keep(name, &["--restart", policy, "-v", &mount], &program);
    }
    // Its only other try.
    end(&daemon, "spent");
    let states = "{{.State.Status}} {{.State.ExitCode}} {{.RestartCount}}";
    becomes(&daemon, "spent", states, "running 0 1");
    let known: Vec<(String, String)> = cases
        .iter()
        .map(|(name, ..)| (inspect(&daemon, name, "{{.Id}}"), monitor_of(&daemon, name)))
        .collect();
    daemon.child.kill().unwrap();
    daemon.child.wait().unwrap();
    for ((name, ..), (id, monitor)) in cases.iter().zip(known) {
        end(&daemon, name);
        let record = daemon.dir.path().join(format!("root/containers/{id}/exit.json"));
        assert!(retry(|| record.exists().then_some(())).is_some(), "{name}");
        if with_monitors {
            signal(&monitor, "-KILL");
        }
    }
    daemon.start_again();
    for (name, _, code, wanted) in cases {
        becomes(&daemon, name, states, wanted);
        let filter = format!("container={name}");
        let codes = daemon.told(&[&filter, "event=die"], "{{.Actor.Attributes.exitCode}}");
        let ends = if *name == "spent" { 2 } else { 1 };
        assert_eq!(codes, format!("{code}\n").repeat(ends), "{name}");
    }
}

/// What became of it decides, as if a daemon had looked.
#[test]
fn an_end_between_two_daemons_is_judged_by_the_policy() {
    guard!();
    ended_between_two_daemons(
        false,
        &[
            ("well", "on-failure", 0, "exited 0 0"),
            ("failed", "on-failure", 3, "running 0 1"),
            ("spent", "on-failure:1", 3, "exited 3 1"),
            ("always", "always", 0, "running 0 1"),
        ],
    );
}

/// The same where nobody is left but the record; the next start is the daemon's own and not counted.
#[test]
fn an_end_before_a_reboot_is_judged_by_the_policy() {
    guard!();
    ended_between_two_daemons(
        true,
        &[
            ("well", "on-failure", 0, "exited 0 0"),
            ("failed", "on-failure", 3, "running 0 0"),
            ("spent", "on-failure:1", 3, "exited 3 1"),
            ("always", "always", 0, "running 0 0"),
        ],
    );
}

#[test]
fn a_container_between_two_runs_can_be_stopped_and_removed() {
    guard!();
    let daemon = Daemon::start();
    for name in ["stopped", "removed"] {
        run(&daemon, name, "always", &["false"]);
        becomes(&daemon, name, "{{.State.Status}}", "restarting");
    }
    daemon.ok(&["stop", "stopped"]);
    let count = inspect(&daemon, "stopped", "{{.RestartCount}}");
    let (_, error) = daemon.fails(&["rm", "removed"]);
    assert!(
        error.contains("is restarting") || error.contains("is running"),
        "{error}"
    );
    daemon.ok(&["rm", "-f", "removed"]);
    assert_eq!(inspect(&daemon, "stopped", "{{.State.Status}}"), "exited");
    assert_eq!(inspect(&daemon, "stopped", "{{.RestartCount}}"), count);
}

#[test]
fn the_next_daemon_starts_what_the_policies_say() {
    guard!();
    let mut daemon = Daemon::start();
    for (name, policy) in [
        ("always", "always"),
        ("always-stopped", "always"),
        ("unless", "unless-stopped"),
        ("unless-stopped", "unless-stopped"),
        ("unless-killed", "unless-stopped"),
        ("never", "no"),
    ] {
        run(&daemon, name, policy, FOR_EVER);
    }
    for name in ["always-stopped", "unless-stopped"] {
        daemon.ok(&["stop", "-t", "0", name]);
    }
    daemon.ok(&["kill", "unless-killed"]);
    daemon.ok(&["wait", "unless-killed"]);
    // A policy that came later counts as one from the beginning.
    run(&daemon, "later", "no", FOR_EVER);
    daemon.ok(&["update", "--restart", "always", "later"]);
    daemon.ok(&["stop", "-t", "0", "later"]);
    daemon.crash_and_restart();
    becomes(&daemon, "always-stopped", "{{.State.Status}}", "running");
    becomes(&daemon, "later", "{{.State.Status}}", "running");
    for (name, state) in [
        ("always", "running 0"),
        ("unless", "running 0"),
        ("never", "running 0"),
        ("unless-stopped", "exited 137"),
        ("unless-killed", "exited 137"),
    ] {
        assert_eq!(inspect(&daemon, name, STATE), state, "{name}");
    }
}
