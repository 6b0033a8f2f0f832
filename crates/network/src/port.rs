//! Host ports: which are taken, by us or by others, and keeping them.
//!
//! Whether another process has a port is found by binding it, and the bound socket is then *kept* while the port is
//! published: translation happens before any socket is looked at, so a program that bound the same port later would
//! start, listen, and never hear from anybody; with the port held it is told `address already in use` at once. The
//! socket is never read and never listens here: one for IPv6 is given to the container's monitor, which serves what is
//! not translated.
//!
//! That costs a descriptor per port and address, so ranges of more than [`MOST_HELD`] ports are looked up in the kernel's
//! list of sockets once instead, and not held.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use spec::Id;
use sys::netlink::sockets;

use crate::model::{PortChoice, Proto, PublishedPort};

/// Random ports come from the upper part of the dynamic range (RFC 6335), above what outgoing connections of most
/// hosts use.
const FIRST_RANDOM: u16 = 49153;
/// The longest range whose ports are held one by one.
pub(crate) const MOST_HELD: u16 = 64;

/// One port of one address.
pub(crate) type Key = (Proto, u16, IpAddr);

/// Ports that are wanted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted<'a> {
    pub(crate) proto: Proto,
    /// All of these at once.
    pub(crate) addresses: &'a [IpAddr],
    pub(crate) choice: PortChoice,
    /// How many from a fixed one on; otherwise 1.
    pub(crate) count: u16,
    /// Those that the container's monitor has.
    pub(crate) served: &'a BTreeSet<Key>,
}

#[derive(Debug)]
struct Held {
    container: Id,
    /// None where a monitor has it, or nobody could.
    socket: Option<OwnedFd>,
}

/// Ports that are taken as a whole and not held.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Range {
    container: Id,
    proto: Proto,
    address: IpAddr,
    first: u16,
    last: u16,
}

/// A port that is not to be had.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    /// The sentence clients know.
    pub(crate) reason: String,
    /// The container that has it, if it is one of ours.
    pub(crate) holder: Option<Id>,
    /// Whether another port may be free.
    taken: bool,
}

/// The ports of one instance.
#[derive(Debug)]
pub(crate) struct Ports {
    held: BTreeMap<Key, Held>,
    ranges: Vec<Range>,
    next_random: u16,
}

impl Default for Ports {
    fn default() -> Ports {
        Ports {
            held: BTreeMap::new(),
            ranges: Vec::new(),
            next_random: FIRST_RANDOM,
        }
    }
}

impl Ports {
    /// Takes ports for `container`, on all of the addresses at once or on none; gives the first.
    pub(crate) fn take(&mut self, container: &Id, wanted: &Wanted<'_>) -> Result<u16, Refused> {
        let Wanted { choice, count, .. } = *wanted;
        if let (PortChoice::Fixed(first), 2..) = (choice, count) {
            let last = first.saturating_add(count - 1);
            self.take_range(container, wanted, first..=last)?;
            return Ok(first);
        }
        let candidates: VecDeque<u16> = match choice {
            PortChoice::Fixed(port) => [port].into(),
            PortChoice::Range(first, last) => (first..=last).collect(),
            PortChoice::Any => (self.next_random..=u16::MAX)
                .chain(FIRST_RANDOM..self.next_random)
                .collect(),
        };
        let mut refusal = Refused {
            reason: "all ports are allocated".to_owned(),
            holder: None,
            taken: true,
        };
        let only_one = candidates.len() == 1;
        for port in candidates {
            match self.take_everywhere(container, wanted, port) {
                Ok(()) => {
                    if matches!(choice, PortChoice::Any) {
                        self.next_random = port.checked_add(1).unwrap_or(FIRST_RANDOM);
                    }
                    return Ok(port);
                }
                // No other port would fare better where the address is not ours, or there are no descriptors.
                Err(refused) if only_one || !refused.taken => refusal = refused,
                Err(_) => continue,
            }
            break;
        }
        Err(refusal)
    }

    fn take_everywhere(&mut self, container: &Id, wanted: &Wanted<'_>, port: u16) -> Result<(), Refused> {
        let Wanted { proto, addresses, .. } = *wanted;
        let mut sockets = Vec::new();
        for &address in addresses {
            if let Some((port, holder)) = self.holder(proto, address, &(port..=port)) {
                return Err(Refused::ours(SocketAddr::new(address, port), holder));
            }
            if wanted.served.contains(&(proto, port, address)) {
                sockets.push((address, None));
                continue;
            }
            match bind(proto, SocketAddr::new(address, port)) {
                Ok(socket) => sockets.push((address, socket)),
                Err(errno) => return Err(Refused::others(proto, SocketAddr::new(address, port), errno)),
            }
        }
        for (address, socket) in sockets {
            self.held.insert(
                (proto, port, address),
                Held {
                    container: container.clone(),
                    socket,
                },
            );
        }
        Ok(())
    }

