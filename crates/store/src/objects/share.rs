//! A layer's files, one after another, exchanged for ones without content.
//!
//! The layer is a directory that nobody else uses yet. What cannot be shared stays as it is: small files, which cost more
//! than they save; files with holes, which an object does not keep; files that may not be touched, or lie in a
//! directory that may not (immutable, append-only).

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FileType, Gid, IFlags, Mode, OFlags, Stat, Timespec, Timestamps, Uid, fchmod, fchown,
    fremovexattr, fstat, ftruncate, futimens, ioctl_getflags, linkat, mkdirat, openat, renameat, statat,
    unlinkat,
};
use rustix::io::Errno;
use sys::beneath::{DIRECTORY, Names, file_xattrs, get_xattr, list, open_beneath_no_links, set_file_xattr};

use super::hold::{Held, blocks};
use super::mend::{self, write_into};
use super::name::Name;
use super::{HOLDS, METACOPY, Objects, REDIRECT};
use crate::failure::{Context, PathError};

/// Step of reading content.
const BUFFER: usize = 256 * 1024;
/// What is being made, in the layer's home.
const FRESH: &str = "fresh";
const COPY: &str = "copy";

/// What becomes of a layer's files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    /// Those of this size on are shared.
    From(u64),
    /// Those that are shared stay so.
    AsTheyAre,
    /// None is shared: the layer cannot be mounted with more that are.
    Whole,
}

impl Objects {
    /// Shares the files of the layer in `home`, whose own directory is `layer`. What refers to objects already, because it is
    /// linked from another layer, is held, or becomes whole.
    pub(crate) fn share(&self, home: &Path, layer: &Path, how: How) -> Result<(), PathError> {
        if matches!(how, How::From(_)) {
            self.make()?;
        } else if !self.is_there() {
            return Ok(());
        }
        let shared = self.open_sharing(home, layer, how).at("open", home)?;
        let Some(mut sharing) = shared else { return Ok(()) };
        sharing.everything().at("share the files of", layer)?;
        // Of a file that may not be touched after all.
        sharing.clear(FRESH).at("tidy", home)?;
        let none = list(sharing.holds.as_fd()).at("read", home)?.is_empty();
        if none {
            unlinkat(&sharing.home, HOLDS, AtFlags::REMOVEDIR).at("tidy", home)?;
        }
        Ok(())
    }

    fn open_sharing(&self, home: &Path, layer: &Path, how: How) -> io::Result<Option<Sharing<'_>>> {
        let Some(files) = self.open_files()? else {
            return Ok(None);
        };
        let home = openat(CWD, home, DIRECTORY, Mode::empty())?;
        match mkdirat(&home, HOLDS, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(Some(Sharing {
            objects: self,
            files,
            root: openat(CWD, layer, DIRECTORY, Mode::empty())?,
            holds: openat(&home, HOLDS, DIRECTORY, Mode::empty())?,
            home,
            how,
            linked: HashMap::new(),
            buffer: vec![0; if matches!(how, How::From(_)) { BUFFER } else { 0 }],
        }))
    }
}

struct Sharing<'a> {
    objects: &'a Objects,
    files: OwnedFd,
    /// The layer's own directory, its links to objects, and where both are.
    root: OwnedFd,
    holds: OwnedFd,
    home: OwnedFd,
    how: How,
    /// Files with several names that were exchanged: where, by the inode they had.
    linked: HashMap<u64, PathBuf>,
    buffer: Vec<u8>,
}

