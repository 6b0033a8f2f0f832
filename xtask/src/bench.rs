//! `cargo xtask bench [RUNS]`: what matters, measured against Debian's dockerd on this machine, in pairs.
//!
//! Each row runs peer and engine alternately, at least ten times, and gives medians and their ratio. The peer
//! has a network namespace, a root and a socket of its own, so the host's rules and bridges stay untouched.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use crate::engine::{self, Daemon, Scratch};
use crate::packages;
use crate::process::{capture, is_root, output, run as run_command};

const NETNS: &str = "berth-bench";
const IMAGE: &str = "bench:1";
const STEPS: usize = 10;
const IDLE: usize = 10;

/// One command as each side runs it.
struct Row<'a> {
    name: &'a str,
    peer: Box<dyn Fn() -> Command + 'a>,
    ours: Box<dyn Fn() -> Command + 'a>,
    /// What the median may be at most, as a share of the peer's; none where most of the time is the peer's client.
    goal: Option<f64>,
}

pub fn run(args: &[String]) -> Result<()> {
    let runs: usize = args
        .first()
        .map_or(Ok(10), |n| n.parse().context("RUNS is a number"))?;
    ensure!(runs >= 10, "fewer than ten runs say nothing");
    ensure!(is_root(), "the benchmark needs root");
    packages::install(&[packages::BUILD, packages::RUN, packages::BENCH])?;
    let binary = engine::build()?;
    let scratch = Scratch::new("berth-bench")?;
    let tar = root_filesystem(&scratch)?;
    let peer = Peer::start(&scratch.0)?;
    let ours_dir = scratch.join("ours");
    std::fs::create_dir_all(&ours_dir)?;
    let ours = Daemon::start(&binary, &ours_dir)?;
    for command in [&mut peer.client(&["import"]), &mut ours.client(&["import"])] {
        capture(command.arg(&tar).arg(IMAGE))?;
    }
    let docker_on_ours = |args: &[&str]| {
        let mut command = Command::new(&peer.docker);
        command
            .args(args)
            .env("DOCKER_HOST", &ours.socket)
            .env("DOCKER_BUILDKIT", "0")
            .stdin(Stdio::null());
        command
    };
    for client in [&mut peer.client(&["run"]), &mut ours.client(&["run"])] {
        capture(client.args(["-d", "--name", "idle", IMAGE, "sleep", "100000"]))?;
    }
    let context = build_context(&scratch)?;
    let context_text = context.display().to_string();
    let with_network = ["run", "--rm", IMAGE, "true"];
    let without = ["run", "--rm", "--network", "none", IMAGE, "true"];
    let exec = ["exec", "idle", "true"];
    let no_cache = ["build", "-q", "--no-cache", context_text.as_str()];
    let cached = ["build", "-q", context_text.as_str()];
    let rows = [
        Row {
            name: "run --rm IMAGE true",
            peer: Box::new(|| peer.client(&with_network)),
            ours: Box::new(|| ours.client(&with_network)),
            goal: Some(1.0 / 15.0),
        },
        Row {
            name: "run --rm IMAGE true, docker client",
            peer: Box::new(|| peer.client(&with_network)),
            ours: Box::new(|| docker_on_ours(&with_network)),
            goal: None,
        },
        Row {
            name: "run --rm --network none IMAGE true",
            peer: Box::new(|| peer.client(&without)),
            ours: Box::new(|| ours.client(&without)),
            goal: Some(1.0 / 15.0),
        },
        Row {
            name: "exec CONTAINER true",
            peer: Box::new(|| peer.client(&exec)),
            ours: Box::new(|| ours.client(&exec)),
            goal: Some(1.0 / 15.0),
        },
        Row {
            name: "build of ten RUN steps, no cache",
            peer: Box::new(|| peer.client(&no_cache)),
            ours: Box::new(|| ours.client(&no_cache)),
            goal: Some(1.0 / 8.0),
        },
        Row {
            name: "build of ten RUN steps, cached",
            peer: Box::new(|| peer.client(&cached)),
            ours: Box::new(|| ours.client(&cached)),
            goal: Some(1.0 / 8.0),
        },
    ];
    println!("{}\n", machine(&peer)?);
    println!("| what | docker | berth | ratio | goal | |");
    println!("|---|---|---|---|---|---|");
    for row in &rows {
        let (peer, ours) = measure(row, runs)?;
        let ratio = ours.as_secs_f64() / peer.as_secs_f64();
        let (goal, verdict) = match row.goal {
            Some(goal) if ratio <= goal => (format!("1/{:.0}", 1.0 / goal), "reached"),
            Some(goal) => (format!("1/{:.0}", 1.0 / goal), "missed"),
            None => (String::new(), ""),
        };
        println!(
            "| {} | {} | {} | 1/{:.1} | {goal} | {verdict} |",
            row.name,
            milliseconds(peer),
            milliseconds(ours),
            1.0 / ratio
        );
    }
    floor(&binary, &scratch, &tar, runs, &ours)?;
    memory(&peer, &ours)?;
    drop(rows);
    ours.clean_up()
}

