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
mod nested;
mod read;
mod source;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;

use bollard_buildkit_proto::pb::Definition;
use build::{BuildRequest, BuiltContext, Narration};
use image::Guest;
use spec::Platform;
use tokio::sync::mpsc;

use crate::cache;
use crate::error::Failure;
use crate::frontend::tell;
use crate::job::Job;
use crate::result::Outcome;
use crate::service::Service;
use crate::session::{Session, SessionClient};

/// Events that may wait to be told.
const PENDING: usize = 256;

/// Brings the images here that a definition takes from its client's stores; by the digests of the operations: two
/// stores may call one image alike, and have it for other platforms.
async fn layouts(
    service: &Service,
    job: &Job,
    session: &Session,
    definition: &Definition,
) -> Result<HashMap<String, Guest>, Failure> {
    let mut found = HashMap::new();
    for (node, source) in source::layouts(&graph::order(definition)?.nodes) {
        let (named, digest) = crate::layouts::parse(source.identifier.trim_start_matches(source::LAYOUT))?;
        let attribute = |key: &str| source.attrs.get(key).filter(|value| !value.is_empty());
        let store = attribute("oci.store").cloned().unwrap_or(named);
        let other = match attribute("oci.session") {
            Some(id) if *id != session.id => Some(service.sessions.get(id).await?),
            _ => None,
        };
        let platform = read::platform_of(&node.op).unwrap_or_else(Platform::host);
        let session = other.as_ref().unwrap_or(session);
        let guest = crate::layouts::fetch(service, job, session, (&store, &digest), &platform).await?;
        found.insert(node.digest.clone(), guest);
    }
    Ok(found)
}

/// Does what a definition says.
pub async fn solve(
    service: &Service,
    job: &Arc<Job>,
    session: Option<&Session>,
    definition: &Definition,
) -> Result<Outcome, Failure> {
    let place = Place {
        service,
        job,
        session,
    };
    nested::solve(&place, definition, &mut HashMap::new(), 0).await
}

/// For whom something is solved.
struct Place<'a> {
    service: &'a Service,
    job: &'a Arc<Job>,
    session: Option<&'a Session>,
}

/// Does what a definition says, of which the builds inside are made.
async fn solve_flat(
    place: &Place<'_>,
    definition: &Definition,
    built: &HashMap<String, BuiltContext>,
) -> Result<Outcome, Failure> {
    let Place {
        service,
        job,
        session,
    } = *place;
    let guests = match session {
        Some(session) => layouts(service, job, session, definition).await?,
        None => HashMap::new(),
    };
    let layouts = guests.iter();
    let layouts = layouts.map(|(node, guest)| (node.clone(), guest.image.id.to_string()));
    let layouts = layouts.collect();
    let read = {
        let result = |identifier: &str| match service.result_called(identifier)? {
            Some(outcome) => Ok(Some(outcome.solution.as_context()?)),
            None => Ok::<_, Failure>(None),
        };
        let known = read::Known {
            results: &result,
            layouts: &layouts,
            built,
        };
        read::read(definition, &known)?
    };
    let platform = read.platform.clone().unwrap_or_else(Platform::host);
    let client = session.map(|session| -> Arc<dyn build::Client> {
        Arc::new(SessionClient {
            named: read.directories,
            other_sessions: read.sessions,
            ..SessionClient::plain(service, session, job)
        })
    });
    let request = BuildRequest {
        platform: Some(platform.clone()),
        client,
        allowed: job.allowed(),
        cache_imports: cache::imports(service, job, session, &job.request.frontend_attrs).await?,
        cache_export: cache::export_of(&job.request)?,
        guests: guests.into_values().collect(),
        narration: Narration::Steps,
        stop: job.stop.child_token(),
        ..BuildRequest::new(service.empty()?)
    };
    let (output, events) = mpsc::channel(PENDING);
    let solving = service.builder.solve_recipe(read.recipe, request, output);
    let (solution, ()) = tokio::join!(solving, tell(job, events, None));
    let solution = solution?;
    job.settles(&solution);
    Ok(Outcome {
        platform,
        solution,
        provenance: None,
        bills: Vec::new(),
    })
}
