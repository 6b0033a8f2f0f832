//! Images as archives: save, load, import.

use super::history::platform_documents;
use crate::client::body::{Body, BodyWriter};
use crate::client::query::Query;
use crate::command::{Arity, Command};
use crate::commands::container::create::platform;
use crate::failure::{Failure, Outcome};
use crate::flags::{Flag, Matches};
use crate::output::Output;
use crate::progress::{self, To};
use crate::session::Session;
use crate::terminal;
use http::{HeaderMap, HeaderValue, Method, header};
use std::fs::File;
use std::io::{self, Read};

pub const SAVE: Command = Command::new(
    "save",
    "Save one or more images to a tar archive (streamed to STDOUT by default)",
    "[OPTIONS] IMAGE [IMAGE...]",
    Arity::AtLeast(1),
    |session, matches| Box::pin(save(session, matches)),
)
.flags(&[&[
    Flag::text("output", "Write to a file instead of STDOUT").short('o'),
    Flag::list(
        "platform",
        "Save only these platforms, e.g. linux/amd64,linux/arm64",
    ),
]]);

pub const LOAD: Command = Command::new(
    "load",
    "Load an image from a tar archive or STDIN",
    "[OPTIONS]",
    Arity::Exactly(0),
    |session, matches| Box::pin(load(session, matches)),
)
.flags(&[&[
    Flag::text("input", "Read from a file instead of STDIN").short('i'),
    Flag::list(
        "platform",
        "Load only these platforms, e.g. linux/amd64,linux/arm64",
    ),
    Flag::bool("quiet", "Do not show progress").short('q'),
]]);

pub const IMPORT: Command = Command::new(
    "import",
    "Import the contents from a tarball to create a filesystem image",
    "[OPTIONS] file|URL|- [REPOSITORY[:TAG]]",
    Arity::AtLeast(1),
    |session, matches| Box::pin(import(session, matches)),
)
.flags(&[&[
    Flag::list("change", "Apply a Dockerfile instruction to the image").short('c'),
    Flag::text("message", "What the image is").short('m'),
    Flag::text("platform", "Platform of the image"),
]]);

async fn save(session: &Session, matches: &Matches) -> Outcome {
    let platforms = platform_documents(matches.list("platform"))?;
    let mut output = Output::open(matches.text("output"))?;
    let mut query = Query::new("/images/get");
    for name in &matches.args {
        query = query.text("names", name);
    }
    for platform in &platforms {
        query = query.text("platform", platform);
    }
    let reply = session.client.get(&query.build()).await?;
    reply.stream().copy_to(&mut *output.writer()).await?;
    output.keep()?;
    Ok(0)
}

/// A body fed from a file or stdin by a thread of its own.
pub fn upload(mut source: impl Read + Send + 'static) -> Result<Body, Failure> {
    let (mut writer, body) = Body::piped();
    let feed = move || {
        let result = io::copy(&mut source, &mut writer).map(|_| ());
        BodyWriter::finish(writer, result);
    };
    std::thread::Builder::new()
        .name("upload".into())
        .spawn(feed)
        .map_err(|error| Failure::text(format!("cannot start a thread: {error}")))?;
    Ok(body)
}

/// Of a request whose body is an archive.
pub fn tar_headers() -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/x-tar"),
    );
    headers
}

async fn load(session: &Session, matches: &Matches) -> Outcome {
    let body = match matches.text("input") {
        Some(path) => {
            let file = File::open(path).map_err(|error| {
                Failure::text(format!("open {path}: {}", crate::grammar::env::describe(&error)))
            })?;
            upload(file)?
        }
        None if terminal::stdin_is_terminal() => {
            return Err(Failure::text("requested load from stdin, but stdin is empty"));
        }
        None => upload(io::stdin())?,
    };
    let quiet = matches.bool("quiet") || !terminal::stdout_is_terminal();
    let mut query = Query::new("/images/load").always("quiet", if quiet { "1" } else { "0" });
    for platform in platform_documents(matches.list("platform"))? {
        query = query.text("platform", &platform);
    }
    let reply = session
        .client
        .send(Method::POST, &query.build(), tar_headers(), body)
        .await?;
    progress::show(reply.lines(), To::Stdout, &mut |_| {}).await?;
    Ok(0)
}

async fn import(session: &Session, matches: &Matches) -> Outcome {
    let source = matches.arg(0);
    let remote = source.contains("://");
    let body = match source {
        "-" => upload(io::stdin())?,
        _ if remote => Body::empty(),
        path => {
            let file = File::open(path).map_err(|error| {
                Failure::text(format!("open {path}: {}", crate::grammar::env::describe(&error)))
            })?;
            upload(file)?
        }
    };
    let mut query = Query::new("/images/create").text("fromSrc", if remote { source } else { "-" });
    if let Some(text) = matches.args.get(1).filter(|text| !text.is_empty()) {
        let reference =
            spec::Reference::parse_normalized(text).map_err(|error| Failure::text(error.to_string()))?;
        query = query
            .text("repo", &reference.name())
            .text("tag", reference.tag().unwrap_or_default());
    }
    query = query
        .text("message", matches.text("message").unwrap_or_default())
        .text("platform", &platform(matches)?.to_lowercase());
    for change in matches.list("change") {
        query = query.text("changes", change);
    }
    let reply = session
        .client
        .send(Method::POST, &query.build(), tar_headers(), body)
        .await?;
    progress::show(reply.lines(), To::Stdout, &mut |_| {}).await?;
    Ok(0)
}
