//! A context or a source of ADD from a git repository, by the `git` program: `URL[#[REF][:SUBDIRECTORY]]`, or
//! `URL?ref=…&subdir=…`, as Docker writes it.
//!
//! The repository is foreign. git is run without the host's configuration and hooks, may speak only protocols of the
//! network (a submodule could else name a directory of the host), never asks for a password, and is given nothing
//! that starts with a dash where it expects a name. The subdirectory is taken only if no link leads there. What it may show a
//! server of a client's build is in [`super::access`].

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use spec::ErrorClass;
use tokio::process::Command;
use tokio_util::sync::CancellationToken;

use super::access::Access;
use super::is_url;
use crate::error::BuildError;

/// Whether a source names a git repository and not a file.
pub fn is_git(source: &str) -> bool {
    let bare = source.split(['#', '?']).next().unwrap_or_default();
    let scheme = ["git://", "ssh://", "git@", "github.com/"]
        .iter()
        .any(|start| source.starts_with(start));
    scheme || (is_url(source) && bare.ends_with(".git"))
}

/// What a source asks for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Wanted {
    repository: String,
    /// Empty: what the repository's HEAD is.
    reference: String,
    /// Relative; empty: the root.
    subdirectory: String,
    /// How the commit's name has to begin.
    commit: Option<String>,
    keep_git_dir: Option<bool>,
    without_submodules: bool,
}

/// The keys of a query that are meant for the builder and not for the server.
const KEYS: [&str; 9] = [
    "ref",
    "tag",
    "branch",
    "subdir",
    "commit",
    "checksum",
    "keep-git-dir",
    "submodules",
    "mtime",
];

/// The address of a repository that may be one of those that need not say how they are reached.
pub(super) fn address(repository: &str) -> Cow<'_, str> {
    match repository.starts_with("github.com/") {
        true => format!("https://{repository}").into(),
        false => repository.into(),
    }
}

impl Wanted {
    fn parse(source: &str) -> Result<Wanted, BuildError> {
        let (repository, fragment) = source.split_once('#').unwrap_or((source, ""));
        let (reference, subdirectory) = fragment.split_once(':').unwrap_or((fragment, ""));
        let (repository, query) = repository.split_once('?').unwrap_or((repository, ""));
        let mut wanted = Wanted {
            repository: address(repository).into_owned(),
            reference: reference.to_owned(),
            subdirectory: subdirectory.trim_matches('/').to_owned(),
            ..Wanted::default()
        };
        for (key, value) in url::form_urlencoded::parse(query.as_bytes()) {
            wanted.set(source, &key, &value)?;
        }
        let reference = &wanted.reference;
        if reference.starts_with('-') || reference.contains([' ', '\t', '\n']) {
            return Err(BuildError::invalid(format!(
                "invalid git reference {reference:?} in {source}"
            )));
        }
        Ok(wanted)
    }

    fn set(&mut self, source: &str, key: &str, value: &str) -> Result<(), BuildError> {
        let refuse = |why: String| BuildError::invalid(format!("{source}: {why}"));
        let yes = || match value {
            "" | "1" | "true" => Ok(true),
            "0" | "false" => Ok(false),
            _ => Err(refuse(format!("{key} is true or false, not {value:?}"))),
        };
        match key {
            "ref" | "tag" | "branch" if !self.reference.is_empty() => {
                return Err(refuse("the reference is given twice".to_owned()));
            }
            "ref" => self.reference = value.to_owned(),
            "tag" => self.reference = format!("refs/tags/{value}"),
            "branch" => self.reference = format!("refs/heads/{value}"),
            "subdir" if !self.subdirectory.is_empty() => {
                return Err(refuse("the directory is given twice".to_owned()));
            }
            "subdir" => self.subdirectory = value.trim_matches('/').to_owned(),
            "commit" | "checksum" => self.commit = Some(value.to_ascii_lowercase()),
            "keep-git-dir" => self.keep_git_dir = Some(yes()?),
            "submodules" => self.without_submodules = !yes()?,
            // Times are always those of the commit, so that the same commit gives the same image.
            "mtime" => {}
            _ => {
                let advice = match crate::instruction::nearest(key, &KEYS) {
                    Some(known) => format!("did you mean {known}?"),
                    None => format!("known are {}", KEYS.join(", ")),
                };
                return Err(refuse(format!("unexpected key {key:?} in the query: {advice}")));
            }
        }
        Ok(())
    }
}

