//! Networks against Debian's dockerd and against a bridge with two veth pairs that nobody manages: what a packet costs, what
//! a name costs, and what joining, publishing and starting cost (packets: `traffic`); and what files cost on the mounts of a
//! container (`files`). Rows are chosen by name: `bench net 10 ports dns`.
//!
//! Everything that sends or asks runs in a container's own network namespace (entered by its process), so both engines
//! and the bare bridge are measured by the same programs.

use std::net::UdpSocket;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use super::docker::Peer;
use super::engine::IMAGE;
use super::files;
use super::fixture;
use super::pair::{self, Row, median, milliseconds, timed};
use super::traffic;
use crate::engine::{Daemon, Scratch};
use crate::process::{capture, output};

const ROWS: [&str; 9] = [
    "throughput",
    "requests",
    "first",
    "start",
    "connect",
    "ports",
    "many",
    "dns",
    "files",
];
/// Containers on one network in the row `many`.
const MANY: usize = 250;
const NETWORK: &str = "bench";
/// Queries per second at which names are to be quick.
const PACE: u32 = 1000;
/// Seconds of each measurement of throughput.
pub(super) const SECONDS: &str = "3";

/// One engine, or the other.
pub(super) struct Side<'a> {
    pub(super) name: &'static str,
    client: Box<dyn Fn(&[&str]) -> Command + 'a>,
    /// Where ports are published: the peer has a network namespace of its own.
    host: Option<String>,
}

impl Side<'_> {
    pub(super) fn ok(&self, args: &[&str]) -> Result<String> {
        Ok(capture(&mut (self.client)(args))?.trim().to_owned())
    }

    /// Starts a container that stays, and gives its process.
    pub(super) fn start(&self, name: &str, options: &[&str], words: &[&str]) -> Result<u32> {
        let head = ["run", "-d", "--name", name, "--network", NETWORK];
        self.ok(&[&head[..], options, &[IMAGE], words].concat())?;
        let pid = self.ok(&["inspect", "-f", "{{.State.Pid}}", name])?;
        pid.parse()
            .with_context(|| format!("{name} of {} has no process", self.name))
    }

    pub(super) fn address(&self, name: &str) -> Result<String> {
        let template = format!("{{{{(index .NetworkSettings.Networks {NETWORK:?}).IPAddress}}}}");
        self.ok(&["inspect", "-f", &template, name])
    }

    pub(super) fn remove(&self, names: &[&str]) -> Result<()> {
        self.ok(&[&["rm", "-f"], names].concat()).map(drop)
    }

    /// A program on the host that this side publishes on.
    pub(super) fn on_host(&self, program: &str) -> Command {
        match &self.host {
            None => Command::new(program),
            Some(namespace) => {
                let mut command = Command::new("nsenter");
                command.arg(format!("--net=/run/netns/{namespace}")).arg(program);
                command
            }
        }
    }
}

pub fn run(runs: usize, wanted: &[String]) -> Result<()> {
    if let Some(unknown) = wanted.iter().find(|row| !ROWS.contains(&row.as_str())) {
        bail!("bench net has no row {unknown:?}: {}", ROWS.join(", "));
    }
    let binary = fixture::binary()?;
    let scratch = Scratch::new("berth-bench-net")?;
    let tar = fixture::root_filesystem(&scratch)?;
    let peer = Peer::start(&scratch.0)?;
    let ours_dir = scratch.join("ours");
    std::fs::create_dir_all(&ours_dir)?;
    let daemon = Daemon::start(&binary, &ours_dir)?;
    let sides = [
        Side {
            name: "docker",
            client: Box::new(|args| peer.client(args)),
            host: Some(super::docker::netns()),
        },
        Side {
            name: "berth",
            client: Box::new(|args| daemon.client(args)),
            host: None,
        },
    ];
    for side in &sides {
        capture((side.client)(&["import"]).arg(&tar).arg(IMAGE))?;
        side.ok(&["network", "create", NETWORK])?;
    }
    println!("{}\n", fixture::machine(&[("docker", peer.version()?)])?);
    for row in ROWS {
        if !wanted.is_empty() && !wanted.iter().any(|name| name == row) {
            continue;
        }
        println!("## {row}\n");
        match row {
            "throughput" => traffic::throughput(&sides)?,
            "requests" => traffic::requests(&sides)?,
            "first" => first(&sides, runs)?,
            "start" => start(&sides, runs)?,
            "connect" => connect(&sides, runs)?,
            "ports" => ports(&sides, runs)?,
            "many" => many(&sides, runs)?,
            "dns" => dns(&sides)?,
            _ => files::run(&sides, &scratch.0)?,
        }
        println!();
    }
    drop(sides);
    daemon.clean_up()
}

/// A program in the network namespace of a process.
pub(super) fn inside(pid: u32, program: &str) -> Command {
    let mut command = Command::new("nsenter");
    command.args([&format!("--net=/proc/{pid}/ns/net"), program]);
    command
}

