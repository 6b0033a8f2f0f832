//! Publishing ports: which host ports a container gets, and leading them to it, also while it runs.
//!
//! Ports that lie side by side outside and inside are one [`PublishedPort`], one row of the database and, where they
//! have the same numbers outside and inside, one element of the firewall, however many they are.
//!
//! A port is recorded before it leads anywhere and leads nowhere any more before it is forgotten; both under `order`. Where the
//! kernel refuses a change, the record says again what it said before: what led before still leads.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use spec::Id;

use crate::error::Error;
use crate::firewall::PortRule;
use crate::host;
use crate::model::{PortChoice, PortRequest, Proto, PublishedPort, Served, may_be_served};
use crate::port::{Key, MOST_HELD, Wanted};
use crate::records::{self, SandboxRecord};
use crate::state::{Inner, Networks, State};

/// What the daemon says about publishing.
#[derive(Debug, Clone)]
pub(crate) struct Publishing {
    /// Whether there are rules at all.
    pub(crate) firewall: bool,
    /// Where ports listen when neither the request nor the network says.
    pub(crate) address: Option<IpAddr>,
    /// Whether programs of this host can be reached over IPv6.
    pub(crate) ipv6: bool,
    /// Ports that the container's monitor has, though it is to have them no longer.
    pub(crate) served: BTreeSet<Key>,
}

impl Networks {
    /// What is published of a container.
    pub fn published(&self, container: &Id) -> Vec<PublishedPort> {
        let state = self.inner.state();
        let sandbox = state.sandboxes.get(container);
        sandbox.map(|sandbox| sandbox.ports.clone()).unwrap_or_default()
    }

    /// Publishes more ports of an attached container, and takes others back: those of `remove` that fit in everything
    /// they say. Connections through ports that stay are not touched. Gives what is published then.
    pub fn publish(
        &self,
        container: &Id,
        add: &[PortRequest],
        remove: &[PortRequest],
    ) -> Result<Vec<PublishedPort>, Error> {
        let inner = &self.inner;
        let (before, rules) = {
            let mut guard = inner.state();
            let state = &mut *guard;
            let Some(sandbox) = state.sandboxes.get(container).cloned() else {
                return Err(Error::NotFound(format!("of container {container}")));
            };
            let rules = state.port_rules(&sandbox);
            let mut changed = sandbox.clone();
            let kept = without(&sandbox.ports, remove)?;
            changed.ports.clone_from(&kept);
            // Those that go are free for those that come.
            let publishing = Publishing {
                served: state.ports.keep_only(container, &kept),
                ..inner.publishing()
            };
            let taken = state
                .reserve_ports(container, &changed, add, &publishing)
                .and_then(|more| {
                    changed.ports.extend(more);
                    records::put_sandbox(inner.store.db(), container, &changed)
                });
            if let Err(error) = taken {
                state.have_ports(container, sandbox);
                return Err(error);
            }
            state.sandboxes.insert(container.clone(), changed);
            (sandbox.ports, rules)
        };
        inner.move_or_take_back(container, before, &rules)?;
        Ok(self.published(container))
    }

    /// Publishes again exactly what was published before some of it was taken back, if nobody has that by now.
    pub fn publish_again(&self, container: &Id, before: &[PublishedPort]) -> Result<(), Error> {
        let inner = &self.inner;
        let (present, rules) = {
            let mut guard = inner.state();
            let state = &mut *guard;
            let Some(sandbox) = state.sandboxes.get(container).cloned() else {
                return Err(Error::NotFound(format!("of container {container}")));
            };
            let rules = state.port_rules(&sandbox);
            let changed = SandboxRecord {
                ports: before.to_vec(),
                ..sandbox.clone()
            };
            // The database refuses what another container has taken meanwhile.
            records::put_sandbox(inner.store.db(), container, &changed)?;
            state.have_ports(container, changed);
            (sandbox.ports, rules)
        };
        inner.move_or_take_back(container, present, &rules)
    }

