//! What a forwarder is told when it starts.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Where a container's entries are sent, and what they say of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forward {
    pub to: Destination,
    pub source: Source,
    /// Chosen labels and variables.
    pub attributes: BTreeMap<String, String>,
    /// Bytes of entries that may wait.
    pub buffer: u64,
    /// When the buffer is full, new entries are dropped and counted; otherwise the container's output waits.
    pub drop_when_full: bool,
    /// Start the container only when the other end answers.
    pub connect_first: bool,
    /// Between two attempts to connect; doubled up to ten seconds.
    pub retry_wait: Duration,
    /// Attempts after which the entries at hand are given up. None never gives up.
    pub retries: Option<u32>,
}

/// The container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    pub id: String,
    pub name: String,
    pub image_id: String,
    pub image: String,
    pub command: String,
    pub created: Timestamp,
    pub hostname: String,
    pub tag: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Destination {
    /// The journal's native protocol, on a datagram socket.
    Journald { socket: PathBuf },
    Syslog {
        transport: Transport,
        /// Already shifted: 24 is `daemon`.
        facility: u8,
        format: SyslogFormat,
    },
    /// The forward protocol of Fluentd and Fluent Bit.
    Fluentd {
        transport: Transport,
        sub_second: bool,
        request_ack: bool,
        write_timeout: Option<Duration>,
        /// How long an acknowledgement may take.
        read_timeout: Option<Duration>,
    },
    Gelf {
        transport: Transport,
        compression: GelfCompression,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Transport {
    Udp(Address),
    Tcp(Address),
    Tls(Address, Box<Tls>),
    Unix(PathBuf),
    UnixDatagram(PathBuf),
    /// The first of these that is there, as datagram socket or stream.
    FirstUnix(Vec<PathBuf>),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    /// Without the brackets of an IPv6 address.
    pub host: String,
    pub port: u16,
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// PEM files; what is not named comes from the host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tls {
    pub ca: Option<PathBuf>,
    pub cert: Option<PathBuf>,
    pub key: Option<PathBuf>,
    pub skip_verify: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SyslogFormat {
    /// What the C library writes to the local socket.
    Unix,
    Rfc3164,
    /// Seconds, or microseconds.
    Rfc5424 {
        micro: bool,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GelfCompression {
    None,
    Gzip(u32),
    Zlib(u32),
}
