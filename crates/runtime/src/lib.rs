//! The OCI runtime: from a bundle to an isolated process, without another program in between.
//!
//! The caller (a container's monitor, or the command line `berth runtime`) clones the process that later *is*
//! the container's first process; that child sets itself up inside its new namespaces and executes the user's
//! program itself. The two talk over a socketpair (`handshake`). Everything that can be checked or prepared is
//! done in the caller before the clone (`plan`): what reaches the child is numbers, descriptors and bytes.
//!
//!     Launch --create--> Created --start--> Running
//!     Exec   ---------------exec----------> Running
//!
//! Invariants
//! - The caller is single-threaded: between clone and exec the child allocates.
//! - The root filesystem is mounted in the container's own mount namespace only; no mount of it is ever seen
//!   outside, so none can be left behind.
//! - Paths inside the container are resolved beneath its root by descriptor (openat2 `RESOLVE_IN_ROOT`), and
//!   mounts are moved onto descriptors: links in an image lead nowhere else.
//! - No descriptor but the three standard ones enters the program; the child is not dumpable until its exec, so
//!   that processes of the container cannot look into it.
//! - Whoever drops `Created` unstarted leaves no process behind.
//!
//! Source: OCI runtime-spec 1.3.

mod container;
mod error;
mod exec;
mod handshake;
mod hooks;
mod identity;
mod launch;
mod namespaces;
mod net_devices;
mod plan;
mod process;
mod rootfs;
pub mod seccomp;
pub mod template;
mod validate;

pub mod cli;
pub mod init;

pub use error::LaunchError;
pub use exec::{Exec, Membership, exec};
pub use identity::Identity;
pub use launch::{Created, ExtraMount, Launch, RootFs, Running, Stdio, create};
pub use namespaces::id_ranges;
pub use seccomp::default_seccomp;
