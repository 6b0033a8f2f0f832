//! What is under way: requests, what the containers' tasks do, health checks, build steps.
//!
//! Whoever begins something that may take long says so and holds the [`Activity`] until it is over; `debug tasks` shows
//! them with their age, so that what is stuck can be seen while it is. Nothing of it waits for anything here; whoever
//! wants to know when there is a pause waits for that ([`Activities::pause`]).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use api_types::tasks::Task;
use jiff::Timestamp;
use tokio::sync::Notify;

/// Everything that is under way. Clones share it.
#[derive(Clone, Default)]
pub struct Activities(Arc<Shared>);

#[derive(Default)]
struct Shared {
    running: Mutex<Running>,
    /// Something began while its beginning was waited for.
    begun: Notify,
}

#[derive(Default)]
struct Running {
    last: u64,
    tasks: BTreeMap<u64, (Task, Instant)>,
    /// Somebody waits for the next beginning.
    awaited: bool,
}

/// Something that is under way, until it is dropped.
pub struct Activity {
    all: Activities,
    number: u64,
}

impl Activities {
    /// `subject` is whose it is: a container, a path.
    pub fn begin(&self, kind: &str, subject: &str, action: &str) -> Activity {
        self.add(kind, subject, action, None)
    }

    /// A request, with the number that the log's lines about it carry.
    pub fn begin_request(&self, number: u64, method: &str, path: &str) -> Activity {
        self.add("request", path, method, Some(number))
    }

    fn add(&self, kind: &str, subject: &str, action: &str, request: Option<u64>) -> Activity {
        let task = Task {
            kind: kind.to_owned(),
            subject: subject.to_owned(),
            action: action.to_owned(),
            request,
            since: Timestamp::now().to_string(),
            seconds: 0.0,
        };
        let mut running = self.lock();
        running.last += 1;
        let number = running.last;
        running.tasks.insert(number, (task, Instant::now()));
        let awaited = std::mem::take(&mut running.awaited);
        drop(running);
        if awaited {
            self.0.begun.notify_one();
        }
        Activity {
            all: self.clone(),
            number,
        }
    }

    /// All of them, the oldest first.
    pub fn list(&self) -> Vec<Task> {
        let running = self.lock();
        let tasks = running.tasks.values().map(|(task, begun)| Task {
            seconds: begun.elapsed().as_secs_f64(),
            ..task.clone()
        });
        tasks.collect()
    }

    /// Waits until something begins, and then until nothing has begun for as long as `length`. What goes on meanwhile
    /// does not count: a client may follow events for months. For one at a time.
    pub async fn pause(&self, length: Duration) {
        self.lock().awaited = true;
        self.0.begun.notified().await;
        loop {
            let last = self.lock().last;
            tokio::time::sleep(length).await;
            if self.lock().last == last {
                return;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Running> {
        self.0.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Activity {
    fn drop(&mut self) {
        self.all.lock().tasks.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_over_is_not_shown() {
        let activities = Activities::default();
        let first = activities.begin("container", "web", "start");
        let second = activities.begin_request(17, "GET", "/info");
        let shown = |activities: &Activities| -> Vec<(String, Option<u64>)> {
            let tasks = activities.list().into_iter();
            tasks.map(|task| (task.action, task.request)).collect()
        };
        assert_eq!(
            shown(&activities),
            [("start".to_owned(), None), ("GET".to_owned(), Some(17))]
        );
        drop(first);
        assert_eq!(shown(&activities), [("GET".to_owned(), Some(17))]);
        drop(second);
        assert!(activities.list().is_empty());
    }

    #[tokio::test]
    async fn a_pause_comes_after_work_and_only_then() {
        let activities = Activities::default();
        let pause = activities.pause(Duration::from_millis(20));
        tokio::pin!(pause);
        assert!(futures_util::poll!(pause.as_mut()).is_pending());
        // What goes on does not keep it from coming.
        let followed = activities.begin_request(1, "GET", "/events");
        pause.as_mut().await;
        let again = activities.pause(Duration::ZERO);
        tokio::pin!(again);
        tokio::task::yield_now().await;
        assert!(futures_util::poll!(again.as_mut()).is_pending());
        drop(activities.begin_request(2, "GET", "/info"));
        again.await;
        drop(followed);
    }
}
