//! `container prune`: removes all stopped containers.

use crate::client::query::Query;
use crate::command::{Arity, Command};
use crate::failure::{Failure, Outcome};
use crate::flags::{Flag, Matches};
use crate::format::size;
use crate::grammar::filter::{self, Filters};
use crate::session::{Session, confirm, print};
use api_types::ContainersPruneReport;

pub const COMMAND: Command = Command::new(
    "prune",
    "Remove all stopped containers",
    "[OPTIONS]",
    Arity::Exactly(0),
    |session, matches| Box::pin(run(session, matches)),
)
.flags(&[&[
    Flag::list("filter", "Remove only what matches (until=24h)")
        .value("filter")
        .check(filter::check),
    Flag::bool("force", "Do not ask").short('f'),
]]);

async fn run(session: &Session, matches: &Matches) -> Outcome {
    let question = "WARNING! This will remove all stopped containers.\nAre you sure you want to continue?";
    if !matches.bool("force") && !confirm(question)? {
        return Err(Failure::cancelled());
    }
    let (text, freed) = prune(session, &Filters::read(matches.list("filter"))).await?;
    print(&format!(
        "{text}Total reclaimed space: {}\n",
        size::decimal(freed as f64)
    ))?;
    Ok(0)
}

/// Removes; answers with the text to show and the bytes freed.
pub async fn prune(session: &Session, filters: &Filters) -> Result<(String, u64), Failure> {
    let path = Query::new("/containers/prune")
        .text("filters", &filters.document())
        .build();
    let report: ContainersPruneReport = session.client.post(&path).await?.model().await?;
    let mut text = String::new();
    if !report.containers_deleted.is_empty() {
        text.push_str("Deleted Containers:\n");
        report
            .containers_deleted
            .iter()
            .for_each(|id| text.push_str(&format!("{id}\n")));
        text.push('\n');
    }
    Ok((text, report.space_reclaimed))
}
