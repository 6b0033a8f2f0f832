//! Giving a container its network, and taking it back.
//!
//! ```text
//! attach:  reserve (state, then database) ─> namespace ─> links, addresses, routes ─> names ─> ports
//! detach:  ports ─> database, state ─> names ─> links (in the background)
//! ```
//!
//! What fails on the way is undone by detaching, which takes back whatever was done, and nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use spec::Id;
use sys::netlink::Socket;

use crate::address::Prefix;
use crate::direct::Direct;
use crate::driver::Driver;
use crate::error::Error;
use crate::firewall;
use crate::host;
use crate::link::{self, HostEnd, Interface};
use crate::model::{Endpoint, EndpointRequest, Sandbox, SandboxRequest};
use crate::names;
use crate::prepared::{self, Pair, Ready};
use crate::records::{self, SandboxRecord};
use crate::resolv::{self, Resolution, Resolv};
use crate::state::{Inner, NetworkState, Networks, State};
use crate::sysctl::{INTERFACE_SYSCTLS, interface_sysctls, set_sysctls};

/// What one endpoint needs of the kernel, copied out of the state.
#[derive(Debug)]
pub(crate) struct Wiring {
    pub(crate) endpoint: Endpoint,
    pub(crate) host_link: String,
    pub(crate) place: Place,
    /// Default routes over this endpoint.
    pub(crate) gateways: Vec<IpAddr>,
    /// `net.*` settings of the interface, its name filled in.
    pub(crate) sysctls: Vec<(String, String)>,
}

/// Where the link into the container begins.
#[derive(Debug)]
pub(crate) enum Place {
    /// At a port of a bridge.
    Port { bridge: u32, isolated: bool, mtu: u32 },
    /// On a link of the host.
    On(Direct),
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
                firewall.change_ports(&rules, &[], || inner.state().desired(Some(container)))?;
            }
            let mut state = inner.state();
            records::remove_sandbox(inner.store.db(), container)?;
            state.sandboxes.remove(container);
            state.ports.release(container);
            state.free_addresses(&sandbox.endpoints);
            sandbox
        };
        let links = sandbox.endpoints.iter().map(|a| a.host_link.clone());
        // Links without an end on the host go with the container's namespace.
        inner
            .reaper
            .remove_links(links.filter(|link| !link.is_empty()).collect());
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
            serves: true,
            single_labels_stay: false,
        };
        let mut first_link = first_link;
        let mut take = || -> Result<(), Error> {
            for wanted in &request.endpoints {
                if state.joinable(&wanted.network)?.network.driver == "null" {
                    if request.endpoints.len() > 1 {
                        let text = "container cannot be connected to multiple networks with one of the networks in none mode";
                        return Err(Error::Invalid(text.to_owned()));
                    }
                    continue;
                }
                let link = match state.find(&wanted.network)?.bridge() {
                    Some(_) => first_link.take().unwrap_or_else(prepared::host_link_name),
                    None => String::new(),
                };
                let attached = state.reserve_endpoint(&request.container, &sandbox, wanted, link)?;
                sandbox.endpoints.push(attached);
            }
            if !request.ports.is_empty() {
                sandbox.ports =
                    state.reserve_ports(&request.container, &sandbox, &request.ports, &self.publishing())?;
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
        sandbox.single_labels_stay = resolution.single_labels_stay;
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
        // A waiting pair is the first bridge's; where there is none it goes, and its name inside is free.
        if let Some(unused) = pair.take_if(|pair| wirings.iter().all(|w| w.host_link != pair.host_link)) {
            link::remove(&mut self.route(), &[unused.host_link])
                .map_err(Error::kernel("remove a link that is not needed"))?;
        }
        for wiring in &wirings {
            let Ready { namespace, route, .. } = &mut ready;
            let waiting = pair.take_if(|pair| pair.host_link == wiring.host_link);
            self.wire(namespace.as_fd(), route, wiring, waiting)?;
        }
        let endpoints: Vec<Endpoint> = wirings.into_iter().map(|w| w.endpoint).collect();

        let mut dns = None;
        if resolution.embedded {
            let (sockets, ports) = ready.resolver;
            let mut netfilter = ready
                .netfilter
                .map_err(Error::io("open a netfilter socket in the container's namespace"))?;
            firewall::redirect_resolver(&mut netfilter, ports).map_err(Error::kernel(
                "lead the container's name queries to the embedded resolver",
            ))?;
            self.write_container(container)?;
            dns = Some(sockets);
        }
        self.write_names(&endpoints.iter().map(|e| e.network_id.clone()).collect())?;
        let ports = self.publish_recorded(container)?;
        let served = self.state().served(container).unwrap_or_default();
        let dns_config = dns.as_ref().map(|_| dns::Config {
            container: dns::table::path(&self.dns_dir, container.as_str()),
        });
        Ok(Sandbox {
            netns: ready.namespace,
            endpoints,
            ports,
            dns,
            dns_config,
            served,
            resolv_conf: resolution.text,
        })
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
        let (index, mac, mtu, without_gateway) = match &wiring.place {
            Place::Port {
                bridge,
                isolated,
                mtu,
            } => {
                let alias = format!("{}:endpoint:{}", self.config.instance.tag, endpoint.endpoint_id);
                let end = HostEnd {
                    name: &wiring.host_link,
                    alias: &alias,
                    bridge: Some(*bridge),
                    isolated: *isolated,
                    hairpin: host::bridged_traffic_is_filtered(),
                    mtu: *mtu,
                };
                let index = self.plug(namespace, inside, &end, &endpoint.interface, pair)?;
                (index, Some(endpoint.mac), Some(*mtu), false)
            }
            Place::On(direct) => {
                let name = &endpoint.interface;
                let mut host = self.route();
                let index = direct.link_into(&mut host, inside, namespace, name, endpoint.mac)?;
                let mac = direct.kind.has_own_mac().then_some(endpoint.mac);
                (index, mac, direct.mtu, direct.kind.routes_without_gateway())
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
            mac,
            mtu,
            addresses: &addresses,
            gateways: &wiring.gateways,
            without_gateway,
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

    /// Puts a pair into the container on its bridge and gives the index inside. `pair` is one that waits there.
    fn plug(
        &self,
        namespace: BorrowedFd<'_>,
        inside: &mut Socket,
        end: &HostEnd<'_>,
        interface: &str,
        pair: Option<Pair>,
    ) -> Result<u32, Error> {
        let mut host = self.route();
        if let Some(pair) = pair {
            match link::enslave(&mut host, end) {
                Ok(()) => return Ok(pair.peer_index),
                // Somebody removed it while it waited.
                Err(failure) if failure.index == 0 && failure.errno == Errno::NODEV => {}
                Err(failure) => {
                    return Err(Error::kernel(format!("attach {} to its bridge", end.name))(
                        failure,
                    ));
                }
            }
        }
        prepared::make_pair(&mut host, inside, namespace, end, interface)
    }
}

impl State {
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
            let place = match &network.driver {
                Driver::Bridge(bridge) => Place::Port {
                    bridge: bridge.index.ok_or_else(|| {
                        Error::Invalid(format!("network {} is not up", endpoint.network_name))
                    })?,
                    isolated: !bridge.settings.icc,
                    mtu: bridge.settings.mtu,
                },
                Driver::Direct(direct) => Place::On(direct.clone()),
                Driver::Host | Driver::None => continue,
            };
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
                place,
                gateways: v4.into_iter().chain(v6).collect(),
                sysctls,
            });
        }
        Ok(wirings)
    }
}
