//! The crash matrix: daemon or monitor killed before each operation of what they do, then the invariants.
//!
//! Rows are the scenarios, columns the operations: each call by which something is made to last, changed in the kernel
//! or told to somebody, by the daemon or by anything it has started, counted as they happen ([`under`]). So the matrix
//! has no list of its own that could be forgotten.
//!
//! Every test tries some columns of its row, others each time. `BERTH_CRASH_POINTS=all` tries every one
//! (`cargo xtask crash`), another number so many.

mod builds;
mod containers;
mod images;
mod pushed;
mod resumed;
mod scenarios;
mod under;
mod volumes;

use scenarios::Scenario;
use under::{Victim, Watched};

use crate::inventory::Inventory;

/// How many operations of a row are tried when nobody says how many.
const SOME: usize = 3;
/// Operations that come after the answer.
const AFTERWARDS: std::time::Duration = std::time::Duration::from_millis(30);

/// Which operations of so many are tried: spread evenly, begun at random.
fn points(operations: usize) -> Vec<usize> {
    let wanted = match std::env::var("BERTH_CRASH_POINTS").as_deref() {
        // Some more, since no two runs have the same number.
        Ok("all") => return (1..=operations + 5).collect(),
        Ok(number) => number.parse().unwrap(),
        Err(_) => SOME,
    };
    let stride = operations.div_ceil(wanted).max(1);
    let first = rand::random_range(0..stride);
    (first..operations)
        .step_by(stride)
        .map(|point| point + 1)
        .collect()
}

fn survive(scenario: &Scenario, victim: Victim) {
    survive_with(&[], scenario, victim);
}

/// The same of a daemon with these arguments.
fn survive_with(args: &[&str], scenario: &Scenario, victim: Victim) {
    guard!();
    let mut watched = Watched::start(args);
    watched.daemon.ok(&["network", "create", "own"]);
    // Keeps what the first container of an image brings for those after it.
    watched.daemon.ok(&["create", "--name", "first", "box:1", "true"]);
    watched
        .daemon
        .ok(&["run", "--rm", "-v", "/data", "box:1", "true"]);
    let before = Inventory::of(&watched.daemon);
    let run = |watched: &Watched, note: &str| {
        let words = (scenario.command)(note);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let output = watched.daemon.run(&words);
        std::thread::sleep(AFTERWARDS);
        output
    };
    let note = (scenario.prepare)(&watched.daemon);
    let (operations, output) = watched.watcher.count(victim, || run(&watched, &note));
    assert!(output.status.success(), "{output:?}");
    (scenario.check)(&watched.daemon, &note, true);
    (scenario.clean)(&watched.daemon, &note);
    before.assert_unchanged(&watched.daemon, scenario.name);
    let mut kills = 0;
    for point in points(operations) {
        let note = (scenario.prepare)(&watched.daemon);
        let killing = |watched: &Watched| watched.watcher.kill_at(victim, point, || run(watched, &note));
        let (killed, output) = killing(&watched);
        let Some(call) = killed else {
            // This time it was done with fewer.
            (scenario.clean)(&watched.daemon, &note);
            continue;
        };
        kills += 1;
        let at = format!(
            "{}, {victim:?} killed before operation {point}, {call}",
            scenario.name
        );
        println!("{at}");
        match victim {
            Victim::Daemon => {
                watched.start_again();
                (scenario.check)(&watched.daemon, &note, output.status.success());
            }
            Victim::Monitor | Victim::MonitorMeanwhile => {
                let complaint = crate::support::text(&output.stderr);
                assert!(!complaint.contains("panicked"), "{complaint}");
                (scenario.orphaned)(&watched.daemon, &note, output.status.success());
            }
        }
        (scenario.clean)(&watched.daemon, &note);
        before.assert_unchanged(&watched.daemon, &at);
    }
    println!(
        "{}: {victim:?} killed at {kills} of {operations} operations",
        scenario.name
    );
    assert!(kills > 0, "nobody was killed");
    assert_eq!(
        watched.daemon.ok(&["system", "check"]),
        "Nothing is wrong.\n",
        "{}",
        watched.daemon.log()
    );
}

#[test]
fn daemon_at_volume_rename() {
    survive(&volumes::VOLUME_RENAME, Victim::Daemon);
}

#[test]
fn daemon_at_volume_clone() {
    survive(&volumes::VOLUME_CLONE, Victim::Daemon);
}

#[test]
fn daemon_at_volume_import() {
    survive(&volumes::VOLUME_IMPORT, Victim::Daemon);
}

