//! What the cache holds, and taking parts of it away.

use std::collections::{HashMap, HashSet};

use image::Images;
use jiff::Timestamp;
use store::{Roots, SnapshotId, Snapshots, Store};

use super::rows::{self, Listed};
use crate::error::BuildError;

/// One record as `system df -v` and `builder prune` show it.
#[derive(Debug, Clone, PartialEq)]
pub struct CacheEntry {
    pub id: String,
    pub parents: Vec<String>,
    /// `regular`, or `exec.cachemount` for a cache mount.
    pub kind: String,
    pub description: String,
    /// A build is using it now.
    pub in_use: bool,
    /// An image or another record holds the same files.
    pub shared: bool,
    /// Bytes on disk; 0 for records that add no files.
    pub size: u64,
    pub created_at: Timestamp,
    pub last_used_at: Option<Timestamp>,
    pub usage_count: u64,
}

/// Which records go.
#[derive(Debug, Clone, Default)]
pub struct PruneOptions {
    /// Only to say what would go.
    pub rehearse: bool,
    /// Also those whose files an image holds, and cache mounts.
    pub all: bool,
    /// Also cache mounts.
    pub mounts: bool,
    /// Only those not used for this long.
    pub unused_for: Option<std::time::Duration>,
    /// Only those whose id starts so.
    pub ids: Vec<String>,
    /// Only those of these kinds.
    pub kinds: Vec<String>,
    /// Stop when the cache takes no more than this many bytes.
    pub keep_bytes: Option<u64>,
    /// Stop when this many bytes are free on the filesystem.
    pub min_free: Option<u64>,
    /// So many bytes of the cache stay whatever is free; alone, stop when it takes no more.
    pub reserved: u64,
}

impl PruneOptions {
    /// How many bytes the cache may take while it takes `total` and the filesystem has `free`; `None`: as few as can be.
    fn most(&self, total: u64, free: u64) -> Option<u64> {
        let most = match (self.keep_bytes, self.min_free) {
            (None, None) => return (self.reserved > 0).then_some(self.reserved),
            (Some(most), None) => most,
            (most, Some(least)) => {
                let missing = least.saturating_sub(free);
                most.unwrap_or(u64::MAX).min(total.saturating_sub(missing))
            }
        };
        Some(most.max(self.reserved))
    }
}

/// What went.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pruned {
    pub ids: Vec<String>,
    /// Bytes freed on disk.
    pub bytes: u64,
}

/// How many bytes are free on the store's filesystem; all there can be where it does not say.
pub(crate) fn free(store: &Store) -> u64 {
    let disk = rustix::fs::statvfs(store.root());
    disk.map_or(u64::MAX, |disk| disk.f_bavail.saturating_mul(disk.f_frsize))
}

fn timestamp(milliseconds: i64) -> Timestamp {
    Timestamp::from_millisecond(milliseconds).unwrap_or_default()
}

fn entry(
    snapshots: &Snapshots,
    listed: &Listed,
    held: &HashSet<SnapshotId>,
    sizes: &HashMap<SnapshotId, u64>,
    seen: &mut HashSet<SnapshotId>,
) -> CacheEntry {
    // Records without a layer of their own point to their parent's snapshot and take nothing.
    let own = listed.snapshot.filter(|_| listed.layer);
    let first = own.is_some_and(|snapshot| seen.insert(snapshot));
    let in_image = own.is_some_and(|snapshot| held.contains(&snapshot));
    let size = own.map_or(0, |snapshot| match sizes.get(&snapshot) {
        Some(size) => *size,
        None => snapshots.usage(snapshot).map_or(0, |usage| usage.bytes),
    });
    CacheEntry {
        id: listed.id.strip_prefix("sha256:").unwrap_or(&listed.id).to_owned(),
        parents: listed
            .inputs
            .iter()
            .map(|input| input.strip_prefix("sha256:").unwrap_or(input).to_owned())
            .collect(),
        kind: listed.kind.clone(),
        description: listed.description.clone(),
        in_use: false,
        shared: in_image || (own.is_some() && !first),
        size,
        created_at: timestamp(listed.made),
        last_used_at: (listed.uses > 0).then(|| timestamp(listed.used)),
        usage_count: u64::try_from(listed.uses).unwrap_or(0),
    }
}

fn entries(store: &Store, images: &Images) -> Result<Vec<(Listed, CacheEntry)>, BuildError> {
    let listed = store.db().read(rows::list)?;
    let held = images.rooted()?.snapshots;
    // Those that were measured before, in one look.
    let known = store.snapshots().list()?.into_iter();
    let sizes = known.filter_map(|info| Some((info.id, info.size?))).collect();
    let mut seen = HashSet::new();
    Ok(listed
        .into_iter()
        .map(|listed| {
            let entry = entry(store.snapshots(), &listed, &held, &sizes, &mut seen);
            (listed, entry)
        })
        .collect())
}