impl Sharing<'_> {
    fn everything(&mut self) -> io::Result<()> {
        // Directories wait as paths, so depth costs no descriptors.
        let mut waiting = vec![PathBuf::new()];
        while let Some(path) = waiting.pop() {
            let named = |error: io::Error| match path.as_os_str().is_empty() {
                true => error,
                false => io::Error::new(error.kind(), format!("{}: {error}", path.display())),
            };
            let below = self.directory(&path).map_err(named)?;
            waiting.extend(below.into_iter().map(|name| path.join(name)));
        }
        Ok(())
    }

    /// Shares the files in one directory; gives the directories in it.
    fn directory(&mut self, path: &Path) -> io::Result<Vec<OsString>> {
        let dir = open_beneath_no_links(self.root.as_fd(), path, DIRECTORY, Mode::empty())?;
        let before = fstat(&dir)?;
        let frozen = is_frozen(&dir);
        let (mut below, mut changed) = (Vec::new(), false);
        let mut names = Names::of(dir.as_fd())?;
        loop {
            let some = names.some()?;
            if some.is_empty() {
                break;
            }
            for (name, _) in some {
                let stat = statat(&dir, &name, AtFlags::SYMLINK_NOFOLLOW)?;
                match FileType::from_raw_mode(stat.st_mode) {
                    FileType::Directory => below.push(name),
                    FileType::RegularFile if frozen => self.adopt_shared(dir.as_fd(), &name, &stat)?,
                    FileType::RegularFile => {
                        changed |= match self.file(dir.as_fd(), &name, &stat, path) {
                            // Immutable, or append-only.
                            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => false,
                            other => other?,
                        }
                    }
                    _ => {}
                }
            }
        }
        if changed {
            // Exchanging its entries is no change of the directory.
            futimens(&dir, &times(&before))?;
        }
        Ok(below)
    }

    /// Whether the file was exchanged.
    fn file(&mut self, dir: BorrowedFd<'_>, name: &OsStr, stat: &Stat, path: &Path) -> io::Result<bool> {
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        if size == 0 {
            return Ok(false);
        }
        let is_shared = get_xattr(dir, name, METACOPY)?.is_some();
        // Before links are looked at: a file that was exchanged may come by once more, with the number that another one had.
        if is_shared && self.how != How::Whole {
            self.adopt(dir, name, size)?;
            return Ok(false);
        }
        if let Some(first) = self.linked.get(&stat.st_ino) {
            // What was to take the place of a file that may not be touched may still be there.
            self.clear(FRESH)?;
            linkat(&self.root, first, &self.home, FRESH, AtFlags::empty())?;
            renameat(&self.home, FRESH, dir, name)?;
            return Ok(true);
        }
        if is_shared {
            self.make_whole(dir, name, stat)?;
            if stat.st_nlink > 1 {
                self.linked.insert(stat.st_ino, path.join(name));
            }
            return Ok(true);
        }
        match self.how {
            How::From(from) if size >= from => {}
            _ => return Ok(false),
        }
        // Where blocks are missing there are holes; without any, the inode has the content.
        if blocks(stat).saturating_mul(2) < size || stat.st_blocks == 0 {
            return Ok(false);
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = File::from(openat(dir, name, flags, Mode::empty())?);
        let (object, read) = self.objects.key_name(&file, &mut self.buffer)?;
        if read != size {
            return Ok(false);
        }
        let xattrs = file_xattrs(file.as_fd())?;
        let fresh = self.without_content(stat, &xattrs, &object)?;
        let mut held = self
            .objects
            .hold(self.files.as_fd(), self.holds.as_fd(), &object, size)?;
        held = self.mended(held, &file, &object)?;
        if held == Held::Missing {
            held = self.add(dir, name, &file, stat, &xattrs, &object)?;
        }
        if held != Held::Yes {
            unlinkat(&self.home, FRESH, AtFlags::empty())?;
            return Ok(false);
        }
        drop(fresh);
        renameat(&self.home, FRESH, dir, name)?;
        if stat.st_nlink > 1 {
            self.linked.insert(stat.st_ino, path.join(name));
        }
        Ok(true)
    }

    /// Removes something half made.
    fn clear(&self, name: &str) -> io::Result<()> {
        match unlinkat(&self.home, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Holds what a file refers to that another layer has as well.
    fn adopt(&self, dir: BorrowedFd<'_>, name: &OsStr, size: u64) -> io::Result<()> {
        let object = get_xattr(dir, name, REDIRECT)?.and_then(|value| Name::of_redirect(&value));
        let held = match &object {
            Some(object) => self
                .objects
                .hold(self.files.as_fd(), self.holds.as_fd(), object, size)?,
            None => Held::Missing,
        };
        match held {
            Held::Yes | Held::Damaged => Ok(()),
            Held::Missing | Held::No => Err(lost(name)),
        }
    }

    /// Of a directory whose entries cannot be exchanged: what its files share already is held.
    fn adopt_shared(&self, dir: BorrowedFd<'_>, name: &OsStr, stat: &Stat) -> io::Result<()> {
        match get_xattr(dir, name, METACOPY)? {
            Some(_) => self.adopt(dir, name, u64::try_from(stat.st_size).unwrap_or(0)),
            None => Ok(()),
        }
    }

    /// Puts a file with its content in the place of one without.
    fn make_whole(&self, dir: BorrowedFd<'_>, name: &OsStr, stat: &Stat) -> io::Result<()> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = openat(dir, name, flags, Mode::empty())?;
        let object = get_xattr(dir, name, REDIRECT)?.and_then(|value| Name::of_redirect(&value));
        let object = object.ok_or_else(|| lost(name))?;
        let mut content = match openat(&self.files, object.path(), flags, Mode::empty()) {
            Ok(content) => File::from(content),
            Err(Errno::NOENT) => return Err(lost(name)),
            Err(error) => return Err(error.into()),
        };
        self.clear(FRESH)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fresh = openat(&self.home, FRESH, flags, Mode::RUSR | Mode::WUSR)?;
        let mut fresh = File::from(fresh);
        io::copy(&mut content, &mut fresh)?;
        dress(&fresh, stat, &file_xattrs(file.as_fd())?)?;
        Ok(renameat(&self.home, FRESH, dir, name)?)
    }

    /// The file that takes the place: everything but the content.
    fn without_content(
        &self,
        stat: &Stat,
        xattrs: &[(OsString, Vec<u8>)],
        object: &Name,
    ) -> io::Result<OwnedFd> {
        self.clear(FRESH)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fresh = openat(&self.home, FRESH, flags, Mode::RUSR | Mode::WUSR)?;
        ftruncate(&fresh, u64::try_from(stat.st_size).unwrap_or(0))?;
        // First of all: where an inode has room for attributes, these are the ones everybody has.
        set_file_xattr(fresh.as_fd(), OsStr::new(METACOPY), b"")?;
        set_file_xattr(fresh.as_fd(), OsStr::new(REDIRECT), object.redirect().as_bytes())?;
        let fresh = File::from(fresh);
        dress(&fresh, stat, xattrs)?;
        Ok(fresh.into())
    }

    /// Makes the file itself the object; a copy where it has other names, which may be another layer's.
    fn add(
        &self,
        dir: BorrowedFd<'_>,
        name: &OsStr,
        file: &File,
        stat: &Stat,
        xattrs: &[(OsString, Vec<u8>)],
        object: &Name,
    ) -> io::Result<Held> {
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        let (files, holds) = (self.files.as_fd(), self.holds.as_fd());
        if stat.st_nlink == 1 {
            for (key, _) in xattrs {
                match fremovexattr(file, key) {
                    // Labels that the filesystem or a security module gives on its own stay.
                    Ok(()) | Err(Errno::NODATA | Errno::NOTSUP | Errno::PERM | Errno::ACCESS) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            bare(file)?;
            let held = self.objects.add(files, holds, object, size, (dir, name))?;
            let held = self.mended(held, file, object)?;
            if held == Held::No {
                // It stays after all, as what it was.
                restore(file, stat, xattrs)?;
            }
            return Ok(held);
        }
        self.clear(COPY)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut copy = File::from(openat(&self.home, COPY, flags, Mode::RUSR)?);
        io::copy(&mut rewound(file)?, &mut copy)?;
        bare(&copy)?;
        let held = self
            .objects
            .add(files, holds, object, size, (self.home.as_fd(), OsStr::new(COPY)))?;
        unlinkat(&self.home, COPY, AtFlags::empty())?;
        self.mended(held, file, object)
    }

    /// What is held and was found damaged gets the file's content, which is its own. Where that cannot be written, the file
    /// stays whole.
    fn mended(&self, held: Held, file: &File, object: &Name) -> io::Result<Held> {
        if held != Held::Damaged {
            return Ok(held);
        }
        let mut content = rewound(file)?;
        match write_into(self.holds.as_fd(), object.as_str(), &mut content) {
            Ok(()) => {
                tracing::info!(
                    object = object.as_str(),
                    "a damaged file that layers share was put right by another layer that has it"
                );
                Ok(Held::Yes)
            }
            Err(error) => {
                tracing::warn!(object = object.as_str(), %error, "a damaged file that layers share stays so");
                Ok(Held::No)
            }
        }
    }
}

impl Objects {
    fn key_name(&self, file: &File, buffer: &mut [u8]) -> io::Result<(Name, u64)> {
        let key = self.key().map_err(io::Error::other)?;
        key.name(file, buffer)
    }
}

fn lost(name: &OsStr) -> io::Error {
    io::Error::other(format!(
        "{}: its content is not in the store any more",
        Path::new(name).display()
    ))
}

fn give_owner_and_mode(file: &File, stat: &Stat) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    fchown(file, Some(uid), Some(gid))?;
    // After the owner, whose change takes the set-user-ID bit away.
    Ok(fchmod(file, Mode::from_raw_mode(stat.st_mode & 0o7777))?)
}

/// Gives a file what another one has.
fn dress(file: &File, stat: &Stat, xattrs: &[(OsString, Vec<u8>)]) -> io::Result<()> {
    give_owner_and_mode(file, stat)?;
    for (key, value) in xattrs.iter().filter(|(key, _)| is_the_files_own(key)) {
        match set_file_xattr(file.as_fd(), key, value) {
            Err(error) if error.kind() == io::ErrorKind::Unsupported => {}
            other => other?,
        }
    }
    Ok(futimens(file, &times(stat))?)
}

fn rewound(mut file: &File) -> io::Result<&File> {
    io::Seek::rewind(&mut file)?;
    Ok(file)
}

/// Whether the entries of a directory cannot be exchanged (immutable, append-only), which has to be known before a file in it
/// gives up what it is.
fn is_frozen(dir: &OwnedFd) -> bool {
    // Filesystems without such flags say so.
    ioctl_getflags(dir).is_ok_and(|flags| flags.intersects(IFlags::IMMUTABLE | IFlags::APPEND))
}

/// Takes from a file what no object has.
fn bare(file: &File) -> io::Result<()> {
    fchown(file, Some(Uid::ROOT), Some(Gid::ROOT))?;
    Ok(fchmod(file, Mode::from_raw_mode(mend::MODE))?)
}

/// Makes a file again what it was.
fn restore(file: &File, stat: &Stat, xattrs: &[(OsString, Vec<u8>)]) -> io::Result<()> {
    give_owner_and_mode(file, stat)?;
    for (key, value) in xattrs {
        set_file_xattr(file.as_fd(), key, value)?;
    }
    Ok(futimens(file, &times(stat))?)
}

/// overlayfs' marks say something about where a file was, except those that it keeps for an overlay inside.
fn is_the_files_own(key: &OsStr) -> bool {
    let key = key.as_bytes();
    !key.starts_with(b"trusted.overlay.") || key.starts_with(b"trusted.overlay.overlay.")
}

fn times(stat: &Stat) -> Timestamps {
    Timestamps {
        last_access: Timespec {
            tv_sec: stat.st_atime,
            tv_nsec: stat.st_atime_nsec as _,
        },
        last_modification: Timespec {
            tv_sec: stat.st_mtime,
            tv_nsec: stat.st_mtime_nsec as _,
        },
    }
}
