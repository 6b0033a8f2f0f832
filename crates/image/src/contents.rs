//! Looking inside an image: what each layer added, changed and removed, and what it carries without showing it.
//!
//! A file that a later layer replaces or removes is still in the image: its bytes are wasted, told with the layer that
//! hid it. What an image shows is the sum of its layers by overlayfs' rules, taken from their directories without a
//! mount.

use std::collections::{BTreeMap, HashSet};
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags, Stat, openat, readlinkat};
use serde::{Deserialize, Serialize};
use store::{SharedFiles, SnapshotId};
use sys::beneath::{is_whiteout, open_beneath_no_links};

use crate::error::ImageError;
use crate::image::{Image, chains};
use crate::images::Images;
use crate::layer::{LayerError, is_opaque, walk};
use crate::unpack::fill;

/// What an image is made of.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Contents {
    pub id: String,
    /// Lowest first.
    pub layers: Vec<LayerContents>,
    /// What is hidden by later layers, most bytes first.
    pub wasted: Vec<Wasted>,
    /// Bytes of all files in all layers.
    pub total_bytes: u64,
    /// Bytes of the files that the image shows.
    pub shown_bytes: u64,
    pub wasted_bytes: u64,
}

/// What one layer does.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct LayerContents {
    pub diff_id: String,
    /// The step that made it, as the image tells.
    pub created_by: String,
    /// Bytes of its files.
    pub bytes: u64,
    pub added: u64,
    pub changed: u64,
    pub removed: u64,
    /// By path.
    pub entries: Vec<Entry>,
}

/// What a layer does to one path.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Entry {
    pub path: String,
    /// `added`, `changed` or `removed`.
    pub change: String,
    /// `file`, `directory`, `link`, `device`, `pipe` or `socket`; empty for what is removed.
    pub kind: String,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub bytes: u64,
    /// Where a symbolic link leads.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub target: String,
}

/// A file that is carried and not shown.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Wasted {
    pub path: String,
    pub bytes: u64,
    /// The layer that has it, counted from 0.
    pub layer: usize,
    /// The layer that hides it.
    pub hidden_by: usize,
    /// `replaced` or `removed`.
    pub why: String,
}

/// How two images differ.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Comparison {
    pub settings: Vec<Setting>,
    pub entries: Vec<Entry>,
    /// Layers both have, lowest first.
    pub shared_layers: usize,
}

/// A setting that differs, as JSON; null where an image has none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Setting {
    pub name: String,
    pub old: serde_json::Value,
    pub new: serde_json::Value,
}

/// Something that an image shows.
#[derive(Clone)]
struct Shown {
    layer: usize,
    snapshot: SnapshotId,
    stat: Stat,
    target: String,
    bytes: u64,
}

impl Shown {
    fn is_directory(&self) -> bool {
        FileType::from_raw_mode(self.stat.st_mode) == FileType::Directory
    }

    fn entry(&self, path: &Path, change: &str) -> Entry {
        Entry {
            path: text(path),
            change: change.to_owned(),
            kind: kind(&self.stat).to_owned(),
            mode: self.stat.st_mode & 0o7777,
            uid: self.stat.st_uid,
            gid: self.stat.st_gid,
            bytes: self.bytes,
            target: self.target.clone(),
        }
    }

    /// Whether the two are alike but for a file's content and times.
    fn resembles(&self, other: &Shown) -> bool {
        let of = |shown: &Shown| {
            let stat = &shown.stat;
            (
                stat.st_mode,
                stat.st_uid,
                stat.st_gid,
                stat.st_rdev,
                shown.target.clone(),
                shown.bytes,
            )
        };
        of(self) == of(other)
    }
}

type Tree = BTreeMap<PathBuf, Shown>;

impl Images {
    /// What is in `image`. Unpacks what is not unpacked. Blocks.
    pub fn contents(&self, image: &Image) -> Result<Contents, ImageError> {
        Ok(self.look(image)?.0)
    }

    /// What changes from `old` to `new`. Blocks.
    pub fn compare(&self, old: &Image, new: &Image) -> Result<Comparison, ImageError> {
        let (_, before) = self.look(old)?;
        let (_, after) = self.look(new)?;
        let mut entries = Vec::new();
        for (path, shown) in &before {
            match after.get(path) {
                None => entries.push(Entry {
                    path: text(path),
                    change: "removed".to_owned(),
                    ..Entry::default()
                }),
                Some(now) if !self.same(path, shown, now)? => entries.push(now.entry(path, "changed")),
                Some(_) => {}
            }
        }
        let new_ones = after.iter().filter(|(path, _)| !before.contains_key(*path));
        entries.extend(new_ones.map(|(path, shown)| shown.entry(path, "added")));
        entries.sort_by(|a, b| a.path.cmp(&b.path));
        let pairs = old.config.rootfs.diff_ids.iter().zip(&new.config.rootfs.diff_ids);
        Ok(Comparison {
            settings: settings(old, new),
            entries,
            shared_layers: pairs.take_while(|(a, b)| a == b).count(),
        })
    }

