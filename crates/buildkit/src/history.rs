//! The builds of late: what clients list, look into and follow again.
//!
//! ```text
//!   <root>/buildkit/history/<number>.record   what is said of a build
//!                          /<number>.log      what it said while it ran, message by message
//! ```
//!
//! The newest [`MAX_RECORDS`] and whatever is pinned. A build is on disk when it has ended, so that the next daemon knows
//! it; one that a daemon's end interrupts is forgotten. Whoever listens hears what is there and then, if asked for,
//! everything that changes.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bollard_buildkit_proto::moby::buildkit::v1::{
    BuildHistoryEvent, BuildHistoryEventType, BuildHistoryRecord, StatusResponse,
};
use prost::Message;
use tokio::sync::broadcast;

use crate::error::Failure;
use crate::job::{Job, Log, now, timestamp};

/// How many builds are remembered.
const MAX_RECORDS: usize = 50;
/// Events that may wait for a slow listener.
const WAITING: usize = 256;

/// One build.
struct Remembered {
    record: BuildHistoryRecord,
    /// As long as the build runs; then it is on disk.
    log: Option<Arc<Log>>,
}

/// The builds of late; clones are handles.
#[derive(Clone)]
pub struct History {
    /// In the order in which they began.
    builds: Arc<Mutex<BTreeMap<u64, Remembered>>>,
    events: broadcast::Sender<BuildHistoryEvent>,
    room: Arc<PathBuf>,
}

/// The records in a directory; one that cannot be read goes.
fn read_all(room: &Path) -> io::Result<BTreeMap<u64, Remembered>> {
    let mut builds = BTreeMap::new();
    for entry in fs::read_dir(room)? {
        let path = entry?.path();
        let number = path.file_stem().and_then(|stem| stem.to_str()?.parse().ok());
        let (Some(number), Some("record")) = (number, path.extension().and_then(|kind| kind.to_str())) else {
            continue;
        };
        match BuildHistoryRecord::decode(fs::read(&path)?.as_slice()) {
            Ok(record) => {
                builds.insert(number, Remembered { record, log: None });
            }
            Err(error) => {
                tracing::warn!(%error, path = %path.display(), "a build's record is broken and is forgotten");
                fs::remove_file(&path)?;
            }
        }
    }
    Ok(builds)
}

/// Writes a file that is there as a whole or not at all.
fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let unfinished = path.with_extension("unfinished");
    fs::write(&unfinished, bytes)?;
    fs::rename(&unfinished, path)
}

fn event(kind: BuildHistoryEventType, record: &BuildHistoryRecord) -> BuildHistoryEvent {
    BuildHistoryEvent {
        r#type: kind.into(),
        record: Some(record.clone()),
    }
}

impl History {
    /// What is remembered below the engine's root.
    pub fn open(root: &Path) -> io::Result<History> {
        let room = root.join("buildkit/history");
        fs::create_dir_all(&room)?;
        Ok(History {
            builds: Arc::new(Mutex::new(read_all(&room)?)),
            events: broadcast::channel(WAITING).0,
            room: Arc::new(room),
        })
    }

    fn path(&self, number: u64, kind: &str) -> PathBuf {
        self.room.join(format!("{number:010}.{kind}"))
    }

    /// Writes a build that has ended to the disk.
    fn save(&self, number: u64, record: &BuildHistoryRecord, log: Option<&Log>) {
        let save = || {
            if let Some(log) = log {
                let mut bytes = Vec::new();
                for said in log.all() {
                    said.encode_length_delimited(&mut bytes)
                        .map_err(io::Error::other)?;
                }
                write_whole(&self.path(number, "log"), &bytes)?;
            }
            write_whole(&self.path(number, "record"), &record.encode_to_vec())
        };
        if let Err(error) = save() {
            tracing::warn!(%error, "a build will not be remembered by the next daemon");
        }
    }

