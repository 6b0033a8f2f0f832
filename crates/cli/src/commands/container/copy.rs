//! `cp`: files between a container and the client, as a tar stream; `-` is the tar itself on stdin or stdout.
//!
//! What comes out of a container is hostile: names are taken apart, `..` is refused, and every entry is made relative to
//! a descriptor of its directory, opened beneath the destination (`openat2`), so that no link leads outside.

use crate::client::body::{Body, BodyWriter};
use crate::client::query::{Query, segment};
use crate::command::{Arity, Command};
use crate::commands::image::archive::upload;
use crate::extract;
use crate::failure::{Failure, Outcome};
use crate::flags::{Flag, Matches};
use crate::format::size;
use crate::grammar::env::describe;
use crate::session::Session;
use crate::terminal;
use api_types::PathStat;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderValue, Method, header};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

pub const COMMAND: Command = Command::new(
    "cp",
    "Copy files/folders between a container and the local filesystem",
    "[OPTIONS] CONTAINER:SRC_PATH DEST_PATH|- | [OPTIONS] SRC_PATH|- CONTAINER:DEST_PATH",
    Arity::Exactly(2),
    |session, matches| Box::pin(run(session, matches)),
)
.flags(&[&[
    Flag::bool("archive", "Keep owners and groups").short('a'),
    Flag::bool("follow-link", "Copy what a link in SRC_PATH points to").short('L'),
    Flag::bool("quiet", "Do not tell what was copied").short('q'),
]]);

/// `container:path`; a path that begins with a slash or dot is local, whatever it contains.
fn split(text: &str) -> (Option<&str>, &str) {
    match text.split_once(':') {
        Some((container, path)) if !text.starts_with(['/', '.']) && !container.is_empty() => {
            (Some(container), path)
        }
        _ => (None, text),
    }
}

async fn run(session: &Session, matches: &Matches) -> Outcome {
    match (split(matches.arg(0)), split(matches.arg(1))) {
        ((Some(_), _), (Some(_), _)) => Err(Failure::text("copying between containers is not supported")),
        ((None, _), (None, _)) => Err(Failure::text("must specify at least one container source")),
        ((Some(container), source), (None, target)) => {
            from(session, matches, container, source, target).await
        }
        ((None, source), (Some(container), target)) => to(session, matches, container, source, target).await,
    }
}

fn tell(matches: &Matches, bytes: u64, target: &str) {
    if !matches.bool("quiet") {
        eprintln!("Successfully copied {} to {target}", size::decimal(bytes as f64));
    }
}

fn decode(header: Option<&str>) -> Result<PathStat, Failure> {
    let bytes = STANDARD.decode(header.unwrap_or_default()).unwrap_or_default();
    serde_json::from_slice(&bytes)
        .map_err(|error| Failure::text(format!("unable to decode container path stat header: {error}")))
}

async fn stat(session: &Session, container: &str, path: &str) -> Result<PathStat, Failure> {
    let query = Query::new(format!("/containers/{}/archive", segment(container)))
        .always("path", path)
        .build();
    let reply = match session
        .client
        .send(Method::HEAD, &query, HeaderMap::new(), Body::empty())
        .await
    {
        // The answer to HEAD has no body that could tell more.
        Err(failure) if failure.is_not_found() => {
            let text = format!("Could not find the file {path} in container {container}");
            return Err(Failure::daemon(404, &text));
        }
        other => other?,
    };
    let stat = decode(reply.header("x-docker-container-path-stat"))?;
    reply.done().await?;
    Ok(stat)
}

/// Go's os.ModeDir and os.ModeSymlink.
const MODE_DIR: u32 = 1 << 31;
const MODE_LINK: u32 = 1 << 27;
/// os.ModeDevice, ModeNamedPipe and ModeSocket: what a copy would take the place of, and not write to.
const MODE_SPECIAL: u32 = 1 << 26 | 1 << 25 | 1 << 24;

/// What stands in the way of a copy, in words.
fn special(device: bool) -> &'static str {
    match device {
        true => "got a device",
        false => "got a pipe or a socket",
    }
}

