//! When and where the process runs: scheduling policy, class of input and output, processors, memory nodes.
//!
//! Sources: sched(7), sched_setattr(2), ioprio_set(2), sched_setaffinity(2), set_mempolicy(2); OCI runtime-spec 1.3
//! config.md "Scheduler", "ExecCPUAffinity", config-linux.md "Memory policy".

use spec::runtime::{CpuAffinity, IoPriority, MemoryPolicy, Process, Scheduler};
use sys::schedule::{self, Policy};

use crate::error::{During, LaunchError};

/// By the kernel's number; 4 was never used.
const POLICIES: [(&str, u32); 7] = [
    ("SCHED_OTHER", 0),
    ("SCHED_FIFO", 1),
    ("SCHED_RR", 2),
    ("SCHED_BATCH", 3),
    ("SCHED_ISO", 4),
    ("SCHED_IDLE", 5),
    ("SCHED_DEADLINE", 6),
];
const DEADLINE: u32 = 6;

const FLAGS: [(&str, u64); 7] = [
    ("SCHED_FLAG_RESET_ON_FORK", 0x01),
    ("SCHED_FLAG_RECLAIM", 0x02),
    ("SCHED_FLAG_DL_OVERRUN", 0x04),
    ("SCHED_FLAG_KEEP_POLICY", 0x08),
    ("SCHED_FLAG_KEEP_PARAMS", 0x10),
    ("SCHED_FLAG_UTIL_CLAMP_MIN", 0x20),
    ("SCHED_FLAG_UTIL_CLAMP_MAX", 0x40),
];

const DEFAULT: i32 = 0;
const BIND: i32 = 2;
const INTERLEAVE: i32 = 3;
const LOCAL: i32 = 4;
const PREFERRED_MANY: i32 = 5;
const WEIGHTED_INTERLEAVE: i32 = 6;
pub(crate) const MEMORY_MODES: [(&str, i32); 7] = [
    ("MPOL_DEFAULT", DEFAULT),
    ("MPOL_PREFERRED", 1),
    ("MPOL_BIND", BIND),
    ("MPOL_INTERLEAVE", INTERLEAVE),
    ("MPOL_LOCAL", LOCAL),
    ("MPOL_PREFERRED_MANY", PREFERRED_MANY),
    ("MPOL_WEIGHTED_INTERLEAVE", WEIGHTED_INTERLEAVE),
];
pub(crate) const MEMORY_FLAGS: [(&str, i32); 3] = [
    ("MPOL_F_NUMA_BALANCING", 1 << 13),
    ("MPOL_F_RELATIVE_NODES", 1 << 14),
    ("MPOL_F_STATIC_NODES", 1 << 15),
];

fn named<T: Copy>(table: &[(&str, T)], name: &str, field: &str) -> Result<T, LaunchError> {
    let found = table.iter().find(|(known, _)| *known == name);
    found
        .map(|(_, value)| *value)
        .ok_or_else(|| LaunchError::Invalid(format!("{field}: there is no {name:?}")))
}

#[derive(Debug, Default)]
pub(crate) struct Scheduling {
    policy: Option<Policy>,
    io: Option<(u32, u32)>,
    memory: Option<(i32, Vec<usize>)>,
}

impl Scheduling {
    pub fn new(process: &Process, memory: Option<&MemoryPolicy>) -> Result<Scheduling, LaunchError> {
        Ok(Scheduling {
            policy: process.scheduler.as_ref().map(policy).transpose()?,
            io: process.io_priority.as_ref().map(io_priority).transpose()?,
            memory: memory.map(memory_policy).transpose()?,
        })
    }

    /// In the child, before it gives up its rights.
    pub fn apply(&self) -> Result<(), LaunchError> {
        if let Some(policy) = &self.policy {
            schedule::set_policy(policy).during("set process.scheduler")?;
        }
        if let Some((class, level)) = self.io {
            sys::process::set_io_priority(class, level).during("set process.ioPriority")?;
        }
        if let Some((mode, nodes)) = &self.memory {
            schedule::set_memory_policy(*mode, nodes).during("set linux.memoryPolicy")?;
        }
        Ok(())
    }
}

fn policy(wanted: &Scheduler) -> Result<Policy, LaunchError> {
    let policy = named(&POLICIES, &wanted.policy, "process.scheduler.policy")?;
    let mut flags = 0;
    for (index, name) in wanted.flags.iter().enumerate() {
        flags |= named(&FLAGS, name, &format!("process.scheduler.flags[{index}]"))?;
    }
    let invalid = |text: String| Err(LaunchError::Invalid(text));
    if !(-20..=19).contains(&wanted.nice) {
        return invalid(format!(
            "process.scheduler.nice: {} is not -20 to 19",
            wanted.nice
        ));
    }
    let realtime = matches!(policy, 1 | 2);
    if wanted.priority != 0 && !realtime {
        return invalid(format!(
            "process.scheduler.priority: {} has none (SCHED_FIFO and SCHED_RR have)",
            wanted.policy
        ));
    }
    let times = wanted.runtime | wanted.deadline | wanted.period;
    if (times != 0) != (policy == DEADLINE) {
        return invalid(
            "process.scheduler: runtime, deadline and period belong to SCHED_DEADLINE".to_owned(),
        );
    }
    let Ok(priority) = u32::try_from(wanted.priority) else {
        return invalid(format!(
            "process.scheduler.priority: {} is negative",
            wanted.priority
        ));
    };
    Ok(Policy {
        policy,
        flags,
        nice: wanted.nice,
        priority,
        runtime: wanted.runtime,
        deadline: wanted.deadline,
        period: wanted.period,
    })
}

