//! Ways to answer: one JSON document, an empty status, a stream of JSON lines, a stream of bytes.

mod bytes_stream;
mod channel;
mod json_lines;
mod progress;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;

pub use bytes_stream::{Feed, feed};
pub use channel::channel_body;
pub use json_lines::{LineFormat, encode_line};
pub use progress::{Lines, stream_job};

/// One JSON document and a newline, as Go's encoder ends it.
pub fn json<T: Serialize + ?Sized>(status: StatusCode, value: &T) -> Response {
    match serde_json::to_vec(value) {
        Ok(mut body) => {
            body.push(b'\n');
            let mut response = Response::new(Body::from(body));
            *response.status_mut() = status;
            response
                .headers_mut()
                .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
            response
        }
        // Only a map with keys that are no strings can fail, and no model has one.
        Err(error) => {
            tracing::error!(%error, "an answer could not be written as JSON");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// 200 with a document.
pub fn ok<T: Serialize + ?Sized>(value: &T) -> Response {
    json(StatusCode::OK, value)
}

/// 201 with a document.
pub fn created<T: Serialize + ?Sized>(value: &T) -> Response {
    json(StatusCode::CREATED, value)
}

/// 204.
pub fn no_content() -> Response {
    StatusCode::NO_CONTENT.into_response()
}

/// No content, and a word for the client's user. The header is this engine's own; other clients pass over it.
pub fn no_content_but(warning: Option<String>) -> Response {
    let mut response = no_content();
    if let Some(value) = warning.and_then(|text| HeaderValue::from_str(&text).ok()) {
        response.headers_mut().insert("berth-warning", value);
    }
    response
}

/// A body with a media type.
pub fn with_type(status: StatusCode, media_type: &'static str, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    response
}

/// What undefined paths and methods get.
pub fn page_not_found() -> Response {
    json(
        StatusCode::NOT_FOUND,
        &api_types::ErrorResponse {
            message: "page not found".to_owned(),
        },
    )
}
