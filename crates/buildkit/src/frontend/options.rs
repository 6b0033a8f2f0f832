//! The attributes of a Dockerfile build, as clients write them.

use std::collections::{BTreeMap, HashMap};

use build::{Limits, Ulimit};
use spec::Platform;

use crate::error::Failure;

/// A build as asked for.
#[derive(Debug, Default)]
pub struct Options {
    /// Name of the Dockerfile.
    pub filename: String,
    /// A URL, where the context is not the client's directory.
    pub context: String,
    /// Names of the client's directories.
    pub context_key: String,
    pub dockerfile_key: Option<String>,
    pub build_args: BTreeMap<String, Option<String>>,
    pub labels: BTreeMap<String, String>,
    pub target: Option<String>,
    /// In the order given; empty: the machine's own.
    pub platforms: Vec<Platform>,
    /// Whether the result is an index even for one platform.
    pub multi_platform: bool,
    pub no_cache: bool,
    pub no_cache_stages: Vec<String>,
    pub pull: bool,
    pub network_mode: String,
    pub extra_hosts: Vec<String>,
    pub hostname: String,
    pub shm_size: i64,
    pub limits: Limits,
    /// Named contexts as they are written.
    pub contexts: BTreeMap<String, String>,
    /// Sessions that serve a directory other than the build's own, by the directory's name.
    pub sessions: HashMap<String, String>,
    /// Tell of each step whether the cache knew it, and why not.
    pub explain: bool,
    /// The new layers become one.
    pub squash: bool,
    /// Attestations that were asked for, by kind.
    pub attestations: BTreeMap<String, String>,
}

impl Options {
    /// Reads the attributes.
    pub fn read(attributes: &HashMap<String, String>) -> Result<Options, Failure> {
        let get = |key: &str| attributes.get(key).map(String::as_str).unwrap_or_default();
        let text = |key: &str, default: &str| match get(key) {
            "" => default.to_owned(),
            value => value.to_owned(),
        };
        let mut options = Options {
            filename: text("filename", "Dockerfile"),
            context: get("context").to_owned(),
            context_key: text("contextkey", "context"),
            dockerfile_key: attributes
                .get("dockerfilekey")
                .filter(|key| !key.is_empty())
                .cloned(),
            target: attributes
                .get("target")
                .filter(|target| !target.is_empty())
                .cloned(),
            platforms: platforms(get("platform"))?,
            pull: get("image-resolve-mode") == "pull",
            network_mode: network(get("force-network-mode"))?,
            extra_hosts: hosts(get("add-hosts"))?,
            explain: matches!(get("explain"), "1" | "true"),
            squash: matches!(get("squash"), "1" | "true"),
            hostname: text("build-arg:BUILDKIT_SANDBOX_HOSTNAME", get("hostname")),
            shm_size: number(get("shm-size"), "shm-size")?,
            limits: Limits {
                memory: number(get("memory"), "memory")?,
                memory_swap: number(get("memswap"), "memswap")?,
                cpu_shares: number(get("cpushares"), "cpushares")?,
                cpu_period: number(get("cpuperiod"), "cpuperiod")?,
                cpu_quota: number(get("cpuquota"), "cpuquota")?,
                cpuset_cpus: get("cpusetcpus").to_owned(),
                cpuset_mems: get("cpusetmems").to_owned(),
                cgroup_parent: get("cgroup-parent").to_owned(),
                ulimits: ulimits(get("ulimit"))?,
            },
            ..Options::default()
        };
        if let Some(stages) = attributes.get("no-cache") {
            options.no_cache = stages.is_empty();
            let stages = stages.split(',').filter(|stage| !stage.is_empty());
            options.no_cache_stages = stages.map(str::to_owned).collect();
        }
        let multi = text("build-arg:BUILDKIT_MULTI_PLATFORM", get("multi-platform"));
        options.multi_platform = match multi.as_str() {
            "" => options.platforms.len() > 1,
            "1" | "true" => true,
            "0" | "false" if options.platforms.len() > 1 => {
                return Err(Failure::invalid(
                    "conflicting config: returning multiple target platforms is not allowed",
                ));
            }
            "0" | "false" => false,
            other => {
                return Err(Failure::invalid(format!(
                    "invalid boolean value for multi-platform: {other}"
                )));
            }
        };
        for (key, value) in attributes {
            if let Some(kind) = key.strip_prefix("build-arg:BUILDKIT_ATTEST_") {
                let kind = options.attestations.entry(kind.to_ascii_lowercase());
                kind.or_insert_with(|| value.clone());
            }
            if let Some(name) = key.strip_prefix("build-arg:") {
                options.build_args.insert(name.to_owned(), Some(value.clone()));
            } else if let Some(name) = key.strip_prefix("label:") {
                options.labels.insert(name.to_owned(), value.clone());
            } else if let Some(name) = key.strip_prefix("context:") {
                options.contexts.insert(name.to_owned(), value.clone());
            } else if let Some(name) = key.strip_prefix("local-sessionid:") {
                options.sessions.insert(name.to_owned(), value.clone());
            } else if let Some(kind) = key.strip_prefix("attest:") {
                options.attestations.insert(kind.to_owned(), value.clone());
            }
        }
        Ok(options)
    }
}

