//! Host ports: which are taken, by us or by others, and keeping them.
//!
//! Whether another process has a port is found by binding it, and the bound socket is then *kept* while the port is
//! published: translation happens before any socket is looked at, so a program that bound the same port later would
//! start, listen, and never hear from anybody; with the port held it is told `address already in use` at once. The
//! socket is never read and never listens. It costs one descriptor per published port.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use spec::Id;

use crate::model::{PortChoice, Proto};

/// Random ports come from the upper part of the dynamic range (RFC 6335), above what outgoing connections of most
/// hosts use.
const FIRST_RANDOM: u16 = 49153;

#[derive(Debug)]
struct Held {
    container: Id,
    _socket: Option<OwnedFd>,
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
    held: BTreeMap<(Proto, u16, IpAddr), Held>,
    next_random: u16,
}

impl Default for Ports {
    fn default() -> Ports {
        Ports {
            held: BTreeMap::new(),
            next_random: FIRST_RANDOM,
        }
    }
}

impl Ports {
    /// Takes one port on all of `addresses` at once for `container`.
    pub(crate) fn take(
        &mut self,
        container: &Id,
        proto: Proto,
        addresses: &[IpAddr],
        choice: PortChoice,
    ) -> Result<u16, Refused> {
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
            match self.take_everywhere(container, proto, addresses, port) {
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

    fn take_everywhere(
        &mut self,
        container: &Id,
        proto: Proto,
        addresses: &[IpAddr],
        port: u16,
    ) -> Result<(), Refused> {
        let mut sockets = Vec::new();
        for &address in addresses {
            if let Some(holder) = self.holder(proto, address, port) {
                let at = SocketAddr::new(address, port);
                return Err(Refused {
                    reason: format!("Bind for {at} failed: port is already allocated"),
                    holder: Some(holder.clone()),
                    taken: true,
                });
            }
            match bind(proto, SocketAddr::new(address, port)) {
                Ok(socket) => sockets.push((address, socket)),
                Err(errno) => {
                    let reason = match errno {
                        Errno::ADDRINUSE => "address already in use".to_owned(),
                        Errno::ADDRNOTAVAIL => "cannot assign requested address".to_owned(),
                        other => std::io::Error::from(other).to_string(),
                    };
                    let text = format!(
                        "failed to bind host port {}/{proto}: {reason}",
                        SocketAddr::new(address, port)
                    );
                    return Err(Refused {
                        reason: text,
                        holder: None,
                        taken: errno == Errno::ADDRINUSE,
                    });
                }
            }
        }
        for (address, socket) in sockets {
            self.held.insert(
                (proto, port, address),
                Held {
                    container: container.clone(),
                    _socket: socket,
                },
            );
        }
        Ok(())
    }

    /// The container whose port stands in the way.
    fn holder(&self, proto: Proto, address: IpAddr, port: u16) -> Option<&Id> {
        let lowest = IpAddr::from([0, 0, 0, 0]);
        let highest = IpAddr::from([0xffu8; 16]);
        self.held
            .range((proto, port, lowest)..=(proto, port, highest))
            .find(|((_, _, held), _)| {
                held.is_ipv4() == address.is_ipv4()
                    && (*held == address || held.is_unspecified() || address.is_unspecified())
            })
            .map(|(_, held)| &held.container)
    }

    /// Takes up what a container held when the daemon last ran. The socket is had if it can be.
    pub(crate) fn adopt(&mut self, container: &Id, proto: Proto, address: IpAddr, port: u16) {
        let socket = bind(proto, SocketAddr::new(address, port)).unwrap_or_else(|errno| {
            tracing::warn!(%address, port, %proto, %errno, "a published port could not be held again");
            None
        });
        self.held.insert(
            (proto, port, address),
            Held {
                container: container.clone(),
                _socket: socket,
            },
        );
    }

    /// Gives everything back that `container` holds.
    pub(crate) fn release(&mut self, container: &Id) {
        self.held.retain(|_, held| &held.container != container);
    }
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
    if proto == Proto::Udp {
        // What comes in although it should have been translated is dropped early.
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
    use std::net::{Ipv4Addr, TcpListener, UdpSocket};

    fn local() -> IpAddr {
        // An address of its own keeps this test apart from every other program of the host.
        Ipv4Addr::new(127, 77, 1, (std::process::id() % 250) as u8 + 1).into()
    }

    #[test]
    fn our_own_and_other_peoples_ports_are_refused_in_the_words_clients_know() {
        let mut ports = Ports::default();
        let (first, second) = (Id::random(), Id::random());
        let port = ports
            .take(&first, Proto::Tcp, &[local()], PortChoice::Any)
            .unwrap();
        let own = ports
            .take(&second, Proto::Tcp, &[local()], PortChoice::Fixed(port))
            .unwrap_err();
        assert_eq!(
            own.reason,
            format!("Bind for {}:{port} failed: port is already allocated", local())
        );
        assert_eq!(own.holder.as_ref(), Some(&first));
        // The port is really held against others.
        assert!(TcpListener::bind((local(), port)).is_err());
        // The other transport is free.
        ports
            .take(&second, Proto::Udp, &[local()], PortChoice::Fixed(port))
            .unwrap();
        assert!(UdpSocket::bind((local(), port)).is_err());
        ports.release(&first);
        let listener = TcpListener::bind((local(), port)).unwrap();
        let others = ports
            .take(&first, Proto::Tcp, &[local()], PortChoice::Fixed(port))
            .unwrap_err();
        assert_eq!(
            others.reason,
            format!(
                "failed to bind host port {}:{port}/tcp: address already in use",
                local()
            )
        );
        drop(listener);
        ports
            .take(&first, Proto::Tcp, &[local()], PortChoice::Fixed(port))
            .unwrap();
    }

    #[test]
    fn a_range_gives_its_first_free_port() {
        let mut ports = Ports::default();
        let (container, base) = (Id::random(), 42100);
        let choice = PortChoice::Range(base, base + 2);
        let taken: Vec<u16> = (0..3)
            .map(|_| ports.take(&container, Proto::Tcp, &[local()], choice).unwrap())
            .collect();
        assert_eq!(taken, [base, base + 1, base + 2]);
        assert_eq!(
            ports
                .take(&container, Proto::Tcp, &[local()], choice)
                .unwrap_err()
                .reason,
            "all ports are allocated"
        );
    }

    #[test]
    fn an_address_of_another_host_cannot_be_published_on() {
        let mut ports = Ports::default();
        let elsewhere = Ipv4Addr::new(192, 0, 2, 250).into();
        let refused = ports
            .take(&Id::random(), Proto::Tcp, &[elsewhere], PortChoice::Any)
            .unwrap_err();
        assert!(
            refused.reason.ends_with("cannot assign requested address"),
            "{refused:?}"
        );
    }
}
