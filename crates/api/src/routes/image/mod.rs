//! Images.
//!
//! Names hold slashes (`registry/team/app`), so one route takes everything below `/images/` and the verb at the end of the
//! path decides.

mod contents;
mod create;
mod distribution;
mod history;
mod inspect;
mod list;
mod load;
mod manifest;
pub mod progress;
mod prune;
mod push;
mod remove;
mod save;
mod search;
mod tag;
mod verify;

use axum::Router;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};

use crate::answer::page_not_found;
use crate::error::Result;
use crate::request::Query;
use crate::state::AppState;
use crate::version::ApiVersion;

pub fn routes() -> Router<AppState> {
    Router::new()
        .route("/images/json", get(list::handle))
        .route("/images/create", post(create::handle))
        .route("/images/load", post(load::handle))
        .route("/images/prune", post(prune::handle))
        .route("/images/search", get(search::handle))
        .route("/images/get", get(save::several))
        .route("/images/{*rest}", get(read).post(change).delete(remove::handle))
        .route(
            "/distribution/{*rest}",
            get(distribution::handle).post(distribution::push),
        )
}

async fn read(
    state: State<AppState>,
    Path(rest): Path<String>,
    version: ApiVersion,
    query: Query,
) -> Response {
    let answer = match rest.rsplit_once('/') {
        Some((name, "json")) => inspect::handle(state, name, version, &query).await,
        Some((name, "history")) => history::handle(state, name, version, &query).await,
        Some((name, "contents")) => contents::handle(state, name, version, &query).await,
        Some((name, "compare")) => contents::compare(state, name, &query).await,
        Some((name, "get")) => save::one(state, name, version, &query).await,
        _ => return page_not_found(),
    };
    shown(answer)
}

async fn change(
    state: State<AppState>,
    Path(rest): Path<String>,
    version: ApiVersion,
    query: Query,
    request: Request,
) -> Response {
    let answer = match rest.rsplit_once('/') {
        Some((name, "verify")) => {
            let (parts, body) = request.into_parts();
            verify::handle(state, name, &parts.headers, body).await
        }
        Some((name, "push")) => push::handle(state, name, version, &query, request.headers()).await,
        Some((name, "tag")) => tag::handle(state, name, &query).await,
        _ => return page_not_found(),
    };
    shown(answer)
}

fn shown(answer: Result<Response>) -> Response {
    answer.unwrap_or_else(IntoResponse::into_response)
}
