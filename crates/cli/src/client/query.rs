//! Paths and queries of requests.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~')
    .remove(b':')
    .remove(b'@');
/// Image names keep their slashes.
const NAME: &AsciiSet = &SEGMENT.remove(b'/');

/// One segment of a path, e.g. a container's name.
pub fn segment(text: &str) -> String {
    utf8_percent_encode(text, SEGMENT).to_string()
}

/// The name of an image in a path.
pub fn name(text: &str) -> String {
    utf8_percent_encode(text, NAME).to_string()
}

/// Builds `path?key=value&…`, leaving out what is empty.
pub struct Query(String, bool);

impl Query {
    pub fn new(path: impl Into<String>) -> Query {
        Query(path.into(), false)
    }

    /// Adds a pair even when the value is empty.
    pub fn always(mut self, key: &str, value: &str) -> Query {
        self.0.push(if self.1 { '&' } else { '?' });
        self.1 = true;
        self.0.push_str(key);
        self.0.push('=');
        self.0
            .extend(url::form_urlencoded::byte_serialize(value.as_bytes()));
        self
    }

    pub fn text(self, key: &str, value: &str) -> Query {
        if value.is_empty() {
            self
        } else {
            self.always(key, value)
        }
    }

    pub fn flag(self, key: &str, value: bool) -> Query {
        if value { self.always(key, "1") } else { self }
    }

    pub fn build(self) -> String {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        assert_eq!(segment("a/b c"), "a%2Fb%20c");
        assert_eq!(name("h:5000/a@sha256:0"), "h:5000/a@sha256:0");
        assert_eq!(
            Query::new("/x")
                .text("a", "")
                .flag("b", true)
                .always("c", "1 2")
                .build(),
            "/x?b=1&c=1+2"
        );
    }
}