    fn same(&self, path: &Path, old: &Shown, new: &Shown) -> Result<bool, ImageError> {
        if !old.resembles(new) {
            return Ok(false);
        }
        let is_file = FileType::from_raw_mode(old.stat.st_mode) == FileType::RegularFile;
        if !is_file || old.snapshot == new.snapshot {
            return Ok(true);
        }
        let same = || -> io::Result<bool> {
            let (mut a, mut b) = (
                self.open_in(old.snapshot, path)?,
                self.open_in(new.snapshot, path)?,
            );
            let (mut left, mut right) = (vec![0; 64 << 10], vec![0; 64 << 10]);
            loop {
                let read = fill(&mut a, &mut left)?;
                if read != fill(&mut b, &mut right)? || left.get(..read) != right.get(..read) {
                    return Ok(false);
                }
                if read == 0 {
                    return Ok(true);
                }
            }
        };
        same()
            .map_err(|cause| ImageError::Layer(LayerError::entry("read", path.as_os_str().as_bytes(), cause)))
    }

    fn root_of(&self, snapshot: SnapshotId) -> io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(openat(
            CWD,
            self.inner.store.snapshots().fs(snapshot),
            flags,
            Mode::empty(),
        )?)
    }

    fn open_in(&self, snapshot: SnapshotId, path: &Path) -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW;
        let root = self.root_of(snapshot)?;
        let file: File = open_beneath_no_links(root.as_fd(), path, flags, Mode::empty())?.into();
        match SharedFiles::beside(&self.inner.store.snapshots().fs(snapshot))? {
            Some(shared) => shared.content(file),
            None => Ok(file),
        }
    }

    /// The contents, and the sum of the layers.
    fn look(&self, image: &Image) -> Result<(Contents, Tree), ImageError> {
        let lease = self.inner.store.lease();
        lease.hold_snapshot(self.snapshot(image)?);
        let steps = steps(image);
        let mut contents = Contents {
            id: image.shown.to_string(),
            ..Contents::default()
        };
        let mut tree = Tree::new();
        let diffs = &image.config.rootfs.diff_ids;
        for (index, (diff, chain)) in diffs.iter().zip(chains(diffs)).enumerate() {
            let snapshot = self
                .inner
                .store
                .snapshots()
                .by_chain(&chain)
                .ok_or_else(|| ImageError::NotFound(diff.to_string()))?;
            let mut layer = LayerContents {
                diff_id: diff.to_string(),
                created_by: steps.get(index).cloned().unwrap_or_default(),
                ..LayerContents::default()
            };
            self.lay(index, snapshot, &mut tree, &mut layer, &mut contents.wasted)?;
            contents.total_bytes += layer.bytes;
            contents.layers.push(layer);
        }
        contents.shown_bytes = tree.values().map(|shown| shown.bytes).sum();
        contents.wasted_bytes = contents.wasted.iter().map(|wasted| wasted.bytes).sum();
        contents
            .wasted
            .sort_by_key(|wasted| std::cmp::Reverse(wasted.bytes));
        Ok((contents, tree))
    }

    /// Lays one layer over what is below.
    fn lay(
        &self,
        index: usize,
        snapshot: SnapshotId,
        tree: &mut Tree,
        layer: &mut LayerContents,
        wasted: &mut Vec<Wasted>,
    ) -> Result<(), ImageError> {
        let path = self.inner.store.snapshots().fs(snapshot);
        let root = self
            .root_of(snapshot)
            .map_err(|cause| ImageError::Layer(LayerError::path("open layer", &path, cause)))?;
        let mut linked = HashSet::new();
        let remove = |path: &Path, tree: &mut Tree, layer: &mut LayerContents, wasted: &mut Vec<Wasted>| {
            if hide(tree, path, true, (index, "removed"), wasted) > 0 {
                layer.removed += 1;
                layer.entries.push(Entry {
                    path: text(path),
                    change: "removed".to_owned(),
                    ..Entry::default()
                });
            }
        };
        // Of a layer that holds everything, only what differs from those below is its own.
        let part = self.inner.store.snapshots().part(snapshot)?;
        let mut own = HashSet::new();
        if part.is_whole() {
            for change in crate::layer::changes(&part).map_err(ImageError::Layer)? {
                let below = change.path.strip_prefix("/").unwrap_or(&change.path);
                match change.kind {
                    crate::layer::Kind::Deleted => remove(below, tree, layer, wasted),
                    _ => {
                        own.insert(below.to_owned());
                    }
                }
            }
        }
        walk(root.as_fd(), |found| {
            let failed =
                |cause: io::Error| LayerError::entry("read", found.path.as_os_str().as_bytes(), cause);
            if part.is_whole() {
                if !own.contains(found.path) {
                    return Ok(());
                }
            } else if is_whiteout(found.stat) {
                remove(found.path, tree, layer, wasted);
                return Ok(());
            }
            let is_file = found.kind() == FileType::RegularFile;
            let first = found.stat.st_nlink < 2 || linked.insert((found.stat.st_dev, found.stat.st_ino));
            let shown = Shown {
                layer: index,
                snapshot,
                stat: *found.stat,
                target: match found.kind() {
                    FileType::Symlink => readlinkat(found.dir, found.name, Vec::new())
                        .map(|target| target.to_string_lossy().into_owned())
                        .map_err(|error| failed(error.into()))?,
                    _ => String::new(),
                },
                // A file with several names is there once.
                bytes: match is_file && first {
                    true => u64::try_from(found.stat.st_size).unwrap_or(0),
                    false => 0,
                },
            };
            layer.bytes += shown.bytes;
            let before = tree.get(found.path).cloned();
            if shown.is_directory() {
                let opaque = is_opaque(found.dir, found.name).map_err(failed)?;
                let replaced = before.as_ref().is_some_and(|old| !old.is_directory());
                if opaque {
                    hide(tree, found.path, false, (index, "removed"), wasted);
                }
                if replaced {
                    hide(tree, found.path, true, (index, "replaced"), wasted);
                }
                // Directories that only hold what the layer brings are no change.
                if !opaque && before.as_ref().is_some_and(|old| old.resembles(&shown)) {
                    return Ok(());
                }
            } else {
                hide(tree, found.path, true, (index, "replaced"), wasted);
            }
            let change = match before {
                Some(_) => "changed",
                None => "added",
            };
            match before {
                Some(_) => layer.changed += 1,
                None => layer.added += 1,
            }
            layer.entries.push(shown.entry(found.path, change));
            tree.insert(found.path.to_owned(), shown);
            Ok(())
        })
        .map_err(ImageError::Layer)?;
        layer
            .entries
            .sort_by(|one, other| Path::new(&one.path).cmp(Path::new(&other.path)));
        Ok(())
    }
}

