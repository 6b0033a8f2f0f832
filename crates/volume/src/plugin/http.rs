//! One question to a plugin and its answer: HTTP/1.1 with JSON in both directions, a connection for each, over TLS where
//! the plugin's address says so.
//!
//! The whole exchange has one deadline, and the answer a limit, whatever the other side does.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use super::tls::TlsSettings;

/// More than any list of volumes needs.
const LIMIT: usize = 16 << 20;
const KIND: &str = "application/vnd.docker.plugins.v1.2+json";

/// Where a plugin listens.
#[derive(Debug, Clone)]
pub(super) enum Address {
    Unix(PathBuf),
    Tcp(String),
    Tls {
        host: String,
        name: ServerName<'static>,
        client: Arc<ClientConfig>,
    },
}

impl Address {
    /// Reads an address; `tls` is what its description says about TLS.
    pub(super) fn parse(text: &str, tls: Option<&TlsSettings>) -> Result<Address, String> {
        // What is behind the host is not part of the protocol's paths.
        let host = |text: &str, port: u16| -> Option<String> {
            let host = text.split('/').next().filter(|host| !host.is_empty())?;
            let (_, behind) = host.rsplit_once(']').unwrap_or(("", host));
            Some(match behind.contains(':') {
                true => host.to_owned(),
                false => format!("{host}:{port}"),
            })
        };
        if let Some(host) = text.strip_prefix("https://").and_then(|rest| host(rest, 443)) {
            let (name, _) = host.rsplit_once(':').unwrap_or((&host, ""));
            let name = name.trim_start_matches('[').trim_end_matches(']').to_owned();
            let name = ServerName::try_from(name)
                .map_err(|_| format!("the address {text:?} has no host whose certificate can be checked"))?;
            let client = tls.cloned().unwrap_or_default().client()?;
            return Ok(Address::Tls { host, name, client });
        }
        if tls.is_some() {
            return Err(format!(
                "TLSConfig is for an address https://HOST:PORT, and this is {text:?}"
            ));
        }
        if let Some(path) = text.strip_prefix("unix://").filter(|path| path.starts_with('/')) {
            return Ok(Address::Unix(path.into()));
        }
        let plain = text.strip_prefix("tcp://").or(text.strip_prefix("http://"));
        if let Some(host) = plain.and_then(|rest| host(rest, 80)) {
            return Ok(Address::Tcp(host));
        }
        Err(format!(
            "the address {text:?} is none of unix:///PATH, tcp://HOST:PORT, http://HOST:PORT and https://HOST:PORT"
        ))
    }
}

/// Status and body.
pub(super) fn ask(
    address: &Address,
    path: &str,
    body: Vec<u8>,
    timeout: Duration,
) -> io::Result<(u16, Vec<u8>)> {
    let asked = || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let answer = runtime.block_on(async {
            let exchange = exchange(address, path, body);
            tokio::time::timeout(timeout, exchange).await.unwrap_or_else(|_| {
                let late = "its time is over (--volume-plugin-timeout)";
                Err(io::Error::new(io::ErrorKind::TimedOut, late))
            })
        });
        // Looking up a name cannot be broken off.
        runtime.shutdown_background();
        answer
    };
    // Callers may be anywhere, in another runtime too, and none of this may wait there.
    std::thread::scope(|scope| {
        let asking = std::thread::Builder::new().name("plugin".to_owned());
        let answer = asking.spawn_scoped(scope, asked)?.join();
        answer.unwrap_or_else(|_| Err(io::Error::other("the exchange broke down")))
    })
}

async fn exchange(address: &Address, path: &str, body: Vec<u8>) -> io::Result<(u16, Vec<u8>)> {
    match address {
        // A socket has no name of its own, and HTTP wants one.
        Address::Unix(socket) => converse(UnixStream::connect(socket).await?, "plugin", path, body).await,
        Address::Tcp(host) => converse(TcpStream::connect(host).await?, host, path, body).await,
        Address::Tls { host, name, client } => {
            let stream = TcpStream::connect(host).await?;
            let connector = TlsConnector::from(Arc::clone(client));
            converse(connector.connect(name.clone(), stream).await?, host, path, body).await
        }
    }
}

