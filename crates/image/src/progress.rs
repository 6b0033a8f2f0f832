//! What a transfer tells whoever watches it: Docker's words, one event per line of its stream.
//!
//! Statuses are delivered; byte counts are samples, dropped when the watcher is slow, so that a slow terminal
//! never slows a transfer.

use std::time::{Duration, Instant};

use spec::Digest;
use tokio::sync::mpsc;

/// Where events go. A receiver that is gone does not stop the operation; dropping the operation does.
pub type Progress = mpsc::Sender<ProgressEvent>;

/// One line of progress.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ProgressEvent {
    /// What the line is about, such as a layer's short digest. None for lines of their own.
    pub id: Option<String>,
    pub status: String,
    /// Whether it is about something that is transferred, whose bytes may be counted.
    pub transfer: bool,
    /// Bytes done.
    pub current: Option<u64>,
    /// Bytes in all.
    pub total: Option<u64>,
    /// Machine-readable results.
    pub aux: Option<serde_json::Value>,
}

/// How often byte counts are sampled.
const SAMPLE: Duration = Duration::from_millis(100);

#[derive(Clone)]
pub(crate) struct Reporter(pub Progress);

impl Reporter {
    pub async fn say(&self, status: impl Into<String>) {
        let event = ProgressEvent {
            status: status.into(),
            ..ProgressEvent::default()
        };
        let _ = self.0.send(event).await;
    }

    /// A word about a tag or a digest.
    pub async fn say_at(&self, name: &str, status: impl Into<String>) {
        let event = ProgressEvent {
            id: Some(name.to_owned()),
            status: status.into(),
            ..ProgressEvent::default()
        };
        let _ = self.0.send(event).await;
    }

    /// Where a transfer stands.
    pub async fn say_of(&self, id: &str, status: impl Into<String>) {
        let event = ProgressEvent {
            id: Some(id.to_owned()),
            status: status.into(),
            transfer: true,
            ..ProgressEvent::default()
        };
        let _ = self.0.send(event).await;
    }

    pub async fn aux(&self, value: serde_json::Value) {
        let event = ProgressEvent {
            aux: Some(value),
            ..ProgressEvent::default()
        };
        let _ = self.0.send(event).await;
    }

    /// For blocking threads.
    pub fn say_blocking(&self, event: ProgressEvent) {
        let _ = self.0.blocking_send(event);
    }

    /// A sampler of byte counts for one id and status.
    pub fn sampler(&self, id: &str, status: &'static str, total: u64) -> Sampler {
        Sampler {
            progress: self.0.clone(),
            id: id.to_owned(),
            status,
            total,
            last: None,
        }
    }
}

/// Passes on byte counts at a bounded rate. Usable from any thread.
pub(crate) struct Sampler {
    progress: Progress,
    id: String,
    status: &'static str,
    total: u64,
    last: Option<Instant>,
}

impl Sampler {
    pub fn at(&mut self, current: u64) {
        let due = self.last.is_none_or(|last| last.elapsed() >= SAMPLE);
        if !due {
            return;
        }
        self.last = Some(Instant::now());
        let _ = self.progress.try_send(ProgressEvent {
            id: Some(self.id.clone()),
            status: self.status.to_owned(),
            transfer: true,
            current: Some(current.min(self.total)),
            total: Some(self.total),
            aux: None,
        });
    }
}

/// How Docker names a layer in progress lines.
pub(crate) fn short(digest: &Digest) -> String {
    digest.short().to_owned()
}
