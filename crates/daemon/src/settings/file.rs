//! `daemon.json`: keys and their types.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::{DEFAULT_FILE, SettingsError};

/// The file, whose keys are taken out one by one; what is left over is unknown.
pub(super) struct File {
    pub(super) keys: Map<String, Value>,
    pub(super) both: Vec<String>,
}

impl File {
    pub(super) fn read(named: Option<&Path>) -> Result<File, SettingsError> {
        let path = named.unwrap_or(Path::new(DEFAULT_FILE));
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            // Only a file that was named must exist.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && named.is_none() => Vec::new(),
            Err(source) => {
                return Err(SettingsError::Read {
                    path: path.to_owned(),
                    source,
                });
            }
        };
        let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
        if text.iter().all(u8::is_ascii_whitespace) {
            return Ok(File {
                keys: Map::new(),
                both: Vec::new(),
            });
        }
        let keys = serde_json::from_slice(text).map_err(|error| SettingsError::Json {
            path: path.to_owned(),
            reason: error.to_string(),
        })?;
        Ok(File {
            keys,
            both: Vec::new(),
        })
    }

    fn take(&mut self, key: &str, flag_given: bool) -> Option<Value> {
        let value = self.keys.remove(key)?;
        if flag_given {
            self.both.push(key.to_owned());
        }
        Some(value)
    }

    pub(super) fn text(&mut self, key: &str, flag: Option<String>) -> Result<Option<String>, SettingsError> {
        match self.take(key, flag.is_some()) {
            None => Ok(flag),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(SettingsError::Type {
                key: key.to_owned(),
                expected: "a string",
            }),
        }
    }

    pub(super) fn path(
        &mut self,
        key: &str,
        flag: Option<PathBuf>,
    ) -> Result<Option<PathBuf>, SettingsError> {
        let flag = flag.map(|p| p.to_string_lossy().into_owned());
        Ok(self.text(key, flag)?.map(PathBuf::from))
    }

    pub(super) fn boolean(&mut self, key: &str, flag: Option<bool>) -> Result<Option<bool>, SettingsError> {
        match self.take(key, flag.is_some()) {
            None => Ok(flag),
            Some(Value::Bool(value)) => Ok(Some(value)),
            Some(_) => Err(SettingsError::Type {
                key: key.to_owned(),
                expected: "true or false",
            }),
        }
    }

    pub(super) fn number(&mut self, key: &str, flag: Option<u32>) -> Result<Option<u32>, SettingsError> {
        match self.take(key, flag.is_some()) {
            None => Ok(flag),
            Some(value) => match value.as_u64().and_then(|n| u32::try_from(n).ok()) {
                Some(number) => Ok(Some(number)),
                None => Err(SettingsError::Type {
                    key: key.to_owned(),
                    expected: "a number",
                }),
            },
        }
    }

    pub(super) fn list(&mut self, key: &str, flags: Vec<String>) -> Result<Vec<String>, SettingsError> {
        let wrong = || SettingsError::Type {
            key: key.to_owned(),
            expected: "a list of strings",
        };
        match self.take(key, !flags.is_empty()) {
            None => Ok(flags),
            Some(Value::Array(items)) => items
                .iter()
                .map(|i| i.as_str().map(str::to_owned).ok_or_else(wrong))
                .collect(),
            Some(_) => Err(wrong()),
        }
    }

    /// Pools of addresses as pairs of base and size: objects in the file, `base=…,size=…` as flags.
    pub(super) fn pools(
        &mut self,
        key: &str,
        flags: &[String],
    ) -> Result<Vec<(String, String)>, SettingsError> {
        let wrong = || SettingsError::Type {
            key: key.to_owned(),
            expected: "a list of objects with \"base\" and \"size\"",
        };
        let Some(value) = self.take(key, !flags.is_empty()) else {
            return flags
                .iter()
                .map(|flag| {
                    let (mut base, mut size) = ("", "");
                    for part in flag.split(',') {
                        match part.split_once('=') {
                            Some(("base", value)) => base = value,
                            Some(("size", value)) => size = value,
                            _ => return Err(pool_flag(flag)),
                        }
                    }
                    match (base, size) {
                        ("", _) | (_, "") => Err(pool_flag(flag)),
                        (base, size) => Ok((base.to_owned(), size.to_owned())),
                    }
                })
                .collect();
        };
        let items = value.as_array().ok_or_else(wrong)?;
        items
            .iter()
            .map(|item| {
                let base = item.get("base").and_then(Value::as_str).ok_or_else(wrong)?;
                let size = item.get("size").and_then(Value::as_u64).ok_or_else(wrong)?;
                Ok((base.to_owned(), size.to_string()))
            })
            .collect()
    }

    pub(super) fn map(
        &mut self,
        key: &str,
        flags: &[String],
    ) -> Result<BTreeMap<String, String>, SettingsError> {
        let wrong = || SettingsError::Type {
            key: key.to_owned(),
            expected: "an object of strings",
        };
        let pair = |text: &String| match text.split_once('=') {
            Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
            None => Err(SettingsError::Value {
                option: "--log-opt",
                value: text.clone(),
                reason: "expected key=value".to_owned(),
            }),
        };
        match self.take(key, !flags.is_empty()) {
            None => flags.iter().map(pair).collect(),
            Some(Value::Object(entries)) => entries
                .into_iter()
                .map(|(k, v)| v.as_str().map(|v| (k, v.to_owned())).ok_or_else(wrong))
                .collect(),
            Some(_) => Err(wrong()),
        }
    }

    /// Rules for registries; a mistake is told with the rule's place in the list.
    pub(super) fn rules(&mut self, key: &str) -> Result<Vec<registry::Rule>, SettingsError> {
        let wrong = |detail: String| SettingsError::Registry(format!("configuration key {key}: {detail}"));
        match self.take(key, false) {
            None => Ok(Vec::new()),
            Some(Value::Array(items)) => items
                .into_iter()
                .enumerate()
                .map(|(index, item)| {
                    serde_json::from_value(item)
                        .map_err(|error| wrong(format!("rule {}: {error}", index + 1)))
                })
                .collect(),
            Some(_) => Err(wrong("expected a list of rules".to_owned())),
        }
    }

    /// The object `proxies`, or the flags of the same names, or the environment.
    pub(super) fn proxies(
        &mut self,
        http: Option<String>,
        https: Option<String>,
        none: Option<String>,
    ) -> Result<registry::Proxies, SettingsError> {
        let given = http.is_some() || https.is_some() || none.is_some();
        let mut proxies = registry::Proxies {
            http: http.unwrap_or_default(),
            https: https.unwrap_or_default(),
            none: none.unwrap_or_default(),
        };
        for (key, value) in self.map("proxies", &[])? {
            if given && !self.both.iter().any(|known| known == "proxies") {
                self.both.push("proxies".to_owned());
            }
            match key.as_str() {
                "http-proxy" => proxies.http = value,
                "https-proxy" => proxies.https = value,
                "no-proxy" => proxies.none = value,
                _ => {
                    return Err(SettingsError::Type {
                        key: format!("proxies.{key}"),
                        expected: "http-proxy, https-proxy or no-proxy",
                    });
                }
            }
        }
        Ok(proxies.or_environment())
    }
}

fn pool_flag(flag: &str) -> SettingsError {
    SettingsError::Value {
        option: "--default-address-pool",
        value: flag.to_owned(),
        reason: "expected base=CIDR,size=LENGTH".to_owned(),
    }
}
