//! Layers: the difference that one step makes to a root filesystem, as a tar and as a directory.
//!
//! As a tar, what a layer deletes is told by names (OCI image-spec 1.1, "Layer Filesystem Changeset"): `.wh.x`
//! for one entry, `.wh..wh..opq` for everything below. As a directory, it is told as overlayfs wants it: a
//! character device 0/0, and the attribute `trusted.overlay.opaque`. [`apply`] goes from the first to the
//! second, [`diff`] back, and one undoes the other exactly. Where the store's snapshots are whole copies, a layer is what
//! differs between one and those below it ([`apply_part`], [`diff_part`]).
//!
//! Nothing of an archive is ever written outside the directory it is unpacked to: every name is resolved
//! beneath its descriptor, with links followed as a process with that root would follow them.

mod apply;
mod changes;
mod diff;
mod emit;
mod error;
mod files;
mod holes;
mod inside;
mod lowers;
mod noted;
mod parents;
mod place;
pub(crate) mod tar;
mod tree;
mod walk;

pub use apply::{Applied, Beneath, apply, apply_above, apply_part};
pub use changes::{Change, Kind, changes};
pub use diff::{DiffOptions, diff, diff_part};
pub use error::LayerError;
pub use tree::tree_tar;

pub(crate) use emit::Emitter;
pub(crate) use files::Files;
pub(crate) use lowers::is_opaque;
pub(crate) use noted::Noted;
pub(crate) use parents::{Missing, Parents, clean};
pub(crate) use place::{Made, Options as PlaceOptions, overwrite, place, set_directory, times};
pub(crate) use walk::{Found, walk};

/// What the name of a deleted entry begins with.
const WHITEOUT: &[u8] = b".wh.";
/// What names begin with that mean something to the format itself.
const WHITEOUT_META: &[u8] = b".wh..wh.";
/// Everything below this directory is deleted.
const WHITEOUT_OPAQUE: &[u8] = b".wh..wh..opq";
/// overlayfs' own attributes; never taken from an archive, never written to one.
const OVERLAY_XATTRS: [&[u8]; 2] = [b"trusted.overlay.", b"user.overlay."];
const OPAQUE_XATTR: &str = "trusted.overlay.opaque";

/// Whether an attribute is overlayfs' own.
fn is_overlay_xattr(key: &std::ffi::OsStr) -> bool {
    let key = key.as_encoded_bytes();
    OVERLAY_XATTRS.iter().any(|prefix| key.starts_with(prefix))
}
