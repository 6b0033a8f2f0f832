//! Recorded exchanges asked again of a running engine: the same requests in the same order, the answers held against the
//! recorded ones (status, shape, wording).
//!
//! The kernel ring: needs root. The test runs in network and mount namespaces of its own, on a root directory of its own,
//! and removes its control groups. This program is also the monitor that the engine starts for its container, so it has no
//! test harness; it lists itself as one test.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use api::AppState;
use api_types::golden::{Excuse, compare, load};
use axum::Router;
use axum::body::Body;
use engine::{Engine, EngineConfig};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::Request;
use http_body_util::BodyExt;
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use serde_json::{Value, json};
use spec::Instance;
use tokio_util::sync::CancellationToken;

const NAME: &str = "recorded_exchanges";
const INSIDE: &str = "BERTH_TEST_INSIDE";

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.first().map(String::as_str) {
        Some("monitor") => std::process::exit(engine::monitor::main()),
        _ if args.iter().any(|arg| arg == "--list") => {
            if !args.iter().any(|arg| arg == "--ignored") {
                println!("{NAME}: test");
            }
        }
        _ if std::env::var_os(INSIDE).is_some() => run(),
        _ => enter(),
    }
}

/// Starts this program again in namespaces of its own.
fn enter() {
    let exe = std::env::current_exe().expect("our own path");
    let root = Command::new("id")
        .arg("-u")
        .output()
        .is_ok_and(|id| id.stdout == b"0\n");
    if !root || !Path::new("/bin/busybox").exists() {
        println!("skipped: needs root and /bin/busybox");
        return;
    }
    let status = Command::new("unshare")
        .args(["--net", "--mount", "--propagation", "private"])
        .arg(exe)
        .env(INSIDE, "1")
        .status();
    match status {
        Ok(status) if status.success() => {}
        Ok(status) => std::process::exit(status.code().unwrap_or(1)),
        Err(error) => println!("skipped: unshare cannot be run: {error}"),
    }
}

fn run() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(replay());
}

/// Asks requests in process, without a socket.
struct Asker {
    router: TowerToHyperService<Router>,
    differences: Vec<String>,
}

