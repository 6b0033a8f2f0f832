//! `GET /info` in older versions.

use api_types::SystemInfo;
use serde_json::{Map, Value, json};

use super::{Change, View, fill, object, view};
use crate::version::ApiVersion;

const INFO: &[Change] = &[
    Change {
        since: 50,
        undo: without_devices,
    },
    Change {
        since: 50,
        undo: bridge_filter,
    },
    Change {
        since: 49,
        undo: without_firewall,
    },
    Change {
        since: 49,
        undo: expected_commits,
    },
    Change {
        since: 47,
        undo: nondistributable,
    },
    Change {
        since: 46,
        undo: without_containerd,
    },
    Change {
        since: 44,
        undo: without_runtime_status,
    },
];

/// `GET /info`.
pub fn info(newest: SystemInfo, version: ApiVersion) -> View<SystemInfo> {
    view(newest, version, INFO)
}

fn without_devices(document: &mut Map<String, Value>) {
    document.remove("DiscoveredDevices");
}

/// Always false since the engine no longer depends on the kernel module.
fn bridge_filter(document: &mut Map<String, Value>) {
    fill(
        document,
        json!({"BridgeNfIptables": false, "BridgeNfIp6tables": false}),
    );
}

fn without_firewall(document: &mut Map<String, Value>) {
    document.remove("FirewallBackend");
}

fn expected_commits(document: &mut Map<String, Value>) {
    for key in ["ContainerdCommit", "RuncCommit", "InitCommit"] {
        if let Some(commit) = object(document, key) {
            let id = commit.get("ID").cloned().unwrap_or_default();
            commit.entry("Expected").or_insert(id);
        }
    }
}

fn nondistributable(document: &mut Map<String, Value>) {
    if let Some(config) = object(document, "RegistryConfig") {
        fill(
            config,
            json!({"AllowNondistributableArtifactsCIDRs": null, "AllowNondistributableArtifactsHostnames": null}),
        );
    }
}

fn without_containerd(document: &mut Map<String, Value>) {
    document.remove("Containerd");
}

fn without_runtime_status(document: &mut Map<String, Value>) {
    if let Some(runtimes) = object(document, "Runtimes") {
        for runtime in runtimes.values_mut().filter_map(Value::as_object_mut) {
            runtime.remove("status");
        }
    }
}
