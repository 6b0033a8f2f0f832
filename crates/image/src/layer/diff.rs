//! From a snapshot back to the tar of a layer: from an overlay's upper directory, or from a whole copy and what is below it.
//!
//! The same directory gives the same bytes: entries are sorted, owners have no names, and times are whole
//! seconds unless asked for otherwise (as Docker writes them).

use std::collections::HashSet;
use std::ffi::OsStr;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat, fstat, openat, statat};
use store::Part;
use sys::beneath::{file_xattrs, is_whiteout, open_beneath_no_links, xattrs};

use super::changes::{Comparison, Kind, compare, shared};
use super::lowers::{Lowers, is_opaque};
use super::tar::display;
use super::{Emitter, Found, LayerError, WHITEOUT, WHITEOUT_OPAQUE, is_overlay_xattr, walk};

/// How a layer is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DiffOptions {
    /// Keep times to the nanosecond, at the cost of an extended header for nearly every entry.
    pub nanoseconds: bool,
    /// Write no time later than this, in seconds since 1970.
    pub latest: Option<i64>,
}

/// Writes what the directory `upper` changes in the stack `lowers` (top first) as an uncompressed tar.
pub fn diff(upper: &Path, lowers: &[PathBuf], out: impl Write) -> Result<(), LayerError> {
    let part = Part::of_changes(upper.to_owned(), lowers.to_vec());
    diff_part(&part, out, DiffOptions::default())
}

/// Writes what a snapshot changes as an uncompressed tar.
pub fn diff_part(part: &Part, out: impl Write, options: DiffOptions) -> Result<(), LayerError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = openat(CWD, &part.dir, flags, Mode::empty())
        .map_err(|error| LayerError::path("open", &part.dir, error.into()))?;
    let lowers = Lowers::open(&part.below)?;
    let mut emitter = Emitter::new(out, options.nanoseconds)
        .with_latest(options.latest)
        .with_shared(shared(part)?);
    if root_differs(root.as_fd(), &lowers)? {
        emitter.add_open_directory(root.as_fd(), b".")?;
    }
    if part.is_whole() {
        whole(part, root.as_fd(), &mut emitter)?;
        return emitter.finish().map(|_| ());
    }
    walk(root.as_fd(), |found| {
        entry(part, found, &lowers, &mut emitter)?;
        Ok(())
    })?;
    emitter.finish().map(|_| ())
}

/// The same entries that overlayfs would have put into an upper directory: what differs, and what leads to it.
fn whole<W: Write>(part: &Part, root: BorrowedFd<'_>, emitter: &mut Emitter<W>) -> Result<(), LayerError> {
    let mut comparison = compare(part)?;
    for path in std::mem::take(&mut comparison.touched) {
        comparison.note(&path, Kind::Modified);
    }
    all_names(root, &mut comparison)?;
    for (path, kind) in &comparison.found {
        let name = path.file_name().unwrap_or_default();
        let parent = path.parent().unwrap_or(Path::new(""));
        let failed = |cause| LayerError::entry("read", path.as_os_str().as_bytes(), cause);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let dir = open_beneath_no_links(root, parent, flags, Mode::empty()).map_err(failed)?;
        if *kind == Kind::Deleted {
            let stat = fstat(&dir).map_err(|error| failed(error.into()))?;
            emitter.add_mark(&mark(path, &[WHITEOUT, name.as_bytes()].concat()), &stat)?;
            continue;
        }
        let stat = statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW).map_err(|error| failed(error.into()))?;
        let found = Found {
            dir: dir.as_fd(),
            name,
            path,
            stat: &stat,
        };
        emitter.add(&found, path.as_os_str().as_bytes())?;
    }
    Ok(())
}

