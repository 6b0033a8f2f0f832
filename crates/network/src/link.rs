//! Bridges, veth pairs, addresses and routes: the requests of NETLINK_ROUTE that this room makes, and the lists it
//! reads. Every function works in the namespace of the socket it is given.
//!
//! A link made by an instance carries the instance's tag in its alias (`<tag>:network:<id>`,
//! `<tag>:endpoint:<id>`, `<tag>:prepared`), by which a later daemon knows its own.
//!
//! Sources: rtnetlink(7), linux/if_link.h, linux/rtnetlink.h.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::Errno;
use sys::netlink::{Attributes, Failure, Message, Reply, Socket, flags};

use crate::address::{Mac, Prefix};
use crate::direct::Kind;

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_IFALIAS: u16 = 20;
const IFLA_AF_SPEC: u16 = 26;
const IFLA_NET_NS_FD: u16 = 28;
const INFO_KIND: u16 = 1;
const INFO_DATA: u16 = 2;
const INFO_SLAVE_KIND: u16 = 4;
const INFO_SLAVE_DATA: u16 = 5;
const VETH_INFO_PEER: u16 = 1;
const BRPORT_HAIRPIN: u16 = 4;
const BRPORT_ISOLATED: u16 = 33;
const INET6_ADDR_GEN_MODE: u16 = 8;
/// `IN6_ADDR_GEN_MODE_NONE`: the kernel gives the interface no link-local address.
const ADDR_GEN_MODE_NONE: u8 = 1;

const MACVLAN_MODE: u16 = 1;
const IPVLAN_MODE: u16 = 1;
const IPVLAN_FLAGS: u16 = 2;
const VLAN_ID: u16 = 1;
const VXLAN_ID: u16 = 1;
const VXLAN_LEARNING: u16 = 7;
const VXLAN_PORT: u16 = 15;
const VXLAN_LOCAL6: u16 = 17;
const RTM_NEWNEIGH: u16 = 28;
const RTM_DELNEIGH: u16 = 29;
const RTM_GETNEIGH: u16 = 30;
/// Length of `struct ndmsg` (linux/neighbour.h).
const NDMSG: usize = 12;
const PF_BRIDGE: u8 = 7;
const NTF_SELF: u8 = 2;
const NUD_NOARP: u16 = 0x40;
const NUD_PERMANENT: u16 = 0x80;
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;

const IFF_UP: u32 = 1;
const IFF_NOARP: u32 = 0x80;
/// Header of all link messages, `struct ifinfomsg`.
const IFINFO: usize = 16;
const RTMSG: usize = 12;
const IFADDR: usize = 8;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_FLAGS: u16 = 8;
/// The address is ours by assignment; asking around whether somebody has it would delay it by a second.
const IFA_F_NODAD: u32 = 2;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_TABLE: u16 = 15;
const TABLE_MAIN: u8 = 254;
const PROTOCOL_BOOT: u8 = 3;
const TYPE_UNICAST: u8 = 1;

/// Loopback's index in every namespace.
pub(crate) const LOOPBACK: u32 = 1;

fn ifinfo(index: u32, up: Option<bool>) -> [u8; IFINFO] {
    let mut bytes = [0u8; IFINFO];
    bytes[4..8].copy_from_slice(&index.to_ne_bytes());
    if let Some(up) = up {
        bytes[8..12].copy_from_slice(&(if up { IFF_UP } else { 0 }).to_ne_bytes());
        bytes[12..16].copy_from_slice(&IFF_UP.to_ne_bytes());
    }
    bytes
}

/// How a request names the link it is about.
enum Target<'a> {
    Index(u32),
    Name(&'a str),
}

impl From<u32> for Target<'_> {
    fn from(index: u32) -> Self {
        Target::Index(index)
    }
}

