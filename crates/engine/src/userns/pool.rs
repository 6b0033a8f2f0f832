//! Ids for containers that want some of their own.
//!
//! What a container was given is in its record and stays with it until it is removed, so that two containers never
//! have an id in common, whatever happened to the daemon in between. What is free is what nobody's record has.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use spec::Id;
use spec::runtime::IdMapping;

use super::subordinate::{Range, ranges_for};
use super::{IdMaps, Mode, Settings, USUAL, file};
use crate::error::{Error, Result};

/// Who has what.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    taken: Mutex<HashMap<Id, IdMaps>>,
}

impl Pool {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Id, IdMaps>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes what a container has had since before this daemon.
    pub(crate) fn hold(&self, container: &Id, maps: &IdMaps) {
        self.lock().insert(container.clone(), maps.clone());
    }

    /// Gives a container the ids its mode asks for, if it asks for any.
    pub(crate) fn take(&self, settings: &Settings, container: &Id, mode: &Mode) -> Result<Option<IdMaps>> {
        let (size, kept) = match mode {
            Mode::Auto { size } => (*size, None),
            Mode::KeepId { uid, gid } => (USUAL, Some((*uid, *gid))),
            Mode::Default | Mode::Host | Mode::Container(_) => return Ok(None),
        };
        let source = |kind| source(settings, kind);
        let (uids, gids) = (source("uid")?, source("gid")?);
        let mut taken = self.lock();
        let remap = settings.remap.iter();
        let used: Vec<&IdMaps> = taken.values().chain(remap).collect();
        let users = used.iter().flat_map(|maps| &maps.uids);
        let groups = used.iter().flat_map(|maps| &maps.gids);
        let maps = IdMaps {
            uids: map(
                &find(&uids, users, size, kept.map(|kept| kept.0))
                    .map_err(|left| full(settings, "uid", size, left))?,
                kept.map(|kept| kept.0),
            ),
            gids: map(
                &find(&gids, groups, size, kept.map(|kept| kept.1))
                    .map_err(|left| full(settings, "gid", size, left))?,
                kept.map(|kept| kept.1),
            ),
        };
        taken.insert(container.clone(), maps.clone());
        Ok(Some(maps))
    }

    /// Takes a container's ids back.
    pub(crate) fn give_back(&self, container: &Id) {
        self.lock().remove(container);
    }
}

fn source(settings: &Settings, kind: &str) -> Result<Vec<Range>> {
    ranges_for(&settings.pool, kind, &settings.directory).map_err(|reason| {
        Error::invalid(format!(
            "no ids for a user namespace of the container's own: {reason} (the daemon's --userns-pool names the user)"
        ))
    })
}

fn full(settings: &Settings, kind: &str, size: u32, left: u32) -> Error {
    Error::conflict(format!(
        "the pool of ids is exhausted: {size} in a row are wanted, and the longest free range of {} in {} has {left}; \
         remove containers that have some, ask for fewer (--userns auto:size=N), or give the user a larger range",
        settings.pool,
        file(&settings.directory, kind).display()
    ))
}

/// The first `size` free ids of the host in a row; else how many there are. An id that is kept cannot be among them.
fn find<'a>(
    ranges: &[Range],
    used: impl Iterator<Item = &'a IdMapping>,
    size: u32,
    kept: Option<u32>,
) -> std::result::Result<Range, u32> {
    let mut used: Vec<(u32, u32)> = used
        .map(|range| (range.host_id, range.host_id.saturating_add(range.size)))
        .chain(kept.map(|id| (id, id.saturating_add(1))))
        .collect();
    used.sort_unstable();
    let mut longest = 0;
    for range in ranges {
        let end = range.first.saturating_add(range.count);
        let mut first = range.first;
        for (begin, behind) in used.iter().copied().chain(std::iter::once((end, end))) {
            let free = begin.min(end).saturating_sub(first);
            if free >= size {
                return Ok(Range { first, count: size });
            }
            longest = longest.max(free);
            first = first.max(behind);
        }
    }
    Err(longest)
}

