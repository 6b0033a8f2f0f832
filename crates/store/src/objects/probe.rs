//! Whether the kernel and the data root's filesystem show a file whose content is elsewhere: it is tried.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{Mode, OFlags, openat};
use sys::beneath::set_file_xattr;
use sys::mount::{self, Overlay};

use super::{METACOPY, REDIRECT};

/// Tries it in the directory `place`, which is made and removed.
pub(crate) fn probe(place: &Path) -> io::Result<()> {
    // What one that was killed left.
    clear_probe(place)?;
    let outcome = try_it(place);
    clear_probe(place)?;
    outcome
}

/// Removes what a try that was killed left.
pub(crate) fn clear_probe(place: &Path) -> io::Result<()> {
    match fs::remove_dir_all(place) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn try_it(place: &Path) -> io::Result<()> {
    for name in ["above", "layer", "below", "objects/o", "upper", "work"] {
        fs::create_dir_all(place.join(name))?;
    }
    fs::write(place.join("objects/o/content"), "shared")?;
    let file = File::create(place.join("layer/file"))?;
    file.set_len(6)?;
    set_file_xattr(file.as_fd(), OsStr::new(METACOPY), b"")?;
    set_file_xattr(file.as_fd(), OsStr::new(REDIRECT), b"/o/content")?;
    let overlay = Overlay {
        lower: ["above", "layer", "below"].map(|name| place.join(name)).to_vec(),
        upper: Some(place.join("upper")),
        work: Some(place.join("work")),
        read_only: false,
        objects: Some(mount::Objects {
            dir: place.join("objects"),
            layers: 2,
        }),
        ..Overlay::default()
    };
    let root = overlay.mount_detached()?;
    let mut read = String::new();
    let shown = openat(&root, "file", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    File::from(shown).read_to_string(&mut read)?;
    match read == "shared" {
        true => Ok(()),
        false => Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "the filesystem does not keep where a file's content is",
        )),
    }
}
