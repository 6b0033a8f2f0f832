//! Volume plugins: programs beside the engine that bring volumes of their own, asked in Docker's protocol.
//!
//! ```text
//! DIRECTORY/NAME.sock, DIRECTORY/NAME/NAME.sock     where one listens
//! DIRECTORY/NAME.spec                               its address: unix:///path, tcp://HOST:PORT or https://HOST:PORT
//! DIRECTORY/NAME.json                               {"Name": …, "Addr": …, "TLSConfig": …}
//! ```
//!
//! A plugin is found by its name at the moment it is needed, so one may come and go. It is trusted as root is, since its
//! mounts are the host's; but it may hang, be gone or answer nonsense: every call has a deadline, every answer a limit, and
//! what it says is checked before it is used. Each failure is one error that names the plugin and the call.
//!
//! Source: Docker's plugin API ("Docker Plugin API", "Docker volume plugins").

mod driver;
mod http;
mod tls;
mod volumes;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use self::tls::TlsSettings;
pub(crate) use driver::Driver;
use driver::Listed;
use http::Address;
use serde::Deserialize as _;

/// How long a call may take when nobody says.
const TIMEOUT: Duration = Duration::from_secs(60);
/// How long plugins may take that nobody has asked for by name, or that hold something else up.
const PATIENCE: Duration = Duration::from_secs(5);

/// Where plugins are, and how patient the engine is with them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PluginSettings {
    /// Earlier ones count before later ones.
    pub directories: Vec<PathBuf>,
    /// For each call.
    pub timeout: Duration,
}

impl Default for PluginSettings {
    /// Docker's places.
    fn default() -> PluginSettings {
        PluginSettings {
            directories: [
                "/run/docker/plugins",
                "/etc/docker/plugins",
                "/usr/lib/docker/plugins",
            ]
            .map(PathBuf::from)
            .into(),
            timeout: TIMEOUT,
        }
    }
}

impl PluginSettings {
    /// None.
    pub fn none() -> PluginSettings {
        PluginSettings {
            directories: Vec::new(),
            timeout: TIMEOUT,
        }
    }
}

/// What is wrong with a plugin.
#[derive(Debug, thiserror::Error)]
pub enum PluginError {
    /// Nobody listens under the name.
    #[error("plugin {0:?} not found")]
    NotFound(String),
    /// Its description says nothing that can be used.
    #[error("the description {} of a plugin is wrong: {reason}", path.display())]
    Description { path: PathBuf, reason: String },
    /// It is another kind of plugin.
    #[error("plugin {0:?} is no volume plugin")]
    OtherKind(String),
    /// It did not answer, or not in HTTP.
    #[error("plugin {plugin:?} does not answer {call}: {cause}")]
    Silent {
        plugin: String,
        call: &'static str,
        cause: io::Error,
    },
    /// It answered something else than was asked for.
    #[error("plugin {plugin:?} answers {call} with something that cannot be used: {reason}")]
    Nonsense {
        plugin: String,
        call: &'static str,
        reason: String,
    },
    /// It said no.
    #[error("{call}: {message}")]
    Refused { call: &'static str, message: String },
}

/// Those that there are.
#[derive(Debug, Clone)]
pub(crate) struct Plugins {
    settings: PluginSettings,
    given_up: Option<GivenUp>,
}

/// Names of plugins that were silent once and are not to be asked again.
#[derive(Debug, Clone, Default)]
struct GivenUp(Arc<Mutex<BTreeSet<String>>>);

impl GivenUp {
    fn has(&self, name: &str) -> bool {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .contains(name)
    }

    fn add(&self, name: &str) {
        let mut names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        names.insert(name.to_owned());
    }
}

impl Plugins {
    pub(crate) fn new(settings: PluginSettings) -> Plugins {
        Plugins {
            settings,
            given_up: None,
        }
    }

    /// The volume plugin of this name, which has said that it is one.
    pub(crate) fn find(&self, name: &str) -> Result<Driver, PluginError> {
        let places = self.places()?;
        let place = places
            .get(name)
            .ok_or_else(|| PluginError::NotFound(name.to_owned()))?;
        let driver = Driver {
            name: name.to_owned(),
            address: address(place)?,
            timeout: self.settings.timeout,
            given_up: self.given_up.clone(),
        };
        driver.activate()?;
        Ok(driver)
    }

    /// The names of all plugins, of whatever kind.
    pub(crate) fn names(&self) -> Vec<String> {
        self.places()
            .map(|places| places.into_keys().collect())
            .unwrap_or_default()
    }

    /// The same with less patience, and none for one that was silent once.
    pub(crate) fn hasty(&self) -> Plugins {
        Plugins {
            settings: PluginSettings {
                timeout: self.settings.timeout.min(PATIENCE),
                ..self.settings.clone()
            },
            given_up: Some(GivenUp::default()),
        }
    }

    /// Every volume plugin that answers soon; one that does not is left out, and the log says so.
    pub(crate) fn answering(&self) -> Vec<Driver> {
        let mut drivers = Vec::new();
        let hasty = self.hasty();
        for name in self.names() {
            match hasty.find(&name) {
                Ok(driver) => drivers.push(driver),
                Err(PluginError::OtherKind(_)) => {}
                Err(error) => tracing::warn!(plugin = name, %error, "a plugin's volumes are not shown"),
            }
        }
        drivers
    }

    /// The file that stands for each plugin.
    fn places(&self) -> Result<BTreeMap<String, PathBuf>, PluginError> {
        let mut places = BTreeMap::new();
        for directory in &self.settings.directories {
            let entries = match fs::read_dir(directory) {
                Ok(entries) => entries,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => {
                    return Err(PluginError::Description {
                        path: directory.clone(),
                        reason: error.to_string(),
                    });
                }
            };
            for entry in entries.flatten() {
                let path = entry.path();
                let (Some(stem), extension) =
                    (path.file_stem().and_then(|stem| stem.to_str()), path.extension())
                else {
                    continue;
                };
                let nested = path.join(format!("{stem}.sock"));
                match extension.and_then(|extension| extension.to_str()) {
                    Some("sock" | "spec" | "json") => {
                        places.entry(stem.to_owned()).or_insert(path);
                    }
                    None if nested.exists() => {
                        places.entry(stem.to_owned()).or_insert(nested);
                    }
                    _ => {}
                }
            }
        }
        Ok(places)
    }
}

fn address(place: &Path) -> Result<Address, PluginError> {
    let wrong = |reason: String| PluginError::Description {
        path: place.to_owned(),
        reason,
    };
    if place.extension().is_some_and(|extension| extension == "sock") {
        return Ok(Address::Unix(place.to_owned()));
    }
    let text = fs::read_to_string(place).map_err(|error| wrong(error.to_string()))?;
    if place.extension().is_some_and(|extension| extension == "spec") {
        return Address::parse(text.trim(), None).map_err(wrong);
    }
    let document: serde_json::Value =
        serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
    let tls = match document.get("TLSConfig").filter(|tls| !tls.is_null()) {
        None => None,
        Some(tls) => Some(
            TlsSettings::deserialize(tls)
                .map_err(|error| wrong(format!("TLSConfig cannot be read: {error}")))?,
        ),
    };
    let text = document.get("Addr").and_then(|address| address.as_str());
    Address::parse(text.unwrap_or_default(), tls.as_ref()).map_err(wrong)
}
