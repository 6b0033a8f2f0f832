//! Writing blobs: mount from a repository next door, one request, or pieces with resumption.
//!
//! ```text
//!   POST uploads/?mount=…&from=…  201: done
//!                                 202: Location -> PUT Location?digest=…  (all in one)
//!   a break:  GET Location -> Range: 0-N  -> PATCH the rest -> PUT ?digest=…
//!   413:      PATCH in pieces of 8 MiB    -> PUT ?digest=…
//! ```
//!
//! Source: distribution-spec 1.1, "Pushing Blobs". The registry verifies the digest; a blob that it does not
//! accept leaves nothing but an upload that it expires.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::stream;
use http::header::{CONTENT_RANGE, CONTENT_TYPE, LOCATION, RANGE};
use http::{Method, StatusCode};
use reqwest::Response;
use spec::Digest;
use url::Url;

use crate::error::{Error, is_transient_status};
use crate::pace::{Pace, Sending};
use crate::repository::Repository;
use crate::session::{Call, Payload, Session, backoff, same_origin};

/// Piece size for registries that refuse large requests.
const PIECE: u64 = 8 << 20;
/// How much is read from disk at once.
const READ: usize = 256 << 10;

/// Where the bytes of an upload come from; opened anew for each attempt.
pub trait BlobSource: Send + Sync {
    /// A file at its beginning.
    fn open(&self) -> io::Result<File>;
    /// Told how many bytes have gone out so far. May go back after a break.
    fn sent(&self, _bytes: u64) {}
    /// Told where the registry takes the bytes, so that another process can go on there.
    fn began(&self, _location: &str) {}
    /// Where an earlier process began.
    fn earlier(&self) -> Option<String> {
        None
    }
}

impl<F: Fn() -> io::Result<File> + Send + Sync> BlobSource for F {
    fn open(&self) -> io::Result<File> {
        self()
    }
}

/// What a mount request came to.
#[derive(Debug)]
enum Opened {
    Mounted,
    Upload(Url),
}

