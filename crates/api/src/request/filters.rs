//! The `filters` parameter: `{"key":{"value":true}}` or, from clients of old, `{"key":["value"]}`.
//!
//! Which keys exist is the domain's to say; here only the form is judged.

use std::collections::BTreeMap;

use super::Query;
use crate::error::{ApiError, Result};

/// Filters by key; any value of a key suffices.
pub type Filters = BTreeMap<String, Vec<String>>;

/// Reads the request's filters.
pub fn filters(query: &Query) -> Result<Filters> {
    parse(query.get("filters"))
}

/// Reads one filters document; an empty one filters nothing.
pub fn parse(text: &str) -> Result<Filters> {
    if text.is_empty() {
        return Ok(Filters::new());
    }
    if let Ok(sets) = serde_json::from_str::<BTreeMap<String, Option<BTreeMap<String, bool>>>>(text) {
        // A value counts when it is named, whatever the flag beside it says.
        return Ok(sets
            .into_iter()
            .map(|(key, values)| (key, values.unwrap_or_default().into_keys().collect()))
            .collect());
    }
    serde_json::from_str::<BTreeMap<String, Option<Vec<String>>>>(text)
        .map(|lists| {
            lists
                .into_iter()
                .map(|(key, values)| (key, values.unwrap_or_default()))
                .collect()
        })
        .map_err(|_| ApiError::invalid("invalid filter"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms() {
        let wanted: Filters = [("label".to_owned(), vec!["a=b".to_owned(), "c".to_owned()])].into();
        assert_eq!(parse(r#"{"label":{"a=b":true,"c":true}}"#).unwrap(), wanted);
        assert_eq!(parse(r#"{"label":["a=b","c"]}"#).unwrap(), wanted);
        assert_eq!(parse("").unwrap(), Filters::new());
        assert_eq!(parse("{}").unwrap(), Filters::new());
    }

    #[test]
    fn nonsense_is_refused() {
        for bad in ["{", "[]", r#"{"a":"b"}"#, r#"{"a":{"b":1}}"#] {
            assert_eq!(parse(bad).unwrap_err().message, "invalid filter", "{bad}");
        }
    }
}
