//! The embedded resolver: answers for container names, forwards everything else.
//!
//! ```text
//!   container ── 127.0.0.11:53 ──(its port rewritten)────> Sockets ──> Server ──> upstream servers
//!                                                                        │
//!                                  <run_dir>/dns/*.json <── tables ──────┘   (written by `network`)
//! ```
//!
//! The sockets are opened inside the container's network namespace and handed to whoever drives the [`Server`]; the
//! sockets towards upstream servers are opened in the driver's own namespace. The server holds no thread and never
//! blocks: one epoll descriptor says when [`Server::handle_ready`] has work, [`Server::next_deadline`] says when to
//! call it regardless.
//!
//! Invariants: a packet never makes it panic, allocate without bound, or wait; names in a known network never leave
//! the host; what is forwarded goes out and comes back unchanged but for its transaction number.
//!
//! Sources: RFC 1035 (messages), RFC 6891 (EDNS0), RFC 7766 (TCP), RFC 2308 (a name without records of a type).

mod exchange;
pub mod log;
mod server;
mod stream;
pub mod table;
mod wire;

use std::io;
use std::net::{TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::path::PathBuf;

pub use server::Server;

/// Where containers find the resolver.
pub const ADDRESS: std::net::Ipv4Addr = std::net::Ipv4Addr::new(127, 0, 0, 11);

/// What a server answers from.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Config {
    /// The container's own table ([`table::Container`]); it names the networks' tables, which lie beside it.
    pub container: PathBuf,
}

/// A server's sockets inside the container's namespace.
#[derive(Debug)]
pub struct Sockets {
    /// Bound datagram socket.
    pub udp: OwnedFd,
    /// Listening stream socket.
    pub tcp: OwnedFd,
}

impl Sockets {
    /// Opens both in the calling thread's network namespace, where loopback must be up, and tells their ports
    /// (datagram, stream). The ports are the kernel's choice, so that a name server inside the container may have
    /// port 53 for itself.
    pub fn open() -> io::Result<(Sockets, (u16, u16))> {
        let udp = UdpSocket::bind((ADDRESS, 0))?;
        let tcp = TcpListener::bind((ADDRESS, 0))?;
        let ports = (udp.local_addr()?.port(), tcp.local_addr()?.port());
        Ok((
            Sockets {
                udp: udp.into(),
                tcp: tcp.into(),
            },
            ports,
        ))
    }
}
