//! `GET` and `POST /distribution/{name}/manifest`: manifests at registries, for `manifest` commands. This engine's own.

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use engine::ManifestPush;
use http::HeaderMap;
use spec::Reference;

use crate::answer::ok;
use crate::error::Result;
use crate::request::{auth, body};
use crate::state::AppState;

pub async fn read(State(state): State<AppState>, name: &str, headers: &HeaderMap) -> Result<Response> {
    let reference = Reference::parse_normalized(name)?.or_latest();
    let login = auth::registry_auth(headers).map(|auth| auth::login(&auth));
    Ok(ok(&state.engine.manifest_at(&reference, login).await?))
}

pub async fn push(
    State(state): State<AppState>,
    name: &str,
    headers: &HeaderMap,
    request: Body,
) -> Result<Response> {
    let reference = Reference::parse_normalized(name)?.or_latest();
    let login = auth::registry_auth(headers).map(|auth| auth::login(&auth));
    let wanted: ManifestPush = body::require_json(headers, request).await?;
    let digest = state.engine.manifest_push(&reference, wanted, login).await?;
    Ok(ok(&serde_json::json!({ "Digest": digest })))
}