    /// Whether `add` asks for numbers that `remove` takes back and the container's monitor has until it is told. Unless
    /// they stay at the same address they can be had only then.
    pub fn waits_for_monitor(&self, container: &Id, add: &[PortRequest], remove: &[PortRequest]) -> bool {
        let state = self.inner.state();
        let Some(sandbox) = state.sandboxes.get(container).filter(|sandbox| sandbox.serves) else {
            return false;
        };
        let wants = |proto: Proto, number: u16| {
            add.iter().any(|request| {
                request.proto == proto
                    && match request.host_port {
                        PortChoice::Any => false,
                        PortChoice::Fixed(wanted) => wanted == number,
                        PortChoice::Range(first, last) => (first..=last).contains(&number),
                    }
            })
        };
        let served = sandbox.ports.iter().filter(|port| port.is_served());
        served
            .flat_map(PublishedPort::singles)
            .filter(|port| remove.iter().any(|request| fits(port, request)))
            .any(|port| wants(port.proto, port.host_port))
    }

    /// The published ports that a container's monitor is to serve by now. None where it is of a release that cannot.
    pub fn served(&self, container: &Id) -> Option<Served> {
        self.inner.state().served(container)
    }

    /// Keeps ports from others that a monitor was to get and did not take.
    pub fn hold(&self, container: &Id) {
        self.inner.state().ports.hold(container);
    }
}

impl Inner {
    pub(crate) fn publishing(&self) -> Publishing {
        Publishing {
            firewall: self.firewall.is_some(),
            address: self.config.publish_address,
            ipv6: host::has_ipv6(),
            served: BTreeSet::new(),
        }
    }

    /// Leads a container's recorded ports to it.
    pub(crate) fn publish_recorded(&self, container: &Id) -> Result<Vec<PublishedPort>, Error> {
        self.move_ports(container, &[])?;
        let state = self.state();
        let ports = state
            .sandboxes
            .get(container)
            .map(|sandbox| sandbox.ports.clone());
        Ok(ports.unwrap_or_default())
    }

    /// Leads a container's published ports to where they are recorded to lead now. Where that is refused, `before` is recorded
    /// again, whose `rules` are in force.
    fn move_or_take_back(
        &self,
        container: &Id,
        before: Vec<PublishedPort>,
        rules: &[PortRule],
    ) -> Result<(), Error> {
        let Err(error) = self.move_ports(container, rules) else {
            return Ok(());
        };
        let mut guard = self.state();
        let state = &mut *guard;
        // One that is gone has no ports.
        if let Some(sandbox) = state.sandboxes.get(container).cloned() {
            let again = SandboxRecord {
                ports: before,
                ..sandbox
            };
            if let Err(failure) = records::put_sandbox(self.store.db(), container, &again) {
                tracing::error!(
                    %container,
                    %failure,
                    "ports that could not be published are recorded as if they were, and lead there from the daemon's next start on"
                );
            }
            state.have_ports(container, again);
        }
        Err(error)
    }

    /// Leads a container's published ports to where they lead now; `before` is where they led.
    pub(crate) fn move_ports(&self, container: &Id, before: &[PortRule]) -> Result<(), Error> {
        let Some(firewall) = &self.firewall else {
            return Ok(());
        };
        let _order = self.order();
        let after = {
            let state = self.state();
            let sandbox = state.sandboxes.get(container);
            sandbox.map(|s| state.port_rules(s)).unwrap_or_default()
        };
        if before == after {
            return Ok(());
        }
        firewall.change_ports(before, &after, || self.state().desired(None))
    }
}

impl State {
    /// A container has these ports, and no others.
    fn have_ports(&mut self, container: &Id, sandbox: SandboxRecord) {
        self.ports.keep_only(container, &sandbox.ports);
        for port in &sandbox.ports {
            self.ports.adopt(container, port);
        }
        self.sandboxes.insert(container.clone(), sandbox);
    }

