//! Whatever a registry or a token server says is read or refused: its headers and answers under chance and change.

use fuzz::outcome;
use http::header::{HeaderMap, HeaderValue, LINK, RETRY_AFTER, WWW_AUTHENTICATE};
use proptest::prelude::*;
use url::Url;

use crate::auth::TokenAnswer;
use crate::blob::range_start;
use crate::challenge::Challenge;
use crate::error::ErrorBody;
use crate::repository::next_page;
use crate::session::retry_after;

/// Pieces that headers and answers are made of.
const PIECES: [&str; 27] = [
    "Bearer ",
    "bearer",
    "Basic realm=x",
    "realm=\"https://t/x\"",
    "service=",
    "scope=\"repository:a:pull\"",
    ",",
    "\"",
    "\\",
    "=",
    " ",
    "{",
    "}",
    "[",
    "]",
    "\"token\":\"T\"",
    "\"access_token\":null",
    "\"expires_in\":",
    "-1",
    "1e99",
    "60",
    "\"errors\":[{\"code\":\"DENIED\"}]",
    "\"details\":\"x\"",
    "Sun, 06 Nov 1994 08:49:37 GMT",
    "99999999999999999999",
    ">; rel=\"next\"",
    "bytes 5-",
];

fn pieces() -> impl Strategy<Value = String> {
    let piece =
        prop_oneof![3 => prop::sample::select(PIECES.to_vec()).prop_map(str::to_owned), 1 => "\\PC{0,8}"];
    prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

/// The values of headers that mean something to us; what they were taken for.
fn headers<'a>(values: impl Iterator<Item = &'a [u8]>) -> String {
    let mut headers = HeaderMap::new();
    let mut texts = Vec::new();
    for text in values {
        let Ok(value) = HeaderValue::from_bytes(text) else {
            continue;
        };
        headers.append(WWW_AUTHENTICATE, value.clone());
        for name in [RETRY_AFTER, LINK] {
            headers.insert(name, value.clone());
        }
        headers.insert("x-retry-after", value);
        texts.push(String::from_utf8_lossy(text).to_lowercase());
    }
    let challenge = match Challenge::best(&headers) {
        Some(Challenge::Bearer { realm, .. }) => {
            let asked = texts.iter().any(|text| text.contains("bearer"));
            assert!(asked, "{realm}");
            "bearer"
        }
        Some(Challenge::Basic) => "basic",
        None => "no challenge",
    };
    let base = Url::parse("https://r.example/v2/a/tags/list").unwrap();
    // Where it leads is looked at when it is asked.
    let next = next_page(&base, &headers).is_some();
    let ranges = texts.iter().filter(|text| range_start(text).is_some()).count();
    format!(
        "{challenge}, {next}, {}, {}",
        retry_after(&headers).is_some(),
        ranges > 0
    )
}

#[test]
fn fuzz_header() {
    fuzz::target!("tests/corpus/challenge")
        .words(&PIECES)
        .run(|bytes| headers(bytes.split(|byte| *byte == b'\n')));
}

#[test]
fn fuzz_token() {
    fuzz::target!("tests/corpus/token").words(&PIECES).run(|bytes| {
        let answer = serde_json::from_slice::<TokenAnswer>(bytes);
        let mut said = outcome(&answer);
        if let Ok(answer) = answer {
            let token = answer.token();
            assert!(token.is_none_or(|token| !token.is_empty()));
            said += if token.is_some() {
                ", a token"
            } else {
                ", no token"
            };
        }
        said
    });
}

#[test]
fn fuzz_refusal() {
    fuzz::target!("tests/corpus/refusal").words(&PIECES).run(|bytes| {
        let body = ErrorBody::parse(bytes);
        let text = body.text();
        assert!(text.as_ref().is_none_or(|text| !text.is_empty()));
        let denied = body.has("DENIED") && !body.message("DENIED").is_empty();
        format!(
            "{}, {denied}",
            text.map_or(0, |text| text.matches(';').count() + 1)
        )
    });
}

proptest! {
    #[test]
    fn headers_are_read_or_passed_over(texts in prop::collection::vec(pieces(), 0..3)) {
        headers(texts.iter().map(|text| text.as_bytes()));
    }

    #[test]
    fn answers_are_read_or_refused(text in pieces()) {
        let body = ErrorBody::parse(text.as_bytes());
        prop_assert!(body.text().is_none_or(|text| !text.is_empty()));
        for text in [text.clone(), format!("{{{text}}}")] {
            if let Ok(answer) = serde_json::from_str::<TokenAnswer>(&text) {
                prop_assert!(answer.token().is_none_or(|token| !token.is_empty()));
            }
        }
    }
}
