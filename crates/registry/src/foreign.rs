//! Whatever a registry or a token server says is read or refused: its headers and answers under chance and change.

use http::header::{HeaderMap, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use proptest::prelude::*;

use crate::auth::TokenAnswer;
use crate::challenge::Challenge;
use crate::error::ErrorBody;
use crate::session::retry_after;

/// Pieces that headers and answers are made of.
fn pieces() -> impl Strategy<Value = String> {
    let known = [
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
    ];
    let piece =
        prop_oneof![3 => prop::sample::select(known.to_vec()).prop_map(str::to_owned), 1 => "\\PC{0,8}"];
    prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn headers_are_read_or_passed_over(texts in prop::collection::vec(pieces(), 0..3)) {
        let mut headers = HeaderMap::new();
        for text in &texts {
            if let Ok(value) = HeaderValue::from_bytes(text.as_bytes()) {
                headers.append(WWW_AUTHENTICATE, value.clone());
                headers.insert(RETRY_AFTER, value.clone());
                headers.insert("x-retry-after", value);
            }
        }
        if let Some(Challenge::Bearer { realm, .. }) = Challenge::best(&headers) {
            prop_assert!(texts.iter().any(|text| text.to_lowercase().contains("bearer")), "{}", realm);
        }
        let _ = retry_after(&headers);
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
