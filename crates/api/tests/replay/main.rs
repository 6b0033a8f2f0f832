//! Recorded exchanges asked again of a running engine: the same requests in the same order, the answers held against the
//! recorded ones (status, headers, shape, wording).
//!
//! `scenario` is the order, `asker` repeats one exchange, `excuses` says what differs by nature, `machine` is the engine.
//! Every recorded exchange must have been asked in the end: a recording that nobody repeats is a difference, too.
//!
//! The kernel ring: needs root. The test runs in network and mount namespaces of its own, on a root directory of its own,
//! and removes its control groups. This program is also the monitor that the engine starts for its container, so it has no
//! test harness; it lists itself as one test.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod asker;
mod excuses;
mod machine;
mod scenario;

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use api::AppState;
use engine::Engine;
use futures_util::FutureExt;
use hyper_util::service::TowerToHyperService;
use spec::Instance;
use tokio_util::sync::CancellationToken;

use asker::Asker;

const NAME: &str = "recorded_exchanges";
const INSIDE: &str = "BERTH_TEST_INSIDE";

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.first().map(String::as_str) {
        Some("monitor") => std::process::exit(engine::monitor::main()),
        _ if args.iter().any(|arg| arg == "--list") => {
            if !args.iter().any(|arg| arg == "--ignored") {
                println!("{NAME}: test");
            }
        }
        _ if std::env::var_os(INSIDE).is_some() => run(),
        _ => enter(),
    }
}

/// Starts this program again in namespaces of its own.
fn enter() {
    let exe = std::env::current_exe().expect("our own path");
    let root = Command::new("id")
        .arg("-u")
        .output()
        .is_ok_and(|id| id.stdout == b"0\n");
    if !root || !Path::new("/bin/busybox").exists() {
        println!("skipped: needs root and /bin/busybox");
        return;
    }
    let status = Command::new("unshare")
        .args(["--net", "--mount", "--propagation", "private"])
        .arg(exe)
        .env(INSIDE, "1")
        .status();
    match status {
        Ok(status) if status.success() => {}
        Ok(status) => std::process::exit(status.code().unwrap_or(1)),
        Err(error) => println!("skipped: unshare cannot be run: {error}"),
    }
}

fn run() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(replay());
}

async fn replay() {
    let _ = Command::new("ip").args(["link", "set", "lo", "up"]).status();
    let directory = tempfile::tempdir().expect("a directory");
    let instance = Instance {
        tag: format!("berth-t{}", std::process::id()),
    };
    let engine = Engine::open(machine::config(directory.path(), &instance))
        .await
        .expect("an engine");
    let images = engine.images().clone();
    let builder =
        build::Builder::new(images, engine.store().clone(), Arc::new(machine::NoSteps)).expect("a builder");
    let builder = Arc::new(builder);
    let buildkit =
        buildkit::Service::open(builder.clone(), engine.images().clone(), Arc::new(|_, _| {})).unwrap();
    let state = AppState::new(engine.clone(), builder, buildkit, CancellationToken::new());
    let mut asker = Asker::new(TowerToHyperService::new(api::router(state)));
    let played = std::panic::AssertUnwindSafe(scenario::play(&mut asker))
        .catch_unwind()
        .await;
    let _ = asker
        .ask("DELETE", "/containers/gold?force=1&v=1", None, "")
        .await;
    engine.close().await;
    machine::remove_groups(&instance.tag);
    if let Err(panic) = played {
        std::panic::resume_unwind(panic);
    }
    let unasked = asker.unasked();
    assert!(
        unasked.is_empty(),
        "recorded and not repeated: {}",
        unasked.join(", ")
    );
    assert!(asker.differences.is_empty(), "{}", asker.differences.join("\n"));
}
