//! Reading a container's log, as it was written and while it is.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use jiff::Timestamp;
use monitor::log::{LogConfig, LogFiles, LogLine, Next, ReadOptions, Reader, Stopper, Subject};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::{Container, Status};
use crate::engine::{Engine, blocking};
use crate::error::{Error, Result, chain};
use crate::live::LiveConfig;

/// Bytes ready for the wire.
pub type LogStream = mpsc::Receiver<std::io::Result<Bytes>>;

/// How many pieces may wait for a slow client.
const PENDING: usize = 8;
/// Lines are gathered up to this size before they are handed on.
const BATCH: usize = 64 << 10;

/// Which lines, and how they are shown.
#[derive(Debug, Clone, Default)]
pub struct LogOptions {
    pub stdout: bool,
    pub stderr: bool,
    pub follow: bool,
    pub timestamps: bool,
    pub details: bool,
    pub since: Option<Timestamp>,
    pub until: Option<Timestamp>,
    /// The last lines only; `None` for all.
    pub tail: Option<u64>,
}

/// A log being read.
pub struct Logs {
    /// The container has a terminal: the bytes are not framed.
    pub tty: bool,
    pub stream: LogStream,
}

impl Engine {
    /// Reads a container's log.
    pub async fn container_logs(&self, name: &str, options: LogOptions) -> Result<Logs> {
        let handle = self.inner.containers.find(name)?;
        let container = handle.snapshot();
        if !options.stdout && !options.stderr {
            return Err(Error::invalid(
                "must specify at least one of 'stdout' or 'stderr'",
            ));
        }
        let config = config(&container, self.inner.images.ids())?;
        if config.files.is_none() {
            return Err(Error::new(
                spec::ErrorClass::NotImplemented,
                "configured logging driver does not support reading",
            ));
        }
        let (send, stream) = mpsc::channel(PENDING);
        let tty = container.config.tty;
        if container.state.started_at.is_none() {
            return Ok(Logs { tty, stream });
        }
        let read = ReadOptions {
            stdout: options.stdout,
            stderr: options.stderr,
            follow: options.follow,
            since: options.since,
            until: options.until,
            tail: options.tail,
        };
        let attributes = config.attributes.clone();
        let reader = blocking(move || {
            Reader::open(&config, read).map_err(|error| Error::new(error.class(), chain(&error)))
        })
        .await?;
        let follower = options.follow.then(|| {
            tokio::spawn(finish_at_end(
                handle.subscribe(),
                self.inner.shutdown.clone(),
                send.clone(),
                reader.stopper(),
            ))
        });
        // Following blocks on the file system's notifications, so it has a thread of the pool to itself.
        tokio::task::spawn_blocking(move || {
            let form = Form {
                timestamps: options.timestamps,
                details: options.details.then_some(attributes),
                tty,
            };
            pump(reader, &send, &form);
            if let Some(follower) = follower {
                follower.abort();
            }
        });
        Ok(Logs { tty, stream })
    }
}

/// The settings a container's log is written and read with.
pub(super) fn config(container: &Container, ids: image::ImageIds) -> Result<LogConfig> {
    let log = &container.host_config.log_config;
    let command: Vec<&str> = std::iter::once(container.path.as_str())
        .chain(container.args.iter().map(String::as_str))
        .collect();
    let hostname = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let image_id = container.shown_image(ids).to_string();
    let subject = Subject {
        id: container.id.as_str(),
        name: &container.name,
        image_id: &image_id,
        image: &container.image,
        command: command.join(" "),
        created: container.created,
        env: &container.config.env,
        labels: container.config.labels.as_map(),
        hostname,
    };
    LogConfig::of(&log.kind, log.config.as_map(), &container.files.dir, &subject)
        .map_err(|error| Error::invalid(error.to_string()))
}

/// Fills in what the daemon's own settings say where the container's do not: the driver, and its options.
pub(super) fn complete(log: &mut api_types::LogConfig, daemon: &LiveConfig) {
    let mut options = std::mem::take(&mut log.config).or_empty().as_map().clone();
    if log.kind.is_empty() {
        log.kind.clone_from(&daemon.log_driver);
    }
    if log.kind == daemon.log_driver {
        for (key, value) in &daemon.log_opts {
            options.entry(key.clone()).or_insert_with(|| value.clone());
        }
    }
    log.config = options.into();
}

/// Refuses what could never work as the daemon's own settings.
pub fn check_log_settings(driver: &str, options: &BTreeMap<String, String>) -> Result<()> {
    LogConfig::check(driver, options)
        .map_err(|error| Error::invalid(format!("failed to set log opts: {error}")))
}

/// Between two looks at what all logs take.
const LOOK: Duration = Duration::from_secs(10);

