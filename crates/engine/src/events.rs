//! What happened, as it happened: a bounded history for `since` and a broadcast for those who follow.
//!
//! Events are published after the state they tell of. Followers that fall behind the broadcast's capacity
//! lose the oldest events, never slow the engine. The history holds the last 1,024 events, of this daemon and of
//! those before it on the same root: each is a line of `events.jsonl`, written when it is published. A file that
//! has grown to twice the history is written anew with the newer half.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use api_types::{Event, EventActor};
use jiff::Timestamp;
use prometheus_client::metrics::counter::Counter;
use tokio::sync::broadcast;

use crate::filters::{Filters, matches_labels};

const HISTORY: usize = 1024;
const FOLLOWERS: usize = 1024;

/// Which past events a client asks for.
#[derive(Debug, Clone, Default)]
pub struct EventFilter {
    /// Events at or after this time.
    pub since: Option<Timestamp>,
    /// Events before this time.
    pub until: Option<Timestamp>,
    /// Docker's event filters.
    pub filters: Filters,
}

/// The publisher.
pub(crate) struct Events {
    history: Mutex<History>,
    live: broadcast::Sender<Arc<Event>>,
    published: Counter,
}

struct History {
    events: VecDeque<Arc<Event>>,
    path: PathBuf,
    /// None after a failure, until it is written anew.
    file: Option<File>,
    /// Of the file.
    lines: usize,
}

impl History {
    fn open(path: PathBuf) -> std::io::Result<History> {
        let mut events = VecDeque::new();
        match File::open(&path) {
            // A line that was torn by a crash is no event; what follows one is.
            Ok(file) => BufReader::new(file)
                .split(b'\n')
                .map_while(Result::ok)
                .filter_map(|line| serde_json::from_slice::<Event>(&line).ok())
                .for_each(|event| remember(&mut events, Arc::new(event))),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let mut history = History {
            events,
            path,
            file: None,
            lines: 0,
        };
        history.write_anew()?;
        Ok(history)
    }

    fn add(&mut self, event: Arc<Event>) {
        let line = serde_json::to_vec(&*event).map(|mut line| {
            line.push(b'\n');
            line
        });
        remember(&mut self.events, event);
        let written = match (&mut self.file, line) {
            (Some(file), Ok(line)) if self.lines < 2 * HISTORY => {
                self.lines += 1;
                file.write_all(&line)
            }
            _ => self.write_anew(),
        };
        if let Err(error) = written {
            // Told once: the file is tried again with each event.
            if self.file.take().is_some() {
                tracing::warn!(path = %self.path.display(), %error, "events are not kept for the next daemon");
            }
        }
    }

    fn write_anew(&mut self) -> std::io::Result<()> {
        let beside = self.path.with_extension("tmp");
        let mut text = Vec::new();
        for event in &self.events {
            serde_json::to_writer(&mut text, &**event)?;
            text.push(b'\n');
        }
        std::fs::write(&beside, text)?;
        std::fs::rename(&beside, &self.path)?;
        self.file = Some(OpenOptions::new().append(true).open(&self.path)?);
        self.lines = self.events.len();
        Ok(())
    }
}

fn remember(events: &mut VecDeque<Arc<Event>>, event: Arc<Event>) {
    if events.len() == HISTORY {
        events.pop_front();
    }
    events.push_back(event);
}

impl Events {
    /// With the history that earlier daemons left in `root`.
    pub(crate) fn open(root: &Path, published: Counter) -> std::io::Result<Events> {
        Ok(Events {
            history: Mutex::new(History::open(root.join("events.jsonl"))?),
            live: broadcast::channel(FOLLOWERS).0,
            published,
        })
    }

    /// Publishes one event about the object `id` of kind `kind`.
    pub(crate) fn publish(&self, kind: &str, action: &str, id: &str, attributes: BTreeMap<String, String>) {
        self.published.inc();
        let now = Timestamp::now();
        // The fields of the first API versions are kept for containers and images only, as Docker does.
        let legacy = matches!(kind, "container" | "image");
        let event = Arc::new(Event {
            status: if legacy { action.to_owned() } else { String::new() },
            id: if legacy { id.to_owned() } else { String::new() },
            from: attributes
                .get("image")
                .filter(|_| kind == "container")
                .cloned()
                .unwrap_or_default(),
            kind: kind.to_owned(),
            action: action.to_owned(),
            actor: EventActor {
                id: id.to_owned(),
                attributes: attributes.into(),
            },
            scope: "local".to_owned(),
            time: now.as_second(),
            time_nano: i64::try_from(now.as_nanosecond()).unwrap_or(i64::MAX),
        });
        let mut history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        history.add(Arc::clone(&event));
        // Sent while the history is locked, so that a new follower sees every event exactly once. No receiver
        // is not a failure.
        let _ = self.live.send(event);
    }

