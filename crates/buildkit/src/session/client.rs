//! A session as the builder asks it: the context, secrets, an agent, logins.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

use bollard_buildkit_proto::moby::buildkit::secrets::v1::GetSecretRequest;
use bollard_buildkit_proto::moby::buildkit::secrets::v1::secrets_client::SecretsClient;
use bollard_buildkit_proto::moby::filesync::v1::CredentialsRequest;
use bollard_buildkit_proto::moby::filesync::v1::auth_client::AuthClient;
use build::{Agent, BuildError, Client, Patience};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use image::Auth;
use tokio::sync::Mutex;
use tonic::Code;

use super::{Session, Sessions, agent};
use crate::error::Failure;
use crate::files::{Purpose, Selection};
use crate::job::Job;
use crate::locals::{Local, Locals};
use crate::service::Service;

/// The largest secret, as clients of the protocol have it.
const MAX_SECRET: usize = 500 << 10;

/// Where a directory comes from.
#[derive(Debug, Clone)]
pub enum Directory {
    /// From the client, under this name.
    Session {
        name: String,
        exclude: Vec<String>,
        /// Only what matches one of them; none: everything.
        include: Vec<String>,
        /// Only these, where whoever uses the directory does not say which it needs.
        paths: Option<Vec<String>>,
    },
    /// It was fetched, and lasts as long as this.
    Fetched(
        PathBuf,
        #[allow(dead_code, reason = "held, not read")] Arc<tempfile::TempDir>,
    ),
}

/// A session that one build asks.
pub struct SessionClient {
    pub sessions: Sessions,
    pub session: Session,
    pub locals: Locals,
    /// Where what lasts no longer than the build may lie.
    pub room: PathBuf,
    pub job: Arc<Job>,
    pub context: Directory,
    /// Named contexts that are directories.
    pub named: BTreeMap<String, Directory>,
    /// Sessions other than the build's own that serve a directory, by its name.
    pub other_sessions: HashMap<String, String>,
    /// Directories in use by this build, which stay as they are until it ends.
    pub held: Mutex<Vec<Arc<Local>>>,
}

impl std::fmt::Debug for SessionClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "session {}", self.session.id)
    }
}

impl SessionClient {
    /// One that gives the client's whole context, and no other directory by name.
    pub fn plain(service: &Service, session: &Session, job: &Arc<Job>) -> SessionClient {
        SessionClient {
            sessions: service.sessions.clone(),
            session: session.clone(),
            locals: service.locals.clone(),
            room: service.room(),
            job: job.clone(),
            context: Directory::Session {
                name: "context".to_owned(),
                exclude: Vec::new(),
                include: Vec::new(),
                paths: None,
            },
            named: BTreeMap::new(),
            other_sessions: HashMap::new(),
            held: Mutex::default(),
        }
    }

    /// The directory with what `paths` select, and a step that tells how it came here.
    pub async fn fetch(
        &self,
        title: &str,
        directory: &Directory,
        paths: Option<Vec<String>>,
    ) -> Result<PathBuf, Failure> {
        let (name, selection) = match directory {
            Directory::Fetched(path, _) => return Ok(path.clone()),
            Directory::Session {
                name,
                exclude,
                include,
                paths: own,
            } => {
                let selection = Selection {
                    directory: name.clone(),
                    purpose: Purpose::Context,
                    paths: paths.or_else(|| own.clone()),
                    exclude: exclude.clone(),
                    include: include.clone(),
                };
                (name, selection)
            }
        };
        let session = match self.other_sessions.get(name) {
            Some(id) if *id != self.session.id => self.sessions.get(id).await?,
            _ => self.session.clone(),
        };
        let local = self.locals.fetch(&session, &selection, title, &self.job).await?;
        let path = local.path().to_owned();
        self.held.lock().await.push(local);
        Ok(path)
    }
}

impl Client for SessionClient {
    fn context(&self, paths: Option<Vec<String>>) -> BoxFuture<'_, Result<PathBuf, BuildError>> {
        async move {
            Ok(self
                .fetch("[internal] load build context", &self.context, paths)
                .await?)
        }
        .boxed()
    }

    fn named(&self, name: &str) -> BoxFuture<'_, Result<PathBuf, BuildError>> {
        let name = name.to_owned();
        async move {
            let Some(directory) = self.named.get(&name) else {
                return Err(Failure::not_found(format!("there is no context called {name}")).into());
            };
            let title = format!("[context {name}] load from client");
            Ok(self.fetch(&title, directory, None).await?)
        }
        .boxed()
    }

    fn secret(&self, id: &str) -> BoxFuture<'_, Result<Option<Vec<u8>>, BuildError>> {
        let request = GetSecretRequest {
            id: id.to_owned(),
            annotations: HashMap::new(),
        };
        async move {
            let mut client = SecretsClient::new(self.session.channel());
            match client.get_secret(request).await {
                Ok(answer) => {
                    let data = answer.into_inner().data;
                    if data.len() > MAX_SECRET {
                        let text = format!("the secret has more than {MAX_SECRET} bytes");
                        return Err(Failure::invalid(text).into());
                    }
                    Ok(Some(data))
                }
                Err(status) if matches!(status.code(), Code::NotFound | Code::Unimplemented) => Ok(None),
                Err(status) => Err(Failure::from(status).context("the client gives no secret").into()),
            }
        }
        .boxed()
    }

    fn agent(
        &self,
        id: &str,
        patience: &Arc<Patience>,
    ) -> BoxFuture<'_, Result<Option<Box<dyn Agent>>, BuildError>> {
        let (id, patience) = (id.to_owned(), patience.clone());
        async move {
            let agent = agent::forward(&self.session, &id, &self.room, &patience).await?;
            Ok(agent.map(|agent| -> Box<dyn Agent> { Box::new(agent) }))
        }
        .boxed()
    }

    fn login(&self, host: &str) -> BoxFuture<'_, Option<Auth>> {
        let host = host.to_owned();
        async move { login(&self.session, &host).await }.boxed()
    }
}

/// The client's login for a registry, where it has one.
pub async fn login(session: &Session, host: &str) -> Option<Auth> {
    if !session.serves("/moby.filesync.v1.Auth/Credentials") {
        return None;
    }
    // Clients know the Hub by the name of its registry.
    let host = if host == "docker.io" {
        "registry-1.docker.io"
    } else {
        host
    };
    let request = CredentialsRequest {
        host: host.to_owned(),
    };
    match AuthClient::new(session.channel()).credentials(request).await {
        Ok(answer) => {
            let answer = answer.into_inner();
            match (answer.username.is_empty(), answer.secret.is_empty()) {
                (true, true) => None,
                (true, false) => Some(Auth::Identity(answer.secret)),
                (false, _) => Some(Auth::Basic {
                    user: answer.username,
                    password: answer.secret,
                }),
            }
        }
        Err(status) => {
            tracing::debug!(%status, host, "the client tells no login");
            None
        }
    }
}