fn milliseconds(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1000.0)
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

fn timed(mut command: Command) -> Result<Duration> {
    let start = Instant::now();
    let done = output(&mut command)?;
    let time = start.elapsed();
    ensure!(
        done.status.success(),
        "{:?}: {}\n{}",
        command.get_args().collect::<Vec<_>>(),
        done.status,
        String::from_utf8_lossy(&done.stderr)
    );
    Ok(time)
}

/// One run of each side to warm up, then the pairs.
fn measure(row: &Row<'_>, runs: usize) -> Result<(Duration, Duration)> {
    let (mut peer, mut ours) = (Vec::new(), Vec::new());
    for run in 0..=runs {
        let (p, o) = (timed((row.peer)())?, timed((row.ours)())?);
        if run > 0 {
            peer.push(p);
            ours.push(o);
        }
    }
    Ok((median(peer), median(ours)))
}

/// `crun run` of an equal bundle: what no engine can be faster than by much.
fn floor(binary: &Path, scratch: &Scratch, tar: &Path, runs: usize, ours: &Daemon) -> Result<()> {
    let bundle = scratch.join("bundle");
    std::fs::create_dir_all(bundle.join("rootfs"))?;
    run_command(
        Command::new("tar")
            .arg("-xf")
            .arg(tar)
            .arg("-C")
            .arg(bundle.join("rootfs")),
    )?;
    run_command(Command::new("crun").arg("spec").current_dir(&bundle))?;
    let config = bundle.join("config.json");
    let text = std::fs::read_to_string(&config)?;
    let mut document: serde_json::Value = serde_json::from_str(&text)?;
    document["process"]["terminal"] = false.into();
    document["process"]["args"] = serde_json::json!(["true"]);
    std::fs::write(&config, document.to_string())?;
    let view = WithoutUnified::open()?;
    let launch = |program: &Path, words: &[&str], id: &str| {
        let mut command = view.command(program);
        command.args(words).args(["run", "--bundle"]).arg(&bundle).arg(id);
        command
    };
    let (mut crun, mut runtime, mut engine, mut entering) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for run in 0..=runs {
        let c = timed(launch(Path::new("crun"), &[], &format!("berth-bench-crun-{run}")))?;
        let r = timed(launch(binary, &["runtime"], &format!("berth-bench-own-{run}")))?;
        let e = timed(ours.client(&["run", "--rm", "--network", "none", IMAGE, "true"]))?;
        let n = timed(view.command(Path::new("true")))?;
        if run > 0 {
            crun.push(c);
            runtime.push(r);
            engine.push(e);
            entering.push(n);
        }
    }
    // Entering the namespace is part of the first two rows' times and of nobody's work.
    let entering = median(entering);
    let crun = median(crun).saturating_sub(entering);
    let runtime = median(runtime).saturating_sub(entering);
    let engine = median(engine);
    let against = |time: Duration| time.as_secs_f64() / crun.as_secs_f64();
    println!("\n| floor | time | against crun |");
    println!("|---|---|---|");
    println!("| crun run of the same root | {} | 1.0 |", milliseconds(crun));
    println!(
        "| berth runtime run of the same root | {} | {:.1} |",
        milliseconds(runtime),
        against(runtime)
    );
    println!(
        "| berth run --rm --network none | {} | {:.1} |",
        milliseconds(engine),
        against(engine)
    );
    Ok(())
}

