//! Failures on their way to a client: a class becomes a gRPC code, the place in the Dockerfile goes along as a detail,
//! from which clients print the lines around it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bollard_buildkit_proto::google::protobuf::Any;
use bollard_buildkit_proto::google::rpc;
use build::BuildError;
use prost::Message;
use serde_json::{Value, json};
use spec::ErrorClass;
use tonic::{Code, Status};

/// How clients know a place in a source file.
const SOURCE: &str = "github.com/moby/buildkit/errdefs.Source+json";

/// A refused or failed request.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    pub code: Code,
    pub message: String,
    pub details: Vec<Any>,
}

impl Failure {
    pub fn new(code: Code, message: impl Into<String>) -> Failure {
        Failure {
            code,
            message: message.into(),
            details: Vec::new(),
        }
    }

    pub fn invalid(message: impl Into<String>) -> Failure {
        Failure::new(Code::InvalidArgument, message)
    }

    pub fn not_found(message: impl Into<String>) -> Failure {
        Failure::new(Code::NotFound, message)
    }

    pub fn unavailable(message: impl Into<String>) -> Failure {
        Failure::new(Code::Unavailable, message)
    }

    pub fn unimplemented(message: impl Into<String>) -> Failure {
        Failure::new(Code::Unimplemented, message)
    }

    pub fn internal(message: impl Into<String>) -> Failure {
        Failure::new(Code::Internal, message)
    }

    /// A task that panicked or was given up.
    pub fn broken(error: tokio::task::JoinError) -> Failure {
        Failure::internal(format!("a worker of the builder ended unexpectedly: {error}"))
    }

    /// The same failure, of a larger undertaking.
    pub fn context(mut self, what: impl std::fmt::Display) -> Failure {
        self.message = format!("{what}: {}", self.message);
        // Our client shows what is told beside it.
        let told = |detail: &&mut Any| detail.type_url == ::session::control::FAILURE;
        for detail in self.details.iter_mut().filter(told) {
            let Ok(mut value) = serde_json::from_slice::<Value>(&detail.value) else {
                continue;
            };
            if let Some(text) = value.get("text").and_then(Value::as_str) {
                value["text"] = format!("{what}: {text}").into();
                detail.value = value.to_string().into_bytes();
            }
        }
        self
    }

    /// The failure as gRPC tells it.
    pub fn status(&self) -> Status {
        let status = rpc::Status {
            code: self.code as i32,
            message: self.message.clone(),
            details: self.details.clone(),
        };
        Status::with_details(self.code, self.message.clone(), status.encode_to_vec().into())
    }

    /// A failure that a client reports.
    pub fn of_rpc(status: rpc::Status) -> Failure {
        Failure {
            code: Code::from_i32(status.code),
            message: status.message,
            details: status.details,
        }
    }

    pub fn rpc(&self) -> rpc::Status {
        rpc::Status {
            code: self.code as i32,
            message: self.message.clone(),
            details: self.details.clone(),
        }
    }
}

impl From<Failure> for Status {
    fn from(failure: Failure) -> Status {
        failure.status()
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Failure {
        Failure::new(status.code(), status.message())
    }
}

impl From<Failure> for BuildError {
    fn from(failure: Failure) -> BuildError {
        let class = match failure.code {
            Code::InvalidArgument | Code::FailedPrecondition => ErrorClass::Invalid,
            Code::NotFound => ErrorClass::NotFound,
            Code::AlreadyExists => ErrorClass::Conflict,
            Code::PermissionDenied => ErrorClass::Forbidden,
            Code::Unavailable => ErrorClass::Unavailable,
            Code::Unimplemented => ErrorClass::NotImplemented,
            Code::Cancelled => return BuildError::Cancelled,
            _ => ErrorClass::Internal,
        };
        BuildError::new(failure.message, class)
    }
}

/// What a build's failure is called where clients expect BuildKit's words.
pub fn words(error: &BuildError) -> String {
    match error {
        BuildError::Command { command, code, .. } => {
            format!("process {command:?} did not complete successfully: exit code: {code}")
        }
        BuildError::NoDockerfile(name) => {
            format!("failed to read dockerfile: open {name}: no such file or directory")
        }
        BuildError::NoTarget { target, known } => {
            let near = known
                .iter()
                .filter(|name| !name.is_empty())
                .cloned()
                .collect::<Vec<_>>();
            match near.is_empty() {
                true => format!("target stage {target:?} could not be found"),
                false => format!(
                    "target stage {target:?} could not be found (stages: {})",
                    near.join(", ")
                ),
            }
        }
        BuildError::Dockerfile(diagnostic) => match &diagnostic.help {
            Some(help) => format!("{} ({help})", diagnostic.message),
            None => diagnostic.message.clone(),
        },
        BuildError::Cancelled => "context canceled".to_owned(),
        other => other.to_string(),
    }
}

impl From<BuildError> for Failure {
    fn from(error: BuildError) -> Failure {
        let code = match (&error, error.class()) {
            (BuildError::Cancelled, _) => Code::Cancelled,
            (BuildError::Command { .. }, _) => Code::Unknown,
            (_, ErrorClass::Invalid) => Code::InvalidArgument,
            (_, ErrorClass::NotFound) => Code::NotFound,
            (_, ErrorClass::Conflict) => Code::AlreadyExists,
            (_, ErrorClass::Forbidden) => Code::PermissionDenied,
            (_, ErrorClass::Unavailable) => Code::Unavailable,
            (_, ErrorClass::NotImplemented) => Code::Unimplemented,
            _ => Code::Unknown,
        };
        let told = json!({"text": error.report(), "code": error.exit_code()});
        let told = Any {
            type_url: ::session::control::FAILURE.to_owned(),
            value: told.to_string().into_bytes(),
        };
        let place = error.snippet().map(|at| {
            let position = |line: usize| json!({"line": line});
            let source = json!({
                "info": {
                    "filename": at.file(),
                    "data": STANDARD.encode(at.text()),
                    "language": "Dockerfile",
                },
                "ranges": [{"start": position(at.line()), "end": position(at.last_line())}],
            });
            Any {
                type_url: SOURCE.to_owned(),
                value: source.to_string().into_bytes(),
            }
        });
        Failure {
            code,
            message: words(&error),
            details: place.into_iter().chain([told]).collect(),
        }
    }
}
