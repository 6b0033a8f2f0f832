//! How much a snapshot takes on disk.

use std::collections::{HashMap, HashSet};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OptionalExtension as _};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, fstat, openat, statat};
use rustix::io::Errno;
use spec::Digest;
use sys::beneath::Names;

use super::{SnapshotError, SnapshotId, Snapshots, table};
use crate::failure::{Context, PathError};
use crate::objects::HeldObject;

/// What a snapshot's own directory takes, parents not counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes of the blocks in use; a file with several names counts once.
    pub bytes: u64,
    /// Files and directories.
    pub inodes: u64,
}

impl Snapshots {
    /// Measures a snapshot. A layer is measured once and then remembered; a writable one changes, so each
    /// question walks its files.
    pub fn usage(&self, id: SnapshotId) -> Result<Usage, SnapshotError> {
        let info = self.get(id)?;
        if info.committed
            && let Some(usage) = self.remembered(id)?
        {
            return Ok(usage);
        }
        let usage = self.measured(id)?;
        if info.committed {
            self.remember(&[(id, usage)])?;
        }
        Ok(usage)
    }

    fn measured(&self, id: SnapshotId) -> Result<Usage, SnapshotError> {
        let fs = self.fs(id);
        let mut usage = measure(&fs).at("measure", &fs)?;
        // What it shares is its content, too, and counts in each layer that has it.
        usage.bytes += self.held(id)?.iter().map(|held| held.bytes).sum::<u64>();
        Ok(usage)
    }

    fn remember(&self, measured: &[(SnapshotId, Usage)]) -> Result<(), SnapshotError> {
        self.inner.db.write(|tx| {
            let mut statement =
                tx.prepare_cached("UPDATE snapshot SET bytes = ?2, inodes = ?3 WHERE id = ?1")?;
            for (id, usage) in measured {
                statement.execute((id, signed(usage.bytes), signed(usage.inodes)))?;
            }
            Ok(())
        })
    }

    /// Bytes of those layers with these chain IDs that are here, together.
    pub fn bytes_of_chains(&self, chains: impl IntoIterator<Item = Digest>) -> Result<u64, SnapshotError> {
        let remembered = self.inner.db.read(|db| RememberedSizes::read(db, chains))?;
        self.bytes_of(remembered)
    }

    /// Bytes of the layers together: what is not remembered is measured, and noted in one go.
    pub fn bytes_of(&self, remembered: RememberedSizes) -> Result<u64, SnapshotError> {
        let RememberedSizes {
            mut bytes,
            unmeasured,
        } = remembered;
        let mut measured = Vec::new();
        for id in unmeasured {
            let usage = self.measured(id)?;
            bytes = bytes.saturating_add(usage.bytes);
            measured.push((id, usage));
        }
        if !measured.is_empty() {
            self.remember(&measured)?;
        }
        Ok(bytes)
    }

    /// Bytes of every layer that has a chain ID, by that; none where it was not measured yet.
    pub fn layer_sizes(&self) -> Result<HashMap<Digest, Option<u64>>, SnapshotError> {
        let rows = self.inner.db.read(|db| {
            db.prepare_cached("SELECT chain, bytes FROM snapshot WHERE chain IS NOT NULL")?
                .query_map([], |row| Ok((table::digest(row, 0)?, table::unsigned(row, 1)?)))?
                .collect::<rusqlite::Result<Vec<_>>>()
        })?;
        let named = rows
            .into_iter()
            .filter_map(|(chain, bytes)| Some((chain?, bytes)));
        Ok(named.collect())
    }

    /// What of the disk is its alone, without what it shares; nothing when it is not here.
    pub fn disk_bytes(&self, id: SnapshotId) -> u64 {
        // Its links to what it shares are in its home.
        let shared: u64 = match self.held(id) {
            Ok(held) => held.iter().map(|held| held.bytes).sum(),
            Err(_) => 0,
        };
        measure(&self.home(id)).map_or(0, |usage| usage.bytes.saturating_sub(shared))
    }

    /// What the layer shares with others, or could.
    pub fn held(&self, id: SnapshotId) -> Result<Vec<HeldObject>, PathError> {
        let home = self.home(id);
        self.inner.objects.held(&home).at("read what is shared by", &home)
    }

