//! What stays in memory: the daemon, and what each idle container costs beside its own processes.

use anyhow::Result;

use super::docker::Peer;
use super::engine::IMAGE;
use crate::engine::Daemon;
use crate::process::capture;

const IDLE: usize = 10;

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

/// Both engines with idle containers, one of which each has already.
pub fn compare(peer: &Peer, ours: &Daemon) -> Result<()> {
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
