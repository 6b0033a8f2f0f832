//! `stats`: what containers use, refreshed in place.
//!
//! One stream per container; the screen is drawn every half second from the last sample of each. Without names the
//! list follows the containers that come and go.

use crate::client::query::{Query, segment};
use crate::command::{Arity, Command};
use crate::failure::{Failure, Outcome};
use crate::flags::{Flag, Matches};
use crate::format::listing::{FORMAT, Format, Listing, Row, render};
use crate::format::{short_id, size};
use crate::json::Value;
use crate::session::{Session, print};
use futures_util::stream::{FuturesUnordered, StreamExt};
use std::cell::RefCell;
use std::time::Duration;

pub const COMMAND: Command = Command::new(
    "stats",
    "Display a live stream of container(s) resource usage statistics",
    "[OPTIONS] [CONTAINER...]",
    Arity::AtLeast(0),
    |session, matches| Box::pin(run(session, matches)),
)
.flags(&[&[
    Flag::bool("all", "Show stopped containers too").short('a'),
    FORMAT,
    Flag::bool("no-stream", "Show the first result and end"),
    Flag::bool("no-trunc", "Do not cut values short"),
]]);

const LISTING: Listing = Listing {
    columns: &[
        ("Container", "CONTAINER"),
        ("ID", "CONTAINER ID"),
        ("Name", "NAME"),
        ("CPUPerc", "CPU %"),
        ("MemUsage", "MEM USAGE / LIMIT"),
        ("MemPerc", "MEM %"),
        ("NetIO", "NET I/O"),
        ("BlockIO", "BLOCK I/O"),
        ("PIDs", "PIDS"),
    ],
    table: "{{.ID}}\t{{.Name}}\t{{.CPUPerc}}\t{{.MemUsage}}\t{{.MemPerc}}\t{{.NetIO}}\t{{.BlockIO}}\t{{.PIDs}}",
    quiet: "{{.ID}}",
    kind: "*container.statsContext",
};

/// One container on the screen.
struct Slot {
    name: String,
    sample: RefCell<Option<Value>>,
}

async fn names(session: &Session, all: bool) -> Result<Vec<String>, Failure> {
    let path = Query::new("/containers/json").flag("all", all).build();
    let list = session.client.get(&path).await?.document().await?;
    Ok(list
        .items()
        .iter()
        .map(|item| item.at(&["Id"]).text().to_owned())
        .collect())
}

/// Follows one container; ends when it does, or after the first sample.
async fn follow(session: &Session, slot: std::rc::Rc<Slot>, once: bool) -> Result<(), Failure> {
    let path = Query::new(format!("/containers/{}/stats", segment(&slot.name)))
        .always("stream", if once { "0" } else { "1" })
        .build();
    let mut lines = session.client.get(&path).await?.lines();
    while let Some(line) = lines.next().await? {
        let sample = Value::parse(&line)
            .map_err(|error| Failure::text(format!("cannot read the daemon's answer: {error}")))?;
        *slot.sample.borrow_mut() = Some(sample);
    }
    Ok(())
}

async fn run(session: &Session, matches: &Matches) -> Outcome {
    let given = !matches.args.is_empty();
    let all = matches.bool("all");
    let once = matches.bool("no-stream");
    let first = if given {
        matches.args.clone()
    } else {
        names(session, all).await?
    };
    let new_slot = |name: String| {
        std::rc::Rc::new(Slot {
            name,
            sample: RefCell::default(),
        })
    };
    let mut slots: Vec<_> = first.into_iter().map(new_slot).collect();
    let mut under_way: FuturesUnordered<_> = slots
        .iter()
        .map(|slot| follow(session, slot.clone(), once))
        .collect();
    let format = Format::new(matches.text("format"), false);
    let whole = matches.bool("no-trunc");
    let show = |slots: &[std::rc::Rc<Slot>]| {
        let rows = slots.iter().map(|slot| row(slot, whole)).collect();
        render(&LISTING, &format, rows)
    };
    if once {
        let mut failures = crate::failure::Failures::new();
        while let Some(result) = under_way.next().await {
            if let Err(failure) = result {
                failures.push(failure);
            }
        }
        if !failures.is_empty() {
            return failures.outcome();
        }
        print(&show(&slots)?)?;
        return Ok(0);
    }
    let mut tick = tokio::time::interval(Duration::from_millis(500));
    let mut ticks = 0u32;
    loop {
        tokio::select! {
            Some(result) = under_way.next(), if !under_way.is_empty() => {
                if let Err(failure) = result && given {
                    return Err(failure);
                }
            }
            _ = tick.tick() => {
                ticks += 1;
                if !given && ticks.is_multiple_of(4) {
                    let now = names(session, all).await?;
                    slots.retain(|slot| now.contains(&slot.name));
                    for name in now {
                        if !slots.iter().any(|slot| slot.name == name) {
                            let slot = new_slot(name);
                            under_way.push(follow(session, slot.clone(), false));
                            slots.push(slot);
                        }
                    }
                }
                if given && under_way.is_empty() {
                    return Ok(0);
                }
                // Home, then every line cleared to its end, then everything below.
                let text = show(&slots)?.replace('\n', "\x1b[K\n");
                print(&format!("\x1b[H{}{text}\x1b[J", if ticks == 1 { "\x1b[2J" } else { "" }))?;
            }
        }
    }
}

