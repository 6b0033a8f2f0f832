//! Streams of JSON documents: the media types a client may ask for, and how one document is written in each.
//!
//! Sources: API 1.52 (`application/x-ndjson`, `application/json-seq` by Accept), API 1.53 (`application/jsonl`),
//! RFC 7464 for the record separator.

use bytes::Bytes;
use http::{HeaderMap, header};
use serde::Serialize;

/// The form of a JSON stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LineFormat {
    /// `application/json`: what versions before 1.52 call their line streams.
    Json,
    JsonLines,
    NdJson,
    /// RFC 7464: each document after a record separator.
    JsonSequence,
}

impl LineFormat {
    pub fn media_type(self) -> &'static str {
        match self {
            LineFormat::Json => "application/json",
            LineFormat::JsonLines => "application/jsonl",
            LineFormat::NdJson => "application/x-ndjson",
            LineFormat::JsonSequence => "application/json-seq",
        }
    }

    /// The first of the Accept header's types that is a JSON stream; wildcards choose nothing.
    pub fn accepted(headers: &HeaderMap) -> Option<Self> {
        headers
            .get_all(header::ACCEPT)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .map(|item| item.split(';').next().unwrap_or_default().trim())
            .find_map(|item| {
                [
                    LineFormat::JsonLines,
                    LineFormat::NdJson,
                    LineFormat::JsonSequence,
                ]
                .into_iter()
                .find(|format| item.eq_ignore_ascii_case(format.media_type()))
            })
    }
}

/// One document of the stream.
pub fn encode_line<T: Serialize>(format: LineFormat, value: &T) -> Bytes {
    let mut line = Vec::with_capacity(256);
    if format == LineFormat::JsonSequence {
        line.push(0x1e);
    }
    if let Err(error) = serde_json::to_writer(&mut line, value) {
        tracing::error!(%error, "an item of a stream could not be written as JSON");
    }
    line.push(b'\n');
    line.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_accept_header_chooses() {
        let mut headers = HeaderMap::new();
        assert_eq!(LineFormat::accepted(&headers), None);
        headers.insert(
            header::ACCEPT,
            "text/html, application/json-seq;q=0.9".parse().unwrap(),
        );
        assert_eq!(LineFormat::accepted(&headers), Some(LineFormat::JsonSequence));
        headers.insert(header::ACCEPT, "*/*".parse().unwrap());
        assert_eq!(LineFormat::accepted(&headers), None);
    }

    #[test]
    fn a_sequence_has_separators() {
        assert_eq!(encode_line(LineFormat::JsonSequence, &1), "\u{1e}1\n");
        assert_eq!(encode_line(LineFormat::NdJson, &1), "1\n");
    }
}