    /// Takes host ports for a container whose endpoints are chosen. Without an endpoint that leads out there is
    /// nothing to publish, and nothing is, as in Docker.
    pub(crate) fn reserve_ports(
        &mut self,
        container: &Id,
        sandbox: &SandboxRecord,
        wanted: &[PortRequest],
        publishing: &Publishing,
    ) -> Result<Vec<PublishedPort>, Error> {
        let (way4, way6) = (self.way_in(sandbox, true), self.way_in(sandbox, false));
        let routed4 = way4.is_some_and(|way| self.is_routed(way, true));
        let routed6 = way6.is_some_and(|way| self.is_routed(way, false));
        let gateway4 = way4.map(|a| &a.endpoint);
        let gateway6 = way6.map(|a| &a.endpoint);
        let Some(shown) = gateway4.or(gateway6) else {
            return Ok(Vec::new());
        };
        let refuse = |reason: String| Error::Publish {
            endpoint: sandbox.name.clone(),
            id: shown.endpoint_id.to_string(),
            reason,
        };
        if !publishing.firewall {
            return Err(refuse(
                "the daemon runs without firewall rules (iptables: false), so no port can be published"
                    .into(),
            ));
        }
        // What comes over IPv6 for a container that knows IPv4 alone is handed on by its monitor.
        let served = |port: &Run| {
            sandbox.serves && may_be_served(port.proto, port.count) && gateway4.is_some() && !routed4
        };
        let default = self
            .networks
            .get(&shown.network_id)
            .and_then(|n| n.bridge()?.settings.host_binding)
            .or(publishing.address);
        let mut published = Vec::new();
        // Fixed ports first: a random one must not take what is asked for by number further on.
        let mut runs = runs(wanted);
        runs.sort_by_key(|run| run.host_port == PortChoice::Any);
        for port in &runs {
            let everywhere = [
                gateway4.map(|_| Ipv4Addr::UNSPECIFIED.into()),
                (gateway6.is_some() || (publishing.ipv6 && served(port)))
                    .then_some(Ipv6Addr::UNSPECIFIED.into()),
            ];
            let wanted: Vec<IpAddr> = match port.host_ip.or(default) {
                None => everywhere.into_iter().flatten().collect(),
                Some(address) => vec![address],
            };
            // Where nothing is translated there is no address of the host to listen on.
            let (routed, addresses): (Vec<IpAddr>, Vec<IpAddr>) =
                wanted.into_iter().partition(|address| match address.is_ipv4() {
                    true => routed4,
                    false => routed6,
                });
            for address in routed.iter().filter(|address| !address.is_unspecified()) {
                let follows = match address.is_loopback() {
                    true => {
                        "the port is not opened: it is meant for the host alone, which reaches the container at its own address"
                    }
                    false => "the address is ignored",
                };
                tracing::warn!(
                    container = sandbox.name,
                    port = %format_args!("{}/{}", port.container_port, port.proto),
                    %address,
                    "a port is published on an address of the host, and the container's network is routed: {follows}"
                );
            }
            published.extend(routed.iter().map(|address| PublishedPort {
                container_port: port.container_port,
                proto: port.proto,
                host_ip: match address {
                    address if address.is_loopback() => *address,
                    IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
                    IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
                },
                host_port: match port.host_port {
                    PortChoice::Fixed(number) => number,
                    PortChoice::Any | PortChoice::Range(..) => 0,
                },
                count: port.count,
                routed: true,
            }));
            if addresses.is_empty() {
                continue;
            }
            let is_servable = sandbox.serves && may_be_served(port.proto, port.count);
            if addresses.iter().any(|a| a.is_ipv6() && a.is_loopback()) && !is_servable {
                return Err(refuse(format!(
                    "a port cannot be published on ::1 like that: the kernel leads nothing from there to a container, and \
                     its monitor hands on TCP and UDP, of up to {MOST_HELD} ports side by side; publish on 127.0.0.1 or on \
                     another IPv6 address of the host",
                )));
            }
            for address in &addresses {
                let without6 = address.is_ipv6() && gateway6.is_none() && !served(port);
                if (address.is_ipv4() && gateway4.is_none()) || without6 {
                    let family = if address.is_ipv4() { "IPv4" } else { "IPv6" };
                    return Err(refuse(format!(
                        "cannot publish on {address}: the container has no {family} address; enable {family} on its network"
                    )));
                }
            }
            let taken = self.ports.take(
                container,
                &Wanted {
                    proto: port.proto,
                    addresses: &addresses,
                    choice: port.host_port,
                    count: port.count,
                    served: &publishing.served,
                },
            );
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
                count: port.count,
                routed: false,
            }));
        }
        Ok(published)
    }
}

