//! Builds that come in one request of the engine's API and go on over the client's session: what docker clients before
//! version 23 speak (`POST /build?version=2`).
//!
//! The request holds the options, the session the files. What is told about the build goes back as it is told to any client of
//! BuildKit, in the same messages.

use std::collections::HashMap;

use bollard_buildkit_proto::moby::buildkit::v1::{
    CacheOptions, CacheOptionsEntry, Exporter, SolveRequest as Solve,
};
use build::BuildError;
use build::exchange::Wish;
use prost::Message;
use tokio::sync::mpsc;

use crate::control::solve_job;
use crate::error::Failure;
use crate::job::Reader;
use crate::service::Service;
use crate::uploads;

/// A Dockerfile build of a client whose session is open, or about to be.
#[derive(Debug, Clone, Default)]
pub struct SessionBuild {
    /// By what it can be given up.
    pub reference: String,
    pub session: String,
    /// As the frontend for Dockerfiles has them.
    pub attributes: HashMap<String, String>,
    /// The context comes in a request of its own ([`Service::upload`]).
    pub uploaded: bool,
    /// What becomes of it, by kind of exporter.
    pub outputs: Vec<(String, HashMap<String, String>)>,
    pub caches: Vec<Wish>,
    pub entitlements: Vec<String>,
}

impl Service {
    /// Builds, and hands on what is told about it, message by message; the digest of the image, where there is one.
    pub async fn build(
        &self,
        wanted: SessionBuild,
        told: mpsc::Sender<Vec<u8>>,
    ) -> Result<Option<String>, BuildError> {
        if self.jobs.find(&wanted.reference).is_some() {
            let text = format!("a build {} is under way", wanted.reference);
            return Err(Failure::new(tonic::Code::AlreadyExists, text).into());
        }
        let mut attributes = wanted.attributes;
        if wanted.uploaded {
            attributes.insert("context".to_owned(), uploads::of_request(&wanted.reference));
        }
        let entry = |wish: Wish| CacheOptionsEntry {
            r#type: wish.kind,
            attrs: wish.options.into_iter().collect(),
        };
        let exporters = wanted
            .outputs
            .into_iter()
            .map(|(kind, attrs)| Exporter { r#type: kind, attrs });
        let request = Solve {
            r#ref: wanted.reference.clone(),
            session: wanted.session,
            frontend: "dockerfile.v0".to_owned(),
            frontend_attrs: attributes,
            exporters: exporters.collect(),
            entitlements: wanted.entitlements,
            cache: Some(CacheOptions {
                imports: wanted.caches.into_iter().map(entry).collect(),
                ..CacheOptions::default()
            }),
            ..Solve::default()
        };
        let telling = async {
            let Ok(log) = self.jobs.log(&wanted.reference).await else {
                return;
            };
            let mut reader = Reader::new(log);
            while let Some(said) = reader.next().await {
                if told.send(said.encode_to_vec()).await.is_err() {
                    return;
                }
            }
        };
        // The log is looked for while the job is opened; the job's end is the log's.
        let (made, ()) = tokio::join!(solve_job(self, request, None), telling);
        let said = made?;
        Ok(said.get("containerimage.digest").cloned())
    }

    /// Waits a little for a session to be opened.
    pub async fn session_opened(&self, id: &str) {
        if !id.is_empty() {
            let _ = self.sessions.get(id).await;
        }
    }

    /// Ends the build with this reference; whether there is one.
    pub fn give_up(&self, reference: &str) -> bool {
        let found = self.jobs.find(reference);
        if let Some(job) = &found {
            job.stop.cancel();
        }
        found.is_some()
    }
}
