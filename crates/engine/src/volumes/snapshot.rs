//! Snapshots of volumes, and who has to stand still or to end for them.
//!
//! A snapshot is what a volume holds at one moment, so containers that can write to it stand still while it is copied, unless
//! it is asked for otherwise. To go back under a container that runs would change files in its hands: that is refused.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use spec::Id;
use volume::{Snapshot, Volume, VolumeError};

use super::{disk_bytes, emit, users_that};
use crate::engine::{Engine, Inner, blocking};
use crate::error::Result;

/// A snapshot, as `GET /volumes/{name}/snapshots` tells it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct VolumeSnapshot {
    pub name: String,
    pub created_at: String,
    /// Bytes on the disk; those that are shared with the volume or other snapshots are counted in each.
    pub size: u64,
}

impl From<Snapshot> for VolumeSnapshot {
    fn from(snapshot: Snapshot) -> VolumeSnapshot {
        VolumeSnapshot {
            created_at: snapshot.created_at.to_string(),
            size: disk_bytes(&snapshot.path),
            name: snapshot.name,
        }
    }
}

/// Containers that live and have a volume, or can write to it.
fn living(inner: &Inner, name: &str, writing: bool) -> Vec<Id> {
    users_that(inner, name, |container, mount| {
        container.state.status.is_alive() && !(writing && mount.read_only)
    })
}

impl Engine {
    /// The snapshots of a volume, by name.
    pub async fn volume_snapshots(&self, volume: &str) -> Result<Vec<VolumeSnapshot>> {
        let (inner, volume) = (Arc::clone(&self.inner), volume.to_owned());
        blocking(move || {
            let snapshots = inner.volumes.snapshots(&volume)?;
            Ok(snapshots.into_iter().map(VolumeSnapshot::from).collect())
        })
        .await
    }

    /// Keeps what a volume holds, while with `pause` nobody writes to it.
    pub async fn volume_snapshot_create(
        &self,
        volume: &str,
        snapshot: Option<&str>,
        pause: bool,
    ) -> Result<VolumeSnapshot> {
        let writers = match pause {
            true => living(&self.inner, volume, true),
            false => Vec::new(),
        };
        let (inner, volume) = (Arc::clone(&self.inner), volume.to_owned());
        let snapshot = snapshot.map(str::to_owned);
        let work = blocking(move || {
            let made = inner.volumes.snapshot_create(&volume, snapshot.as_deref())?;
            emit(&inner, "snapshot", &volume, &[("snapshot", &made.name)]);
            Ok(made)
        });
        let made = self.while_frozen(&writers, work).await?;
        // Nobody has to stand still for it to be measured.
        blocking(move || Ok(VolumeSnapshot::from(made))).await
    }

    /// Deletes a snapshot.
    pub async fn volume_snapshot_remove(&self, volume: &str, snapshot: &str) -> Result<()> {
        let (inner, volume, snapshot) = (Arc::clone(&self.inner), volume.to_owned(), snapshot.to_owned());
        blocking(move || {
            inner.volumes.snapshot_remove(&volume, &snapshot)?;
            emit(&inner, "snapshot-destroy", &volume, &[("snapshot", &snapshot)]);
            Ok(())
        })
        .await
    }

    /// Gives a volume that no living container has the content of a snapshot; or a new volume.
    pub async fn volume_snapshot_restore(
        &self,
        volume: &str,
        snapshot: &str,
        new: Option<&str>,
    ) -> Result<Volume> {
        let (inner, volume, snapshot) = (Arc::clone(&self.inner), volume.to_owned(), snapshot.to_owned());
        let new = new.map(str::to_owned);
        blocking(move || {
            if let Some(new) = new {
                let made = inner.volumes.snapshot_clone(&volume, &snapshot, &new)?;
                emit(
                    &inner,
                    "create",
                    &new,
                    &[("clonedFrom", &volume), ("snapshot", &snapshot)],
                );
                return Ok(made);
            }
            inner.volumes.snapshot(&volume, &snapshot)?;
            let users = living(&inner, &volume, false);
            if !users.is_empty() {
                let holders = users.iter().map(Id::to_string).collect();
                return Err(VolumeError::Held {
                    name: volume,
                    holders,
                }
                .into());
            }
            let restored = inner.volumes.snapshot_restore(&volume, &snapshot)?;
            emit(&inner, "snapshot-restore", &volume, &[("snapshot", &snapshot)]);
            Ok(restored)
        })
        .await
    }
}
