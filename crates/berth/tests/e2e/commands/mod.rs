//! Every command through both clients, side by side: `berth` and the real `docker` run the same scripts against one daemon,
//! and both must print what the script says, with the same exit codes.
//!
//! A script is a transcript:
//!
//! ```text
//! $ run --rm box:1 echo hi        a command of the client, what it prints, and its exit code where that is not 0
//! hi
//! % info                          a command whose output must be the same in both, whatever it is
//! @ $CLIENT ps -q | wc -l         a line for the host's shell; $CLIENT is the client
//! & $CLIENT ps | sort             one whose output must be the same in both, whatever it is
//! 0
//! $ inspect nosuch
//! []
//! ! no such object: nosuch        stderr contains this
//! [1]
//! $ run --rm -i box:1 cat
//! < typed                         a line of stdin
//! typed
//! ```
//!
//! `$DIR` is the client's directory; `$NET` the first three numbers of a network and `$PORT` a port of this test's own.
//!
//! Ids, digests, times and ages stand as `<id>`, `<digest>`, `<time>` and `<age>`, runs of spaces as two spaces. `…` stands
//! for any rest of a line.

mod copies;
mod images;
mod lives;
mod neutral;
mod places;
mod registries;
mod run_identity;
mod run_limits;
mod run_lives;
mod run_mounts;
mod run_network;
mod script;
mod shown;
mod system;
mod tokens;

pub use neutral::neutral;
