//! From a tar to a directory that overlayfs can stack, or into a copy of what is below ([`Beneath::Inside`], see [`inside`]).
//!
//! What the archive takes for granted and the layer itself does not hold comes from the layers below, as a
//! mounted overlay would bring it up: a parent directory gets the lower one's owner, mode, attributes and time;
//! the file that a hard link names is copied up before it is linked. A lower link or file where the archive
//! wants a directory is replaced by one, as Docker does when it unpacks layers one by one.
//!
//! The layers below need not be complete yet ([`Beneath::Coming`]): directories are completed at the end, and only a hard
//! link to a file that this layer does not hold waits for them earlier.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, Stat, Timestamps, Uid, chownat, fchmod, fchown, fstat,
    futimens, linkat, mknodat, openat, readlinkat, statat, symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;
use store::Part;
use sys::beneath::{
    file_xattrs, is_whiteout, proc_path, remove_tree, resolve_in_root, set_file_xattr, set_xattr, xattrs,
};

use super::emit::open_file;
use super::inside::Inside;
use super::lowers::{Lowers, Visible};
use super::noted::Noted;
use super::parents::{Missing, Parents, clean};
use super::place::{Made, Options, make_node, place, set_directory, times};
use super::tar::{Entry, Kind, Reader, Time, display};
use super::{LayerError, OPAQUE_XATTR, WHITEOUT, WHITEOUT_META, WHITEOUT_OPAQUE, is_overlay_xattr};

/// Step of copying content.
const BUFFER: usize = 256 * 1024;

/// What a layer brought.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Applied {
    /// Of the files' content.
    pub bytes: u64,
    pub entries: u64,
}

/// The directories of the layers below the one that is unpacked, top first. Without any, there is nothing to delete, and
/// whiteouts are passed over.
#[derive(Clone, Copy)]
pub enum Beneath<'a> {
    /// They are complete.
    Here(&'a [PathBuf]),
    /// There are some, and asking for them waits until they are complete. The root directory is theirs as well, unless
    /// the archive has one.
    Coming(&'a (dyn Fn() -> io::Result<Vec<PathBuf>> + Sync)),
    /// What they show together is in the directory itself: what the layer deletes is removed from it.
    Inside,
}

/// Unpacks the uncompressed tar of one layer into `dest`, a directory that nobody else uses meanwhile, above the layers
/// whose directories are `lowers`. The reader is read to its end, beyond the end of the archive.
pub fn apply(reader: impl Read, dest: &Path, lowers: &[PathBuf]) -> Result<Applied, LayerError> {
    apply_above(reader, dest, Beneath::Here(lowers))
}

/// [`apply`] to a snapshot of the store that was created on what is below the layer.
pub fn apply_part(reader: impl Read, part: &Part) -> Result<Applied, LayerError> {
    // Also without anything below: what was put into it before is what the layer lies on.
    let beneath = match part.is_whole() {
        true => Beneath::Inside,
        false => Beneath::Here(&part.below),
    };
    apply_above(reader, &part.dir, beneath)
}

/// [`apply`], for layers that are unpacked at the same time.
pub fn apply_above(reader: impl Read, dest: &Path, beneath: Beneath<'_>) -> Result<Applied, LayerError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = openat(CWD, dest, flags, Mode::empty())
        .map_err(|error| LayerError::path("open", dest, error.into()))?;
    let inside = match beneath {
        Beneath::Inside => {
            Some(Inside::new(root.as_fd()).map_err(|cause| LayerError::path("read", dest, cause))?)
        }
        _ => None,
    };
    let mut target = Target {
        parents: Parents::new(root),
        below: Below {
            beneath,
            lowers: None,
            inside,
            implied: HashMap::new(),
            root: false,
            anew: false,
            earlier: Vec::new(),
            times: Vec::new(),
            noted: Noted::default(),
        },
    };
    let mut reader = Reader::new(reader);
    let mut buffer = vec![0; BUFFER];
    let mut applied = Applied::default();
    while let Some(entry) = reader.next()? {
        applied.bytes += target.entry(&entry, &mut reader, &mut buffer)?;
        applied.entries += 1;
    }
    reader.drain()?;
    target.finish()?;
    Ok(applied)
}

struct Target<'a> {
    parents: Parents,
    below: Below<'a>,
}

