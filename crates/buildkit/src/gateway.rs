//! `LLBBridge`: a client that drives its build itself solves what it wants, looks into it, and says what the result is.
//!
//! Which build a call belongs to stands in its metadata; the call may come before the build does.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;

use ::session::header::BUILD;
use bollard_buildkit_proto::moby::buildkit::v1::VertexWarning;
use bollard_buildkit_proto::moby::buildkit::v1::frontend::llb_bridge_server::LlbBridge;
use bollard_buildkit_proto::moby::buildkit::v1::frontend::{
    EvaluateRequest, EvaluateResponse, ExecMessage, InputsRequest, InputsResponse, NewContainerRequest,
    NewContainerResponse, PingRequest, PongResponse, ReadDirRequest, ReadDirResponse, ReadFileRequest,
    ReadFileResponse, Ref, RefMap, ReleaseContainerRequest, ReleaseContainerResponse,
    ResolveImageConfigRequest, ResolveImageConfigResponse, ResolveSourceMetaRequest,
    ResolveSourceMetaResponse, Result as Returned, ReturnRequest, ReturnResponse, SolveRequest,
    SolveResponse, StatFileRequest, StatFileResponse, WarnRequest, WarnResponse, result,
};
use bollard_buildkit_proto::pb::Definition;
use futures_util::Stream;
use serde_json::json;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};

use crate::capabilities;
use crate::error::Failure;
use crate::frontend;
use crate::job::Job;
use crate::llb;
use crate::result::{Answer, Outcome};
use crate::service::Service;

/// Images of frontends that read Dockerfiles, which we do ourselves.
const DOCKERFILE_IMAGES: [&str; 2] = ["docker/dockerfile", "docker/dockerfile-upstream"];

/// Something to be solved.
pub struct Wanted<'a> {
    pub definition: Option<&'a Definition>,
    pub frontend: &'a str,
    pub attributes: &'a HashMap<String, String>,
    pub inputs: &'a HashMap<String, Definition>,
}

/// Solves what is wanted for a job.
pub async fn solve(service: &Service, job: &Arc<Job>, wanted: Wanted<'_>) -> Result<Answer, Failure> {
    if let Some(id) = wanted.attributes.get("requestid").filter(|id| !id.is_empty()) {
        let session = service.sessions.get(&job.request.session).await?;
        let options = frontend::Options::read(wanted.attributes)?;
        return Ok(Answer {
            results: Vec::new(),
            metadata: frontend::answer(service, job, &session, &options, id).await?,
        });
    }
    let outcomes = match (wanted.frontend, wanted.definition) {
        ("", None) => return Ok(Answer::default()),
        ("", Some(definition)) => {
            let outcome = match service.result_of(definition)? {
                // A result of this engine, given back.
                Some(outcome) => outcome,
                None => {
                    let session = match job.request.session.as_str() {
                        "" => None,
                        id => Some(service.sessions.get(id).await?),
                    };
                    Arc::new(llb::solve(service, job, session.as_ref(), definition).await?)
                }
            };
            return Ok(Answer {
                results: vec![(String::new(), job.keep_shared(outcome))],
                ..Answer::default()
            });
        }
        ("dockerfile.v0", _) => dockerfile(service, job, &wanted).await?,
        ("gateway.v0", _) => {
            let source = wanted
                .attributes
                .get("source")
                .map(String::as_str)
                .unwrap_or_default();
            let name = spec::Reference::parse_normalized(source)
                .map_err(|error| Failure::invalid(format!("invalid frontend {source:?}: {error}")))?;
            let own = DOCKERFILE_IMAGES.contains(&name.familiar_name().as_str());
            if !own {
                return Err(Failure::unimplemented(format!(
                    "the frontend {source} is not offered: only Dockerfiles are read here"
                )));
            }
            dockerfile(service, job, &wanted).await?
        }
        (other, _) => return Err(Failure::unimplemented(format!("unknown frontend {other:?}"))),
    };
    let several = frontend::Options::read(wanted.attributes)?.multi_platform;
    answer(job, outcomes, several)
}

async fn dockerfile(service: &Service, job: &Arc<Job>, wanted: &Wanted<'_>) -> Result<Vec<Outcome>, Failure> {
    let session = service.sessions.get(&job.request.session).await?;
    frontend::solve(service, job, &session, wanted.attributes, wanted.inputs).await
}

/// Keeps what was solved and describes it.
fn answer(job: &Arc<Job>, outcomes: Vec<Outcome>, several: bool) -> Result<Answer, Failure> {
    let mut answer = Answer::default();
    let mut platforms = Vec::new();
    for outcome in outcomes {
        let id = outcome.platform.to_string();
        let config = serde_json::to_vec(&outcome.config()?)
            .map_err(|error| Failure::internal(format!("the configuration cannot be written: {error}")))?;
        let (key, name) = match several {
            true => (format!("containerimage.config/{id}"), id.clone()),
            false => ("containerimage.config".to_owned(), String::new()),
        };
        answer.metadata.insert(key, config);
        let platform = &outcome.platform;
        let mut written = json!({"architecture": platform.architecture, "os": platform.os});
        if let Some(variant) = &platform.variant {
            written["variant"] = json!(variant);
        }
        platforms.push(json!({"ID": id, "Platform": written}));
        answer.results.push((name, job.keep(outcome)));
    }
    let platforms = json!({"Platforms": platforms}).to_string();
    answer
        .metadata
        .insert("refs.platforms".to_owned(), platforms.into_bytes());
    Ok(answer)
}

