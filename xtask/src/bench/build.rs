//! Builds: Debian's dockerd with its BuildKit and today's `docker buildx build` against ours with our client. Two rows show the
//! peer with the client of its own release, which builds without a plugin.
//!
//! A row prepares what it needs before its clock starts: files are made at first use, caches are emptied, a source line is
//! changed. `cargo xtask bench build [RUNS] [WORD...]` measures the rows whose names hold one of the words; `bench build rehearse
//! [WORD...]` goes through them once with small files, and its figures mean nothing.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::docker::Peer;
use super::engine::IMAGE;
use super::fixture;
use super::pair::{self, Row};
use super::today::Today;
use crate::engine::{Daemon, Profile, Scratch};
use crate::process::{capture, run as run_command};
use crate::system::System;

/// What the rows of so many steps have in their names.
pub const TEN_STEPS: &str = "ten RUN steps";
const STEPS: usize = 10;
/// Stages of the diamond, without its top and its bottom.
const SIDES: usize = 10;
/// An image with a C compiler.
const COMPILER: &str = "bench-compiler:1";

/// How much is measured.
pub struct Plan {
    runs: usize,
    /// Files of the large context.
    files: usize,
    /// Megabytes of the large file.
    large: u64,
    /// Source files of the application.
    sources: usize,
    profile: Profile,
}

impl Plan {
    pub fn full(runs: usize) -> Plan {
        Plan {
            runs,
            files: 50_000,
            large: 1024,
            sources: 150,
            profile: Profile::Release,
        }
    }

    pub fn rehearsal() -> Plan {
        Plan {
            runs: 1,
            files: 1_000,
            large: 16,
            sources: 5,
            profile: Profile::Development,
        }
    }
}

/// One side: its client, and a number that makes each build differ from the ones before.
struct Side<'a> {
    client: Box<dyn Fn(&[&str]) -> Command + 'a>,
    /// What builds with it.
    build: &'a [&'a str],
    count: Cell<u64>,
}

impl<'a> Side<'a> {
    fn of(build: &'a [&'a str], client: impl Fn(&[&str]) -> Command + 'a) -> Side<'a> {
        Side {
            client: Box::new(client),
            build,
            count: Cell::new(0),
        }
    }

    fn build(&self, context: &Path, options: &[&str]) -> Command {
        let context = context.display().to_string();
        let args = [self.build, &["-q"], options, &[context.as_str()]].concat();
        (self.client)(&args)
    }

    /// Empties the cache of builds.
    fn forget(&self) {
        must(capture(&mut (self.client)(&["builder", "prune", "-af"])).map(|_| ()));
    }

    fn next(&self) -> u64 {
        self.count.set(self.count.get() + 1);
        self.count.get()
    }
}

/// Preparing is no part of what is measured, and a row cannot go on without it.
#[allow(
    clippy::panic,
    reason = "a benchmark without its files has nothing to measure"
)]
fn must<T>(result: Result<T>) -> T {
    result.unwrap_or_else(|error| panic!("preparing a benchmark: {error:#}"))
}

pub fn run(plan: &Plan, words: &[String]) -> Result<()> {
    let binary = fixture::binary_as(plan.profile)?;
    let scratch = Scratch::new("berth-bench")?;
    let tar = fixture::root_filesystem(&scratch)?;
    let today = Today::fetch(&scratch.0)?;
    let peer = Peer::start(&scratch.0)?;
    let socket = peer.socket();
    let ours_dir = scratch.join("ours");
    std::fs::create_dir_all(&ours_dir)?;
    let ours = Daemon::start(&binary, &ours_dir)?;
    for command in [&mut peer.client(&["import"]), &mut ours.client(&["import"])] {
        capture(command.arg(&tar).arg(IMAGE))?;
    }
    let sides = [
        Side::of(&["buildx", "build"], |args: &[&str]| today.client(&socket, args)),
        Side::of(&["build"], |args: &[&str]| ours.client(args)),
    ];
    let old = Side::of(&["build"], |args: &[&str]| peer.client(args));
    let files = Files {
        scratch: &scratch,
        plan,
    };
    let mut rows = rows(&sides, &old, &files);
    rows.retain(|row| words.is_empty() || words.iter().any(|word| row.name.contains(word.as_str())));
    ensure!(!rows.is_empty(), "no build has {words:?} in its name");
    let [client, plugin] = today.versions()?;
    println!(
        "{}\n",
        fixture::machine(&[("docker", peer.version()?), client, plugin])?
    );
    pair::print(&rows, plan.runs)?;
    drop(rows);
    drop((sides, old));
    ours.clean_up()
}

