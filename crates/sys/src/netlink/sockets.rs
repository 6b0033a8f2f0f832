//! Which ports the programs of a network namespace have bound: one question to the kernel (sock_diag(7)) instead of one
//! bind(2) for each port.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{Message, Reply, Socket};

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
/// TCP states that hold a port against others: listening, and bound without listening (where the kernel tells).
const TCP_STATES: u32 = 1 << 10 | 1 << 13;
/// Length of `struct inet_diag_msg` up to the destination port.
const SOURCE: usize = 24;

/// A transport whose sockets can be listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// Where sockets of the calling thread's network namespace are bound. A socket of both families at the unspecified
/// IPv6 address is listed for IPv6 alone, as the kernel has it.
pub fn bound(transport: Transport, ipv4: bool) -> io::Result<Vec<SocketAddr>> {
    let mut socket = Socket::open(Some(rustix::net::netlink::SOCK_DIAG))?;
    let (protocol, states) = match transport {
        Transport::Tcp => (6u8, TCP_STATES),
        Transport::Udp => (17, u32::MAX),
    };
    let family = if ipv4 { AF_INET } else { AF_INET6 };
    // struct inet_diag_req_v2: family, protocol, extensions, padding, states, then a socket's identity, which may be any.
    let mut request = [0u8; 56];
    request[0] = family;
    request[1] = protocol;
    request[4..8].copy_from_slice(&states.to_ne_bytes());
    let replies = socket.dump(&Message::new(SOCK_DIAG_BY_FAMILY, 0, &request))?;
    Ok(replies.iter().filter_map(source).collect())
}

fn source(reply: &Reply) -> Option<SocketAddr> {
    let fixed: [u8; SOURCE] = reply.fixed()?;
    let port = u16::from_be_bytes([fixed[4], fixed[5]]);
    let address: IpAddr = match fixed[0] {
        AF_INET => Ipv4Addr::new(fixed[8], fixed[9], fixed[10], fixed[11]).into(),
        _ => Ipv6Addr::from(<[u8; 16]>::try_from(&fixed[8..24]).ok()?).into(),
    };
    Some(SocketAddr::new(address, port))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, UdpSocket};

    #[test]
    fn what_is_bound_is_listed() {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let udp = UdpSocket::bind("[::1]:0").unwrap();
        let listening = bound(Transport::Tcp, true).unwrap();
        assert!(listening.contains(&listener.local_addr().unwrap()));
        assert!(!listening.contains(&tcp), "that one is closed");
        assert!(
            bound(Transport::Udp, false)
                .unwrap()
                .contains(&udp.local_addr().unwrap())
        );
        assert!(
            !bound(Transport::Tcp, false)
                .unwrap()
                .contains(&listener.local_addr().unwrap())
        );
    }
}
