//! What is remembered of builds, taken away as a bundle; and what a client that looks into a build may not do.

use std::path::Path;
use std::process::Command;

use bollard_buildkit_proto::moby::buildkit::v1::control_client::ControlClient;
use bollard_buildkit_proto::moby::buildkit::v1::frontend::llb_bridge_client::LlbBridgeClient;
use bollard_buildkit_proto::moby::buildkit::v1::frontend::{NewContainerRequest, PingRequest};
use bollard_buildkit_proto::moby::buildkit::v1::{BuildHistoryRequest, UpdateBuildHistoryRequest};
use serde_json::Value;
use tonic::Code;

use super::definitions::connect;
use super::lab;
use super::ours::json;
use crate::support::{Daemon, text};

fn block_on<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(work)
}

/// The document of a blob in a layout.
fn blob(layout: &Path, descriptor: &Value) -> Value {
    let digest = descriptor["digest"].as_str().unwrap();
    json(&layout.join("blobs").join(digest.replace(':', "/")))
}

/// The records of a bundle by the builds' names.
fn records(bundle: &Path, into: &Path) -> Vec<Value> {
    std::fs::create_dir_all(into).unwrap();
    let unpacked = Command::new("tar")
        .args(["-xzf"])
        .arg(bundle)
        .arg("-C")
        .arg(into)
        .output()
        .unwrap();
    assert!(unpacked.status.success(), "{}", text(&unpacked.stderr));
    let index = json(&into.join("index.json"));
    let top = &index["manifests"][0];
    let manifests = match top["mediaType"].as_str().unwrap() {
        "application/vnd.oci.image.index.v1+json" => blob(into, top)["manifests"].as_array().unwrap().clone(),
        _ => vec![top.clone()],
    };
    let configs = manifests
        .iter()
        .map(|manifest| blob(into, &blob(into, manifest)["config"]));
    configs.collect()
}

#[test]
fn builds_of_late_are_taken_away_as_a_bundle() {
    let lab = lab!();
    lab.write("Dockerfile", "FROM box:1\nARG WORD\nRUN echo $WORD\n");
    lab.ok(&["build", "--build-arg", "WORD=told", "."]);
    lab.write("Failing", "FROM box:1\nRUN exit 4\n");
    lab.fails(&["build", "-f", "Failing", "."]);
    let (listed, _) = lab.ok(&["buildx", "history", "ls", "--no-trunc", "--format", "{{.Ref}}"]);
    let builds: Vec<&str> = listed
        .lines()
        .map(|line| line.rsplit('/').next().unwrap())
        .collect();
    assert_eq!(builds.len(), 2, "{listed}");
    let (failed, _) = lab.ok(&[
        "buildx",
        "history",
        "ls",
        "--no-trunc",
        "--format",
        "{{.Ref}}",
        "--filter",
        "status=error",
    ]);
    assert_eq!(failed.trim().rsplit('/').next(), Some(builds[0]), "{failed}");
    let home = lab.daemon.dir.path();
    let bundle = home.join("one.dockerbuild");
    let path = bundle.display().to_string();
    lab.ok(&["buildx", "history", "export", "-o", &path, builds[1]]);
    let one = records(&bundle, &home.join("one"));
    assert_eq!(one.len(), 1);
    assert_eq!(one[0]["Ref"], builds[1]);
    assert_eq!(one[0]["FrontendAttrs"]["build-arg:WORD"], "told");
    // What is to be kept is still to be kept after it was asked for as a whole.
    block_on(async {
        let mut control = ControlClient::new(connect(&lab.daemon).await);
        let pin = UpdateBuildHistoryRequest {
            r#ref: builds[1].to_owned(),
            pinned: true,
            ..UpdateBuildHistoryRequest::default()
        };
        control.update_build_history(pin).await.unwrap();
        let finish = UpdateBuildHistoryRequest {
            r#ref: builds[1].to_owned(),
            finalize: true,
            ..UpdateBuildHistoryRequest::default()
        };
        control.update_build_history(finish).await.unwrap();
        let request = BuildHistoryRequest {
            r#ref: builds[1].to_owned(),
            early_exit: true,
            ..BuildHistoryRequest::default()
        };
        let mut events = control.listen_build_history(request).await.unwrap().into_inner();
        let event = events.message().await.unwrap().unwrap();
        assert!(event.record.unwrap().pinned);
    });
    lab.ok(&["buildx", "history", "export", "--finalize", "--all", "-o", &path]);
    let mut all: Vec<String> = records(&bundle, &home.join("all"))
        .iter()
        .map(|record| record["Ref"].as_str().unwrap().to_owned())
        .collect();
    all.sort();
    let mut known = builds.clone();
    known.sort_unstable();
    assert_eq!(all, known);
    let (_, said) = lab.fails(&["buildx", "history", "export", "-o", &path, "nosuch"]);
    assert!(said.contains("nosuch"), "{said}");
}

/// `buildx debug` and `buildx dap` open containers on what a build made where an engine says that it can.
#[test]
fn containers_on_a_build_are_refused_and_not_promised() {
    guard!();
    let daemon = Daemon::start();
    block_on(async {
        let mut bridge = LlbBridgeClient::new(connect(&daemon).await);
        let offered = bridge.ping(PingRequest {}).await.unwrap().into_inner();
        let promised = |what: &str| {
            offered
                .frontend_api_caps
                .iter()
                .any(|cap| cap.id.starts_with(what))
        };
        assert!(promised("solve.base") && !promised("gateway.exec"));
        let refused = bridge
            .new_container(NewContainerRequest::default())
            .await
            .unwrap_err();
        assert_eq!(refused.code(), Code::Unimplemented);
        assert!(
            refused.message().contains("run a container of the image instead"),
            "{refused}"
        );
    });
}