/// Keeps all logs together within the daemon's budget, if it has one, until the engine closes.
pub(crate) async fn keep_to_budget(engine: Engine) {
    let Some(budget) = engine.inner.config.log_budget else {
        return;
    };
    let (mut exceeded, ids) = (false, engine.images().ids());
    loop {
        let logs: Vec<LogFiles> = engine
            .containers()
            .iter()
            .filter_map(|container| config(container, ids).ok()?.files)
            .collect();
        let spent = tokio::task::spawn_blocking(move || monitor::log::enforce(&logs, budget)).await;
        if let Ok(spent) = spent {
            for path in &spent.removed {
                tracing::info!(path = %path.display(), budget, "removed an old log file: all logs together took more than the budget");
            }
            let over = spent.bytes > budget;
            if over && !exceeded {
                tracing::warn!(
                    bytes = spent.bytes,
                    budget,
                    "the logs that are being written take more than the budget; lower max-size"
                );
            }
            exceeded = over;
        }
        tokio::select! {
            () = engine.inner.shutdown.cancelled() => return,
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

/// Refuses a driver or options that could never work, in Docker's words.
pub(super) fn check(log: &api_types::LogConfig) -> Result<()> {
    LogConfig::check(&log.kind, log.config.as_map()).map_err(|error| Error::invalid(error.to_string()))
}

/// The path that `inspect` tells: of the one driver whose file others read.
pub(super) fn shown_path(container: &Container) -> String {
    match container.host_config.log_config.kind.as_str() {
        "" | "json-file" => container
            .files
            .dir
            .join(format!("{}-json.log", container.id))
            .to_string_lossy()
            .into_owned(),
        _ => String::new(),
    }
}

/// Tells a following reader when nothing more will come: the container ended, the client left, the daemon stops.
async fn finish_at_end(
    mut published: watch::Receiver<Arc<Container>>,
    shutdown: CancellationToken,
    client: mpsc::Sender<std::io::Result<Bytes>>,
    stopper: Stopper,
) {
    let ended = published
        .wait_for(|c| c.removed || !(c.state.status.is_alive() || c.state.status == Status::Restarting));
    tokio::select! {
        _ = ended => {}
        () = shutdown.cancelled() => {}
        () = client.closed() => {}
    }
    stopper.finish();
}

/// How lines are shown.
struct Form {
    timestamps: bool,
    /// What stands before the text of entries that say nothing themselves.
    details: Option<BTreeMap<String, String>>,
    tty: bool,
}

/// Hands on what the reader gives, in batches as large as what is there.
fn pump(mut reader: Reader, send: &mpsc::Sender<std::io::Result<Bytes>>, form: &Form) {
    let mut batch = BytesMut::new();
    loop {
        let next = match reader.next_ready() {
            // Nothing is there now: what was gathered goes out before we wait.
            Ok(Next::Pending) if batch.is_empty() => match reader.next() {
                Some(line) => line.map(Next::Line),
                None => Ok(Next::End),
            },
            next => next,
        };
        match &next {
            Ok(Next::Line(line)) => {
                put(&mut batch, line, form);
                if batch.len() < BATCH {
                    continue;
                }
            }
            Ok(Next::Pending | Next::End) | Err(_) => {}
        }
        if !batch.is_empty() && send.blocking_send(Ok(batch.split().freeze())).is_err() {
            return;
        }
        match next {
            Ok(Next::End) => return,
            Err(error) => {
                // The client may have left; then nobody needs to know.
                let _ = send.blocking_send(Err(std::io::Error::other(chain(&error))));
                return;
            }
            Ok(_) => {}
        }
    }
}

/// Appends a line in the client's form: time, attributes, text.
fn put(batch: &mut BytesMut, line: &LogLine, form: &Form) {
    let mut head = String::new();
    if form.timestamps {
        head.push_str(&format!("{:.9} ", line.time));
    }
    if let Some(details) = &form.details {
        let own = Some(&line.attributes).filter(|own| !own.is_empty());
        append_details(own.unwrap_or(details), &mut head);
        head.push(' ');
    }
    if !form.tty {
        let length = u32::try_from(head.len() + line.bytes.len()).unwrap_or(u32::MAX);
        batch.put_slice(&[line.stream.number(), 0, 0, 0]);
        batch.put_u32(length);
    }
    batch.put_slice(head.as_bytes());
    batch.put_slice(&line.bytes);
}

/// `a=b,c=d`, each as in the query of an address, as Docker writes them.
fn append_details(attributes: &BTreeMap<String, String>, out: &mut String) {
    for (number, (key, value)) in attributes.iter().enumerate() {
        if number > 0 {
            out.push(',');
        }
        for (text, after) in [(key, "="), (value, "")] {
            out.extend(url::form_urlencoded::byte_serialize(text.as_bytes()));
            out.push_str(after);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn details_are_escaped_like_a_query() {
        let attributes = [("a b", "x=y"), ("com.example/z", "ä")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into();
        let mut out = String::new();
        append_details(&attributes, &mut out);
        assert_eq!(out, "a+b=x%3Dy,com.example%2Fz=%C3%A4");
    }
}
