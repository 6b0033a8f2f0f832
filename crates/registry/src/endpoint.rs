//! Where a repository is reached: mirrors in order, then the registry itself.
//!
//! `docker.io` is a name, not a host: its API answers at `registry-1.docker.io`. A mirror never gets the
//! registry's credentials.

use std::path::PathBuf;

use spec::Reference;
use url::Url;

use crate::config::{ClientConfig, parse_mirror};
use crate::rule::{self, Rule};

/// The host behind the name `docker.io`.
pub(crate) const DOCKER_HUB_API: &str = "registry-1.docker.io";

/// Which schemes may be used for a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Security {
    /// HTTPS with verified certificates.
    Verified,
    /// HTTPS without verification, else HTTP, as Docker does for insecure registries.
    Insecure,
    /// HTTP, because a configured URL says so.
    Plain,
}

/// One place where a repository may be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// Host with its port if any.
    pub host: String,
    pub security: Security,
    /// Path before `/v2/`, without a slash at its end.
    pub prefix: String,
    /// The repository's name there.
    pub repository: String,
    pub mirror: bool,
    /// Where its credentials are, if not with the client.
    pub auth_file: Option<PathBuf>,
}

impl Endpoint {
    /// The endpoint of a registry by the domain part of a reference.
    pub fn registry(config: &ClientConfig, domain: &str, repository: &str) -> Endpoint {
        let host = match domain {
            "docker.io" | "index.docker.io" => DOCKER_HUB_API,
            other => other,
        };
        Endpoint {
            security: security(config, host),
            host: host.to_owned(),
            prefix: String::new(),
            repository: repository.to_owned(),
            mirror: false,
            auth_file: None,
        }
    }

    /// With what a rule says about it.
    fn ruled(mut self, rule: &Rule) -> Endpoint {
        self.auth_file.clone_from(&rule.auth_file);
        if rule.insecure && self.security == Security::Verified {
            self.security = Security::Insecure;
        }
        self
    }

    fn mirror(config: &ClientConfig, url: &Url, repository: &str) -> Option<Endpoint> {
        let name = url.host_str()?;
        let host = match url.port() {
            Some(port) => format!("{name}:{port}"),
            None => name.to_owned(),
        };
        Some(Endpoint {
            security: match url.scheme() {
                "http" => Security::Plain,
                _ => security(config, &host),
            },
            host,
            prefix: url.path().trim_end_matches('/').to_owned(),
            repository: repository.to_owned(),
            mirror: true,
            auth_file: None,
        })
    }
}

fn security(config: &ClientConfig, host: &str) -> Security {
    if config.is_insecure(host) {
        Security::Insecure
    } else {
        Security::Verified
    }
}

/// Where to pull `reference` from, best first. The last one is the registry itself, unless a rule leaves it out.
pub(crate) fn for_pull(config: &ClientConfig, reference: &Reference) -> Vec<Endpoint> {
    let mut endpoints = Vec::new();
    if reference.domain() == "docker.io" {
        for mirror in config.mirrors.iter().filter_map(|m| parse_mirror(m).ok()) {
            endpoints.extend(Endpoint::mirror(config, &mirror, reference.path()));
        }
    }
    let name = reference.name();
    let best = rule::find(&config.rules, &name);
    if let Some((rule, rest)) = best {
        for mirror in rule.mirrors.iter().filter_map(|m| parse_mirror(m).ok()) {
            // The URL's path is part of the repository's name there: `/v2/` comes first on every registry.
            let repository = joined(mirror.path().trim_matches('/'), rest);
            let endpoint = Endpoint::mirror(config, &mirror, &repository).map(|e| Endpoint {
                prefix: String::new(),
                ..e
            });
            endpoints.extend(endpoint.map(|e| e.ruled(rule)));
        }
    }
    if best.is_none_or(|(rule, _)| !rule.only_mirrors) {
        endpoints.push(upstream(config, reference));
    }
    endpoints
}

/// The registry itself, where a rule says it is.
pub(crate) fn upstream(config: &ClientConfig, reference: &Reference) -> Endpoint {
    let name = reference.name();
    let Some((rule, rest)) = rule::find(&config.rules, &name) else {
        return Endpoint::registry(config, reference.domain(), reference.path());
    };
    let endpoint = match &rule.location {
        Some(location) => {
            let (domain, path) = location.split_once('/').unwrap_or((location, ""));
            Endpoint::registry(config, domain, &joined(path, rest))
        }
        None => Endpoint::registry(config, reference.domain(), reference.path()),
    };
    endpoint.ruled(rule)
}

fn joined(path: &str, rest: &str) -> String {
    match (path.is_empty(), rest.is_empty()) {
        (true, _) => rest.to_owned(),
        (_, true) => path.to_owned(),
        _ => format!("{path}/{rest}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pull(config: &ClientConfig, name: &str) -> Vec<String> {
        for_pull(config, &name.parse().unwrap())
            .iter()
            .map(|e| format!("{:?} {}{}/v2/{}", e.security, e.host, e.prefix, e.repository))
            .collect()
    }

    #[test]
    fn docker_hub_has_its_own_host() {
        let config = ClientConfig::default();
        assert_eq!(
            pull(&config, "busybox"),
            ["Verified registry-1.docker.io/v2/library/busybox"]
        );
        assert_eq!(
            pull(&config, "localhost:5000/a/b"),
            ["Insecure localhost:5000/v2/a/b"]
        );
    }

    #[test]
    fn mirrors_come_first() {
        let config = ClientConfig {
            mirrors: vec!["https://m.example/hub/".into(), "http://127.0.0.1:81".into()],
            rules: vec![
                Rule {
                    prefix: "quay.io".into(),
                    mirrors: vec!["https://q.example".into()],
                    ..Rule::default()
                },
                Rule {
                    prefix: "quay.io/team".into(),
                    mirrors: vec!["https://t.example/x".into()],
                    ..Rule::default()
                },
            ],
            ..ClientConfig::default()
        };
        assert_eq!(
            pull(&config, "busybox"),
            [
                "Verified m.example/hub/v2/library/busybox",
                "Plain 127.0.0.1:81/v2/library/busybox",
                "Verified registry-1.docker.io/v2/library/busybox"
            ]
        );
        assert_eq!(
            pull(&config, "quay.io/team/app"),
            ["Verified t.example/v2/x/app", "Verified quay.io/v2/team/app"]
        );
        assert_eq!(
            pull(&config, "quay.io/teams/app"),
            ["Verified q.example/v2/teams/app", "Verified quay.io/v2/teams/app"]
        );
    }

    #[test]
    fn rules_rewrite_and_leave_out() {
        let rule = |prefix: &str| Rule {
            prefix: prefix.into(),
            ..Rule::default()
        };
        let config = ClientConfig {
            rules: vec![
                Rule {
                    location: Some("reg.lan:5000/quay".into()),
                    insecure: true,
                    ..rule("quay.io/team")
                },
                Rule {
                    mirrors: vec!["https://cache.lan".into()],
                    only_mirrors: true,
                    ..rule("*")
                },
            ],
            ..ClientConfig::default()
        };
        assert_eq!(
            pull(&config, "quay.io/team/app"),
            ["Insecure reg.lan:5000/v2/quay/app"]
        );
        assert_eq!(
            pull(&config, "busybox"),
            ["Verified cache.lan/v2/docker.io/library/busybox"]
        );
        let pushed = upstream(&config, &"quay.io/team/app:1".parse().unwrap());
        assert_eq!(
            (pushed.host.as_str(), pushed.repository.as_str()),
            ("reg.lan:5000", "quay/app")
        );
    }
}
