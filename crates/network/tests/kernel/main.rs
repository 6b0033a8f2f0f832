//! The networks on a real kernel, each test on a machine of its own made of namespaces.

mod host;
mod latency;
mod lifecycle;
mod names;
mod ports;
mod traffic;
