//! Mounts by descriptor: filesystems and trees are made detached, given their attributes while nobody sees
//! them, and then moved to their place, so that no half-made mount and no path lookup lies in between.
//!
//! A detached mount that is dropped is gone; nothing of it ever stood in a mount table.
//!
//! Sources: fsopen(2), fsconfig(2), fsmount(2), open_tree(2), move_mount(2) (Linux 5.2), mount_setattr(2)
//! (Linux 5.12), mount_namespaces(7).

mod mapped;
mod objects;
mod overlay;
mod within;
pub mod words;

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags,
    UnmountFlags,
};

pub use mapped::IdMap;
pub use objects::Objects;
pub use overlay::Overlay;

use crate::beneath;
use crate::namespace::{self, Kind};

/// What mount_setattr(2) changes. `set` and `clear` are bits of this type's constants.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Attributes<'fd> {
    pub set: u64,
    pub clear: u64,
    pub propagation: Option<Propagation>,
    /// The user namespace whose id maps the mount translates by (`MOUNT_ATTR_IDMAP`).
    pub idmap: Option<UserNamespace<'fd>>,
}

/// A borrowed handle of a user namespace that can be compared by number.
#[derive(Debug, Clone, Copy)]
pub struct UserNamespace<'fd>(pub BorrowedFd<'fd>);

impl PartialEq for UserNamespace<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_raw_fd() == other.0.as_raw_fd()
    }
}
impl Eq for UserNamespace<'_> {}

impl Attributes<'_> {
    pub const READ_ONLY: u64 = 0x1;
    pub const NO_SUID: u64 = 0x2;
    pub const NO_DEV: u64 = 0x4;
    pub const NO_EXEC: u64 = 0x8;
    /// The two bits that hold the access time policy; 0 is relatime.
    pub const ATIME: u64 = 0x70;
    pub const NO_ATIME: u64 = 0x10;
    pub const STRICT_ATIME: u64 = 0x20;
    pub const NO_DIR_ATIME: u64 = 0x80;
    pub const NO_SYMFOLLOW: u64 = 0x20_0000;
    const IDMAP: u64 = 0x10_0000;

    fn is_nothing(&self) -> bool {
        self.set == 0 && self.clear == 0 && self.propagation.is_none() && self.idmap.is_none()
    }
}

/// Whether mounts and unmounts are passed on between copies of a mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Propagation {
    Shared,
    Slave,
    Private,
    Unbindable,
}

impl Propagation {
    fn flag(self) -> u64 {
        match self {
            Propagation::Shared => libc::MS_SHARED,
            Propagation::Slave => libc::MS_SLAVE,
            Propagation::Private => libc::MS_PRIVATE,
            Propagation::Unbindable => libc::MS_UNBINDABLE,
        }
    }
}

/// A mount (with what is mounted below it) behind a descriptor, detached or at its place.
#[derive(Debug)]
pub struct Tree(OwnedFd);

impl Tree {
    /// A detached copy of the mount at `path`, from there down; with `recursive` its submounts, too.
    pub fn open(at: BorrowedFd<'_>, path: &Path, recursive: bool) -> io::Result<Tree> {
        let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        if path.as_os_str().is_empty() {
            flags |= OpenTreeFlags::AT_EMPTY_PATH;
        }
        if recursive {
            flags |= OpenTreeFlags::AT_RECURSIVE;
        }
        Ok(Tree(rustix::mount::open_tree(at, path, flags)?))
    }

    /// A detached copy of the mount that an open file or directory is on.
    pub fn of(file: BorrowedFd<'_>, recursive: bool) -> io::Result<Tree> {
        Tree::open(file, Path::new(""), recursive)
    }

    /// The directory or file at `path` in a detached mount, as a mount of its own. No link leads out of the mount.
    pub fn part(self, path: &Path) -> io::Result<Tree> {
        match self.copy_of(path) {
            // Before Linux 6.15 only what is mounted in the caller's namespace is copied, so it happens in one that ends here.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => self.part_elsewhere(path),
            result => result,
        }
    }

