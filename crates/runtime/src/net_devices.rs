//! Interfaces of the host that a container takes over (`linux.netDevices`, runtime-spec 1.3).
//!
//! An interface is in one network namespace at a time. It is moved from outside, by the caller, before the container's
//! hooks run, under the name it is to have there, with its permanent addresses of global scope, and set up. Until the
//! program has begun a [`Moved`] that is dropped brings it back as it was: a container that fails takes nothing along.
//! Later it is the container's. What the kernel does with it when the namespace ends is the kernel's choice: hardware
//! returns to the first namespace, a virtual interface is gone.
//!
//! Sources: runtime-spec config-linux.md "Network Devices", rtnetlink(7), network_namespaces(7).

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::io::Errno;
use spec::runtime::NetDevice;
use sys::namespace::{self, Kind};
use sys::netlink::{Failure, Message, Reply, Socket, flags};

use crate::error::{During, LaunchError, reason};
use crate::namespaces::Namespaces;

const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const IFLA_IFNAME: u16 = 3;
const IFLA_NET_NS_FD: u16 = 28;
const IFF_UP: u32 = 1;
/// Sizes of `struct ifinfomsg` and `struct ifaddrmsg`.
const IFINFO: usize = 16;
const IFADDR: usize = 8;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
const IFA_FLAGS: u16 = 8;
const IFA_RT_PRIORITY: u16 = 9;
const IFA_F_PERMANENT: u32 = 0x80;
const SCOPE_GLOBAL: u8 = 0;
/// Longest name of an interface (`IFNAMSIZ` without the NUL).
const MOST_NAME: usize = 15;

/// What a container takes over: names outside and inside, checked.
#[derive(Debug, Default)]
pub(crate) struct NetDevices {
    wanted: Vec<(String, String)>,
}

impl NetDevices {
    pub fn new(
        wanted: &BTreeMap<String, NetDevice>,
        namespaces: &Namespaces,
    ) -> Result<NetDevices, LaunchError> {
        if wanted.is_empty() {
            return Ok(NetDevices::default());
        }
        if !namespaces.own(Kind::Network) {
            return Err(LaunchError::Invalid(
                "linux.netDevices need a network namespace (linux.namespaces)".to_owned(),
            ));
        }
        let checked = check(wanted)?;
        let mut socket = Socket::route().during("talk to the kernel about interfaces")?;
        for (outside, _) in &checked {
            let place = format!("linux.netDevices.{outside}");
            if find(&mut socket, outside)
                .during(&format!("{place}: look it up"))?
                .is_none()
            {
                let why = format!("{place}: there is no such interface");
                return Err(LaunchError::Invalid(why));
            }
        }
        Ok(NetDevices { wanted: checked })
    }

    /// Moves all of them into the network namespace of the container whose process is `pid`.
    pub fn hand_over(&self, namespaces: &Namespaces, pid: i32) -> Result<Moved, LaunchError> {
        if self.wanted.is_empty() {
            return Ok(Moved::default());
        }
        let theirs = namespaces.network_of(pid)?;
        let socket = namespace::in_namespace(theirs.as_fd(), Kind::Network, Socket::route)
            .and_then(|socket| socket)
            .during("talk to the kernel about the container's interfaces")?;
        let mut here = Side {
            namespace: namespace::open(None, Kind::Network).during("the caller's network namespace")?,
            socket: Socket::route().during("talk to the kernel about interfaces")?,
        };
        let there = Side {
            namespace: theirs,
            socket,
        };
        let mut moved = Moved {
            there: Some(there),
            devices: Vec::new(),
        };
        for (outside, inside) in &self.wanted {
            moved.bring(&mut here, outside, inside)?;
        }
        Ok(moved)
    }
}

