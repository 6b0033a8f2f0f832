//! Copying between a container's root filesystem and tar streams, as `docker cp` does, and between a volume and one.
//!
//! The root belongs to a container that may be running and hostile. Every path is resolved with the container's
//! root as `/` (openat2, `RESOLVE_IN_ROOT`), each step goes through a descriptor, and no link is followed that
//! a process inside could not follow to the same place.
//!
//! Words: the *last component* of a path is not followed when it is a link, unless the path ends in `/` or
//! `/.`; everything before it is.

mod error;
mod extract;
mod ids;
mod pack;
mod path;
mod stat;

pub use error::ArchiveError;
pub use extract::{ExtractOptions, extract};
pub use ids::Ids;
pub use pack::{pack, pack_tree};
pub use stat::{PathStat, stat};
