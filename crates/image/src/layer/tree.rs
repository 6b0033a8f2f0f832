//! A whole tree as a tar.

use std::io::Write;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;

use super::{Emitter, LayerError, walk};

/// Writes everything below `root`, a merged root filesystem, as an uncompressed tar.
pub fn tree_tar(root: BorrowedFd<'_>, out: impl Write) -> Result<(), LayerError> {
    let mut emitter = Emitter::new(out, false);
    walk(root, |found| {
        emitter.add(found, found.path.as_os_str().as_bytes())?;
        Ok(())
    })?;
    emitter.finish().map(|_| ())
}
