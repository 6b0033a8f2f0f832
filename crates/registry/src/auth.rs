//! Credentials, tokens and the cache of tokens.
//!
//! Token flow: distribution's "Token Authentication Specification" (GET with Basic) and "OAuth2 Token
//! Authentication" (POST with a refresh token, which Docker calls identity token). A token is kept until
//! shortly before it expires, per token server, scope and credentials.

use std::collections::HashMap;
use std::fmt;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use serde::Deserialize;
use spec::Digest;

/// Who asks. Never printed.
#[derive(Clone, PartialEq, Eq, Default)]
pub enum Auth {
    #[default]
    Anonymous,
    Basic {
        user: String,
        password: String,
    },
    /// A refresh token, as `docker login` stores it for registries that give one.
    Identity(String),
    /// A token to present as it is (`registrytoken`).
    Registry(String),
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Auth::Anonymous => "Anonymous",
            Auth::Basic { .. } => "Basic(..)",
            Auth::Identity(_) => "Identity(..)",
            Auth::Registry(_) => "Registry(..)",
        })
    }
}

impl Auth {
    /// The `Authorization` of the Basic scheme, if there is a name and password.
    pub(crate) fn basic_header(&self) -> Option<HeaderValue> {
        let Auth::Basic { user, password } = self else {
            return None;
        };
        secret(&format!(
            "Basic {}",
            STANDARD.encode(format!("{user}:{password}"))
        ))
    }

    /// Tells credentials apart in the cache without keeping them there.
    fn fingerprint(&self) -> String {
        let text = match self {
            Auth::Anonymous => return String::new(),
            Auth::Basic { user, password } => format!("b\0{user}\0{password}"),
            Auth::Identity(token) => format!("i\0{token}"),
            Auth::Registry(token) => format!("r\0{token}"),
        };
        Digest::sha256(text.as_bytes()).hex().to_owned()
    }
}

pub(crate) fn bearer_header(token: &str) -> Option<HeaderValue> {
    secret(&format!("Bearer {token}"))
}

fn secret(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// What a token server answers. `access_token` is OAuth2's name for `token`.
#[derive(Deserialize)]
pub(crate) struct TokenAnswer {
    #[serde(default)]
    token: Option<String>,
    #[serde(default)]
    access_token: Option<String>,
    #[serde(default)]
    pub refresh_token: Option<String>,
    /// Seconds; 60 where absent (the specification's default).
    #[serde(default)]
    expires_in: Option<u64>,
}

impl TokenAnswer {
    pub fn token(&self) -> Option<&str> {
        [&self.token, &self.access_token]
            .into_iter()
            .flatten()
            .map(String::as_str)
            .find(|t| !t.is_empty())
    }

    fn lifetime(&self) -> Duration {
        // An hour at most, so that a nonsensical value does not pin a revoked token.
        Duration::from_secs(self.expires_in.unwrap_or(60).clamp(60, 3600))
    }
}

/// What a token is for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct TokenKey {
    pub realm: String,
    pub service: String,
    pub scope: String,
    credentials: String,
}

impl TokenKey {
    pub fn new(realm: &str, service: &str, scope: &str, auth: &Auth) -> TokenKey {
        TokenKey {
            realm: realm.to_owned(),
            service: service.to_owned(),
            scope: scope.to_owned(),
            credentials: auth.fingerprint(),
        }
    }
}

/// Tokens not yet expired.
#[derive(Default)]
pub(crate) struct TokenCache {
    tokens: Mutex<HashMap<TokenKey, (String, Instant)>>,
}

impl TokenCache {
    const MOST: usize = 1024;

    pub fn get(&self, key: &TokenKey) -> Option<String> {
        let tokens = self.tokens.lock().unwrap_or_else(|e| e.into_inner());
        let (token, until) = tokens.get(key)?;
        (*until > Instant::now()).then(|| token.clone())
    }

    pub fn put(&self, key: TokenKey, answer: &TokenAnswer) {
        let Some(token) = answer.token() else { return };
        let now = Instant::now();
        let mut tokens = self.tokens.lock().unwrap_or_else(|e| e.into_inner());
        if tokens.len() >= TokenCache::MOST {
            tokens.retain(|_, (_, until)| *until > now);
            if tokens.len() >= TokenCache::MOST {
                tokens.clear();
            }
        }
        // A tenth is kept back for the way to the registry and clocks that differ.
        tokens.insert(key, (token.to_owned(), now + answer.lifetime() * 9 / 10));
    }

    pub fn forget(&self, key: &TokenKey) {
        self.tokens.lock().unwrap_or_else(|e| e.into_inner()).remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_kept_per_scope_and_credentials() {
        let cache = TokenCache::default();
        let key = |scope: &str, auth: &Auth| TokenKey::new("https://t", "s", scope, auth);
        let answer: TokenAnswer = serde_json::from_str(r#"{"access_token":"T","expires_in":300}"#).unwrap();
        let user = Auth::Basic {
            user: "u".into(),
            password: "p".into(),
        };
        cache.put(key("a", &user), &answer);
        assert_eq!(cache.get(&key("a", &user)).as_deref(), Some("T"));
        assert_eq!(cache.get(&key("a", &Auth::Anonymous)), None);
        assert_eq!(cache.get(&key("b", &user)), None);
        cache.forget(&key("a", &user));
        assert_eq!(cache.get(&key("a", &user)), None);
    }

    #[test]
    fn credentials_are_never_printed() {
        let auth = Auth::Basic {
            user: "u".into(),
            password: "hunter2".into(),
        };
        assert!(!format!("{auth:?}").contains("hunter2"));
        assert!(!format!("{:?}", TokenKey::new("r", "s", "x", &auth)).contains("hunter2"));
        assert!(format!("{:?}", auth.basic_header().unwrap()).contains("Sensitive"));
    }
}
