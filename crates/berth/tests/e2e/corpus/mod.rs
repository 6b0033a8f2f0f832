//! The Dockerfile language by examples: one small Dockerfile per behaviour with what must come of it, built by every
//! client we have. `case.rs` says how they are written; the examples are the `.cases` beside it.
//!
//! A client is one function ([`Client`]); a build that must give an image is checked by the image's own files,
//! configuration and history, as `export`, `inspect` and `history` tell them, and a build that must fail by what the
//! client prints. All mistakes of a run are told together. `BERTH_CORPUS=NAME` runs the cases whose name holds `NAME`.

mod case;
mod check;
mod fixture;

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::buildkit;
use crate::docker;
use crate::support::{self, BERTH, Daemon, text};
use crate::web::Web;
use case::Case;
use fixture::Fixture;

/// How many builds run at a time.
const WORKERS: usize = 3;

const FILES: [(&str, &str); 5] = [
    ("parse", include_str!("parse.cases")),
    ("variables", include_str!("variables.cases")),
    ("copy", include_str!("copy.cases")),
    ("run", include_str!("run.cases")),
    ("stages", include_str!("stages.cases")),
];

/// Something that builds.
pub struct Client {
    /// As `only:` names it.
    name: &'static str,
    /// What it prints where a step came from the cache.
    cached: &'static str,
    /// Whether it shows the classic builder's own words.
    classic: bool,
    build: fn(&Daemon, &[String]) -> Output,
}

const OURS: Client = Client {
    name: "berth",
    cached: "CACHED",
    classic: false,
    build: |daemon, args| run(Command::new(BERTH).args(args), daemon),
};

const DOCKER: Client = Client {
    name: "docker",
    cached: "Using cache",
    classic: true,
    build: |daemon, args| {
        run(
            Command::new(docker::client(docker::RECENT).unwrap())
                .args(args)
                .env("DOCKER_BUILDKIT", "0"),
            daemon,
        )
    },
};

const BUILDKIT: Client = Client {
    name: "buildkit",
    cached: "CACHED",
    classic: false,
    build: |daemon, args| {
        let clients = support::build_clients().unwrap();
        buildkit::command(daemon, &clients).args(args).output().unwrap()
    },
};

fn run(command: &mut Command, daemon: &Daemon) -> Output {
    command
        .env("DOCKER_HOST", daemon.socket())
        .env("DOCKER_CONFIG", daemon.dir.path().join("config"))
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

#[test]
fn the_corpus_through_our_client() {
    guard!();
    all(&OURS, &Daemon::start(), cases());
}

/// What each client of Docker's takes for a build is more than most cases need, so each file is a test of its own.
macro_rules! by_file {
    ($name:ident, $builds:path) => {
        mod $name {
            #[test]
            fn parse() {
                $builds("parse");
            }

            #[test]
            fn variables() {
                $builds("variables");
            }

            #[test]
            fn copy() {
                $builds("copy");
            }

            #[test]
            fn run() {
                $builds("run");
            }

            #[test]
            fn stages() {
                $builds("stages");
            }
        }
    };
}

by_file!(through_the_docker_client_and_post_build, super::docker_builds);
by_file!(through_the_docker_client_and_buildkit, super::buildkit_builds);

fn docker_builds(file: &str) {
    guard!();
    if let Err(reason) = docker::client(docker::RECENT) {
        println!("skipped: {reason}");
        return;
    }
    all(&DOCKER, &Daemon::start(), cases_of(file));
}

fn buildkit_builds(file: &str) {
    guard!();
    let clients = match support::build_clients() {
        Ok(clients) => clients,
        Err(reason) => {
            println!("skipped: {reason}");
            return;
        }
    };
    let daemon = Daemon::start();
    buildkit::plug_in(&daemon, &clients);
    all(&BUILDKIT, &daemon, cases_of(file));
}

#[test]
fn the_corpus_is_as_large_as_it_says() {
    let cases = cases();
    assert!(cases.len() >= 150, "only {} cases", cases.len());
    for (index, case) in cases.iter().enumerate() {
        assert!(!case.expected.is_empty(), "{} expects nothing", case.name);
        let twice = cases.iter().skip(index + 1).any(|other| other.name == case.name);
        assert!(!twice, "{} is there twice", case.name);
    }
}

fn cases() -> Vec<Case> {
    FILES.iter().flat_map(|(file, _)| cases_of(file)).collect()
}

fn cases_of(wanted: &str) -> Vec<Case> {
    let files = FILES.iter().filter(|(file, _)| *file == wanted);
    files.flat_map(|(file, text)| case::read(file, text)).collect()
}

/// Builds every case with `client`, all on one daemon.
fn all(client: &Client, daemon: &Daemon, cases: Vec<Case>) {
    let wanted = std::env::var("BERTH_CORPUS").unwrap_or_default();
    let cases: Vec<Case> = cases
        .into_iter()
        .filter(|case| case.name.contains(&wanted))
        .filter(|case| case.only.as_deref().is_none_or(|only| only == client.name))
        .filter(|case| case.except.as_deref() != Some(client.name))
        .collect();
    if !wanted.is_empty() && cases.is_empty() {
        println!("no case here is called {wanted}");
        return;
    }
    let web = Web::start();
    let (next, mistakes) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::SeqCst)) {
                    let found = one(client, daemon, &web, case);
                    mistakes.lock().unwrap().extend(found);
                }
            });
        }
    });
    let mistakes = mistakes.into_inner().unwrap();
    assert!(
        mistakes.is_empty(),
        "{} of {} cases with {}:\n\n{}",
        mistakes.len(),
        cases.len(),
        client.name,
        mistakes.join("\n\n")
    );
}

