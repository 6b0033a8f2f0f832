//! `berth runtime` against the field's runtimes, each with the same bundle: all namespaces, the engine's own default
//! system call filter, a control group.
//!
//! crun refuses hybrid control groups even where the version 2 tree has no controllers, so everything here runs in a
//! mount namespace without that tree: for each runtime alike, and without a wrapper around the single command.

use std::collections::BTreeMap;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use super::engine::IMAGE;
use super::fixture;
use super::pair::{median, milliseconds, timed};
use crate::engine::{Daemon, Scratch};
use crate::process::{capture, exists, output, run as run_command};

/// Set for ourselves once the version 2 tree of a hybrid host is out of sight.
const INSIDE: &str = "BERTH_BENCH_INSIDE";
const UNIFIED: &str = "/sys/fs/cgroup/unified";
const MANY: usize = 100;
const AT_ONCE: usize = 16;

/// A runtime and how it is called.
struct Runtime {
    name: &'static str,
    program: PathBuf,
    words: Vec<String>,
}

impl Runtime {
    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.words).args(args);
        command
    }
}

/// The row below which no engine gets that starts its containers with these runtimes.
pub const FLOOR: &str = "run to exit";
const EXEC: &str = "exec";
const PEAK: &str = "peak memory of run";

/// `words` choose the rows whose names hold one of them.
pub fn run(runs: usize, words: &[String]) -> Result<()> {
    let chosen = |name: &str| words.is_empty() || words.iter().any(|word| name.contains(word.as_str()));
    if std::env::var_os(INSIDE).is_none() && Path::new(UNIFIED).exists() {
        let script = format!("umount {UNIFIED} && exec \"$0\" \"$@\"");
        let error = Command::new("unshare")
            .args(["--mount", "sh", "-c", &script])
            .arg(std::env::current_exe()?)
            .args(["bench", "runtime", &runs.to_string()])
            .args(words)
            .env(INSIDE, "1")
            .exec();
        return Err(error).context("cannot run unshare");
    }
    let binary = fixture::binary()?;
    let scratch = Scratch::new("berth-bench-runtime")?;
    let tar = fixture::root_filesystem(&scratch)?;
    let ours_dir = scratch.join("ours");
    std::fs::create_dir_all(&ours_dir)?;
    let daemon = Daemon::start(&binary, &ours_dir)?;
    capture(daemon.client(&["import"]).arg(&tar).arg(IMAGE))?;
    let bundle = Bundle::make(&scratch, &tar, &default_filter(&daemon, &ours_dir)?)?;
    let runtimes = runtimes(&binary, &scratch)?;
    let mut versions = Vec::new();
    for runtime in runtimes.iter().filter(|r| r.name != "berth") {
        let text = capture(&mut runtime.command(&["--version"]))?;
        let version = text
            .split_whitespace()
            .find(|w| w.starts_with(|c: char| c.is_ascii_digit()));
        versions.push((runtime.name, version.unwrap_or("?").to_owned()));
    }
    println!("{}\n", fixture::machine(&versions)?);
    let names: Vec<&str> = runtimes.iter().map(|r| r.name).collect();
    println!("| what | {} | against crun |", names.join(" | "));
    println!("|---|{}---|", "---|".repeat(names.len()));
    let row = |what: &str, work: &mut dyn FnMut(&Runtime, usize) -> Result<Duration>| -> Result<()> {
        if !chosen(what) {
            return Ok(());
        }
        let mut times: BTreeMap<&str, Vec<Duration>> = BTreeMap::new();
        for turn in 0..=runs {
            for runtime in &runtimes {
                let time = work(runtime, turn).with_context(|| format!("{}: {what}", runtime.name))?;
                if turn > 0 {
                    times.entry(runtime.name).or_default().push(time);
                }
            }
        }
        let medians: BTreeMap<&str, Duration> = times.into_iter().map(|(n, t)| (n, median(t))).collect();
        let of = |name: &str| medians.get(name).copied().unwrap_or_default();
        let cells: Vec<String> = names.iter().map(|n| milliseconds(of(n))).collect();
        println!(
            "| {what} | {} | {:.2} |",
            cells.join(" | "),
            of("berth").as_secs_f64() / of("crun").as_secs_f64()
        );
        Ok(())
    };
    let id = |runtime: &Runtime, turn: usize| format!("berth-bench-{}-{turn}", runtime.name);
    row("create, start, delete", &mut |runtime, turn| {
        bundle.create_start_delete(runtime, &id(runtime, turn))
    })?;
    row(FLOOR, &mut |runtime, turn| {
        timed(bundle.run(runtime, &id(runtime, turn)))
    })?;
    if chosen(EXEC) {
        for runtime in &runtimes {
            run_command(&mut bundle.create(runtime, &format!("{}-idle", id(runtime, 0)), "idle"))?;
            run_command(&mut runtime.command(&["start", &format!("{}-idle", id(runtime, 0))]))?;
        }
        let executed = row(EXEC, &mut |runtime, _| {
            timed(runtime.command(&["exec", &format!("{}-idle", id(runtime, 0)), "/bin/true"]))
        });
        for runtime in &runtimes {
            run_command(&mut runtime.command(&["delete", "--force", &format!("{}-idle", id(runtime, 0))]))?;
        }
        executed?;
    }
    for at_once in [1, AT_ONCE] {
        if chosen(&many_name(at_once)) {
            many(&bundle, &runtimes, at_once)?;
        }
    }
    if chosen(PEAK) {
        peak(&bundle, &runtimes)?;
    }
    let mut whole = Vec::new();
    for _ in 0..runs {
        whole.push(timed(daemon.client(&[
            "run",
            "--rm",
            "--network",
            "none",
            IMAGE,
            "true",
        ]))?);
    }
    println!(
        "\nThe whole engine, `berth run --rm --network none`, client included: {}.",
        milliseconds(median(whole))
    );
    daemon.clean_up()
}

