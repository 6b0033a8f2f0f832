//! `GET /images/search`: names at a registry, Docker Hub unless the term begins with another.

use axum::extract::State;
use axum::response::Response;
use engine::registry::{Auth, SearchResult};
use http::HeaderMap;

use crate::answer::ok;
use crate::error::{ApiError, Result};
use crate::request::filters::filters;
use crate::request::{Query, auth};
use crate::state::AppState;

/// As many as Docker gives.
const USUAL: usize = 25;
const MOST: usize = 100;

pub async fn handle(State(state): State<AppState>, query: Query, headers: HeaderMap) -> Result<Response> {
    let filters = filters(&query)?;
    engine::filters::check_keys(&filters, &["is-automated", "is-official", "stars"])?;
    let official = engine::filters::boolean(&filters, "is-official")?;
    let automated = engine::filters::boolean(&filters, "is-automated")?;
    let mut stars = 0;
    for text in filters.get("stars").into_iter().flatten() {
        let number: i64 = text
            .parse()
            .map_err(|_| ApiError::invalid(format!("invalid filter 'stars={text}'")))?;
        stars = stars.max(number);
    }
    let limit = match query.get("limit") {
        "" | "0" => USUAL,
        text => match text.parse() {
            Ok(limit @ 1..=MOST) => limit,
            Ok(limit) => {
                return Err(ApiError::invalid(format!(
                    "limit {limit} is outside the range of [1, {MOST}]"
                )));
            }
            Err(_) => {
                return Err(ApiError::invalid(format!(
                    "invalid limit specified: {text:?} is no number from 1 to {MOST}"
                )));
            }
        },
    };
    let term = query.get("term");
    if term.contains("://") || term.is_empty() {
        return Err(ApiError::invalid(format!(
            "invalid repository name: repository name ({term}) should not have a scheme"
        )));
    }
    let (domain, words) = match term.split_once('/') {
        Some((domain, words)) if domain.contains(['.', ':']) || domain == "localhost" => (domain, words),
        _ => ("docker.io", term),
    };
    // Nothing is built by the registry any more, whatever it says.
    if automated == Some(true) {
        return Ok(ok::<[SearchResult; 0]>(&[]));
    }
    let login = auth::registry_auth(&headers).map_or(Auth::Anonymous, |auth| auth::login(&auth));
    let found = state
        .engine
        .images()
        .registry()
        .search(domain, words, limit, &login)
        .await;
    let found = found.map_err(|error| ApiError::new(error.class(), error.to_string()))?;
    let wanted = |result: &SearchResult| {
        official.is_none_or(|official| result.is_official == official) && result.star_count >= stars
    };
    let shown = found.into_iter().filter(wanted).map(|result| SearchResult {
        is_automated: false,
        ..result
    });
    Ok(ok(&shown.collect::<Vec<_>>()))
}
