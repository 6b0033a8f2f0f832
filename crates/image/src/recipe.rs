//! Recipes: what it takes to make a compressed layer again, bit for bit, of the directory it was unpacked to.
//!
//! ```text
//!   blob ──decompress──> tar ──split──┬── headers, padding, names: as they are
//!                                     └── files: "this path of the layer, so many bytes"   ──> recipe (a blob)
//!   recipe + layer ──replay──> tar ──compress──> blob, only if it has the blob's digest
//! ```
//!
//! A blob's file is taken off the disk only after its recipe was followed once and gave the same bytes. What decides
//! afterwards is the digest again: a layer that was changed on the disk, or a compressor that does otherwise, ends in one
//! error and never in another blob. What a recipe says is not trusted either: lengths are bounded, and its names are
//! resolved beneath the layer's directory.
//!
//! The file: [`MAGIC`], which ends with the version of all that follows, then a zstd stream of the head (JSON, behind its
//! length) and the pieces. Numbers are little-endian.

mod bring;
mod compressor;
mod deflate;
mod make;
mod mend;
mod pieces;
mod policy;
mod reduce;
mod replay;
mod split;
mod table;

pub use policy::BlobPolicy;
pub use reduce::Reduced;

pub(crate) use bring::bringer;
pub(crate) use table::{STEP, dependents, load, recipes};

use compressor::Compressor;
use serde::{Deserialize, Serialize};
use spec::Digest;

/// What a recipe begins with.
const MAGIC: &[u8] = b"berth recipe 1\n";

/// What is said before the pieces.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Head {
    /// What comes of it.
    blob: Digest,
    size: u64,
    /// The layer whose files it takes, and what the tar has to be.
    diff: Digest,
    compressor: Compressor,
}

/// A recipe cannot be followed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RecipeError {
    #[error("the recipe is broken: {0}")]
    Broken(&'static str),
    #[error("{path:?} of the unpacked layer {detail}")]
    Layer { path: String, detail: String },
    #[error("the unpacked layer {0} is not here")]
    NoLayer(Digest),
    #[error("what comes of the unpacked layer has the digest {0}: the layer was changed on the disk")]
    Other(Digest),
    #[error("reading what it is made of: {0}")]
    Read(#[source] std::io::Error),
    #[error("writing the layer: {0}")]
    Write(#[source] std::io::Error),
}

impl RecipeError {
    /// Whether it can never be followed any more.
    fn is_final(&self) -> bool {
        !matches!(self, RecipeError::Read(_) | RecipeError::Write(_))
    }
}
