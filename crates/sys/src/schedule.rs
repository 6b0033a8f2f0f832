//! Where and when the calling thread runs, and from which nodes it gets memory.
//!
//! Sources: sched_setattr(2), sched_setaffinity(2), set_mempolicy(2).

use std::io;

/// The largest number of a processor or node, and one more.
pub const MOST: usize = 1024;

/// What sched_setattr(2) takes; times are nanoseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Policy {
    pub policy: u32,
    pub flags: u64,
    pub nice: i32,
    pub priority: u32,
    pub runtime: u64,
    pub deadline: u64,
    pub period: u64,
}

/// `struct sched_attr` in its first form.
#[repr(C)]
struct Attributes {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
}

pub fn set_policy(policy: &Policy) -> io::Result<()> {
    let attributes = Attributes {
        size: size_of::<Attributes>() as u32,
        policy: policy.policy,
        flags: policy.flags,
        nice: policy.nice,
        priority: policy.priority,
        runtime: policy.runtime,
        deadline: policy.deadline,
        period: policy.period,
    };
    // SAFETY: the structure has the kernel's layout, says its size, and lives over the call, which only reads it.
    check(unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) })
}

/// The calling thread runs on these processors only.
pub fn run_on(processors: &[usize]) -> io::Result<()> {
    let mut set = rustix::thread::CpuSet::new();
    for processor in processors
        .iter()
        .filter(|number| **number < rustix::thread::CpuSet::MAX_CPU)
    {
        set.set(*processor);
    }
    Ok(rustix::thread::sched_setaffinity(None, &set)?)
}

/// `mode` with its flags; without nodes the kernel is given none.
pub fn set_memory_policy(mode: i32, nodes: &[usize]) -> io::Result<()> {
    const BITS: usize = libc::c_ulong::BITS as usize;
    let mut mask = [0 as libc::c_ulong; MOST / BITS];
    for node in nodes {
        if let Some(word) = mask.get_mut(node / BITS) {
            *word |= 1 << (node % BITS);
        }
    }
    let (pointer, most) = if nodes.is_empty() {
        (std::ptr::null(), 0)
    } else {
        // The kernel takes one off.
        (mask.as_ptr(), MOST + 1)
    };
    // SAFETY: the mask has as many bits as are told, or none is given; the kernel only reads it.
    check(unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, pointer, most) })
}

fn check(result: libc::c_long) -> io::Result<()> {
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