impl Asker {
    async fn ask(&self, method: &str, target: &str, body: Option<Vec<u8>>, media_type: &str) -> (u16, Value) {
        let request = Request::builder().method(method).uri(target);
        let request = match body {
            Some(body) => request.header("content-type", media_type).body(Body::from(body)),
            None => request.body(Body::empty()),
        };
        let response = self
            .router
            .call(request.expect("a request"))
            .await
            .expect("an answer");
        let status = response.status().as_u16();
        let bytes = response.into_body().collect().await.expect("a body").to_bytes();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    /// Repeats a recorded request, and notes what differs.
    async fn repeat(&mut self, case: &str, versions: &[&str], excuses: &[(&str, Excuse)]) -> Value {
        self.repeat_as(case, versions, excuses, |text| text).await
    }

    async fn repeat_as(
        &mut self,
        case: &str,
        versions: &[&str],
        excuses: &[(&str, Excuse)],
        neutral: impl Fn(String) -> String,
    ) -> Value {
        let mut last = Value::Null;
        for version in versions {
            let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
            let exchange = load(&directory, case, version).expect(case);
            let mut query = url::form_urlencoded::Serializer::new(String::new());
            query.extend_pairs(exchange.request.params.iter().flatten());
            let target = format!("/v{version}{}?{}", exchange.request.path, query.finish());
            let body = exchange
                .request
                .body
                .map(without_init)
                .map(|body| body.to_string().into_bytes());
            let (status, answer) = self
                .ask(&exchange.request.method, &target, body, "application/json")
                .await;
            let place = format!("{case} in {version}");
            if status != exchange.status {
                self.differences.push(format!(
                    "{place}: status {} expected, got {status}: {answer}",
                    exchange.status
                ));
            } else if !(exchange.body.is_null() || exchange.body == "") || !(answer.is_null() || answer == "")
            {
                let plain = |value: &Value| -> Value {
                    serde_json::from_str(&neutral(value.to_string())).unwrap_or_default()
                };
                let found = compare(&plain(&exchange.body), &plain(&answer), excuses);
                self.differences
                    .extend(found.into_iter().map(|line| format!("{place}: {line}")));
            }
            last = answer;
        }
        last
    }

    async fn wait_until(&self, target: &str, ready: impl Fn(&Value) -> bool) {
        for _ in 0..600 {
            if ready(&self.ask("GET", target, None, "").await.1) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("{target} never got ready");
    }
}

/// The init of a container is the engine's own binary, which this program is not.
fn without_init(mut body: Value) -> Value {
    if let Some(Value::Object(host)) = body.get_mut("HostConfig") {
        host.remove("Init");
    }
    body
}

/// Every id of 64 digits and every short one reads the same.
fn neutral_ids(text: String) -> String {
    let mut out = String::with_capacity(text.len());
    let mut run = String::new();
    for character in text.chars().chain(std::iter::once('\0')) {
        if character.is_ascii_digit() || ('a'..='f').contains(&character) {
            run.push(character);
            continue;
        }
        out.push_str(if run.len() == 64 || run.len() == 12 {
            "ID"
        } else {
            &run
        });
        run.clear();
        if character != '\0' {
            out.push(character);
        }
    }
    out
}

async fn replay() {
    let _ = Command::new("ip").args(["link", "set", "lo", "up"]).status();
    let directory = tempfile::tempdir().expect("a directory");
    let instance = Instance {
        tag: format!("berth-t{}", std::process::id()),
    };
    let engine = Engine::open(config(directory.path(), &instance))
        .await
        .expect("an engine");
    let images = engine.images().clone();
    let builder = build::Builder::new(images, engine.store().clone(), Arc::new(NoSteps)).expect("a builder");
    let state = AppState::new(engine.clone(), Arc::new(builder), CancellationToken::new());
    let mut asker = Asker {
        router: TowerToHyperService::new(api::router(state)),
        differences: Vec::new(),
    };
    let played = std::panic::AssertUnwindSafe(play(&mut asker))
        .catch_unwind()
        .await;
    let _ = asker
        .ask("DELETE", "/containers/gold?force=1&v=1", None, "")
        .await;
    engine.close().await;
    remove_groups(&instance.tag);
    if let Err(panic) = played {
        std::panic::resume_unwind(panic);
    }
    assert!(asker.differences.is_empty(), "{}", asker.differences.join("\n"));
}

const ALL: &[&str] = &["1.40", "1.44", "1.47", "1.51", "1.53"];
const ONE: &[&str] = &["1.51"];

async fn play(asker: &mut Asker) {
    import(asker).await;
    refusals_without_container(asker).await;
    asker
        .repeat("network-create", ONE, &[("Id", Excuse::Value)])
        .await;
    let volume = &[("CreatedAt", Excuse::Value), ("Mountpoint", Excuse::Value)];
    asker.repeat("volume-create", ONE, volume).await;
    asker.repeat("volume-inspect", ONE, volume).await;
    let (status, made) = create_gold(asker).await;
    assert_eq!(status, 201, "{made}");
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
        .repeat("err-create-name-conflict", ONE, &[("message", Excuse::Value)])
        .await;
    asker
        .repeat("err-volume-used", ONE, &[("message", Excuse::Value)])
        .await;
    asker.repeat("err-network-dup", ONE, &[]).await;
    asker.repeat("err-network-overlap", ONE, &[]).await;
    asker.repeat("container-archive-head", ONE, &[]).await;
    let exec = asker.repeat("exec-create", ONE, &[("Id", Excuse::Value)]).await;
    let id = exec["Id"].as_str().unwrap_or_default().to_owned();
    let detach = json!({"Detach": true}).to_string().into_bytes();
    let (status, answer) = asker
        .ask(
            "POST",
            &format!("/exec/{id}/start"),
            Some(detach),
            "application/json",
        )
        .await;
    assert_eq!(status, 200, "{answer}");
    asker
        .wait_until(&format!("/exec/{id}/json"), |answer| answer["ExitCode"] == 0)
        .await;
    asker.repeat("container-pause", ONE, &[]).await;
    asker.repeat("container-unpause", ONE, &[]).await;
    asker.repeat("container-rename", ONE, &[]).await;
    asker.repeat("container-rename-back", ONE, &[]).await;
    asker.repeat("container-update", ONE, &[]).await;
    asker.repeat("container-kill", ONE, &[]).await;
    asker.repeat("container-wait", ONE, &[]).await;
    asker.repeat("container-inspect-exited", ALL, INSPECT).await;
    asker.repeat_as("err-exec-stopped", ONE, &[], neutral_ids).await;
    asker.repeat_as("err-kill-stopped", ONE, &[], neutral_ids).await;
    asker.repeat_as("err-pause-stopped", ONE, &[], neutral_ids).await;
    asker.repeat_as("err-resize-stopped", ONE, &[], neutral_ids).await;
    asker.repeat("stop-stopped", ONE, &[]).await;
    asker.repeat("commit", ONE, &[("Id", Excuse::Value)]).await;
    asker.repeat("image-tag", ONE, &[]).await;
    asker.repeat("image-delete", ONE, &[]).await;
    asker
        .repeat("image-delete-2", ONE, &[("*.Deleted", Excuse::Value)])
        .await;
    asker
        .repeat_as(
            "err-image-delete-used",
            ONE,
            &[("message", Excuse::Value)],
            neutral_ids,
        )
        .await;
    asker.repeat("container-delete", ONE, &[]).await;
    asker.repeat("network-delete", ONE, &[]).await;
    asker.repeat("volume-delete", ONE, &[]).await;
    asker.repeat("prune-networks", ONE, &[]).await;
    asker.repeat("prune-volumes", ONE, &[]).await;
    asker.repeat("prune-images", ONE, &[]).await;
}

/// Values that differ by nature.
const INSPECT: &[(&str, Excuse)] = &[
    ("Id", Excuse::Value),
    ("Created", Excuse::Value),
    ("State.Pid", Excuse::Value),
    ("State.StartedAt", Excuse::Value),
    ("State.FinishedAt", Excuse::Value),
    ("State.Health.Status", Excuse::Value),
    ("State.Health.Log", Excuse::Skip),
    ("State.Health.FailingStreak", Excuse::Value),
    ("Image", Excuse::Value),
    ("ResolvConfPath", Excuse::Value),
    ("HostnamePath", Excuse::Value),
    ("HostsPath", Excuse::Value),
    ("LogPath", Excuse::Value),
    ("SizeRw", Excuse::Value),
    ("SizeRootFs", Excuse::Value),
    ("HostConfig.Init", Excuse::Skip),
    ("HostConfig.Runtime", Excuse::Value),
    // The recording was made on control groups of version 1, where Docker shares them with the host.
    ("HostConfig.CgroupnsMode", Excuse::Value),
    ("Mounts", Excuse::Shape),
    ("Mounts.**", Excuse::Skip),
    ("NetworkSettings.SandboxID", Excuse::Value),
    ("NetworkSettings.SandboxKey", Excuse::Value),
    ("NetworkSettings.Networks.goldnet.NetworkID", Excuse::Value),
    ("NetworkSettings.Networks.goldnet.EndpointID", Excuse::Value),
    ("NetworkSettings.Networks.goldnet.MacAddress", Excuse::Value),
    ("NetworkSettings.Networks.goldnet.Aliases.*", Excuse::Value),
    ("NetworkSettings.Networks.goldnet.DNSNames.*", Excuse::Value),
    ("ImageManifestDescriptor.digest", Excuse::Value),
    ("ImageManifestDescriptor.size", Excuse::Value),
];

const LIST: &[(&str, Excuse)] = &[
    ("*.Id", Excuse::Value),
    ("*.ImageID", Excuse::Value),
    ("*.Created", Excuse::Value),
    ("*.SizeRw", Excuse::Value),
    ("*.SizeRootFs", Excuse::Value),
    ("*.Status", Excuse::Value),
    ("*.Mounts", Excuse::Shape),
    ("*.Mounts.**", Excuse::Skip),
    ("*.ImageManifestDescriptor.digest", Excuse::Value),
    ("*.ImageManifestDescriptor.size", Excuse::Value),
    ("*.NetworkSettings.Networks.goldnet.NetworkID", Excuse::Value),
    ("*.NetworkSettings.Networks.goldnet.EndpointID", Excuse::Value),
    ("*.NetworkSettings.Networks.goldnet.MacAddress", Excuse::Value),
];

/// The order of networks is a Go map's in the recording, so only their shape is held here.
const NETWORKS: &[(&str, Excuse)] = &[("*", Excuse::Shape), ("*.**", Excuse::Skip)];

const NETWORK: &[(&str, Excuse)] = &[
    ("Id", Excuse::Value),
    ("Created", Excuse::Value),
    ("Containers", Excuse::Skip),
];

async fn refusals_without_container(asker: &mut Asker) {
    for case in [
        "err-create-bad-bind",
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

/// What this engine has no words for: the language of the other one, its commit and its build time.
const VERSION: &[(&str, Excuse)] = &[
    ("GitCommit", Excuse::Skip),
    ("GoVersion", Excuse::Skip),
    ("BuildTime", Excuse::Skip),
    ("Components", Excuse::Shape),
    ("Components.**", Excuse::Skip),
    ("Platform.Name", Excuse::Value),
    ("*", Excuse::Value),
];

const INFO: &[(&str, Excuse)] = &[
    // Of an engine that is made of several programs.
    ("Containerd", Excuse::Skip),
    ("Warnings", Excuse::Skip),
    ("*", Excuse::Shape),
    ("Swarm.*", Excuse::Value),
    ("*.**", Excuse::Skip),
];

const STATS: &[(&str, Excuse)] = &[
    ("networks", Excuse::Shape),
    ("networks.**", Excuse::Skip),
    ("memory_stats", Excuse::Shape),
    ("memory_stats.stats", Excuse::Shape),
    ("memory_stats.stats.*", Excuse::Value),
    ("blkio_stats.*", Excuse::Shape),
    ("blkio_stats.*.**", Excuse::Skip),
    ("*.cpu_usage.percpu_usage", Excuse::Shape),
    ("*.cpu_usage.percpu_usage.*", Excuse::Value),
    ("*", Excuse::Value),
    ("*.*", Excuse::Value),
    ("*.*.*", Excuse::Value),
];

const IMAGE: &[(&str, Excuse)] = &[
    ("Id", Excuse::Value),
    ("Created", Excuse::Value),
    ("Size", Excuse::Value),
    ("VirtualSize", Excuse::Value),
    ("Metadata.LastTagTime", Excuse::Value),
    ("Descriptor.digest", Excuse::Value),
    ("Descriptor.size", Excuse::Value),
    ("RepoDigests.*", Excuse::Value),
    ("RootFS.Layers.*", Excuse::Value),
];

async fn create_gold(asker: &Asker) -> (u16, Value) {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let exchange = load(&directory, "container-create", "1.51").expect("the recording");
    let body = without_init(exchange.request.body.expect("a body"))
        .to_string()
        .into_bytes();
    asker
        .ask(
            "POST",
            "/v1.51/containers/create?name=gold",
            Some(body),
            "application/json",
        )
        .await
}

/// Imports busybox as the recording's image.
async fn import(asker: &Asker) {
    let directory = tempfile::tempdir().expect("a directory");
    let script = "mkdir -p bin etc root sbin tmp proc sys dev && cp /bin/busybox bin/ && \
                  for name in sh sleep echo true rm cat; do ln -s busybox bin/$name; done && \
                  echo root:x:0:0:root:/root:/bin/sh > etc/passwd && echo root:x:0: > etc/group && tar -cf - .";
    let tar = Command::new("sh")
        .arg("-c")
        .arg(script)
        .current_dir(directory.path())
        .output()
        .expect("a tar");
    assert!(tar.status.success());
    let target = "/images/create?fromSrc=-&repo=busybox&tag=latest&changes=CMD%20%5B%22sh%22%5D&\
                  changes=ENV%20PATH%3D%2Fusr%2Flocal%2Fsbin%3A%2Fusr%2Flocal%2Fbin%3A%2Fusr%2Fsbin%3A%2Fusr%2Fbin%3A%2Fsbin%3A%2Fbin";
    let (status, answer) = asker
        .ask("POST", target, Some(tar.stdout), "application/x-tar")
        .await;
    assert_eq!(status, 200, "{answer}");
    assert!(!answer.to_string().contains("errorDetail"), "{answer}");
}

fn config(directory: &Path, instance: &Instance) -> EngineConfig {
    let run_dir = directory.join("run");
    EngineConfig {
        root: directory.join("root"),
        run_dir: run_dir.clone(),
        instance: instance.clone(),
        log_budget: None,
        cdi_spec_dirs: Vec::new(),
        network: engine::network::NetworkConfig::new(instance.clone(), run_dir),
        userns: engine::userns::Settings::default(),
        live: engine::LiveConfig::default(),
    }
}

/// Removes the control groups that are named after this instance.
fn remove_groups(tag: &str) {
    for hierarchy in std::fs::read_dir("/sys/fs/cgroup")
        .into_iter()
        .flatten()
        .flatten()
    {
        let _ = std::fs::remove_dir(hierarchy.path().join(tag));
    }
    let _ = std::fs::remove_dir(Path::new("/sys/fs/cgroup").join(tag));
}

/// No recorded build comes as far as a step.
struct NoSteps;

impl build::Executor for NoSteps {
    fn run(
        &self,
        _step: build::RunStep,
        _output: tokio::sync::mpsc::Sender<build::Output>,
    ) -> BoxFuture<'_, Result<i32, build::ExecError>> {
        async {
            Err(build::ExecError::new(
                "no steps here",
                spec::ErrorClass::NotImplemented,
            ))
        }
        .boxed()
    }

    fn pull<'a>(
        &'a self,
        _reference: &'a spec::Reference,
        _platform: Option<&'a spec::Platform>,
        _auth: Option<&'a engine::image::Auth>,
        _progress: engine::image::Progress,
    ) -> BoxFuture<'a, Result<engine::image::Image, build::ExecError>> {
        async {
            Err(build::ExecError::new(
                "no pulls here",
                spec::ErrorClass::NotImplemented,
            ))
        }
        .boxed()
    }
}
