//! Project quotas: how much the files of a directory may take, together.
//!
//! A project is a number that files have, and that what is made in a directory has from it. The filesystem counts what
//! each project takes, and where it enforces limits (ext4 and xfs mounted with `prjquota`) refuses more with `EDQUOT`. On
//! ext4 a process with CAP_SYS_RESOURCE is not held to it.
//!
//! Sources: quotactl(2), quotactl_fd (Linux 5.14), ioctl_xfs_fsgetxattr(2), linux/quota.h, linux/dqblk_xfs.h.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

const PROJECTS: u32 = 2;
const GET: u32 = 0x80_0007;
const SET: u32 = 0x80_0008;
/// The state of all quotas of a filesystem (`Q_XGETQSTAT`).
const STATE: u32 = 0x5805;
const PROJECTS_ENFORCED: u16 = 1 << 5;
/// Of limits in `if_dqblk`.
const BLOCK: u64 = 1024;
const BLOCK_LIMITS: u32 = 1;

/// The same for all machines.
const QUOTACTL_FD: libc::c_long = 443;
const GET_ATTRIBUTES: u32 = 0x801c_581f;
const SET_ATTRIBUTES: u32 = 0x401c_5820;
/// What is made in the directory has its project.
const INHERIT: u32 = 0x200;

/// `struct fsxattr`.
#[repr(C)]
#[derive(Default)]
struct Attributes {
    flags: u32,
    extent_size: u32,
    extents: u32,
    project: u32,
    copy_extent_size: u32,
    padding: [u8; 8],
}

/// `struct if_dqblk`.
#[repr(C)]
#[derive(Default)]
struct Limits {
    blocks_hard: u64,
    blocks_soft: u64,
    bytes_used: u64,
    inodes_hard: u64,
    inodes_soft: u64,
    inodes_used: u64,
    blocks_time: u64,
    inodes_time: u64,
    valid: u32,
}

/// What a project may take, and takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Project {
    /// Bytes; 0 for no limit.
    pub limit: u64,
    pub used: u64,
    pub files: u64,
}

/// Whether the filesystem of an open file holds projects to limits.
pub fn is_enforced(file: BorrowedFd<'_>) -> bool {
    // Larger than `struct fs_quota_stat`, whose second field (after an octet and its padding) are the flags.
    let mut state = [0_u16; 128];
    call(file, STATE, 0, state.as_mut_ptr().cast()).is_ok()
        && state.get(1).is_some_and(|flags| flags & PROJECTS_ENFORCED != 0)
}

/// The project of a directory; 0 is everybody's.
pub fn project_of(directory: BorrowedFd<'_>) -> io::Result<u32> {
    attributes(directory).map(|attributes| attributes.project)
}

/// Puts a directory, and all that will be made in it, into a project.
pub fn set_project(directory: BorrowedFd<'_>, project: u32) -> io::Result<()> {
    let mut attributes = attributes(directory)?;
    attributes.project = project;
    attributes.flags |= INHERIT;
    // SAFETY: the call reads one `fsxattr`, which this is.
    let result = unsafe { libc::ioctl(directory.as_raw_fd(), SET_ATTRIBUTES as _, &raw const attributes) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

fn attributes(directory: BorrowedFd<'_>) -> io::Result<Attributes> {
    let mut attributes = Attributes::default();
    // SAFETY: the call writes one `fsxattr`, which this is.
    let result = unsafe { libc::ioctl(directory.as_raw_fd(), GET_ATTRIBUTES as _, &raw mut attributes) };
    if result == 0 {
        Ok(attributes)
    } else {
        Err(io::Error::last_os_error())
    }
}

/// A project on the filesystem of an open file.
pub fn project(file: BorrowedFd<'_>, project: u32) -> io::Result<Project> {
    let mut limits = Limits::default();
    match call(file, GET, project, (&raw mut limits).cast()) {
        // xfs knows only projects that have or had something.
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(Project::default()),
        Err(error) => Err(error),
        Ok(()) => Ok(Project {
            limit: limits.blocks_hard.saturating_mul(BLOCK),
            used: limits.bytes_used,
            files: limits.inodes_used,
        }),
    }
}

/// Limits a project to so many bytes, rounded up to whole KiB; 0 lifts the limit.
pub fn limit(file: BorrowedFd<'_>, project: u32, bytes: u64) -> io::Result<()> {
    let mut limits = Limits {
        blocks_hard: bytes.div_ceil(BLOCK),
        valid: BLOCK_LIMITS,
        ..Limits::default()
    };
    call(file, SET, project, (&raw mut limits).cast())
}

/// `data` is what the command reads or writes.
fn call(file: BorrowedFd<'_>, command: u32, project: u32, data: *mut libc::c_void) -> io::Result<()> {
    // SAFETY: each caller passes a place as large as what the kernel reads or writes for the command.
    let result = unsafe {
        libc::syscall(
            QUOTACTL_FD,
            file.as_raw_fd(),
            command << 8 | PROJECTS,
            project,
            data,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
