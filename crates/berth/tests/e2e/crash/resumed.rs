//! A build whose daemon is killed before each operation: the next build has everything from the cache of which its client
//! had heard that it was done.

use std::process::Output;

use super::under::{Victim, Watched};
use super::{AFTERWARDS, points};
use crate::inventory::Inventory;
use crate::support::text;

const STEPS: &str = "RUN echo one > /one\nCOPY file /file\nRUN echo two > /two\nWORKDIR /made\nRUN cat /one /file /two > all\n";

/// How many steps a build says are done: what they came to is told when it is kept.
fn done(output: &Output) -> usize {
    let is_result = |line: &&str| {
        line.strip_prefix(" ---> ")
            .is_some_and(|id| id.len() == 12 && id.bytes().all(|byte| byte.is_ascii_hexdigit()))
    };
    let shown = text(&output.stdout);
    // The image that it starts from is no step that was made.
    shown.lines().filter(is_result).count().saturating_sub(1)
}

#[test]
fn a_build_goes_on_from_what_a_killed_daemon_had_done() {
    guard!();
    let mut watched = Watched::start(&[]);
    let context = watched.daemon.dir.path().join("context");
    std::fs::create_dir_all(&context).unwrap();
    std::fs::write(context.join("Dockerfile"), format!("FROM box:1\n{STEPS}")).unwrap();
    std::fs::write(context.join("file"), "copied\n").unwrap();
    let place = context.display().to_string();
    let words = ["build", "-t", "built:1", place.as_str()];
    let build = |watched: &Watched| {
        let output = watched.daemon.run(&words);
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
    assert_eq!(done(&output), 5, "{}", text(&output.stdout));
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
        let shown = text(&again.stdout);
        let at = format!("killed before operation {point}, {call}");
        assert!(again.status.success(), "{at}: {again:?}");
        let cached = shown.matches(" ---> Using cache").count();
        assert!(
            cached >= done(&output),
            "{at}: {cached} steps from the cache, and before the kill:\n{}\nthen:\n{shown}",
            text(&output.stdout)
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