/// Everything that takes room in the cache. `busy` are the cache mounts that steps use now.
pub(crate) fn disk_usage(
    store: &Store,
    images: &Images,
    busy: &HashSet<String>,
) -> Result<Vec<CacheEntry>, BuildError> {
    let all = entries(store, images)?;
    let with_files = all.into_iter().filter(|(listed, _)| listed.layer);
    Ok(with_files
        .map(|(_, mut entry)| {
            entry.in_use = busy.contains(&entry.id);
            entry
        })
        .collect())
}

/// Takes records away, those used longest ago first, and then what they alone kept on disk.
pub(crate) fn prune(
    store: &Store,
    images: &Images,
    options: &PruneOptions,
    busy: &HashSet<String>,
) -> Result<Pruned, BuildError> {
    let mut all = entries(store, images)?;
    // What says that it was used later than now was used before the clock was put back: before all that was used since.
    let now = rows::now();
    all.sort_by_key(|(listed, _)| listed.used <= now);
    let mut total: u64 = all
        .iter()
        .filter(|(_, entry)| !entry.shared)
        .map(|(_, entry)| entry.size)
        .sum();
    let most = options.most(total, free(store));
    let before = options
        .unused_for
        .map(|unused| now.saturating_sub(i64::try_from(unused.as_millis()).unwrap_or(i64::MAX)));
    let mut doomed = Vec::new();
    for (listed, entry) in &all {
        let mount = listed.record.is_none();
        let wanted = (options.all || !(entry.shared || (mount && !options.mounts)))
            && before.is_none_or(|before| listed.used.min(now) <= before)
            && (options.ids.is_empty() || options.ids.iter().any(|id| entry.id.starts_with(id.as_str())))
            && (options.kinds.is_empty() || options.kinds.contains(&entry.kind))
            && !busy.contains(&entry.id);
        if !wanted {
            continue;
        }
        if most.is_some_and(|most| total <= most) {
            break;
        }
        total = total.saturating_sub(if entry.shared { 0 } else { entry.size });
        doomed.push((listed, entry));
    }
    let remove_rows = |tx: &store::rusqlite::Transaction<'_>| -> store::rusqlite::Result<()> {
        for (listed, entry) in &doomed {
            match listed.record {
                Some(record) => rows::remove(tx, record)?,
                None => {
                    tx.execute("DELETE FROM build_mount WHERE id = ?1", [&entry.id])?;
                }
            }
        }
        rows::no_future(tx, now)
    };
    let mut pruned = Pruned::default();
    if options.rehearse {
        let layers = doomed.iter().filter(|(listed, _)| listed.layer);
        pruned.ids = layers.map(|(_, entry)| entry.id.clone()).collect();
        let mounts = doomed
            .iter()
            .filter(|(listed, _)| listed.record.is_none() && listed.snapshot.is_some());
        pruned.bytes = mounts.map(|(_, entry)| entry.size).sum();
        if !doomed.is_empty() {
            pruned.bytes += images.rehearse_gc(&[], remove_rows)?.bytes;
        }
        return Ok(pruned);
    }
    store
        .db()
        .write_durable::<_, BuildError>(|tx| Ok(remove_rows(tx)?))?;
    for (listed, entry) in &doomed {
        if listed.layer {
            pruned.ids.push(entry.id.clone());
        }
        // The directory of a cache mount is a writable snapshot, which garbage collection leaves to its owner.
        if let (None, Some(snapshot)) = (listed.record, listed.snapshot) {
            match store.snapshots().remove(snapshot) {
                Ok(_) => pruned.bytes += entry.size,
                Err(error) => tracing::warn!(%error, %snapshot, "a cache mount stays until the next start"),
            }
        }
    }
    if !doomed.is_empty() {
        pruned.bytes += images.gc(|_| Ok(Roots::default()))?.bytes;
    }
    Ok(pruned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_reserved_stays_and_what_is_free_need_not_be_made() {
        let most = |keep_bytes, min_free, reserved| {
            let options = PruneOptions {
                keep_bytes,
                min_free,
                reserved,
                ..PruneOptions::default()
            };
            // The cache takes 100, and 20 are free.
            options.most(100, 20)
        };
        assert_eq!(most(None, None, 0), None);
        assert_eq!(most(None, None, 30), Some(30));
        assert_eq!(most(Some(50), None, 0), Some(50));
        assert_eq!(most(Some(50), None, 60), Some(60));
        assert_eq!(most(None, Some(10), 0), Some(100));
        assert_eq!(most(None, Some(60), 0), Some(60));
        assert_eq!(most(None, Some(60), 80), Some(80));
        assert_eq!(most(Some(50), Some(60), 0), Some(50));
        assert_eq!(most(None, Some(1_000), 0), Some(0));
    }
}
