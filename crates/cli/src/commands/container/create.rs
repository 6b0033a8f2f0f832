//! `create`: makes a container, fetching its image when the policy says so. Also the first step of `run`.

use super::{config, flags};
use crate::client::query::Query;
use crate::command::{Arity, Command};
use crate::commands::image::pull;
use crate::failure::{Failure, Outcome};
use crate::flags::Matches;
use crate::grammar::modes::{self, Pull};
use crate::session::{Session, say};
use crate::terminal;
use api_types::{CreateContainerRequest, CreateContainerResponse};
use std::path::PathBuf;

pub const COMMAND: Command = Command::new(
    "create",
    "Create a new container",
    "[OPTIONS] IMAGE [COMMAND] [ARG...]",
    Arity::AtLeast(1),
    |session, matches| Box::pin(run(session, matches)),
)
.flags(&[flags::CONTAINER])
.flags_first()
.refuses();

async fn run(session: &Session, matches: &Matches) -> Outcome {
    let mut request = config::request(matches).map_err(refused)?;
    let id = create(session, matches, &mut request)
        .await
        .map_err(|failure| failure.with_code(125))?;
    say(&id)?;
    Ok(0)
}

/// A command line that can't be carried out.
pub fn refused(message: String) -> Failure {
    Failure::text(message).with_code(125)
}

/// The file that will hold the ID; removed again when no container came of it.
struct IdFile {
    path: PathBuf,
    written: bool,
}

impl IdFile {
    fn open(path: &str) -> Result<Option<IdFile>, Failure> {
        if path.is_empty() {
            return Ok(None);
        }
        let path = PathBuf::from(path);
        match std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&path)
        {
            Ok(_) => Ok(Some(IdFile { path, written: false })),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Err(Failure::text(format!(
                "container ID file found, make sure the other container isn't running or delete {}",
                path.display()
            ))),
            Err(error) => Err(Failure::text(format!(
                "failed to create the container ID file: {error}"
            ))),
        }
    }

    fn write(&mut self, id: &str) -> Result<(), Failure> {
        std::fs::write(&self.path, id).map_err(|error| {
            Failure::text(format!("failed to write the container ID to the file: {error}"))
        })?;
        self.written = true;
        Ok(())
    }
}

impl Drop for IdFile {
    fn drop(&mut self) {
        if !self.written {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Makes the container and answers with its ID.
pub async fn create(
    session: &Session,
    matches: &Matches,
    request: &mut CreateContainerRequest,
) -> Result<String, Failure> {
    let policy = modes::pull(matches.text_or_default("pull")).map_err(Failure::text)?;
    let image = request.config.image.clone();
    let is_id = image.len() == 64 && image.bytes().all(|byte| byte.is_ascii_hexdigit());
    let reference = match spec::Reference::parse_normalized(&image) {
        _ if is_id => None,
        Ok(reference) => Some(reference.or_latest()),
        Err(error) => return Err(Failure::text(error.to_string())),
    };
    let platform = platform(matches)?;
    if let (Some((rows, columns)), Some(host)) = (terminal::size(), request.host_config.as_mut())
        && terminal::stdout_is_terminal()
    {
        host.console_size = api_types::ConsoleSize([u64::from(rows), u64::from(columns)].map(|n| n as _));
    }
    let mut id_file = IdFile::open(matches.text("cidfile").unwrap_or_default())?;
    let quiet = matches.bool("quiet");
    if policy == Pull::Always
        && let Some(reference) = &reference
    {
        pull::fetch(session, reference, &platform, quiet).await?;
    }
    let path = Query::new("/containers/create")
        .text("name", matches.text("name").unwrap_or_default())
        .text("platform", &platform)
        .build();
    let created = match session.client.post_json(&path, request).await {
        Err(failure) if failure.is_not_found() && policy == Pull::Missing => {
            let Some(reference) = reference.filter(|_| failure.message.contains("No such image")) else {
                return Err(failure);
            };
            if !quiet {
                eprintln!("Unable to find image '{}' locally", reference.familiar());
            }
            pull::fetch(session, &reference, &platform, quiet).await?;
            session.client.post_json(&path, request).await?
        }
        other => other?,
    };
    let created: CreateContainerResponse = created.model().await?;
    for warning in &created.warnings {
        eprintln!("WARNING: {warning}");
    }
    if let Some(file) = &mut id_file {
        file.write(&created.id)?;
    }
    Ok(created.id)
}

/// `--platform`, or `DOCKER_DEFAULT_PLATFORM`.
pub fn platform(matches: &Matches) -> Result<String, Failure> {
    let text = match matches.text("platform") {
        Some(text) => text.to_owned(),
        None => std::env::var("DOCKER_DEFAULT_PLATFORM").unwrap_or_default(),
    };
    if !text.is_empty() && text.parse::<spec::Platform>().is_err() {
        return Err(Failure::text(format!(
            "error parsing specified platform: {text:?}: cannot parse platform specifier: invalid argument"
        )));
    }
    Ok(text)
}
