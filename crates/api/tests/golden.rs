//! Recorded answers of a real engine, held against our models and against the views for older versions.
//!
//! The newest recorded answer (API 1.53) is read into our model; written again it must be the same document, and its view
//! for each older version must be the answer recorded for that version. So the recordings test keys, null and absent, types
//! and order of nesting without an engine. What the domain fills in is tested with the running daemon.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::PathBuf;

use api::version::ApiVersion;
use api::versions;
use api_types::golden::{Excuse, compare, load};
use api_types::lenient;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

const VERSIONS: [&str; 5] = ["1.40", "1.44", "1.47", "1.51", "1.53"];

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn recorded(case: &str, version: &str) -> Value {
    load(&directory(), case, version).expect(case).body
}

fn read<T: DeserializeOwned>(value: &Value) -> T {
    lenient::from_value(value).expect("the recorded answer is read")
}

fn written<T: Serialize>(value: &T) -> Value {
    serde_json::to_value(value).expect("an answer is written")
}

/// Recorded lists of Go maps come in any order.
fn sorted_mounts(mut value: Value) -> Value {
    fn sort(value: &mut Value) {
        match value {
            Value::Object(fields) => {
                if let Some(Value::Array(mounts)) = fields.get_mut("Mounts") {
                    mounts.sort_by_key(|mount| mount["Destination"].as_str().map(str::to_owned));
                }
                fields.values_mut().for_each(sort);
            }
            Value::Array(items) => {
                items.sort_by_key(|item| item["Name"].as_str().map(str::to_owned));
                items.iter_mut().for_each(sort);
            }
            _ => {}
        }
    }
    sort(&mut value);
    value
}

fn hold<T: DeserializeOwned>(case: &str, view: impl Fn(T, ApiVersion) -> Value, excuses: &[(&str, Excuse)]) {
    let newest = recorded(case, "1.53");
    for version in VERSIONS {
        let model: T = read(&newest);
        let api_version = ApiVersion::parse(version).expect("a version");
        let actual = sorted_mounts(view(model, api_version));
        let differences = compare(&sorted_mounts(recorded(case, version)), &actual, excuses);
        assert!(
            differences.is_empty(),
            "{case} in {version}:\n{}",
            differences.join("\n")
        );
    }
}

fn rows<T, V: Serialize>(rows: Vec<T>, view: impl Fn(T) -> V) -> Value {
    rows.into_iter().map(|row| written(&view(row))).collect()
}

#[test]
fn container_inspect() {
    for case in [
        "container-inspect-created",
        "container-inspect-running",
        "container-inspect-exited",
    ] {
        hold(
            case,
            |model, version| written(&versions::container::inspect(model, version)),
            &[],
        );
    }
}

#[test]
fn container_list() {
    hold::<Vec<_>>(
        "containers-json",
        |list, version| rows(list, |row| versions::container::summary(row, version)),
        &[],
    );
}

#[test]
fn image_inspect() {
    hold(
        "image-inspect",
        |model, version| written(&versions::image::inspect(model, "overlayfs", version)),
        &[],
    );
}

#[test]
fn image_list() {
    hold::<Vec<_>>(
        "images-json",
        |list, version| rows(list, |row| versions::image::summary(row, version)),
        // Older versions do not know the parameter that asks for it.
        &[("*.SharedSize", Excuse::Value)],
    );
}

#[test]
fn image_history() {
    hold::<Vec<api_types::HistoryResponseItem>>("image-history", |list, _| written(&list), &[]);
}

#[test]
fn info() {
    hold(
        "info",
        |model, version| written(&versions::system::info(model, version)),
        &[
            ("SystemTime", Excuse::Value),
            ("NFd", Excuse::Value),
            ("NGoroutines", Excuse::Value),
        ],
    );
}

#[test]
fn disk_usage() {
    let newest: api_types::DiskUsage = read(&recorded("system-df", "1.53"));
    for version in VERSIONS {
        let api_version = ApiVersion::parse(version).expect("a version");
        let actual = versions::disk_usage::disk_usage(newest.clone(), api_version, false);
        let differences = compare(&recorded("system-df", version), &actual, &[]);
        assert!(differences.is_empty(), "{version}: {differences:?}");
    }
    let verbose = versions::disk_usage::disk_usage(newest, ApiVersion::new(1, 53), true);
    assert_eq!(
        compare(&recorded("system-df-verbose", "1.53"), &verbose, &[]),
        Vec::<String>::new()
    );
}

