//! SELinux: which label a container's process has, and which its files.
//!
//! Off unless the daemon is told otherwise (`--selinux-enabled`), as in Docker: then containers have no label of their
//! own, and words about labels are accepted without effect. On, each container gets the policy's two labels for
//! containers (`contexts/lxc_contexts`) at a level that no other container of this daemon has: two categories, `s0:c1,c2`.
//! Files at another level are out of its reach, whatever their type. What is said with `label=` changes the parts.
//!
//! A container keeps its labels until it is removed; they are in its record, from which the levels in use are known after
//! a start of the daemon.

mod relabel;

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rand::Rng as _;
use spec::Id;

use crate::error::{Error, Result};

pub(crate) use relabel::relabel;

/// Categories of the policies in use are c0 to c1023; the last two are for files that no confined container may reach.
const CATEGORIES: u16 = 1022;
const NOBODYS: &str = "s0:c1022,c1023";
/// Where the data root has images' files; what is made there later has the label of the directory.
const LAYERS: [&str; 2] = ["snapshots", "objects"];
/// What containers share is at this level.
const SHARED: &str = "s0";

/// The labels of a container; empty where it has none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Labels {
    pub(crate) process: String,
    pub(crate) files: String,
}

/// A label in its parts.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Label {
    user: String,
    role: String,
    kind: String,
    level: String,
}

impl Label {
    fn parse(text: &str) -> Option<Label> {
        let mut parts = text.splitn(4, ':').map(str::to_owned);
        Some(Label {
            user: parts.next().filter(|part| !part.is_empty())?,
            role: parts.next()?,
            kind: parts.next()?,
            level: parts.next().unwrap_or_default(),
        })
    }

    fn text(&self) -> String {
        let base = format!("{}:{}:{}", self.user, self.role, self.kind);
        match self.level.as_str() {
            "" => base,
            level => format!("{base}:{level}"),
        }
    }
}

/// The labels that the policy has for containers, and who has which level.
#[derive(Debug, Default)]
pub(crate) struct Selinux {
    policy: Option<Policy>,
    levels: Mutex<HashMap<Id, String>>,
}

#[derive(Debug)]
struct Policy {
    process: Label,
    files: Label,
    /// Of the images' files where they lie. What a container maps into its memory is checked by the label that it has
    /// there, whatever the mount says.
    layers: Label,
}

impl Selinux {
    /// Reads the policy's labels where they are wanted and the kernel has them in force, and gives the layers below the data
    /// root theirs, if they have another.
    pub(crate) fn open(wanted: bool, root: &Path) -> Result<Selinux> {
        if !wanted {
            return Ok(Selinux::default());
        }
        if !sys::selinux::is_enabled() {
            tracing::warn!("SELinux is asked for (selinux-enabled), and this kernel has none in force");
            return Ok(Selinux::default());
        }
        let policy = match Policy::read(Path::new("/")) {
            Ok(policy) => Some(policy),
            Err(why) => {
                tracing::warn!(why, "containers get no SELinux labels");
                None
            }
        };
        if let Some(policy) = &policy {
            for name in LAYERS {
                relabel::relabel_once(&root.join(name), &policy.layers.text())?;
            }
        }
        Ok(Selinux {
            policy,
            levels: Mutex::default(),
        })
    }

