//! Links of layers to objects: making and removing them, and objects with them.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags, Stat, linkat, mkdirat, openat, statat, unlinkat};
use rustix::io::Errno;
use sys::beneath::{DIRECTORY, list};

use super::mend::DAMAGED;
use super::name::{Key, Name};
use super::{HOLDS, Objects, open_if_there};
use crate::failure::{Context, PathError};
use crate::stop::{Stop, Stoppable};

/// What came of asking for an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Held {
    Yes,
    /// So it is, but it was found to hold something else.
    Damaged,
    /// There is none of that name.
    Missing,
    /// There is one that cannot be had: as many layers as the filesystem allows have it, or its size is not the content's.
    No,
}

impl Objects {
    /// Takes the object for the layer whose links are in `holds`.
    pub(super) fn hold(
        &self,
        files: BorrowedFd<'_>,
        holds: BorrowedFd<'_>,
        name: &Name,
        size: u64,
    ) -> io::Result<Held> {
        let _gate = self.gate();
        hold(files, holds, name, size)
    }

    /// Makes the file `content` in `dir`, which nothing will write to again, the object of that name, for the layer.
    pub(super) fn add(
        &self,
        files: BorrowedFd<'_>,
        holds: BorrowedFd<'_>,
        name: &Name,
        size: u64,
        (dir, content): (BorrowedFd<'_>, &std::ffi::OsStr),
    ) -> io::Result<Held> {
        let _gate = self.gate();
        // Another layer may have been quicker.
        let held = hold(files, holds, name, size)?;
        if held != Held::Missing {
            return Ok(held);
        }
        // The layer's own link comes first: a name that only the object itself has is nobody's.
        linkat(dir, content, holds, name.as_str(), AtFlags::empty())?;
        match linkat(dir, content, files, name.path(), AtFlags::empty()) {
            Err(Errno::NOENT) => {
                mkdirat(files, name.directory(), Mode::from_raw_mode(0o755))?;
                linkat(dir, content, files, name.path(), AtFlags::empty())?;
            }
            other => other?,
        }
        Ok(Held::Yes)
    }

    /// Gives up what the layer in `home` holds, and deletes what nobody else does; how many bytes that gave back. Everything
    /// else of the layer has to be gone already: its files may be names of objects.
    pub(crate) fn release(&self, home: BorrowedFd<'_>) -> io::Result<u64> {
        let holds = match openat(home, HOLDS, DIRECTORY, Mode::empty()) {
            Ok(holds) => holds,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(0),
            Err(error) => return Err(error.into()),
        };
        let Some(files) = self.open_files()? else {
            return Ok(0);
        };
        let mut bytes = 0;
        let mut emptied = BTreeSet::new();
        for (held, _) in list(holds.as_fd())? {
            let Some(name) = Name::parse(held.as_bytes()) else {
                continue;
            };
            let _gate = self.gate();
            if let Some(object) = give_up(files.as_fd(), holds.as_fd(), &name)? {
                bytes += blocks(&object);
                emptied.insert(name.directory().to_owned());
            }
            match unlinkat(&holds, name.as_str(), AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.tidy(&files, &emptied)?;
        Ok(bytes)
    }

    /// Deletes objects that no layer holds, which only a power cut or somebody's hand can leave; says how many there were.
    pub(crate) fn sweep(&self) -> Result<usize, PathError> {
        self.sweep_all()
            .at("look for what no layer has in", &self.files())
    }

    fn sweep_all(&self) -> io::Result<usize> {
        let Some(files) = self.open_files()? else {
            return Ok(0);
        };
        let (mut swept, mut emptied) = (0, BTreeSet::new());
        for (first, _) in list(files.as_fd())? {
            let dir = match openat(&files, &first, DIRECTORY, Mode::empty()) {
                Ok(dir) => dir,
                Err(Errno::NOENT | Errno::NOTDIR) => continue,
                Err(error) => return Err(error.into()),
            };
            for (rest, _) in list(dir.as_fd())? {
                let _gate = self.gate();
                match statat(&dir, &rest, AtFlags::SYMLINK_NOFOLLOW) {
                    Ok(stat) if stat.st_nlink == 1 => {
                        unlinkat(&dir, &rest, AtFlags::empty())?;
                        swept += 1;
                        emptied.insert(first.to_string_lossy().into_owned());
                    }
                    Ok(_) | Err(Errno::NOENT) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        self.tidy(&files, &emptied)?;
        Ok(swept)
    }

    /// Directories that are empty now go as well: they keep the blocks of their fullest days.
    fn tidy(&self, files: &OwnedFd, emptied: &BTreeSet<String>) -> io::Result<()> {
        let _gate = self.gate();
        for dir in emptied {
            match unlinkat(files, dir.as_str(), AtFlags::REMOVEDIR) {
                Ok(()) | Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOENT) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Reads what the layer in `home` holds, and takes the name from what is not what it should be: the next layer that has
    /// the file brings it anew.
    pub(crate) fn forget_damaged(&self, home: &Path) -> Result<(), PathError> {
        let failed = |cause| PathError {
            action: "read what is shared by",
            path: home.to_owned(),
            cause,
        };
        let Some(holds) = open_if_there(&home.join(HOLDS)).map_err(failed)? else {
            return Ok(());
        };
        let Some(files) = self.open_files().map_err(failed)? else {
            return Ok(());
        };
        let key = self.key()?;
        let mut buffer = vec![0; 256 * 1024];
        for (held, _) in list(holds.as_fd()).map_err(failed)? {
            let Some(name) = Name::parse(held.as_bytes()) else {
                continue;
            };
            if is_damaged(&files, &name, key, &mut buffer, &|| false).map_err(failed)? {
                tracing::warn!(
                    object = name.as_str(),
                    "a file that layers share was damaged when the machine went down"
                );
                let _gate = self.gate();
                unlinkat(&files, name.path(), AtFlags::empty()).map_err(|error| failed(error.into()))?;
            }
        }
        Ok(())
    }

    /// Takes the names from what a layer in the trash holds, if nobody else does, or if it is not what it should be. What the
    /// layer has stays there until it is deleted.
    pub(crate) fn release_names(&self, home: &Path) -> Result<(), PathError> {
        let released = || -> io::Result<()> {
            let (Some(holds), Some(files)) = (open_if_there(&home.join(HOLDS))?, self.open_files()?) else {
                return Ok(());
            };
            for (held, _) in list(holds.as_fd())? {
                let Some(name) = Name::parse(held.as_bytes()) else {
                    continue;
                };
                let _gate = self.gate();
                give_up(files.as_fd(), holds.as_fd(), &name)?;
            }
            Ok(())
        };
        released().at("give up what is shared by", home)?;
        self.forget_damaged(home)
    }

    /// Whether this root was used by an engine since the machine started, so that nothing it wrote can be lost.
    pub(crate) fn is_of_boot(&self, boot: &str) -> bool {
        let noted = fs::read_to_string(self.boot_file());
        !boot.is_empty() && noted.is_ok_and(|noted| noted == boot)
    }

    /// Says that what an earlier boot left has been looked at.
    pub(crate) fn note_boot(&self, boot: &str) -> Result<(), PathError> {
        match self.inner.dir.is_dir() {
            true => fs::write(self.boot_file(), boot).at("write", &self.boot_file()),
            false => Ok(()),
        }
    }

    fn boot_file(&self) -> PathBuf {
        self.inner.dir.join("boot")
    }

    /// Puts an object back that was deleted by hand, from the link of a layer, if that is still what its name says.
    pub(crate) fn put_back(&self, home: &Path, name: &str) -> Result<(), PathError> {
        let key = self.key()?;
        let restored = || -> io::Result<()> {
            let name = Name::parse(name.as_bytes()).ok_or(io::ErrorKind::InvalidInput)?;
            let (Some(holds), Some(files)) = (open_if_there(&home.join(HOLDS))?, self.open_files()?) else {
                return Err(io::ErrorKind::NotFound.into());
            };
            let mut buffer = vec![0; 256 * 1024];
            if named(&holds, name.as_str(), key, &mut buffer, &|| false)? != name {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!(
                        "what the layer has of {} is damaged; remove the images with it and pull or build them again",
                        name.as_str()
                    ),
                ));
            }
            let _gate = self.gate();
            match mkdirat(&files, name.directory(), Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
            match linkat(&holds, name.as_str(), &files, name.path(), AtFlags::empty()) {
                Ok(()) | Err(Errno::EXIST) => Ok(()),
                Err(error) => Err(error.into()),
            }
        };
        restored().at("put back a file's content from", home)
    }
}

pub(super) fn is_damaged(
    files: &OwnedFd,
    name: &Name,
    key: &Key,
    buffer: &mut [u8],
    stop: &Stop<'_>,
) -> io::Result<bool> {
    match named(files, &name.path(), key, buffer, stop) {
        Ok(is) => Ok(is != *name),
        // Lost, which is for others to tell.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        // The disk does not give it any more. Any other failure says nothing about the file.
        Err(error) => match Errno::from_io_error(&error) {
            Some(Errno::IO | Errno::BADMSG | Errno::UCLEAN) => Ok(true),
            _ => Err(error),
        },
    }
}

/// The name that the file's content has.
fn named(dir: &OwnedFd, path: &str, key: &Key, buffer: &mut [u8], stop: &Stop<'_>) -> io::Result<Name> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = openat(dir, path, flags, Mode::empty())?;
    Ok(key.name(Stoppable::new(File::from(file), stop), buffer)?.0)
}

fn hold(files: BorrowedFd<'_>, holds: BorrowedFd<'_>, name: &Name, size: u64) -> io::Result<Held> {
    let Some(object) = look(files, &name.path())? else {
        return Ok(Held::Missing);
    };
    if object.st_nlink == 1 {
        // Nobody answers for what it holds.
        unlinkat(files, name.path(), AtFlags::empty())?;
        return Ok(Held::Missing);
    }
    let damaged = object.st_mode & DAMAGED != 0;
    if !damaged && u64::try_from(object.st_size) != Ok(size) {
        return Ok(Held::No);
    }
    match linkat(files, name.path(), holds, name.as_str(), AtFlags::empty()) {
        // The layer has it twice.
        Ok(()) | Err(Errno::EXIST) if damaged => Ok(Held::Damaged),
        Ok(()) | Err(Errno::EXIST) => Ok(Held::Yes),
        Err(Errno::MLINK) => Ok(Held::No),
        Err(error) => Err(error.into()),
    }
}

/// Takes an object's name away if the layer whose links are in `holds` is the last to have it: the name and the layer's link
/// are all the links there are. The gate is the caller's. Gives the object that lost its name.
fn give_up(files: BorrowedFd<'_>, holds: BorrowedFd<'_>, name: &Name) -> io::Result<Option<Stat>> {
    let both = (look(files, &name.path())?, look(holds, name.as_str())?);
    let (Some(object), Some(own)) = both else {
        return Ok(None);
    };
    if object.st_ino != own.st_ino || object.st_nlink > 2 {
        return Ok(None);
    }
    unlinkat(files, name.path(), AtFlags::empty())?;
    Ok(Some(object))
}

pub(super) fn look(dir: BorrowedFd<'_>, path: &str) -> io::Result<Option<Stat>> {
    match statat(dir, path, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Bytes on disk.
pub(super) fn blocks(stat: &Stat) -> u64 {
    // st_blocks counts 512 bytes whatever the filesystem's block size is.
    u64::try_from(stat.st_blocks).unwrap_or(0) * 512
}
