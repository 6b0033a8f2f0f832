//! Netlink, spoken synchronously: sockets of the route and netfilter families, a builder for messages with nested
//! attributes, several requests in one `sendmsg` with every acknowledgement collected, and dumps.
//!
//! The kernel works a request off inside `sendmsg` (netlink(7)), so a batch of n changes costs one system call to
//! send and one small read per acknowledgement; nothing is asynchronous about it and no thread is needed.
//!
//! A socket belongs to the network namespace in which it was *opened*, not to the thread that uses it later. One that
//! was opened inside a container's namespace therefore configures that namespace from outside.
//!
//! Failure: [`Failure`] carries the errno, the kernel's own extended-ack text where it gave one, and the position of
//! the refused request in the batch. Replies are parsed with every length checked; a reply that does not hold together
//! is an `EBADMSG`, never a panic.

pub mod sockets;

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

/// Fixed sizes of linux/netlink.h.
const HEADER: usize = 16;
const ATTRIBUTE_HEADER: usize = 4;
/// Bit in an attribute's type that says its payload is attributes again.
const NESTED: u16 = 0x8000;
const KIND_MASK: u16 = 0x3fff;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const FLAG_REQUEST: u16 = 0x1;
const FLAG_ACK: u16 = 0x4;
const FLAG_DUMP: u16 = 0x300;
const FLAG_DUMP_INTERRUPTED: u16 = 0x10;
const FLAG_CAPPED: u16 = 0x100;
const FLAG_ACK_TLVS: u16 = 0x200;

/// Request flags a caller adds to a message (linux/netlink.h).
pub mod flags {
    /// Replace what exists.
    pub const REPLACE: u16 = 0x100;
    /// Fail with `EEXIST` when it exists.
    pub const EXCL: u16 = 0x200;
    /// Make it when it does not exist.
    pub const CREATE: u16 = 0x400;
    /// Add to the end of a list.
    pub const APPEND: u16 = 0x800;
}

const NETLINK_ADD_MEMBERSHIP: libc::c_int = 1;
const NETLINK_CAP_ACK: libc::c_int = 10;
const NETLINK_EXT_ACK: libc::c_int = 11;

const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const SUBSYSTEM_NFTABLES: u16 = 10;

/// Largest single read; the kernel fills dump buffers of at most 32 KiB.
const RECEIVE_SIZE: usize = 64 * 1024;

/// One request under construction: header, fixed part, attributes.
#[derive(Debug, Clone)]
pub struct Message {
    bytes: Vec<u8>,
}

impl Message {
    /// A request of `kind` (an `RTM_*` number, or subsystem and message of nfnetlink) with extra [`flags`].
    pub fn new(kind: u16, flags: u16, fixed: &[u8]) -> Message {
        let mut bytes = Vec::with_capacity(128);
        bytes.extend_from_slice(&0u32.to_ne_bytes());
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(&(flags | FLAG_REQUEST).to_ne_bytes());
        bytes.extend_from_slice(&[0; 8]);
        bytes.extend_from_slice(fixed);
        let mut message = Message { bytes };
        message.pad();
        message
    }

    /// A nf_tables request: `message` is an `NFT_MSG_*` number, `family` an `NFPROTO_*` one.
    pub fn nftables(message: u16, flags: u16, family: u8) -> Message {
        Message::new(SUBSYSTEM_NFTABLES << 8 | message, flags, &[family, 0, 0, 0])
    }

    /// Bytes so far, to keep attributes below the 64 KiB that their length field can say.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether the message holds nothing but its header.
    pub fn is_empty(&self) -> bool {
        self.bytes.len() <= HEADER
    }

    /// Adds an attribute of raw bytes.
    pub fn bytes(mut self, kind: u16, payload: &[u8]) -> Message {
        self.push(kind, payload);
        self
    }

    /// Adds an attribute of raw bytes in place.
    pub fn push(&mut self, kind: u16, payload: &[u8]) {
        let length = (ATTRIBUTE_HEADER + payload.len()) as u16;
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(payload);
        self.pad();
    }

