//! Whether the host is as the records say, and how to make it so again.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::os::fd::BorrowedFd;

use rustix::io::Errno;
use spec::Id;

use crate::connect::route_inside;
use crate::error::Error;
use crate::host;
use crate::link::{self, HostEnd};
use crate::reconcile;
use crate::state::{Inner, NetworkState, Networks, State};

/// One thing that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stray {
    /// A link of this instance's that no record explains.
    Link(String),
    /// The bridge of a network is gone.
    NoBridge {
        network: Id,
        name: String,
        bridge: String,
    },
    /// A container's link into a network is gone; it is cut off.
    NoLink { container: Id, link: String },
    /// The packet filter's table holds too little or too much.
    Firewall(String),
    /// A container that does not live holds addresses and ports.
    Sandbox(Id),
}

impl Networks {
    /// What is wrong, given which containers live. A busy engine makes and removes things all the time: what counts is
    /// what is still so when asked again.
    pub fn strays(&self, alive: &HashSet<Id>) -> Result<Vec<Stray>, Error> {
        let inner = &self.inner;
        let mut strays = Vec::new();
        let prepared: HashSet<String> = inner.prepared.links().into_iter().collect();
        let links = link::list(&mut inner.route()).map_err(Error::kernel("list the host's links"))?;
        let names: BTreeSet<&str> = links.iter().map(|link| link.name.as_str()).collect();
        let (unknown, desired) = {
            let state = inner.state();
            strays.extend(missing_bridges(&state, &names));
            for (id, sandbox) in &state.sandboxes {
                if !alive.contains(id) {
                    strays.push(Stray::Sandbox(id.clone()));
                    continue;
                }
                let missing = sandbox.endpoints.iter().filter(|attached| {
                    !attached.host_link.is_empty() && !names.contains(attached.host_link.as_str())
                });
                strays.extend(missing.map(|attached| Stray::NoLink {
                    container: id.clone(),
                    link: attached.host_link.clone(),
                }));
            }
            let tag = &inner.config.instance.tag;
            (reconcile::unknown_links(&links, tag, &state), state.desired(None))
        };
        let unknown = unknown.into_iter().filter(|name| !prepared.contains(name));
        strays.extend(unknown.map(Stray::Link));
        if let Some(firewall) = &inner.firewall
            && let Some(difference) = firewall.differs(&desired)?
        {
            strays.push(Stray::Firewall(difference));
        }
        Ok(strays)
    }

    /// Bridges that were made and are not there.
    pub(crate) fn missing_bridges(&self) -> Result<Vec<Stray>, Error> {
        let links = link::list(&mut self.inner.route()).map_err(Error::kernel("list the host's links"))?;
        let names = links.iter().map(|link| link.name.as_str()).collect();
        Ok(missing_bridges(&self.inner.state(), &names))
    }

    /// Puts it right where that can be done; false where it cannot. `namespace` is that of the container whose link is
    /// gone.
    pub fn repair(&self, stray: &Stray, namespace: Option<BorrowedFd<'_>>) -> Result<bool, Error> {
        let inner = &self.inner;
        match stray {
            Stray::Link(name) => {
                link::remove(&mut inner.route(), std::slice::from_ref(name))
                    .map_err(Error::kernel(format!("remove the link {name}")))?;
            }
            Stray::NoBridge { network, .. } => self.make_bridge_again(network)?,
            Stray::NoLink { container, link } => match namespace {
                Some(namespace) => inner.relink(container, link, namespace)?,
                None => return Ok(false),
            },
            Stray::Firewall(_) => drop(inner.ensure_rules()?),
            Stray::Sandbox(container) => self.detach(container)?,
        }
        Ok(true)
    }

