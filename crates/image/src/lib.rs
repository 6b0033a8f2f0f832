//! Images: from a registry or an archive to layers on disk, and back.
//!
//! ```text
//!   registry ──pull──> content blobs ──unpack──> snapshots (one per chain ID)
//!            <─push──                <─commit──
//!   archive  ──load, import──>       ──save──> archive
//! ```
//!
//! An image is identified by the digest of its target, an index or a manifest, as Docker's containerd store
//! does; what users are shown instead, if the daemon is set so, is said in [`ImageIds`]. Names point to targets; an
//! image without a name is dangling. Every document is kept as it came, and so is every compressed layer that cannot
//! be had again bit for bit, so that a push never changes a digest; of an index only the platforms that were pulled
//! are here.
//!
//! Invariants: what [`Images::resolve`] finds has its manifest, configuration and layers as verified blobs, or the
//! layers unpacked with what it takes to make the same blobs of them ([`BlobPolicy`]); a snapshot labelled with a
//! chain ID was made from a layer whose digest and diff ID were both verified. A failed operation leaves nothing that
//! is visible, at most the resumable beginning of a download; what became unreferenced is removed by [`Images::gc`].
//!
//! `pull` and `push` are async. Everything else blocks (disk, compression) and belongs on a blocking thread;
//! `load` and `import` must not run on a thread of the async runtime itself.

#![cfg_attr(
    test,
    allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")
)]

pub mod archive;
mod behind;
mod bounded;
mod chain;
mod collect;
mod commit;
pub mod compression;
mod contents;
mod document;
mod download;
mod error;
mod guest;
mod history;
mod ids;
mod image;
mod images;
mod import;
mod index;
pub mod layer;
mod lineage;
mod list;
mod load;
mod logins;
mod names;
mod parts;
mod platform;
mod progress;
mod pull;
mod push;
mod recipe;
mod recode;
mod registered;
mod remove_platform;
mod resolve;
mod save;
mod scratch;
pub mod signature;
mod stack;
mod steps;
mod unpack;
mod usage;
mod write;

pub use bounded::MAX_LAYER;
pub use commit::CommitLayers;
pub use contents::{Comparison, Contents, Entry, LayerContents, Setting, Wasted};
pub use download::MAX_DOWNLOADS;
pub use error::ImageError;
pub use guest::Guest;
pub use history::HistoryItem;
pub use ids::ImageIds;
pub use image::{Image, ImageSummary, ManifestSummary};
pub use images::Images;
pub use import::ImportOptions;
pub use index::Statement;
pub use load::{LoadOptions, Loaded};
pub use names::{Removed, Untagged};
pub use parts::{LayerPart, RemoteParts};
pub use progress::{Progress, ProgressEvent};
pub use pull::PullOptions;
pub use push::{MAX_UPLOADS, PushOptions, PushResult};
pub use recipe::{BlobPolicy, Reduced};
pub use recode::{ImageForm, LayerCompression};
pub use registry::Auth;
pub use remove_platform::{PlatformsRemoved, SUBJECT};
pub use save::SaveOptions;
pub use signature::{NamedKey, PublicKey, Verified};
pub use usage::{DiskUsage, ImageUsage};
