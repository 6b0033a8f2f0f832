//! The options of drivers that send entries elsewhere.

use std::path::PathBuf;
use std::time::Duration;

use super::address::{host_port, with_scheme};
use super::options::{Driver, LogConfigError, Options, binary_size, boolean, duration};
use crate::forward::{Destination, GelfCompression, SyslogFormat, Tls, Transport};

/// What such a driver's own options say.
pub(super) struct Understood {
    pub(super) to: Destination,
    pub(super) buffer: Option<u64>,
    pub(super) connect_first: bool,
    pub(super) retry_wait: Duration,
    pub(super) retries: Option<u32>,
}

impl Understood {
    fn of(to: Destination) -> Self {
        Self {
            to,
            buffer: None,
            connect_first: true,
            retry_wait: Duration::from_millis(200),
            retries: None,
        }
    }
}

/// The journal's own place.
const JOURNAL: &str = "/run/systemd/journal/socket";

/// `blocking` is what was asked for, if anything.
pub(super) fn understand(
    driver: Driver,
    options: &mut Options<'_>,
    blocking: Option<bool>,
) -> Result<Option<Understood>, LogConfigError> {
    match driver {
        Driver::JsonFile | Driver::Local | Driver::None => Ok(None),
        Driver::Journald => {
            let socket = options.take("journald-socket").unwrap_or(JOURNAL).into();
            Ok(Some(Understood::of(Destination::Journald { socket })))
        }
        Driver::Syslog => syslog(options).map(Some),
        Driver::Fluentd => fluentd(options, blocking).map(Some),
        Driver::Gelf => gelf(options).map(Some),
    }
}

fn plain(text: impl Into<String>) -> LogConfigError {
    LogConfigError::Plain(text.into())
}

fn syslog(options: &mut Options<'_>) -> Result<Understood, LogConfigError> {
    let tls = Tls {
        ca: options.take("syslog-tls-ca-cert").map(PathBuf::from),
        cert: options.take("syslog-tls-cert").map(PathBuf::from),
        key: options.take("syslog-tls-key").map(PathBuf::from),
        // Docker takes its mere presence for yes, but `false` is hardly meant so.
        skip_verify: options.read("syslog-tls-skip-verify", boolean)?.unwrap_or(false),
    };
    let address = options.take("syslog-address").unwrap_or_default();
    let transport = if address.is_empty() {
        Transport::FirstUnix(
            ["/dev/log", "/var/run/syslog", "/var/run/log"]
                .map(PathBuf::from)
                .into(),
        )
    } else {
        let (scheme, rest) = with_scheme(address)
            .filter(|(scheme, _)| *scheme != "tls")
            .ok_or_else(|| {
                plain(format!(
                    "syslog-address should be in form proto://address, got {address}"
                ))
            })?;
        let endpoint = || {
            host_port(rest, Some(514)).map_err(|reason| plain(format!("syslog-address {address}: {reason}")))
        };
        match scheme {
            "unix" => Transport::FirstUnix(vec![rest.into()]),
            "unixgram" => Transport::UnixDatagram(rest.into()),
            "udp" => Transport::Udp(endpoint()?),
            "tcp" => Transport::Tcp(endpoint()?),
            _ => Transport::Tls(endpoint()?, Box::new(tls)),
        }
    };
    let facility = match options.take("syslog-facility") {
        None | Some("") => 3,
        Some(name) => facility(name).ok_or_else(|| plain("invalid syslog facility"))?,
    };
    let format = match options.take("syslog-format").unwrap_or_default() {
        "" => SyslogFormat::Unix,
        "rfc3164" => SyslogFormat::Rfc3164,
        "rfc5424" => SyslogFormat::Rfc5424 { micro: false },
        "rfc5424micro" => SyslogFormat::Rfc5424 { micro: true },
        _ => return Err(plain("Invalid syslog format")),
    };
    Ok(Understood::of(Destination::Syslog {
        transport,
        facility: facility << 3,
        format,
    }))
}

/// A facility's number, by name or number (RFC 5424 §6.2.1).
fn facility(name: &str) -> Option<u8> {
    const NAMES: [&str; 12] = [
        "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp",
    ];
    let number = match (name.parse::<u8>(), name.strip_prefix("local")) {
        (Ok(number), _) => number,
        (_, Some(number)) => number.parse::<u8>().ok().filter(|number| *number < 8)? + 16,
        _ => u8::try_from(NAMES.iter().position(|known| *known == name)?).ok()?,
    };
    (number < 24).then_some(number)
}

