//! `cargo xtask bench [RUNS]`: what the project promises, measured against peers on this machine, in pairs: the engine's rows, a
//! build of ten steps, and the runtime that is the floor. `bench engine|images|runtime|build|net [RUNS] [ROW…]`: one of the
//! subjects, or some of its rows. `bench supervision [ROW…]`: many containers, many execs, memory, output ([`supervision`]).
//! `bench images rehearse [ROW…]` and `bench build rehearse [ROW…]`: whether the rows work at all. `bench family`: what twenty
//! related images take on the disk ([`family`]).
//!
//! Peer and we run alternately, at least ten times each after one to warm up, since machines are shared and noisy; the
//! figures are medians and their ratio. Nothing is compared with a stored number.

mod archive;
mod build;
mod docker;
mod engine;
mod family;
mod files;
mod fixture;
mod images;
mod memory;
pub mod net;
mod pair;
mod runtime;
mod supervision;
mod today;
pub mod traffic;

use anyhow::{Context as _, Result, bail, ensure};

use crate::packages::{self, Package};
use crate::process::is_root;

pub fn run(args: &[String]) -> Result<()> {
    let (subject, rest) = match args.first().map(String::as_str) {
        Some(word) if word.parse::<usize>().is_err() => (word, args.get(1..).unwrap_or_default()),
        _ => ("", args),
    };
    let needed: &[&[Package]] = match subject {
        "supervision" => &[packages::BENCH_SUPERVISION],
        "" | "engine" | "runtime" => &[packages::BENCH],
        "build" => &[packages::BENCH, packages::BENCH_BUILD],
        "images" | "family" => &[packages::BENCH, packages::BENCH_IMAGES],
        "net" => &[packages::BENCH, packages::BENCH_NET],
        other => bail!(
            "nothing is measured under the name {other:?}: engine, images, family, runtime, build, net, supervision"
        ),
    };
    ensure!(is_root(), "the benchmark needs root");
    packages::install(&[&[packages::BUILD, packages::RUN][..], needed].concat())?;
    let rows = rest.get(1..).unwrap_or_default();
    match (subject, rest.first().map(String::as_str)) {
        ("supervision", _) => return supervision::run(rest),
        ("family", _) => return family::run(),
        ("images", Some("rehearse")) => return images::run(&images::Plan::rehearsal(), rows),
        ("build", Some("rehearse")) => return build::run(&build::Plan::rehearsal(), rows),
        _ => {}
    }
    let runs: usize = rest
        .first()
        .map_or(Ok(10), |n| n.parse().context("RUNS is a number"))?;
    ensure!(runs >= 10, "fewer than ten runs say nothing");
    match subject {
        "" if rows.is_empty() => promises(runs),
        "images" => images::run(&images::Plan::full(runs), rows),
        "runtime" => runtime::run(runs, rows),
        "build" => build::run(&build::Plan::full(runs), rows),
        "net" => net::run(runs, rows),
        _ => engine::run(runs, rows),
    }
}

/// One row of each kind that the project has promised something of.
fn promises(runs: usize) -> Result<()> {
    engine::run(runs, &[])?;
    println!();
    build::run(&build::Plan::full(runs), &[build::TEN_STEPS.to_owned()])?;
    println!();
    runtime::run(runs, &[runtime::FLOOR.to_owned()])
}
