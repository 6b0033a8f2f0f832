//! Long jobs that tell of their progress: pull, push, load, import, build.
//!
//! A job that fails before its first line is refused with a proper status; once a line is out the status is 200 and the
//! failure is the stream's last line. The job ends when the client goes away. Lines end in CR LF, as clients of old expect.

use api_types::ProgressMessage;
use axum::response::Response;
use bytes::Bytes;
use http::StatusCode;
use tokio::sync::mpsc;

use super::{feed, with_type};
use crate::error::{ApiError, Result};

/// Where a job puts its lines.
#[derive(Clone)]
pub struct Lines(mpsc::Sender<ProgressMessage>);

impl Lines {
    /// Whether the client still listens.
    pub async fn send(&self, message: ProgressMessage) -> bool {
        self.0.send(message).await.is_ok()
    }
}

const PENDING: usize = 64;

fn encode(message: &ProgressMessage) -> Bytes {
    let mut line = serde_json::to_vec(message).unwrap_or_default();
    line.extend_from_slice(b"\r\n");
    line.into()
}

/// Runs the job, and answers when it has said its first word or ended.
pub async fn stream_job<J, F>(job: J) -> Result<Response>
where
    J: FnOnce(Lines) -> F,
    F: Future<Output = Result<()>> + Send + 'static,
{
    let (sender, mut lines) = mpsc::channel(PENDING);
    let mut task = Job(Some(tokio::spawn(job(Lines(sender)))));
    let first = lines.recv().await;
    if first.is_none() {
        // Every sender is gone: the job is over, or ends without another word.
        task.end().await?;
    }
    let body = feed(move |feed| async move {
        let mut task = task;
        let mut next = first;
        while let Some(message) = next {
            if feed.send(encode(&message)).await.is_err() {
                return;
            }
            next = lines.recv().await;
        }
        if let Err(error) = task.end().await {
            let _ = feed
                .send(encode(&ProgressMessage::failure(0, error.message)))
                .await;
        }
    });
    Ok(with_type(StatusCode::OK, "application/json", body))
}

/// The running job; dropping it ends it.
struct Job(Option<tokio::task::JoinHandle<Result<()>>>);

impl Job {
    /// The job's result; success when it was taken before.
    async fn end(&mut self) -> Result<()> {
        let Some(handle) = self.0.as_mut() else {
            return Ok(());
        };
        let result = handle.await;
        self.0 = None;
        match result {
            Ok(result) => result,
            Err(error) => Err(ApiError::internal(format!("the job ended early: {error}"))),
        }
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        if let Some(handle) = &self.0 {
            handle.abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;

    async fn text(response: Response) -> String {
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    #[tokio::test]
    async fn a_failure_before_the_first_line_is_a_status() {
        let error = stream_job(|_lines| async { Err(ApiError::not_found("no")) })
            .await
            .unwrap_err();
        assert_eq!(error.status(), StatusCode::NOT_FOUND);
    }

    #[tokio::test]
    async fn a_failure_after_the_first_line_is_in_the_stream() {
        let response = stream_job(|lines| async move {
            lines.send(ProgressMessage::status(None, "Pulling")).await;
            Err(ApiError::internal("broken"))
        })
        .await
        .unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(
            text(response).await,
            "{\"status\":\"Pulling\"}\r\n{\"errorDetail\":{\"message\":\"broken\"},\"error\":\"broken\"}\r\n"
        );
    }

    #[tokio::test]
    async fn a_silent_job_answers_when_it_ends() {
        let response = stream_job(|_lines| async { Ok(()) }).await.unwrap();
        assert_eq!(text(response).await, "");
    }
}
