//! The words of the room: what callers ask for and what they get back. Plain data, no behaviour that touches the
//! machine. Names follow the Docker Engine API where it has them.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use spec::{Id, Instance};

use crate::address::{Mac, Prefix};
use crate::error::Error;
use crate::ipam::AddressPool;
use crate::port;

/// How a daemon's networks are set up.
#[derive(Debug, Clone)]
pub struct NetworkConfig {
    /// Names on the host are derived from it.
    pub instance: Instance,
    /// Where the resolver's name tables lie (`<run_dir>/dns`); gone at reboot.
    pub run_dir: PathBuf,
    /// The network called `bridge`; `None` takes all its defaults.
    pub default_bridge: Option<DefaultBridge>,
    /// Where subnets come from when a network names none; empty takes Docker's pools.
    pub address_pools: Vec<AddressPool>,
    /// Where published ports listen when neither the request nor the network says; every address by default.
    pub publish_address: Option<IpAddr>,
    /// Whether other machines reach published ports only past the host's own input rules.
    pub respect_host: bool,
    /// Whether rules are written at all. Without them no port can be published and nothing is masqueraded.
    pub firewall: bool,
    /// How many network namespaces are kept ready; 0 makes each when it is needed.
    pub prepared: usize,
}

impl NetworkConfig {
    /// The defaults: Docker's pools, a firewall, four prepared namespaces.
    pub fn new(instance: Instance, run_dir: PathBuf) -> NetworkConfig {
        NetworkConfig {
            instance,
            run_dir,
            default_bridge: None,
            address_pools: Vec::new(),
            publish_address: None,
            respect_host: false,
            firewall: true,
            prepared: 4,
        }
    }
}

/// Settings of the network called `bridge` (the daemon's `bip`, `fixed-cidr`, `mtu`, `icc`, `ip`, `ip-masq` keys).
#[derive(Debug, Clone)]
pub struct DefaultBridge {
    /// False for `--bridge=none`: no such network, containers get loopback unless they name another.
    pub enabled: bool,
    /// The bridge's own address and the subnet with it.
    pub bip: Option<Prefix>,
    /// Containers' addresses come from this part of the subnet.
    pub fixed_cidr: Option<Prefix>,
    /// The gateway containers use, when it is not the bridge.
    pub default_gateway: Option<Ipv4Addr>,
    /// Turns IPv6 on.
    pub enable_ipv6: bool,
    /// IPv6 subnet; a unique local one is chosen when absent.
    pub fixed_cidr_v6: Option<Prefix>,
    /// Largest packet, 1500 by default.
    pub mtu: Option<u32>,
    /// Whether containers reach one another.
    pub icc: bool,
    /// Whether traffic to other hosts leaves with the host's address.
    pub ip_masquerade: bool,
    /// Where published ports listen when the request names no address; 0.0.0.0 and :: by default.
    pub host_binding: Option<IpAddr>,
}

impl Default for DefaultBridge {
    fn default() -> DefaultBridge {
        DefaultBridge {
            enabled: true,
            bip: None,
            fixed_cidr: None,
            default_gateway: None,
            enable_ipv6: false,
            fixed_cidr_v6: None,
            mtu: None,
            icc: true,
            ip_masquerade: true,
            host_binding: None,
        }
    }
}

/// One subnet of a network. As a request, everything may be absent; as an answer, `subnet` is there, and `gateway`
/// unless the network has none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IpamPool {
    /// The subnet.
    pub subnet: Option<Prefix>,
    /// Containers' addresses come from this part of the subnet.
    pub ip_range: Option<Prefix>,
    /// The bridge's address.
    pub gateway: Option<IpAddr>,
    /// Addresses that are never handed out, by name.
    pub aux: BTreeMap<String, IpAddr>,
}

