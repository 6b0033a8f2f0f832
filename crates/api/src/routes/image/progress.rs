//! The image room's progress as the API's lines.

use api_types::{ProgressDetail, ProgressMessage};
use engine::image::{Progress, ProgressEvent};
use tokio::sync::mpsc;

use crate::answer::Lines;
use crate::views::signed;

/// Events that may wait for a slow client.
const PENDING: usize = 64;

pub fn message(event: ProgressEvent) -> ProgressMessage {
    let detail = event.current.map(|current| ProgressDetail {
        current: signed(current),
        total: event.total.map_or(0, signed),
        ..ProgressDetail::default()
    });
    ProgressMessage {
        // Lines about a transfer always carry the object, empty where there is no count.
        progress_detail: detail.or_else(|| event.transfer.then(ProgressDetail::default)),
        aux: event.aux,
        ..ProgressMessage::status(event.id, event.status)
    }
}

/// Runs work that reports progress, and passes each event on as a line before the work's result is known.
pub async fn with_lines<T, F>(lines: &Lines, work: impl FnOnce(Progress) -> F) -> T
where
    F: Future<Output = T>,
{
    let (progress, mut events) = mpsc::channel(PENDING);
    let forward = async {
        while let Some(event) = events.recv().await {
            lines.send(message(event)).await;
        }
    };
    let (result, ()) = tokio::join!(work(progress), forward);
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_as_clients_know_them() {
        let line = |event| serde_json::to_string(&message(event)).unwrap();
        assert_eq!(
            line(ProgressEvent {
                id: Some("abc".to_owned()),
                status: "Downloading".to_owned(),
                current: Some(5),
                total: Some(10),
                ..ProgressEvent::default()
            }),
            r#"{"status":"Downloading","progressDetail":{"current":5,"total":10},"id":"abc"}"#
        );
        assert_eq!(
            line(ProgressEvent {
                id: Some("latest".to_owned()),
                status: "Pulling from app".to_owned(),
                ..ProgressEvent::default()
            }),
            r#"{"status":"Pulling from app","id":"latest"}"#
        );
        assert_eq!(
            line(ProgressEvent {
                id: Some("abc".to_owned()),
                status: "Pull complete".to_owned(),
                transfer: true,
                ..ProgressEvent::default()
            }),
            r#"{"status":"Pull complete","progressDetail":{},"id":"abc"}"#
        );
        assert_eq!(
            line(ProgressEvent {
                status: "Digest: x".to_owned(),
                ..ProgressEvent::default()
            }),
            r#"{"status":"Digest: x"}"#
        );
    }
}