/// Whether a path asks for a directory's content rather than the directory.
fn content_only(path: &str) -> bool {
    path == "." || path.ends_with("/.")
}

async fn from(session: &Session, matches: &Matches, container: &str, source: &str, target: &str) -> Outcome {
    let mut path = source.to_owned();
    if matches.bool("follow-link") {
        let stat = stat(session, container, &path).await?;
        if stat.mode & MODE_LINK != 0 && !stat.link_target.is_empty() {
            path = match stat.link_target.starts_with('/') {
                true => stat.link_target,
                false => format!(
                    "{}/{}",
                    path.rsplit_once('/').map_or("", |(dir, _)| dir),
                    stat.link_target
                ),
            };
        }
    }
    let query = Query::new(format!("/containers/{}/archive", segment(container)))
        .always("path", &path)
        .build();
    let reply = session.client.get(&query).await?;
    let stat = decode(reply.header("x-docker-container-path-stat"))?;
    if target == "-" {
        if terminal::stdout_is_terminal() {
            return Err(Failure::text(
                "cowardly refusing to save to a terminal. Redirect the output",
            ));
        }
        reply.stream().copy_to(&mut std::io::stdout().lock()).await?;
        return Ok(0);
    }
    let place = place(
        Path::new(target),
        target,
        stat.mode & MODE_DIR != 0,
        &stat.name,
        content_only(source),
    )?;
    let reader = reply.stream().reader();
    let owners = matches.bool("archive");
    let task = tokio::task::spawn_blocking(move || extract::extract(reader, &place.0, &place.1, owners));
    let bytes = task
        .await
        .map_err(|error| Failure::text(error.to_string()))?
        .map_err(|error| Failure::text(format!("cannot copy to {target}: {error}")))?;
    tell(matches, bytes, target);
    Ok(0)
}

/// Where a copied file or directory lands: an existing directory, and the name in it (empty: the directory itself).
fn place(
    target: &Path,
    text: &str,
    dir: bool,
    name: &str,
    content: bool,
) -> Result<(PathBuf, String), Failure> {
    let existing = std::fs::metadata(target).ok();
    match existing {
        Some(meta) if meta.is_dir() && dir && content => Ok((target.to_owned(), String::new())),
        Some(meta) if meta.is_dir() => Ok((target.to_owned(), name.trim_matches('/').to_owned())),
        Some(meta) if !meta.is_file() => {
            let kind = meta.file_type();
            let device = kind.is_char_device() || kind.is_block_device();
            Err(Failure::text(format!(
                "invalid output path: {text:?} must be a directory or a regular file: {}",
                special(device)
            )))
        }
        Some(_) if dir => Err(Failure::text("cannot copy directory")),
        Some(_) if text.ends_with('/') => Err(Failure::text("not a directory")),
        None if !dir && text.ends_with('/') => Err(Failure::text("no such directory")),
        _ => {
            let parent = match target.parent() {
                Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
                _ => PathBuf::from("."),
            };
            if !parent.is_dir() {
                return Err(Failure::text(format!(
                    "invalid output path: directory {:?} does not exist",
                    parent.display().to_string()
                )));
            }
            let base = target
                .file_name()
                .map(|name| name.to_string_lossy().into_owned())
                .unwrap_or_default();
            Ok((parent, base))
        }
    }
}

