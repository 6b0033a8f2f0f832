//! `POST /commit`.

use api_types::{ContainerConfig, IdResponse, lenient};
use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use engine::CommitContainer;
use http::HeaderMap;

use crate::answer::created;
use crate::error::Result;
use crate::request::{Query, body, reference};
use crate::state::{AppState, carry_out};

pub async fn handle(
    State(state): State<AppState>,
    query: Query,
    headers: HeaderMap,
    body: Body,
) -> Result<Response> {
    body::check_content_type(&headers, &body)?;
    let document = body::collect(body).await?;
    let config: Option<ContainerConfig> = match document.trim_ascii() {
        b"" | b"null" => None,
        document => Some(lenient::from_slice(document)?),
    };
    let (repo, tag) = (query.get("repo"), query.get("tag"));
    reference::repo_and_tag(repo, tag)?;
    let request = CommitContainer {
        container: query.get("container").to_owned(),
        repo: repo.to_owned(),
        tag: tag.to_owned(),
        comment: query.get("comment").to_owned(),
        author: query.get("author").to_owned(),
        pause: query.flag_or("pause", true),
        changes: query.all("changes"),
        config,
    };
    let id = carry_out(async move {
        let apply = |settings: &mut spec::image::ContainerSettings, changes: &[String]| {
            build::apply_changes(settings, changes).map_err(|error| error.to_string())
        };
        state.engine.container_commit(request, apply).await
    })
    .await?;
    Ok(created(&IdResponse { id: id.to_string() }))
}
