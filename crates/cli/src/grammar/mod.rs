//! The value grammars of `run`, `create`, `build` and their kin: text in, the API's models out.
//!
//! Pure functions; the error is the text behind Docker's "invalid argument …" or "docker: …", word for word where
//! scripts may match it.

pub mod csv;
pub mod devices;
pub mod env;
pub mod filter;
pub mod hosts;
pub mod limits;
pub mod modes;
pub mod mounts;
pub mod network;
pub mod ports;
pub mod secrets;
pub mod security;
