//! Which files a COPY takes: sources, wildcards, `.dockerignore`, `--exclude`, `--parents`.
//!
//! Everything is looked up beneath the source's root: a link that a source names is followed as if the source
//! were `/`; links inside a directory are copied as links. The order of the result is fixed, so that it can be
//! digested.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags, Stat, fstat, statat};
use sys::beneath::{list_sorted, open_beneath_no_links, resolve_in_root};

use super::root::{is_dir, is_missing};
use crate::instruction::nearest;
use crate::pattern::{Ignore, Pattern, PatternError, clean, climbs_out};

/// The most files one instruction may take.
const MAX_ITEMS: usize = 5_000_000;

/// Why the sources of a COPY can not be taken.
#[derive(Debug, thiserror::Error)]
pub enum SelectError {
    #[error("forbidden path outside the build context: {0} ()")]
    Outside(String),
    #[error("file not found in build context or excluded by .dockerignore: stat {0}: file does not exist{1}")]
    Missing(String, String),
    #[error("stat {0}: file does not exist{1}")]
    MissingInImage(String, String),
    #[error(transparent)]
    Pattern(#[from] PatternError),
    #[error("reading {path}: {cause}")]
    Read { path: String, cause: io::Error },
    #[error("more than {MAX_ITEMS} files in one instruction")]
    TooMany,
}

/// One file or directory to be copied.
pub struct Item {
    /// Beneath the source's root, without links in it.
    pub source: PathBuf,
    /// Where it goes, relative to where its group goes; empty for a group that is a single file.
    pub target: PathBuf,
    pub stat: Stat,
}

/// What one source stands for.
pub struct Group {
    /// The last part of the source, the name a file keeps in a directory.
    pub name: PathBuf,
    /// A directory: its content is copied, the items are what lies in it.
    pub directory: bool,
    pub items: Vec<Item>,
}

/// How to select.
pub struct Rules<'a> {
    /// The context's `.dockerignore`; `None` for a source that is an image or a stage.
    pub ignore: Option<&'a Ignore>,
    pub exclude: &'a Ignore,
    /// Keep the directories that lead to each source.
    pub parents: bool,
}

/// Selects `sources` beneath `root`.
pub fn select(
    root: BorrowedFd<'_>,
    sources: &[String],
    rules: &Rules<'_>,
) -> Result<Vec<Group>, SelectError> {
    let mut groups = Vec::new();
    let mut count = 0;
    for source in sources {
        if climbs_out(source) {
            return Err(SelectError::Outside(source.clone()));
        }
        // `a/./b` with --parents keeps only what stands behind the dot.
        let pivot = source
            .split_once("/./")
            .map_or(0, |(before, _)| depth(&clean(before)));
        let cleaned = clean(source);
        let paths = match plain(&cleaned) {
            Some(path) => vec![path],
            None => wildcard(root, &cleaned, rules)?,
        };
        // A pattern may match nothing: so are files written that need not be there.
        for path in paths {
            let mut group = take(root, &path, rules)?;
            if rules.parents {
                keep_parents(root, &mut group, &path, pivot)?;
            }
            count += group.items.len();
            if count > MAX_ITEMS {
                return Err(SelectError::TooMany);
            }
            groups.push(group);
        }
    }
    Ok(groups)
}

