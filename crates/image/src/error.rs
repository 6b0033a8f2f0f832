//! What can go wrong with images, in the words that Docker's clients match on.

use std::io;
use std::sync::Arc;

use spec::image::DocumentError;
use spec::{Digest, ErrorClass, Platform, Reference, ReferenceError};
use store::{ContentError, DbError, IngestError, RemoveError, SnapshotError};

use crate::layer::LayerError;
use crate::layer::tar::TarError;

/// A failure of an operation on images.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    #[error("No such image: {0}")]
    NotFound(String),
    /// A push of a name that nothing here has.
    #[error("An image does not exist locally with the tag: {0}")]
    NotLocal(String),
    /// A short ID that several images share.
    #[error("ambiguous image ID {0}: more digits are needed")]
    Ambiguous(String),
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// A name that carries a digest cannot be given to an image.
    #[error("refusing to create a tag with a digest reference")]
    TagWithDigest,
    #[error("no matching manifest for {0} in the manifest list entries")]
    NoPlatform(Platform),
    #[error("image with reference {name} was found but does not provide the specified platform ({platform})")]
    PlatformMissing { name: String, platform: Platform },
    #[error("no image was found in {0}: its manifests are for other platforms or are not here")]
    NothingHere(String),
    #[error(transparent)]
    Registry(#[from] registry::Error),
    #[error("{what} {digest}: {source}")]
    Document {
        what: &'static str,
        digest: Digest,
        source: DocumentError,
    },
    /// The documents of an image contradict each other or the limits.
    #[error("image {digest} is not valid: {detail}")]
    Invalid { digest: Digest, detail: String },
    /// The bytes that came are not those of the digest.
    #[error("filesystem layer verification failed for digest {expected}: the content has digest {actual}")]
    LayerDigest { expected: Digest, actual: Digest },
    #[error(
        "failed to register layer: layer {blob} unpacks to diff ID {actual}, the image configuration says {expected}"
    )]
    DiffId {
        blob: Digest,
        expected: Digest,
        actual: Digest,
    },
    #[error("failed to register layer {blob}: {source}")]
    Unpack { blob: Digest, source: LayerError },
    #[error("failed to write layer: {0}")]
    Layer(#[source] LayerError),
    /// Neither of the layouts that tools save images in.
    #[error("invalid archive: {0}")]
    Archive(String),
    #[error("invalid archive: {0}")]
    Tar(#[from] TarError),
    #[error("reading the archive: {0}")]
    Read(#[source] io::Error),
    #[error("writing the archive: {0}")]
    Write(#[source] io::Error),
    #[error(transparent)]
    Content(#[from] ContentError),
    #[error(transparent)]
    Ingest(#[from] IngestError),
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    #[error(transparent)]
    RemoveSnapshot(#[from] RemoveError),
    #[error(transparent)]
    Gc(#[from] store::GcError),
    /// A public key that a rule or a client names.
    #[error("the key {}: {detail}", .path.display())]
    Key {
        path: std::path::PathBuf,
        detail: String,
    },
    /// A rule wants a signature.
    #[error(
        "{name} is not signed by any key that the rule for {prefix:?} in this engine's configuration (registries) \
         wants: {keys}"
    )]
    Unsigned {
        name: String,
        prefix: String,
        keys: String,
    },
    #[error(
        "{name} cannot be imported: the rule for {prefix:?} in this engine's configuration (registries) wants a \
         signature, and an imported image has none; choose a name that no such rule is for"
    )]
    Unsignable { name: String, prefix: String },
    #[error("{name} has no signature that verifies with {keys}")]
    NotSigned { name: String, keys: String },
    #[error("no key to verify {0} with: name one, or a rule for it with signed-by in registries")]
    NoKey(String),
    #[error(transparent)]
    NoRoom(#[from] store::NoRoom),
    #[error(transparent)]
    Db(#[from] DbError),
    #[error("writing image document: {0}")]
    Json(#[from] serde_json::Error),
    /// A compressed layer that was let go.
    #[error(
        "the compressed layer {blob} is not on the disk and cannot be had again: {why}; pull or load the image once more"
    )]
    NotBrought {
        blob: Digest,
        why: String,
        class: ErrorClass,
    },
    /// The disk took the bytes no longer.
    #[error("storing {1}: {0}")]
    Store(#[source] io::Error, Digest),
    /// The operation was given up by whoever asked for it.
    #[error("the transfer of {0} was cancelled")]
    Cancelled(Digest),
    /// Given up because of another layer's failure, which is told instead.
    #[error("the unpacking was given up")]
    GivenUp,
    #[error("a worker of the image store ended unexpectedly")]
    Worker,
    /// A failure that several operations share.
    #[error("{0}")]
    Shared(Arc<ImageError>),
}

impl ImageError {
    /// What kind of failure this is for the faces of the engine.
    pub fn class(&self) -> ErrorClass {
        match self {
            ImageError::NotFound(_) | ImageError::NoPlatform(_) | ImageError::PlatformMissing { .. } => {
                ErrorClass::NotFound
            }
            ImageError::Unsigned { .. } | ImageError::Unsignable { .. } | ImageError::NotSigned { .. } => {
                ErrorClass::Forbidden
            }
            ImageError::NoKey(_) => ErrorClass::Invalid,
            ImageError::NothingHere(_) | ImageError::NotLocal(_) => ErrorClass::NotFound,
            ImageError::Ambiguous(_)
            | ImageError::Reference(_)
            | ImageError::TagWithDigest
            | ImageError::Archive(_)
            | ImageError::Tar(_)
            | ImageError::Document { .. }
            | ImageError::DiffId { .. }
            | ImageError::Invalid { .. } => ErrorClass::Invalid,
            // An archive that ends early, or is not what its beginning says.
            ImageError::Read(cause)
                if matches!(
                    cause.kind(),
                    io::ErrorKind::UnexpectedEof
                        | io::ErrorKind::InvalidData
                        | io::ErrorKind::InvalidInput
                        | io::ErrorKind::FileTooLarge
                ) =>
            {
                ErrorClass::Invalid
            }
            ImageError::NotBrought { class, .. } => *class,
            ImageError::Registry(error) => error.class(),
            ImageError::Content(error) => error.class(),
            ImageError::Ingest(error) => error.class(),
            ImageError::Db(error) => error.class(),
            ImageError::Unpack { source, .. } | ImageError::Layer(source) => source.class(),
            ImageError::Snapshot(error) => error.class(),
            ImageError::RemoveSnapshot(error) => error.class(),
            ImageError::Gc(error) => error.class(),
            ImageError::NoRoom(error) => error.class(),
            ImageError::Shared(error) => error.class(),
            _ => ErrorClass::Internal,
        }
    }

    /// Whether the image itself is wrong, so that another attempt would bring the same.
    pub(crate) fn is_bad_content(&self) -> bool {
        match self {
            ImageError::Document { .. }
            | ImageError::Invalid { .. }
            | ImageError::LayerDigest { .. }
            | ImageError::DiffId { .. }
            | ImageError::Unpack { .. }
            | ImageError::Archive(_)
            | ImageError::Tar(_) => true,
            ImageError::Registry(registry::Error::Protocol { .. } | registry::Error::Digest { .. }) => true,
            ImageError::Shared(error) => error.is_bad_content(),
            _ => false,
        }
    }

    /// Whether the disk had no room, so that what came had better go.
    pub(crate) fn is_full(&self) -> bool {
        match self {
            ImageError::Registry(_) => false,
            ImageError::Shared(error) => error.is_full(),
            ImageError::Store(cause, _) | ImageError::Write(cause) => {
                cause.kind() == io::ErrorKind::StorageFull
            }
            other => other.class() == ErrorClass::Unavailable,
        }
    }

    /// The error for a name that resolves to nothing, in full as Docker prints it.
    pub(crate) fn no_such(reference: &Reference) -> ImageError {
        ImageError::NotFound(reference.or_latest().familiar())
    }
}
