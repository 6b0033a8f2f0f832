//! Files between the two ends, in packets (`fsutil.types.Packet`).
//!
//! ```text
//!   giver                                  taker
//!     STAT entry … STAT (end)    ──>
//!                                <──       REQ id      for each file whose data is wanted
//!     DATA id bytes … DATA id    ──>
//!                                <──       FIN         all is here
//!     FIN                        ──>
//! ```
//!
//! Entries are numbered as they come. Either end may break off with ERR and a text.
//!
//! A large directory is a hundred thousand packets of some fifty bytes. Both ends hand them on between their threads by the
//! [`BATCH`], so that neither waits for the other once for each, and what is sent at once travels at once.

mod entry;
mod give;
pub mod mode;
mod select;
mod take;
mod tree;

pub use entry::{entry, entry_of};
pub use give::{Tree, give};
pub use select::{SelectError, Selection};
pub use take::{TakeError, take};
pub use tree::{TreeError, Trust, Update};

use bollard_buildkit_proto::fsutil::types::Packet;
use bollard_buildkit_proto::fsutil::types::packet::PacketType;

/// How many packets are handed on together at most, and how many bytes they may hold before.
pub(crate) const BATCH: (usize, u64) = (128, 128 << 10);

/// A packet of a kind that says no more.
pub fn packet(kind: PacketType) -> Packet {
    Packet {
        r#type: kind.into(),
        ..Packet::default()
    }
}
