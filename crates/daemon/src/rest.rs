//! What a daemon gives back that has nothing to do.
//!
//! Most of its memory after some work are pages of its program, what the allocator keeps for the next time, and the
//! database's pages. Nothing of it is lost: code is mapped again from the page cache, the rest is made anew. While nothing
//! is asked of the daemon, nothing happens here either.

use std::time::Duration;

use engine::Engine;
use tokio_util::sync::CancellationToken;

/// How long nothing must have begun. Someone who types one command after the other does not meet it.
const PAUSE: Duration = Duration::from_secs(5);

/// Gives memory back in each pause until `shutdown`.
pub(crate) async fn in_pauses(engine: Engine, shutdown: CancellationToken) {
    loop {
        tokio::select! {
            () = engine.activities().pause(PAUSE) => {}
            () = shutdown.cancelled() => return,
        }
        let engine = engine.clone();
        let released = tokio::task::spawn_blocking(move || {
            let shrunk = engine.store().db().release_memory();
            sys::memory::release_heaps();
            sys::memory::release_code();
            shrunk.map_err(|error| error.to_string())
        });
        let released = released.await.unwrap_or_else(|error| Err(error.to_string()));
        if let Err(error) = released {
            tracing::debug!(%error, "memory stays with the daemon");
        }
    }
}