    /// The past events that match, and everything from now on.
    pub(crate) fn subscribe(
        &self,
        filter: &EventFilter,
    ) -> (Vec<Arc<Event>>, broadcast::Receiver<Arc<Event>>) {
        let history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        let live = self.live.subscribe();
        let within = |event: &Event| {
            let time = i128::from(event.time_nano);
            // Without `since` a client asks for what comes, unless it only gives an end.
            filter.since.is_some_and(|since| time >= since.as_nanosecond())
                && filter.until.is_none_or(|until| time <= until.as_nanosecond())
        };
        let past = history
            .events
            .iter()
            .filter(|e| within(e) && matches(e, &filter.filters));
        (past.cloned().collect(), live)
    }

    pub(crate) fn followers(&self) -> usize {
        self.live.receiver_count()
    }
}

/// Whether an event passes Docker's event filters: every key must match, any value of a key suffices.
pub fn matches(event: &Event, filters: &Filters) -> bool {
    let attribute = |key: &str| {
        event
            .actor
            .attributes
            .get(key)
            .map(String::as_str)
            .unwrap_or_default()
    };
    filters.iter().all(|(key, values)| {
        let any = |test: &dyn Fn(&str) -> bool| values.iter().any(|v| test(v));
        // An id or a name, or the beginning of one.
        let object = |kind: &str, v: &str| {
            event.kind == kind && (event.actor.id.starts_with(v) || attribute("name").starts_with(v))
        };
        match key.as_str() {
            "event" => any(&|v| event.action == v || event.action.split(':').next() == Some(v)),
            "type" => any(&|v| event.kind == v),
            "scope" => any(&|v| event.scope == v),
            "image" => any(&|v| {
                let name = |text: &str| text == v || text.rsplit_once(':').is_some_and(|(n, _)| n == v);
                (event.kind == "image" && (name(&event.actor.id) || name(attribute("name"))))
                    || (event.kind == "container" && name(attribute("image")))
            }),
            "container" | "volume" | "network" | "daemon" | "builder" => any(&|v| object(key, v)),
            "label" => matches_labels(&event.actor.attributes, values),
            _ => false,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attributes(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect()
    }

    #[test]
    fn history_is_bounded_and_filtered() {
        let root = tempfile::tempdir().unwrap();
        let events = Events::open(root.path(), Counter::default()).unwrap();
        for i in 0..HISTORY + 10 {
            events.publish(
                "container",
                "start",
                &i.to_string(),
                attributes(&[("image", "a:b"), ("name", "n")]),
            );
        }
        let all = EventFilter {
            since: Some(Timestamp::UNIX_EPOCH),
            ..Default::default()
        };
        assert_eq!(events.subscribe(&all).0.len(), HISTORY);
        let one = EventFilter {
            filters: [("container".into(), vec!["1030".into()])].into(),
            ..all
        };
        let (past, _) = events.subscribe(&one);
        assert_eq!(past.len(), 1);
        assert_eq!(past[0].status, "start");
        assert!(events.subscribe(&EventFilter::default()).0.is_empty());
    }

    #[test]
    fn the_next_daemon_knows_the_history_and_the_file_is_bounded() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("events.jsonl");
        let all = EventFilter {
            since: Some(Timestamp::UNIX_EPOCH),
            ..Default::default()
        };
        let mut published = 0;
        for daemon in 0..3 {
            let events = Events::open(root.path(), Counter::default()).unwrap();
            for _ in 0..HISTORY + 100 {
                events.publish(
                    "volume",
                    "create",
                    &published.to_string(),
                    attributes(&[("driver", "local")]),
                );
                published += 1;
                let lines = std::fs::read_to_string(&path).unwrap().lines().count();
                assert!(lines <= 2 * HISTORY, "{lines} lines in daemon {daemon}");
                if published % 500 != 0 {
                    continue;
                }
                let past = events.subscribe(&all).0;
                let ids: Vec<&str> = past.iter().map(|event| event.actor.id.as_str()).collect();
                let first = published - ids.len();
                assert_eq!(ids.len(), published.min(HISTORY));
                assert!(
                    ids.iter()
                        .enumerate()
                        .all(|(n, id)| *id == (first + n).to_string())
                );
            }
            // As a crash leaves it.
            OpenOptions::new()
                .append(true)
                .open(&path)
                .unwrap()
                .write_all(b"{\"Type\":")
                .unwrap();
        }
    }

    #[tokio::test]
    async fn followers_see_what_comes() {
        let root = tempfile::tempdir().unwrap();
        let events = Events::open(root.path(), Counter::default()).unwrap();
        let (_, mut live) = events.subscribe(&EventFilter::default());
        events.publish("network", "create", "x", attributes(&[("name", "net")]));
        let event = live.recv().await.unwrap();
        assert_eq!((event.status.as_str(), event.action.as_str()), ("", "create"));
        let filter: Filters = [("network".to_owned(), vec!["net".to_owned()])].into();
        assert!(matches(&event, &filter));
    }
}
