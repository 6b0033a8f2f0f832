//! Credentials in headers: `X-Registry-Auth` (one) and `X-Registry-Config` (by registry).
//!
//! Both are base64 of JSON in the URL alphabet, with or without padding. What cannot be read counts as "none given", since
//! anonymous access may well do; that is the API's rule.

use std::collections::BTreeMap;

use api_types::{AuthConfig, lenient};
use base64::Engine as _;
use base64::alphabet::URL_SAFE;
use base64::engine::general_purpose::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use engine::registry::Auth;
use http::HeaderMap;

const URL_ALPHABET: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

fn decode(headers: &HeaderMap, name: &str) -> Option<Vec<u8>> {
    let value = headers.get(name)?.to_str().ok()?;
    // Some clients use the standard alphabet.
    let value: String = value
        .chars()
        .map(|c| match c {
            '+' => '-',
            '/' => '_',
            other => other,
        })
        .collect();
    URL_ALPHABET.decode(value.trim()).ok()
}

/// The credentials of a pull or push, if any.
pub fn registry_auth(headers: &HeaderMap) -> Option<AuthConfig> {
    let auth: AuthConfig = lenient::from_slice(&decode(headers, "x-registry-auth")?).ok()?;
    (auth != AuthConfig::default()).then_some(auth)
}

/// The credentials of a build, by the host of the registry as references name it.
pub fn registry_logins(headers: &HeaderMap) -> BTreeMap<String, Auth> {
    let given: BTreeMap<String, AuthConfig> = decode(headers, "x-registry-config")
        .and_then(|bytes| lenient::from_slice(&bytes).ok())
        .unwrap_or_default();
    given
        .iter()
        .map(|(registry, auth)| (host(registry).to_owned(), login(auth)))
        .collect()
}

/// Clients name a registry by its host or by a URL, and the Hub by the one it had long ago.
fn host(registry: &str) -> &str {
    let bare = registry
        .strip_prefix("https://")
        .or_else(|| registry.strip_prefix("http://"))
        .unwrap_or(registry);
    match bare.split('/').next().unwrap_or(bare) {
        "index.docker.io" | "registry-1.docker.io" => "docker.io",
        host => host,
    }
}

/// The credentials as the registry client takes them; `auth` is base64 of `user:password`.
pub fn login(auth: &AuthConfig) -> Auth {
    if !auth.registrytoken.is_empty() {
        return Auth::Registry(auth.registrytoken.clone());
    }
    if !auth.identitytoken.is_empty() {
        return Auth::Identity(auth.identitytoken.clone());
    }
    if !auth.username.is_empty() {
        return Auth::Basic {
            user: auth.username.clone(),
            password: auth.password.clone(),
        };
    }
    let pair = STANDARD
        .decode(auth.auth.trim())
        .ok()
        .and_then(|bytes| String::from_utf8(bytes).ok());
    match pair.as_deref().and_then(|pair| pair.split_once(':')) {
        Some((user, password)) => Auth::Basic {
            user: user.to_owned(),
            password: password.trim_end_matches('\0').to_owned(),
        },
        None => Auth::Anonymous,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padded_or_not() {
        for engine in [
            base64::engine::general_purpose::URL_SAFE,
            base64::engine::general_purpose::URL_SAFE_NO_PAD,
        ] {
            let mut headers = HeaderMap::new();
            let value = engine.encode(r#"{"username":"u","password":"p?>"}"#);
            headers.insert("x-registry-auth", value.parse().unwrap());
            assert_eq!(registry_auth(&headers).unwrap().password, "p?>");
        }
    }

    #[test]
    fn nonsense_counts_as_none() {
        let mut headers = HeaderMap::new();
        assert!(registry_auth(&headers).is_none());
        headers.insert("x-registry-auth", "!!".parse().unwrap());
        assert!(registry_auth(&headers).is_none());
        headers.insert("x-registry-auth", "e30=".parse().unwrap());
        assert!(registry_auth(&headers).is_none());
        assert!(registry_logins(&headers).is_empty());
    }

    #[test]
    fn logins_are_found_by_the_host_of_a_reference() {
        let mut headers = HeaderMap::new();
        let value = URL_ALPHABET.encode(
            r#"{"https://index.docker.io/v1/":{"username":"hub"},"http://h:5000/v2/":{"username":"url"},"reg.lan":{"username":"bare"}}"#,
        );
        headers.insert("x-registry-config", value.parse().unwrap());
        let logins = registry_logins(&headers);
        let user = |host: &str| match logins.get(host) {
            Some(Auth::Basic { user, .. }) => user.clone(),
            other => panic!("{host}: {other:?}"),
        };
        assert_eq!(
            [user("docker.io"), user("h:5000"), user("reg.lan")],
            ["hub", "url", "bare"]
        );
    }

    #[test]
    fn every_kind_of_login() {
        let pair = AuthConfig {
            auth: STANDARD.encode("u:p:q"),
            ..AuthConfig::default()
        };
        assert!(matches!(login(&pair), Auth::Basic { user, password } if user == "u" && password == "p:q"));
        let token = AuthConfig {
            identitytoken: "t".to_owned(),
            username: "u".to_owned(),
            ..AuthConfig::default()
        };
        assert!(matches!(login(&token), Auth::Identity(token) if token == "t"));
        assert!(matches!(login(&AuthConfig::default()), Auth::Anonymous));
    }
}
