//! What daemon and monitor say to each other.
//!
//! Every message is one JSON document on one line. Descriptors travel with the first byte of the line. A client
//! sends one [`Request`] and reads one [`Response`]; after [`Request::Watch`] was answered it reads [`Event`]s until
//! the monitor leaves. The launch socket carries exactly one [`Launch`] and one [`Reply`].
//!
//! # Versions
//!
//! A monitor lives as long as its container, so a daemon meets monitors of earlier releases, and after a return to an
//! earlier release those of later ones. (The launch socket connects two processes of one program and is not part of
//! this.) So that they understand each other:
//!
//! - What was released stays: nothing is renamed or loses a field, and a field that is added has a default.
//! - What a side does not know it passes over: a field is ignored, an event is left out, and a request is answered by
//!   a failure of class NotImplemented, after which the connection goes on.
//! - A monitor says in answer to [`Request::Watch`] which version it speaks ([`Hello`]).
//!
//! | version | what it added |
//! |---|---|
//! | 1 | everything but what follows; [`Request::Watch`] is answered with [`Response::Done`] |
//! | 2 | [`Response::Watching`]; a request that is not known does not end the connection |
//! | 3 | [`Request::Relay`] |
//! | 4 | [`Request::Execs`], [`ExecRequest::note`] |
//!
//! `tests/protocol/` holds what each version says, word for word, and a test holds the types against it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use spec::ErrorClass;
use sys::mount::Overlay;

pub use crate::log::LogConfig;

/// The version of what is said here.
pub const VERSION: u32 = 4;

/// The longest line either side accepts. An `exec` carries an environment, a launch hundreds of layers.
pub const MAX_LINE: usize = 4 << 20;

/// What to run. Descriptors come in this order: the network namespace (if any), the user namespace (if
/// `has_userns`), the two DNS sockets (datagram,
/// stream; if `has_dns`), one stream socket per entry of `attach`, one socket per entry of `relay`, bound there, a mount
/// of the init program (if `init`). Whether
/// there is a namespace follows from the count. The process itself is described by `<bundle>/config.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Launch {
    pub id: String,
    pub bundle: PathBuf,
    pub rootfs: Overlay,
    /// Directory of the control socket.
    pub run_dir: PathBuf,
    /// Where the [`ExitRecord`] goes.
    pub exit_file: PathBuf,
    /// Whether it is written. Nobody comes back for that of a build's step, which ends with the daemon that started it.
    pub records_exit: bool,
    pub log: LogConfig,
    pub tty: bool,
    /// Keep standard input open; otherwise the process reads end-of-file.
    pub open_stdin: bool,
    /// Close standard input when the first attached client is done with it.
    pub stdin_once: bool,
    /// The control group, which the monitor makes.
    pub cgroup: cgroup::Place,
    /// Rows and columns.
    pub console_size: Option<(u16, u16)>,
    /// Put a small init before the process.
    pub init: bool,
    /// The process is in a user namespace that is handed over.
    pub has_userns: bool,
    pub has_dns: bool,
    pub dns: Option<dns::Config>,
    pub seccomp_cache: Option<PathBuf>,
    pub attach: Vec<AttachStreams>,
    /// Published ports that the monitor serves.
    pub relay: Vec<relay::Port>,
}

impl Launch {
    /// The container's own directory, on disk.
    pub(crate) fn dir(&self) -> &Path {
        self.exit_file.parent().unwrap_or(&self.run_dir)
    }
}

/// Which streams go through a stream socket.
///
/// Monitor to client: raw bytes with a terminal, else frames of an 8-byte header (stream number 1 or 2, three zero
/// bytes, length big endian) and data. Client to monitor: standard input; shutting down that direction ends it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachStreams {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
}

/// Answer to [`Launch`].
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    Started(Started),
    Failed(Failed),
}

/// The first process runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    /// In the daemon's pid namespace.
    pub pid: i32,
    pub started_at: Timestamp,
    /// Where the monitor's time went.
    #[serde(default)]
    pub took: Took,
}

/// Parts of a start, in microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Took {
    /// The control group with its limits, and the log.
    pub group: u64,
    /// Namespaces, mounts and rights, up to a process that waits to become the program.
    pub container: u64,
    /// Until it has become the program.
    pub exec: u64,
}

/// It does not, or the request could not be carried out.
#[derive(Debug, Clone, thiserror::Error, Serialize, Deserialize)]
#[error("{message}")]
pub struct Failed {
    pub message: String,
    #[serde(with = "class")]
    pub class: ErrorClass,
    /// What a shell would report: 127 not found, 126 not executable, 128 other failures of the start.
    pub exit_code: Option<i32>,
}