/// Requests for ports side by side, as one.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Run {
    container_port: u16,
    proto: Proto,
    host_ip: Option<IpAddr>,
    host_port: PortChoice,
    count: u16,
}

/// Brings requests for fixed ports together that differ by one outside and inside.
fn runs(wanted: &[PortRequest]) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for request in wanted {
        let next = |run: &&mut Run| {
            let follows = |first: u16, port: u16| first.checked_add(run.count) == Some(port);
            let outside = match (run.host_port, request.host_port) {
                (PortChoice::Fixed(first), PortChoice::Fixed(port)) => follows(first, port),
                _ => false,
            };
            outside
                && follows(run.container_port, request.container_port)
                && (run.proto, run.host_ip) == (request.proto, request.host_ip)
        };
        // The last few are enough: a range with several addresses comes as that many runs in turn.
        match runs.iter_mut().rev().take(8).find(next) {
            Some(run) => run.count += 1,
            None => runs.push(Run {
                container_port: request.container_port,
                proto: request.proto,
                host_ip: request.host_ip,
                host_port: request.host_port,
                count: 1,
            }),
        }
    }
    runs
}

/// Whether a port, which is one alone, is what a request to take one back means.
fn fits(port: &PublishedPort, request: &PortRequest) -> bool {
    let host_port = match request.host_port {
        PortChoice::Any => true,
        PortChoice::Fixed(number) => number == port.host_port,
        // Where there is no port of the host, none was chosen from the range.
        PortChoice::Range(first, last) => {
            (first..=last).contains(&port.host_port) || (port.routed && port.host_port == 0)
        }
    };
    port.proto == request.proto
        && port.container_port == request.container_port
        && host_port
        // Of addresses of the host only these are kept where they mean nothing.
        && request.host_ip.is_none_or(|address| match port.routed && !port.host_ip.is_loopback() {
            true => address.is_ipv4() == port.host_ip.is_ipv4() && !address.is_loopback(),
            false => address == port.host_ip,
        })
}