    /// Adds a NUL-terminated string.
    pub fn string(self, kind: u16, text: &str) -> Message {
        let mut payload = Vec::with_capacity(text.len() + 1);
        payload.extend_from_slice(text.as_bytes());
        payload.push(0);
        self.bytes(kind, &payload)
    }

    /// Adds one byte.
    pub fn u8(self, kind: u16, value: u8) -> Message {
        self.bytes(kind, &[value])
    }

    /// Adds a 32-bit number in the machine's order, as NETLINK_ROUTE wants them.
    pub fn u32(self, kind: u16, value: u32) -> Message {
        self.bytes(kind, &value.to_ne_bytes())
    }

    /// Adds a 32-bit number in network order, as nf_tables wants them.
    pub fn be32(self, kind: u16, value: u32) -> Message {
        self.bytes(kind, &value.to_be_bytes())
    }

    /// Adds an attribute that holds the attributes (and raw bytes) that `fill` adds.
    pub fn nest(mut self, kind: u16, fill: impl FnOnce(Message) -> Message) -> Message {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&0u16.to_ne_bytes());
        self.bytes.extend_from_slice(&(kind | NESTED).to_ne_bytes());
        self = fill(self);
        let length = (self.bytes.len() - start) as u16;
        self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self
    }

    /// Adds raw bytes where an attribute's payload begins with a fixed structure (`IFLA_INFO_DATA` of a veth peer).
    pub fn raw(mut self, payload: &[u8]) -> Message {
        self.bytes.extend_from_slice(payload);
        self.pad();
        self
    }

    /// What follows the header, to put a part built elsewhere into another message.
    pub fn body(&self) -> &[u8] {
        self.bytes.get(HEADER..).unwrap_or_default()
    }

    fn pad(&mut self) {
        while !self.bytes.len().is_multiple_of(4) {
            self.bytes.push(0);
        }
    }

    /// Writes the finished message behind `into`.
    fn seal(&self, into: &mut Vec<u8>, sequence: u32, extra_flags: u16) {
        let start = into.len();
        into.extend_from_slice(&self.bytes);
        into[start..start + 4].copy_from_slice(&(self.bytes.len() as u32).to_ne_bytes());
        let flags = u16::from_ne_bytes([into[start + 6], into[start + 7]]) | extra_flags;
        into[start + 6..start + 8].copy_from_slice(&flags.to_ne_bytes());
        into[start + 8..start + 12].copy_from_slice(&sequence.to_ne_bytes());
    }
}

/// The kernel refused a request, or the talk with it failed.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{}{errno}", text.as_deref().map(|t| format!("{t}: ")).unwrap_or_default())]
pub struct Failure {
    /// Position of the refused request in its batch.
    pub index: usize,
    /// The kernel's reason.
    pub errno: Errno,
    /// The kernel's extended-ack sentence.
    pub text: Option<String>,
}

impl From<Errno> for Failure {
    fn from(errno: Errno) -> Failure {
        Failure {
            index: 0,
            errno,
            text: None,
        }
    }
}

impl From<Failure> for io::Error {
    fn from(failure: Failure) -> io::Error {
        io::Error::new(io::Error::from(failure.errno).kind(), failure.to_string())
    }
}

/// One message of a dump or a notification, header taken off.
#[derive(Debug, Clone)]
pub struct Reply {
    /// The message's type.
    pub kind: u16,
    /// The port of the socket whose request it answers or tells of; 0 where the kernel acted by itself.
    pub port: u32,
    /// Fixed part and attributes.
    pub payload: Vec<u8>,
}

impl From<Frame> for Reply {
    fn from(frame: Frame) -> Reply {
        Reply {
            kind: frame.kind,
            port: frame.port,
            payload: frame.payload,
        }
    }
}