impl Service {
    async fn job_of(&self, metadata: &MetadataMap) -> Result<Arc<Job>, Failure> {
        let name = metadata.get(BUILD).and_then(|value| value.to_str().ok());
        let name = name.ok_or_else(|| Failure::invalid("no buildid found in context"))?;
        self.jobs.get(name).await
    }

    async fn outcome_of(&self, metadata: &MetadataMap, name: &str) -> Result<Arc<Outcome>, Failure> {
        let job = self.job_of(metadata).await?;
        job.outcome(name)
            .ok_or_else(|| Failure::not_found(format!("unknown reference id: {name}")))
    }
}

/// What a client hears of an answer.
fn returned(job: &Job, answer: &Answer) -> Returned {
    let reference = |name: &String| Ref {
        id: name.clone(),
        def: Some(Service::definition_of(&job.reference, name)),
    };
    let result = match answer.results.as_slice() {
        [] => None,
        [(platform, name)] if platform.is_empty() => Some(result::Result::Ref(reference(name))),
        several => {
            let refs = several
                .iter()
                .map(|(platform, name)| (platform.clone(), reference(name)));
            Some(result::Result::Refs(RefMap { refs: refs.collect() }))
        }
    };
    Returned {
        metadata: answer.metadata.clone(),
        attestations: HashMap::new(),
        result,
    }
}

/// What a client says the result is.
fn read_returned(returned: Returned) -> Answer {
    let results = match returned.result {
        None => Vec::new(),
        Some(result::Result::Ref(reference)) => vec![(String::new(), reference.id)],
        Some(result::Result::RefDeprecated(id)) => vec![(String::new(), id)],
        Some(result::Result::Refs(map)) => map
            .refs
            .into_iter()
            .map(|(platform, r)| (platform, r.id))
            .collect(),
        Some(result::Result::RefsDeprecated(map)) => map.refs.into_iter().collect(),
    };
    let mut results: Vec<(String, String)> = results.into_iter().filter(|(_, id)| !id.is_empty()).collect();
    results.sort();
    Answer {
        results,
        metadata: returned.metadata,
    }
}

#[tonic::async_trait]
impl LlbBridge for Service {
    async fn ping(&self, _: Request<PingRequest>) -> Result<Response<PongResponse>, Status> {
        Ok(Response::new(PongResponse {
            frontend_api_caps: capabilities::gateway(),
            llb_caps: capabilities::definitions(),
            workers: vec![capabilities::worker()],
        }))
    }

    async fn solve(&self, request: Request<SolveRequest>) -> Result<Response<SolveResponse>, Status> {
        let job = self.job_of(request.metadata()).await?;
        let request = request.into_inner();
        let wanted = Wanted {
            definition: request
                .definition
                .as_ref()
                .filter(|definition| !definition.def.is_empty()),
            frontend: &request.frontend,
            attributes: &request.frontend_opt,
            inputs: &request.frontend_inputs,
        };
        let answer = tokio::select! {
            answer = solve(self, &job, wanted) => answer?,
            () = job.stop.cancelled() => return Err(Failure::new(tonic::Code::Cancelled, "context canceled").into()),
        };
        Ok(Response::new(SolveResponse {
            result: Some(returned(&job, &answer)),
            ..SolveResponse::default()
        }))
    }

