//! Health checks: what makes a container unhealthy, what is kept of the probes, and what happens then.

use crate::support::{Daemon, becomes, inspect, retry};

/// Runs a container in the background that is probed so often.
pub fn probed(daemon: &Daemon, name: &str, probe: &str, interval: &str, options: &[&str]) {
    let check = ["--health-cmd", probe, "--health-interval", interval];
    daemon.keep(name, &[&check[..], options].concat(), &["sleep", "1000"]);
}

fn run(daemon: &Daemon, name: &str, probe: &str, options: &[&str]) {
    probed(daemon, name, probe, "50ms", options);
}

#[test]
fn streaks_results_and_output() {
    guard!();
    let daemon = Daemon::start();
    let status = "{{.State.Health.Status}}";
    // The output is cut at 4096 bytes, the last five results are kept.
    let probe = "i=0; while [ $i -lt 500 ]; do echo 0123456789; i=$((i+1)); done; exit 7";
    run(&daemon, "bad", probe, &["--health-retries", "2"]);
    becomes(&daemon, "bad", status, "unhealthy");
    becomes(&daemon, "bad", "{{len .State.Health.Log}}", "5");
    let log = "{{range .State.Health.Log}}{{.ExitCode}} {{len .Output}},{{end}}";
    assert_eq!(inspect(&daemon, "bad", log), "7 4096,".repeat(5));
    assert_eq!(
        daemon.ok(&["ps", "--filter", "health=unhealthy", "--format", "{{.Names}}"]),
        "bad\n"
    );
    // A success makes it healthy again.
    run(&daemon, "turns", "test -f /tmp/well", &["--health-retries", "1"]);
    becomes(&daemon, "turns", status, "unhealthy");
    daemon.ok(&["exec", "turns", "touch", "/tmp/well"]);
    becomes(&daemon, "turns", status, "healthy");
    assert_eq!(inspect(&daemon, "turns", "{{.State.Health.FailingStreak}}"), "0");
    // Within the start period failures do not count, and the checks come at their own interval.
    let slow = [
        "--health-start-period",
        "1h",
        "--health-start-interval",
        "20ms",
        "--health-retries",
        "1",
    ];
    run(&daemon, "slow", "test -f /tmp/well", &slow);
    becomes(&daemon, "slow", "{{len .State.Health.Log}}", "5");
    assert_eq!(inspect(&daemon, "slow", status), "starting");
    daemon.ok(&["exec", "slow", "touch", "/tmp/well"]);
    becomes(&daemon, "slow", status, "healthy");
    // A probe that takes too long failed.
    run(
        &daemon,
        "hangs",
        "sleep 100",
        &["--health-timeout", "100ms", "--health-retries", "1"],
    );
    becomes(&daemon, "hangs", status, "unhealthy");
    let log = inspect(
        &daemon,
        "hangs",
        "{{range .State.Health.Log}}{{.ExitCode}} {{.Output}};{{end}}",
    );
    assert!(
        log.starts_with("-1 Health check exceeded timeout (100ms)"),
        "{log}"
    );
    let events = daemon.told(&["container=turns", "event=health_status"], "{{.Action}}");
    assert_eq!(events, "health_status: unhealthy\nhealth_status: healthy\n");
}

#[test]
fn the_next_daemon_knows_the_health() {
    guard!();
    let mut daemon = Daemon::start();
    let status = "{{.State.Health.Status}}";
    // After the first success there is no probe for an hour.
    let once = [
        "--health-start-period",
        "1h",
        "--health-start-interval",
        "50ms",
        "--health-interval",
        "1h",
    ];
    run(&daemon, "well", "true", &once);
    run(&daemon, "ill", "exit 3", &["--health-retries", "1"]);
    becomes(&daemon, "well", status, "healthy");
    becomes(&daemon, "ill", status, "unhealthy");
    daemon.crash_and_restart();
    assert_eq!(inspect(&daemon, "well", status), "healthy");
    assert_eq!(inspect(&daemon, "ill", status), "unhealthy");
    assert_eq!(
        inspect(&daemon, "ill", "{{(index .State.Health.Log 0).ExitCode}}"),
        "3"
    );
    // A new run knows nothing of the last one's.
    daemon.ok(&["restart", "-t", "0", "well"]);
    becomes(&daemon, "well", status, "healthy");
}

#[test]
fn an_unhealthy_container_is_killed_restarted_or_stopped_as_asked() {
    guard!();
    let daemon = Daemon::start();
    let failing = |name: &str, action: &str, more: &[&str]| {
        let options = [
            "--health-retries",
            "1",
            "-t",
            "--stop-timeout",
            "0",
            "--health-on-failure",
            action,
        ];
        run(&daemon, name, "false", &[&options[..], more].concat());
    };
    failing("killed", "kill", &[]);
    becomes(
        &daemon,
        "killed",
        "{{.State.Status}} {{.State.ExitCode}}",
        "exited 137",
    );
    // The restart policy decides after that, and only then.
    failing("again", "kill", &["--restart", "on-failure:2"]);
    becomes(
        &daemon,
        "again",
        "{{.State.Status}} {{.RestartCount}}",
        "exited 2",
    );
    failing("stopped", "stop", &["--restart", "always"]);
    becomes(
        &daemon,
        "stopped",
        "{{.State.Status}} {{.RestartCount}}",
        "exited 0",
    );
    failing("restarted", "restart", &[]);
    let restarts = retry(|| {
        let events = daemon.told(&["container=restarted", "event=restart"], "{{.Action}}");
        (events.lines().count() >= 2).then_some(())
    });
    assert!(restarts.is_some(), "{}", daemon.log());
    failing("left", "none", &[]);
    becomes(&daemon, "left", "{{.State.Health.Status}}", "unhealthy");
    assert_eq!(inspect(&daemon, "left", "{{.State.Status}}"), "running");
    let wrong = [
        "create",
        "--health-cmd",
        "true",
        "--health-on-failure",
        "cry",
        "box:1",
        "true",
    ];
    let (_, error) = daemon.fails(&wrong);
    assert!(error.contains("expected none, kill, restart or stop"), "{error}");
}
