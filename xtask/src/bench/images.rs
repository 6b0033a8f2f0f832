//! Images against Debian's dockerd and skopeo, over one registry's storage on loopback.
//!
//! The large image has four layers of which one is half, some 450 MB compressed; the other has forty small ones. The peer
//! lives in a network namespace of its own, so a second registry serves the same directory there, at the same address.
//! What a row needs to start from is made anew before each run and not measured. "Synced" is the time until the data root
//! has reached the disk as well.
//!
//! `bench images rehearse` goes through all rows once with small images and the development build: it shows that they work,
//! and its figures mean nothing.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::archive::{self, ADDRESS, Registry};
use super::docker::Peer;
use super::fixture;
use super::pair::{median, milliseconds, timed};
use crate::engine::{Daemon, Profile, Scratch};
use crate::process::capture;

/// How much is measured.
pub struct Plan {
    pub runs: usize,
    /// Megabytes of each layer of the large image before compression, which halves them.
    large: [usize; 4],
    /// Layers of the other one.
    small: usize,
    /// Images in the store when the list is measured.
    many: usize,
    profile: Profile,
}

impl Plan {
    pub fn full(runs: usize) -> Plan {
        Plan {
            runs,
            large: [450, 150, 150, 150],
            small: 40,
            many: 1000,
            profile: Profile::Release,
        }
    }

    pub fn rehearsal() -> Plan {
        Plan {
            runs: 1,
            large: [24, 8, 8, 8],
            small: 8,
            many: 20,
            profile: Profile::Development,
        }
    }
}

/// One comparison: what is made before each run, and what is measured.
struct Work<'a> {
    name: &'a str,
    before: Vec<&'a [&'a str]>,
    command: &'a [&'a str],
    /// Whether the registry is emptied before each run.
    empty: bool,
    /// Whether the data has to reach the disk.
    synced: bool,
    goal: Goal,
}

/// What is wanted.
enum Goal {
    /// Most of the peer's time.
    Ratio(f64),
    /// Most milliseconds, whatever the peer takes.
    Within(u32),
    None,
}

/// Most MiB of memory that the daemon may ever have had.
const MOST_MEMORY: u64 = 100;
/// Most milliseconds for a list of a thousand images.
const MOST_LIST: u32 = 30;

