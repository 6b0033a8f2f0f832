//! `update`: other limits for a container that lives.
//!
//! What is not named keeps its value, and so do the rules for devices, as with the field's runtimes: what a process has
//! open it keeps in any case, and others may have added to them. The record is written after the kernel has taken the
//! limits, so that it never promises what is not so.

use std::fs;
use std::io::Read;
use std::path::Path;

use spec::runtime::{BlockIo, Cpu, IntelRdt, Memory, Pids, Resources, Status};

use super::arguments::UpdateOptions;
use super::create;
use super::document;
use super::error::CliError;
use super::rdt;
use super::state::Containers;

pub(super) fn update(containers: &Containers, options: &UpdateOptions) -> Result<i32, CliError> {
    let mut record = containers.load(&options.id)?;
    let status = containers.status(&record);
    if status == Status::Stopped {
        return Err(CliError::Status {
            action: "update",
            status,
        });
    }
    let mut wanted = match &options.resources {
        Some(path) => read(path)?,
        None => Resources::from(options),
    };
    let class = IntelRdt::from(options);
    if wanted.is_empty() && class == IntelRdt::default() {
        return Err(CliError::Usage(
            "update needs at least one limit to change".to_owned(),
        ));
    }
    cgroup::check(&wanted)?;
    if !wanted.devices.is_empty() {
        tracing::warn!("devices: the rules of a container that lives do not change");
        wanted.devices.clear();
    }
    if class != IntelRdt::default() {
        rdt::change(&record.classed, &class)?;
        let kept = record.spec.linux.get_or_insert_default();
        let kept = kept.intel_rdt.get_or_insert_default();
        over(&mut kept.l3_cache_schema, class.l3_cache_schema);
        over(&mut kept.mem_bw_schema, class.mem_bw_schema);
        // Whatever becomes of the limits.
        containers.save(&record)?;
    }
    if !wanted.is_empty() {
        record.cgroup()?.apply(&wanted)?;
    }
    let kept = record
        .spec
        .linux
        .get_or_insert_default()
        .resources
        .get_or_insert_default();
    merge(kept, wanted);
    if record.systemd {
        let all = create::with_device_rules(kept.clone());
        record.place().set(&all)?;
    }
    containers.save(&record)?;
    Ok(0)
}

fn read(path: &Path) -> Result<Resources, CliError> {
    let mut bytes = Vec::new();
    let outcome = if path == Path::new("-") {
        std::io::stdin().read_to_end(&mut bytes).map(drop)
    } else {
        fs::read(path).map(|read| bytes = read)
    };
    outcome.map_err(|error| CliError::io(&path.display().to_string(), error))?;
    document::parse(path, &bytes)
}

impl From<&UpdateOptions> for Resources {
    fn from(options: &UpdateOptions) -> Self {
        let memory = Memory {
            limit: options.memory,
            reservation: options.memory_reservation,
            swap: options.memory_swap,
            kernel: options.kernel_memory,
            kernel_tcp: options.kernel_memory_tcp,
            ..Memory::default()
        };
        let cpu = Cpu {
            shares: options.cpu_share,
            quota: options.cpu_quota,
            burst: options.cpu_burst,
            period: options.cpu_period,
            realtime_runtime: options.cpu_rt_runtime,
            realtime_period: options.cpu_rt_period,
            cpus: options.cpuset_cpus.clone().unwrap_or_default(),
            mems: options.cpuset_mems.clone().unwrap_or_default(),
            idle: options.cpu_idle,
        };
        Resources {
            memory: (memory != Memory::default()).then_some(memory),
            cpu: (cpu != Cpu::default()).then_some(cpu),
            pids: options.pids_limit.map(|limit| Pids { limit }),
            block_io: options.blkio_weight.map(|weight| BlockIo {
                weight: Some(weight),
                ..BlockIo::default()
            }),
            ..Resources::default()
        }
    }
}

impl From<&UpdateOptions> for IntelRdt {
    fn from(options: &UpdateOptions) -> Self {
        IntelRdt {
            l3_cache_schema: options.l3_cache_schema.clone(),
            mem_bw_schema: options.mem_bw_schema.clone(),
            ..IntelRdt::default()
        }
    }
}

fn over<T>(kept: &mut Option<T>, new: Option<T>) {
    if new.is_some() {
        *kept = new;
    }
}

/// Puts what is `new` over what is `kept`, value by value.
fn merge(kept: &mut Resources, new: Resources) {
    if let Some(new) = new.memory {
        let kept = kept.memory.get_or_insert_default();
        over(&mut kept.limit, new.limit);
        over(&mut kept.reservation, new.reservation);
        over(&mut kept.swap, new.swap);
        over(&mut kept.kernel, new.kernel);
        over(&mut kept.kernel_tcp, new.kernel_tcp);
        over(&mut kept.swappiness, new.swappiness);
        over(&mut kept.disable_oom_killer, new.disable_oom_killer);
    }
    if let Some(new) = new.cpu {
        let kept = kept.cpu.get_or_insert_default();
        over(&mut kept.shares, new.shares);
        over(&mut kept.quota, new.quota);
        over(&mut kept.burst, new.burst);
        over(&mut kept.period, new.period);
        over(&mut kept.realtime_runtime, new.realtime_runtime);
        over(&mut kept.realtime_period, new.realtime_period);
        over(&mut kept.idle, new.idle);
        for (kept, new) in [(&mut kept.cpus, new.cpus), (&mut kept.mems, new.mems)] {
            if !new.is_empty() {
                *kept = new;
            }
        }
    }
    over(&mut kept.pids, new.pids);
    over(&mut kept.block_io, new.block_io);
    over(&mut kept.network, new.network);
    if !new.hugepage_limits.is_empty() {
        kept.hugepage_limits = new.hugepage_limits;
    }
    kept.rdma.extend(new.rdma);
    kept.unified.extend(new.unified);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_named_stays() {
        let memory = |limit, swap| Memory {
            limit,
            swap,
            ..Memory::default()
        };
        let mut kept = Resources {
            memory: Some(memory(Some(1), Some(2))),
            pids: Some(Pids { limit: 7 }),
            ..Resources::default()
        };
        let new = Resources {
            memory: Some(memory(Some(5), None)),
            cpu: Some(Cpu {
                cpus: "0".to_owned(),
                ..Cpu::default()
            }),
            ..Resources::default()
        };
        merge(&mut kept, new);
        assert_eq!(kept.memory, Some(memory(Some(5), Some(2))));
        assert_eq!(kept.pids, Some(Pids { limit: 7 }));
        assert_eq!(kept.cpu.unwrap().cpus, "0");
    }
}
