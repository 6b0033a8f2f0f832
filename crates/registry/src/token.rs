//! Asking a token server: GET with the password, or POST with a refresh token.
//!
//! Sources: distribution's "Token Authentication Specification" and "OAuth2 Token Authentication". A token server
//! that a registry names over HTTPS must itself be HTTPS before it is shown any credentials.

use http::header::AUTHORIZATION;
use http::{Method, StatusCode};
use url::Url;

use crate::auth::{Auth, TokenAnswer, TokenKey};
use crate::endpoint::Security;
use crate::error::{Error, ErrorBody, is_transient_status};
use crate::session::{MAX_ANSWER, MAX_PAUSE, Session, backoff, check_downgrade, read_answer, retry_after};

impl Session {
    /// Asks the token server. `offline` also asks for a refresh token (a login).
    pub async fn fetch_token(
        &self,
        origin: &Url,
        key: &TokenKey,
        offline: bool,
    ) -> Result<TokenAnswer, Error> {
        let realm = Url::parse(&key.realm)
            .ok()
            .filter(|u| matches!(u.scheme(), "http" | "https"))
            .ok_or_else(|| Error::protocol(origin, format!("token server {:?} is not a URL", key.realm)))?;
        if self.auth != Auth::Anonymous {
            check_downgrade(origin, &realm)?;
        }
        let local = self.endpoint.security != Security::Verified && realm.host() == origin.host();
        let http = self.client.inner.http(&realm, !local)?;
        let scopes = key.scope.split(' ').filter(|s| !s.is_empty());
        let request = match &self.auth {
            Auth::Identity(token) => {
                let scope = key.scope.clone();
                let fields = [
                    ("grant_type", "refresh_token"),
                    ("service", &key.service),
                    ("client_id", "berth"),
                    ("scope", &scope),
                    ("refresh_token", token),
                ];
                let form = url::form_urlencoded::Serializer::new(String::new())
                    .extend_pairs(fields)
                    .finish();
                http.post(realm.clone())
                    .header(http::header::CONTENT_TYPE, "application/x-www-form-urlencoded")
                    .body(form)
            }
            auth => {
                let mut url = realm.clone();
                {
                    let mut query = url.query_pairs_mut();
                    if !key.service.is_empty() {
                        query.append_pair("service", &key.service);
                    }
                    for scope in scopes {
                        query.append_pair("scope", scope);
                    }
                    if let Auth::Basic { user, .. } = auth {
                        query.append_pair("account", user);
                    }
                    if offline {
                        query
                            .append_pair("offline_token", "true")
                            .append_pair("client_id", "berth");
                    }
                }
                let request = http.get(url);
                match auth.basic_header() {
                    Some(value) => request.header(AUTHORIZATION, value),
                    None => request,
                }
            }
        };
        let attempts = self.client.inner.config().attempts.max(1);
        let silence = self.silence();
        let mut failures = 0;
        let (status, after, body) = loop {
            let Some(again) = request.try_clone() else {
                return Err(Error::protocol(&realm, "token request cannot be repeated"));
            };
            let sent = match tokio::time::timeout(silence, again.send()).await {
                Ok(outcome) => outcome.map_err(|e| Error::from_transport(&Method::GET, &realm, &e)),
                Err(_) => Err(Error::silent(&Method::GET, &realm, silence.as_secs())),
            };
            let outcome = match sent {
                Ok(response) => {
                    let (status, after) = (response.status(), retry_after(response.headers()));
                    let body = read_answer(response, MAX_ANSWER, silence).await;
                    body.map(|body| (status, after, body))
                }
                Err(error) => Err(error),
            };
            failures += 1;
            let pause = match outcome {
                Ok((status, after, body)) => {
                    let busy = status == StatusCode::TOO_MANY_REQUESTS || is_transient_status(status);
                    let pause = after.unwrap_or_else(|| backoff(failures));
                    if !busy || failures >= attempts || pause > MAX_PAUSE {
                        break (status, after, body);
                    }
                    pause
                }
                Err(error) if failures < attempts && error.is_transient() => backoff(failures),
                Err(error) => return Err(error),
            };
            tokio::time::sleep(pause).await;
        };
        if !status.is_success() {
            let detail = ErrorBody::parse(&body).text();
            return Err(match status {
                StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::BAD_REQUEST => {
                    Error::Unauthorized(format!(
                        "unauthorized: {}",
                        detail.unwrap_or_else(|| "authentication required".to_owned())
                    ))
                }
                StatusCode::TOO_MANY_REQUESTS => Error::TooManyRequests {
                    detail: detail.unwrap_or_else(|| "the token server limits requests".to_owned()),
                    after,
                },
                _ => Error::Status {
                    status,
                    url: realm.to_string(),
                    detail: String::new(),
                },
            });
        }
        serde_json::from_slice(&body).map_err(|e| Error::protocol(&realm, format!("token answer: {e}")))
    }
}