impl Repository {
    /// Takes a blob over from another repository of the same registry. False if it must be uploaded.
    pub async fn mount(&self, digest: &Digest, from: &str) -> Result<bool, Error> {
        let session = self.upstream()?;
        match self.open_upload(session, Some((digest, from))).await {
            Ok(Opened::Mounted) => Ok(true),
            // An upload that is not needed. Registries expire it; cancelling is polite.
            Ok(Opened::Upload(location)) => {
                let _ = session.send(Call::new(Method::DELETE, location)).await;
                Ok(false)
            }
            // The source may not be visible to this user: then the blob is uploaded.
            Err(Error::PushDenied { .. } | Error::Unauthorized(_) | Error::Status { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Uploads a blob of `size` bytes, resuming after breaks.
    pub async fn upload(&self, digest: &Digest, size: u64, source: Arc<dyn BlobSource>) -> Result<(), Error> {
        let session = self.upstream()?;
        let attempts = session.client.inner.config().attempts.max(1);
        let mut state = Upload::default();
        let mut failures = 0;
        let mut furthest = 0;
        // What an earlier process began counts as long as the registry knows of it.
        let mut inherited = false;
        if let Some(location) = source.earlier().and_then(|text| Url::parse(&text).ok())
            && same_origin(&location, session.origin().await?)
        {
            state.location = Some(location);
            state.broken = true;
            inherited = state.resume(session, size).await.is_ok() && state.offset > 0;
            if !inherited {
                state = Upload::default();
            }
            state.begun = inherited;
        }
        loop {
            let mut outcome = state.resume(session, size).await;
            if state.offset > furthest {
                furthest = state.offset;
                failures = 0;
            }
            if outcome.is_ok() {
                outcome = self.advance(session, &mut state, digest, size, &source).await;
            }
            let error = match outcome {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            let too_large =
                matches!(&error, Error::Status { status, .. } if *status == StatusCode::PAYLOAD_TOO_LARGE);
            if too_large && state.piece.is_none() {
                state = Upload {
                    piece: Some(PIECE),
                    begun: true,
                    ..Upload::default()
                };
                continue;
            }
            // A token may expire while a large blob is under way; the next attempt gets a new one.
            let expired =
                matches!(error, Error::PushDenied { .. }) && failures == 0 && state.location.is_some();
            failures += 1;
            // Whoever has taken a part of it is about to be back; whoever never took any has been asked often enough.
            let passes = error.is_transient() || state.begun && matches!(error, Error::Connect { .. });
            if inherited && !passes {
                // Not what it seemed: from the beginning, once.
                inherited = false;
                state = Upload::default();
                continue;
            }
            if !(passes || expired) || !state.begun || failures >= attempts {
                return Err(error);
            }
            tracing::info!(%digest, at = state.offset, %error, "upload broke and will be resumed");
            state.broken = true;
            tokio::time::sleep(backoff(failures)).await;
        }
    }

    async fn advance(
        &self,
        session: &Arc<Session>,
        state: &mut Upload,
        digest: &Digest,
        size: u64,
        source: &Arc<dyn BlobSource>,
    ) -> Result<(), Error> {
        let location = match &state.location {
            Some(location) => location.clone(),
            None => match self.open_upload(session, None).await? {
                Opened::Upload(location) => location,
                Opened::Mounted => {
                    return Err(self
                        .unexpected(session, "an upload was answered as a mount")
                        .await);
                }
            },
        };
        source.began(location.as_str());
        state.location = Some(location.clone());
        state.begun = true;
        if state.offset == 0 && state.piece.is_none() {
            let mut url = location;
            url.query_pairs_mut().append_pair("digest", digest.as_str());
            let response = self
                .send_range(session, Method::PUT, url, 0..size, size, source, false)
                .await?;
            return match response.status() {
                StatusCode::CREATED | StatusCode::NO_CONTENT | StatusCode::OK => Ok(()),
                _ => Err(self.refused(response).await),
            };
        }
        while state.offset < size {
            let from = state.offset;
            let to = state.piece.map_or(size, |piece| size.min(from + piece));
            let Some(url) = state.location.clone() else { break };
            let response = self
                .send_range(session, Method::PATCH, url, from..to, size, source, true)
                .await?;
            match response.status() {
                StatusCode::ACCEPTED | StatusCode::NO_CONTENT | StatusCode::CREATED => {
                    let location = location_of(&response)?;
                    source.began(location.as_str());
                    state.location = Some(location);
                    state.offset = to;
                }
                // Out of step: ask where it stands.
                StatusCode::RANGE_NOT_SATISFIABLE => {
                    return Err(Error::Broken {
                        verb: "Patch",
                        url: session.endpoint.host.clone(),
                        detail: "the registry expects another part of the blob".to_owned(),
                    });
                }
                _ => return Err(self.refused(response).await),
            }
        }
        let Some(mut url) = state.location.clone() else {
            return Ok(());
        };
        url.query_pairs_mut().append_pair("digest", digest.as_str());
        let response = session.send(Call::new(Method::PUT, url)).await?;
        match response.status() {
            status if status.is_success() => Ok(()),
            _ => Err(self.refused(response).await),
        }
    }

    /// Begins an upload, or asks for a mount.
    async fn open_upload(
        &self,
        session: &Arc<Session>,
        mount: Option<(&Digest, &str)>,
    ) -> Result<Opened, Error> {
        let mut url = session.url("blobs/uploads/").await?;
        if let Some((digest, from)) = mount {
            url.query_pairs_mut()
                .append_pair("mount", digest.as_str())
                .append_pair("from", from);
        }
        let mut call = Call::new(Method::POST, url);
        call.extra_scope = mount.map(|(_, from)| format!("repository:{from}:pull"));
        let response = session.send(call).await?;
        match response.status() {
            StatusCode::CREATED if mount.is_some() => Ok(Opened::Mounted),
            StatusCode::ACCEPTED => Ok(Opened::Upload(location_of(&response)?)),
            _ => Err(self.refused(response).await),
        }
    }

    async fn unexpected(&self, session: &Session, detail: &str) -> Error {
        Error::Protocol {
            url: session.endpoint.host.clone(),
            detail: detail.to_owned(),
        }
    }

    async fn send_range(
        &self,
        session: &Arc<Session>,
        method: Method,
        url: Url,
        range: std::ops::Range<u64>,
        _size: u64,
        source: &Arc<dyn BlobSource>,
        piece: bool,
    ) -> Result<Response, Error> {
        let sending = Arc::new(Sending::default());
        let length = range.end - range.start;
        let pace = self.pace.clone();
        let mut body = Some(body(source.clone(), range.clone(), sending.clone(), pace).await?);
        let mut call = Call::new(method, url).header(CONTENT_TYPE, "application/octet-stream");
        if piece {
            call = call.header(
                CONTENT_RANGE,
                &format!("{}-{}", range.start, range.end.saturating_sub(1)),
            );
        }
        call.payload = Payload::Stream {
            body: &mut body,
            length,
            sending,
        };
        session.send(call).await
    }
}

/// Where an upload stands.
#[derive(Default)]
struct Upload {
    location: Option<Url>,
    offset: u64,
    piece: Option<u64>,
    /// The registry has taken it up, at least once.
    begun: bool,
    /// A request broke: how far the registry got is not known.
    broken: bool,
}

impl Upload {
    /// Asks the registry how far it got, if that is not known; begins again where it does not say, or says more than there
    /// is. A registry that cannot be asked may still have it.
    async fn resume(&mut self, session: &Arc<Session>, size: u64) -> Result<(), Error> {
        if !self.broken {
            return Ok(());
        }
        let known = match &self.location {
            Some(location) => status(session, location).await?,
            None => None,
        };
        (self.location, self.offset) = match known {
            Some((location, offset)) if (1..=size).contains(&offset) => (Some(location), offset),
            _ => (None, 0),
        };
        self.broken = false;
        Ok(())
    }
}

async fn status(session: &Arc<Session>, location: &Url) -> Result<Option<(Url, u64)>, Error> {
    let response = session.send(Call::new(Method::GET, location.clone())).await?;
    let status = response.status();
    if is_transient_status(status) || status == StatusCode::TOO_MANY_REQUESTS {
        return Err(Error::Broken {
            verb: "Get",
            url: session.endpoint.host.clone(),
            detail: format!("asked how far the upload got, the registry answers {status}"),
        });
    }
    let range = response.headers().get(RANGE).filter(|_| status.is_success());
    let last = range.and_then(|range| {
        range
            .to_str()
            .ok()?
            .rsplit('-')
            .next()?
            .trim()
            .parse::<u64>()
            .ok()
    });
    // `0-0` means nothing yet for some registries and one byte for others: begin again.
    let stored = last.filter(|last| *last > 0).and_then(|last| last.checked_add(1));
    Ok(stored.map(|stored| {
        (
            location_of(&response).unwrap_or_else(|_| location.clone()),
            stored,
        )
    }))
}

fn location_of(response: &Response) -> Result<Url, Error> {
    response
        .headers()
        .get(LOCATION)
        .and_then(|l| l.to_str().ok())
        .and_then(|l| response.url().join(l).ok())
        .ok_or_else(|| Error::protocol(response.url(), "upload without a Location"))
}

/// A body that reads `range` of the source piece by piece.
async fn body(
    source: Arc<dyn BlobSource>,
    range: std::ops::Range<u64>,
    sending: Arc<Sending>,
    pace: Pace,
) -> Result<reqwest::Body, Error> {
    let (opener, start) = (source.clone(), range.start);
    let file = blocking(move || {
        let mut file = opener.open()?;
        file.seek(SeekFrom::Start(start))?;
        Ok(file)
    })
    .await
    .map_err(Error::Source)?;
    struct State {
        file: File,
        left: u64,
        sending: Arc<Sending>,
        source: Arc<dyn BlobSource>,
        start: u64,
        pace: Pace,
    }
    let state = State {
        file,
        left: range.end - range.start,
        sending,
        source,
        start,
        pace,
    };
    let pieces = stream::try_unfold(state, |mut state| async move {
        if state.left == 0 {
            return Ok::<_, io::Error>(None);
        }
        let (state, bytes) = blocking(move || {
            let wanted = state
                .pace
                .piece(READ)
                .min(usize::try_from(state.left).unwrap_or(READ));
            let mut buffer = BytesMut::zeroed(wanted);
            let read = state.file.read(&mut buffer)?;
            if read == 0 {
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "blob is shorter than recorded",
                ));
            }
            buffer.truncate(read);
            state.left -= read as u64;
            Ok((state, buffer.freeze()))
        })
        .await?;
        let total = state.sending.pass(bytes.len(), &state.pace).await;
        state.source.sent(state.start + total);
        Ok(Some((bytes, state)))
    });
    Ok(reqwest::Body::wrap_stream::<_>(Box::pin(pieces)
        as std::pin::Pin<
            Box<dyn futures_util::Stream<Item = io::Result<Bytes>> + Send>,
        >))
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome,
        Err(_) => Err(io::Error::other("reading the blob was interrupted")),
    }
}
