//! Pairs: the same work by the peer and by us, alternately, as medians and their ratio.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::process::output;

/// One command as each side runs it.
pub struct Row<'a> {
    pub name: &'a str,
    pub peer: Box<dyn Fn() -> Command + 'a>,
    pub ours: Box<dyn Fn() -> Command + 'a>,
    /// What the median may be at most, as a share of the peer's; none where most of the time is the peer's client.
    pub goal: Option<f64>,
}

pub fn milliseconds(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1000.0)
}

pub fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

pub fn timed(mut command: Command) -> Result<Duration> {
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

/// Measures the rows and prints each as soon as it is known.
pub fn print(rows: &[Row<'_>], runs: usize) -> Result<()> {
    println!("| what | docker | berth | ratio | goal | |");
    println!("|---|---|---|---|---|---|");
    for row in rows {
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
    Ok(())
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
