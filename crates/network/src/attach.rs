//! Giving a container its network, and taking it back.
//!
//! ```text
//! attach:  reserve (state, then database) ─> namespace ─> links, addresses, routes ─> names ─> ports
//! detach:  ports ─> database, state ─> names ─> links (in the background)
//! ```
//!
//! What fails on the way is undone by detaching, which takes back whatever was done, and nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use spec::Id;
use sys::namespace::{Kind, in_namespace};
use sys::netlink::Socket;

use crate::address::{Mac, Prefix};
use crate::error::Error;
use crate::firewall::{self, ruleset};
use crate::host;
use crate::link::{self, HostEnd, Interface};
use crate::model::{Endpoint, EndpointRequest, PortRequest, PublishedPort, Sandbox, SandboxRequest};
use crate::names;
use crate::port::Ports;
use crate::prepared::{self, Pair, Ready};
use crate::records::{self, Attached, SandboxRecord};
use crate::resolv::{self, Resolution, Resolv};
use crate::settings::is_interface_name;
use crate::state::{Inner, NetworkState, Networks, State};

const INTERFACE_NAME: &str = "com.docker.network.endpoint.ifname";
const INTERFACE_SYSCTLS: &str = "com.docker.network.endpoint.sysctls";

/// What one endpoint needs of the kernel, copied out of the state.
#[derive(Debug)]
pub(crate) struct Wiring {
    pub(crate) endpoint: Endpoint,
    pub(crate) host_link: String,
    pub(crate) bridge: u32,
    pub(crate) isolated: bool,
    pub(crate) mtu: u32,
    /// Default routes over this endpoint.
    pub(crate) gateways: Vec<IpAddr>,
    /// `net.*` settings of the interface, its name filled in.
    pub(crate) sysctls: Vec<(String, String)>,
}

impl Networks {
    /// Gives a container its namespace, endpoints, names and ports. What an earlier start of it left is taken back
    /// first.
    pub fn attach(&self, request: &SandboxRequest) -> Result<Sandbox, Error> {
        self.attach_in(request, None)
    }

    /// The same in a namespace of the caller's, if one is given: new, with nothing set up in it.
    pub fn attach_in(&self, request: &SandboxRequest, namespace: Option<OwnedFd>) -> Result<Sandbox, Error> {
        let inner = &self.inner;
        self.detach(&request.container)?;
        let mut ready = match namespace {
            Some(namespace) => prepared::set_up(namespace)?,
            None => inner.prepared.take()?,
        };
        // A namespace without endpoints stays as it is; the pair goes.
        let only_loopback = request.endpoints.iter().all(|e| inner.is_none(&e.network));
        if only_loopback && let Some(pair) = ready.pair.take() {
            inner.reaper.remove_links(vec![pair.host_link]);
        }
        let first_link = ready.pair.as_ref().map(|pair| pair.host_link.clone());
        let resolution = match inner.reserve(request, first_link) {
            Ok(resolution) => resolution,
            Err(error) => {
                inner.prepared.put_back(ready);
                return Err(error);
            }
        };
        let result = inner.realise(request, ready, resolution);
        inner.reaper.refill();
        if result.is_err() {
            self.detach(&request.container)?;
        }
        result
    }

    /// Takes everything back that a container has on the host; does nothing when it has nothing. Its links go in the
    /// background.
    pub fn detach(&self, container: &Id) -> Result<(), Error> {
        let inner = &self.inner;
        let sandbox = {
            let _order = inner.order();
            let (sandbox, rules) = {
                let state = inner.state();
                let Some(sandbox) = state.sandboxes.get(container) else {
                    return Ok(());
                };
                (sandbox.clone(), state.port_rules(sandbox))
            };
            if let Some(firewall) = &inner.firewall {
                let removed: Vec<_> = rules.iter().map(ruleset::port_element).collect();
                firewall.change(&removed, &[], || inner.state().desired(Some(container)))?;
            }
            let mut state = inner.state();
            records::remove_sandbox(inner.store.db(), container)?;
            state.sandboxes.remove(container);
            state.ports.release(container);
            state.free_addresses(&sandbox.endpoints);
            sandbox
        };
        inner
            .reaper
            .remove_links(sandbox.endpoints.iter().map(|a| a.host_link.clone()).collect());
        inner.write_names(
            &sandbox
                .endpoints
                .iter()
                .map(|a| a.endpoint.network_id.clone())
                .collect(),
        )?;
        inner.write_container(container)
    }

