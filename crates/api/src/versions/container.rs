//! Containers in older versions.

use api_types::{ContainerInspect, ContainerSummary};
use serde_json::{Map, Value, json};

use super::{Change, View, fill, object, view};
use crate::version::ApiVersion;

const INSPECT: &[Change] = &[
    Change {
        since: 52,
        undo: bridge_on_top,
    },
    Change {
        since: 52,
        undo: graph_driver,
    },
    Change {
        since: 48,
        undo: without_manifest,
    },
    Change {
        since: 45,
        undo: names_as_aliases,
    },
];

const SUMMARY: &[Change] = &[
    Change {
        since: 52,
        undo: without_health,
    },
    Change {
        since: 48,
        undo: without_manifest,
    },
    Change {
        since: 46,
        undo: without_annotations,
    },
];

/// `GET /containers/{id}/json`.
pub fn inspect(newest: ContainerInspect, version: ApiVersion) -> View<ContainerInspect> {
    view(newest, version, INSPECT)
}

/// A row of `GET /containers/json`.
pub fn summary(newest: ContainerSummary, version: ApiVersion) -> View<ContainerSummary> {
    view(newest, version, SUMMARY)
}

/// The endpoint on the default bridge used to be repeated above the networks.
fn bridge_on_top(document: &mut Map<String, Value>) {
    const COPIED: &[&str] = &[
        "EndpointID",
        "Gateway",
        "GlobalIPv6Address",
        "GlobalIPv6PrefixLen",
        "IPAddress",
        "IPPrefixLen",
        "IPv6Gateway",
        "MacAddress",
    ];
    let Some(settings) = object(document, "NetworkSettings") else {
        return;
    };
    let Some(bridge) = settings
        .get("Networks")
        .and_then(|networks| networks.get("bridge"))
    else {
        return;
    };
    let copies: Vec<(String, Value)> = COPIED
        .iter()
        .filter_map(|key| bridge.get(key).map(|value| ((*key).to_owned(), value.clone())))
        .collect();
    settings.extend(copies);
}

/// `Storage` replaced `GraphDriver`.
fn graph_driver(document: &mut Map<String, Value>) {
    let Some(storage) = document.remove("Storage") else {
        return;
    };
    let name = storage
        .pointer("/RootFS/Snapshot/Name")
        .cloned()
        .unwrap_or_default();
    fill(document, json!({"GraphDriver": {"Data": null, "Name": name}}));
}

fn without_manifest(document: &mut Map<String, Value>) {
    document.remove("ImageManifestDescriptor");
}

/// Short id and host name were listed among the aliases before there were `DNSNames`.
fn names_as_aliases(document: &mut Map<String, Value>) {
    let short_id: String = document
        .get("Id")
        .and_then(Value::as_str)
        .unwrap_or_default()
        .chars()
        .take(12)
        .collect();
    let hostname = document
        .get("Config")
        .and_then(|config| config.get("Hostname"))
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned();
    let Some(networks) =
        object(document, "NetworkSettings").and_then(|settings| object(settings, "Networks"))
    else {
        return;
    };
    for (name, endpoint) in networks.iter_mut().filter(|(name, _)| is_user_defined(name)) {
        let Some(endpoint) = endpoint.as_object_mut() else {
            tracing::warn!(network = %name, "an endpoint is no object");
            continue;
        };
        let mut aliases = match endpoint.get("Aliases") {
            Some(Value::Array(aliases)) => aliases.clone(),
            _ => Vec::new(),
        };
        for alias in [&short_id, &hostname] {
            if !aliases.iter().any(|known| known == alias.as_str()) {
                aliases.push(Value::from(alias.as_str()));
            }
        }
        endpoint.insert("Aliases".to_owned(), Value::Array(aliases));
    }
}

fn is_user_defined(network: &str) -> bool {
    !matches!(network, "bridge" | "host" | "none" | "default") && !network.starts_with("container:")
}

fn without_health(document: &mut Map<String, Value>) {
    document.remove("Health");
}

fn without_annotations(document: &mut Map<String, Value>) {
    if let Some(host_config) = object(document, "HostConfig") {
        host_config.remove("Annotations");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api_types::{EndpointSettings, Map as ApiMap, NetworkSettings};

    #[test]
    fn the_default_bridge_is_repeated_for_old_clients() {
        let endpoint = EndpointSettings {
            ip_address: "172.17.0.2".to_owned(),
            ..EndpointSettings::default()
        };
        let networks = ApiMap::from([("bridge".to_owned(), endpoint)]);
        let newest = ContainerInspect {
            network_settings: NetworkSettings {
                networks,
                ..NetworkSettings::default()
            },
            ..ContainerInspect::default()
        };
        let View::Older(old) = inspect(newest.clone(), ApiVersion::new(1, 51)) else {
            panic!("a view was expected");
        };
        assert_eq!(old["NetworkSettings"]["IPAddress"], "172.17.0.2");
        assert_eq!(
            old["NetworkSettings"]["Networks"]["bridge"]["Aliases"],
            Value::Null
        );
        assert!(matches!(inspect(newest, ApiVersion::new(1, 52)), View::Newest(_)));
    }
}
