//! `image prune` and `builder prune`.

use crate::client::query::Query;
use crate::command::{Arity, Command};
use crate::commands::pruning::Mode;
use crate::failure::{Failure, Outcome};
use crate::flags::{Flag, Matches};
use crate::grammar::filter::{self, Filters};
use crate::session::Session;
use api_types::{BuildPruneReport, ImageDeleteResponseItem, ImagesPruneReport};

pub const IMAGES: Command = Command::new(
    "prune",
    "Remove unused images",
    "[OPTIONS]",
    Arity::Exactly(0),
    |session, matches| Box::pin(images(session, matches)),
)
.flags(&[&[
    Flag::bool("dry-run", "Say what would be removed, and remove nothing"),
    Flag::bool(
        "all",
        "Remove every image no container uses, not only untagged ones",
    )
    .short('a'),
    Flag::list("filter", "Remove only what matches (until=24h)")
        .value("filter")
        .check(filter::check),
    Flag::bool("force", "Do not ask").short('f'),
]]);

pub const BUILDER: Command = Command::new(
    "prune",
    "Remove build cache",
    "[OPTIONS]",
    Arity::Exactly(0),
    |session, matches| Box::pin(builder(session, matches)),
)
.flags(&[&[
    Flag::bool("dry-run", "Say what would be removed, and remove nothing"),
    Flag::bool("all", "Remove all cache, not only what nothing refers to").short('a'),
    Flag::list("filter", "Remove only what matches (until=24h)")
        .value("filter")
        .check(filter::check),
    Flag::bool("force", "Do not ask").short('f'),
    Flag::bytes("keep-storage", "Keep this much of the cache"),
]]);

async fn images(session: &Session, matches: &Matches) -> Outcome {
    let all = matches.bool("all");
    let what = if all {
        "all images without at least one container associated to them"
    } else {
        "all dangling images"
    };
    let question = format!("WARNING! This will remove {what}.\nAre you sure you want to continue?");
    let mode = Mode::of(matches);
    mode.ask(matches, &question)?;
    let (text, freed) = prune_images(session, mode, all, Filters::read(matches.list("filter"))).await?;
    mode.print(&text, freed)?;
    Ok(0)
}

/// Removes; answers with the text to show and the bytes freed.
pub async fn prune_images(
    session: &Session,
    mode: Mode,
    all: bool,
    mut filters: Filters,
) -> Result<(String, u64), Failure> {
    filters.add("dangling", if all { "false" } else { "true" });
    let path = Query::new("/images/prune")
        .flag("dryrun", mode.dry_run)
        .text("filters", &filters.document())
        .build();
    let report: ImagesPruneReport = session.client.post(&path).await?.model().await?;
    let line = |item: &ImageDeleteResponseItem| match item.untagged.is_empty() {
        false => format!("untagged: {}", item.untagged),
        true => format!("deleted: {}", item.deleted),
    };
    let lines: Vec<String> = report.images_deleted.iter().map(line).collect();
    let text = mode.list("Images", &lines);
    Ok((text, report.space_reclaimed))
}

async fn builder(session: &Session, matches: &Matches) -> Outcome {
    let all = matches.bool("all");
    let what = if all {
        "all build cache"
    } else {
        "all dangling build cache"
    };
    let question = format!("WARNING! This will remove {what}. Are you sure you want to continue?");
    let mode = Mode::of(matches);
    mode.ask(matches, &question)?;
    let filters = Filters::read(matches.list("filter"));
    let (text, freed) = prune_cache(session, mode, all, &filters, matches.bytes("keep-storage")).await?;
    mode.print(&text, freed)?;
    Ok(0)
}

/// Removes; answers with the text to show and the bytes freed.
pub async fn prune_cache(
    session: &Session,
    mode: Mode,
    all: bool,
    filters: &Filters,
    keep: Option<i64>,
) -> Result<(String, u64), Failure> {
    let keep = keep.map(|bytes| bytes.to_string()).unwrap_or_default();
    let path = Query::new("/build/prune")
        .flag("dryrun", mode.dry_run)
        .flag("all", all)
        .text("filters", &filters.document())
        .text("keep-storage", &keep)
        .text("reserved-space", &keep)
        .build();
    let report: BuildPruneReport = session.client.post(&path).await?.model().await?;
    let text = mode.list("build cache objects", &report.caches_deleted);
    Ok((text, report.space_reclaimed))
}