impl Failed {
    pub fn new(class: ErrorClass, message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            class,
            exit_code: None,
        }
    }

    pub fn class(&self) -> ErrorClass {
        self.class
    }
}

/// A request on the control socket.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    State,
    /// One descriptor: the stream socket.
    Attach(AttachStreams),
    Kill {
        signal: i32,
    },
    Resize {
        rows: u16,
        cols: u16,
    },
    /// One descriptor, the stream socket, when `streams` is present.
    Exec(ExecRequest),
    ExecResize {
        exec_id: String,
        rows: u16,
        cols: u16,
    },
    ExecKill {
        exec_id: String,
        signal: i32,
    },
    ExecState {
        exec_id: String,
    },
    /// The additional processes behind this number ([`KeptExec::number`]; 0 for all), as many as one answer holds. Ends that
    /// are told with it count as told.
    Execs {
        after: u32,
    },
    /// The published ports that the monitor serves from now on. Of those that it serves already it has the sockets; for
    /// the ones of these places in the list, in this order, there is a descriptor each: a socket bound there. What it
    /// served and is not in the list is given up. Connections go on.
    Relay {
        ports: Vec<relay::Port>,
        new: Vec<usize>,
    },
    /// Answered with [`Response::Watching`]; from then on events follow.
    Watch,
    /// The exit has been taken note of: leave now.
    Release,
}

/// An additional process.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ExecRequest {
    pub exec_id: String,
    pub process: spec::runtime::Process,
    pub tty: bool,
    /// None runs detached: its output is thrown away.
    pub streams: Option<AttachStreams>,
    /// Rows and columns.
    pub console_size: Option<(u16, u16)>,
    /// What the daemon that comes next has to know of it, in the daemon's own words. Earlier releases did not say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// Answer to a request.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Response {
    Done,
    State(State),
    ExecStarted { pid: i32 },
    ExecState(ExecState),
    Execs(KeptExecs),
    Watching(Hello),
    Failed(Failed),
}

/// What a monitor says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Of this protocol.
    pub version: u32,
    /// Of the program that the monitor runs.
    pub release: String,
}

impl Hello {
    /// Of this program.
    pub fn own() -> Hello {
        Hello {
            version: VERSION,
            release: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }

    /// Of the monitors that say nothing of themselves.
    pub fn first() -> Hello {
        Hello {
            version: 1,
            release: "unknown".to_owned(),
        }
    }
}

/// What the monitor knows of its container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    pub pid: i32,
    pub monitor_pid: i32,
    pub started_at: Timestamp,
    pub oom_killed: bool,
    /// Execs that run, by id.
    pub execs: Vec<String>,
    /// Present when the first process has ended.
    pub exited: Option<ExitRecord>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecState {
    pub running: bool,
    pub pid: i32,
    pub exit_code: Option<i32>,
}

/// Additional processes that the monitor knows, in the order in which they were started: all that run, and the last of those
/// that have ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptExecs {
    pub execs: Vec<KeptExec>,
    /// There are others behind the last one.
    pub more: bool,
}

/// An additional process that the monitor knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptExec {
    /// Higher than that of every one that was started before.
    pub number: u32,
    pub exec_id: String,
    pub pid: i32,
    /// Once it has ended.
    pub exit_code: Option<i32>,
    /// Whether a watcher has heard of its end, or it was told in an earlier answer.
    pub told: bool,
    /// What came with its start.
    pub note: Option<String>,
}

/// What watchers hear.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    ExecExited {
        exec_id: String,
        exit_code: i32,
    },
    /// The kernel killed something in the container for want of memory.
    Oom,
    /// The log cannot be written; output is lost until it can be again.
    LogFailed {
        message: String,
    },
    /// Where the log is sent cannot be reached; entries wait or are dropped until it can be.
    LogUnreachable {
        message: String,
    },
    /// Entries that were not delivered where the log is sent.
    LogDropped {
        entries: u64,
    },
    /// A listener takes less than there is and begins to miss output.
    #[serde(alias = "listener_dropped")]
    ListenerBehind,
    Exited(ExitRecord),
}

/// A line of a watcher's stream: an event, or the answer to one more [`Request::Watch`].
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub enum Heard {
    Event(Event),
    Answer(Response),
}

/// How the container ended; also the content of `exit_file`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitRecord {
    /// The process's own, or 128 + signal.
    pub exit_code: i32,
    pub signal: Option<i32>,
    pub oom_killed: bool,
    pub started_at: Timestamp,
    pub finished_at: Timestamp,
    /// How long it ran, by a clock that nobody sets. Earlier releases did not write it.
    #[serde(default)]
    pub ran_nanos: Option<u64>,
    /// Bytes, where the kernel keeps it.
    pub peak_memory: Option<u64>,
}

