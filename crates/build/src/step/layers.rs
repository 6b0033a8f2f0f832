//! Layers on top of other layers than those they were made on, and what is between two trees as a layer.
//!
//! A layer is taken as it lies in the store, with the marks for what it deletes and replaces, and its files are linked,
//! not copied: what is committed is never written to again. Marks take effect when the layer is laid over something that
//! has what they name; so that they are not seen before, a difference lies on an empty layer, not on nothing.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use image::layer::DiffOptions;
use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, fchmod, fchown, fstat, futimens,
    linkat, mkdirat, mknodat, openat, readlinkat, statat,
};
use rustix::io::Errno;
use store::SnapshotId;
use sys::beneath::{file_xattrs, list_sorted, set_file_xattr};

use super::place::{Ownership, Placer};
use super::scratch::{Scratch, mount};
use super::select::{Group, Item};
use super::{Build, Tree, blocking, now, root};
use crate::error::BuildError;

/// The deepest directory that is walked into; each takes its part of the stack.
const MAX_DEPTH: usize = 512;

fn too_deep() -> io::Error {
    io::Error::other(format!(
        "directories lie more than {MAX_DEPTH} deep in each other"
    ))
}

fn tree(snapshot: Option<SnapshotId>) -> Tree {
    Tree {
        snapshot,
        layer: true,
        created: now(),
    }
}

/// The layers of all of `inputs`, those of later ones on top.
pub async fn merge(build: &std::sync::Arc<Build>, inputs: &[Tree]) -> Result<Tree, BuildError> {
    let (build, inputs) = (build.clone(), inputs.to_vec());
    blocking(move || {
        let mut merged = None;
        for snapshot in inputs.iter().filter_map(|tree| tree.snapshot) {
            match merged {
                None => merged = Some(snapshot),
                Some(_) => merged = stack(&build, merged, &layers_of(&build, snapshot)?)?,
            }
        }
        Ok(tree(merged))
    })
    .await
}

/// What has to be laid over `lower` to get `upper`.
pub async fn difference(
    build: &std::sync::Arc<Build>,
    lower: Option<SnapshotId>,
    upper: Option<SnapshotId>,
) -> Result<Tree, BuildError> {
    let build = build.clone();
    blocking(move || {
        let (lower, upper) = match (lower, upper) {
            (None, upper) => return Ok(tree(upper)),
            (lower, upper) if lower == upper => return Ok(tree(None)),
            (Some(lower), upper) => (lower, upper),
        };
        let above = match upper {
            Some(upper) => layers_of(&build, upper)?,
            None => Vec::new(),
        };
        match above.iter().position(|layer| *layer == lower) {
            Some(at) => {
                let above = above.get(at + 1..).unwrap_or_default();
                stack_by(&build, Some(nothing(&build)?), above, Scratch::create_changes).map(tree)
            }
            None => compared(&build, lower, upper).map(|made| tree(Some(made))),
        }
    })
    .await
}

/// The layers of a tree, lowest first.
fn layers_of(build: &Build, top: SnapshotId) -> Result<Vec<SnapshotId>, BuildError> {
    let mut layers = Vec::new();
    let mut next = Some(top);
    while let Some(layer) = next {
        layers.push(layer);
        next = build.store.snapshots().get(layer)?.parent;
    }
    layers.reverse();
    Ok(layers)
}

/// A layer that holds nothing.
fn nothing(build: &Build) -> Result<SnapshotId, BuildError> {
    Scratch::create_changes(&build.store, None, &build.id)?.commit(|id| build.cache.hold(id))
}

/// Lays the layers over `below`.
fn stack(
    build: &Build,
    below: Option<SnapshotId>,
    layers: &[SnapshotId],
) -> Result<Option<SnapshotId>, BuildError> {
    stack_by(build, below, layers, Scratch::create)
}

type Create = fn(&store::Store, Option<SnapshotId>, &str) -> Result<Scratch, BuildError>;

