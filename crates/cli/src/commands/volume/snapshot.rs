//! `volume snapshot`: what a volume held once, to go back to.

use crate::client::query::{Query, segment};
use crate::command::{Arity, Command};
use crate::failure::{Failures, Outcome};
use crate::flags::{Flag, Matches};
use crate::format::listing::{FORMAT, Format, Listing, Row, render};
use crate::format::size;
use crate::json::Value;
use crate::session::{Session, print, say};

pub const COMMANDS: &[&Command] = &[&CREATE, &LS, &RESTORE, &RM];

const CREATE: Command = Command::new(
    "create",
    "Keep what a volume holds now, under a name or else the time",
    "[OPTIONS] VOLUME [SNAPSHOT]",
    Arity::Between(1, 2),
    |session, matches| Box::pin(create(session, matches)),
)
.flags(&[&[Flag::bool("pause", "Pause containers that can write to the volume meanwhile").default("true")]]);

const LS: Command = Command::new(
    "ls",
    "List the snapshots of a volume",
    "[OPTIONS] VOLUME",
    Arity::Exactly(1),
    |session, matches| Box::pin(ls(session, matches)),
)
.aliases(&["list"])
.flags(&[&[FORMAT, Flag::bool("quiet", "Show names only").short('q')]]);

const RM: Command = Command::new(
    "rm",
    "Delete one or more snapshots of a volume",
    "VOLUME SNAPSHOT [SNAPSHOT...]",
    Arity::AtLeast(2),
    |session, matches| Box::pin(rm(session, matches)),
)
.aliases(&["remove"]);

const RESTORE: Command = Command::new(
    "restore",
    "Give a volume the content of one of its snapshots, or make a new volume with it",
    "VOLUME SNAPSHOT [NEW_VOLUME]",
    Arity::Between(2, 3),
    |session, matches| Box::pin(restore(session, matches)),
);

const LISTING: Listing = Listing {
    columns: &[("Name", "SNAPSHOT"), ("CreatedAt", "CREATED"), ("Size", "SIZE")],
    table: "{{.Name}}\t{{.CreatedAt}}\t{{.Size}}",
    quiet: "{{.Name}}",
    kind: "*formatter.snapshotContext",
};

fn row(snapshot: &Value) -> Row {
    let text = |key: &str| snapshot.at(&[key]).text().to_owned();
    Row::new()
        .cell("Name", text("Name"))
        .cell("CreatedAt", text("CreatedAt"))
        .cell("Size", size::decimal(snapshot.at(&["Size"]).float()))
}

async fn create(session: &Session, matches: &Matches) -> Outcome {
    let mut query = Query::new(format!("/volumes/{}/snapshots", segment(matches.arg(0))));
    if let Some(name) = matches.args.get(1) {
        query = query.text("name", name);
    }
    if !matches.bool("pause") {
        query = query.always("pause", "0");
    }
    let snapshot = session.client.post(&query.build()).await?.document().await?;
    say(snapshot.at(&["Name"]).text())?;
    Ok(0)
}

async fn ls(session: &Session, matches: &Matches) -> Outcome {
    let path = format!("/volumes/{}/snapshots", segment(matches.arg(0)));
    let answer = session.client.get(&path).await?.document().await?;
    let format = Format::new(matches.text("format"), matches.bool("quiet"));
    print(&render(
        &LISTING,
        &format,
        answer.items().iter().map(row).collect(),
    )?)?;
    Ok(0)
}

async fn rm(session: &Session, matches: &Matches) -> Outcome {
    let mut failures = Failures::new();
    for name in matches.args.iter().skip(1) {
        let path = format!("/volumes/{}/snapshots/{}", segment(matches.arg(0)), segment(name));
        let answer = async { session.client.delete(&path).await?.done().await };
        match answer.await {
            Ok(()) => say(name)?,
            Err(failure) => failures.push(failure),
        }
    }
    failures.outcome()
}

async fn restore(session: &Session, matches: &Matches) -> Outcome {
    let path = format!(
        "/volumes/{}/snapshots/{}/restore",
        segment(matches.arg(0)),
        segment(matches.arg(1))
    );
    let mut query = Query::new(path);
    if let Some(name) = matches.args.get(2) {
        query = query.text("name", name);
    }
    let volume = session.client.post(&query.build()).await?.document().await?;
    say(volume.at(&["Name"]).text())?;
    Ok(0)
}
