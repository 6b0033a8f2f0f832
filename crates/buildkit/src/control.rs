//! `moby.buildkit.v1.Control`: builds from beginning to end, what is told about them, the cache, their history.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;

use ::session::control::EXPLAINED;
use ::session::enclosed::Enclosed;
use bollard_buildkit_proto::moby::buildkit::v1::control_server::Control;
use bollard_buildkit_proto::moby::buildkit::v1::{
    BuildHistoryEvent, BuildHistoryRecord, BuildHistoryRequest, BytesMessage, DiskUsageRequest,
    DiskUsageResponse, InfoRequest, InfoResponse, ListWorkersRequest, ListWorkersResponse, PruneRequest,
    SolveRequest, SolveResponse, StatusRequest, StatusResponse, UpdateBuildHistoryRequest,
    UpdateBuildHistoryResponse, UsageRecord,
};
use futures_util::{Stream, StreamExt, stream};
use tokio::sync::broadcast::error::RecvError;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::KeyAndValueRef;
use tonic::{Request, Response, Status, Streaming};

use crate::cache;
use crate::capabilities;
use crate::error::Failure;
use crate::export;
use crate::gateway;
use crate::job::{Job, Log, Reader};
use crate::provenance;
use crate::service::Service;
use crate::session::{Conversation, Greeting};
use crate::usage;

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Closes a job however its request ends.
struct Open<'a> {
    service: &'a Service,
    job: Arc<Job>,
    ended: bool,
}

impl Open<'_> {
    fn end(&mut self, result: &Result<HashMap<String, String>, Failure>) {
        self.ended = true;
        self.service.history.end(&self.job, result);
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        if !self.ended {
            let gone = Failure::new(tonic::Code::Cancelled, "the client went away");
            self.service.history.end(&self.job, &Err(gone));
        }
        self.service.jobs.close(&self.job);
    }
}

impl Service {
    async fn run(&self, job: &Arc<Job>) -> Result<HashMap<String, String>, Failure> {
        let request = &job.request;
        // Better told before the build than found out when the cache is missed.
        cache::targets(request)?;
        export::check(request)?;
        let answer = match (&request.definition, request.frontend.as_str()) {
            // The client drives the build itself and says what comes of it.
            (None, "") => job.answered().await?,
            (definition, frontend) => {
                let solve = gateway::Wanted {
                    definition: definition
                        .as_ref()
                        .filter(|definition| !definition.def.is_empty()),
                    frontend,
                    attributes: &request.frontend_attrs,
                    inputs: &request.frontend_inputs,
                };
                gateway::solve(self, job, solve).await?
            }
        };
        cache::carry(job, &answer).await?;
        let mut said = export::export(self, job, &answer).await?;
        said.extend(cache::export(self, job, &answer).await?);
        said.extend(provenance::told(job, &answer.results));
        if let Some(explained) = job.explained() {
            said.insert(EXPLAINED.to_owned(), explained);
        }
        Ok(said)
    }
}

/// A build from its request to what clients are told about the result.
pub async fn solve_job(
    service: &Service,
    request: SolveRequest,
    enclosed: Option<Enclosed>,
) -> Result<HashMap<String, String>, Failure> {
    let job = service.jobs.open(Job::new(request).with(enclosed))?;
    let counted = service.builder.tally().begin();
    service.history.begin(&job);
    let mut open = Open {
        service,
        job: job.clone(),
        ended: false,
    };
    let result = service.run(&job).await;
    service.builder.steps_left().await;
    job.settled().await;
    open.end(&result);
    match &result {
        Ok(_) => counted.done(),
        Err(failure) => counted.failed(&failure.message, failure.code == tonic::Code::Cancelled),
    }
    drop(open);
    let borrowed = job.has_borrowed();
    drop(job);
    if borrowed && let Err(error) = service.builder.sweep().await {
        tracing::warn!(%error, "what came for a build stays until the next garbage collection");
    }
    result
}

#[tonic::async_trait]
impl Control for Service {
    async fn solve(&self, request: Request<SolveRequest>) -> Result<Response<SolveResponse>, Status> {
        let enclosed = Enclosed::of(request.metadata());
        let exporter_response = solve_job(self, request.into_inner(), enclosed).await?;
        Ok(Response::new(SolveResponse { exporter_response }))
    }

    type StatusStream = Answers<StatusResponse>;

