//! Go's fmt for the values a template meets: `%v` of everything, and `printf`.

use super::eval::Datum;
use super::schema::Nil;
use crate::json::Value;

/// How an action prints its value.
pub(super) fn value(datum: &Datum) -> String {
    match datum {
        Datum::NoValue => "<no value>".into(),
        Datum::Nil(Nil::List) => "[]".into(),
        Datum::Nil(Nil::Map) => "map[]".into(),
        Datum::Nil(Nil::Pointer) => "<nil>".into(),
        Datum::Value(value) => plain(value),
    }
}

/// The hidden member that says how an object is written outside JSON.
pub const WRITTEN: &str = "\0written";

/// `%v` of a document.
pub(super) fn plain(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".into(),
        Value::Bool(flag) => flag.to_string(),
        Value::Number(value) => number(value),
        Value::String(text) => text.clone(),
        Value::Array(items) => format!("[{}]", items.iter().map(plain).collect::<Vec<_>>().join(" ")),
        // A value that knows how it is written.
        Value::Object(members) if let Some((_, text)) = members.iter().find(|(key, _)| key == WRITTEN) => {
            plain(text)
        }
        Value::Object(members) => {
            let mut members: Vec<_> = members.iter().filter(|(key, _)| !key.starts_with('\0')).collect();
            members.sort_by(|left, right| left.0.cmp(&right.0));
            let parts: Vec<_> = members
                .iter()
                .map(|(key, value)| format!("{key}:{}", plain(value)))
                .collect();
            format!("map[{}]", parts.join(" "))
        }
    }
}

/// `%v` of a number: shortest form, exponent below 1e-4 and from 1e21 on.
fn number(value: &serde_json::Number) -> String {
    if !value.is_f64() {
        return value.to_string();
    }
    let float = value.as_f64().unwrap_or(0.0);
    let magnitude = float.abs();
    if magnitude != 0.0 && !(1e-4..1e21).contains(&magnitude) {
        let text = format!("{float:e}");
        let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let (sign, digits) = exponent
            .strip_prefix('-')
            .map_or(("+", exponent), |digits| ("-", digits));
        return format!("{mantissa}e{sign}{digits:0>2}");
    }
    format!("{float}")
}

/// Go's `print` and `println`: `print` puts spaces between operands only when neither is a string.
pub(super) fn concat(arguments: &[Datum], line: bool) -> String {
    let mut out = String::new();
    let mut previous_text = true;
    for (index, argument) in arguments.iter().enumerate() {
        let text = matches!(argument, Datum::Value(Value::String(_)));
        if index > 0 && (line || (!text && !previous_text)) {
            out.push(' ');
        }
        out.push_str(&value(argument));
        previous_text = text;
    }
    if line {
        out.push('\n');
    }
    out
}

/// Go-quoted text.
pub(super) fn quote(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\u{b}' => out.push_str("\\v"),
            control if (control as u32) < 0x80 && control.is_control() => {
                out.push_str(&format!("\\x{:02x}", control as u32));
            }
            control if control.is_control() => out.push_str(&format!("\\u{:04x}", control as u32)),
            other => out.push(other),
        }
    }
    out.push('"');
    out
}

#[derive(Default)]
struct Verb {
    minus: bool,
    plus: bool,
    zero: bool,
    sharp: bool,
    space: bool,
    width: Option<usize>,
    precision: Option<usize>,
}

/// Widths above this are refused, so that a typo can't fill the memory.
const WIDTH_LIMIT: usize = 10_000;

/// Go's `printf`.
pub(super) fn printf(format: &str, arguments: &[Datum]) -> String {
    let mut out = String::new();
    let mut next = 0;
    let mut chars = format.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut verb = Verb::default();
        while let Some(flag) = chars.peek() {
            match flag {
                '-' => verb.minus = true,
                '+' => verb.plus = true,
                '0' => verb.zero = true,
                '#' => verb.sharp = true,
                ' ' => verb.space = true,
                _ => break,
            }
            chars.next();
        }
        let mut digits = |chars: &mut std::iter::Peekable<std::str::Chars<'_>>| {
            if chars.next_if_eq(&'*').is_some() {
                let width = match arguments.get(next) {
                    Some(Datum::Value(number @ Value::Number(_))) => number.int(),
                    _ => 0,
                };
                next += 1;
                return usize::try_from(width).ok();
            }
            let mut found = None;
            while let Some(digit) = chars.peek().and_then(|c| c.to_digit(10)) {
                found = Some((found.unwrap_or(0usize) * 10 + digit as usize).min(WIDTH_LIMIT));
                chars.next();
            }
            found
        };
        verb.width = digits(&mut chars);
        if chars.next_if_eq(&'.').is_some() {
            verb.precision = Some(digits(&mut chars).unwrap_or(0));
        }
        let Some(letter) = chars.next() else {
            out.push_str("%!(NOVERB)");
            break;
        };
        if letter == '%' {
            out.push('%');
            continue;
        }
        let Some(argument) = arguments.get(next) else {
            out.push_str(&format!("%!{letter}(MISSING)"));
            continue;
        };
        next += 1;
        out.push_str(&formatted(&verb, letter, argument));
    }
    if next < arguments.len() {
        let extra: Vec<_> = arguments
            .iter()
            .skip(next)
            .map(|argument| format!("{}={}", argument.kind(), value(argument)))
            .collect();
        out.push_str(&format!("%!(EXTRA {})", extra.join(", ")));
    }
    out
}