/// A commit of a repository as files, which go when it is dropped.
pub struct Checkout {
    /// The commit's whole name.
    pub commit: String,
    pub subdirectory: String,
    /// Whether `.git` is among the files.
    pub keeps_history: bool,
    directory: PathBuf,
    _room: tempfile::TempDir,
}

impl Checkout {
    /// The files: those of the subdirectory that was asked for.
    pub fn directory(&self) -> &Path {
        &self.directory
    }
}

/// Checks `source` out, below a directory of its own in `room`; without an [`Access`] as the daemon's user.
pub async fn checkout(
    source: &str,
    keep_git_dir: Option<bool>,
    room: &Path,
    access: Option<&Access>,
    stop: &CancellationToken,
) -> Result<Checkout, BuildError> {
    let room = room.join("tmp");
    let fail = |error: std::io::Error| BuildError::io("making a directory for git", &error);
    std::fs::create_dir_all(&room).map_err(fail)?;
    let room = tempfile::Builder::new()
        .prefix("build-git-")
        .tempdir_in(room)
        .map_err(fail)?;
    let mut wanted = Wanted::parse(source)?;
    wanted.keep_git_dir = keep_git_dir.or(wanted.keep_git_dir);
    let (directory, commit) = clone_wanted(&wanted, room.path(), access, stop).await?;
    Ok(Checkout {
        commit,
        subdirectory: wanted.subdirectory,
        keeps_history: wanted.keep_git_dir.unwrap_or(false),
        directory,
        _room: room,
    })
}

/// Clones the repository into the empty directory `into` and gives the directory that is the context.
pub(super) async fn clone(
    source: &str,
    into: &Path,
    keep_git_dir: bool,
    access: Option<&Access>,
    stop: &CancellationToken,
) -> Result<PathBuf, BuildError> {
    let mut wanted = Wanted::parse(source)?;
    wanted.keep_git_dir.get_or_insert(keep_git_dir);
    let (directory, _) = clone_wanted(&wanted, into, access, stop).await?;
    Ok(directory)
}

async fn clone_wanted(
    wanted: &Wanted,
    into: &Path,
    access: Option<&Access>,
    stop: &CancellationToken,
) -> Result<(PathBuf, String), BuildError> {
    let checkout = into.join("repository");
    std::fs::create_dir(&checkout).map_err(|error| BuildError::io("making a directory for git", &error))?;
    let variables = access.map_or(Ok(Vec::new()), |access| access.variables(into));
    let git = Git {
        home: into,
        checkout: &checkout,
        access,
        variables: variables.map_err(|error| BuildError::io("preparing what git may use", &error))?,
        stop,
    };
    git.run(&["init", "--quiet"]).await?;
    git.run(&["remote", "add", "origin", &wanted.repository]).await?;
    let reference = match wanted.reference.as_str() {
        "" => "HEAD",
        reference => reference,
    };
    // Servers of plain files send the whole history only, and many give a commit only by way of a branch.
    let shallow = git
        .run(&["fetch", "--quiet", "--depth", "1", "origin", reference])
        .await;
    let fetched = match shallow {
        Ok(()) => "FETCH_HEAD".to_owned(),
        Err(BuildError::Cancelled) => return Err(BuildError::Cancelled),
        Err(_) => {
            git.run(&[
                "fetch",
                "--quiet",
                "--tags",
                "origin",
                "+refs/heads/*:refs/remotes/origin/*",
            ])
            .await?;
            git.locate(&wanted.reference).await?
        }
    };
    git.run(&["checkout", "--quiet", "--detach", &fetched]).await?;
    let commit = git.say(&["rev-parse", "HEAD"]).await?;
    if let Some(promised) = &wanted.commit
        && !commit.starts_with(promised.as_str())
    {
        return Err(BuildError::invalid(format!(
            "{} is at commit {commit}, and {promised} was promised",
            wanted.repository
        )));
    }
    let time = git.say(&["show", "--no-patch", "--format=%ct", "HEAD"]).await?;
    if checkout.join(".gitmodules").exists() && !wanted.without_submodules {
        git.run(&[
            "submodule",
            "--quiet",
            "update",
            "--init",
            "--recursive",
            "--depth",
            "1",
        ])
        .await?;
    }
    let directory = below(&checkout, &wanted.subdirectory)?;
    if !wanted.keep_git_dir.unwrap_or(false) {
        // The history is no part of what is built, and would make equal contexts differ.
        std::fs::remove_dir_all(checkout.join(".git"))
            .map_err(|error| BuildError::io("removing the history of the repository", &error))?;
    }
    let (top, seconds) = (checkout.clone(), time.trim().parse().unwrap_or(0));
    tokio::task::spawn_blocking(move || settle(&top, seconds))
        .await?
        .map_err(|error| BuildError::io("setting the times of the repository's files", &error))?;
    Ok((directory, commit))
}

