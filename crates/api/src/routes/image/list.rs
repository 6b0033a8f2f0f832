//! `GET /images/json`.

use std::collections::HashMap;

use axum::extract::State;
use axum::response::Response;

use crate::answer::list;
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
    let mut manifests = match version.has(47) && query.flag("manifests") {
        true => {
            let targets = rows.iter().map(|row| row.target.clone());
            state.engine.image_manifests(targets.collect()).await?.into_iter()
        }
        false => Vec::new().into_iter(),
    };
    let mut users = views::image::Users::default();
    for container in &containers {
        users.add(container);
    }
    Ok(list(rows.iter().map(|row| {
        let shared = shared
            .as_ref()
            .map(|shared| shared.get(&row.id).copied().unwrap_or(0));
        let mut summary = views::image::summary(row, users.of_image(&row.id), shared);
        if let Some(manifests) = manifests.next() {
            summary.manifests = views::image::manifests(&manifests, &row.id, &users);
        }
        versions::image::summary(summary, version)
    })))
}
