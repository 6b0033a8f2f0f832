//! `volume trash`: removed volumes that can be had back.

use api_types::VolumesPruneReport;

use crate::client::query::{Query, segment};
use crate::command::{Arity, Command};
use crate::commands::pruning::Mode;
use crate::failure::{Failure, Outcome};
use crate::flags::{Flag, Matches};
use crate::format::listing::{FORMAT, Format, Listing, Row, render};
use crate::format::size;
use crate::json::Value;
use crate::session::{Session, print, say};

pub const COMMANDS: &[&Command] = &[&EMPTY, &LS, &RESTORE];

const LS: Command = Command::new(
    "ls",
    "List removed volumes that can be had back",
    "[OPTIONS]",
    Arity::Exactly(0),
    |session, matches| Box::pin(ls(session, matches)),
)
.aliases(&["list"])
.flags(&[&[FORMAT, Flag::bool("quiet", "Show ids only").short('q')]]);

const RESTORE: Command = Command::new(
    "restore",
    "Make a volume again of a removed one, named by its id or name",
    "ID|VOLUME [NEW_NAME]",
    Arity::Between(1, 2),
    |session, matches| Box::pin(restore(session, matches)),
);

const EMPTY: Command = Command::new(
    "empty",
    "Delete removed volumes for good, all where none is named",
    "[OPTIONS] [ID|VOLUME...]",
    Arity::AtLeast(0),
    |session, matches| Box::pin(empty(session, matches)),
)
.flags(&[&[
    Flag::bool("dry-run", "Say what would be deleted, and delete nothing"),
    Flag::bool("force", "Do not ask").short('f'),
]]);

const LISTING: Listing = Listing {
    columns: &[
        ("ID", "TRASH ID"),
        ("Name", "VOLUME NAME"),
        ("Driver", "DRIVER"),
        ("Labels", "LABELS"),
        ("CreatedAt", "CREATED"),
        ("RemovedAt", "REMOVED"),
        ("ExpiresAt", "DELETED AFTER"),
        ("Size", "SIZE"),
    ],
    table: "{{.ID}}\t{{.Name}}\t{{.RemovedAt}}\t{{.ExpiresAt}}\t{{.Size}}",
    quiet: "{{.ID}}",
    kind: "*formatter.trashContext",
};

fn row(trashed: &Value) -> Row {
    let text = |key: &str| trashed.at(&[key]).text().to_owned();
    Row::new()
        .cell("ID", text("ID"))
        .cell("Name", text("Name"))
        .cell("Driver", text("Driver"))
        .cell(
            "Labels",
            crate::commands::container::list::pairs(trashed.at(&["Labels"])),
        )
        .cell("CreatedAt", text("CreatedAt"))
        .cell("RemovedAt", text("RemovedAt"))
        .cell("ExpiresAt", text("ExpiresAt"))
        .cell("Size", size::decimal(trashed.at(&["Size"]).float()))
}

async fn ls(session: &Session, matches: &Matches) -> Outcome {
    let answer = session.client.get("/trash/volumes").await?.document().await?;
    let format = Format::new(matches.text("format"), matches.bool("quiet"));
    print(&render(
        &LISTING,
        &format,
        answer.items().iter().map(row).collect(),
    )?)?;
    Ok(0)
}

async fn restore(session: &Session, matches: &Matches) -> Outcome {
    let mut query = Query::new(format!("/trash/volumes/{}/restore", segment(matches.arg(0))));
    if let Some(name) = matches.args.get(1) {
        query = query.text("name", name);
    }
    let volume = session.client.post(&query.build()).await?.document().await?;
    say(volume.at(&["Name"]).text())?;
    Ok(0)
}

async fn empty(session: &Session, matches: &Matches) -> Outcome {
    let mode = Mode::of(matches);
    mode.ask(
        matches,
        "WARNING! This will delete removed volumes for good.\nAre you sure you want to continue?",
    )?;
    let mut query = Query::new("/trash/volumes/empty").flag("dryrun", mode.dry_run);
    for which in &matches.args {
        query = query.text("id", which);
    }
    let report: VolumesPruneReport = session.client.post(&query.build()).await?.model().await?;
    let text = mode.list("removed volumes", &report.volumes_deleted);
    mode.print(&text, report.space_reclaimed)?;
    Ok(0)
}

/// After volumes went into the trash: that they did, and how to have the space. Says nothing of an engine without one.
pub async fn note(session: &Session) -> Result<(), Failure> {
    let Ok(answer) = session.client.get("/trash/volumes").await else {
        return Ok(());
    };
    let trash = answer.document().await?;
    let bytes: f64 = trash.items().iter().map(|item| item.at(&["Size"]).float()).sum();
    let count = trash.items().len();
    if count > 0 {
        eprintln!(
            "{count} removed volumes with {} can be had back ('berth volume trash ls'), or deleted now ('berth volume trash empty')",
            size::decimal(bytes)
        );
    }
    Ok(())
}