    /// Gives an attached container another name.
    pub fn rename(&self, container: &Id, name: &str) -> Result<(), Error> {
        let inner = &self.inner;
        let networks: BTreeSet<Id> = {
            let mut state = inner.state();
            let Some(sandbox) = state.sandboxes.get(container) else {
                return Ok(());
            };
            let mut renamed = sandbox.clone();
            name.clone_into(&mut renamed.name);
            let SandboxRecord {
                hostname, endpoints, ..
            } = &mut renamed;
            for attached in endpoints.iter_mut().filter(|a| !a.endpoint.dns_names.is_empty()) {
                let endpoint = &mut attached.endpoint;
                endpoint.dns_names = names::of_endpoint(container, name, &endpoint.aliases, hostname);
            }
            records::put_sandbox(inner.store.db(), container, &renamed)?;
            let networks = renamed
                .endpoints
                .iter()
                .map(|a| a.endpoint.network_id.clone())
                .collect();
            state.sandboxes.insert(container.clone(), renamed);
            networks
        };
        inner.write_names(&networks)
    }
}

impl Inner {
    fn is_none(&self, network: &str) -> bool {
        self.state()
            .find(network)
            .is_ok_and(|n| n.network.driver == "null")
    }

    /// Chooses and records addresses and ports.
    fn reserve(&self, request: &SandboxRequest, first_link: Option<String>) -> Result<Resolution, Error> {
        let mut guard = self.state();
        let state = &mut *guard;
        let mut sandbox = SandboxRecord {
            name: request.name.clone(),
            hostname: request.hostname.clone(),
            endpoints: Vec::new(),
            ports: Vec::new(),
            dns: request.dns.clone(),
            resolver: false,
        };
        let mut first_link = first_link;
        let mut take = || -> Result<(), Error> {
            for wanted in &request.endpoints {
                if state.find(&wanted.network)?.network.driver == "null" {
                    if request.endpoints.len() > 1 {
                        let text = "container cannot be connected to multiple networks with one of the networks in none mode";
                        return Err(Error::Invalid(text.to_owned()));
                    }
                    continue;
                }
                let link = first_link.take().unwrap_or_else(prepared::host_link_name);
                let attached = state.reserve_endpoint(&request.container, &sandbox, wanted, link)?;
                sandbox.endpoints.push(attached);
            }
            if !request.ports.is_empty() {
                sandbox.ports = state.reserve_ports(
                    &request.container,
                    &sandbox,
                    &request.ports,
                    self.firewall.is_some(),
                )?;
            }
            Ok(())
        };
        let taken = take();
        let has_names = sandbox.endpoints.iter().any(|a| {
            state
                .networks
                .get(&a.endpoint.network_id)
                .is_some_and(NetworkState::has_names)
        });
        let mut resolution = resolv::resolve(Resolv::of_host(), &request.dns, has_names);
        // Without an interface there is nobody to ask.
        resolution.embedded &= !sandbox.endpoints.is_empty();
        sandbox.resolver = resolution.embedded;
        let recorded =
            taken.and_then(|()| records::put_sandbox(self.store.db(), &request.container, &sandbox));
        if let Err(error) = recorded {
            state.free_addresses(&sandbox.endpoints);
            state.ports.release(&request.container);
            return Err(error);
        }
        state.sandboxes.insert(request.container.clone(), sandbox);
        Ok(resolution)
    }