impl Reply {
    /// The first `N` bytes, the family's fixed structure.
    pub fn fixed<const N: usize>(&self) -> Option<[u8; N]> {
        self.payload.get(..N)?.try_into().ok()
    }

    /// The attributes behind a fixed structure of `fixed` bytes.
    pub fn attributes(&self, fixed: usize) -> Attributes<'_> {
        Attributes {
            bytes: self.payload.get(align(fixed)..).unwrap_or_default(),
        }
    }
}

/// Walks attributes; stops at the first one that does not fit.
#[derive(Debug, Clone)]
pub struct Attributes<'a> {
    bytes: &'a [u8],
}

impl<'a> Attributes<'a> {
    /// The attributes in a nested payload.
    pub fn of(bytes: &'a [u8]) -> Attributes<'a> {
        Attributes { bytes }
    }

    /// The payload of the first attribute of `kind`.
    pub fn get(&self, kind: u16) -> Option<&'a [u8]> {
        self.clone().find(|(k, _)| *k == kind).map(|(_, payload)| payload)
    }

    /// A string attribute without its NUL.
    pub fn text(&self, kind: u16) -> Option<String> {
        let bytes = self.get(kind)?;
        let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
        Some(String::from_utf8_lossy(bytes.get(..end)?).into_owned())
    }

    /// A 32-bit number in the machine's order.
    pub fn u32(&self, kind: u16) -> Option<u32> {
        Some(u32::from_ne_bytes(self.get(kind)?.get(..4)?.try_into().ok()?))
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<(u16, &'a [u8])> {
        let length = u16::from_ne_bytes(self.bytes.get(..2)?.try_into().ok()?) as usize;
        let kind = u16::from_ne_bytes(self.bytes.get(2..4)?.try_into().ok()?) & KIND_MASK;
        let payload = self.bytes.get(ATTRIBUTE_HEADER..length)?;
        self.bytes = self.bytes.get(align(length)..).unwrap_or_default();
        Some((kind, payload))
    }
}

/// Netlink aligns everything to four bytes.
fn align(length: usize) -> usize {
    (length + 3) & !3
}

/// A netlink socket of the namespace it was opened in.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    sequence: u32,
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Socket {
    /// Links, addresses, routes, neighbours (rtnetlink(7)).
    pub fn route() -> io::Result<Socket> {
        Socket::open(None)
    }

    /// nf_tables.
    pub fn netfilter() -> io::Result<Socket> {
        Socket::open(Some(rustix::net::netlink::NETFILTER))
    }

    fn open(protocol: Option<rustix::net::Protocol>) -> io::Result<Socket> {
        let fd = rustix::net::socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            protocol,
        )?;
        rustix::net::bind(&fd, &SocketAddrNetlink::new(0, 0))?;
        let socket = Socket { fd, sequence: 1 };
        // Without these the kernel echoes each refused request whole and keeps its explanation to itself.
        socket.option(libc::SOL_NETLINK, NETLINK_CAP_ACK, 1)?;
        socket.option(libc::SOL_NETLINK, NETLINK_EXT_ACK, 1)?;
        Ok(socket)
    }

    /// Joins a multicast group; [`Socket::notifications`] then reads what is announced there.
    pub fn subscribe(&self, group: u32) -> io::Result<()> {
        self.option(libc::SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, group as libc::c_int)
    }

    fn option(&self, level: libc::c_int, name: libc::c_int, value: libc::c_int) -> io::Result<()> {
        // SAFETY: the descriptor is owned by `self`, and the pointer and length describe one c_int that outlives the
        // call. rustix has no safe wrapper for SOL_NETLINK options.
        let result = unsafe {
            libc::setsockopt(
                self.fd.as_raw_fd(),
                level,
                name,
                std::ptr::from_ref(&value).cast(),
                size_of::<libc::c_int>() as libc::socklen_t,
            )
        };
        if result == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    }

    fn next_sequence(&mut self) -> u32 {
        self.sequence = self.sequence.wrapping_add(1).max(1);
        self.sequence
    }

