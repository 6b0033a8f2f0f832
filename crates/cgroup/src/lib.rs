//! Control groups: v1, v2 and hybrid behind one face.
//!
//! A [`Cgroup`] is one directory in each tree of the host ([`Hierarchy`]). It limits ([`Cgroup::apply`], [`Cgroup::lift`]), freezes,
//! kills and measures whatever runs inside, and tells of out-of-memory kills.
//!
//! Invariants:
//! - A value that is written is read back where the kernel may round, clamp or ignore it; a difference is an error
//!   that names file and value.
//! - A limit whose controller is missing is an error naming both; nothing is silently dropped.
//! - Nothing outside `<mount>/<parent>/<name>` is changed, but the parents' `cgroup.subtree_control` (v2) and the
//!   parents' empty cpusets (v1), which the kernel wants filled first.
//! - No locks and no global state: the directory tree of the kernel is the only state. Two processes may hold the
//!   same group.
//!
//! Where systemd owns the trees, it makes the group ([`Systemd`]).
//!
//! Sources: cgroups(7); Linux Documentation/admin-guide/cgroup-v1 and cgroup-v2.rst; OCI runtime-spec 1.2, config-linux.

mod error;
mod file;
mod freeze;
mod group;
mod hierarchy;
mod kill;
mod limit;
mod member;
mod oom;
mod owner;
mod place;
mod stats;
mod systemd;

pub use error::{CgroupError, Result};
pub use group::{Cgroup, ControllerPath};
pub use hierarchy::{Hierarchy, Support, Version};
pub use limit::check::check;
pub use limit::devices::{DeviceRules, Exception};
pub use limit::lift::Lift;
pub use member::{Below, Entry};
pub use place::{Driver, Group, Place};
pub use stats::{BlkioEntry, BlkioStats, CpuStats, MemoryStats, PidsStats, Stats, Throttling};
pub use systemd::{Scope, Systemd, Unit};