impl Target<'_> {
    fn message(&self, up: Option<bool>) -> Message {
        match self {
            Target::Index(index) => Message::new(RTM_NEWLINK, 0, &ifinfo(*index, up)),
            Target::Name(name) => Message::new(RTM_NEWLINK, 0, &ifinfo(0, up)).string(IFLA_IFNAME, name),
        }
    }
}

/// A link as a dump shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) name: String,
    pub(crate) alias: Option<String>,
    /// `bridge`, `veth`, …; none for a physical device.
    pub(crate) kind: Option<String>,
    pub(crate) mac: Option<Mac>,
}

pub(crate) fn read(reply: &Reply) -> Option<Link> {
    let fixed: [u8; IFINFO] = reply.fixed()?;
    let attributes = reply.attributes(IFINFO);
    Some(Link {
        index: u32::from_ne_bytes(fixed[4..8].try_into().ok()?),
        name: attributes.text(IFLA_IFNAME)?,
        alias: attributes.text(IFLA_IFALIAS),
        kind: attributes
            .get(IFLA_LINKINFO)
            .and_then(|info| Attributes::of(info).text(INFO_KIND)),
        mac: attributes
            .get(IFLA_ADDRESS)
            .and_then(|b| b.try_into().ok())
            .map(Mac),
    })
}

/// What an announcement of the route family says.
#[derive(Debug)]
pub(crate) enum Announcement {
    /// A link is gone.
    LinkGone(Link),
    /// There is a route to here now, over the link of this index.
    Route(Prefix, Option<u32>),
}

/// The groups in which links and routes are announced (linux/rtnetlink.h).
pub(crate) const ANNOUNCED: [u32; 3] = [1, 7, 11];

pub(crate) fn announcement(reply: &Reply) -> Option<Announcement> {
    match reply.kind {
        RTM_DELLINK => {
            // A port that left its bridge is announced with the bridge's family, and is still there.
            let family: [u8; IFINFO] = reply.fixed()?;
            (family[0] == 0).then(|| read(reply).map(Announcement::LinkGone))?
        }
        RTM_NEWROUTE => destination(reply).map(|(to, over)| Announcement::Route(to, over)),
        _ => None,
    }
}

/// Every link of the namespace.
pub(crate) fn list(socket: &mut Socket) -> Result<Vec<Link>, Failure> {
    let replies = socket.dump(&Message::new(RTM_GETLINK, 0, &ifinfo(0, None)))?;
    Ok(replies.iter().filter_map(read).collect())
}

/// The link of this name.
pub(crate) fn find(socket: &mut Socket, name: &str) -> Result<Option<Link>, Failure> {
    match socket.get(&Message::new(RTM_GETLINK, 0, &ifinfo(0, None)).string(IFLA_IFNAME, name)) {
        Ok(reply) => Ok(reply.as_ref().and_then(read)),
        Err(failure) if failure.errno == Errno::NODEV => Ok(None),
        Err(failure) => Err(failure),
    }
}

/// A bridge to make or to bring into this state.
#[derive(Debug)]
pub(crate) struct Bridge<'a> {
    pub(crate) name: &'a str,
    pub(crate) alias: &'a str,
    pub(crate) mac: Mac,
    pub(crate) mtu: u32,
    pub(crate) addresses: &'a [Prefix],
}