impl ExitRecord {
    /// How long the first process ran.
    pub fn ran(&self) -> Duration {
        let by_times = self.finished_at.duration_since(self.started_at);
        self.ran_nanos.map_or_else(
            || Duration::try_from(by_times).unwrap_or_default(),
            Duration::from_nanos,
        )
    }

    /// Reads a record. No file means that no exit has been recorded.
    pub fn read(path: &Path) -> std::io::Result<Option<Self>> {
        match std::fs::read(path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map(Some)
                .map_err(std::io::Error::from),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Error classes by name.
mod class {
    use serde::{Deserialize, Deserializer, Serializer};
    use spec::ErrorClass;

    const NAMES: [(ErrorClass, &str); 9] = [
        (ErrorClass::NotFound, "not_found"),
        (ErrorClass::Conflict, "conflict"),
        (ErrorClass::Invalid, "invalid"),
        (ErrorClass::Unauthorized, "unauthorized"),
        (ErrorClass::Forbidden, "forbidden"),
        (ErrorClass::NotModified, "not_modified"),
        (ErrorClass::Unavailable, "unavailable"),
        (ErrorClass::NotImplemented, "not_implemented"),
        (ErrorClass::Internal, "internal"),
    ];

    pub fn serialize<S: Serializer>(class: &ErrorClass, serializer: S) -> Result<S::Ok, S::Error> {
        let name = NAMES
            .iter()
            .find(|(known, _)| known == class)
            .map_or("internal", |(_, name)| *name);
        serializer.serialize_str(name)
    }

    /// A class this version does not know is an internal failure.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ErrorClass, D::Error> {
        let text = String::deserialize(deserializer)?;
        Ok(NAMES
            .iter()
            .find(|(_, name)| *name == text)
            .map_or(ErrorClass::Internal, |(class, _)| *class))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_one_line_each_and_come_back() {
        let request = Request::Kill { signal: 15 };
        assert_eq!(
            serde_json::to_string(&request).unwrap(),
            r#"{"kill":{"signal":15}}"#
        );
        assert_eq!(serde_json::to_string(&Request::State).unwrap(), r#""state""#);
        let failed = Reply::Failed(Failed {
            message: "a\nb".into(),
            class: ErrorClass::Invalid,
            exit_code: Some(127),
        });
        let text = serde_json::to_string(&failed).unwrap();
        assert!(!text.contains('\n'));
        let Reply::Failed(back) = serde_json::from_str(&text).unwrap() else {
            unreachable!()
        };
        assert_eq!(
            (back.class, back.exit_code, back.message.as_str()),
            (ErrorClass::Invalid, Some(127), "a\nb")
        );
    }

    #[test]
    fn a_watcher_tells_answers_and_events_apart() {
        let line = serde_json::to_string(&Response::Done).unwrap();
        assert!(matches!(
            serde_json::from_str(&line),
            Ok(Heard::Answer(Response::Done))
        ));
        for event in [
            Event::Oom,
            Event::ListenerBehind,
            Event::LogDropped { entries: 3 },
        ] {
            let line = serde_json::to_string(&event).unwrap();
            let Ok(Heard::Event(back)) = serde_json::from_str(&line) else {
                panic!("{line}");
            };
            assert_eq!(back, event);
        }
    }

    #[test]
    fn a_run_is_as_long_as_it_was_whatever_the_clock_says() {
        let start: Timestamp = "2026-01-01T12:00:00Z".parse().unwrap();
        let record = |seconds: i64, ran: Option<Duration>| ExitRecord {
            exit_code: 0,
            signal: None,
            oom_killed: false,
            started_at: start,
            finished_at: start + jiff::SignedDuration::from_secs(seconds),
            ran_nanos: ran.map(|ran| u64::try_from(ran.as_nanos()).unwrap()),
            peak_memory: None,
        };
        let run = Duration::from_secs(3);
        // The clock was put forward by a day, and back by one.
        assert_eq!(record(86_403, Some(run)).ran(), run);
        assert_eq!(record(-86_397, Some(run)).ran(), run);
        // Of an earlier release.
        assert_eq!(record(3, None).ran(), run);
        assert_eq!(record(-86_397, None).ran(), Duration::ZERO);
    }

    #[test]
    fn an_exit_record_that_is_not_there_is_not_an_error() {
        assert_eq!(
            ExitRecord::read(Path::new("/nonexistent/exit.json")).unwrap(),
            None
        );
    }
}
