//! The functions a template may call: Go's predefined ones and Docker's own.

use super::eval::Datum;
use super::print;
use super::schema::Nil;
use crate::json::Value;
use std::cmp::Ordering;

const NAMES: &[&str] = &[
    "and", "or", "not", "len", "index", "slice", "print", "printf", "println", "html", "js", "urlquery",
    "eq", "ne", "lt", "le", "gt", "ge", "json", "split", "join", "title", "lower", "upper", "pad",
    "truncate",
];

pub(super) fn exists(name: &str) -> bool {
    NAMES.contains(&name)
}

/// Calls a function; the error is the text behind "executing … at <…>: ".
pub(super) fn call(name: &str, arguments: &[Datum], header: bool) -> Result<Datum, String> {
    let text = |value: String| Ok(Datum::Value(Value::String(value)));
    let wants = |count: usize| {
        if arguments.len() == count {
            Ok(())
        } else {
            Err(format!(
                "wrong number of args for {name}: want {count} got {}",
                arguments.len()
            ))
        }
    };
    let at = |index: usize| arguments.get(index).cloned().unwrap_or(Datum::NoValue);
    let string = |index: usize| match arguments.get(index) {
        Some(Datum::Value(Value::String(text))) => Ok(text.clone()),
        Some(other) => Err(format!(
            "wrong type for value; expected string; got {}",
            other.kind()
        )),
        None => Err(format!("wrong number of args for {name}")),
    };
    // In a heading the functions that only dress a value up leave the column's name alone.
    if header
        && matches!(
            name,
            "json" | "join" | "split" | "title" | "lower" | "upper" | "pad" | "truncate"
        )
    {
        return Ok(at(0));
    }
    match name {
        "not" => {
            wants(1)?;
            Ok(Datum::Value((!at(0).truth()).into()))
        }
        "len" => {
            wants(1)?;
            length(&at(0))
                .map(|length| Datum::Value((length as i64).into()))
                .ok_or_else(|| format!("error calling len: len of type {}", at(0).kind()))
        }
        "index" => index(arguments).map_err(|message| format!("error calling index: {message}")),
        "slice" => slice(arguments).map_err(|message| format!("error calling slice: {message}")),
        "print" => text(print::concat(arguments, false)),
        "println" => text(print::concat(arguments, true)),
        "printf" => {
            let format = string(0)?;
            text(print::printf(&format, arguments.get(1..).unwrap_or_default()))
        }
        "html" => text(escape_html(&print::concat(arguments, false))),
        "js" => text(
            print::quote(&print::concat(arguments, false))
                .trim_matches('"')
                .to_owned(),
        ),
        "urlquery" => {
            let raw = print::concat(arguments, false);
            text(url::form_urlencoded::byte_serialize(raw.as_bytes()).collect())
        }
        "eq" | "ne" | "lt" | "le" | "gt" | "ge" => {
            compare(name, arguments).map_err(|message| format!("error calling {name}: {message}"))
        }
        "json" => {
            wants(1)?;
            text(match arguments.first() {
                Some(Datum::Value(value)) => value.compact(),
                _ => "null".into(),
            })
        }
        "split" => {
            wants(2)?;
            let (whole, separator) = (string(0)?, string(1)?);
            let parts = if separator.is_empty() {
                whole.chars().map(|c| Value::String(c.to_string())).collect()
            } else {
                whole.split(separator.as_str()).map(Value::from).collect()
            };
            Ok(Datum::Value(Value::Array(parts)))
        }
        "join" => {
            wants(2)?;
            let separator = string(1)?;
            match at(0) {
                Datum::Value(Value::Array(items)) => text(
                    items
                        .iter()
                        .map(print::plain)
                        .collect::<Vec<_>>()
                        .join(&separator),
                ),
                Datum::Nil(_) => text(String::new()),
                other => Err(format!(
                    "wrong type for value; expected []string; got {}",
                    other.kind()
                )),
            }
        }
        "lower" => {
            wants(1)?;
            text(string(0)?.to_lowercase())
        }
        "upper" => {
            wants(1)?;
            text(string(0)?.to_uppercase())
        }
        "title" => {
            wants(1)?;
            text(title(&string(0)?))
        }
        "pad" => {
            wants(3)?;
            let body = string(0)?;
            if body.is_empty() {
                return text(body);
            }
            let count = |index| match arguments.get(index) {
                Some(Datum::Value(number @ Value::Number(_))) => Ok(number.int().clamp(0, 10_000) as usize),
                _ => Err("wrong type for value; expected int".to_owned()),
            };
            text(format!(
                "{}{body}{}",
                " ".repeat(count(1)?),
                " ".repeat(count(2)?)
            ))
        }
        "truncate" => {
            wants(2)?;
            let limit = match at(1) {
                Datum::Value(number @ Value::Number(_)) => usize::try_from(number.int()).unwrap_or(0),
                other => {
                    return Err(format!(
                        "wrong type for value; expected int; got {}",
                        other.kind()
                    ));
                }
            };
            text(string(0)?.chars().take(limit).collect())
        }
        _ => Err(format!("\"{name}\" is not a defined function")),
    }
}