/// Makes the bridge, or takes over one of this name and alias, and gives its index. A bridge that is there without our
/// alias is somebody else's: `EEXIST`.
pub(crate) fn ensure_bridge(socket: &mut Socket, bridge: &Bridge<'_>) -> Result<u32, Failure> {
    let found = find(socket, bridge.name)?;
    match found {
        Some(link)
            if link.kind.as_deref() == Some("bridge") && link.alias.as_deref() == Some(bridge.alias) =>
        {
            Ok(link.index)
        }
        Some(_) => Err(Failure {
            index: 0,
            errno: Errno::EXIST,
            text: None,
        }),
        None => {
            // A hardware address that is set stays; one that is not changes with every port that comes and goes.
            let create = Message::new(RTM_NEWLINK, flags::CREATE | flags::EXCL, &ifinfo(0, None))
                .string(IFLA_IFNAME, bridge.name)
                .bytes(IFLA_ADDRESS, &bridge.mac.0)
                .u32(IFLA_MTU, bridge.mtu)
                .nest(IFLA_LINKINFO, |m| m.string(INFO_KIND, "bridge"));
            let mark = Message::new(RTM_NEWLINK, 0, &ifinfo(0, None))
                .string(IFLA_IFNAME, bridge.name)
                .string(IFLA_IFALIAS, bridge.alias);
            socket.execute(&[create, mark])?;
            find(socket, bridge.name)?
                .map(|link| link.index)
                .ok_or(Errno::NODEV.into())
        }
    }
}

/// Brings a bridge up, with its addresses.
pub(crate) fn start_bridge(socket: &mut Socket, index: u32, bridge: &Bridge<'_>) -> Result<(), Failure> {
    // A kernel without IPv6 refuses this, and needs it not.
    let _ = socket.send(&[without_link_local(&index.into())])?;
    let mut requests =
        vec![Message::new(RTM_NEWLINK, 0, &ifinfo(index, Some(true))).u32(IFLA_MTU, bridge.mtu)];
    if bridge.addresses.iter().any(|a| !a.is_ipv4()) {
        let first = Prefix::new(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1).into(), 64);
        requests.extend(first.map(|address| new_address(index, address)));
    }
    requests.extend(
        bridge
            .addresses
            .iter()
            .map(|address| new_address(index, *address)),
    );
    socket.execute(&requests)
}

/// Which half of a veth pair stands on the host, and how.
#[derive(Debug)]
pub(crate) struct HostEnd<'a> {
    pub(crate) name: &'a str,
    pub(crate) alias: &'a str,
    /// The bridge it is a port of; none while it waits in the pool.
    pub(crate) bridge: Option<u32>,
    /// Whether other ports of the bridge are out of reach (`icc=false`).
    pub(crate) isolated: bool,
    /// Whether the bridge may send a frame back out of the port it came from.
    pub(crate) hairpin: bool,
    pub(crate) mtu: u32,
}

/// Which half stands in the container's namespace.
#[derive(Debug)]
pub(crate) struct PeerEnd<'a> {
    pub(crate) namespace: BorrowedFd<'a>,
    pub(crate) name: &'a str,
    pub(crate) mac: Option<Mac>,
}

/// Makes a veth pair whose peer is born in the container's namespace. The peer cannot be brought up from here
/// (`ENOTCONN`: at that moment it is not paired yet); [`configure`] does it from inside.
pub(crate) fn create_pair(
    socket: &mut Socket,
    host: &HostEnd<'_>,
    peer: &PeerEnd<'_>,
) -> Result<(), Failure> {
    let create = Message::new(RTM_NEWLINK, flags::CREATE | flags::EXCL, &ifinfo(0, None))
        .string(IFLA_IFNAME, host.name)
        .u32(IFLA_MTU, host.mtu);
    let create = create.nest(IFLA_LINKINFO, |m| {
        m.string(INFO_KIND, "veth").nest(INFO_DATA, |m| {
            m.nest(VETH_INFO_PEER, |m| {
                let mut m = m
                    .raw(&ifinfo(0, None))
                    .string(IFLA_IFNAME, peer.name)
                    .u32(IFLA_MTU, host.mtu);
                if let Some(mac) = peer.mac {
                    m = m.bytes(IFLA_ADDRESS, &mac.0);
                }
                m.bytes(IFLA_NET_NS_FD, &(peer.namespace.as_raw_fd() as u32).to_ne_bytes())
            })
        })
    });
    // The pair's own address would be one more question nobody needs answered.
    let mut requests = vec![create, without_link_local(&Target::Name(host.name))];
    match host.bridge {
        Some(bridge) => requests.extend([join(host, bridge), mark_port(host)]),
        None => requests.push(mark_port(host)),
    }
    for (position, outcome) in socket.send(&requests)?.into_iter().enumerate() {
        if position != 1 {
            outcome?;
        }
    }
    Ok(())
}