    fn realise(
        &self,
        request: &SandboxRequest,
        mut ready: Ready,
        resolution: Resolution,
    ) -> Result<Sandbox, Error> {
        let container = &request.container;
        let drivers: BTreeMap<&str, &EndpointRequest> = request
            .endpoints
            .iter()
            .map(|e| (e.network.as_str(), e))
            .collect();
        let wirings = self.state().wirings(container, &drivers)?;
        if !request.sysctls.is_empty() {
            set_sysctls(
                ready.namespace.as_fd(),
                request.sysctls.clone().into_iter().collect(),
            )?;
        }
        let mut pair = ready.pair.take();
        for wiring in &wirings {
            let Ready { namespace, route, .. } = &mut ready;
            self.wire(namespace.as_fd(), route, wiring, pair.take())?;
        }
        let endpoints: Vec<Endpoint> = wirings.into_iter().map(|w| w.endpoint).collect();

        let mut dns = None;
        if resolution.embedded {
            let (sockets, ports) = ready.resolver;
            firewall::redirect_resolver(&mut ready.netfilter, ports).map_err(Error::kernel(
                "lead the container's name queries to the embedded resolver",
            ))?;
            self.write_container(container)?;
            dns = Some(sockets);
        }
        self.write_names(&endpoints.iter().map(|e| e.network_id.clone()).collect())?;
        let ports = self.publish(container)?;
        let dns_config = dns.as_ref().map(|_| dns::Config {
            container: dns::table::path(&self.dns_dir, container.as_str()),
        });
        Ok(Sandbox {
            netns: ready.namespace,
            endpoints,
            ports,
            dns,
            dns_config,
            resolv_conf: resolution.text,
        })
    }

    /// Adds a container's ports to the firewall.
    fn publish(&self, container: &Id) -> Result<Vec<PublishedPort>, Error> {
        let _order = self.order();
        let (rules, ports) = {
            let state = self.state();
            let Some(sandbox) = state.sandboxes.get(container) else {
                return Ok(Vec::new());
            };
            (state.port_rules(sandbox), sandbox.ports.clone())
        };
        if let Some(firewall) = &self.firewall {
            let mut added: Vec<_> = rules.iter().map(ruleset::port_element).collect();
            added.sort_by_key(|element| element.set);
            firewall.change(&[], &added, || self.state().desired(None))?;
        }
        Ok(ports)
    }

    /// Makes one endpoint real: the pair, the bridge, the interface. `pair` is one that waits in the namespace.
    pub(crate) fn wire(
        &self,
        namespace: BorrowedFd<'_>,
        inside: &mut Socket,
        wiring: &Wiring,
        pair: Option<Pair>,
    ) -> Result<(), Error> {
        let endpoint = &wiring.endpoint;
        let alias = format!("{}:endpoint:{}", self.config.instance.tag, endpoint.endpoint_id);
        let end = HostEnd {
            name: &wiring.host_link,
            alias: &alias,
            bridge: Some(wiring.bridge),
            isolated: wiring.isolated,
            hairpin: host::bridged_traffic_is_filtered(),
            mtu: wiring.mtu,
        };
        let index = {
            let mut host = self.route();
            let waiting = match pair {
                Some(pair) => match link::enslave(&mut host, &end) {
                    Ok(()) => Some(pair.peer_index),
                    // Somebody removed it while it waited.
                    Err(failure) if failure.index == 0 && failure.errno == Errno::NODEV => None,
                    Err(failure) => {
                        return Err(Error::kernel(format!("attach {} to its bridge", end.name))(
                            failure,
                        ));
                    }
                },
                None => None,
            };
            match waiting {
                Some(index) => index,
                None => prepared::make_pair(&mut host, inside, namespace, &end, &endpoint.interface)?,
            }
        };
        let addresses: Vec<Prefix> = [
            endpoint
                .ipv4
                .and_then(|a| Prefix::new(a.into(), endpoint.ipv4_prefix)),
            endpoint
                .ipv6
                .and_then(|a| Prefix::new(a.into(), endpoint.ipv6_prefix)),
        ]
        .into_iter()
        .flatten()
        .collect();
        let interface = Interface {
            index,
            name: &endpoint.interface,
            mac: endpoint.mac,
            mtu: wiring.mtu,
            addresses: &addresses,
            gateways: &wiring.gateways,
        };
        link::configure(inside, &interface).map_err(Error::kernel(format!(
            "set up {} in network {}",
            endpoint.interface, endpoint.network_name
        )))?;
        if wiring.sysctls.is_empty() {
            Ok(())
        } else {
            set_sysctls(namespace, wiring.sysctls.clone())
        }
    }
}