macro_rules! rows {
    ($($test:ident: $victim:ident at $room:ident::$scenario:ident;)*) => {
        $(
            #[test]
            fn $test() {
                survive(&$room::$scenario, Victim::$victim);
            }
        )*
    };
}

rows! {
    daemon_at_restart: Daemon at containers::RESTART;
    daemon_at_kill: Daemon at containers::KILL;
    daemon_at_tag: Daemon at images::TAG;
    daemon_at_rmi: Daemon at images::RMI;
    daemon_at_import: Daemon at images::IMPORT;
    daemon_at_build_with_cache_to: Daemon at builds::BUILD_CACHE_TO;
    daemon_at_build_with_cache_from: Daemon at builds::BUILD_CACHE_FROM;
    daemon_at_build_with_output: Daemon at builds::BUILD_OUTPUT;
    monitor_at_restart: Monitor at containers::RESTART;
    monitor_at_kill: Monitor at containers::KILL;
    monitor_while_restart: MonitorMeanwhile at containers::RESTART;
    monitor_while_connect: MonitorMeanwhile at scenarios::CONNECT;
    monitor_while_disconnect: MonitorMeanwhile at scenarios::DISCONNECT;
    monitor_while_pause: MonitorMeanwhile at scenarios::PAUSE;
    monitor_while_unpause: MonitorMeanwhile at scenarios::UNPAUSE;
}

/// What layers share is neither lost nor left behind.
macro_rules! sharing {
    ($($test:ident at $scenario:ident;)*) => {
        $(
            #[test]
            fn $test() {
                survive_with(&["--store-dedup"], &scenarios::$scenario, Victim::Daemon);
            }
        )*
    };
}

sharing! {
    sharing_daemon_at_pull at PULL;
    sharing_daemon_at_load at LOAD;
    sharing_daemon_at_commit at COMMIT;
    sharing_daemon_at_build at BUILD;
    sharing_daemon_at_image_prune at IMAGE_PRUNE;
}

macro_rules! matrix {
    ($($test:ident: $victim:ident at $scenario:ident;)*) => {
        $(
            #[test]
            fn $test() {
                survive(&scenarios::$scenario, Victim::$victim);
            }
        )*
    };
}

matrix! {
    daemon_at_create: Daemon at CREATE;
    daemon_at_start: Daemon at START;
    daemon_at_stop: Daemon at STOP;
    daemon_at_remove: Daemon at REMOVE;
    daemon_at_remove_keeping_volumes: Daemon at REMOVE_KEEPING;
    daemon_at_exec: Daemon at EXEC;
    daemon_at_run_to_the_end: Daemon at SHORT;
    daemon_at_connect: Daemon at CONNECT;
    daemon_at_disconnect: Daemon at DISCONNECT;
    daemon_at_update: Daemon at UPDATE;
    daemon_at_publish: Daemon at PUBLISH;
    daemon_at_unpublish: Daemon at UNPUBLISH;
    daemon_at_network_reload: Daemon at RELOAD;
    daemon_at_pause: Daemon at PAUSE;
    daemon_at_unpause: Daemon at UNPAUSE;
    daemon_at_rename: Daemon at RENAME;
    daemon_at_pull: Daemon at PULL;
    daemon_at_load: Daemon at LOAD;
    daemon_at_save: Daemon at SAVE;
    daemon_at_commit: Daemon at COMMIT;
    daemon_at_image_prune: Daemon at IMAGE_PRUNE;
    daemon_at_build: Daemon at BUILD;
    daemon_at_network_create: Daemon at NETWORK_CREATE;
    daemon_at_network_remove: Daemon at NETWORK_REMOVE;
    daemon_at_volume_remove: Daemon at VOLUME_REMOVE;
    daemon_at_volume_trash: Daemon at VOLUME_TRASH;
    daemon_at_volume_restore: Daemon at VOLUME_RESTORE;
    daemon_at_volume_trash_empty: Daemon at VOLUME_TRASH_EMPTY;
    daemon_at_volume_snapshot_create: Daemon at VOLUME_SNAPSHOT;
    daemon_at_volume_snapshot_restore: Daemon at VOLUME_SNAPSHOT_RESTORE;
    monitor_at_start: Monitor at START;
    monitor_at_stop: Monitor at STOP;
    monitor_at_remove: Monitor at REMOVE;
    monitor_at_exec: Monitor at EXEC;
    monitor_at_build: Monitor at BUILD;
    monitor_at_run_to_the_end: Monitor at SHORT;
}
