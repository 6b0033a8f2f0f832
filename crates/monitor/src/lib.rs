//! The monitor: one small process per container. It makes the container, holds its streams, records its output and
//! its end, and serves whoever attaches; the daemon may come and go meanwhile.
//!
//! ```text
//!   daemon ──(socketpair: Launch, descriptors)──> monitor ──(runtime::create)──> first process of the container
//!     │                                             │  pipes or terminal, log file, exit record
//!     └──(<run_dir>/<short id>.sock: Request)───────┘
//! ```
//!
//! - [`protocol`]: what is said on both sockets; one JSON document per line, descriptors with its first byte.
//! - [`client`]: the daemon's side, blocking calls with a deadline.
//! - [`log`]: the container's log: written by the monitor, read by the daemon.
//! - [`forward`]: sends log entries elsewhere, in a process of its own that only some drivers need.
//! - [`main`]: the process itself (`berth monitor`), single-threaded, one epoll.
//!
//! Invariants:
//! - The exit record is on disk before anyone hears of the exit.
//! - The container's output is read whether or not anybody listens; memory per listener is bounded.
//! - The monitor is no child of the daemon, shares no session with it, and holds none of its descriptors.
//! - When it leaves, the cgroup and the control socket are gone.

pub mod client;
pub mod forward;
pub mod log;
pub mod protocol;
mod serve;
mod socket;
mod timestamp;
mod wire;

pub use serve::main;
