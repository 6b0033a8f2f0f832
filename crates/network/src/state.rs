//! The owner of everything in this room: what exists, and the tools to change it.
//!
//! Locks, in the order they may be taken together: `names` (writing the resolver's tables), `order` (changing the
//! firewall's elements), `state`. `route` is taken alone and last. None but `order` and `names` is held over a talk
//! with the kernel that takes longer than a bind(2).
//!
//! Why `order`: an element is removed from the firewall while its port is still recorded, and recorded before it is
//! added. With both steps under one lock, a port that passes from one container to another is never removed under
//! the new owner.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use spec::Id;
use store::Store;
use sys::netlink::Socket;

use crate::address::Prefix;
use crate::driver::{Bridge, Driver};
use crate::error::Error;
use crate::firewall::{BridgeRules, Desired, Firewall, Gate, PortRule, Way, ports};
use crate::ipam::{AddressPool, Subnet};
use crate::model::{EndpointInfo, Network, NetworkConfig, PublishedPort, SavedSandbox, Served, SubnetStatus};
use crate::port::Ports;
use crate::prepared::Prepared;
use crate::reaper::Reaper;
use crate::records::{Attached, SandboxRecord};
use crate::settings::GatewayMode;
use crate::watch::Watch;

/// The networks of one daemon. Clones share everything.
#[derive(Debug, Clone)]
pub struct Networks {
    /// Ends with the last handle, and before what it watches. The watcher's own handles have none.
    _watch: Option<Arc<Watch>>,
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) config: NetworkConfig,
    pub(crate) pools: Vec<AddressPool>,
    pub(crate) store: Store,
    /// Where the resolver's tables lie.
    pub(crate) dns_dir: PathBuf,
    pub(crate) firewall: Option<Firewall>,
    pub(crate) prepared: Arc<Prepared>,
    pub(crate) reaper: Reaper,
    pub(crate) names: Mutex<()>,
    pub(crate) order: Mutex<()>,
    state: Mutex<State>,
    route: Mutex<Socket>,
    /// Set once everything is being taken off the host: what goes then goes because we take it.
    leaving: AtomicBool,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Networks")
            .field("instance", &self.config.instance.tag)
            .finish_non_exhaustive()
    }
}

/// What exists.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) networks: BTreeMap<Id, NetworkState>,
    pub(crate) sandboxes: BTreeMap<Id, SandboxRecord>,
    pub(crate) ports: Ports,
    /// Where the host's own input rules decide about published ports as well.
    pub(crate) gate: Option<Gate>,
}

/// A network with what its driver knows of it.
#[derive(Debug, Clone)]
pub(crate) struct NetworkState {
    /// Without endpoints; those are the sandboxes'.
    pub(crate) network: Network,
    pub(crate) driver: Driver,
    /// Of the families that are on.
    pub(crate) subnets: Vec<Subnet>,
}

impl NetworkState {
    pub(crate) fn bridge(&self) -> Option<&Bridge> {
        match &self.driver {
            Driver::Bridge(bridge) => Some(bridge),
            Driver::Direct(_) | Driver::Host | Driver::None => None,
        }
    }

    pub(crate) fn bridge_mut(&mut self) -> Option<&mut Bridge> {
        match &mut self.driver {
            Driver::Bridge(bridge) => Some(bridge),
            Driver::Direct(_) | Driver::Host | Driver::None => None,
        }
    }

    /// Whether it is the network called `bridge`, where less is to be had than in a user's.
    pub(crate) fn is_default(&self) -> bool {
        self.bridge().is_some_and(|bridge| bridge.settings.is_default)
    }

    /// Whether containers find each other by name here.
    pub(crate) fn has_names(&self) -> bool {
        match &self.driver {
            Driver::Bridge(bridge) => !bridge.settings.is_default,
            Driver::Direct(_) => true,
            Driver::Host | Driver::None => false,
        }
    }

    /// Its gateways, which are the host's own addresses where it has a bridge.
    fn gateways(&self) -> Vec<Prefix> {
        let own = |subnet: &Subnet| Prefix::new(subnet.gateway?, subnet.prefix.length());
        let is_absent = |ipv4: bool| {
            self.bridge().is_some_and(|bridge| {
                let settings = &bridge.settings;
                (ipv4 && settings.inhibit_ipv4) || settings.gateway_mode(ipv4) == GatewayMode::Isolated
            })
        };
        let own = self.subnets.iter().filter_map(own);
        own.filter(|prefix| !is_absent(prefix.is_ipv4())).collect()
    }

