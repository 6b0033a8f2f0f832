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

/// A packet of a kind that says no more.
pub fn packet(kind: PacketType) -> Packet {
    Packet {
        r#type: kind.into(),
        ..Packet::default()
    }
}