fn formatted(verb: &Verb, letter: char, argument: &Datum) -> String {
    let bad = || format!("%!{letter}({}={})", argument.kind(), value(argument));
    let mut numeric = false;
    let body = match (letter, argument) {
        ('T', _) => argument.kind().to_owned(),
        ('v' | 's', Datum::Value(Value::String(text))) if verb.sharp && letter == 'v' => quote(text),
        ('s', Datum::Value(Value::Number(_) | Value::Bool(_))) => bad(),
        ('v' | 's', _) => {
            numeric = matches!(argument, Datum::Value(Value::Number(_)));
            let text = value(argument);
            match verb.precision {
                Some(limit) if letter == 's' => text.chars().take(limit).collect(),
                _ => text,
            }
        }
        ('q', Datum::Value(Value::String(text))) => quote(text),
        ('q', Datum::Value(Value::Array(items))) => {
            let parts: Vec<_> = items
                .iter()
                .map(|item| match item {
                    Value::String(text) => quote(text),
                    other => plain(other),
                })
                .collect();
            format!("[{}]", parts.join(" "))
        }
        ('t', Datum::Value(Value::Bool(flag))) => flag.to_string(),
        ('d' | 'b' | 'o' | 'x' | 'X' | 'c' | 'U', Datum::Value(Value::Number(number)))
            if !number.is_f64() =>
        {
            let int = number
                .as_i64()
                .map(i128::from)
                .or(number.as_u64().map(i128::from))
                .unwrap_or(0);
            numeric = letter != 'c';
            let sign = if int < 0 {
                "-"
            } else if verb.plus {
                "+"
            } else if verb.space {
                " "
            } else {
                ""
            };
            let size = int.unsigned_abs();
            let sharp = |prefix: &'static str| if verb.sharp { prefix } else { "" };
            match letter {
                'd' => format!("{sign}{size}"),
                'b' => format!("{sign}{size:b}"),
                'o' => format!("{sign}{}{size:o}", sharp("0")),
                'x' => format!("{sign}{}{size:x}", sharp("0x")),
                'X' => format!("{sign}{}{size:X}", sharp("0X")),
                'U' => format!("U+{size:04X}"),
                _ => u32::try_from(size)
                    .ok()
                    .and_then(char::from_u32)
                    .unwrap_or('\u{fffd}')
                    .to_string(),
            }
        }
        ('x' | 'X', Datum::Value(Value::String(text))) => text
            .bytes()
            .map(|byte| {
                if letter == 'x' {
                    format!("{byte:02x}")
                } else {
                    format!("{byte:02X}")
                }
            })
            .collect(),
        ('f' | 'F' | 'e' | 'g', Datum::Value(Value::Number(number))) if number.is_f64() => {
            numeric = true;
            let float = number.as_f64().unwrap_or(0.0);
            let sign = if verb.plus && float >= 0.0 { "+" } else { "" };
            match (letter, verb.precision) {
                ('f' | 'F', precision) => format!("{sign}{float:.*}", precision.unwrap_or(6)),
                ('e', precision) => {
                    let text = format!("{float:.*e}", precision.unwrap_or(6));
                    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
                    let (mark, digits) = exponent
                        .strip_prefix('-')
                        .map_or(("+", exponent), |digits| ("-", digits));
                    format!("{sign}{mantissa}e{mark}{digits:0>2}")
                }
                _ => format!("{sign}{}", self::number(number)),
            }
        }
        _ => bad(),
    };
    pad(verb, body, numeric)
}

fn pad(verb: &Verb, body: String, numeric: bool) -> String {
    let Some(width) = verb.width.map(|width| width.min(WIDTH_LIMIT)) else {
        return body;
    };
    let length = body.chars().count();
    if length >= width {
        return body;
    }
    let fill = width - length;
    if verb.minus {
        format!("{body}{}", " ".repeat(fill))
    } else if verb.zero && numeric {
        let (sign, digits) = match body.strip_prefix(['-', '+']) {
            Some(digits) => (body.get(..1).unwrap_or_default(), digits),
            None => ("", body.as_str()),
        };
        format!("{sign}{}{digits}", "0".repeat(fill))
    } else {
        format!("{}{body}", " ".repeat(fill))
    }
}