fn stack_by(
    build: &Build,
    below: Option<SnapshotId>,
    layers: &[SnapshotId],
    create: Create,
) -> Result<Option<SnapshotId>, BuildError> {
    let mut top = below;
    for layer in layers {
        let fail = |error: io::Error| BuildError::io("laying a layer over another", &error);
        let part = build.store.snapshots().part(*layer)?;
        let from = open(&part.dir).map_err(fail)?;
        if !part.is_whole() && list_sorted(from.as_fd()).map_err(fail)?.is_empty() {
            continue;
        }
        let scratch = create(&build.store, top, &build.id)?;
        if part.is_whole() || build.store.snapshots().part(scratch.id()?)?.is_whole() {
            scratch.lay(
                *layer,
                DiffOptions {
                    nanoseconds: true,
                    ..DiffOptions::default()
                },
            )?;
            top = Some(scratch.commit(|id| build.cache.hold(id))?);
            continue;
        }
        let into = open(&build.store.snapshots().fs(scratch.id()?)).map_err(fail)?;
        dress(&from, &into, &fstat(&from).map_err(|error| fail(error.into()))?).map_err(fail)?;
        link_all(&from, &into, 0).map_err(fail)?;
        top = Some(scratch.commit(|id| build.cache.hold(id))?);
    }
    Ok(top)
}

fn open(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}

