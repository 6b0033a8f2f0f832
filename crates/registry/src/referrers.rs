//! What refers to a manifest: signatures, attestations, bills of material (distribution-spec 1.1, "Listing Referrers").
//!
//! Registries without that list keep it as an index under a tag made of the digest, which is asked for then.

use futures_util::FutureExt;
use http::{Method, StatusCode};
use spec::Digest;
use spec::image::{Descriptor, Index};

use crate::error::Error;
use crate::manifest::MAX_MANIFEST;
use crate::repository::Repository;
use crate::session::Call;

impl Repository {
    /// Everything that refers to `digest`, of one artifact type if one is given.
    pub async fn referrers(&self, digest: &Digest, kind: Option<&str>) -> Result<Vec<Descriptor>, Error> {
        let listed = self
            .read(|session| {
                async move {
                    let mut url = session.url(&format!("referrers/{digest}")).await?;
                    if let Some(kind) = kind {
                        url.query_pairs_mut().append_pair("artifactType", kind);
                    }
                    let ask = || Call::new(Method::GET, url.clone());
                    let refused = match session.whole(ask, MAX_MANIFEST).await? {
                        // Some registries answer any path with a page.
                        Ok(answer) => return Ok(serde_json::from_slice::<Index>(&answer.body).ok()),
                        Err(refused) => refused,
                    };
                    match refused.status() {
                        StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => Ok(None),
                        _ => Err(self.refused(refused).await),
                    }
                }
                .boxed()
            })
            .await?;
        let index = match listed {
            Some(index) => index,
            None => match self.manifest(&digest.to_string().replace(':', "-")).await {
                Ok(found) => serde_json::from_slice(&found.bytes).map_err(|error| Error::Protocol {
                    url: format!(
                        "{}:{}",
                        self.reference.name(),
                        digest.to_string().replace(':', "-")
                    ),
                    detail: format!("the index of referrers: {error}"),
                })?,
                Err(Error::ManifestUnknown { .. }) => return Ok(Vec::new()),
                Err(error) => return Err(error),
            },
        };
        // A registry need not filter; what it says of the type may be missing with old ones.
        let wanted =
            |entry: &Descriptor| kind.is_none_or(|kind| entry.artifact_type.as_deref() == Some(kind));
        Ok(index.manifests.into_iter().filter(wanted).collect())
    }
}
