//! Query parameters with Go's notions of truth and numbers.

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use http::request::Parts;

use crate::error::{ApiError, Result};

/// The parameters in order; a name may come several times.
#[derive(Debug, Clone, Default)]
pub struct Query(Vec<(String, String)>);

impl Query {
    pub fn parse(query: &str) -> Self {
        Self(
            url::form_urlencoded::parse(query.as_bytes())
                .into_owned()
                .collect(),
        )
    }

    /// The first value, or nothing said.
    pub fn get(&self, name: &str) -> &str {
        self.0
            .iter()
            .find(|(key, _)| key == name)
            .map_or("", |(_, value)| value)
    }

    /// The first value unless it is empty.
    pub fn text(&self, name: &str) -> Option<String> {
        let value = self.get(name);
        (!value.is_empty()).then(|| value.to_owned())
    }

    pub fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(key, _)| key == name)
    }

    pub fn all(&self, name: &str) -> Vec<String> {
        self.0
            .iter()
            .filter(|(key, _)| key == name)
            .map(|(_, value)| value.clone())
            .collect()
    }

    /// Empty, `0`, `no`, `false` and `none` are false; everything else is true.
    pub fn flag(&self, name: &str) -> bool {
        !matches!(
            self.get(name).trim().to_ascii_lowercase().as_str(),
            "" | "0" | "no" | "false" | "none"
        )
    }

    /// The flag, or `default` where it was not given at all.
    pub fn flag_or(&self, name: &str, default: bool) -> bool {
        if self.has(name) { self.flag(name) } else { default }
    }

    /// An integer that may be absent; the refusal reads as Go's `strconv.Atoi`.
    pub fn integer(&self, name: &str) -> Result<Option<i64>> {
        let value = self.get(name);
        if value.is_empty() {
            return Ok(None);
        }
        value.parse().map(Some).map_err(|_| {
            ApiError::invalid(format!(
                "strconv.Atoi: parsing {value:?}: {}",
                number_refusal(value)
            ))
        })
    }

    /// An integer where nonsense counts as zero (build parameters).
    pub fn integer_or_zero(&self, name: &str) -> i64 {
        self.get(name).parse().unwrap_or(0)
    }

    /// A terminal's height or width.
    pub fn size(&self, name: &str, what: &str) -> Result<u16> {
        let value = self.get(name);
        let refuse = |why: &str| ApiError::invalid(format!("invalid resize {what} {value:?}: {why}"));
        let digits = value.strip_prefix('-').unwrap_or(value);
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(refuse("invalid syntax"));
        }
        // The kernel's window size has 16 bits (ioctl_tty(2)).
        value.parse().map_err(|_| refuse("value out of range"))
    }
}

fn number_refusal(value: &str) -> &'static str {
    let digits = value.strip_prefix(['-', '+']).unwrap_or(value);
    if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) {
        "value out of range"
    } else {
        "invalid syntax"
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Query {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> std::result::Result<Self, Infallible> {
        Ok(Self::parse(parts.uri.query().unwrap_or_default()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn truth_is_gos() {
        let query = Query::parse("a=1&b=0&c=False&d=yes&e=&f=none");
        let flags: Vec<bool> = ["a", "b", "c", "d", "e", "f", "g"]
            .iter()
            .map(|name| query.flag(name))
            .collect();
        assert_eq!(flags, [true, false, false, true, false, false, false]);
        assert!(query.flag_or("g", true));
        assert!(!query.flag_or("e", true));
    }

    #[test]
    fn numbers_are_refused_in_gos_words() {
        let query = Query::parse("t=x&u=99999999999999999999&v=-3");
        assert_eq!(
            query.integer("t").unwrap_err().message,
            r#"strconv.Atoi: parsing "x": invalid syntax"#
        );
        assert_eq!(
            query.integer("u").unwrap_err().message,
            r#"strconv.Atoi: parsing "99999999999999999999": value out of range"#
        );
        assert_eq!(query.integer("v").unwrap(), Some(-3));
        assert_eq!(query.integer("w").unwrap(), None);
    }

    #[test]
    fn sizes() {
        let query = Query::parse("h=24&w=-1&x=a&y=70000");
        assert_eq!(query.size("h", "height").unwrap(), 24);
        for (name, why) in [
            ("w", "value out of range"),
            ("x", "invalid syntax"),
            ("y", "value out of range"),
        ] {
            assert!(query.size(name, "width").unwrap_err().message.ends_with(why));
        }
    }

    #[test]
    fn repeated_names_are_kept() {
        assert_eq!(Query::parse("t=a&t=b%3A1").all("t"), ["a", "b:1"]);
    }
}
