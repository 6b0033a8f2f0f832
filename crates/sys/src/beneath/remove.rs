//! Removing a directory tree that somebody hostile may have filled.
//!
//! - Links are unlinked, never followed; every step is relative to a descriptor of the directory it happens in.
//! - Depth is no limit: below [`DEPTH`] levels a directory is first moved up to the top of the tree, so neither
//!   the stack nor the descriptor table grows with what a container made.
//! - Files that were made immutable or append-only (chattr) lose the flag and are tried once more.
//! - What is mounted somewhere in the tree is not part of it: the removal stops there with `EBUSY`. To a process in
//!   another mount namespace than the mount's the kernel would allow to go through and below.
//! - It is not an error when something is gone already.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    AtFlags, FileType, IFlags, Mode, OFlags, StatxAttributes, StatxFlags, ioctl_getflags, ioctl_setflags,
    openat, renameat, statat, statx, unlinkat,
};
use rustix::io::Errno;

use super::Names;

/// How many levels are held open at once.
const DEPTH: usize = 48;

/// What was given back to the filesystem.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Removed {
    /// Bytes of the blocks of directories, and of files whose last name this was.
    pub bytes: u64,
    /// Files and directories whose last name this was.
    pub inodes: u64,
}

/// Removes the entry `name` of `dir` and everything below it.
pub fn remove_tree(dir: BorrowedFd<'_>, name: &OsStr) -> io::Result<Removed> {
    let mut removal = Removal {
        removed: Removed::default(),
        moved: 0,
    };
    let Some(top) = removal.file_or_directory(dir, name)? else {
        return Ok(removal.removed);
    };
    loop {
        let moved = removal.moved;
        removal.empty(&top, top.as_fd(), 0)?;
        if removal.moved == moved {
            break;
        }
    }
    removal.remove_empty(dir, name)?;
    Ok(removal.removed)
}

struct Removal {
    removed: Removed,
    /// How many directories were moved up to the top so far; also makes their new names.
    moved: u64,
}

