//! HTTP/2 as both ends of a session speak it.
//!
//! A directory is told as one small message a file, and each of them is a frame of its own. The library ends connections on
//! which too many small frames wait to be read: each takes of a budget what it is short of 256 bytes, and the budget is half
//! the connection's window. So that a receiver that is slower than its peer holds the peer up, and the connection never
//! ends, the windows stand in a relation: whatever small frames fit in some streams' windows fit in the budget.

use hyper::server::conn::http2::Builder;
use hyper_util::rt::TokioExecutor;
use tonic::transport::Endpoint;

use crate::MAX_HEADERS;

/// How many bytes a peer may send on a stream ahead of who reads it.
const STREAM: u32 = 512 << 10;
/// And on all streams. Frames of eleven bytes, the shortest there are here (the end of a file), take 22 times their size of
/// the budget, so that it holds five streams of nothing else.
const CONNECTION: u32 = STREAM * 256;
/// The longest frame that the called end takes: results come to it as large messages, and at 16 KiB, which is what is
/// assumed, each is cut into many.
const FRAME: u32 = STREAM / 2;

/// The end that calls. Its connection is made by the caller, whatever the address here.
pub fn endpoint() -> Endpoint {
    Endpoint::from_static("http://localhost")
        .http2_max_header_list_size(MAX_HEADERS)
        .initial_stream_window_size(STREAM)
        .initial_connection_window_size(CONNECTION)
}

/// The end that is called.
pub fn server() -> Builder<TokioExecutor> {
    let mut server = Builder::new(TokioExecutor::new());
    server
        .max_header_list_size(MAX_HEADERS)
        .max_frame_size(FRAME)
        .initial_stream_window_size(STREAM)
        .initial_connection_window_size(CONNECTION);
    server
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::time::Duration;

    use futures_util::{StreamExt as _, stream};
    use http_body_util::{BodyExt as _, Full, StreamBody};
    use hyper::body::{Bytes, Frame, Incoming};
    use hyper::service::service_fn;
    use hyper_util::rt::TokioIo;
    use tonic::body::Body;
    use tower::{Service as _, ServiceExt as _};

    use super::*;

    const MESSAGES: usize = 200_000;
    const MESSAGE: &[u8] = &[7; 11];

    /// Each message in a frame of its own.
    fn many() -> Body {
        let frames = stream::iter(0..MESSAGES).then(|number| async move {
            // What is there at once would become one frame.
            if number % 8 == 0 {
                tokio::task::yield_now().await;
            }
            Ok::<_, Infallible>(Frame::data(Bytes::from_static(MESSAGE)))
        });
        Body::new(StreamBody::new(frames))
    }

    /// Says how much came, after a rest in which the peer sent all it may.
    async fn count(body: Incoming) -> usize {
        tokio::time::sleep(Duration::from_millis(300)).await;
        body.collect().await.unwrap().to_bytes().len()
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_slow_reader_of_small_messages_holds_the_other_end_up() {
        let (ours, theirs) = tokio::net::UnixStream::pair().unwrap();
        let service = service_fn(|request: http::Request<Incoming>| async {
            let all = count(request.into_body()).await;
            Ok::<_, Infallible>(http::Response::new(Full::new(Bytes::from(all.to_string()))))
        });
        let serving = tokio::spawn(server().serve_connection(TokioIo::new(theirs), service));
        let mut once = Some(TokioIo::new(ours));
        let connector = tower::service_fn(move |_: http::Uri| {
            let connection = once.take();
            async move { connection.ok_or_else(|| std::io::Error::other("one connection")) }
        });
        let mut channel = endpoint().connect_with_connector(connector).await.unwrap();
        let request = http::Request::post("http://localhost/").body(many()).unwrap();
        let answer = channel.ready().await.unwrap().call(request).await.unwrap();
        let told = answer.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(told, (MESSAGES * MESSAGE.len()).to_string());
        drop(channel);
        serving.await.unwrap().unwrap();
    }
}
