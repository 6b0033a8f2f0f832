//! A registry in memory that can misbehave: it keeps what is pushed, serves it with ranges, counts every byte of every
//! blob, and asks a closure before each answer.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

use spec::Digest;

use super::{Answer, Canned, End, Request};

/// What goes wrong with one answer. All but ranges happens to manifests as well as to blobs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The body ends after so many bytes; the connection closes.
    Cut(usize),
    /// The same, but the connection stays open and silent.
    Silent(usize),
    /// A status, with a number of seconds for `Retry-After` where there is one.
    Status(u16, Option<u64>),
    /// 206 with the bytes and the range of another place.
    OtherRange,
    /// The whole blob, whatever was asked for.
    NoRange,
    /// The length says less, or more, than there is.
    Length(i64),
    /// Other bytes.
    Corrupt,
}

#[derive(Default)]
struct State {
    blobs: HashMap<String, Vec<u8>>,
    manifests: HashMap<String, (String, Vec<u8>)>,
    uploads: HashMap<String, Vec<u8>>,
    /// Bytes that went out of each blob, and came in for each upload.
    sent: BTreeMap<String, usize>,
    received: usize,
    next: usize,
}

/// The registry; ends when dropped.
pub struct MemoryRegistry {
    pub server: Canned,
    state: Arc<Mutex<State>>,
}

impl MemoryRegistry {
    /// `fault` is asked with each request and how often its method and path were asked before.
    pub fn start(fault: impl Fn(&Request, usize) -> Option<Fault> + Send + Sync + 'static) -> MemoryRegistry {
        let state = Arc::new(Mutex::new(State::default()));
        let shared = state.clone();
        let asked: Mutex<HashMap<String, usize>> = Mutex::default();
        let server = Canned::start(move |request| {
            let path = request.target.split('?').next().unwrap().to_owned();
            let count = {
                let mut asked = asked.lock().unwrap();
                // Every upload has a path of its own; they count together.
                let place = path.split_inclusive("/uploads/").next().unwrap();
                let count = asked.entry(format!("{} {place}", request.method)).or_default();
                *count += 1;
                *count - 1
            };
            let fault = fault(request, count);
            shared.lock().unwrap().answer(request, &path, fault)
        });
        MemoryRegistry { server, state }
    }

    pub fn name(&self, repository: &str) -> String {
        format!("{}/{repository}", self.server.host())
    }

    pub fn put_blob(&self, bytes: &[u8]) -> Digest {
        let digest = Digest::sha256(bytes);
        self.state
            .lock()
            .unwrap()
            .blobs
            .insert(digest.to_string(), bytes.to_vec());
        digest
    }

    pub fn put_manifest(&self, repository: &str, tag: &str, media_type: &str, bytes: Vec<u8>) -> Digest {
        let digest = Digest::sha256(&bytes);
        let mut state = self.state.lock().unwrap();
        for at in [tag, digest.as_str()].map(|at| format!("{repository} {at}")) {
            state.manifests.insert(at, (media_type.to_owned(), bytes.clone()));
        }
        digest
    }

    pub fn has_blob(&self, digest: &Digest) -> bool {
        self.state.lock().unwrap().blobs.contains_key(digest.as_str())
    }

    pub fn manifest(&self, repository: &str, tag: &str) -> Option<Vec<u8>> {
        self.state
            .lock()
            .unwrap()
            .manifests
            .get(&format!("{repository} {tag}"))
            .map(|(_, bytes)| bytes.clone())
    }

    /// Bytes of the blob that went out so far.
    pub fn sent(&self, digest: &Digest) -> usize {
        self.state
            .lock()
            .unwrap()
            .sent
            .get(digest.as_str())
            .copied()
            .unwrap_or(0)
    }

    /// Bytes that came in for blobs so far.
    pub fn received(&self) -> usize {
        self.state.lock().unwrap().received
    }
}