    /// Takes all ports of a range.
    fn take_range(
        &mut self,
        container: &Id,
        wanted: &Wanted<'_>,
        ports: RangeInclusive<u16>,
    ) -> Result<(), Refused> {
        let Wanted { proto, addresses, .. } = *wanted;
        let (first, last) = (*ports.start(), *ports.end());
        if last - first < MOST_HELD {
            for port in ports {
                if let Err(refused) = self.take_everywhere(container, wanted, port) {
                    // Those before it were taken just now, so none of them is held for anything else.
                    let taken = |(of, held, address): &Key| {
                        *of == proto && (first..port).contains(held) && addresses.contains(address)
                    };
                    self.held.retain(|key, _| !taken(key));
                    return Err(refused);
                }
            }
            return Ok(());
        }
        for &address in addresses {
            if let Some((port, holder)) = self.holder(proto, address, &ports) {
                return Err(Refused::ours(SocketAddr::new(address, port), holder));
            }
            // That the address is this host's is found by binding one of them.
            bind(proto, SocketAddr::new(address, first))
                .map_err(|errno| Refused::others(proto, SocketAddr::new(address, first), errno))?;
            if let Some(port) = used_by_others(proto, address, &ports) {
                let at = SocketAddr::new(address, port);
                return Err(Refused::others(proto, at, Errno::ADDRINUSE));
            }
        }
        self.ranges.extend(addresses.iter().map(|&address| Range {
            container: container.clone(),
            proto,
            address,
            first,
            last,
        }));
        Ok(())
    }

    /// The first of `ports` that stands in the way, and whose it is.
    fn holder(&self, proto: Proto, address: IpAddr, ports: &RangeInclusive<u16>) -> Option<(u16, &Id)> {
        let (first, last) = (*ports.start(), *ports.end());
        let lowest = IpAddr::from([0, 0, 0, 0]);
        let highest = IpAddr::from([0xffu8; 16]);
        let meets = |held: IpAddr| {
            held.is_ipv4() == address.is_ipv4()
                && (held == address || held.is_unspecified() || address.is_unspecified())
        };
        let single = self
            .held
            .range((proto, first, lowest)..=(proto, last, highest))
            .find(|((_, _, held), _)| meets(*held))
            .map(|((_, port, _), held)| (*port, &held.container));
        let range = self
            .ranges
            .iter()
            .find(|r| r.proto == proto && meets(r.address) && r.first <= last && r.last >= first)
            .map(|r| (r.first.max(first), &r.container));
        single.or(range)
    }

    /// Takes up what a container held when the daemon last ran. The sockets are had if they can be.
    pub(crate) fn adopt(&mut self, container: &Id, published: &PublishedPort) {
        if published.routed {
            return;
        }
        let (proto, address) = (published.proto, published.host_ip);
        let (first, last) = (published.host_port, published.last_host_port());
        if last - first >= MOST_HELD {
            let range = Range {
                container: container.clone(),
                proto,
                address,
                first,
                last,
            };
            if !self.ranges.contains(&range) {
                self.ranges.push(range);
            }
            return;
        }
        for port in first..=last {
            self.held.entry((proto, port, address)).or_insert_with(|| {
                let socket = bind(proto, SocketAddr::new(address, port)).unwrap_or_else(|errno| {
                    // Where the container's monitor serves the port, it is the one that has it.
                    if !(published.is_served() && errno == Errno::ADDRINUSE) {
                        tracing::warn!(%address, port, %proto, %errno, "a published port could not be held again");
                    }
                    None
                });
                Held {
                    container: container.clone(),
                    socket,
                }
            });
        }
    }

    /// Gives out the socket of a port that is held, for the container's monitor; none where that has it already.
    pub(crate) fn give(&mut self, proto: Proto, port: u16, address: IpAddr) -> Option<OwnedFd> {
        self.held.get_mut(&(proto, port, address))?.socket.take()
    }

    /// Holds what `container` has and nobody holds, as far as it can be had.
    pub(crate) fn hold(&mut self, container: &Id) {
        let lost = self
            .held
            .iter_mut()
            .filter(|(_, held)| &held.container == container && held.socket.is_none());
        for ((proto, port, address), held) in lost {
            held.socket = bind(*proto, SocketAddr::new(*address, *port)).ok().flatten();
        }
    }

