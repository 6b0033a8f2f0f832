//! User namespaces of containers: which ids a container has, and what they are on the host.
//!
//! ```text
//!  --userns             map
//!  (nothing), private   the daemon's (`--userns-remap`), or none where the daemon has none
//!  host                 none: the ids of the host
//!  auto[:size=N]        N ids out of the pool, which no other container has
//!  keep-id:uid=,gid=    the same, but these two ids are the host's own
//!  container:NAME       that of the other container, in its very namespace
//! ```
//!
//! The host's ids come from the ranges that /etc/subuid and /etc/subgid give to a user ([`subordinate`]): those of
//! the remapped user, or of the user whose ranges are the pool ([`pool`]). Nothing on disk depends on a map: layers,
//! volumes and the engine's own files are seen through id-mapped mounts.
//!
//! Sources: user_namespaces(7), subuid(5); Docker's `userns-remap`, Podman's `--userns`.

mod pool;
mod subordinate;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use spec::runtime::IdMapping;

pub(crate) use pool::Pool;
pub use subordinate::remap;

use crate::error::{Error, Result};

/// As many ids as an ordinary system has: 0 to 65535, `nobody` among them.
pub const USUAL: u32 = 65_536;

/// The maps of a user namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdMaps {
    pub uids: Vec<IdMapping>,
    pub gids: Vec<IdMapping>,
}

/// What the daemon says about user namespaces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Of every container that does not say otherwise.
    pub remap: Option<IdMaps>,
    /// Whose subordinate ids are given out to containers.
    pub pool: String,
    /// Where `subuid` and `subgid` are.
    pub directory: PathBuf,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            remap: None,
            pool: "containers".to_owned(),
            directory: PathBuf::from("/etc"),
        }
    }
}

/// What `--userns` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Mode {
    Default,
    Host,
    Auto { size: u32 },
    KeepId { uid: u32, gid: u32 },
    Container(String),
}

impl Mode {
    pub(crate) fn parse(text: &str) -> Result<Mode> {
        let (word, rest) = match text.split_once(':') {
            Some((word, rest)) => (word, Some(rest)),
            None => (text, None),
        };
        let invalid = |why: &str| {
            let text = format!("invalid userns mode: {text}: {why}");
            Err(Error::invalid(text))
        };
        match (word, rest) {
            ("" | "private", None) => Ok(Mode::Default),
            ("host", None) => Ok(Mode::Host),
            ("container", Some(name)) if !name.is_empty() => Ok(Mode::Container(name.to_owned())),
            ("auto", rest) => {
                let size = match numbers(rest, &["size"]) {
                    Some(values) => values[0].unwrap_or(USUAL),
                    None => return invalid("use auto or auto:size=N"),
                };
                // The smallest map has a root and somebody else.
                if size < 2 {
                    return invalid("a container needs at least 2 ids");
                }
                Ok(Mode::Auto { size })
            }
            ("keep-id", rest) => match numbers(rest, &["uid", "gid"]).as_deref() {
                Some([Some(0), _] | [_, Some(0)]) => {
                    invalid("root of the host cannot be kept: name a user, keep-id:uid=1000,gid=1000")
                }
                Some([Some(uid), Some(gid)]) => Ok(Mode::KeepId { uid: *uid, gid: *gid }),
                _ => invalid("use keep-id:uid=N,gid=N"),
            },
            _ => invalid("use host, private, auto, keep-id or container:NAME"),
        }
    }

    /// Whether the container's processes are apart from the host's users.
    pub(crate) fn is_private(&self, settings: &Settings) -> bool {
        match self {
            Mode::Default => settings.remap.is_some(),
            Mode::Auto { .. } | Mode::KeepId { .. } => true,
            Mode::Host | Mode::Container(_) => false,
        }
    }
}

/// The numbers of `key=N,…`; nothing when there is another word.
fn numbers(text: Option<&str>, keys: &[&str]) -> Option<Vec<Option<u32>>> {
    let mut values = vec![None; keys.len()];
    for word in text.into_iter().flat_map(|text| text.split(',')) {
        let (key, value) = word.split_once('=')?;
        let position = keys.iter().position(|known| *known == key)?;
        *values.get_mut(position)? = Some(value.parse().ok()?);
    }
    Some(values)
}

