//! `pull` and `push`.

use crate::auth;
use crate::client::body::Body;
use crate::client::query::{Query, name};
use crate::command::{Arity, Command};
use crate::commands::container::create::platform;
use crate::failure::{Failure, Outcome};
use crate::flags::{Flag, Matches};
use crate::format::size;
use crate::progress::{self, To};
use crate::session::{Session, say};
use http::Method;
use spec::Reference;

const LIMIT_RATE: Flag = Flag::text("limit-rate", "Most bytes a second, e.g. 2m").value("size");

/// The value of `--limit-rate` in bytes.
fn rate(matches: &Matches) -> Result<String, Failure> {
    let Some(text) = matches.text("limit-rate") else {
        return Ok(String::new());
    };
    match size::parse(text) {
        Ok(bytes) if bytes > 0 => Ok(bytes.to_string()),
        _ => Err(Failure::text(format!(
            "invalid argument {text:?} for \"--limit-rate\": expected bytes a second, such as 500k or 2m"
        ))),
    }
}

pub const PULL: Command = Command::new(
    "pull",
    "Download an image from a registry",
    "[OPTIONS] NAME[:TAG|@DIGEST]",
    Arity::Exactly(1),
    |session, matches| Box::pin(pull(session, matches)),
)
.flags(&[&[
    Flag::bool("all-tags", "Download all tags of the repository").short('a'),
    Flag::bool("disable-content-trust", "Skip verification of image signatures")
        .default("true")
        .hidden(),
    LIMIT_RATE,
    Flag::text("platform", "Platform of the image, e.g. linux/arm64"),
    Flag::bool("quiet", "Do not show progress").short('q'),
]]);

pub const PUSH: Command = Command::new(
    "push",
    "Upload an image to a registry",
    "[OPTIONS] NAME[:TAG]",
    Arity::Exactly(1),
    |session, matches| Box::pin(push(session, matches)),
)
.flags(&[&[
    Flag::bool("all-tags", "Upload all tags of the repository").short('a'),
    Flag::bool("disable-content-trust", "Skip signing of the image")
        .default("true")
        .hidden(),
    LIMIT_RATE,
    Flag::text("platform", "Upload one platform of the image only"),
    Flag::bool("quiet", "Do not show progress").short('q'),
]]);

fn reference(text: &str) -> Result<Reference, Failure> {
    Reference::parse_normalized(text).map_err(|error| Failure::text(error.to_string()))
}

async fn pull(session: &Session, matches: &Matches) -> Outcome {
    let given = reference(matches.arg(0))?;
    let quiet = matches.bool("quiet");
    let all = matches.bool("all-tags");
    let only_name = given.tag().is_none() && given.digest().is_none();
    if all && !only_name {
        return Err(Failure::text("tag can't be used with --all-tags/-a"));
    }
    if !all && only_name && !quiet {
        println!("Using default tag: latest");
    }
    let wanted = if all { given } else { given.or_latest() };
    let to = if quiet { To::Nowhere } else { To::Stdout };
    transfer(session, &wanted, &platform(matches)?, &rate(matches)?, to).await?;
    say(&wanted.canonical())?;
    Ok(0)
}

/// Fetches an image for `run` and `create`: progress goes to stderr.
pub async fn fetch(
    session: &Session,
    wanted: &Reference,
    platform: &str,
    quiet: bool,
) -> Result<(), Failure> {
    let to = if quiet { To::Nowhere } else { To::Stderr };
    transfer(session, wanted, platform, "", to).await
}

async fn transfer(
    session: &Session,
    wanted: &Reference,
    platform: &str,
    rate: &str,
    to: To,
) -> Result<(), Failure> {
    let tag = match wanted.digest() {
        Some(digest) => digest.to_string(),
        None => wanted.tag().unwrap_or_default().to_owned(),
    };
    let path = Query::new("/images/create")
        .text("fromImage", &wanted.name())
        .text("limitrate", rate)
        .text("platform", &platform.to_lowercase())
        .text("tag", &tag)
        .build();
    let headers = auth::headers(session.config(), wanted.domain())?;
    let reply = session
        .client
        .send(Method::POST, &path, headers, Body::empty())
        .await?;
    progress::show(reply.lines(), to, &mut |_| {}).await
}

/// Pushes what a name stands for; every tag where it has none.
pub async fn upload(
    session: &Session,
    wanted: &Reference,
    platform: &str,
    rate: &str,
    to: To,
) -> Result<(), Failure> {
    let path = Query::new(format!("/images/{}/push", name(&wanted.name())))
        .text("limitrate", rate)
        .text("platform", platform)
        .text("tag", wanted.tag().unwrap_or_default())
        .build();
    let headers = auth::headers(session.config(), wanted.domain())?;
    let reply = session
        .client
        .send(Method::POST, &path, headers, Body::empty())
        .await?;
    progress::show(reply.lines(), to, &mut |_| {}).await
}

/// What is said to whoever pushes one platform of an image, in Docker's layout.
const ONE_PLATFORM: &str = "
 Info -> Using --platform pushes only the specified platform manifest of a multi-platform image index.
         Other components, like attestations, will not be included.
         To push the complete multi-platform image, remove the --platform flag.
         ";

async fn push(session: &Session, matches: &Matches) -> Outcome {
    let given = reference(matches.arg(0))?;
    if given.digest().is_some() {
        return Err(Failure::text("cannot push a digest reference"));
    }
    let all = matches.bool("all-tags");
    let quiet = matches.bool("quiet");
    if all && given.tag().is_some() {
        return Err(Failure::text("tag can't be used with --all-tags/-a"));
    }
    let wanted = if all { given } else { given.or_latest() };
    if !all && reference(matches.arg(0))?.tag().is_none() && !quiet {
        println!("Using default tag: latest");
    }
    let platform = match matches.text("platform") {
        None => String::new(),
        Some(text) => {
            let parsed: spec::Platform = text
                .parse()
                .map_err(|_| Failure::text(format!("invalid platform: {text:?}")))?;
            say(ONE_PLATFORM)?;
            serde_json::json!({
                "os": parsed.os,
                "architecture": parsed.architecture,
                "variant": parsed.variant.unwrap_or_default(),
            })
            .to_string()
        }
    };
    let to = if quiet { To::Nowhere } else { To::Stdout };
    upload(session, &wanted, &platform, &rate(matches)?, to).await?;
    if quiet {
        say(&wanted.canonical())?;
    }
    Ok(0)
}
