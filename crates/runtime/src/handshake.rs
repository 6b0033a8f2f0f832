//! What the caller and the child say to each other between clone and exec.
//!
//!     caller                              child
//!       | <----------- Joined -------------- |   an exec is in its namespaces; carries the process born there, if any
//!       | ----------- Configured ----------> |   ids are mapped, limits are set: until then the child stays root
//!       | <----------- Mounted ------------- |   namespaces and mounts stand (only when hooks wait for it)
//!       | ------------ Hooked -------------> |   the caller has run its hooks
//!       | <------------ Ready -------------- |   everything but the exec; carries the terminal's master
//!       | ------------ Started ------------> |
//!       | <---------- Filtered ------------- |   the filter is loaded; carries its listener (only when one is wanted)
//!       |           end of stream            |   the exec has closed the socket: the program runs
//!
//! The first process of a container goes through all of it. An additional one begins by itself (no `Started`), is
//! `Ready` only with a terminal, and waits for `Configured` only where it has limits or something to tell, which must
//! come after `Joined`.
//!
//! The stages are ordered: a message that does not move forward, or is not the one awaited, breaks the
//! handshake. `Failed` may come instead of any message of the child and is the last one. If either side dies,
//! the other reads the end of the stream: the child then leaves, the caller reaps it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType};
use serde::{Deserialize, Serialize};

use crate::error::{During, LaunchError};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Stage {
    Cloned,
    Joined,
    Configured,
    Mounted,
    Hooked,
    Ready,
    Started,
    Filtered,
}

#[derive(Debug, Serialize, Deserialize)]
enum Message {
    Reached(Stage),
    Failed(LaunchError),
}

/// Larger than any message: texts in errors are bounded by the paths and names in them.
const MAX_MESSAGE: usize = 64 * 1024;

/// One end. Messages keep their borders (SOCK_SEQPACKET).
#[derive(Debug)]
pub(crate) struct Channel {
    socket: OwnedFd,
    stage: Stage,
}

/// What a receiver got.
pub(crate) enum Received {
    Reached(Vec<OwnedFd>),
    /// The other side's end is closed.
    Closed,
}

impl Channel {
    pub fn pair() -> Result<(Channel, Channel), LaunchError> {
        let (left, right) = rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .during("handshake socket")?;
        Ok((Channel::over(left), Channel::over(right)))
    }

    pub fn over(socket: OwnedFd) -> Channel {
        Channel {
            socket,
            stage: Stage::Cloned,
        }
    }

    /// A channel of another process's making that has already come to `stage`.
    pub fn resumed(socket: OwnedFd, stage: Stage) -> Channel {
        Channel { socket, stage }
    }

