//! A build's context: a directory packed as tar, with what `.dockerignore` names left out.
//!
//! Owners are sent as 0:0, as Docker does; modes, times, links and devices as they are. Links are sent, never followed.
//! Files are read while they are sent; one that shrinks meanwhile is padded, one that vanishes is skipped.

use crate::dockerignore::Rules;
use std::collections::HashMap;
use std::fs::{File, Metadata};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use tar::{EntryType, Header};

/// A file that goes along without being in the directory, e.g. a Dockerfile from elsewhere.
pub struct Extra {
    pub name: String,
    pub bytes: Vec<u8>,
}

/// Packs `root` into `out`.
pub fn pack(root: &Path, rules: &Rules, extra: &[Extra], out: impl Write) -> io::Result<()> {
    let mut packer = Packer {
        builder: tar::Builder::new(out),
        links: HashMap::new(),
        rules,
        owners: false,
    };
    packer.directory(root, "")?;
    append(&mut packer.builder, extra)?;
    packer.builder.into_inner()?.flush()
}

/// Packs files that lie in no directory.
pub fn pack_files(files: &[Extra], out: impl Write) -> io::Result<()> {
    let mut builder = tar::Builder::new(out);
    append(&mut builder, files)?;
    builder.into_inner()?.flush()
}

fn append(builder: &mut tar::Builder<impl Write>, files: &[Extra]) -> io::Result<()> {
    for file in files {
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Regular);
        header.set_mode(0o600);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(file.bytes.len() as u64);
        builder.append_data(&mut header, &file.name, file.bytes.as_slice())?;
    }
    Ok(())
}

/// Packs one file or directory under `name` (empty: a directory's content), for `cp`; answers with the bytes written.
/// `owners` keeps user and group.
pub fn pack_tree(path: &Path, name: &str, owners: bool, out: impl Write) -> io::Result<u64> {
    let rules = Rules::default();
    let mut packer = Packer {
        builder: tar::Builder::new(Counted { out, bytes: 0 }),
        links: HashMap::new(),
        rules: &rules,
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

struct Packer<'a, W: Write> {
    builder: tar::Builder<W>,
    /// Names of files with several links, by device and inode.
    links: HashMap<(u64, u64), String>,
    rules: &'a Rules,
    owners: bool,
}

impl<W: Write> Packer<'_, W> {
    fn directory(&mut self, root: &Path, relative: &str) -> io::Result<()> {
        self.directory_as(root, relative, "")
    }

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
        let excluded = self.rules.excludes(relative);
        if meta.is_dir() {
            if excluded && !self.rules.below(relative) {
                return Ok(());
            }
            if !excluded {
                let mut header = self.header(&meta, EntryType::Directory);
                self.builder
                    .append_data(&mut header, format!("{name}/"), io::empty())?;
            }
            return self.directory_as(root, relative, under);
        }
        if excluded {
            return Ok(());
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

/// The rules of a context: `<Dockerfile>.dockerignore` beside the Dockerfile, or `.dockerignore` at the root. The
/// Dockerfile and `.dockerignore` are sent in any case: the builder needs them.
pub fn rules(root: &Path, dockerfile: Option<&Path>, inside: Option<&str>) -> Result<Rules, String> {
    let own = dockerfile.map(|path| {
        let mut name = path.as_os_str().to_owned();
        name.push(".dockerignore");
        PathBuf::from(name)
    });
    let candidates = own.into_iter().chain([root.join(".dockerignore")]);
    let mut rules = Rules::default();
    for path in candidates {
        match std::fs::read_to_string(&path) {
            Ok(text) => {
                rules = Rules::parse(&text).map_err(|error| format!("{}: {error}", path.display()))?;
                break;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(format!("cannot read {}: {error}", path.display())),
        }
    }
    if rules != Rules::default() {
        rules.always_keep(".dockerignore");
        if let Some(name) = inside {
            rules.always_keep(name);
        }
    }
    Ok(rules)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_becomes_a_tar() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        std::fs::create_dir_all(root.join("src/deep")).unwrap();
        std::fs::create_dir_all(root.join("target/x")).unwrap();
        std::fs::write(root.join("Dockerfile"), "FROM scratch\n").unwrap();
        std::fs::write(root.join(".dockerignore"), "target\n*.log\nDockerfile\n").unwrap();
        std::fs::write(root.join("src/deep/a"), "a").unwrap();
        std::fs::write(root.join("x.log"), "a").unwrap();
        std::fs::hard_link(root.join("src/deep/a"), root.join("src/hard")).unwrap();
        std::os::unix::fs::symlink("a", root.join("src/deep/link")).unwrap();
        let rules = rules(root, Some(&root.join("Dockerfile")), Some("Dockerfile")).unwrap();
        let mut out = Vec::new();
        pack(
            root,
            &rules,
            &[Extra {
                name: "extra".into(),
                bytes: b"hi".to_vec(),
            }],
            &mut out,
        )
        .unwrap();
        let mut archive = tar::Archive::new(out.as_slice());
        let names: Vec<String> = archive
            .entries()
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                assert_eq!(entry.header().uid().unwrap(), 0);
                entry.path().unwrap().display().to_string()
            })
            .collect();
        assert_eq!(
            names,
            [
                ".dockerignore",
                "Dockerfile",
                "src/",
                "src/deep/",
                "src/deep/a",
                "src/deep/link",
                "src/hard",
                "extra"
            ]
        );
    }
}
