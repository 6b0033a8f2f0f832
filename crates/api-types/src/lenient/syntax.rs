//! Words a JSON syntax error as Go's scanner would. Only run on documents that serde_json has already refused.
//!
//! The scanner follows the grammar of RFC 8259 with an explicit stack (no recursion), and stops at the first byte that
//! cannot continue the document.

/// What the next significant byte may be.
#[derive(Clone, Copy, PartialEq)]
enum Expect {
    Value,
    ValueOrEnd,
    KeyOrEnd,
    Key,
    Colon,
    CommaOrEnd,
    Done,
}

/// Go's text for the first syntax error, or `None` when the grammar is kept (serde_json refused for another reason, such as
/// depth or an invalid escape that Go lets pass).
pub(super) fn explain(bytes: &[u8]) -> Option<String> {
    let mut open: Vec<u8> = Vec::new();
    let mut expect = Expect::Value;
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        if matches!(byte, b' ' | b'\t' | b'\r' | b'\n') {
            at += 1;
            continue;
        }
        match expect {
            Expect::Done => return None,
            Expect::Value | Expect::ValueOrEnd => match byte {
                b'{' => {
                    open.push(b'{');
                    expect = Expect::KeyOrEnd;
                    at += 1;
                }
                b'[' => {
                    open.push(b'[');
                    expect = Expect::ValueOrEnd;
                    at += 1;
                }
                b']' if expect == Expect::ValueOrEnd => {
                    open.pop();
                    expect = after_value(&open);
                    at += 1;
                }
                _ => {
                    at = match scalar(bytes, at) {
                        Ok(next) => next,
                        Err(why) => return Some(why),
                    };
                    expect = after_value(&open);
                }
            },
            Expect::KeyOrEnd if byte == b'}' => {
                open.pop();
                expect = after_value(&open);
                at += 1;
            }
            Expect::Key | Expect::KeyOrEnd => {
                if byte != b'"' {
                    return Some(unexpected(byte, "looking for beginning of object key string"));
                }
                at = match string(bytes, at) {
                    Ok(next) => next,
                    Err(why) => return Some(why),
                };
                expect = Expect::Colon;
            }
            Expect::Colon => {
                if byte != b':' {
                    return Some(unexpected(byte, "after object key"));
                }
                expect = Expect::Value;
                at += 1;
            }
            Expect::CommaOrEnd => {
                let in_object = open.last() == Some(&b'{');
                let end = if in_object { b'}' } else { b']' };
                if byte == b',' {
                    expect = if in_object { Expect::Key } else { Expect::Value };
                } else if byte == end {
                    open.pop();
                    expect = after_value(&open);
                } else if in_object {
                    return Some(unexpected(byte, "after object key:value pair"));
                } else {
                    return Some(unexpected(byte, "after array element"));
                }
                at += 1;
            }
        }
    }
    (expect != Expect::Done).then(|| "unexpected EOF".to_owned())
}

fn after_value(open: &[u8]) -> Expect {
    if open.is_empty() {
        Expect::Done
    } else {
        Expect::CommaOrEnd
    }
}

fn scalar(bytes: &[u8], at: usize) -> Result<usize, String> {
    match bytes.get(at) {
        Some(b'"') => string(bytes, at),
        Some(b't') => literal(bytes, at, b"true"),
        Some(b'f') => literal(bytes, at, b"false"),
        Some(b'n') => literal(bytes, at, b"null"),
        Some(b'-' | b'0'..=b'9') => number(bytes, at),
        Some(&byte) => Err(unexpected(byte, "looking for beginning of value")),
        None => Err("unexpected EOF".to_owned()),
    }
}

fn literal(bytes: &[u8], at: usize, word: &[u8]) -> Result<usize, String> {
    for (index, expected) in word.iter().enumerate() {
        match bytes.get(at + index) {
            None => return Err("unexpected EOF".to_owned()),
            Some(byte) if byte == expected => {}
            Some(&byte) => {
                let context = format!(
                    "in literal {} (expecting {})",
                    String::from_utf8_lossy(word),
                    quote(*expected)
                );
                return Err(unexpected(byte, &context));
            }
        }
    }
    Ok(at + word.len())
}

