//! Files between a client and here: its directories as they are wanted, results as they are given.

mod look;
mod receive;
mod send;

pub use ::session::files::Trust;
pub use look::Look;
pub use receive::{Purpose, Selection, receive};
pub use send::{send_directory, send_stream};