impl IdMaps {
    /// Refuses a user that a container with these maps does not have.
    pub(crate) fn check(&self, uid: u32, gids: impl IntoIterator<Item = u32>) -> Result<()> {
        let has = |map: &[IdMapping], id: u32| {
            map.iter()
                .any(|range| id >= range.container_id && id - range.container_id < range.size)
        };
        let missing = |what: &str, id: u32, map: &[IdMapping]| {
            let last = map
                .iter()
                .map(|range| range.container_id + (range.size - 1))
                .max();
            Err(Error::invalid(format!(
                "the container's user namespace has no {what} {id}: its ids go from 0 to {}; a larger range makes room \
                 (--userns auto:size=N, or more subordinate ids for --userns-remap)",
                last.unwrap_or_default()
            )))
        };
        if !has(&self.uids, uid) {
            return missing("user", uid, &self.uids);
        }
        match gids.into_iter().find(|gid| !has(&self.gids, *gid)) {
            Some(gid) => missing("group", gid, &self.gids),
            None => Ok(()),
        }
    }

    /// Whether an id of the host is in both.
    pub(crate) fn overlaps(&self, other: &IdMaps) -> bool {
        let meet = |ours: &[IdMapping], theirs: &[IdMapping]| {
            ours.iter()
                .any(|range| theirs.iter().any(|other| shares(range, other)))
        };
        meet(&self.uids, &other.uids) || meet(&self.gids, &other.gids)
    }

    /// The largest group of the namespace.
    pub(crate) fn last_group(&self) -> u32 {
        let last = self
            .gids
            .iter()
            .map(|range| range.container_id + (range.size - 1));
        last.max().unwrap_or_default()
    }
}

fn shares(one: &IdMapping, other: &IdMapping) -> bool {
    one.host_id < other.host_id.saturating_add(other.size)
        && other.host_id < one.host_id.saturating_add(one.size)
}

/// A file with subordinate ids.
pub(crate) fn file(directory: &Path, kind: &str) -> PathBuf {
    directory.join(format!("sub{kind}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_read() {
        let parse = |text: &str| Mode::parse(text).unwrap();
        assert_eq!(parse(""), Mode::Default);
        assert_eq!(parse("private"), Mode::Default);
        assert_eq!(parse("host"), Mode::Host);
        assert_eq!(parse("auto"), Mode::Auto { size: 65_536 });
        assert_eq!(parse("auto:size=1000"), Mode::Auto { size: 1000 });
        assert_eq!(
            parse("keep-id:uid=1000,gid=100"),
            Mode::KeepId { uid: 1000, gid: 100 }
        );
        assert_eq!(parse("container:web"), Mode::Container("web".into()));
        for wrong in [
            "foo",
            "host:",
            "auto:",
            "auto:size=x",
            "auto:size=1",
            "auto:colour=1",
            "keep-id",
            "container:",
            "keep-id:uid=5",
            "keep-id:uid=0,gid=5",
            "keep-id:uid=5,gid=0",
            "keep-id:uid=-1,gid=1",
        ] {
            let text = Mode::parse(wrong).unwrap_err().message;
            assert!(text.starts_with("invalid userns mode: "), "{wrong}: {text}");
        }
    }

    #[test]
    fn users_outside_of_the_map_are_named() {
        let map = IdMapping {
            container_id: 0,
            host_id: 100_000,
            size: 1000,
        };
        let maps = IdMaps {
            uids: vec![map],
            gids: vec![map],
        };
        assert!(maps.check(999, [0, 999]).is_ok());
        let text = maps.check(1000, []).unwrap_err().message;
        assert!(text.contains("user 1000") && text.contains("0 to 999"), "{text}");
        assert!(
            maps.check(0, [5, 2000])
                .unwrap_err()
                .message
                .contains("group 2000")
        );
        assert_eq!(maps.last_group(), 999);
        let at = |host_id| IdMaps {
            uids: Vec::new(),
            gids: vec![IdMapping { host_id, ..map }],
        };
        assert!(maps.overlaps(&at(100_999)) && maps.overlaps(&at(99_001)));
        assert!(!maps.overlaps(&at(101_000)) && !maps.overlaps(&at(99_000)));
    }
}
