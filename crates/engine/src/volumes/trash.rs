//! How long removed volumes can be had back: for the time that is configured, and no longer than the disk has room.
//!
//! One task empties the trash. It looks when something was put in, when the next one's time is over, and, while there is
//! anything, every few seconds at the disk: data that nobody has is what a full disk can spare first, so the oldest go as
//! soon as less is free than is to stay free (`min-free`, and a twentieth in any case). An empty trash wakes nobody. The host's
//! clock may be set meanwhile: neither does that end anybody's time nor make it longer.

use std::cmp::Reverse;
use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use volume::{Trashed, Volume};

use super::{emit, volume_bytes};
use crate::clock::{Ages, Moment};
use crate::container::Pruned;
use crate::engine::{Engine, Inner, blocking};
use crate::error::{Error, Result};

/// How often the disk is looked at while there is something in the trash.
const LOOK: Duration = Duration::from_secs(5);
/// What is to stay free, at least, for the trash to keep anything: percent of the disk.
const LEAST_FREE: u8 = 5;
/// How long removed volumes are kept when nobody says.
pub const DEFAULT_TTL: Duration = Duration::from_secs(24 * 60 * 60);

/// What the task that empties the trash goes by.
#[derive(Default)]
pub(crate) struct Watch {
    changed: tokio::sync::Notify,
    ages: Mutex<Ages>,
}

impl Watch {
    /// Something was put into the trash, or the time that things have there is another one.
    pub(crate) fn look_again(&self) {
        self.changed.notify_one();
    }

    /// How long each of them is in the trash.
    fn aged(&self, trash: Vec<Trashed>, now: Moment) -> Vec<(Trashed, Duration)> {
        let mut ages = self.ages.lock().unwrap_or_else(PoisonError::into_inner);
        let there: HashSet<&str> = trash.iter().map(|trashed| trashed.id.as_str()).collect();
        ages.keep(|id| there.contains(id));
        let aged = trash.into_iter().map(|trashed| {
            let age = ages.of(&trashed.id, trashed.since, now);
            (trashed, age)
        });
        aged.collect()
    }
}

/// Something in the trash, as `GET /trash/volumes` tells it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct TrashedVolume {
    #[serde(rename = "ID")]
    pub id: String,
    pub name: String,
    pub driver: String,
    pub labels: std::collections::BTreeMap<String, String>,
    pub created_at: String,
    pub removed_at: String,
    /// When it goes, if the disk has room for so long.
    pub expires_at: String,
    /// Bytes on the disk, with its snapshots.
    pub size: u64,
}

impl Engine {
    /// What can be had back, the oldest first.
    pub async fn volume_trash(&self) -> Result<Vec<TrashedVolume>> {
        let inner = Arc::clone(&self.inner);
        blocking(move || {
            let (ttl, now) = (inner.live().volume_trash_ttl, Moment::now());
            let aged = inner.trash.aged(inner.volumes.trash()?, now).into_iter();
            let shown = aged.map(|(trashed, age)| TrashedVolume {
                created_at: trashed.volume.created_at.to_string(),
                removed_at: trashed.since.to_string(),
                expires_at: expiry(ttl.saturating_sub(age), now.time).to_string(),
                size: bytes(&trashed),
                id: trashed.id,
                name: trashed.volume.name,
                driver: trashed.volume.driver,
                labels: trashed.volume.labels,
            });
            Ok(shown.collect())
        })
        .await
    }

    /// Makes a volume again of what is in the trash; `which` is its id or its name.
    pub async fn volume_restore(&self, which: &str, new: Option<&str>) -> Result<Volume> {
        let (inner, which, new) = (Arc::clone(&self.inner), which.to_owned(), new.map(str::to_owned));
        blocking(move || {
            let volume = inner.volumes.restore(&which, new.as_deref())?;
            emit(&inner, "restore", &volume.name, &[("trash", &which)]);
            Ok(volume)
        })
        .await
    }

    /// Deletes for good what is in the trash: all of it, or what is named by id or name. With `rehearse` says what would go.
    pub async fn volume_trash_empty(&self, which: &[String], rehearse: bool) -> Result<Pruned> {
        let (inner, which) = (Arc::clone(&self.inner), which.to_vec());
        blocking(move || {
            let mut chosen = match which.is_empty() {
                true => inner.volumes.trash()?,
                false => {
                    let found = which.iter().map(|which| inner.volumes.find_trashed(which));
                    found.collect::<std::result::Result<Vec<_>, _>>()?
                }
            };
            // By its id and by its name it is the same.
            let mut seen = HashSet::new();
            chosen.retain(|trashed| seen.insert(trashed.id.clone()));
            let mut pruned = Pruned::default();
            for trashed in &chosen {
                let freed = bytes(trashed);
                if !rehearse {
                    purge(&inner, trashed, "asked")?;
                }
                pruned
                    .deleted
                    .push(format!("{} {}", trashed.id, trashed.volume.name));
                pruned.space += freed;
            }
            Ok(pruned)
        })
        .await
    }
}

