//! What became of a container's filesystem: diff, commit, export.

use crate::client::query::{Query, segment};
use crate::command::{Arity, Command};
use crate::failure::{Failure, Outcome};
use crate::flags::{Flag, Matches};
use crate::output::Output;
use crate::session::{Session, print, say};
use api_types::{FilesystemChange, IdResponse};

pub const DIFF: Command = Command::new(
    "diff",
    "Inspect changes to files or directories on a container's filesystem",
    "CONTAINER",
    Arity::Exactly(1),
    |session, matches| Box::pin(diff(session, matches)),
);

pub const COMMIT: Command = Command::new(
    "commit",
    "Create a new image from a container's changes",
    "[OPTIONS] CONTAINER [REPOSITORY[:TAG]]",
    Arity::Between(1, 2),
    |session, matches| Box::pin(commit(session, matches)),
)
.flags(&[&[
    Flag::text("author", "Author, e.g. \"Ann <ann@example.org>\"").short('a'),
    Flag::list("change", "Apply a Dockerfile instruction to the image").short('c'),
    Flag::text("message", "What the change is about").short('m'),
    Flag::bool("no-pause", "Do not pause the container meanwhile"),
    Flag::bool("pause", "Pause the container meanwhile")
        .short('p')
        .default("true"),
]]);

pub const EXPORT: Command = Command::new(
    "export",
    "Export a container's filesystem as a tar archive",
    "[OPTIONS] CONTAINER",
    Arity::Exactly(1),
    |session, matches| Box::pin(export(session, matches)),
)
.flags(&[&[Flag::text("output", "Write to a file instead of STDOUT").short('o')]]);

async fn diff(session: &Session, matches: &Matches) -> Outcome {
    let path = format!("/containers/{}/changes", segment(matches.arg(0)));
    let changes: Option<Vec<FilesystemChange>> = session.client.get(&path).await?.model().await?;
    let lines = changes.unwrap_or_default().into_iter().map(|change| {
        let kind = match change.kind {
            0 => 'C',
            1 => 'A',
            _ => 'D',
        };
        format!("{kind} {}\n", change.path)
    });
    print(&lines.collect::<String>())?;
    Ok(0)
}

async fn commit(session: &Session, matches: &Matches) -> Outcome {
    let reference = match matches.args.get(1).filter(|text| !text.is_empty()) {
        None => None,
        Some(text) => {
            let reference =
                spec::Reference::parse_normalized(text).map_err(|error| Failure::text(error.to_string()))?;
            if reference.digest().is_some() {
                return Err(Failure::text("refusing to create a tag with a digest reference"));
            }
            Some(reference.or_latest())
        }
    };
    let mut query = Query::new("/commit")
        .text("author", matches.text("author").unwrap_or_default())
        .text("comment", matches.text("message").unwrap_or_default())
        .text("container", matches.arg(0));
    if let Some(reference) = &reference {
        query = query
            .text("repo", &reference.name())
            .text("tag", reference.tag().unwrap_or_default());
    }
    for change in matches.list("change") {
        query = query.text("changes", change);
    }
    if matches.bool("no-pause") || !matches.bool("pause") {
        query = query.always("pause", "0");
    }
    // No document: one would take the place of the container's settings.
    let answer: IdResponse = session.client.post(&query.build()).await?.model().await?;
    say(&answer.id)?;
    Ok(0)
}

async fn export(session: &Session, matches: &Matches) -> Outcome {
    let mut output = Output::open(matches.text("output"))?;
    let reply = session
        .client
        .get(&format!("/containers/{}/export", segment(matches.arg(0))))
        .await?;
    reply.stream().copy_to(&mut *output.writer()).await?;
    output.keep()?;
    Ok(0)
}