    /// Makes or takes over what it has on the host.
    pub(crate) fn bring_up(&mut self, route: &mut Socket, tag: &str) -> Result<(), Error> {
        let gateways = self.gateways();
        self.driver.bring_up(route, tag, &self.network, &gateways)
    }

    pub(crate) fn rules(&self) -> Option<BridgeRules> {
        let bridge = self.bridge()?;
        Some(BridgeRules {
            name: bridge.settings.bridge.clone(),
            internal: self.network.internal,
            icc: bridge.settings.icc,
            subnets: self.subnets.iter().map(|s| s.prefix).collect(),
            masquerade: bridge.settings.masquerade && !self.network.internal,
            sources: self
                .subnets
                .iter()
                .filter_map(|s| Some((s.prefix, bridge.settings.source(s.prefix.is_ipv4())?)))
                .collect(),
            unprotected: self.subnets_in(GatewayMode::NatUnprotected),
            routed: self.subnets_in(GatewayMode::Routed),
            trusted: bridge.settings.trusted.clone(),
        })
    }

    fn subnets_in(&self, mode: GatewayMode) -> Vec<Prefix> {
        let subnets = self.subnets.iter().map(|subnet| subnet.prefix);
        let is_in = |subnet: &Prefix| self.gateway_mode(subnet.is_ipv4()) == Some(mode);
        subnets.filter(is_in).collect()
    }

    fn gateway_mode(&self, ipv4: bool) -> Option<GatewayMode> {
        self.bridge().map(|bridge| bridge.settings.gateway_mode(ipv4))
    }
}

impl State {
    /// Finds a network by its whole id, its name, or a prefix of its id that fits only one.
    pub(crate) fn find(&self, name: &str) -> Result<&NetworkState, Error> {
        if let Some(found) = self
            .networks
            .values()
            .find(|n| n.network.id.as_str() == name || n.network.name == name)
        {
            return Ok(found);
        }
        let mut fits = self
            .networks
            .values()
            .filter(|n| !name.is_empty() && n.network.id.as_str().starts_with(name));
        match (fits.next(), fits.count()) {
            (Some(found), 0) => Ok(found),
            (Some(_), more) => Err(Error::Ambiguous {
                name: name.to_owned(),
                count: more + 1,
            }),
            (None, _) => Err(Error::NotFound(name.to_owned())),
        }
    }