    /// Looks again at what lies outside the records: the host's name servers, the peers of overlay networks, the links
    /// that networks lie on.
    pub fn refresh(&self) -> Result<(), Error> {
        let inner = &self.inner;
        let others: Vec<NetworkState> = {
            let state = inner.state();
            let others = state.networks.values().filter(|n| n.network.driver != "bridge");
            others.cloned().collect()
        };
        for mut network in others {
            network.bring_up(&mut inner.route(), &inner.config.instance.tag)?;
            if let Some(known) = inner.state().networks.get_mut(&network.network.id) {
                // Its addresses may have been handed out meanwhile, so nothing else of the copy goes back.
                known.driver = network.driver;
            }
        }
        let (networks, containers): (BTreeSet<Id>, Vec<Id>) = {
            let state = inner.state();
            let networks = state.networks.keys().cloned().collect();
            (networks, state.sandboxes.keys().cloned().collect())
        };
        inner.write_names(&networks)?;
        containers
            .iter()
            .try_for_each(|container| inner.write_container(container))
    }

    /// The bridge, and on it the links that were on the old one.
    fn make_bridge_again(&self, network: &Id) -> Result<(), Error> {
        let inner = &self.inner;
        let tag = &inner.config.instance.tag;
        let Some(mut made) = inner.state().networks.get(network).cloned() else {
            return Ok(());
        };
        made.bring_up(&mut inner.route(), tag)?;
        let Some(bridge) = made.bridge() else {
            return Ok(());
        };
        let mut ports = BTreeMap::new();
        {
            let mut state = inner.state();
            let known = state
                .networks
                .get_mut(network)
                .and_then(|known| known.bridge_mut());
            match known {
                // Its addresses may have been handed out meanwhile, so nothing else of the copy goes back.
                Some(known) => known.index = bridge.index,
                None => {
                    drop(state);
                    let name = std::slice::from_ref(&bridge.settings.bridge);
                    return link::remove(&mut inner.route(), name).map_err(Error::kernel(format!(
                        "remove the bridge {} of a network that was removed",
                        bridge.settings.bridge
                    )));
                }
            }
            for attached in state.sandboxes.values().flat_map(|sandbox| &sandbox.endpoints) {
                if attached.endpoint.network_id == *network {
                    let alias = format!("{tag}:endpoint:{}", attached.endpoint.endpoint_id);
                    ports.insert(attached.host_link.clone(), alias);
                }
            }
        }
        for (name, alias) in &ports {
            let end = HostEnd {
                name,
                alias,
                bridge: bridge.index,
                isolated: !bridge.settings.icc,
                hairpin: host::bridged_traffic_is_filtered(),
                mtu: bridge.settings.mtu,
            };
            match link::enslave(&mut inner.route(), &end) {
                // A container's link that is gone too is another finding.
                Err(failure) if failure.errno == Errno::NODEV => {}
                other => other.map_err(Error::kernel(format!("put {name} on {}", bridge.settings.bridge)))?,
            }
        }
        Ok(())
    }
}

fn missing_bridges(state: &State, names: &BTreeSet<&str>) -> Vec<Stray> {
    let missing = state.networks.iter().filter_map(|(id, network)| {
        let bridge = network.bridge()?;
        // One without an index is just being made.
        let is_gone = bridge.index.is_some() && !names.contains(bridge.settings.bridge.as_str());
        is_gone.then(|| Stray::NoBridge {
            network: id.clone(),
            name: network.network.name.clone(),
            bridge: bridge.settings.bridge.clone(),
        })
    });
    missing.collect()
}

impl Inner {
    /// A container's link into a network again, with the addresses and routes it had.
    fn relink(&self, container: &Id, host_link: &str, namespace: BorrowedFd<'_>) -> Result<(), Error> {
        let wirings = self.state().wirings(container, &BTreeMap::new())?;
        let Some(wiring) = wirings.iter().find(|wiring| wiring.host_link == host_link) else {
            return Ok(());
        };
        let mut inside = route_inside(namespace)?;
        self.wire(namespace, &mut inside, wiring, None)
    }
}

impl std::fmt::Display for Stray {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Stray::Link(name) => write!(f, "{name}"),
            Stray::NoBridge { name, bridge, .. } => write!(f, "{bridge} (network {name})"),
            Stray::NoLink { link, .. } => write!(f, "{link}"),
            Stray::Firewall(_) => write!(f, "inet table"),
            Stray::Sandbox(id) => write!(f, "{id}"),
        }
    }
}
