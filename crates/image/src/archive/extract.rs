//! From a tar into a directory of a root filesystem.

use std::ffi::OsStr;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, StatxAttributes, StatxFlags, Timestamps, Uid, chownat, fchmod,
    futimens, linkat, openat, statat, statx,
};
use rustix::io::Errno;
use sys::beneath::{remove_tree, resolve_dir_in_root, resolve_in_root};
use sys::process::with_filesystem_ids;

use super::path::asked;
use super::{ArchiveError, Ids};
use crate::layer::tar::{Entry, Kind, Reader, display};
use crate::layer::{
    LayerError, Made, Missing, Noted, Parents, PlaceOptions, clean, overwrite, place, set_directory, times,
};

const BUFFER: usize = 256 * 1024;

/// How an archive is unpacked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExtractOptions {
    /// Refuse to replace a directory by something else, or the reverse.
    pub no_overwrite_dir_non_dir: bool,
    /// Owner of everything that is made; `None`: as the archive says.
    pub chown: Option<(u32, u32)>,
    /// Whether an entry for the directory itself counts: its owner, mode, attributes and time.
    pub top: bool,
    /// Where the root is that of a user namespace: its maps. Owners in the archive are ids inside.
    pub ids: Option<Ids>,
}

/// Unpacks an uncompressed tar into the directory `dest` of the root filesystem.
pub fn extract(
    reader: impl Read,
    root: BorrowedFd<'_>,
    dest: &str,
    options: &ExtractOptions,
) -> Result<(), ArchiveError> {
    let Some(ids) = &options.ids else {
        return unpack(reader, root, dest, options);
    };
    let refused = |cause| ArchiveError::at("become the root of the container for", Path::new(dest), cause);
    let none = io::Error::new(io::ErrorKind::InvalidInput, "its user namespace has no root");
    let (uid, gid) = ids.outside((0, 0)).ok_or_else(|| refused(none))?;
    // In a filesystem with translated ids nobody else can make files.
    with_filesystem_ids(uid, gid, || unpack(reader, root, dest, options)).map_err(refused)?
}

fn unpack(
    reader: impl Read,
    root: BorrowedFd<'_>,
    dest: &str,
    options: &ExtractOptions,
) -> Result<(), ArchiveError> {
    let asked = asked(dest);
    match resolve_dir_in_root(root, &asked.whole) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            return Err(ArchiveError::NotDirectory);
        }
        Err(error) => return Err(ArchiveError::at("open", &asked.whole, error)),
    }
    let own = root
        .try_clone_to_owned()
        .map_err(|cause| ArchiveError::at("open", Path::new("/"), cause))?;
    let mut target = Target {
        parents: Parents::new(own),
        dest: asked.whole,
        options: options.clone(),
        times: Vec::new(),
        noted: Noted::default(),
    };
    let mut reader = Reader::new(reader);
    let mut buffer = vec![0; BUFFER];
    while let Some(mut entry) = reader.next().map_err(LayerError::from)? {
        target.translate(&mut entry)?;
        target.entry(&entry, &mut reader, &mut buffer)?;
    }
    // What a client sends after the end must be taken in for its request to be complete.
    reader.drain().map_err(LayerError::from)?;
    target.finish()
}

struct Target {
    parents: Parents,
    dest: PathBuf,
    options: ExtractOptions,
    times: Vec<(PathBuf, Timestamps)>,
    noted: Noted,
}

impl Target {
    /// The entry's owner as it is outside of the user namespace.
    fn translate(&self, entry: &mut Entry) -> Result<(), ArchiveError> {
        if let Some(ids) = &self.options.ids {
            let (uid, gid) = self.options.chown.unwrap_or((entry.uid, entry.gid));
            (entry.uid, entry.gid) = ids.outside((uid, gid)).ok_or_else(|| {
                let why = format!("the container's user namespace has no {uid}:{gid}");
                let cause = io::Error::new(io::ErrorKind::InvalidInput, why);
                LayerError::entry("give an owner to", &entry.path, cause)
            })?;
        }
        Ok(())
    }

