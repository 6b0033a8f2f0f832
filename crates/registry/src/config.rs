//! What the client is told by the daemon's configuration: mirrors, insecure registries, certificates.
//!
//! Sources of the rules: Docker's daemon.json keys `registry-mirrors`, `insecure-registries`, and the
//! directory layout `certs.d/HOST[:PORT]/{*.crt, *.cert, *.key}`.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use url::Url;

use crate::rule::{self, Rule};

/// Configuration of a [`crate::Client`].
#[derive(Debug, Clone)]
pub struct ClientConfig {
    /// Registries reached without certificate checks and, failing TLS, by plain HTTP: `host`, `host:port` or
    /// an address range. Loopback is always among them.
    pub insecure: Vec<String>,
    /// Base URLs tried before Docker Hub, in this order.
    pub mirrors: Vec<String>,
    /// What holds for names that begin alike. The longest prefix that fits counts.
    pub rules: Vec<Rule>,
    /// Most bytes a second that all transfers together may take.
    pub limit_rate: Option<u64>,
    /// Where requests go through, if not where the environment says.
    pub proxies: Proxies,
    pub ranges: Ranges,
    /// Directories with `HOST[:PORT]/` folders of certificates; the first that has the folder counts.
    pub certs_d: Vec<PathBuf>,
    /// Value of the `User-Agent` header.
    pub user_agent: String,
    /// How often something is tried without any progress before giving up.
    pub attempts: u32,
    /// Silence that is taken for a dead connection.
    pub silence: Duration,
}

/// Proxies for requests to registries, as Docker's daemon.json names them. Empty: none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Proxies {
    pub http: String,
    pub https: String,
    /// Hosts that are reached without one, separated by commas.
    pub none: String,
}

/// When a large blob is fetched over several connections at once: many registries give each connection only so much.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ranges {
    /// Bytes of one part. Nothing is split before this much came by a single connection, nor when less than two
    /// parts are left.
    pub part: u64,
    /// Parts at once; they wait in memory until it is their turn.
    pub at_once: usize,
    /// Bytes a second of a single connection that need no others.
    pub enough: u64,
}

impl Proxies {
    /// What is not set is taken from `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY`, or their lower-case names, as Docker's
    /// daemon does.
    pub fn or_environment(self) -> Proxies {
        self.or(|name| std::env::var(name).ok())
    }

    fn or(self, environment: impl Fn(&str) -> Option<String>) -> Proxies {
        let filled = |value: String, name: &str| match value.is_empty() {
            true => environment(name)
                .or_else(|| environment(&name.to_lowercase()))
                .unwrap_or_default(),
            false => value,
        };
        Proxies {
            http: filled(self.http, "HTTP_PROXY"),
            https: filled(self.https, "HTTPS_PROXY"),
            none: filled(self.none, "NO_PROXY"),
        }
    }

    /// The same for people to see: without user names and passwords.
    pub fn masked(&self) -> Proxies {
        let mask = |text: &str| match url::Url::parse(text) {
            Ok(mut url) if !url.username().is_empty() || url.password().is_some() => {
                let done = url
                    .set_username("xxxxx")
                    .and_then(|()| url.set_password(Some("xxxxx")));
                match done {
                    Ok(()) => url.to_string(),
                    Err(()) => String::new(),
                }
            }
            _ => text.to_owned(),
        };
        Proxies {
            http: mask(&self.http),
            https: mask(&self.https),
            none: self.none.clone(),
        }
    }
}

impl Default for Ranges {
    fn default() -> Ranges {
        Ranges {
            // Parts that come before their turn wait in memory: with three layers at once, 36 MiB of them at most.
            part: 4 << 20,
            at_once: 3,
            enough: 96 << 20,
        }
    }
}

impl Default for ClientConfig {
    fn default() -> ClientConfig {
        ClientConfig {
            insecure: Vec::new(),
            mirrors: Vec::new(),
            rules: Vec::new(),
            limit_rate: None,
            proxies: Proxies::default(),
            ranges: Ranges::default(),
            certs_d: vec![
                PathBuf::from("/etc/berth/certs.d"),
                PathBuf::from("/etc/docker/certs.d"),
            ],
            user_agent: concat!("berth/", env!("CARGO_PKG_VERSION"), " (linux)").to_owned(),
            attempts: 5,
            silence: Duration::from_secs(60),
        }
    }
}

/// A value of the configuration that cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ConfigError {
    #[error("invalid mirror: {0:?} is not a valid URI: expected http:// or https:// and a host")]
    Mirror(String),
    #[error("invalid mirror: unrecognized part in {0:?}: a mirror has no query, fragment or user")]
    MirrorPart(String),
    #[error(
        "insecure registry {0:?} is not valid: expected HOST, HOST:PORT or an address range like 10.0.0.0/8"
    )]
    Insecure(String),
    #[error("invalid proxy {0:?}: expected a URL such as http://proxy.lan:3128")]
    Proxy(String),
    #[error("invalid rule for {prefix:?} in registries: {detail}")]
    Rule { prefix: String, detail: String },
}

impl ClientConfig {
    /// Checks every value, so that a wrong one is told at start and not at the first pull.
    pub fn validate(&self) -> Result<(), ConfigError> {
        for mirror in &self.mirrors {
            parse_mirror(mirror)?;
        }
        rule::validate(&self.rules)?;
        for proxy in [&self.proxies.http, &self.proxies.https] {
            if !proxy.is_empty() && reqwest::Proxy::all(proxy).is_err() {
                return Err(ConfigError::Proxy(proxy.clone()));
            }
        }
        for entry in &self.insecure {
            let plausible = match entry.split_once('/') {
                Some(_) => parse_range(entry).is_some(),
                None => !entry.is_empty() && !entry.contains(['@', '?', '#', ' ']),
            };
            if !plausible {
                return Err(ConfigError::Insecure(entry.clone()));
            }
        }
        Ok(())
    }

