//! `cargo xtask bench [engine|images|runtime|build|net] [RUNS] [ROW…]`: what matters, measured against peers on this machine, in
//! pairs. `bench supervision [ROW…]`: many containers, many execs, memory, output ([`supervision`]). `bench images rehearse
//! [ROW…]` and `bench build rehearse [ROW…]`: whether the rows work at all. `bench family`: what twenty related images take on the disk ([`family`]).
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

use crate::packages;
use crate::process::is_root;

pub fn run(args: &[String]) -> Result<()> {
    let (subject, rest) = match args.first().map(String::as_str) {
        Some(word) if word.parse::<usize>().is_err() => (word, args.get(1..).unwrap_or_default()),
        _ => ("engine", args),
    };
    if subject == "supervision" {
        ensure!(is_root(), "the benchmark needs root");
        packages::install(&[packages::BUILD, packages::RUN])?;
        return supervision::run(rest);
    }
    if subject == "family" {
        ensure!(is_root(), "the benchmark needs root");
        packages::install(&[packages::BUILD, packages::RUN, packages::BENCH])?;
        return family::run();
    }
    if subject == "images" && rest.first().is_some_and(|word| word == "rehearse") {
        ensure!(is_root(), "the benchmark needs root");
        packages::install(&[packages::BUILD, packages::RUN, packages::BENCH])?;
        return images::run(&images::Plan::rehearsal(), rest.get(1..).unwrap_or_default());
    }
    if subject == "build" && rest.first().is_some_and(|word| word == "rehearse") {
        ensure!(is_root(), "the benchmark needs root");
        packages::install(&[packages::BUILD, packages::RUN, packages::BENCH])?;
        return build::run(&build::Plan::rehearsal(), rest.get(1..).unwrap_or_default());
    }
    let runs: usize = rest
        .first()
        .map_or(Ok(10), |n| n.parse().context("RUNS is a number"))?;
    ensure!(runs >= 10, "fewer than ten runs say nothing");
    ensure!(is_root(), "the benchmark needs root");
    packages::install(&[packages::BUILD, packages::RUN, packages::BENCH])?;
    let rows = rest.get(1..).unwrap_or_default();
    match subject {
        "engine" => engine::run(runs, rows),
        "images" => images::run(&images::Plan::full(runs), rows),
        "runtime" => runtime::run(runs),
        "build" => build::run(&build::Plan::full(runs), rows),
        "net" => {
            packages::install(&[packages::BENCH_NET])?;
            net::run(runs, rows)
        }
        other => {
            bail!(
                "nothing is measured under the name {other:?}: engine, images, family, runtime, build, net, supervision"
            )
        }
    }
}
