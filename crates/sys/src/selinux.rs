//! SELinux: whether a policy is in force, which labels it knows, and the labels of files.
//!
//! A label is `user:role:type` or `user:role:type:level`; what it allows is the policy's to say. Without SELinux in
//! the kernel nothing is enabled and nothing here is to be called.
//!
//! Source: Linux security/selinux (selinuxfs.c, hooks.c), selinux(8).

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::fd::BorrowedFd;
use std::path::Path;

use rustix::fs::{Mode, OFlags, XattrFlags};

/// The extended attribute that holds a file's label.
pub const ATTRIBUTE: &str = "security.selinux";
/// The mount option that gives every file of a mount one label.
pub const MOUNT_OPTION: &str = "context";

const FILESYSTEM: &str = "/sys/fs/selinux";

/// Whether the kernel has SELinux and its filesystem is where it belongs; also where it only warns.
pub fn is_enabled() -> bool {
    Path::new(FILESYSTEM).join("enforce").exists()
}

/// Whether the loaded policy knows a label. Who may not ask is told that it does; using it tells.
pub fn is_known(label: &str) -> bool {
    let asked = OpenOptions::new()
        .write(true)
        .open(Path::new(FILESYSTEM).join("context"))
        .and_then(|mut file| file.write_all(label.as_bytes()));
    !asked.is_err_and(|error| error.kind() == io::ErrorKind::InvalidInput)
}

/// Labels a directory itself, through a descriptor that may be one for its path only.
pub fn label_directory(directory: BorrowedFd<'_>, label: &str) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let opened = rustix::fs::openat(directory, c".", flags, Mode::empty())?;
    Ok(rustix::fs::fsetxattr(
        &opened,
        ATTRIBUTE,
        label.as_bytes(),
        XattrFlags::empty(),
    )?)
}
