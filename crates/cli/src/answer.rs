//! Long answers, read where they lie: texts that are not copied, and documents that are not read before somebody looks at
//! them.
//!
//! Lists of containers and images have thousands of rows, of which a format shows a few members. Everything shorter is a
//! [`Value`]. What is missing or null is empty, as there.

use crate::failure::Failure;
use crate::json::Value;
use serde::de::{Deserialize, Deserializer, Error, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;
use std::ops::Deref;

/// The rows of an answer.
pub fn rows<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<Vec<T>, Failure> {
    if bytes.is_empty() {
        return Ok(Vec::new());
    }
    let rows: Option<Vec<T>> = serde_json::from_slice(bytes).map_err(|error| unreadable(&error))?;
    Ok(rows.unwrap_or_default())
}

/// The failure of an answer that is no JSON, or not what it should be.
pub fn unreadable(error: &serde_json::Error) -> Failure {
    Failure::text(format!("cannot read the daemon's answer: {error}"))
}

/// A text, which is copied only where JSON has written it in other words.
#[derive(Clone, Debug, Default)]
pub struct Text<'a>(Cow<'a, str>);

impl Deref for Text<'_> {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Text<'a>, D::Error> {
        deserializer.deserialize_any(TextReader)
    }
}

struct TextReader;

impl<'de> Visitor<'de> for TextReader {
    type Value = Text<'de>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a text")
    }
    fn visit_unit<E: Error>(self) -> Result<Text<'de>, E> {
        Ok(Text::default())
    }
    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Text<'de>, E> {
        Ok(Text(Cow::Borrowed(text)))
    }
    fn visit_str<E: Error>(self, text: &str) -> Result<Text<'de>, E> {
        Ok(Text(Cow::Owned(text.to_owned())))
    }
}

/// A document within a row.
#[derive(Clone, Copy, Debug, Default, serde::Deserialize)]
#[serde(transparent)]
pub struct Part<'a>(#[serde(borrow)] Option<&'a RawValue>);

impl Part<'_> {
    /// Reads it, each time.
    pub fn read(self) -> Value {
        self.0
            .and_then(|raw| Value::parse(raw.get().as_bytes()).ok())
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default, serde::Deserialize)]
    #[serde(default)]
    struct Row<'a> {
        #[serde(borrow)]
        name: Text<'a>,
        #[serde(borrow)]
        inner: Part<'a>,
    }

    #[test]
    fn what_is_not_there_is_empty() {
        let bytes = br#"[{"name":"a","inner":{"b":[1]},"more":{"c":null}},{"name":"q\"\u00e4"},{"name":null,"inner":null}]"#;
        let rows: Vec<Row<'_>> = rows(bytes).unwrap();
        let names: Vec<&str> = rows.iter().map(|row| &*row.name).collect();
        assert_eq!(names, ["a", "q\"ä", ""]);
        assert!(matches!(rows[0].name, Text(Cow::Borrowed(_))));
        let inner: Vec<String> = rows.iter().map(|row| row.inner.read().compact()).collect();
        assert_eq!(inner, [r#"{"b":[1]}"#, "null", "null"]);
    }

    #[test]
    fn answers_without_rows() {
        for bytes in [&b""[..], b"null", b"[]\n"] {
            assert!(rows::<Row<'_>>(bytes).unwrap().is_empty());
        }
        let failure = rows::<Row<'_>>(b"{}").err().unwrap();
        assert!(failure.message.starts_with("cannot read the daemon's answer: "));
    }
}