    fn copy_of(&self, path: &Path) -> io::Result<Tree> {
        let found = beneath::open_beneath(self.0.as_fd(), path, OFlags::PATH, Mode::empty())?;
        Tree::of(found.as_fd(), false)
    }

    fn part_elsewhere(self, path: &Path) -> io::Result<Tree> {
        let (_namespace, part) = namespace::create_with(Kind::Mount, || {
            set_propagation(Path::new("/"), Propagation::Private, true)?;
            // A place that exists everywhere.
            let place = rustix::fs::open("/proc", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
            self.attach(place.as_fd())?;
            self.copy_of(path)
        })?;
        part
    }

    /// Takes a descriptor of a mount that came from elsewhere (another process, `Overlay`).
    pub fn from_fd(fd: OwnedFd) -> Tree {
        Tree(fd)
    }

    pub fn into_fd(self) -> OwnedFd {
        self.0
    }

    /// Changes attributes of the mount, with `recursive` of all below as well.
    pub fn set(&self, attributes: Attributes<'_>, recursive: bool) -> io::Result<()> {
        set_attributes(self.0.as_fd(), attributes, recursive)
    }

    /// Puts the mount over the directory or file that `target` refers to. Both are descriptors: no path is
    /// looked up, so nobody can redirect it. The descriptor goes on referring to the mount.
    pub fn attach(&self, target: BorrowedFd<'_>) -> io::Result<()> {
        Ok(rustix::mount::move_mount(
            self.0.as_fd(),
            c"",
            target,
            c"",
            MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH,
        )?)
    }
}

impl AsFd for Tree {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Changes attributes of the mount that a descriptor is on (the descriptor must be the root of that mount).
pub fn set_attributes(mount: BorrowedFd<'_>, attributes: Attributes<'_>, recursive: bool) -> io::Result<()> {
    if attributes.is_nothing() {
        return Ok(());
    }
    let mut set = attributes.set;
    let mut clear = attributes.clear;
    if set & Attributes::ATIME != 0 || clear & Attributes::ATIME != 0 {
        // The kernel wants the whole field cleared when any of it changes.
        clear |= Attributes::ATIME;
    }
    if attributes.idmap.is_some() {
        set |= Attributes::IDMAP;
    }
    let argument = libc::mount_attr {
        attr_set: set,
        attr_clr: clear,
        propagation: attributes.propagation.map_or(0, Propagation::flag),
        userns_fd: attributes
            .idmap
            .map_or(0, |namespace| namespace.0.as_raw_fd() as u64),
    };
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is an empty C string, `argument` lives over the call and its true size is passed.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const argument,
            std::mem::size_of::<libc::mount_attr>(),
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// A filesystem being configured (fsopen).
#[derive(Debug)]
pub struct Filesystem {
    context: OwnedFd,
    name: String,
}

impl Filesystem {
    /// Begins a mount of the type `name`.
    pub fn new(name: &str) -> io::Result<Filesystem> {
        let context = rustix::mount::fsopen(name, FsOpenFlags::FSOPEN_CLOEXEC).map_err(|error| {
            if error == rustix::io::Errno::NODEV {
                io::Error::new(
                    io::ErrorKind::Unsupported,
                    format!("the kernel has no filesystem of type {name:?}"),
                )
            } else {
                error.into()
            }
        })?;
        Ok(Filesystem {
            context,
            name: name.to_owned(),
        })
    }

    /// `key=value`. Values over 255 bytes are refused by the kernel.
    pub fn string(&self, key: &str, value: &str) -> io::Result<()> {
        rustix::mount::fsconfig_set_string(self.context.as_fd(), key, value)
            .map_err(|error| self.explain(error, &format!("{key}={value}")))
    }

    /// `key=<path>` where the path may be longer than 255 bytes or not be text.
    pub fn path(&self, key: &str, value: &Path) -> io::Result<()> {
        if value.as_os_str().len() < 256 {
            return rustix::mount::fsconfig_set_string(self.context.as_fd(), key, value)
                .map_err(|error| self.explain(error, &format!("{key}={}", value.display())));
        }
        let directory = rustix::fs::open(
            value,
            rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC,
            rustix::fs::Mode::empty(),
        )?;
        rustix::mount::fsconfig_set_fd(self.context.as_fd(), key, directory.as_fd())
            .map_err(|error| self.explain(error, &format!("{key}={}", value.display())))
    }

    /// A word without a value.
    pub fn flag(&self, key: &str) -> io::Result<()> {
        rustix::mount::fsconfig_set_flag(self.context.as_fd(), key).map_err(|error| self.explain(error, key))
    }

    /// One option as in a mount table: `key=value` or a word.
    pub fn option(&self, option: &str) -> io::Result<()> {
        match option.split_once('=') {
            Some((key, value)) => self.string(key, value),
            None => self.flag(option),
        }
    }

    /// Makes the filesystem and a detached mount of it with these attribute bits.
    pub fn mount(self, attributes: u64) -> io::Result<Tree> {
        rustix::mount::fsconfig_create(self.context.as_fd()).map_err(|error| self.explain(error, ""))?;
        self.attached_nowhere(attributes)
    }

    /// A mount of the filesystem that was made.
    fn attached_nowhere(self, attributes: u64) -> io::Result<Tree> {
        let mount = rustix::mount::fsmount(
            self.context.as_fd(),
            FsMountFlags::FSMOUNT_CLOEXEC,
            MountAttrFlags::from_bits_retain(attributes as u32),
        )
        .map_err(|error| self.explain(error, ""))?;
        Ok(Tree(mount))
    }

    /// Adds what the kernel wrote about the failure into the context's message queue.
    fn explain(&self, error: rustix::io::Errno, option: &str) -> io::Error {
        let mut said = Vec::new();
        let mut buffer = [0u8; 512];
        while let Ok(count) = rustix::io::read(&self.context, &mut buffer) {
            let Some(line) = buffer.get(..count).filter(|line| !line.is_empty()) else {
                break;
            };
            let line = String::from_utf8_lossy(line);
            // "e text", "w text", "i text"
            let text = line.trim_end();
            said.push(text.split_once(' ').map_or(text, |(_, rest)| rest).to_owned());
            if said.len() == 16 {
                break;
            }
        }
        let error = io::Error::from(error);
        if said.is_empty() && option.is_empty() {
            return error;
        }
        let mut text = format!("{} filesystem", self.name);
        if !option.is_empty() {
            text.push_str(&format!(", option {option:?}"));
        }
        text.push_str(&format!(": {error}"));
        if !said.is_empty() {
            text.push_str(&format!(" (kernel: {})", said.join("; ")));
        }
        io::Error::new(error.kind(), text)
    }
}

/// Sets the propagation of the mount at `path`, with `recursive` of all below.
pub fn set_propagation(path: &Path, propagation: Propagation, recursive: bool) -> io::Result<()> {
    let mut flags = MountPropagationFlags::from_bits_retain(propagation.flag() as u32);
    if recursive {
        flags |= MountPropagationFlags::REC;
    }
    Ok(rustix::mount::mount_change(path, flags)?)
}

/// Makes the mount that the working directory is the root of the process's root and drops the old root with
/// everything on it. The working directory is `/` afterwards.
pub fn pivot_to_working_directory() -> io::Result<()> {
    // Both paths are the same directory: the old root comes to lie on top of the new one, and is taken off.
    rustix::process::pivot_root(c".", c".")?;
    rustix::mount::unmount(c".", UnmountFlags::DETACH)?;
    Ok(rustix::process::chdir(c"/")?)
}

/// Takes off the mount at `path`, at once for new users, for good when its last user is gone.
pub fn detach(path: &Path) -> io::Result<()> {
    Ok(rustix::mount::unmount(path, UnmountFlags::DETACH)?)
}

pub(crate) fn c_path(path: &Path) -> io::Result<CString> {
    Ok(CString::new(path.as_os_str().as_bytes())?)
}
