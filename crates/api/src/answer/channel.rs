//! A response body whose pieces come from a channel.

use std::io;

use axum::body::Body;
use bytes::Bytes;
use futures_util::stream;
use tokio::sync::mpsc;

/// The body; dropping it closes the channel, which tells the sender that the client is gone.
pub fn channel_body(pieces: mpsc::Receiver<io::Result<Bytes>>) -> Body {
    Body::from_stream(stream::unfold(pieces, |mut pieces| async move {
        pieces.recv().await.map(|piece| (piece, pieces))
    }))
}
