//! From what a client says about a build to a request that the builder understands.

mod context;
mod dockerfile;
mod options;
mod questions;

pub use dockerfile::{solve, tell};
pub use options::Options;
pub use questions::answer;
