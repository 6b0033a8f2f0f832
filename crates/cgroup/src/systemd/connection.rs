//! A conversation with systemd: who we are, calls and their answers, and the end of jobs.
//!
//! Root speaks to systemd directly, where every signal comes unasked; the system bus is taken where that socket is
//! not there, and wants a greeting and a word on which signals are wanted. Source: D-Bus Specification 0.42,
//! "Authentication Protocol"; org.freedesktop.systemd1(5).

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::{CgroupError, Result};

use super::wire::{self, Message, Target, Writer};

const PRIVATE: &str = "/run/systemd/private";
const BUS: &str = "/run/dbus/system_bus_socket";
/// What systemd itself gives a method call.
const PATIENCE: Duration = Duration::from_secs(25);

const THE_BUS: Target = Target {
    destination: "org.freedesktop.DBus",
    path: "/org/freedesktop/DBus",
    interface: "org.freedesktop.DBus",
};
const MANAGER: Target = Target {
    destination: "org.freedesktop.systemd1",
    path: "/org/freedesktop/systemd1",
    interface: "org.freedesktop.systemd1.Manager",
};
const PEER: Target = Target {
    interface: "org.freedesktop.DBus.Peer",
    ..MANAGER
};
const JOBS: &str = "type='signal',interface='org.freedesktop.systemd1.Manager',member='JobRemoved'";

#[derive(Debug)]
pub(super) struct Connection {
    stream: UnixStream,
    path: PathBuf,
    serial: u32,
    /// Path and result of jobs that ended before they were asked for.
    ended: Vec<(String, String)>,
}

/// What came of a call.
#[derive(Debug)]
pub(super) enum Answer {
    /// The first text of the answer, where it has one.
    Done(Option<String>),
    Refused {
        name: String,
        why: String,
    },
}

impl Connection {
    /// To the systemd that runs here.
    pub fn open() -> Result<Connection> {
        if let Ok(stream) = UnixStream::connect(PRIVATE) {
            return Connection::over(stream, Path::new(PRIVATE), false);
        }
        match UnixStream::connect(BUS) {
            Ok(stream) => Connection::over(stream, Path::new(BUS), true),
            Err(source) => Err(CgroupError::NoSystemd {
                looked_at: format!("{PRIVATE} and {BUS}"),
                source,
            }),
        }
    }

    /// Over a connected socket, whose path is for messages.
    pub fn over(stream: UnixStream, path: &Path, bus: bool) -> Result<Connection> {
        let mut connection = Connection {
            stream,
            path: path.to_path_buf(),
            serial: 0,
            ended: Vec::new(),
        };
        connection
            .authenticate()
            .map_err(|source| CgroupError::io("speak to systemd at", path, source))?;
        if bus {
            connection.must(&THE_BUS, "Hello", "", Writer::default())?;
            let mut rule = Writer::default();
            rule.text(JOBS);
            connection.must(&THE_BUS, "AddMatch", "s", rule)?;
            // Over the bus jobs are told of only where somebody has asked for it.
            connection.must(&MANAGER, "Subscribe", "", Writer::default())?;
        }
        Ok(connection)
    }