impl IpamPool {
    /// Reads a pool as the API and the command line spell it; empty text is absence. Errors are worded as the API's
    /// clients know them.
    pub fn parse(
        subnet: &str,
        ip_range: &str,
        gateway: &str,
        aux: &BTreeMap<String, String>,
    ) -> Result<IpamPool, Error> {
        fn field<T: FromStr<Err = crate::ParseAddressError>>(text: &str) -> Result<Option<T>, Error> {
            if text.is_empty() {
                return Ok(None);
            }
            text.parse()
                .map(Some)
                .map_err(|reason| Error::Invalid(format!("invalid JSON: {reason}")))
        }
        let mut pool = IpamPool {
            subnet: field(subnet)?,
            ip_range: field(ip_range)?,
            gateway: field::<crate::address::Address>(gateway)?.map(|a| a.0),
            aux: BTreeMap::new(),
        };
        for (name, address) in aux {
            if let Some(address) = field::<crate::address::Address>(address)? {
                pool.aux.insert(name.clone(), address.0);
            }
        }
        Ok(pool)
    }
}

/// How a network's addresses are managed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ipam {
    /// Always `default`.
    pub driver: String,
    /// As given at creation; absent and empty are told apart because the API tells them apart.
    pub options: Option<BTreeMap<String, String>>,
    /// The subnets.
    pub config: Vec<IpamPool>,
}

/// A request for a new network.
#[derive(Debug, Clone)]
pub struct CreateNetwork {
    /// Its name.
    pub name: String,
    /// `bridge`, or empty for it.
    pub driver: String,
    /// Subnets; chosen from the pools where absent.
    pub ipam: Vec<IpamPool>,
    /// `default`, or empty for it.
    pub ipam_driver: String,
    /// Kept and shown.
    pub ipam_options: Option<BTreeMap<String, String>>,
    /// Whether containers get an IPv4 address.
    pub enable_ipv4: bool,
    /// Whether containers get an IPv6 address.
    pub enable_ipv6: bool,
    /// No way in or out but between its containers and the host.
    pub internal: bool,
    /// Kept and shown.
    pub attachable: bool,
    /// `com.docker.network.*` settings of the driver.
    pub options: BTreeMap<String, String>,
    /// Kept and shown.
    pub labels: BTreeMap<String, String>,
    /// Settings for others to be made from, and no network.
    pub config_only: bool,
    /// The network whose settings these are; empty for the request's own.
    pub config_from: String,
}

impl CreateNetwork {
    /// A bridge network with all defaults.
    pub fn named(name: &str) -> CreateNetwork {
        CreateNetwork {
            name: name.to_owned(),
            driver: String::new(),
            ipam: Vec::new(),
            ipam_driver: String::new(),
            ipam_options: None,
            enable_ipv4: true,
            enable_ipv6: false,
            internal: false,
            attachable: false,
            options: BTreeMap::new(),
            labels: BTreeMap::new(),
            config_only: false,
            config_from: String::new(),
        }
    }
}

/// A network as it stands.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Network {
    /// Its identity.
    pub id: Id,
    /// Its name, unique in the daemon.
    pub name: String,
    /// `bridge`, `host` or `null`.
    pub driver: String,
    /// Always `local`.
    pub scope: String,
    /// RFC 3339 with nanoseconds, UTC.
    pub created: String,
    /// Whether containers get an IPv4 address.
    pub enable_ipv4: bool,
    /// Whether containers get an IPv6 address.
    pub enable_ipv6: bool,
    /// No way in or out but between its containers and the host.
    pub internal: bool,
    /// As given at creation.
    pub attachable: bool,
    /// Always false: the swarm's network.
    pub ingress: bool,
    /// Subnets and gateways.
    pub ipam: Ipam,
    /// Driver settings.
    pub options: BTreeMap<String, String>,
    /// As given at creation.
    pub labels: BTreeMap<String, String>,
    /// Settings alone.
    #[serde(default)]
    pub config_only: bool,
    /// The network whose settings it was made with, or empty.
    #[serde(default)]
    pub config_from: String,
    /// Attached containers.
    #[serde(skip)]
    pub endpoints: BTreeMap<Id, EndpointInfo>,
}

impl Network {
    /// Whether it is one of `bridge`, `host`, `none`, which always exist.
    pub fn is_predefined(&self) -> bool {
        matches!(self.name.as_str(), "bridge" | "host" | "none")
    }
}

/// Address counts of one subnet, as the API shows from 1.52 on. The counts saturate at 2^64 − 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SubnetStatus {
    /// The subnet.
    pub subnet: Prefix,
    /// Addresses taken: containers', gateway, auxiliary, and the subnet's first and last.
    pub in_use: u64,
    /// Addresses that may still be handed out.
    pub available: u64,
}