/// Removes a volume; into the trash if there is one, unless it is to go `at_once`. Gives the bytes that are free now.
pub(super) fn remove(inner: &Inner, name: &str, force: bool, at_once: bool) -> Result<u64> {
    let driver = inner.volumes.owner(name)?.unwrap_or_default();
    if driver != volume::LOCAL {
        inner.volumes.remove(name, force)?;
        emit(inner, "destroy", name, &[("driver", &driver)]);
        return Ok(0);
    }
    let volume = inner.volumes.get(name)?;
    if at_once || inner.live().volume_trash_ttl.is_zero() {
        let freed = volume_bytes(&volume.mountpoint);
        inner.volumes.remove(name, false)?;
        emit(inner, "destroy", name, &[]);
        return Ok(freed);
    }
    match inner.volumes.discard(name)? {
        Some(trashed) => emit(inner, "destroy", name, &[("trash", &trashed.id)]),
        None => emit(inner, "destroy", name, &[]),
    }
    inner.trash.look_again();
    Ok(0)
}

fn purge(inner: &Inner, trashed: &Trashed, why: &str) -> Result<()> {
    inner.volumes.purge(&trashed.id)?;
    let whose = [("trash", trashed.id.as_str()), ("reason", why)];
    emit(inner, "purge", &trashed.volume.name, &whose);
    Ok(())
}

fn bytes(trashed: &Trashed) -> u64 {
    volume_bytes(&trashed.volume.mountpoint)
}

/// What the clock will show when so much time is over, to the second.
fn expiry(left: Duration, now: Timestamp) -> Timestamp {
    let at = now.checked_add(left).and_then(|at| at.round(jiff::Unit::Second));
    at.unwrap_or(Timestamp::MAX)
}

/// Empties the trash until the engine closes.
pub(crate) async fn keep(engine: Engine) {
    let inner = &engine.inner;
    loop {
        let sweeper = Arc::clone(inner);
        let next = match blocking(move || sweep(&sweeper)).await {
            Ok(next) => next,
            Err(Error { message, .. }) => {
                tracing::warn!(error = message, "removed volumes stay in the trash");
                Some(LOOK)
            }
        };
        let rest = async {
            match next {
                Some(next) => tokio::time::sleep(next).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = inner.shutdown.cancelled() => return,
            () = inner.trash.changed.notified() => {}
            () = rest => {}
        }
    }
}

/// Deletes what is over its time, and what the disk has no room for; when to look again. What cannot be deleted stays, and
/// holds up nothing behind it.
fn sweep(inner: &Inner) -> Result<Option<Duration>> {
    let ttl = inner.live().volume_trash_ttl;
    let mut stays = false;
    let mut trash = inner.trash.aged(inner.volumes.trash()?, Moment::now());
    // The oldest first: the time of all that come after it is over later.
    trash.sort_by_key(|(_, age)| Reverse(age.as_secs()));
    for (trashed, age) in trash {
        if inner.shutdown.is_cancelled() {
            return Ok(None);
        }
        let left = ttl.saturating_sub(age);
        let (why, told) = match () {
            () if left.is_zero() => ("age", "its time in the trash is over"),
            () if !inner.store.room().has(LEAST_FREE) => ("space", "the disk is nearly full"),
            () => return Ok(Some(left.clamp(Duration::from_millis(100), LOOK))),
        };
        let volume = &trashed.volume.name;
        tracing::info!(volume, "a removed volume is deleted: {told}");
        if let Err(Error { message, .. }) = purge(inner, &trashed, why) {
            tracing::warn!(volume, error = message, "a removed volume stays in the trash");
            stays = true;
        }
    }
    Ok(stays.then_some(LOOK))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_to_come_are_told_to_the_second() {
        let now: Timestamp = "2030-01-01T00:00:00.000001Z".parse().unwrap();
        let at = |left| expiry(left, now).to_string();
        assert_eq!(at(Duration::from_secs(90)), "2030-01-01T00:01:30Z");
        assert_eq!(at(Duration::ZERO), "2030-01-01T00:00:00Z");
        assert_eq!(at(Duration::MAX), Timestamp::MAX.to_string());
    }
}
