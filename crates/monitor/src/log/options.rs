//! A log driver's name and options, understood. Also the check when a container is made or a daemon is started:
//! whatever is accepted here has a meaning.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use super::config::{LogConfig, LogFiles};
use super::destination;
use super::details::{self, Selection, Subject, Tag};
use super::format::Format;
use crate::forward::{Forward, Source};

/// The drivers there are, by their names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Driver {
    JsonFile,
    Local,
    None,
    Journald,
    Syslog,
    Fluentd,
    Gelf,
}

impl Driver {
    pub const ALL: [Driver; 7] = [
        Driver::Fluentd,
        Driver::Gelf,
        Driver::Journald,
        Driver::JsonFile,
        Driver::Local,
        Driver::None,
        Driver::Syslog,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::JsonFile => "json-file",
            Self::Local => "local",
            Self::None => "none",
            Self::Journald => "journald",
            Self::Syslog => "syslog",
            Self::Fluentd => "fluentd",
            Self::Gelf => "gelf",
        }
    }

    /// By name; nothing is the default.
    pub fn of(name: &str) -> Result<Self, LogConfigError> {
        if name.is_empty() {
            return Ok(Self::JsonFile);
        }
        Self::ALL
            .into_iter()
            .find(|driver| driver.name() == name)
            .ok_or_else(|| LogConfigError::UnknownDriver(name.to_owned()))
    }

    fn sends_elsewhere(self) -> bool {
        !matches!(self, Self::JsonFile | Self::Local | Self::None)
    }
}

/// Options that make no sense; the texts are those that Docker's clients know where Docker has one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LogConfigError {
    #[error("logger: no log driver named '{0}' is registered")]
    UnknownDriver(String),
    #[error("unknown log opt '{option}' for {driver} log driver")]
    UnknownOption { option: String, driver: &'static str },
    #[error("unknown log opt '{0}' for log driver local")]
    UnknownLocalOption(String),
    #[error("logger: logging mode not supported: {0}")]
    Mode(String),
    #[error("logger: max-buffer-size option is only supported with 'mode=non-blocking'")]
    BufferWithoutMode,
    #[error("invalid value for log opt '{option}': {value:?}: {reason}")]
    Value {
        option: &'static str,
        value: String,
        reason: String,
    },
    #[error("compress cannot be true when max-file is less than 2 or max-size is not set")]
    Compress,
    /// A text of Docker's that stands alone.
    #[error("{0}")]
    Plain(String),
}

/// Longest line that may be asked to be kept whole.
const LONGEST_LINE: u64 = 16 << 20;
/// A line is kept whole up to here in files.
pub(super) const MAX_LINE: usize = 1 << 20;
/// And up to here, as Docker does, where others must take it.
const MAX_FORWARDED_LINE: usize = 16 << 10;
/// Unlimited growth is what users of json-file suffer from most, so there is a limit unless one asks for none
/// (`max-size=-1`).
const JSON_FILE_SIZE: u64 = 100 << 20;
const JSON_FILE_COUNT: u32 = 2;
/// The `local` driver's own, as Docker has them; also the cache's.
const LOCAL_SIZE: u64 = 20 << 20;
const LOCAL_COUNT: u32 = 5;
/// What may wait for the other end, as Docker has it.
const BUFFER: u64 = 1 << 20;

/// Options that are taken out one by one; what is left over is unknown.
pub(super) struct Options<'a> {
    left: BTreeMap<&'a str, &'a str>,
}

impl<'a> Options<'a> {
    pub(super) fn take(&mut self, option: &'static str) -> Option<&'a str> {
        self.left.remove(option)
    }

    /// With a reader of its value.
    pub(super) fn read<T>(
        &mut self,
        option: &'static str,
        read: impl FnOnce(&str) -> Result<T, &'static str>,
    ) -> Result<Option<T>, LogConfigError> {
        let Some(value) = self.take(option) else {
            return Ok(None);
        };
        read(value).map(Some).map_err(|reason| LogConfigError::Value {
            option,
            value: value.to_owned(),
            reason: reason.to_owned(),
        })
    }
}

/// Options with a meaning; what the container adds is filled in by [`LogConfig::of`].
struct Understood {
    driver: Driver,
    config: LogConfig,
    selection: Selection,
    tag: Option<Tag>,
    destination: Option<destination::Understood>,
    drop_when_full: bool,
    buffer: u64,
}

impl LogConfig {
    /// Refuses options that could never work.
    pub fn check(driver: &str, options: &BTreeMap<String, String>) -> Result<(), LogConfigError> {
        understand(driver, options, Path::new(""), "").map(|_| ())
    }

