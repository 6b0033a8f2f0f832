//! `POST /images/{name}/push`.

use axum::extract::State;
use axum::response::Response;
use engine::image::PushOptions;
use http::HeaderMap;
use spec::Reference;

use super::progress::with_lines;
use crate::answer::stream_job;
use crate::error::{ApiError, Result};
use crate::request::{Query, auth, platform, reference};
use crate::state::AppState;
use crate::version::ApiVersion;

pub async fn handle(
    State(state): State<AppState>,
    name: &str,
    version: ApiVersion,
    query: &Query,
    headers: &HeaderMap,
) -> Result<Response> {
    let named = reference::repo_and_tag(name, query.get("tag"))?
        .ok_or_else(|| ApiError::invalid("image name cannot be blank"))?;
    let references = match query.get("tag") {
        // Without a tag every tag of the repository is pushed, unless the name itself carries one.
        "" if Reference::parse_normalized(name)?.tag().is_none() => all_tags(&state, &named).await?,
        _ => vec![named],
    };
    let options = PushOptions {
        auth: auth::registry_auth(headers).map(|auth| auth::login(&auth)),
        platform: platform::one(query, "platform", version, 46)?,
        limit_rate: super::create::rate(query)?,
    };
    stream_job(move |lines| async move {
        for reference in references {
            let options = options.clone();
            with_lines(&lines, |progress| {
                state.engine.image_push(&reference, options, progress)
            })
            .await?;
        }
        Ok(())
    })
    .await
}

async fn all_tags(state: &AppState, named: &Reference) -> Result<Vec<Reference>> {
    let rows = state.engine.image_list(&engine::Filters::new()).await?;
    let tags = rows.into_iter().flat_map(|row| row.references);
    let tags: Vec<Reference> = tags
        .filter(|tag| tag.name() == named.name() && tag.tag().is_some())
        .collect();
    if tags.is_empty() {
        return Err(ApiError::not_found(format!(
            "An image does not exist locally with the tag: {}",
            named.familiar_name()
        )));
    }
    Ok(tags)
}