async fn converse(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    host: &str,
    path: &str,
    body: Vec<u8>,
) -> io::Result<(u16, Vec<u8>)> {
    let request = Request::post(path)
        .header(header::HOST, host)
        .header(header::USER_AGENT, "berth")
        .header(header::ACCEPT, KIND)
        .header(header::CONTENT_TYPE, KIND)
        .header(header::CONNECTION, "close")
        .body(Full::new(Bytes::from(body)))
        .map_err(io::Error::other)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(wrong)?;
    let connection = tokio::spawn(connection);
    let answer = sender.send_request(request).await.map_err(wrong)?;
    let status = answer.status().as_u16();
    let body = Limited::new(answer.into_body(), LIMIT).collect().await;
    connection.abort();
    match body {
        Ok(body) => Ok((status, body.to_bytes().into())),
        Err(error) => Err(match error.downcast::<hyper::Error>() {
            Ok(error) => wrong(*error),
            Err(_) => io::Error::other(format!("the answer is longer than {LIMIT} bytes")),
        }),
    }
}

fn wrong(error: hyper::Error) -> io::Error {
    if error.is_parse() {
        return io::Error::new(io::ErrorKind::InvalidData, "the answer is not HTTP");
    }
    if error.is_incomplete_message() {
        return io::Error::new(
            io::ErrorKind::UnexpectedEof,
            "the connection ended before the answer did",
        );
    }
    // Its own words say only where it happened.
    match std::error::Error::source(&error) {
        Some(cause) => io::Error::other(cause.to_string()),
        None => io::Error::other(error),
    }
}

#[cfg(test)]
#[allow(clippy::panic)]
mod tests {
    use super::*;

    fn plain(text: &str) -> Result<Address, String> {
        Address::parse(text, None)
    }

    #[test]
    fn addresses() {
        assert!(
            matches!(plain("unix:///run/x"), Ok(Address::Unix(path)) if path == std::path::Path::new("/run/x"))
        );
        for (text, at) in [
            ("tcp://host:1/", "host:1"),
            ("http://host", "host:80"),
            ("tcp://[::1]:7", "[::1]:7"),
        ] {
            assert!(
                matches!(plain(text), Ok(Address::Tcp(host)) if host == at),
                "{text}"
            );
        }
        for wrong in ["", "unix://x", "ftp://x", "tcp://", "http:///x"] {
            assert!(plain(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_plugin_on_another_host_is_asked_by_its_name() {
        use std::io::{BufRead as _, BufReader, Write as _};
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let authority = listener.local_addr().unwrap().to_string();
        let plugin = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let lines = BufReader::new(stream.try_clone().unwrap()).lines();
            let head: Vec<String> = lines
                .map(Result::unwrap)
                .take_while(|line| !line.is_empty())
                .collect();
            stream
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
                .unwrap();
            head
        });
        let address = plain(&format!("tcp://{authority}")).unwrap();
        let answer = ask(
            &address,
            "/VolumeDriver.List",
            Vec::new(),
            Duration::from_secs(30),
        )
        .unwrap();
        assert_eq!(answer, (200, b"{}".to_vec()));
        let host = format!("host: {authority}");
        let head = plugin.join().unwrap();
        assert!(
            head.iter().any(|line| line.eq_ignore_ascii_case(&host)),
            "{head:?}"
        );
    }

    #[test]
    fn addresses_with_tls() {
        let settings = |text: &str| serde_json::from_str::<TlsSettings>(text).unwrap();
        // What is null is absent.
        let blind =
            settings(r#"{"InsecureSkipVerify": true, "CAFile": null, "CertFile": null, "KeyFile": null}"#);
        settings(r#"{"InsecureSkipVerify": null}"#);
        for (text, at, called) in [
            (
                "https://shelf.example/plugin",
                "shelf.example:443",
                "shelf.example",
            ),
            ("https://[2001:db8::1]:7", "[2001:db8::1]:7", "2001:db8::1"),
            ("https://192.0.2.1:7", "192.0.2.1:7", "192.0.2.1"),
        ] {
            let Ok(Address::Tls { host, name, .. }) = Address::parse(text, Some(&blind)) else {
                panic!("{text}");
            };
            assert_eq!((host.as_str(), name.to_str().as_ref()), (at, called));
        }
        for (wrong, tls, said) in [
            ("tcp://host:1", "{}", "https://HOST:PORT"),
            ("unix:///run/x", "{}", "https://HOST:PORT"),
            ("https://a b:1", "{}", "certificate"),
            ("https://h", r#"{"CertFile": "/x"}"#, "KeyFile"),
            ("https://h", r#"{"CAFile": "/nowhere/ca.pem"}"#, "/nowhere/ca.pem"),
            ("https://h", r#"{"CAFile": "/dev/null"}"#, "/dev/null"),
        ] {
            let refused = Address::parse(wrong, Some(&settings(tls))).map(drop).unwrap_err();
            assert!(refused.contains(said), "{wrong}: {refused}");
        }
    }
}
