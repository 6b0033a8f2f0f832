//! The exit record: on disk, whole or not at all, before anyone hears of it.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use crate::protocol::ExitRecord;

/// Writes a record beside its place, syncs it, and renames it there.
pub(super) fn write(path: &Path, record: &ExitRecord) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".tmp");
    let mut file = File::create(&beside)?;
    file.write_all(&serde_json::to_vec(record).map_err(io::Error::from)?)?;
    file.sync_all()?;
    // A power cut may yet undo the renaming; it has ended every container too, and the daemon then finds no record.
    std::fs::rename(&beside, path)
}
