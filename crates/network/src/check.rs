//! Whether the host is as the records say, and how to make it so again.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use spec::Id;

use crate::error::Error;
use crate::lifecycle;
use crate::link::{self, HostEnd};
use crate::reconcile;
use crate::state::Networks;

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
            for (id, network) in &state.networks {
                if let Some(bridge) = network.bridge()
                    && !names.contains(bridge.settings.bridge.as_str())
                {
                    strays.push(Stray::NoBridge {
                        network: id.clone(),
                        name: network.network.name.clone(),
                        bridge: bridge.settings.bridge.clone(),
                    });
                }
            }
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

    /// Puts it right where that can be done; false where it cannot.
    pub fn repair(&self, stray: &Stray) -> Result<bool, Error> {
        let inner = &self.inner;
        match stray {
            Stray::Link(name) => {
                link::remove(&mut inner.route(), std::slice::from_ref(name))
                    .map_err(Error::kernel(format!("remove the link {name}")))?;
            }
            Stray::NoBridge { network, .. } => self.make_bridge_again(network)?,
            Stray::NoLink { .. } => return Ok(false),
            Stray::Firewall(_) => {
                let _order = inner.order();
                if let Some(firewall) = &inner.firewall {
                    let desired = inner.state().desired(None);
                    firewall.replace(&desired)?;
                }
            }
            Stray::Sandbox(container) => self.detach(container)?,
        }
        Ok(true)
    }

    /// The bridge, and on it the links that were on the old one.
    fn make_bridge_again(&self, network: &Id) -> Result<(), Error> {
        let inner = &self.inner;
        let tag = &inner.config.instance.tag;
        let Some(mut changed) = inner.state().networks.get(network).cloned() else {
            return Ok(());
        };
        lifecycle::bring_up(&mut inner.route(), tag, &mut changed)?;
        let mut ports = BTreeMap::new();
        {
            let mut state = inner.state();
            for attached in state.sandboxes.values().flat_map(|sandbox| &sandbox.endpoints) {
                if attached.endpoint.network_id == *network {
                    let alias = format!("{tag}:endpoint:{}", attached.endpoint.endpoint_id);
                    ports.insert(attached.host_link.clone(), alias);
                }
            }
            state.networks.insert(network.clone(), changed.clone());
        }
        let Some(bridge) = changed.bridge() else {
            return Ok(());
        };
        for (name, alias) in &ports {
            let end = HostEnd {
                name,
                alias,
                bridge: bridge.index,
                isolated: !bridge.settings.icc,
                hairpin: false,
                mtu: bridge.settings.mtu,
            };
            link::enslave(&mut inner.route(), &end)
                .map_err(Error::kernel(format!("put {name} on {}", bridge.settings.bridge)))?;
        }
        Ok(())
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
