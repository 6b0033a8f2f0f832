//! Datagrams. What one client sends to one address of the host's port is a flow, with a socket of its own towards the
//! container, so that the container tells clients apart and its answers find back; it ends when nothing was sent either
//! way for [`IDLE`]. There are at most [`MOST_FLOWS`]; one more takes the place of the one that was silent longest.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::epoll::EventFlags;
use sys::datagram::{self, Local};

use crate::poll::Poll;

/// As long as Docker's proxy keeps them.
const IDLE: Duration = Duration::from_secs(90);
const MOST_FLOWS: usize = 1024;
/// Datagrams of one socket before others have their turn.
const BURST: usize = 64;
/// The longest there is.
pub(crate) const LONGEST: usize = 65535;

/// A published port.
#[derive(Debug)]
struct Mouth {
    socket: OwnedFd,
    target: Option<SocketAddr>,
    flows: BTreeMap<(SocketAddrV6, Local), u64>,
}

#[derive(Debug)]
struct Flow {
    mouth: u64,
    client: SocketAddrV6,
    local: Local,
    socket: UdpSocket,
    until: Instant,
}

/// All ports for datagrams, by the numbers they are watched under, and their flows.
#[derive(Debug, Default)]
pub(crate) struct Flows {
    mouths: BTreeMap<u64, Mouth>,
    flows: BTreeMap<u64, Flow>,
}

impl Flows {
    pub(crate) fn add(
        &mut self,
        poll: &mut Poll,
        socket: OwnedFd,
        target: Option<SocketAddr>,
    ) -> io::Result<()> {
        datagram::tell_destinations(&socket)?;
        let number = poll.number();
        poll.watch(number, &socket, EventFlags::IN)?;
        let mouth = Mouth {
            socket,
            target,
            flows: BTreeMap::new(),
        };
        self.mouths.insert(number, mouth);
        Ok(())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.flows.is_empty()
    }

    /// Reads what has come to the socket of this number; false when it is none of these.
    pub(crate) fn proceed(&mut self, poll: &mut Poll, number: u64, buffer: &mut [u8], now: Instant) -> bool {
        if self.mouths.contains_key(&number) {
            self.take_questions(poll, number, buffer, now);
        } else if self.flows.contains_key(&number) {
            self.take_answers(number, buffer, now);
        } else {
            return false;
        }
        true
    }

    fn take_questions(&mut self, poll: &mut Poll, number: u64, buffer: &mut [u8], now: Instant) {
        for _ in 0..BURST {
            let Some(mouth) = self.mouths.get(&number) else {
                return;
            };
            let received = match datagram::receive(&mouth.socket, buffer) {
                Ok(received) => received,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // Of one earlier answer, or of a signal.
                Err(_) => continue,
            };
            // No answer can come from where many are meant.
            let local = received.to.filter(|local| !local.address.is_multicast());
            let (Some(local), Some(target)) = (local, mouth.target) else {
                continue;
            };
            let known = mouth.flows.get(&(received.from, local)).copied();
            let known = known.or_else(|| self.open(poll, number, received.from, local, target, now).ok());
            if let Some(flow) = known.and_then(|known| self.flows.get_mut(&known)) {
                flow.until = now + IDLE;
                // One that cannot be handed on is lost, as any datagram may be.
                let _ = flow
                    .socket
                    .send(buffer.get(..received.length).unwrap_or_default());
            }
        }
    }

    fn open(
        &mut self,
        poll: &mut Poll,
        mouth: u64,
        client: SocketAddrV6,
        local: Local,
        target: SocketAddr,
        now: Instant,
    ) -> io::Result<u64> {
        if self.flows.len() >= MOST_FLOWS {
            let oldest = self.flows.iter().min_by_key(|(_, flow)| flow.until);
            if let Some(oldest) = oldest.map(|(number, _)| *number) {
                self.close(oldest);
            }
        }
        let any = match target {
            SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
            SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
        };
        let socket = UdpSocket::bind(any)?;
        socket.connect(target)?;
        socket.set_nonblocking(true)?;
        let number = poll.number();
        poll.watch(number, &socket, EventFlags::IN)?;
        if let Some(mouth) = self.mouths.get_mut(&mouth) {
            mouth.flows.insert((client, local), number);
        }
        let flow = Flow {
            mouth,
            client,
            local,
            socket,
            until: now + IDLE,
        };
        self.flows.insert(number, flow);
        Ok(number)
    }

    fn take_answers(&mut self, number: u64, buffer: &mut [u8], now: Instant) {
        for _ in 0..BURST {
            let Some(flow) = self.flows.get_mut(&number) else {
                return;
            };
            let count = match flow.socket.recv(buffer) {
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // Nobody listened when the last one came; the container may yet begin to.
                Err(_) => continue,
            };
            flow.until = now + IDLE;
            if let Some(mouth) = self.mouths.get(&flow.mouth) {
                let answer = buffer.get(..count).unwrap_or_default();
                let _ = datagram::send(&mouth.socket, answer, flow.local, flow.client);
            }
        }
    }

    fn close(&mut self, number: u64) {
        // The only descriptor of its socket, so nobody watches it any more either.
        if let Some(flow) = self.flows.remove(&number)
            && let Some(mouth) = self.mouths.get_mut(&flow.mouth)
        {
            mouth.flows.remove(&(flow.client, flow.local));
        }
    }

    /// Ends flows on which nothing was sent for long.
    pub(crate) fn expire(&mut self, now: Instant) {
        let over = self.flows.iter().filter(|(_, flow)| flow.until <= now);
        let over: Vec<u64> = over.map(|(number, _)| *number).collect();
        for number in over {
            self.close(number);
        }
    }

    /// Leaves the ports to others.
    pub(crate) fn leave(&mut self, poll: &Poll) {
        for mouth in self.mouths.values() {
            poll.forget(&mouth.socket);
        }
        *self = Flows::default();
    }
}