/// Gives all files the time of the commit, and permissions that no umask of the daemon shows in.
fn settle(top: &Path, seconds: i64) -> std::io::Result<()> {
    use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};
    use std::os::unix::fs::PermissionsExt;
    let time = Timespec {
        tv_sec: seconds,
        tv_nsec: 0,
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    let mut waiting = vec![top.to_owned()];
    let mut directories = Vec::new();
    while let Some(directory) = waiting.pop() {
        for entry in std::fs::read_dir(&directory)? {
            let (path, meta) = entry.and_then(|entry| Ok((entry.path(), entry.metadata()?)))?;
            if meta.is_dir() {
                waiting.push(path);
                continue;
            }
            if meta.is_file() {
                let executable = meta.permissions().mode() & 0o100 != 0;
                let mode = if executable { 0o755 } else { 0o644 };
                std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode))?;
            }
            utimensat(CWD, &path, &times, AtFlags::SYMLINK_NOFOLLOW)?;
        }
        directories.push(directory);
    }
    for directory in directories.iter().rev() {
        std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o755))?;
        utimensat(CWD, directory, &times, AtFlags::empty())?;
    }
    Ok(())
}

/// The directory below `root`, if no link leads there.
fn below(root: &Path, subdirectory: &str) -> Result<PathBuf, BuildError> {
    let refuse = |why: &str| {
        BuildError::invalid(format!(
            "the repository has no usable directory {subdirectory:?}: {why}"
        ))
    };
    let mut path = root.to_owned();
    for name in subdirectory
        .split('/')
        .filter(|name| !name.is_empty() && *name != ".")
    {
        if name == ".." || name == ".git" {
            return Err(refuse("it leads outside"));
        }
        path.push(name);
        match std::fs::symlink_metadata(&path) {
            Ok(found) if found.is_dir() => {}
            Ok(_) => return Err(refuse("it is no directory")),
            Err(error) => return Err(refuse(&error.to_string())),
        }
    }
    Ok(path)
}

struct Git<'a> {
    home: &'a Path,
    checkout: &'a Path,
    access: Option<&'a Access>,
    variables: Vec<(String, String)>,
    stop: &'a CancellationToken,
}

impl Git<'_> {
    /// What `reference` is among the branches and tags that were fetched, or as a commit.
    async fn locate(&self, reference: &str) -> Result<String, BuildError> {
        if reference.is_empty() {
            self.run(&["remote", "set-head", "origin", "--auto"]).await?;
            return Ok("refs/remotes/origin/HEAD".to_owned());
        }
        for candidate in [
            format!("refs/remotes/origin/{reference}"),
            format!("refs/tags/{reference}"),
            reference.to_owned(),
        ] {
            let commit = format!("{candidate}^{{commit}}");
            match self.run(&["rev-parse", "--quiet", "--verify", &commit]).await {
                Ok(()) => return Ok(candidate),
                Err(BuildError::Cancelled) => return Err(BuildError::Cancelled),
                Err(_) => continue,
            }
        }
        Err(BuildError::step(
            format!("the repository has no branch, tag or commit {reference:?}"),
            ErrorClass::NotFound,
        ))
    }

    async fn run(&self, args: &[&str]) -> Result<(), BuildError> {
        self.say(args).await.map(|_| ())
    }

    /// What git says on its standard output.
    async fn say(&self, args: &[&str]) -> Result<String, BuildError> {
        let mut command = Command::new("git");
        command
            .arg("-C")
            .arg(self.checkout)
            .args([
                "-c",
                "core.hooksPath=/dev/null",
                "-c",
                "advice.detachedHead=false",
            ])
            .args(args)
            .env_clear()
            .env(
                "PATH",
                std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into()),
            )
            .env("HOME", self.home)
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_ALLOW_PROTOCOL", "http:https:git:ssh")
            .env("LC_ALL", "C")
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .kill_on_drop(true);
        let verb = args.first().copied().unwrap_or_default();
        let output = tokio::select! {
            output = command.output() => output,
            () = self.stop.cancelled() => return Err(BuildError::Cancelled),
        };
        let output = match output {
            Ok(output) => output,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(BuildError::step(
                    "a git repository needs the program git, which is not installed where the daemon runs",
                    ErrorClass::NotImplemented,
                ));
            }
            Err(error) => return Err(BuildError::io("running git", &error)),
        };
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let advice = self.access.map(|access| access.advice(&said)).unwrap_or_default();
        Err(BuildError::step(
            format!("git {verb} failed: {}{advice}", readable(&said)),
            ErrorClass::Unavailable,
        ))
    }
}

