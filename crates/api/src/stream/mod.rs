//! Connections that stop being HTTP: attach, exec, and how bytes go both ways on them.
//!
//! ```text
//!  client ──stdin──> relay ──> container      (detach keys are looked for here)
//!  client <─output── relay <── container      (raw with a terminal, else frames of 8-byte header and data)
//! ```
//!
//! The end of the client's input closes the container's input and nothing else; the end of the container's output ends the
//! connection.

pub mod detach;
pub mod hijack;
pub mod relay;
pub mod unframe;

pub use detach::DetachKeys;
pub use hijack::{Client, Hijack};
pub use relay::{End, relay, relay_then};
pub use unframe::Unframe;

/// The media type of a stream with a terminal, and of every stream before API 1.42.
pub const RAW: &str = "application/vnd.docker.raw-stream";
/// The media type of framed output and errors.
pub const MULTIPLEXED: &str = "application/vnd.docker.multiplexed-stream";

/// The media type that a client of this version expects.
pub fn media_type(tty: bool, version: crate::version::ApiVersion) -> &'static str {
    if !tty && version.has(42) { MULTIPLEXED } else { RAW }
}

/// Which stream a frame belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameKind {
    Stdout = 1,
    Stderr = 2,
    /// The exit code as decimal digits, after everything else; only for clients that asked for it (`EXEC_PROTOCOL`).
    Exit = 4,
}

/// What a client asks the creation of an exec to be upgraded to: the exec is started at once, and its exit code is the
/// stream's last frame. One exchange instead of Docker's three.
pub const EXEC_PROTOCOL: &str = "berth-exec";
/// Tells the exec's id beside the upgrade.
pub const EXEC_ID: &str = "berth-exec-id";

/// One frame: `{kind, 0, 0, 0, length big-endian}` and the data.
pub fn frame(kind: FrameKind, data: &[u8]) -> bytes::Bytes {
    let mut frame = Vec::with_capacity(8 + data.len());
    frame.extend_from_slice(&[kind as u8, 0, 0, 0]);
    frame.extend_from_slice(&u32::try_from(data.len()).unwrap_or(u32::MAX).to_be_bytes());
    frame.extend_from_slice(data);
    frame.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames() {
        assert_eq!(
            frame(FrameKind::Stderr, b"ab"),
            &[2, 0, 0, 0, 0, 0, 0, 2, b'a', b'b'][..]
        );
    }
}
