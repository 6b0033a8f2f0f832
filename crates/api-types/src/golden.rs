//! Holding an answer against a recorded one (feature `testing`).
//!
//! [`compare`] checks structure: keys present, null or not, kinds of values, lengths of lists, and the values themselves,
//! unless a path is excused.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

/// One recorded exchange; the body of a text answer is a string.
#[derive(Debug, Clone, Deserialize)]
pub struct Exchange {
    pub request: Request,
    pub api: String,
    pub status: u16,
    pub headers: BTreeMap<String, String>,
    #[serde(default)]
    pub body: Value,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Request {
    pub method: String,
    pub path: String,
    pub params: Option<BTreeMap<String, String>>,
    pub body: Option<Value>,
}

/// Reads `<case>.v<version>.json` from a directory of recorded exchanges.
pub fn load(directory: &Path, case: &str, version: &str) -> std::io::Result<Exchange> {
    let bytes = std::fs::read(directory.join(format!("{case}.v{version}.json")))?;
    serde_json::from_slice(&bytes).map_err(std::io::Error::other)
}

/// How strictly a path is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Excuse {
    /// The kind must agree, the value may differ (ids, times, sizes, addresses).
    Value,
    /// Lists may differ in length, objects in keys; what both have is compared.
    Shape,
    /// Not compared.
    Skip,
}

/// Every difference, one line each; empty when the answer stands. `excuses` are path patterns such as `Mounts.*.Source`
/// (`*` is any one key or index, a trailing `**` everything below, the empty pattern the whole answer); the first that
/// matches counts.
pub fn compare(expected: &Value, actual: &Value, excuses: &[(&str, Excuse)]) -> Vec<String> {
    let mut found = Vec::new();
    walk(expected, actual, &mut Vec::new(), excuses, &mut found);
    found
}

fn matches(pattern: &str, path: &[String]) -> bool {
    if pattern.is_empty() {
        return path.is_empty();
    }
    let mut parts = pattern.split('.');
    let mut keys = path.iter();
    loop {
        match (parts.next(), keys.next()) {
            (Some("**"), Some(_)) => return true,
            (None, None) => return true,
            (Some("*"), Some(_)) => {}
            (Some(part), Some(key)) if part == key => {}
            _ => return false,
        }
    }
}

fn excuse(path: &[String], excuses: &[(&str, Excuse)]) -> Option<Excuse> {
    excuses
        .iter()
        .find(|(pattern, _)| matches(pattern, path))
        .map(|(_, excuse)| *excuse)
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "list",
        Value::Object(_) => "object",
    }
}

fn walk(
    expected: &Value,
    actual: &Value,
    path: &mut Vec<String>,
    excuses: &[(&str, Excuse)],
    found: &mut Vec<String>,
) {
    let excused = excuse(path, excuses);
    if excused == Some(Excuse::Skip) {
        return;
    }
    let place = if path.is_empty() {
        ".".to_owned()
    } else {
        path.join(".")
    };
    if kind(expected) != kind(actual) {
        found.push(format!(
            "{place}: expected {} {expected}, got {} {actual}",
            kind(expected),
            kind(actual)
        ));
        return;
    }
    match (expected, actual) {
        (Value::Object(expected), Value::Object(actual)) => {
            for (key, value) in expected {
                path.push(key.clone());
                match actual.get(key) {
                    Some(other) => walk(value, other, path, excuses, found),
                    None if excused == Some(Excuse::Shape) || excuse(path, excuses) == Some(Excuse::Skip) => {
                    }
                    None => found.push(format!("{}: missing (expected {value})", path.join("."))),
                }
                path.pop();
            }
            for key in actual.keys().filter(|key| !expected.contains_key(*key)) {
                path.push(key.clone());
                if excused != Some(Excuse::Shape) && excuse(path, excuses) != Some(Excuse::Skip) {
                    found.push(format!("{}: not in the recorded answer", path.join(".")));
                }
                path.pop();
            }
        }
        (Value::Array(expected), Value::Array(actual)) => {
            if expected.len() != actual.len() && excused != Some(Excuse::Shape) {
                found.push(format!(
                    "{place}: expected {} items, got {}",
                    expected.len(),
                    actual.len()
                ));
            }
            for (index, (expected, actual)) in expected.iter().zip(actual).enumerate() {
                path.push(index.to_string());
                walk(expected, actual, path, excuses, found);
                path.pop();
            }
        }
        _ => {
            if expected != actual && excused.is_none() {
                found.push(format!("{place}: expected {expected}, got {actual}"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn differences_are_named() {
        let expected = json!({"Id": "a", "Labels": null, "Mounts": [{"Source": "/x"}]});
        let actual = json!({"Id": "b", "Labels": {}, "Mounts": [{"Source": "/y"}], "New": 1});
        let found = compare(
            &expected,
            &actual,
            &[("Id", Excuse::Value), ("Mounts.*.Source", Excuse::Value)],
        );
        assert_eq!(
            found,
            [
                "Labels: expected null null, got object {}",
                "New: not in the recorded answer"
            ]
        );
    }
}