fn fluentd(options: &mut Options<'_>, blocking: Option<bool>) -> Result<Understood, LogConfigError> {
    let address = options.take("fluentd-address").unwrap_or_default();
    let invalid = |reason: &str| plain(format!("invalid fluentd-address {address}: {reason}"));
    let (scheme, rest) = match address.split_once("://") {
        Some(parts) => parts,
        None => ("tcp", address),
    };
    let endpoint = || {
        let mut endpoint = host_port(rest, Some(24224)).map_err(invalid)?;
        if endpoint.host.is_empty() {
            "127.0.0.1".clone_into(&mut endpoint.host);
        }
        Ok(endpoint)
    };
    let transport = match scheme {
        "tcp" => Transport::Tcp(endpoint()?),
        "tls" => Transport::Tls(endpoint()?, Box::default()),
        "unix" if rest.starts_with('/') => Transport::Unix(rest.into()),
        "unix" => return Err(invalid("path is empty")),
        other => return Err(invalid(&format!("unsupported scheme: '{other}'"))),
    };
    let asynchronous = options.read("fluentd-async", boolean)?.unwrap_or(false);
    let mut timeout = |option| {
        let given = options.read(option, duration)?;
        Ok(given.filter(|timeout| !timeout.is_zero()))
    };
    let (write_timeout, read_timeout) = (
        timeout("fluentd-write-timeout")?,
        timeout("fluentd-read-timeout")?,
    );
    let mut understood = Understood::of(Destination::Fluentd {
        transport,
        sub_second: options
            .read("fluentd-sub-second-precision", boolean)?
            .unwrap_or(false),
        request_ack: options.read("fluentd-request-ack", boolean)?.unwrap_or(false),
        write_timeout,
        read_timeout,
    });
    understood.connect_first = !asynchronous;
    understood.buffer = options.read("fluentd-buffer-limit", binary_size)?;
    let between = options.read("fluentd-async-reconnect-interval", duration)?;
    let wait = options.read("fluentd-retry-wait", duration)?;
    understood.retry_wait = wait
        .or(between.filter(|interval| !interval.is_zero()))
        .unwrap_or(understood.retry_wait);
    let retries = options.read("fluentd-max-retries", |text| {
        text.parse::<u32>().map_err(|_| "not a number")
    })?;
    // What waits is bounded already where nothing waits for it.
    understood.retries = retries.filter(|_| blocking == Some(true));
    Ok(understood)
}

fn gelf(options: &mut Options<'_>) -> Result<Understood, LogConfigError> {
    let address = options.take("gelf-address").unwrap_or_default();
    if address.is_empty() {
        return Err(plain("gelf-address is a required parameter"));
    }
    let (scheme, rest) = address.split_once("://").ok_or_else(|| {
        plain(format!(
            "gelf-address should be in form proto://address, got {address}"
        ))
    })?;
    if !matches!(scheme, "tcp" | "udp") {
        return Err(plain("gelf: endpoint needs to be TCP or UDP"));
    }
    let endpoint =
        host_port(rest, None).map_err(|_| plain("gelf: please provide gelf-address as proto://host:port"))?;
    let level = options.read("gelf-compression-level", |text| match text.parse::<i32>() {
        Ok(-1) => Ok(6),
        Ok(level @ 0..=9) => Ok(level.unsigned_abs()),
        _ => Err("a level is a number from -1 to 9"),
    })?;
    let kind = options.take("gelf-compression-type");
    if scheme == "tcp" && (level.is_some() || kind.is_some()) {
        return Err(plain("compression is only supported on UDP"));
    }
    let level = level.unwrap_or(1);
    let compression = match kind {
        _ if scheme == "tcp" => GelfCompression::None,
        None | Some("gzip") => GelfCompression::Gzip(level),
        Some("zlib") => GelfCompression::Zlib(level),
        Some("none") => GelfCompression::None,
        Some(other) => {
            return Err(plain(format!(
                "unknown value \"{other}\" for log opt \"gelf-compression-type\" for gelf log driver"
            )));
        }
    };
    let number = |text: &str| text.parse::<u32>().map_err(|_| "must be a positive integer");
    let reconnects = options.read("gelf-tcp-max-reconnect", number)?;
    let delay = options.read("gelf-tcp-reconnect-delay", number)?;
    if scheme == "udp" && (reconnects.is_some() || delay.is_some()) {
        let option = if reconnects.is_some() {
            "gelf-tcp-max-reconnect"
        } else {
            "gelf-tcp-reconnect-delay"
        };
        return Err(plain(format!("\"{option}\" is only valid for TCP")));
    }
    let transport = if scheme == "tcp" {
        Transport::Tcp(endpoint)
    } else {
        Transport::Udp(endpoint)
    };
    let mut understood = Understood::of(Destination::Gelf {
        transport,
        compression,
    });
    understood.retries = reconnects;
    if let Some(seconds) = delay {
        understood.retry_wait = Duration::from_secs(u64::from(seconds));
    }
    Ok(understood)
}
