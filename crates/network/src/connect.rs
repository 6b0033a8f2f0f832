//! Joining and leaving networks while the container runs. Its default route and its published ports follow the
//! endpoint that leads out, which may be another one afterwards.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::os::fd::BorrowedFd;

use spec::Id;
use sys::namespace::{Kind, in_namespace};
use sys::netlink::Socket;

use crate::driver::Driver;
use crate::error::Error;
use crate::firewall::PortRule;
use crate::link;
use crate::model::{Endpoint, EndpointRequest};
use crate::prepared;
use crate::records;
use crate::state::{Inner, Networks};

impl Networks {
    /// Attaches a running container, whose namespace is `netns`, to one more network.
    pub fn connect(
        &self,
        container: &Id,
        netns: BorrowedFd<'_>,
        request: &EndpointRequest,
    ) -> Result<Endpoint, Error> {
        let inner = &self.inner;
        let (endpoint_id, rules) = {
            let mut state = inner.state();
            let not_attached = || Error::NotAttached {
                container: container.to_string(),
                network: request.network.clone(),
            };
            let before = state.sandboxes.get(container).ok_or_else(not_attached)?.clone();
            if state.joinable(&request.network)?.network.driver == "null" {
                let text = "container cannot be connected to multiple networks with one of the networks in none mode";
                return Err(Error::Invalid(text.to_owned()));
            }
            let link = match state.find(&request.network)?.bridge() {
                Some(_) => prepared::host_link_name(),
                None => String::new(),
            };
            let attached = state.reserve_endpoint(container, &before, request, link)?;
            let rules = state.port_rules(&before);
            let mut after = before;
            after.endpoints.push(attached.clone());
            if let Err(error) = records::put_sandbox(inner.store.db(), container, &after) {
                state.free_addresses(&[attached]);
                return Err(error);
            }
            state.sandboxes.insert(container.clone(), after);
            (attached.endpoint.endpoint_id, rules)
        };
        let result = inner.join(container, netns, request, &endpoint_id, &rules);
        if result.is_err() {
            self.disconnect(container, &request.network, Some(netns), true)?;
        }
        result
    }

    /// Takes a container out of a network. `netns` is its namespace while it runs. With `force`, a container that is
    /// not there is fine.
    pub fn disconnect(
        &self,
        container: &Id,
        network: &str,
        netns: Option<BorrowedFd<'_>>,
        force: bool,
    ) -> Result<(), Error> {
        let inner = &self.inner;
        let (network_id, network_name) = {
            let state = inner.state();
            let found = state.find(network)?;
            (found.network.id.clone(), found.network.name.clone())
        };
        let (gone, rules) = {
            let mut state = inner.state();
            let before = state.sandboxes.get(container).cloned();
            let place = before.as_ref().and_then(|s| {
                s.endpoints
                    .iter()
                    .position(|a| a.endpoint.network_id == network_id)
            });
            let (Some(mut sandbox), Some(place)) = (before, place) else {
                if force {
                    return Ok(());
                }
                return Err(Error::NotAttached {
                    container: container.to_string(),
                    network: network_name,
                });
            };
            let rules = state.port_rules(&sandbox);
            let gone = sandbox.endpoints.remove(place);
            records::put_sandbox(inner.store.db(), container, &sandbox)?;
            state.sandboxes.insert(container.clone(), sandbox);
            (gone, rules)
        };
        inner.move_ports(container, &rules)?;
        match (gone.host_link.as_str(), netns) {
            // Its only end is inside.
            ("", Some(netns)) => {
                let name = &gone.endpoint.interface;
                link::remove(&mut route_inside(netns)?, std::slice::from_ref(name))
                    .map_err(Error::kernel(format!("remove the link {name} of the container")))?;
            }
            ("", None) => {}
            (name, _) => link::remove(&mut inner.route(), &[name.to_owned()])
                .map_err(Error::kernel(format!("remove the link {name}")))?,
        }
        inner.state().free_addresses(&[gone]);
        if let Some(netns) = netns {
            inner.restore_routes(container, netns)?;
        }
        inner.write_names(&BTreeSet::from([network_id]))?;
        inner.write_container(container)
    }

