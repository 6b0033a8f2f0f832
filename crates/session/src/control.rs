//! Builds, as a client asks for them (`Control`): a build from beginning to end with what is told about it, or a question
//! about a Dockerfile.

use std::collections::HashMap;
use std::io;

use bollard_buildkit_proto::google::rpc;
use bollard_buildkit_proto::moby::buildkit::v1::control_client::ControlClient;
use bollard_buildkit_proto::moby::buildkit::v1::frontend::llb_bridge_client::LlbBridgeClient;
use bollard_buildkit_proto::moby::buildkit::v1::frontend::{
    Result as Solved, ReturnRequest, SolveRequest as Question,
};
use bollard_buildkit_proto::moby::buildkit::v1::{SolveRequest, StatusRequest, StatusResponse};
use hyper_util::rt::TokioIo;
use prost::Message;
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::transport::Channel;
use tonic::{Request, Status};

use crate::enclosed::Enclosed;
use crate::header::{self, BUILD};
use crate::{MAX_MESSAGE, http2};

/// The frontend that reads Dockerfiles.
pub const DOCKERFILE: &str = "dockerfile.v0";
/// How an engine of this project tells the whole of a failure, beside what BuildKit's clients read.
pub const FAILURE: &str = "berth/build.failure+json";
/// Under which engines of this project tell, beside the result, why steps were made.
pub const EXPLAINED: &str = "berth.explained";
/// Under which they tell what begins a cache, with the cache's number behind it.
pub const CACHE_TOP: &str = "berth.cache.manifest";
/// Under which they tell what begins an image that was written blob by blob, with the exporter's number behind it.
pub const DESCRIPTOR: &str = "berth.descriptor";
/// What a context begins with that is a stream of the client's session.
pub const STREAM: &str = "http://buildkit-session/";

/// Whether a switch among the options of an exporter is on; its bare name turns it on, too.
pub fn is_on(value: &str) -> bool {
    matches!(value.to_ascii_lowercase().as_str(), "" | "1" | "t" | "true")
}

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    #[error("the connection for the build cannot be used: {0}")]
    Connection(tonic::transport::Error),
    /// The engine says no, or the build failed.
    #[error("{}", .0.message())]
    Status(#[from] Status),
}

/// How a build failed, as engines of this project tell it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Told {
    pub text: String,
    /// That of the command that failed.
    pub code: Option<i32>,
}

impl ControlError {
    /// The engine's own words, where it is one of this project.
    pub fn told(&self) -> Option<Told> {
        let ControlError::Status(status) = self else {
            return None;
        };
        let details = rpc::Status::decode(status.details()).ok()?.details;
        let detail = details.iter().find(|detail| detail.type_url == FAILURE)?;
        let value: serde_json::Value = serde_json::from_slice(&detail.value).ok()?;
        let code = value.get("code").and_then(serde_json::Value::as_i64);
        Some(Told {
            text: value.get("text")?.as_str()?.to_owned(),
            code: code.and_then(|code| i32::try_from(code).ok()),
        })
    }
}

/// A connection that builds are asked for on; clones share it.
#[derive(Clone)]
pub struct Control {
    channel: Channel,
}

impl Control {
    /// Speaks on a connection that has changed to the protocol.
    pub async fn on<S>(connection: S) -> Result<Control, ControlError>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let mut once = Some(TokioIo::new(connection));
        let connector = tower::service_fn(move |_: http::Uri| {
            let connection = once.take();
            async move { connection.ok_or_else(|| io::Error::other("the connection has ended")) }
        });
        let channel = http2::endpoint().connect_with_connector(connector).await;
        Ok(Control {
            channel: channel.map_err(ControlError::Connection)?,
        })
    }

    fn client(&self) -> ControlClient<Channel> {
        ControlClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE)
    }

    /// Builds; what clients are told about the result. Whoever drops the call gives the build up.
    pub async fn solve(
        &self,
        request: SolveRequest,
        enclosed: Option<&Enclosed>,
    ) -> Result<HashMap<String, String>, ControlError> {
        let mut request = Request::new(request);
        if let Some(enclosed) = enclosed {
            enclosed.add(request.metadata_mut());
        }
        let answer = self.client().solve(request).await?;
        Ok(answer.into_inner().exporter_response)
    }

    /// Hands on what is told about a build until it has ended.
    pub async fn follow(
        &self,
        build: &str,
        told: &mut (dyn FnMut(StatusResponse) + Send),
    ) -> Result<(), ControlError> {
        let request = StatusRequest {
            r#ref: build.to_owned(),
        };
        let mut news = self.client().status(request).await?.into_inner();
        while let Some(news) = news.message().await? {
            told(news);
        }
        Ok(())
    }

    /// Asks a frontend something that is no build; the answer by its keys.
    pub async fn ask(&self, request: SolveRequest) -> Result<HashMap<String, Vec<u8>>, ControlError> {
        let of_build = [request.r#ref.clone()];
        let question = Question {
            frontend: request.frontend.clone(),
            frontend_opt: request.frontend_attrs.clone(),
            ..Question::default()
        };
        // Without a frontend the build is what its client says on the bridge.
        let build = SolveRequest {
            frontend: String::new(),
            frontend_attrs: HashMap::new(),
            exporters: Vec::new(),
            cache: None,
            ..request
        };
        let asking = async {
            let mut bridge =
                LlbBridgeClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE);
            let mut asked = Request::new(question);
            header::add(asked.metadata_mut(), BUILD, &of_build);
            let answer = bridge.solve(asked).await;
            let (result, error) = match &answer {
                Ok(_) => (Some(Solved::default()), None),
                Err(status) => (
                    None,
                    Some(rpc::Status {
                        code: status.code() as i32,
                        message: status.message().to_owned(),
                        details: Vec::new(),
                    }),
                ),
            };
            let mut done = Request::new(ReturnRequest { result, error });
            header::add(done.metadata_mut(), BUILD, &of_build);
            bridge.r#return(done).await?;
            Ok::<_, ControlError>(answer?.into_inner().result.unwrap_or_default().metadata)
        };
        let (built, answer) = tokio::join!(self.solve(build, None), asking);
        let answer = answer?;
        built?;
        Ok(answer)
    }
}