impl State {
    /// Takes an endpoint's addresses and describes it. `sandbox` holds those taken before.
    pub(crate) fn reserve_endpoint(
        &mut self,
        container: &Id,
        sandbox: &SandboxRecord,
        wanted: &EndpointRequest,
        host_link: String,
    ) -> Result<Attached, Error> {
        let network_id = self.find(&wanted.network)?.network.id.clone();
        let missing = || Error::NotFound(wanted.network.clone());
        let found = self.networks.get_mut(&network_id).ok_or_else(missing)?;
        let (name, internal, has_names) = (
            found.network.name.clone(),
            found.network.internal,
            found.has_names(),
        );
        if sandbox
            .endpoints
            .iter()
            .any(|a| a.endpoint.network_id == network_id)
        {
            return Err(Error::AlreadyAttached {
                container: sandbox.name.clone(),
                network: name,
            });
        }
        let Some(bridge) = found.bridge_mut() else {
            let text =
                "cannot connect container to host network - container must be created in host network mode";
            return Err(Error::Invalid(text.to_owned()));
        };
        if bridge.settings.is_default && (wanted.ipv4.is_some() || wanted.ipv6.is_some()) {
            let text = "invalid config for network bridge: invalid endpoint settings:\n\
                        user specified IP address is supported on user defined networks only";
            return Err(Error::Invalid(text.to_owned()));
        }
        let interface = match wanted.driver_opts.get(INTERFACE_NAME) {
            Some(name) if is_interface_name(name) && name != "lo" => name.clone(),
            Some(name) => {
                return Err(Error::Invalid(format!(
                    "invalid value {name:?} for option {INTERFACE_NAME}"
                )));
            }
            None => free_interface_name(&bridge.settings.interface_prefix, sandbox),
        };
        if sandbox
            .endpoints
            .iter()
            .any(|a| a.endpoint.interface == interface)
        {
            return Err(Error::Invalid(format!(
                "interface name {interface} is used by another network of the container"
            )));
        }
        let (mut v4, mut v6): (Option<(Ipv4Addr, u8)>, Option<(Ipv6Addr, u8)>) = (None, None);
        let (mut gateway, mut ipv6_gateway) = (None, None);
        let mut taken: Vec<IpAddr> = Vec::new();
        let fixed = [wanted.ipv4.map(IpAddr::from), wanted.ipv6.map(IpAddr::from)];
        let chosen = (|| {
            for ipv4 in [true, false] {
                let subnets = || {
                    bridge
                        .subnets
                        .iter()
                        .enumerate()
                        .filter(|(_, s)| s.prefix.is_ipv4() == ipv4)
                };
                let wanted_address = fixed.iter().flatten().find(|a| a.is_ipv4() == ipv4).copied();
                if subnets().next().is_none() {
                    if let Some(address) = wanted_address {
                        let text = format!(
                            "invalid endpoint settings: no subnet of network {name} can hold {address}"
                        );
                        return Err(Error::Invalid(text));
                    }
                    continue;
                }
                let places: Vec<usize> = match wanted_address {
                    Some(address) => subnets()
                        .filter(|(_, s)| s.prefix.contains(address))
                        .map(|(at, _)| at)
                        .collect(),
                    None => subnets().map(|(at, _)| at).collect(),
                };
                let mut got = None;
                for place in &places {
                    let Some(subnet) = bridge.subnets.get_mut(*place) else {
                        continue;
                    };
                    let address = match wanted_address {
                        Some(address) => subnet.take_fixed(address).map(|()| Some(address))?,
                        None => subnet.take(),
                    };
                    if let Some(address) = address {
                        taken.push(address);
                        got = Some((address, subnet.prefix.length(), subnet.gateway));
                        break;
                    }
                }
                match (got, wanted_address) {
                    (Some((IpAddr::V4(address), length, way)), _) => {
                        v4 = Some((address, length));
                        gateway = way.and_then(|g| match g {
                            IpAddr::V4(g) => Some(g),
                            IpAddr::V6(_) => None,
                        });
                    }
                    (Some((IpAddr::V6(address), length, way)), _) => {
                        v6 = Some((address, length));
                        ipv6_gateway = way.and_then(|g| match g {
                            IpAddr::V6(g) => Some(g),
                            IpAddr::V4(_) => None,
                        });
                    }
                    (None, Some(address)) => {
                        return Err(Error::Invalid(format!(
                            "invalid config for network {name}: invalid endpoint settings:\n\
                             no configured subnet contains IP address {address}"
                        )));
                    }
                    (None, None) => {
                        return Err(Error::AddressesExhausted {
                            name: name.clone(),
                            id: network_id.to_string(),
                        });
                    }
                }
            }
            Ok(())
        })();
        if let Err(error) = chosen {
            for address in taken {
                bridge
                    .subnets
                    .iter_mut()
                    .filter(|s| s.prefix.contains(address))
                    .for_each(|s| s.free(address));
            }
            return Err(error);
        }
        let any = v4
            .map(|(a, _)| IpAddr::from(a))
            .or(v6.map(|(a, _)| IpAddr::from(a)));
        let mac = wanted.mac.or(any.map(Mac::of)).unwrap_or_else(Mac::random);
        let dns_names = match has_names {
            true => names::of_endpoint(container, &sandbox.name, &wanted.aliases, &sandbox.hostname),
            false => Vec::new(),
        };
        let endpoint = Endpoint {
            network_name: name,
            network_id,
            endpoint_id: Id::random(),
            interface,
            mac,
            ipv4: v4.map(|(a, _)| a),
            ipv4_prefix: v4.map_or(0, |(_, l)| l),
            gateway: gateway.filter(|_| !internal),
            ipv6: v6.map(|(a, _)| a),
            ipv6_prefix: v6.map_or(0, |(_, l)| l),
            ipv6_gateway: ipv6_gateway.filter(|_| !internal),
            aliases: wanted.aliases.clone(),
            dns_names,
            gw_priority: wanted.gw_priority,
        };
        Ok(Attached {
            endpoint,
            host_link,
            links: wanted.links.clone(),
        })
    }

