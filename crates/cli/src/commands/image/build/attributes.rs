//! How a Dockerfile is to be read and its steps are to be run, in the words of BuildKit's frontend.

use crate::failure::Failure;
use crate::flags::Matches;
use crate::grammar::{env, hosts, limits};
use std::collections::{BTreeMap, HashMap};

/// The question whether a Dockerfile keeps the rules.
pub const LINT: &str = "frontend.lint";

/// What a Dockerfile is asked instead of being built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// By what the frontend knows the question.
    pub id: &'static str,
    pub json: bool,
}

/// `KIND[,format=json]`; `None`: it is built.
pub fn call(matches: &Matches) -> Result<Option<Call>, Failure> {
    let text = match matches.bool("check") {
        true => "check",
        false => matches.text_or_default("call"),
    };
    let (kind, format) = text.split_once(",format=").unwrap_or((text, "text"));
    let id = match kind {
        "" | "build" => return Ok(None),
        "check" | "lint" => LINT,
        "outline" => "frontend.outline",
        "targets" => "frontend.targets",
        other => {
            return Err(Failure::text(format!(
                "invalid call {other:?}: use build, check, outline or targets"
            )));
        }
    };
    let json = match format {
        "" | "text" => false,
        "json" => true,
        other => {
            return Err(Failure::text(format!(
                "invalid format {other:?}: use text or json"
            )));
        }
    };
    Ok(Some(Call { id, json }))
}

/// The platforms in the order given.
fn platforms(matches: &Matches) -> Result<Vec<String>, Failure> {
    let default = std::env::var("DOCKER_DEFAULT_PLATFORM").unwrap_or_default();
    let given = match matches.list("platform") {
        [] => vec![default],
        given => given.to_vec(),
    };
    let given = given.iter().flat_map(|text| text.split(',')).map(str::trim);
    let given: Vec<String> = given
        .filter(|text| !text.is_empty())
        .map(str::to_lowercase)
        .collect();
    for text in &given {
        if text != "local" && text.parse::<spec::Platform>().is_err() {
            return Err(Failure::text(format!(
                "error parsing specified platform: {text:?}: cannot parse platform specifier: invalid argument"
            )));
        }
    }
    Ok(given)
}

/// The attestations, by kind. What writes a document about the build asks for one that goes nowhere else.
fn attestations(matches: &Matches) -> Result<BTreeMap<String, String>, Failure> {
    let mut wanted = BTreeMap::new();
    if matches.text("metadata-file").is_some() {
        wanted.insert("provenance".to_owned(), "mode=min,told-only=true".to_owned());
    }
    for text in matches.list("attest") {
        let fields: Vec<&str> = text.split(',').collect();
        let kind = fields.iter().find_map(|field| field.strip_prefix("type="));
        let Some(kind) = kind else {
            return Err(Failure::text(format!(
                "invalid attestation {text:?}: type is required"
            )));
        };
        let rest = fields.iter().filter(|field| !field.starts_with("type=")).copied();
        wanted.insert(kind.to_owned(), rest.collect::<Vec<_>>().join(","));
    }
    for kind in ["provenance", "sbom"] {
        let value = match matches.text(kind) {
            None => continue,
            Some("false" | "0") => "disabled=true",
            Some("true" | "1" | "") => "",
            Some(options) => options,
        };
        wanted.insert(kind.to_owned(), value.to_owned());
    }
    Ok(wanted)
}

/// The engine's own choice has no name.
fn network(name: &str) -> String {
    match name {
        "default" => String::new(),
        name => name.to_owned(),
    }
}

/// All attributes that the flags ask for.
pub fn attributes(matches: &Matches) -> Result<HashMap<String, String>, Failure> {
    refused(matches)?;
    let mut all = HashMap::new();
    let mut set = |key: &str, value: String| {
        if !value.is_empty() {
            all.insert(key.to_owned(), value);
        }
    };
    let number = |flag: &str| {
        matches
            .int(flag)
            .map(|number| number.to_string())
            .unwrap_or_default()
    };
    let bytes = |flag: &str| {
        matches
            .bytes(flag)
            .map(|number| number.to_string())
            .unwrap_or_default()
    };
    let text = |flag: &str| matches.text(flag).unwrap_or_default().to_owned();
    set("target", text("target"));
    set("platform", platforms(matches)?.join(","));
    set("cgroup-parent", text("cgroup-parent"));
    set("cpusetcpus", text("cpuset-cpus"));
    set("cpusetmems", text("cpuset-mems"));
    set("cpushares", number("cpu-shares"));
    set("cpuquota", number("cpu-quota"));
    set("cpuperiod", number("cpu-period"));
    set("memory", bytes("memory"));
    set("memswap", bytes("memory-swap"));
    set("shm-size", bytes("shm-size"));
    set("force-network-mode", network(matches.text_or_default("network")));
    if matches.bool("pull") {
        set("image-resolve-mode", "pull".to_owned());
    }
    if matches.bool("squash") {
        set("squash", "1".to_owned());
    }
    let mut names = Vec::new();
    for host in matches.list("add-host") {
        let host = hosts::add_host(host).map_err(Failure::text)?;
        names.push(host.replacen(':', "=", 1));
    }
    set("add-hosts", names.join(","));
    let mut ulimits = Vec::new();
    for limit in matches.list("ulimit") {
        let limit = limits::ulimit(limit).map_err(Failure::text)?;
        ulimits.push(format!("{}={}:{}", limit.name, limit.soft, limit.hard));
    }
    set("ulimit", ulimits.join(","));
    let stages: Vec<&str> = matches
        .list("no-cache-filter")
        .iter()
        .map(String::as_str)
        .collect();
    match (matches.bool("no-cache"), stages.is_empty()) {
        (true, _) => {
            all.insert("no-cache".to_owned(), String::new());
        }
        (false, false) => set("no-cache", stages.join(",")),
        (false, true) => {}
    }
    arguments(matches, &mut all);
    for (name, value) in env::pairs(matches.list("label")).iter() {
        all.insert(format!("label:{name}"), value.clone());
    }
    for (kind, value) in attestations(matches)? {
        all.insert(format!("attest:{kind}"), value);
    }
    Ok(all)
}

fn arguments(matches: &Matches, all: &mut HashMap<String, String>) {
    for text in matches.list("build-arg") {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            // A bare name takes the client's own value; one the client lacks is left to the Dockerfile.
            None => (text.as_str(), std::env::var(text).ok()),
        };
        if let Some(value) = value {
            all.insert(format!("build-arg:{name}"), value);
        }
    }
    // A time that the environment asks for is for every tool that makes something.
    if let Ok(epoch) = std::env::var("SOURCE_DATE_EPOCH") {
        all.entry("build-arg:SOURCE_DATE_EPOCH".to_owned())
            .or_insert(epoch);
    }
}

/// Flags of other systems that Docker's client has, too.
fn refused(matches: &Matches) -> Result<(), Failure> {
    if !matches.list("security-opt").is_empty() {
        return Err(Failure::text("security options are not supported on linux"));
    }
    match matches.text("isolation").unwrap_or_default() {
        "" | "default" => Ok(()),
        other => Err(Failure::text(format!(
            "invalid isolation {other:?} in build config: only 'default' is supported"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_default_network_has_no_name() {
        for (given, sent) in [
            ("default", ""),
            ("", ""),
            ("host", "host"),
            ("none", "none"),
            ("myproj_default", "myproj_default"),
            ("defaults", "defaults"),
        ] {
            assert_eq!(network(given), sent);
        }
    }
}
