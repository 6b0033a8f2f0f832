//! Starts a daemon when none is named and the default socket does not answer.
//!
//! The client starts itself with the hidden command `launch-daemon`, which leaves the terminal's session and becomes
//! `berth daemon`; the daemon so survives the client and its terminal. Its messages go to `<root>/daemon.log`. Two
//! clients that do this at once are harmless: the daemon's lock on its root lets only one live, both wait for the socket.

use super::endpoint::Endpoint;
use super::stream::{self, ConnectError, Stream};
use super::trouble;
use crate::failure::Failure;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const ROOT: &str = "/var/lib/berth";
const DEADLINE: Duration = Duration::from_secs(20);
/// How much of the log a failure shows.
const TAIL: u64 = 2048;

/// The word by which the client calls itself.
pub const COMMAND: &str = "launch-daemon";

/// Whether this error means that nobody listens.
pub fn nobody_listens(error: &ConnectError) -> bool {
    matches!(error, ConnectError::Io(error)
        if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused))
}

/// Starts a daemon and answers with the first connection to it.
pub async fn start(endpoint: &Endpoint) -> Result<Stream, Failure> {
    if !rustix::process::geteuid().is_root() {
        return Err(Failure::text(format!(
            "Cannot connect to the Docker daemon at {}. Is the docker daemon running?",
            endpoint.host
        ))
        .hint("only root can start the system's daemon on demand: run `sudo berth daemon`, or name one with --host"));
    }
    let path = Path::new(ROOT).join("daemon.log");
    let failed = |what: &str, error: io::Error| {
        Failure::text(format!("cannot start a daemon: {what}: {error}"))
            .hint("run `berth daemon` in the foreground to see why")
    };
    std::fs::create_dir_all(ROOT).map_err(|error| failed(ROOT, error))?;
    let log = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(&path)
        .map_err(|error| failed("cannot open its log", error))?;
    let before = log.metadata().map(|meta| meta.len()).unwrap_or(0);
    let errors = log.try_clone().map_err(|error| failed("its log", error))?;
    let mut child = Command::new("/proc/self/exe")
        .arg(COMMAND)
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(errors)
        .spawn()
        .map_err(|error| failed("/proc/self/exe", error))?;
    let begun = Instant::now();
    let mut pause = Duration::from_millis(2);
    loop {
        match stream::open(endpoint).await {
            Ok(stream) => return Ok(stream),
            Err(error) if !nobody_listens(&error) => return Err(trouble::unreachable(endpoint, &error)),
            Err(_) => {}
        }
        let ended = child.try_wait().ok().flatten();
        // A daemon that lost the race for the lock ends; the winner may still be opening its socket.
        let patience = if ended.is_some() {
            Duration::from_secs(2)
        } else {
            DEADLINE
        };
        if begun.elapsed() > patience {
            let tail = tail(&path, before);
            let how = ended.map_or_else(
                || "did not answer in time".to_owned(),
                |status| format!("ended ({status})"),
            );
            let text = format!(
                "the daemon started on demand {how}; its log {} says:\n{tail}",
                path.display()
            );
            return Err(
                Failure::text(text.trim_end()).hint("run `berth daemon` in the foreground to see more")
            );
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

fn tail(path: &Path, before: u64) -> String {
    let read = || -> io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(before.max(length.saturating_sub(TAIL))))?;
        let mut bytes = Vec::new();
        file.take(TAIL).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    read()
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .unwrap_or_default()
}

/// The hidden command: leaves the session and becomes the daemon. Returns only when it can't.
pub fn become_daemon() -> i32 {
    if let Err(error) = rustix::process::setsid() {
        eprintln!("berth: cannot leave the session: {error}");
    }
    // Nobody's directory is held by a daemon.
    if let Err(error) = rustix::process::chdir("/") {
        eprintln!("berth: cannot go to the root directory: {error}");
    }
    // By this name people look for it.
    let error = Command::new("/proc/self/exe").arg0("berth").arg("daemon").exec();
    eprintln!("berth: cannot become the daemon: {error}");
    1
}
