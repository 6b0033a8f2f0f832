//! `cargo xtask bench supervision [ROW…]`: many containers, many execs, memory, output: where an engine that is quick once
//! may not be quick for ever.
//!
//! Rows are chosen by name, all of them when none is. `BERTH_BENCH_SCALE=10` does a tenth of the work, for a try. Where
//! dockerd is installed it does the same work beside ours, one after the other.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};

use super::docker::Peer;
use super::engine::IMAGE;
use super::fixture;
use super::memory::{SETTLED, monitors, pss};
use super::pair::{median, milliseconds, timed};
use crate::engine::{Daemon, Scratch};
use crate::interrupt::{self, Watched};
use crate::process::{capture, exists, output};

/// Times of one container among others are medians of so many.
const RUNS: usize = 10;
/// Starts of a daemon, of which the median counts.
const RESTARTS: usize = 5;
/// Whoever takes longer has failed.
const PATIENCE: &str = "300";
/// The same of a daemon that starts.
const START_PATIENCE: Duration = Duration::from_secs(300);
/// Without it dockerd ends its containers when it ends.
const LIVE_RESTORE: &[&str] = &["--live-restore"];

type Row = (&'static str, fn(&mut Bench) -> Result<()>);

const ROWS: &[Row] = &[
    ("first-line", first_line),
    ("at-once", at_once),
    ("growth", growth),
    ("restart-stopped", restart_stopped),
    ("restart-running", restart_running),
    ("memory", memory),
    ("output", output_of_a_container),
    ("execs", execs),
];

struct Bench {
    ours: Daemon,
    peer: Option<Peer>,
    /// Percent.
    scale: usize,
}

type Client<'a> = &'a (dyn Fn(&[&str]) -> Command + Sync);

impl Bench {
    fn scaled(&self, number: usize) -> usize {
        (number * self.scale / 100).max(2)
    }

    /// Does the work on each side.
    fn each(&self, mut work: impl FnMut(&str, Client<'_>) -> Result<()>) -> Result<()> {
        if let Some(peer) = &self.peer {
            work("docker", &|args| peer.client(args))?;
        }
        work("berth", &|args| self.ours.client(args))
    }
}

pub fn run(names: &[String]) -> Result<()> {
    if let Some(unknown) = names.iter().find(|name| ROWS.iter().all(|(row, _)| row != name)) {
        let known: Vec<&str> = ROWS.iter().map(|(name, _)| *name).collect();
        bail!("there is no row {unknown:?}: {}", known.join(", "));
    }
    let binary = fixture::binary()?;
    let scale = std::env::var("BERTH_BENCH_SCALE").map_or(Ok(100), |text| text.parse())?;
    let scratch = Scratch::new("berth-bench")?;
    let tar = fixture::root_filesystem(&scratch)?;
    let peer = match exists("dockerd") {
        true => Some(Peer::start(&scratch.0)?),
        false => None,
    };
    let versions: Vec<(&str, String)> = match &peer {
        Some(peer) => vec![("docker", peer.version()?)],
        None => Vec::new(),
    };
    println!("{}\n", fixture::machine(&versions)?);
    println!("| what | side | |\n|---|---|---|");
    let mut bench = Bench {
        ours: fresh(&binary, &scratch, &tar)?,
        peer,
        scale,
    };
    if let Some(peer) = &bench.peer {
        capture(peer.client(&["import"]).arg(&tar).arg(IMAGE))?;
    }
    for (name, work) in ROWS {
        if names.is_empty() || names.iter().any(|wanted| wanted == name) {
            work(&mut bench)?;
            bench.each(|_, client| remove_all(client))?;
        }
    }
    bench.ours.clean_up()
}

fn fresh(binary: &Path, scratch: &Scratch, tar: &Path) -> Result<Daemon> {
    let dir = scratch.join("ours");
    std::fs::create_dir_all(&dir)?;
    let daemon = Daemon::start(binary, &dir)?;
    capture(daemon.client(&["import"]).arg(tar).arg(IMAGE))?;
    Ok(daemon)
}

fn say(what: &str, side: &str, value: &str) {
    println!("| {what} | {side} | {value} |");
}

fn remove_all(client: Client<'_>) -> Result<()> {
    let ids = capture(&mut client(&["ps", "-aq"]))?;
    let ids: Vec<&str> = ids.split_whitespace().collect();
    for some in ids.chunks(50) {
        capture(client(&["rm", "-f", "-v"]).args(some))?;
    }
    Ok(())
}

/// From `run -d` to the moment at which `logs` shows the first line.
fn first_line(bench: &mut Bench) -> Result<()> {
    bench.each(|side, client| {
        let mut times = Vec::new();
        for turn in 0..=RUNS {
            let start = Instant::now();
            let id = capture(&mut client(&[
                "run",
                "-d",
                IMAGE,
                "sh",
                "-c",
                "echo first; sleep 1000",
            ]))?;
            let id = id.trim();
            let mut logs = client(&["logs", "-f", id]).stdout(Stdio::piped()).spawn()?;
            let watched = Watched::new(&logs);
            let mut line = String::new();
            if let Some(stdout) = logs.stdout.take() {
                BufReader::new(stdout).read_line(&mut line)?;
            }
            drop(watched);
            ensure!(line == "first\n", "{side} logs {line:?}");
            if turn > 0 {
                times.push(start.elapsed());
            }
            capture(&mut client(&["rm", "-f", id]))?;
        }
        say(
            "run -d until the first log line is readable",
            side,
            &milliseconds(median(times)),
        );
        Ok(())
    })
}

/// Many clients start a container each, all at the same moment.
fn at_once(bench: &mut Bench) -> Result<()> {
    let count = bench.scaled(100);
    bench.each(|side, client| {
        let start = Instant::now();
        let times = std::thread::scope(|scope| {
            let clients: Vec<_> = (0..count)
                .map(|_| scope.spawn(|| timed(client(&["run", "-d", IMAGE, "sleep", "100000"]))))
                .collect();
            clients
                .into_iter()
                .map(|client| client.join().unwrap_or_else(|_| bail!("a client panicked")))
                .collect::<Result<Vec<Duration>>>()
        })?;
        let total = start.elapsed();
        let mut times = times;
        times.sort();
        let p99 = times.get(times.len() * 99 / 100).copied().unwrap_or_default();
        let value = format!("{} in all, p99 {}", milliseconds(total), milliseconds(p99));
        say(&format!("{count} containers at once"), side, &value);
        remove_all(client)
    })
}

fn create_up_to(client: Client<'_>, from: usize, to: usize) -> Result<()> {
    for number in from..to {
        let name = format!("many-{number}");
        capture(&mut client(&[
            "create", "--name", &name, IMAGE, "sleep", "100000",
        ]))?;
    }
    Ok(())
}

/// What one more costs among few and among many.
fn growth(bench: &mut Bench) -> Result<()> {
    let (few, many) = (10, bench.scaled(1000).max(20));
    bench.each(|side, client| {
        let measure = || -> Result<[Duration; 6]> {
            let mut times: [Vec<Duration>; 6] = Default::default();
            for _ in 0..RUNS {
                capture(&mut client(&[
                    "create", "--name", "more", IMAGE, "sleep", "100000",
                ]))?;
                let commands: [&[&str]; 6] = [
                    &["ps"],
                    &["ps", "-a", "--filter", "name=more"],
                    &["ps", "-a"],
                    &["inspect", "more"],
                    &["start", "more"],
                    &["stop", "-t", "0", "more"],
                ];
                for (list, command) in times.iter_mut().zip(commands) {
                    list.push(timed(client(command))?);
                }
                capture(&mut client(&["rm", "-f", "more"]))?;
            }
            Ok(times.map(median))
        };
        create_up_to(client, 0, few)?;
        let before = measure()?;
        create_up_to(client, few, many)?;
        let after = measure()?;
        let rows = [
            "ps beside one more",
            "ps -a of one more",
            "ps -a of all and one more",
            "inspect of one more",
            "start of one more",
            "stop of one more",
        ];
        for (what, (few_time, many_time)) in rows.iter().zip(before.iter().zip(after)) {
            let ratio = many_time.as_secs_f64() / few_time.as_secs_f64();
            let value = format!(
                "{} among {few}, {} among {many}: {ratio:.2} times",
                milliseconds(*few_time),
                milliseconds(many_time)
            );
            say(what, side, &value);
        }
        remove_all(client)
    })
}

/// What a daemon answers, when it answers.
fn answer(socket: &str, path: &str) -> Result<String> {
    let mut stream = UnixStream::connect(socket.trim_start_matches("unix://"))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: bench\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    match text.split_once("\r\n\r\n") {
        Some((head, body)) if head.split(' ').nth(1) == Some("200") => Ok(body.to_owned()),
        _ => bail!("no good answer: {text}"),
    }
}

/// Waits until the daemon at this socket says that it is there, and lists so many containers, of which so many run.
fn lists(socket: &str, all: usize, running: usize) -> Result<()> {
    let count = |path: &str| -> Result<usize> {
        let list: Vec<serde_json::Value> = serde_json::from_str(&answer(socket, path)?)?;
        Ok(list.len())
    };
    let deadline = Instant::now() + START_PATIENCE;
    loop {
        interrupt::check()?;
        let there = answer(socket, "/_ping").and_then(|_| count("/containers/json?all=1"));
        match there {
            Ok(found) => {
                ensure!(found == all, "{found} containers are listed, and there are {all}");
                let found = count("/containers/json")?;
                ensure!(
                    found == running,
                    "{found} containers run, and there were {running}"
                );
                return Ok(());
            }
            Err(error) if Instant::now() > deadline => return Err(error),
            Err(_) => std::thread::sleep(Duration::from_millis(1)),
        }
    }
}

/// From the start of the program until it lists all containers.
fn restarts(bench: &mut Bench, what: &str, count: usize, running: usize, args: &[&str]) -> Result<()> {
    let Bench { ours, peer, .. } = bench;
    if let Some(peer) = peer {
        let socket = peer.socket();
        let times: Result<Vec<Duration>> = (0..RESTARTS)
            .map(|_| peer.restart(args, || lists(&socket, count, running)))
            .collect();
        say(what, "docker", &milliseconds(median(times?)));
    }
    let socket = ours.socket.clone();
    let times: Result<Vec<Duration>> = (0..RESTARTS)
        .map(|_| ours.restart(|| lists(&socket, count, running)))
        .collect();
    say(what, "berth", &milliseconds(median(times?)));
    Ok(())
}

fn restart_stopped(bench: &mut Bench) -> Result<()> {
    let count = bench.scaled(1000);
    bench.each(|_, client| create_up_to(client, 0, count))?;
    restarts(
        bench,
        &format!("daemon start with {count} stopped containers"),
        count,
        0,
        &[],
    )
}

fn run_idle(client: Client<'_>, from: usize, to: usize) -> Result<()> {
    for number in from..to {
        let name = format!("idle-{number}");
        capture(&mut client(&[
            "run", "-d", "--name", &name, IMAGE, "sleep", "100000",
        ]))?;
    }
    Ok(())
}

fn restart_running(bench: &mut Bench) -> Result<()> {
    let count = bench.scaled(200);
    if let Some(peer) = &mut bench.peer {
        let socket = peer.socket();
        peer.restart(LIVE_RESTORE, || lists(&socket, 0, 0))?;
    }
    bench.each(|_, client| run_idle(client, 0, count))?;
    restarts(
        bench,
        &format!("daemon start with {count} running containers"),
        count,
        count,
        LIVE_RESTORE,
    )?;
    bench.each(|_, client| remove_all(client))?;
    if let Some(peer) = &mut bench.peer {
        let socket = peer.socket();
        peer.restart(&[], || lists(&socket, 0, 0))?;
    }
    Ok(())
}

/// Proportional set sizes of processes that have nothing to do.
fn memory(bench: &mut Bench) -> Result<()> {
    let mut running = 0;
    for count in [0, 10, bench.scaled(200).max(12)] {
        run_idle(&|args| bench.ours.client(args), running, count)?;
        running = count;
        let monitors = monitors(&bench.ours)?;
        std::thread::sleep(SETTLED);
        ensure!(
            monitors.len() == count,
            "{count} containers have {} monitors",
            monitors.len()
        );
        let of_monitors: u64 = monitors.iter().map(|pid| pss(*pid)).sum();
        let each = of_monitors as f64 / 1024.0 / count.max(1) as f64;
        let value = format!(
            "daemon {:.1} MiB, each monitor {each:.2} MiB",
            pss(bench.ours.pid()) as f64 / 1024.0
        );
        say(
            &format!("memory (PSS) with {count} idle containers"),
            "berth",
            &value,
        );
    }
    Ok(())
}

/// Lines of 100 bytes, written by a container, logged, and followed by a client to the last byte.
fn output_of_a_container(bench: &mut Bench) -> Result<()> {
    let mebibytes = bench.scaled(256);
    let bytes = mebibytes << 20;
    bench.each(|side, client| {
        let line = "0123456789".repeat(9) + "012345678";
        let print = format!("busybox yes {line} | busybox head -c {bytes}");
        let script = format!(
            "id=$(\"$0\" run -d --network none --log-driver json-file --log-opt max-size=100g {IMAGE} sh -c '{print}') &&
             count=$(\"$0\" logs -f $id | wc -c) && \"$0\" rm -f $id && [ $count -eq {bytes} ]"
        );
        let command = client(&[]);
        let start = Instant::now();
        let done = output(
            Command::new("timeout")
                .args([PATIENCE, "sh", "-c", &script])
                .arg(command.get_program())
                .envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))))
                .stdin(Stdio::null()),
        )?;
        let took = start.elapsed();
        let value = match done.status.success() {
            true => format!("{} ({:.0} MiB/s)", milliseconds(took), mebibytes as f64 / took.as_secs_f64()),
            false => format!("not whole after {}", milliseconds(took)),
        };
        say(&format!("{mebibytes} MiB of output, logged and followed"), side, &value);
        Ok(())
    })
}

/// Memory must not grow with the number of execs.
fn execs(bench: &mut Bench) -> Result<()> {
    let count = bench.scaled(10_000);
    run_idle(&|args| bench.ours.client(args), 0, 1)?;
    let exec = |times: usize| -> Result<()> {
        for _ in 0..times {
            capture(&mut bench.ours.client(&["exec", "idle-0", "true"]))?;
        }
        Ok(())
    };
    let sizes = || -> Result<(u64, u64)> {
        let monitors = monitors(&bench.ours)?;
        Ok((pss(bench.ours.pid()), monitors.iter().map(|pid| pss(*pid)).sum()))
    };
    // What the first ones bring stays.
    let warm = count / 10;
    exec(warm)?;
    let before = sizes()?;
    let start = Instant::now();
    exec(count - warm)?;
    let each = start.elapsed() / u32::try_from(count - warm)?;
    let after = sizes()?;
    let value = format!(
        "{} each; daemon {} to {} KiB, monitor {} to {} KiB",
        milliseconds(each),
        before.0,
        after.0,
        before.1,
        after.1
    );
    say(&format!("{count} execs in one container"), "berth", &value);
    Ok(())
}