    /// Whom everything that is made is given to, if not as the archive says.
    fn owner(&self) -> Option<(u32, u32)> {
        self.options.chown.filter(|_| self.options.ids.is_none())
    }

    fn entry<R: Read>(
        &mut self,
        entry: &Entry,
        reader: &mut Reader<R>,
        buffer: &mut [u8],
    ) -> Result<(), ArchiveError> {
        let failed = |cause| LayerError::entry("unpack", &entry.path, cause);
        let path = self.path(&entry.path)?;
        if path == self.dest {
            // The directory itself is not the archive's to change, unless it was made for it.
            return match self.options.top && entry.kind == Kind::Directory {
                true => self.top(entry),
                false => Ok(()),
            };
        }
        let name = path.file_name().unwrap_or(OsStr::new(""));
        let parent = path.parent().unwrap_or(Path::new("/"));
        let relative = parent.strip_prefix("/").unwrap_or(parent);
        let mut made = MadeBy(match &self.options.ids {
            Some(ids) => self.options.chown.and_then(|owner| ids.outside(owner)),
            None => self.options.chown,
        });
        let dir = self.parents.find(relative, &mut made).map_err(failed)?;
        self.check_in_the_way(dir.as_fd(), name, &path, entry)?;
        if entry.kind == Kind::HardLink {
            return self.hard_link(dir.as_fd(), name, entry);
        }
        if entry.kind == Kind::Directory {
            self.noted.count(&path).map_err(failed)?;
            self.times.push((path.clone(), times(entry.mtime)));
        }
        let options = PlaceOptions {
            owner: self.owner(),
            lenient_xattrs: true,
        };
        // More than once only when the container puts something there again and again.
        for _ in 0..4 {
            let mut content = reader.content();
            match place(dir.as_fd(), name, entry, &mut content, buffer, options) {
                Ok(Made::Done(_)) => return Ok(()),
                Ok(Made::Exists) if is_mount(dir.as_fd(), name).map_err(failed)? => {
                    if entry.kind != Kind::File {
                        return Err(failed(Errno::BUSY.into()).into());
                    }
                    let written = overwrite(dir.as_fd(), name, entry, &mut reader.content(), buffer);
                    return match written {
                        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                            Err(LayerError::from(reader.failed(error)).into())
                        }
                        other => Ok(other.map_err(failed)?),
                    };
                }
                Ok(Made::Exists) => self.remove(dir.as_fd(), name).map_err(failed)?,
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    return Err(LayerError::from(reader.failed(error)).into());
                }
                Err(error) => return Err(failed(error).into()),
            }
        }
        Err(failed(Errno::EXIST.into()).into())
    }

    fn top(&mut self, entry: &Entry) -> Result<(), ArchiveError> {
        let failed = |cause| LayerError::entry("unpack", &entry.path, cause);
        let dir = resolve_in_root(
            self.parents.root(),
            &self.dest,
            OFlags::RDONLY | OFlags::DIRECTORY,
            Mode::empty(),
        )
        .map_err(failed)?;
        let options = PlaceOptions {
            owner: self.owner(),
            lenient_xattrs: true,
        };
        set_directory(dir.as_fd(), entry, options).map_err(failed)?;
        self.noted.count(&self.dest).map_err(failed)?;
        self.times.push((self.dest.clone(), times(entry.mtime)));
        Ok(())
    }

    /// Where an entry goes, as an absolute path in the root.
    fn path(&self, name: &[u8]) -> Result<PathBuf, ArchiveError> {
        Ok(self.dest.join(clean(name)?))
    }

    fn check_in_the_way(
        &self,
        dir: BorrowedFd<'_>,
        name: &OsStr,
        path: &Path,
        entry: &Entry,
    ) -> Result<(), ArchiveError> {
        if !self.options.no_overwrite_dir_non_dir {
            return Ok(());
        }
        let there = match statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => FileType::from_raw_mode(stat.st_mode) == FileType::Directory,
            Err(Errno::NOENT) => return Ok(()),
            Err(error) => return Err(ArchiveError::at("look at", path, error)),
        };
        let (path, dest) = (path.to_owned(), self.dest.clone());
        match (there, entry.kind == Kind::Directory) {
            (true, false) => Err(ArchiveError::DirectoryInTheWay { path, dest }),
            (false, true) => Err(ArchiveError::FileInTheWay { path, dest }),
            _ => Ok(()),
        }
    }

    fn remove(&mut self, dir: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
        self.parents.forget();
        remove_tree(dir, name).map(|_| ())
    }

    fn hard_link(&mut self, dir: BorrowedFd<'_>, name: &OsStr, entry: &Entry) -> Result<(), ArchiveError> {
        let failed = |cause| LayerError::entry("unpack", &entry.path, cause);
        let missing = || LayerError::LinkTarget {
            entry: display(&entry.path),
            target: display(&entry.link),
        };
        let target = self.path(&entry.link)?;
        let target_name = target.file_name().ok_or_else(missing)?;
        let parent = target.parent().unwrap_or(Path::new("/"));
        let here = match resolve_dir_in_root(self.parents.root(), parent) {
            Ok(here) => here,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(missing().into()),
            Err(error) => return Err(failed(error).into()),
        };
        for _ in 0..4 {
            match linkat(&here, target_name, dir, name, AtFlags::empty()) {
                Ok(()) => return Ok(()),
                Err(Errno::NOENT) => return Err(missing().into()),
                Err(Errno::EXIST) => {
                    let same = is_same(here.as_fd(), target_name, dir, name);
                    if same.map_err(failed)? {
                        return Ok(());
                    }
                    if is_mount(dir, name).map_err(failed)? {
                        return Err(failed(Errno::BUSY.into()).into());
                    }
                    self.remove(dir, name).map_err(failed)?;
                }
                Err(error) => return Err(failed(error.into()).into()),
            }
        }
        Err(failed(Errno::EXIST.into()).into())
    }

    fn finish(self) -> Result<(), ArchiveError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
        for (path, times) in self.times {
            // Replaced meanwhile, by the archive or the container: then its time is not the archive's.
            if let Ok(dir) = resolve_in_root(self.parents.root(), &path, flags, Mode::empty()) {
                futimens(&dir, &times).map_err(|error| {
                    LayerError::entry("set the time of", path.as_os_str().as_bytes(), error.into())
                })?;
            }
        }
        Ok(())
    }
}