    pub(crate) fn is_on(&self) -> bool {
        self.policy.is_some()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Id, String>> {
        self.levels.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes the level that a container has had since before this daemon.
    pub(crate) fn hold(&self, container: &Id, process: &str) {
        if let Some(label) = Label::parse(process).filter(|label| !label.level.is_empty()) {
            self.lock().insert(container.clone(), label.level);
        }
    }

    /// The labels of a new container that says `options` about them (`type:…`, `level:…`, `disable`).
    pub(crate) fn take(&self, container: &Id, options: &[String]) -> Result<Labels> {
        let Some(policy) = &self.policy else {
            return Ok(Labels::default());
        };
        let (mut process, mut files) = (policy.process.clone(), policy.files.clone());
        if options.iter().any(|option| option == "disable") {
            files.level = if files.level.is_empty() { "" } else { NOBODYS }.to_owned();
            return Ok(Labels {
                process: String::new(),
                files: files.text(),
            });
        }
        let mut chosen = false;
        for option in options {
            let unknown = || {
                Error::invalid(format!(
                    "bad label option {option:?}, valid options 'disable' or \n'user, role, level, type, filetype' followed by ':' and a value"
                ))
            };
            let (part, value) = option.split_once(':').ok_or_else(unknown)?;
            let value = value.to_owned();
            match part {
                "user" => (process.user, files.user) = (value.clone(), value),
                "role" => process.role = value,
                "type" => process.kind = value,
                "filetype" => files.kind = value,
                "level" => {
                    (process.level, files.level) = (value.clone(), value);
                    chosen = true;
                }
                _ => return Err(unknown()),
            }
        }
        let mut levels = self.lock();
        if !chosen && !process.level.is_empty() {
            let level = free(&levels)?;
            (process.level, files.level) = (level.clone(), level);
        }
        let labels = Labels {
            process: process.text(),
            files: files.text(),
        };
        for label in [&labels.process, &labels.files] {
            if !sys::selinux::is_known(label) {
                return Err(Error::invalid(format!(
                    "--security-opt label: the SELinux policy of this host has no label {label:?}"
                )));
            }
        }
        levels.insert(container.clone(), process.level);
        Ok(labels)
    }

    /// Takes a container's level back.
    pub(crate) fn give_back(&self, container: &Id) {
        self.lock().remove(container);
    }
}

/// A level that nobody has.
fn free(levels: &HashMap<Id, String>) -> Result<String> {
    let mut random = rand::rng();
    // Of half a million pairs; with so many containers that most are taken another number comes up soon all the same.
    for _ in 0..10_000 {
        let (one, other) = (
            random.random_range(0..CATEGORIES),
            random.random_range(0..CATEGORIES),
        );
        let level = format!("s0:c{},c{}", one.min(other), one.max(other));
        if one != other && !levels.values().any(|taken| *taken == level) {
            return Ok(level);
        }
    }
    Err(Error::conflict(
        "no SELinux level is free for another container: remove some, or choose one (--security-opt label=level:…)",
    ))
}

/// The words that give a process the label `process`, for containers that share a namespace with its owner.
pub(crate) fn same_as(process: &str) -> Vec<String> {
    let Some(label) = Label::parse(process) else {
        return Vec::new();
    };
    let mut words = vec![
        format!("user:{}", label.user),
        format!("role:{}", label.role),
        format!("type:{}", label.kind),
    ];
    if !label.level.is_empty() {
        words.push(format!("level:{}", label.level));
    }
    words
}

/// The label of files that several containers use.
pub(crate) fn shared(files: &str) -> String {
    match Label::parse(files) {
        Some(mut label) if !label.level.is_empty() => {
            SHARED.clone_into(&mut label.level);
            label.text()
        }
        _ => files.to_owned(),
    }
}

impl Policy {
    /// From the system at `root`: first what is for containers of every policy, then what the configured policy has.
    fn read(root: &Path) -> std::result::Result<Policy, String> {
        let mut places = vec![root.join("usr/share/containers/selinux/contexts")];
        let config = root.join("etc/selinux/config");
        if let Ok(text) = std::fs::read_to_string(&config)
            && let Some(name) = value(&text, "SELINUXTYPE")
            && !name.contains('/')
        {
            places.push(root.join("etc/selinux").join(name).join("contexts/lxc_contexts"));
        }
        let mut tried = Vec::new();
        for place in places {
            match std::fs::read_to_string(&place) {
                Ok(text) => return Policy::parse(&place, &text),
                Err(error) if error.kind() == io::ErrorKind::NotFound => tried.push(shown(&place)),
                Err(error) => return Err(format!("cannot read {}: {error}", place.display())),
            }
        }
        Err(format!(
            "the policy has no labels for containers: there is no {}",
            tried.join(" and no ")
        ))
    }

    fn parse(place: &Path, text: &str) -> std::result::Result<Policy, String> {
        let label = |key: &str| {
            value(text, key)
                .and_then(Label::parse)
                .ok_or_else(|| format!("{} has no label for {key:?}", place.display()))
        };
        let (process, files) = (label("process")?, label("file")?);
        Ok(Policy {
            process,
            layers: label("ro_file").unwrap_or_else(|_| files.clone()),
            files,
        })
    }
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

/// The value of a line `key = "value"`.
fn value<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let lines = text.lines().map(str::trim);
    let lines = lines.filter(|line| !line.starts_with(['#', ';']));
    lines
        .filter_map(|line| line.split_once('='))
        .find(|(name, _)| name.trim() == key)
        .map(|(_, value)| value.trim().trim_matches('"'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONTEXTS: &str = "# comment\nprocess = \"system_u:system_r:container_t:s0\"\n\
                            file = \"system_u:object_r:container_file_t:s0\"\n";

    fn on() -> Selinux {
        Selinux {
            policy: Some(Policy::parse(Path::new("contexts"), CONTEXTS).unwrap()),
            levels: Mutex::default(),
        }
    }

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|&word| word.to_owned()).collect()
    }

    #[test]
    fn every_container_has_a_level_of_its_own_until_it_goes() {
        let selinux = on();
        let id = Id::random();
        let labels = selinux.take(&id, &[]).unwrap();
        let level = labels
            .process
            .strip_prefix("system_u:system_r:container_t:")
            .unwrap();
        assert_eq!(
            labels.files,
            format!("system_u:object_r:container_file_t:{level}")
        );
        let (one, other) = level.strip_prefix("s0:c").unwrap().split_once(",c").unwrap();
        assert!(one.parse::<u16>().unwrap() < other.parse::<u16>().unwrap());
        assert_eq!(selinux.lock().len(), 1);
        selinux.give_back(&id);
        assert!(selinux.lock().is_empty());
        selinux.hold(&id, &labels.process);
        assert_eq!(selinux.lock()[&id], level);
        assert_eq!(shared(&labels.files), "system_u:object_r:container_file_t:s0");
    }

    #[test]
    fn a_level_is_never_given_twice() {
        let mut levels = HashMap::new();
        for _ in 0..2_000 {
            let level = free(&levels).unwrap();
            assert!(!levels.values().any(|taken| *taken == level));
            levels.insert(Id::random(), level);
        }
    }

    #[test]
    fn what_is_said_changes_the_parts() {
        let take = |options: &[&str]| on().take(&Id::random(), &words(options));
        let labels = take(&["type:spc_t", "user:u", "role:r", "level:s0:c7", "filetype:f_t"]).unwrap();
        assert_eq!(labels.process, "u:r:spc_t:s0:c7");
        assert_eq!(labels.files, "u:object_r:f_t:s0:c7");
        let labels = take(&["disable"]).unwrap();
        assert_eq!(labels.process, "");
        assert_eq!(labels.files, "system_u:object_r:container_file_t:s0:c1022,c1023");
        for wrong in ["nonsense", "kind:x"] {
            let error = take(&[wrong]).unwrap_err();
            assert!(error.message.starts_with(&format!("bad label option {wrong:?}")));
        }
        // Off, they have no meaning.
        assert_eq!(
            Selinux::default()
                .take(&Id::random(), &words(&["type:spc_t"]))
                .unwrap(),
            Labels::default()
        );
        assert_eq!(
            same_as("u:r:t:s0:c1,c2"),
            ["user:u", "role:r", "type:t", "level:s0:c1,c2"]
        );
        assert!(same_as("").is_empty());
    }

    #[test]
    fn the_labels_are_where_the_policy_has_them() {
        let root = tempfile::tempdir().unwrap();
        let missing = Policy::read(root.path()).unwrap_err();
        assert!(
            missing.contains("usr/share/containers/selinux/contexts"),
            "{missing}"
        );
        let contexts = root.path().join("etc/selinux/targeted/contexts");
        std::fs::create_dir_all(&contexts).unwrap();
        std::fs::write(root.path().join("etc/selinux/config"), "SELINUXTYPE=targeted\n").unwrap();
        std::fs::write(contexts.join("lxc_contexts"), CONTEXTS).unwrap();
        let policy = Policy::read(root.path()).unwrap();
        assert_eq!(policy.process.kind, "container_t");
        assert_eq!(policy.layers, policy.files);
        let general = root.path().join("usr/share/containers/selinux");
        std::fs::create_dir_all(&general).unwrap();
        std::fs::write(
            general.join("contexts"),
            CONTEXTS.replace("container_t", "other_t"),
        )
        .unwrap();
        assert_eq!(Policy::read(root.path()).unwrap().process.kind, "other_t");
        std::fs::write(general.join("contexts"), "process = x\n").unwrap();
        assert!(Policy::read(root.path()).unwrap_err().contains("\"process\""));
    }
}
