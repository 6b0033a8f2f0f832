//! Changes of files without a command: copies, files and directories that are made, links, removals.
//!
//! All changes of one step are one layer. Everything is looked up beneath the root of the tree, as somebody whose `/` it
//! is: links lead nowhere outside.

use std::fs::File;
use std::io::{self, Cursor};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Timespec, Timestamps, statat};
use rustix::io::Errno;
use spec::Digest;
use sys::beneath::{list_sorted, open_beneath_no_links, remove_tree, resolve_dir_in_root, resolve_in_root};

use super::place::{Ownership, Placer};
use super::scratch::{Scratch, mount};
use super::select::{Group, Item, Rules, literal, select};
use super::{Build, ModeChange, StepOperation, Tree, blocking, now, owner, root};
use crate::archive;
use crate::error::BuildError;
use crate::pattern::{Ignore, Pattern, has_wildcard};
use crate::recipe::{FileChange, FileCopy, Owner};

/// Changes of the first input, one after the other. A copy takes from the input that is named beside it.
#[derive(Debug, Clone, Default)]
pub struct FilesStep {
    pub changes: Vec<(FileChange, Option<usize>)>,
}

impl FilesStep {
    pub fn definition(&self) -> Digest {
        Digest::sha256(format!("files 1 {:?}", self.changes).as_bytes())
    }

    pub async fn run(&self, step: &StepOperation, inputs: &[Tree]) -> Result<Tree, BuildError> {
        let (this, build, inputs) = (self.clone(), step.build.clone(), inputs.to_vec());
        blocking(move || {
            let parent = inputs.first().and_then(|tree| tree.snapshot);
            let scratch = Scratch::create(&build.store, parent, &build.id)?;
            {
                let tree = scratch.mount()?;
                for (change, from) in &this.changes {
                    let from = from.and_then(|index| inputs.get(index));
                    apply(&build, tree.as_fd(), change, from)?;
                }
            }
            let snapshot = scratch.commit(|id| build.cache.hold(id))?;
            Ok(Tree {
                snapshot: Some(snapshot),
                layer: true,
                created: now(),
            })
        })
        .await
    }
}

fn failed(what: &str, path: &str) -> impl Fn(io::Error) -> BuildError {
    let what = format!("{what} {path}");
    move |error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
            BuildError::invalid(format!("{what}: no such file or directory"))
        }
        _ => BuildError::io(&what, &error),
    }
}

fn apply(
    build: &Build,
    tree: BorrowedFd<'_>,
    change: &FileChange,
    from: Option<&Tree>,
) -> Result<(), BuildError> {
    match change {
        FileChange::Copy { copy: wanted, .. } => copy(build, tree, wanted, from),
        FileChange::MakeFile {
            path,
            mode,
            data,
            owner,
            time,
        } => {
            let fail = failed("mkfile", path);
            let (uid, gid) = owner::lookup(tree, &owner.written())?;
            let target = root::clean(Path::new(path));
            let parent = target.parent().unwrap_or(Path::new(""));
            // Directories on the way are not made up.
            resolve_dir_in_root(tree, parent).map_err(&fail)?;
            let mut placer = Placer::new(tree, Ownership::Give(uid, gid), None);
            let time = time.unwrap_or_else(|| jiff::Timestamp::now().as_second());
            placer
                .put_bytes(&mut Cursor::new(data), *mode, time, &target)
                .map_err(&fail)?;
            placer.finish().map_err(&fail)
        }
        FileChange::MakeDirectory {
            path,
            mode,
            parents,
            owner,
            time,
        } => {
            let fail = failed("mkdir", path);
            let owner = owner::lookup(tree, &owner.written())?;
            let target = root::clean(Path::new(path));
            let mut way: Vec<&Path> = target
                .ancestors()
                .filter(|path| !path.as_os_str().is_empty())
                .collect();
            way.reverse();
            let count = way.len();
            for (at, place) in way.into_iter().enumerate() {
                if *parents || at + 1 == count {
                    make_directory(tree, place, *mode, owner, *time).map_err(&fail)?;
                }
            }
            Ok(())
        }
        FileChange::Remove {
            path,
            may_be_missing,
            wildcard,
        } => remove(tree, path, *may_be_missing, *wildcard),
        FileChange::Link {
            goal,
            path,
            owner,
            time,
        } => {
            let fail = failed("symlink", path);
            let owner = owner::lookup(tree, &owner.written())?;
            let (parent, name) = parent_of(tree, path).map_err(&fail)?;
            rustix::fs::symlinkat(goal, &parent, &name).map_err(|error| fail(error.into()))?;
            root::give(parent.as_fd(), name.as_os_str(), Some(owner)).map_err(&fail)?;
            set_time(&parent, &name, *time).map_err(&fail)
        }
    }
}