fn length(datum: &Datum) -> Option<usize> {
    match datum {
        Datum::Nil(Nil::List | Nil::Map) => Some(0),
        Datum::Value(Value::String(text)) => Some(text.len()),
        Datum::Value(Value::Array(items)) => Some(items.len()),
        Datum::Value(Value::Object(members)) => Some(members.len()),
        _ => None,
    }
}

fn index(arguments: &[Datum]) -> Result<Datum, String> {
    let Some((first, keys)) = arguments.split_first() else {
        return Err("missing argument".into());
    };
    let mut current = first.clone();
    for key in keys {
        current = match (&current, key) {
            (Datum::Value(Value::Array(items)), Datum::Value(number @ Value::Number(_))) => {
                let found = usize::try_from(number.int())
                    .ok()
                    .and_then(|index| items.get(index));
                match found {
                    Some(Value::Null) => Datum::Nil(Nil::Pointer),
                    Some(found) => Datum::Value(found.clone()),
                    None => return Err(format!("index out of range: {}", number.int())),
                }
            }
            (Datum::Value(Value::String(text)), Datum::Value(number @ Value::Number(_))) => {
                let byte = usize::try_from(number.int())
                    .ok()
                    .and_then(|index| text.as_bytes().get(index));
                match byte {
                    Some(byte) => Datum::Value(i64::from(*byte).into()),
                    None => return Err(format!("index out of range: {}", number.int())),
                }
            }
            (Datum::Value(Value::Object(members)), Datum::Value(Value::String(key))) => {
                match members.iter().find(|(name, _)| name == key) {
                    Some((_, Value::Null)) => Datum::Nil(Nil::List),
                    Some((_, found)) => Datum::Value(found.clone()),
                    // A map of strings yields the empty string; other maps yield nothing that prints.
                    None if members.iter().all(|(_, value)| matches!(value, Value::String(_))) => {
                        Datum::Value("".into())
                    }
                    None => Datum::NoValue,
                }
            }
            (Datum::Nil(Nil::Map), _) => Datum::Value("".into()),
            (Datum::Nil(Nil::List), Datum::Value(number @ Value::Number(_))) => {
                return Err(format!("index out of range: {}", number.int()));
            }
            (Datum::Nil(_) | Datum::NoValue, _) => return Err("index of untyped nil".into()),
            (Datum::Value(Value::Array(_) | Value::String(_)), other) => {
                return Err(format!("cannot index slice/array with type {}", other.kind()));
            }
            (Datum::Value(Value::Object(_)), other) => {
                return Err(format!("value has type {}; should be string", other.kind()));
            }
            (other, _) => return Err(format!("can't index item of type {}", other.kind())),
        };
    }
    Ok(current)
}

