//! Files packed as tar, for `cp`.
//!
//! Modes, times, links and devices as they are. Links are sent, never followed.
//! Files are read while they are sent; one that shrinks meanwhile is padded, one that vanishes is skipped.

use std::collections::HashMap;
use std::fs::{File, Metadata};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use tar::{EntryType, Header};

/// Packs one file or directory under `name` (empty: a directory's content), for `cp`; answers with the bytes written.
/// `owners` keeps user and group.
pub fn pack_tree(path: &Path, name: &str, owners: bool, out: impl Write) -> io::Result<u64> {
    let mut packer = Packer {
        builder: tar::Builder::new(Counted { out, bytes: 0 }),
        links: HashMap::new(),
        owners,
    };
    let meta = match std::fs::symlink_metadata(path)? {
        // `cp link/. …` and `cp link/ …` mean the directory behind the link.
        meta if meta.is_symlink() && path.as_os_str().to_string_lossy().ends_with(['/', '.']) => {
            std::fs::metadata(path)?
        }
        meta => meta,
    };
    if meta.is_dir() {
        if !name.is_empty() {
            let mut header = packer.header(&meta, EntryType::Directory);
            packer
                .builder
                .append_data(&mut header, format!("{name}/"), io::empty())?;
        }
        packer.directory_as(path, "", name)?;
    } else {
        packer.file(path, name, &meta)?;
    }
    let mut counted = packer.builder.into_inner()?;
    counted.flush()?;
    Ok(counted.bytes)
}

struct Counted<W> {
    out: W,
    bytes: u64,
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.out.write(bytes)?;
        self.bytes += count as u64;
        Ok(count)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

struct Packer<W: Write> {
    builder: tar::Builder<W>,
    /// Names of files with several links, by device and inode.
    links: HashMap<(u64, u64), String>,
    owners: bool,
}

impl<W: Write> Packer<W> {
    /// `under` is put before every name in the archive.
    fn directory_as(&mut self, root: &Path, relative: &str, under: &str) -> io::Result<()> {
        let path = root.join(relative);
        let describe =
            |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        let mut names: Vec<_> = std::fs::read_dir(&path)
            .map_err(describe)?
            .collect::<Result<Vec<_>, _>>()
            .map_err(describe)?
            .into_iter()
            .map(|entry| entry.file_name())
            .collect();
        names.sort();
        for name in names {
            let Some(name) = name.to_str() else {
                let text = format!("{}: the name {name:?} is not UTF-8", path.display());
                return Err(io::Error::new(io::ErrorKind::InvalidData, text));
            };
            let child = if relative.is_empty() {
                name.to_owned()
            } else {
                format!("{relative}/{name}")
            };
            self.entry(root, &child, under)?;
        }
        Ok(())
    }

    fn entry(&mut self, root: &Path, relative: &str, under: &str) -> io::Result<()> {
        let path = root.join(relative);
        let name = if under.is_empty() {
            relative.to_owned()
        } else {
            format!("{under}/{relative}")
        };
        let meta = match std::fs::symlink_metadata(&path) {
            Ok(meta) => meta,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        if meta.is_dir() {
            let mut header = self.header(&meta, EntryType::Directory);
            self.builder
                .append_data(&mut header, format!("{name}/"), io::empty())?;
            return self.directory_as(root, relative, under);
        }
        self.file(&path, &name, &meta)
    }

    fn file(&mut self, path: &Path, relative: &str, meta: &Metadata) -> io::Result<()> {
        let kind = meta.file_type();
        if kind.is_symlink() {
            let target = std::fs::read_link(path)?;
            let mut header = self.header(meta, EntryType::Symlink);
            return self.builder.append_link(&mut header, relative, target);
        }
        if meta.nlink() > 1 {
            if let Some(first) = self.links.get(&(meta.dev(), meta.ino())) {
                let mut header = self.header(meta, EntryType::Link);
                let first = first.clone();
                return self.builder.append_link(&mut header, relative, first);
            }
            self.links.insert((meta.dev(), meta.ino()), relative.to_owned());
        }
        if kind.is_file() {
            let file = match File::open(path) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                Err(error) => {
                    return Err(io::Error::new(
                        error.kind(),
                        format!("open {}: {error}", path.display()),
                    ));
                }
            };
            let mut header = self.header(meta, EntryType::Regular);
            header.set_size(meta.len());
            let padded = file.take(meta.len()).chain(io::repeat(0)).take(meta.len());
            return self.builder.append_data(&mut header, relative, padded);
        }
        let entry = match () {
            () if kind.is_fifo() => EntryType::Fifo,
            () if kind.is_char_device() => EntryType::Char,
            () if kind.is_block_device() => EntryType::Block,
            // Sockets have no meaning elsewhere.
            () => return Ok(()),
        };
        let mut header = self.header(meta, entry);
        header.set_device_major(rustix::fs::major(meta.rdev()))?;
        header.set_device_minor(rustix::fs::minor(meta.rdev()))?;
        self.builder.append_data(&mut header, relative, io::empty())
    }

    fn header(&self, meta: &Metadata, kind: EntryType) -> Header {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(meta.mode() & 0o7777);
        header.set_uid(if self.owners { u64::from(meta.uid()) } else { 0 });
        header.set_gid(if self.owners { u64::from(meta.gid()) } else { 0 });
        header.set_mtime(u64::try_from(meta.mtime()).unwrap_or(0));
        header.set_size(0);
        header
    }
}
