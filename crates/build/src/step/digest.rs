//! The digest of what a COPY takes: for each file its place, kind, permissions, owner, attributes and content.
//! Times do not count: a fresh checkout of the same files must find the cache.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags, readlinkat};
use spec::{Digest, Hasher};
use sys::beneath::{open_beneath_no_links, xattrs};

use super::place::copied_attribute;
use super::select::{Group, Item};
use super::share::share;
use crate::cache::{FileContent, FileDigests};

/// The digest of `groups`, selected beneath `root`. Owners count only where they are kept.
pub fn digest(
    root: BorrowedFd<'_>,
    groups: &[Group],
    keep_owner: bool,
    files: &FileDigests,
) -> io::Result<Digest> {
    read_ahead(root, groups, files);
    let mut hasher = Hasher::new();
    for group in groups {
        field(&mut hasher, if group.directory { b"directory" } else { b"file" });
        // A directory's own name does not reach the image.
        field(
            &mut hasher,
            if group.directory {
                b""
            } else {
                group.name.as_os_str().as_bytes()
            },
        );
        for item in &group.items {
            add(&mut hasher, root, item, keep_owner, files).map_err(|error| {
                io::Error::new(error.kind(), format!("{}: {error}", item.source.display()))
            })?;
        }
    }
    Ok(hasher.finish())
}

/// How many files have to be unknown for several threads to read them, and how many a thread takes at a time.
const MANY: usize = 512;
const TAKEN: usize = 128;

/// Has files that are not known read by as many threads as there are processors, so that they are known. Why one cannot be read
/// is told to who wants its digest.
fn read_ahead(root: BorrowedFd<'_>, groups: &[Group], files: &FileDigests) {
    let is_unknown = |item: &&Item| {
        FileType::from_raw_mode(item.stat.st_mode) == FileType::RegularFile
            && files.known(&item.stat).is_none()
    };
    let items = groups.iter().flat_map(|group| group.items.iter());
    let unknown: Vec<&Item> = items.filter(is_unknown).collect();
    // What is not remembered would be read twice.
    if unknown.len() < MANY || !files.has_room_for(unknown.len()) {
        return;
    }
    let parts: Vec<&[&Item]> = unknown.chunks(TAKEN).collect();
    let _ = share(parts.len(), |next| {
        while let Some(items) = next().and_then(|part| parts.get(part)) {
            for item in *items {
                let _ = content(root, item, files);
            }
        }
        Ok(())
    });
}

/// The most files that are named one by one; more of them are told by directory.
const MAX_NAMED: usize = 5_000;

/// The digests of the files of `groups` by name, for whoever asks what changed.
pub fn by_name(
    root: BorrowedFd<'_>,
    groups: &[Group],
    keep_owner: bool,
    files: &FileDigests,
) -> io::Result<Vec<(String, String)>> {
    let items = || groups.iter().flat_map(|group| group.items.iter());
    let many = items().count() > MAX_NAMED;
    let mut hashers: BTreeMap<String, Hasher> = BTreeMap::new();
    for item in items() {
        let name = match (many, item.source.parent()) {
            (true, Some(parent)) => format!("file {}/*", parent.display()),
            _ => format!("file {}", item.source.display()),
        };
        add(hashers.entry(name).or_default(), root, item, keep_owner, files)?;
    }
    Ok(hashers
        .into_iter()
        .map(|(name, hasher)| (name, hasher.finish().to_string()))
        .collect())
}

/// Fields are preceded by their length, so that no two lists of fields look the same.
fn field(hasher: &mut Hasher, bytes: &[u8]) {
    hasher.update(&(bytes.len() as u64).to_be_bytes());
    hasher.update(bytes);
}

fn attributes(hasher: &mut Hasher, all: &[(OsString, Vec<u8>)]) {
    for (key, value) in all.iter().filter(|(key, _)| copied_attribute(key)) {
        field(hasher, key.as_bytes());
        field(hasher, value);
    }
}

/// What is in a file, which is read if it is not known.
fn content(root: BorrowedFd<'_>, item: &Item, files: &FileDigests) -> io::Result<FileContent> {
    if let Some(known) = files.known(&item.stat) {
        return Ok(known);
    }
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
    let mut file = File::from(open_beneath_no_links(root, &item.source, flags, Mode::empty())?);
    files.read(&mut file)
}

fn add(
    hasher: &mut Hasher,
    root: BorrowedFd<'_>,
    item: &Item,
    keep_owner: bool,
    files: &FileDigests,
) -> io::Result<()> {
    let stat = &item.stat;
    let kind = FileType::from_raw_mode(stat.st_mode);
    field(hasher, item.target.as_os_str().as_bytes());
    field(hasher, &stat.st_mode.to_be_bytes());
    if keep_owner {
        field(
            hasher,
            &[stat.st_uid.to_be_bytes(), stat.st_gid.to_be_bytes()].concat(),
        );
    }
    let parent = item.source.parent().unwrap_or(Path::new(""));
    let name = item.source.file_name();
    match kind {
        FileType::RegularFile => {
            let content = content(root, item, files)?;
            attributes(hasher, &content.attributes);
            field(hasher, content.digest.as_str().as_bytes());
        }
        FileType::Directory => {
            if let Some(name) = name {
                let flags = OFlags::PATH | OFlags::DIRECTORY;
                let dir = open_beneath_no_links(root, parent, flags, Mode::empty())?;
                attributes(hasher, &xattrs(dir.as_fd(), name)?);
            }
        }
        FileType::Symlink => {
            let dir = open_beneath_no_links(root, parent, OFlags::PATH | OFlags::DIRECTORY, Mode::empty())?;
            field(
                hasher,
                readlinkat(&dir, name.unwrap_or_default(), Vec::new())?.as_bytes(),
            );
        }
        FileType::CharacterDevice | FileType::BlockDevice => field(hasher, &stat.st_rdev.to_be_bytes()),
        _ => {}
    }
    Ok(())
}
