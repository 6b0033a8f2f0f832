//! What happened, as it happened: a bounded history for `since` and a broadcast for those who follow.
//!
//! Events are published after the state they tell of. Followers that fall behind the broadcast's capacity
//! lose the oldest events, never slow the engine. The history holds the last 1,024 events of this daemon.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use api_types::{Event, EventActor};
use jiff::Timestamp;
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
    history: Mutex<VecDeque<Arc<Event>>>,
    live: broadcast::Sender<Arc<Event>>,
}

impl Events {
    pub(crate) fn new() -> Events {
        Events {
            history: Mutex::new(VecDeque::new()),
            live: broadcast::channel(FOLLOWERS).0,
        }
    }

    /// Publishes one event about the object `id` of kind `kind`.
    pub(crate) fn publish(&self, kind: &str, action: &str, id: &str, attributes: BTreeMap<String, String>) {
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
        if history.len() == HISTORY {
            history.pop_front();
        }
        history.push_back(Arc::clone(&event));
        // Sent while the history is locked, so that a new follower sees every event exactly once. No receiver
        // is not a failure.
        let _ = self.live.send(event);
    }

    /// The past events that match, and everything from now on.
    pub(crate) fn subscribe(&self, filter: &EventFilter) -> (Vec<Event>, broadcast::Receiver<Arc<Event>>) {
        let history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        let live = self.live.subscribe();
        let within = |event: &Event| {
            let time = i128::from(event.time_nano);
            // Without `since` a client asks for what comes, unless it only gives an end.
            filter.since.is_some_and(|since| time >= since.as_nanosecond())
                && filter.until.is_none_or(|until| time <= until.as_nanosecond())
        };
        let past = history
            .iter()
            .filter(|e| within(e) && matches(e, &filter.filters));
        (past.map(|e| Event::clone(e)).collect(), live)
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
        let object = |kind: &str, v: &str| {
            event.kind == kind
                && (event.actor.id == v || event.actor.id.starts_with(v) || attribute("name") == v)
        };
        match key.as_str() {
            "event" => any(&|v| event.action == v || event.action.split(':').next() == Some(v)),
            "type" => any(&|v| event.kind == v),
            "scope" => any(&|v| event.scope == v),
            "container" => any(&|v| object("container", v) || attribute("container") == v),
            "image" => any(&|v| {
                let name = |text: &str| text == v || text.rsplit_once(':').is_some_and(|(n, _)| n == v);
                (event.kind == "image" && (name(&event.actor.id) || name(attribute("name"))))
                    || (event.kind == "container" && name(attribute("image")))
            }),
            "volume" | "network" | "daemon" | "builder" => any(&|v| object(key, v)),
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
        let events = Events::new();
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

    #[tokio::test]
    async fn followers_see_what_comes() {
        let events = Events::new();
        let (_, mut live) = events.subscribe(&EventFilter::default());
        events.publish("network", "create", "x", attributes(&[("name", "net")]));
        let event = live.recv().await.unwrap();
        assert_eq!((event.status.as_str(), event.action.as_str()), ("", "create"));
        let filter: Filters = [("network".to_owned(), vec!["net".to_owned()])].into();
        assert!(matches(&event, &filter));
    }
}