/// Puts a pair on its bridge that was made without one.
pub(crate) fn enslave(socket: &mut Socket, host: &HostEnd<'_>) -> Result<(), Failure> {
    match host.bridge {
        Some(bridge) => socket.execute(&[join(host, bridge), mark_port(host)]),
        None => Ok(()),
    }
}

fn join(host: &HostEnd<'_>, bridge: u32) -> Message {
    Target::Name(host.name)
        .message(Some(true))
        .u32(IFLA_MTU, host.mtu)
        .u32(IFLA_MASTER, bridge)
}

/// The alias, and the port's isolation, which the kernel takes only once the link is there.
fn mark_port(host: &HostEnd<'_>) -> Message {
    let mark = Message::new(RTM_NEWLINK, 0, &ifinfo(0, None))
        .string(IFLA_IFNAME, host.name)
        .string(IFLA_IFALIAS, host.alias);
    let settings = [(BRPORT_HAIRPIN, host.hairpin), (BRPORT_ISOLATED, host.isolated)];
    if settings.iter().all(|(_, on)| !on) {
        return mark;
    }
    mark.nest(IFLA_LINKINFO, |m| {
        m.string(INFO_SLAVE_KIND, "bridge").nest(INFO_SLAVE_DATA, |m| {
            settings
                .iter()
                .filter(|(_, on)| *on)
                .fold(m, |m, (setting, _)| m.u8(*setting, 1))
        })
    })
}

/// A container's link on a link of the host.
#[derive(Debug)]
pub(crate) struct Child<'a> {
    pub(crate) name: &'a str,
    pub(crate) parent: u32,
    pub(crate) kind: Kind,
    pub(crate) namespace: BorrowedFd<'a>,
    pub(crate) mac: Option<Mac>,
}

/// Makes it inside the container's namespace, where it never was anything else's.
pub(crate) fn create_child(socket: &mut Socket, child: &Child<'_>) -> Result<(), Failure> {
    let create = Message::new(RTM_NEWLINK, flags::CREATE | flags::EXCL, &ifinfo(0, None))
        .string(IFLA_IFNAME, child.name)
        .u32(IFLA_LINK, child.parent)
        .bytes(
            IFLA_NET_NS_FD,
            &(child.namespace.as_raw_fd() as u32).to_ne_bytes(),
        );
    let create = match child.mac {
        Some(mac) => create.bytes(IFLA_ADDRESS, &mac.0),
        None => create,
    };
    let create = create.nest(IFLA_LINKINFO, |m| match child.kind {
        Kind::Macvlan(mode) => m
            .string(INFO_KIND, "macvlan")
            .nest(INFO_DATA, |m| m.u32(MACVLAN_MODE, mode)),
        Kind::Ipvlan(mode, flags) => m.string(INFO_KIND, "ipvlan").nest(INFO_DATA, |m| {
            m.bytes(IPVLAN_MODE, &mode.to_ne_bytes())
                .bytes(IPVLAN_FLAGS, &flags.to_ne_bytes())
        }),
    });
    socket.execute(&[create])
}

/// Makes the link of a VLAN of another link, and brings it up.
pub(crate) fn create_vlan(
    socket: &mut Socket,
    name: &str,
    alias: &str,
    below: u32,
    number: u16,
) -> Result<(), Failure> {
    let create = Message::new(RTM_NEWLINK, flags::CREATE | flags::EXCL, &ifinfo(0, None))
        .string(IFLA_IFNAME, name)
        .u32(IFLA_LINK, below)
        .nest(IFLA_LINKINFO, |m| {
            m.string(INFO_KIND, "vlan")
                .nest(INFO_DATA, |m| m.bytes(VLAN_ID, &number.to_ne_bytes()))
        });
    let mark = Target::Name(name).message(Some(true)).string(IFLA_IFALIAS, alias);
    socket.execute(&[create, mark])
}

