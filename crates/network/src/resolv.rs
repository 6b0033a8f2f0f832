//! /etc/resolv.conf: what the host's says, and what a container gets.
//!
//! A container of a user-defined network asks the embedded resolver, which asks the host's servers from the host's
//! namespace. A container of the default network asks the host's servers itself; a server on the host's loopback
//! cannot be asked from inside, so such a host's containers get the embedded resolver as a forwarder instead.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use crate::model::DnsConfig;

const HOST: &str = "/etc/resolv.conf";
/// What systemd-resolved's stub on 127.0.0.53 forwards to.
const BEHIND_STUB: &str = "/run/systemd/resolve/resolv.conf";
/// resolv.conf(5) files are small; a larger one is not read to the end.
const LONGEST: usize = 64 * 1024;

/// A resolv.conf, parsed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Resolv {
    pub(crate) servers: Vec<IpAddr>,
    pub(crate) search: Vec<String>,
    pub(crate) options: Vec<String>,
}

impl Resolv {
    pub(crate) fn parse(text: &str) -> Resolv {
        let mut resolv = Resolv::default();
        for line in text.get(..LONGEST).unwrap_or(text).lines() {
            let line = line.split(['#', ';']).next().unwrap_or_default();
            let mut words = line.split_whitespace();
            match words.next() {
                // A zone (`fe80::1%eth0`) means nothing elsewhere.
                Some("nameserver") => resolv
                    .servers
                    .extend(words.next().and_then(|w| w.parse::<IpAddr>().ok())),
                // The last one counts.
                Some("search" | "domain") => resolv.search = words.map(str::to_owned).collect(),
                Some("options") => resolv.options.extend(words.map(str::to_owned)),
                _ => {}
            }
        }
        resolv
    }

    /// The host's, looking behind a local stub where that is possible.
    pub(crate) fn of_host() -> Resolv {
        let read = |path: &str| {
            std::fs::read_to_string(Path::new(path))
                .map(|text| Resolv::parse(&text))
                .ok()
        };
        let host = read(HOST).unwrap_or_default();
        if host.servers.iter().any(|s| !s.is_loopback()) {
            return host;
        }
        match read(BEHIND_STUB) {
            Some(behind) if !behind.servers.is_empty() => Resolv {
                servers: behind.servers,
                ..host
            },
            _ => host,
        }
    }

    /// This file with the container's own settings in place of its parts.
    fn with(mut self, dns: &DnsConfig) -> Resolv {
        if !dns.servers.is_empty() {
            self.servers.clone_from(&dns.servers);
        }
        if !dns.search.is_empty() {
            self.search = dns.search.iter().filter(|s| *s != ".").cloned().collect();
        }
        if !dns.options.is_empty() {
            self.options.clone_from(&dns.options);
        }
        self
    }
}

/// What a container's resolver configuration comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Resolution {
    /// The file's content.
    pub(crate) text: String,
    /// Whether the embedded resolver must run.
    pub(crate) embedded: bool,
    /// Whom it asks for other names.
    pub(crate) upstreams: Vec<SocketAddr>,
    /// Names without a dot are completed by whoever asks, so they are asked of nobody else.
    pub(crate) single_labels_stay: bool,
}

/// Works it out. `names` is true where container names are resolved, that is in user-defined networks.
pub(crate) fn resolve(host: Resolv, dns: &DnsConfig, names: bool) -> Resolution {
    let own_servers = !dns.servers.is_empty();
    let mut resolv = host.with(dns);
    let unreachable = resolv.servers.iter().all(IpAddr::is_loopback);
    let embedded = names || (!own_servers && unreachable && !resolv.servers.is_empty());
    let upstreams: Vec<SocketAddr> = resolv.servers.iter().map(|s| SocketAddr::new(*s, 53)).collect();
    if !embedded {
        if !own_servers {
            resolv.servers.retain(|s| !s.is_loopback());
        }
        return Resolution {
            text: render(&resolv, &[]),
            embedded,
            upstreams: Vec::new(),
            single_labels_stay: false,
        };
    }
    let ndots = resolv.options.iter().rev().find_map(|o| o.strip_prefix("ndots:"));
    let single_labels_stay = ndots.and_then(|n| n.parse::<u32>().ok()).is_some_and(|n| n > 0);
    let asked = std::mem::replace(&mut resolv.servers, vec![dns::ADDRESS.into()]);
    let mut comments = vec![format!(
        "ExtServers: [{}]",
        asked
            .iter()
            .map(|s| format!("host({s})"))
            .collect::<Vec<_>>()
            .join(" ")
    )];
    if names && !resolv.options.iter().any(|o| o.starts_with("ndots:")) {
        resolv.options.push("ndots:0".to_owned());
        comments.push("Option ndots from: internal".to_owned());
    }
    Resolution {
        text: render(&resolv, &comments),
        embedded,
        upstreams,
        single_labels_stay,
    }
}

fn render(resolv: &Resolv, comments: &[String]) -> String {
    let mut text = "# Written by Berth when the container starts; edits last until then.\n\n".to_owned();
    for server in &resolv.servers {
        let _ = writeln!(text, "nameserver {server}");
    }
    if !resolv.search.is_empty() {
        let _ = writeln!(text, "search {}", resolv.search.join(" "));
    }
    if !resolv.options.is_empty() {
        let _ = writeln!(text, "options {}", resolv.options.join(" "));
    }
    if !comments.is_empty() {
        text.push('\n');
    }
    for comment in comments {
        let _ = writeln!(text, "# {comment}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host() -> Resolv {
        Resolv::parse(
            "# c\nnameserver 10.0.0.1\nnameserver 127.0.0.53 ; stub\nsearch a.example b.example\noptions edns0\n",
        )
    }

    #[test]
    fn user_networks_ask_the_embedded_resolver() {
        let resolution = resolve(host(), &DnsConfig::default(), true);
        assert!(resolution.embedded && !resolution.single_labels_stay);
        assert_eq!(resolution.upstreams.len(), 2);
        assert!(
            resolution
                .text
                .contains("\nnameserver 127.0.0.11\nsearch a.example b.example\noptions edns0 ndots:0\n")
        );
        assert!(
            resolution
                .text
                .contains("# ExtServers: [host(10.0.0.1) host(127.0.0.53)]\n")
        );
        let own = DnsConfig {
            servers: vec!["9.9.9.9".parse().unwrap()],
            search: vec![".".into()],
            options: vec!["ndots:2".into()],
        };
        let resolution = resolve(host(), &own, true);
        assert!(resolution.text.contains("options ndots:2\n") && !resolution.text.contains("search"));
        assert!(resolution.single_labels_stay);
        assert_eq!(resolution.upstreams, ["9.9.9.9:53".parse().unwrap()]);
    }

    #[test]
    fn the_default_network_asks_the_hosts_servers_but_never_its_loopback() {
        let resolution = resolve(host(), &DnsConfig::default(), false);
        assert!(!resolution.embedded);
        assert!(resolution.text.contains("nameserver 10.0.0.1\n") && !resolution.text.contains("127.0.0"));
        let stub_only = Resolv::parse("nameserver 127.0.0.1\n");
        let resolution = resolve(stub_only, &DnsConfig::default(), false);
        assert!(resolution.embedded && resolution.text.contains("nameserver 127.0.0.11\n"));
        assert!(!resolve(Resolv::default(), &DnsConfig::default(), false).embedded);
    }
}