/// Builds one case; gives what was wrong.
fn one(client: &Client, daemon: &Daemon, web: &Web, case: &Case) -> Option<String> {
    let fixture = Fixture::make(daemon.dir.path(), web, case);
    let tag = format!("case-{}:1", case.name);
    let args: Vec<String> = ["build", "-t", &tag]
        .iter()
        .map(|&arg| arg.to_owned())
        .chain(case.args.iter().map(|arg| fixture.fill(arg)))
        .chain([fixture.context.display().to_string()])
        .collect();
    let output = (client.build)(daemon, &args);
    let mut said = shown(&output);
    let mut wrong = Vec::new();
    match (output.status.success(), case.fails()) {
        (true, false) => {
            let image = check::Image::of(daemon, &tag, &fixture.room);
            wrong.extend(case.expected.iter().filter_map(|expected| image.check(expected)));
            if case.expected.contains(&case::Expected::Again) {
                let again = (client.build)(daemon, &args);
                said = format!("{said}--- again:\n{}", shown(&again));
                if !shown(&again).contains(client.cached) {
                    wrong.push(format!("the second build does not say {:?}", client.cached));
                }
            }
        }
        (false, true) => {}
        (true, true) => wrong.push("it was built and should not have been".to_owned()),
        (false, false) => wrong.push("it was not built".to_owned()),
    }
    for expected in &case.expected {
        use case::Expected::{Classic, Error, Says, Silent};
        match expected {
            Error(words) | Says(words) if !said.contains(&fixture.fill(words)) => {
                wrong.push(format!("it does not say {words:?}"));
            }
            Classic(words) if client.classic && !said.contains(words.as_str()) => {
                wrong.push(format!("it does not say {words:?}"));
            }
            Silent(words) if said.contains(words.as_str()) => wrong.push(format!("it says {words:?}")),
            _ => {}
        }
    }
    let heading = format!("## {} ({}): {}", case.name, case.file, case.title);
    (!wrong.is_empty()).then(|| format!("{heading}\n  {}\n--- it said:\n{said}", wrong.join("\n  ")))
}

fn shown(output: &Output) -> String {
    format!("{}{}", text(&output.stdout), text(&output.stderr))
}

/// Runs a program of the host that a fixture needs.
fn host(program: &str, args: &[&str], dir: &Path) {
    let output = Command::new(program)
        .args(args)
        .current_dir(dir)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("HOME", dir)
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(output.status.success(), "{program} {args:?}: {}", shown(&output));
}