/// Everything in a directory by its own name in another one; directories are made, all else is linked.
fn link_all(from: &OwnedFd, into: &OwnedFd, depth: usize) -> io::Result<()> {
    if depth > MAX_DEPTH {
        return Err(too_deep());
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    for name in list_sorted(from.as_fd())? {
        let stat = statat(from, &name, AtFlags::SYMLINK_NOFOLLOW)?;
        if !root::is_dir(&stat) {
            linkat(from, &name, into, &name, AtFlags::empty())?;
            continue;
        }
        mkdirat(into, &name, Mode::from_raw_mode(0o700))?;
        let below = openat(from, &name, flags, Mode::empty())?;
        let made = openat(into, &name, flags, Mode::empty())?;
        link_all(&below, &made, depth + 1)?;
        dress(&below, &made, &stat)?;
    }
    Ok(())
}

/// Gives a directory what another one has, its marks for overlayfs included.
fn dress(from: &OwnedFd, into: &OwnedFd, stat: &Stat) -> io::Result<()> {
    fchown(
        into,
        Some(Uid::from_raw(stat.st_uid)),
        Some(Gid::from_raw(stat.st_gid)),
    )?;
    fchmod(into, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    for (key, value) in file_xattrs(from.as_fd())? {
        match set_file_xattr(into.as_fd(), &key, &value) {
            Err(error) if error.kind() == io::ErrorKind::Unsupported => {}
            other => other?,
        }
    }
    let time = Timespec {
        tv_sec: stat.st_mtime,
        tv_nsec: stat.st_mtime_nsec as _,
    };
    Ok(futimens(
        into,
        &Timestamps {
            last_access: time,
            last_modification: time,
        },
    )?)
}

/// What differs between two trees that were not made on top of each other.
struct Comparison {
    changed: Vec<Item>,
    deleted: Vec<PathBuf>,
}

fn compared(build: &Build, lower: SnapshotId, upper: Option<SnapshotId>) -> Result<SnapshotId, BuildError> {
    let fail = |error: io::Error| BuildError::io("comparing two trees", &error);
    let old = mount(&build.store, lower)?;
    let empty = tempfile::tempdir_in(build.store.root()).map_err(fail)?;
    let new = match upper {
        Some(upper) => mount(&build.store, upper)?,
        None => open(empty.path()).map_err(fail)?,
    };
    let mut found = Comparison {
        changed: Vec::new(),
        deleted: Vec::new(),
    };
    found.directory(&old, &new, Path::new(""), &[]).map_err(fail)?;
    let scratch = Scratch::create_changes(&build.store, Some(nothing(build)?), &build.id)?;
    let into = open(&build.store.snapshots().fs(scratch.id()?)).map_err(fail)?;
    let mut placer = Placer::new(into.as_fd(), Ownership::Keep, None);
    let group = Group {
        name: PathBuf::new(),
        directory: true,
        items: found.changed,
    };
    placer.put(new.as_fd(), &group, Path::new("")).map_err(fail)?;
    for path in &found.deleted {
        mark_deleted(into.as_fd(), path).map_err(fail)?;
    }
    placer.finish().map_err(fail)?;
    drop(into);
    scratch.commit(|id| build.cache.hold(id))
}

/// How a layer says that what lies below is gone: a device 0/0.
fn mark_deleted(layer: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let parent = path.parent().unwrap_or(Path::new(""));
    let dir = sys::beneath::resolve_dir_in_root(layer, parent)?;
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    Ok(mknodat(&dir, name, FileType::CharacterDevice, Mode::empty(), 0)?)
}

impl Comparison {
    /// `way` are the directories that lead here and are not among the changes yet.
    fn directory(&mut self, old: &OwnedFd, new: &OwnedFd, at: &Path, way: &[Item]) -> io::Result<()> {
        if at.components().count() > MAX_DEPTH {
            return Err(too_deep());
        }
        let mut way = Some(way);
        let before: Vec<OsString> = list_sorted(old.as_fd())?;
        let after: Vec<OsString> = list_sorted(new.as_fd())?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        for name in before.iter().filter(|name| after.binary_search(name).is_err()) {
            self.lead(&mut way);
            self.deleted.push(at.join(name));
        }
        for name in &after {
            let stat = statat(new, name, AtFlags::SYMLINK_NOFOLLOW)?;
            let path = at.join(name);
            let item = Item {
                source: path.clone(),
                target: path.clone(),
                stat,
            };
            let was = match statat(old, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => Some(stat),
                Err(Errno::NOENT) => None,
                Err(error) => return Err(error.into()),
            };
            match (root::is_dir(&stat), was) {
                (true, Some(was)) if root::is_dir(&was) => {
                    let (below, above) = (
                        openat(new, name, flags, Mode::empty())?,
                        openat(old, name, flags, Mode::empty())?,
                    );
                    if looks_alike(&was, &stat) {
                        let mut leading: Vec<Item> = way.into_iter().flatten().map(again).collect();
                        leading.push(item);
                        let before = (self.changed.len(), self.deleted.len());
                        self.directory(&above, &below, &path, &leading)?;
                        if before != (self.changed.len(), self.deleted.len()) {
                            way = None;
                        }
                    } else {
                        self.lead(&mut way);
                        self.changed.push(item);
                        self.directory(&above, &below, &path, &[])?;
                    }
                }
                (false, Some(was)) if same(&was, &stat, old, new, name)? => {}
                (is_directory, _) => {
                    self.lead(&mut way);
                    self.changed.push(item);
                    if is_directory {
                        let below = openat(new, name, flags, Mode::empty())?;
                        self.all_of(&below, &path)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn lead(&mut self, way: &mut Option<&[Item]>) {
        if let Some(way) = way.take() {
            self.changed.extend(way.iter().map(again));
        }
    }

    fn all_of(&mut self, dir: &OwnedFd, at: &Path) -> io::Result<()> {
        if at.components().count() > MAX_DEPTH {
            return Err(too_deep());
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        for name in list_sorted(dir.as_fd())? {
            let stat = statat(dir, &name, AtFlags::SYMLINK_NOFOLLOW)?;
            let path = at.join(&name);
            self.changed.push(Item {
                source: path.clone(),
                target: path.clone(),
                stat,
            });
            if root::is_dir(&stat) {
                let below = openat(dir, &name, flags, Mode::empty())?;
                self.all_of(&below, &path)?;
            }
        }
        Ok(())
    }
}

fn again(item: &Item) -> Item {
    Item {
        source: item.source.clone(),
        target: item.target.clone(),
        stat: item.stat,
    }
}

fn looks_alike(was: &Stat, is: &Stat) -> bool {
    (was.st_mode, was.st_uid, was.st_gid) == (is.st_mode, is.st_uid, is.st_gid)
}

fn same(was: &Stat, is: &Stat, old: &OwnedFd, new: &OwnedFd, name: &OsStr) -> io::Result<bool> {
    if !looks_alike(was, is) || was.st_rdev != is.st_rdev {
        return Ok(false);
    }
    match FileType::from_raw_mode(is.st_mode) {
        FileType::Symlink => Ok(readlinkat(old, name, Vec::new())? == readlinkat(new, name, Vec::new())?),
        FileType::RegularFile => {
            Ok(was.st_size == is.st_size
                && (was.st_mtime, was.st_mtime_nsec) == (is.st_mtime, is.st_mtime_nsec))
        }
        _ => Ok(true),
    }
}
