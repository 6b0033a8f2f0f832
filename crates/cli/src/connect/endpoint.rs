//! From flags, environment and contexts to the address of a daemon.
//!
//! Order: `--context`, `--host`, `BERTH_HOST`, `DOCKER_HOST`, `DOCKER_CONTEXT`, the configuration's current context, the
//! default socket. Only the last is *not named*, and only there a daemon is started on demand.

use super::{config::Config, context};
use crate::failure::Failure;
use std::path::PathBuf;

/// The socket of a system-wide daemon.
pub const DEFAULT_SOCKET: &str = "/run/berth/berth.sock";

/// Flags that come before the command.
#[derive(Clone, Debug, Default)]
pub struct Globals {
    pub config: PathBuf,
    pub context: Option<String>,
    pub hosts: Vec<String>,
    pub tls: bool,
    pub tls_verify: bool,
    pub ca: Option<PathBuf>,
    pub cert: Option<PathBuf>,
    pub key: Option<PathBuf>,
}

/// The files of a TLS connection.
#[derive(Clone, Debug, PartialEq)]
pub struct TlsFiles {
    pub verify: bool,
    pub ca: Option<PathBuf>,
    pub cert: Option<PathBuf>,
    pub key: Option<PathBuf>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Address {
    Unix(PathBuf),
    Tcp {
        host: String,
        port: u16,
        tls: Option<TlsFiles>,
    },
}

/// The daemon of this session.
#[derive(Clone, Debug, PartialEq)]
pub struct Endpoint {
    pub address: Address,
    /// As the user wrote it.
    pub host: String,
    pub context: String,
    /// Somebody chose it; it is never started on demand.
    pub named: bool,
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Resolves the daemon of this session.
pub fn resolve(globals: &Globals) -> Result<Endpoint, Failure> {
    if globals.hosts.len() > 1 {
        return Err(Failure::text("specify only one -H"));
    }
    if let (Some(_), Some(_)) = (&globals.context, globals.hosts.first()) {
        return Err(Failure::text(
            "conflicting options: cannot specify both --host and --context",
        ));
    }
    if let Some(name) = &globals.context {
        return named_context(globals, name);
    }
    let host = globals
        .hosts
        .first()
        .cloned()
        .or_else(|| variable("BERTH_HOST"))
        .or_else(|| variable("DOCKER_HOST"));
    if let Some(host) = host {
        return by_host(globals, &host);
    }
    if let Some(name) = variable("DOCKER_CONTEXT").or_else(|| Config::load(&globals.config).current_context())
        && name != "default"
    {
        return named_context(globals, &name);
    }
    Ok(default_endpoint())
}

/// The system's socket; without root, a user's own where there is one.
fn default_endpoint() -> Endpoint {
    let mut socket = PathBuf::from(DEFAULT_SOCKET);
    if !rustix::process::geteuid().is_root()
        && let Some(dir) = variable("XDG_RUNTIME_DIR")
    {
        let own = PathBuf::from(dir).join("berth/berth.sock");
        if own.exists() {
            socket = own;
        }
    }
    Endpoint {
        host: format!("unix://{}", socket.display()),
        address: Address::Unix(socket),
        context: "default".into(),
        named: false,
    }
}

fn named_context(globals: &Globals, name: &str) -> Result<Endpoint, Failure> {
    if name == "default" {
        return Ok(default_endpoint());
    }
    let stored = context::load(&globals.config, name)?;
    let tls = stored.tls_files(&globals.config);
    Ok(Endpoint {
        address: parse(&stored.host, tls)?,
        host: stored.host,
        context: name.to_owned(),
        named: true,
    })
}

fn by_host(globals: &Globals, host: &str) -> Result<Endpoint, Failure> {
    let verify = globals.tls_verify || variable("DOCKER_TLS_VERIFY").is_some();
    let wanted = verify || globals.tls || variable("DOCKER_TLS").is_some();
    let dir = variable("DOCKER_CERT_PATH").map_or_else(|| globals.config.clone(), PathBuf::from);
    let file = |given: &Option<PathBuf>, name: &str| {
        given
            .clone()
            .or_else(|| Some(dir.join(name)).filter(|path| path.exists()))
    };
    let tls = wanted.then(|| TlsFiles {
        verify,
        ca: file(&globals.ca, "ca.pem"),
        cert: file(&globals.cert, "cert.pem"),
        key: file(&globals.key, "key.pem"),
    });
    Ok(Endpoint {
        address: parse(host, tls)?,
        host: host.to_owned(),
        context: "default".into(),
        named: true,
    })
}

/// Reads `unix:///path`, `tcp://host:port`, `/path` or `host:port`.
pub fn parse(host: &str, tls: Option<TlsFiles>) -> Result<Address, Failure> {
    let text = host.trim();
    if let Some(path) = text.strip_prefix("unix://") {
        let path = if path.is_empty() { DEFAULT_SOCKET } else { path };
        return Ok(Address::Unix(PathBuf::from(path)));
    }
    if text.starts_with('/') {
        return Ok(Address::Unix(PathBuf::from(text)));
    }
    let (rest, tls) = match text.split_once("://") {
        Some(("tcp" | "http", rest)) => (rest, tls),
        Some(("https", rest)) => (
            rest,
            tls.or(Some(TlsFiles {
                verify: true,
                ca: None,
                cert: None,
                key: None,
            })),
        ),
        Some((scheme, _)) => {
            return Err(Failure::text(format!(
                "unable to parse docker host {host:?}: unsupported protocol {scheme:?}"
            ))
            .hint("use unix:///path/to/socket or tcp://host:port; forward a remote socket with ssh -L"));
        }
        None => (text, tls),
    };
    let authority = rest.split('/').next().unwrap_or_default();
    let (name, port) = match authority
        .strip_prefix('[')
        .and_then(|inner| inner.split_once(']'))
    {
        Some((name, tail)) => (name, tail.strip_prefix(':')),
        None => match authority.rsplit_once(':') {
            Some((name, port)) => (name, Some(port)),
            None => (authority, None),
        },
    };
    let port = match port {
        Some(port) => port
            .parse()
            .map_err(|_| Failure::text(format!("invalid bind address ({host}): invalid port: {port:?}")))?,
        None if tls.is_some() => 2376,
        None => 2375,
    };
    let name = if name.is_empty() { "localhost" } else { name };
    Ok(Address::Tcp {
        host: name.to_owned(),
        port,
        tls,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let tcp = |host: &str, port| Address::Tcp {
            host: host.into(),
            port,
            tls: None,
        };
        assert_eq!(
            parse("unix:///x/y.sock", None).unwrap(),
            Address::Unix("/x/y.sock".into())
        );
        assert_eq!(parse("/x.sock", None).unwrap(), Address::Unix("/x.sock".into()));
        assert_eq!(parse("tcp://h:1", None).unwrap(), tcp("h", 1));
        assert_eq!(parse("tcp://[::1]:5", None).unwrap(), tcp("::1", 5));
        assert_eq!(parse("h", None).unwrap(), tcp("h", 2375));
        assert!(parse("ftp://x", None).is_err() && parse("tcp://h:x", None).is_err());
    }
}
