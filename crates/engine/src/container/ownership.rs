//! Whose the files in a mount are: those of whom they belong to on the disk, or of others, without a change on the disk.
//!
//! A choice becomes the maps of an id-mapped mount (Linux 5.12): which ids of the disk show as which of the host, as the
//! kernel compares processes with. What a container's process of a shown id makes belongs to the id on the disk. An id that
//! is in no range cannot be written, and shows as 65534.
//!
//! Sources: mount_setattr(2), Documentation/filesystems/idmappings.rst.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use serde::{Deserialize, Serialize};
use spec::runtime::IdMapping;

use crate::error::{Error, Result};
use crate::userns::IdMaps;

/// How many ids there are: the last number means none.
const ALL: u32 = u32::MAX;
/// The word for [`Ownership::OfTheUser`].
const OF_THE_USER: &str = "U";

/// A choice for one mount.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ownership {
    /// Nothing is asked for.
    #[default]
    AsItIs,
    /// What belongs to the owner of the source is the container's user's.
    OfTheUser,
    /// These ids, and no others.
    Ranges(Vec<Owners>),
}

/// Ids of a container in a row, and those they are on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owners {
    pub inside: u32,
    pub uid: u32,
    pub gid: u32,
    pub count: u32,
}

impl Ownership {
    /// Reads `U`, or `[FIRST@]UID:GID:LEN`, of which there may be several: those without a first id of the container go on
    /// behind the one before, and begin at 0.
    pub(super) fn parse(words: &[String]) -> Result<Ownership> {
        match words {
            [] => return Ok(Ownership::AsItIs),
            [word] if word == OF_THE_USER => return Ok(Ownership::OfTheUser),
            _ => {}
        }
        let mut ranges: Vec<Owners> = Vec::new();
        for word in words {
            let next = ranges
                .last()
                .map_or(0, |last| last.inside.saturating_add(last.count));
            let read = owners(word, next).ok_or_else(|| {
                Error::invalid(format!(
                    "invalid id map {word:?}: expected UID:GID:LENGTH or FIRST@UID:GID:LENGTH in numbers, such as 1000:1000:1"
                ))
            })?;
            let overlaps = |other: &Owners| {
                let meet = |a: u32, b: u32| {
                    u64::from(a) < u64::from(b) + u64::from(other.count)
                        && u64::from(b) < u64::from(a) + u64::from(read.count)
                };
                meet(read.inside, other.inside) || meet(read.uid, other.uid) || meet(read.gid, other.gid)
            };
            if ranges.iter().any(overlaps) {
                return Err(Error::invalid(format!(
                    "invalid id map {word:?}: it overlaps with another of the same mount"
                )));
            }
            ranges.push(read);
        }
        Ok(Ownership::Ranges(ranges))
    }

    /// The maps of the mount, of users and groups; none where the ids are right as they are. `user` are the ids of the
    /// container's process, `container` the maps of its user namespace. Something of the engine's `own` has the container's
    /// ids on the disk where nothing else is said.
    pub(super) fn maps(
        &self,
        source: &Path,
        user: (u32, u32),
        container: Option<&IdMaps>,
        own: bool,
    ) -> Result<Option<IdMaps>> {
        let everyone = [IdMapping {
            container_id: 0,
            host_id: 0,
            size: ALL,
        }];
        let (uids, gids) = match container {
            Some(maps) => (maps.uids.as_slice(), maps.gids.as_slice()),
            None => (&everyone[..], &everyone[..]),
        };
        match self {
            Ownership::AsItIs => Ok(None),
            Ownership::OfTheUser => {
                let owner = std::fs::metadata(source).map_err(|error| {
                    Error::invalid(format!("cannot see whose {} is: {error}", source.display()))
                })?;
                let base = |maps: &[IdMapping]| match own {
                    true => maps.to_vec(),
                    false => everyone.to_vec(),
                };
                let shown = |maps: &[IdMapping], id| Ok::<_, Error>(translated(maps, id, 1)?[0].host_id);
                let of = |maps, disk, id| Ok::<_, Error>(replaced(&base(maps), disk, shown(maps, id)?));
                let maps = IdMaps {
                    uids: of(uids, owner.uid(), user.0)?,
                    gids: of(gids, owner.gid(), user.1)?,
                };
                let is_plain = container.is_none() && (owner.uid(), owner.gid()) == user;
                Ok((!is_plain).then_some(maps))
            }
            Ownership::Ranges(ranges) => {
                let mut maps = IdMaps::default();
                for range in ranges {
                    maps.uids
                        .extend(onto(translated(uids, range.inside, range.count)?, range.uid));
                    maps.gids
                        .extend(onto(translated(gids, range.inside, range.count)?, range.gid));
                }
                Ok(Some(maps))
            }
        }
    }
}

fn owners(word: &str, next: u32) -> Option<Owners> {
    let (inside, rest) = match word.split_once('@') {
        Some((first, rest)) => (number(first)?, rest),
        None => (next, word),
    };
    let mut numbers = rest.split(':').map(number);
    let (uid, gid, count) = (numbers.next()??, numbers.next()??, numbers.next()??);
    let fits = |first: u32| first.checked_add(count).is_some();
    let whole = numbers.next().is_none() && count > 0;
    (whole && fits(inside) && fits(uid) && fits(gid)).then_some(Owners {
        inside,
        uid,
        gid,
        count,
    })
}

