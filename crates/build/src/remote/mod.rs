//! What a build takes from elsewhere: a file of a web server, and the context itself (`POST /build?remote=`).
//!
//! ```text
//!   URL of a git repository ──git clone──> directory (its subdirectory)
//!   URL of an archive ──────fetch, unpack─> directory
//!   URL of a text ──────────fetch─────────> directory with that text as its Dockerfile
//! ```
//!
//! Servers are foreign: what they send is bounded and unpacked beneath a directory descriptor, git is given no
//! configuration of the host and no way to local files. Whatever fails, the caller's directory holds all there is.

mod access;
mod fetch;
mod git;

use std::io::Read;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use tokio_util::sync::CancellationToken;

use crate::archive;
use crate::error::BuildError;
use crate::parse::MAX_SIZE;

pub use access::{Access, Ssh};
pub use fetch::{Fetched, fetch, is_url, without_password};
pub use git::{Checkout, checkout, is_git};

/// A context that was fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteContext {
    /// The directory given, or one below it.
    pub directory: PathBuf,
    /// Where the URL was a Dockerfile's: its name in the directory, whatever the request calls it.
    pub dockerfile: Option<String>,
}

/// Fetches the context that `url` names into the empty directory `into`. `access` is what a client lends for a repository;
/// without it that is cloned as the daemon's user.
pub async fn fetch_context(
    url: &str,
    into: &Path,
    keep_git_dir: bool,
    access: Option<&Access>,
    stop: &CancellationToken,
) -> Result<RemoteContext, BuildError> {
    if is_git(url) {
        let directory = git::clone(url, into, keep_git_dir, access, stop).await?;
        return Ok(RemoteContext {
            directory,
            dockerfile: None,
        });
    }
    if !is_url(url) {
        return Err(BuildError::invalid(format!(
            "remote context {url:?}: expected the http:// or https:// URL of an archive or a Dockerfile, or a git repository"
        )));
    }
    let fetched = fetch(url, None, into, stop)
        .await
        .map_err(|error| error.context("error downloading remote context"))?;
    let into = into.to_owned();
    let open = move || {
        let file = fetched.open();
        let file = file.map_err(|error| BuildError::io("reading the remote context", &error))?;
        unpack_context(file, &into)
    };
    tokio::task::spawn_blocking(open).await?
}

/// Makes a context of a file that came from elsewhere, an archive or a Dockerfile, in the empty directory `into`. Blocks.
pub fn unpack_context(file: std::fs::File, into: &Path) -> Result<RemoteContext, BuildError> {
    let failed = |error: std::io::Error| BuildError::io("reading the remote context", &error);
    let mut context = RemoteContext {
        directory: into.to_owned(),
        dockerfile: None,
    };
    if archive::is_archive(&file).map_err(failed)? {
        let root = std::fs::File::open(into).map_err(failed)?;
        archive::unpack(file, root.as_fd(), Path::new(""), None, "remote context")?;
        return Ok(context);
    }
    let limit = u64::try_from(MAX_SIZE).unwrap_or(u64::MAX);
    let mut text = Vec::new();
    file.take(limit + 1).read_to_end(&mut text).map_err(failed)?;
    if text.len() as u64 > limit {
        return Err(BuildError::invalid(format!(
            "the remote context is neither an archive nor a Dockerfile of at most {limit} bytes"
        )));
    }
    let name = "Dockerfile".to_owned();
    std::fs::write(into.join(&name), text).map_err(failed)?;
    context.dockerfile = Some(name);
    Ok(context)
}