    fn transmit(&self, bytes: &[u8]) -> Result<(), Failure> {
        // netlink_sendmsg refuses what exceeds the send buffer, whose default is about 200 KiB.
        if bytes.len() > 128 * 1024 {
            let size = libc::c_int::try_from(bytes.len() * 2).unwrap_or(libc::c_int::MAX);
            let _ = self.option(libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, size);
        }
        let sent = rustix::io::retry_on_intr(|| rustix::net::send(&self.fd, bytes, SendFlags::empty()))?;
        if sent == bytes.len() {
            Ok(())
        } else {
            Err(Errno::MSGSIZE.into())
        }
    }

    /// Reads one datagram and splits it. `None` when nothing waits and `wait` is false.
    fn receive(&self, wait: bool) -> Result<Option<Vec<Frame>>, Failure> {
        let mut buffer = vec![0u8; RECEIVE_SIZE];
        let flags = if wait {
            RecvFlags::empty()
        } else {
            RecvFlags::DONTWAIT
        };
        let length = match rustix::io::retry_on_intr(|| {
            rustix::net::recv(&self.fd, &mut buffer[..], flags | RecvFlags::TRUNC).map(|(_, length)| length)
        }) {
            Ok(length) => length,
            Err(Errno::AGAIN) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        };
        let bytes = buffer.get(..length).ok_or(Failure::from(Errno::MSGSIZE))?;
        frames(bytes).map(Some)
    }

    /// Sends all `messages` in one `sendmsg` and gives each one's outcome, in order. A refused request does not keep
    /// the kernel from working off those behind it.
    pub fn send(&mut self, messages: &[Message]) -> Result<Vec<Result<(), Failure>>, Failure> {
        if messages.is_empty() {
            return Ok(Vec::new());
        }
        let mut bytes = Vec::new();
        let mut first = 0;
        for (index, message) in messages.iter().enumerate() {
            let sequence = self.next_sequence();
            if index == 0 {
                first = sequence;
            }
            message.seal(&mut bytes, sequence, FLAG_ACK);
        }
        self.transmit(&bytes)?;
        let mut outcomes: Vec<Option<Result<(), Failure>>> = vec![None; messages.len()];
        let mut missing = messages.len();
        while missing > 0 {
            for frame in self.receive(true)?.unwrap_or_default() {
                let index = frame.sequence.wrapping_sub(first) as usize;
                let Some(slot) = outcomes.get_mut(index) else {
                    continue;
                };
                if let (Some(outcome), None) = (frame.acknowledgement(index), &slot) {
                    *slot = Some(outcome);
                    missing -= 1;
                }
            }
        }
        Ok(outcomes.into_iter().flatten().collect())
    }

    /// Like [`Socket::send`], but the first refusal is the result.
    pub fn execute(&mut self, messages: &[Message]) -> Result<(), Failure> {
        self.send(messages)?.into_iter().collect()
    }

    /// Runs nf_tables requests as one transaction: all of them, or none.
    pub fn transaction(&mut self, messages: &[Message]) -> Result<(), Failure> {
        let Some(last) = messages.len().checked_sub(1) else {
            return Ok(());
        };
        let edge = |kind| Message::new(kind, 0, &[0, 0, 0, SUBSYSTEM_NFTABLES as u8]);
        let mut bytes = Vec::new();
        let begin = self.next_sequence();
        edge(BATCH_BEGIN).seal(&mut bytes, begin, 0);
        let mut last_sequence = begin;
        for (index, message) in messages.iter().enumerate() {
            last_sequence = self.next_sequence();
            // Errors are told for every request; one acknowledgement, of the last, closes the conversation.
            message.seal(
                &mut bytes,
                last_sequence,
                if index == last { FLAG_ACK } else { 0 },
            );
        }
        let end = self.next_sequence();
        edge(BATCH_END).seal(&mut bytes, end, 0);
        self.transmit(&bytes)?;

        let mut failure: Option<Failure> = None;
        let mut closed = false;
        // Replies were queued before `sendmsg` returned, except when the kernel replays the batch.
        while let Some(frames) = self.receive(!closed && failure.is_none())? {
            for frame in frames {
                let index = frame.sequence.wrapping_sub(begin) as usize;
                if index > messages.len() + 1 {
                    continue;
                }
                closed |= frame.sequence == last_sequence;
                if let Some(Err(found)) = frame.acknowledgement(index.saturating_sub(1)) {
                    failure.get_or_insert(found);
                }
            }
        }
        failure.map_or(Ok(()), Err)
    }