    /// Whether `host` (with its port if any) may be spoken to without TLS that verifies.
    pub(crate) fn is_insecure(&self, host: &str) -> bool {
        let name = host_name(host);
        let address: Option<IpAddr> = name.parse().ok();
        if name == "localhost" || address.is_some_and(|a| a.is_loopback()) {
            return true;
        }
        self.insecure.iter().any(|entry| {
            entry == host
                || entry == name
                || address.is_some_and(|a| parse_range(entry).is_some_and(|r| in_range(a, r)))
        })
    }
}

/// The host without port and brackets.
pub(crate) fn host_name(host: &str) -> &str {
    if let Some(rest) = host.strip_prefix('[') {
        return rest.split(']').next().unwrap_or(rest);
    }
    match host.split_once(':') {
        Some((name, _)) => name,
        None => host,
    }
}

pub(crate) fn parse_mirror(text: &str) -> Result<Url, ConfigError> {
    let url = Url::parse(text).map_err(|_| ConfigError::Mirror(text.to_owned()))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err(ConfigError::Mirror(text.to_owned()));
    }
    if url.query().is_some()
        || url.fragment().is_some()
        || !url.username().is_empty()
        || url.password().is_some()
    {
        return Err(ConfigError::MirrorPart(text.to_owned()));
    }
    Ok(url)
}

fn parse_range(text: &str) -> Option<(IpAddr, u8)> {
    let (address, bits) = text.split_once('/')?;
    let address: IpAddr = address.parse().ok()?;
    let bits: u8 = bits.parse().ok()?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    (bits <= most).then_some((address, bits))
}

fn in_range(address: IpAddr, (network, bits): (IpAddr, u8)) -> bool {
    match (address, network) {
        (IpAddr::V4(a), IpAddr::V4(n)) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
            a.to_bits() & mask == n.to_bits() & mask
        }
        (IpAddr::V6(a), IpAddr::V6(n)) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
            a.to_bits() & mask == n.to_bits() & mask
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_of_the_environment_stand_in_one_by_one() {
        let environment = |name: &str| {
            let known = [
                ("HTTPS_PROXY", "http://outer:1"),
                ("no_proxy", "lan"),
                ("HTTP_PROXY", "http://other:2"),
            ];
            known
                .iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| (*value).to_owned())
        };
        let proxies = Proxies {
            http: "http://own:3".to_owned(),
            ..Proxies::default()
        };
        let filled = proxies.or(environment);
        assert_eq!(
            (filled.http.as_str(), filled.https.as_str(), filled.none.as_str()),
            ("http://own:3", "http://outer:1", "lan")
        );
    }

    #[test]
    fn passwords_of_proxies_are_not_shown() {
        let proxies = Proxies {
            http: "http://me:secret@proxy.lan:3128".to_owned(),
            https: "http://proxy.lan:3128".to_owned(),
            none: "lan".to_owned(),
        };
        let shown = proxies.masked();
        assert_eq!(shown.http, "http://xxxxx:xxxxx@proxy.lan:3128/");
        assert_eq!((shown.https, shown.none), (proxies.https, proxies.none));
    }

    #[test]
    fn loopback_is_insecure_by_default() {
        let config = ClientConfig::default();
        for host in [
            "localhost",
            "localhost:5000",
            "127.0.0.1:5000",
            "127.8.9.1",
            "[::1]:5000",
        ] {
            assert!(config.is_insecure(host), "{host}");
        }
        for host in ["docker.io", "10.0.0.1:5000", "localhost.example.org"] {
            assert!(!config.is_insecure(host), "{host}");
        }
    }

    #[test]
    fn insecure_by_host_port_or_range() {
        let config = ClientConfig {
            insecure: vec![
                "hub.lan".into(),
                "reg.lan:5000".into(),
                "10.1.0.0/16".into(),
                "fd00::/8".into(),
            ],
            ..ClientConfig::default()
        };
        assert_eq!(config.validate(), Ok(()));
        for (host, expected) in [
            ("hub.lan:443", true),
            ("reg.lan:5000", true),
            ("reg.lan:5001", false),
            ("10.1.2.3:5000", true),
            ("10.2.2.3:5000", false),
            ("[fd00::1]:5000", true),
        ] {
            assert_eq!(config.is_insecure(host), expected, "{host}");
        }
    }

    #[test]
    fn wrong_values_are_named() {
        let with = |mirror: &str| ClientConfig {
            mirrors: vec![mirror.into()],
            ..ClientConfig::default()
        };
        assert!(matches!(with("ftp://x").validate(), Err(ConfigError::Mirror(_))));
        assert!(matches!(with("x").validate(), Err(ConfigError::Mirror(_))));
        assert!(matches!(
            with("https://u:p@x/").validate(),
            Err(ConfigError::MirrorPart(_))
        ));
        assert_eq!(with("https://x/path").validate(), Ok(()));
        let config = ClientConfig {
            insecure: vec!["10.0.0.0/99".into()],
            ..ClientConfig::default()
        };
        assert!(matches!(config.validate(), Err(ConfigError::Insecure(_))));
    }
}