/// Takes a path out of sight, and everything below it; says how much that was.
fn hide(
    tree: &mut Tree,
    path: &Path,
    itself: bool,
    (by, why): (usize, &str),
    wasted: &mut Vec<Wasted>,
) -> usize {
    let below = tree
        .range(path.to_owned()..)
        .take_while(|(other, _)| other.starts_with(path));
    let gone: Vec<PathBuf> = below
        .map(|(other, _)| other.clone())
        .filter(|other| itself || other != path)
        .collect();
    for path in &gone {
        if let Some(shown) = tree.remove(path)
            && shown.bytes > 0
        {
            wasted.push(Wasted {
                path: text(path),
                bytes: shown.bytes,
                layer: shown.layer,
                hidden_by: by,
                why: why.to_owned(),
            });
        }
    }
    gone.len()
}

/// What made each layer, in the layers' order.
fn steps(image: &Image) -> Vec<String> {
    let made = image.config.history.iter().filter(|step| !step.empty_layer);
    made.map(|step| {
        step.created_by
            .clone()
            .or_else(|| step.comment.clone())
            .unwrap_or_default()
    })
    .collect()
}

fn settings(old: &Image, new: &Image) -> Vec<Setting> {
    let members = |image: &Image| -> serde_json::Map<String, serde_json::Value> {
        let document: serde_json::Value = serde_json::from_slice(&image.raw_config).unwrap_or_default();
        let config = document
            .get("config")
            .and_then(|config| config.as_object())
            .cloned();
        let mut all = config.unwrap_or_default();
        for key in ["architecture", "os", "variant"] {
            if let Some(value) = document.get(key) {
                all.insert(key.to_owned(), value.clone());
            }
        }
        all
    };
    let (before, after) = (members(old), members(new));
    let names: std::collections::BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let value = |of: &serde_json::Map<String, serde_json::Value>, name: &String| {
        of.get(name).cloned().unwrap_or(serde_json::Value::Null)
    };
    names
        .into_iter()
        .map(|name| Setting {
            name: name.clone(),
            old: value(&before, name),
            new: value(&after, name),
        })
        .filter(|setting| setting.old != setting.new)
        .collect()
}

fn kind(stat: &Stat) -> &'static str {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => "file",
        FileType::Directory => "directory",
        FileType::Symlink => "link",
        FileType::Fifo => "pipe",
        FileType::Socket => "socket",
        _ => "device",
    }
}

/// As seen from the root of a container; names that are not UTF-8 are shown with replacements.
fn text(path: &Path) -> String {
    format!("/{}", OsStr::to_string_lossy(path.as_os_str()))
}