    /// Asks for a list and reads it to its end. A list that changed while it was read is asked for again.
    pub fn dump(&mut self, message: &Message) -> Result<Vec<Reply>, Failure> {
        for _ in 0..8 {
            if let Some(replies) = self.dump_once(message)? {
                return Ok(replies);
            }
        }
        Err(Errno::INTR.into())
    }

    fn dump_once(&mut self, message: &Message) -> Result<Option<Vec<Reply>>, Failure> {
        let sequence = self.next_sequence();
        let mut bytes = Vec::new();
        message.seal(&mut bytes, sequence, FLAG_DUMP);
        self.transmit(&bytes)?;
        let mut replies = Vec::new();
        let mut whole = true;
        loop {
            for frame in self.receive(true)?.unwrap_or_default() {
                if frame.sequence != sequence {
                    continue;
                }
                whole &= frame.flags & FLAG_DUMP_INTERRUPTED == 0;
                match frame.kind {
                    NLMSG_DONE => return Ok(whole.then_some(replies)),
                    NLMSG_ERROR => match frame.acknowledgement(0) {
                        Some(Err(failure)) => return Err(failure),
                        _ => return Ok(whole.then_some(replies)),
                    },
                    _ => replies.push(frame.into()),
                }
            }
        }
    }

    /// Asks for one object; the answer precedes the acknowledgement.
    pub fn get(&mut self, message: &Message) -> Result<Option<Reply>, Failure> {
        let sequence = self.next_sequence();
        let mut bytes = Vec::new();
        message.seal(&mut bytes, sequence, FLAG_ACK);
        self.transmit(&bytes)?;
        let mut found = None;
        loop {
            for frame in self.receive(true)?.unwrap_or_default() {
                if frame.sequence != sequence {
                    continue;
                }
                match frame.acknowledgement(0) {
                    Some(outcome) => return outcome.map(|()| found),
                    None => found = Some(frame.into()),
                }
            }
        }
    }

    /// What was announced in the subscribed groups and not yet read; empty when nothing waits. `ENOBUFS` means that
    /// some were lost.
    pub fn notifications(&self) -> Result<Vec<Reply>, Failure> {
        let frames = self.receive(false)?.unwrap_or_default();
        Ok(frames.into_iter().map(Reply::from).collect())
    }

    /// The number by which announcements name this socket's requests.
    pub fn port(&self) -> io::Result<u32> {
        let address = rustix::net::getsockname(&self.fd)?;
        Ok(SocketAddrNetlink::try_from(address)?.pid())
    }
}

/// One received message.
#[derive(Debug)]
struct Frame {
    kind: u16,
    flags: u16,
    sequence: u32,
    port: u32,
    payload: Vec<u8>,
}

impl Frame {
    /// What the kernel says about request `index`, if this frame is an acknowledgement.
    fn acknowledgement(&self, index: usize) -> Option<Result<(), Failure>> {
        if self.kind != NLMSG_ERROR {
            return None;
        }
        let Some(code) = self.payload.get(..4).and_then(|b| <[u8; 4]>::try_from(b).ok()) else {
            return Some(Err(Failure {
                index,
                errno: Errno::BADMSG,
                text: None,
            }));
        };
        let code = i32::from_ne_bytes(code);
        if code == 0 {
            return Some(Ok(()));
        }
        Some(Err(Failure {
            index,
            errno: Errno::from_raw_os_error(code.saturating_neg()),
            text: self.explanation(),
        }))
    }