/// A VXLAN link that is a port of a bridge.
#[derive(Debug)]
pub(crate) struct Tunnel<'a> {
    pub(crate) name: &'a str,
    pub(crate) alias: &'a str,
    pub(crate) vni: u32,
    pub(crate) port: u16,
    pub(crate) bridge: u32,
    pub(crate) mtu: u32,
    pub(crate) over_ipv6: bool,
}

/// Makes it, brings it up, and gives its index.
pub(crate) fn create_tunnel(socket: &mut Socket, tunnel: &Tunnel<'_>) -> Result<u32, Failure> {
    let create = Message::new(RTM_NEWLINK, flags::CREATE | flags::EXCL, &ifinfo(0, None))
        .string(IFLA_IFNAME, tunnel.name)
        .u32(IFLA_MTU, tunnel.mtu)
        .nest(IFLA_LINKINFO, |m| {
            m.string(INFO_KIND, "vxlan").nest(INFO_DATA, |m| {
                let m = m
                    .u32(VXLAN_ID, tunnel.vni)
                    .bytes(VXLAN_PORT, &tunnel.port.to_be_bytes())
                    .u8(VXLAN_LEARNING, 1);
                match tunnel.over_ipv6 {
                    true => m.bytes(VXLAN_LOCAL6, &Ipv6Addr::UNSPECIFIED.octets()),
                    false => m,
                }
            })
        });
    let quiet = without_link_local(&Target::Name(tunnel.name));
    let join = Target::Name(tunnel.name)
        .message(Some(true))
        .u32(IFLA_MASTER, tunnel.bridge);
    let mark = Target::Name(tunnel.name)
        .message(None)
        .string(IFLA_IFALIAS, tunnel.alias);
    for (position, outcome) in socket.send(&[create, quiet, join, mark])?.into_iter().enumerate() {
        if position != 1 {
            outcome?;
        }
    }
    find(socket, tunnel.name)?
        .map(|link| link.index)
        .ok_or(Errno::NODEV.into())
}

/// Where a tunnel sends what is for everybody, or for one whose place is not known: the entries of the hardware address
/// that is all zeros.
pub(crate) fn set_peers(socket: &mut Socket, index: u32, peers: &[IpAddr]) -> Result<(), Failure> {
    let header = |state: u16| {
        let mut fixed = [0u8; NDMSG];
        fixed[0] = PF_BRIDGE;
        fixed[4..8].copy_from_slice(&index.to_ne_bytes());
        fixed[8..10].copy_from_slice(&state.to_ne_bytes());
        fixed[10] = NTF_SELF;
        fixed
    };
    let entry = |kind: u16, flags: u16, peer: &IpAddr| {
        Message::new(kind, flags, &header(NUD_PERMANENT | NUD_NOARP))
            .bytes(NDA_DST, &octets(*peer))
            .bytes(NDA_LLADDR, &[0; 6])
    };
    let mut everything = [0u8; NDMSG];
    everything[0] = PF_BRIDGE;
    let replies = socket.dump(&Message::new(RTM_GETNEIGH, 0, &everything))?;
    let there: Vec<IpAddr> = replies
        .iter()
        .filter_map(|reply| {
            let fixed: [u8; NDMSG] = reply.fixed()?;
            let attributes = reply.attributes(NDMSG);
            let of_ours = u32::from_ne_bytes(fixed[4..8].try_into().ok()?) == index;
            let for_all = attributes.get(NDA_LLADDR)? == [0; 6];
            (of_ours && for_all).then(|| address(attributes.get(NDA_DST)?))?
        })
        .collect();
    let come = peers.iter().filter(|peer| !there.contains(peer));
    let gone = there.iter().filter(|peer| !peers.contains(peer));
    let requests: Vec<Message> = come
        .map(|peer| entry(RTM_NEWNEIGH, flags::CREATE | flags::APPEND, peer))
        .chain(gone.map(|peer| entry(RTM_DELNEIGH, 0, peer)))
        .collect();
    socket.execute(&requests)
}

