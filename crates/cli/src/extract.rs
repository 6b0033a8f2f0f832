//! Unpacks a container's archive on the client, for `cp`.
//!
//! The first component of every name is replaced by the name the user chose. Parents are opened beneath the destination
//! (`openat2` with `RESOLVE_BENEATH`), entries are made relative to that descriptor and never through a link; what is
//! in the way (except a directory where one is wanted) is replaced.

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, Timestamps};
use rustix::fs::{
    chmodat, chownat, fstat, linkat, mkdirat, mknodat, openat, openat2, statat, symlinkat, unlinkat,
    utimensat,
};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path};
use tar::EntryType;

fn bad(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

/// The name on disk of an archive's entry: `name` and what lies below its first component.
fn rebase(path: &Path, name: &str) -> io::Result<Vec<String>> {
    let mut parts = Vec::new();
    for part in path.components() {
        match part {
            Component::Normal(part) => {
                let text = part
                    .to_str()
                    .ok_or_else(|| bad(format!("the name {part:?} is not UTF-8")))?;
                parts.push(text.to_owned());
            }
            Component::CurDir | Component::RootDir => {}
            _ => {
                return Err(bad(format!(
                    "the archive names {}, which lies outside",
                    path.display()
                )));
            }
        }
    }
    let below = parts.split_off(parts.len().min(1));
    let head = (!name.is_empty()).then(|| name.to_owned());
    Ok(head.into_iter().chain(below).collect())
}

/// Extracts below `root`; answers with the bytes of the files.
pub fn extract(source: impl Read, root: &Path, name: &str, owners: bool) -> io::Result<u64> {
    if name.split('/').count() > 1 || name == ".." {
        return Err(bad(format!("{name:?} is no name of a file")));
    }
    let root: OwnedFd = openat(CWD, root, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let mut archive = tar::Archive::new(source);
    let mut total = 0;
    // Times of directories are set last, since what is put into them changes them.
    let mut directories: Vec<(Vec<String>, u64, u32)> = Vec::new();
    for entry in archive.entries()? {
        let mut entry = entry?;
        let path = entry.path()?.into_owned();
        let parts = rebase(&path, name)?;
        let header = entry.header();
        let (kind, mode, time) = (header.entry_type(), header.mode()? & 0o7777, header.mtime()?);
        let owner = (header.uid()?, header.gid()?);
        let Some((last, parents)) = parts.split_last() else {
            continue;
        };
        let parent = descend(&root, parents)?;
        clear(&parent, last, kind == EntryType::Directory)?;
        match kind {
            EntryType::Directory => {
                match mkdirat(&parent, last, Mode::from_raw_mode(0o700)) {
                    Ok(()) | Err(rustix::io::Errno::EXIST) => {}
                    Err(error) => return Err(error.into()),
                }
                directories.push((parts.clone(), time, mode));
            }
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                let flags =
                    OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let mut file = File::from(openat(&parent, last, flags, Mode::from_raw_mode(0o600))?);
                total += io::copy(&mut entry, &mut file)?;
            }
            EntryType::Symlink => {
                let target = entry
                    .link_name()?
                    .ok_or_else(|| bad(format!("{}: a link to nothing", path.display())))?;
                symlinkat(target.as_ref(), &parent, last)?;
            }
            EntryType::Link => {
                let target = entry
                    .link_name()?
                    .ok_or_else(|| bad(format!("{}: a link to nothing", path.display())))?;
                let target = rebase(&target, name)?;
                let Some((first, dirs)) = target.split_last() else {
                    continue;
                };
                let dir = descend(&root, dirs)?;
                linkat(&dir, first, &parent, last, AtFlags::empty())?;
                continue;
            }
            EntryType::Fifo => mknodat(&parent, last, FileType::Fifo, Mode::from_raw_mode(0o600), 0)?,
            // Device files of a container have no place on the client.
            EntryType::Char | EntryType::Block => {
                eprintln!("skipped the device file {}", path.display());
                continue;
            }
            _ => continue,
        }
        if owners {
            let id = |number: u64| {
                u32::try_from(number).map_err(|_| bad(format!("{}: owner {number}", path.display())))
            };
            let (uid, gid) = (
                rustix::fs::Uid::from_raw(id(owner.0)?),
                rustix::fs::Gid::from_raw(id(owner.1)?),
            );
            chownat(&parent, last, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
        }
        if !matches!(kind, EntryType::Symlink | EntryType::Directory) {
            chmodat(&parent, last, Mode::from_raw_mode(mode), AtFlags::empty())?;
        }
        set_time(&parent, last, time)?;
    }
    for (parts, time, mode) in directories.into_iter().rev() {
        if let Some((last, parents)) = parts.split_last() {
            let parent = descend(&root, parents)?;
            chmodat(&parent, last, Mode::from_raw_mode(mode), AtFlags::empty())?;
            set_time(&parent, last, time)?;
        }
    }
    Ok(total)
}

fn set_time(parent: &OwnedFd, name: &str, seconds: u64) -> io::Result<()> {
    let stamp = rustix::fs::Timespec {
        tv_sec: i64::try_from(seconds).unwrap_or(0),
        tv_nsec: 0,
    };
    let times = Timestamps {
        last_access: stamp,
        last_modification: stamp,
    };
    Ok(utimensat(parent, name, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}

/// Opens a directory beneath the root, making what is missing.
fn descend(root: &OwnedFd, parts: &[String]) -> io::Result<OwnedFd> {
    let mut at = root.as_fd().try_clone_to_owned()?;
    for part in parts {
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let open = |at: &OwnedFd| {
            openat2(
                at,
                part.as_str(),
                flags,
                Mode::empty(),
                ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS,
            )
        };
        at = match open(&at) {
            Err(rustix::io::Errno::NOENT) => {
                mkdirat(&at, part.as_str(), Mode::from_raw_mode(0o755))?;
                open(&at)?
            }
            other => other?,
        };
    }
    fstat(&at)?;
    Ok(at)
}

/// Makes room: a file or link goes; a directory stays where a directory is wanted, and is never replaced by a file.
fn clear(parent: &OwnedFd, name: &str, directory: bool) -> io::Result<()> {
    let Ok(found) = statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) else {
        return Ok(());
    };
    match (
        FileType::from_raw_mode(found.st_mode) == FileType::Directory,
        directory,
    ) {
        (true, true) => Ok(()),
        (true, false) => Err(bad(format!(
            "cannot overwrite directory {name:?} with non-directory"
        ))),
        (false, true) => Err(bad(format!(
            "cannot overwrite non-directory {name:?} with directory"
        ))),
        (false, false) => Ok(unlinkat(parent, name, AtFlags::empty())?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(entries: &[(&str, EntryType, &str)]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, kind, content) in entries {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(*kind);
            header.set_mode(if *kind == EntryType::Directory {
                0o755
            } else {
                0o640
            });
            header.set_mtime(1000);
            header.set_uid(0);
            header.set_gid(0);
            if matches!(kind, EntryType::Symlink | EntryType::Link) {
                header.set_size(0);
                builder.append_link(&mut header, name, content).unwrap();
            } else {
                header.set_size(content.len() as u64);
                builder
                    .append_data(&mut header, name, content.as_bytes())
                    .unwrap();
            }
        }
        builder.into_inner().unwrap()
    }

    #[test]
    fn a_tree_lands_under_its_new_name() {
        let dir = tempfile::tempdir().unwrap();
        let tar = archive(&[
            ("etc/", EntryType::Directory, ""),
            ("etc/a", EntryType::Regular, "hello"),
            ("etc/b", EntryType::Symlink, "/nowhere"),
            ("etc/c", EntryType::Link, "etc/a"),
        ]);
        assert_eq!(extract(tar.as_slice(), dir.path(), "new", false).unwrap(), 5);
        assert_eq!(
            std::fs::read_to_string(dir.path().join("new/c")).unwrap(),
            "hello"
        );
        assert_eq!(
            std::fs::read_link(dir.path().join("new/b")).unwrap(),
            Path::new("/nowhere")
        );
        let tar = archive(&[("x", EntryType::Regular, "1")]);
        extract(tar.as_slice(), dir.path(), "f", false).unwrap();
        extract(tar.as_slice(), dir.path(), "f", false).unwrap();
        assert!(extract(tar.as_slice(), dir.path(), "new", false).is_err());
    }

    #[test]
    fn nothing_leaves_the_destination() {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("in");
        std::fs::create_dir(&inner).unwrap();
        let tar = archive(&[
            ("d/", EntryType::Directory, ""),
            ("d/out", EntryType::Symlink, ".."),
            ("d/out/evil", EntryType::Regular, "x"),
        ]);
        assert!(extract(tar.as_slice(), &inner, "d", false).is_err());
        assert!(!dir.path().join("evil").exists() && !inner.join("evil").exists());
        assert!(rebase(Path::new("a/../../x"), "n").is_err());
    }
}