/// A path as a pattern that matches nothing else.
pub fn literal(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for c in path.chars() {
        if matches!(c, '*' | '?' | '[' | ']' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

/// The path that a pattern without wildcards stands for.
fn plain(pattern: &str) -> Option<String> {
    let mut out = String::with_capacity(pattern.len());
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => out.push(chars.next()?),
            '*' | '?' | '[' => return None,
            c => out.push(c),
        }
    }
    Some(out)
}

fn depth(path: &str) -> usize {
    path.split('/').filter(|part| !part.is_empty()).count()
}

fn read_error(path: &Path, cause: impl Into<io::Error>) -> SelectError {
    SelectError::Read {
        path: path.display().to_string(),
        cause: cause.into(),
    }
}

fn open_dir(root: BorrowedFd<'_>, path: &Path) -> Result<OwnedFd, SelectError> {
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    open_beneath_no_links(root, path, flags, Mode::empty()).map_err(|error| read_error(path, error))
}

fn ignored(rules: &Rules<'_>, path: &Path) -> bool {
    rules
        .ignore
        .is_some_and(|ignore| ignore.judge(&path.to_string_lossy()).ignored)
}

fn pruned(rules: &Rules<'_>, path: &Path) -> bool {
    rules
        .ignore
        .is_some_and(|ignore| ignore.judge(&path.to_string_lossy()).prune)
}

/// The paths a pattern matches, in order; nothing below a match is looked at again. Links on the way to the first name with a
/// wildcard are followed, as on the way to any name; a wildcard goes through none.
fn wildcard(root: BorrowedFd<'_>, text: &str, rules: &Rules<'_>) -> Result<Vec<String>, SelectError> {
    let names: Vec<&str> = text.split('/').collect();
    let known: Vec<String> = names.iter().map_while(|name| plain(name)).collect();
    let rest = names.get(known.len()..).unwrap_or_default().join("/");
    let lead: PathBuf = known.iter().collect();
    let start = if known.is_empty() {
        Path::new(".")
    } else {
        lead.as_path()
    };
    let top = match resolve_in_root(root, start, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()) {
        Ok(top) => real_path(root, top.as_fd()).map_err(|error| read_error(&lead, error))?,
        Err(error) if is_missing(&error) => return Ok(Vec::new()),
        Err(error) => return Err(read_error(&lead, error)),
    };
    let pattern = Pattern::new(&rest)?;
    let mut found = Vec::new();
    let mut waiting = VecDeque::from([(PathBuf::new(), pattern.start())]);
    while let Some((dir, positions)) = waiting.pop_front() {
        let opened = open_dir(root, &top.join(&dir))?;
        for name in list_sorted(opened.as_fd()).map_err(|error| read_error(&dir, error))? {
            let next = pattern.step(&positions, &name.to_string_lossy());
            let path = dir.join(&name);
            if next.is_empty() || pruned(rules, &top.join(&path)) {
                continue;
            }
            let stat = match statat(&opened, &name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                Err(rustix::io::Errno::NOENT) => continue,
                Err(error) => return Err(read_error(&path, error)),
            };
            if pattern.accepts(&next) && !ignored(rules, &top.join(&path)) {
                found.push(lead.join(&path).to_string_lossy().into_owned());
            } else if is_dir(&stat) && pattern.alive_below(&next) {
                waiting.push_back((path, next));
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Why a path is not there, or what else could have been meant, in words to be put behind an error.
fn advice(root: BorrowedFd<'_>, path: &str, rules: &Rules<'_>) -> String {
    if let Some((line, rule)) = rules
        .ignore
        .filter(|ignore| ignore.judge(path).ignored)
        .and_then(|ignore| ignore.decider(path))
    {
        return format!(" (line {line} of the ignore file leaves it out: {rule})");
    }
    let whole = Path::new(path);
    let (parent, name) = (whole.parent().unwrap_or(Path::new("")), whole.file_name());
    let names = resolve_in_root(root, parent, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())
        .and_then(|dir| list_sorted(dir.as_fd()));
    let (Ok(names), Some(name)) = (names, name) else {
        return String::new();
    };
    let names: Vec<String> = names
        .iter()
        .map(|name| name.to_string_lossy().into_owned())
        .collect();
    let known: Vec<&str> = names.iter().map(String::as_str).collect();
    match nearest(&name.to_string_lossy(), &known) {
        Some(near) => format!(" (did you mean \"{}\"?)", parent.join(near).display()),
        None => String::new(),
    }
}

/// What one path stands for.
fn take(root: BorrowedFd<'_>, path: &str, rules: &Rules<'_>) -> Result<Group, SelectError> {
    let missing = || match rules.ignore {
        Some(_) => SelectError::Missing(path.to_owned(), advice(root, path, rules)),
        None => SelectError::MissingInImage(path.to_owned(), advice(root, path, rules)),
    };
    let opened = match resolve_in_root(root, path, OFlags::PATH, Mode::empty()) {
        Ok(opened) => opened,
        Err(error) if is_missing(&error) => return Err(missing()),
        Err(error) => return Err(read_error(Path::new(path), error)),
    };
    let real = real_path(root, opened.as_fd()).map_err(|error| read_error(Path::new(path), error))?;
    let stat = fstat(&opened).map_err(|error| read_error(Path::new(path), error))?;
    let name = PathBuf::from(Path::new(path).file_name().unwrap_or_default());
    if !is_dir(&stat) {
        let excluded = rules.exclude.judge(&name.to_string_lossy()).ignored;
        if ignored(rules, Path::new(path)) || ignored(rules, &real) {
            return Err(missing());
        }
        let item = Item {
            source: real,
            target: PathBuf::new(),
            stat,
        };
        return Ok(Group {
            name,
            directory: false,
            items: if excluded { Vec::new() } else { vec![item] },
        });
    }
    let items = walk(root, &real, rules)?;
    if items.is_empty() && !real.as_os_str().is_empty() && ignored(rules, &real) {
        return Err(missing());
    }
    Ok(Group {
        name,
        directory: true,
        items,
    })
}

/// Everything below a directory, parents before what lies in them.
fn walk(root: BorrowedFd<'_>, top: &Path, rules: &Rules<'_>) -> Result<Vec<Item>, SelectError> {
    let mut items = Vec::new();
    // Directories that are left out themselves but may hold something that is not: made when something is.
    let mut waiting: Vec<(PathBuf, Vec<Item>)> = vec![(PathBuf::new(), Vec::new())];
    while let Some((relative, skipped)) = waiting.pop() {
        let dir = top.join(&relative);
        let opened = open_dir(root, &dir)?;
        let mut below = Vec::new();
        let mut skipped = Some(skipped);
        for name in list_sorted(opened.as_fd()).map_err(|error| read_error(&dir, error))? {
            let (source, target) = (dir.join(&name), relative.join(&name));
            let judged = rules.exclude.judge(&target.to_string_lossy());
            let left_out = judged.ignored || ignored(rules, &source);
            if judged.prune || pruned(rules, &source) {
                continue;
            }
            let stat = match statat(&opened, &name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                Err(rustix::io::Errno::NOENT) => continue,
                Err(error) => return Err(read_error(&source, error)),
            };
            let directory = is_dir(&stat);
            let item = Item {
                source,
                target: target.clone(),
                stat,
            };
            match (left_out, directory) {
                (true, true) => {
                    let mut above = skipped.as_ref().map(|above| copies(above)).unwrap_or_default();
                    above.push(item);
                    below.push((target, above));
                }
                (true, false) => {}
                (false, _) => {
                    items.extend(skipped.take().unwrap_or_default());
                    items.push(item);
                    if directory {
                        below.push((target, Vec::new()));
                    }
                }
            }
            if items.len() > MAX_ITEMS {
                return Err(SelectError::TooMany);
            }
        }
        waiting.extend(below.into_iter().rev());
    }
    // Two exceptions below one skipped directory both bring it.
    items.sort_by(|a, b| a.target.cmp(&b.target));
    items.dedup_by(|a, b| a.target == b.target);
    Ok(items)
}

fn copies(items: &[Item]) -> Vec<Item> {
    let copy = |item: &Item| Item {
        source: item.source.clone(),
        target: item.target.clone(),
        stat: item.stat,
    };
    items.iter().map(copy).collect()
}

/// Puts the directories that lead to a source in front of its items.
fn keep_parents(
    root: BorrowedFd<'_>,
    group: &mut Group,
    path: &str,
    pivot: usize,
) -> Result<(), SelectError> {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let kept = parts.get(pivot.min(parts.len())..).unwrap_or_default();
    let lead: PathBuf = kept.iter().collect();
    let mut items = Vec::new();
    let above = if group.directory {
        kept.len()
    } else {
        kept.len().saturating_sub(1)
    };
    for count in 1..=above {
        let target: PathBuf = kept.iter().take(count).collect();
        let source: PathBuf = parts.iter().take(parts.len() - kept.len() + count).collect();
        let opened = resolve_in_root(root, &source, OFlags::PATH, Mode::empty())
            .map_err(|error| read_error(&source, error))?;
        let stat = fstat(&opened).map_err(|error| read_error(&source, error))?;
        items.push(Item { source, target, stat });
    }
    for mut item in std::mem::take(&mut group.items) {
        item.target = if group.directory {
            lead.join(&item.target)
        } else {
            lead.clone()
        };
        items.push(item);
    }
    *group = Group {
        name: group.name.clone(),
        directory: true,
        items,
    };
    Ok(())
}

/// Where an open file lies beneath `root`, links resolved.
pub fn real_path(root: BorrowedFd<'_>, file: BorrowedFd<'_>) -> io::Result<PathBuf> {
    let name = |fd: BorrowedFd<'_>| std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()));
    let (top, path) = (name(root)?, name(file)?);
    match path.strip_prefix(&top) {
        Ok(relative) => Ok(relative.to_owned()),
        // Nothing that is resolved in a root lies outside it; a rename meanwhile could make it look so.
        Err(_) => Err(io::ErrorKind::NotFound.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_that_matches_one_name_is_that_name() {
        for path in ["a", "link/[a]", "x*y?", r"back\slash"] {
            assert_eq!(plain(&literal(path)).as_deref(), Some(path));
        }
        for pattern in ["*", "a/b?", "[ab]", r"a\"] {
            assert_eq!(plain(pattern), None, "{pattern}");
        }
    }
}
