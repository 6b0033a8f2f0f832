//! Bodies that are read to their end even when their handler is done with them.
//!
//! A client that is still sending when it is refused sees a broken connection, and never the reason, unless somebody goes
//! on reading until it has seen the answer. What is read here is thrown away, and for a while only.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, HttpBody};
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Frame, SizeHint};

/// How long a client may take to see that it was refused.
const PATIENCE: Duration = Duration::from_secs(10);

/// A body whose rest is read when it is dropped.
struct Drained(Option<Body>);

/// Wraps a request's body, unless it is known to be empty.
pub fn drained(body: Body) -> Body {
    match body.is_end_stream() {
        true => body,
        false => Body::new(Drained(Some(body))),
    }
}

impl HttpBody for Drained {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let Some(body) = &mut self.0 else {
            return Poll::Ready(None);
        };
        let frame = Pin::new(body).poll_frame(context);
        if matches!(frame, Poll::Ready(None | Some(Err(_)))) {
            self.0 = None;
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.0
            .as_ref()
            .map_or_else(|| SizeHint::with_exact(0), HttpBody::size_hint)
    }
}

impl Drop for Drained {
    fn drop(&mut self) {
        let Some(mut body) = self.0.take().filter(|body| !body.is_end_stream()) else {
            return;
        };
        // Without a runtime there is no connection either.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        runtime.spawn(async move {
            let rest = async { while let Some(Ok(_)) = body.frame().await {} };
            // Who still sends after that has not looked at the answer.
            let _ = tokio::time::timeout(PATIENCE, rest).await;
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::{StreamExt, stream};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[tokio::test]
    async fn the_rest_is_read_when_nobody_wants_it() {
        let read = Arc::new(AtomicUsize::new(0));
        let count = read.clone();
        let pieces = stream::iter(0..100).map(move |_| {
            count.fetch_add(1, Ordering::Relaxed);
            Ok::<_, std::io::Error>(Bytes::from_static(b"piece"))
        });
        let mut body = drained(Body::from_stream(pieces));
        assert!(body.frame().await.unwrap().is_ok());
        drop(body);
        while read.load(Ordering::Relaxed) < 100 {
            tokio::task::yield_now().await;
        }
        assert!(drained(Body::empty()).is_end_stream());
    }
}
