//! `wait`: blocks until containers stop, and prints their exit codes.

use crate::client::Reply;
use crate::client::query::{Query, segment};
use crate::command::{Arity, Command};
use crate::failure::{Failure, Failures, Outcome};
use crate::flags::Matches;
use crate::session::{Session, say};
use api_types::ContainerWaitResponse;

pub const COMMAND: Command = Command::new(
    "wait",
    "Block until one or more containers stop, then print their exit codes",
    "CONTAINER [CONTAINER...]",
    Arity::AtLeast(1),
    |session, matches| Box::pin(run(session, matches)),
);

async fn run(session: &Session, matches: &Matches) -> Outcome {
    let mut failures = Failures::new();
    for name in &matches.args {
        let answer = async {
            session
                .client
                .post(&path(name, ""))
                .await?
                .model::<ContainerWaitResponse>()
                .await
        };
        match answer.await {
            Ok(answer) => say(&answer.status_code.to_string())?,
            Err(failure) => failures.push(failure),
        }
    }
    failures.outcome()
}

pub fn path(id: &str, condition: &str) -> String {
    Query::new(format!("/containers/{}/wait", segment(id)))
        .text("condition", condition)
        .build()
}

/// The exit code that a wait under way ends with.
pub async fn finish(waiting: Reply<'_>) -> Outcome {
    let answer: ContainerWaitResponse = waiting.model().await.map_err(|failure| failure.with_code(125))?;
    if let Some(error) = answer.error.filter(|error| !error.message.is_empty()) {
        return Err(Failure::text(format!("Error waiting for container: {}", error.message)).with_code(125));
    }
    Ok(i32::try_from(answer.status_code).unwrap_or(125))
}