fn row(slot: &Slot, whole: bool) -> Row {
    let sample = slot.sample.borrow();
    let Some(sample) = sample.as_ref() else {
        let id = if whole {
            slot.name.as_str()
        } else {
            short_id(&slot.name)
        };
        return Row::new()
            .cell("Container", slot.name.clone())
            .cell("ID", id)
            .cell("Name", "--")
            .cell("CPUPerc", "--")
            .cell("MemUsage", "-- / --")
            .cell("MemPerc", "--")
            .cell("NetIO", "--")
            .cell("BlockIO", "--")
            .cell("PIDs", "--");
    };
    let id = sample.at(&["id"]).text();
    let (used, limit) = memory(sample);
    let (received, sent) =
        sample
            .at(&["networks"])
            .members()
            .iter()
            .fold((0.0, 0.0), |(received, sent), (_, net)| {
                (
                    received + net.at(&["rx_bytes"]).float(),
                    sent + net.at(&["tx_bytes"]).float(),
                )
            });
    let (mut read, mut written) = (0.0, 0.0);
    for entry in sample.at(&["blkio_stats", "io_service_bytes_recursive"]).items() {
        match entry
            .at(&["op"])
            .text()
            .chars()
            .next()
            .map(|c| c.to_ascii_lowercase())
        {
            Some('r') => read += entry.at(&["value"]).float(),
            Some('w') => written += entry.at(&["value"]).float(),
            _ => {}
        }
    }
    let percent = if limit > 0.0 { used / limit * 100.0 } else { 0.0 };
    Row::new()
        .cell("Container", slot.name.clone())
        .cell("ID", if whole { id } else { short_id(id) })
        .cell("Name", sample.at(&["name"]).text().trim_start_matches('/'))
        .cell("CPUPerc", format!("{:.2}%", cpu(sample)))
        .cell(
            "MemUsage",
            format!("{} / {}", size::binary(used), size::binary(limit)),
        )
        .cell("MemPerc", format!("{percent:.2}%"))
        .cell(
            "NetIO",
            format!("{} / {}", size::decimal3(received), size::decimal3(sent)),
        )
        .cell(
            "BlockIO",
            format!("{} / {}", size::decimal3(read), size::decimal3(written)),
        )
        .cell("PIDs", sample.at(&["pids_stats", "current"]).uint().to_string())
}

/// Usage without the part of the page cache the kernel would give back first.
fn memory(sample: &Value) -> (f64, f64) {
    let memory = sample.at(&["memory_stats"]);
    let usage = memory.at(&["usage"]).float();
    let stats = memory.at(&["stats"]);
    let cache = ["total_inactive_file", "inactive_file"]
        .iter()
        .map(|key| stats.at(&[key]))
        .find(|value| !value.is_null())
        .map_or(0.0, Value::float);
    (
        if cache < usage { usage - cache } else { usage },
        memory.at(&["limit"]).float(),
    )
}

fn cpu(sample: &Value) -> f64 {
    let total = |key: &str| sample.at(&[key, "cpu_usage", "total_usage"]).float();
    let system = |key: &str| sample.at(&[key, "system_cpu_usage"]).float();
    let busy = total("cpu_stats") - total("precpu_stats");
    let whole = system("cpu_stats") - system("precpu_stats");
    let cpus = match sample.at(&["cpu_stats", "online_cpus"]).float() {
        0.0 => sample
            .at(&["cpu_stats", "cpu_usage", "percpu_usage"])
            .items()
            .len() as f64,
        cpus => cpus,
    };
    if busy > 0.0 && whole > 0.0 {
        busy / whole * cpus * 100.0
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_of_the_machine() {
        let sample = Value::parse(
            br#"{"cpu_stats":{"cpu_usage":{"total_usage":159429133},"system_cpu_usage":13974860000000,"online_cpus":2},
            "precpu_stats":{"cpu_usage":{"total_usage":127999971},"system_cpu_usage":13972860000000},
            "memory_stats":{"usage":2228224,"stats":{"total_inactive_file":909312},"limit":67108864}}"#,
        )
        .unwrap();
        assert_eq!(format!("{:.2}", cpu(&sample)), "3.14");
        assert_eq!(memory(&sample), (1318912.0, 67108864.0));
    }
}
