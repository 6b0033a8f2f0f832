//! Taking compressed layers off the disk in the background, by the policy (`image-blobs`).
//!
//! One task does it, on a thread of the lowest priority: some time after images last came, went out or were made, since what
//! was just built is often pushed next; soon after a start, for what the last daemon did not come to; and at once when the
//! policy was changed. While nothing happens it sleeps.

use std::sync::Arc;
use std::time::Duration;

use image::{BlobPolicy, Reduced};

use crate::engine::{Engine, Inner};
use crate::error::{Error, Result};

/// How long no image has to have come or gone.
const QUIET: Duration = Duration::from_secs(60);

/// What wakes the task.
#[derive(Default)]
pub(crate) struct Wake {
    /// The policy is another one.
    pub(crate) policy: tokio::sync::Notify,
}

/// Keeps to the policy until the engine closes.
pub(crate) async fn keep(engine: Engine) {
    let inner = &engine.inner;
    let changed = inner.images.changed();
    loop {
        let quiet = async { while tokio::time::timeout(QUIET, changed.notified()).await.is_ok() {} };
        tokio::select! {
            () = inner.shutdown.cancelled() => return,
            () = inner.blobs.policy.notified() => {}
            () = quiet => {}
        }
        // A layer that is looked at while the engine closes is looked at again by the next one.
        let reduced = tokio::select! {
            () = inner.shutdown.cancelled() => return,
            reduced = reduce(inner) => reduced,
        };
        match reduced {
            Ok(reduced) if reduced.blobs > 0 => {
                tracing::info!(
                    layers = reduced.blobs,
                    bytes = reduced.bytes,
                    "compressed layers that can be had again were removed"
                );
            }
            Ok(_) => {}
            Err(Error { message, .. }) => tracing::warn!(error = message, "compressed layers are kept"),
        }
        tokio::select! {
            () = inner.shutdown.cancelled() => return,
            () = inner.blobs.policy.notified() => inner.blobs.policy.notify_one(),
            () = changed.notified() => {}
        }
    }
}

/// On a thread of its own: its priority stays low.
async fn reduce(inner: &Arc<Inner>) -> Result<Reduced> {
    let policy = inner.live().image_blobs;
    if policy == BlobPolicy::Keep {
        return Ok(Reduced::default());
    }
    let (told, outcome) = tokio::sync::oneshot::channel();
    let inner = Arc::clone(inner);
    std::thread::Builder::new()
        .name("image-blobs".into())
        .spawn(move || {
            if let Err(error) = rustix::process::nice(19) {
                tracing::debug!(%error, "compressed layers are looked at with full priority");
            }
            let stop = || inner.shutdown.is_cancelled() || inner.live().image_blobs != policy;
            let reduced = inner.images.reduce(policy, &stop);
            drop(inner);
            // Nobody waits any more only if the engine is closed.
            let _ = told.send(reduced);
        })
        .map_err(|error| Error::internal(format!("cannot start a thread: {error}")))?;
    let reduced = outcome
        .await
        .map_err(|_| Error::internal("the removal of compressed layers ended unexpectedly"))?;
    Ok(reduced?)
}