    /// Gives everything back that `container` holds.
    pub(crate) fn release(&mut self, container: &Id) {
        self.keep_only(container, &[]);
    }

    /// Gives back what `container` holds but these; tells which of it its monitor has still, until it is told.
    pub(crate) fn keep_only(&mut self, container: &Id, kept: &[PublishedPort]) -> BTreeSet<Key> {
        let is_kept = |proto: Proto, address: IpAddr, first: u16, last: u16| {
            kept.iter().any(|port| {
                !port.routed
                    && (port.proto, port.host_ip) == (proto, address)
                    && port.host_port <= first
                    && last <= port.last_host_port()
            })
        };
        let gone = self.held.extract_if(.., |(proto, port, address), held| {
            &held.container == container && !is_kept(*proto, *address, *port, *port)
        });
        let served = gone
            .filter(|((_, _, address), held)| address.is_ipv6() && held.socket.is_none())
            .map(|(key, _)| key)
            .collect();
        self.ranges
            .retain(|r| &r.container != container || is_kept(r.proto, r.address, r.first, r.last));
        // A range out of which something went is what is left of it.
        for port in kept {
            if self
                .holder(port.proto, port.host_ip, &(port.host_port..=port.host_port))
                .is_none()
            {
                self.adopt(container, port);
            }
        }
        served
    }
}

impl Refused {
    fn ours(at: SocketAddr, holder: &Id) -> Refused {
        Refused {
            reason: format!("Bind for {at} failed: port is already allocated"),
            holder: Some(holder.clone()),
            taken: true,
        }
    }

    fn others(proto: Proto, at: SocketAddr, errno: Errno) -> Refused {
        let reason = match errno {
            Errno::ADDRINUSE => "address already in use".to_owned(),
            Errno::ADDRNOTAVAIL => "cannot assign requested address".to_owned(),
            other => std::io::Error::from(other).to_string(),
        };
        Refused {
            reason: format!("failed to bind host port {at}/{proto}: {reason}"),
            holder: None,
            taken: errno == Errno::ADDRINUSE,
        }
    }
}

/// The first of `ports` that a program of the host uses at this address.
fn used_by_others(proto: Proto, address: IpAddr, ports: &RangeInclusive<u16>) -> Option<u16> {
    let transport = match proto {
        Proto::Tcp => sockets::Transport::Tcp,
        Proto::Udp => sockets::Transport::Udp,
        Proto::Sctp => return one_by_one(proto, address, ports),
    };
    match sockets::bound(transport, address.is_ipv4()) {
        Ok(bound) => bound
            .into_iter()
            .filter(|at| ports.contains(&at.port()))
            .filter(|at| at.ip() == address || at.ip().is_unspecified() || address.is_unspecified())
            .map(|at| at.port())
            .min(),
        // A kernel that cannot list its sockets.
        Err(_) => one_by_one(proto, address, ports),
    }
}

fn one_by_one(proto: Proto, address: IpAddr, ports: &RangeInclusive<u16>) -> Option<u16> {
    let mut ports = ports.clone();
    ports.find(|port| {
        matches!(
            bind(proto, SocketAddr::new(address, *port)),
            Err(Errno::ADDRINUSE)
        )
    })
}

/// Binds the port and keeps it. `Ok(None)`: the kernel has no sockets of this protocol, so nobody can be in the way.
fn bind(proto: Proto, at: SocketAddr) -> Result<Option<OwnedFd>, Errno> {
    match attempt(proto, at, false) {
        // Connections of a server that is gone may linger for a minute (TIME_WAIT) and do not count; a second try that
        // ignores them also listens for a moment, which fails where a living server does.
        Err(Errno::ADDRINUSE) if proto == Proto::Tcp => attempt(proto, at, true),
        Err(Errno::PROTONOSUPPORT | Errno::SOCKTNOSUPPORT | Errno::AFNOSUPPORT) if proto == Proto::Sctp => {
            Ok(None)
        }
        other => other,
    }
}

fn attempt(proto: Proto, at: SocketAddr, past_lingering: bool) -> Result<Option<OwnedFd>, Errno> {
    let family = if at.is_ipv4() {
        AddressFamily::INET
    } else {
        AddressFamily::INET6
    };
    let (kind, protocol) = match proto {
        Proto::Tcp => (SocketType::STREAM, None),
        Proto::Udp => (SocketType::DGRAM, None),
        Proto::Sctp => (SocketType::STREAM, Some(rustix::net::ipproto::SCTP)),
    };
    let socket = rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC, protocol)?;
    if at.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    sockopt::set_socket_reuseaddr(&socket, past_lingering)?;
    rustix::net::bind(&socket, &at)?;
    if past_lingering {
        rustix::net::listen(&socket, 0)?;
        return attempt_quietly(socket, at);
    }
    if proto == Proto::Udp && at.is_ipv4() {
        // What comes in although it should have been translated is dropped early. Over IPv6 it is served.
        let _ = sockopt::set_socket_recv_buffer_size(&socket, 1);
    }
    Ok(Some(socket))
}