/// Measures the rows whose name contains one of `rows`; all without any.
pub fn run(plan: &Plan, rows: &[String]) -> Result<()> {
    let runs = plan.runs;
    let binary = fixture::binary_as(plan.profile)?;
    let scratch = Scratch::new("berth-bench-images")?;
    let peer = Peer::start(&scratch.0)?;
    let ours_dir = scratch.join("ours");
    std::fs::create_dir_all(&ours_dir)?;
    let ours = Daemon::start(&binary, &ours_dir)?;
    let _registries = [
        Registry::start(&scratch.0, false)?,
        Registry::start(&scratch.0, true)?,
    ];
    println!(
        "{}\n",
        fixture::machine(&[("docker", peer.version()?), ("skopeo", skopeo_version()?)])?
    );

    let layers = plan.large;
    let large = seed(&scratch, "large", &layers)?;
    let small = seed(&scratch, "small", &vec![1; plan.small])?;
    let half = seed(&scratch, "half", &layers[..1])?;
    let archive = scratch.join("saved.tar").display().to_string();
    let (large, small, half) = (large.as_str(), small.as_str(), half.as_str());
    let gone: &[&str] = &["system", "prune", "-a", "-f"];
    let pull_large: &[&str] = &["pull", "-q", large];
    let pull_half: &[&str] = &["pull", "-q", half];
    let works = [
        Work {
            name: "pull, large, cold",
            before: vec![gone],
            command: pull_large,
            empty: false,
            synced: false,
            goal: Goal::Ratio(0.25),
        },
        Work {
            name: "pull, large, cold, synced",
            before: vec![gone],
            command: pull_large,
            empty: false,
            synced: true,
            goal: Goal::Ratio(0.25),
        },
        Work {
            name: "pull, many small layers, cold",
            before: vec![gone],
            command: &["pull", "-q", small],
            empty: false,
            synced: false,
            goal: Goal::Ratio(0.25),
        },
        Work {
            name: "pull, large, half of it here",
            before: vec![gone, pull_half],
            command: pull_large,
            empty: false,
            synced: false,
            goal: Goal::None,
        },
        Work {
            name: "pull, large, all of it here",
            before: vec![pull_large],
            command: pull_large,
            empty: false,
            synced: false,
            goal: Goal::Within(50),
        },
        Work {
            name: "first container after the pull",
            before: vec![pull_large],
            command: &["run", "--rm", "--network", "none", large, "/bin/busybox", "true"],
            empty: false,
            synced: false,
            goal: Goal::None,
        },
        Work {
            name: "save, large",
            before: vec![],
            command: &["save", "-o", &archive, large],
            empty: false,
            synced: false,
            goal: Goal::None,
        },
        Work {
            name: "load, large",
            before: vec![gone],
            command: &["load", "-q", "-i", &archive],
            empty: false,
            synced: false,
            goal: Goal::None,
        },
        Work {
            name: "push again, large",
            before: vec![pull_large],
            command: &["push", "-q", large],
            empty: false,
            synced: false,
            goal: Goal::None,
        },
        Work {
            name: "push, large, cold",
            before: vec![],
            command: &["push", "-q", large],
            empty: true,
            synced: false,
            goal: Goal::Ratio(1.0 / 3.0),
        },
    ];
    println!("| what | docker | berth | ratio | goal | |");
    println!("|---|---|---|---|---|---|");
    let wanted = |name: &str| rows.is_empty() || rows.iter().any(|row| name.contains(row.as_str()));
    for work in works.iter().filter(|work| wanted(work.name)) {
        let (mut theirs, mut mine) = (Vec::new(), Vec::new());
        for run in 0..=runs {
            let (p, o) = (
                once(work, &|args| peer.client(args), &scratch)?,
                once(work, &|args| ours.client(args), &scratch)?,
            );
            if run > 0 {
                theirs.push(p);
                mine.push(o);
            }
        }
        tell(work, median(theirs), median(mine));
    }
    let peak = peak_memory(ours.pid())? >> 10;
    println!(
        "\npeak memory of the daemon: {peak} MiB, goal: below {MOST_MEMORY}: {}",
        verdict(peak < MOST_MEMORY)
    );
    // What everyone reads from is there again for the rows that have no peer.
    seed(&scratch, "large", &layers)?;
    if wanted("skopeo") {
        skopeo(&scratch, large, &ours, runs)?;
    }
    if wanted("images") {
        many(&ours, plan.many, runs)?;
    }
    ours.clean_up()
}

fn once(work: &Work<'_>, client: &dyn Fn(&[&str]) -> Command, scratch: &Scratch) -> Result<Duration> {
    for before in &work.before {
        capture(&mut client(before))?;
    }
    if work.empty {
        let stored = scratch.join("registry");
        if stored.exists() {
            std::fs::remove_dir_all(&stored)?;
        }
    }
    let taken = timed(client(work.command))?;
    if !work.synced {
        return Ok(taken);
    }
    let mut sync = Command::new("sync");
    sync.arg("-f").arg(&scratch.0);
    Ok(taken + timed(sync)?)
}

fn tell(work: &Work<'_>, theirs: Duration, mine: Duration) {
    let ratio = mine.as_secs_f64() / theirs.as_secs_f64();
    let (goal, reached) = match work.goal {
        Goal::Ratio(goal) => (format!("1/{:.0}", 1.0 / goal), verdict(ratio <= goal)),
        Goal::Within(most) => (
            format!("{most} ms"),
            verdict(mine.as_millis() <= u128::from(most)),
        ),
        Goal::None => (String::new(), ""),
    };
    println!(
        "| {} | {} | {} | 1/{:.1} | {goal} | {reached} |",
        work.name,
        milliseconds(theirs),
        milliseconds(mine),
        1.0 / ratio
    );
}

fn verdict(reached: bool) -> &'static str {
    match reached {
        true => "reached",
        false => "missed",
    }
}

/// skopeo copies the compressed layers into a directory and unpacks nothing.
fn skopeo(scratch: &Scratch, large: &str, ours: &Daemon, runs: usize) -> Result<()> {
    let (mut theirs, mut mine) = (Vec::new(), Vec::new());
    let to = scratch.join("copied");
    for run in 0..=runs {
        let _ = std::fs::remove_dir_all(&to);
        let mut copy = Command::new("skopeo");
        copy.args([
            "copy",
            "-q",
            "--src-tls-verify=false",
            &format!("docker://{large}"),
            &format!("dir:{}", to.display()),
        ]);
        let copied = timed(copy)?;
        capture(&mut ours.client(&["system", "prune", "-a", "-f"]))?;
        let pulled = timed(ours.client(&["pull", "-q", large]))?;
        if run > 0 {
            theirs.push(copied);
            mine.push(pulled);
        }
    }
    println!(
        "skopeo copy to a directory, nothing unpacked: {}; pull: {}",
        milliseconds(median(theirs)),
        milliseconds(median(mine))
    );
    Ok(())
}

