//! Files between a client and here, by the protocol that its directories are sent with (`fsutil.types.Packet`).

mod look;
mod mode;
mod receive;
mod send;
mod tree;

pub use look::Look;
pub use receive::{Purpose, Selection, receive};
pub use send::{send_directory, send_stream};
pub use tree::Trust;
