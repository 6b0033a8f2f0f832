//! Which files of a directory are wanted: patterns that take in, patterns that leave out, and paths with what they lead to.

use std::collections::{BTreeSet, HashSet};
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, readlinkat, statat};
use sys::beneath::{list_sorted, open_beneath_no_links};

use crate::pattern::{Ignore, Pattern, PatternError, clean, has_wildcard};

/// How many links one path may go through, as the kernel has it.
const MAX_LINKS: usize = 40;

/// Why nothing can be selected.
#[derive(Debug, thiserror::Error)]
pub enum SelectError {
    #[error(transparent)]
    Pattern(#[from] PatternError),
    #[error("{0}: {1}")]
    Look(String, io::Error),
}

/// What the other end wants of a tree; without anything said, all of it.
#[derive(Debug, Default)]
pub struct Selection {
    /// `None`: everything.
    include: Option<Vec<Pattern>>,
    exclude: Ignore,
}

/// What is said of one path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Choice {
    pub wanted: bool,
    /// Whether something below it may be.
    pub below: bool,
}

impl Selection {
    /// `paths` are followed through links beneath `root`; `None`: no paths are named.
    pub fn new(
        root: BorrowedFd<'_>,
        include: &[String],
        exclude: &[String],
        paths: Option<&[String]>,
    ) -> Result<Selection, SelectError> {
        let mut patterns = Vec::new();
        let mut everything = include.is_empty() && paths.is_none();
        for text in include {
            patterns.push(Pattern::new(&clean(text))?);
        }
        if let Some(paths) = paths {
            let mut walk = Walk {
                root,
                found: BTreeSet::new(),
                seen: HashSet::new(),
            };
            for path in paths {
                walk.follow("", &names(path), 0)?;
            }
            everything |= walk.found.contains("");
            for path in walk.found.iter().filter(|path| !path.is_empty()) {
                patterns.push(Pattern::new(path)?);
            }
        }
        Ok(Selection {
            include: (!everything).then_some(patterns),
            exclude: Ignore::excluding(exclude.iter().map(String::as_str))?,
        })
    }

    pub(super) fn judge(&self, path: &str) -> Choice {
        let verdict = self.exclude.judge(path);
        let Some(include) = &self.include else {
            return Choice {
                wanted: !verdict.ignored,
                below: !verdict.prune,
            };
        };
        let (mut covered, mut below) = (false, false);
        for pattern in include {
            let mut positions = pattern.start();
            for name in path.split('/') {
                positions = pattern.step(&positions, name);
                // The pattern takes in this path, or a directory above it.
                covered |= pattern.accepts(&positions);
            }
            below |= pattern.alive_below(&positions);
        }
        Choice {
            wanted: covered && !verdict.ignored,
            below: (covered || below) && !verdict.prune,
        }
    }
}

/// A walk along the paths that are named.
struct Walk<'a> {
    root: BorrowedFd<'a>,
    found: BTreeSet<String>,
    /// Where links led already.
    seen: HashSet<String>,
}

impl Walk<'_> {
    /// Takes down the patterns for what `rest` names in the directory `done`: itself, and where the links on its way lead. A
    /// link that leads outside, or nowhere, brings only itself.
    fn follow(&mut self, done: &str, rest: &[String], links: usize) -> Result<(), SelectError> {
        let Some((first, tail)) = rest.split_first() else {
            let names = done.split('/').map(escaped);
            self.found.insert(names.collect::<Vec<_>>().join("/"));
            return Ok(());
        };
        if first == "**" {
            // Any number of directories: no link on such a way is followed.
            let done = done.split('/').filter(|name| !name.is_empty()).map(escaped);
            let pattern: Vec<String> = done.chain(rest.iter().cloned()).collect();
            self.found.insert(pattern.join("/"));
            return Ok(());
        }
        if has_wildcard(first) {
            for name in matching(self.root, done, first)? {
                self.step(done, &name, tail, links)?;
            }
            return Ok(());
        }
        self.step(done, first, tail, links)
    }

    fn step(&mut self, done: &str, name: &str, tail: &[String], links: usize) -> Result<(), SelectError> {
        let here = joined(done, name);
        let goal = link(self.root, done, name).map_err(|error| SelectError::Look(here.clone(), error))?;
        let Some(goal) = goal else {
            return self.follow(&here, tail, links);
        };
        self.follow(&here, &[], links)?;
        let goal = match goal.strip_prefix('/') {
            Some(absolute) => absolute.to_owned(),
            None => joined(done, &goal),
        };
        let mut rest = names(&goal).iter().map(|name| escaped(name)).collect::<Vec<_>>();
        rest.extend_from_slice(tail);
        if links == MAX_LINKS || !self.seen.insert(rest.join("/")) {
            return Ok(());
        }
        self.follow("", &rest, links + 1)
    }
}

fn names(path: &str) -> Vec<String> {
    let path = clean(path);
    let names = path.split('/').filter(|name| !name.is_empty());
    names.map(str::to_owned).collect()
}

fn joined(dir: &str, rest: &str) -> String {
    match (dir, rest) {
        ("", rest) => rest.to_owned(),
        (dir, "") => dir.to_owned(),
        (dir, rest) => format!("{dir}/{rest}"),
    }
}

/// A name as a pattern that means nothing but it.
fn escaped(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for c in name.chars() {
        if matches!(c, '*' | '?' | '[' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

/// The names in a directory that a pattern matches; none of one that is no directory.
fn matching(root: BorrowedFd<'_>, dir: &str, pattern: &str) -> Result<Vec<String>, SelectError> {
    let pattern = Pattern::new(pattern)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    let names = match open_beneath_no_links(root, place(dir), flags, Mode::empty()) {
        Ok(opened) => {
            list_sorted(opened.as_fd()).map_err(|error| SelectError::Look(dir.to_owned(), error))?
        }
        Err(_) => Vec::new(),
    };
    let names = names.into_iter().map(|name| name.to_string_lossy().into_owned());
    Ok(names.filter(|name| pattern.matches(name)).collect())
}

fn place(dir: &str) -> &Path {
    Path::new(if dir.is_empty() { "." } else { dir })
}

/// Where the link `name` in `dir` leads; `None` for what is none.
fn link(root: BorrowedFd<'_>, dir: &str, name: &str) -> io::Result<Option<String>> {
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    let Ok(opened) = open_beneath_no_links(root, place(dir), flags, Mode::empty()) else {
        return Ok(None);
    };
    let name = OsStr::new(name);
    match statat(&opened, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink => {
            let goal = readlinkat(&opened, name, Vec::new())?;
            Ok(Some(goal.to_string_lossy().into_owned()))
        }
        _ => Ok(None),
    }
}