fn string(bytes: &[u8], at: usize) -> Result<usize, String> {
    let mut at = at + 1;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'"' => return Ok(at + 1),
            b'\\' => match bytes.get(at + 1) {
                None => return Err("unexpected EOF".to_owned()),
                Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => at += 2,
                Some(b'u') => {
                    for offset in 2..6 {
                        match bytes.get(at + offset) {
                            None => return Err("unexpected EOF".to_owned()),
                            Some(byte) if byte.is_ascii_hexdigit() => {}
                            Some(&byte) => {
                                return Err(unexpected(byte, "in \\u hexadecimal character escape"));
                            }
                        }
                    }
                    at += 6;
                }
                Some(&byte) => return Err(unexpected(byte, "in string escape code")),
            },
            0..=0x1f => return Err(unexpected(byte, "in string literal")),
            _ => at += 1,
        }
    }
    Err("unexpected EOF".to_owned())
}

fn number(bytes: &[u8], at: usize) -> Result<usize, String> {
    let mut at = at;
    if bytes.get(at) == Some(&b'-') {
        at += 1;
        digit(bytes, at, "in numeric literal")?;
    }
    if bytes.get(at) == Some(&b'0') {
        at += 1;
    } else {
        at = digits(bytes, at);
    }
    if bytes.get(at) == Some(&b'.') {
        digit(bytes, at + 1, "after decimal point in numeric literal")?;
        at = digits(bytes, at + 1);
    }
    if matches!(bytes.get(at), Some(b'e' | b'E')) {
        at += 1;
        if matches!(bytes.get(at), Some(b'+' | b'-')) {
            at += 1;
        }
        digit(bytes, at, "in exponent of numeric literal")?;
        at = digits(bytes, at);
    }
    Ok(at)
}

fn digit(bytes: &[u8], at: usize, context: &str) -> Result<(), String> {
    match bytes.get(at) {
        None => Err("unexpected EOF".to_owned()),
        Some(byte) if byte.is_ascii_digit() => Ok(()),
        Some(&byte) => Err(unexpected(byte, context)),
    }
}

fn digits(bytes: &[u8], mut at: usize) -> usize {
    while bytes.get(at).is_some_and(u8::is_ascii_digit) {
        at += 1;
    }
    at
}

fn unexpected(byte: u8, context: &str) -> String {
    format!("invalid character {} {context}", quote(byte))
}

/// Go quotes the byte, not the character it may be part of.
fn quote(byte: u8) -> String {
    match byte {
        b'\'' => r"'\''".to_owned(),
        b'"' => "'\"'".to_owned(),
        b'\\' => r"'\\'".to_owned(),
        b'\n' => r"'\n'".to_owned(),
        b'\r' => r"'\r'".to_owned(),
        b'\t' => r"'\t'".to_owned(),
        0x20..=0x7e => format!("'{}'", char::from(byte)),
        0xa1..=0xac | 0xae..=0xff => format!("'{}'", char::from(byte)),
        0x80..=0xa0 | 0xad => format!("'\\u{byte:04x}'"),
        _ => format!("'\\x{byte:02x}'"),
    }
}

#[cfg(test)]
mod tests {
    use super::explain;

    #[test]
    fn words() {
        let cases: [(&[u8], &str); 12] = [
            (b"x", "invalid character 'x' looking for beginning of value"),
            (b"{\"a\" 1}", "invalid character '1' after object key"),
            (
                b"{\"a\":1 \"b\"}",
                "invalid character '\"' after object key:value pair",
            ),
            (b"[1 2]", "invalid character '2' after array element"),
            (b"[1,]", "invalid character ']' looking for beginning of value"),
            (
                b"{\"a\":1,}",
                "invalid character '}' looking for beginning of object key string",
            ),
            (b"trUe", "invalid character 'U' in literal true (expecting 'u')"),
            (b"\"a\nb\"", "invalid character '\\n' in string literal"),
            (b"\"\\q\"", "invalid character 'q' in string escape code"),
            (b"-x", "invalid character 'x' in numeric literal"),
            (
                b"[1.]",
                "invalid character ']' after decimal point in numeric literal",
            ),
            (b"{\"a\":", "unexpected EOF"),
        ];
        for (document, expected) in cases {
            assert_eq!(explain(document).as_deref(), Some(expected));
        }
    }
}
