//! Volumes.

pub(super) mod snapshot;
pub(super) mod trash;

use crate::client::query::{Query, segment};
use crate::command::{Arity, Command};
use crate::commands::container::list::pairs;
use crate::commands::image::archive::{tar_headers, upload};
use crate::commands::inspect;
use crate::commands::pruning::Mode;
use crate::failure::{Failure, Failures, Outcome};
use crate::flags::{Flag, Matches};
use crate::format::listing::{FORMAT, Format, Listing, Row, render};
use crate::format::size;
use crate::grammar::env::{check_label, pairs as to_map};
use crate::grammar::filter::{self, Filters};
use crate::json::Value;
use crate::output::Output;
use crate::session::{Session, print, say};
use api_types::VolumesPruneReport;
use http::Method;
use serde_json::json;
use std::fs::File;

pub const COMMANDS: &[&Command] = &[
    &CLONE,
    &CREATE,
    &EXPORT,
    &IMPORT,
    &inspect::VOLUME,
    &LS,
    &PRUNE,
    &RENAME,
    &RM,
];

const LS: Command = Command::new(
    "ls",
    "List volumes",
    "[OPTIONS]",
    Arity::Exactly(0),
    |session, matches| Box::pin(ls(session, matches)),
)
.aliases(&["list"])
.flags(&[&[
    Flag::list("filter", "Show only what matches")
        .short('f')
        .value("filter")
        .check(filter::check),
    FORMAT,
    Flag::bool("quiet", "Show names only").short('q'),
]]);

const CREATE: Command = Command::new(
    "create",
    "Create a volume",
    "[OPTIONS] [VOLUME]",
    Arity::AtMost(1),
    |session, matches| Box::pin(create(session, matches)),
)
.flags(&[&[
    Flag::text("driver", "Driver of the volume")
        .short('d')
        .default("local"),
    Flag::list("label", "Attach a label").check(check_label),
    Flag::text("name", "Name of the volume").hidden(),
    Flag::list("opt", "Options of the driver").short('o').value("map"),
]]);

const RENAME: Command = Command::new(
    "rename",
    "Give a volume another name",
    "VOLUME NEW_NAME",
    Arity::Exactly(2),
    |session, matches| Box::pin(under_name(session, matches, "rename")),
);

const CLONE: Command = Command::new(
    "clone",
    "Make a volume with the content of another",
    "VOLUME NEW_NAME",
    Arity::Exactly(2),
    |session, matches| Box::pin(under_name(session, matches, "clone")),
);

const EXPORT: Command = Command::new(
    "export",
    "Write a volume's content as a tar archive (streamed to STDOUT by default)",
    "[OPTIONS] VOLUME",
    Arity::Exactly(1),
    |session, matches| Box::pin(export(session, matches)),
)
.flags(&[&[Flag::text("output", "Write to a file instead of STDOUT").short('o')]]);

const IMPORT: Command = Command::new(
    "import",
    "Make a volume with the content of a tar archive, of STDIN where none is named",
    "[OPTIONS] VOLUME [file|-]",
    Arity::Between(1, 2),
    |session, matches| Box::pin(import(session, matches)),
)
.flags(&[&[Flag::list("label", "Attach a label").check(check_label)]]);

const RM: Command = Command::new(
    "rm",
    "Remove one or more volumes",
    "[OPTIONS] VOLUME [VOLUME...]",
    Arity::AtLeast(1),
    |session, matches| Box::pin(rm(session, matches)),
)
.aliases(&["remove"])
.flags(&[&[
    Flag::bool("force", "Do not mind volumes that do not exist").short('f'),
    Flag::bool(
        "purge",
        "Delete the data at once instead of keeping it in the trash",
    ),
]]);

const PRUNE: Command = Command::new(
    "prune",
    "Remove unused local volumes",
    "[OPTIONS]",
    Arity::Exactly(0),
    |session, matches| Box::pin(prune_command(session, matches)),
)
.flags(&[&[
    Flag::bool("dry-run", "Say what would be removed, and remove nothing"),
    Flag::bool("all", "Remove named volumes too").short('a'),
    Flag::list("filter", "Remove only what matches (label=…)")
        .value("filter")
        .check(filter::check),
    Flag::bool("force", "Do not ask").short('f'),
    Flag::bool(
        "purge",
        "Delete the data at once instead of keeping it in the trash",
    ),
]]);

pub const LISTING: Listing = Listing {
    columns: &[
        ("Name", "VOLUME NAME"),
        ("Driver", "DRIVER"),
        ("Scope", "SCOPE"),
        ("Mountpoint", "MOUNTPOINT"),
        ("Labels", "LABELS"),
        ("Links", "LINKS"),
        ("Size", "SIZE"),
        ("Group", "GROUP"),
        ("Availability", "AVAILABILITY"),
        ("Status", "STATUS"),
    ],
    table: "{{.Driver}}\t{{.Name}}",
    quiet: "{{.Name}}",
    kind: "*formatter.volumeContext",
};

/// One volume as a row.
pub fn row(volume: &Value) -> Row {
    let text = |key: &str| volume.at(&[key]).text().to_owned();
    let usage = volume.at(&["UsageData"]);
    let known = |key: &str| match usage.at(&[key]) {
        Value::Number(number) => number.as_i64().filter(|count| *count >= 0),
        _ => None,
    };
    let or_na = |text: Option<String>| text.unwrap_or_else(|| "N/A".into());
    Row::new()
        .cell("Name", text("Name"))
        .cell("Driver", text("Driver"))
        .cell("Scope", text("Scope"))
        .cell("Mountpoint", text("Mountpoint"))
        .cell("Labels", pairs(volume.at(&["Labels"])))
        .cell("Links", or_na(known("RefCount").map(|count| count.to_string())))
        .cell(
            "Size",
            or_na(known("Size").map(|bytes| size::decimal(bytes as f64))),
        )
        .cell("Group", "N/A")
        .cell("Availability", "N/A")
        .cell("Status", "N/A")
        .method("Label", volume.at(&["Labels"]).clone())
}