/// A container's place in a network, as the network's inspection shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointInfo {
    /// The container's name.
    pub name: String,
    /// The endpoint's identity.
    pub endpoint_id: Id,
    /// Hardware address of the container's interface.
    pub mac: Mac,
    /// Address with the subnet's prefix length.
    pub ipv4: Option<Prefix>,
    /// Address with the subnet's prefix length.
    pub ipv6: Option<Prefix>,
}

/// A request to attach a container to one network.
#[derive(Debug, Clone, Default)]
pub struct EndpointRequest {
    /// Name or id of the network.
    pub network: String,
    /// A fixed address.
    pub ipv4: Option<Ipv4Addr>,
    /// A fixed address.
    pub ipv6: Option<Ipv6Addr>,
    /// A fixed hardware address.
    pub mac: Option<Mac>,
    /// More names in this network.
    pub aliases: Vec<String>,
    /// `container:alias` names that only this container sees.
    pub links: Vec<String>,
    /// `com.docker.network.endpoint.*` settings.
    pub driver_opts: BTreeMap<String, String>,
    /// The endpoint with the highest one gives the default route; the first wins a tie.
    pub gw_priority: i64,
}

/// Transport of a published port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Proto {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Proto {
    /// The number in the IP header.
    pub fn number(self) -> u8 {
        match self {
            Proto::Tcp => 6,
            Proto::Udp => 17,
            Proto::Sctp => 132,
        }
    }

    /// As a relay knows it, which does not know every one.
    pub(crate) fn transport(self) -> Option<relay::Transport> {
        match self {
            Proto::Tcp => Some(relay::Transport::Tcp),
            Proto::Udp => Some(relay::Transport::Udp),
            Proto::Sctp => None,
        }
    }
}

impl fmt::Display for Proto {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Proto::Tcp => "tcp",
            Proto::Udp => "udp",
            Proto::Sctp => "sctp",
        })
    }
}

impl FromStr for Proto {
    type Err = Error;

    fn from_str(text: &str) -> Result<Proto, Error> {
        match text {
            "tcp" => Ok(Proto::Tcp),
            "udp" => Ok(Proto::Udp),
            "sctp" => Ok(Proto::Sctp),
            other => Err(Error::Invalid(format!("invalid proto: {other}"))),
        }
    }
}

/// Which host port is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PortChoice {
    /// This one.
    Fixed(u16),
    /// The first free one of these.
    Range(u16, u16),
    /// Any of the ephemeral range.
    Any,
}

/// A request to publish a container's port on the host.
#[derive(Debug, Clone)]
pub struct PortRequest {
    /// The port inside.
    pub container_port: u16,
    /// Its transport.
    pub proto: Proto,
    /// Where to listen; `None` and unspecified addresses are every address of the host.
    pub host_ip: Option<IpAddr>,
    /// The port outside.
    pub host_port: PortChoice,
}

/// A port that is published, or several side by side.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedPort {
    /// The port inside.
    pub container_port: u16,
    /// Its transport.
    pub proto: Proto,
    /// The address it listens on.
    pub host_ip: IpAddr,
    /// The port outside.
    pub host_port: u16,
    /// How many ports from these two on.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub count: u16,
    /// It is open at the container's own address, on a network in the mode `routed`. `host_ip` only says the family, or, a
    /// loopback address, that it is not open after all: it was meant for the host alone. `host_port` is what was asked
    /// for, 0 where that was any.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub routed: bool,
}

fn one() -> u16 {
    1
}

fn is_one(count: &u16) -> bool {
    *count == 1
}

impl PublishedPort {
    /// Each of them alone.
    pub fn singles(&self) -> impl Iterator<Item = PublishedPort> + '_ {
        (0..self.count).map(|n| PublishedPort {
            container_port: self.container_port.saturating_add(n),
            host_port: match self.host_port {
                0 => 0,
                first => first.saturating_add(n),
            },
            count: 1,
            ..self.clone()
        })
    }

    /// Whether the container's monitor serves it (see the crate `relay`), where packets to it are not translated.
    pub(crate) fn is_served(&self) -> bool {
        self.host_ip.is_ipv6() && !self.routed && may_be_served(self.proto, self.count)
    }

    /// The last of the ports outside.
    pub fn last_host_port(&self) -> u16 {
        self.host_port.saturating_add(self.count.saturating_sub(1))
    }

    pub(crate) fn is_followed_by(&self, other: &PublishedPort) -> bool {
        let next = |first: u16, port: u16| first.checked_add(self.count) == Some(port);
        let any = self.routed && (self.host_port, other.host_port) == (0, 0);
        (self.proto, self.host_ip, self.routed) == (other.proto, other.host_ip, other.routed)
            && (any || (self.host_port > 0 && next(self.host_port, other.host_port)))
            && next(self.container_port, other.container_port)
    }
}