/// What git says of every server that it gets nothing from.
const ADVICE: [&str; 2] = [
    "Please make sure you have the correct access rights",
    "and the repository exists.",
];

/// The last lines of what git said, in one.
fn readable(text: &str) -> String {
    let lines: Vec<&str> = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !ADVICE.contains(line))
        .collect();
    let last = lines
        .get(lines.len().saturating_sub(3)..)
        .unwrap_or_default()
        .join("; ");
    last.chars().filter(|c| !c.is_control()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repositories_are_told_from_files() {
        assert!(is_git("https://h/x.git#main"));
        assert!(is_git("git@github.com:a/b") && is_git("github.com/a/b"));
        // Whoever asks for a login asks for the server's that is meant.
        assert_eq!(address("github.com/a/b#main"), "https://github.com/a/b#main");
        assert_eq!(address("git@github.com:a/b"), "git@github.com:a/b");
        assert!(!is_git("https://h/x.tar.gz"));
    }

    #[test]
    fn what_went_wrong_is_not_hidden_behind_advice() {
        let said = "git@h: Permission denied (publickey).\r\nfatal: Could not read from remote repository.\n\n\
                    Please make sure you have the correct access rights\nand the repository exists.\n";
        assert_eq!(
            readable(said),
            "git@h: Permission denied (publickey).; fatal: Could not read from remote repository."
        );
    }

    #[test]
    fn reference_and_directory_follow_the_repository() {
        let parts = |source: &str| {
            let wanted = Wanted::parse(source).unwrap();
            [wanted.repository, wanted.reference, wanted.subdirectory].join(" ")
        };
        assert_eq!(parts("https://h/x.git"), "https://h/x.git  ");
        assert_eq!(parts("https://h/x.git#v1:a/b/"), "https://h/x.git v1 a/b");
        assert_eq!(parts("github.com/a/b#:docs"), "https://github.com/a/b  docs");
        assert!(Wanted::parse("https://h/x.git#--upload-pack=x").is_err());
    }

    #[test]
    fn a_query_says_the_same_in_words() {
        let wanted =
            Wanted::parse("https://h/x.git?branch=main&subdir=a&keep-git-dir=1&checksum=ABC").unwrap();
        assert_eq!(wanted.repository, "https://h/x.git");
        assert_eq!(
            (wanted.reference.as_str(), wanted.subdirectory.as_str()),
            ("refs/heads/main", "a")
        );
        assert_eq!(
            (wanted.keep_git_dir, wanted.commit.as_deref()),
            (Some(true), Some("abc"))
        );
        let refused = |source: &str| Wanted::parse(source).unwrap_err().to_string();
        assert!(refused("https://h/x.git?subdri=a").contains("did you mean subdir?"));
        assert!(refused("https://h/x.git?ref=a#b").contains("given twice"));
    }

    #[test]
    fn no_link_leads_out_of_the_repository() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("a/b")).unwrap();
        std::os::unix::fs::symlink("/etc", dir.path().join("out")).unwrap();
        assert_eq!(below(dir.path(), "a/./b").unwrap(), dir.path().join("a/b"));
        for bad in ["..", "a/../..", "out", "nosuch", ".git"] {
            assert!(below(dir.path(), bad).is_err(), "{bad}");
        }
    }
}
