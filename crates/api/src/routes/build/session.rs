//! `POST /build?version=2`: a build whose files, secrets and logins come over the client's session (`POST /session`), as
//! docker clients before version 23 ask for it with `DOCKER_BUILDKIT=1`.
//!
//! What is told about it goes out as lines with the id `moby.buildkit.trace`, each with a message of BuildKit's; the last line
//! names the image.

use std::collections::{BTreeMap, HashMap};

use api_types::ProgressMessage;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use build::exchange::Wish;
use buildkit::SessionBuild;
use http::StatusCode;
use serde_json::{Value, json};
use spec::Id;
use tokio::sync::mpsc;

use super::options::{document, tags};
use crate::answer::stream_job;
use crate::error::{ApiError, Result};
use crate::request::Query;
use crate::state::AppState;

/// What stands for a context that the session serves.
const SESSION: &str = "client-session";
/// What stands for one that comes with another request.
const UPLOAD: &str = "upload-request";
/// Messages that may wait for a slow client.
const PENDING: usize = 64;

pub async fn handle(state: &AppState, query: &Query, body: Body) -> Result<Response> {
    let upload = query.get("buildid").strip_prefix(UPLOAD);
    if let Some(build) = upload.and_then(|rest| rest.strip_prefix(':')) {
        state.buildkit.upload(build, body.into_data_stream()).await;
        return Ok(StatusCode::OK.into_response());
    }
    let wanted = read(query);
    if wanted.is_err() {
        // Old clients never end when they are refused before they have opened their session.
        state.buildkit.session_opened(query.get("session")).await;
    }
    let wanted = wanted?;
    let buildkit = state.buildkit.clone();
    stream_job(move |lines| async move {
        let (told, mut messages) = mpsc::channel(PENDING);
        let building = buildkit.build(wanted, told);
        let telling = async {
            while let Some(message) = messages.recv().await {
                lines
                    .send(line("moby.buildkit.trace", json!(STANDARD.encode(message))))
                    .await;
            }
        };
        let (built, ()) = tokio::join!(building, telling);
        match built {
            Ok(Some(image)) => {
                lines.send(line("moby.image.id", json!({"ID": image}))).await;
                Ok(())
            }
            Ok(None) => Ok(()),
            Err(error) => Err(ApiError::new(error.class(), error.to_string())),
        }
    })
    .await
}

fn line(id: &str, aux: Value) -> ProgressMessage {
    ProgressMessage {
        id: id.to_owned(),
        aux: Some(aux),
        ..ProgressMessage::default()
    }
}

fn read(query: &Query) -> Result<SessionBuild> {
    let remote = query.get("remote");
    let session = query.get("session");
    if session.is_empty() {
        return Err(ApiError::invalid(
            "a build of version 2 needs a session: open one with POST /session and name it",
        ));
    }
    let mut attributes = HashMap::new();
    let mut set = |name: &str, value: &str| {
        if !value.is_empty() {
            attributes.insert(name.to_owned(), value.to_owned());
        }
    };
    if remote != SESSION && remote != UPLOAD {
        set("context", remote);
    }
    set("filename", query.get("dockerfile"));
    set("target", query.get("target"));
    set("platform", query.get("platform"));
    set("force-network-mode", query.get("networkmode"));
    set("shm-size", query.get("shmsize"));
    set("cgroup-parent", query.get("cgroupparent"));
    if query.flag("pull") {
        set("image-resolve-mode", "pull");
    }
    set("add-hosts", &hosts(query)?);
    set("ulimit", &ulimits(query)?);
    let arguments: BTreeMap<String, Option<String>> =
        document(query, "buildargs", "error reading build args")?;
    for (name, value) in arguments {
        // One without a value leaves the Dockerfile's.
        if let Some(value) = value {
            attributes.insert(format!("build-arg:{name}"), value);
        }
    }
    let labels: BTreeMap<String, String> = document(query, "labels", "error reading labels")?;
    for (name, value) in labels {
        attributes.insert(format!("label:{name}"), value);
    }
    if query.flag("nocache") {
        attributes.insert("no-cache".to_owned(), String::new());
    }
    let caches: Vec<String> = document(query, "cachefrom", "error reading cache-from")?;
    let caches = caches.iter().filter(|cache| !cache.is_empty());
    let caches: std::result::Result<Vec<Wish>, _> = caches.map(|cache| Wish::parse(cache)).collect();
    Ok(SessionBuild {
        reference: match query.get("buildid") {
            "" => Id::random().to_string(),
            id => id.to_owned(),
        },
        session: session.to_owned(),
        uploaded: remote == UPLOAD,
        attributes,
        outputs: outputs(query)?,
        caches: caches.map_err(|error| ApiError::new(error.class(), error.to_string()))?,
        entitlements: Vec::new(),
    })
}

