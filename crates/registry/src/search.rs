//! Searching a registry for names: Docker Hub's old search, which some registries have, too; of others the catalog.
//!
//! Sources: Docker Registry v1 API, `/v1/search`; distribution-spec's `/v2/_catalog`, which Docker's registry keeps.

use http::{Method, StatusCode};
use serde::{Deserialize, Serialize};

use crate::auth::Auth;
use crate::client::Client;
use crate::endpoint::Endpoint;
use crate::error::Error;
use crate::repository::{Access, Repository, next_page};
use crate::session::{Call, Session};

/// Where Docker Hub answers searches.
const HUB: &str = "index.docker.io";
/// Most bytes of an answer, and of all pages of a catalog.
const MAX_ANSWER: usize = 16 << 20;
/// Most names of a catalog that are looked at.
const MAX_NAMES: usize = 100_000;

/// A name that was found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SearchResult {
    pub star_count: i64,
    pub is_official: bool,
    pub name: String,
    pub is_automated: bool,
    pub description: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Answer {
    results: Vec<SearchResult>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Catalog {
    repositories: Option<Vec<String>>,
}

impl Client {
    /// At most `limit` names at the registry `domain` that match `term`.
    pub async fn search(
        &self,
        domain: &str,
        term: &str,
        limit: usize,
        auth: &Auth,
    ) -> Result<Vec<SearchResult>, Error> {
        let host = match domain {
            "docker.io" | "registry-1.docker.io" => HUB,
            other => other,
        };
        let endpoint = Endpoint {
            host: host.to_owned(),
            ..Endpoint::registry(&self.inner.config(), host, "")
        };
        let session = std::sync::Arc::new(Session::new(self.clone(), endpoint, auth.clone(), Access::Pull));
        let origin = session.origin().await?.clone();
        let at = |path: &str| {
            origin
                .join(path)
                .map_err(|error| Error::protocol(&origin, error.to_string()))
        };
        let mut url = at("/v1/search")?;
        url.query_pairs_mut()
            .append_pair("q", term)
            .append_pair("n", &limit.to_string());
        match session
            .whole(|| Call::new(Method::GET, url.clone()), MAX_ANSWER)
            .await?
        {
            Ok(found) => {
                let answer: Answer = serde_json::from_slice(&found.body)
                    .map_err(|error| Error::protocol(&url, format!("search: {error}")))?;
                let mut results = answer.results;
                results.truncate(limit);
                return Ok(results);
            }
            Err(response) => match response.status() {
                StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => {}
                _ => return Err(refused(&session, response).await),
            },
        }
        let mut url = at("/v2/_catalog?n=1000")?;
        let (mut found, mut seen, mut bytes) = (Vec::new(), 0, 0);
        loop {
            let answer = match session
                .whole(|| Call::new(Method::GET, url.clone()), MAX_ANSWER)
                .await?
            {
                Ok(answer) => answer,
                Err(response) => return Err(refused(&session, response).await),
            };
            bytes += answer.body.len();
            let next = next_page(&url, &answer.headers);
            let page: Catalog = serde_json::from_slice(&answer.body)
                .map_err(|error| Error::protocol(&url, format!("catalog: {error}")))?;
            let names = page.repositories.unwrap_or_default();
            seen += names.len();
            let empty = names.is_empty();
            found.extend(
                names
                    .into_iter()
                    .filter(|name| name.contains(term))
                    .map(|name| SearchResult {
                        name: format!("{host}/{name}"),
                        ..SearchResult::default()
                    }),
            );
            match next {
                Some(next)
                    if !empty
                        && next != url
                        && found.len() < limit
                        && seen < MAX_NAMES
                        && bytes < MAX_ANSWER =>
                {
                    url = next;
                }
                _ => break,
            }
        }
        found.truncate(limit);
        Ok(found)
    }
}

async fn refused(session: &std::sync::Arc<Session>, response: reqwest::Response) -> Error {
    let reference = format!("{}/search", session.endpoint.host).parse();
    match reference {
        Ok(reference) => {
            let repository = Repository::new(reference, vec![session.clone()], Default::default());
            repository.refused(response).await
        }
        Err(_) => Error::protocol(response.url(), format!("answered {}", response.status())),
    }
}