fn number(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

/// The part of a container's maps that has so many of its ids.
fn translated(maps: &[IdMapping], first: u32, count: u32) -> Result<Vec<IdMapping>> {
    let mut parts = Vec::new();
    let (mut id, end) = (first, first.saturating_add(count));
    while id < end {
        let holds = |map: &&IdMapping| map.container_id <= id && id - map.container_id < map.size;
        let map = maps.iter().find(holds).ok_or_else(|| {
            Error::invalid(format!(
                "invalid id map: the container has no id {id} in its user namespace"
            ))
        })?;
        let offset = id - map.container_id;
        let size = (map.size - offset).min(end - id);
        parts.push(IdMapping {
            container_id: id,
            host_id: map.host_id + offset,
            size,
        });
        id += size;
    }
    Ok(parts)
}

/// The same shown ids, with ids of the disk in a row behind them.
fn onto(parts: Vec<IdMapping>, disk: u32) -> impl Iterator<Item = IdMapping> {
    parts.into_iter().scan(disk, |next, part| {
        let first = *next;
        *next += part.size;
        Some(IdMapping {
            container_id: first,
            ..part
        })
    })
}

/// The map with one id of the disk shown as another. The two ids that this makes homeless are left out: what an unprivileged
/// user of the container made could else belong to root.
fn replaced(base: &[IdMapping], disk: u32, shown: u32) -> Vec<IdMapping> {
    let mut parts = vec![IdMapping {
        container_id: disk,
        host_id: shown,
        size: 1,
    }];
    for map in base {
        let cut = |id: u32, first: u32| (first <= id && id - first < map.size).then(|| id - first);
        let mut cuts: Vec<u32> = [cut(disk, map.container_id), cut(shown, map.host_id)]
            .into_iter()
            .flatten()
            .collect();
        cuts.sort_unstable();
        cuts.dedup();
        let mut from = 0;
        for end in cuts.into_iter().chain([map.size]) {
            if end > from {
                parts.push(IdMapping {
                    container_id: map.container_id + from,
                    host_id: map.host_id + from,
                    size: end - from,
                });
            }
            from = end.saturating_add(1);
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(container_id: u32, host_id: u32, size: u32) -> IdMapping {
        IdMapping {
            container_id,
            host_id,
            size,
        }
    }

    fn parse(words: &[&str]) -> Result<Ownership> {
        let words: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
        Ownership::parse(&words)
    }

    #[test]
    fn ranges_follow_one_another() {
        let read = parse(&["1000:100:1", "5000:5000:10", "33@70:70:2"]).unwrap();
        let owners = |inside, uid, gid, count| Owners {
            inside,
            uid,
            gid,
            count,
        };
        assert_eq!(
            read,
            Ownership::Ranges(vec![
                owners(0, 1000, 100, 1),
                owners(1, 5000, 5000, 10),
                owners(33, 70, 70, 2)
            ])
        );
        assert_eq!(parse(&["U"]).unwrap(), Ownership::OfTheUser);
        assert_eq!(parse(&[]).unwrap(), Ownership::AsItIs);
    }

    #[test]
    fn what_is_no_map_is_refused() {
        for wrong in [
            "",
            "1000",
            "1000:1000",
            "1000:1000:0",
            "a:1:1",
            "1:1:1:1",
            "@1:1:1",
            "-1:1:1",
            "+1:1:1",
            "4294967295:0:1",
            "0:4294967000:1000",
            "1:1:99999999999",
        ] {
            assert!(parse(&[wrong]).is_err(), "{wrong}");
        }
        for overlap in [
            ["1:1:2", "2:5:1"],
            ["1:1:2", "5:2:1"],
            ["1:1:2", "1@9:9:1"],
            ["U", "1:1:1"],
        ] {
            assert!(parse(&overlap).is_err(), "{overlap:?}");
        }
    }

    #[test]
    fn a_container_in_a_user_namespace_shows_its_own_ids() {
        let ids = IdMaps {
            uids: vec![map(0, 300_000, 10), map(10, 500_000, 100)],
            gids: vec![map(0, 300_000, 1000)],
        };
        let chosen = parse(&["1000:2000:20"]).unwrap();
        let maps = chosen
            .maps(Path::new("/"), (0, 0), Some(&ids), false)
            .unwrap()
            .unwrap();
        assert_eq!(maps.uids, [map(1000, 300_000, 10), map(1010, 500_000, 10)]);
        assert_eq!(maps.gids, [map(2000, 300_000, 20)]);
        let beyond = parse(&["1000:1000:200"]).unwrap();
        let error = beyond
            .maps(Path::new("/"), (0, 0), Some(&ids), false)
            .unwrap_err();
        assert!(error.message.contains("no id 110"), "{}", error.message);
    }

    #[test]
    fn one_id_takes_the_place_of_another() {
        let all = [map(0, 0, ALL)];
        assert_eq!(
            replaced(&all, 1000, 0),
            [map(1000, 0, 1), map(1, 1, 999), map(1001, 1001, ALL - 1001)]
        );
        assert_eq!(
            replaced(&all, 33, 1000),
            [
                map(33, 1000, 1),
                map(0, 0, 33),
                map(34, 34, 966),
                map(1001, 1001, ALL - 1001)
            ]
        );
        assert_eq!(replaced(&all, 0, 0), [map(0, 0, 1), map(1, 1, ALL - 1)]);
        assert_eq!(
            replaced(&[map(0, 300_000, 10)], 5, 300_001),
            [
                map(5, 300_001, 1),
                map(0, 300_000, 1),
                map(2, 300_002, 3),
                map(6, 300_006, 4)
            ]
        );
    }
}