/// The address of what is beyond the gate: one that no host has (the dummy address of RFC 7600).
pub(crate) const BEYOND_GATE: Ipv4Addr = Ipv4Addr::new(192, 0, 0, 8);

/// A veth pair whose ends both stand in this namespace.
#[derive(Debug)]
pub(crate) struct GateEnds<'a> {
    pub(crate) outer: &'a str,
    pub(crate) inner: &'a str,
    pub(crate) alias: &'a str,
}

/// Makes the pair unless it is there, up, with one hardware address and without questions for neighbours; gives the
/// outer end's index.
pub(crate) fn ensure_gate(socket: &mut Socket, ends: &GateEnds<'_>) -> Result<u32, Failure> {
    if let Some(found) = find(socket, ends.outer)? {
        return match found.alias.as_deref() == Some(ends.alias) {
            true => Ok(found.index),
            false => Err(Errno::EXIST.into()),
        };
    }
    // What was put together from fragments must fit.
    let mtu = 65535;
    let mac = Mac::random();
    let create = Message::new(RTM_NEWLINK, flags::CREATE | flags::EXCL, &ifinfo(0, None))
        .string(IFLA_IFNAME, ends.outer)
        .bytes(IFLA_ADDRESS, &mac.0)
        .u32(IFLA_MTU, mtu)
        .nest(IFLA_LINKINFO, |m| {
            m.string(INFO_KIND, "veth").nest(INFO_DATA, |m| {
                m.nest(VETH_INFO_PEER, |m| {
                    m.raw(&ifinfo(0, None))
                        .string(IFLA_IFNAME, ends.inner)
                        .bytes(IFLA_ADDRESS, &mac.0)
                        .u32(IFLA_MTU, mtu)
                })
            })
        });
    let start = |name: &str| {
        let mut flags = ifinfo(0, Some(true));
        let both = IFF_UP | IFF_NOARP;
        flags[8..12].copy_from_slice(&both.to_ne_bytes());
        flags[12..16].copy_from_slice(&both.to_ne_bytes());
        Message::new(RTM_NEWLINK, 0, &flags)
            .string(IFLA_IFNAME, name)
            .string(IFLA_IFALIAS, ends.alias)
    };
    socket.execute(&[create])?;
    for name in [ends.outer, ends.inner] {
        // A kernel without IPv6 refuses this, and needs it not.
        let _ = socket.send(&[without_link_local(&Target::Name(name))])?;
        socket.execute(&[start(name)])?;
    }
    let index = |socket: &mut Socket, name: &str| -> Result<u32, Failure> {
        let found = find(socket, name)?;
        found.map(|link| link.index).ok_or(Errno::NODEV.into())
    };
    let (outer, inner) = (index(socket, ends.outer)?, index(socket, ends.inner)?);
    // A link without an address takes nothing from sources that are routed elsewhere (`fib_validate_source`).
    let here = Prefix::new(BEYOND_GATE.into(), 32).map(|address| new_address(inner, address));
    socket.execute(here.as_slice())?;
    // The neighbour beyond is found over this address; without IPv6 there is none to find.
    let first = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
    let local = Prefix::new(first.into(), 64).map(|address| new_address(outer, address));
    let _ = socket.send(local.as_slice())?;
    Ok(outer)
}

/// Removes links by name, several in one go; those that are gone already are fine.
pub(crate) fn remove(socket: &mut Socket, names: &[String]) -> Result<(), Failure> {
    let requests: Vec<Message> = names
        .iter()
        .map(|name| Message::new(RTM_DELLINK, 0, &ifinfo(0, None)).string(IFLA_IFNAME, name))
        .collect();
    for outcome in socket.send(&requests)? {
        match outcome {
            Err(failure) if failure.errno != Errno::NODEV => return Err(failure),
            _ => {}
        }
    }
    Ok(())
}