/// The same work for both sides.
fn row<'a>(
    name: &'a str,
    goal: f64,
    [peer, ours]: &'a [Side<'a>; 2],
    work: impl Fn(&Side<'a>, usize) -> Command + Clone + 'a,
) -> Row<'a> {
    Row {
        goal: Some(goal),
        ..pair(name, peer, ours, work)
    }
}

fn pair<'a>(
    name: &'a str,
    peer: &'a Side<'a>,
    ours: &'a Side<'a>,
    work: impl Fn(&Side<'a>, usize) -> Command + Clone + 'a,
) -> Row<'a> {
    let other = work.clone();
    Row {
        name,
        peer: Box::new(move || work(peer, 0)),
        ours: Box::new(move || other(ours, 1)),
        goal: None,
    }
}

fn rows<'a>(sides: &'a [Side<'a>; 2], old: &'a Side<'a>, files: &'a Files<'a>) -> Vec<Row<'a>> {
    let [_, ours] = sides;
    vec![
        row("ten RUN steps, no cache", 1.0 / 30.0, sides, |side, _| {
            side.build(&must(files.steps()), &["--no-cache"])
        }),
        row("ten RUN steps, cached", 1.0 / 40.0, sides, |side, _| {
            side.build(&must(files.steps()), &[])
        }),
        pair("ten RUN steps, no cache, old client", old, ours, |side, _| {
            side.build(&must(files.steps()), &["--no-cache"])
        }),
        pair("ten RUN steps, cached, old client", old, ours, |side, _| {
            side.build(&must(files.steps()), &[])
        }),
        row("diamond of twelve stages, no cache", 1.0, sides, |side, _| {
            side.build(&must(files.diamond()), &["--no-cache"])
        }),
        row(
            "context of 50,000 files, first time",
            0.5,
            sides,
            |side, number| {
                let context = must(files.many(number));
                side.forget();
                side.build(&context, &["--no-cache"])
            },
        ),
        row(
            "context of 50,000 files, unchanged",
            0.5,
            sides,
            |side, number| side.build(&must(files.many(number)), &[]),
        ),
        row(
            "context of 50,000 files, one changed",
            0.5,
            sides,
            |side, number| {
                let context = must(files.many(number));
                must(
                    std::fs::write(context.join("d0/f0"), side.next().to_string()).context("changing a file"),
                );
                side.build(&context, &[])
            },
        ),
        row("COPY of 1 GiB", 0.5, sides, |side, number| {
            side.build(&must(files.large(number)), &["--no-cache"])
        }),
        row("application of 150 C files, cold", 1.0, sides, |side, number| {
            let context = must(files.application(side, number));
            side.forget();
            side.build(&context, &["--no-cache"])
        }),
        row(
            "application of 150 C files, one line changed",
            1.0,
            sides,
            |side, number| {
                let context = must(files.application(side, number));
                let source = format!("int part0(void) {{ return {}; }}\n", side.next());
                must(std::fs::write(context.join("part0.c"), source).context("changing a source"));
                side.build(&context, &[])
            },
        ),
        row("save of an image of 1 GiB", 0.5, sides, |side, number| {
            let context = must(files.large(number));
            must(capture(&mut side.build(&context, &["-t", "large:1"])).map(|_| ()));
            (side.client)(&["save", "-o", "/dev/null", "large:1"])
        }),
        row(
            "result of 1 GiB as an archive (-o)",
            0.5,
            sides,
            |side, number| {
                let context = must(files.large(number));
                must(capture(&mut side.build(&context, &[])).map(|_| ()));
                let to = files.scratch.join(&format!("archive{number}"));
                side.build(&context, &["-o", &format!("type=tar,dest={}", to.display())])
            },
        ),
    ]
}

/// What is built, made at first use. Each side has its own where it changes.
struct Files<'a> {
    scratch: &'a Scratch,
    plan: &'a Plan,
}