/// A mount namespace in which the host is no hybrid one: crun refuses those, even where the version 2 tree has no
/// controllers.
struct WithoutUnified {
    holder: Child,
}

impl WithoutUnified {
    fn open() -> Result<WithoutUnified> {
        let script = "umount /sys/fs/cgroup/unified 2>/dev/null; exec sleep infinity";
        let holder = Command::new("unshare")
            .args(["--mount", "sh", "-c", script])
            .stdin(Stdio::null())
            .spawn()
            .context("cannot make a mount namespace")?;
        // Ready when the shell has become sleep.
        let comm = format!("/proc/{}/comm", holder.id());
        let deadline = Instant::now() + Duration::from_secs(10);
        while std::fs::read_to_string(&comm)?.trim() != "sleep" {
            ensure!(Instant::now() < deadline, "the mount namespace did not come up");
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(WithoutUnified { holder })
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--mount=/proc/{}/ns/mnt", self.holder.id()))
            .arg(program);
        command
    }
}

impl Drop for WithoutUnified {
    fn drop(&mut self) {
        // It may have been killed with us; either way it is gone afterwards.
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// Proportional set size (proc(5), smaps_rollup) in KiB.
fn pss(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let line = text
        .lines()
        .find_map(|l| l.strip_prefix("Pss:"))
        .unwrap_or_default();
    line.split_whitespace()
        .next()
        .and_then(|n| n.parse().ok())
        .unwrap_or(0)
}

/// Processes whose command line has all the words.
fn processes(words: &[&str]) -> Result<Vec<u32>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|n| n.parse::<u32>().ok()) else {
            continue;
        };
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if words.iter().all(|w| line.contains(w)) {
            found.push(pid);
        }
    }
    Ok(found)
}

fn memory(peer: &Peer, ours: &Daemon) -> Result<()> {
    for number in 1..IDLE {
        let name = format!("idle-{number}");
        for client in [&mut peer.client(&["run"]), &mut ours.client(&["run"])] {
            capture(client.args(["-d", "--name", &name, IMAGE, "sleep", "100000"]))?;
        }
    }
    let per = |pids: &[u32]| pids.iter().map(|p| pss(*p)).sum::<u64>() as f64 / 1024.0 / IDLE as f64;
    let shims = processes(&["containerd-shim", &peer.dir.display().to_string()])?;
    let monitors = processes(&["berth", "monitor"])?;
    let peer_daemon: u64 = std::iter::once(peer.pid()?)
        .chain(
            processes(&["containerd", &peer.dir.display().to_string()])?
                .into_iter()
                .filter(|p| !shims.contains(p)),
        )
        .map(pss)
        .sum();
    println!("\n| memory (PSS), {IDLE} idle containers | docker | berth |");
    println!("|---|---|---|");
    println!(
        "| per container (shim, monitor) | {:.2} MiB | {:.2} MiB |",
        per(&shims),
        per(&monitors)
    );
    println!(
        "| daemon (dockerd and containerd, berth) | {:.1} MiB | {:.1} MiB |",
        peer_daemon as f64 / 1024.0,
        pss(ours.pid()) as f64 / 1024.0
    );
    Ok(())
}

fn machine(peer: &Peer) -> Result<String> {
    let memory = std::fs::read_to_string("/proc/meminfo")?;
    let total = memory
        .lines()
        .next()
        .and_then(|l| l.split_whitespace().nth(1))
        .unwrap_or("0")
        .parse::<u64>()?;
    let version = capture(&mut peer.client(&["version", "--format", "{{.Server.Version}}"]))?;
    let kernel = capture(Command::new("uname").arg("-r"))?;
    Ok(format!(
        "{} processors, {} GiB, Linux {}, docker {}, crun {}",
        std::thread::available_parallelism()?,
        total >> 20,
        kernel.trim(),
        version.trim(),
        capture(Command::new("crun").arg("--version"))?
            .lines()
            .next()
            .unwrap_or_default()
            .replace("crun version ", ""),
    ))
}