async fn to(session: &Session, matches: &Matches, container: &str, source: &str, target: &str) -> Outcome {
    let mut target_path = target.to_owned();
    let mut known = stat(session, container, &target_path).await;
    if let Ok(found) = &known
        && found.mode & MODE_LINK != 0
        && !found.link_target.is_empty()
    {
        target_path = match found.link_target.starts_with('/') {
            true => found.link_target.clone(),
            false => format!(
                "{}/{}",
                target_path.rsplit_once('/').map_or("", |(dir, _)| dir),
                found.link_target
            ),
        };
        known = stat(session, container, &target_path).await;
    }
    if let Ok(found) = &known
        && found.mode & MODE_SPECIAL != 0
    {
        return Err(Failure::text(format!(
            "destination \"{container}:{target}\" must be a directory or a regular file: {}",
            special(found.mode & 1 << 26 != 0)
        )));
    }
    let into_dir = match &known {
        Ok(found) => Some(found.mode & MODE_DIR != 0),
        Err(failure) if failure.is_not_found() => None,
        Err(_) => return known.map(|_| 0),
    };
    let put = |dir: &str| {
        Query::new(format!("/containers/{}/archive", segment(container)))
            .flag("copyUIDGID", matches.bool("archive"))
            .always("noOverwriteDirNonDir", "true")
            .always("path", dir)
            .build()
    };
    let mut headers = HeaderMap::new();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/x-tar"),
    );
    if source == "-" {
        if into_dir != Some(true) {
            return Err(Failure::text(format!(
                "destination \"{container}:{target}\" must be a directory"
            )));
        }
        let body = upload(std::io::stdin())?;
        session
            .client
            .send(Method::PUT, &put(&target_path), headers, body)
            .await?
            .done()
            .await?;
        return Ok(0);
    }
    let mut local = PathBuf::from(source);
    if matches.bool("follow-link") {
        local = std::fs::canonicalize(&local).unwrap_or(local);
    }
    let meta = std::fs::symlink_metadata(&local)
        .map_err(|error| Failure::text(format!("lstat {source}: {}", describe(&error))))?;
    let is_dir = meta.is_dir() || (source.ends_with('/') && local.is_dir());
    if source.ends_with('/') && !is_dir {
        return Err(Failure::text("not a directory"));
    }
    let clean = crate::grammar::mounts::clean(&target_path);
    let (parent, base) = clean
        .rsplit_once('/')
        .map_or(("/", clean.as_str()), |(dir, base)| {
            (if dir.is_empty() { "/" } else { dir }, base)
        });
    let own = std::fs::canonicalize(&local)
        .ok()
        .filter(|_| is_dir)
        .unwrap_or_else(|| local.clone());
    let own = own
        .file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default();
    let (dir, name) = match into_dir {
        Some(true) if is_dir && content_only(source) => (target_path.clone(), String::new()),
        Some(true) => (target_path.clone(), own),
        Some(false) if is_dir => return Err(Failure::text("cannot copy directory")),
        Some(false) if target.ends_with('/') => return Err(Failure::text("not a directory")),
        None if !is_dir && target.ends_with('/') => return Err(Failure::text("no such directory")),
        _ => (parent.to_owned(), base.to_owned()),
    };
    let (mut writer, body) = Body::piped();
    let keep = matches.bool("archive");
    let count = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
    let counter = count.clone();
    std::thread::Builder::new()
        .name("upload".into())
        .spawn(move || {
            let result = crate::pack::pack_tree(&local, &name, keep, &mut writer).map(|bytes| {
                counter.store(bytes, std::sync::atomic::Ordering::Relaxed);
            });
            BodyWriter::finish(writer, result);
        })
        .map_err(|error| Failure::text(format!("cannot start a thread: {error}")))?;
    session
        .client
        .send(Method::PUT, &put(&dir), headers, body)
        .await?
        .done()
        .await?;
    tell(
        matches,
        count.load(std::sync::atomic::Ordering::Relaxed),
        &format!("{container}:{target}"),
    );
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_and_places() {
        assert_eq!(split("c:/x"), (Some("c"), "/x"));
        assert_eq!(split("./c:x"), (None, "./c:x"));
        assert_eq!(split("/a:b"), (None, "/a:b"));
        let dir = tempfile::tempdir().unwrap();
        let text = dir.path().display().to_string();
        let at = |path: &str, is_dir, content| {
            place(Path::new(path), path, is_dir, "src", content).map_err(|f| f.message)
        };
        assert_eq!(at(&text, false, false), Ok((dir.path().to_owned(), "src".into())));
        assert_eq!(at(&text, true, true), Ok((dir.path().to_owned(), String::new())));
        assert_eq!(
            at(&format!("{text}/new"), true, true),
            Ok((dir.path().to_owned(), "new".into()))
        );
        assert_eq!(
            at(&format!("{text}/new/"), false, false),
            Err("no such directory".into())
        );
    }
}
