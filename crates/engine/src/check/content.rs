//! What `--content` looks at: blobs, and the files that layers share, each against its digest.

use std::sync::Arc;

use store::{SnapshotId, Stop};

use super::Seen;
use crate::container::Container;
use crate::engine::Inner;
use crate::error::{Error, Result};

/// What holds something else than its digest says. `stop` ends the reading, with an error.
pub(super) fn damage(inner: &Inner, stop: &Stop<'_>) -> Result<Vec<Seen>> {
    let blobs = inner
        .store
        .content()
        .damaged(stop)
        .map_err(image::ImageError::from)?;
    let mut seen: Vec<Seen> = blobs.into_iter().map(Seen::Blob).collect();
    for name in inner.store.snapshots().damaged_objects(stop)? {
        // The caller says that it was given up.
        if stop() {
            break;
        }
        let holders = holders(inner, &name)?;
        seen.push(Seen::Object { name, holders });
    }
    Ok(seen)
}

/// Which layers have an object, each with what it belongs to; empty for none.
fn holders(inner: &Inner, object: &str) -> Result<String> {
    let mut told = Vec::new();
    for layer in inner.store.snapshots().holders(object)? {
        let mut users = inner.images.with_layer(layer.id)?;
        if users.is_empty() {
            users = containers_on(inner, layer.id);
        }
        if users.is_empty() {
            users.push("of a build".to_owned());
        }
        told.push(format!("layer {} ({})", layer.id, users.join(", ")));
    }
    Ok(told.join(", "))
}

fn containers_on(inner: &Inner, layer: SnapshotId) -> Vec<String> {
    let stands_on = |container: &Arc<Container>| {
        let stack = inner.store.snapshots().stack(container.snapshot);
        stack.is_ok_and(|stack| stack.iter().any(|one| one.id == layer))
    };
    let mut containers = inner.containers.snapshots();
    containers.retain(stands_on);
    containers
        .iter()
        .map(|container| format!("container {}", container.name))
        .collect()
}

/// Content that layers share is had from where it came. What steps of builds made may be nowhere else: then the next build does
/// them again, and the layers go, unless something else has them. A layer of an image or a container stays: with one bad file it
/// is better than none.
pub(super) fn mend_object(inner: &Inner, name: &str, stop: &Stop<'_>) -> Result<()> {
    if inner.images.mend_object(name, stop)? {
        return Ok(());
    }
    // Who was stopped has not found that no archive has it.
    super::go_on(stop)?;
    let snapshots = inner.store.snapshots();
    let layers: Vec<SnapshotId> = snapshots.holders(name)?.iter().map(|layer| layer.id).collect();
    snapshots.doubt(&layers)?;
    inner.images.gc(|_| Ok(store::Roots::default()))?;
    match holders(inner, name)?.as_str() {
        "" => Ok(()),
        holders => Err(Error::conflict(format!(
            "no archive has it; it stays in {holders}, until a pull or a build brings the file again"
        ))),
    }
}
