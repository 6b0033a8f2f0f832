//! What a container uses: one sample of its cgroup and interfaces, beside the sample before it, in Docker's
//! numbers. Whoever watches has samples of its own to compare: others that watch the same container change nothing of what
//! is shown.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Container;
use crate::engine::{Engine, Inner, blocking};
use crate::error::{Error, Result};
use api_types::{
    BlkioStatEntry, BlkioStats, CpuStats, CpuUsage, MemoryStats, NetworkStats, PidsStats, Stats,
    ThrottlingData, ZERO_TIME,
};

/// Disk use of a container in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sizes {
    /// Its writable layer.
    pub rw: i64,
    /// Its whole root: image and writable layer.
    pub root_fs: i64,
}

impl Engine {
    /// One sample, beside the one that the same client had before. Of a container that does not run, the empty one Docker
    /// gives.
    pub async fn container_stats(&self, name: &str, before: Option<&Stats>) -> Result<Stats> {
        let container = self.container(name)?;
        let mut stats = Stats {
            id: container.id.to_string(),
            name: format!("/{}", container.name),
            os_type: "linux".to_owned(),
            read: ZERO_TIME.to_owned(),
            preread: ZERO_TIME.to_owned(),
            ..Stats::default()
        };
        if let Some(before) = before {
            stats.preread.clone_from(&before.read);
            stats.precpu_stats = before.cpu_stats.clone();
        }
        if !container.state.status.is_alive() {
            return Ok(stats);
        }
        let (inner, owned) = (Arc::clone(&self.inner), Arc::clone(&container));
        let sample = blocking(move || sample(&inner, &owned)).await?;
        stats.read = format!("{:.9}", jiff::Timestamp::now());
        stats.cpu_stats = sample.cpu;
        stats.memory_stats = sample.memory;
        stats.pids_stats = sample.pids;
        stats.blkio_stats = sample.blkio;
        stats.networks = sample.networks;
        Ok(stats)
    }

    /// How much disk a container takes.
    pub async fn container_sizes(&self, name: &str) -> Result<Sizes> {
        let container = self.container(name)?;
        let inner = Arc::clone(&self.inner);
        blocking(move || sizes(&inner, &container)).await
    }
}

pub(crate) fn sizes(inner: &Inner, container: &Container) -> Result<Sizes> {
    let snapshots = inner.store.snapshots();
    let rw = snapshots.usage(container.snapshot)?.bytes;
    let mut total = rw;
    let mut next = snapshots.parent(container.snapshot);
    while let Some(layer) = next {
        total += snapshots.usage(layer)?.bytes;
        next = snapshots.parent(layer);
    }
    let signed = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    Ok(Sizes {
        rw: signed(rw),
        root_fs: signed(total),
    })
}

struct Sample {
    cpu: CpuStats,
    memory: MemoryStats,
    pids: PidsStats,
    blkio: BlkioStats,
    networks: BTreeMap<String, NetworkStats>,
}

fn sample(inner: &Inner, container: &Container) -> Result<Sample> {
    let stats = inner.cgroup_of(container)?.stats()?;
    let entries = |list: &[cgroup::BlkioEntry]| {
        let one = |e: &cgroup::BlkioEntry| BlkioStatEntry {
            major: e.major,
            minor: e.minor,
            op: e.operation.clone(),
            value: e.value,
        };
        list.iter().map(one).collect::<api_types::List<_>>()
    };
    let own_interfaces = container.host_config.network_mode != "host";
    let machine = std::fs::read_to_string("/proc/stat")?;
    let (system_cpu_usage, online_cpus) = processors(&machine)?;
    Ok(Sample {
        cpu: CpuStats {
            cpu_usage: CpuUsage {
                total_usage: stats.cpu.total,
                percpu_usage: stats.cpu.per_cpu.clone().into(),
                usage_in_kernelmode: stats.cpu.kernel,
                usage_in_usermode: stats.cpu.user,
            },
            system_cpu_usage,
            online_cpus,
            throttling_data: ThrottlingData {
                periods: stats.cpu.throttling.periods,
                throttled_periods: stats.cpu.throttling.throttled_periods,
                throttled_time: stats.cpu.throttling.throttled_time,
            },
        },
        memory: MemoryStats {
            usage: stats.memory.usage,
            max_usage: stats.memory.max_usage.unwrap_or(0),
            stats: stats.memory.stats,
            failcnt: stats.memory.fail_count,
            limit: stats.memory.limit.unwrap_or(u64::MAX).min(total_memory()),
        },
        pids: PidsStats {
            current: stats.pids.current,
            limit: stats.pids.limit.unwrap_or(0),
        },
        blkio: BlkioStats {
            io_service_bytes_recursive: entries(&stats.blkio.service_bytes),
            io_serviced_recursive: entries(&stats.blkio.serviced),
            io_queue_recursive: entries(&[]),
            io_service_time_recursive: entries(&[]),
            io_wait_time_recursive: entries(&[]),
            io_merged_recursive: entries(&[]),
            io_time_recursive: entries(&[]),
            sectors_recursive: entries(&[]),
        },
        networks: match own_interfaces {
            true => interfaces(&std::fs::read_to_string(format!(
                "/proc/{}/net/dev",
                container.state.pid
            ))?),
            false => BTreeMap::new(),
        },
    })
}

