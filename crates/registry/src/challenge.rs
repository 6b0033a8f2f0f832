//! `WWW-Authenticate` headers (RFC 9110 §11.6.1): a list of challenges, each a scheme with parameters, all
//! separated by commas. Foreign text: malformed parts are skipped, never trusted.

use http::HeaderMap;
use http::header::WWW_AUTHENTICATE;

/// What a registry asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Challenge {
    Basic,
    Bearer {
        realm: String,
        service: Option<String>,
        scope: Option<String>,
    },
}

impl Challenge {
    /// The strongest challenge of a response: a token is preferred to sending the password each time.
    pub fn best(headers: &HeaderMap) -> Option<Challenge> {
        let all: Vec<Challenge> = headers
            .get_all(WWW_AUTHENTICATE)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(parse)
            .collect();
        all.iter()
            .find(|c| matches!(c, Challenge::Bearer { .. }))
            .or_else(|| all.first())
            .cloned()
    }
}

fn parse(text: &str) -> Vec<Challenge> {
    let mut found = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let (scheme, after) = token(rest);
        if scheme.is_empty() {
            break;
        }
        let (parameters, after) = parameters(after);
        let get = |name: &str| {
            parameters
                .iter()
                .find(|(key, _)| key.eq_ignore_ascii_case(name))
                .map(|(_, value)| value.clone())
        };
        if scheme.eq_ignore_ascii_case("basic") {
            found.push(Challenge::Basic);
        } else if scheme.eq_ignore_ascii_case("bearer")
            && let Some(realm) = get("realm")
        {
            found.push(Challenge::Bearer {
                realm,
                service: get("service"),
                scope: get("scope"),
            });
        }
        rest = after;
    }
    found
}

fn token(text: &str) -> (&str, &str) {
    let end = text
        .find(|c: char| !(c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c)))
        .unwrap_or(text.len());
    text.split_at(end)
}

/// Reads `key=value` pairs until something that is not one: the next scheme or rubbish.
fn parameters(text: &str) -> (Vec<(String, String)>, &str) {
    let mut pairs = Vec::new();
    let mut rest = text.trim_start();
    loop {
        let trimmed = rest.trim_start_matches([',', ' ', '\t']);
        let (key, after) = token(trimmed);
        let Some(after) = after.trim_start().strip_prefix('=') else {
            return (pairs, trimmed);
        };
        let after = after.trim_start();
        let (value, after) = match after.strip_prefix('"') {
            Some(quoted) => match unquote(quoted) {
                Some(read) => read,
                None => return (pairs, ""),
            },
            None => {
                let (value, after) = token(after);
                (value.to_owned(), after)
            }
        };
        if key.is_empty() {
            return (pairs, "");
        }
        pairs.push((key.to_owned(), value));
        rest = after;
    }
}

fn unquote(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, text.get(at + 1..)?)),
            '\\' => value.push(characters.next()?.1),
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>) -> Challenge {
        Challenge::Bearer {
            realm: realm.into(),
            service: service.map(Into::into),
            scope: scope.map(Into::into),
        }
    }

    #[test]
    fn reads_what_registries_send() {
        assert_eq!(
            parse(
                r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push""#
            ),
            [bearer(
                "https://auth.docker.io/token",
                Some("registry.docker.io"),
                Some("repository:a/b:pull,push")
            )]
        );
        assert_eq!(parse(r#"Basic realm="Registry Realm""#), [Challenge::Basic]);
        assert_eq!(
            parse(r#"Basic realm=x, Bearer realm="https://t/?a=\"b\"" , error="invalid_token""#),
            [Challenge::Basic, bearer(r#"https://t/?a="b""#, None, None)]
        );
        assert_eq!(parse("Negotiate, basic"), [Challenge::Basic]);
    }

    #[test]
    fn survives_rubbish() {
        for text in [
            "",
            ",,,",
            "=",
            "Bearer",
            r#"Bearer realm=""#,
            "Bearer realm",
            "\u{e9}",
            "Bearer =x",
            "a b c =",
        ] {
            assert!(
                !parse(text)
                    .iter()
                    .any(|c| matches!(c, Challenge::Bearer { realm, .. } if realm.contains('"'))),
                "{text}"
            );
        }
    }

    #[test]
    fn a_token_is_preferred() {
        let mut headers = HeaderMap::new();
        headers.append(WWW_AUTHENTICATE, "Basic realm=x".parse().unwrap());
        headers.append(WWW_AUTHENTICATE, "Bearer realm=\"https://t\"".parse().unwrap());
        assert_eq!(Challenge::best(&headers), Some(bearer("https://t", None, None)));
        assert_eq!(Challenge::best(&HeaderMap::new()), None);
    }
}
