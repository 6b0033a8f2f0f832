//! `GET /distribution/{name}/json`: what a registry says about a name, without a pull.

use api_types::{Descriptor, DistributionInspect};
use axum::extract::{Path, State};
use axum::response::Response;
use engine::registry::{Access, Auth, RemoteManifest};
use http::HeaderMap;
use spec::Reference;
use spec::image::Document;

use crate::answer::{ok, page_not_found};
use crate::error::{ApiError, Result};
use crate::request::auth;
use crate::state::AppState;
use crate::views;

pub async fn handle(
    State(state): State<AppState>,
    Path(rest): Path<String>,
    headers: HeaderMap,
) -> Result<Response> {
    if let Some(name) = rest.strip_suffix("/manifest") {
        return super::manifest::read(State(state), name, &headers).await;
    }
    let Some(name) = rest.strip_suffix("/json") else {
        return Ok(page_not_found());
    };
    let reference = Reference::parse_normalized(name)?.or_latest();
    let login = auth::registry_auth(&headers).map_or(Auth::Anonymous, |auth| auth::login(&auth));
    let registry = state.engine.images().registry();
    let told = |error: engine::registry::Error| ApiError::new(error.class(), error.to_string());
    let repository = registry
        .repository(&reference, &login, Access::Pull)
        .map_err(told)?;
    let wanted = match (reference.digest(), reference.tag()) {
        (Some(digest), _) => digest.to_string(),
        (None, tag) => tag.unwrap_or("latest").to_owned(),
    };
    let manifest = repository.manifest(&wanted).await.map_err(told)?;
    Ok(ok(&inspect(&manifest)?))
}

pub async fn push(
    state: State<AppState>,
    Path(rest): Path<String>,
    headers: HeaderMap,
    body: axum::body::Body,
) -> Result<Response> {
    match rest.strip_suffix("/manifest") {
        Some(name) => super::manifest::push(state, name, &headers, body).await,
        None => Ok(page_not_found()),
    }
}

fn inspect(manifest: &RemoteManifest) -> Result<DistributionInspect> {
    let document = Document::parse(&manifest.media_type, &manifest.bytes)
        .map_err(|error| ApiError::internal(error.to_string()))?;
    let (declared, platforms) = match document {
        Document::Index(index) => {
            let entries = index.manifests.iter().filter_map(|entry| entry.platform.as_ref());
            (index.media_type, entries.map(views::platform).collect())
        }
        Document::Manifest(manifest) => (manifest.media_type, Vec::new()),
    };
    let descriptor = Descriptor {
        media_type: if manifest.media_type.is_empty() {
            declared.unwrap_or_default()
        } else {
            manifest.media_type.clone()
        },
        digest: manifest.digest.to_string(),
        size: i64::try_from(manifest.bytes.len()).unwrap_or(i64::MAX),
        ..Descriptor::default()
    };
    Ok(DistributionInspect {
        descriptor,
        platforms,
    })
}