/// What an interface inside a container is given.
#[derive(Debug)]
pub(crate) struct Interface<'a> {
    pub(crate) index: u32,
    pub(crate) name: &'a str,
    /// None where the link has its parent's.
    pub(crate) mac: Option<Mac>,
    /// None for the parent's.
    pub(crate) mtu: Option<u32>,
    pub(crate) addresses: &'a [Prefix],
    pub(crate) gateways: &'a [IpAddr],
    /// Default routes lead over the link itself instead of to the gateways.
    pub(crate) without_gateway: bool,
}

/// Names, addresses, up, and default routes, in one go. `socket` is the container's.
pub(crate) fn configure(socket: &mut Socket, interface: &Interface<'_>) -> Result<(), Failure> {
    // The name can only change while the link is down.
    let mut first =
        Message::new(RTM_NEWLINK, 0, &ifinfo(interface.index, None)).string(IFLA_IFNAME, interface.name);
    if let Some(mac) = interface.mac {
        first = first.bytes(IFLA_ADDRESS, &mac.0);
    }
    if let Some(mtu) = interface.mtu {
        first = first.u32(IFLA_MTU, mtu);
    }
    let mut requests = vec![first];
    requests.push(without_link_local(&interface.index.into()));
    requests.push(Message::new(RTM_NEWLINK, 0, &ifinfo(interface.index, Some(true))));
    if interface.addresses.iter().any(|a| !a.is_ipv4()) {
        let local = interface.mac.and_then(link_local);
        requests.extend(local.map(|address| new_address(interface.index, address)));
    }
    requests.extend(
        interface
            .addresses
            .iter()
            .map(|address| new_address(interface.index, *address)),
    );
    requests.extend(
        interface
            .gateways
            .iter()
            .map(|gateway| default_route(interface.index, *gateway, !interface.without_gateway)),
    );
    for (position, outcome) in socket.send(&requests)?.into_iter().enumerate() {
        // A kernel without IPv6 has nothing to turn off.
        if position != 1 {
            outcome?;
        }
    }
    Ok(())
}

/// The kernel gives every link an IPv6 address of its own making and asks around for a second whether it is unique;
/// until then the link resolves no neighbours. Ours get the same address without the question, or none at all.
fn without_link_local(link: &Target<'_>) -> Message {
    link.message(None).nest(IFLA_AF_SPEC, |m| {
        m.nest(rustix::net::AddressFamily::INET6.as_raw(), |m| {
            m.u8(INET6_ADDR_GEN_MODE, ADDR_GEN_MODE_NONE)
        })
    })
}

/// The link-local address of a hardware address (RFC 4291, appendix A).
fn link_local(mac: Mac) -> Option<Prefix> {
    let [a, b, c, d, e, f] = mac.0.map(u16::from);
    let address = Ipv6Addr::new(
        0xfe80,
        0,
        0,
        0,
        (a ^ 2) << 8 | b,
        c << 8 | 0xff,
        0xfe00 | d,
        e << 8 | f,
    );
    Prefix::new(address.into(), 64)
}

/// Brings a link up.
pub(crate) fn up(index: u32) -> Message {
    Message::new(RTM_NEWLINK, 0, &ifinfo(index, Some(true)))
}

