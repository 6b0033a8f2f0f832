//! Devices by name, `vendor.com/class=name`: the Container Device Interface.
//!
//! Whoever brings a device describes in a file what a container needs to use it: variables, device nodes, mounts,
//! hooks, groups (`document`). The files lie in directories of the host that only root writes, and are trusted as the
//! daemon's configuration is. They are read anew for each start that asks for a device, so that nothing has to be
//! told to the daemon when they change; a file that cannot be read costs only the devices in it.
//!
//! A name in a later directory hides one in an earlier; a name that two files of one directory have is nobody's.
//!
//! Source: Container Device Interface specification 1.1.

mod apply;
mod document;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use document::{Document, Edits};

pub(crate) use apply::apply;

/// Larger files are a mistake.
const MAX_FILE: u64 = 1 << 20;

/// What the files of the directories describe.
#[derive(Default)]
pub(crate) struct Registry {
    documents: Vec<Document>,
    /// Qualified name to the place in `documents`; nobody's where two claim it.
    devices: BTreeMap<String, Option<usize>>,
    /// Files that could not be taken, and why.
    problems: Vec<String>,
}

impl Registry {
    pub(crate) fn read(directories: &[PathBuf]) -> Registry {
        let mut registry = Registry::default();
        for directory in directories {
            let mut here: BTreeMap<String, Option<usize>> = BTreeMap::new();
            for path in files(directory) {
                match read(&path) {
                    Ok(document) => {
                        let place = registry.documents.len();
                        for name in document.names() {
                            let claim = here.entry(name).or_insert(Some(place));
                            if *claim != Some(place) {
                                *claim = None;
                            }
                        }
                        registry.documents.push(document);
                    }
                    Err(reason) => registry.problems.push(format!("{}: {reason}", path.display())),
                }
            }
            registry.devices.extend(here);
        }
        registry
    }

    /// Every device that can be asked for.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.devices
            .iter()
            .filter(|(_, place)| place.is_some())
            .map(|(name, _)| name.as_str())
    }

    /// What the named devices need, in the order of the names; what a file asks for all its devices comes once.
    pub(crate) fn edits(&self, names: &[String]) -> Result<Vec<&Edits>> {
        let mut unknown = Vec::new();
        let mut edits = Vec::new();
        let mut used = std::collections::BTreeSet::new();
        for name in names {
            match self.devices.get(name) {
                Some(Some(place)) => {
                    let Some(document) = self.documents.get(*place) else {
                        continue;
                    };
                    edits.extend(document.device(name));
                    if used.insert(place) {
                        edits.push(&document.container_edits);
                    }
                }
                Some(None) => unknown.push(format!("{name} (described by more than one file)")),
                None => unknown.push(name.clone()),
            }
        }
        if unknown.is_empty() {
            return Ok(edits);
        }
        let mut message = format!(
            "CDI device injection failed: unresolvable CDI devices {}",
            unknown.join(", ")
        );
        if !self.problems.is_empty() {
            message.push_str(&format!(
                "; these files could not be read: {}",
                self.problems.join("; ")
            ));
        }
        Err(Error::invalid(message))
    }
}

/// Whether a text is a qualified device name.
pub(crate) fn is_name(text: &str) -> bool {
    text.split_once('=')
        .is_some_and(|(kind, device)| document::is_kind(kind) && document::is_device(device))
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(directory) else {
        return Vec::new();
    };
    let known = |path: &PathBuf| {
        let extension = path.extension().and_then(|extension| extension.to_str());
        matches!(extension, Some("json" | "yaml" | "yml"))
    };
    let mut files: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(known)
        .collect();
    files.sort();
    files
}

fn read(path: &Path) -> std::result::Result<Document, String> {
    let meta = std::fs::metadata(path).map_err(|error| error.to_string())?;
    if !meta.is_file() || meta.len() > MAX_FILE {
        return Err(format!("not a file of at most {MAX_FILE} bytes"));
    }
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    match path.extension().is_some_and(|extension| extension == "json") {
        true => Document::from_json(&text),
        false => Document::from_yaml(&text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(directory: &Path, name: &str, text: &str) {
        std::fs::create_dir_all(directory).unwrap();
        std::fs::write(directory.join(name), text).unwrap();
    }

    fn spec(kind: &str, device: &str, variable: &str) -> String {
        format!(
            r#"{{"cdiVersion":"0.6.0","kind":"{kind}","devices":[{{"name":"{device}","containerEdits":{{"env":["{variable}"]}}}}],
                "containerEdits":{{"env":["ALL=1"]}}}}"#
        )
    }

    #[test]
    fn later_directories_win_and_twins_are_nobodys() {
        let root = tempfile::tempdir().unwrap();
        let (first, second) = (root.path().join("a"), root.path().join("b"));
        write(&first, "one.json", &spec("v.com/c", "x", "FROM=first"));
        write(&first, "twin1.json", &spec("v.com/c", "twin", "A=1"));
        write(&first, "twin2.json", &spec("v.com/c", "twin", "A=2"));
        write(&first, "ignored.txt", "{");
        write(
            &second,
            "one.yaml",
            "cdiVersion: \"0.6.0\"\nkind: v.com/c\ndevices:\n- name: x\n  containerEdits:\n    env:\n    - FROM=second\n",
        );
        write(&second, "bad.json", "{");
        let registry = Registry::read(&[first, second, root.path().join("none")]);
        assert_eq!(registry.names().collect::<Vec<_>>(), ["v.com/c=x"]);
        let edits = registry.edits(&["v.com/c=x".to_owned()]).unwrap();
        assert_eq!(edits[0].env, ["FROM=second"]);
        let names = ["v.com/c=twin", "v.com/c=none"].map(str::to_owned);
        let Err(error) = registry.edits(&names) else {
            panic!("a device was found")
        };
        for part in [
            "v.com/c=twin (described by more than one file), v.com/c=none",
            "bad.json",
        ] {
            assert!(error.message.contains(part), "{}", error.message);
        }
    }

    #[test]
    fn what_all_devices_need_comes_once() {
        let root = tempfile::tempdir().unwrap();
        let text = r#"{"cdiVersion":"0.3.0","kind":"v.com/c","containerEdits":{"env":["ALL=1"]},"devices":[
            {"name":"x","containerEdits":{"env":["X=1"]}},{"name":"y","containerEdits":{"env":["Y=1"]}}]}"#;
        write(root.path(), "f.json", text);
        let registry = Registry::read(&[root.path().to_owned()]);
        let edits = registry
            .edits(&["v.com/c=x", "v.com/c=y"].map(str::to_owned))
            .unwrap();
        let env: Vec<&String> = edits.iter().flat_map(|edits| &edits.env).collect();
        assert_eq!(env, ["X=1", "ALL=1", "Y=1"]);
    }

    #[test]
    fn names() {
        for good in ["vendor.com/class=name", "v/c=0", "a.b-c/d_e=x:y.z"] {
            assert!(is_name(good), "{good}");
        }
        for bad in [
            "/dev/null",
            "vendor.com/class",
            "vendor/=x",
            "/c=x",
            "v/c=",
            "1v/c=x",
            "v/c=-x",
            "v/c=x/y",
        ] {
            assert!(!is_name(bad), "{bad}");
        }
    }
}
