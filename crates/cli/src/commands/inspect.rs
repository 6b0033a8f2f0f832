//! `inspect`, alone (any kind of object) and under `container`, `image`, `network`, `volume`.

use crate::client::query::{Query, name, segment};
use crate::command::{Arity, Command};
use crate::failure::{Failure, Outcome};
use crate::flags::{Flag, Matches};
use crate::json::Value;
use crate::session::{Session, print};
use crate::template::{Missing, Template};

const FORMAT: Flag = Flag::text("format", "Layout: 'json' or a Go template").short('f');
const ISOLATION: Flag = Flag::bool(
    "isolation",
    "Show what separates a running container from the host",
);
const SIZE: Flag = Flag::bool("size", "Show the size of containers on disk").short('s');

pub const ANY: Command = Command::new(
    "inspect",
    "Return low-level information on Docker objects",
    "[OPTIONS] NAME|ID [NAME|ID...]",
    Arity::AtLeast(1),
    |session, matches| Box::pin(any(session, matches)),
)
.flags(&[&[
    FORMAT,
    SIZE,
    ISOLATION,
    Flag::text("type", "Look for this kind of object only"),
]]);

pub const CONTAINER: Command = Command::new(
    "inspect",
    "Display detailed information on one or more containers",
    "[OPTIONS] CONTAINER [CONTAINER...]",
    Arity::AtLeast(1),
    |session, matches| Box::pin(of(session, matches, &[Kind::Container])),
)
.flags(&[&[FORMAT, SIZE, ISOLATION]]);

pub const IMAGE: Command = Command::new(
    "inspect",
    "Display detailed information on one or more images",
    "[OPTIONS] IMAGE [IMAGE...]",
    Arity::AtLeast(1),
    |session, matches| Box::pin(of(session, matches, &[Kind::Image])),
)
.flags(&[&[FORMAT, Flag::text("platform", "Show one platform of the image")]]);

pub const NETWORK: Command = Command::new(
    "inspect",
    "Display detailed information on one or more networks",
    "[OPTIONS] NETWORK [NETWORK...]",
    Arity::AtLeast(1),
    |session, matches| Box::pin(of(session, matches, &[Kind::Network])),
)
.flags(&[&[
    FORMAT,
    Flag::bool("verbose", "Show more for diagnosis").short('v'),
]]);

pub const VOLUME: Command = Command::new(
    "inspect",
    "Display detailed information on one or more volumes",
    "[OPTIONS] VOLUME [VOLUME...]",
    Arity::AtLeast(1),
    |session, matches| Box::pin(of(session, matches, &[Kind::Volume])),
)
.flags(&[&[FORMAT]]);

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Container,
    Image,
    Network,
    Volume,
}

async fn any(session: &Session, matches: &Matches) -> Outcome {
    let kinds: &[Kind] = match matches.text("type").unwrap_or_default() {
        "" => &[Kind::Container, Kind::Image, Kind::Network, Kind::Volume],
        "container" => &[Kind::Container],
        "image" => &[Kind::Image],
        "network" => &[Kind::Network],
        "volume" => &[Kind::Volume],
        "node" | "service" | "task" | "secret" | "config" => {
            return Err(Failure::text(
                "This engine has no cluster mode; there are no such objects",
            ));
        }
        other => {
            return Err(Failure::text(format!(
                "\"{other}\" is not a valid value for --type"
            )));
        }
    };
    of(session, matches, kinds).await
}

async fn of(session: &Session, matches: &Matches, kinds: &[Kind]) -> Outcome {
    let format = matches.text("format").unwrap_or_default();
    let isolation = matches.bool("isolation");
    let kinds = match isolation {
        true if !kinds.contains(&Kind::Container) => {
            return Err(Failure::text(
                "--isolation is about containers: leave --type out or say container",
            ));
        }
        true => &[Kind::Container],
        false => kinds,
    };
    let template = match format {
        "" | "json" => None,
        text => Some(
            Template::parse(text)
                .map_err(|error| Failure::text(format!("template parsing error: {error}")).with_code(64))?,
        ),
    };
    let mut documents = Vec::new();
    let mut out = String::new();
    let mut errors = Vec::new();
    for object in &matches.args {
        match find(session, matches, kinds, object).await {
            Err(failure) if failure.status.is_none() => return Err(failure),
            Err(failure) => errors.push(failure.message),
            Ok(document) => match &template {
                None => documents.push(document),
                Some(template) => match template.execute(&document, Missing::Error) {
                    Ok(text) => {
                        out.push_str(&text);
                        out.push('\n');
                    }
                    Err(error) => {
                        errors.push(format!("template parsing error: {error}"));
                        break;
                    }
                },
            },
        }
    }
    match format {
        "" if isolation => {
            for document in &documents {
                let report = serde_json::from_str(&document.compact())
                    .map_err(|error| Failure::text(format!("cannot read the engine's answer: {error}")))?;
                print(&super::isolation::tables(&report))?;
            }
        }
        "" => print(&format!("{}\n", Value::Array(documents).indented("    ")))?,
        "json" => print(&format!("{}\n", Value::Array(documents).compact()))?,
        // One empty line per object that was not found, as the template had nothing to fill in.
        _ if out.is_empty() => print("\n")?,
        _ => print(&out)?,
    }
    if errors.is_empty() {
        Ok(0)
    } else {
        Err(Failure::text(errors.join("\n")))
    }
}

async fn find(session: &Session, matches: &Matches, kinds: &[Kind], object: &str) -> Result<Value, Failure> {
    let mut last = None;
    for kind in kinds {
        let path = match kind {
            Kind::Container if matches.bool("isolation") => {
                format!("/containers/{}/isolation", segment(object))
            }
            Kind::Container => Query::new(format!("/containers/{}/json", segment(object)))
                .flag("size", matches.bool("size"))
                .build(),
            Kind::Image => {
                let platform = super::image::history::platform_document(matches.text("platform"))?;
                Query::new(format!("/images/{}/json", name(object)))
                    .text("platform", &platform)
                    .build()
            }
            Kind::Network => Query::new(format!("/networks/{}", segment(object)))
                .flag("verbose", matches.bool("verbose"))
                .build(),
            Kind::Volume => format!("/volumes/{}", segment(object)),
        };
        match session.client.get(&path).await {
            Ok(reply) => return reply.document().await,
            // A name that one kind can't have may still be another's.
            Err(failure) if kinds.len() > 1 && matches!(failure.status, Some(400 | 404)) => {
                last = failure.status
            }
            Err(failure) => return Err(failure),
        }
    }
    Err(Failure {
        status: last,
        ..Failure::text(format!("error: no such object: {object}"))
    })
}