/// A file of several names stays one file only if all of them are told.
fn all_names(root: BorrowedFd<'_>, comparison: &mut Comparison<'_>) -> Result<(), LayerError> {
    let mut linked: HashSet<u64> = HashSet::new();
    let mut names: Vec<(PathBuf, u64)> = Vec::new();
    walk(root, |found| {
        if found.kind() != FileType::Directory && found.stat.st_nlink > 1 {
            names.push((found.path.to_owned(), found.stat.st_ino));
            if comparison.found.contains_key(found.path) {
                linked.insert(found.stat.st_ino);
            }
        }
        Ok(())
    })?;
    for (path, inode) in names {
        if linked.contains(&inode) && !comparison.found.contains_key(&path) {
            comparison.note(&path, Kind::Modified);
        }
    }
    Ok(())
}

fn entry<W: Write>(
    part: &Part,
    found: &Found<'_>,
    lowers: &Lowers,
    emitter: &mut Emitter<W>,
) -> Result<(), LayerError> {
    let path = found.path.as_os_str().as_bytes();
    let failed = |cause| LayerError::entry("read", path, cause);
    if is_whiteout(found.stat) {
        // With nothing below there is nothing to delete; overlayfs shows no such device either.
        if lowers.is_empty() {
            return Ok(());
        }
        let mark = mark(found.path, &[WHITEOUT, found.name.as_bytes()].concat());
        return emitter.add_mark(&mark, found.stat);
    }
    refuse_redirected(part, found)?;
    emitter.add(found, path)?;
    // overlayfs makes every new directory opaque to spare itself lookups; it is only worth telling where it
    // hides something.
    if found.kind() == FileType::Directory
        && is_opaque(found.dir, found.name).map_err(failed)?
        && lowers.has_directory(found.path).map_err(failed)?
    {
        let path = found.path.join(OsStr::from_bytes(WHITEOUT_OPAQUE));
        emitter.add_mark(path.as_os_str().as_bytes(), found.stat)?;
    }
    Ok(())
}

fn mark(path: &Path, name: &[u8]) -> Vec<u8> {
    let path = path.with_file_name(OsStr::from_bytes(name));
    path.as_os_str().as_bytes().to_vec()
}

/// The engine mounts writable directories without these features, so only one of another engine can have them. Files of
/// layers are another matter: theirs the engine made itself.
fn refuse_redirected(part: &Part, found: &Found<'_>) -> Result<(), LayerError> {
    let feature = match found.kind() {
        FileType::Directory => "redirect",
        FileType::RegularFile if !part.is_layer() => "metacopy",
        _ => return Ok(()),
    };
    let key = format!("trusted.overlay.{feature}");
    match sys::beneath::get_xattr(found.dir, found.name, &key) {
        Ok(None) => Ok(()),
        Ok(Some(_)) => Err(LayerError::Redirected {
            entry: display(found.path.as_os_str().as_bytes()),
            feature,
        }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => {
            let path = found.path.as_os_str().as_bytes();
            Err(LayerError::entry("read", path, error))
        }
    }
}

/// Whether the root directory itself was changed. A snapshot's root starts as a copy of the one below it.
fn root_differs(root: BorrowedFd<'_>, lowers: &Lowers) -> Result<bool, LayerError> {
    let failed = |cause| LayerError::entry("read", b"/", cause);
    let stat = fstat(root).map_err(|error| failed(error.into()))?;
    let own = own_xattrs(file_xattrs(root).map_err(failed)?);
    let lower = lowers.find(Path::new("")).map_err(failed)?;
    Ok(match lower {
        None => (stat.st_mode & 0o7777, stat.st_uid, stat.st_gid) != (0o755, 0, 0) || !own.is_empty(),
        Some(lower) => {
            let below = xattrs(lower.dir.as_fd(), &lower.name).map_err(failed)?;
            owner_and_mode(&stat) != owner_and_mode(&lower.stat) || own != own_xattrs(below)
        }
    })
}

fn owner_and_mode(stat: &Stat) -> (u32, u32, u32) {
    (stat.st_mode, stat.st_uid, stat.st_gid)
}

type Xattrs = Vec<(std::ffi::OsString, Vec<u8>)>;

fn own_xattrs(mut xattrs: Xattrs) -> Xattrs {
    xattrs.retain(|(key, _)| !is_overlay_xattr(key));
    xattrs
}
