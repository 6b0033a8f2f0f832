//! `rmi` and `tag`.

use super::history::platform_documents;
use crate::client::query::{Query, name};
use crate::command::{Arity, Command};
use crate::failure::{Failure, Failures, Outcome};
use crate::flags::{Flag, Matches};
use crate::session::{Session, say};
use api_types::ImageDeleteResponseItem;

const FLAGS: &[Flag] = &[
    Flag::bool("force", "Remove the image even if a stopped container uses it").short('f'),
    Flag::bool("no-prune", "Keep untagged parents"),
    Flag::list("platform", "Remove one platform of the image only"),
];

pub const RMI: Command = Command::new(
    "rmi",
    "Remove one or more images",
    "[OPTIONS] IMAGE [IMAGE...]",
    Arity::AtLeast(1),
    |session, matches| Box::pin(remove(session, matches)),
)
.flags(&[FLAGS]);

/// The same under `image`.
pub const RM: Command = Command::new(
    "rm",
    "Remove one or more images",
    "[OPTIONS] IMAGE [IMAGE...]",
    Arity::AtLeast(1),
    |session, matches| Box::pin(remove(session, matches)),
)
.aliases(&["remove"])
.flags(&[FLAGS]);

pub const TAG: Command = Command::new(
    "tag",
    "Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE",
    "SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]",
    Arity::Exactly(2),
    |session, matches| Box::pin(tag(session, matches)),
);

async fn remove(session: &Session, matches: &Matches) -> Outcome {
    let force = matches.bool("force");
    let platforms = platform_documents(matches.list("platform"))?;
    let mut failures = Failures::new();
    for image in &matches.args {
        let mut query = Query::new(format!("/images/{}", name(image)))
            .flag("force", force)
            .flag("noprune", matches.bool("no-prune"));
        for platform in &platforms {
            query = query.text("platforms", platform);
        }
        let path = query.build();
        let answer = async {
            session
                .client
                .delete(&path)
                .await?
                .model::<Vec<ImageDeleteResponseItem>>()
                .await
        };
        match answer.await {
            Ok(items) => {
                for item in items {
                    if !item.deleted.is_empty() {
                        say(&format!("Deleted: {}", item.deleted))?;
                    }
                    if !item.untagged.is_empty() {
                        say(&format!("Untagged: {}", item.untagged))?;
                    }
                }
            }
            // What is gone already is what --force asked for.
            Err(failure) if force && failure.is_not_found() => eprintln!("{failure}"),
            Err(failure) => failures.push(failure),
        }
    }
    failures.outcome()
}

async fn tag(session: &Session, matches: &Matches) -> Outcome {
    let target = spec::Reference::parse_normalized(matches.arg(1)).map_err(|error| {
        Failure::text(format!(
            "Error parsing reference: {:?} is not a valid repository/tag: {error}",
            matches.arg(1)
        ))
    })?;
    if target.digest().is_some() {
        return Err(Failure::text("refusing to create a tag with a digest reference"));
    }
    let target = target.or_latest();
    let path = Query::new(format!("/images/{}/tag", name(matches.arg(0))))
        .text("repo", &target.name())
        .text("tag", target.tag().unwrap_or_default())
        .build();
    session.client.post(&path).await?.done().await?;
    Ok(0)
}