/// What the archive does not say itself.
struct Below<'a> {
    beneath: Beneath<'a>,
    /// Once they were needed.
    lowers: Option<Lowers>,
    /// What is the layer's own where it is applied inside.
    inside: Option<Inside>,
    /// Directories that were made because the archive takes them for granted, by inode: names may lead there through
    /// links. They get the lower ones' metadata at the end, unless the archive has them after all.
    implied: HashMap<u64, PathBuf>,
    /// Whether the archive has the root.
    root: bool,
    /// The next directory replaces something that was deleted, so that nothing of the lower one comes back.
    anew: bool,
    /// Times of lower directories. The archive's own come after them and win.
    earlier: Vec<(PathBuf, Timestamps)>,
    /// Times of directories, set at the end: everything put into them changes them.
    times: Vec<(PathBuf, Timestamps)>,
    noted: Noted,
}

impl Below<'_> {
    /// Whether nothing has to be told with overlayfs' marks.
    fn is_empty(&self) -> bool {
        matches!(self.beneath, Beneath::Here([]) | Beneath::Inside)
    }

    fn note_own(&mut self, dir: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
        match &mut self.inside {
            Some(inside) => inside.note_own(dir, name),
            None => Ok(()),
        }
    }

    /// The layers below, complete.
    fn lowers(&mut self) -> Result<&Lowers, LayerError> {
        let lowers = match (self.lowers.take(), self.beneath) {
            (Some(open), _) => open,
            (None, Beneath::Here(paths)) => Lowers::open(paths)?,
            (None, Beneath::Inside) => Lowers::open(&[])?,
            (None, Beneath::Coming(wait)) => Lowers::open(&wait().map_err(LayerError::Beneath)?)?,
        };
        Ok(self.lowers.insert(lowers))
    }
}

