//! Everything that can be told about a directory tree, to compare two of them.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    pub kind: &'static str,
    pub mode: u32,
    pub owner: (u32, u32),
    pub mtime: (i64, i64),
    pub device: u64,
    pub target: Option<PathBuf>,
    pub content: Option<Vec<u8>>,
    pub xattrs: Vec<(String, Vec<u8>)>,
    /// The first path of the same file.
    pub twin: Option<PathBuf>,
}

pub type Picture = BTreeMap<PathBuf, Item>;

/// Of everything below `top`, and of `top` itself under the empty path.
pub fn picture(top: &Path) -> Picture {
    let mut found = BTreeMap::new();
    let mut twins = HashMap::new();
    let mut waiting = vec![PathBuf::new()];
    while let Some(relative) = waiting.pop() {
        let path = top.join(&relative);
        let meta = if relative.as_os_str().is_empty() {
            fs::metadata(&path).unwrap()
        } else {
            fs::symlink_metadata(&path).unwrap()
        };
        let kind = meta.file_type();
        if kind.is_dir() {
            for entry in fs::read_dir(&path).unwrap() {
                waiting.push(relative.join(entry.unwrap().file_name()));
            }
        }
        let name = match () {
            () if kind.is_dir() => "directory",
            () if kind.is_symlink() => "link",
            () if kind.is_char_device() => "character",
            () if kind.is_block_device() => "block",
            () if kind.is_fifo() => "fifo",
            () => "file",
        };
        if !kind.is_dir() && meta.nlink() > 1 {
            let twin: &mut Vec<PathBuf> = twins.entry((meta.dev(), meta.ino())).or_default();
            twin.push(relative.clone());
        }
        let item = Item {
            kind: name,
            mode: meta.mode() & 0o7777,
            owner: (meta.uid(), meta.gid()),
            mtime: (meta.mtime(), meta.mtime_nsec()),
            device: meta.rdev(),
            target: kind.is_symlink().then(|| fs::read_link(&path).unwrap()),
            content: kind.is_file().then(|| fs::read(&path).unwrap()),
            xattrs: xattrs(&path),
            twin: None,
        };
        found.insert(relative, item);
    }
    for paths in twins.values() {
        let first = paths.iter().min().unwrap();
        for path in paths {
            found.get_mut(path).unwrap().twin = Some(first.clone());
        }
    }
    found
}

/// Without what overlayfs notes for itself, and with whole seconds.
pub fn merged(mut picture: Picture) -> Picture {
    for item in picture.values_mut() {
        item.xattrs
            .retain(|(key, _)| !key.starts_with("trusted.overlay."));
    }
    picture
}

pub fn without_times(mut picture: Picture) -> Picture {
    for item in picture.values_mut() {
        item.mtime = (0, 0);
    }
    picture
}

fn xattrs(path: &Path) -> Vec<(String, Vec<u8>)> {
    let (dir, name) = match (path.parent(), path.file_name()) {
        (Some(dir), Some(name)) => (dir, name),
        _ => (path, std::ffi::OsStr::new(".")),
    };
    let dir = fs::File::open(dir).unwrap();
    sys::beneath::xattrs(std::os::fd::AsFd::as_fd(&dir), name)
        .unwrap()
        .into_iter()
        .map(|(key, value)| (key.into_string().unwrap(), value))
        .collect()
}

/// A readable account of the first differences.
pub fn assert_same(left: &Picture, right: &Picture) {
    let mut differences = Vec::new();
    for path in left.keys().chain(right.keys()) {
        let (a, b) = (left.get(path), right.get(path));
        if a != b {
            differences.push(format!("{path:?}:\n  {}\n  {}", tell(a), tell(b)));
        }
    }
    differences.dedup();
    assert!(
        differences.is_empty(),
        "{} differences:\n{}",
        differences.len(),
        differences.iter().take(6).cloned().collect::<Vec<_>>().join("\n")
    );
}

fn tell(item: Option<&Item>) -> String {
    let Some(item) = item else {
        return "nothing".to_owned();
    };
    let mut item = item.clone();
    if let Some(content) = &mut item.content {
        content.truncate(40);
    }
    format!("{item:?}")
}
