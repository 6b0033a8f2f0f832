//! How a client reaches a daemon: over TCP with and without TLS, and where none runs yet.

mod launch;
mod tls;
