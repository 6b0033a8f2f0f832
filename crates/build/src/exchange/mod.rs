//! The cache as it travels: what one engine did, so that another one need not.
//!
//! ```text
//!   traces of a build ──> Draft ──> document + layers ──> registry, a client's directory, or the image itself
//!   registry, directory, image ──> Imported ──> the cache of a build, beside what is here
//! ```
//!
//! The document is BuildKit's (`application/vnd.buildkit.cacheconfig.v0`): records, each with the digest of what is done and
//! links to the records it is done on, and layers. So its tools can carry ours and we can read theirs. A record is found by
//! a key that is computed from these digests ([`crate::solve::key`]), which is why a build with the same steps finds it on any
//! machine; BuildKit computes other digests for the same steps, so neither is a hit for the other.
//!
//! Invariants: a record that was read names nothing outside its document; of what is imported only keys are believed before
//! something is needed, and a layer counts only after its digest and its diff ID were verified; whatever is wrong with a
//! layer makes its step run again.

mod document;
mod export;
mod import;
mod remote;
mod wish;

use futures_util::future::BoxFuture;
use spec::image::Descriptor;
use store::Lease;

use crate::error::BuildError;

pub use export::{Draft, Form, Written};
pub use import::{Imported, import};
pub use wish::{CacheGoal, CacheSource, CacheTarget, INLINE_ARGUMENT, Wish};

pub(crate) use export::inline;

/// How much of a cache is exported.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum CacheExport {
    #[default]
    No,
    /// The layers of the result; of everything else only how it was made.
    Min,
    /// The layers of every step.
    Max,
}

/// The type of the document.
const CONFIG: &str = "application/vnd.buildkit.cacheconfig.v0";
/// Where an image carries the records of its own layers.
pub(crate) const INLINE: &str = "moby.buildkit.cache.v0";
/// The annotation of a layer that tells its diff ID.
const DIFF_ID: &str = "containerd.io/uncompressed";
/// Most bytes of the document that everything begins with; what registries take.
pub const MAX_TOP: u64 = 4 << 20;
/// Most bytes of every other document; what BuildKit reads.
const MAX_DOCUMENT: u64 = 1 << 20;

/// Where an imported cache lies.
pub trait Origin: Send + Sync + 'static {
    /// The document that everything begins with, of at most [`MAX_TOP`] bytes.
    fn top(&self) -> BoxFuture<'_, Result<Vec<u8>, BuildError>>;

    /// A document of the size that is said, verified. It is kept nowhere; who asks has looked at the size.
    fn document<'a>(&'a self, of: &'a Descriptor) -> BoxFuture<'a, Result<Vec<u8>, BuildError>>;

    /// Brings a layer into the store, verified, where `lease` keeps it.
    fn layer<'a>(&'a self, of: &'a Descriptor, lease: &'a Lease) -> BoxFuture<'a, Result<(), BuildError>>;
}