    /// What would be given back of what layers share if these went.
    pub fn freed_with(&self, ids: &[SnapshotId]) -> Result<u64, PathError> {
        let homes: Vec<PathBuf> = ids.iter().map(|id| self.home(*id)).collect();
        self.inner
            .objects
            .freed_with(&homes)
            .at("measure what layers share in", &self.inner.dir)
    }

    /// Bytes of what these layers share, each file once, and of what only others do.
    pub fn shared_bytes(&self, ids: &[SnapshotId]) -> Result<(u64, u64), PathError> {
        let homes: Vec<PathBuf> = ids.iter().map(|id| self.home(*id)).collect();
        self.inner
            .objects
            .split(&homes)
            .at("measure what layers share in", &self.inner.dir)
    }

    fn remembered(&self, id: SnapshotId) -> Result<Option<Usage>, SnapshotError> {
        let (bytes, inodes) = self.inner.db.read(|db| {
            db.query_row("SELECT bytes, inodes FROM snapshot WHERE id = ?1", [id], |row| {
                Ok((table::unsigned(row, 0)?, table::unsigned(row, 1)?))
            })
        })?;
        Ok(bytes.zip(inodes).map(|(bytes, inodes)| Usage { bytes, inodes }))
    }
}

/// What is remembered of the sizes of layers. It is looked up in one go: an image may have many layers, and every look at the
/// image asks for its size.
#[derive(Debug)]
pub struct RememberedSizes {
    bytes: u64,
    unmeasured: Vec<SnapshotId>,
}

impl RememberedSizes {
    /// Of those layers with these chain IDs that are here.
    pub fn read(
        db: &Connection,
        chains: impl IntoIterator<Item = Digest>,
    ) -> rusqlite::Result<RememberedSizes> {
        let mut statement = db.prepare_cached("SELECT id, bytes FROM snapshot WHERE chain = ?1")?;
        let mut sizes = RememberedSizes {
            bytes: 0,
            unmeasured: Vec::new(),
        };
        for chain in chains {
            let row = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, table::unsigned(row, 1)?));
            match statement.query_row([chain.as_str()], row).optional()? {
                Some((_, Some(known))) => sizes.bytes = sizes.bytes.saturating_add(known),
                Some((id, None)) => sizes.unmeasured.push(id),
                None => {}
            }
        }
        Ok(sizes)
    }
}

/// Walks a tree, or looks at a file, that may change meanwhile: what vanishes is not counted. Directories wait as paths relative to
/// the top, so depth costs no descriptors.
pub fn measure(path: &Path) -> io::Result<Usage> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let itself = statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW)?;
    if FileType::from_raw_mode(itself.st_mode) != FileType::Directory {
        let mut usage = Usage::default();
        add(&mut usage, itself.st_blocks);
        return Ok(usage);
    }
    let top = openat(CWD, path, flags, Mode::empty())?;
    let mut usage = Usage::default();
    let mut linked = HashSet::new();
    add(&mut usage, fstat(&top)?.st_blocks);
    let mut waiting = vec![Path::new("").to_owned()];
    while let Some(relative) = waiting.pop() {
        let opened = sys::beneath::open_beneath_no_links(top.as_fd(), &relative, flags, Mode::empty());
        let dir: OwnedFd = match opened {
            Ok(dir) => dir,
            Err(error) if is_gone(&error) => continue,
            Err(error) => return Err(error),
        };
        let mut names = Names::of(dir.as_fd())?;
        loop {
            let some = names.some()?;
            if some.is_empty() {
                break;
            }
            for (name, _) in some {
                let stat = match statat(&dir, &name, AtFlags::SYMLINK_NOFOLLOW) {
                    Ok(stat) => stat,
                    Err(Errno::NOENT) => continue,
                    Err(error) => return Err(error.into()),
                };
                if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                    waiting.push(relative.join(&name));
                } else if stat.st_nlink > 1 && !linked.insert((stat.st_dev, stat.st_ino)) {
                    continue;
                }
                add(&mut usage, stat.st_blocks);
            }
        }
    }
    Ok(usage)
}

/// No filesystem holds more than an i64 of bytes.
fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn add<T: TryInto<u64>>(usage: &mut Usage, blocks: T) {
    // st_blocks counts 512 bytes whatever the filesystem's block size is.
    usage.bytes += blocks.try_into().unwrap_or(0) * 512;
    usage.inodes += 1;
}

fn is_gone(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}
