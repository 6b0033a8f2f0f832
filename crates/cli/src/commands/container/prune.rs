//! `container prune`: removes all stopped containers.

use crate::client::query::Query;
use crate::command::{Arity, Command};
use crate::commands::pruning::Mode;
use crate::failure::{Failure, Outcome};
use crate::flags::{Flag, Matches};
use crate::grammar::filter::{self, Filters};
use crate::session::Session;
use api_types::ContainersPruneReport;

pub const COMMAND: Command = Command::new(
    "prune",
    "Remove all stopped containers",
    "[OPTIONS]",
    Arity::Exactly(0),
    |session, matches| Box::pin(run(session, matches)),
)
.flags(&[&[
    Flag::bool("dry-run", "Say what would be removed, and remove nothing"),
    Flag::list("filter", "Remove only what matches (until=24h)")
        .value("filter")
        .check(filter::check),
    Flag::bool("force", "Do not ask").short('f'),
]]);

async fn run(session: &Session, matches: &Matches) -> Outcome {
    let question = "WARNING! This will remove all stopped containers.\nAre you sure you want to continue?";
    let mode = Mode::of(matches);
    mode.ask(matches, question)?;
    let (text, freed) = prune(session, mode, &Filters::read(matches.list("filter"))).await?;
    mode.print(&text, freed)?;
    Ok(0)
}

/// Removes; answers with the text to show and the bytes freed.
pub async fn prune(session: &Session, mode: Mode, filters: &Filters) -> Result<(String, u64), Failure> {
    let path = Query::new("/containers/prune")
        .flag("dryrun", mode.dry_run)
        .text("filters", &filters.document())
        .build();
    let report: ContainersPruneReport = session.client.post(&path).await?.model().await?;
    let text = mode.list("Containers", &report.containers_deleted);
    Ok((text, report.space_reclaimed))
}
