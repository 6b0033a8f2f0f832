//! IPv6 datagrams with the address of this host that they were sent to, which an answer has to come from.
//!
//! A socket that is bound to every address does not tell by itself which of them a datagram came to, and the kernel
//! would answer from the one that it finds nearest. Sources: ipv6(7) (`IPV6_RECVPKTINFO`), RFC 3542 §6.

use std::io;
use std::mem::MaybeUninit;
use std::net::{Ipv6Addr, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd};

/// Room for one `in6_pktinfo`, aligned as the kernel wants it.
type Control = [u64; 8];

/// A datagram that came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Received {
    /// How much of the buffer it fills. What does not fit is lost.
    pub length: usize,
    pub from: SocketAddrV6,
    /// The address of this host, where the kernel told.
    pub to: Option<Local>,
}

/// One end of a flow: an address of this host, and the link for which it stands where it has a meaning on one alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Local {
    pub address: Ipv6Addr,
    pub link: u32,
}

/// Has the kernel tell with each datagram where it was sent to.
pub fn tell_destinations<S: AsFd>(socket: S) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the option takes an integer, which lives over the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::IPPROTO_IPV6,
            libc::IPV6_RECVPKTINFO,
            (&raw const on).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    check(result as isize).map(drop)
}

/// Takes the next datagram of an IPv6 socket and does not wait for one.
pub fn receive<S: AsFd>(socket: S, buffer: &mut [u8]) -> io::Result<Received> {
    let mut name = MaybeUninit::<libc::sockaddr_in6>::zeroed();
    let mut control: Control = [0; 8];
    let mut part = libc::iovec {
        iov_base: buffer.as_mut_ptr().cast(),
        iov_len: buffer.len(),
    };
    let mut message = header(&mut part, &mut control);
    message.msg_name = name.as_mut_ptr().cast();
    message.msg_namelen = size_of::<libc::sockaddr_in6>() as libc::socklen_t;
    // SAFETY: name, part and control are live and as long as the header says; the part is the caller's buffer.
    let received = unsafe { libc::recvmsg(socket.as_fd().as_raw_fd(), &raw mut message, libc::MSG_DONTWAIT) };
    let length = check(received)?;
    if message.msg_namelen as usize != size_of::<libc::sockaddr_in6>() {
        return Err(io::ErrorKind::InvalidData.into());
    }
    // SAFETY: all zeroes is a valid address, and the kernel has written over it.
    let name = unsafe { name.assume_init() };
    let mut to = None;
    // SAFETY: the header is the one that the kernel filled: its control part holds whole messages as far as it says, and
    // `control` is still there. The data of a message of this kind is one `in6_pktinfo`, read wherever it lies.
    unsafe {
        let mut one = libc::CMSG_FIRSTHDR(&raw const message);
        while !one.is_null() {
            if ((*one).cmsg_level, (*one).cmsg_type) == (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) {
                let info: libc::in6_pktinfo =
                    libc::CMSG_DATA(one).cast::<libc::in6_pktinfo>().read_unaligned();
                to = Some(Local::new(
                    Ipv6Addr::from(info.ipi6_addr.s6_addr),
                    info.ipi6_ifindex,
                ));
            }
            one = libc::CMSG_NXTHDR(&raw const message, one);
        }
    }
    Ok(Received {
        length,
        from: SocketAddrV6::new(
            Ipv6Addr::from(name.sin6_addr.s6_addr),
            u16::from_be(name.sin6_port),
            0,
            name.sin6_scope_id,
        ),
        to,
    })
}

