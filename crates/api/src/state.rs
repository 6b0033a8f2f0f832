//! What handlers share.

use std::sync::Arc;

use engine::Engine;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::error::{ApiError, Result};

/// Handles to the rooms below; clones are cheap.
#[derive(Clone)]
pub struct AppState {
    pub engine: Engine,
    pub builder: Arc<build::Builder>,
    pub buildkit: buildkit::Service,
    /// Counts the connections that were taken over from HTTP.
    pub streams: TaskTracker,
    /// Ends streams that would go on for ever (events, followed logs, attach) when the daemon stops.
    pub shutdown: CancellationToken,
}

impl AppState {
    pub fn new(
        engine: Engine,
        builder: Arc<build::Builder>,
        buildkit: buildkit::Service,
        shutdown: CancellationToken,
    ) -> Self {
        Self {
            engine,
            builder,
            buildkit,
            streams: TaskTracker::new(),
            shutdown,
        }
    }
}

/// Carries work to its end even if the client goes away and the handler's future is dropped.
pub async fn carry_out<T: Send + 'static>(
    work: impl Future<Output = engine::Result<T>> + Send + 'static,
) -> Result<T> {
    match tokio::spawn(work).await {
        Ok(result) => Ok(result?),
        Err(error) => Err(ApiError::internal(format!("the request ended early: {error}"))),
    }
}
