//! Docker's client configuration, `~/.docker/config.json` (or `$DOCKER_CONFIG`): logins, credential programs, formats,
//! detach keys, the current context. Unknown keys are kept when it is written back.

use crate::failure::Failure;
use serde_json::{Map, Value};
use std::io::Write;
use std::path::{Path, PathBuf};

pub struct Config {
    path: PathBuf,
    document: Map<String, Value>,
}

/// The directory of the configuration.
pub fn directory() -> PathBuf {
    let named = std::env::var_os("DOCKER_CONFIG").filter(|dir| !dir.is_empty());
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".docker"));
    named
        .map(PathBuf::from)
        .or_else(home)
        .unwrap_or_else(|| PathBuf::from("/root/.docker"))
}

impl Config {
    /// Reads the file; one that is missing or broken counts as empty (a warning tells of the latter).
    pub fn load(dir: &Path) -> Config {
        let path = dir.join("config.json");
        let document = match std::fs::read(&path) {
            Ok(bytes) => match serde_json::from_slice(&bytes) {
                Ok(document) => document,
                Err(error) => {
                    eprintln!("WARNING: Error loading config file: {}: {error}", path.display());
                    Map::new()
                }
            },
            Err(_) => Map::new(),
        };
        Config { path, document }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn text(&self, key: &str) -> Option<String> {
        self.document
            .get(key)
            .and_then(Value::as_str)
            .filter(|text| !text.is_empty())
            .map(str::to_owned)
    }

    pub fn current_context(&self) -> Option<String> {
        self.text("currentContext")
    }

    pub fn set(&mut self, key: &str, value: Option<Value>) {
        match value {
            Some(value) => {
                self.document.insert(key.to_owned(), value);
            }
            None => {
                self.document.remove(key);
            }
        }
    }

    /// A member of an object-valued key.
    pub fn member(&self, key: &str, name: &str) -> Option<&Value> {
        self.document.get(key)?.get(name)
    }

    pub fn members(&self, key: &str) -> Vec<(String, Value)> {
        match self.document.get(key) {
            Some(Value::Object(map)) => map
                .iter()
                .map(|(name, value)| (name.clone(), value.clone()))
                .collect(),
            _ => Vec::new(),
        }
    }

    pub fn set_member(&mut self, key: &str, name: &str, value: Option<Value>) {
        let slot = self
            .document
            .entry(key.to_owned())
            .or_insert_with(|| Value::Object(Map::new()));
        if let Value::Object(map) = slot {
            match value {
                Some(value) => {
                    map.insert(name.to_owned(), value);
                }
                None => {
                    map.remove(name);
                }
            }
        }
    }

    /// Replaces the file in one step; it holds secrets and is its owner's alone. A link is followed, not replaced.
    pub fn save(&self) -> Result<(), Failure> {
        let path = std::fs::canonicalize(&self.path).unwrap_or_else(|_| self.path.clone());
        let failed = |error: std::io::Error| {
            Failure::text(format!("saving configuration {}: {error}", path.display()))
        };
        let dir = path.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(dir).map_err(failed)?;
        let text = tabbed(&serde_json::to_string_pretty(&self.document).unwrap_or_default());
        let temporary = dir.join(format!("config.json{}", std::process::id()));
        let write = || {
            use std::os::unix::fs::OpenOptionsExt;
            let mut file = std::fs::OpenOptions::new()
                .create_new(true)
                .write(true)
                .mode(0o600)
                .open(&temporary)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            std::fs::rename(&temporary, &path)
        };
        write().map_err(|error| {
            let _ = std::fs::remove_file(&temporary);
            failed(error)
        })
    }
}

/// Docker indents the file with tabs.
fn tabbed(text: &str) -> String {
    let line = |line: &str| {
        let bare = line.trim_start_matches(' ');
        format!("{}{bare}", "\t".repeat((line.len() - bare.len()) / 2))
    };
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_keys_survive() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(
            dir.path().join("config.json"),
            r#"{"x":{"y":1},"currentContext":"c"}"#,
        )
        .unwrap();
        let mut config = Config::load(dir.path());
        assert_eq!(config.current_context().as_deref(), Some("c"));
        config.set_member("auths", "r", Some(serde_json::json!({"auth": "YTpi"})));
        config.set("currentContext", None);
        config.save().unwrap();
        let again = Config::load(dir.path());
        assert_eq!(again.member("x", "y"), Some(&serde_json::json!(1)));
        assert_eq!(again.member("auths", "r").unwrap()["auth"], "YTpi");
        assert_eq!(again.current_context(), None);
    }
}