fn platforms(text: &str) -> Result<Vec<Platform>, Failure> {
    let mut found: Vec<Platform> = Vec::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let platform = match part {
            "local" => Platform::host(),
            part => part.parse().map_err(|error| {
                Failure::invalid(format!("failed to parse target platform {part}: {error}"))
            })?,
        };
        if !found.contains(&platform) {
            found.push(platform);
        }
    }
    Ok(found)
}

fn network(text: &str) -> Result<String, Failure> {
    match text {
        "" | "sandbox" | "default" => Ok(String::new()),
        // Beyond BuildKit, a network of the engine.
        name if name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte)) =>
        {
            Ok(name.to_owned())
        }
        other => Err(Failure::invalid(format!(
            "invalid netmode {other:?}: expected host, none, sandbox or the name of a network"
        ))),
    }
}

/// `host=address,…` to `host:address`.
fn hosts(text: &str) -> Result<Vec<String>, Failure> {
    let hosts = text.split(',').filter(|host| !host.is_empty());
    hosts
        .map(|host| match host.split_once('=') {
            Some((name, address)) if !name.is_empty() && !address.is_empty() => {
                Ok(format!("{name}:{address}"))
            }
            _ => Err(Failure::invalid(format!(
                "invalid host {host:?}: expected name=address"
            ))),
        })
        .collect()
}

fn number(text: &str, what: &str) -> Result<i64, Failure> {
    match text {
        "" => Ok(0),
        text => text
            .parse()
            .map_err(|_| Failure::invalid(format!("failed to parse {what}: {text:?} is no number"))),
    }
}

/// `name=soft:hard,…`
fn ulimits(text: &str) -> Result<Vec<Ulimit>, Failure> {
    let limits = text.split(',').filter(|limit| !limit.is_empty());
    limits
        .map(|limit| {
            let wrong = || Failure::invalid(format!("invalid ulimit {limit:?}: expected name=soft:hard"));
            let (name, values) = limit.split_once('=').ok_or_else(wrong)?;
            let (soft, hard) = values.split_once(':').unwrap_or((values, values));
            Ok(Ulimit {
                name: name.to_owned(),
                soft: soft.parse().map_err(|_| wrong())?,
                hard: hard.parse().map_err(|_| wrong())?,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(attributes: &[(&str, &str)]) -> Result<Options, Failure> {
        let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        Options::read(&attributes.iter().map(owned).collect())
    }

    #[test]
    fn attributes_are_read() {
        let options = read(&[
            ("build-arg:A", "b=c"),
            ("label:x.y", "z"),
            ("platform", "linux/amd64,linux/arm64,linux/amd64"),
            ("no-cache", "one,two"),
            ("add-hosts", "a=1.2.3.4,b=::1"),
            ("ulimit", "nofile=1:2,core=3"),
            ("context:base", "docker-image://alpine"),
            ("local-sessionid:context", "s"),
        ])
        .unwrap();
        assert_eq!(options.build_args["A"].as_deref(), Some("b=c"));
        assert_eq!(options.labels["x.y"], "z");
        assert_eq!(options.platforms.len(), 2);
        assert!(options.multi_platform && !options.no_cache);
        assert_eq!(options.no_cache_stages, ["one", "two"]);
        assert_eq!(options.extra_hosts, ["a:1.2.3.4", "b:::1"]);
        assert_eq!(
            (options.limits.ulimits[0].hard, options.limits.ulimits[1].hard),
            (2, 3)
        );
        assert_eq!(options.contexts["base"], "docker-image://alpine");
        assert_eq!(options.sessions["context"], "s");
        assert!(read(&[("no-cache", "")]).unwrap().no_cache);
    }

    #[test]
    fn nonsense_is_named() {
        for (key, value, part) in [
            ("platform", "linux/a/b/c/d", "failed to parse target platform"),
            ("force-network-mode", "container:x", "invalid netmode"),
            ("add-hosts", "a", "invalid host"),
            ("shm-size", "big", "is no number"),
            ("ulimit", "nofile", "invalid ulimit"),
            ("multi-platform", "perhaps", "invalid boolean"),
        ] {
            let message = read(&[(key, value)]).unwrap_err().message;
            assert!(message.contains(part), "{message}");
        }
    }
}