    /// The same end for another process.
    pub fn try_clone(&self) -> Result<Channel, LaunchError> {
        Ok(Channel {
            socket: self.socket.try_clone().during("handshake socket")?,
            stage: self.stage,
        })
    }

    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    pub fn reach(&mut self, stage: Stage, fds: &[BorrowedFd<'_>]) -> Result<(), LaunchError> {
        self.step_to(stage)?;
        match self.send(&Message::Reached(stage), fds) {
            // The other side is gone; what it said last tells why.
            Err(LaunchError::Setup { errno, .. }) if errno == Some(Errno::PIPE.raw_os_error()) => {
                match self.receive(stage) {
                    Err(said) => Err(said),
                    Ok(_) => Err(LaunchError::Handshake(format!("it ended before {stage:?}"))),
                }
            }
            sent => sent,
        }
    }

    /// Reports the failure; nothing can be done when even that fails.
    pub fn fail(&self, error: &LaunchError) {
        let _ = self.send(&Message::Failed(error.clone()), &[]);
    }

    fn send(&self, message: &Message, fds: &[BorrowedFd<'_>]) -> Result<(), LaunchError> {
        let mut bytes = serde_json::to_vec(message).map_err(|e| LaunchError::Handshake(e.to_string()))?;
        if bytes.len() > MAX_MESSAGE {
            let short = LaunchError::Handshake("the failure's text is too long to be told".to_owned());
            bytes = serde_json::to_vec(&Message::Failed(short)).unwrap_or_default();
        }
        sys::fd::send_fds(&self.socket, &bytes, fds).during("handshake")
    }

    /// Fails when the other side is gone. Takes no message.
    pub fn check_peer(&self) -> Result<(), LaunchError> {
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        match rustix::net::recv(&self.socket, &mut [0u8; 1], flags) {
            Ok((_, 0)) | Err(Errno::CONNRESET) => {
                Err(LaunchError::Handshake("the caller has ended".to_owned()))
            }
            _ => Ok(()),
        }
    }

    /// Waits for a message and tells its length; nothing is taken.
    fn next_length(&self) -> Result<usize, Errno> {
        let flags = RecvFlags::PEEK | RecvFlags::TRUNC;
        loop {
            match rustix::net::recv(&self.socket, &mut [0u8; 1], flags) {
                Err(Errno::INTR) => {}
                other => return other.map(|(_, length)| length),
            }
        }
    }

    /// Waits for the other side to reach `expected`.
    pub fn receive(&mut self, expected: Stage) -> Result<Received, LaunchError> {
        // A peer that ended with unread messages resets the connection. The kernel tells that once, and then what the
        // peer had said before.
        let length = match self.next_length() {
            Err(Errno::CONNRESET) => self.next_length(),
            length => length,
        };
        let length = match length {
            Ok(length) => length.min(MAX_MESSAGE),
            Err(Errno::CONNRESET) => return Ok(Received::Closed),
            Err(error) => return Err(error).during("handshake"),
        };
        // As large as the message and not as the largest one: each page of it is made anew in each process.
        let mut buffer = vec![0; length];
        let received = match sys::fd::recv_fds(&self.socket, &mut buffer) {
            // It may end between the two looks as well.
            Err(error) if error.raw_os_error() == Some(Errno::CONNRESET.raw_os_error()) => {
                sys::fd::recv_fds(&self.socket, &mut buffer)
            }
            received => received,
        };
        let (count, fds) = received.during("handshake")?;
        let Some(bytes) = buffer.get(..count).filter(|bytes| !bytes.is_empty()) else {
            return Ok(Received::Closed);
        };
        match serde_json::from_slice(bytes) {
            Ok(Message::Reached(stage)) if stage == expected => {
                self.step_to(stage)?;
                Ok(Received::Reached(fds))
            }
            Ok(Message::Reached(stage)) => Err(LaunchError::Handshake(format!(
                "expected {expected:?}, got {stage:?}"
            ))),
            Ok(Message::Failed(error)) => Err(error),
            Err(error) => Err(LaunchError::Handshake(error.to_string())),
        }
    }

    /// As `receive`, where the end of the stream is a failure.
    pub fn expect(&mut self, expected: Stage) -> Result<Vec<OwnedFd>, LaunchError> {
        match self.receive(expected)? {
            Received::Reached(fds) => Ok(fds),
            Received::Closed => Err(LaunchError::Handshake(format!("it ended before {expected:?}"))),
        }
    }

    fn step_to(&mut self, stage: Stage) -> Result<(), LaunchError> {
        if stage <= self.stage {
            return Err(LaunchError::Handshake(format!(
                "{stage:?} after {:?}",
                self.stage
            )));
        }
        self.stage = stage;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_only_go_forward_and_failures_arrive() {
        let (mut caller, mut child) = Channel::pair().unwrap();
        child.reach(Stage::Ready, &[caller.as_fd()]).unwrap();
        assert_eq!(caller.expect(Stage::Ready).unwrap().len(), 1);
        assert!(child.reach(Stage::Mounted, &[]).is_err());
        caller.reach(Stage::Started, &[]).unwrap();
        assert!(child.expect(Stage::Started).is_ok());
        let failure = LaunchError::ExecFormat {
            program: "/x".into(),
            why: "it is no program".into(),
        };
        child.fail(&failure);
        assert_eq!(caller.receive(Stage::Started).err(), Some(failure));
        drop(child);
        assert!(matches!(caller.receive(Stage::Started), Ok(Received::Closed)));
    }

    #[test]
    fn whoever_speaks_to_a_child_that_failed_hears_why() {
        let (mut caller, child) = Channel::pair().unwrap();
        let failure = LaunchError::Invalid("no".into());
        child.fail(&failure);
        drop(child);
        assert_eq!(caller.reach(Stage::Configured, &[]), Err(failure.clone()));
        // The same when the child ended without reading what it was told.
        let (mut caller, child) = Channel::pair().unwrap();
        caller.reach(Stage::Configured, &[]).unwrap();
        child.fail(&failure);
        drop(child);
        assert_eq!(caller.expect(Stage::Ready).err(), Some(failure));
        let (mut caller, child) = Channel::pair().unwrap();
        drop(child);
        assert!(matches!(
            caller.reach(Stage::Configured, &[]),
            Err(LaunchError::Handshake(_))
        ));
    }

    #[test]
    fn a_long_failure_arrives_whole_and_a_caller_that_is_gone_is_noticed() {
        let (mut caller, child) = Channel::pair().unwrap();
        assert_eq!(child.check_peer(), Ok(()));
        let failure = LaunchError::Invalid("x".repeat(20_000));
        child.fail(&failure);
        // A look takes nothing.
        assert_eq!(caller.check_peer(), Ok(()));
        assert_eq!(caller.expect(Stage::Ready).err(), Some(failure));
        drop(caller);
        assert!(child.check_peer().is_err());
    }

    #[test]
    fn an_unexpected_stage_breaks_it() {
        let (mut caller, mut child) = Channel::pair().unwrap();
        child.reach(Stage::Mounted, &[]).unwrap();
        assert!(matches!(
            caller.expect(Stage::Ready),
            Err(LaunchError::Handshake(_))
        ));
    }
}