    /// Brings the endpoints of a running container and what its owner has recorded together, after a crash between the
    /// two: it leaves networks that are not `recorded`. Gives those recorded ones that it has left already.
    pub fn reconcile_container(
        &self,
        container: &Id,
        netns: BorrowedFd<'_>,
        recorded: &[String],
    ) -> Result<Vec<String>, Error> {
        let inner = &self.inner;
        let (unknown, left) = {
            let state = inner.state();
            let attached: BTreeSet<Id> = state
                .sandboxes
                .get(container)
                .into_iter()
                .flat_map(|sandbox| &sandbox.endpoints)
                .map(|attached| attached.endpoint.network_id.clone())
                .collect();
            // One that was removed by force is nobody's any more.
            let of = |name: &String| state.find(name).ok().map(|found| found.network.id.clone());
            let wanted: BTreeSet<Id> = recorded.iter().filter_map(of).collect();
            let unknown: Vec<Id> = attached.difference(&wanted).cloned().collect();
            let left = recorded
                .iter()
                .filter(|name| of(name).is_none_or(|id| !attached.contains(&id)));
            (unknown, left.cloned().collect::<Vec<String>>())
        };
        for network in &unknown {
            self.disconnect(container, network.as_str(), Some(netns), true)?;
        }
        if !left.is_empty() {
            inner.restore_routes(container, netns)?;
            inner.write_container(container)?;
        }
        Ok(left)
    }
}

impl Inner {
    fn join(
        &self,
        container: &Id,
        netns: BorrowedFd<'_>,
        request: &EndpointRequest,
        endpoint_id: &Id,
        rules: &[PortRule],
    ) -> Result<Endpoint, Error> {
        let requests = BTreeMap::from([(request.network.as_str(), request)]);
        let wirings = self.state().wirings(container, &requests)?;
        let missing = || Error::NotFound(request.network.clone());
        let wiring = wirings
            .iter()
            .find(|w| &w.endpoint.endpoint_id == endpoint_id)
            .ok_or_else(missing)?;
        let mut inside = route_inside(netns)?;
        self.wire(netns, &mut inside, wiring, None)?;
        self.write_names(&BTreeSet::from([wiring.endpoint.network_id.clone()]))?;
        self.write_container(container)?;
        self.move_ports(container, rules)?;
        Ok(wiring.endpoint.clone())
    }

    /// Sets the default routes of the endpoints that lead out now.
    fn restore_routes(&self, container: &Id, netns: BorrowedFd<'_>) -> Result<(), Error> {
        let ways: Vec<(String, IpAddr, bool)> = {
            let state = self.state();
            let Some(sandbox) = state.sandboxes.get(container) else {
                return Ok(());
            };
            let v4 = state
                .gateway(sandbox, true)
                .and_then(|a| Some((a, IpAddr::from(a.endpoint.gateway?))));
            let v6 = state
                .gateway(sandbox, false)
                .and_then(|a| Some((a, IpAddr::from(a.endpoint.ipv6_gateway?))));
            v4.into_iter()
                .chain(v6)
                .map(|(a, gateway)| {
                    let network = state.networks.get(&a.endpoint.network_id);
                    let without = network.is_some_and(|n| match &n.driver {
                        Driver::Direct(direct) => direct.kind.routes_without_gateway(),
                        Driver::Bridge(_) | Driver::Host | Driver::None => false,
                    });
                    (a.endpoint.interface.clone(), gateway, !without)
                })
                .collect()
        };
        let mut inside = route_inside(netns)?;
        for (interface, gateway, through) in ways {
            let action = || format!("set the default route over {interface}");
            // An interface that the container itself removed takes its route with it.
            let Some(link) = link::find(&mut inside, &interface).map_err(Error::kernel(action()))? else {
                continue;
            };
            link::set_default_route(&mut inside, link.index, gateway, through)
                .map_err(Error::kernel(action()))?;
        }
        Ok(())
    }
}

/// A route socket of a container's namespace.
pub(crate) fn route_inside(netns: BorrowedFd<'_>) -> Result<Socket, Error> {
    in_namespace(netns, Kind::Network, Socket::route)
        .and_then(|socket| socket)
        .map_err(Error::io(
            "open a route socket in the container's network namespace",
        ))
}
