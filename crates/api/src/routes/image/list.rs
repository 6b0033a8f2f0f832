//! `GET /images/json`.

use std::collections::HashMap;

use axum::extract::State;
use axum::response::Response;

use crate::answer::ok;
use crate::error::Result;
use crate::request::Query;
use crate::request::filters::filters;
use crate::state::AppState;
use crate::version::ApiVersion;
use crate::{versions, views};

pub async fn handle(State(state): State<AppState>, version: ApiVersion, query: Query) -> Result<Response> {
    let rows = state.engine.image_list(&filters(&query)?).await?;
    let containers = state.engine.containers();
    let shared: Option<HashMap<_, _>> = match version.has(42) && query.flag("shared-size") {
        true => {
            let images = state.engine.disk_usage().await?.images.images;
            Some(images.into_iter().map(|image| (image.id, image.shared)).collect())
        }
        false => None,
    };
    let with_manifests = version.has(47) && query.flag("manifests");
    let rows: Vec<_> = rows
        .iter()
        .map(|row| {
            let users: Vec<String> = containers
                .iter()
                .filter(|container| container.image_id == row.id)
                .map(|container| container.id.to_string())
                .collect();
            let shared = shared
                .as_ref()
                .map(|shared| shared.get(&row.id).copied().unwrap_or(0));
            let mut summary = views::image::summary(row, users.len(), shared);
            if with_manifests {
                let content: u64 = row.manifests.iter().map(|manifest| manifest.content_size).sum();
                let unpacked = row.size.saturating_sub(content);
                summary.manifests =
                    views::image::manifests(&row.manifests, &row.manifest_digest, unpacked, &users);
            }
            versions::image::summary(summary, version)
        })
        .collect();
    Ok(ok(&rows))
}
