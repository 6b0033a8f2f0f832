//! The networks on a real kernel, each test on a machine of its own made of namespaces.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod beside;
mod drivers;
mod firewalld;
mod host;
mod latency;
mod lifecycle;
mod model;
mod names;
mod outside;
mod pools;
mod ports;
mod publish;
mod repair;
mod respect;
mod routed;
mod served;
mod traffic;
mod trusted;
