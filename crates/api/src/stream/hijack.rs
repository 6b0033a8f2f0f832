//! Taking a connection over from HTTP.
//!
//! A client that sends `Upgrade: tcp` gets 101 and the bare connection. One that does not gets 200: the response body is the
//! output, the request body the input. The relay runs in a task of its own, counted by the server's tracker so that shutdown
//! can wait for it; hyper hands the connection over only after the response has been returned.

use std::io;
use std::pin::Pin;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use futures_util::TryStreamExt;
use http::{HeaderMap, HeaderValue, Request, StatusCode, header};
use hyper::ext::ReasonPhrase;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::io::{ReaderStream, StreamReader};
use tokio_util::task::TaskTracker;

use crate::answer::with_type;
use crate::measured::UnderWay;

/// Bytes between relay and response body when the connection stays HTTP.
const PIPE: usize = 64 << 10;

/// The client's end of a connection that was taken over.
pub struct Client {
    pub input: Pin<Box<dyn AsyncRead + Send>>,
    pub output: Pin<Box<dyn AsyncWrite + Send>>,
}

/// A request whose connection may be taken over.
pub struct Hijack {
    way: Way,
    under_way: Option<UnderWay>,
}

enum Way {
    Upgrade {
        connection: OnUpgrade,
        protocol: HeaderValue,
    },
    Http {
        body: Body,
    },
}

impl Hijack {
    /// Takes body or upgrade out of the request.
    pub fn of(mut request: Request<Body>) -> Self {
        // hyper would send 101 to a client that never asked, so the header decides.
        let protocol = request.headers().get(header::UPGRADE).cloned();
        let under_way = request.extensions_mut().remove::<UnderWay>();
        match (protocol, request.extensions_mut().remove::<OnUpgrade>()) {
            (Some(protocol), Some(connection)) => Self {
                way: Way::Upgrade { connection, protocol },
                under_way,
            },
            _ => Self {
                way: Way::Http {
                    body: request.into_body(),
                },
                under_way,
            },
        }
    }

    /// What the client wants the connection to become.
    pub fn protocol(&self) -> Option<&str> {
        match &self.way {
            Way::Upgrade { protocol, .. } => protocol.to_str().ok(),
            Way::Http { .. } => None,
        }
    }

    /// Answers, and runs `work` with the connection as it is, once it is handed over. Only for an upgrade.
    pub fn take_over_whole<F, W>(self, tasks: &TaskTracker, work: W) -> Response
    where
        W: FnOnce(TokioIo<Upgraded>) -> F + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let Way::Upgrade { connection, protocol } = self.way else {
            return crate::error::ApiError::invalid("no upgrade proto in request").into_response();
        };
        tasks.spawn(async move {
            match connection.await {
                Ok(upgraded) => work(TokioIo::new(upgraded)).await,
                Err(error) => tracing::debug!(%error, "a client left before its connection was handed over"),
            }
        });
        let mut response = switching("", protocol);
        response.headers_mut().remove(header::CONTENT_TYPE);
        response
    }

    pub fn is_upgrade(&self) -> bool {
        matches!(self.way, Way::Upgrade { .. })
    }

    /// Answers, and runs `work` with the client once the connection is handed over.
    pub fn take_over<F, W>(self, media_type: &'static str, tasks: &TaskTracker, work: W) -> Response
    where
        W: FnOnce(Client) -> F + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let under_way = self.under_way;
        match self.way {
            Way::Upgrade { connection, protocol } => {
                tasks.spawn(async move {
                    let _under_way = under_way;
                    match connection.await {
                        Ok(upgraded) => {
                            let (input, output) = tokio::io::split(TokioIo::new(upgraded));
                            work(Client {
                                input: Box::pin(input),
                                output: Box::pin(output),
                            })
                            .await;
                        }
                        Err(error) => {
                            tracing::debug!(%error, "a client left before its connection was handed over")
                        }
                    }
                });
                switching(media_type, protocol)
            }
            Way::Http { body } => {
                let (output, response_body) = tokio::io::duplex(PIPE);
                let input = StreamReader::new(body.into_data_stream().map_err(io::Error::other));
                let client = Client {
                    input: Box::pin(input),
                    output: Box::pin(output),
                };
                // The answer's body holds the other one.
                drop(under_way);
                tasks.spawn(work(client));
                let body = Body::from_stream(ReaderStream::with_capacity(response_body, PIPE));
                with_type(StatusCode::OK, media_type, body)
            }
        }
    }
}

fn switching(media_type: &'static str, protocol: HeaderValue) -> Response {
    let mut response = with_type(StatusCode::SWITCHING_PROTOCOLS, media_type, Body::empty());
    let headers: &mut HeaderMap = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, protocol);
    response
        .extensions_mut()
        .insert(ReasonPhrase::from_static(b"UPGRADED"));
    response
}
