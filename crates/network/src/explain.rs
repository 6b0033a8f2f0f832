//! Who can reach a published port, and which rules say so: read from the records, the host's addresses, and, without
//! touching them, the filters of others that have a say.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use spec::Id;

use crate::error::Error;
use crate::firewall::{PortRule, Way, ports};
use crate::link;
use crate::model::PublishedPort;
use crate::state::Networks;

/// One published port (or range of them), explained.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explained {
    /// What is published.
    pub port: PublishedPort,
    /// The network it leads through.
    pub network: String,
    /// Where it leads.
    pub target: SocketAddr,
    /// Addresses of the host it answers on, loopback left out.
    pub addresses: Vec<IpAddr>,
    /// Who reaches it, one sentence each.
    pub from: Vec<String>,
    /// The rules that lead and admit packets, as `nft list` shows them.
    pub rules: Vec<String>,
    /// What else one should know.
    pub notes: Vec<String>,
}

impl Networks {
    /// Explains every published port of an attached container.
    pub fn explain(&self, container: &Id) -> Result<Vec<Explained>, Error> {
        let inner = &self.inner;
        let addresses =
            link::addresses(&mut inner.route()).map_err(Error::kernel("read the host's addresses"))?;
        let filters = match &inner.firewall {
            Some(firewall) => firewall.foreign_filters()?,
            None => Vec::new(),
        };
        let state = inner.state();
        let Some(sandbox) = state.sandboxes.get(container) else {
            return Ok(Vec::new());
        };
        let bridges: Vec<u32> = state
            .networks
            .values()
            .filter_map(|network| network.bridge()?.index)
            .collect();
        // The gateways of our networks are addresses of the host, too, but of containers' concern alone.
        let of_host: Vec<IpAddr> = addresses
            .iter()
            .filter(|(address, index)| !address.is_loopback() && !bridges.contains(index))
            .map(|(address, _)| *address)
            .collect();
        let tag = &inner.config.instance.tag;
        let all = state.port_rules(sandbox);
        let explained = all.iter().filter_map(|&rule| {
            let besides = |way: Way| all.iter().any(|other| other.way == way && other.is_at(&rule));
            // A port that the monitor serves may lead into the other family.
            let family = if rule.way == Way::Served { rule.target.ip() } else { rule.host_ip };
            let leads = state.way_in(sandbox, family.is_ipv4())?;
            match rule.way {
                Way::Open => return Some(routed(tag, &rule, &leads.endpoint.network_name, &filters)),
                // Told with the port it is besides.
                Way::Trusted => return None,
                Way::Served if besides(Way::Translated) => return None,
                Way::Translated | Way::Served => {}
            }
            let port = sandbox.ports.iter().find(|port| {
                (port.proto, port.host_ip, port.host_port) == (rule.proto, rule.host_ip, rule.host_port)
            })?;
            let answers: Vec<IpAddr> = of_host
                .iter()
                .filter(|address| {
                    address.is_ipv4() == rule.host_ip.is_ipv4()
                        && (rule.host_ip.is_unspecified() || rule.host_ip == **address)
                })
                .copied()
                .collect();
            let (from, rules, notes) = if rule.way == Way::Served {
                served(tag, &rule)
            } else {
                let mut notes = Vec::new();
                if state.gate.is_some() && !rule.host_ip.is_loopback() {
                    notes.push(
                        "the host's own input rules decide about other machines first (firewall: respect-host)".to_owned(),
                    );
                } else if rule.host_ip.is_unspecified() {
                    notes.push(format!(
                        "open to every machine that reaches this host, past rules for its own input; narrow it with \
                         -p 127.0.0.1:{}:{} or default-publish-address",
                        rule.host_port,
                        rule.target.port()
                    ));
                }
                if !rule.host_ip.is_loopback() {
                    notes.extend(filters.iter().map(also));
                }
                let (mut from, mut rules) = (from(&rule, besides(Way::Served)), rules(tag, &rule));
                if let Some(direct) = all.iter().find(|other| other.is_trusted_way_of(&rule)) {
                    let interfaces = state.trusts(leads, rule.host_ip.is_ipv4()).join(", ");
                    let address = rule.target.ip();
                    from.push(format!(
                        "machines that route to {address} and whose packets come in by {interfaces}, at that address"
                    ));
                    let (set, element) = ports::shown(direct);
                    rules.push(format!(
                        "inet {tag}, chain forward: set trusted, set {set} {{ {element} }}: accept"
                    ));
                }
                (from, rules, notes)
            };
            Some(Explained {
                port: port.clone(),
                network: leads.endpoint.network_name.clone(),
                target: rule.target,
                addresses: answers,
                from,
                rules,
                notes,
            })
        });
        Ok(explained.collect())
    }
}