/// Where a youki is looked for, which is in no package of Debian.
const YOUKI: &str = "target/peers/bin/youki";
/// What puts it there. Without these features it can neither filter system calls nor use the first control groups.
const GET_YOUKI: &str = "cargo install youki --locked --features v1,v2,systemd,seccomp --root target/peers";

/// Those that are here.
fn runtimes(binary: &Path, scratch: &Scratch) -> Result<Vec<Runtime>> {
    let mut found = Vec::new();
    let youki = Some(crate::process::root().join(YOUKI)).filter(|program| program.is_file());
    if youki.is_none() {
        println!("youki is left out, there is no {YOUKI}: {GET_YOUKI} (needs libseccomp-dev)\n");
    }
    // `youki run` waits for SIGCHLD, and waits for ever when a short program ended before it began to. A signal that
    // was blocked from the start is kept for it. This costs youki the start of env, about a millisecond.
    let kept = |program: PathBuf| vec!["--block-signal=CHLD".to_owned(), program.display().to_string()];
    let candidates = [
        ("crun", Some(PathBuf::from("crun")), Vec::new()),
        ("runc", Some(PathBuf::from("runc")), Vec::new()),
        (
            "youki",
            youki.as_ref().map(|_| PathBuf::from("env")),
            youki.map(kept).unwrap_or_default(),
        ),
        ("berth", Some(binary.to_owned()), vec!["runtime".to_owned()]),
    ];
    for (name, program, mut words) in candidates {
        let Some(program) = program else { continue };
        ensure!(
            program.is_file() || exists(&program.display().to_string()),
            "{name} is not installed"
        );
        let state = scratch.join(&format!("state-{name}"));
        std::fs::create_dir_all(&state)?;
        words.extend(["--root".to_owned(), state.display().to_string()]);
        found.push(Runtime { name, program, words });
    }
    Ok(found)
}

/// The default filter as the engine writes it into a bundle.
fn default_filter(daemon: &Daemon, dir: &Path) -> Result<serde_json::Value> {
    let arguments = ["run", "-d", "--network", "none", IMAGE, "sleep", "1000"];
    let id = capture(&mut daemon.client(&arguments))?;
    let config = dir.join("root/containers").join(id.trim()).join("config.json");
    let text =
        std::fs::read_to_string(&config).with_context(|| format!("cannot read {}", config.display()))?;
    capture(&mut daemon.client(&["rm", "-f", id.trim()]))?;
    let document: serde_json::Value = serde_json::from_str(&text)?;
    let filter = document["linux"]["seccomp"].clone();
    ensure!(filter.is_object(), "{} has no filter", config.display());
    Ok(filter)
}

/// One root filesystem, and a configuration for each program to run in it.
struct Bundle {
    /// Runs `true`.
    short: PathBuf,
    /// Runs `sleep`.
    idle: PathBuf,
}