    async fn status(&self, request: Request<StatusRequest>) -> Result<Response<Self::StatusStream>, Status> {
        let reference = request.into_inner().r#ref;
        // A build that is over is told again.
        let remembered = self.history.log(&reference);
        let log = match remembered {
            Some(log) => log,
            None => self.jobs.log(&reference).await?,
        };
        Ok(Response::new(follow(log)))
    }

    type SessionStream = ReceiverStream<Result<BytesMessage, Status>>;

    async fn session(
        &self,
        request: Request<Streaming<BytesMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let headers = request.metadata().iter().filter_map(|entry| match entry {
            KeyAndValueRef::Ascii(key, value) => Some((key.as_str(), value.to_str().ok()?)),
            KeyAndValueRef::Binary(..) => None,
        });
        let greeting = Greeting::read(headers);
        let conversation = Conversation::of(request.into_inner());
        let service = self.clone();
        tokio::spawn(async move { service.serve_session(greeting, conversation.connection).await });
        Ok(Response::new(conversation.answers))
    }

    async fn list_workers(
        &self,
        _: Request<ListWorkersRequest>,
    ) -> Result<Response<ListWorkersResponse>, Status> {
        let record = vec![capabilities::worker()];
        Ok(Response::new(ListWorkersResponse { record }))
    }

    async fn info(&self, _: Request<InfoRequest>) -> Result<Response<InfoResponse>, Status> {
        let buildkit_version = Some(capabilities::version());
        Ok(Response::new(InfoResponse { buildkit_version }))
    }

    async fn disk_usage(
        &self,
        request: Request<DiskUsageRequest>,
    ) -> Result<Response<DiskUsageResponse>, Status> {
        let record = usage::list(self, &request.into_inner().filter).await?;
        Ok(Response::new(DiskUsageResponse { record }))
    }

    type PruneStream = Answers<UsageRecord>;

    async fn prune(&self, request: Request<PruneRequest>) -> Result<Response<Self::PruneStream>, Status> {
        let gone = usage::prune(self, &request.into_inner()).await?;
        Ok(Response::new(Box::pin(stream::iter(gone.into_iter().map(Ok)))))
    }

    type ListenBuildHistoryStream = Answers<BuildHistoryEvent>;

    async fn listen_build_history(
        &self,
        request: Request<BuildHistoryRequest>,
    ) -> Result<Response<Self::ListenBuildHistoryStream>, Status> {
        let request = request.into_inner();
        let (known, events) = self.history.listen();
        let wanted = move |event: &BuildHistoryEvent| {
            let Some(record) = &event.record else { return false };
            let named = request.r#ref.is_empty() || record.r#ref == request.r#ref;
            named && (!request.active_only || record.completed_at.is_none())
        };
        let most = usize::try_from(request.limit).ok().filter(|most| *most > 0);
        let known: Vec<BuildHistoryEvent> = known
            .into_iter()
            .filter(&wanted)
            .take(most.unwrap_or(usize::MAX))
            .collect();
        let known = stream::iter(known.into_iter().map(Ok));
        if request.early_exit {
            return Ok(Response::new(Box::pin(known)));
        }
        let later = stream::unfold(events, |mut events| async move {
            loop {
                match events.recv().await {
                    Ok(event) => return Some((event, events)),
                    Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return None,
                }
            }
        });
        let later = later
            .filter(move |event| std::future::ready(wanted(event)))
            .map(Ok);
        Ok(Response::new(Box::pin(known.chain(later))))
    }

    async fn update_build_history(
        &self,
        request: Request<UpdateBuildHistoryRequest>,
    ) -> Result<Response<UpdateBuildHistoryResponse>, Status> {
        let request = request.into_inner();
        // What is asked to be finished is: a record is written as a whole when its build ends.
        let change = |record: &mut BuildHistoryRecord| {
            if !request.finalize {
                record.pinned = request.pinned;
            }
        };
        if request.delete {
            self.history.delete(&request.r#ref)?;
        } else if self.history.change(&request.r#ref, change).is_none() {
            return Err(Failure::not_found(format!("no build {} is remembered", request.r#ref)).into());
        }
        Ok(Response::new(UpdateBuildHistoryResponse {}))
    }
}

/// Everything that a log says, to its end.
fn follow(log: Arc<Log>) -> Answers<StatusResponse> {
    let said = stream::unfold(Reader::new(log), |mut reader| async move {
        let said = reader.next().await?;
        Some((Ok(said), reader))
    });
    Box::pin(said)
}
