//! The files of a layer by the names that its archive gave them.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, openat, statat};
use store::{Part, SharedFiles};
use sys::beneath::resolve_in_root;

use super::emit::{content, open_file};

/// A layer whose files are read.
pub(crate) struct Files {
    root: OwnedFd,
    /// Where the content of files is that have none of their own.
    shared: Option<SharedFiles>,
}

impl Files {
    pub(crate) fn open(part: &Part) -> io::Result<Files> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Files {
            root: openat(CWD, &part.dir, flags, Mode::empty())?,
            shared: match part.is_layer() {
                true => SharedFiles::beside(&part.dir)?,
                false => None,
            },
        })
    }

    /// A regular file and its size; `None` where there is none. Links on the way are followed within the layer, as when it
    /// was unpacked.
    pub(crate) fn file(&self, path: &Path) -> io::Result<Option<(File, u64)>> {
        match self.own(path)? {
            Some((file, size)) => Ok(Some((content(self.shared.as_ref(), file)?, size))),
            None => Ok(None),
        }
    }

    /// The name of what the layer shares with others for the content of this file, and its size; `None` where it is no file or
    /// has its content itself.
    pub(crate) fn object(&self, path: &Path) -> io::Result<Option<(String, u64)>> {
        let Some((file, size)) = self.own(path)? else {
            return Ok(None);
        };
        Ok(SharedFiles::object_of(&file)?.map(|object| (object, size)))
    }

    /// The file as it lies in the layer.
    fn own(&self, path: &Path) -> io::Result<Option<(File, u64)>> {
        let Some(name) = path.file_name() else {
            return Ok(None);
        };
        let parent = path.parent().unwrap_or(Path::new(""));
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let found = resolve_in_root(self.root.as_fd(), parent, flags, Mode::empty())
            .and_then(|dir| Ok((statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW)?, dir)));
        let (stat, dir) = match found {
            Ok(found) => found,
            Err(error) if is_none(&error) => return Ok(None),
            Err(error) => return Err(error),
        };
        // Looked at before it is opened: opening a device does something (a watchdog starts, a tape rewinds), and the layer is
        // somebody's from outside.
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Ok(None);
        }
        let file = open_file(dir.as_fd(), name)?;
        Ok(Some((file, u64::try_from(stat.st_size).unwrap_or(0))))
    }
}

/// Nothing of the name, or links on the way that lead nowhere.
fn is_none(error: &io::Error) -> bool {
    let circle = rustix::io::Errno::LOOP.raw_os_error();
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    ) || error.raw_os_error() == Some(circle)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
    use rustix::fs::mknodat;

    use super::*;

    #[test]
    fn only_files_are_opened() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("file"), "content").unwrap();
        std::fs::create_dir(dir.path().join("dir")).unwrap();
        symlink("file", dir.path().join("link")).unwrap();
        symlink("circle", dir.path().join("circle")).unwrap();
        let pipe = dir.path().join("pipe");
        mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        let files = Files {
            root: openat(CWD, dir.path(), OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap(),
            shared: None,
        };
        let watch = inotify::init(CreateFlags::NONBLOCK).unwrap();
        inotify::add_watch(&watch, &pipe, WatchFlags::OPEN).unwrap();
        for name in ["pipe", "dir", "link", "circle/x", "file/x", "none"] {
            assert!(files.file(Path::new(name)).unwrap().is_none(), "{name}");
        }
        let mut buffer = [std::mem::MaybeUninit::uninit(); 512];
        let mut opened = inotify::Reader::new(&watch, &mut buffer);
        assert!(opened.next().is_err(), "something that is no file was opened");
        // It would have been noticed.
        drop(openat(CWD, &pipe, OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty()).unwrap());
        assert!(opened.next().is_ok());
        let (_, size) = files.file(Path::new("dir/../file")).unwrap().unwrap();
        assert_eq!(size, 7);
    }
}
