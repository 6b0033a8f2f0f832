//! The calls of a volume driver, in the protocol's names.

use std::collections::BTreeMap;
use std::io;
use std::path::{Component, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::http::{self, Address};
use super::{GivenUp, PluginError};

/// How much of a plugin's words an error repeats.
const QUOTED: usize = 300;

/// A plugin that has volumes.
#[derive(Debug, Clone)]
pub(crate) struct Driver {
    pub(crate) name: String,
    pub(super) address: Address,
    pub(super) timeout: Duration,
    pub(super) given_up: Option<GivenUp>,
}

/// A volume as its plugin knows it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
#[derive(Default)]
pub(crate) struct Listed {
    pub(crate) name: String,
    /// Empty while it is not mounted.
    pub(crate) mountpoint: Option<String>,
    pub(crate) created_at: Option<String>,
    pub(crate) status: Option<BTreeMap<String, Value>>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "PascalCase")]
struct Answer {
    err: Option<String>,
    implements: Option<Vec<String>>,
    volume: Option<Listed>,
    volumes: Option<Vec<Listed>>,
    mountpoint: Option<String>,
    capabilities: Option<Capabilities>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "PascalCase")]
struct Capabilities {
    scope: String,
}

impl Driver {
    /// Asks what kind of plugin it is.
    pub(super) fn activate(&self) -> Result<(), PluginError> {
        let answer = self.call("Plugin.Activate", &json!({}))?;
        let kinds = answer.implements.unwrap_or_default();
        match kinds.iter().any(|kind| kind == "VolumeDriver") {
            true => Ok(()),
            false => Err(PluginError::OtherKind(self.name.clone())),
        }
    }

    pub(crate) fn create(&self, name: &str, options: &BTreeMap<String, String>) -> Result<(), PluginError> {
        self.call("VolumeDriver.Create", &json!({"Name": name, "Opts": options}))
            .map(drop)
    }

    pub(crate) fn remove(&self, name: &str) -> Result<(), PluginError> {
        self.call("VolumeDriver.Remove", &json!({"Name": name})).map(drop)
    }

    /// `None` where it has no such volume: the protocol has no other word for that than a refusal.
    pub(crate) fn get(&self, name: &str) -> Result<Option<Listed>, PluginError> {
        let answer = match self.call("VolumeDriver.Get", &json!({"Name": name})) {
            Err(PluginError::Refused { .. }) => return Ok(None),
            other => other?,
        };
        match answer.volume {
            Some(volume) if volume.name == name => Ok(Some(volume)),
            Some(volume) => Err(self.nonsense(
                "VolumeDriver.Get",
                format!(
                    "the volume is called {:?}, and {name:?} was asked for",
                    volume.name
                ),
            )),
            None => Ok(None),
        }
    }

    pub(crate) fn list(&self) -> Result<Vec<Listed>, PluginError> {
        let answer = self.call("VolumeDriver.List", &json!({}))?;
        Ok(answer.volumes.unwrap_or_default())
    }

    /// `local`, or `global` where every host sees the same volumes. One that does not know the question is local.
    pub(crate) fn scope(&self) -> Result<String, PluginError> {
        match self.call("VolumeDriver.Capabilities", &json!({})) {
            Ok(Answer {
                capabilities: Some(Capabilities { scope }),
                ..
            }) if scope.eq_ignore_ascii_case("global") => Ok("global".to_owned()),
            Ok(_) | Err(PluginError::Refused { .. }) => Ok("local".to_owned()),
            Err(error) => Err(error),
        }
    }