impl Target<'_> {
    fn entry<R: Read>(
        &mut self,
        entry: &Entry,
        reader: &mut Reader<R>,
        buffer: &mut [u8],
    ) -> Result<u64, LayerError> {
        let path = clean(&entry.path)?;
        let failed = |cause| LayerError::entry("unpack", &entry.path, cause);
        let Some(name) = path.file_name() else {
            return self.root(entry).map(|()| 0).map_err(failed);
        };
        let parent = path.parent().unwrap_or(Path::new(""));
        if name.as_bytes().starts_with(WHITEOUT) {
            return self.whiteout(parent, name, entry).map(|()| 0);
        }
        let dir = self.parents.find(parent, &mut self.below).map_err(failed)?;
        self.below.before(dir.as_fd()).map_err(failed)?;
        if entry.kind == Kind::HardLink {
            return self.hard_link(dir.as_fd(), name, entry).map(|()| 0);
        }
        if entry.kind == Kind::Directory {
            self.below.noted.count(&path).map_err(failed)?;
            self.below.times.push((path.clone(), times(entry.mtime)));
            self.clear_for_directory(dir.as_fd(), name, entry)
                .map_err(failed)?;
        }
        for _ in 0..2 {
            let mut content = reader.content();
            let made = place(dir.as_fd(), name, entry, &mut content, buffer, Options::default());
            match made {
                Ok(Made::Done(bytes)) => {
                    if entry.kind == Kind::Directory && !self.below.implied.is_empty() {
                        let stat = statat(dir.as_fd(), name, AtFlags::SYMLINK_NOFOLLOW);
                        self.below
                            .implied
                            .remove(&stat.map_err(|error| failed(error.into()))?.st_ino);
                    }
                    self.below.note_own(dir.as_fd(), name).map_err(failed)?;
                    return Ok(bytes);
                }
                Ok(Made::Exists) => self.remove(dir.as_fd(), name).map_err(failed)?,
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    return Err(reader.failed(error).into());
                }
                Err(error) => return Err(failed(error)),
            }
        }
        Err(failed(Errno::EXIST.into()))
    }

    /// The layer's root itself.
    fn root(&mut self, entry: &Entry) -> io::Result<()> {
        if entry.kind != Kind::Directory {
            return Err(Errno::NOTDIR.into());
        }
        if let Some(inside) = &mut self.below.inside {
            inside.take_root(self.parents.root())?;
        }
        set_directory(self.parents.root(), entry, Options::default())?;
        self.below.root = true;
        self.below.noted.count(Path::new(""))?;
        self.below.times.push((PathBuf::new(), times(entry.mtime)));
        Ok(())
    }

    /// The last entry of a name wins; only directories are merged.
    fn remove(&mut self, dir: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
        self.parents.forget();
        remove_tree(dir, name).map(|_| ())
    }

    /// A directory that replaces what this layer deleted or had as something else starts empty: what lower
    /// layers have in its place stays deleted.
    fn clear_for_directory(&mut self, dir: BorrowedFd<'_>, name: &OsStr, entry: &Entry) -> io::Result<()> {
        match statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {
                match &mut self.below.inside {
                    Some(inside) => inside.undress(dir, name, &stat),
                    None => Ok(()),
                }
            }
            Ok(stat) => {
                self.remove(dir, name)?;
                if is_whiteout(&stat) && !self.below.is_empty() {
                    let mode = Mode::from_raw_mode(entry.mode);
                    rustix::fs::mkdirat(dir, name, mode)?;
                    set_opaque(dir, name)?;
                }
                Ok(())
            }
        }
    }

    fn whiteout(&mut self, parent: &Path, name: &OsStr, entry: &Entry) -> Result<(), LayerError> {
        let failed = |cause| LayerError::entry("apply the whiteout", &entry.path, cause);
        if name.as_bytes() == WHITEOUT_OPAQUE {
            let dir = self.parents.find(parent, &mut self.below).map_err(failed)?;
            if let Some(inside) = &mut self.below.inside {
                self.parents.forget();
                inside.before(dir.as_fd()).map_err(failed)?;
                return inside.clear(dir.as_fd()).map(drop).map_err(failed);
            }
            if self.below.is_empty() {
                return Ok(());
            }
            return set_opaque(dir.as_fd(), OsStr::new(".")).map_err(failed);
        }
        if name.as_bytes().starts_with(WHITEOUT_META) {
            // Bookkeeping of aufs that old images carry.
            return Ok(());
        }
        let deleted = OsStr::from_bytes(name.as_bytes().get(WHITEOUT.len()..).unwrap_or_default());
        if matches!(deleted.as_bytes(), b"" | b"." | b"..") {
            return Err(LayerError::Name {
                entry: display(&entry.path),
                reason: "a whiteout of nothing",
            });
        }
        if let Some(inside) = &mut self.below.inside {
            // A directory that is not there holds nothing to delete, and is not made for it.
            let flags = OFlags::PATH | OFlags::DIRECTORY;
            let dir = match resolve_in_root(self.parents.root(), parent, flags, Mode::empty()) {
                Ok(dir) => dir,
                Err(error) if is_replaced(&error) => return Ok(()),
                Err(error) => return Err(failed(error)),
            };
            self.parents.forget();
            inside.before(dir.as_fd()).map_err(failed)?;
            return inside.delete(dir.as_fd(), deleted).map_err(failed);
        }
        if self.below.is_empty() {
            return Ok(());
        }
        let dir = self.parents.find(parent, &mut self.below).map_err(failed)?;
        self.delete(dir.as_fd(), deleted, entry).map_err(failed)
    }

    /// A whiteout is about the layers below: what this layer has itself stays, and hides them.
    fn delete(&mut self, dir: BorrowedFd<'_>, name: &OsStr, entry: &Entry) -> io::Result<()> {
        let device = FileType::CharacterDevice;
        match mknodat(dir, name, device, Mode::empty(), 0) {
            Ok(()) => {
                let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
                chownat(dir, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
                let times = times(entry.mtime);
                Ok(utimensat(dir, name, &times, AtFlags::SYMLINK_NOFOLLOW)?)
            }
            Err(Errno::EXIST) => {
                let stat = statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
                if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                    set_opaque(dir, name)?;
                }
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    fn hard_link(&mut self, dir: BorrowedFd<'_>, name: &OsStr, entry: &Entry) -> Result<(), LayerError> {
        let failed = |cause| LayerError::entry("unpack", &entry.path, cause);
        let missing = || LayerError::LinkTarget {
            entry: display(&entry.path),
            target: display(&entry.link),
        };
        let target = clean(&entry.link)?;
        let target_name = target.file_name().ok_or_else(missing)?.to_owned();
        let parent = target.parent().unwrap_or(Path::new(""));
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let here = match resolve_in_root(self.parents.root(), parent, flags, Mode::empty()) {
            Ok(here) => Some(here),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(failed(error)),
        };
        let stat = here
            .as_ref()
            .map(|here| statat(here, &target_name, AtFlags::SYMLINK_NOFOLLOW));
        let here = match (here, stat) {
            (Some(here), Some(Ok(stat))) => {
                if is_whiteout(&stat) {
                    return Err(missing());
                }
                here
            }
            (_, Some(Err(error))) if error != Errno::NOENT => return Err(failed(error.into())),
            _ => {
                self.below.lowers()?;
                self.bring_up(&target).map_err(failed)?.ok_or_else(missing)?
            }
        };
        for _ in 0..2 {
            match linkat(&here, &target_name, dir, name, AtFlags::empty()) {
                Ok(()) => return self.below.note_own(dir, name).map_err(failed),
                Err(Errno::EXIST) => {
                    if is_same(here.as_fd(), &target_name, dir, name).map_err(failed)? {
                        return Ok(());
                    }
                    self.remove(dir, name).map_err(failed)?;
                }
                Err(error) => return Err(failed(error.into())),
            }
        }
        Err(failed(Errno::EXIST.into()))
    }

    /// Copies a file of a lower layer to its place in this one; gives the directory it is in.
    fn bring_up(&mut self, path: &Path) -> io::Result<Option<OwnedFd>> {
        let Some(lowers) = self.below.lowers.as_ref() else {
            return Ok(None);
        };
        let Some(found) = lowers.find(path)?.filter(|found| !found.is_directory()) else {
            return Ok(None);
        };
        let content = match FileType::from_raw_mode(found.stat.st_mode) {
            FileType::RegularFile => Some(lowers.open_file(&found)?),
            _ => None,
        };
        let parent = path.parent().unwrap_or(Path::new(""));
        let dir = self.parents.find(parent, &mut self.below)?;
        copy_up(&found, content, dir.as_fd())?;
        Ok(Some(dir.try_clone()?))
    }

    fn finish(mut self) -> Result<(), LayerError> {
        self.complete()?;
        if let Some(inside) = self.below.inside.take() {
            inside.restore_times(self.parents.root())?;
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
        let earlier = self.below.earlier.into_iter();
        for (path, times) in earlier.chain(self.below.times) {
            let failed = |cause| LayerError::entry("set the time of", path.as_os_str().as_bytes(), cause);
            match resolve_in_root(self.parents.root(), &path, flags, Mode::empty()) {
                Ok(dir) => futimens(&dir, &times).map_err(|error| failed(error.into()))?,
                // Replaced by something else later in the archive.
                Err(error) if is_replaced(&error) => {}
                Err(error) => return Err(failed(error)),
            }
        }
        Ok(())
    }
}

impl Missing for Below<'_> {
    fn before(&mut self, dir: BorrowedFd<'_>) -> io::Result<()> {
        match &mut self.inside {
            Some(inside) => inside.before(dir),
            None => Ok(()),
        }
    }

    fn follows_all(&self) -> bool {
        self.inside.is_none()
    }

    fn follows(&self, link: &Stat) -> bool {
        self.inside.as_ref().is_none_or(|inside| inside.is_own(link))
    }

    fn made(&mut self, dir: BorrowedFd<'_>, name: &OsStr, path: &Path) -> io::Result<()> {
        set_mode(dir, name, 0o755)?;
        self.note_own(dir, name)?;
        if !std::mem::take(&mut self.anew) && !self.is_empty() {
            let stat = statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
            self.noted.count(path)?;
            self.implied.insert(stat.st_ino, path.to_owned());
        }
        Ok(())
    }

    fn may_replace(&mut self, dir: BorrowedFd<'_>, name: &OsStr) -> io::Result<bool> {
        let stat = statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
        if let Some(inside) = &self.inside {
            let replaced = !inside.is_own(&stat);
            if replaced {
                unlinkat(dir, name, AtFlags::empty())?;
                rustix::fs::mkdirat(dir, name, Mode::from_raw_mode(0o755))?;
            }
            return Ok(replaced);
        }
        if !is_whiteout(&stat) {
            return Ok(false);
        }
        // Deleted and then made anew: nothing of the lower one comes back.
        unlinkat(dir, name, AtFlags::empty())?;
        rustix::fs::mkdirat(dir, name, Mode::from_raw_mode(0o755))?;
        set_opaque(dir, name)?;
        self.anew = true;
        Ok(true)
    }
}

impl Target<'_> {
    /// Gives the directories that the archive takes for granted what they have in the layers below.
    fn complete(&mut self) -> Result<(), LayerError> {
        let mut implied: Vec<(u64, PathBuf)> = self.below.implied.drain().collect();
        if !self.below.root && matches!(self.below.beneath, Beneath::Coming(_)) {
            let root = fstat(self.parents.root());
            let failed = |error: Errno| LayerError::entry("read", b"/", error.into());
            implied.push((root.map_err(failed)?.st_ino, PathBuf::new()));
        }
        if implied.is_empty() {
            return Ok(());
        }
        self.below.lowers()?;
        for (inode, path) in implied {
            self.complete_one(inode, &path)
                .map_err(|cause| LayerError::entry("complete", path.as_os_str().as_bytes(), cause))?;
        }
        Ok(())
    }

    fn complete_one(&mut self, inode: u64, path: &Path) -> io::Result<()> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let to = match resolve_in_root(self.parents.root(), path, flags, Mode::empty()) {
            Ok(to) => to,
            // Replaced by something else later in the archive.
            Err(error) if is_replaced(&error) => return Ok(()),
            Err(error) => return Err(error),
        };
        let lowers = self.below.lowers.as_ref();
        let found = lowers.map(|lowers| lowers.find(path)).transpose()?.flatten();
        let Some(lower) = found.filter(Visible::is_directory) else {
            return Ok(());
        };
        if fstat(&to)?.st_ino != inode {
            return Ok(());
        }
        let from = openat(&lower.dir, &lower.name, flags, Mode::empty())?;
        copy_metadata(&lower.stat, from.as_fd(), to.as_fd())?;
        self.below
            .earlier
            .push((path.to_owned(), stat_times(&lower.stat)));
        Ok(())
    }
}

