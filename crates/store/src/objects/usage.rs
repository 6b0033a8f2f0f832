//! How much objects take, and what is wrong with them.

use std::collections::{HashMap, HashSet};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, openat, statat};
use rustix::io::Errno;
use sys::beneath::{DIRECTORY, list};

use super::hold::{blocks, look};
use super::name::Name;
use super::{HOLDS, Objects, open_if_there};

/// An object as a layer holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeldObject {
    /// The same for every layer that has it.
    pub inode: u64,
    /// Bytes on disk.
    pub bytes: u64,
    /// How many layers have it.
    pub layers: u64,
}

impl Objects {
    /// What the layer in `home` holds; nothing when it, or the layer, is not there.
    pub(crate) fn held(&self, home: &Path) -> io::Result<Vec<HeldObject>> {
        let Some(holds) = open_if_there(&home.join(HOLDS))? else {
            return Ok(Vec::new());
        };
        let mut held = Vec::new();
        for (name, _) in list(holds.as_fd())? {
            match statat(&holds, &name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => {
                    let links: u64 = stat.st_nlink as _;
                    held.push(HeldObject {
                        inode: stat.st_ino,
                        bytes: blocks(&stat),
                        // The other link is the object's name.
                        layers: links.saturating_sub(1).max(1),
                    });
                }
                Err(Errno::NOENT) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(held)
    }

    /// What would be given back if the layers in these homes went.
    pub(crate) fn freed_with(&self, homes: &[PathBuf]) -> io::Result<u64> {
        let mut seen: HashMap<u64, u64> = HashMap::new();
        let mut bytes = 0;
        for home in homes {
            for held in self.held(home)? {
                let times = seen.entry(held.inode).or_default();
                *times += 1;
                if *times == held.layers {
                    bytes += held.bytes;
                }
            }
        }
        Ok(bytes)
    }

    /// Bytes of the objects that the layers in `homes` have, each once, and of all others.
    pub(crate) fn split(&self, homes: &[PathBuf]) -> io::Result<(u64, u64)> {
        let mut theirs = HashSet::new();
        for home in homes {
            theirs.extend(self.held(home)?.into_iter().map(|held| held.inode));
        }
        let (mut own, mut other) = (0, 0);
        self.each(|_, stat| match theirs.contains(&stat.st_ino) {
            true => own += blocks(stat),
            false => other += blocks(stat),
        })?;
        Ok((own, other))
    }

    /// Objects that no layer has, by name.
    pub(crate) fn unheld(&self) -> io::Result<Vec<String>> {
        let mut found = Vec::new();
        self.each(|name, stat| {
            if stat.st_nlink == 1 {
                found.push(name.to_owned());
            }
        })?;
        Ok(found)
    }

    /// Objects that the layer in `home` has and that cannot be found by their names any more.
    pub(crate) fn lost(&self, home: &Path) -> io::Result<Vec<String>> {
        let Some(holds) = open_if_there(&home.join(HOLDS))? else {
            return Ok(Vec::new());
        };
        let files = self.open_files()?;
        let mut lost = Vec::new();
        for (held, _) in list(holds.as_fd())? {
            let Some(name) = Name::parse(held.as_bytes()) else {
                continue;
            };
            let object = match &files {
                Some(files) => look(files.as_fd(), &name.path())?,
                None => None,
            };
            if object.is_none() {
                lost.push(name.as_str().to_owned());
            }
        }
        Ok(lost)
    }

    pub(super) fn each(&self, mut visit: impl FnMut(&str, &rustix::fs::Stat)) -> io::Result<()> {
        let Some(files) = self.open_files()? else {
            return Ok(());
        };
        for (first, _) in list(files.as_fd())? {
            let dir = match openat(&files, &first, DIRECTORY, Mode::empty()) {
                Ok(dir) => dir,
                Err(Errno::NOENT | Errno::NOTDIR) => continue,
                Err(error) => return Err(error.into()),
            };
            for (rest, _) in list(dir.as_fd())? {
                if let Some(stat) = look(dir.as_fd(), &rest.to_string_lossy())? {
                    visit(&format!("{}{}", first.display(), rest.display()), &stat);
                }
            }
        }
        Ok(())
    }
}