/// Parent directories that the archive does not have itself.
struct MadeBy(Option<(u32, u32)>);

impl Missing for MadeBy {
    fn made(&mut self, dir: BorrowedFd<'_>, name: &OsStr, _path: &Path) -> io::Result<()> {
        if let Some((uid, gid)) = self.0 {
            let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
            chownat(dir, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = openat(dir, name, flags, Mode::empty())?;
        Ok(fchmod(&made, Mode::from_raw_mode(0o755))?)
    }

    fn may_replace(&mut self, _dir: BorrowedFd<'_>, _name: &OsStr) -> io::Result<bool> {
        Ok(false)
    }
}

/// Whether something is mounted there, as /etc/hosts is in a container. To remove the name would be allowed to us, who
/// are in another mount namespace, and would take the mount away from the container: it is written to instead.
fn is_mount(dir: BorrowedFd<'_>, name: &OsStr) -> io::Result<bool> {
    let found = statx(dir, name, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::empty())?;
    Ok(found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

fn is_same(a: BorrowedFd<'_>, a_name: &OsStr, b: BorrowedFd<'_>, b_name: &OsStr) -> io::Result<bool> {
    let a = statat(a, a_name, AtFlags::SYMLINK_NOFOLLOW)?;
    let b = statat(b, b_name, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok((a.st_dev, a.st_ino) == (b.st_dev, b.st_ino))
}