#[test]
fn networks() {
    hold(
        "network-inspect",
        |model, version| written(&versions::network::inspect(model, version)),
        &[],
    );
    hold::<Vec<api_types::NetworkSummary>>("networks", |list, _| written(&list), &[]);
}

#[test]
fn volumes_and_version() {
    hold::<api_types::VolumeListResponse>("volumes", |list, _| written(&list), &[]);
    hold::<api_types::SystemVersion>("version", |model, _| written(&model), &[]);
}

/// Answers recorded once: read and written again they are the same.
#[test]
fn models_lose_nothing() {
    fn same<T: DeserializeOwned + Serialize>(case: &str) {
        let body = recorded(case, "1.51");
        let model: T = read(&body);
        assert_eq!(
            compare(&body, &written(&model), &[]),
            Vec::<String>::new(),
            "{case}"
        );
    }
    same::<api_types::CreateContainerResponse>("container-create");
    same::<api_types::ContainerUpdateResponse>("container-update");
    same::<api_types::ContainerWaitResponse>("container-wait");
    same::<api_types::ContainerTopResponse>("container-top");
    same::<api_types::Stats>("container-stats-oneshot");
    same::<Vec<api_types::FilesystemChange>>("container-changes");
    same::<api_types::IdResponse>("exec-create");
    same::<api_types::IdResponse>("commit");
    same::<api_types::ExecInspect>("exec-inspect");
    same::<Vec<api_types::ImageDeleteResponseItem>>("image-delete");
    same::<Vec<api_types::ImageDeleteResponseItem>>("image-delete-2");
    same::<api_types::NetworkCreateResponse>("network-create");
    same::<api_types::Volume>("volume-create");
    same::<api_types::Volume>("volume-inspect");
    same::<api_types::ContainersPruneReport>("prune-containers");
    same::<api_types::ImagesPruneReport>("prune-images");
    same::<api_types::NetworksPruneReport>("prune-networks");
    same::<api_types::VolumesPruneReport>("prune-volumes");
    same::<api_types::BuildPruneReport>("prune-build");
    same::<api_types::ErrorResponse>("err-inspect-unknown");
}

/// Requests of a real client are read without loss: each key they carry is in what we would write.
#[test]
fn requests_are_read() {
    let exchange = load(&directory(), "container-create", "1.51").expect("the recording");
    let body = exchange.request.body.expect("a body");
    let request: api_types::CreateContainerRequest = read(&body);
    let differences = compare(
        &body,
        &written(&request),
        &[("HostConfig", Excuse::Shape), ("HostConfig.*", Excuse::Shape)],
    );
    let lost: Vec<_> = differences
        .iter()
        .filter(|line| !line.ends_with("not in the recorded answer"))
        .collect();
    assert!(lost.is_empty(), "{lost:?}");
    assert_eq!(request.config.healthcheck.map(|check| check.retries), Some(2));
    assert_eq!(request.host_config.map(|host| host.pids_limit), Some(Some(64)));
}

/// Events of API 1.51: the view gives the recorded lines again.
#[test]
fn events() {
    let body = recorded("events", "1.51");
    let lines: Vec<&str> = body.as_str().expect("lines").lines().collect();
    // The recording was cut off within its last line.
    let complete = &lines[..lines.len() - 1];
    assert!(complete.len() > 10);
    for line in complete {
        let expected: Value = serde_json::from_str(line).expect("a document");
        let event: api_types::Event = read(&expected);
        let view = versions::event::event(event, ApiVersion::new(1, 51)).expect("an event of that version");
        assert_eq!(
            compare(&expected, &written(&view), &[]),
            Vec::<String>::new(),
            "{line}"
        );
    }
}

/// The header of archive: base64 of the document our model writes.
#[test]
fn path_stat() {
    use base64::Engine as _;
    let exchange = load(&directory(), "container-archive-head", "1.51").expect("the recording");
    let header = exchange
        .headers
        .get("X-Docker-Container-Path-Stat")
        .expect("the header");
    let bytes = base64::engine::general_purpose::STANDARD
        .decode(header)
        .expect("base64");
    let stat: api_types::PathStat = lenient::from_slice(&bytes).expect("a stat");
    assert_eq!(serde_json::to_vec(&stat).expect("a document"), bytes);
}
