//! Making and removing networks, and bringing up what is recorded when the daemon starts.

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use spec::Id;
use store::Store;
use sys::netlink::Socket;

use crate::address::Prefix;
use crate::driver::{Driver, OFFERED};
use crate::error::Error;
use crate::firewall::{Firewall, ruleset};
use crate::gate;
use crate::host;
use crate::ipam::{self, AddressPool, Subnet};
use crate::link;
use crate::model::{CreateNetwork, DefaultBridge, Ipam, IpamPool, Network, NetworkConfig};
use crate::reconcile::{self, Found};
use crate::records::{self, SandboxRecord};
use crate::settings::{self, GatewayMode};
use crate::state::{Inner, NetworkState, Networks, State};
use crate::template;
use crate::watch::Sight;

/// Bytes of a network name; nothing needs more, and it becomes part of file contents and messages.
const LONGEST_NAME: usize = 255;

impl Networks {
    /// Brings up everything recorded: bridges, firewall, names; makes what is missing of `bridge`, `host` and `none`.
    /// Containers recorded as attached keep what they have until [`Networks::reconcile`] says which still live.
    ///
    /// A failure takes back what this call put on the host, and nothing that was there before: living containers of an
    /// earlier daemon may need that.
    pub fn open(store: Store, config: NetworkConfig) -> Result<Networks, Error> {
        let tag = config.instance.tag.clone();
        let rules = config.firewall;
        let before = Found::on_host(&tag, rules)?;
        Networks::bring_up(store, config).inspect_err(|_| {
            if let Err(error) = before.restore(&tag, rules) {
                tracing::warn!(%error, "something of a start that failed is left on the host");
            }
        })
    }

    fn bring_up(store: Store, config: NetworkConfig) -> Result<Networks, Error> {
        records::prepare(store.db())?;
        let dns_dir = config.run_dir.join("dns");
        std::fs::create_dir_all(&dns_dir).map_err(Error::io(format!("create {}", dns_dir.display())))?;
        let pools = if config.address_pools.is_empty() {
            ipam::default_pools()
        } else {
            config.address_pools.clone()
        };
        let mut route = Socket::route().map_err(Error::io("open a route socket"))?;
        // From here on nothing that happens on the host is missed.
        let sight = Sight::open(config.firewall)?;
        let (networks, sandboxes) = records::load(store.db())?;
        let mut state = restore(networks, sandboxes)?;
        reconcile::remove_unknown_links(&mut route, &config.instance.tag, &state)?;
        predefined(&store, &config, &pools, &mut route, &mut state)?;

        host::enable_forwarding_ipv4();
        match config.respect_host && config.firewall {
            true => state.gate = Some(gate::ensure(&mut route, &config.instance.tag)?),
            false => gate::remove(&mut route, &config.instance.tag)?,
        }
        let tag = &config.instance.tag;
        for network in state.networks.values_mut() {
            let brought = network.bring_up(&mut route, tag);
            match brought {
                // A link of the host that is away, or a file of peers, must not keep every other container from
                // coming up; whoever attaches to it is told.
                Err(error) if !matches!(network.network.driver.as_str(), "bridge") => {
                    tracing::error!(network = network.network.name, %error, "a network is not up");
                }
                other => other?,
            }
        }
        let firewall = if config.firewall {
            Some(Firewall::open(tag)?)
        } else {
            None
        };
        let State { sandboxes, ports, .. } = &mut state;
        for (container, sandbox) in sandboxes {
            for port in &sandbox.ports {
                ports.adopt(container, port);
            }
        }
        if let Some(firewall) = &firewall {
            firewall.ensure(&state.desired(None))?;
        }
        reconcile::remove_unknown_tables(&dns_dir, &state);
        let networks: Vec<Id> = state.networks.keys().cloned().collect();
        let containers: Vec<Id> = state.sandboxes.keys().cloned().collect();
        let inner = Inner::new(config, pools, store, dns_dir, firewall, route, state)?;
        inner.write_names(&networks.into_iter().collect())?;
        for container in &containers {
            inner.write_container(container)?;
        }
        let inner = Arc::new(inner);
        let watch = sight.watch(&inner)?;
        Ok(Networks::new(inner, Some(watch)))
    }