/// `name:address` as the frontend writes it.
fn hosts(query: &Query) -> Result<String> {
    let given = query.all("extrahosts");
    let given = given
        .iter()
        .flat_map(|hosts| hosts.split(','))
        .filter(|host| !host.is_empty());
    let written = given.map(|host| match host.split_once(':') {
        Some((name, address)) => Ok(format!("{name}={address}")),
        None => Err(ApiError::invalid(format!(
            "invalid host {host:?}: expected name:address"
        ))),
    });
    Ok(written.collect::<Result<Vec<String>>>()?.join(","))
}

fn ulimits(query: &Query) -> Result<String> {
    let limits: Vec<api_types::Ulimit> = document(query, "ulimits", "error reading ulimit settings")?;
    let written = limits
        .iter()
        .map(|limit| format!("{}={}:{}", limit.name, limit.soft, limit.hard));
    Ok(written.collect::<Vec<String>>().join(","))
}

/// Without a word the result becomes an image here, under the names that are given.
fn outputs(query: &Query) -> Result<Vec<(String, HashMap<String, String>)>> {
    let asked: Vec<Wish> = document(query, "outputs", "error reading outputs")?;
    let names: Vec<String> = tags(&query.all("t"))?.iter().map(ToString::to_string).collect();
    let image = |mut attributes: HashMap<String, String>| {
        if !names.is_empty() {
            attributes
                .entry("name".to_owned())
                .or_insert_with(|| names.join(","));
        }
        ("moby".to_owned(), attributes)
    };
    if asked.len() > 1 {
        return Err(ApiError::invalid("multiple outputs not supported"));
    }
    Ok(match asked.into_iter().next() {
        None => vec![image(HashMap::new())],
        Some(Wish { kind, options }) => match kind.as_str() {
            "" | "moby" | "image" => vec![image(options.into_iter().collect())],
            // Nothing is to become of it but what the cache remembers.
            "cacheonly" => Vec::new(),
            _ => vec![(kind, options.into_iter().collect())],
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_become_attributes() {
        let query = "version=2&session=s&buildid=b&remote=client-session&dockerfile=D&t=a&t=b%3A1&nocache=1&pull=1\
                     &buildargs=%7B%22A%22%3A%22b%22%2C%22C%22%3Anull%7D&labels=%7B%22l%22%3A%22v%22%7D\
                     &extrahosts=h%3A1.1.1.1&networkmode=none&cachefrom=%5B%22x%22%5D\
                     &ulimits=%5B%7B%22Name%22%3A%22nofile%22%2C%22Soft%22%3A1%2C%22Hard%22%3A2%7D%5D";
        let wanted = read(&Query::parse(query)).unwrap();
        let get = |name: &str| wanted.attributes.get(name).map(String::as_str);
        assert_eq!((wanted.session.as_str(), wanted.reference.as_str()), ("s", "b"));
        assert_eq!((get("filename"), get("context")), (Some("D"), None));
        assert_eq!(
            (get("build-arg:A"), get("build-arg:C"), get("label:l")),
            (Some("b"), None, Some("v"))
        );
        assert_eq!(
            (get("no-cache"), get("image-resolve-mode")),
            (Some(""), Some("pull"))
        );
        assert_eq!(
            (get("add-hosts"), get("ulimit")),
            (Some("h=1.1.1.1"), Some("nofile=1:2"))
        );
        assert_eq!(get("force-network-mode"), Some("none"));
        let (kind, attributes) = &wanted.outputs[0];
        assert_eq!(kind, "moby");
        assert_eq!(
            attributes["name"],
            "docker.io/library/a:latest,docker.io/library/b:1"
        );
        assert_eq!(wanted.caches[0].options["ref"], "x");
        let local = "version=2&session=s&outputs=%5B%7B%22Type%22%3A%22local%22%2C%22Attrs%22%3A%7B%7D%7D%5D";
        assert_eq!(
            read(&Query::parse(local)).unwrap().outputs,
            [("local".to_owned(), HashMap::new())]
        );
    }

    #[test]
    fn what_lacks_a_session_is_refused() {
        let refused = |query: &str| read(&Query::parse(query)).unwrap_err().message;
        assert!(refused("version=2").contains("needs a session"));
        let uploaded = read(&Query::parse(
            "version=2&session=s&buildid=b&remote=upload-request",
        ))
        .unwrap();
        assert!(uploaded.uploaded && !uploaded.attributes.contains_key("context"));
        assert!(refused("version=2&session=s&outputs=%5B%7B%7D%2C%7B%7D%5D").contains("multiple outputs"));
        assert!(refused("version=2&session=s&extrahosts=h").contains("expected name:address"));
    }
}