fn pairs<'a>(sides: &'a [Side<'a>], name: &'static str, goal: Option<f64>, args: Vec<String>) -> Row<'a> {
    let run = |side: &'a Side<'a>, args: Vec<String>| -> Box<dyn Fn() -> Command + 'a> {
        Box::new(move || {
            let words: Vec<&str> = args.iter().map(String::as_str).collect();
            (side.client)(&words)
        })
    };
    let (peer, ours) = (&sides[0], &sides[1]);
    Row {
        name,
        peer: run(peer, args.clone()),
        ours: run(ours, args),
        goal,
    }
}

fn words(line: &str) -> Vec<String> {
    line.split(' ').map(str::to_owned).collect()
}

/// From the command to the first answer of the gateway.
fn first(sides: &[Side<'_>], runs: usize) -> Result<()> {
    let gateway = "ping -c 1 -W 5 $(busybox ip route | busybox awk '/default/ {print $3}')";
    let mut args = words(&format!("run --rm --network {NETWORK} {IMAGE} sh -c"));
    args.push(format!("busybox {gateway}"));
    pair::print(
        &[pairs(sides, "first packet after start", Some(1.0 / 15.0), args)],
        runs,
    )
}

/// What the network adds to a start, with namespaces prepared: the same command with and without one, in turn; and what of
/// it the daemon does before the start is answered, as it says itself.
fn start(sides: &[Side<'_>], runs: usize) -> Result<()> {
    println!("| median of a start | docker | berth | goal |");
    println!("|---|---|---|---|");
    let mut medians = Vec::new();
    for side in sides {
        let (mut with, mut without) = (Vec::new(), Vec::new());
        for run in 0..=runs {
            let start = |network| {
                timed((side.client)(&[
                    "run",
                    "--rm",
                    "--network",
                    network,
                    IMAGE,
                    "true",
                ]))
            };
            let (a, b) = (start(NETWORK)?, start("none")?);
            if run > 0 {
                with.push(a);
                without.push(b);
            }
        }
        medians.push((median(with), median(without)));
    }
    let row = |what: &str, goal: &str, of: &dyn Fn(&(Duration, Duration)) -> Duration| {
        let cells: Vec<String> = medians.iter().map(|pair| milliseconds(of(pair))).collect();
        println!("| {what} | {} | {goal} |", cells.join(" | "));
    };
    row("on a network", "", &|pair| pair.0);
    row("on none", "", &|pair| pair.1);
    row("what the network adds to the whole command", "", &|pair| {
        pair.0.saturating_sub(pair.1)
    });
    let ours = sides.last().context("nobody is measured")?;
    let parts = (0..runs).map(|_| {
        // Between two starts the next namespace is prepared.
        std::thread::sleep(Duration::from_millis(200));
        let timings = ["run", "--rm", "--timings", "--network", NETWORK, IMAGE, "true"];
        let told = output(&mut (ours.client)(&timings))?;
        ensure!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
        network_part(&String::from_utf8_lossy(&told.stderr))
    });
    let part = median(parts.collect::<Result<Vec<_>>>()?);
    println!(
        "| network part of a start, pool warm | – | {} | 2 ms |",
        milliseconds(part)
    );
    Ok(())
}

/// Of what `run --timings` tells.
fn network_part(told: &str) -> Result<Duration> {
    let line = told.lines().find_map(|line| line.trim().strip_prefix("network "));
    let number = line.and_then(|line| line.trim().strip_suffix("ms")?.trim().parse::<f64>().ok());
    let number = number.with_context(|| format!("no time of the network in:\n{told}"))?;
    Ok(Duration::from_secs_f64(number / 1000.0))
}

fn connect(sides: &[Side<'_>], runs: usize) -> Result<()> {
    for side in sides {
        side.ok(&["network", "create", "second"])?;
        side.start("joiner", &[], &["sleep", "100000"])?;
    }
    let both = |side: &Side<'_>| {
        let client = (side.client)(&[]);
        let mut command = Command::new("sh");
        command
            .args([
                "-c",
                "\"$0\" network connect second joiner && \"$0\" network disconnect second joiner",
            ])
            .arg(client.get_program())
            .envs(client.get_envs().filter_map(|(name, value)| Some((name, value?))))
            .stdin(Stdio::null());
        command
    };
    let row = Row {
        name: "network connect and disconnect",
        peer: Box::new(|| both(&sides[0])),
        ours: Box::new(|| both(&sides[1])),
        goal: None,
    };
    pair::print(&[row], runs)?;
    for side in sides {
        side.remove(&["joiner"])?;
        side.ok(&["network", "rm", "second"])?;
    }
    Ok(())
}

/// Starts with 1, 100, 1,000 and 10,000 published ports. The peer has a process for each port and family, so it is asked for
/// 1,000 once, and not for 10,000: these would be 20,000 processes and more memory than most machines have.
fn ports(sides: &[Side<'_>], runs: usize) -> Result<()> {
    let with = |range: &str| words(&format!("run --rm -p {range}:{range} {IMAGE} true"));
    let without = words(&format!("run --rm {IMAGE} true"));
    let rows = [
        pairs(sides, "run with no published port", None, without.clone()),
        pairs(sides, "run with 1 published port", None, with("20000")),
        pairs(sides, "run with 100 published ports", None, with("20000-20099")),
    ];
    pair::print(&rows, runs)?;
    let (docker, berth) = (&sides[0], &sides[1]);
    let run = |side: &Side<'_>, args: &[String]| {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        timed((side.client)(&args))
    };
    let (thousand, all) = (with("20000-20999"), with("20000-29999"));
    let (mut thousands, mut alls, mut nones) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..runs {
        nones.push(run(berth, &without)?);
        thousands.push(run(berth, &thousand)?);
        alls.push(run(berth, &all)?);
    }
    let peer = match run(docker, &thousand) {
        Ok(time) => milliseconds(time),
        Err(error) => format!("failed: {}", error.to_string().lines().next().unwrap_or_default()),
    };
    let (none, all) = (median(nones), median(alls));
    println!(
        "| run with 1,000 published ports (docker: once) | {peer} | {} | | | |",
        milliseconds(median(thousands))
    );
    println!(
        "| run with 10,000 published ports | not tried | {} | | | |",
        milliseconds(all)
    );
    println!(
        "| what 10,000 published ports add to a run | not tried | {} | | 50 ms | |",
        milliseconds(all.saturating_sub(none))
    );
    Ok(())
}

/// A network that is full: what the next start costs, and what a name costs there.
fn many(sides: &[Side<'_>], runs: usize) -> Result<()> {
    for side in sides {
        for n in 0..MANY {
            side.start(&format!("many{n}"), &[], &["sleep", "100000"])?;
        }
    }
    let args = words(&format!("run --rm --network {NETWORK} {IMAGE} true"));
    pair::print(&[pairs(sides, "start beside 250 containers", None, args)], runs)?;
    for side in sides {
        let pid = side.ok(&["inspect", "-f", "{{.State.Pid}}", "many0"])?.parse()?;
        println!("\n{}: {}", side.name, load(pid, "many249", 0)?);
        println!("{}: {}", side.name, load(pid, "many249", PACE)?);
        let names: Vec<String> = (0..MANY).map(|n| format!("many{n}")).collect();
        side.remove(&names.iter().map(String::as_str).collect::<Vec<_>>())?;
    }
    Ok(())
}

/// Names of containers, asked as fast as answers come, and at the pace of the goal.
fn dns(sides: &[Side<'_>]) -> Result<()> {
    for side in sides {
        side.start("asked", &[], &["sleep", "100000"])?;
        let pid = side.start("asker", &[], &["sleep", "100000"])?;
        println!("{}: {}", side.name, load(pid, "asked", 0)?);
        println!(
            "{}: {} (goal: p99 under 1 ms)",
            side.name,
            load(pid, "asked", PACE)?
        );
        side.remove(&["asked", "asker"])?;
    }
    Ok(())
}

pub(super) fn own_program() -> Result<String> {
    let own = std::env::current_exe()?;
    Ok(own.to_str().context("our own path is no text")?.to_owned())
}

/// Runs [`ask_for`] in a container's network namespace.
fn load(pid: u32, name: &str, pace: u32) -> Result<String> {
    let mut command = inside(pid, &own_program()?);
    Ok(
        capture(command.args(["dns-load", name, SECONDS, &pace.to_string()]))?
            .trim()
            .to_owned(),
    )
}

/// `xtask dns-load NAME SECONDS PACE`, for use inside a container's namespace: asks 127.0.0.11 for a name, so often in a
/// second, or with 0 one query after the other, and says how many were answered and how long the slowest hundredth took.
pub fn ask_for(name: &str, seconds: u64, pace: u32) -> Result<()> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.set_read_timeout(Some(Duration::from_secs(2)))?;
    socket.connect("127.0.0.11:53")?;
    let mut query = vec![0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        query.push(u8::try_from(label.len())?);
        query.extend(label.as_bytes());
    }
    query.extend([0, 0, 1, 0, 1]);
    let mut times = Vec::new();
    let begun = Instant::now();
    let mut answer = [0u8; 512];
    for count in 0u32.. {
        if begun.elapsed() >= Duration::from_secs(seconds) {
            break;
        }
        let Some(number) = query.get_mut(..2) else { break };
        // The number comes round again; by then its query has long been answered.
        number.copy_from_slice(&(count as u16).to_be_bytes());
        if pace > 0 {
            let due = begun + Duration::from_secs(1) / pace * count;
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
        }
        let start = Instant::now();
        socket.send(&query)?;
        let length = socket.recv(&mut answer)?;
        times.push(start.elapsed());
        let answers = u16::from_be_bytes([answer[6], answer[7]]);
        ensure!(length > 12 && answers > 0, "{name} has no address here");
    }
    let elapsed = begun.elapsed().as_secs_f64();
    times.sort();
    let at = |share: usize| times.get(times.len() * share / 100).copied().unwrap_or_default();
    println!(
        "{:.0} queries per second, median {:.3} ms, p99 {:.3} ms",
        times.len() as f64 / elapsed,
        at(50).as_secs_f64() * 1000.0,
        at(99).as_secs_f64() * 1000.0
    );
    Ok(())
}
