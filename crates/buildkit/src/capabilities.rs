//! What clients are told that they may ask for, and the worker that would do it.

use std::collections::HashMap;

use bollard_buildkit_proto::moby::buildkit::v1::apicaps::ApiCap;
use bollard_buildkit_proto::moby::buildkit::v1::types::{BuildkitVersion, WorkerRecord};
use bollard_buildkit_proto::pb;
use spec::Platform;

/// What a frontend may ask of the gateway.
const GATEWAY: &[&str] = &[
    "solve.base",
    "solve.inlinereturn",
    "resolveimage",
    "resolveimage.resolvemode",
    "readfile",
    "return",
    "returnmap",
    "readdir",
    "statfile",
    "importcaches",
    "proto.refarray",
    "reference.output",
    "frontend.inputs",
    "frontend.caps",
    "gateway.solve.metadata",
    "gateway.solve.evaluate",
    "gateway.evaluate",
    "gateway.warnings",
];

/// What exporters do, and what of definitions is understood.
const DEFINITIONS: &[&str] = &[
    "source.image",
    "source.image.resolvemode",
    "source.git",
    "source.git.keepgitdir",
    "source.git.fullurl",
    "source.git.subdir",
    "source.git.knownsshhosts",
    "source.git.mountsshsock",
    "source.http",
    "source.http.checksum",
    "source.http.perm",
    // As the protocol spells it.
    "soruce.http.uidgid",
    "exec.meta.base",
    "exec.meta.network",
    "exec.meta.proxyenv",
    "exec.meta.security",
    "exec.meta.setsdefaultpath",
    "exec.mount.bind",
    "exec.mount.bind.readwrite-nooutput",
    "exec.mount.cache",
    "exec.mount.cache.sharing",
    "exec.mount.selector",
    "exec.mount.tmpfs",
    "exec.mount.tmpfs.size",
    "exec.mount.secret",
    "exec.mount.ssh",
    "exec.secretenv",
    "exec.validexitcode",
    "file.base",
    "file.rm.wildcard",
    "file.copy.modestring",
    "file.symlink.create",
    "mergeop",
    "diffop",
    "source.local",
    "source.local.unique",
    "source.local.sessionid",
    "source.local.includepatterns",
    "source.local.followpaths",
    "source.local.excludepatterns",
    "source.local.sharedkeyhint",
    "source.local.differ",
    "constraints",
    "platform",
    "meta.ignorecache",
    "meta.description",
    "meta.exportcache",
    "exporter.multiple",
    "exporter.image.attestations",
    "gc.freespacefilter",
];

fn caps(ids: &[&str]) -> Vec<ApiCap> {
    let cap = |id: &&str| ApiCap {
        id: (*id).to_owned(),
        enabled: true,
        ..ApiCap::default()
    };
    ids.iter().map(cap).collect()
}

pub fn gateway() -> Vec<ApiCap> {
    caps(GATEWAY)
}

pub fn definitions() -> Vec<ApiCap> {
    caps(DEFINITIONS)
}

/// A platform as messages write it.
pub fn platform(platform: &Platform) -> pb::Platform {
    pb::Platform {
        architecture: platform.architecture.clone(),
        os: platform.os.clone(),
        variant: platform.variant.clone().unwrap_or_default(),
        ..pb::Platform::default()
    }
}

/// The version of the API that is spoken; clients choose by it what they ask.
pub fn version() -> BuildkitVersion {
    BuildkitVersion {
        package: "github.com/moby/buildkit".to_owned(),
        version: concat!("v0.29.0+berth-", env!("CARGO_PKG_VERSION")).to_owned(),
        revision: String::new(),
    }
}

/// The one worker: this machine.
pub fn worker() -> WorkerRecord {
    let labels = [
        ("org.mobyproject.buildkit.worker.executor", "berth"),
        // Clients conclude from it that every exporter is there.
        ("org.mobyproject.buildkit.worker.snapshotter", "overlayfs"),
    ];
    let labels: HashMap<String, String> = labels
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect();
    WorkerRecord {
        id: "berth".to_owned(),
        labels,
        platforms: vec![platform(&Platform::host())],
        buildkit_version: Some(version()),
        ..WorkerRecord::default()
    }
}