fn family(address: IpAddr) -> u8 {
    let family = if address.is_ipv4() {
        rustix::net::AddressFamily::INET
    } else {
        rustix::net::AddressFamily::INET6
    };
    family.as_raw() as u8
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

fn new_address(index: u32, address: Prefix) -> Message {
    let mut fixed = [family(address.address()), address.length(), 0, 0, 0, 0, 0, 0];
    fixed[4..8].copy_from_slice(&index.to_ne_bytes());
    let bytes = octets(address.address());
    let message = Message::new(RTM_NEWADDR, flags::CREATE | flags::REPLACE, &fixed)
        .bytes(IFA_LOCAL, &bytes)
        .bytes(IFA_ADDRESS, &bytes);
    if address.is_ipv4() {
        message
    } else {
        message.u32(IFA_FLAGS, IFA_F_NODAD)
    }
}

/// Every address of the namespace that others may reach, with the index of its link.
pub(crate) fn addresses(socket: &mut Socket) -> Result<Vec<(IpAddr, u32)>, Failure> {
    let replies = socket.dump(&Message::new(RTM_GETADDR, 0, &[0; IFADDR]))?;
    let read = |reply: &Reply| {
        let fixed: [u8; IFADDR] = reply.fixed()?;
        let attributes = reply.attributes(IFADDR);
        let bytes = attributes
            .get(IFA_LOCAL)
            .or_else(|| attributes.get(IFA_ADDRESS))?;
        let address = address(bytes)?;
        let scoped = match address {
            IpAddr::V4(address) => address == BEYOND_GATE,
            IpAddr::V6(address) => address.is_unicast_link_local(),
        };
        (!scoped).then_some((address, u32::from_ne_bytes(fixed[4..8].try_into().ok()?)))
    };
    Ok(replies.iter().filter_map(read).collect())
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(bytes) = <[u8; 4]>::try_from(bytes) {
        return Some(Ipv4Addr::from(bytes).into());
    }
    Some(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).into())
}

/// `through` false: over the link itself, where everybody is a neighbour.
fn default_route(index: u32, gateway: IpAddr, through: bool) -> Message {
    let (scope_universe, scope_link) = (0, 253);
    let fixed = [
        family(gateway),
        0,
        0,
        0,
        TABLE_MAIN,
        PROTOCOL_BOOT,
        if through { scope_universe } else { scope_link },
        TYPE_UNICAST,
        0,
        0,
        0,
        0,
    ];
    let route = Message::new(RTM_NEWROUTE, flags::CREATE | flags::REPLACE, &fixed);
    match through {
        true => route.bytes(RTA_GATEWAY, &octets(gateway)),
        false => route,
    }
    .u32(RTA_OIF, index)
}

/// Makes `gateway` the way out, replacing another one of its family.
pub(crate) fn set_default_route(
    socket: &mut Socket,
    index: u32,
    gateway: IpAddr,
    through: bool,
) -> Result<(), Failure> {
    socket.execute(&[default_route(index, gateway, through)])
}

/// Destinations the namespace has routes for, default routes left out: what a new subnet must not overlap. The link's
/// index tells a route of our own from another's.
pub(crate) fn destinations(socket: &mut Socket) -> Result<Vec<(Prefix, Option<u32>)>, Failure> {
    let replies = socket.dump(&Message::new(RTM_GETROUTE, 0, &[0; RTMSG]))?;
    Ok(replies.iter().filter_map(destination).collect())
}

pub(crate) fn destination(reply: &Reply) -> Option<(Prefix, Option<u32>)> {
    let fixed: [u8; RTMSG] = reply.fixed()?;
    let (length, table, kind) = (fixed[1], fixed[4], fixed[7]);
    let attributes = reply.attributes(RTMSG);
    let table = attributes.u32(RTA_TABLE).unwrap_or(u32::from(table));
    if length == 0 || kind != TYPE_UNICAST || table != u32::from(TABLE_MAIN) {
        return None;
    }
    let address = address(attributes.get(RTA_DST)?)?;
    // Link-local and multicast prefixes are on every link.
    let scoped = matches!(address, IpAddr::V6(a) if a.is_unicast_link_local() || a.is_multicast());
    if scoped {
        None
    } else {
        Some((Prefix::new(address, length)?, attributes.u32(RTA_OIF)))
    }
}
