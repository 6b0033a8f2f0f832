//! A part of a volume or directory that symbolic links in it do not lead out of.

use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

use crate::error::{Error, Result};

/// A path below a volume that symbolic links inside it do not lead out of, as it is now.
pub(crate) fn beneath(base: &Path, subpath: &str) -> Result<String> {
    let utf8 = |path: &Path| {
        path.to_str()
            .map(str::to_owned)
            .ok_or_else(|| Error::invalid(format!("the path {} is not valid UTF-8", path.display())))
    };
    if subpath.is_empty() {
        return utf8(base);
    }
    open_beneath(base, subpath)
        .map_err(|error| {
            Error::invalid(format!(
                "cannot access path {}/{subpath}: {error}",
                base.display()
            ))
        })
        .map(drop)?;
    utf8(&base.join(subpath))
}

/// The same, held: what is put there later makes no difference.
pub(crate) fn open_beneath(base: &Path, subpath: &str) -> std::io::Result<OwnedFd> {
    let base = std::fs::File::open(base)?;
    let path = rustix::fs::OFlags::PATH;
    sys::beneath::open_beneath(base.as_fd(), subpath, path, rustix::fs::Mode::empty())
}