impl Removal {
    /// Unlinks a file; opens a directory.
    fn file_or_directory(&mut self, dir: BorrowedFd<'_>, name: &OsStr) -> io::Result<Option<OwnedFd>> {
        let stat = match statx(dir, name, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::BASIC_STATS) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        if stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT) {
            return Err(Errno::BUSY.into());
        }
        if FileType::from_raw_mode(stat.stx_mode.into()) == FileType::Directory {
            self.removed.bytes += stat.stx_blocks * 512;
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            return Ok(Some(openat(dir, name, flags, Mode::empty())?));
        }
        if stat.stx_nlink <= 1 {
            self.removed.bytes += stat.stx_blocks * 512;
            self.removed.inodes += 1;
        }
        match unlinkat(dir, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(None),
            Err(Errno::PERM) => {
                unprotect_entry(dir, name);
                unprotect(dir);
                match unlinkat(dir, name, AtFlags::empty()) {
                    Ok(()) | Err(Errno::NOENT) => Ok(None),
                    Err(error) => Err(error.into()),
                }
            }
            Err(error) => Err(error.into()),
        }
    }

    fn empty(&mut self, dir: &OwnedFd, top: BorrowedFd<'_>, depth: usize) -> io::Result<()> {
        loop {
            let mut names = Names::of(dir.as_fd())?;
            let mut rounds = 0;
            loop {
                let some = names.some()?;
                if some.is_empty() {
                    break;
                }
                rounds += 1;
                for (name, _) in some {
                    self.entry(dir, &name, top, depth)?;
                }
            }
            // What was taken away while more was to be read may have moved something to where that had been read already.
            if rounds < 2 {
                return Ok(());
            }
        }
    }

    fn entry(&mut self, dir: &OwnedFd, name: &OsStr, top: BorrowedFd<'_>, depth: usize) -> io::Result<()> {
        let Some(child) = self.file_or_directory(dir.as_fd(), name)? else {
            return Ok(());
        };
        if depth >= DEPTH {
            drop(child);
            return self.move_up(dir.as_fd(), name, top);
        }
        self.empty(&child, top, depth + 1)?;
        drop(child);
        self.remove_empty(dir.as_fd(), name)
    }

    fn move_up(&mut self, dir: BorrowedFd<'_>, name: &OsStr, top: BorrowedFd<'_>) -> io::Result<()> {
        loop {
            self.moved += 1;
            let free = OsString::from(format!(".removing-{}", self.moved));
            match renameat(dir, name, top, &free) {
                Ok(()) => return Ok(()),
                // The tree happens to hold that name: take the next one.
                Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOTDIR) => {}
                Err(Errno::PERM) => {
                    unprotect_entry(dir, name);
                    unprotect(dir);
                    match renameat(dir, name, top, &free) {
                        Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOTDIR) => {}
                        other => return Ok(other?),
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn remove_empty(&mut self, dir: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
        let result = match unlinkat(dir, name, AtFlags::REMOVEDIR) {
            Err(Errno::PERM) => {
                unprotect_entry(dir, name);
                unprotect(dir);
                unlinkat(dir, name, AtFlags::REMOVEDIR)
            }
            other => other,
        };
        match result {
            Ok(()) => {
                self.removed.inodes += 1;
                Ok(())
            }
            Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// Takes the immutable and append-only flags off an entry. Best effort: the removal after it tells.
fn unprotect_entry(dir: BorrowedFd<'_>, name: &OsStr) {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    // Devices and pipes cannot carry the flags, and opening a device may act on it: only files and directories.
    let plain = statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).is_ok_and(|stat| {
        matches!(
            FileType::from_raw_mode(stat.st_mode),
            FileType::Directory | FileType::RegularFile
        )
    });
    if plain && let Ok(file) = openat(dir, name, flags, Mode::empty()) {
        unprotect(file.as_fd());
    }
}

fn unprotect(file: BorrowedFd<'_>) {
    let protection = IFlags::IMMUTABLE | IFlags::APPEND;
    if let Ok(flags) = ioctl_getflags(file)
        && flags.intersects(protection)
    {
        // Best effort, see above.
        let _ = ioctl_setflags(file, flags - protection);
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::path::Path;

    use super::*;
    use crate::mount::{Propagation, Tree, set_propagation};
    use crate::namespace::{Kind, create_with, in_namespace};

    #[test]
    fn any_number_of_names_goes() {
        let room = tempfile::tempdir().unwrap();
        let tree = room.path().join("tree");
        fs::create_dir_all(tree.join("below")).unwrap();
        for number in 0..10_000 {
            File::create(tree.join(format!("file{number}"))).unwrap();
            if number % 2 == 0 {
                fs::create_dir(tree.join(format!("below/dir{number}"))).unwrap();
            }
        }
        let above = File::open(room.path()).unwrap();
        let removed = remove_tree(above.as_fd(), OsStr::new("tree")).unwrap();
        assert_eq!(removed.inodes, 15_002);
        assert_eq!(fs::read_dir(room.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_is_mounted_in_a_tree_stays() {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: needs root");
            return;
        }
        let room = std::env::temp_dir().join(format!("remove-mounted-{}", std::process::id()));
        let (tree, kept) = (room.join("tree"), room.join("kept"));
        for path in [&tree.join("dir/mounted"), &kept] {
            fs::create_dir_all(path).unwrap();
        }
        fs::write(tree.join("file"), "").unwrap();
        fs::write(kept.join("file"), "kept").unwrap();
        let (namespace, root) = create_with(Kind::Mount, || {
            set_propagation(Path::new("/"), Propagation::Private, true).unwrap();
            for (source, target) in [
                (kept.clone(), tree.join("dir/mounted")),
                (kept.join("file"), tree.join("file")),
            ] {
                let mount = Tree::open(rustix::fs::CWD, &source, false).unwrap();
                mount.attach(File::open(target).unwrap().as_fd()).unwrap();
            }
            OwnedFd::from(File::open(&tree).unwrap())
        })
        .unwrap();
        // From another mount namespace, by way of a descriptor of that one, and from inside.
        let outside = |name: &str| remove_tree(root.as_fd(), OsStr::new(name)).unwrap_err();
        let inside = |name: &str| {
            in_namespace(namespace.as_fd(), Kind::Mount, || {
                let dir = File::open(&tree).unwrap();
                remove_tree(dir.as_fd(), OsStr::new(name)).unwrap_err()
            })
            .unwrap()
        };
        for name in ["dir", "file"] {
            assert_eq!(outside(name).kind(), io::ErrorKind::ResourceBusy, "{name}");
            assert_eq!(inside(name).kind(), io::ErrorKind::ResourceBusy, "{name}");
        }
        assert_eq!(fs::read_to_string(kept.join("file")).unwrap(), "kept");
        assert!(tree.join("file").exists());
        drop((namespace, root));
        let above = File::open(std::env::temp_dir()).unwrap();
        let removed = remove_tree(above.as_fd(), room.file_name().unwrap()).unwrap();
        assert!(removed.inodes > 0 && !room.exists());
    }
}