    fn remove(&self, number: u64) {
        for kind in ["record", "log"] {
            match fs::remove_file(self.path(number, kind)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::warn!(%error, "a build's record stays on disk");
                }
                _ => {}
            }
        }
    }

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
                log: Some(log),
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
                self.remove(number);
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
        let (number, build) = builds
            .iter_mut()
            .rev()
            .find(|(_, build)| build.record.r#ref == reference)?;
        change(&mut build.record);
        build.record.generation += 1;
        if build.record.completed_at.is_some() {
            self.save(*number, &build.record, build.log.as_deref());
            build.log = None;
        }
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
            self.remove(number);
            drop(builds);
            self.tell(BuildHistoryEventType::Deleted, &build.record);
        }
        Ok(())
    }

    /// What a build says or said.
    pub fn log(&self, reference: &str) -> Option<Arc<Log>> {
        let builds = self.lock();
        let mut newest = builds.iter().rev();
        let (number, build) = newest.find(|(_, build)| build.record.r#ref == reference)?;
        if let Some(log) = &build.log {
            return Some(log.clone());
        }
        let path = self.path(*number, "log");
        drop(builds);
        match fs::read(&path) {
            Ok(bytes) => Some(Arc::new(read_log(&bytes))),
            Err(error) => {
                tracing::warn!(%error, path = %path.display(), "what a build said cannot be told again");
                None
            }
        }
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

/// What was said, as far as it can be read.
fn read_log(mut bytes: &[u8]) -> Log {
    let mut said = Vec::new();
    while !bytes.is_empty() {
        match StatusResponse::decode_length_delimited(&mut bytes) {
            Ok(status) => said.push(Arc::new(status)),
            Err(error) => {
                tracing::warn!(%error, "the rest of what a build said cannot be read");
                break;
            }
        }
    }
    Log::of(said)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use bollard_buildkit_proto::moby::buildkit::v1::SolveRequest;

    use super::*;

    fn build(history: &History, reference: &str) -> Job {
        let job = Job::new(SolveRequest {
            r#ref: reference.to_owned(),
            ..SolveRequest::default()
        });
        history.begin(&job);
        job
    }

    #[tokio::test]
    async fn the_next_daemon_knows_the_builds_that_ended() {
        let dir = tempfile::tempdir().unwrap();
        let history = History::open(dir.path()).unwrap();
        let job = build(&history, "first");
        job.begin("a step").end(None);
        history.end(&job, &Ok(HashMap::new()));
        history.change("first", |record| record.pinned = true).unwrap();
        build(&history, "interrupted");
        let next = History::open(dir.path()).unwrap();
        let (known, _) = next.listen();
        let known: Vec<_> = known.into_iter().filter_map(|event| event.record).collect();
        assert_eq!(known.len(), 1);
        assert!(known[0].r#ref == "first" && known[0].pinned && known[0].num_total_steps == 1);
        let log = next.log("first").unwrap();
        assert_eq!(log.next(0).await.unwrap().vertexes[0].name, "a step");
        assert!(log.next(2).await.is_none(), "it has no end");
        next.delete("first").unwrap();
        let left = fs::read_dir(dir.path().join("buildkit/history")).unwrap().count();
        assert_eq!(left, 0);
    }

    #[test]
    fn a_broken_record_is_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let room = dir.path().join("buildkit/history");
        fs::create_dir_all(&room).unwrap();
        fs::write(room.join("0000000003.record"), b"\xff\xff").unwrap();
        fs::write(room.join("0000000004.unfinished"), b"x").unwrap();
        let history = History::open(dir.path()).unwrap();
        assert!(history.listen().0.is_empty());
        assert!(!room.join("0000000003.record").exists());
    }

    #[test]
    fn the_oldest_go_unless_they_are_pinned() {
        let dir = tempfile::tempdir().unwrap();
        let history = History::open(dir.path()).unwrap();
        for number in 0..MAX_RECORDS + 5 {
            let job = build(&history, &number.to_string());
            history.end(&job, &Ok(HashMap::new()));
            if number == 0 {
                history.change("0", |record| record.pinned = true).unwrap();
            }
        }
        assert!(history.log("0").is_some() && history.log("1").is_none());
        let records = fs::read_dir(dir.path().join("buildkit/history")).unwrap().count();
        assert_eq!(records, 2 * MAX_RECORDS);
    }
}
