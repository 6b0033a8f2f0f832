//! The builds of late: what clients list, look into and follow again.
//!
//! Kept in memory, the newest [`MAX_RECORDS`] and whatever is pinned; whoever listens hears what is there and then, if
//! asked for, everything that changes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use bollard_buildkit_proto::moby::buildkit::v1::{
    BuildHistoryEvent, BuildHistoryEventType, BuildHistoryRecord,
};
use tokio::sync::broadcast;

use crate::error::Failure;
use crate::job::{Job, Log, now, timestamp};

/// How many builds are remembered.
const MAX_RECORDS: usize = 50;
/// Events that may wait for a slow listener.
const WAITING: usize = 256;

/// One build.
#[derive(Clone)]
pub struct Remembered {
    pub record: BuildHistoryRecord,
    pub log: Arc<Log>,
}

/// The builds of late; clones are handles.
#[derive(Clone)]
pub struct History {
    /// In the order in which they began.
    builds: Arc<Mutex<BTreeMap<u64, Remembered>>>,
    events: broadcast::Sender<BuildHistoryEvent>,
}

impl Default for History {
    fn default() -> History {
        History {
            builds: Arc::default(),
            events: broadcast::channel(WAITING).0,
        }
    }
}

fn event(kind: BuildHistoryEventType, record: &BuildHistoryRecord) -> BuildHistoryEvent {
    BuildHistoryEvent {
        r#type: kind.into(),
        record: Some(record.clone()),
    }
}

impl History {
    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, Remembered>> {
        self.builds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, kind: BuildHistoryEventType, record: &BuildHistoryRecord) {
        // Nobody may be listening.
        let _ = self.events.send(event(kind, record));
    }

    /// A build has begun. Questions that clients ask by building are not remembered.
    pub fn begin(&self, job: &Job) {
        if job.request.internal {
            return;
        }
        let request = &job.request;
        let record = BuildHistoryRecord {
            r#ref: job.reference.clone(),
            frontend: request.frontend.clone(),
            frontend_attrs: request.frontend_attrs.clone(),
            exporters: request.exporters.clone(),
            created_at: Some(timestamp(job.created)),
            ..BuildHistoryRecord::default()
        };
        let mut builds = self.lock();
        let number = builds.last_key_value().map_or(0, |(number, _)| number + 1);
        let log = job.log.clone();
        builds.insert(
            number,
            Remembered {
                record: record.clone(),
                log,
            },
        );
        let surplus = builds.len().saturating_sub(MAX_RECORDS);
        let old: Vec<u64> = builds
            .iter()
            .filter(|(_, build)| !build.record.pinned && build.record.completed_at.is_some())
            .map(|(number, _)| *number)
            .take(surplus)
            .collect();
        for number in old {
            if let Some(build) = builds.remove(&number) {
                self.tell(BuildHistoryEventType::Deleted, &build.record);
            }
        }
        drop(builds);
        self.tell(BuildHistoryEventType::Started, &record);
    }

    /// Changes what is remembered of a build.
    pub fn change(
        &self,
        reference: &str,
        change: impl FnOnce(&mut BuildHistoryRecord),
    ) -> Option<BuildHistoryRecord> {
        let mut builds = self.lock();
        let build = builds
            .values_mut()
            .rev()
            .find(|build| build.record.r#ref == reference)?;
        change(&mut build.record);
        build.record.generation += 1;
        Some(build.record.clone())
    }

    /// A build has ended.
    pub fn end(&self, job: &Job, result: &Result<std::collections::HashMap<String, String>, Failure>) {
        let counts = job.counts();
        let record = self.change(&job.reference, |record| {
            record.completed_at = Some(now());
            record.num_total_steps = counts.all;
            record.num_cached_steps = counts.cached;
            record.num_completed_steps = counts.completed;
            record.num_warnings = counts.warnings;
            match result {
                Ok(response) => record.exporter_response = response.clone(),
                Err(failure) => record.error = Some(failure.rpc()),
            }
        });
        if let Some(record) = record {
            self.tell(BuildHistoryEventType::Complete, &record);
        }
    }

    /// Forgets a build.
    pub fn delete(&self, reference: &str) -> Result<(), Failure> {
        let mut builds = self.lock();
        let number = builds
            .iter()
            .find(|(_, build)| build.record.r#ref == reference)
            .map(|(number, _)| *number)
            .ok_or_else(|| Failure::not_found(format!("no build {reference} is remembered")))?;
        if let Some(build) = builds.remove(&number) {
            drop(builds);
            self.tell(BuildHistoryEventType::Deleted, &build.record);
        }
        Ok(())
    }

    /// One build.
    pub fn find(&self, reference: &str) -> Option<Remembered> {
        let builds = self.lock();
        builds
            .values()
            .rev()
            .find(|build| build.record.r#ref == reference)
            .cloned()
    }

    /// What is remembered as events, newest first, and what changes from now on.
    pub fn listen(&self) -> (Vec<BuildHistoryEvent>, broadcast::Receiver<BuildHistoryEvent>) {
        let builds = self.lock();
        let kind = |record: &BuildHistoryRecord| match record.completed_at {
            Some(_) => BuildHistoryEventType::Complete,
            None => BuildHistoryEventType::Started,
        };
        let known = builds
            .values()
            .rev()
            .map(|build| event(kind(&build.record), &build.record))
            .collect();
        (known, self.events.subscribe())
    }
}