/// How long the list takes with many images.
fn many(ours: &Daemon, many: usize, runs: usize) -> Result<()> {
    let mut tar = tar_of(&[("file", b"x".as_slice())]);
    for number in 0..many {
        let path = std::env::temp_dir().join(format!("berth-bench-many-{}.tar", std::process::id()));
        // Each image has content of its own.
        tar.splice(512..513, [u8::try_from(number % 251)?]);
        std::fs::write(&path, &tar)?;
        let made = capture(
            ours.client(&["import", &path.display().to_string(), &format!("many:{number}")])
                .stdin(Stdio::null()),
        );
        std::fs::remove_file(&path)?;
        made?;
    }
    let times = (0..runs)
        .map(|_| timed(ours.client(&["images", "-q"])))
        .collect::<Result<Vec<_>>>()?;
    let time = median(times);
    println!(
        "images, {many} in the store: {}, goal: {MOST_LIST} ms for 1000: {}",
        milliseconds(time),
        verdict(time.as_millis() <= u128::from(MOST_LIST))
    );
    Ok(())
}

fn skopeo_version() -> Result<String> {
    let text = capture(Command::new("skopeo").arg("--version"))?;
    Ok(text.split_whitespace().last().unwrap_or_default().to_owned())
}

/// The most memory that the process had resident, in KiB.
fn peak_memory(pid: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .context("no VmHWM")?;
    Ok(line.split_whitespace().next().unwrap_or("0").parse()?)
}

/// Brings an image of layers of so many megabytes to the registry, compressed as skopeo does; the name it has there.
fn seed(scratch: &Scratch, name: &str, layers: &[usize]) -> Result<String> {
    let at = format!("{ADDRESS}/bench/{name}:1");
    let archive = scratch.join(&format!("{name}.tar"));
    if !archive.exists() {
        write_archive(&archive, layers)?;
    }
    archive::seed(&archive, &at)?;
    Ok(at)
}

/// A docker archive; each layer has files of a megabyte that compress to half, the lowest busybox as well.
fn write_archive(path: &Path, layers: &[usize]) -> Result<()> {
    let dir = path.with_extension("d");
    std::fs::create_dir_all(&dir)?;
    let mut tars = Vec::new();
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    for (number, megabytes) in layers.iter().enumerate() {
        let tree = dir.join(format!("tree{number}"));
        let files = tree.join(format!("layer{number}"));
        std::fs::create_dir_all(&files)?;
        if number == 0 {
            std::fs::create_dir_all(tree.join("bin"))?;
            std::fs::copy("/bin/busybox", tree.join("bin/busybox"))?;
        }
        for file in 0..*megabytes {
            let mut bytes = Vec::with_capacity(1 << 20);
            while bytes.len() < 1 << 20 {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                // Four bits of chance in each byte.
                bytes.extend(state.to_le_bytes().map(|byte| b'a' + (byte & 15)));
            }
            std::fs::write(files.join(format!("file{file}")), bytes)?;
        }
        let tar = dir.join(format!("{number}.tar"));
        archive::pack(&tree, &tar, 0)?;
        std::fs::remove_dir_all(&tree)?;
        tars.push(tar);
    }
    archive::write(path, &dir, &tars)?;
    std::fs::remove_dir_all(&dir)?;
    Ok(())
}

/// A tar of small files.
fn tar_of(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, bytes) in files {
        let mut head = [0_u8; 512];
        let mut put = |at: usize, text: &[u8]| {
            if let Some(place) = head.get_mut(at..at + text.len()) {
                place.copy_from_slice(text);
            }
        };
        put(0, name.as_bytes());
        put(100, b"0000644\x000000000\x000000000\0");
        put(124, format!("{:011o}\x0000000000000\0", bytes.len()).as_bytes());
        put(148, b"        0");
        put(257, b"ustar\x0000");
        let sum: u32 = head.iter().map(|byte| u32::from(*byte)).sum();
        if let Some(place) = head.get_mut(148..156) {
            place.copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
        out.extend(head);
        out.extend_from_slice(bytes);
        out.resize(out.len().next_multiple_of(512), 0);
    }
    out.resize(out.len() + 1024, 0);
    out
}
