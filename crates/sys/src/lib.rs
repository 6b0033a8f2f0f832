//! The kernel: every `unsafe` block and every raw system call of the engine, behind safe functions over owned
//! descriptors.
//!
//! One file per kernel noun. Each call says in its block why it is sound; errors are the kernel's own
//! (`io::Error` with the number kept wherever a caller may want to tell them apart). Nothing here knows images,
//! containers or networks.

pub mod beneath;
pub mod bpf;
pub mod caps;
pub mod datagram;
pub mod event;
pub mod fd;
pub mod features;
pub mod memory;
pub mod mount;
pub mod namespace;
pub mod netlink;
pub mod process;
pub mod program;
pub mod quota;
pub mod schedule;
pub mod seccomp;
pub mod selinux;
pub mod terminal;
