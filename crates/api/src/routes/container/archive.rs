//! `HEAD`, `GET` and `PUT /containers/{id}/archive`: what `cp` is made of.

use api_types::PathStat;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use engine::ArchivePut;
use http::{HeaderName, HeaderValue, StatusCode};

use crate::answer::{channel_body, with_type};
use crate::error::{ApiError, Result};
use crate::request::Query;
use crate::request::body::channel;
use crate::state::{AppState, carry_out};
use crate::views::signed;

const PATH_STAT: HeaderName = HeaderName::from_static("x-docker-container-path-stat");

pub async fn stat(State(state): State<AppState>, Path(name): Path<String>, query: Query) -> Result<Response> {
    let path = path(&query)?;
    let stat = state.engine.container_archive_stat(&name, path).await?;
    let mut response = StatusCode::OK.into_response();
    response.headers_mut().insert(PATH_STAT, header(&stat)?);
    Ok(response)
}

pub async fn get(State(state): State<AppState>, Path(name): Path<String>, query: Query) -> Result<Response> {
    let path = path(&query)?;
    let (stat, stream) = state.engine.container_archive_get(&name, path).await?;
    let mut response = with_type(StatusCode::OK, "application/x-tar", channel_body(stream));
    response.headers_mut().insert(PATH_STAT, header(&stat)?);
    Ok(response)
}

pub async fn put(
    State(state): State<AppState>,
    Path(name): Path<String>,
    query: Query,
    body: Body,
) -> Result<Response> {
    let path = path(&query)?.to_owned();
    let put = ArchivePut {
        no_overwrite_dir_non_dir: query.flag("noOverwriteDirNonDir"),
        copy_uid_gid: query.flag("copyUIDGID"),
    };
    let stream = channel(body);
    carry_out(async move {
        state
            .engine
            .container_archive_put(&name, &path, put, stream)
            .await
    })
    .await?;
    Ok(StatusCode::OK.into_response())
}

fn path(query: &Query) -> Result<&str> {
    match query.get("path") {
        "" => Err(ApiError::invalid("bad parameter: path cannot be empty")),
        path => Ok(path),
    }
}

fn header(stat: &engine::image::archive::PathStat) -> Result<HeaderValue> {
    let document = PathStat {
        name: stat.name.clone(),
        size: signed(stat.size),
        mode: stat.mode,
        mtime: stat.mtime.to_string(),
        link_target: stat.link_target.clone(),
    };
    let text = serde_json::to_vec(&document).map_err(|error| ApiError::internal(error.to_string()))?;
    HeaderValue::from_str(&STANDARD.encode(text)).map_err(|error| ApiError::internal(error.to_string()))
}