    /// Takes host ports for a container whose endpoints are chosen. Without an endpoint that leads out there is
    /// nothing to publish, and nothing is, as in Docker.
    fn reserve_ports(
        &mut self,
        container: &Id,
        sandbox: &SandboxRecord,
        wanted: &[PortRequest],
        firewall: bool,
    ) -> Result<Vec<PublishedPort>, Error> {
        let gateway4 = self.gateway(sandbox, true).map(|a| &a.endpoint);
        let gateway6 = self.gateway(sandbox, false).map(|a| &a.endpoint);
        let Some(shown) = gateway4.or(gateway6) else {
            return Ok(Vec::new());
        };
        let refuse = |reason: String| Error::Publish {
            endpoint: sandbox.name.clone(),
            id: shown.endpoint_id.to_string(),
            reason,
        };
        if !firewall {
            return Err(refuse(
                "the daemon runs without firewall rules (iptables: false), so no port can be published"
                    .into(),
            ));
        }
        let default = self
            .networks
            .get(&shown.network_id)
            .and_then(|n| n.bridge()?.settings.host_binding);
        let mut published = Vec::new();
        // Fixed ports first: a random one must not take what is asked for by number further on.
        let mut order: Vec<&PortRequest> = wanted.iter().collect();
        order.sort_by_key(|p| p.host_port == crate::model::PortChoice::Any);
        for port in order {
            let everywhere = [
                gateway4.map(|_| Ipv4Addr::UNSPECIFIED.into()),
                gateway6.map(|_| Ipv6Addr::UNSPECIFIED.into()),
            ];
            let addresses: Vec<IpAddr> = match port.host_ip.or(default) {
                None => everywhere.into_iter().flatten().collect(),
                Some(address) => vec![address],
            };
            if addresses.iter().any(|a| a.is_ipv6() && a.is_loopback()) {
                return Err(refuse(
                    "a port cannot be published on ::1, since the kernel leads no connection from there to a container; \
                     publish on 127.0.0.1 or on another IPv6 address of the host"
                        .to_owned(),
                ));
            }
            for address in &addresses {
                if (address.is_ipv4() && gateway4.is_none()) || (address.is_ipv6() && gateway6.is_none()) {
                    let family = if address.is_ipv4() { "IPv4" } else { "IPv6" };
                    return Err(refuse(format!(
                        "cannot publish on {address}: the container has no {family} address; enable {family} on its network"
                    )));
                }
            }
            let taken = Ports::take(&mut self.ports, container, port.proto, &addresses, port.host_port);
            let host_port = match taken {
                Ok(host_port) => host_port,
                Err(refused) => {
                    let holder = refused.holder.and_then(|id| Some(&self.sandboxes.get(&id)?.name));
                    return Err(refuse(match holder {
                        Some(name) => format!("{} (container {name} publishes it)", refused.reason),
                        None => refused.reason,
                    }));
                }
            };
            published.extend(addresses.iter().map(|&host_ip| PublishedPort {
                container_port: port.container_port,
                proto: port.proto,
                host_ip,
                host_port,
            }));
        }
        Ok(published)
    }

