//! Which daemon to talk to, and how to reach it.
//!
//! `endpoint` resolves flags, environment and contexts to one address; `stream` opens it (unix, TCP, TLS); `launch`
//! starts a daemon on demand; `config` is Docker's client configuration file; `context` its store of named daemons.

pub mod config;
pub mod context;
pub mod endpoint;
pub mod launch;
pub mod stream;
pub mod tls;
pub mod trouble;