    async fn r#return(&self, request: Request<ReturnRequest>) -> Result<Response<ReturnResponse>, Status> {
        let job = self.job_of(request.metadata()).await?;
        let request = request.into_inner();
        job.answer(match request.error {
            Some(error) => Err(Failure::of_rpc(error)),
            None => Ok(read_returned(request.result.unwrap_or_default())),
        });
        Ok(Response::new(ReturnResponse {}))
    }

    async fn evaluate(
        &self,
        request: Request<EvaluateRequest>,
    ) -> Result<Response<EvaluateResponse>, Status> {
        // Everything that has a name was solved before it got it.
        let name = request.get_ref().r#ref.clone();
        self.outcome_of(request.metadata(), &name).await?;
        Ok(Response::new(EvaluateResponse {}))
    }

    async fn inputs(&self, request: Request<InputsRequest>) -> Result<Response<InputsResponse>, Status> {
        let job = self.job_of(request.metadata()).await?;
        let definitions = job.request.frontend_inputs.clone();
        Ok(Response::new(InputsResponse { definitions }))
    }

    async fn warn(&self, request: Request<WarnRequest>) -> Result<Response<WarnResponse>, Status> {
        let job = self.job_of(request.metadata()).await?;
        let request = request.into_inner();
        job.warn(VertexWarning {
            vertex: request.digest,
            level: request.level,
            short: request.short,
            detail: request.detail,
            url: request.url,
            info: request.info,
            ranges: request.ranges,
        });
        Ok(Response::new(WarnResponse {}))
    }

    async fn resolve_image_config(
        &self,
        request: Request<ResolveImageConfigRequest>,
    ) -> Result<Response<ResolveImageConfigResponse>, Status> {
        let job = self.job_of(request.metadata()).await?;
        let image = self.image_of(&job, request.get_ref()).await?;
        Ok(Response::new(ResolveImageConfigResponse {
            digest: image.id.to_string(),
            config: image.raw_config.clone(),
            r#ref: request.into_inner().r#ref,
        }))
    }

    async fn resolve_source_meta(
        &self,
        _: Request<ResolveSourceMetaRequest>,
    ) -> Result<Response<ResolveSourceMetaResponse>, Status> {
        Err(Failure::unimplemented("sources are resolved when they are built from").into())
    }

    async fn read_file(
        &self,
        request: Request<ReadFileRequest>,
    ) -> Result<Response<ReadFileResponse>, Status> {
        let outcome = self
            .outcome_of(request.metadata(), &request.get_ref().r#ref)
            .await?;
        let request = request.into_inner();
        let range = request.range.map(|range| (range.offset, range.length));
        let data = look(&outcome, move |look| look.file(&request.file_path, range)).await?;
        Ok(Response::new(ReadFileResponse { data }))
    }

    async fn read_dir(&self, request: Request<ReadDirRequest>) -> Result<Response<ReadDirResponse>, Status> {
        let outcome = self
            .outcome_of(request.metadata(), &request.get_ref().r#ref)
            .await?;
        let request = request.into_inner();
        let entries = look(&outcome, move |look| {
            look.directory(&request.dir_path, &request.include_pattern)
        })
        .await?;
        Ok(Response::new(ReadDirResponse { entries }))
    }

    async fn stat_file(
        &self,
        request: Request<StatFileRequest>,
    ) -> Result<Response<StatFileResponse>, Status> {
        let outcome = self
            .outcome_of(request.metadata(), &request.get_ref().r#ref)
            .await?;
        let path = request.into_inner().path;
        let stat = look(&outcome, move |look| look.stat(&path)).await?;
        Ok(Response::new(StatFileResponse { stat: Some(stat) }))
    }

    async fn new_container(
        &self,
        _: Request<NewContainerRequest>,
    ) -> Result<Response<NewContainerResponse>, Status> {
        Err(no_containers().into())
    }

    async fn release_container(
        &self,
        _: Request<ReleaseContainerRequest>,
    ) -> Result<Response<ReleaseContainerResponse>, Status> {
        Err(no_containers().into())
    }

    type ExecProcessStream = Pin<Box<dyn Stream<Item = Result<ExecMessage, Status>> + Send>>;

    async fn exec_process(
        &self,
        _: Request<Streaming<ExecMessage>>,
    ) -> Result<Response<Self::ExecProcessStream>, Status> {
        Err(no_containers().into())
    }

    async fn read_file_container(
        &self,
        _: Request<ReadFileRequest>,
    ) -> Result<Response<ReadFileResponse>, Status> {
        Err(no_containers().into())
    }

    async fn read_dir_container(
        &self,
        _: Request<ReadDirRequest>,
    ) -> Result<Response<ReadDirResponse>, Status> {
        Err(no_containers().into())
    }

    async fn stat_file_container(
        &self,
        _: Request<StatFileRequest>,
    ) -> Result<Response<StatFileResponse>, Status> {
        Err(no_containers().into())
    }
}

fn no_containers() -> Failure {
    Failure::unimplemented("containers of a frontend are not offered: run a container of the image instead")
}

/// Looks at the files of a result, which may block.
async fn look<T: Send + 'static>(
    outcome: &Arc<Outcome>,
    look: impl FnOnce(crate::files::Look) -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    let outcome = outcome.clone();
    let work = move || {
        let root = outcome
            .files()?
            .ok_or_else(|| Failure::not_found("the result holds no files"))?;
        look(crate::files::Look::at(root))
    };
    tokio::task::spawn_blocking(work).await.map_err(Failure::broken)?
}

impl Service {
    /// The image that a frontend asks about: the one that is here, else its registry's.
    async fn image_of(
        &self,
        job: &Job,
        request: &ResolveImageConfigRequest,
    ) -> Result<image::Image, Failure> {
        let name = request.r#ref.clone();
        let platform = request.platform.as_ref().map(|platform| {
            let variant = Some(platform.variant.as_str()).filter(|variant| !variant.is_empty());
            spec::Platform::new(&platform.os, &platform.architecture, variant)
        });
        let session = self.sessions.get(&job.request.session).await?;
        let reference = spec::Reference::parse_normalized(&name)
            .map_err(|error| Failure::invalid(format!("invalid reference {name:?}: {error}")))?
            .or_latest();
        let auth = crate::session::login(&session, reference.domain()).await;
        let pull = request.resolve_mode == "pull";
        Ok(self.builder.image(&name, platform.as_ref(), pull, auth).await?)
    }
}
