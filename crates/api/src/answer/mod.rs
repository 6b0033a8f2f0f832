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
    written(status, serde_json::to_vec(value))
}

/// 200 with a list. Each item is written before the next one is made, so a long list is never there twice.
pub fn list<T: Serialize>(items: impl IntoIterator<Item = T>) -> Response {
    let write = || -> serde_json::Result<Vec<u8>> {
        let mut body = vec![b'['];
        for (number, item) in items.into_iter().enumerate() {
            if number > 0 {
                body.push(b',');
            }
            serde_json::to_writer(&mut body, &item)?;
        }
        body.push(b']');
        Ok(body)
    };
    written(StatusCode::OK, write())
}

fn written(status: StatusCode, document: serde_json::Result<Vec<u8>>) -> Response {
    match document {
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

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt as _;

    async fn body(response: Response) -> Vec<u8> {
        response.into_body().collect().await.unwrap().to_bytes().to_vec()
    }

    #[tokio::test]
    async fn a_list_is_written_as_a_document_is() {
        for items in [vec![], vec!["a\"b"], vec!["a", "b", "c"]] {
            let (listed, whole) = (list(&items), ok(&items));
            assert_eq!(listed.headers(), whole.headers());
            assert_eq!(body(listed).await, body(whole).await);
        }
    }

    #[test]
    fn no_two_items_are_there_at_once() {
        use std::cell::Cell;
        struct Item<'a>(&'a Cell<usize>);
        impl Serialize for Item<'_> {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                self.0.set(self.0.get() - 1);
                serializer.serialize_unit()
            }
        }
        let waiting = Cell::new(0);
        let items = (0..100).map(|_| {
            assert_eq!(waiting.replace(1), 0);
            Item(&waiting)
        });
        assert_eq!(list(items).status(), StatusCode::OK);
    }
}