/// What is left of published ports; a request that fits none of them is refused.
fn without(ports: &[PublishedPort], remove: &[PortRequest]) -> Result<Vec<PublishedPort>, Error> {
    // By what each has in any case, so that a long range is not looked through for each of its ports; and whether there
    // is something that it fits.
    let mut requests: BTreeMap<(Proto, u16), Vec<(&PortRequest, bool)>> = BTreeMap::new();
    for request in remove {
        let inside = requests.entry((request.proto, request.container_port));
        inside.or_default().push((request, false));
    }
    let mut left: Vec<PublishedPort> = Vec::new();
    for port in ports {
        // Rows that were published apart stay so: whether the monitor serves one depends on its length.
        let begin = left.len();
        for single in port.singles() {
            let mut goes = false;
            let asked = requests.get_mut(&(single.proto, single.container_port));
            for (request, found) in asked.into_iter().flatten() {
                if fits(&single, request) {
                    (*found, goes) = (true, true);
                }
            }
            if goes {
                continue;
            }
            let run = left.get_mut(begin..).and_then(<[_]>::last_mut);
            match run.filter(|run| run.is_followed_by(&single)) {
                Some(run) => run.count += 1,
                None => left.push(single),
            }
        }
    }
    let mut all = requests.values().flatten();
    match all.find(|(_, found)| !found) {
        Some((request, _)) => Err(Error::Invalid(format!(
            "port {}/{} is not published like that",
            request.container_port, request.proto
        ))),
        None => Ok(left),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fixed(host_ip: Option<&str>, host_port: u16, container_port: u16) -> PortRequest {
        PortRequest {
            container_port,
            proto: Proto::Tcp,
            host_ip: host_ip.map(|text| text.parse().unwrap()),
            host_port: PortChoice::Fixed(host_port),
        }
    }

    #[test]
    fn what_was_published_apart_stays_apart() {
        let row = |first: u16| PublishedPort {
            container_port: first,
            proto: Proto::Tcp,
            host_ip: "::".parse().unwrap(),
            host_port: first,
            count: 40,
            routed: false,
        };
        let rows = [row(8000), row(8040)];
        assert_eq!(without(&rows, &[]).unwrap(), rows);
        let left = without(&rows, &[fixed(None, 8010, 8010)]).unwrap();
        assert_eq!(left.iter().map(|row| row.count).collect::<Vec<_>>(), [10, 29, 40]);
    }

    #[test]
    fn neighbours_become_one() {
        let mut wanted = Vec::new();
        for port in 0..100 {
            wanted.push(fixed(Some("127.0.0.1"), 8000 + port, 9000 + port));
            wanted.push(fixed(Some("::2"), 8000 + port, 9000 + port));
        }
        wanted.push(fixed(None, 8000, 1));
        wanted.push(fixed(None, 8001, 3));
        let counts: Vec<u16> = runs(&wanted).iter().map(|run| run.count).collect();
        assert_eq!(counts, [100, 100, 1, 1]);
        // The last port has no neighbour.
        let edge = [fixed(None, 65535, 65535), fixed(None, 1, 1)];
        assert_eq!(runs(&edge).len(), 2);
    }

    #[test]
    fn a_hole_divides_a_range() {
        let range = PublishedPort {
            container_port: 100,
            proto: Proto::Tcp,
            host_ip: Ipv4Addr::UNSPECIFIED.into(),
            host_port: 100,
            count: 10,
            routed: false,
        };
        let left = without(std::slice::from_ref(&range), &[fixed(None, 104, 104)]).unwrap();
        let shape: Vec<_> = left.iter().map(|port| (port.host_port, port.count)).collect();
        assert_eq!(shape, [(100, 4), (105, 5)]);
        let refused = without(&[range], &[fixed(None, 104, 103)]).unwrap_err();
        assert!(refused.to_string().contains("103/tcp"), "{refused}");
    }

    #[test]
    fn one_of_two_bindings_goes_where_nothing_is_translated() {
        let binding = |host_port| PublishedPort {
            container_port: 80,
            proto: Proto::Tcp,
            host_ip: Ipv4Addr::UNSPECIFIED.into(),
            host_port,
            count: 1,
            routed: true,
        };
        let both = [binding(8080), binding(8081)];
        let left = without(&both, &[fixed(None, 8080, 80)]).unwrap();
        assert_eq!(left, [binding(8081)]);
        let any = PortRequest {
            host_port: PortChoice::Any,
            ..fixed(None, 0, 80)
        };
        assert_eq!(without(&both, std::slice::from_ref(&any)).unwrap(), []);
        assert!(without(&both, &[fixed(None, 9999, 80)]).is_err());
        // Where any was asked for, a range of them is still one row.
        let many = PublishedPort {
            count: 3,
            ..binding(0)
        };
        let at81 = PortRequest {
            container_port: 81,
            ..any
        };
        let shape: Vec<_> = without(&[many], &[at81]).unwrap();
        let shape: Vec<_> = shape
            .iter()
            .map(|port| (port.container_port, port.count))
            .collect();
        assert_eq!(shape, [(80, 1), (82, 1)]);
    }
}
