//! Manifests and indexes: small documents, fetched whole, bounded, and verified against the digest they were
//! asked by or that the registry claims.

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use spec::image::{Descriptor, media_type};
use spec::{Digest, Hasher};

use crate::error::Error;
use crate::repository::{Repository, content_length};
use crate::session::{Call, Payload, refusal};

/// Most bytes of a manifest (the limit that distribution and containerd share).
pub const MAX_MANIFEST: usize = 4 << 20;

const ACCEPTED: [&str; 5] = [
    media_type::OCI_INDEX,
    media_type::DOCKER_LIST,
    media_type::OCI_MANIFEST,
    media_type::DOCKER_MANIFEST,
    // Asked for so that old images can be told apart from absent ones.
    media_type::DOCKER_SCHEMA1,
];

/// A manifest or index as the registry sent it.
#[derive(Debug, Clone)]
pub struct RemoteManifest {
    pub bytes: Bytes,
    /// As the registry declared it, without parameters; empty if it did not.
    pub media_type: String,
    /// Of exactly these bytes.
    pub digest: Digest,
}

impl Repository {
    /// Fetches a manifest by tag or digest.
    pub async fn manifest(&self, tag_or_digest: &str) -> Result<RemoteManifest, Error> {
        let wanted: Option<Digest> = tag_or_digest.parse().ok();
        let wanted = wanted.as_ref();
        self.read(|session| {
            Box::pin(async move {
                let url = session.url(&format!("manifests/{tag_or_digest}")).await?;
                let ask = || {
                    let mut call = Call::new(Method::GET, url.clone());
                    accept_all(&mut call.headers);
                    call
                };
                let answer = match session.whole(ask, MAX_MANIFEST).await? {
                    Ok(answer) => answer,
                    Err(refused) => return Err(self.manifest_refused(tag_or_digest, refused).await),
                };
                let media_type = header(&answer.headers, "content-type");
                let claimed: Option<Digest> = header(&answer.headers, "docker-content-digest").parse().ok();
                let bytes = answer.body;
                let digest = match wanted.or(claimed.as_ref()) {
                    Some(expected) => {
                        let mut hasher = Hasher::like(expected);
                        hasher.update(&bytes);
                        let found = hasher.finish();
                        if found != *expected {
                            return Err(Error::Digest {
                                wanted: expected.clone(),
                                found,
                            });
                        }
                        found
                    }
                    None => Digest::sha256(&bytes),
                };
                Ok(RemoteManifest {
                    bytes: bytes.into(),
                    media_type: essence(&media_type),
                    digest,
                })
            })
        })
        .await
    }

    /// Type, digest and size of a manifest without its bytes. `None` if it does not exist or the registry does
    /// not tell its digest.
    pub async fn manifest_head(&self, tag_or_digest: &str) -> Result<Option<Descriptor>, Error> {
        self.read(|session| {
            Box::pin(async move {
                let url = session.url(&format!("manifests/{tag_or_digest}")).await?;
                let mut call = Call::new(Method::HEAD, url);
                accept_all(&mut call.headers);
                let response = session.send(call).await?;
                match response.status() {
                    status if status.is_success() => {
                        let media_type = essence(&header(response.headers(), "content-type"));
                        let digest = header(response.headers(), "docker-content-digest").parse();
                        let size = content_length(&response);
                        Ok(match (digest, size) {
                            (Ok(digest), Some(size)) => Some(Descriptor::new(&media_type, digest, size)),
                            _ => None,
                        })
                    }
                    StatusCode::NOT_FOUND if session.endpoint.mirror => {
                        Err(self.manifest_refused(tag_or_digest, response).await)
                    }
                    StatusCode::NOT_FOUND => Ok(None),
                    _ => Err(self.manifest_refused(tag_or_digest, response).await),
                }
            })
        })
        .await
    }

    /// Stores a manifest under a tag or its digest.
    pub async fn manifest_put(
        &self,
        tag_or_digest: &str,
        media_type: &str,
        bytes: Bytes,
    ) -> Result<(), Error> {
        let session = self.upstream()?;
        let url = session.url(&format!("manifests/{tag_or_digest}")).await?;
        let mut call = Call::new(Method::PUT, url).header(CONTENT_TYPE, media_type);
        call.payload = Payload::Bytes(bytes);
        let response = session.send(call).await?;
        match response.status() {
            status if status.is_success() => Ok(()),
            _ => Err(self.refused(response).await),
        }
    }

    async fn manifest_refused(&self, tag_or_digest: &str, response: reqwest::Response) -> Error {
        let (status, body, url, after) = refusal(response, self.silence()).await;
        let unknown = body.has("MANIFEST_UNKNOWN") || body.text().is_none();
        if status == StatusCode::NOT_FOUND && unknown {
            let name = self.reference.familiar_name();
            let reference = match tag_or_digest.contains(':') {
                true => format!("{name}@{tag_or_digest}"),
                false => format!("{name}:{tag_or_digest}"),
            };
            return Error::ManifestUnknown {
                reference,
                detail: body.message("MANIFEST_UNKNOWN"),
            };
        }
        self.error(status, &body, &url, after, false)
    }
}

fn accept_all(headers: &mut HeaderMap) {
    for accepted in ACCEPTED {
        headers.append(ACCEPT, HeaderValue::from_static(accepted));
    }
}

fn header(headers: &HeaderMap, name: &str) -> String {
    headers
        .get(name)
        .and_then(|v| v.to_str().ok())
        .unwrap_or_default()
        .to_owned()
}

/// A media type without parameters.
fn essence(text: &str) -> String {
    text.split(';').next().unwrap_or_default().trim().to_owned()
}
