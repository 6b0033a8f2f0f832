//! TLS to a collector.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use rustls::{ClientConfig, ClientConnection, StreamOwned};
use rustls_pki_types::ServerName;
use tls::{Identity, Trust};

use super::config::Tls;

#[derive(Debug)]
pub(super) struct Connection(StreamOwned<ClientConnection, TcpStream>);

impl Connection {
    pub(super) fn socket(&self) -> &TcpStream {
        &self.0.sock
    }
}

impl Read for Connection {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for Connection {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Shakes hands.
pub(super) fn connect(mut stream: TcpStream, host: &str, settings: &Tls) -> io::Result<Connection> {
    let config = client_config(settings)?;
    let name = ServerName::try_from(host.to_owned()).map_err(other)?;
    let mut connection = ClientConnection::new(Arc::new(config), name).map_err(other)?;
    while connection.is_handshaking() {
        connection.complete_io(&mut stream)?;
    }
    Ok(Connection(StreamOwned::new(connection, stream)))
}

fn client_config(settings: &Tls) -> io::Result<ClientConfig> {
    let trust = match &settings.ca {
        _ if settings.skip_verify => Trust::Anyone,
        Some(ca) => Trust::Only(ca),
        None => Trust::Host,
    };
    let identity = match (&settings.cert, &settings.key) {
        (Some(certificates), Some(key)) => Some(Identity { certificates, key }),
        (None, None) => None,
        _ => return Err(other("a client's certificate and its key come together")),
    };
    tls::client(trust, identity).map_err(other)
}

fn other(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::other(error)
}
