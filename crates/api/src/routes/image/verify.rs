//! `POST /images/{name}/verify`: signatures of an image that the given keys, or those of the rules, made. This engine's own.

use axum::extract::State;
use axum::response::Response;
use http::HeaderMap;
use serde::Deserialize;
use spec::Reference;

use crate::answer::ok;
use crate::error::Result;
use crate::request::{auth, body};
use crate::state::AppState;

/// Public keys to verify with; without any, those of the rule for the name.
#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Keys {
    keys: Vec<Key>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Key {
    name: String,
    pem: String,
}

pub async fn handle(
    State(state): State<AppState>,
    name: &str,
    headers: &HeaderMap,
    request: axum::body::Body,
) -> Result<Response> {
    let keys: Keys = body::read_json(headers, request).await?;
    let reference = Reference::parse_normalized(name)?;
    let login = auth::registry_auth(headers).map(|auth| auth::login(&auth));
    let pems = keys.keys.into_iter().map(|key| (key.name, key.pem)).collect();
    Ok(ok(&state.engine.image_verify(&reference, login, pems).await?))
}
