//! Networks as the engine knows them: what `network` does, with the containers in them, and events.

use std::collections::BTreeMap;
use std::sync::Arc;

use api_types::NetworkCreateRequest;
use api_types::dns_log::{DnsLog, DnsQuery};
use network::{CreateNetwork, IpamPool, Network};
use spec::Id;

use crate::engine::{Engine, Inner, blocking};
use crate::error::{Error, Result};
use crate::filters::{self, Filters};

const LIST_KEYS: &[&str] = &["dangling", "driver", "id", "label", "name", "scope", "type"];

fn emit(inner: &Inner, action: &str, network: &Network) {
    let attributes = [("name", &network.name), ("type", &network.driver)];
    let attributes = attributes
        .into_iter()
        .map(|(k, v)| (k.to_owned(), v.clone()))
        .collect();
    inner
        .events
        .publish("network", action, network.id.as_str(), attributes);
}

impl Engine {
    /// Creates a network; gives its id and a warning, which is empty unless something was left out.
    pub async fn network_create(&self, request: NetworkCreateRequest) -> Result<(Id, String)> {
        let create = read(request)?;
        let inner = Arc::clone(&self.inner);
        blocking(move || {
            let network = inner.networks.create(&create)?;
            emit(&inner, "create", &network);
            Ok((network.id, String::new()))
        })
        .await
    }

    /// One network by name, id or start of it, with its endpoints.
    pub async fn network_inspect(&self, name: &str) -> Result<Network> {
        let (inner, name) = (Arc::clone(&self.inner), name.to_owned());
        blocking(move || Ok(inner.networks.get(&name)?)).await
    }

    /// What containers asked the embedded resolver after `since` (microseconds since 1970): one container, those of one
    /// network, or all.
    pub async fn dns_log(&self, of: &str, since: u64) -> Result<DnsLog> {
        let containers = self.containers();
        let chosen: Vec<_> = match of {
            "" => containers,
            name => match self.container(name) {
                Ok(one) => vec![one],
                Err(no_container) => {
                    let network = self.inner.networks.get(name).map_err(|_| no_container)?;
                    let is_in = |id: &Id| network.endpoints.contains_key(id);
                    containers.into_iter().filter(|c| is_in(&c.id)).collect()
                }
            },
        };
        let inner = Arc::clone(&self.inner);
        blocking(move || {
            let mut queries = Vec::new();
            for container in &chosen {
                let entries = inner.networks.dns_log(&container.id).into_iter();
                queries.extend(entries.filter(|entry| entry.time > since).map(|entry| DnsQuery {
                    time: entry.time,
                    container: container.name.clone(),
                    name: entry.name,
                    kind: entry.kind,
                    answered_by: entry.by,
                    code: entry.code,
                    answers: entry.answers,
                    microseconds: entry.took,
                }));
            }
            queries.sort_by_key(|query| query.time);
            Ok(DnsLog { queries })
        })
        .await
    }

    /// How full a network's subnets are.
    pub async fn network_status(&self, name: &str) -> Result<Vec<network::SubnetStatus>> {
        let (inner, name) = (Arc::clone(&self.inner), name.to_owned());
        blocking(move || Ok(inner.networks.status(&name)?)).await
    }

    /// The networks that pass the filters.
    pub async fn network_list(&self, filters: &Filters) -> Result<Vec<Network>> {
        filters::check_keys(filters, LIST_KEYS)?;
        let dangling = filters::boolean(filters, "dangling")?;
        if let Some(bad) = filters
            .get("type")
            .and_then(|v| v.iter().find(|t| !matches!(t.as_str(), "custom" | "builtin")))
        {
            return Err(Error::invalid(format!("invalid filter: 'type'='{bad}'")));
        }
        let (inner, filters) = (Arc::clone(&self.inner), filters.clone());
        blocking(move || {
            let mut networks = inner.networks.list();
            networks.retain(|n| {
                let any = |key: &str, test: &dyn Fn(&str) -> bool| {
                    filters
                        .get(key)
                        .is_none_or(|v| v.is_empty() || v.iter().any(|v| test(v)))
                };
                any("driver", &|v| n.driver == v)
                    && any("id", &|v| n.id.as_str().starts_with(v))
                    && any("name", &|v| n.name.contains(v))
                    && any("scope", &|v| n.scope == v)
                    && any("type", &|v| (v == "builtin") == n.is_predefined())
                    && filters
                        .get("label")
                        .is_none_or(|w| filters::matches_labels(&n.labels, w))
                    && dangling.is_none_or(|wanted| !n.is_predefined() && n.endpoints.is_empty() == wanted)
            });
            Ok(networks)
        })
        .await
    }

    /// Removes a network nobody is in.
    pub async fn network_remove(&self, name: &str) -> Result<()> {
        let (inner, name) = (Arc::clone(&self.inner), name.to_owned());
        blocking(move || {
            let network = inner.networks.get(&name)?;
            inner.networks.remove(network.id.as_str())?;
            emit(&inner, "destroy", &network);
            Ok(())
        })
        .await
    }

    /// Removes the networks no container names, running or not; gives their names.
    pub async fn networks_prune(&self, filters: &Filters, rehearse: bool) -> Result<Vec<String>> {
        filters::check_keys(filters, &["label", "label!", "until"])?;
        let until = filters::until(filters)?;
        let mut pruned = Vec::new();
        let used: std::collections::HashSet<String> = self
            .containers()
            .iter()
            .flat_map(|c| c.networks.keys().cloned().collect::<Vec<_>>())
            .collect();
        for network in self.network_list(&Filters::new()).await? {
            let young =
                until.is_some_and(|u| network.created.parse::<jiff::Timestamp>().is_ok_and(|t| t >= u));
            let kept = network.is_predefined()
                || network.config_only
                || !network.endpoints.is_empty()
                || used.contains(&network.name)
                || young
                || !filters::label_filters_match(filters, &network.labels);
            // One that was joined meanwhile is not to be pruned.
            if !kept && (rehearse || self.network_remove(network.id.as_str()).await.is_ok()) {
                pruned.push(network.name);
            }
        }
        if rehearse {
            return Ok(pruned);
        }
        self.inner.events.publish(
            "network",
            "prune",
            "",
            BTreeMap::from([("reclaimed".to_owned(), "0".to_owned())]),
        );
        Ok(pruned)
    }
}

fn read(request: NetworkCreateRequest) -> Result<CreateNetwork> {
    if request.name.trim().is_empty() {
        return Err(Error::invalid("network name cannot be empty"));
    }
    if request.ingress {
        return Err(Error::forbidden(
            "ingress networks belong to cluster mode, which this engine does not have",
        ));
    }
    let ipam = request.ipam.unwrap_or_default();
    let pools = ipam
        .config
        .iter()
        .map(|c| IpamPool::parse(&c.subnet, &c.ip_range, &c.gateway, c.auxiliary_addresses.as_map()))
        .collect::<std::result::Result<Vec<_>, _>>()?;
    Ok(CreateNetwork {
        name: request.name,
        driver: request.driver,
        ipam: pools,
        ipam_driver: ipam.driver,
        ipam_options: (!ipam.options.is_null()).then(|| ipam.options.into_map()),
        enable_ipv4: request.enable_ipv4.unwrap_or(true),
        enable_ipv6: request.enable_ipv6.unwrap_or(false),
        internal: request.internal,
        attachable: request.attachable,
        options: request.options.into_map(),
        labels: request.labels.into_map(),
        config_only: request.config_only,
        config_from: request.config_from.unwrap_or_default().network,
    })
}
