//! `GET /images/{name}/json`.

use axum::extract::State;
use axum::response::Response;

use crate::answer::ok;
use crate::error::{ApiError, Result};
use crate::request::{Query, platform};
use crate::state::AppState;
use crate::version::ApiVersion;
use crate::views::container::STORAGE;
use crate::{versions, views};

pub async fn handle(
    State(state): State<AppState>,
    name: &str,
    version: ApiVersion,
    query: &Query,
) -> Result<Response> {
    let with_manifests = version.has(48) && query.flag("manifests");
    let platform = platform::one(query, "platform", version, 49)?;
    if with_manifests && platform.is_some() {
        return Err(ApiError::invalid(
            "conflicting options: manifests and platform options cannot both be set",
        ));
    }
    let image = state.engine.image(name, platform.as_ref()).await?;
    let mut answer = views::image::inspect(&image);
    if with_manifests {
        let rows = state.engine.image_list(&engine::Filters::new()).await?;
        if let Some(row) = rows.iter().find(|row| row.id == image.id) {
            let containers = state.engine.containers();
            let users = containers
                .iter()
                .filter(|container| container.image_id == image.id);
            let users: Vec<String> = users.map(|container| container.id.to_string()).collect();
            let content: u64 = row.manifests.iter().map(|manifest| manifest.content_size).sum();
            let unpacked = row.size.saturating_sub(content);
            answer.manifests =
                views::image::manifests(&row.manifests, &row.manifest_digest, unpacked, &users);
        }
    }
    Ok(ok(&versions::image::inspect(answer, STORAGE, version)))
}
