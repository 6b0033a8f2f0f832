//! Extended attributes of anything a directory can hold, links and devices included.
//!
//! A filesystem without extended attributes has none: reading gives an empty list there, only writing fails.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use rustix::fs::{self, XattrFlags};
use rustix::io::Errno;

use super::proc_path;

/// All attributes of the entry `name` of `dir`, sorted by name; a link is not followed.
pub fn xattrs(dir: BorrowedFd<'_>, name: &OsStr) -> io::Result<Vec<(OsString, Vec<u8>)>> {
    let path = proc_path(dir, name);
    collect(
        |buf| fs::llistxattr(&path, buf),
        |key, buf| fs::lgetxattr(&path, key, buf),
    )
}

/// All attributes of an open file or directory (not of an `O_PATH` descriptor), sorted by name.
pub fn file_xattrs(file: BorrowedFd<'_>) -> io::Result<Vec<(OsString, Vec<u8>)>> {
    collect(
        |buf| fs::flistxattr(file, buf),
        |key, buf| fs::fgetxattr(file, key, buf),
    )
}

/// One attribute of the entry `name` of `dir`; `None` when it is not there.
pub fn get_xattr(dir: BorrowedFd<'_>, name: &OsStr, key: &str) -> io::Result<Option<Vec<u8>>> {
    let path = proc_path(dir, name);
    match fill(|buf| fs::lgetxattr(&path, key, buf)) {
        Ok(value) => Ok(Some(value)),
        Err(Errno::NODATA | Errno::NOTSUP) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Sets one attribute of the entry `name` of `dir`; a link is not followed.
pub fn set_xattr(dir: BorrowedFd<'_>, name: &OsStr, key: &OsStr, value: &[u8]) -> io::Result<()> {
    let path = proc_path(dir, name);
    Ok(fs::lsetxattr(&path, key, value, XattrFlags::empty())?)
}

/// Sets one attribute of an open file or directory.
pub fn set_file_xattr(file: BorrowedFd<'_>, key: &OsStr, value: &[u8]) -> io::Result<()> {
    Ok(fs::fsetxattr(file, key, value, XattrFlags::empty())?)
}

fn collect(
    list: impl Fn(&mut [u8]) -> Result<usize, Errno>,
    get: impl Fn(&OsStr, &mut [u8]) -> Result<usize, Errno>,
) -> io::Result<Vec<(OsString, Vec<u8>)>> {
    let names = match fill(list) {
        Ok(names) => names,
        Err(Errno::NOTSUP) => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    let mut found = Vec::new();
    for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        match fill(|buf| get(OsStr::from_bytes(name), buf)) {
            Ok(value) => found.push((OsString::from_vec(name.to_vec()), value)),
            // Removed meanwhile, or listed but not readable for anybody (some filesystems' own names).
            Err(Errno::NODATA | Errno::NOTSUP) => {}
            Err(error) => return Err(error.into()),
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// Reads into a buffer that grows until the value fits; the kernel's own limit is 64 KiB (xattr(7)). An empty
/// buffer would ask for the size only, which costs a second call in the common case.
fn fill(call: impl Fn(&mut [u8]) -> Result<usize, Errno>) -> Result<Vec<u8>, Errno> {
    let mut value = vec![0; 256];
    loop {
        match call(&mut value) {
            Ok(size) => {
                value.truncate(size);
                return Ok(value);
            }
            Err(Errno::RANGE) if value.len() < 128 << 10 => value.resize(value.len() * 8, 0),
            Err(error) => return Err(error),
        }
    }
}