fn set_opaque(dir: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
    set_xattr(dir, name, OsStr::new(OPAQUE_XATTR), b"y")
}

/// Against an unusual umask.
fn set_mode(dir: BorrowedFd<'_>, name: &OsStr, mode: u32) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let made = openat(dir, name, flags, Mode::empty())?;
    Ok(fchmod(&made, Mode::from_raw_mode(mode))?)
}

fn is_same(a: BorrowedFd<'_>, a_name: &OsStr, b: BorrowedFd<'_>, b_name: &OsStr) -> io::Result<bool> {
    let a = statat(a, a_name, AtFlags::SYMLINK_NOFOLLOW)?;
    let b = statat(b, b_name, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok((a.st_dev, a.st_ino) == (b.st_dev, b.st_ino))
}

fn is_replaced(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    ) || error.raw_os_error() == Some(Errno::LOOP.raw_os_error())
}

/// Copies a file, link or device under its own name, complete with its metadata.
fn copy_up(found: &Visible, content: Option<File>, to: BorrowedFd<'_>) -> io::Result<()> {
    let (from, name): (BorrowedFd<'_>, &OsString) = (found.dir.as_fd(), &found.name);
    let stat = &found.stat;
    match (FileType::from_raw_mode(stat.st_mode), content) {
        (_, Some(mut source)) => {
            let file = open_file(from, name)?;
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            let mut target = File::from(openat(to, name, flags, Mode::RUSR)?);
            io::copy(&mut source, &mut target)?;
            copy_metadata(stat, file.as_fd(), target.as_fd())?;
            return Ok(futimens(&target, &stat_times(stat))?);
        }
        (FileType::Symlink, None) => {
            let value = readlinkat(from, name, Vec::new())?;
            symlinkat(&*value, to, name)?;
        }
        (kind, None) => {
            let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
            make_node(to, name, kind, mode, stat.st_rdev)?;
        }
    }
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    chownat(to, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
        // Nobody else uses the directory, and this is a device: not a link that would be followed.
        let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
        rustix::fs::chmod(proc_path(to, name), mode)?;
    }
    for (key, value) in xattrs(from, name)? {
        if !is_overlay_xattr(&key) {
            set_xattr(to, name, &key, &value)?;
        }
    }
    let times = stat_times(stat);
    Ok(utimensat(to, name, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}

fn copy_metadata(stat: &Stat, from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    fchown(to, Some(uid), Some(gid))?;
    fchmod(to, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    for (key, value) in file_xattrs(from)? {
        if !is_overlay_xattr(&key) {
            set_file_xattr(to, &key, &value)?;
        }
    }
    Ok(())
}

pub(super) fn stat_times(stat: &Stat) -> Timestamps {
    times(Time {
        seconds: stat.st_mtime,
        nanos: u32::try_from(stat.st_mtime_nsec).unwrap_or(0),
    })
}
