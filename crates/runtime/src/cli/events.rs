//! `events`: a line of JSON for what the container uses every so often, and one for every out-of-memory kill.
//!
//! The documents have the shape that the field's tools read from `runc events`.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use cgroup::{BlkioEntry, Stats};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::{Value, json};
use spec::runtime::Status;

use super::error::CliError;
use super::output;
use super::state::Containers;

pub(super) fn events(
    containers: &Containers,
    id: &str,
    interval: Duration,
    once: bool,
) -> Result<i32, CliError> {
    let record = containers.load(id)?;
    let status = containers.status(&record);
    let Some(process) = record.process() else {
        return Err(CliError::Status {
            action: "watch",
            status: Status::Stopped,
        });
    };
    if status == Status::Stopped {
        return Err(CliError::Status {
            action: "watch",
            status,
        });
    }
    let cgroup = record.cgroup()?;
    let tell =
        |kind: &str, data: &Value| output::line(&json!({"type": kind, "id": id, "data": data}).to_string());
    if once {
        tell("stats", &document(&cgroup.stats()?))?;
        return Ok(0);
    }
    let alarm = cgroup.oom_event_fd()?;
    let mut kills = cgroup.oom_kills()?;
    let mut next = Instant::now() + interval;
    loop {
        let ended = wait(
            &process,
            alarm.as_ref(),
            next.saturating_duration_since(Instant::now()),
        )
        .map_err(|error| CliError::io("wait for events", error.into()))?;
        let now = cgroup.oom_kills().unwrap_or(kills);
        for _ in kills..now {
            tell("oom", &Value::Null)?;
        }
        kills = now;
        if ended {
            return Ok(0);
        }
        if Instant::now() >= next {
            next += interval;
            tell("stats", &document(&cgroup.stats()?))?;
        }
    }
}

/// Whether the process has ended. Comes back at the latest after `most`.
fn wait(process: &OwnedFd, alarm: Option<&OwnedFd>, most: Duration) -> Result<bool, rustix::io::Errno> {
    let most = Timespec::try_from(most).unwrap_or(Timespec {
        tv_sec: 1,
        tv_nsec: 0,
    });
    let mut fds = vec![PollFd::new(process, PollFlags::IN)];
    fds.extend(alarm.map(|alarm| PollFd::new(alarm, PollFlags::IN)));
    match poll(&mut fds, Some(&most)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => {}
        Err(error) => return Err(error),
    }
    let ready = |at: usize| fds.get(at).is_some_and(|fd| !fd.revents().is_empty());
    let (ended, alarmed) = (ready(0), ready(1));
    if let Some(alarm) = alarm.filter(|_| alarmed) {
        let mut drained = [0; 4096];
        let _ = rustix::io::read(alarm.as_fd(), &mut drained);
    }
    Ok(ended)
}

fn document(stats: &Stats) -> Value {
    let Stats {
        cpu,
        memory,
        pids,
        blkio,
    } = stats;
    json!({
        "cpu": {
            "usage": {"total": cpu.total, "percpu": cpu.per_cpu, "kernel": cpu.kernel, "user": cpu.user},
            "throttling": {
                "periods": cpu.throttling.periods,
                "throttledPeriods": cpu.throttling.throttled_periods,
                "throttledTime": cpu.throttling.throttled_time,
            },
        },
        "memory": {
            "cache": memory.stats.get("cache").or_else(|| memory.stats.get("file")).copied().unwrap_or(0),
            "usage": {
                // No limit is the largest number, as in version 1's own file.
                "limit": memory.limit.unwrap_or(u64::MAX),
                "usage": memory.usage,
                "max": memory.max_usage.unwrap_or(0),
                "failcnt": memory.fail_count,
            },
            "raw": memory.stats,
        },
        "pids": {"current": pids.current, "limit": pids.limit.unwrap_or(0)},
        "blkio": {
            "ioServiceBytesRecursive": blocks(&blkio.service_bytes),
            "ioServicedRecursive": blocks(&blkio.serviced),
        },
        "hugetlb": {},
        "intel_rdt": {},
        "network_interfaces": null,
    })
}

fn blocks(entries: &[BlkioEntry]) -> Vec<Value> {
    let block = |entry: &BlkioEntry| {
        json!({
            "major": entry.major, "minor": entry.minor, "op": entry.operation, "value": entry.value,
        })
    };
    entries.iter().map(block).collect()
}
