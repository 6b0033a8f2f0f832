//! An ordered JSON value: what `inspect` prints and what `--format` templates look into.
//!
//! `serde_json::Value` sorts the keys of objects; the engine answers in the order of the API's definitions and
//! people (and scripts that compare text) expect to see that order again. Keys that start with NUL are *methods*
//! of a row (`{{.Label "x"}}`): templates can call them, printing never shows them.
//!
//! Nothing here fails except parsing; depth is bounded by serde_json's recursion limit.

use serde::Serialize;
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Number;
use std::fmt;

/// A JSON document that keeps the order of its keys.
#[derive(Clone, Debug, PartialEq, Default)]
pub enum Value {
    #[default]
    Null,
    Bool(bool),
    Number(Number),
    String(String),
    Array(Vec<Value>),
    Object(Vec<(String, Value)>),
}

impl Value {
    /// Parses one JSON document.
    pub fn parse(bytes: &[u8]) -> Result<Value, serde_json::Error> {
        serde_json::from_slice(bytes)
    }

    /// The document form of anything serialisable. A value that can't be one becomes null.
    pub fn of<T: Serialize>(value: &T) -> Value {
        serde_json::to_vec(value)
            .ok()
            .and_then(|bytes| Value::parse(&bytes).ok())
            .unwrap_or_default()
    }

    /// The member called `key`, exactly, or else ignoring case (Go's field names differ from the JSON keys in case).
    pub fn get(&self, key: &str) -> Option<&Value> {
        let Value::Object(members) = self else { return None };
        members
            .iter()
            .find(|(name, _)| name == key)
            .or_else(|| members.iter().find(|(name, _)| name.eq_ignore_ascii_case(key)))
            .map(|(_, value)| value)
    }

    /// Follows members through nested objects.
    pub fn at(&self, path: &[&str]) -> &Value {
        path.iter()
            .try_fold(self, |value, key| value.get(key))
            .unwrap_or(&Value::Null)
    }

    pub fn text(&self) -> &str {
        match self {
            Value::String(text) => text,
            _ => "",
        }
    }

    pub fn int(&self) -> i64 {
        match self {
            Value::Number(number) => number
                .as_i64()
                .or_else(|| number.as_f64().map(|float| float as i64))
                .unwrap_or(0),
            _ => 0,
        }
    }

    /// Unsigned reading; counters of the kernel may use all 64 bits.
    pub fn uint(&self) -> u64 {
        match self {
            Value::Number(number) => number
                .as_u64()
                .or_else(|| number.as_f64().map(|float| float as u64))
                .unwrap_or(0),
            _ => 0,
        }
    }

    pub fn float(&self) -> f64 {
        match self {
            Value::Number(number) => number.as_f64().unwrap_or(0.0),
            _ => 0.0,
        }
    }

    pub fn flag(&self) -> bool {
        matches!(self, Value::Bool(true))
    }

    pub fn items(&self) -> &[Value] {
        match self {
            Value::Array(items) => items,
            _ => &[],
        }
    }

    pub fn members(&self) -> &[(String, Value)] {
        match self {
            Value::Object(members) => members,
            _ => &[],
        }
    }

    pub fn is_null(&self) -> bool {
        matches!(self, Value::Null)
    }

    /// One line of JSON, as Go's encoder without HTML escaping writes it.
    pub fn compact(&self) -> String {
        let mut out = String::new();
        self.write(&mut out, None, 0);
        out
    }

    /// Indented JSON, as Go's `json.Indent` with an empty prefix writes it.
    pub fn indented(&self, indent: &str) -> String {
        let mut out = String::new();
        self.write(&mut out, Some(indent), 0);
        out
    }

    fn write(&self, out: &mut String, indent: Option<&str>, depth: usize) {
        let line = |out: &mut String, depth: usize| {
            if let Some(indent) = indent {
                out.push('\n');
                for _ in 0..depth {
                    out.push_str(indent);
                }
            }
        };
        match self {
            Value::Null => out.push_str("null"),
            Value::Bool(flag) => out.push_str(if *flag { "true" } else { "false" }),
            Value::Number(number) => out.push_str(&number.to_string()),
            Value::String(text) => write_string(out, text),
            Value::Array(items) => {
                out.push('[');
                for (index, item) in items.iter().enumerate() {
                    if index > 0 {
                        out.push(',');
                    }
                    line(out, depth + 1);
                    item.write(out, indent, depth + 1);
                }
                if !items.is_empty() {
                    line(out, depth);
                }
                out.push(']');
            }
            Value::Object(members) => {
                out.push('{');
                let mut first = true;
                for (key, value) in members.iter().filter(|(key, _)| !key.starts_with('\0')) {
                    if !first {
                        out.push(',');
                    }
                    first = false;
                    line(out, depth + 1);
                    write_string(out, key);
                    out.push(':');
                    if indent.is_some() {
                        out.push(' ');
                    }
                    value.write(out, indent, depth + 1);
                }
                if !first {
                    line(out, depth);
                }
                out.push('}');
            }
        }
    }
}

fn write_string(out: &mut String, text: &str) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\u{2028}' => out.push_str("\\u2028"),
            '\u{2029}' => out.push_str("\\u2029"),
            low if (low as u32) < 0x20 => out.push_str(&format!("\\u{:04x}", low as u32)),
            other => out.push(other),
        }
    }
    out.push('"');
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(Reader)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON document")
    }
    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_bool<E>(self, flag: bool) -> Result<Value, E> {
        Ok(Value::Bool(flag))
    }
    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(Value::Number(number.into()))
    }
    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(Value::Number(number.into()))
    }
    fn visit_f64<E>(self, number: f64) -> Result<Value, E> {
        Ok(Number::from_f64(number).map(Value::Number).unwrap_or_default())
    }
    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::String(text.to_owned()))
    }
    fn visit_string<E>(self, text: String) -> Result<Value, E> {
        Ok(Value::String(text))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element()? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = access.next_entry::<String, Value>()? {
            members.push(member);
        }
        Ok(Value::Object(members))
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Value {
        Value::String(text.to_owned())
    }
}
impl From<String> for Value {
    fn from(text: String) -> Value {
        Value::String(text)
    }
}
impl From<i64> for Value {
    fn from(number: i64) -> Value {
        Value::Number(number.into())
    }
}
impl From<bool> for Value {
    fn from(flag: bool) -> Value {
        Value::Bool(flag)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_keep_their_order_and_methods_stay_hidden() {
        let value = Value::parse(br#"{"b":1,"a":{"z":[],"y":{}},"c":[1.5,"<&>\n"]}"#).unwrap();
        assert_eq!(
            value.compact(),
            r#"{"b":1,"a":{"z":[],"y":{}},"c":[1.5,"<&>\n"]}"#
        );
        assert_eq!(
            value.indented("    "),
            "{\n    \"b\": 1,\n    \"a\": {\n        \"z\": [],\n        \"y\": {}\n    },\n    \"c\": [\n        1.5,\n        \"<&>\\n\"\n    ]\n}"
        );
        let row = Value::Object(vec![("\0Label".into(), Value::Null), ("ID".into(), "x".into())]);
        assert_eq!(row.compact(), r#"{"ID":"x"}"#);
        assert_eq!(value.at(&["A", "Z"]), &Value::Array(vec![]));
    }
}
