//! After a daemon's death: what is recorded is compared with what lives, and what nothing explains is removed.

use std::collections::{BTreeSet, HashSet};
use std::path::Path;

use spec::Id;
use sys::netlink::Socket;

use crate::error::Error;
use crate::firewall::Firewall;
use crate::link::{self, Link};
use crate::state::{Networks, State};

impl Networks {
    /// Takes everything back that belongs to containers outside `alive`; gives their ids. Living ones keep what they
    /// have.
    pub fn reconcile(&self, alive: &HashSet<Id>) -> Result<Vec<Id>, Error> {
        let dead: Vec<Id> = self
            .inner
            .state()
            .sandboxes
            .keys()
            .filter(|id| !alive.contains(*id))
            .cloned()
            .collect();
        for container in &dead {
            self.detach(container)?;
        }
        Ok(dead)
    }
}

/// What an instance has on the host.
pub(crate) struct Found {
    links: BTreeSet<String>,
    firewall: bool,
}

impl Found {
    /// Its rules only where there may be any: without, nobody need be there to ask.
    pub(crate) fn on_host(tag: &str, rules: bool) -> Result<Found, Error> {
        let mut route = Socket::route().map_err(Error::io("open a route socket"))?;
        let links = link::list(&mut route).map_err(Error::kernel("list the host's links"))?;
        let ours = links.into_iter().filter(|link| own_alias(link, tag).is_some());
        Ok(Found {
            links: ours.map(|link| link.name).collect(),
            firewall: rules && Firewall::open(tag)?.is_there()?,
        })
    }

    /// Removes what has come since.
    pub(crate) fn restore(&self, tag: &str, rules: bool) -> Result<(), Error> {
        let now = Found::on_host(tag, rules)?;
        let new: Vec<String> = now.links.difference(&self.links).cloned().collect();
        let mut route = Socket::route().map_err(Error::io("open a route socket"))?;
        link::remove(&mut route, &new).map_err(Error::kernel("remove links of a start that failed"))?;
        match now.firewall && !self.firewall {
            true => Firewall::open(tag)?.remove(),
            false => Ok(()),
        }
    }
}

/// What follows an instance's tag in the alias of a link.
fn own_alias<'link>(link: &'link Link, tag: &str) -> Option<&'link str> {
    link.alias.as_deref()?.strip_prefix(tag)?.strip_prefix(':')
}

/// Links with this instance's tag that no record explains: of containers and networks whose removal a crash cut short,
/// of containers that were never recorded, and those made ahead of need.
pub(crate) fn unknown_links(links: &[Link], tag: &str, state: &State) -> Vec<String> {
    let endpoints: BTreeSet<&str> = state
        .sandboxes
        .values()
        .flat_map(|s| &s.endpoints)
        .map(|a| a.endpoint.endpoint_id.as_str())
        .collect();
    let is_known = |alias: &str| match alias.split_once(':') {
        Some(("endpoint", id)) => endpoints.contains(id),
        None if alias == "gate" => true,
        Some(("network", id)) => state.networks.keys().any(|known| known.as_str() == id),
        // Namespaces prepared by a daemon that is gone; their links go with them, sooner or later.
        _ => false,
    };
    links
        .iter()
        .filter(|link| own_alias(link, tag).is_some_and(|alias| !is_known(alias)))
        .map(|link| link.name.clone())
        .collect()
}

/// Removes them at the start, when nothing is made ahead of need yet.
pub(crate) fn remove_unknown_links(route: &mut Socket, tag: &str, state: &State) -> Result<(), Error> {
    let links = link::list(route).map_err(Error::kernel("list the host's links"))?;
    let unknown = unknown_links(&links, tag, state);
    if !unknown.is_empty() {
        tracing::info!(links = ?unknown, "removing links that nothing recorded explains");
    }
    link::remove(route, &unknown).map_err(Error::kernel("remove links that nothing recorded explains"))
}

/// Removes resolver tables of networks and containers that are gone. What cannot be removed does no harm.
pub(crate) fn remove_unknown_tables(dir: &Path, state: &State) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let stem = name
            .to_str()
            .and_then(|n| {
                let endings = [".json", ".log", ".log.1"];
                endings.iter().find_map(|ending| n.strip_suffix(ending))
            })
            .and_then(|n| n.parse::<Id>().ok());
        if stem.is_none_or(|id| !state.networks.contains_key(&id) && !state.sandboxes.contains_key(&id)) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}
