//! What stays in memory: the daemon, and what each idle container costs beside its own processes.

use anyhow::{Result, ensure};

use super::docker::Peer;
use super::engine::IMAGE;
use crate::engine::Daemon;
use crate::process::capture;

/// At how many idle containers it is measured.
const IDLE: [usize; 2] = [10, 200];

/// A moment after the last request, in which threads that have nothing to do go and a daemon gives back what it has no
/// use for.
pub(super) const SETTLED: std::time::Duration = std::time::Duration::from_secs(12);

/// Proportional set size (proc(5), smaps_rollup) in KiB.
pub(super) fn pss(pid: u32) -> u64 {
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

/// The monitors of a daemon's running containers.
pub(super) fn monitors(daemon: &Daemon) -> Result<Vec<u32>> {
    let ids = capture(&mut daemon.client(&["ps", "-q"]))?;
    let found = ids.split_whitespace().map(|id| processes(&["monitor", id]));
    Ok(found.collect::<Result<Vec<_>>>()?.concat())
}

/// Both engines with more and more idle containers; one, `idle`, each has already.
pub fn compare(peer: &Peer, ours: &Daemon) -> Result<()> {
    println!("\n| memory (PSS) | idle containers | docker | berth |");
    println!("|---|---|---|---|");
    let mut running = 1;
    for idle in IDLE {
        for number in running..idle {
            let name = format!("idle-{number}");
            for client in [&mut peer.client(&["run"]), &mut ours.client(&["run"])] {
                capture(client.args(["-d", "--name", &name, IMAGE, "sleep", "100000"]))?;
            }
        }
        running = idle;
        let shims = processes(&["containerd-shim", &peer.dir.display().to_string()])?;
        let monitors = monitors(ours)?;
        std::thread::sleep(SETTLED);
        ensure!(
            monitors.len() == idle && shims.len() == idle,
            "{idle} containers have {} shims and {} monitors",
            shims.len(),
            monitors.len()
        );
        let per = |pids: &[u32]| pids.iter().map(|p| pss(*p)).sum::<u64>() as f64 / 1024.0 / idle as f64;
        let daemon = processes(&["containerd", &peer.dir.display().to_string()])?;
        let daemon = daemon.into_iter().filter(|p| !shims.contains(p));
        let peer_daemon: u64 = std::iter::once(peer.pid()?).chain(daemon).map(pss).sum();
        println!(
            "| per container (shim, monitor) | {idle} | {:.2} MiB | {:.2} MiB |",
            per(&shims),
            per(&monitors)
        );
        println!(
            "| daemon (dockerd and containerd, berth) | {idle} | {:.1} MiB | {:.1} MiB |",
            peer_daemon as f64 / 1024.0,
            pss(ours.pid()) as f64 / 1024.0
        );
    }
    Ok(())
}