/// The directory that a path lies in, and its name there.
fn parent_of(tree: BorrowedFd<'_>, path: &str) -> io::Result<(OwnedFd, PathBuf)> {
    let target = root::clean(Path::new(path));
    let name = target.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let parent = resolve_dir_in_root(tree, target.parent().unwrap_or(Path::new("")))?;
    Ok((parent, PathBuf::from(name)))
}

fn set_time(dir: &OwnedFd, name: &Path, time: Option<i64>) -> io::Result<()> {
    let Some(seconds) = time else { return Ok(()) };
    let time = Timespec {
        tv_sec: seconds,
        tv_nsec: 0,
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    Ok(rustix::fs::utimensat(
        dir,
        name,
        &times,
        AtFlags::SYMLINK_NOFOLLOW,
    )?)
}

/// Makes a directory where there is none.
fn make_directory(
    tree: BorrowedFd<'_>,
    path: &Path,
    mode: u32,
    owner: (u32, u32),
    time: Option<i64>,
) -> io::Result<()> {
    if let Some(stat) = root::stat_in(tree, path)? {
        return match root::is_dir(&stat) {
            true => Ok(()),
            false => Err(io::ErrorKind::AlreadyExists.into()),
        };
    }
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let parent = resolve_dir_in_root(tree, path.parent().unwrap_or(Path::new("")))?;
    rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(0o700))?;
    root::give(parent.as_fd(), name, Some(owner))?;
    rustix::fs::chmodat(
        &parent,
        name,
        Mode::from_raw_mode(mode & 0o7777),
        AtFlags::empty(),
    )?;
    set_time(&parent, Path::new(name), time)
}

fn remove(tree: BorrowedFd<'_>, path: &str, may_be_missing: bool, wildcard: bool) -> Result<(), BuildError> {
    let fail = failed("rm", path);
    let target = root::clean(Path::new(path));
    let Some(name) = target.file_name() else {
        return Err(BuildError::invalid("rm /: the root itself cannot be removed"));
    };
    let above = target.parent().unwrap_or(Path::new(""));
    if wildcard && has_wildcard(&above.to_string_lossy()) {
        let text = format!("rm {path}: a wildcard may stand in the last part of the path only");
        return Err(BuildError::invalid(text));
    }
    let parent = match resolve_dir_in_root(tree, above) {
        Ok(parent) => parent,
        Err(error) if may_be_missing && root::is_missing(&error) => return Ok(()),
        Err(error) => return Err(fail(error)),
    };
    let text = name.to_string_lossy();
    let names = match wildcard && has_wildcard(&text) {
        false => vec![name.to_owned()],
        true => {
            let pattern =
                Pattern::new(&text).map_err(|error| BuildError::invalid(format!("rm {path}: {error}")))?;
            let mut names = list_sorted(parent.as_fd()).map_err(&fail)?;
            names.retain(|name| pattern.matches(&name.to_string_lossy()));
            names
        }
    };
    for name in names {
        match statat(&parent, &name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if root::is_dir(&stat) => {
                remove_tree(parent.as_fd(), &name).map_err(&fail)?;
            }
            Ok(_) => {
                rustix::fs::unlinkat(&parent, &name, AtFlags::empty()).map_err(|error| fail(error.into()))?
            }
            Err(Errno::NOENT) if may_be_missing => {}
            Err(error) => return Err(fail(error.into())),
        }
    }
    Ok(())
}

