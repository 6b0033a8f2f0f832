//! From a name in an archive to the directory its entry belongs in.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, mkdirat, readlinkat, statat};
use rustix::io::Errno;
use sys::beneath::{open_beneath_no_links, resolve_dir_in_root};

use super::LayerError;
use super::tar::display;

/// Limits of Linux: of a path with its final zero, and of one name.
const MAX_PATH: usize = 4096;
const MAX_NAME: usize = 255;
/// As many links as the kernel follows.
const MAX_LINKS: usize = 40;

/// The plain components of a name: no empty ones, no `.`, and `..` taken back lexically. A name that leads
/// above the top is refused; an absolute one begins at the top.
pub(crate) fn clean(path: &[u8]) -> Result<PathBuf, LayerError> {
    let mut clean: Vec<&[u8]> = Vec::new();
    for component in path.split(|byte| *byte == b'/') {
        match component {
            b"" | b"." => {}
            b".." => {
                if clean.pop().is_none() {
                    return Err(LayerError::Outside { entry: display(path) });
                }
            }
            name if name.len() > MAX_NAME => {
                return Err(name_error(path, "a name of more than 255 bytes"));
            }
            name => clean.push(name),
        }
    }
    let joined = clean.join(&b'/');
    if joined.len() >= MAX_PATH {
        return Err(name_error(path, "a path of more than 4095 bytes"));
    }
    Ok(PathBuf::from(OsString::from_vec(joined)))
}

fn name_error(path: &[u8], reason: &'static str) -> LayerError {
    LayerError::Name {
        entry: display(path),
        reason,
    }
}

/// Called for a directory that an archive takes for granted and that is not there: with the directory it is
/// made in, its name, and where that is, links resolved.
pub(crate) trait Missing {
    /// Before something is made or replaced in the directory `dir`.
    fn before(&mut self, _dir: BorrowedFd<'_>) -> io::Result<()> {
        Ok(())
    }
    /// Whether every link may be followed; else [`Missing::follows`] is asked about each.
    fn follows_all(&self) -> bool {
        true
    }
    /// Whether this link may be followed; one that may not is in the way.
    fn follows(&self, _link: &Stat) -> bool {
        true
    }
    /// Makes the directory, or completes the one that was made just now.
    fn made(&mut self, dir: BorrowedFd<'_>, name: &OsStr, path: &Path) -> io::Result<()>;
    /// Whether an entry that is no directory may be replaced by one.
    fn may_replace(&mut self, dir: BorrowedFd<'_>, name: &OsStr) -> io::Result<bool>;
}

/// The directories of one tree, as its entries' names lead to them.
pub(crate) struct Parents {
    root: OwnedFd,
    /// The last answer: archives are mostly in order.
    last: Option<(PathBuf, Rc<OwnedFd>)>,
}

impl Parents {
    pub(crate) fn new(root: OwnedFd) -> Parents {
        Parents { root, last: None }
    }

    pub(crate) fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// To be called when a directory or link was removed or replaced.
    pub(crate) fn forget(&mut self) {
        self.last = None;
    }

    /// The directory at `path`; what is missing of it is made.
    pub(crate) fn find(&mut self, path: &Path, missing: &mut impl Missing) -> io::Result<Rc<OwnedFd>> {
        if let Some((last, dir)) = &self.last
            && last == path
        {
            return Ok(Rc::clone(dir));
        }
        let found = match missing.follows_all() {
            true => resolve_dir_in_root(self.root(), path),
            false => self.directory(path),
        };
        let dir = match found {
            Ok(dir) => dir,
            Err(error) if is_missing(&error) || is_link(&error) => self.make(path, missing)?,
            Err(error) => return Err(error),
        };
        let dir = Rc::new(dir);
        self.last = Some((path.to_owned(), Rc::clone(&dir)));
        Ok(dir)
    }

    /// Walks the path one name at a time, so that each missing directory is made where links lead.
    fn make(&self, path: &Path, missing: &mut impl Missing) -> io::Result<OwnedFd> {
        let mut left: VecDeque<OsString> = path.iter().map(OsStr::to_owned).collect();
        let mut at = PathBuf::new();
        let mut links = 0;
        while let Some(name) = left.pop_front() {
            if name == ".." {
                at.pop();
                continue;
            }
            let dir = self.directory(&at)?;
            match statat(&dir, &name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => match FileType::from_raw_mode(stat.st_mode) {
                    FileType::Directory => at.push(&name),
                    FileType::Symlink if missing.follows(&stat) => {
                        links += 1;
                        if links > MAX_LINKS {
                            return Err(Errno::LOOP.into());
                        }
                        let target = readlinkat(&dir, &name, Vec::new())?.into_bytes();
                        if target.starts_with(b"/") {
                            at = PathBuf::new();
                        }
                        for component in target.rsplit(|byte| *byte == b'/') {
                            if !component.is_empty() && component != b"." {
                                left.push_front(OsStr::from_bytes(component).to_owned());
                            }
                        }
                    }
                    _ if {
                        missing.before(dir.as_fd())?;
                        missing.may_replace(dir.as_fd(), &name)?
                    } =>
                    {
                        at.push(&name);
                        missing.made(dir.as_fd(), &name, &at)?;
                    }
                    _ => return Err(Errno::NOTDIR.into()),
                },
                Err(Errno::NOENT) => {
                    missing.before(dir.as_fd())?;
                    mkdirat(&dir, &name, Mode::from_raw_mode(0o755))?;
                    at.push(&name);
                    missing.made(dir.as_fd(), &name, &at)?;
                }
                Err(error) => return Err(error.into()),
            }
        }
        self.directory(&at)
    }

    fn directory(&self, path: &Path) -> io::Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        open_beneath_no_links(self.root(), path, flags, Mode::empty())
    }
}

fn is_missing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

fn is_link(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::LOOP.raw_os_error())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_plain_afterwards() {
        for (name, expected) in [
            ("a/b", "a/b"),
            ("./a//b/", "a/b"),
            ("/etc/passwd", "etc/passwd"),
            ("a/../b", "b"),
            (".", ""),
            ("", ""),
            ("/", ""),
        ] {
            assert_eq!(clean(name.as_bytes()).unwrap(), Path::new(expected), "{name}");
        }
    }

    #[test]
    fn names_that_lead_out_or_are_too_long_are_refused() {
        for name in ["..", "../a", "a/../../b", "/.."] {
            let error = clean(name.as_bytes()).unwrap_err();
            assert!(matches!(error, LayerError::Outside { .. }), "{name}");
        }
        for name in ["n".repeat(256), "d/".repeat(2500)] {
            let error = clean(name.as_bytes()).unwrap_err();
            assert!(matches!(error, LayerError::Name { .. }));
        }
    }
}