/// A port that the container's monitor serves: who reaches it, which rules have a say, and what one should know.
fn served(tag: &str, rule: &PortRule) -> (Vec<String>, Vec<String>, Vec<String>) {
    let address = rule.host_ip;
    let from = match (address.is_loopback(), address.is_unspecified()) {
        (true, _) => vec![format!("this host alone, at {address}")],
        (_, unspecified) => {
            let (reached, own) = match unspecified {
                true => (
                    "an IPv6 address of this host".to_owned(),
                    "any of its IPv6 addresses and at ::1".to_owned(),
                ),
                false => (address.to_string(), address.to_string()),
            };
            vec![
                format!("every machine that reaches {reached}, as far as the host's own input rules let it in"),
                format!("this host, at {own}"),
                "containers of every network with IPv6 that is not internal, as far as those rules let them in".to_owned(),
            ]
        }
    };
    let (set, element) = ports::shown(rule);
    let rules = vec![format!(
        "inet {tag}, chain raw: drop from internal networks, set {set} {{ {element} }}"
    )];
    let mut notes = vec![
        "the container's monitor listens there and hands on: the container sees the host's address on its network, not the \
         client's"
            .to_owned(),
    ];
    if rule.target.is_ipv4() {
        notes.push("on a network with IPv6 (network create --ipv6) it sees the client's own".to_owned());
    }
    (from, rules, notes)
}

/// A port that is open at the container's own address.
fn routed(tag: &str, rule: &PortRule, network: &str, filters: &[String]) -> Explained {
    let address = rule.target.ip();
    let (set, element) = ports::shown(rule);
    let mut notes = vec![format!(
        "machines need a route to {address} through this host; there is no port of the host that leads there"
    )];
    notes.extend(filters.iter().map(also));
    Explained {
        port: PublishedPort {
            container_port: rule.target.port(),
            proto: rule.proto,
            host_ip: match address.is_ipv4() {
                true => Ipv4Addr::UNSPECIFIED.into(),
                false => Ipv6Addr::UNSPECIFIED.into(),
            },
            host_port: 0,
            count: rule.count,
            routed: true,
        },
        network: network.to_owned(),
        target: rule.target,
        addresses: vec![address],
        from: vec![
            format!("every machine that routes to {address}"),
            "this host".to_owned(),
            "containers of every network that is not internal".to_owned(),
        ],
        rules: vec![format!(
            "inet {tag}, chain forward: to a bridge, set {set} {{ {element} }}: accept"
        )],
        notes,
    }
}

fn also(filter: &String) -> String {
    format!("{filter} drops what its rules do not accept, and has its say too")
}

fn from(rule: &PortRule, served: bool) -> Vec<String> {
    let address = rule.host_ip;
    let containers = "containers of every network that is not internal";
    if address.is_loopback() {
        return vec![format!("this host alone, at {address}")];
    }
    let loopback = match address.is_ipv4() {
        true => "this host, at any of its addresses and at 127.0.0.1",
        false if served => {
            "this host, at any of its addresses, and at ::1, where the container's monitor hands on and the container sees \
             the host's address"
        }
        false => "this host, at any of its addresses but ::1",
    };
    if address.is_unspecified() {
        let machines = "every machine that reaches an address of this host";
        [machines, loopback, containers].map(str::to_owned).to_vec()
    } else {
        vec![
            format!("every machine that reaches {address}"),
            format!("this host, at {address}"),
            containers.to_owned(),
        ]
    }
}

fn rules(tag: &str, rule: &PortRule) -> Vec<String> {
    let (map, element) = ports::shown(rule);
    vec![
        format!("inet {tag}, chain publish: map {map} {{ {element} }}"),
        format!("inet {tag}, chain forward: to a bridge, destination was rewritten: accept"),
    ]
}
