//! Checking credentials, as `docker login` asks for.
//!
//! The registry's `/v2/` says how it wants to be asked. With a token server the login is a token request that
//! also asks for a refresh token; where one is given, it stands for the password from then on.

use http::{Method, StatusCode};
use url::Url;

use crate::auth::{Auth, TokenKey};
use crate::challenge::Challenge;
use crate::client::Client;
use crate::endpoint::Endpoint;
use crate::error::Error;
use crate::repository::Access;
use crate::session::{Call, Session};

/// The outcome of a login that succeeded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoginResult {
    /// What the client prints.
    pub status: String,
    /// A refresh token to keep instead of the password, if the registry gave one.
    pub identity_token: Option<String>,
}

impl Client {
    /// Checks `auth` at `registry`: a host, or a URL such as `https://index.docker.io/v1/`.
    pub async fn check_login(&self, registry: &str, auth: &Auth) -> Result<LoginResult, Error> {
        let host = registry_host(registry);
        let endpoint = Endpoint::registry(&self.inner.config(), &host, "");
        let anonymous = Session::new(self.clone(), endpoint.clone(), Auth::Anonymous, Access::Pull);
        let origin = anonymous.origin().await?.clone();
        let url = origin
            .join("/v2/")
            .map_err(|e| Error::protocol(&origin, e.to_string()))?;
        let succeeded = |identity_token| LoginResult {
            status: "Login Succeeded".to_owned(),
            identity_token,
        };
        let response = anonymous.ping(url.clone()).await?;
        if response.status().is_success() {
            return Ok(succeeded(None));
        }
        let session = Session::new(self.clone(), endpoint, auth.clone(), Access::Pull);
        match Challenge::best(response.headers()) {
            Some(Challenge::Bearer { realm, service, .. })
                if response.status() == StatusCode::UNAUTHORIZED =>
            {
                let key = TokenKey::new(&realm, service.as_deref().unwrap_or_default(), "", auth);
                let answer = session
                    .fetch_token(&origin, &key, true)
                    .await
                    .map_err(|e| match e {
                        Error::Unauthorized(detail) => {
                            Error::Unauthorized(format!("Get {:?}: {detail}", url.as_str()))
                        }
                        other => other,
                    })?;
                if answer.token().is_none() {
                    return Err(Error::protocol(
                        &origin,
                        "the token server answered without a token",
                    ));
                }
                Ok(succeeded(answer.refresh_token.filter(|t| !t.is_empty())))
            }
            Some(Challenge::Basic) if response.status() == StatusCode::UNAUTHORIZED => {
                let mut call = Call::new(Method::GET, url.clone());
                if let Some(value) = auth.basic_header() {
                    call.headers.insert(http::header::AUTHORIZATION, value);
                }
                let status = session.bare(call).await?.status();
                match status.is_success() {
                    true => Ok(succeeded(None)),
                    false => Err(attempt_failed(&url, status)),
                }
            }
            _ => Err(attempt_failed(&url, response.status())),
        }
    }
}

fn attempt_failed(url: &Url, status: StatusCode) -> Error {
    let text = format!("login attempt to {url} failed with status: {status}");
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Error::Unauthorized(text),
        _ => Error::Status {
            status,
            url: url.to_string(),
            detail: format!(": {text}"),
        },
    }
}

/// The host of what a user or a credentials file calls a registry.
fn registry_host(text: &str) -> String {
    let rest = text
        .strip_prefix("https://")
        .or_else(|| text.strip_prefix("http://"))
        .unwrap_or(text);
    let host = rest.split('/').next().unwrap_or_default();
    if host.is_empty() {
        "docker.io".to_owned()
    } else {
        host.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::registry_host;

    #[test]
    fn registries_by_any_name() {
        for (text, host) in [
            ("https://index.docker.io/v1/", "index.docker.io"),
            ("localhost:5000", "localhost:5000"),
            ("http://r.example/x", "r.example"),
            ("", "docker.io"),
        ] {
            assert_eq!(registry_host(text), host);
        }
    }
}