    /// The settings of one container's log, whose files lie in `directory`.
    pub fn of(
        driver: &str,
        options: &BTreeMap<String, String>,
        directory: &Path,
        subject: &Subject<'_>,
    ) -> Result<Self, LogConfigError> {
        let understood = understand(driver, options, directory, subject.id)?;
        let mut config = understood.config;
        let chosen = understood.selection.of(subject);
        let tag = understood.tag.as_ref().map(|tag| tag.of(subject));
        config.attributes.clone_from(&chosen);
        if let Some(tag) = &tag {
            config.attributes.insert("tag".to_owned(), tag.clone());
        }
        if let Some(destination) = understood.destination {
            let default = || subject.id.chars().take(12).collect();
            config.forward = Some(Forward {
                to: destination.to,
                source: Source {
                    id: subject.id.to_owned(),
                    name: subject.name.to_owned(),
                    image_id: subject.image_id.to_owned(),
                    image: subject.image.to_owned(),
                    command: subject.command.clone(),
                    created: subject.created,
                    hostname: subject.hostname.clone(),
                    tag: tag.unwrap_or_else(default),
                },
                attributes: chosen,
                buffer: destination.buffer.unwrap_or(understood.buffer),
                drop_when_full: understood.drop_when_full,
                connect_first: destination.connect_first,
                retry_wait: destination.retry_wait,
                retries: destination.retries,
            });
        }
        debug_assert!(understood.driver != Driver::None || config.files.is_none());
        Ok(config)
    }
}

fn understand(
    driver: &str,
    options: &BTreeMap<String, String>,
    directory: &Path,
    id: &str,
) -> Result<Understood, LogConfigError> {
    // Docker's order: first the options that all drivers have, then the driver, then its own.
    let mut options = Options {
        left: options
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()))
            .collect(),
    };
    if driver == "none" {
        options.left.clear();
    }
    let blocking = match options.take("mode").unwrap_or_default() {
        "" => None,
        "blocking" => Some(true),
        "non-blocking" => Some(false),
        other => return Err(LogConfigError::Mode(other.to_owned())),
    };
    if options.left.contains_key("max-buffer-size") && blocking != Some(false) {
        return Err(LogConfigError::BufferWithoutMode);
    }
    let buffer = options.read("max-buffer-size", binary_size)?.unwrap_or(BUFFER);
    let driver = Driver::of(driver)?;
    let most = options.read("max-line-size", |text| match binary_size(text)? {
        size @ 256..=LONGEST_LINE => usize::try_from(size).map_err(|_| "too large"),
        _ => Err("it must be between 256 bytes and 16m"),
    })?;
    let mut understood = Understood {
        driver,
        config: LogConfig {
            files: files(driver, &mut options, directory, id)?,
            max_line: most.unwrap_or(if driver.sends_elsewhere() {
                MAX_FORWARDED_LINE
            } else {
                MAX_LINE
            }),
            ..LogConfig::none()
        },
        selection: Selection::default(),
        tag: None,
        destination: None,
        // A collector that is away must not stop a container unless that is asked for.
        drop_when_full: !blocking.unwrap_or(false),
        buffer,
    };
    if driver != Driver::None {
        understood.selection = selection(&mut options)?;
        understood.tag = options.take("tag").map(Tag::parse).transpose()?;
    }
    understood.destination = destination::understand(driver, &mut options, blocking)?;
    match options.left.keys().next() {
        None => Ok(understood),
        Some(option) if driver == Driver::Local => {
            Err(LogConfigError::UnknownLocalOption((*option).to_owned()))
        }
        Some(option) => Err(LogConfigError::UnknownOption {
            option: (*option).to_owned(),
            driver: driver.name(),
        }),
    }
}

fn selection(options: &mut Options<'_>) -> Result<Selection, LogConfigError> {
    let list = |text: Option<&str>| -> Vec<String> {
        text.into_iter()
            .flat_map(|text| text.split(','))
            .map(|name| name.trim().to_owned())
            .filter(|name| !name.is_empty())
            .collect()
    };
    let mut pattern = |option| match options.take(option) {
        None | Some("") => Ok(None),
        Some(text) => details::pattern(option, text).map(Some),
    };
    let (labels_regex, env_regex) = (pattern("labels-regex")?, pattern("env-regex")?);
    Ok(Selection {
        labels: list(options.take("labels")),
        labels_regex,
        env: list(options.take("env")),
        env_regex,
    })
}