/// Processor time of the whole machine in nanoseconds, and how many processors had it, whichever of them the daemon may
/// use. From /proc/stat (proc(5)): the first line, from user to softirq and steal, in ticks of 10 ms; then a line for each.
fn processors(stat: &str) -> Result<(u64, u32)> {
    let line = stat.lines().next().unwrap_or_default();
    let ticks: u64 = line
        .split_whitespace()
        .skip(1)
        .take(8)
        .filter_map(|f| f.parse::<u64>().ok())
        .sum();
    let is_one = |line: &&str| {
        let number = line.strip_prefix("cpu").and_then(|rest| rest.chars().next());
        number.is_some_and(|digit| digit.is_ascii_digit())
    };
    let online = stat.lines().filter(is_one).count();
    match ticks {
        0 => Err(Error::internal("/proc/stat has no processor times")),
        ticks => Ok((ticks * 10_000_000, u32::try_from(online).unwrap_or(u32::MAX))),
    }
}

/// Bytes of memory of the machine.
pub(crate) fn total_memory() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text
        .lines()
        .find_map(|l| l.strip_prefix("MemTotal:"))
        .unwrap_or_default();
    line.split_whitespace()
        .next()
        .and_then(|kib| kib.parse::<u64>().ok())
        .unwrap_or(0)
        * 1024
}

/// Reads /proc/<pid>/net/dev without loopback.
fn interfaces(text: &str) -> BTreeMap<String, NetworkStats> {
    let parse = |line: &str| {
        let (name, numbers) = line.split_once(':')?;
        let n: Vec<u64> = numbers
            .split_whitespace()
            .filter_map(|f| f.parse().ok())
            .collect();
        if name.trim() == "lo" || n.len() < 12 {
            return None;
        }
        let stats = NetworkStats {
            rx_bytes: n[0],
            rx_packets: n[1],
            rx_errors: n[2],
            rx_dropped: n[3],
            tx_bytes: n[8],
            tx_packets: n[9],
            tx_errors: n[10],
            tx_dropped: n[11],
        };
        Some((name.trim().to_owned(), stats))
    };
    text.lines().filter_map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_has_the_processors_that_are_listed() {
        let text = "cpu  1 2 3 4 5 6 7 8 90 90\ncpu0 1 1 1 1 1 1 1 1 0 0\ncpu11 0 1 2 3 4 5 6 7 0 0\nintr 1 2\nctxt 5\n";
        assert_eq!(processors(text).unwrap(), (360_000_000, 2));
        assert!(processors("").is_err());
    }

    #[test]
    fn reads_interfaces() {
        let text = "Inter-| Receive\n face |bytes\n    lo: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n  eth0: 10 2 3 4 0 0 0 0 20 5 6 7 0 0 0 0\n";
        let all = interfaces(text);
        assert_eq!(all.len(), 1);
        assert_eq!((all["eth0"].rx_bytes, all["eth0"].tx_dropped), (10, 7));
    }
}
