//! Headers of calls as the protocol writes them: values that are not plain are escaped, all of a header or none.

use tonic::metadata::{AsciiMetadataKey, AsciiMetadataValue, MetadataMap};

/// By what calls name the output of a client that they are about.
pub const EXPORTER: &str = "buildkit-attachable-exporter-id";
/// By what calls name their build.
pub const BUILD: &str = "buildkit-controlapi-buildid";
/// By what calls name the stream of a client that they read, as a path.
pub const UPLOAD: &str = "urlpath";

/// Adds values of a header.
pub fn add(metadata: &mut MetadataMap, name: &'static str, values: &[String]) {
    let plain = |text: &String| text.bytes().all(|byte| (0x20..0x7f).contains(&byte));
    let encode = !values.iter().all(plain);
    for value in values {
        let text = if encode { escape(value) } else { value.clone() };
        if let Ok(value) = AsciiMetadataValue::try_from(text) {
            metadata.append(name, value);
        }
    }
    if encode && let Ok(key) = AsciiMetadataKey::from_bytes(encoded(name).as_bytes()) {
        metadata.insert(key, AsciiMetadataValue::from_static("1"));
    }
}

/// All values of a header.
pub fn all(metadata: &MetadataMap, name: &str) -> Vec<String> {
    let escaped = metadata.get(encoded(name).as_str()).is_some();
    let values = metadata.get_all(name).iter();
    values
        .filter_map(|value| value.to_str().ok())
        .map(|value| {
            if escaped {
                unescape(value)
            } else {
                value.to_owned()
            }
        })
        .collect()
}

/// The first value of a header.
pub fn first(metadata: &MetadataMap, name: &str) -> Option<String> {
    all(metadata, name).into_iter().next()
}

fn encoded(name: &str) -> String {
    format!("{name}-encoded")
}

/// As in a URL's query.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(char::from(byte)),
            b' ' => out.push('+'),
            byte => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// What was escaped; what is no escape stays as it is.
fn unescape(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        let number = |digits: &[u8]| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok();
        match (byte, tail.get(..2).and_then(number)) {
            (b'%', Some(escaped)) => {
                out.push(escaped);
                rest = tail.get(2..).unwrap_or_default();
                continue;
            }
            (b'+', _) => out.push(b' '),
            _ => out.push(byte),
        }
        rest = tail;
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_escaped_all_or_none() {
        let mut metadata = MetadataMap::new();
        add(&mut metadata, "a", &["x y".to_owned(), "*".to_owned()]);
        add(&mut metadata, "b", &["ä b+%".to_owned(), "*".to_owned()]);
        let raw = |name: &str| -> Vec<String> {
            let values = metadata.get_all(name).iter();
            values.map(|value| value.to_str().unwrap().to_owned()).collect()
        };
        assert_eq!(raw("a"), ["x y", "*"]);
        assert_eq!(raw("b"), ["%C3%A4+b%2B%25", "%2A"]);
        assert!(metadata.get("a-encoded").is_none());
        assert_eq!(all(&metadata, "a"), ["x y", "*"]);
        assert_eq!(all(&metadata, "b"), ["ä b+%", "*"]);
        assert_eq!(unescape("100%+%4"), "100% %4");
    }
}
