//! An image that was built, held against what a case expects.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::case::Expected;
use super::host;
use crate::support::Daemon;

pub struct Image {
    tree: PathBuf,
    document: Value,
    /// Newest first.
    history: Vec<String>,
}

impl Image {
    /// Looks at the image `tag`; its files go into `room`.
    pub fn of(daemon: &Daemon, tag: &str, room: &Path) -> Image {
        let document = daemon.ok(&["image", "inspect", tag]);
        let document: Value = serde_json::from_str(&document).unwrap();
        let history = daemon.ok(&["history", "--no-trunc", "--format", "{{.CreatedBy}}", tag]);
        // A container that never runs, only to have its files.
        let container = daemon.ok(&["create", "--network", "none", tag, "/x"]);
        let (archive, tree) = (room.join("export.tar"), room.join("tree"));
        let archive_text = archive.display().to_string();
        daemon.ok(&["export", "-o", &archive_text, container.trim()]);
        daemon.ok(&["rm", container.trim()]);
        std::fs::create_dir_all(&tree).unwrap();
        host("tar", &["--numeric-owner", "-xpf", &archive_text], &tree);
        Image {
            tree,
            document: document[0].clone(),
            history: history.lines().map(str::to_owned).collect(),
        }
    }

    /// What is wrong, if this is.
    pub fn check(&self, expected: &Expected) -> Option<String> {
        match expected {
            Expected::File {
                path,
                mode,
                owner,
                content,
            } => self.placed(path, "file", *mode, *owner).or_else(|| {
                let found = std::fs::read(self.path(path)).unwrap();
                let found = String::from_utf8_lossy(&found);
                let wanted = content.as_deref()?;
                (found != wanted).then(|| format!("{path} holds {found:?} and not {wanted:?}"))
            }),
            Expected::Dir { path, mode, owner } => self.placed(path, "directory", *mode, *owner),
            Expected::Link { path, goal } => match std::fs::read_link(self.path(path)) {
                Ok(found) if found == Path::new(goal) => None,
                Ok(found) => Some(format!("{path} leads to {} and not to {goal}", found.display())),
                Err(error) => Some(format!("{path}: {error}")),
            },
            Expected::None(path) => {
                let there = std::fs::symlink_metadata(self.path(path)).is_ok();
                there.then(|| format!("{path} is there"))
            }
            Expected::Env(entry) => {
                let env = self.env();
                let there = env.iter().any(|found| found == entry);
                (!there).then(|| format!("{entry} is not in {env:?}"))
            }
            Expected::NoEnv(name) => {
                let env = self.env();
                let there = env
                    .iter()
                    .any(|found| found.split('=').next() == Some(name.as_str()));
                there.then(|| format!("{name} is in {env:?}"))
            }
            Expected::Config { key, value } => {
                let found = &self.document["Config"][key];
                (found != value).then(|| format!("{key} is {found} and not {value}"))
            }
            Expected::History(lines) => {
                let found: Vec<&String> = self.history.iter().take(lines.len()).rev().collect();
                let same = found.iter().copied().eq(lines.iter());
                (!same).then(|| format!("the history ends with {found:?} and not with {lines:?}"))
            }
            Expected::Layers(count) => {
                let all = self.document["RootFS"]["Layers"].as_array().map_or(0, Vec::len);
                let from_scratch = !self
                    .history
                    .iter()
                    .any(|line| line.is_empty() || line.contains("import"));
                let own = if from_scratch { all } else { all - 1 };
                (own != *count).then(|| format!("{own} layers and not {count}: {:?}", self.history))
            }
            Expected::Author(text) => {
                let found = &self.document["Author"];
                (found.as_str() != Some(text)).then(|| format!("the author is {found}"))
            }
            Expected::Created(time) => {
                let found = &self.document["Created"];
                (found.as_str() != Some(time)).then(|| format!("it was created {found} and not {time}"))
            }
            _ => None,
        }
    }

    fn env(&self) -> Vec<String> {
        let list = self.document["Config"]["Env"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        list.iter()
            .filter_map(|entry| entry.as_str().map(str::to_owned))
            .collect()
    }

    fn path(&self, path: &str) -> PathBuf {
        self.tree.join(path.trim_start_matches('/'))
    }

    fn placed(&self, path: &str, kind: &str, mode: u32, owner: (u32, u32)) -> Option<String> {
        let meta = match std::fs::symlink_metadata(self.path(path)) {
            Ok(meta) => meta,
            Err(error) => return Some(format!("{path}: {error}")),
        };
        let found = BTreeMap::from([
            (
                "kind",
                if meta.is_dir() { "directory" } else { "file" }.to_owned(),
            ),
            ("mode", format!("{:o}", meta.mode() & 0o7777)),
            ("owner", format!("{}:{}", meta.uid(), meta.gid())),
        ]);
        let wanted = BTreeMap::from([
            ("kind", kind.to_owned()),
            ("mode", format!("{mode:o}")),
            ("owner", format!("{}:{}", owner.0, owner.1)),
        ]);
        (found != wanted).then(|| format!("{path} is {found:?} and not {wanted:?}"))
    }
}