    /// What the kernel is to be told of a recorded container. `requests` are by network as the client named it.
    pub(crate) fn wirings(
        &self,
        container: &Id,
        requests: &BTreeMap<&str, &EndpointRequest>,
    ) -> Result<Vec<Wiring>, Error> {
        let missing = || Error::NotFound(container.to_string());
        let sandbox = self.sandboxes.get(container).ok_or_else(missing)?;
        let ways_out = [self.gateway(sandbox, true), self.gateway(sandbox, false)]
            .map(|a| a.map(|a| &a.endpoint.endpoint_id));
        let mut wirings = Vec::new();
        for attached in &sandbox.endpoints {
            let endpoint = &attached.endpoint;
            let network = self
                .networks
                .get(&endpoint.network_id)
                .ok_or_else(|| Error::NotFound(endpoint.network_name.clone()))?;
            let Some(bridge) = network.bridge() else { continue };
            let own = Some(&endpoint.endpoint_id);
            let v4 = endpoint.gateway.filter(|_| ways_out[0] == own).map(IpAddr::from);
            let v6 = endpoint
                .ipv6_gateway
                .filter(|_| ways_out[1] == own)
                .map(IpAddr::from);
            let request = requests
                .iter()
                .find(|(name, _)| self.find(name).is_ok_and(|n| n.network.id == endpoint.network_id));
            let text = request.and_then(|(_, r)| r.driver_opts.get(INTERFACE_SYSCTLS));
            let mut sysctls = interface_sysctls(text.map_or("", String::as_str), &endpoint.interface)?;
            if endpoint.ipv6.is_some() {
                // Routers announced by a neighbour could take over the container's traffic (CVE-2020-13401).
                sysctls.insert(
                    0,
                    (
                        format!("net.ipv6.conf.{}.accept_ra", endpoint.interface),
                        "0".to_owned(),
                    ),
                );
            }
            wirings.push(Wiring {
                endpoint: endpoint.clone(),
                host_link: attached.host_link.clone(),
                bridge: bridge
                    .index
                    .ok_or_else(|| Error::NotFound(endpoint.network_name.clone()))?,
                isolated: !bridge.settings.icc,
                mtu: bridge.settings.mtu,
                gateways: v4.into_iter().chain(v6).collect(),
                sysctls,
            });
        }
        Ok(wirings)
    }
}