/// The names outside and inside, if they are names and no two are the same.
pub(crate) fn check(wanted: &BTreeMap<String, NetDevice>) -> Result<Vec<(String, String)>, LaunchError> {
    let mut names = BTreeSet::new();
    let mut checked = Vec::new();
    for (outside, device) in wanted {
        let place = format!("linux.netDevices.{outside}");
        let inside = if device.name.is_empty() {
            outside
        } else {
            &device.name
        };
        for name in [outside, inside] {
            check_name(name).map_err(|why| LaunchError::Invalid(format!("{place}: {why}")))?;
        }
        if !names.insert(inside) {
            let why = format!("{place}: another interface is to be called {inside:?} too");
            return Err(LaunchError::Invalid(why));
        }
        checked.push((outside.clone(), inside.clone()));
    }
    Ok(checked)
}

fn check_name(name: &str) -> Result<(), String> {
    let odd = |c: char| c == '/' || c == ':' || c == '%' || c.is_whitespace() || c == '\0';
    if name.is_empty() || name == "." || name == ".." || name.len() > MOST_NAME || name.contains(odd) {
        return Err(format!("{name:?} is no name of an interface"));
    }
    Ok(())
}

fn words(failure: &Failure) -> String {
    match &failure.text {
        Some(text) => text.clone(),
        None => reason(&failure.errno.into()),
    }
}

/// A network namespace and a socket in it.
#[derive(Debug)]
struct Side {
    namespace: OwnedFd,
    socket: Socket,
}

/// An interface as it was before it was moved.
#[derive(Debug)]
struct Device {
    index: u32,
    name: String,
    up: bool,
    addresses: Vec<Address>,
}

/// An address as the kernel tells it: `struct ifaddrmsg`, and the attributes that can be asked for again.
#[derive(Debug)]
struct Address {
    fixed: [u8; IFADDR],
    attributes: Vec<(u16, Vec<u8>)>,
}

impl Address {
    fn message(&self, index: u32) -> Message {
        let mut fixed = self.fixed;
        fixed[4..].copy_from_slice(&index.to_ne_bytes());
        let mut message = Message::new(RTM_NEWADDR, flags::CREATE | flags::EXCL, &fixed);
        for (kind, payload) in &self.attributes {
            message.push(*kind, payload);
        }
        message
    }
}

/// Interfaces that are in a container's namespace. Dropped, they return; [`Moved::keep`] leaves them there.
#[derive(Debug, Default)]
pub(crate) struct Moved {
    there: Option<Side>,
    devices: Vec<(String, Device)>,
}

impl Moved {
    fn bring(&mut self, here: &mut Side, outside: &str, inside: &str) -> Result<(), LaunchError> {
        let Some(there) = &mut self.there else {
            return Ok(());
        };
        let failed = |why: String| LaunchError::Setup {
            step: format!("linux.netDevices.{outside}: move it into the container"),
            reason: why,
            errno: None,
        };
        let device = take(here, outside)
            .map_err(|failure| failed(words(&failure)))?
            .ok_or_else(|| failed("there is no such interface any more".to_owned()))?;
        let taken = || failed(format!("there is an interface {inside:?} already"));
        if find(&mut there.socket, inside)
            .map_err(|failure| failed(words(&failure)))?
            .is_some()
        {
            return Err(taken());
        }
        if let Err(failure) = relocate(here, there, &device, inside) {
            // The kernel moves first and names it then: it may have got there all the same.
            if matches!(find(&mut there.socket, outside), Ok(Some(_))) {
                self.devices.push((outside.to_owned(), device));
            }
            return Err(match failure.errno {
                Errno::EXIST => taken(),
                _ => failed(words(&failure)),
            });
        }
        let furnished = furnish(there, &device, inside, true);
        self.devices.push((inside.to_owned(), device));
        furnished.map_err(|failure| failed(words(&failure)))
    }

    /// It is the container's now.
    pub fn keep(&mut self) {
        self.devices.clear();
    }
}

