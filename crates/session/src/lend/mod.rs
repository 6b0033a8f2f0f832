//! The client's end of a session: what it lends, as services that the engine calls.
//!
//! Everything lent has a name, and a call that names something else is refused. A call that fails tells the engine why; the
//! engine tells it to whoever waits for the build. When a session ends, however it ends, nothing half written is left.

mod agents;
mod directories;
mod logins;
mod outputs;
mod secrets;
mod stores;
mod uploads;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tonic::service::Routes;

pub use logins::{Login, Logins};
pub use outputs::Output;
pub use stores::Store;

/// What a client lends.
#[derive(Default)]
pub struct Lent {
    /// Directories of files, by name.
    pub directories: BTreeMap<String, PathBuf>,
    pub secrets: BTreeMap<String, Vec<u8>>,
    /// Sockets of agents for keys, by id.
    pub agents: BTreeMap<String, PathBuf>,
    /// How the login for a registry is found.
    pub logins: Option<Logins>,
    /// Where results go, by the number of the exporter.
    pub outputs: BTreeMap<usize, Output>,
    /// What is read once, by name.
    pub uploads: BTreeMap<String, Box<dyn Read + Send>>,
    /// Directories laid out as OCI has it, by name.
    pub stores: BTreeMap<String, Store>,
}

/// What the engine is told when the session is opened.
#[derive(Debug, Clone)]
pub struct Opening {
    pub id: String,
    /// What directories of this client are known by from one session to the next.
    pub shared_key: String,
}

/// The protocol that a connection changes to.
pub const PROTOCOL: &str = "h2c";

impl Opening {
    /// The headers of the request that opens the session.
    pub fn headers(&self) -> Vec<(&'static str, String)> {
        let mut headers = vec![
            ("x-docker-expose-session-uuid", self.id.clone()),
            ("x-docker-expose-session-name", "berth".to_owned()),
            ("x-docker-expose-session-sharedkey", self.shared_key.clone()),
        ];
        let methods = METHODS.iter().map(|&method| method.to_owned());
        headers.extend(methods.map(|method| ("x-docker-expose-session-grpc-method", method)));
        headers
    }
}

/// Everything that is served.
const METHODS: [&str; 11] = [
    "/moby.filesync.v1.FileSync/DiffCopy",
    "/moby.filesync.v1.FileSend/DiffCopy",
    "/moby.filesync.v1.Auth/Credentials",
    "/moby.buildkit.secrets.v1.Secrets/GetSecret",
    "/moby.sshforward.v1.SSH/CheckAgent",
    "/moby.sshforward.v1.SSH/ForwardAgent",
    "/moby.upload.v1.Upload/Pull",
    "/containerd.services.content.v1.Content/Info",
    "/containerd.services.content.v1.Content/Read",
    "/containerd.services.content.v1.Content/Write",
    "/grpc.health.v1.Health/Check",
];

impl Lent {
    /// The services that hand it out.
    fn routes(self, busy: &Busy) -> Routes {
        Routes::new(directories::service(self.directories))
            .add_service(secrets::service(self.secrets))
            .add_service(agents::service(self.agents))
            .add_service(logins::service(self.logins))
            .add_service(uploads::service(self.uploads))
            .add_service(outputs::Sends::of(self.outputs, busy))
            .add_service(stores::Content::of(self.stores, busy))
            .add_service(Health::service())
    }

    /// Serves on the connection until the engine ends it, or until `stop`. By the end nobody writes any more, and what
    /// was not whole is gone.
    pub async fn serve<S>(self, connection: S, stop: impl Future<Output = ()>) -> Result<(), hyper::Error>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (busy, mut writers) = mpsc::channel(1);
        let service = TowerToHyperService::new(self.routes(&busy).prepare());
        drop(busy);
        let http = crate::http2::server();
        // Without the connection, every transfer breaks off.
        let served = tokio::select! {
            served = http.serve_connection(TokioIo::new(connection), service) => served,
            () = stop => Ok(()),
        };
        while writers.recv().await.is_some() {}
        served
    }
}

/// Held by whoever writes something; a session waits for all of them.
type Busy = mpsc::Sender<Infallible>;

/// What is handed out once.
type Once<K, T> = Arc<Mutex<BTreeMap<K, T>>>;

fn take<K: Ord, T>(from: &Once<K, T>, key: &K) -> Option<T> {
    let mut from = from.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    from.remove(key)
}

fn failed(what: impl std::fmt::Display) -> impl FnOnce(io::Error) -> tonic::Status {
    move |error| match error.kind() {
        io::ErrorKind::NotFound => tonic::Status::not_found(format!("{what}: {error}")),
        _ => tonic::Status::unknown(format!("{what}: {error}")),
    }
}

/// BuildKit asks now and then whether the client is still there.
struct Health;

use bollard_buildkit_proto::health::health_check_response::ServingStatus;
use bollard_buildkit_proto::health::health_server::{self, HealthServer};
use bollard_buildkit_proto::health::{
    HealthCheckRequest, HealthCheckResponse, HealthListRequest, HealthListResponse,
};

impl Health {
    fn service() -> HealthServer<Health> {
        HealthServer::new(Health)
    }
}

#[tonic::async_trait]
impl health_server::Health for Health {
    async fn list(
        &self,
        _: tonic::Request<HealthListRequest>,
    ) -> Result<tonic::Response<HealthListResponse>, tonic::Status> {
        Err(tonic::Status::unimplemented("a session has one health"))
    }

    async fn check(
        &self,
        _: tonic::Request<HealthCheckRequest>,
    ) -> Result<tonic::Response<HealthCheckResponse>, tonic::Status> {
        Ok(tonic::Response::new(HealthCheckResponse {
            status: ServingStatus::Serving.into(),
        }))
    }

    type WatchStream = tokio_stream::Empty<Result<HealthCheckResponse, tonic::Status>>;

    async fn watch(
        &self,
        _: tonic::Request<HealthCheckRequest>,
    ) -> Result<tonic::Response<Self::WatchStream>, tonic::Status> {
        Err(tonic::Status::unimplemented("a session's health is not watched"))
    }
}

#[cfg(test)]
mod tests;