/// A root filesystem of one static binary and its links.
fn root_filesystem(scratch: &Scratch) -> Result<PathBuf> {
    let root = scratch.join("root");
    for dir in ["bin", "etc", "tmp", "proc", "sys", "dev"] {
        std::fs::create_dir_all(root.join(dir))?;
    }
    std::fs::copy("/bin/busybox", root.join("bin/busybox"))?;
    for applet in ["sh", "true", "sleep", "echo", "cat"] {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(applet))?;
    }
    let tar = scratch.join("root.tar");
    run_command(
        Command::new("tar")
            .arg("-cf")
            .arg(&tar)
            .arg("-C")
            .arg(&root)
            .arg("."),
    )?;
    Ok(tar)
}

fn build_context(scratch: &Scratch) -> Result<PathBuf> {
    let dir = scratch.join("context");
    std::fs::create_dir_all(&dir)?;
    let steps: String = (0..STEPS).map(|n| format!("RUN echo {n} > /tmp/{n}\n")).collect();
    std::fs::write(dir.join("Dockerfile"), format!("FROM {IMAGE}\n{steps}"))?;
    Ok(dir)
}

/// Debian's dockerd in a network namespace of its own.
struct Peer {
    child: Child,
    dir: PathBuf,
    docker: PathBuf,
}

impl Peer {
    fn start(scratch: &Path) -> Result<Peer> {
        let dir = scratch.join("peer");
        std::fs::create_dir_all(&dir)?;
        // A run that was killed may have left it.
        let _ = output(Command::new("ip").args(["netns", "del", NETNS]));
        run_command(Command::new("ip").args(["netns", "add", NETNS]))?;
        run_command(Command::new("ip").args(["-n", NETNS, "link", "set", "lo", "up"]))?;
        let log = std::fs::File::create(dir.join("dockerd.log"))?;
        // nsenter, not `ip netns exec`: the latter hides the control groups behind a /sys of its own.
        let child = Command::new("nsenter")
            .arg(format!("--net=/run/netns/{NETNS}"))
            .arg("dockerd")
            .args(["--host", &format!("unix://{}", dir.join("docker.sock").display())])
            .arg("--data-root")
            .arg(dir.join("root"))
            .arg("--exec-root")
            .arg(dir.join("exec"))
            .arg("--pidfile")
            .arg(dir.join("docker.pid"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .context("cannot start dockerd")?;
        // The client of the same package where there is one: it builds with BuildKit without a plugin.
        let packaged = PathBuf::from("/usr/bin/docker");
        let docker = if packaged.exists() {
            packaged
        } else {
            PathBuf::from("docker")
        };
        let peer = Peer { child, dir, docker };
        let deadline = Instant::now() + Duration::from_secs(60);
        while !output(&mut peer.client(&["version"]))?.status.success() {
            if Instant::now() > deadline {
                let log = std::fs::read_to_string(peer.dir.join("dockerd.log")).unwrap_or_default();
                bail!("dockerd did not come up:\n{log}");
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        Ok(peer)
    }

    fn client(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.docker);
        command
            .args(args)
            .env(
                "DOCKER_HOST",
                format!("unix://{}", self.dir.join("docker.sock").display()),
            )
            .env("DOCKER_BUILDKIT", "1")
            .stdin(Stdio::null());
        command
    }

    fn pid(&self) -> Result<u32> {
        let text = std::fs::read_to_string(self.dir.join("docker.pid"))?;
        text.trim().parse().context("dockerd's pid file has no number")
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // Each step goes on whatever the one before came to: this is the end of a run, good or bad.
        let ids =
            output(&mut self.client(&["ps", "-aq"])).map(|o| String::from_utf8_lossy(&o.stdout).into_owned());
        for id in ids.unwrap_or_default().split_whitespace() {
            let _ = output(&mut self.client(&["rm", "-f", id]));
        }
        if let Ok(pid) = self.pid() {
            let _ = output(Command::new("kill").arg(pid.to_string()));
        }
        let _ = self.child.wait();
        let _ = output(Command::new("ip").args(["netns", "del", NETNS]));
    }
}
