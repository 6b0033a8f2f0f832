//! A session of BuildKit's protocol: what a client lends while it waits for a build.
//!
//! ```text
//!   client                                          engine
//!     POST /session ── connection ──────────────────> calls back on it:
//!     lend: directories, secrets, agents,     <──────   FileSync, Secrets, SSH, Auth,
//!           logins, outputs, uploads, stores            FileSend, Upload, Content
//!     POST /grpc ───── Control, LLBBridge ──────────> builds
//! ```
//!
//! Here is what both ends share (patterns of files, the packets that files travel in, headers, the messages of a store of
//! blobs) and the client's end ([`lend`], [`control`]). The engine's end is the room `buildkit`.
//!
//! - What the other end sends is foreign: paths are taken beneath a directory descriptor and through no link, ids are
//!   looked up and never joined to a path.
//! - A client lends what it was told to lend and nothing else.

// A test that panics says so; product code may not.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod content;
pub mod control;
pub mod enclosed;
pub mod files;
pub mod header;
pub mod http2;
pub mod lend;
pub mod pattern;

/// The largest message that either end takes.
pub const MAX_MESSAGE: usize = 16 << 20;
/// The most bytes of headers that either end takes: the patterns of a transfer are headers, and so is what is told of a
/// failure, with the whole Dockerfile in it.
pub const MAX_HEADERS: u32 = 16 << 20;
