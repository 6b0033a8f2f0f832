//! Repeats recorded exchanges and notes what differs.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use api_types::golden::{Excuse, compare, load};
use axum::Router;
use axum::body::Body;
use http::{HeaderMap, Request};
use http_body_util::BodyExt;
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use serde_json::Value;

/// Headers whose values differ by nature: the newest version spoken, the builders there are, times and sizes in base64.
const HEADERS: &[&str] = &["Api-Version", "Builder-Version", "X-Docker-Container-Path-Stat"];

/// Asks requests in process, without a socket.
pub struct Asker {
    router: TowerToHyperService<Router>,
    pub differences: Vec<String>,
    /// `case.vVERSION` of what was repeated.
    asked: BTreeSet<String>,
    /// What the recorded engine called something, and what ours does.
    names: Vec<(String, String)>,
}

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

impl Asker {
    pub fn new(router: TowerToHyperService<Router>) -> Asker {
        Asker {
            router,
            differences: Vec::new(),
            asked: BTreeSet::new(),
            names: Vec::new(),
        }
    }

    /// Recorded exchanges that were not repeated.
    pub fn unasked(&self) -> Vec<String> {
        let files = std::fs::read_dir(directory()).expect("the recordings").flatten();
        let names = files.map(|file| {
            file.file_name()
                .to_string_lossy()
                .trim_end_matches(".json")
                .to_owned()
        });
        let mut names: Vec<String> = names.filter(|name| !self.asked.contains(name)).collect();
        names.sort();
        names
    }

    /// A recorded answer.
    pub fn recorded(&self, case: &str, version: &str) -> Value {
        load(&directory(), case, version).expect(case).body
    }

    /// From now on, a path that has the recorded name gets ours.
    pub fn call(&mut self, recorded: &str, ours: &str) {
        self.names.push((recorded.to_owned(), ours.to_owned()));
    }

    pub async fn ask(
        &self,
        method: &str,
        target: &str,
        body: Option<Vec<u8>>,
        media_type: &str,
    ) -> (u16, Value) {
        let (status, _, answer) = self.exchange(method, target, body, media_type).await;
        (status, answer)
    }

    async fn exchange(
        &self,
        method: &str,
        target: &str,
        body: Option<Vec<u8>>,
        media_type: &str,
    ) -> (u16, HeaderMap, Value) {
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
        let headers = response.headers().clone();
        let bytes = response.into_body().collect().await.expect("a body").to_bytes();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let value = serde_json::from_str(&text).unwrap_or(Value::String(text));
        (status, headers, value)
    }

    /// Repeats a recorded request, and notes what differs.
    pub async fn repeat(&mut self, case: &str, versions: &[&str], excuses: &[(&str, Excuse)]) -> Value {
        self.repeat_as(case, versions, excuses, |text| text).await
    }

    pub async fn repeat_as(
        &mut self,
        case: &str,
        versions: &[&str],
        excuses: &[(&str, Excuse)],
        neutral: impl Fn(String) -> String,
    ) -> Value {
        let mut last = Value::Null;
        for version in versions {
            let exchange = load(&directory(), case, version).expect(case);
            self.asked.insert(format!("{case}.v{version}"));
            let mut query = url::form_urlencoded::Serializer::new(String::new());
            query.extend_pairs(exchange.request.params.iter().flatten());
            let known = self
                .names
                .iter()
                .fold(exchange.request.path, |path, (recorded, ours)| {
                    path.replace(recorded, ours)
                });
            let target = format!("/v{version}{known}?{}", query.finish());
            let body = exchange
                .request
                .body
                .map(without_init)
                .map(|body| body.to_string().into_bytes());
            let (status, headers, answer) = self
                .exchange(&exchange.request.method, &target, body, "application/json")
                .await;
            let place = format!("{case} in {version}");
            for (name, value) in &exchange.headers {
                let ours = headers.get(name).map(|value| value.to_str().unwrap_or_default());
                if ours != Some(value) && !HEADERS.contains(&name.as_str()) {
                    self.differences.push(format!(
                        "{place}: header {name}: expected {value:?}, got {ours:?}"
                    ));
                }
            }
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

    pub async fn wait_until(&self, target: &str, ready: impl Fn(&Value) -> bool) {
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
pub fn neutral_ids(text: String) -> String {
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
