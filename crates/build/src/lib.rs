//! From a Dockerfile and a directory to an image.
//!
//! ```text
//!   parse ──> instruction ──> graph ──> plan ──> solve ──> export
//!   (text)    (meaning)      (stages)  (values)  (work)    (image)
//!                                                  │
//!                                 step (run, copy) ┴ cache
//! ```
//!
//! - [`parse`], [`instruction`], [`expand`] and [`pattern`] know texts only; every mistake they find points to
//!   its line and column.
//! - [`solve`] knows operations and digests only.
//! - [`fetch_context`] gets what is to be built from a web server or a git repository.
//! - [`recipe`] is a build that is no Dockerfile.
//! - `plan` and `step` bring both together. What they need of the engine is the [`Executor`].
//!
//! Invariants: a build leaves nothing behind when it fails or is stopped, but cache records of steps that were
//! done; nothing that a context, an image or a Dockerfile names is looked up outside of it; equal input gives
//! an equal image as long as the cache is kept.

mod archive;
mod builder;
mod cache;
mod call;
mod changes;
mod client;
mod error;
pub mod exchange;
mod executor;
pub mod expand;
mod export;
mod graph;
mod history;
pub mod instruction;
pub mod lint;
pub mod parse;
mod patience;
mod plan;
mod prepared;
pub mod recipe;
mod relayer;
mod remote;
mod report;
mod request;
mod solution;
pub mod solve;
pub mod source;
mod step;
pub mod tally;
mod transcript;

pub use ::session::pattern;
pub use builder::Builder;
pub use cache::{CacheEntry, CachePolicy, PruneOptions, Pruned, cache_roots};
pub use call::Checked;
pub use changes::apply_changes;
pub use client::{Agent, Client};
pub use error::BuildError;
pub use executor::{
    ExecError, Executor, Limits, MountSource, NetworkMode, Output, RunStep, StepMount, Stream, Ulimit,
};
pub use history::{BuildRow, Explained};
pub use patience::{Asked, Patience};
pub use plan::context_name;
pub use prepared::Prepared;
pub use remote::{Access, Fetched, RemoteContext, Ssh, fetch, fetch_context, is_git, unpack_context};
pub use report::{StepId, StepNews};
pub use request::{
    Allowed, BuildEvent, BuildRequest, BuiltContext, HOST_NETWORK, INSECURE, NamedContext, Narration,
};
pub use solution::Solution;
pub use source::Snippet;
