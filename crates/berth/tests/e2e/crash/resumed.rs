//! A build whose daemon is killed before each operation: the next build has everything from the cache of which its client
//! had heard that it was done.

use std::process::Output;

use super::under::{Victim, Watched};
use super::{AFTERWARDS, points};
use crate::buildkit::{command, plug_in};
use crate::inventory::Inventory;
use crate::support::{Daemon, build_clients, text};

const STEPS: &str = "RUN echo one > /one\nCOPY file /file\nRUN echo two > /two\nWORKDIR /made\nRUN cat /one /file /two > all\n";

const STAGES: &str = "FROM box:1 AS left\nRUN --mount=type=cache,target=/cache touch /cache/used; echo one > /one\n\
                      FROM box:1 AS right\nRUN <<END\necho two > /two\nEND\n\
                      FROM box:1\nCOPY --link file /file\nCOPY --from=left /one /one\n\
                      RUN --mount=type=bind,from=right,source=/two,target=/mnt/two --mount=type=tmpfs,target=/tmp \
                      cat /mnt/two > /tmp/two; cat /tmp/two > /two\n\
                      RUN busybox mkdir /made; cat /one /file /two > /made/all\n";

/// How many steps a build says are done, or known: either is told when the result is kept.
fn done(output: &Output) -> usize {
    steps(output, |end| end == "CACHED" || end.starts_with("DONE "))
}

/// How many steps of the Dockerfile ended so. The image that it starts from is no step that was made.
fn steps(output: &Output, ended: impl Fn(&str) -> bool) -> usize {
    let shown = text(&output.stderr);
    let lines = || {
        shown
            .lines()
            .filter_map(|line| line.strip_prefix('#')?.split_once(' '))
    };
    let made = |title: &str| title.starts_with('[') && title.contains("] ") && !title.contains("FROM");
    let numbers: std::collections::BTreeSet<&str> = lines()
        .filter(|(_, rest)| made(rest) && !rest.starts_with("[internal]"))
        .map(|(number, _)| number)
        .collect();
    let end = |number: &&&str| lines().any(|(of, rest)| of == **number && ended(rest));
    numbers.iter().filter(end).count()
}

/// Kills the daemon while `build` builds the directory with this Dockerfile, which has so many steps, and whose image says "one
/// copied two" in `/made/all`.
fn goes_on(dockerfile: &str, number: usize, build: impl Fn(&Daemon, &str) -> Output) {
    let mut watched = Watched::start(&[]);
    let context = watched.daemon.dir.path().join("context");
    std::fs::create_dir_all(&context).unwrap();
    std::fs::write(context.join("Dockerfile"), dockerfile).unwrap();
    std::fs::write(context.join("file"), "copied\n").unwrap();
    let place = context.display().to_string();
    let build = |watched: &Watched| {
        let output = build(&watched.daemon, &place);
        std::thread::sleep(AFTERWARDS);
        output
    };
    let clean = |watched: &Watched| {
        watched.daemon.run(&["rmi", "-f", "built:1"]);
        watched.daemon.ok(&["builder", "prune", "-a", "-f"]);
    };
    // Keeps what the first container of an image brings for those after it.
    watched.daemon.ok(&["create", "--name", "first", "box:1", "true"]);
    let before = Inventory::of(&watched.daemon);
    let (operations, output) = watched.watcher.count(Victim::Daemon, || build(&watched));
    assert!(output.status.success(), "{output:?}");
    assert_eq!(done(&output), number, "{}", text(&output.stderr));
    clean(&watched);
    let (mut kills, mut kept) = (0, 0);
    for point in points(operations) {
        let (killed, output) = watched.watcher.kill_at(Victim::Daemon, point, || build(&watched));
        let Some(call) = killed else {
            clean(&watched);
            continue;
        };
        kills += 1;
        kept += done(&output);
        watched.start_again();
        let again = build(&watched);
        let shown = text(&again.stderr);
        let at = format!("killed before operation {point}, {call}");
        assert!(again.status.success(), "{at}: {again:?}");
        let cached = steps(&again, |end| end == "CACHED");
        assert!(
            cached >= done(&output),
            "{at}: {cached} steps from the cache, and before the kill:\n{}\nthen:\n{shown}",
            text(&output.stderr)
        );
        assert_eq!(
            watched.daemon.ok(&["run", "--rm", "built:1", "cat", "/made/all"]),
            "one\ncopied\ntwo\n",
            "{at}"
        );
        clean(&watched);
        before.assert_unchanged(&watched.daemon, &at);
    }
    println!("killed at {kills} of {operations} operations, with {kept} steps done");
    assert!(kills > 0, "nobody was killed");
}

fn ours(daemon: &Daemon, place: &str) -> Output {
    daemon.run(&["build", "-t", "built:1", place])
}

#[test]
fn a_build_goes_on_from_what_a_killed_daemon_had_done() {
    guard!();
    goes_on(&format!("FROM box:1\n{STEPS}"), 5, ours);
}

/// Stages beside each other, mounts of every kind that the engine makes, and a linked copy, which is two steps.
#[test]
fn a_build_of_several_stages_goes_on_from_what_a_killed_daemon_had_done() {
    guard!();
    goes_on(STAGES, 7, ours);
}

#[test]
fn a_build_by_dockers_client_goes_on_from_what_a_killed_daemon_had_done() {
    guard!();
    let clients = match build_clients() {
        Ok(clients) => clients,
        Err(reason) => {
            println!("skipped: {reason}");
            return;
        }
    };
    goes_on(STAGES, 7, |daemon, place| {
        if !daemon.dir.path().join("docker/cli-plugins").exists() {
            plug_in(daemon, &clients);
        }
        let mut docker = command(daemon, &clients);
        docker.args(["build", "-t", "built:1", place]).output().unwrap()
    });
}