/// The ids from 0 on; a kept one is itself, in the place of what it would have been or beside the others.
fn map(range: &Range, kept: Option<u32>) -> Vec<IdMapping> {
    let part = |container_id: u32, size: u32| IdMapping {
        container_id,
        host_id: range.first + container_id,
        size,
    };
    let Some(kept) = kept else {
        return vec![part(0, range.count)];
    };
    let itself = IdMapping {
        container_id: kept,
        host_id: kept,
        size: 1,
    };
    if kept >= range.count {
        return vec![part(0, range.count), itself];
    }
    let mut map = vec![part(0, kept), itself];
    if kept + 1 < range.count {
        map.push(part(kept + 1, range.count - kept - 1));
    }
    map
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(first: u32, count: u32) -> (tempfile::TempDir, Settings) {
        let directory = tempfile::tempdir().unwrap();
        for name in ["subuid", "subgid"] {
            std::fs::write(directory.path().join(name), format!("pool:{first}:{count}\n")).unwrap();
        }
        let settings = Settings {
            pool: "pool".to_owned(),
            directory: directory.path().to_owned(),
            ..Settings::default()
        };
        (directory, settings)
    }

    fn first(maps: &IdMaps) -> u32 {
        maps.uids[0].host_id
    }

    #[test]
    fn ranges_are_apart_and_come_back() {
        let (_directory, settings) = settings(500_000, 250);
        let pool = Pool::default();
        let mode = Mode::Auto { size: 100 };
        let ids = [Id::random(), Id::random(), Id::random()];
        let take = |pool: &Pool, id| pool.take(&settings, id, &mode);
        let one = take(&pool, &ids[0]).unwrap().unwrap();
        let two = take(&pool, &ids[1]).unwrap().unwrap();
        assert_eq!((first(&one), first(&two)), (500_000, 500_100));
        let refused = take(&pool, &ids[2]).unwrap_err().message;
        assert!(
            refused.contains("exhausted") && refused.contains("has 50"),
            "{refused}"
        );
        pool.give_back(&ids[0]);
        assert_eq!(first(&take(&pool, &ids[2]).unwrap().unwrap()), 500_000);

        // A daemon that comes after hears of them from the records.
        let next = Pool::default();
        next.hold(&ids[1], &two);
        assert_eq!(first(&take(&next, &ids[2]).unwrap().unwrap()), 500_000);
        assert!(take(&next, &ids[0]).is_err());
        assert_eq!(next.take(&settings, &ids[0], &Mode::Host).unwrap(), None);
    }

    #[test]
    fn what_the_daemon_maps_is_not_given_out() {
        let (_directory, mut settings) = settings(500_000, 300);
        let part = IdMapping {
            container_id: 0,
            host_id: 500_050,
            size: 100,
        };
        settings.remap = Some(IdMaps {
            uids: vec![part],
            gids: vec![part],
        });
        let pool = Pool::default();
        let maps = pool.take(&settings, &Id::random(), &Mode::Auto { size: 100 });
        assert_eq!(first(&maps.unwrap().unwrap()), 500_150);
    }

    #[test]
    fn a_kept_id_is_itself() {
        let range = Range {
            first: 500_000,
            count: 2000,
        };
        let parts = |kept| -> Vec<(u32, u32, u32)> {
            map(&range, Some(kept))
                .iter()
                .map(|part| (part.container_id, part.host_id, part.size))
                .collect()
        };
        assert_eq!(
            parts(1000),
            [(0, 500_000, 1000), (1000, 1000, 1), (1001, 501_001, 999)]
        );
        assert_eq!(parts(1999), [(0, 500_000, 1999), (1999, 1999, 1)]);
        assert_eq!(parts(70_000), [(0, 500_000, 2000), (70_000, 70_000, 1)]);
        // One that lies in the pool is left out of what is given.
        let whole = [Range {
            first: 1000,
            count: 5000,
        }];
        let found = find(&whole, std::iter::empty(), 2000, Some(1500)).unwrap();
        assert_eq!(found.first, 1501);
    }
}