    /// The extended-ack text (`NLMSGERR_ATTR_MSG`), which stands behind the echoed request.
    fn explanation(&self) -> Option<String> {
        if self.flags & FLAG_ACK_TLVS == 0 {
            return None;
        }
        let echoed = if self.flags & FLAG_CAPPED != 0 {
            HEADER
        } else {
            u32::from_ne_bytes(self.payload.get(4..8)?.try_into().ok()?) as usize
        };
        Attributes::of(self.payload.get(4 + align(echoed)..)?).text(1)
    }
}

/// Splits a datagram into its messages.
fn frames(mut bytes: &[u8]) -> Result<Vec<Frame>, Failure> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let frame = (|| {
            let length = u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?) as usize;
            let frame = Frame {
                kind: u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?),
                flags: u16::from_ne_bytes(bytes.get(6..8)?.try_into().ok()?),
                sequence: u32::from_ne_bytes(bytes.get(8..12)?.try_into().ok()?),
                port: u32::from_ne_bytes(bytes.get(12..16)?.try_into().ok()?),
                payload: bytes.get(HEADER..length)?.to_vec(),
            };
            Some((frame, align(length)))
        })();
        let (frame, length) = frame.ok_or(Failure::from(Errno::BADMSG))?;
        found.push(frame);
        bytes = bytes.get(length..).unwrap_or_default();
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nests_and_pads() {
        let message = Message::new(16, 0, &[1, 2, 3])
            .string(3, "eth0")
            .nest(18, |m| m.string(1, "veth").nest(2, |m| m.u8(7, 9)));
        let reply = Reply {
            kind: 16,
            port: 0,
            payload: message.bytes[HEADER..].to_vec(),
        };
        let attributes = reply.attributes(3);
        assert_eq!(attributes.text(3).as_deref(), Some("eth0"));
        let info = Attributes::of(attributes.get(18).unwrap());
        assert_eq!(info.text(1).as_deref(), Some("veth"));
        assert_eq!(Attributes::of(info.get(2).unwrap()).get(7), Some(&[9u8][..]));
        assert_eq!(message.len() % 4, 0);
    }

    #[test]
    fn broken_lengths_end_the_walk() {
        assert_eq!(Attributes::of(&[200, 0, 1, 0, 5]).count(), 0);
        assert_eq!(Attributes::of(&[2, 0, 1, 0]).count(), 0);
        assert_eq!(Attributes::of(&[]).count(), 0);
        assert!(frames(&[1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).is_err());
        assert!(frames(&[255, 0, 0, 0, 0, 0]).is_err());
    }

    #[test]
    fn refusals_name_the_request_and_the_reason() {
        let mut socket = Socket::route().unwrap();
        // RTM_GETLINK by a name that nothing can have, then RTM_NEWADDR for a link that does not exist.
        let missing = Message::new(18, 0, &[0; 16]).string(3, "no-such-link-0");
        assert_eq!(socket.get(&missing).unwrap_err().errno, Errno::NODEV);
        let links = socket.dump(&Message::new(18, 0, &[0; 16])).unwrap();
        assert!(
            links
                .iter()
                .any(|l| l.attributes(16).text(3).as_deref() == Some("lo"))
        );
    }

    #[test]
    fn a_socket_keeps_its_namespace() {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: needs root");
            return;
        }
        let (_namespace, socket) =
            crate::namespace::create_with(crate::namespace::Kind::Network, Socket::route).unwrap();
        let mut socket = socket.unwrap();
        let links = socket.dump(&Message::new(18, 0, &[0; 16])).unwrap();
        assert!(
            !links
                .iter()
                .any(|l| l.attributes(16).text(3).as_deref() == Some("eth0"))
        );
        // RTM_NEWLINK: lo up.
        let up = Message::new(16, 0, &[0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0]);
        socket.execute(&[up.clone(), up]).unwrap();
    }
}