    /// Makes a network.
    pub fn create(&self, request: &CreateNetwork) -> Result<Network, Error> {
        let inner = &self.inner;
        check(request)?;
        template::check(request)?;
        let routes = routes(&mut inner.route())?;
        let id = Id::random();
        let mut made = {
            let mut state = inner.state();
            if state.networks.values().any(|n| n.network.name == request.name) {
                return Err(Error::NameInUse(request.name.clone()));
            }
            let made = match request.config_only {
                true => template::settings_alone(&id, request, now())?,
                false => {
                    let request = state.completed(request)?;
                    design(&id, &request, &inner.pools, &state.subnets(), &routes)?
                }
            };
            let bridge_name = |n: &NetworkState| n.bridge().map(|b| b.settings.bridge.clone());
            let taken = |n: &&NetworkState| bridge_name(n).is_some() && bridge_name(n) == bridge_name(&made);
            if let Some(other) = state.networks.values().find(taken) {
                let text = format!(
                    "cannot create network {} ({id}): it conflicts with network {} ({}): networks have same bridge name",
                    request.name, other.network.name, other.network.id
                );
                return Err(Error::Forbidden(text));
            }
            // In the state from here on, so that the name and the subnets are taken; without an index, so that no
            // container can be attached yet.
            state.networks.insert(id.clone(), made.clone());
            made
        };
        let result = inner.establish(&mut made);
        let mut state = inner.state();
        match result {
            Ok(()) => {
                let network = made.network.clone();
                state.networks.insert(id, made);
                Ok(network)
            }
            Err(error) => {
                state.networks.remove(&id);
                drop(state);
                inner.demolish(&made);
                Err(error)
            }
        }
    }

    /// Removes a network without containers.
    pub fn remove(&self, name: &str) -> Result<Network, Error> {
        let inner = &self.inner;
        let removed = {
            let mut state = inner.state();
            let found = state.find(name)?.network.clone();
            if found.is_predefined() {
                return Err(Error::Predefined(found.name));
            }
            state.check_settings_unused(&found)?;
            let holders: Vec<String> = state
                .sandboxes
                .iter()
                .filter(|(_, s)| s.endpoints.iter().any(|a| a.endpoint.network_id == found.id))
                .map(|(id, s)| format!("name:{:?} id:{:?}", s.name, id.short()))
                .collect();
            if !holders.is_empty() {
                return Err(Error::InUse {
                    name: found.name,
                    holders: holders.join(", "),
                });
            }
            records::remove_network(inner.store.db(), &found.id)?;
            state.networks.remove(&found.id)
        };
        let removed = removed.ok_or_else(|| Error::NotFound(name.to_owned()))?;
        inner.demolish(&removed);
        Ok(removed.network)
    }