impl State {
    fn answer(&mut self, request: &Request, path: &str, fault: Option<Fault>) -> Answer {
        if let Some(Fault::Status(status, after)) = fault {
            let answer = Answer::new(
                status,
                r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"not now"}]}"#,
            );
            return match after {
                Some(seconds) => answer.with("retry-after", seconds.to_string()),
                None => answer,
            };
        }
        let parts: Vec<&str> = path.trim_start_matches("/v2/").split('/').collect();
        match (request.method.as_str(), parts.as_slice()) {
            ("GET" | "HEAD", [repository @ .., "manifests", tag]) => {
                match self.manifests.get(&format!("{} {tag}", repository.join("/"))) {
                    Some((media_type, bytes)) => spoilt(Answer::new(200, bytes.clone()), fault)
                        .with("content-type", media_type.clone())
                        .with("docker-content-digest", Digest::sha256(bytes).to_string()),
                    None => Answer::new(
                        404,
                        r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"unknown"}]}"#,
                    ),
                }
            }
            ("PUT", [repository @ .., "manifests", tag]) => {
                let repository = repository.join("/");
                let digest = Digest::sha256(&request.body).to_string();
                let stored = (request.header("content-type").to_owned(), request.body.clone());
                for at in [digest.as_str(), tag] {
                    self.manifests
                        .insert(format!("{repository} {at}"), stored.clone());
                }
                Answer::new(201, "")
            }
            ("POST", [.., "blobs", "uploads", ""]) => {
                self.next += 1;
                let id = format!("u{}", self.next);
                self.uploads.insert(id.clone(), Vec::new());
                Answer::new(202, "").with("location", format!("{path}{id}"))
            }
            ("GET", [.., "uploads", id]) => match self.uploads.get(*id) {
                Some(bytes) => Answer::new(204, "")
                    .with("location", path)
                    .with("range", format!("0-{}", bytes.len().saturating_sub(1))),
                None => Answer::new(404, ""),
            },
            ("PATCH" | "PUT", [.., "uploads", id]) => {
                self.received += request.body.len();
                let Some(bytes) = self.uploads.get_mut(*id) else {
                    return Answer::new(
                        404,
                        r#"{"errors":[{"code":"BLOB_UPLOAD_UNKNOWN","message":"unknown"}]}"#,
                    );
                };
                // As the specification wants it: what came before a break stays.
                bytes.extend_from_slice(&request.body);
                if request.method == "PATCH" || !request.whole {
                    let last = bytes.len().saturating_sub(1);
                    return Answer::new(202, "")
                        .with("location", path)
                        .with("range", format!("0-{last}"));
                }
                let wanted = request
                    .target
                    .split("digest=")
                    .nth(1)
                    .unwrap_or_default()
                    .replace("%3A", ":");
                let bytes = self.uploads.remove(*id).unwrap_or_default();
                match Digest::sha256(&bytes).to_string() == wanted {
                    true => {
                        self.blobs.insert(wanted, bytes);
                        Answer::new(201, "")
                    }
                    false => Answer::new(
                        400,
                        r#"{"errors":[{"code":"DIGEST_INVALID","message":"other bytes"}]}"#,
                    ),
                }
            }
            ("GET" | "HEAD", [.., "blobs", digest]) => match self.blobs.get(*digest).cloned() {
                Some(bytes) => {
                    let answer = blob(request, &bytes, fault);
                    if request.method == "GET" {
                        *self.sent.entry((*digest).to_owned()).or_default() += answer.body.len();
                    }
                    answer
                }
                None => Answer::new(404, r#"{"errors":[{"code":"BLOB_UNKNOWN","message":"unknown"}]}"#),
            },
            _ => Answer::new(404, ""),
        }
    }
}

fn blob(request: &Request, bytes: &[u8], fault: Option<Fault>) -> Answer {
    let asked = request
        .header("range")
        .strip_prefix("bytes=")
        .and_then(|range| range.split_once('-'));
    let asked =
        asked.and_then(|(first, last)| Some(first.parse::<usize>().ok()?..last.parse::<usize>().ok()? + 1));
    let (status, range) = match (&fault, asked) {
        (Some(Fault::NoRange), _) | (_, None) => (200, 0..bytes.len()),
        (Some(Fault::OtherRange), Some(_)) => (206, 0..1),
        (_, Some(range)) => (206, range),
    };
    let body = bytes[range.clone()].to_vec();
    let said = format!("bytes {}-{}/{}", range.start, range.end - 1, bytes.len());
    spoilt(Answer::new(status, body), fault).with("content-range", said)
}

/// An answer with what may be wrong with a body.
fn spoilt(mut answer: Answer, fault: Option<Fault>) -> Answer {
    let mut claim = answer.body.len();
    match fault {
        Some(Fault::Cut(after)) => answer.body.truncate(after),
        Some(Fault::Silent(after)) => {
            answer.body.truncate(after);
            answer.end = End::Silent;
        }
        Some(Fault::Corrupt) => answer.body.iter_mut().for_each(|byte| *byte ^= 1),
        Some(Fault::Length(by)) => claim = claim.saturating_add_signed(isize::try_from(by).unwrap()),
        _ => {}
    }
    answer.body.truncate(claim);
    answer.claim = Some(claim);
    answer
}