impl Bundle {
    fn make(scratch: &Scratch, tar: &Path, filter: &serde_json::Value) -> Result<Bundle> {
        let rootfs = scratch.join("rootfs");
        std::fs::create_dir_all(&rootfs)?;
        run_command(Command::new("tar").arg("-xf").arg(tar).arg("-C").arg(&rootfs))?;
        let bundle = |name: &str, args: &[&str]| -> Result<PathBuf> {
            let dir = scratch.join(name);
            std::fs::create_dir_all(&dir)?;
            run_command(Command::new("runc").arg("spec").current_dir(&dir))?;
            let config = dir.join("config.json");
            let mut document: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&config)?)?;
            document["process"]["terminal"] = false.into();
            document["process"]["args"] = serde_json::json!(args);
            document["root"]["path"] = rootfs.display().to_string().into();
            document["linux"]["seccomp"] = filter.clone();
            std::fs::write(&config, document.to_string())?;
            Ok(dir)
        };
        Ok(Bundle {
            short: bundle("short", &["/bin/true"])?,
            idle: bundle("idle", &["/bin/sleep", "1000"])?,
        })
    }

    fn dir(&self, which: &str) -> String {
        let dir = if which == "idle" { &self.idle } else { &self.short };
        dir.display().to_string()
    }

    fn run(&self, runtime: &Runtime, id: &str) -> Command {
        runtime.command(&["run", "--bundle", &self.dir("short"), id])
    }

    fn create(&self, runtime: &Runtime, id: &str, which: &str) -> Command {
        runtime.command(&["create", "--bundle", &self.dir(which), id])
    }

    /// The three commands; the wait between them, until the program has ended, counts for nobody.
    fn create_start_delete(&self, runtime: &Runtime, id: &str) -> Result<Duration> {
        // What the container inherits must not keep a pipe of ours open.
        let clocked = |mut command: Command| -> Result<Duration> {
            let start = Instant::now();
            run_command(&mut command)?;
            Ok(start.elapsed())
        };
        let mut total = clocked(self.create(runtime, id, "short"))?;
        total += clocked(runtime.command(&["start", id]))?;
        let deadline = Instant::now() + Duration::from_secs(10);
        while !capture(&mut runtime.command(&["state", id]))?.contains("\"stopped\"") {
            ensure!(
                Instant::now() < deadline,
                "{} does not see that {id} ended",
                runtime.name
            );
        }
        total += clocked(runtime.command(&["delete", id]))?;
        Ok(total)
    }
}

fn many_name(at_once: usize) -> String {
    format!("{MANY} containers, {at_once} at a time")
}

/// Many containers, so many at a time; three rounds of each.
fn many(bundle: &Bundle, runtimes: &[Runtime], at_once: usize) -> Result<()> {
    let mut times: BTreeMap<&str, Vec<Duration>> = BTreeMap::new();
    for round in 0..3 {
        for runtime in runtimes {
            let next = AtomicUsize::new(0);
            let start = Instant::now();
            let failures: Vec<anyhow::Error> = std::thread::scope(|scope| {
                let workers: Vec<_> = (0..at_once)
                    .map(|_| {
                        scope.spawn(|| -> Result<()> {
                            loop {
                                let number = next.fetch_add(1, Ordering::Relaxed);
                                if number >= MANY {
                                    return Ok(());
                                }
                                let id = format!("berth-bench-{}-{at_once}-{round}-{number}", runtime.name);
                                timed(bundle.run(runtime, &id))?;
                            }
                        })
                    })
                    .collect();
                workers
                    .into_iter()
                    .filter_map(|worker| worker.join().ok()?.err())
                    .collect()
            });
            if let Some(failure) = failures.into_iter().next() {
                return Err(failure);
            }
            times.entry(runtime.name).or_default().push(start.elapsed());
        }
    }
    let medians: Vec<Duration> = runtimes
        .iter()
        .map(|r| median(times.remove(r.name).unwrap_or_default()))
        .collect();
    let of = |name: &str| {
        let at = runtimes.iter().position(|r| r.name == name);
        at.and_then(|at| medians.get(at)).copied().unwrap_or_default()
    };
    let cells: Vec<String> = medians.iter().map(|time| milliseconds(*time)).collect();
    println!(
        "| {} | {} | {:.2} |",
        many_name(at_once),
        cells.join(" | "),
        of("berth").as_secs_f64() / of("crun").as_secs_f64()
    );
    Ok(())
}

/// The largest resident set (getrusage(2)) of a runtime and the children it waited for, over `run`.
fn peak(bundle: &Bundle, runtimes: &[Runtime]) -> Result<()> {
    let mut cells = Vec::new();
    let page_size: f64 = capture(Command::new("getconf").arg("PAGESIZE"))?.trim().parse()?;
    for runtime in runtimes {
        let run = bundle.run(runtime, &format!("berth-bench-{}-peak", runtime.name));
        let mut command = Command::new("/bin/busybox");
        command
            .args(["time", "-v"])
            .arg(run.get_program())
            .args(run.get_args());
        let done = output(&mut command)?;
        let text = String::from_utf8_lossy(&done.stderr).into_owned();
        let line = text
            .lines()
            .find(|line| line.contains("Maximum resident set size"));
        let Some(kib) = line.and_then(|l| l.rsplit(' ').next()?.parse::<f64>().ok()) else {
            bail!("no resident set in what time printed:\n{text}");
        };
        // busybox takes the kernel's KiB for pages and multiplies them.
        cells.push(kib / 1024.0 / (page_size / 1024.0));
    }
    let of = |name: &str| {
        let at = runtimes.iter().position(|r| r.name == name);
        at.and_then(|at| cells.get(at)).copied().unwrap_or_default()
    };
    let texts: Vec<String> = cells.iter().map(|mib| format!("{mib:.1} MiB")).collect();
    println!(
        "| {PEAK} | {} | {:.2} |",
        texts.join(" | "),
        of("berth") / of("crun")
    );
    Ok(())
}