fn io_priority(wanted: &IoPriority) -> Result<(u32, u32), LaunchError> {
    let classes = [
        ("IOPRIO_CLASS_RT", 1),
        ("IOPRIO_CLASS_BE", 2),
        ("IOPRIO_CLASS_IDLE", 3),
    ];
    let class = named(&classes, &wanted.class, "process.ioPriority.class")?;
    match u32::try_from(wanted.priority) {
        Ok(level @ 0..=7) => Ok((class, level)),
        _ => Err(LaunchError::Invalid(format!(
            "process.ioPriority.priority: {} is not 0 to 7",
            wanted.priority
        ))),
    }
}

pub(crate) fn memory_policy(wanted: &MemoryPolicy) -> Result<(i32, Vec<usize>), LaunchError> {
    let mut mode = named(&MEMORY_MODES, &wanted.mode, "linux.memoryPolicy.mode")?;
    let nodes = list("linux.memoryPolicy.nodes", &wanted.nodes)?;
    // Those of the kernel (set_mempolicy(2)); the preferred modes take any number.
    let why = match mode {
        DEFAULT | LOCAL if !nodes.is_empty() => Some("takes no nodes"),
        BIND | INTERLEAVE | PREFERRED_MANY | WEIGHTED_INTERLEAVE if nodes.is_empty() => {
            Some("needs at least one node")
        }
        _ => None,
    };
    if let Some(why) = why {
        let text = format!("linux.memoryPolicy.nodes: {} {why}", wanted.mode);
        return Err(LaunchError::Invalid(text));
    }
    for (index, name) in wanted.flags.iter().enumerate() {
        mode |= named(&MEMORY_FLAGS, name, &format!("linux.memoryPolicy.flags[{index}]"))?;
    }
    Ok((mode, nodes))
}

/// Where an additional process runs: on its way, and from its beginning on.
#[derive(Debug, Default)]
pub(crate) struct Affinity {
    pub initial: Vec<usize>,
    pub last: Vec<usize>,
}

impl Affinity {
    pub fn new(wanted: Option<&CpuAffinity>) -> Result<Affinity, LaunchError> {
        let Some(wanted) = wanted else {
            return Ok(Affinity::default());
        };
        Ok(Affinity {
            initial: list("process.execCPUAffinity.initial", &wanted.initial)?,
            last: list("process.execCPUAffinity.final", &wanted.r#final)?,
        })
    }
}

/// Moves the calling thread to these processors; none is no change.
pub(crate) fn run_on(processors: &[usize]) -> Result<(), LaunchError> {
    if processors.is_empty() {
        return Ok(());
    }
    schedule::run_on(processors).during(&format!("set process.execCPUAffinity {processors:?}"))
}

/// `0-3,7` as numbers.
fn list(field: &str, text: &str) -> Result<Vec<usize>, LaunchError> {
    let wrong = || LaunchError::Invalid(format!("{field}: {text:?} is not a list such as 0-3,7"));
    let number = |word: &str| {
        let number = word.trim().parse::<usize>().ok();
        number.filter(|number| *number < schedule::MOST).ok_or_else(wrong)
    };
    let mut numbers = Vec::new();
    for part in text.split(',').filter(|_| !text.trim().is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (number(first)?, number(last)?);
        if first > last {
            return Err(wrong());
        }
        numbers.extend(first..=last);
    }
    Ok(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists() {
        assert_eq!(list("x", "0-2,5").unwrap(), [0, 1, 2, 5]);
        assert_eq!(list("x", "").unwrap(), [0usize; 0]);
        for bad in ["a", "3-1", "0-", ",", "1000000", "-1"] {
            let error = list("process.execCPUAffinity.final", bad)
                .unwrap_err()
                .to_string();
            assert!(error.contains("execCPUAffinity.final"), "{bad}: {error}");
        }
    }

    #[test]
    fn policies_that_make_no_sense_are_refused() {
        let refused = |change: &dyn Fn(&mut Scheduler)| {
            let mut scheduler = Scheduler {
                policy: "SCHED_OTHER".to_owned(),
                ..Scheduler::default()
            };
            change(&mut scheduler);
            policy(&scheduler).unwrap_err().to_string()
        };
        assert!(refused(&|s| s.policy = "SCHED_MAGIC".to_owned()).contains("process.scheduler.policy"));
        assert!(refused(&|s| s.nice = 20).contains("nice: 20"));
        assert!(refused(&|s| s.priority = 5).contains("SCHED_OTHER has none"));
        assert!(refused(&|s| s.runtime = 5).contains("SCHED_DEADLINE"));
        assert!(refused(&|s| s.policy = "SCHED_DEADLINE".to_owned()).contains("SCHED_DEADLINE"));
        assert!(refused(&|s| s.flags = vec!["SCHED_FLAG_X".to_owned()]).contains("flags[0]"));
    }

    #[test]
    fn a_memory_policy_has_as_many_nodes_as_its_mode_takes() {
        let policy = |mode: &str, nodes: &str| {
            memory_policy(&MemoryPolicy {
                mode: mode.to_owned(),
                nodes: nodes.to_owned(),
                ..MemoryPolicy::default()
            })
        };
        for (mode, nodes) in [("MPOL_LOCAL", "0"), ("MPOL_DEFAULT", "0"), ("MPOL_BIND", "")] {
            let told = policy(mode, nodes).unwrap_err().to_string();
            assert!(told.contains("linux.memoryPolicy.nodes"), "{told}");
        }
        policy("MPOL_PREFERRED", "").unwrap();
        policy("MPOL_BIND", "0").unwrap();
    }
}
