//! Device nodes and the links of `/dev`.
//!
//! Where the kernel does not let us make nodes (a user namespace), the host's node of the same path is bound
//! instead, after a look that it is the same device.
//!
//! Source: OCI runtime-spec config-linux.md "Default Devices", "Default symbolic links".

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, Uid, makedev};
use rustix::io::Errno;
use spec::runtime::Device;
use sys::mount::{Attributes, Propagation, Tree};

use super::target::{self, Kind};
use crate::error::{LaunchError, reason};

const DEFAULTS: [(&str, i64, i64); 6] = [
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
];

const LINKS: [(&str, &str); 5] = [
    ("/proc/self/fd", "fd"),
    ("/proc/self/fd/0", "stdin"),
    ("/proc/self/fd/1", "stdout"),
    ("/proc/self/fd/2", "stderr"),
    ("pts/ptmx", "ptmx"),
];

pub(crate) fn defaults() -> impl Iterator<Item = Device> {
    DEFAULTS.into_iter().map(|(path, major, minor)| Device {
        path: PathBuf::from(path),
        r#type: "c".to_owned(),
        major,
        minor,
        file_mode: Some(0o666),
        uid: None,
        gid: None,
    })
}

/// Whether the path is that of a link which every `/dev` has. A privileged container's configuration lists all devices
/// of the host, `/dev/ptmx` among them, and gets its own devpts's all the same.
pub(crate) fn is_link(path: &Path) -> bool {
    let name = path.strip_prefix("/dev").ok();
    LINKS.iter().any(|(_, link)| name == Some(Path::new(link)))
}

pub(crate) fn make_defaults(root: BorrowedFd<'_>) -> Result<(), LaunchError> {
    for device in defaults() {
        make(root, &device, None)?;
    }
    links(root).map_err(|error| failed(Path::new("/dev"), &error))
}

fn links(root: BorrowedFd<'_>) -> io::Result<()> {
    let dev = target::open_or_make(root, Path::new("/dev"), Kind::Directory)?;
    for (text, name) in LINKS {
        link(dev.as_fd(), text, name)?;
    }
    if Path::new("/proc/kcore").exists() {
        link(dev.as_fd(), "/proc/kcore", "core")?;
    }
    Ok(())
}

fn link(dev: BorrowedFd<'_>, text: &str, name: &str) -> io::Result<()> {
    match rustix::fs::symlinkat(text, dev, name) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// With `spare`, a path of the container, the node is moved from there where it cannot be made.
pub(crate) fn make(root: BorrowedFd<'_>, device: &Device, spare: Option<&Path>) -> Result<(), LaunchError> {
    let (kind, id) = number(device)?;
    place(root, device, kind, id, spare).map_err(|error| failed(&device.path, &error))
}

/// Kind and number of a device, if it is one.
pub(super) fn number(device: &Device) -> Result<(FileType, u64), LaunchError> {
    parts(device).map_err(|why| {
        let path = device.path.display();
        LaunchError::Invalid(format!("linux.devices: {path}: {why}"))
    })
}

/// Whether all of them are devices.
pub(super) fn check(devices: &[Device]) -> Result<(), LaunchError> {
    for (index, device) in devices.iter().enumerate() {
        parts(device).map_err(|why| LaunchError::Invalid(format!("linux.devices[{index}].{why}")))?;
    }
    Ok(())
}

/// The same; a mistake begins with the name of its field.
fn parts(device: &Device) -> Result<(FileType, u64), String> {
    let kind = match device.r#type.as_str() {
        "c" | "u" => FileType::CharacterDevice,
        "b" => FileType::BlockDevice,
        "p" => FileType::Fifo,
        other => return Err(format!("type: there is no {other:?} (c, b, u or p)")),
    };
    if !device.path.is_absolute() || device.path.file_name().is_none() {
        return Err(format!("path: {:?} is not absolute, or no file's", device.path));
    }
    if kind == FileType::Fifo {
        return Ok((kind, 0));
    }
    // The kernel cuts off what is above, and would make another device (Linux include/linux/kdev_t.h).
    let part = |name: &str, value: i64, most: u32| match u32::try_from(value) {
        Ok(value) if value <= most => Ok(value),
        _ => Err(format!("{name}: {value} is not 0 to {most}")),
    };
    let major = part("major", device.major, (1 << 12) - 1)?;
    Ok((kind, makedev(major, part("minor", device.minor, (1 << 20) - 1)?)))
}

fn place(
    root: BorrowedFd<'_>,
    device: &Device,
    kind: FileType,
    id: u64,
    spare: Option<&Path>,
) -> io::Result<()> {
    match (node(root, device, kind, id), spare) {
        (Err(error), Some(spare)) if error.kind() == io::ErrorKind::PermissionDenied => {
            move_node(root, device, spare)
        }
        (Err(error), None) if error.kind() == io::ErrorKind::PermissionDenied => bind(root, device, kind, id),
        (result, _) => result,
    }
}

/// Makes the node with its owner.
pub(super) fn node(root: BorrowedFd<'_>, device: &Device, kind: FileType, id: u64) -> io::Result<()> {
    let (directory, name) = target::parent(root, &device.path)?;
    let mode = Mode::from_raw_mode(device.file_mode.unwrap_or(0o666) & 0o7777);
    match rustix::fs::mknodat(&directory, &name, kind, mode, id) {
        Ok(()) => {
            let (uid, gid) = (device.uid.unwrap_or(0), device.gid.unwrap_or(0));
            if (uid, gid) != (0, 0) {
                let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
                let flags = AtFlags::SYMLINK_NOFOLLOW;
                rustix::fs::chownat(&directory, &name, Some(uid), Some(gid), flags)?;
            }
            Ok(())
        }
        Err(Errno::EXIST) => {
            let there = rustix::fs::statat(&directory, &name, AtFlags::SYMLINK_NOFOLLOW)?;
            if FileType::from_raw_mode(there.st_mode) == kind && there.st_rdev == id {
                return Ok(());
            }
            Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                "another file is in this place",
            ))
        }
        Err(error) => Err(error.into()),
    }
}

/// Shows a node that the caller made elsewhere in the container at its place, and there only.
fn move_node(root: BorrowedFd<'_>, device: &Device, spare: &Path) -> io::Result<()> {
    let (directory, name) = target::parent(root, spare)?;
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let made = rustix::fs::openat(&directory, &name, flags, Mode::empty())?;
    Tree::of(made.as_fd(), false)?.attach(target::open_or_make(root, &device.path, Kind::File)?.as_fd())?;
    Ok(rustix::fs::unlinkat(&directory, &name, AtFlags::empty())?)
}

fn bind(root: BorrowedFd<'_>, device: &Device, kind: FileType, id: u64) -> io::Result<()> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let host = rustix::fs::openat(CWD, &device.path, flags, Mode::empty())?;
    let stat = rustix::fs::fstat(&host)?;
    if FileType::from_raw_mode(stat.st_mode) != kind || stat.st_rdev != id {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            "the node cannot be made here and the host has another device at this path",
        ));
    }
    let tree = Tree::of(host.as_fd(), false)?;
    tree.set(
        Attributes {
            propagation: Some(Propagation::Private),
            ..Attributes::default()
        },
        false,
    )?;
    tree.attach(target::open_or_make(root, &device.path, Kind::File)?.as_fd())
}

fn failed(path: &Path, error: &io::Error) -> LaunchError {
    LaunchError::Setup {
        step: format!("make the device {}", path.display()),
        reason: reason(error),
        errno: error.raw_os_error(),
    }
}
