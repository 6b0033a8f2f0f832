//! What files cost in a container: on a volume, in a bind, in an id-mapped bind and in the container's own layer, against
//! the filesystem that all of them are on (fio).
//!
//! fio runs on the host and goes through `/proc/PID/root`, so the same program writes through the same mounts as a process
//! of the container, and nothing has to be in the image.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::net::Side;
use crate::process::capture;

/// Measurements of each place, alternately; the middle one counts.
const ROUNDS: usize = 3;

/// Name, and what fio is told.
const WORK: [(&str, &[&str]); 4] = [
    (
        "written in order, 1 MiB at a time, and synced",
        &["--rw=write", "--bs=1M", "--end_fsync=1"],
    ),
    ("read in order, 1 MiB at a time", &["--rw=read", "--bs=1M"]),
    (
        "written anywhere, 4 KiB at a time, and synced",
        &["--rw=randwrite", "--bs=4k", "--end_fsync=1", "--io_size=64M"],
    ),
    (
        "read anywhere, 4 KiB at a time",
        &["--rw=randread", "--bs=4k", "--io_size=64M"],
    ),
];

struct Place {
    name: String,
    directory: PathBuf,
    /// Bytes per second, by kind of work and round.
    figures: [Vec<f64>; WORK.len()],
}

impl Place {
    fn new(name: String, directory: PathBuf) -> Place {
        Place {
            name,
            directory,
            figures: Default::default(),
        }
    }

    fn middle(&self, work: usize) -> f64 {
        let mut sorted = self.figures.get(work).cloned().unwrap_or_default();
        sorted.sort_by(f64::total_cmp);
        sorted.get(sorted.len() / 2).copied().unwrap_or_default()
    }
}

pub fn run(sides: &[Side<'_>], scratch: &Path) -> Result<()> {
    let bare = scratch.join("files");
    std::fs::create_dir_all(&bare)?;
    let mut places = vec![Place::new("bare".to_owned(), bare)];
    for side in sides {
        let bind = scratch.join(format!("bind-{}", side.name));
        std::fs::create_dir_all(&bind)?;
        let bind = bind.to_str().context("the scratch directory is no text")?;
        let (volume, bound) = ("files:/volume", format!("{bind}:/bind"));
        // Of another user on the disk than in the container; the peer has no such mounts.
        let owned = scratch.join("mapped");
        std::fs::create_dir_all(&owned)?;
        std::os::unix::fs::chown(&owned, Some(1000), Some(1000))?;
        let mapped = format!("type=bind,src={},dst=/mapped,idmap=1000:1000:1", owned.display());
        let mut options = vec!["-v", volume, "-v", &bound];
        let mut kinds = vec!["volume", "bind", "layer"];
        if side.name == "berth" {
            options.extend(["--mount", &mapped]);
            kinds.push("mapped");
        }
        let pid = side.start("files", &options, &["sleep", "100000"])?;
        for kind in kinds {
            let directory = PathBuf::from(format!("/proc/{pid}/root/{kind}"));
            std::fs::create_dir_all(&directory)?;
            let title = match kind {
                "layer" => format!("{}, its own layer", side.name),
                "mapped" => format!("{}, id-mapped bind", side.name),
                kind => format!("{}, {kind}", side.name),
            };
            places.push(Place::new(title, directory));
        }
    }
    for _ in 0..ROUNDS {
        for place in &mut places {
            for (figures, (_, work)) in place.figures.iter_mut().zip(WORK) {
                figures.push(fio(&place.directory, work)?);
            }
        }
    }
    print(&places);
    for side in sides {
        side.remove(&["files"])?;
        side.ok(&["volume", "rm", "files"])?;
    }
    Ok(())
}

fn print(places: &[Place]) {
    let titles: Vec<&str> = places.iter().map(|place| place.name.as_str()).collect();
    println!("| MB/s (share of bare; goal 0.95) | {} |", titles.join(" | "));
    println!("|---|{}", "---|".repeat(places.len()));
    for (number, (what, _)) in WORK.iter().enumerate() {
        let bare = places.first().map_or(0.0, |bare| bare.middle(number));
        let cells = places.iter().enumerate().map(|(n, place)| {
            let figure = place.middle(number);
            match n {
                0 => format!("{:.0}", figure / 1e6),
                _ => format!("{:.0} ({:.2})", figure / 1e6, figure / bare),
            }
        });
        println!("| {what} | {} |", cells.collect::<Vec<_>>().join(" | "));
    }
}

/// Bytes per second of one kind of work on a file of a directory.
fn fio(directory: &Path, work: &[&str]) -> Result<f64> {
    let mut fio = Command::new("fio");
    fio.arg("--name=bench")
        .arg(format!("--directory={}", directory.display()))
        .args([
            "--size=256M",
            "--ioengine=psync",
            "--unlink=1",
            "--output-format=json",
        ]);
    let report: serde_json::Value = serde_json::from_str(&capture(fio.args(work))?)?;
    let job = &report["jobs"][0];
    let figure = ["read", "write"]
        .iter()
        .filter_map(|kind| job[*kind]["bw_bytes"].as_f64())
        .fold(0.0, f64::max);
    ensure!(figure > 0.0, "fio counted nothing in {}", directory.display());
    Ok(figure)
}