impl Files<'_> {
    /// The directory `name`, filled by `fill` when it is new.
    fn once(&self, name: &str, fill: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
        let dir = self.scratch.join(name);
        if !dir.exists() {
            std::fs::create_dir_all(&dir)?;
            fill(&dir)?;
        }
        Ok(dir)
    }

    fn steps(&self) -> Result<PathBuf> {
        self.once("steps", |dir| {
            let steps: String = (0..STEPS).map(|n| format!("RUN echo {n} > /tmp/{n}\n")).collect();
            dockerfile(dir, &format!("FROM {IMAGE}\n{steps}"))
        })
    }

    fn diamond(&self) -> Result<PathBuf> {
        self.once("diamond", |dir| {
            let mut text = format!("FROM {IMAGE} AS top\nRUN echo top > /top\n");
            for n in 0..SIDES {
                text.push_str(&format!(
                    "FROM top AS side{n}\nRUN sleep 0.2; echo {n} > /side{n}\n"
                ));
            }
            text.push_str("FROM top\n");
            for n in 0..SIDES {
                text.push_str(&format!("COPY --from=side{n} /side{n} /\n"));
            }
            dockerfile(dir, &text)
        })
    }

    fn many(&self, side: usize) -> Result<PathBuf> {
        self.once(&format!("many{side}"), |dir| {
            for n in 0..self.plan.files {
                let path = dir.join(format!("d{}/f{n}", n / 500));
                if n % 500 == 0 {
                    std::fs::create_dir_all(path.parent().context("a file lies in a directory")?)?;
                }
                std::fs::write(path, format!("file {n}\n").repeat(8))?;
            }
            dockerfile(dir, &format!("FROM {IMAGE}\nCOPY . /all\n"))
        })
    }

    fn large(&self, side: usize) -> Result<PathBuf> {
        self.once(&format!("large{side}"), |dir| {
            // What cannot be compressed, so that nobody is measured by how well zeros pack.
            let bytes = format!("count={}", self.plan.large);
            let output = format!("of={}", dir.join("large").display());
            run_command(Command::new("dd").args([
                "if=/dev/urandom",
                "bs=1M",
                &bytes,
                &output,
                "status=none",
            ]))?;
            dockerfile(dir, &format!("FROM {IMAGE}\nCOPY large /large\n"))
        })
    }

    /// A program of many sources, compiled with a cache of objects.
    fn application(&self, side: &Side<'_>, number: usize) -> Result<PathBuf> {
        let tar = self.compiler()?;
        self.once(&format!("application{number}"), |dir| {
            capture((side.client)(&["import"]).arg(tar.display().to_string()).arg(COMPILER))?;
            let mut main = String::new();
            let mut sum = "0".to_owned();
            for n in 0..self.plan.sources {
                let body: String = (0..40).map(|f| format!("int f{n}_{f}(int x) {{ return x * {f} + {n}; }}\n")).collect();
                std::fs::write(dir.join(format!("part{n}.c")), format!("int part{n}(void) {{ return {n}; }}\n{body}"))?;
                main.push_str(&format!("int part{n}(void);\n"));
                sum.push_str(&format!(" + part{n}()"));
            }
            std::fs::write(dir.join("main.c"), format!("{main}int main(void) {{ return ({sum}) & 0; }}\n"))?;
            std::fs::write(
                dir.join("Makefile"),
                "OBJECTS := $(patsubst %.c,/cache/%.o,$(wildcard *.c))\n/app: $(OBJECTS)\n\tgcc -o $@ $^\n\
                 /cache/%.o: %.c\n\t@cmp -s $< /cache/$< && touch $@ || (gcc -O1 -c -o $@ $< && cp $< /cache/$<)\n\
                 .PHONY: FORCE\n$(OBJECTS): FORCE\n",
            )?;
            dockerfile(
                dir,
                &format!(
                    "FROM {COMPILER} AS build\nWORKDIR /src\nCOPY . .\n\
                     RUN --mount=type=cache,target=/cache make -s /app\nFROM {IMAGE}\nCOPY --from=build /app /app\n"
                ),
            )
        })
    }

    /// A root filesystem with a C compiler, from the package sources of this machine.
    fn compiler(&self) -> Result<PathBuf> {
        let tar = self.scratch.join("compiler.tar");
        if !tar.exists() {
            let tools = ["--variant=apt", "--include=gcc,libc6-dev,make,diffutils"];
            System::of_this_machine()?.make(&tools, &tar)?;
        }
        Ok(tar)
    }
}

fn dockerfile(dir: &Path, text: &str) -> Result<()> {
    Ok(std::fs::write(dir.join("Dockerfile"), text)?)
}
