//! Where a build's files come from: the client's directory, a repository, an archive; and its Dockerfile among them.

use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;

use ::session::enclosed::Enclosed;
use build::pattern::{Ignore, clean};
use build::{Access, RemoteContext, Ssh};
use rustix::fs::{Mode, OFlags};
use sys::beneath::resolve_in_root;

use super::Options;
use crate::address::without_login;
use crate::error::Failure;
use crate::files::{Purpose, Selection};
use crate::job::Job;
use crate::service::Service;
use crate::session::{Directory, Session, SessionClient};

/// The largest Dockerfile or ignore file that is read.
const MAX_TEXT: u64 = 4 << 20;

/// A Dockerfile and where the rest of the build's files lies.
pub struct Sources {
    pub name: String,
    pub dockerfile: Vec<u8>,
    pub context: Directory,
}

/// Gets what has to be known before anything is planned.
pub async fn sources(
    service: &Service,
    job: &Arc<Job>,
    session: &Session,
    options: &Options,
) -> Result<Sources, Failure> {
    if !options.context.is_empty() {
        return remote(service, job, session, options).await;
    }
    if let Some(enclosed) = job.enclosed.as_ref().filter(|_| options.dockerfile_key.is_none()) {
        return with_request(job, options, enclosed);
    }
    let key = options.dockerfile_key.as_deref().unwrap_or("dockerfile");
    // Both at once: the Dockerfile seldom has an ignore file of its own, in whose place the other would not be needed.
    let title = "[internal] load .dockerignore";
    let (dockerfile, ignore) = tokio::join!(
        of_client(service, job, session, options, key),
        ignore_of(service, job, session, options, &options.context_key, title),
    );
    let (name, dockerfile, own_ignore) = dockerfile?;
    let ignore = match own_ignore {
        Some(text) => Some(text),
        None => ignore?,
    };
    Ok(Sources {
        name,
        dockerfile,
        context: Directory::Session {
            name: options.context_key.clone(),
            exclude: patterns(ignore.as_deref().unwrap_or_default())?,
            include: Vec::new(),
            paths: None,
        },
    })
}

/// What came with the request need not be asked for; it is told as if it had been.
fn with_request(job: &Job, options: &Options, enclosed: &Enclosed) -> Result<Sources, Failure> {
    let name = options.filename.clone();
    let ignore = enclosed.ignore.as_deref().unwrap_or_default();
    let told = |title: &str, what: &str, bytes: usize| {
        let step = job.begin(title);
        step.transferred(&format!("transferring {what}:"), bytes as u64, true);
        step.end(None);
    };
    let title = format!("[internal] load build definition from {name}");
    told(&title, "dockerfile", enclosed.dockerfile.len());
    told(
        "[internal] load .dockerignore",
        &options.context_key,
        ignore.len(),
    );
    Ok(Sources {
        name,
        dockerfile: enclosed.dockerfile.clone(),
        context: Directory::Session {
            name: options.context_key.clone(),
            exclude: patterns(ignore)?,
            include: Vec::new(),
            paths: None,
        },
    })
}

/// The Dockerfile from the client, and its own ignore file if it has one.
async fn of_client(
    service: &Service,
    job: &Arc<Job>,
    session: &Session,
    options: &Options,
    key: &str,
) -> Result<(String, Vec<u8>, Option<Vec<u8>>), Failure> {
    let name = options.filename.as_str();
    let mut paths = vec![name.to_owned(), format!("{name}.dockerignore")];
    // Looked for as well, if none was asked for.
    if name == "Dockerfile" {
        paths.push("dockerfile".to_owned());
    }
    let selection = Selection {
        directory: key.to_owned(),
        purpose: Purpose::Dockerfile,
        paths: Some(paths),
        ..Selection::default()
    };
    let title = format!("[internal] load build definition from {name}");
    let session = service.session_of(session, options, key).await?;
    let local = service.locals.fetch(&session, &selection, &title, job).await?;
    let read = |name: &str| read_beneath(local.path(), name);
    let (name, text) = match (read(name)?, name) {
        (Some(text), name) => (name.to_owned(), text),
        (None, "Dockerfile") => match read("dockerfile")? {
            Some(text) => ("dockerfile".to_owned(), text),
            None => return Err(no_dockerfile(name)),
        },
        (None, name) => return Err(no_dockerfile(name)),
    };
    let ignore = read(&format!("{name}.dockerignore"))?;
    Ok((name, text, ignore))
}

fn no_dockerfile(name: &str) -> Failure {
    Failure::not_found(format!(
        "failed to read dockerfile: open {name}: no such file or directory"
    ))
}

/// The ignore file of one of the client's directories.
pub async fn ignore_of(
    service: &Service,
    job: &Arc<Job>,
    session: &Session,
    options: &Options,
    directory: &str,
    title: &str,
) -> Result<Option<Vec<u8>>, Failure> {
    let selection = Selection {
        directory: directory.to_owned(),
        purpose: Purpose::Ignore,
        paths: Some(vec![".dockerignore".to_owned()]),
        ..Selection::default()
    };
    let session = service.session_of(session, options, directory).await?;
    let local = service.locals.fetch(&session, &selection, title, job).await?;
    read_beneath(local.path(), ".dockerignore")
}