/// Sends a datagram from this address of the host and does not wait for room.
pub fn send<S: AsFd>(socket: S, bytes: &[u8], from: Local, to: SocketAddrV6) -> io::Result<()> {
    // SAFETY: all zeroes is a valid address.
    let mut name: libc::sockaddr_in6 = unsafe { MaybeUninit::zeroed().assume_init() };
    name.sin6_family = libc::AF_INET6 as libc::sa_family_t;
    name.sin6_port = to.port().to_be();
    name.sin6_addr.s6_addr = to.ip().octets();
    name.sin6_scope_id = to.scope_id();
    let mut control: Control = [0; 8];
    let mut part = libc::iovec {
        // It is only read from.
        iov_base: bytes.as_ptr().cast_mut().cast(),
        iov_len: bytes.len(),
    };
    let mut message = header(&mut part, &mut control);
    message.msg_name = (&raw mut name).cast();
    message.msg_namelen = size_of::<libc::sockaddr_in6>() as libc::socklen_t;
    let info = libc::in6_pktinfo {
        ipi6_addr: libc::in6_addr {
            s6_addr: from.address.octets(),
        },
        ipi6_ifindex: from.link,
    };
    let length = size_of::<libc::in6_pktinfo>() as u32;
    // SAFETY: CMSG_SPACE only adds; `control` is longer than that, so the first message and its data lie within it.
    unsafe {
        message.msg_controllen = libc::CMSG_SPACE(length) as _;
        let one = libc::CMSG_FIRSTHDR(&raw const message);
        (*one).cmsg_level = libc::IPPROTO_IPV6;
        (*one).cmsg_type = libc::IPV6_PKTINFO;
        (*one).cmsg_len = libc::CMSG_LEN(length) as _;
        libc::CMSG_DATA(one)
            .cast::<libc::in6_pktinfo>()
            .write_unaligned(info);
    }
    // SAFETY: name, part and control are live and as long as the header says; nothing is written to them.
    let sent = unsafe {
        libc::sendmsg(
            socket.as_fd().as_raw_fd(),
            &raw const message,
            libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
        )
    };
    check(sent).map(drop)
}

impl Local {
    /// The link counts only for addresses that others have on theirs; with the rest, answers take whatever way leads
    /// to the asker.
    fn new(address: Ipv6Addr, link: u32) -> Local {
        Local {
            address,
            link: if address.is_unicast_link_local() { link } else { 0 },
        }
    }
}

fn header(part: &mut libc::iovec, control: &mut Control) -> libc::msghdr {
    // SAFETY: all zeroes is a valid header: no name, no parts, no control part.
    let mut message: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
    message.msg_iov = &raw mut *part;
    message.msg_iovlen = 1;
    message.msg_control = (&raw mut *control).cast();
    message.msg_controllen = size_of::<Control>() as _;
    message
}

fn check(result: isize) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;

    #[test]
    fn an_answer_comes_from_where_the_question_went() {
        let Ok(server) = UdpSocket::bind("[::]:0") else {
            println!("skipped: the kernel has no IPv6");
            return;
        };
        tell_destinations(&server).unwrap();
        let port = server.local_addr().unwrap().port();
        let mut buffer = [0; 4];
        assert_eq!(
            receive(&server, &mut buffer).unwrap_err().kind(),
            io::ErrorKind::WouldBlock
        );
        let Ok(client) = UdpSocket::bind("[::1]:0") else {
            println!("skipped: the loopback link has no IPv6 address");
            return;
        };
        // A connected socket hears of no other address.
        client.connect(("::1", port)).unwrap();
        client.send(b"too long").unwrap();
        let received = receive(&server, &mut buffer).unwrap();
        assert_eq!((received.length, &buffer), (4, b"too "));
        assert_eq!(
            std::net::SocketAddr::V6(received.from),
            client.local_addr().unwrap()
        );
        let to = received.to.unwrap();
        assert_eq!((to.address, to.link), (Ipv6Addr::LOCALHOST, 0));
        send(&server, b"answer", to, received.from).unwrap();
        let mut answer = [0; 16];
        assert_eq!(client.recv(&mut answer).unwrap(), 6);
        let elsewhere = Local::new("2001:db8::7".parse().unwrap(), 0);
        assert!(send(&server, b"?", elsewhere, received.from).is_err());
    }
}
