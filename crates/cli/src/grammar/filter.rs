//! `--filter key=value`, as the API's `filters` document: `{"key":{"value":true}}`.

use std::collections::BTreeMap;

/// Filters of one request.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Filters(BTreeMap<String, BTreeMap<String, bool>>);

/// Checks one value while flags are read.
pub fn check(text: &str) -> Result<(), String> {
    if text.is_empty() || text.contains('=') {
        return Ok(());
    }
    Err("bad format of filter (expected name=value)".into())
}

impl Filters {
    pub fn read(texts: &[String]) -> Filters {
        let mut filters = Filters::default();
        for text in texts.iter().filter(|text| !text.is_empty()) {
            let (key, value) = text.split_once('=').unwrap_or((text, ""));
            filters.add(key.trim().to_ascii_lowercase(), value.trim());
        }
        filters
    }

    pub fn add(&mut self, key: impl Into<String>, value: impl Into<String>) {
        self.0.entry(key.into()).or_default().insert(value.into(), true);
    }

    pub fn has(&self, key: &str) -> bool {
        self.0.contains_key(key)
    }

    /// The document, empty when there are none.
    pub fn document(&self) -> String {
        if self.0.is_empty() {
            String::new()
        } else {
            serde_json::to_string(&self.0).unwrap_or_default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents() {
        let filters = Filters::read(&["label=a=b".into(), "Label=c".into(), "status=running".into()]);
        assert_eq!(
            filters.document(),
            r#"{"label":{"a=b":true,"c":true},"status":{"running":true}}"#
        );
        assert_eq!(
            check("foo"),
            Err("bad format of filter (expected name=value)".into())
        );
    }
}
