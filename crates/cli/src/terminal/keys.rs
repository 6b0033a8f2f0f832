//! The key sequence that detaches: `ctrl-p,ctrl-q` unless `--detach-keys` or the configuration says otherwise.

/// A sequence of bytes typed in a row.
#[derive(Clone, Debug, PartialEq)]
pub struct DetachKeys(Vec<u8>);

pub const DEFAULT: &str = "ctrl-p,ctrl-q";

impl DetachKeys {
    /// Reads `a,ctrl-x,…`: single letters, or ctrl- with a letter or one of `@[\]^_`.
    pub fn parse(text: &str) -> Result<DetachKeys, String> {
        let text = if text.is_empty() { DEFAULT } else { text };
        let mut bytes = Vec::new();
        for key in text.split(',') {
            let bad = || format!("invalid detach keys ({text}): Unknown character: '{key}'");
            let byte = match (key.as_bytes(), key.strip_prefix("ctrl-").map(str::as_bytes)) {
                ([byte], _) => *byte,
                (_, Some([letter @ b'a'..=b'z'])) => letter - b'a' + 1,
                (_, Some([b'@'])) => 0,
                (_, Some([mark @ b'['..=b'_'])) => mark - b'[' + 27,
                ([], _) if key.is_empty() => return Err(bad()),
                _ if key == "DEL" => 127,
                _ => return Err(bad()),
            };
            bytes.push(byte);
        }
        Ok(DetachKeys(bytes))
    }
}

/// Watches typed bytes for the sequence; what turns out to be a prefix only is handed on.
pub struct KeyWatch {
    keys: DetachKeys,
    matched: usize,
}

impl KeyWatch {
    pub fn new(keys: DetachKeys) -> KeyWatch {
        KeyWatch { keys, matched: 0 }
    }

    /// What goes to the container, and whether the sequence is complete (the rest of the input is dropped then).
    pub fn filter(&mut self, input: &[u8]) -> (Vec<u8>, bool) {
        let mut out = Vec::with_capacity(input.len());
        for byte in input {
            if self.keys.0.get(self.matched) == Some(byte) {
                self.matched += 1;
                if self.matched == self.keys.0.len() {
                    self.matched = 0;
                    return (out, true);
                }
                continue;
            }
            out.extend(self.keys.0.iter().take(self.matched));
            self.matched = 0;
            if self.keys.0.first() == Some(byte) {
                self.matched = 1;
            } else {
                out.push(*byte);
            }
        }
        (out, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences() {
        let mut watch = KeyWatch::new(DetachKeys::parse("").unwrap());
        assert_eq!(watch.filter(b"ab"), (b"ab".to_vec(), false));
        assert_eq!(watch.filter(b"\x10"), (vec![], false));
        assert_eq!(watch.filter(b"x"), (b"\x10x".to_vec(), false));
        assert_eq!(watch.filter(b"\x10\x10"), (b"\x10".to_vec(), false));
        assert_eq!(watch.filter(b"\x11rest"), (vec![], true));
        assert_eq!(
            DetachKeys::parse("a,ctrl-@,ctrl-_").unwrap(),
            DetachKeys(vec![b'a', 0, 31])
        );
        assert!(DetachKeys::parse("foo").is_err());
    }
}