impl Drop for Moved {
    fn drop(&mut self) {
        let Some(there) = &mut self.there else { return };
        if self.devices.is_empty() {
            return;
        }
        let (Ok(namespace), Ok(socket)) = (namespace::open(None, Kind::Network), Socket::route()) else {
            return;
        };
        let mut here = Side { namespace, socket };
        for (inside, device) in self.devices.drain(..).rev() {
            // What failed is told already; of this nobody could make anything.
            let _ = find(&mut there.socket, &inside).and_then(|link| {
                let Some((index, _)) = link else { return Ok(()) };
                let moving = Device { index, ..device };
                relocate(there, &mut here, &moving, &moving.name)?;
                furnish(&mut here, &moving, &moving.name, moving.up)
            });
        }
    }
}

fn ifinfo(index: u32, up: bool) -> [u8; IFINFO] {
    let mut bytes = [0u8; IFINFO];
    bytes[4..8].copy_from_slice(&index.to_ne_bytes());
    if up {
        bytes[8..12].copy_from_slice(&IFF_UP.to_ne_bytes());
        bytes[12..16].copy_from_slice(&IFF_UP.to_ne_bytes());
    }
    bytes
}

/// Its index, and whether it is up.
fn find(socket: &mut Socket, name: &str) -> Result<Option<(u32, bool)>, Failure> {
    let reply = match socket.get(&Message::new(RTM_GETLINK, 0, &ifinfo(0, false)).string(IFLA_IFNAME, name)) {
        Ok(reply) => reply,
        Err(failure) if failure.errno == Errno::NODEV => return Ok(None),
        Err(failure) => return Err(failure),
    };
    let fixed = reply.and_then(|reply| reply.fixed::<IFINFO>());
    Ok(fixed.map(|fixed| {
        let number = |at: usize| u32::from_ne_bytes([fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]]);
        (number(4), number(8) & IFF_UP != 0)
    }))
}

/// What has to be put back once it has arrived: moving takes its addresses.
fn take(here: &mut Side, name: &str) -> Result<Option<Device>, Failure> {
    let Some((index, up)) = find(&mut here.socket, name)? else {
        return Ok(None);
    };
    let replies = here.socket.dump(&Message::new(RTM_GETADDR, 0, &[0; IFADDR]))?;
    let addresses = replies.iter().filter_map(|reply| address(reply, index)).collect();
    Ok(Some(Device {
        index,
        name: name.to_owned(),
        up,
        addresses,
    }))
}

/// A permanent address of global scope of this interface.
fn address(reply: &Reply, index: u32) -> Option<Address> {
    let fixed: [u8; IFADDR] = reply.fixed()?;
    let attributes = reply.attributes(IFADDR);
    let flagged = attributes.u32(IFA_FLAGS).unwrap_or(u32::from(fixed[2]));
    if fixed[4..] != index.to_ne_bytes() || fixed[3] != SCOPE_GLOBAL || flagged & IFA_F_PERMANENT == 0 {
        return None;
    }
    let again = [IFA_ADDRESS, IFA_LOCAL, IFA_BROADCAST, IFA_FLAGS, IFA_RT_PRIORITY];
    Some(Address {
        fixed,
        attributes: attributes
            .filter(|(kind, _)| again.contains(kind))
            .map(|(kind, payload)| (kind, payload.to_vec()))
            .collect(),
    })
}

/// Moves it, and gives it its name there.
fn relocate(from: &mut Side, to: &mut Side, device: &Device, name: &str) -> Result<(), Failure> {
    let target = u32::try_from(to.namespace.as_raw_fd()).map_err(|_| Failure::from(Errno::BADF))?;
    let message = Message::new(RTM_NEWLINK, 0, &ifinfo(device.index, false))
        .u32(IFLA_NET_NS_FD, target)
        .string(IFLA_IFNAME, name);
    from.socket.execute(&[message])
}

/// Gives it its addresses again.
fn furnish(side: &mut Side, device: &Device, name: &str, up: bool) -> Result<(), Failure> {
    let (index, _) = find(&mut side.socket, name)?.ok_or(Failure::from(Errno::NODEV))?;
    let mut messages: Vec<Message> = device.addresses.iter().map(|a| a.message(index)).collect();
    if up {
        messages.push(Message::new(RTM_NEWLINK, 0, &ifinfo(index, true)));
    }
    side.socket.execute(&messages)
}
