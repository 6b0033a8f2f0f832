//! `GET /images/{name}/json`.

use axum::extract::State;
use axum::response::Response;

use crate::answer::ok;
use crate::error::{ApiError, Result};
use crate::request::{Query, platform};
use crate::state::AppState;
use crate::version::ApiVersion;
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
        let containers = state.engine.containers();
        let mut users = views::image::Users::default();
        for container in &containers {
            users.add(container);
        }
        let manifests = state.engine.image_manifests(vec![image.target.clone()]).await?;
        answer.manifests = views::image::manifests(&manifests.concat(), &image.id, &users);
    }
    let driver = state.engine.store().snapshots().driver();
    Ok(ok(&versions::image::inspect(answer, driver, version)))
}
