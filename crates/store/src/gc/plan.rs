//! What goes, as a function of what is there and what is rooted.
//!
//! Kept are rooted blobs and layers, every writable snapshot, and everything below a kept one. What goes is told children
//! before parents.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};

use spec::Digest;

use super::{Freed, Roots};
use crate::snapshot::SnapshotId;

/// A snapshot as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layer {
    pub id: SnapshotId,
    /// Not always the one made first: the layers of an image are unpacked side by side.
    pub parent: Option<SnapshotId>,
    /// A layer; else somebody writes it and answers for it.
    pub committed: bool,
}

pub(super) fn plan(blobs: impl IntoIterator<Item = Digest>, mut layers: Vec<Layer>, roots: &Roots) -> Freed {
    let parents: HashMap<SnapshotId, Option<SnapshotId>> =
        layers.iter().map(|layer| (layer.id, layer.parent)).collect();
    let mut kept = HashSet::new();
    for layer in &layers {
        if layer.committed && !roots.snapshots.contains(&layer.id) {
            continue;
        }
        let mut next = Some(layer.id);
        while let Some(id) = next
            && kept.insert(id)
        {
            next = parents.get(&id).copied().flatten();
        }
    }
    let depths = depths(&layers, &parents);
    // The deepest have no children left, and equals are no relatives; the number makes the order one.
    layers.sort_by_key(|layer| Reverse((depths.get(&layer.id).copied(), layer.id)));
    Freed {
        blobs: blobs
            .into_iter()
            .filter(|digest| !roots.blobs.contains(digest))
            .collect(),
        snapshots: layers
            .into_iter()
            .map(|layer| layer.id)
            .filter(|id| !kept.contains(id))
            .collect(),
        bytes: 0,
    }
}

/// How many are below each.
fn depths(layers: &[Layer], parents: &HashMap<SnapshotId, Option<SnapshotId>>) -> HashMap<SnapshotId, usize> {
    let mut depths = HashMap::new();
    for layer in layers {
        let mut line = Vec::new();
        let mut next = Some(layer.id);
        // Not even damaged rows make a line longer than there are layers.
        while let Some(id) = next.filter(|id| !depths.contains_key(id) && line.len() < layers.len()) {
            line.push(id);
            next = parents.get(&id).copied().flatten();
        }
        let below = next.and_then(|id| depths.get(&id)).map_or(0, |depth| depth + 1);
        for (more, id) in line.into_iter().rev().enumerate() {
            depths.insert(id, below + more);
        }
    }
    depths
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn id(number: usize) -> SnapshotId {
        number.to_string().parse().unwrap()
    }

    fn blob(number: usize) -> Digest {
        Digest::sha256(&number.to_le_bytes())
    }

    /// Snapshots with parents made before or after them, and what is rooted of them and of as many blobs.
    fn worlds() -> impl Strategy<Value = (Vec<Layer>, Roots, usize)> {
        let snapshot = (
            any::<prop::sample::Index>(),
            any::<bool>(),
            prop::bool::weighted(0.8),
            prop::bool::weighted(0.2),
        );
        let drawn = prop::collection::vec(snapshot, 0..40);
        let numbered = drawn.prop_flat_map(|drawn| {
            let numbers: Vec<usize> = (0..drawn.len()).collect();
            (Just(drawn), Just(numbers).prop_shuffle())
        });
        numbered.prop_map(|(drawn, numbers)| {
            let (mut layers, mut roots) = (Vec::new(), Roots::default());
            for (at, (parent, grown, committed, rooted)) in drawn.iter().enumerate() {
                let number = numbers[at];
                layers.push(Layer {
                    id: id(number),
                    parent: (*grown && at > 0).then(|| id(numbers[parent.index(at)])),
                    committed: *committed,
                });
                if *rooted {
                    roots.snapshots.insert(id(number));
                    roots.blobs.insert(blob(number));
                }
            }
            let blobs = layers.len();
            (layers, roots, blobs)
        })
    }

    /// Whether something kept needs the snapshot, by asking all of them.
    fn needed(of: SnapshotId, layers: &[Layer], roots: &Roots) -> bool {
        layers.iter().any(|layer| {
            let itself = layer.id == of && (!layer.committed || roots.snapshots.contains(&of));
            itself || layer.parent == Some(of) && needed(layer.id, layers, roots)
        })
    }

    proptest! {
        #[test]
        fn exactly_what_nothing_needs_goes((layers, roots, blobs) in worlds()) {
            let freed = plan((0..blobs).map(blob), layers.clone(), &roots);
            for layer in &layers {
                prop_assert_eq!(freed.snapshots.contains(&layer.id), !needed(layer.id, &layers, &roots));
            }
            for number in 0..blobs {
                prop_assert_eq!(freed.blobs.contains(&blob(number)), !roots.blobs.contains(&blob(number)));
            }
            // Children before parents: whenever it stops, no parent is missing.
            let mut left: HashSet<SnapshotId> = layers.iter().map(|layer| layer.id).collect();
            for gone in &freed.snapshots {
                left.remove(gone);
                let whole = layers.iter().filter(|layer| left.contains(&layer.id));
                prop_assert!(whole.filter_map(|layer| layer.parent).all(|parent| left.contains(&parent)));
            }
            // The next one has nothing to do.
            let rest: Vec<Layer> = layers.into_iter().filter(|layer| left.contains(&layer.id)).collect();
            let blobs: Vec<Digest> = (0..blobs).map(blob).filter(|blob| !freed.blobs.contains(blob)).collect();
            prop_assert_eq!(plan(blobs, rest, &roots), Freed::default());
        }

        #[test]
        fn whoever_needs_more_keeps_more((layers, roots, blobs) in worlds(), more in any::<prop::sample::Index>()) {
            prop_assume!(!layers.is_empty());
            let before = plan((0..blobs).map(blob), layers.clone(), &roots);
            let mut larger = Roots { blobs: roots.blobs.clone(), snapshots: roots.snapshots.clone() };
            larger.snapshots.insert(id(more.index(layers.len())));
            let after = plan((0..blobs).map(blob), layers, &larger);
            prop_assert!(after.snapshots.iter().all(|gone| before.snapshots.contains(gone)));
        }
    }
}
