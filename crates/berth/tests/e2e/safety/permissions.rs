//! Commands of a build that want more than a container gets: without confinement, or in the host's network. A Dockerfile, and
//! the image that it starts from, may be anybody's, so only whoever builds can allow it.

use crate::buildkit::{command, plug_in};
use crate::support::{BERTH, Daemon, build_clients, left_out, text};

const INSECURE: &str =
    "RUN --security=insecure busybox mkdir /m && busybox mount -t tmpfs none /m && touch /m/unconfined";
/// What must not be begun.
const RUNS: &str = "RUN echo $((6 * 7)) was run";
const HOST: &str = "RUN --network=host busybox readlink /proc/self/ns/net > /net";

fn context(daemon: &Daemon, name: &str, dockerfile: &str) -> String {
    let context = daemon.dir.path().join(name);
    std::fs::create_dir_all(&context).unwrap();
    std::fs::write(context.join("Dockerfile"), dockerfile).unwrap();
    context.display().to_string()
}

/// What each client prints of a build that must be refused: ours, Docker's by `POST /build`, Docker's by BuildKit's protocol.
fn refused(daemon: &Daemon, context: &str) -> Vec<String> {
    let words = ["build", "-t", "bad:1", context];
    let mut all = vec![daemon.run(&words)];
    all.extend(daemon.docker(&words));
    match build_clients() {
        Ok(clients) => all.push(command(daemon, &clients).args(words).output().unwrap()),
        Err(why) => left_out(&why),
    }
    let said = |output: &std::process::Output| format!("{}{}", text(&output.stdout), text(&output.stderr));
    for output in &all {
        assert!(!output.status.success(), "{}", said(output));
    }
    all.iter().map(said).collect()
}

#[test]
fn a_build_gives_no_command_more_than_it_allows() {
    guard!();
    let daemon = Daemon::start();
    if let Ok(clients) = build_clients() {
        plug_in(&daemon, &clients);
    }
    for (word, run) in [("security.insecure", INSECURE), ("network.host", HOST)] {
        let own = context(&daemon, "own", &format!("FROM box:1\n{RUNS}\n{run}\n"));
        // As the trigger of an image, which shows only when the image is looked at.
        let base = context(&daemon, "base", &format!("FROM box:1\nONBUILD {run}\n"));
        daemon.ok(&["build", "-t", "base:1", &base]);
        let triggered = context(&daemon, "triggered", &format!("FROM base:1\n{RUNS}\n"));
        for path in [own, triggered] {
            for said in refused(&daemon, &path) {
                assert!(said.contains(&format!("{word} is not allowed")), "{path}: {said}");
                assert!(!said.contains("42 was run"), "{path}: {said}");
            }
        }
    }
}

#[test]
fn what_a_build_allows_its_commands_is_given() {
    guard!();
    let daemon = Daemon::start();
    let hosts = std::fs::read_link("/proc/self/ns/net").unwrap();
    let path = context(&daemon, "own", &format!("FROM box:1\n{HOST}\n"));
    // Where every command is in the host's network, one may say so.
    for allowed in [&["--allow", "network.host"][..], &["--network", "host"]] {
        let words = [
            &["build", "--no-cache", "-t", "host:1"],
            allowed,
            &[path.as_str()],
        ]
        .concat();
        daemon.ok(&words);
        let net = daemon.ok(&["run", "--rm", "host:1", "cat", "/net"]);
        assert_eq!(net.trim(), hosts.display().to_string(), "{allowed:?}");
    }
    // The one does not bring the other.
    let path = context(&daemon, "both", &format!("FROM box:1\n{INSECURE}\n"));
    let output = std::process::Command::new(BERTH)
        .args(["build", "--allow", "network.host", &path])
        .env("DOCKER_HOST", daemon.socket())
        .output()
        .unwrap();
    assert!(text(&output.stderr).contains("security.insecure is not allowed"));
}
