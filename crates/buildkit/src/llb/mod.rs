//! Definitions of clients (LLB): operations on files that name each other by digest.
//!
//! ```text
//!   Definition ── graph (order, bounds) ──> read (meaning) ──> build::recipe ──> the solver that Dockerfiles have, too
//! ```
//!
//! Definitions are foreign: their number of operations is bounded, every number is checked before it is an index, what is
//! not understood is refused by name, and nothing that a definition says is dropped silently.

mod exec;
mod files;
mod graph;
mod read;
mod source;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use bollard_buildkit_proto::pb::Definition;
use build::{BuildRequest, Narration};
use spec::Platform;
use tokio::sync::mpsc;

use crate::cache;
use crate::error::Failure;
use crate::frontend::tell;
use crate::job::Job;
use crate::result::Outcome;
use crate::service::Service;
use crate::session::{Directory, Session, SessionClient};

/// Events that may wait to be told.
const PENDING: usize = 256;
/// What a client allows so that commands may run without confinement.
const INSECURE: &str = "security.insecure";

/// Does what a definition says.
pub async fn solve(
    service: &Service,
    job: &Arc<Job>,
    session: Option<&Session>,
    definition: &Definition,
) -> Result<Outcome, Failure> {
    let result = |identifier: &str| match service.result_called(identifier)? {
        Some(outcome) => Ok(Some(outcome.solution.as_context()?)),
        None => Ok::<_, Failure>(None),
    };
    let read = read::read(definition, &result)?;
    let platform = read.platform.clone().unwrap_or_else(Platform::host);
    let client = session.map(|session| -> Arc<dyn build::Client> {
        Arc::new(SessionClient {
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
            named: read.directories,
            other_sessions: read.sessions,
            held: Default::default(),
        })
    });
    let request = BuildRequest {
        platform: Some(platform.clone()),
        client,
        allow_insecure: job.request.entitlements.iter().any(|allowed| allowed == INSECURE),
        cache_imports: cache::imports(service, job, session, &job.request.frontend_attrs).await?,
        cache_export: cache::export_of(&job.request)?,
        narration: Narration::Steps,
        stop: job.stop.child_token(),
        ..BuildRequest::new(service.empty()?)
    };
    let (output, events) = mpsc::channel(PENDING);
    let solving = service.builder.solve_recipe(read.recipe, request, output);
    let (solution, ()) = tokio::join!(solving, tell(job, events, None));
    Ok(Outcome {
        platform,
        solution: solution?,
        provenance: None,
    })
}