/// Whether a monitor can serve ports of this kind, so many side by side: a socket is held for each.
pub(crate) fn may_be_served(proto: Proto, count: u16) -> bool {
    proto.transport().is_some() && count <= port::MOST_HELD
}

/// Published ports that a container's monitor serves: what comes to them over IPv6 and is not translated.
#[derive(Debug, Default)]
pub struct Served {
    /// All of them.
    pub ports: Vec<relay::Port>,
    /// Sockets that are bound to those of these places among `ports`; the monitor has those of the others.
    pub sockets: Vec<(usize, OwnedFd)>,
}

/// The container's own resolver settings (`--dns`, `--dns-search`, `--dns-option`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsConfig {
    /// Servers instead of the host's.
    pub servers: Vec<IpAddr>,
    /// Search domains instead of the host's; a lone `.` means none.
    pub search: Vec<String>,
    /// Options instead of the host's.
    pub options: Vec<String>,
}

/// Everything a container needs of the network when it starts.
#[derive(Debug, Clone)]
pub struct SandboxRequest {
    /// The container.
    pub container: Id,
    /// Its name, without a slash.
    pub name: String,
    /// Its host name.
    pub hostname: String,
    /// Its networks; empty means a namespace with loopback only.
    pub endpoints: Vec<EndpointRequest>,
    /// Its published ports.
    pub ports: Vec<PortRequest>,
    /// Its resolver settings.
    pub dns: DnsConfig,
    /// `net.*` settings of its namespace, set before any interface exists.
    pub sysctls: BTreeMap<String, String>,
}

/// What a container has in one network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// The network's name at the time.
    pub network_name: String,
    /// The network.
    pub network_id: Id,
    /// The endpoint's identity.
    pub endpoint_id: Id,
    /// The interface's name inside.
    pub interface: String,
    /// Hardware address.
    pub mac: Mac,
    /// IPv4 address.
    pub ipv4: Option<Ipv4Addr>,
    /// Its prefix length.
    pub ipv4_prefix: u8,
    /// IPv4 gateway; none in an internal network.
    pub gateway: Option<Ipv4Addr>,
    /// IPv6 address.
    pub ipv6: Option<Ipv6Addr>,
    /// Its prefix length.
    pub ipv6_prefix: u8,
    /// IPv6 gateway; none in an internal network.
    pub ipv6_gateway: Option<Ipv6Addr>,
    /// Aliases as requested.
    pub aliases: Vec<String>,
    /// Every name the embedded resolver answers for in this network; empty in the default one.
    pub dns_names: Vec<String>,
    /// See [`EndpointRequest::gw_priority`].
    pub gw_priority: i64,
}

/// A container's network, ready to be entered.
#[derive(Debug)]
pub struct Sandbox {
    /// The namespace. It lives as long as this, or a process in it.
    pub netns: OwnedFd,
    /// One per network, in the order asked for.
    pub endpoints: Vec<Endpoint>,
    /// The published ports, the random ones chosen.
    pub ports: Vec<PublishedPort>,
    /// Sockets opened inside for the embedded resolver, when the container uses it.
    pub dns: Option<dns::Sockets>,
    /// What the resolver is to answer from; present with `dns`.
    pub dns_config: Option<dns::Config>,
    /// The published ports that the monitor is to serve, with a socket for each.
    pub served: Served,
    /// The content of /etc/resolv.conf.
    pub resolv_conf: String,
}

/// What is recorded of a container that was attached, for inspection after the daemon restarted.
#[derive(Debug, Clone, Default)]
pub struct SavedSandbox {
    /// One per network.
    pub endpoints: Vec<Endpoint>,
    /// The published ports.
    pub ports: Vec<PublishedPort>,
}
