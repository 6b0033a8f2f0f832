//! The relay: takes what comes to published ports over IPv6 and hands it on to the container, which may know IPv4 alone.
//!
//! ```text
//!   client ──IPv6──> [::]:8080 ──> Server ──IPv4──> 172.17.0.2:80
//!                    (bound by `network`, held by the container's monitor)
//! ```
//!
//! The kernel translates addresses within a family only, and takes no answer to `::1` from a link; so what comes to a
//! published port over IPv6 and is not translated comes to a socket, and somebody has to read it. The sockets are bound
//! to the published ports themselves: nothing is redirected, what a firewall of the host says about the port holds, and
//! there is no other port at which the relay could be reached. They are the monitor's, which starts a process that runs
//! [`serve`] when the first client comes, so a port that nobody uses costs a descriptor. The process has no rights
//! ([`confine`]) and holds nothing but these sockets.
//!
//! Invariants: nothing a client or container sends makes it panic, wait, or use memory without bound; one client that
//! takes nothing holds up no other; what is taken from one side is given to the other whole and in order (TCP), and the
//! end of a direction is passed on as that.
//!
//! A container sees the host's address on its network instead of the client's.

mod confine;
mod connection;
mod flows;
mod poll;
mod server;

use std::io;
use std::net::{SocketAddr, SocketAddrV6};
use std::os::fd::AsFd;

use rustix::net::sockopt;
use serde::{Deserialize, Serialize};

pub use confine::confine;
pub use server::{RETIRE, serve};

/// Clients of one port that may wait to be accepted.
const BACKLOG: i32 = 1024;

/// Begins to listen on a socket that is bound to a port; once more does no harm.
///
/// Connections that were accepted here keep the port for a minute after their end (TIME_WAIT), also after the socket is
/// closed. So that the port can be had again meanwhile, they must be ones that share it (`SO_REUSEADDR`), which they take
/// from this socket; while somebody listens the port is had by nobody else all the same.
pub fn listen(socket: impl AsFd) -> io::Result<()> {
    sockopt::set_socket_reuseaddr(&socket, true)?;
    Ok(rustix::net::listen(&socket, BACKLOG)?)
}

/// What a port speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Transport {
    Tcp,
    Udp,
}

/// A published port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    pub transport: Transport,
    /// Where it is on the host.
    pub host: SocketAddrV6,
    /// Where it leads; nowhere while the container is on no network that ports lead into.
    pub target: Option<SocketAddr>,
}

impl Port {
    /// Whether it is the same port of the host, wherever it leads.
    pub fn is_at(&self, other: &Port) -> bool {
        (self.transport, self.host) == (other.transport, other.host)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_written_as_people_write_them() {
        let port = Port {
            transport: Transport::Udp,
            host: "[::]:53".parse().unwrap(),
            target: Some("172.17.0.2:5353".parse().unwrap()),
        };
        let text = serde_json::to_string(&port).unwrap();
        assert_eq!(
            text,
            r#"{"transport":"udp","host":"[::]:53","target":"172.17.0.2:5353"}"#
        );
        assert_eq!(serde_json::from_str::<Port>(&text).unwrap(), port);
        let elsewhere = Port {
            target: None,
            ..port.clone()
        };
        assert!(port.is_at(&elsewhere));
    }
}