    /// Removes every network that has no containers, is not one of the three, and is not in `keep`; gives their names.
    pub fn prune(&self, keep: &HashSet<Id>) -> Result<Vec<String>, Error> {
        let mut pruned = Vec::new();
        for network in self.list() {
            let kept = network.is_predefined() || network.config_only || keep.contains(&network.id);
            if kept || !network.endpoints.is_empty() {
                continue;
            }
            match self.remove(network.id.as_str()) {
                Ok(removed) => pruned.push(removed.name),
                // A container came, or somebody else removed it, between the look and the removal.
                Err(Error::InUse { .. } | Error::NotFound(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(pruned)
    }

    /// Takes everything of this instance off the host: containers' endpoints, bridges, the firewall's table. The
    /// networks stay recorded and are made again by the next [`Networks::open`]. One failure, such as a database that
    /// cannot be written any more, keeps nothing else from going; the first is told.
    pub fn tear_down(&self) -> Result<(), Error> {
        let inner = &self.inner;
        inner.leave();
        let detached = self.reconcile(&HashSet::new());
        inner.reaper.settle();
        // The kernel takes a namespace apart some time after its last descriptor is closed, and the host's end of its
        // pair with it: those of the pool are removed by name, while their namespaces are whole.
        let mut links = inner.prepared.links();
        links.extend(
            inner
                .state()
                .networks
                .values()
                .flat_map(|network| network.driver.links()),
        );
        let links =
            link::remove(&mut inner.route(), &links).map_err(Error::kernel("remove the networks' links"));
        inner.prepared.drain();
        let gate = gate::remove(&mut inner.route(), &inner.config.instance.tag);
        let firewall = inner.firewall.as_ref().map_or(Ok(()), Firewall::remove);
        detached.map(drop).and(links).and(gate).and(firewall)
    }
}

impl Inner {
    /// Makes a designed network real and records it.
    fn establish(&self, made: &mut NetworkState) -> Result<(), Error> {
        made.bring_up(&mut self.route(), &self.config.instance.tag)?;
        if let (Some(firewall), Some(rules)) = (&self.firewall, made.rules()) {
            let _order = self.order();
            firewall.change(&[], &ruleset::bridge_elements(&rules), || {
                self.state().desired(None)
            })?;
        }
        records::put_network(self.store.db(), &made.network)?;
        self.write_names(&[made.network.id.clone()].into())
    }

    /// Takes a network that is recorded no longer off the host. What fails is left to the next start, which removes
    /// links and elements that nothing recorded explains.
    fn demolish(&self, removed: &NetworkState) {
        if let (Some(firewall), Some(rules)) = (&self.firewall, removed.rules()) {
            let _order = self.order();
            if let Err(error) = firewall.change(&ruleset::bridge_elements(&rules), &[], || {
                self.state().desired(None)
            }) {
                tracing::warn!(network = %removed.network.name, %error, "rules of a removed network are left");
            }
        }
        let links = match removed.bridge() {
            // Not made: one of that name is somebody else's.
            Some(bridge) if bridge.index.is_none() => Vec::new(),
            _ => removed.driver.links(),
        };
        if let Err(failure) = link::remove(&mut self.route(), &links) {
            tracing::warn!(?links, %failure, "links of a removed network are left");
        }
        if let Err(error) = self.write_names(&[removed.network.id.clone()].into()) {
            tracing::warn!(network = %removed.network.name, %error, "the names of a removed network are left");
        }
    }
}

fn check(request: &CreateNetwork) -> Result<(), Error> {
    let name = &request.name;
    if name.trim().is_empty() || name.len() > LONGEST_NAME || name.chars().any(char::is_control) {
        return Err(Error::Invalid(format!(
            "invalid network name {name:?}: it must not be blank, nor longer than {LONGEST_NAME} bytes"
        )));
    }
    if matches!(name.as_str(), "bridge" | "host" | "none" | "default") {
        return Err(Error::Forbidden(format!(
            "operation is not permitted on predefined {name} network"
        )));
    }
    match request.driver.as_str() {
        "" => {}
        driver if OFFERED.contains(&driver) => {}
        driver @ ("host" | "null") => {
            return Err(Error::Forbidden(format!(
                "only one instance of {driver:?} network is allowed"
            )));
        }
        other => return Err(Error::UnknownDriver(other.to_owned())),
    }
    if !matches!(request.ipam_driver.as_str(), "" | "default") {
        return Err(Error::Invalid(format!(
            "could not find an IPAM driver called {}; this engine has default",
            request.ipam_driver
        )));
    }
    if !request.enable_ipv4 && !request.enable_ipv6 {
        return Err(Error::Invalid("IPv4 or IPv6 must be enabled".to_owned()));
    }
    ipam::check(&request.ipam)
}

/// The host's routes: what a chosen subnet keeps clear of.
fn routes(route: &mut Socket) -> Result<Vec<Prefix>, Error> {
    let found = link::destinations(route).map_err(Error::kernel("read the host's routes"))?;
    Ok(found.into_iter().map(|(prefix, _)| prefix).collect())
}

/// Chooses subnets and gateways. `taken` are the subnets of other networks, `routes` the host's.
fn design(
    id: &Id,
    request: &CreateNetwork,
    pools: &[AddressPool],
    taken: &[Prefix],
    routes: &[Prefix],
) -> Result<NetworkState, Error> {
    let name = match request.driver.as_str() {
        "" => "bridge",
        name => name,
    };
    let driver = Driver::parse(name, id, &request.options)?;
    if let Driver::Bridge(bridge) = &driver
        && bridge.settings.gateway_modes.contains(&GatewayMode::Isolated)
        && !request.internal
    {
        return Err(Error::Invalid(
            "gateway mode 'isolated' can only be used for an internal network".to_owned(),
        ));
    }
    // A network on a link of the host is where that link is: its subnet is the host's own.
    let routes = if matches!(driver, Driver::Direct(_)) {
        &[]
    } else {
        routes
    };
    let mut asked = request.ipam.clone();
    let mut busy = taken.to_vec();
    for subnet in asked.iter().filter_map(|p| p.subnet) {
        // A subnet within a wider route of the host (a VPN's, say) is more specific and wins; one that covers a route
        // would cut the host off from there.
        let cuts_off = |r: &&Prefix| r.overlaps(&subnet) && r.length() >= subnet.length();
        if busy.iter().any(|t| t.overlaps(&subnet)) || routes.iter().any(|r| cuts_off(&r)) {
            return Err(Error::Overlap);
        }
        busy.push(subnet);
    }
    for ipv4 in [true, false] {
        let enabled = if ipv4 {
            request.enable_ipv4
        } else {
            request.enable_ipv6
        };
        if !enabled
            || asked
                .iter()
                .any(|p| p.subnet.is_some_and(|s| s.is_ipv4() == ipv4))
        {
            continue;
        }
        let in_the_way: Vec<Prefix> = busy.iter().chain(routes).copied().collect();
        let mut chosen = ipam::free_subnet(pools, ipv4, &in_the_way);
        if !ipv4 && chosen.is_none() {
            chosen = ipam::unique_local_subnet(&in_the_way);
        }
        let chosen = chosen.ok_or(Error::PoolsExhausted)?;
        busy.push(chosen);
        // A pool that names only a gateway or a range is completed, if that fits.
        let open = asked
            .iter_mut()
            .find(|p| p.subnet.is_none() && p.gateway.is_none_or(|g| g.is_ipv4() == ipv4));
        match open {
            Some(open) => open.subnet = Some(chosen),
            None => asked.push(IpamPool {
                subnet: Some(chosen),
                ..IpamPool::default()
            }),
        }
    }
    ipam::check(&asked)?;
    let enabled = |pool: &IpamPool| {
        pool.subnet.is_some_and(|s| {
            if s.is_ipv4() {
                request.enable_ipv4
            } else {
                request.enable_ipv6
            }
        })
    };
    let (mut subnets, mut config) = (Vec::new(), Vec::new());
    for pool in asked.iter().filter(|p| p.subnet.is_some()) {
        match Subnet::new(pool, true).filter(|_| enabled(pool)) {
            Some(subnet) => {
                config.push(ipam::shown(&subnet, pool));
                subnets.push(subnet);
            }
            None => config.push(pool.clone()),
        }
    }
    let network = Network {
        id: id.clone(),
        name: request.name.clone(),
        driver: name.to_owned(),
        scope: "local".to_owned(),
        created: now(),
        enable_ipv4: request.enable_ipv4,
        enable_ipv6: request.enable_ipv6,
        internal: request.internal,
        attachable: request.attachable,
        ingress: false,
        ipam: Ipam {
            driver: "default".to_owned(),
            options: request.ipam_options.clone(),
            config,
        },
        options: request.options.clone(),
        labels: request.labels.clone(),
        config_only: false,
        config_from: request.config_from.clone(),
        endpoints: BTreeMap::new(),
    };
    Ok(NetworkState {
        network,
        driver,
        subnets,
    })
}

fn now() -> String {
    format!("{:.9}", jiff::Timestamp::now())
}

/// The state that the records describe.
fn restore(networks: Vec<Network>, sandboxes: BTreeMap<Id, SandboxRecord>) -> Result<State, Error> {
    let mut state = State::default();
    for network in networks {
        let driver = Driver::of(&network)?;
        let enabled = |s: &Subnet| {
            if s.prefix.is_ipv4() {
                network.enable_ipv4
            } else {
                network.enable_ipv6
            }
        };
        let pools = network.ipam.config.iter();
        let subnets = pools
            .filter(|_| !network.config_only)
            .filter_map(|pool| Subnet::new(pool, false))
            .filter(enabled)
            .collect();
        state.networks.insert(
            network.id.clone(),
            NetworkState {
                network,
                driver,
                subnets,
            },
        );
    }
    for attached in sandboxes.values().flat_map(|s| &s.endpoints) {
        let endpoint = &attached.endpoint;
        let Some(network) = state.networks.get_mut(&endpoint.network_id) else {
            continue;
        };
        for address in [endpoint.ipv4.map(IpAddr::from), endpoint.ipv6.map(IpAddr::from)]
            .into_iter()
            .flatten()
        {
            for subnet in network.subnets.iter_mut().filter(|s| s.prefix.contains(address)) {
                // The database's keys made sure that each is recorded once.
                let _ = subnet.take_fixed(address);
            }
        }
    }
    state.sandboxes = sandboxes;
    Ok(state)
}

/// Makes the three networks that always exist, and remakes `bridge` when its settings changed and nobody is in it.
fn predefined(
    store: &Store,
    config: &NetworkConfig,
    pools: &[AddressPool],
    route: &mut Socket,
    state: &mut State,
) -> Result<(), Error> {
    for (name, driver, kind) in [("none", "null", Driver::None), ("host", "host", Driver::Host)] {
        if state.find(name).is_err() {
            let network = Network {
                id: Id::random(),
                name: name.to_owned(),
                driver: driver.to_owned(),
                scope: "local".to_owned(),
                created: now(),
                enable_ipv4: true,
                enable_ipv6: false,
                internal: false,
                attachable: false,
                ingress: false,
                ipam: Ipam {
                    driver: "default".to_owned(),
                    options: None,
                    config: Vec::new(),
                },
                options: BTreeMap::new(),
                labels: BTreeMap::new(),
                config_only: false,
                config_from: String::new(),
                endpoints: BTreeMap::new(),
            };
            records::put_network(store.db(), &network)?;
            state.networks.insert(
                network.id.clone(),
                NetworkState {
                    network,
                    driver: kind,
                    subnets: Vec::new(),
                },
            );
        }
    }
    let wanted = config.default_bridge.clone().unwrap_or_default();
    let found = state
        .networks
        .values()
        .find(|n| n.network.name == "bridge")
        .cloned();
    let request = default_request(config, &wanted);
    if let Some(found) = found {
        let in_use = state.sandboxes.values().any(|s| {
            s.endpoints
                .iter()
                .any(|a| a.endpoint.network_id == found.network.id)
        });
        let unchanged = found.network.options == request.options
            && found.network.enable_ipv6 == request.enable_ipv6
            && request
                .ipam
                .iter()
                .all(|pool| found.network.ipam.config.iter().any(|have| covers(have, pool)));
        if in_use || (unchanged && wanted.enabled) {
            if !unchanged {
                tracing::warn!(
                    "the default bridge's settings changed while containers use it; they take effect at a start without them"
                );
            }
            return Ok(());
        }
        records::remove_network(store.db(), &found.network.id)?;
        state.networks.remove(&found.network.id);
        reconcile::remove_unknown_links(route, &config.instance.tag, state)?;
    }
    if !wanted.enabled {
        return Ok(());
    }
    ipam::check(&request.ipam)?;
    let designed = design(&Id::random(), &request, pools, &state.subnets(), &routes(route)?)?;
    records::put_network(store.db(), &designed.network)?;
    state.networks.insert(designed.network.id.clone(), designed);
    Ok(())
}

/// Whether a pool is as asked for, where anything was asked for.
fn covers(have: &IpamPool, asked: &IpamPool) -> bool {
    asked.subnet.is_none_or(|s| have.subnet == Some(s))
        && asked.gateway.is_none_or(|g| have.gateway == Some(g))
        && asked.ip_range == have.ip_range
}

fn default_request(config: &NetworkConfig, wanted: &DefaultBridge) -> CreateNetwork {
    let option = |key: &str, value: String| (key.to_owned(), value);
    let mut pools = Vec::new();
    if wanted.bip.is_some() || wanted.fixed_cidr.is_some() {
        let subnet = wanted.bip.or(wanted.fixed_cidr).map(|p| p.masked());
        let gateway = wanted
            .default_gateway
            .map(IpAddr::from)
            .or(wanted.bip.map(|p| p.address()));
        pools.push(IpamPool {
            subnet,
            ip_range: wanted.fixed_cidr,
            gateway,
            aux: BTreeMap::new(),
        });
    }
    if wanted.enable_ipv6 && wanted.fixed_cidr_v6.is_some() {
        pools.push(IpamPool {
            subnet: wanted.fixed_cidr_v6.map(|p| p.masked()),
            ..IpamPool::default()
        });
    }
    let binding = wanted
        .host_binding
        .map_or("0.0.0.0".to_owned(), |a| a.to_string());
    CreateNetwork {
        ipam: pools,
        enable_ipv6: wanted.enable_ipv6,
        options: BTreeMap::from([
            option(settings::DEFAULT_BRIDGE, "true".to_owned()),
            option(settings::ENABLE_ICC, wanted.icc.to_string()),
            option(settings::ENABLE_MASQUERADE, wanted.ip_masquerade.to_string()),
            option(settings::HOST_BINDING, binding),
            option(settings::BRIDGE_NAME, config.instance.default_bridge()),
            option(settings::MTU, wanted.mtu.unwrap_or(1500).to_string()),
        ]),
        ..CreateNetwork::named("bridge")
    }
}
