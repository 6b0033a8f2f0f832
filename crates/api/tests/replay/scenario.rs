//! The recorded exchanges in an order in which each finds what it found when it was recorded.

use std::time::{SystemTime, UNIX_EPOCH};

use api_types::golden::{Excuse, compare};
use serde_json::Value;

use crate::asker::{Asker, neutral_ids};
use crate::excuses::{
    EVENT, EXEC, IMAGE, INFO, INSPECT, LIST, NETWORK, NETWORKS, PRUNED, STATS, USAGE, VERSION, VOLUMES,
};
use crate::machine;

const ALL: &[&str] = &["1.40", "1.44", "1.47", "1.51", "1.53"];
const ONE: &[&str] = &["1.51"];

pub async fn play(asker: &mut Asker) {
    machine::import(asker).await;
    refusals_without_container(asker).await;
    asker
        .repeat("network-create", ONE, &[("Id", Excuse::Value)])
        .await;
    let volume = &[("CreatedAt", Excuse::Value), ("Mountpoint", Excuse::Value)];
    asker.repeat("volume-create", ONE, volume).await;
    asker.repeat("volume-inspect", ONE, volume).await;
    asker
        .repeat("container-create", ONE, &[("Id", Excuse::Value)])
        .await;
    asker.repeat_as("volumes", ALL, VOLUMES, volumes).await;
    asker.repeat("container-inspect-created", ALL, INSPECT).await;
    asker.repeat("container-start", ONE, &[]).await;
    asker.repeat("container-start-again", ONE, &[]).await;
    asker
        .wait_until("/containers/gold/json", |answer| {
            answer["State"]["Health"]["Status"] == "healthy"
        })
        .await;
    asker.repeat("container-inspect-running", ALL, INSPECT).await;
    asker.repeat("containers-json", ALL, LIST).await;
    asker.repeat("containers-json-filter", ONE, LIST).await;
    asker.repeat("networks", ALL, NETWORKS).await;
    asker.repeat("network-inspect", ALL, NETWORK).await;
    asker.repeat("container-stats-oneshot", ONE, STATS).await;
    asker
        .repeat("container-top", ONE, &[("Processes", Excuse::Skip)])
        .await;
    asker.repeat("err-kill-bad-signal", ONE, &[]).await;
    asker.repeat("err-logs-no-stream", ONE, &[]).await;
    asker.repeat("err-exec-nocmd", ONE, &[]).await;
    asker.repeat("err-archive-missing", ONE, &[]).await;
    asker.repeat("err-wait-badcond", ONE, &[]).await;
    asker
        .repeat_as("err-create-name-conflict", ONE, &[], neutral_ids)
        .await;
    asker.repeat_as("err-volume-used", ONE, &[], neutral_ids).await;
    asker.repeat("err-network-dup", ONE, &[]).await;
    asker.repeat("err-network-overlap", ONE, &[]).await;
    asker.repeat("container-archive-head", ONE, &[]).await;
    let exec = asker.repeat("exec-create", ONE, &[("Id", Excuse::Value)]).await;
    let id = exec["Id"].as_str().unwrap_or_default().to_owned();
    let recorded = asker.recorded("exec-create", "1.51");
    asker.call(recorded["Id"].as_str().expect("an id"), &id);
    asker.repeat("exec-start-detached", ONE, &[]).await;
    asker
        .wait_until(&format!("/exec/{id}/json"), |answer| answer["ExitCode"] == 0)
        .await;
    asker.repeat("exec-inspect", ONE, EXEC).await;
    asker.repeat_as("container-changes", ONE, &[], changes).await;
    asker.repeat("container-update", ONE, &[]).await;
    asker.repeat("container-pause", ONE, &[]).await;
    asker.repeat("container-inspect-paused", ONE, INSPECT).await;
    asker.repeat("container-unpause", ONE, &[]).await;
    asker.repeat("container-rename", ONE, &[]).await;
    asker.repeat("container-rename-back", ONE, &[]).await;
    asker.repeat("container-kill", ONE, &[]).await;
    asker.repeat("container-wait", ONE, &[]).await;
    asker.repeat("container-inspect-exited", ALL, INSPECT).await;
    asker.repeat_as("err-exec-stopped", ONE, &[], neutral_ids).await;
    asker.repeat_as("err-kill-stopped", ONE, &[], neutral_ids).await;
    asker.repeat_as("err-pause-stopped", ONE, &[], neutral_ids).await;
    asker.repeat_as("err-resize-stopped", ONE, &[], neutral_ids).await;
    asker.repeat("stop-stopped", ONE, &[]).await;
    asker.repeat("commit", ONE, &[("Id", Excuse::Value)]).await;
    asker.repeat("image-inspect-committed", ONE, IMAGE).await;
    asker.repeat("image-tag", ONE, &[]).await;
    asker.repeat("image-delete", ONE, &[]).await;
    asker
        .repeat("image-delete-2", ONE, &[("*.Deleted", Excuse::Value)])
        .await;
    asker
        .repeat_as("err-image-delete-used", ONE, &[], neutral_ids)
        .await;
    asker.repeat("container-delete", ONE, &[]).await;
    asker.repeat("network-delete", ONE, &[]).await;
    asker.repeat("volume-delete", ONE, &[]).await;
    asker
        .repeat("err-create-net-unknown", ONE, &[("Id", Excuse::Value)])
        .await;
    asker.repeat("prune-containers", ONE, PRUNED).await;
    let (status, built) = asker
        .ask(
            "POST",
            "/build?t=copied",
            Some(machine::context()),
            "application/x-tar",
        )
        .await;
    assert_eq!(status, 200, "{built}");
    asker.repeat("prune-build", ONE, PRUNED).await;
    asker.repeat("prune-networks", ONE, &[]).await;
    asker.repeat("prune-volumes", ONE, &[]).await;
    asker.repeat("prune-images", ONE, &[]).await;
    events(asker).await;
}

