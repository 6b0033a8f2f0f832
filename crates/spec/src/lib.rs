//! The vocabulary every room shares: digests, references, platforms, identifiers, the instance's derived
//! names, and the documents of the Open Container Initiative.
//!
//! Nothing here touches the kernel, a disk or a network. Every type parses strictly and prints back exactly
//! what it parsed, so that a value that exists is a value that is valid.

mod class;
mod digest;
mod id;
pub mod image;
mod instance;
mod platform;
mod reference;
pub mod runtime;

pub use class::ErrorClass;
pub use digest::{Digest, DigestError, Hasher, chain_id};
pub use id::{Id, IdError};
pub use instance::Instance;
pub use platform::{Platform, PlatformError};
pub use reference::{Reference, ReferenceError};
