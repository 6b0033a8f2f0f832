//! What a log driver's name and options mean.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Where output goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogDriver {
    JsonFile,
    /// As `json-file`, with rotation and compression from the start.
    Local,
    /// Nowhere.
    None,
}

/// Settings of one container's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogConfig {
    pub driver: LogDriver,
    /// The newest file; older ones lie beside it.
    pub path: PathBuf,
    /// Bytes at which a file is put aside; None is never.
    pub max_size: Option<u64>,
    /// How many files there are at most, the newest included. With one, the file is emptied when it is full.
    pub max_file: u32,
    /// Compress what is put aside.
    pub compress: bool,
    /// Put into every entry (`attrs`).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, String>,
}

/// Options that make no sense; the texts are those that Docker's clients know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LogConfigError {
    #[error("logger: no log driver named '{0}' is registered")]
    UnknownDriver(String),
    #[error("unknown log opt '{option}' for {driver} log driver")]
    UnknownOption { option: String, driver: &'static str },
    #[error("invalid value for log opt '{option}': {value:?}: {reason}")]
    Value {
        option: &'static str,
        value: String,
        reason: &'static str,
    },
    #[error("compress cannot be true when max-file is less than 2 or max-size is not set")]
    Compress,
}

/// Unlimited growth is what users of json-file suffer from most, so there is a limit unless one asks for none
/// (`max-size=-1`).
const JSON_FILE_SIZE: u64 = 100 << 20;
const JSON_FILE_COUNT: u32 = 2;
/// The `local` driver's own, as Docker has them.
const LOCAL_SIZE: u64 = 20 << 20;
const LOCAL_COUNT: u32 = 5;

impl LogConfig {
    /// Nothing is recorded.
    pub fn none() -> Self {
        Self {
            driver: LogDriver::None,
            path: PathBuf::new(),
            max_size: None,
            max_file: 1,
            compress: false,
            attributes: BTreeMap::new(),
        }
    }

    /// Settings of a driver with options. `labels`, `env`, `tag` and their like are accepted here and turned into
    /// `attributes` by the caller, who knows the container. Also the check when a container is made.
    pub fn from_options(
        driver: &str,
        options: &BTreeMap<String, String>,
        path: PathBuf,
    ) -> Result<Self, LogConfigError> {
        let (driver, name, size, count, compress) = match driver {
            "json-file" | "" => (
                LogDriver::JsonFile,
                "json-file",
                JSON_FILE_SIZE,
                JSON_FILE_COUNT,
                false,
            ),
            "local" => (LogDriver::Local, "local", LOCAL_SIZE, LOCAL_COUNT, true),
            "none" => return Ok(Self::none()),
            other => return Err(LogConfigError::UnknownDriver(other.to_owned())),
        };
        let mut config = Self {
            driver,
            path,
            max_size: Some(size),
            max_file: count,
            compress,
            attributes: BTreeMap::new(),
        };
        let mut size_is_given = false;
        let mut count_is_given = false;
        for (option, value) in options {
            let bad = |option, reason| LogConfigError::Value {
                option,
                value: value.clone(),
                reason,
            };
            match option.as_str() {
                "max-size" => {
                    config.max_size = parse_size(value).map_err(|reason| bad("max-size", reason))?;
                    size_is_given = true;
                }
                "max-file" => {
                    config.max_file = value.parse().map_err(|_| bad("max-file", "not a number"))?;
                    count_is_given = true;
                    if !(1..=1000).contains(&config.max_file) {
                        return Err(bad(
                            "max-file",
                            "max-file cannot be less than 1 or more than 1000",
                        ));
                    }
                }
                "compress" => {
                    config.compress = match value.as_str() {
                        "1" | "t" | "T" | "true" | "TRUE" | "True" => true,
                        "0" | "f" | "F" | "false" | "FALSE" | "False" => false,
                        _ => return Err(bad("compress", "not a boolean")),
                    };
                }
                "labels" | "labels-regex" | "env" | "env-regex" | "tag" | "mode" | "max-buffer-size"
                    if driver == LogDriver::JsonFile => {}
                "mode" | "max-buffer-size" => {}
                _ => {
                    return Err(LogConfigError::UnknownOption {
                        option: option.clone(),
                        driver: name,
                    });
                }
            }
        }
        // Someone who names a size and no count gets the one file that Docker would keep.
        if driver == LogDriver::JsonFile && size_is_given && !count_is_given {
            config.max_file = 1;
        }
        if driver == LogDriver::JsonFile
            && config.compress
            && (config.max_file < 2 || config.max_size.is_none())
        {
            return Err(LogConfigError::Compress);
        }
        Ok(config)
    }
}

/// `10m`, `1.5g`, `512k`, `100`: decimal multiples, as Docker reads this option. None is no limit.
fn parse_size(text: &str) -> Result<Option<u64>, &'static str> {
    let text = text.trim();
    if text == "-1" || text == "unlimited" {
        return Ok(None);
    }
    let split = text
        .find(|letter: char| !(letter.is_ascii_digit() || letter == '.'))
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let factor: f64 = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1.0,
        "k" | "kb" => 1e3,
        "m" | "mb" => 1e6,
        "g" | "gb" => 1e9,
        "t" | "tb" => 1e12,
        "kib" => 1024.0,
        "mib" => 1024.0 * 1024.0,
        "gib" => 1024.0 * 1024.0 * 1024.0,
        _ => return Err("invalid size"),
    };
    let bytes = number.parse::<f64>().map_err(|_| "invalid size")? * factor;
    if !(1.0..1e18).contains(&bytes) {
        return Err("max-size must be a positive number");
    }
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    Ok(Some(bytes as u64))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn config(driver: &str, options: &[(&str, &str)]) -> Result<LogConfig, LogConfigError> {
        let options = options
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        LogConfig::from_options(driver, &options, "/x".into())
    }

    #[test]
    fn growth_is_limited_unless_asked_otherwise() {
        assert_eq!(config("", &[]).unwrap().max_size, Some(JSON_FILE_SIZE));
        assert_eq!(config("json-file", &[("max-size", "-1")]).unwrap().max_size, None);
        let one = config("json-file", &[("max-size", "10m")]).unwrap();
        assert_eq!((one.max_size, one.max_file), (Some(10_000_000), 1));
        let local = config("local", &[]).unwrap();
        assert_eq!(
            (local.max_size, local.max_file, local.compress),
            (Some(20 << 20), 5, true)
        );
    }

    #[test]
    fn nonsense_is_refused_by_name() {
        let text = |driver, options| config(driver, options).unwrap_err().to_string();
        assert_eq!(
            text("nope", &[]),
            "logger: no log driver named 'nope' is registered"
        );
        assert_eq!(
            text("json-file", &[("x", "1")]),
            "unknown log opt 'x' for json-file log driver"
        );
        assert!(text("json-file", &[("max-size", "ten")]).contains("max-size"));
        assert!(text("json-file", &[("max-file", "0")]).contains("max-file cannot be less than 1"));
        assert!(text("json-file", &[("max-size", "0")]).contains("positive"));
        assert_eq!(
            text("json-file", &[("compress", "true"), ("max-file", "1")]),
            "compress cannot be true when max-file is less than 2 or max-size is not set"
        );
    }
}