/// Volumes come in any order, and one has a name that is made up.
fn volumes(text: String) -> String {
    let mut answer: Value = serde_json::from_str(&text).expect("volumes");
    if let Some(Value::Array(all)) = answer.get_mut("Volumes") {
        all.sort_by_key(|volume| volume["Labels"].to_string());
    }
    answer.to_string()
}

/// The order of changes is a Go map's in the recording. Ours has no init here, whose place the other's shows.
fn changes(text: String) -> String {
    let mut all: Vec<Value> = serde_json::from_str(&text).expect("a list");
    all.retain(|change| {
        !change["Path"]
            .as_str()
            .is_some_and(|path| path.starts_with("/sbin"))
    });
    all.sort_by_key(|change| change["Path"].to_string());
    Value::from(all).to_string()
}

/// The recorded time is over, so the request itself finds nothing here; each recorded event is held against the event of
/// the same kind that this run made.
async fn events(asker: &mut Asker) {
    asker.repeat("events", ONE, &[("", Excuse::Value)]).await;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a time");
    let target = format!(
        "/v1.51/events?since=1&until={}.{:09}",
        now.as_secs(),
        now.subsec_nanos()
    );
    let (_, ours) = asker.ask("GET", &target, None, "").await;
    let recorded = asker.recorded("events", "1.51");
    // The recording was cut off within its last line.
    let lines = |value: &Value| -> Vec<Value> {
        let lines = value.as_str().unwrap_or_default().lines();
        lines.filter_map(|line| serde_json::from_str(line).ok()).collect()
    };
    let (ours, recorded) = (lines(&ours), lines(&recorded));
    assert!(recorded.len() > 10 && !ours.is_empty(), "{ours:?}");
    for event in &recorded {
        let same = |other: &&Value| other["Type"] == event["Type"] && other["Action"] == event["Action"];
        let kind = format!("event {} {}", event["Type"], event["Action"]);
        let Some(made) = ours.iter().rev().find(same) else {
            asker.differences.push(format!("{kind}: none was made here"));
            continue;
        };
        let known = event["Actor"]["Attributes"].as_object().expect("attributes");
        let missing = known
            .keys()
            .filter(|key| made["Actor"]["Attributes"].get(key).is_none());
        asker
            .differences
            .extend(missing.map(|key| format!("{kind}: no attribute {key}")));
        let found = compare(event, made, EVENT);
        asker
            .differences
            .extend(found.into_iter().map(|line| format!("{kind}: {line}")));
    }
}

async fn refusals_without_container(asker: &mut Asker) {
    for case in [
        "err-create-bad-bind",
        "err-create-bad-json",
        "err-create-bad-mount",
        "err-create-bad-name",
        "err-create-bad-restart",
        "err-create-neg-memory",
        "err-create-no-cmd",
        "err-create-no-image",
        "err-filter-badjson",
        "err-filter-unknown",
        "err-image-bad-ref",
        "err-image-unknown",
        "err-inspect-unknown",
        "err-start-unknown",
        "err-network-bad-subnet",
        "err-network-delete-bridge",
        "err-network-unknown",
        "err-pull-badref",
        "err-route",
        "err-swarm",
        "err-tag-bad",
        "err-volume-bad-name",
        "err-volume-unknown",
        "err-attach-none",
        "err-build-nodockerfile",
    ] {
        asker.repeat(case, ONE, &[]).await;
    }
    asker.repeat("err-api-version", &["1.23"], &[]).await;
    let newest = |text: String| text.replace("API version is 1.56", "API version is 1.53");
    asker.repeat_as("err-api-version", &["1.99"], &[], newest).await;
    asker.repeat("ping", ALL, &[]).await;
    asker.repeat("system-df", ALL, USAGE).await;
    asker.repeat("system-df-verbose", &["1.53"], USAGE).await;
    asker.repeat("image-inspect", ALL, IMAGE).await;
    asker
        .repeat(
            "images-json",
            ALL,
            &[
                ("*", Excuse::Shape),
                ("*.*", Excuse::Value),
                ("*.**", Excuse::Skip),
            ],
        )
        .await;
    asker
        .repeat(
            "image-history",
            ALL,
            &[
                ("*.Created", Excuse::Value),
                ("*.Id", Excuse::Value),
                ("*.Size", Excuse::Value),
            ],
        )
        .await;
    asker.repeat("version", ALL, VERSION).await;
    asker.repeat("info", ALL, INFO).await;
}