/// The first of `eth0`, `eth1`, … that no other endpoint has.
fn free_interface_name(prefix: &str, sandbox: &SandboxRecord) -> String {
    let taken: BTreeSet<&str> = sandbox
        .endpoints
        .iter()
        .map(|a| a.endpoint.interface.as_str())
        .collect();
    (0..)
        .map(|n| format!("{prefix}{n}"))
        .find(|name| !taken.contains(name.as_str()))
        .unwrap_or_else(|| prefix.to_owned())
}

/// `net.ipv4.conf.IFNAME.forwarding=1,…` with the name filled in.
fn interface_sysctls(text: &str, interface: &str) -> Result<Vec<(String, String)>, Error> {
    let wrong =
        |entry: &str| Error::Invalid(format!("invalid value {entry:?} for option {INTERFACE_SYSCTLS}"));
    text.split(',')
        .filter(|entry| !entry.is_empty())
        .map(|entry| {
            let (key, value) = entry.split_once('=').ok_or_else(|| wrong(entry))?;
            let parts: Vec<&str> = key.split('.').collect();
            match parts.as_slice() {
                [
                    "net",
                    family @ ("ipv4" | "ipv6" | "mpls"),
                    kind @ ("conf" | "neigh"),
                    "IFNAME",
                    name,
                ] => Ok((
                    format!("net.{family}.{kind}.{interface}.{name}"),
                    value.to_owned(),
                )),
                _ => Err(wrong(entry)),
            }
        })
        .collect()
}

/// Sets `net.*` settings in a namespace. Each name is checked to be one and to stay below /proc/sys/net.
fn set_sysctls(namespace: BorrowedFd<'_>, sysctls: Vec<(String, String)>) -> Result<(), Error> {
    let mut files = Vec::new();
    for (key, value) in sysctls {
        let plain = |part: &str| {
            !part.is_empty()
                && part
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
        };
        if !key.starts_with("net.") || !key.split('.').all(plain) {
            return Err(Error::Invalid(format!(
                "sysctl '{key}' is not a setting of a network namespace"
            )));
        }
        files.push((format!("/proc/sys/{}", key.replace('.', "/")), value));
    }
    let write = move || {
        for (path, value) in files {
            std::fs::write(&path, &value).map_err(Error::io(format!("set {path} to {value:?}")))?;
        }
        Ok(())
    };
    in_namespace(namespace, Kind::Network, write)
        .map_err(Error::io("enter the container's network namespace"))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interface_settings_are_checked() {
        let set = interface_sysctls(
            "net.ipv4.conf.IFNAME.log_martians=1,net.ipv6.conf.IFNAME.accept_ra=2",
            "eth1",
        )
        .unwrap();
        assert_eq!(
            set[0],
            ("net.ipv4.conf.eth1.log_martians".to_owned(), "1".to_owned())
        );
        assert_eq!(set.len(), 2);
        for wrong in [
            "kernel.x=1",
            "net.ipv4.conf.eth0.x=1",
            "net.ipv4.ip_forward=1",
            "net.ipv4.conf.IFNAME.x",
        ] {
            assert!(interface_sysctls(wrong, "eth0").is_err(), "{wrong}");
        }
    }
}