    fn authenticate(&mut self) -> io::Result<()> {
        self.stream.set_read_timeout(Some(PATIENCE))?;
        self.stream.set_write_timeout(Some(PATIENCE))?;
        let uid = rustix::process::geteuid().as_raw().to_string();
        let hex: String = uid.bytes().map(|byte| format!("{byte:02x}")).collect();
        // BEGIN at once with the rest: a systemd (252) that reads it together with the first call does not look at that
        // call before something else arrives. As it is, the call comes after systemd's answer, thus after BEGIN.
        self.stream
            .write_all(format!("\0AUTH EXTERNAL {hex}\r\nBEGIN\r\n").as_bytes())?;
        // Byte by byte: what follows the line is not ours to read yet.
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") && line.len() < 1024 {
            let mut byte = [0];
            self.stream.read_exact(&mut byte)?;
            line.extend(byte);
        }
        if !line.starts_with(b"OK ") {
            let said = String::from_utf8_lossy(&line).trim_end().to_owned();
            return Err(io::Error::other(format!("user {uid} is not let in: {said}")));
        }
        Ok(())
    }

    /// A method of the manager.
    pub fn manager(&mut self, member: &str, signature: &str, body: Writer) -> Result<Answer> {
        self.call(&MANAGER, member, signature, body)
    }

    /// As [`Connection::manager`], where a refusal is a failure.
    pub fn manage(&mut self, member: &str, signature: &str, body: Writer) -> Result<Option<String>> {
        self.must(&MANAGER, member, signature, body)
    }

    /// Returns when systemd has done what it had queued at the last answer: it empties its queues before it reads.
    pub fn settle(&mut self) -> Result<()> {
        self.must(&PEER, "Ping", "", Writer::default()).map(drop)
    }

    /// Waits until a job has ended and gives its result, `done` where all is well.
    pub fn job(&mut self, job: &str) -> Result<String> {
        loop {
            if let Some(at) = self.ended.iter().position(|(path, _)| path == job) {
                return Ok(self.ended.swap_remove(at).1);
            }
            let message = self.receive()?;
            self.note(message);
        }
    }

    fn must(
        &mut self,
        target: &Target,
        member: &str,
        signature: &str,
        body: Writer,
    ) -> Result<Option<String>> {
        match self.call(target, member, signature, body)? {
            Answer::Done(text) => Ok(text),
            Answer::Refused { name, why } => Err(CgroupError::Systemd {
                action: member.to_owned(),
                reason: format!("{why} ({name})"),
            }),
        }
    }

    fn call(&mut self, target: &Target, member: &str, signature: &str, body: Writer) -> Result<Answer> {
        self.serial += 1;
        let serial = self.serial;
        let message = wire::call(serial, target, member, signature, body);
        self.stream
            .write_all(&message)
            .map_err(|source| CgroupError::io("write to systemd at", &self.path, source))?;
        loop {
            let message = self.receive()?;
            let ours = message.reply_to == Some(serial);
            match message.kind {
                wire::METHOD_RETURN if ours => return Ok(Answer::Done(message.texts.into_iter().next())),
                wire::ERROR if ours => {
                    return Ok(Answer::Refused {
                        name: message.error,
                        why: message.texts.into_iter().next().unwrap_or_default(),
                    });
                }
                _ => self.note(message),
            }
        }
    }

    /// Keeps what is told of ended jobs: `JobRemoved(id, job, unit, result)`.
    fn note(&mut self, message: Message) {
        if message.kind == wire::SIGNAL
            && message.member == "JobRemoved"
            && let [job, _, result] = message.texts.as_slice()
        {
            self.ended.push((job.clone(), result.clone()));
        }
    }

    fn receive(&mut self) -> Result<Message> {
        let failed = |source| CgroupError::io("read from systemd at", &self.path, source);
        let malformed = || failed(io::Error::other("not a D-Bus message"));
        let mut bytes = vec![0; wire::FIXED];
        self.stream.read_exact(&mut bytes).map_err(failed)?;
        let rest = wire::rest(&bytes).ok_or_else(malformed)?;
        bytes.resize(wire::FIXED + rest, 0);
        let tail = bytes.get_mut(wire::FIXED..).unwrap_or_default();
        self.stream.read_exact(tail).map_err(failed)?;
        wire::parse(&bytes).ok_or_else(malformed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    /// The other end: greets, and answers each call by what `answer` gives.
    fn peer(mut stream: UnixStream, answer: impl Fn(&str) -> Vec<Vec<u8>> + Send + 'static) -> Vec<String> {
        let mut line = Vec::new();
        while !line.ends_with(b"BEGIN\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            line.extend(byte);
        }
        let uid = rustix::process::geteuid().as_raw().to_string();
        let hex: String = uid.bytes().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(line, format!("\0AUTH EXTERNAL {hex}\r\nBEGIN\r\n").as_bytes());
        stream.write_all(b"OK 0123\r\n").unwrap();
        let mut called = Vec::new();
        let mut fixed = [0; wire::FIXED];
        while stream.read_exact(&mut fixed).is_ok() {
            let mut bytes = fixed.to_vec();
            bytes.resize(wire::FIXED + wire::rest(&fixed).unwrap(), 0);
            stream.read_exact(&mut bytes[wire::FIXED..]).unwrap();
            let call = wire::parse(&bytes).unwrap();
            for message in answer(&call.member) {
                stream.write_all(&message).unwrap();
            }
            called.push(
                format!("{} {}", call.member, call.texts.join(" "))
                    .trim()
                    .to_owned(),
            );
        }
        called
    }

    /// A message with one number or name in its header and texts in its body.
    fn message(kind: u8, reply_to: Option<u32>, member: &str, signature: &str, body: &[u8]) -> Vec<u8> {
        let mut fields = Vec::new();
        if let Some(serial) = reply_to {
            fields.extend([5, 1, b'u', 0]);
            fields.extend(serial.to_le_bytes());
        }
        if !member.is_empty() {
            fields.extend([3, 1, b's', 0]);
            fields.extend((member.len() as u32).to_le_bytes());
            fields.extend(member.as_bytes());
            fields.push(0);
            fields.resize(fields.len().next_multiple_of(8), 0);
        }
        fields.extend([8, 1, b'g', 0, signature.len() as u8]);
        fields.extend(signature.as_bytes());
        fields.push(0);
        let mut bytes = vec![b'l', kind, 0, 1];
        bytes.extend((body.len() as u32).to_le_bytes());
        bytes.extend(9u32.to_le_bytes());
        bytes.extend((fields.len() as u32).to_le_bytes());
        bytes.extend(fields);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        bytes.extend(body);
        bytes
    }

    fn text(text: &str, into: &mut Vec<u8>) {
        into.resize(into.len().next_multiple_of(4), 0);
        into.extend((text.len() as u32).to_le_bytes());
        into.extend(text.as_bytes());
        into.push(0);
    }

    #[test]
    fn the_bus_is_greeted_and_jobs_that_end_early_are_kept() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let serial = std::sync::atomic::AtomicU32::new(0);
        let other = thread::spawn(move || {
            peer(theirs, move |member| {
                let serial = serial.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1;
                let mut answer = Vec::new();
                text("/job/7", &mut answer);
                let done = message(wire::METHOD_RETURN, Some(serial), "", "o", &answer);
                if member != "StopUnit" {
                    return vec![done];
                }
                // The end of the job is told before the answer that names it.
                let mut ended = 7u32.to_le_bytes().to_vec();
                for part in ["/job/7", "a.scope", "done"] {
                    text(part, &mut ended);
                }
                vec![message(wire::SIGNAL, None, "JobRemoved", "uoss", &ended), done]
            })
        });
        let mut connection = Connection::over(ours, Path::new("peer"), true).unwrap();
        let mut body = Writer::default();
        body.text("a.scope");
        body.text("replace");
        let job = connection.manage("StopUnit", "ss", body).unwrap();
        assert_eq!(job.as_deref(), Some("/job/7"));
        assert_eq!(connection.job("/job/7").unwrap(), "done");
        drop(connection);
        let called = other.join().unwrap();
        let match_rule = format!("AddMatch {JOBS}");
        assert_eq!(
            called,
            ["Hello", &match_rule, "Subscribe", "StopUnit a.scope replace"]
        );
    }

    #[test]
    fn a_refusal_is_told_in_the_words_of_systemd() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let other = thread::spawn(move || {
            peer(theirs, |_| {
                let mut why = Vec::new();
                text("not today", &mut why);
                vec![message(wire::ERROR, Some(1), "", "s", &why)]
            })
        });
        let mut connection = Connection::over(ours, Path::new("peer"), false).unwrap();
        let error = connection.settle().unwrap_err().to_string();
        assert!(error.contains("not today"), "{error}");
        drop(connection);
        assert_eq!(other.join().unwrap(), ["Ping"]);
    }
}