    /// Where the volume is mounted now, for one user whose `id` the plugin counts.
    pub(crate) fn mount(&self, name: &str, id: &str) -> Result<PathBuf, PluginError> {
        const CALL: &str = "VolumeDriver.Mount";
        let answer = self.call(CALL, &json!({"Name": name, "ID": id}))?;
        let path = answer.mountpoint.unwrap_or_default();
        let wrong = |why: &str| Err(self.nonsense(CALL, format!("the mountpoint {path:?} {why}")));
        let found = PathBuf::from(&path);
        if !found.is_absolute() || found.components().any(|part| part == Component::ParentDir) {
            return wrong("is not an absolute path");
        }
        match look(found, self.timeout) {
            Ok((real, _)) if real.parent().is_none() => wrong("is the host's root"),
            Ok((real, true)) => Ok(real),
            Ok(_) => wrong("is not a directory"),
            // In words of ours: to clients the system's mean that the container's program is missing.
            Err(error) if error.kind() == io::ErrorKind::NotFound => wrong("is not there"),
            Err(error) => wrong(&format!("cannot be reached: {error}")),
        }
    }

    pub(crate) fn unmount(&self, name: &str, id: &str) -> Result<(), PluginError> {
        self.call("VolumeDriver.Unmount", &json!({"Name": name, "ID": id}))
            .map(drop)
    }

    fn call(&self, call: &'static str, question: &Value) -> Result<Answer, PluginError> {
        let body = question.to_string();
        let is_given_up = self.given_up.as_ref().is_some_and(|names| names.has(&self.name));
        let asked = match is_given_up {
            true => Err(io::Error::other("it was silent before")),
            false => http::ask(
                &self.address,
                &format!("/{call}"),
                body.into_bytes(),
                self.timeout,
            ),
        };
        let (status, body) = asked.map_err(|cause| {
            if let Some(names) = &self.given_up {
                names.add(&self.name);
            }
            PluginError::Silent {
                plugin: self.name.clone(),
                call,
                cause,
            }
        })?;
        let quoted = || {
            String::from_utf8_lossy(&body)
                .trim()
                .chars()
                .take(QUOTED)
                .collect::<String>()
        };
        let answer: Answer = match (status, parse(&body)) {
            (200, Ok(answer)) => answer,
            (200, Err(error)) => return Err(self.nonsense(call, format!("{error} in {:?}", quoted()))),
            // Some say what is wrong in JSON, some in words.
            (
                _,
                Ok(Answer {
                    err: Some(message), ..
                }),
            ) if !message.is_empty() => {
                return Err(PluginError::Refused { call, message });
            }
            (status, _) => {
                return Err(PluginError::Refused {
                    call,
                    message: format!(
                        "plugin {:?} answers with status {status}: {}",
                        self.name,
                        quoted()
                    ),
                });
            }
        };
        match answer.err {
            Some(message) if !message.is_empty() => Err(PluginError::Refused { call, message }),
            _ => Ok(answer),
        }
    }

    fn nonsense(&self, call: &'static str, reason: String) -> PluginError {
        PluginError::Nonsense {
            plugin: self.name.clone(),
            call,
            reason,
        }
    }
}

/// Where a path leads, and whether to a directory. A mountpoint whose server is gone may never say so: the thread that waits
/// for it is left behind.
fn look(path: PathBuf, timeout: Duration) -> io::Result<(PathBuf, bool)> {
    let (tell, told) = mpsc::channel();
    let look = move || {
        let found = path.canonicalize().map(|real| {
            let is_directory = real.is_dir();
            (real, is_directory)
        });
        // Nobody may be waiting any more.
        let _ = tell.send(found);
    };
    thread::Builder::new().name("mountpoint".to_owned()).spawn(look)?;
    told.recv_timeout(timeout).unwrap_or_else(|_| {
        let late = "nothing is heard of it in time (--volume-plugin-timeout)";
        Err(io::Error::new(io::ErrorKind::TimedOut, late))
    })
}

/// An empty body says nothing, and that nothing went wrong.
fn parse<T: DeserializeOwned + Default>(body: &[u8]) -> Result<T, serde_json::Error> {
    match body.trim_ascii().is_empty() {
        true => Ok(T::default()),
        false => serde_json::from_slice(body),
    }
}