/// Trades a listening socket for one that is only bound, so that nobody connects to it.
fn attempt_quietly(listening: OwnedFd, at: SocketAddr) -> Result<Option<OwnedFd>, Errno> {
    drop(listening);
    let family = if at.is_ipv4() {
        AddressFamily::INET
    } else {
        AddressFamily::INET6
    };
    let socket = rustix::net::socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    if at.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    sockopt::set_socket_reuseaddr(&socket, true)?;
    rustix::net::bind(&socket, &at)?;
    Ok(Some(socket))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::{Ipv4Addr, TcpListener, UdpSocket};

    fn local() -> IpAddr {
        // An address of its own keeps this test apart from every other program of the host.
        Ipv4Addr::new(127, 77, 1, (std::process::id() % 250) as u8 + 1).into()
    }

    fn take(
        ports: &mut Ports,
        container: &Id,
        proto: Proto,
        address: IpAddr,
        choice: PortChoice,
        count: u16,
    ) -> Result<u16, Refused> {
        let wanted = Wanted {
            proto,
            addresses: &[address],
            choice,
            count,
            served: &BTreeSet::new(),
        };
        ports.take(container, &wanted)
    }

    #[test]
    fn our_own_and_other_peoples_ports_are_refused_in_the_words_clients_know() {
        let mut ports = Ports::default();
        let (first, second) = (Id::random(), Id::random());
        let port = take(&mut ports, &first, Proto::Tcp, local(), PortChoice::Any, 1).unwrap();
        let own = take(
            &mut ports,
            &second,
            Proto::Tcp,
            local(),
            PortChoice::Fixed(port),
            1,
        )
        .unwrap_err();
        assert_eq!(
            own.reason,
            format!("Bind for {}:{port} failed: port is already allocated", local())
        );
        assert_eq!(own.holder.as_ref(), Some(&first));
        // The port is really held against others.
        assert!(TcpListener::bind((local(), port)).is_err());
        // The other transport is free.
        take(
            &mut ports,
            &second,
            Proto::Udp,
            local(),
            PortChoice::Fixed(port),
            1,
        )
        .unwrap();
        assert!(UdpSocket::bind((local(), port)).is_err());
        ports.release(&first);
        let listener = TcpListener::bind((local(), port)).unwrap();
        let others = take(
            &mut ports,
            &first,
            Proto::Tcp,
            local(),
            PortChoice::Fixed(port),
            1,
        )
        .unwrap_err();
        assert_eq!(
            others.reason,
            format!(
                "failed to bind host port {}:{port}/tcp: address already in use",
                local()
            )
        );
        drop(listener);
        take(
            &mut ports,
            &first,
            Proto::Tcp,
            local(),
            PortChoice::Fixed(port),
            1,
        )
        .unwrap();
    }

    #[test]
    fn a_range_gives_its_first_free_port() {
        let mut ports = Ports::default();
        let (container, base) = (Id::random(), 42100);
        let choice = PortChoice::Range(base, base + 2);
        let taken: Vec<u16> = (0..3)
            .map(|_| take(&mut ports, &container, Proto::Tcp, local(), choice, 1).unwrap())
            .collect();
        assert_eq!(taken, [base, base + 1, base + 2]);
        assert_eq!(
            take(&mut ports, &container, Proto::Tcp, local(), choice, 1)
                .unwrap_err()
                .reason,
            "all ports are allocated"
        );
    }

    #[test]
    fn a_long_range_is_looked_up_and_not_held() {
        let mut ports = Ports::default();
        let (first, second) = (Id::random(), Id::random());
        let (base, count) = (43000, 500);
        let whole = PortChoice::Fixed(base);
        let listener = TcpListener::bind((local(), base + 99)).unwrap();
        let refused = take(&mut ports, &first, Proto::Tcp, local(), whole, count).unwrap_err();
        assert!(
            refused
                .reason
                .contains(&format!(":{}/tcp: address already in use", base + 99)),
            "{refused:?}"
        );
        drop(listener);
        take(&mut ports, &first, Proto::Tcp, local(), whole, count).unwrap();
        assert!(ports.held.is_empty());
        for (choice, count) in [
            (PortChoice::Fixed(base + 499), 1),
            (PortChoice::Fixed(base + 450), 100),
        ] {
            let refused = take(&mut ports, &second, Proto::Tcp, local(), choice, count).unwrap_err();
            assert_eq!(refused.holder.as_ref(), Some(&first));
        }
        take(
            &mut ports,
            &second,
            Proto::Tcp,
            local(),
            PortChoice::Fixed(base + 500),
            2,
        )
        .unwrap();
        let refused = take(
            &mut ports,
            &first,
            Proto::Tcp,
            local(),
            PortChoice::Fixed(base + 501),
            3,
        )
        .unwrap_err();
        assert!(refused.reason.contains(&(base + 501).to_string()), "{refused:?}");
        // What was refused took nothing.
        take(
            &mut ports,
            &second,
            Proto::Tcp,
            local(),
            PortChoice::Fixed(base + 503),
            1,
        )
        .unwrap();
        ports.release(&first);
        take(
            &mut ports,
            &second,
            Proto::Tcp,
            local(),
            PortChoice::Fixed(base + 499),
            1,
        )
        .unwrap();
    }

    #[test]
    fn what_a_monitor_has_is_given_once_and_taken_again_in_one_change() {
        let address = IpAddr::from(std::net::Ipv6Addr::LOCALHOST);
        let (mut ports, container) = (Ports::default(), Id::random());
        let Ok(port) = take(&mut ports, &container, Proto::Tcp, address, PortChoice::Any, 1) else {
            println!("skipped: the host has no IPv6");
            return;
        };
        let monitor = ports.give(Proto::Tcp, port, address).unwrap();
        assert!(ports.give(Proto::Tcp, port, address).is_none());
        // It cannot be had while another process has it, and is held again once that is gone.
        ports.hold(&container);
        assert!(ports.give(Proto::Tcp, port, address).is_none());
        let served = ports.keep_only(&container, &[]);
        assert_eq!(served, BTreeSet::from([(Proto::Tcp, port, address)]));
        let again = Wanted {
            proto: Proto::Tcp,
            addresses: &[address],
            choice: PortChoice::Fixed(port),
            count: 1,
            served: &BTreeSet::new(),
        };
        let refused = ports.take(&container, &again).unwrap_err();
        assert!(refused.reason.ends_with("address already in use"), "{refused:?}");
        let again = Wanted {
            served: &served,
            ..again
        };
        assert_eq!(ports.take(&container, &again), Ok(port));
        drop(monitor);
        ports.hold(&container);
        assert!(ports.give(Proto::Tcp, port, address).is_some());
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

        /// Against a map of who has which port.
        #[test]
        fn nobody_gets_what_another_has(
            steps in proptest::collection::vec((0usize..3, 0u16..400, 1u16..150, any::<bool>()), 1..40),
        ) {
            let base = 44000u16;
            let address = IpAddr::from(Ipv4Addr::new(127, 78, 1, (std::process::id() % 250) as u8 + 1));
            let owners = [Id::random(), Id::random(), Id::random()];
            let mut ports = Ports::default();
            let mut model: BTreeMap<u16, usize> = BTreeMap::new();
            for (owner, offset, count, release) in steps {
                if release {
                    ports.release(&owners[owner]);
                    model.retain(|_, holder| *holder != owner);
                    continue;
                }
                let first = base + offset;
                let wanted = first..first + count;
                let in_the_way = wanted.clone().find_map(|port| model.get(&port));
                let taken = take(&mut ports, &owners[owner], Proto::Tcp, address, PortChoice::Fixed(first), count);
                match (taken, in_the_way) {
                    (Ok(port), None) => {
                        prop_assert_eq!(port, first);
                        model.extend(wanted.map(|port| (port, owner)));
                    }
                    (Err(refused), Some(_)) => {
                        let holder = owners.iter().position(|id| Some(id) == refused.holder.as_ref());
                        prop_assert!(wanted.clone().any(|port| model.get(&port).copied() == holder));
                    }
                    (taken, in_the_way) => prop_assert!(false, "{taken:?} although {in_the_way:?}"),
                }
            }
        }
    }

    #[test]
    fn an_address_of_another_host_cannot_be_published_on() {
        let mut ports = Ports::default();
        let elsewhere = Ipv4Addr::new(192, 0, 2, 250).into();
        let refused = take(
            &mut ports,
            &Id::random(),
            Proto::Tcp,
            elsewhere,
            PortChoice::Any,
            1,
        )
        .unwrap_err();
        assert!(
            refused.reason.ends_with("cannot assign requested address"),
            "{refused:?}"
        );
    }
}
