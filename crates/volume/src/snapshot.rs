//! Snapshots of a volume: its content as it was, to go back to.
//!
//! ```text
//! ROOT/volumes/<name>/_data
//! ROOT/volumes/<name>/snapshots/<snapshot>/_data
//! ```
//!
//! A snapshot lies beside the content that it is of, so it goes where the volume goes: to another name, to the trash and
//! back, and away. Its directory is all there is to know of it, and appears only when it is complete. Going back is one
//! exchange of two directories: whatever happens, the volume has the old content or the new, whole.
//!
//! That nobody writes meanwhile is the engine's to see to; who has begun to use a volume while a snapshot was copied for it
//! keeps it as it is.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;

use jiff::Timestamp;
use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::rename::copy;
use crate::{Volume, VolumeError, Volumes, data, name, seconds, sync};

const DIRECTORY: &str = "snapshots";

/// What a volume held once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    pub name: String,
    /// To the second.
    pub created_at: Timestamp,
    /// Its content.
    pub path: std::path::PathBuf,
}

impl Volumes {
    /// The snapshots of a volume, by name.
    pub fn snapshots(&self, volume: &str) -> Result<Vec<Snapshot>, VolumeError> {
        let home = self.home(&self.get(volume)?.name);
        let dir = home.join(DIRECTORY);
        let failed = |cause| VolumeError::at("read", &dir, cause);
        let entries = match fs::read_dir(&dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.map_err(failed)?,
        };
        let mut snapshots = Vec::new();
        for entry in entries {
            let entry = entry.map_err(failed)?;
            let Ok(modified) = entry.metadata().and_then(|meta| meta.modified()) else {
                // Removed meanwhile.
                continue;
            };
            let created = Timestamp::try_from(modified).unwrap_or(Timestamp::UNIX_EPOCH);
            let name = entry.file_name().to_string_lossy().into_owned();
            snapshots.push(Snapshot {
                path: data(&dir, &name),
                name,
                created_at: seconds(created),
            });
        }
        snapshots.sort_by(|left, right| left.name.cmp(&right.name));
        Ok(snapshots)
    }

    /// The snapshot of this name.
    pub fn snapshot(&self, volume: &str, snapshot: &str) -> Result<Snapshot, VolumeError> {
        let all = self.snapshots(volume)?;
        let found = all.into_iter().find(|found| found.name == snapshot);
        found.ok_or_else(|| VolumeError::NoSnapshot {
            volume: volume.to_owned(),
            snapshot: snapshot.to_owned(),
        })
    }

    /// Keeps what a volume holds now, under a name or else under the time. Where the filesystem shares blocks between
    /// files (btrfs, xfs) no data is copied.
    pub fn snapshot_create(&self, volume: &str, snapshot: Option<&str>) -> Result<Snapshot, VolumeError> {
        let original = self.own(volume, "snapshot")?;
        let taken = self.snapshots(volume)?;
        let is_taken = |name: &str| taken.iter().any(|other| other.name == name);
        let snapshot = match snapshot {
            Some(snapshot) => snapshot.to_owned(),
            None => {
                let now = Timestamp::now().strftime("%Y%m%d-%H%M%S").to_string();
                let others = (2..).map(|number| format!("{now}-{number}"));
                let mut free = std::iter::once(now.clone()).chain(others);
                free.find(|name| !is_taken(name)).unwrap_or(now)
            }
        };
        name::check(&snapshot)?;
        let conflict = || VolumeError::SnapshotTaken {
            volume: volume.to_owned(),
            snapshot: snapshot.clone(),
        };
        if is_taken(&snapshot) {
            return Err(conflict());
        }
        self.fill_aside(
            |data| copy(&original.mountpoint, data),
            |aside| {
                let _state = self.lock();
                // Gone or another one meanwhile.
                if self.get(volume)? != original {
                    return Err(VolumeError::NotFound(volume.to_owned()));
                }
                let dir = self.home(volume).join(DIRECTORY);
                match DirBuilder::new().mode(0o700).create(&dir) {
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                    other => other.map_err(|cause| VolumeError::at("create directory", &dir, cause))?,
                }
                let to = dir.join(&snapshot);
                if to.exists() {
                    return Err(conflict());
                }
                fs::rename(self.home(aside), &to)
                    .map_err(|cause| VolumeError::at("create directory", &to, cause))?;
                sync(&dir)
            },
        )?;
        self.snapshot(volume, &snapshot)
    }

    /// Deletes a snapshot.
    pub fn snapshot_remove(&self, volume: &str, snapshot: &str) -> Result<(), VolumeError> {
        let mut state = self.lock();
        self.snapshot(volume, snapshot)?;
        self.inner.store.db().make_room();
        let aside = self.hide(&mut state, &format!("{volume}/{DIRECTORY}/{snapshot}"))?;
        drop(state);
        aside.map_or(Ok(()), |aside| self.delete_aside(&aside))
    }

    /// Gives a volume the content of one of its snapshots, which stays. What it held since is gone. Refused while a holder
    /// has it mounted, however shortly before the end of the copy that was.
    pub fn snapshot_restore(&self, volume: &str, snapshot: &str) -> Result<Volume, VolumeError> {
        let original = self.own(volume, "restore")?;
        let from = self.snapshot(volume, snapshot)?.path;
        self.fill_aside(
            |data| {
                {
                    let _state = self.lock();
                    self.bound_directory(data, &original)?;
                }
                copy(&from, data)
            },
            |aside| {
                let state = self.lock();
                if self.get(volume)? != original {
                    return Err(VolumeError::NotFound(volume.to_owned()));
                }
                if let Some(holders) = state.holders.get(volume) {
                    return Err(VolumeError::Held {
                        name: volume.to_owned(),
                        holders: holders.iter().cloned().collect(),
                    });
                }
                let (new, old) = (self.path(aside), self.path(volume));
                renameat_with(CWD, &new, CWD, &old, RenameFlags::EXCHANGE)
                    .map_err(|cause| VolumeError::at("restore", &old, cause))?;
                sync(&self.home(volume))
            },
        )?;
        Ok(original)
    }

    /// Makes a volume with the content of a snapshot, and the labels and the size of the volume that it is of.
    pub fn snapshot_clone(&self, volume: &str, snapshot: &str, new: &str) -> Result<Volume, VolumeError> {
        let original = self.own(volume, "restore")?;
        let from = self.snapshot(volume, snapshot)?.path;
        self.fill_like(new, &original, |data| copy(&from, data))
    }
}
