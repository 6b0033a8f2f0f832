//! One command for people and CI: `cargo xtask demo | test | bench | conformance | soak | crash | mutants | fuzz | check`.
//!
//! Each command installs what it needs by package name, says what it does, and leaves the machine as it was
//! but for those packages.

mod bench;
mod check;
mod clients;
mod conformance;
mod crash;
mod demo;
mod engine;
mod fuzz;
mod http;
mod interrupt;
mod leftovers;
mod mutants;
mod packages;
mod process;
mod soak;
mod system;
mod tally;
mod test;
mod vm;

use anyhow::{Result, bail};

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let Err(error) = run(&args) {
        eprintln!("xtask: {error:#}");
        std::process::exit(1);
    }
}

fn run(args: &[String]) -> Result<()> {
    let rest = args.get(1..).unwrap_or_default();
    let makes_daemons = matches!(
        args.first().map(String::as_str),
        Some("bench" | "demo" | "conformance")
    );
    if makes_daemons || rest.first().is_some_and(|word| word == "--vm") {
        interrupt::listen()?;
    }
    match args.first().map(String::as_str) {
        Some("demo") => demo::run(),
        Some("test") if rest.first().is_some_and(|word| word == "--vm") => {
            vm::run(rest.get(1..).unwrap_or_default())
        }
        Some("test") => test::run(rest),
        Some("bench") => bench::run(rest),
        // In a container's network namespace, for `bench net`.
        Some("dns-load") => match rest {
            [name, seconds, pace] => bench::net::ask_for(name, seconds.parse()?, pace.parse()?),
            _ => bail!("dns-load takes a name, seconds and a pace"),
        },
        Some("http-serve") => bench::traffic::answer(),
        Some("check") => check::run(),
        Some("soak") => soak::run_for(rest),
        Some("crash") => crash::run(rest),
        Some("mutants") => mutants::execute(rest),
        Some("fuzz") => fuzz::run(rest),
        Some("conformance") => conformance::execute(rest),
        _ => bail!(
            "usage: cargo xtask demo | test [--vm] [FILTER] | bench [RUNS] | bench engine|images|runtime|build|net [RUNS] [ROW…] | bench family | bench supervision [ROW…] | conformance SOURCES | soak [SECONDS] | crash [FILTER] | mutants [THREAT…] | fuzz [SECONDS [FILTER]] | check"
        ),
    }
}