fn copy(build: &Build, tree: BorrowedFd<'_>, copy: &FileCopy, from: Option<&Tree>) -> Result<(), BuildError> {
    let fail = failed("copy", &copy.source);
    let Some(snapshot) = from.and_then(|tree| tree.snapshot) else {
        return match copy.may_be_missing {
            true => Ok(()),
            false => Err(BuildError::invalid(format!(
                "copy {}: there are no files to copy from",
                copy.source
            ))),
        };
    };
    let source = mount(&build.store, snapshot)?;
    let ownership = match &copy.owner {
        None => Ownership::Keep,
        Some(owner) => {
            let (uid, gid) = owner::lookup(tree, &Owner::written(owner))?;
            Ownership::Give(uid, gid)
        }
    };
    let mode = copy.mode.as_deref().map(ModeChange::parse).transpose();
    let mode = mode.map_err(BuildError::invalid)?;
    let destination = root::clean(Path::new(&copy.destination));
    if !copy.make_parents {
        let above = destination.parent().unwrap_or(Path::new(""));
        resolve_dir_in_root(tree, above).map_err(failed("copy to", &copy.destination))?;
    }
    let mut placer = Placer::new(tree, ownership, mode.as_ref());
    if !copy.follow && put_link(&mut placer, &source, tree, copy, &destination).map_err(&fail)? {
        return placer.finish().map_err(&fail);
    }
    let mut groups = match groups(&source, copy) {
        Ok(groups) => groups,
        Err(_) if copy.may_be_missing => return Ok(()),
        Err(error) => return Err(error),
    };
    if groups.is_empty() && !copy.may_be_missing {
        return Err(BuildError::invalid(format!(
            "copy {}: nothing matches it",
            copy.source
        )));
    }
    for group in &mut groups {
        let target = target_of(tree, copy, group, &destination).map_err(&fail)?;
        let file = group.items.first().filter(|_| !group.directory);
        if let (true, Some(item)) = (copy.unpack, file) {
            let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
            let opened = open_beneath_no_links(source.as_fd(), &item.source, flags, Mode::empty());
            let opened = File::from(opened.map_err(&fail)?);
            if archive::is_archive(&opened).map_err(&fail)? {
                let owner = match ownership {
                    Ownership::Keep => None,
                    Ownership::Give(uid, gid) => Some((uid, gid)),
                };
                root::make_dirs(tree, &destination, owner).map_err(&fail)?;
                archive::unpack(opened, tree, &destination, owner, "copy")?;
                continue;
            }
        }
        match (group.directory && !copy.contents, itself(&source, copy)) {
            (true, Some(item)) => {
                let items = std::iter::once(item).chain(std::mem::take(&mut group.items));
                group.items = items.collect();
                group.directory = false;
                placer.put(source.as_fd(), group, &target).map_err(&fail)?;
            }
            _ => placer.put(source.as_fd(), group, &target).map_err(&fail)?,
        }
    }
    placer.finish().map_err(&fail)
}

/// The directory that a source names without links or wildcards, so that it keeps its owner and permissions.
fn itself(source: &OwnedFd, copy: &FileCopy) -> Option<Item> {
    let path = root::clean(Path::new(&copy.source));
    if copy.wildcard && has_wildcard(&copy.source) || path.as_os_str().is_empty() {
        return None;
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    let opened = open_beneath_no_links(source.as_fd(), &path, flags, Mode::empty()).ok()?;
    Some(Item {
        stat: rustix::fs::fstat(&opened).ok()?,
        source: path,
        target: PathBuf::new(),
    })
}

fn groups(source: &OwnedFd, copy: &FileCopy) -> Result<Vec<Group>, BuildError> {
    let wrong = |error: &dyn std::fmt::Display| BuildError::invalid(format!("copy {}: {error}", copy.source));
    let exclude =
        Ignore::excluding(copy.exclude.iter().map(String::as_str)).map_err(|error| wrong(&error))?;
    let rules = Rules {
        ignore: None,
        exclude: &exclude,
        parents: false,
    };
    // Without wildcards their letters are those of names.
    let path = match copy.wildcard {
        true => copy.source.clone(),
        false => literal(&copy.source),
    };
    select(source.as_fd(), &[path], &rules).map_err(|error| wrong(&error))
}

/// Where a source goes: into a directory that is there, else under the destination's own name.
fn target_of(
    tree: BorrowedFd<'_>,
    copy: &FileCopy,
    group: &Group,
    destination: &Path,
) -> io::Result<PathBuf> {
    let there = root::stat_in(tree, destination)?;
    let into = match group.directory {
        true => !copy.contents && there.is_some() && !group.name.as_os_str().is_empty(),
        false => copy.destination.ends_with('/') || there.is_some_and(|stat| root::is_dir(&stat)),
    };
    Ok(match into {
        true => destination.join(&group.name),
        false => destination.to_owned(),
    })
}

/// Copies a link as a link, where that is what the source names.
fn put_link(
    placer: &mut Placer<'_>,
    source: &OwnedFd,
    tree: BorrowedFd<'_>,
    copy: &FileCopy,
    destination: &Path,
) -> io::Result<bool> {
    let path = root::clean(Path::new(&copy.source));
    let Some(name) = path.file_name() else {
        return Ok(false);
    };
    let Ok(parent) = resolve_in_root(
        source.as_fd(),
        path.parent()
            .filter(|above| !above.as_os_str().is_empty())
            .unwrap_or(Path::new("/")),
        OFlags::PATH | OFlags::DIRECTORY,
        Mode::empty(),
    ) else {
        return Ok(false);
    };
    let stat = match statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink => stat,
        _ => return Ok(false),
    };
    let group = Group {
        name: PathBuf::from(name),
        directory: false,
        items: vec![Item {
            source: PathBuf::from(name),
            target: PathBuf::new(),
            stat,
        }],
    };
    let target = target_of(tree, copy, &group, destination)?;
    placer.put(parent.as_fd(), &group, &target)?;
    Ok(true)
}
