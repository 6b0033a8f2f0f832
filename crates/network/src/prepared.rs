//! Network namespaces made ahead of need.
//!
//! Making one, with loopback up, the resolver's sockets bound and a veth pair into it, takes the kernel milliseconds;
//! what is left to do for a container that finds one ready is to put the pair on a bridge and give it addresses. The
//! pool holds each only by descriptors of this process: when the daemon dies, however it dies, the kernel takes the
//! namespaces apart, and the host's ends of the pairs go with them.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use rustix::io::Errno;
use sys::netlink::Socket;

use crate::error::Error;
use crate::link::{self, HostEnd, PeerEnd};

/// A namespace with loopback up, and what was opened inside it.
#[derive(Debug)]
pub(crate) struct Ready {
    pub(crate) namespace: OwnedFd,
    /// Configures the namespace from outside.
    pub(crate) route: Socket,
    /// Where the kernel has a packet filter.
    pub(crate) netfilter: std::io::Result<Socket>,
    pub(crate) resolver: (dns::Sockets, (u16, u16)),
    /// The pair that leads into it.
    pub(crate) pair: Option<Pair>,
}

/// A veth pair, the peer inside and down, the host's end on no bridge.
#[derive(Debug)]
pub(crate) struct Pair {
    pub(crate) host_link: String,
    pub(crate) peer_index: u32,
}

/// The pool.
#[derive(Debug)]
pub(crate) struct Prepared {
    alias: String,
    size: usize,
    ready: Mutex<Vec<Ready>>,
}

/// A name for the host's end of a pair. 40 random bits; one that is taken makes the kernel say so.
pub(crate) fn host_link_name() -> String {
    format!("veth{:010x}", rand::random::<u64>() & 0xff_ffff_ffff)
}

impl Prepared {
    pub(crate) fn new(tag: &str, size: usize) -> Prepared {
        Prepared {
            alias: format!("{tag}:prepared"),
            size,
            ready: Mutex::new(Vec::new()),
        }
    }

    /// One from the pool, or a new one without a pair.
    pub(crate) fn take(&self) -> Result<Ready, Error> {
        match self.pool().pop() {
            Some(ready) => Ok(ready),
            None => make(),
        }
    }

    /// Back into the pool, untouched.
    pub(crate) fn put_back(&self, ready: Ready) {
        if ready.pair.is_some() {
            self.pool().push(ready);
        }
    }

    fn pool(&self) -> std::sync::MutexGuard<'_, Vec<Ready>> {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether more are wanted.
    pub(crate) fn is_short(&self) -> bool {
        self.pool().len() < self.size
    }

    /// Whether there are fewer than `wanted`, as far as so many are wanted at all.
    pub(crate) fn has_fewer(&self, wanted: usize) -> bool {
        self.pool().len() < wanted.min(self.size)
    }

    /// Makes one more. `host` is a socket of the host's namespace.
    pub(crate) fn fill(&self, host: &mut Socket) -> Result<(), Error> {
        let mut ready = make()?;
        let name = host_link_name();
        let end = HostEnd {
            name: &name,
            alias: &self.alias,
            bridge: None,
            isolated: false,
            hairpin: false,
            mtu: 1500,
        };
        let peer_index = make_pair(host, &mut ready.route, ready.namespace.as_fd(), &end, "eth0")?;
        ready.pair = Some(Pair {
            host_link: name,
            peer_index,
        });
        self.pool().push(ready);
        Ok(())
    }

    /// The host's ends of the pairs that are ready.
    pub(crate) fn links(&self) -> Vec<String> {
        let pool = self.pool();
        let pairs = pool.iter().filter_map(|ready| ready.pair.as_ref());
        pairs.map(|pair| pair.host_link.clone()).collect()
    }

    /// Gives up what is ready.
    pub(crate) fn drain(&self) {
        self.pool().clear();
    }
}

type Opened = (Socket, std::io::Result<Socket>, (dns::Sockets, (u16, u16)));

/// Inside a new namespace.
fn open() -> std::io::Result<Opened> {
    let mut route = Socket::route()?;
    route.execute(&[link::up(link::LOOPBACK)])?;
    Ok((route, Socket::netfilter(), dns::Sockets::open()?))
}

fn make() -> Result<Ready, Error> {
    let (namespace, opened) = sys::namespace::create_with(sys::namespace::Kind::Network, open)
        .map_err(Error::io("make a network namespace"))?;
    ready(namespace, opened)
}

/// Sets up a new namespace that somebody else made, without a pair.
pub(crate) fn set_up(namespace: OwnedFd) -> Result<Ready, Error> {
    let opened = sys::namespace::in_namespace(namespace.as_fd(), sys::namespace::Kind::Network, open)
        .map_err(Error::io("enter a new network namespace"))?;
    ready(namespace, opened)
}

fn ready(namespace: OwnedFd, opened: std::io::Result<Opened>) -> Result<Ready, Error> {
    let (route, netfilter, resolver) =
        opened.map_err(Error::io("set up loopback in a new network namespace"))?;
    Ok(Ready {
        namespace,
        route,
        netfilter,
        resolver,
        pair: None,
    })
}

/// Makes a pair into the namespace and gives the peer's index. `inside` is a socket that was opened there.
pub(crate) fn make_pair(
    host: &mut Socket,
    inside: &mut Socket,
    namespace: BorrowedFd<'_>,
    end: &HostEnd<'_>,
    name: &str,
) -> Result<u32, Error> {
    let action = || format!("make the link {} into a container", end.name);
    let peer = PeerEnd {
        namespace,
        name,
        mac: None,
    };
    link::create_pair(host, end, &peer).map_err(Error::kernel(action()))?;
    let found = link::find(inside, name).map_err(Error::kernel(action()))?;
    found
        .map(|link| link.index)
        .ok_or_else(|| Error::kernel(action())(Errno::NODEV.into()))
}
