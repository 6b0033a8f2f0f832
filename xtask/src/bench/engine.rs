//! The engine against Debian's dockerd, each with its own client and ours with the docker client as well.

use std::process::{Command, Stdio};

use anyhow::{Result, ensure};

use super::docker::Peer;
use super::pair::{self, Row};
use super::{fixture, memory};
use crate::engine::{Daemon, Scratch};
use crate::process::capture;

pub const IMAGE: &str = "bench:1";
const MEMORY: &str = "memory";
/// Bytes.
const OUTPUT: u64 = 256 << 20;

/// `words` choose the rows whose names hold one of them; `memory` is one of the names.
pub fn run(runs: usize, words: &[String]) -> Result<()> {
    let chosen = |name: &str| words.is_empty() || words.iter().any(|word| name.contains(word.as_str()));
    let binary = fixture::binary()?;
    let scratch = Scratch::new("berth-bench")?;
    let tar = fixture::root_filesystem(&scratch)?;
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
    let with_network = ["run", "--rm", IMAGE, "true"];
    let without = ["run", "--rm", "--network", "none", IMAGE, "true"];
    let exec = ["exec", "idle", "true"];
    let mut rows = vec![
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
            name: "run --rm --network none IMAGE true, docker client",
            peer: Box::new(|| peer.client(&without)),
            ours: Box::new(|| docker_on_ours(&without)),
            goal: None,
        },
        Row {
            name: "exec CONTAINER true",
            peer: Box::new(|| peer.client(&exec)),
            ours: Box::new(|| ours.client(&exec)),
            goal: Some(1.0 / 15.0),
        },
        Row {
            name: "exec CONTAINER true, docker client",
            peer: Box::new(|| peer.client(&exec)),
            ours: Box::new(|| docker_on_ours(&exec)),
            goal: None,
        },
        Row {
            name: "256 MiB of output, logged and followed",
            peer: Box::new(|| logged_and_followed(&peer.client(&[]))),
            ours: Box::new(|| logged_and_followed(&ours.client(&[]))),
            goal: Some(1.0 / 3.0),
        },
    ];
    rows.retain(|row| chosen(row.name));
    ensure!(
        !rows.is_empty() || chosen(MEMORY),
        "nothing of the engine is measured under {words:?}"
    );
    println!("{}\n", fixture::machine(&[("docker", peer.version()?)])?);
    pair::print(&rows, runs)?;
    if chosen(MEMORY) {
        memory::compare(&peer, &ours)?;
    }
    drop(rows);
    ours.clean_up()
}

/// A container that prints lines of 100 bytes, `logs -f` until its end, and its removal, by a client with its
/// environment. Both sides write the same format without rotation, and every byte must arrive.
fn logged_and_followed(client: &Command) -> Command {
    let line = "0123456789".repeat(9) + "012345678";
    let print = format!("busybox yes {line} | busybox head -c {OUTPUT}");
    let script = format!(
        "id=$(\"$0\" run -d --network none --log-driver json-file --log-opt max-size=100g {IMAGE} sh -c '{print}') &&
         count=$(\"$0\" logs -f $id | wc -c) && \"$0\" rm -f $id && [ $count -eq {OUTPUT} ]"
    );
    let mut command = Command::new("sh");
    command
        .args(["-c", &script])
        .arg(client.get_program())
        .envs(client.get_envs().filter_map(|(name, value)| Some((name, value?))))
        .stdin(Stdio::null());
    command
}