fn slice(arguments: &[Datum]) -> Result<Datum, String> {
    let Some((item, bounds)) = arguments.split_first() else {
        return Err("missing argument".into());
    };
    if bounds.len() > 3 {
        return Err(format!("too many slice indexes: {}", bounds.len()));
    }
    let Some(length) = length(item).filter(|_| !matches!(item, Datum::Value(Value::Object(_)))) else {
        return Err(format!("can't slice item of type {}", item.kind()));
    };
    let bound = |index: usize, default: usize| match bounds.get(index) {
        None => Ok(default),
        Some(Datum::Value(number @ Value::Number(_))) => usize::try_from(number.int())
            .ok()
            .filter(|bound| *bound <= length)
            .ok_or_else(|| format!("index out of range: {}", number.int())),
        Some(other) => Err(format!("cannot index slice/array with type {}", other.kind())),
    };
    let (from, to) = (bound(0, 0)?, bound(1, length)?);
    if from > to {
        return Err(format!("invalid slice index: {from} > {to}"));
    }
    match item {
        Datum::Value(Value::String(text)) => {
            let bytes = text.as_bytes().get(from..to).unwrap_or_default();
            Ok(Datum::Value(String::from_utf8_lossy(bytes).into_owned().into()))
        }
        Datum::Value(Value::Array(items)) => Ok(Datum::Value(Value::Array(
            items.get(from..to).unwrap_or_default().to_vec(),
        ))),
        other => Ok(other.clone()),
    }
}

fn compare(name: &str, arguments: &[Datum]) -> Result<Datum, String> {
    let Some((first, rest)) = arguments.split_first() else {
        return Err("missing argument for comparison".into());
    };
    if rest.is_empty() {
        return Err("missing argument for comparison".into());
    }
    let answer = match name {
        "eq" => {
            let mut any = false;
            for other in rest {
                any |= equal(first, other)?;
            }
            any
        }
        "ne" => !equal(first, rest.first().unwrap_or(first))?,
        _ => {
            let order = order(first, rest.first().unwrap_or(first))?;
            match name {
                "lt" => order == Ordering::Less,
                "le" => order != Ordering::Greater,
                "gt" => order == Ordering::Greater,
                _ => order != Ordering::Less,
            }
        }
    };
    Ok(Datum::Value(answer.into()))
}

const MISMATCH: &str = "incompatible types for comparison";

fn equal(left: &Datum, right: &Datum) -> Result<bool, String> {
    let nil = |datum: &Datum| matches!(datum, Datum::Nil(_) | Datum::NoValue | Datum::Value(Value::Null));
    if nil(left) || nil(right) {
        return Ok(nil(left) && nil(right));
    }
    match (left, right) {
        (Datum::Value(Value::Bool(left)), Datum::Value(Value::Bool(right))) => Ok(left == right),
        (Datum::Value(Value::Array(_) | Value::Object(_)), _)
        | (_, Datum::Value(Value::Array(_) | Value::Object(_))) => Err("non-comparable type".into()),
        _ => Ok(order(left, right)? == Ordering::Equal),
    }
}

fn order(left: &Datum, right: &Datum) -> Result<Ordering, String> {
    match (left, right) {
        (Datum::Value(Value::String(left)), Datum::Value(Value::String(right))) => Ok(left.cmp(right)),
        (Datum::Value(Value::Number(left)), Datum::Value(Value::Number(right))) => {
            match (left.as_i64(), right.as_i64()) {
                (Some(left), Some(right)) => Ok(left.cmp(&right)),
                _ => {
                    let (left, right) = (left.as_f64().unwrap_or(0.0), right.as_f64().unwrap_or(0.0));
                    left.partial_cmp(&right).ok_or_else(|| MISMATCH.into())
                }
            }
        }
        (Datum::Value(Value::Bool(_)), Datum::Value(Value::Bool(_))) => {
            Err("invalid type for comparison".into())
        }
        _ => Err(MISMATCH.into()),
    }
}

fn title(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut start = true;
    for c in text.chars() {
        if start {
            out.extend(c.to_uppercase());
        } else {
            out.push(c);
        }
        start = !(c.is_alphanumeric() || c == '_' || c == '\'');
    }
    out
}

fn escape_html(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '"' => out.push_str("&#34;"),
            '\'' => out.push_str("&#39;"),
            '\0' => out.push('\u{fffd}'),
            other => out.push(other),
        }
    }
    out
}