    /// The endpoint that gives a container its default route of one family, and takes its published ports: of those
    /// with a gateway the one with the highest priority, then the first by network name.
    pub(crate) fn gateway<'a>(&self, sandbox: &'a SandboxRecord, ipv4: bool) -> Option<&'a Attached> {
        let leads_out = |attached: &&Attached| {
            let endpoint = &attached.endpoint;
            if ipv4 {
                endpoint.gateway.is_some()
            } else {
                endpoint.ipv6_gateway.is_some()
            }
        };
        sandbox.endpoints.iter().filter(leads_out).min_by_key(|attached| {
            (
                std::cmp::Reverse(attached.endpoint.gw_priority),
                attached.endpoint.network_name.clone(),
            )
        })
    }

    /// The endpoint that takes a container's published ports: the one that gives the default route, if the host
    /// stands between it and the world.
    pub(crate) fn way_in<'a>(&self, sandbox: &'a SandboxRecord, ipv4: bool) -> Option<&'a Attached> {
        self.gateway(sandbox, ipv4).filter(|attached| {
            let network = self.networks.get(&attached.endpoint.network_id);
            network.is_some_and(|network| network.bridge().is_some())
        })
    }

    /// Whether the endpoint's network only routes to containers of this family.
    pub(crate) fn is_routed(&self, attached: &Attached, ipv4: bool) -> bool {
        let network = self.networks.get(&attached.endpoint.network_id);
        network.and_then(|network| network.gateway_mode(ipv4)) == Some(GatewayMode::Routed)
    }

    /// Interfaces of the host from which the endpoint's published ports are reached at its own address: those its network
    /// trusts. Where the family is open to all anyway, none.
    pub(crate) fn trusts<'a>(&'a self, attached: &Attached, ipv4: bool) -> &'a [String] {
        let network = self.networks.get(&attached.endpoint.network_id);
        let settings = network.and_then(|network| Some(&network.bridge()?.settings));
        match settings {
            Some(settings) if settings.gateway_mode(ipv4) == GatewayMode::Nat => &settings.trusted,
            _ => &[],
        }
    }

    /// Where the container's monitor leads what it serves: over IPv6 where the host translates to it as well.
    fn served_target(&self, sandbox: &SandboxRecord) -> Option<IpAddr> {
        let way = |ipv4: bool| {
            let way = self.way_in(sandbox, ipv4)?;
            (!self.is_routed(way, ipv4)).then_some(&way.endpoint)
        };
        let ipv6 = way(false).and_then(|endpoint| endpoint.ipv6).map(IpAddr::from);
        ipv6.or_else(|| way(true).and_then(|endpoint| endpoint.ipv4).map(IpAddr::from))
    }

    /// What a container's monitor is to serve, with the sockets that it does not have yet.
    pub(crate) fn served(&mut self, container: &Id) -> Option<Served> {
        let sandbox = self.sandboxes.get(container).filter(|sandbox| sandbox.serves)?;
        let target = self.served_target(sandbox);
        let mut served = Served::default();
        let singles = sandbox.ports.iter().filter(|port| port.is_served());
        for port in singles.flat_map(PublishedPort::singles) {
            let (IpAddr::V6(address), Some(transport)) = (port.host_ip, port.proto.transport()) else {
                continue;
            };
            let socket = self.ports.give(port.proto, port.host_port, port.host_ip);
            served
                .sockets
                .extend(socket.map(|socket| (served.ports.len(), socket)));
            served.ports.push(relay::Port {
                transport,
                host: SocketAddrV6::new(address, port.host_port, 0, 0),
                target: target.map(|target| SocketAddr::new(target, port.container_port)),
            });
        }
        Some(served)
    }

    /// Where a container's published ports lead.
    pub(crate) fn port_rules(&self, sandbox: &SandboxRecord) -> Vec<PortRule> {
        if sandbox.ports.is_empty() {
            return Vec::new();
        }
        let way = |ipv4: bool| {
            let attached = self.way_in(sandbox, ipv4)?;
            let endpoint = &attached.endpoint;
            let target = match ipv4 {
                true => IpAddr::from(endpoint.ipv4?),
                false => IpAddr::from(endpoint.ipv6?),
            };
            let ways: &'static [Way] = match self.is_routed(attached, ipv4) {
                true => &[Way::Open],
                false if self.trusts(attached, ipv4).is_empty() => &[Way::Translated],
                false => &[Way::Translated, Way::Trusted],
            };
            Some((target, ways))
        };
        let (way4, way6) = (way(true), way(false));
        let served = self.served_target(sandbox).filter(|_| sandbox.serves);
        let mut rules = Vec::new();
        for port in &sandbox.ports {
            let target = served.filter(|_| port.is_served());
            rules.extend(target.map(|target| PortRule::of(port, target, Way::Served)));
            let Some((target, ways)) = (if port.host_ip.is_ipv4() { way4 } else { way6 }) else {
                continue;
            };
            // The way in may have become another one since the port was taken. One that was routed has no port of the
            // host to be led from, and what only the host itself is to reach is not opened to all who route here. Who
            // comes by an interface that is trusted is as near as the host itself.
            let fits = |way: &&Way| match way {
                // What comes to ::1 is not translated.
                Way::Translated => !port.routed && port.host_ip != IpAddr::V6(Ipv6Addr::LOCALHOST),
                Way::Trusted | Way::Served => !port.routed,
                Way::Open => !port.host_ip.is_loopback(),
            };
            rules.extend(
                ways.iter()
                    .filter(fits)
                    .map(|way| PortRule::of(port, target, *way)),
            );
        }
        ports::without_repeats(rules)
    }

    /// Everything the firewall should hold, without the ports of `except`.
    pub(crate) fn desired(&self, except: Option<&Id>) -> Desired {
        let others = self.sandboxes.iter().filter(|(id, _)| Some(*id) != except);
        Desired {
            bridges: self.networks.values().filter_map(NetworkState::rules).collect(),
            ports: others.flat_map(|(_, sandbox)| self.port_rules(sandbox)).collect(),
            gate: self.gate.clone(),
        }
    }

    /// The subnets of all networks.
    pub(crate) fn subnets(&self) -> Vec<Prefix> {
        self.networks
            .values()
            .flat_map(|network| network.subnets.iter().map(|s| s.prefix))
            .collect()
    }

    /// Gives a container's addresses back to their subnets.
    pub(crate) fn free_addresses(&mut self, endpoints: &[Attached]) {
        for Attached { endpoint, .. } in endpoints {
            let Some(network) = self.networks.get_mut(&endpoint.network_id) else {
                continue;
            };
            for address in [endpoint.ipv4.map(IpAddr::from), endpoint.ipv6.map(IpAddr::from)]
                .into_iter()
                .flatten()
            {
                for subnet in network.subnets.iter_mut().filter(|s| s.prefix.contains(address)) {
                    subnet.free(address);
                }
            }
        }
    }

    fn shown(&self, found: &NetworkState) -> Network {
        let mut network = found.network.clone();
        for (container, sandbox) in &self.sandboxes {
            for Attached { endpoint, .. } in sandbox
                .endpoints
                .iter()
                .filter(|a| a.endpoint.network_id == network.id)
            {
                let info = EndpointInfo {
                    name: sandbox.name.clone(),
                    endpoint_id: endpoint.endpoint_id.clone(),
                    mac: endpoint.mac,
                    ipv4: endpoint
                        .ipv4
                        .and_then(|a| Prefix::new(a.into(), endpoint.ipv4_prefix)),
                    ipv6: endpoint
                        .ipv6
                        .and_then(|a| Prefix::new(a.into(), endpoint.ipv6_prefix)),
                };
                network.endpoints.insert(container.clone(), info);
            }
        }
        network
    }
}

