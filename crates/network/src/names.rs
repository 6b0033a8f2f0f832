//! The resolver's tables: written whenever who is in a network, or what it is called, changes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::PoisonError;

use dns::table::{self, Membership};
use spec::Id;

use crate::error::Error;
use crate::model::Endpoint;
use crate::records::SandboxRecord;
use crate::resolv::{self, Resolution, Resolv};
use crate::state::{Inner, State};

/// Every name of an endpoint, in the order the API shows them: the container's, its aliases, its short id, its host
/// name.
pub(crate) fn of_endpoint(container: &Id, name: &str, aliases: &[String], hostname: &str) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    let all = [name]
        .into_iter()
        .chain(aliases.iter().map(String::as_str))
        .chain([container.short(), hostname]);
    for one in all.filter(|n| !n.is_empty()) {
        if !names.iter().any(|n| n == one) {
            names.push(one.to_owned());
        }
    }
    names
}

fn addresses(endpoint: &Endpoint) -> impl Iterator<Item = IpAddr> {
    [endpoint.ipv4.map(IpAddr::from), endpoint.ipv6.map(IpAddr::from)]
        .into_iter()
        .flatten()
}

fn network_table(state: &State, network: &Id) -> Option<table::Network> {
    let found = state.networks.get(network).filter(|n| n.has_names())?;
    let mut written = table::Network {
        name: found.network.name.clone(),
        ..table::Network::default()
    };
    for sandbox in state.sandboxes.values() {
        for attached in sandbox
            .endpoints
            .iter()
            .filter(|a| &a.endpoint.network_id == network)
        {
            let endpoint = &attached.endpoint;
            for name in &endpoint.dns_names {
                written
                    .hosts
                    .entry(name.to_ascii_lowercase())
                    .or_default()
                    .extend(addresses(endpoint));
            }
            written
                .reverse
                .extend(addresses(endpoint).map(|address| (address, sandbox.name.clone())));
        }
    }
    Some(written)
}

fn container_table(state: &State, sandbox: &SandboxRecord, resolution: Resolution) -> table::Container {
    let mut endpoints: Vec<_> = sandbox.endpoints.iter().collect();
    endpoints.sort_by_key(|a| {
        (
            std::cmp::Reverse(a.endpoint.gw_priority),
            a.endpoint.network_name.clone(),
        )
    });
    let is_internal = |id: &Id| state.networks.get(id).is_some_and(|n| n.network.internal);
    let networks: Vec<Membership> = endpoints
        .iter()
        .filter(|a| {
            state
                .networks
                .get(&a.endpoint.network_id)
                .is_some_and(|n| n.has_names())
        })
        .map(|a| Membership {
            network: a.endpoint.network_id.to_string(),
            links: links(&a.links),
        })
        .collect();
    table::Container {
        forward: endpoints.iter().any(|a| !is_internal(&a.endpoint.network_id)),
        upstreams: resolution.upstreams,
        // Without names of containers the server only stands between the container and the host's servers.
        single_labels_stay: resolution.single_labels_stay && !networks.is_empty(),
        networks,
    }
}

/// What the resolver goes by now: the host's servers as they are, with the resolv.conf the container was started with.
fn resolution(host: Resolv, sandbox: &SandboxRecord) -> Resolution {
    Resolution {
        single_labels_stay: sandbox.single_labels_stay,
        ..resolv::resolve(host, &sandbox.dns, true)
    }
}

/// `container:alias` as alias to container; without an alias the container's name stands for itself.
fn links(links: &[String]) -> BTreeMap<String, String> {
    links
        .iter()
        .map(|link| link.split_once(':').unwrap_or((link, link)))
        .map(|(target, alias)| {
            (
                alias.to_ascii_lowercase(),
                target.trim_start_matches('/').to_ascii_lowercase(),
            )
        })
        .collect()
}

impl Inner {
    /// Writes the tables of these networks.
    pub(crate) fn write_names(&self, networks: &BTreeSet<Id>) -> Result<(), Error> {
        // Held from reading the state to the rename, so that an older table never replaces a newer one.
        let _names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        for network in networks {
            let written = network_table(&self.state(), network);
            let path = table::path(&self.dns_dir, network.as_str());
            match written {
                Some(written) => {
                    table::write(&path, &written).map_err(Error::io(format!("write {}", path.display())))?
                }
                None => drop(std::fs::remove_file(&path)),
            }
        }
        Ok(())
    }

    /// Writes a container's own table.
    pub(crate) fn write_container(&self, container: &Id) -> Result<(), Error> {
        let _names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        let path = table::path(&self.dns_dir, container.as_str());
        let written = {
            let state = self.state();
            state
                .sandboxes
                .get(container)
                .filter(|s| s.resolver)
                .map(|sandbox| container_table(&state, sandbox, resolution(Resolv::of_host(), sandbox)))
        };
        match written {
            Some(written) => {
                table::write(&path, &written).map_err(Error::io(format!("write {}", path.display())))
            }
            None => {
                let _ = std::fs::remove_file(&path);
                dns::log::remove(&path);
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_in_the_order_the_api_shows() {
        let container = Id::random();
        let names = of_endpoint(&container, "gold", &["al1".into(), "gold".into()], "h1");
        assert_eq!(names, ["gold", "al1", container.short(), "h1"]);
        assert_eq!(
            of_endpoint(&container, "", &[], container.short()),
            [container.short()]
        );
    }

    #[test]
    fn a_container_keeps_what_its_own_file_says_when_the_hosts_changes() {
        let mut sandbox = SandboxRecord {
            name: String::new(),
            hostname: String::new(),
            endpoints: Vec::new(),
            ports: Vec::new(),
            dns: crate::model::DnsConfig::default(),
            resolver: true,
            serves: true,
            single_labels_stay: false,
        };
        let host = || Resolv::parse("nameserver 192.0.2.1\noptions ndots:2\n");
        let later = resolution(host(), &sandbox);
        assert!(!later.single_labels_stay);
        assert_eq!(later.upstreams, ["192.0.2.1:53".parse().unwrap()]);
        sandbox.single_labels_stay = true;
        assert!(resolution(Resolv::default(), &sandbox).single_labels_stay);
    }

    #[test]
    fn links_turn_around() {
        let parsed = links(&["db:Database".into(), "/cache".into()]);
        assert_eq!(parsed.get("database").map(String::as_str), Some("db"));
        assert_eq!(parsed.get("/cache").map(String::as_str), Some("cache"));
    }
}