async fn ls(session: &Session, matches: &Matches) -> Outcome {
    let path = Query::new("/volumes")
        .text("filters", &Filters::read(matches.list("filter")).document())
        .build();
    let answer = session.client.get(&path).await?.document().await?;
    let mut volumes: Vec<_> = answer.at(&["Volumes"]).items().iter().collect();
    volumes.sort_by(|left, right| left.at(&["Name"]).text().cmp(right.at(&["Name"]).text()));
    let configured = match matches.text("format") {
        Some(text) => Some(text.to_owned()),
        None if matches.bool("quiet") => None,
        None => session.config().text("volumesFormat"),
    };
    let format = Format::new(configured.as_deref(), matches.bool("quiet"));
    print(&render(
        &LISTING,
        &format,
        volumes.into_iter().map(row).collect(),
    )?)?;
    Ok(0)
}

async fn create(session: &Session, matches: &Matches) -> Outcome {
    let name = matches
        .args
        .first()
        .map(String::as_str)
        .or(matches.text("name"))
        .unwrap_or_default();
    if matches.changed("name") && !matches.args.is_empty() {
        return Err(Failure::text(
            "conflicting options: cannot specify a volume-name through both --name and as a positional arg",
        ));
    }
    let mut request = json!({
        "Driver": matches.text_or_default("driver"),
        "DriverOpts": to_map(matches.list("opt")),
        "Labels": to_map(matches.list("label")),
    });
    if let Some(fields) = request.as_object_mut().filter(|_| !name.is_empty()) {
        fields.insert("Name".into(), json!(name));
    }
    let volume = session
        .client
        .post_json("/volumes/create", &request)
        .await?
        .document()
        .await?;
    say(volume.at(&["Name"]).text())?;
    Ok(0)
}

/// Renames or clones the first argument to the second.
async fn under_name(session: &Session, matches: &Matches, action: &str) -> Outcome {
    let path = Query::new(format!("/volumes/{}/{action}", segment(matches.arg(0))))
        .text("name", matches.arg(1))
        .build();
    let volume = session.client.post(&path).await?.document().await?;
    say(volume.at(&["Name"]).text())?;
    Ok(0)
}

async fn export(session: &Session, matches: &Matches) -> Outcome {
    let mut output = Output::open(matches.text("output"))?;
    let path = format!("/volumes/{}/export", segment(matches.arg(0)));
    let reply = session.client.get(&path).await?;
    reply.stream().copy_to(&mut *output.writer()).await?;
    output.keep()?;
    Ok(0)
}

async fn import(session: &Session, matches: &Matches) -> Outcome {
    let body = match matches.args.get(1).map_or("-", String::as_str) {
        "-" => upload(std::io::stdin())?,
        path => upload(File::open(path).map_err(|error| {
            Failure::text(format!("open {path}: {}", crate::grammar::env::describe(&error)))
        })?)?,
    };
    let mut query = Query::new(format!("/volumes/{}/import", segment(matches.arg(0))));
    for label in matches.list("label") {
        query = query.text("label", label);
    }
    let answer = session
        .client
        .send(Method::POST, &query.build(), tar_headers(), body)
        .await?;
    say(answer.document().await?.at(&["Name"]).text())?;
    Ok(0)
}

async fn rm(session: &Session, matches: &Matches) -> Outcome {
    let mut failures = Failures::new();
    for name in &matches.args {
        let path = Query::new(format!("/volumes/{}", segment(name)))
            .flag("force", matches.bool("force"))
            .flag("purge", matches.bool("purge"))
            .build();
        let answer = async { session.client.delete(&path).await?.done().await };
        match answer.await {
            Ok(()) => say(name)?,
            Err(failure) => failures.push(failure),
        }
    }
    failures.outcome()
}

async fn prune_command(session: &Session, matches: &Matches) -> Outcome {
    let all = matches.bool("all");
    let what = if all {
        "all local volumes"
    } else {
        "anonymous local volumes"
    };
    let question = format!(
        "WARNING! This will remove {what} not used by at least one container.\nAre you sure you want to continue?"
    );
    let mode = Mode::of(matches);
    mode.ask(matches, &question)?;
    let mut filters = Filters::read(matches.list("filter"));
    if all {
        filters.add("all", "true");
    }
    let (text, freed) = prune(session, mode, &filters, matches.bool("purge")).await?;
    mode.print(&text, freed)?;
    if !mode.dry_run && freed == 0 && !text.is_empty() {
        trash::note(session).await?;
    }
    Ok(0)
}

/// Removes; answers with the text to show and the bytes freed.
pub async fn prune(
    session: &Session,
    mode: Mode,
    filters: &Filters,
    purge: bool,
) -> Result<(String, u64), Failure> {
    let path = Query::new("/volumes/prune")
        .flag("dryrun", mode.dry_run)
        .flag("purge", purge)
        .text("filters", &filters.document())
        .build();
    let report: VolumesPruneReport = session.client.post(&path).await?.model().await?;
    let text = mode.list("Volumes", &report.volumes_deleted);
    Ok((text, report.space_reclaimed))
}