/// A context that is fetched, with the Dockerfile in it unless the client sends one.
async fn remote(
    service: &Service,
    job: &Arc<Job>,
    session: &Session,
    options: &Options,
) -> Result<Sources, Failure> {
    let url = options.context.as_str();
    let directory = Arc::new(service.directory("context-")?);
    let step = job.begin(&format!(
        "[internal] load remote build context {}",
        without_login(url)
    ));
    let fetched = fetched(service, job, session, options, directory.path()).await;
    step.end(fetched.as_ref().err().map(|failure| failure.message.clone()));
    let fetched = fetched?;
    let (name, dockerfile) = match (&options.dockerfile_key, fetched.dockerfile) {
        (Some(key), None) => {
            let (name, text, _) = of_client(service, job, session, options, key).await?;
            (name, text)
        }
        (_, Some(name)) => {
            let text = read_beneath(&fetched.directory, &name)?.ok_or_else(|| no_dockerfile(&name))?;
            (name, text)
        }
        (None, None) => {
            let name = options.filename.clone();
            let text = read_beneath(&fetched.directory, &name)?.ok_or_else(|| no_dockerfile(&name))?;
            (name, text)
        }
    };
    Ok(Sources {
        name,
        dockerfile,
        context: Directory::Fetched(fetched.directory, directory),
    })
}

/// Fetches the context, or takes what the client uploads, into an empty directory.
async fn fetched(
    service: &Service,
    job: &Arc<Job>,
    session: &Session,
    options: &Options,
    into: &Path,
) -> Result<RemoteContext, Failure> {
    let uploading = service.uploaded(session, &options.context);
    let uploaded = tokio::select! {
        uploaded = uploading => uploaded?,
        () = job.stop.cancelled() => return Err(Failure::new(tonic::Code::Cancelled, "context canceled")),
    };
    if let Some(file) = uploaded {
        let into = into.to_owned();
        let unpacking = tokio::task::spawn_blocking(move || build::unpack_context(file, &into));
        return Ok(unpacking.await.map_err(Failure::broken)??);
    }
    let argument = options.build_args.get("BUILDKIT_CONTEXT_KEEP_GIT_DIR");
    let keep = matches!(argument, Some(Some(value)) if matches!(value.as_str(), "1" | "true"));
    of_url(service, job, session, &options.context, (into, keep)).await
}

/// Fetches a directory into one that is empty, with what the client lends for it; whether the history of a repository is kept.
pub async fn of_url(
    service: &Service,
    job: &Arc<Job>,
    session: &Session,
    url: &str,
    (into, keep_history): (&Path, bool),
) -> Result<RemoteContext, Failure> {
    let client = SessionClient::plain(service, session, job);
    let access = match build::is_git(url) {
        true => Some(Access::of(&client, url, &Ssh::default(), service.root()).await?),
        false => None,
    };
    Ok(build::fetch_context(url, into, keep_history, access.as_ref(), &job.stop).await?)
}

/// A text file beneath a directory; `None` where there is none. Links lead nowhere outside.
fn read_beneath(directory: &Path, name: &str) -> Result<Option<Vec<u8>>, Failure> {
    let fail = |error: io::Error| Failure::internal(format!("reading {name}: {error}"));
    let root = std::fs::File::open(directory).map_err(fail)?;
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = match resolve_in_root(root.as_fd(), name, flags, Mode::empty()) {
        Ok(fd) => std::fs::File::from(fd),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            return Ok(None);
        }
        Err(error) => return Err(fail(error)),
    };
    if !file.metadata().map_err(fail)?.is_file() {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    file.take(MAX_TEXT + 1).read_to_end(&mut bytes).map_err(fail)?;
    if bytes.len() as u64 > MAX_TEXT {
        return Err(Failure::invalid(format!("{name} has more than {MAX_TEXT} bytes")));
    }
    Ok(Some(bytes))
}

/// The patterns of an ignore file as clients take them: cleaned, comments left out.
pub fn patterns(text: &[u8]) -> Result<Vec<String>, Failure> {
    let text = String::from_utf8_lossy(text);
    Ignore::parse(&text).map_err(|error| Failure::invalid(format!(".dockerignore: {error}")))?;
    let lines = text.trim_start_matches('\u{feff}').lines().map(str::trim);
    let patterns = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    Ok(patterns
        .map(|line| match line.strip_prefix('!') {
            Some(exception) => format!("!{}", cleaned(exception.trim())),
            None => cleaned(line),
        })
        .filter(|pattern| pattern != "!")
        .collect())
}

fn cleaned(pattern: &str) -> String {
    match clean(pattern) {
        cleaned if cleaned.is_empty() => ".".to_owned(),
        cleaned => cleaned,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_cleaned() {
        let text = b"\xef\xbb\xbf# no\n/target/\n\n  !  /a/./b \n**/*.o\n.\n";
        assert_eq!(patterns(text).unwrap(), ["target", "!a/b", "**/*.o", "."]);
        assert!(patterns(b"[").is_err());
    }
}