/// The files of a driver, or the cache of one that sends elsewhere.
fn files(
    driver: Driver,
    options: &mut Options<'_>,
    directory: &Path,
    id: &str,
) -> Result<Option<LogFiles>, LogConfigError> {
    let local = LogFiles {
        format: Format::Local,
        path: directory.join("local-logs/container.log"),
        max_size: Some(LOCAL_SIZE),
        max_file: LOCAL_COUNT,
        max_age: None,
        compress: true,
    };
    match driver {
        Driver::None => Ok(None),
        Driver::Local => {
            file_options(local, ["max-size", "max-file", "max-age", "compress"], options).map(Some)
        }
        Driver::JsonFile => {
            let files = LogFiles {
                format: Format::Json,
                path: directory.join(format!("{id}-json.log")),
                max_size: Some(JSON_FILE_SIZE),
                max_file: JSON_FILE_COUNT,
                max_age: None,
                compress: false,
            };
            // Someone who names a size and no count gets the one file that Docker would keep.
            let alone = options.left.contains_key("max-size") && !options.left.contains_key("max-file");
            let files = LogFiles {
                max_file: if alone { 1 } else { JSON_FILE_COUNT },
                ..files
            };
            file_options(files, ["max-size", "max-file", "max-age", "compress"], options).map(Some)
        }
        _ => {
            let disabled = options.read("cache-disabled", boolean)?.unwrap_or(false);
            let names = [
                "cache-max-size",
                "cache-max-file",
                "cache-max-age",
                "cache-compress",
            ];
            let cache = LogFiles {
                path: directory.join("container-cached.log"),
                ..local
            };
            let files = file_options(cache, names, options)?;
            Ok((!disabled).then_some(files))
        }
    }
}

fn file_options(
    mut files: LogFiles,
    [size, count, age, compress]: [&'static str; 4],
    options: &mut Options<'_>,
) -> Result<LogFiles, LogConfigError> {
    if let Some(size) = options.read(size, decimal_size)? {
        files.max_size = size;
    }
    if let Some(count) = options.read(count, |text| match text.parse() {
        Ok(count @ 1..=1000) => Ok(count),
        Ok(_) => Err("max-file cannot be less than 1 or more than 1000"),
        Err(_) => Err("not a number"),
    })? {
        files.max_file = count;
    }
    if let Some(age) = options.read(age, |text| match duration(text)? {
        age if age >= Duration::from_secs(1) => Ok(age),
        _ => Err("it must be a second or more"),
    })? {
        files.max_age = Some(age);
    }
    let compress = options.read(compress, boolean)?;
    files.compress = compress.unwrap_or(files.compress);
    if files.max_file < 2 || (files.max_size.is_none() && files.max_age.is_none()) {
        if compress == Some(true) {
            return Err(LogConfigError::Compress);
        }
        files.compress = false;
    }
    Ok(files)
}

pub(super) fn boolean(text: &str) -> Result<bool, &'static str> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" | "" => Ok(false),
        _ => Err("not a boolean"),
    }
}

/// `10m`, `1.5g`, `512k`, `100`: decimal multiples, as Docker reads sizes of files. None is no limit.
fn decimal_size(text: &str) -> Result<Option<u64>, &'static str> {
    match text.trim() {
        "-1" | "unlimited" => Ok(None),
        text => size(text, 1000.0).map(Some),
    }
}

/// The same with binary multiples, as Docker reads sizes of memory; an error says what is wrong.
pub fn binary_size(text: &str) -> Result<u64, &'static str> {
    size(text, 1024.0)
}

fn size(text: &str, thousand: f64) -> Result<u64, &'static str> {
    let text = text.trim();
    let split = text
        .find(|letter: char| !(letter.is_ascii_digit() || letter == '.'))
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let unit = unit.trim().to_ascii_lowercase();
    let (unit, thousand) = match unit.strip_suffix("ib") {
        Some(unit) => (unit, 1024.0),
        None => (unit.strip_suffix('b').unwrap_or(&unit), thousand),
    };
    let power = match unit {
        "" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        _ => return Err("invalid size"),
    };
    let bytes = number.parse::<f64>().map_err(|_| "invalid size")? * thousand.powi(power);
    if !(1.0..1e18).contains(&bytes) {
        return Err("it must be a positive number");
    }
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    Ok(bytes as u64)
}

/// `1h30m`, `500ms`, `7d`: Go's form, and days.
pub(super) fn duration(text: &str) -> Result<Duration, &'static str> {
    const WRONG: &str = "not a duration such as 500ms, 30s, 12h or 7d";
    let mut total = Duration::ZERO;
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(WRONG);
    }
    if rest == "0" {
        return Ok(total);
    }
    while !rest.is_empty() {
        let digits = rest
            .find(|letter: char| !(letter.is_ascii_digit() || letter == '.'))
            .ok_or(WRONG)?;
        let (number, after) = rest.split_at(digits);
        let letters = after
            .find(|letter: char| letter.is_ascii_digit() || letter == '.')
            .unwrap_or(after.len());
        let (unit, after) = after.split_at(letters);
        let seconds = match unit {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            "d" => 86_400.0,
            _ => return Err(WRONG),
        };
        let number: f64 = number.parse().map_err(|_| WRONG)?;
        total += Duration::try_from_secs_f64(number * seconds).map_err(|_| "too long")?;
        rest = after;
    }
    Ok(total)
}

#[cfg(test)]
#[path = "options_tests.rs"]
mod tests;
