//! The service as a whole: what all its parts share, and how connections reach it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ::session::MAX_MESSAGE;
use bollard_buildkit_proto::health::health_server::HealthServer;
use bollard_buildkit_proto::moby::buildkit::v1::control_server::ControlServer;
use bollard_buildkit_proto::moby::buildkit::v1::frontend::llb_bridge_server::LlbBridgeServer;
use bollard_buildkit_proto::pb::{Definition, Op, op};
use build::Builder;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use image::{Image, Images};
use prost::Message;
use spec::Reference;
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::service::Routes;

use crate::error::Failure;
use crate::frontend::Options;
use crate::history::History;
use crate::job::Jobs;
use crate::locals::Locals;
use crate::result::Outcome;
use crate::session::{Greeting, Session, Sessions};
use crate::uploads::Uploads;

/// How a result of this engine is named in a definition.
const RESULT: &str = "berth-result://";

/// Told of every image that a build has made and that stays, and of the names that it was given. Must not take long.
pub type Told = dyn Fn(&Image, &[Reference]) + Send + Sync;

/// Everything the service's parts share; clones are handles.
#[derive(Clone)]
pub struct Service {
    pub builder: Arc<Builder>,
    pub images: Images,
    pub sessions: Sessions,
    pub jobs: Jobs,
    pub locals: Locals,
    pub history: History,
    pub uploads: Uploads,
    pub told: Arc<Told>,
    root: PathBuf,
}

impl Service {
    /// The service on the engine's root.
    pub fn open(builder: Arc<Builder>, images: Images, told: Arc<Told>) -> io::Result<Service> {
        let root = images.store().root().to_owned();
        Ok(Service {
            locals: Locals::open(&root)?,
            history: History::open(&root)?,
            builder,
            images,
            sessions: Sessions::default(),
            jobs: Jobs::default(),
            uploads: Uploads::default(),
            told,
            root,
        })
    }

    /// The gRPC services, to be put behind any HTTP/2 connection.
    pub fn routes(&self) -> Routes {
        let control = ControlServer::new(self.clone()).max_decoding_message_size(MAX_MESSAGE);
        let bridge = LlbBridgeServer::new(self.clone()).max_decoding_message_size(MAX_MESSAGE);
        Routes::new(control)
            .add_service(bridge)
            .add_service(HealthServer::new(self.clone()))
    }

    /// The same as a router, to be put beside others.
    pub fn router(&self) -> axum::Router {
        self.routes().into_axum_router()
    }

    /// Serves gRPC on a connection that was taken over, until the client ends it.
    pub async fn serve<S>(&self, connection: S)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let service = TowerToHyperService::new(self.routes().prepare());
        let http = ::session::http2::server();
        // Clients open connections that they close again unused: an end before the beginning is none of our failures.
        if let Err(error) = http.serve_connection(TokioIo::new(connection), service).await {
            tracing::debug!(%error, "a gRPC connection ended badly");
        }
    }

    /// Serves a client's session on a connection that was taken over, until the client ends it.
    pub async fn serve_session<S>(&self, greeting: Greeting, connection: S)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        if let Err(error) = self.sessions.serve(greeting, connection).await {
            tracing::debug!(%error, "a session ended badly");
        }
    }

    /// The session that serves a directory: the build's own, unless it was said otherwise.
    pub async fn session_of(
        &self,
        session: &Session,
        options: &Options,
        directory: &str,
    ) -> Result<Session, Failure> {
        match options.sessions.get(directory) {
            Some(id) if *id != session.id => self.sessions.get(id).await,
            _ => Ok(session.clone()),
        }
    }

    /// Where the engine keeps everything.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where what lasts no longer than a build lies; it is emptied when a daemon starts.
    pub fn room(&self) -> PathBuf {
        self.root.join("tmp")
    }

    /// An empty directory, which goes when it is dropped.
    pub fn directory(&self, prefix: &str) -> Result<tempfile::TempDir, Failure> {
        let parent = self.room();
        std::fs::create_dir_all(&parent)
            .and_then(|()| tempfile::Builder::new().prefix(prefix).tempdir_in(&parent))
            .map_err(|error| {
                Failure::internal(format!(
                    "cannot make a directory in {}: {error}",
                    parent.display()
                ))
            })
    }

    /// A directory that is always empty.
    pub fn empty(&self) -> Result<PathBuf, Failure> {
        let empty = self.root.join("buildkit/empty");
        std::fs::create_dir_all(&empty)
            .map_err(|error| Failure::internal(format!("cannot make {}: {error}", empty.display())))?;
        Ok(empty)
    }

    /// A definition that stands for what the job `job` made under the name `result`.
    pub fn definition_of(job: &str, result: &str) -> Definition {
        let source = bollard_buildkit_proto::pb::SourceOp {
            identifier: format!("{RESULT}{job}/{result}"),
            attrs: Default::default(),
        };
        let op = Op {
            op: Some(op::Op::Source(source)),
            ..Op::default()
        };
        let source = op.encode_to_vec();
        let digest = spec::Digest::sha256(&source).to_string();
        let last = Op {
            inputs: vec![bollard_buildkit_proto::pb::Input {
                digest: digest.clone(),
                index: 0,
            }],
            ..Op::default()
        };
        let last = last.encode_to_vec();
        let metadata = [digest, spec::Digest::sha256(&last).to_string()];
        Definition {
            def: vec![source, last],
            metadata: metadata
                .into_iter()
                .map(|digest| (digest, Default::default()))
                .collect(),
            source: None,
        }
    }

    /// What a definition stands for, where it is nothing but a result of this engine.
    pub fn result_of(&self, definition: &Definition) -> Result<Option<Arc<Outcome>>, Failure> {
        let [op, _] = definition.def.as_slice() else {
            return Ok(None);
        };
        match Op::decode(op.as_slice()).ok().and_then(|op| op.op) {
            Some(op::Op::Source(source)) => self.result_called(&source.identifier),
            _ => Ok(None),
        }
    }

    /// The result that a source of a definition names, where it names one of this engine.
    pub fn result_called(&self, identifier: &str) -> Result<Option<Arc<Outcome>>, Failure> {
        let Some((job, name)) = identifier
            .strip_prefix(RESULT)
            .and_then(|rest| rest.split_once('/'))
        else {
            return Ok(None);
        };
        let outcome = self.jobs.find(job).and_then(|job| job.outcome(name));
        match outcome {
            Some(outcome) => Ok(Some(outcome)),
            None => Err(Failure::not_found(format!(
                "the result {name} of the build {job} is gone"
            ))),
        }
    }
}