impl Inner {
    pub(crate) fn new(
        config: NetworkConfig,
        pools: Vec<AddressPool>,
        store: Store,
        dns_dir: PathBuf,
        firewall: Option<Firewall>,
        route: Socket,
        state: State,
    ) -> Result<Inner, Error> {
        let prepared = Arc::new(Prepared::new(&config.instance.tag, config.prepared));
        let reaper = Reaper::start(prepared.clone())?;
        Ok(Inner {
            config,
            pools,
            store,
            dns_dir,
            firewall,
            prepared,
            reaper,
            names: Mutex::new(()),
            order: Mutex::new(()),
            state: Mutex::new(state),
            route: Mutex::new(route),
            leaving: AtomicBool::new(false),
        })
    }

    pub(crate) fn leave(&self) {
        self.leaving.store(true, Ordering::SeqCst);
    }

    pub(crate) fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::SeqCst)
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn route(&self) -> MutexGuard<'_, Socket> {
        self.route.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn order(&self) -> MutexGuard<'_, ()> {
        self.order.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Networks {
    pub(crate) fn new(inner: Arc<Inner>, watch: Option<Watch>) -> Networks {
        Networks {
            _watch: watch.map(Arc::new),
            inner,
        }
    }

    /// The network of this name, id, or unambiguous prefix of an id.
    pub fn get(&self, name: &str) -> Result<Network, Error> {
        let state = self.inner.state();
        state.find(name).map(|found| state.shown(found))
    }

    /// Every network, by id.
    pub fn list(&self) -> Vec<Network> {
        let state = self.inner.state();
        state.networks.values().map(|found| state.shown(found)).collect()
    }

    /// Address counts of a network's subnets.
    pub fn status(&self, name: &str) -> Result<Vec<SubnetStatus>, Error> {
        let state = self.inner.state();
        let found = state.find(name)?;
        Ok(found.subnets.iter().map(Subnet::status).collect())
    }

    /// What is recorded of a container; `None` when it is attached to nothing.
    pub fn saved(&self, container: &Id) -> Option<SavedSandbox> {
        let state = self.inner.state();
        let sandbox = state.sandboxes.get(container)?;
        Some(SavedSandbox {
            endpoints: sandbox.endpoints.iter().map(|a| a.endpoint.clone()).collect(),
            ports: sandbox.ports.clone(),
        })
    }

    /// What is kept of the name queries of an attached container, oldest first.
    pub fn dns_log(&self, container: &Id) -> Vec<dns::log::Entry> {
        dns::log::read(&dns::table::path(&self.inner.dns_dir, container.as_str()))
    }

    /// Makes namespaces until `wanted` are ready for those who attach next: for whoever knows that they come, and that there
    /// will be no quiet moment before.
    pub fn make_ready(&self, wanted: usize) -> Result<(), Error> {
        let inner = &self.inner;
        if !inner.prepared.has_fewer(wanted) {
            return Ok(());
        }
        // The one that the others use is not theirs to wait for.
        let mut host = Socket::route().map_err(Error::io("open a route socket"))?;
        while inner.prepared.has_fewer(wanted) && !inner.is_leaving() {
            inner.prepared.fill(&mut host)?;
        }
        Ok(())
    }

    /// Waits until what was left to the background (links of stopped containers, namespaces being prepared) is done.
    pub fn settle(&self) {
        self.inner.reaper.settle();
    }
}
