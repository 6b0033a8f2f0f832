//! One build that a client waits for: what it asked, what is told about it, what it made, how it ends.
//!
//! ```text
//!   Control/Solve ──> Job ──┬── Control/Status follows its log, from the beginning
//!                           └── LLBBridge/Solve … Return, where the client drives the build itself
//! ```
//!
//! A job ends once: by its client's `Return`, by what was solved for it, or because its client has gone. Whoever
//! follows its log hears everything in order, then the end.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use ::session::enclosed::Enclosed;
use bollard_buildkit_proto::google::protobuf::Timestamp;
use bollard_buildkit_proto::moby::buildkit::v1::{
    SolveRequest, StatusResponse, Vertex, VertexLog, VertexStatus, VertexWarning,
};
use build::{Allowed, HOST_NETWORK, INSECURE, Solution};
use prost::Message;
use serde_json::{Value, json};
use spec::{Digest, Id};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::error::Failure;
use crate::result::{Answer, Outcome};

/// How long a request may wait for the job that it names.
const PATIENCE: Duration = Duration::from_secs(5);
/// How much output of one step is passed on, as BuildKit has it.
const MAX_OUTPUT: u64 = 2 << 20;
/// How long more is waited for before something is told: nobody sees it, and each message wakes a client.
const GATHERING: Duration = Duration::from_millis(20);
/// How many bytes are told in one message, unless they were said as one.
const TOGETHER: usize = 256 << 10;

/// The time now as messages write it.
pub fn now() -> Timestamp {
    timestamp(SystemTime::now())
}

/// A time as messages write it.
pub fn timestamp(time: SystemTime) -> Timestamp {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp {
        seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(since.subsec_nanos()).unwrap_or(0),
    }
}

/// Everything that was said about a build, in order.
#[derive(Debug, Default)]
pub struct Log {
    said: Mutex<Vec<Arc<StatusResponse>>>,
    /// How much there is, and whether that is all.
    heard: watch::Sender<(usize, bool)>,
}

impl Log {
    fn say(&self, status: StatusResponse) {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        said.push(Arc::new(status));
        // While the lock is held: two that speak at once must not tell their lengths the other way round.
        self.heard.send_modify(|heard| heard.0 = said.len());
    }

    /// A log that has ended.
    pub fn of(said: Vec<Arc<StatusResponse>>) -> Log {
        let length = said.len();
        Log {
            said: Mutex::new(said),
            heard: watch::Sender::new((length, true)),
        }
    }

    /// What was said until now.
    pub fn all(&self) -> Vec<Arc<StatusResponse>> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn end(&self) {
        self.heard.send_modify(|heard| heard.1 = true);
    }

    /// What was said from `at` on; waits for more. `None` at the end.
    pub async fn next(&self, at: usize) -> Option<Arc<StatusResponse>> {
        let mut heard = self.heard.subscribe();
        loop {
            let (length, ended) = *heard.borrow_and_update();
            if at < length {
                let said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
                return said.get(at).cloned();
            }
            if ended || heard.changed().await.is_err() {
                return None;
            }
        }
    }

    /// Waits until something was said from `at` on, and a little longer for more, but not once that was all; how much there is.
    async fn gather(&self, at: usize) -> usize {
        let mut heard = self.heard.subscribe();
        // A log that is gone says no more.
        let _ = heard.wait_for(|(length, ended)| *length > at || *ended).await;
        let _ = tokio::time::timeout(GATHERING, heard.wait_for(|(_, ended)| *ended)).await;
        heard.borrow().0
    }

    /// As much of what was said from `at` on as makes one message, and where the rest begins; waits for something. `None` at
    /// the end. Whoever reads a message takes its steps first, then their parts, then their output: more is added only as long
    /// as that is the order in which it was said.
    async fn together(&self, at: usize) -> Option<(StatusResponse, usize)> {
        let mut message = (*self.next(at).await?).clone();
        let (mut next, mut bytes) = (at + 1, message.encoded_len());
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        for more in said.get(next..).unwrap_or_default() {
            bytes += more.encoded_len();
            if bytes > TOGETHER || first_kind(more) < last_kind(&message) {
                break;
            }
            message.vertexes.extend(more.vertexes.iter().cloned());
            message.statuses.extend(more.statuses.iter().cloned());
            message.logs.extend(more.logs.iter().cloned());
            message.warnings.extend(more.warnings.iter().cloned());
            next += 1;
        }
        Some((message, next))
    }
}

/// Reads a log from its beginning; what is said within a short time together.
pub struct Reader {
    log: Arc<Log>,
    at: usize,
    /// How much there was when it was last waited for more.
    gathered: usize,
}

impl Reader {
    pub fn new(log: Arc<Log>) -> Reader {
        Reader {
            log,
            at: 0,
            gathered: 0,
        }
    }

    /// The next message; `None` at the end.
    pub async fn next(&mut self) -> Option<StatusResponse> {
        if self.at >= self.gathered {
            self.gathered = self.log.gather(self.at).await;
        }
        let (said, next) = self.log.together(self.at).await?;
        self.at = next;
        Some(said)
    }
}

/// Whether a message holds steps, parts of them, output, warnings: in the order in which these are read.
fn kinds(message: &StatusResponse) -> [bool; 4] {
    [
        !message.vertexes.is_empty(),
        !message.statuses.is_empty(),
        !message.logs.is_empty(),
        !message.warnings.is_empty(),
    ]
}

fn first_kind(message: &StatusResponse) -> usize {
    kinds(message).iter().position(|held| *held).unwrap_or(0)
}

fn last_kind(message: &StatusResponse) -> usize {
    kinds(message).iter().rposition(|held| *held).unwrap_or(0)
}

/// One step as it is told.
#[derive(Clone)]
pub struct Step {
    log: Arc<Log>,
    vertex: Arc<Mutex<Vertex>>,
    said: Arc<AtomicU64>,
    started: Timestamp,
}

impl Step {
    fn vertex(&self) -> std::sync::MutexGuard<'_, Vertex> {
        self.vertex.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// By what messages name it.
    pub fn digest(&self) -> String {
        self.vertex().digest.clone()
    }

    fn tell(&self) {
        self.log.say(StatusResponse {
            vertexes: vec![self.vertex().clone()],
            ..StatusResponse::default()
        });
    }

    /// Output of its command: 1 is the standard output, 2 the standard error.
    pub fn output(&self, stream: i64, bytes: &[u8]) {
        let before = self.said.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        let room = usize::try_from(MAX_OUTPUT.saturating_sub(before)).unwrap_or(usize::MAX);
        if before >= MAX_OUTPUT {
            return;
        }
        let mut msg = bytes.get(..room.min(bytes.len())).unwrap_or_default().to_vec();
        if room < bytes.len() {
            msg.extend_from_slice(b"\n[output clipped, log limit 2MiB reached]\n");
        }
        self.log.say(StatusResponse {
            logs: vec![VertexLog {
                vertex: self.digest(),
                timestamp: Some(now()),
                stream,
                msg,
            }],
            ..StatusResponse::default()
        });
    }

    /// How far something in it has come.
    pub fn progress(&self, id: &str, current: u64, total: u64, done: bool) {
        let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        self.log.say(StatusResponse {
            statuses: vec![VertexStatus {
                id: id.to_owned(),
                vertex: self.digest(),
                name: String::new(),
                current: signed(current),
                total: signed(total),
                timestamp: Some(now()),
                started: Some(self.started),
                completed: done.then(now),
            }],
            ..StatusResponse::default()
        });
    }

    /// How many bytes came from a client.
    pub fn transferred(&self, what: &str, bytes: u64, done: bool) {
        self.progress(what, bytes, 0, done);
    }

    /// Says that it has ended.
    pub fn end(&self, failure: Option<String>) {
        self.end_as(false, failure);
    }

    /// Says that it has ended, and whether the cache knew its result.
    pub fn end_as(&self, cached: bool, failure: Option<String>) {
        {
            let mut vertex = self.vertex();
            vertex.completed = Some(now());
            vertex.cached = cached;
            vertex.error = failure.unwrap_or_default();
        }
        self.tell();
    }
}

/// A build that is under way.
pub struct Job {
    pub reference: String,
    pub request: SolveRequest,
    pub log: Arc<Log>,
    /// Ends everything that runs for it.
    pub stop: CancellationToken,
    pub created: SystemTime,
    /// What was solved for it, by the names that its client knows.
    outcomes: Mutex<HashMap<String, Arc<Outcome>>>,
    /// What is still being noted of it.
    settling: Mutex<Vec<JoinHandle<()>>>,
    answer: Mutex<Option<Result<Answer, Failure>>>,
    answered: Notify,
    counts: Mutex<Counts>,
    explanation: Mutex<Explanation>,
    /// Whether something came for it that goes with it.
    borrows: AtomicBool,
    /// What came with its request.
    pub enclosed: Option<Enclosed>,
}

/// Why the steps of a build were made, where that is asked for.
#[derive(Debug, Default)]
pub struct Explanation {
    /// By what the build is remembered.
    pub build: String,
    pub steps: Vec<build::Explained>,
}

/// How many steps a build has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    pub all: i32,
    pub cached: i32,
    pub completed: i32,
    pub warnings: i32,
}

impl Job {
    pub fn new(request: SolveRequest) -> Job {
        Job {
            reference: request.r#ref.clone(),
            request,
            log: Arc::default(),
            stop: CancellationToken::new(),
            created: SystemTime::now(),
            outcomes: Mutex::default(),
            settling: Mutex::default(),
            answer: Mutex::default(),
            answered: Notify::new(),
            counts: Mutex::default(),
            explanation: Mutex::default(),
            borrows: AtomicBool::new(false),
            enclosed: None,
        }
    }

    /// The same with what came with its request.
    pub fn with(self, enclosed: Option<Enclosed>) -> Job {
        Job { enclosed, ..self }
    }

    /// Begins a step.
    pub fn begin(&self, title: &str) -> Step {
        self.begin_on(title, &[])
    }

    /// Begins a step that uses what other steps made.
    pub fn begin_on(&self, title: &str, inputs: &[String]) -> Step {
        let started = now();
        self.count(|counts| counts.all += 1);
        let step = Step {
            log: self.log.clone(),
            vertex: Arc::new(Mutex::new(Vertex {
                digest: Digest::sha256(Id::random().to_string().as_bytes()).to_string(),
                inputs: inputs.to_vec(),
                name: title.to_owned(),
                started: Some(started),
                ..Vertex::default()
            })),
            said: Arc::default(),
            started,
        };
        step.tell();
        step
    }

    /// Says a warning about the build.
    pub fn warn(&self, warning: VertexWarning) {
        self.count(|counts| counts.warnings += 1);
        self.log.say(StatusResponse {
            warnings: vec![warning],
            ..StatusResponse::default()
        });
    }

    pub fn count(&self, change: impl FnOnce(&mut Counts)) {
        change(&mut self.counts.lock().unwrap_or_else(PoisonError::into_inner));
    }

    pub fn explain(&self, change: impl FnOnce(&mut Explanation)) {
        change(&mut self.explanation.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// What our own client is told about the cache.
    pub fn explained(&self) -> Option<String> {
        let explanation = self.explanation.lock().unwrap_or_else(PoisonError::into_inner);
        let steps = explanation.steps.iter().map(|step| {
            json!({"Explained": {
                "Number": step.number,
                "Stage": step.stage,
                "Instruction": step.code,
                "Hit": step.hit,
                "Reason": step.reason,
                "Milliseconds": step.milliseconds,
            }})
        });
        let build = std::iter::once(json!({"Build": explanation.build}));
        let all: Vec<Value> = build.chain(steps).collect();
        (!explanation.build.is_empty()).then(|| json!(all).to_string())
    }

    /// Notes that something comes for this build that is to go with it.
    pub fn borrow(&self) {
        self.borrows.store(true, Ordering::Relaxed);
    }

    pub fn has_borrowed(&self) -> bool {
        self.borrows.load(Ordering::Relaxed)
    }

    /// What the client allows commands beyond others.
    pub fn allowed(&self) -> Allowed {
        let allows = |word: &str| self.request.entitlements.iter().any(|allowed| allowed == word);
        Allowed {
            insecure: allows(INSECURE),
            host_network: allows(HOST_NETWORK),
        }
    }

    pub fn counts(&self) -> Counts {
        *self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps what was solved as long as the job; gives it a name.
    pub fn keep(&self, outcome: Outcome) -> String {
        self.keep_shared(Arc::new(outcome))
    }

    /// As [`Job::keep`], of what another job may keep, too.
    pub fn keep_shared(&self, outcome: Arc<Outcome>) -> String {
        let name = Id::random().short().to_owned();
        self.outcomes().insert(name.clone(), outcome);
        name
    }

    /// What was solved under this name.
    pub fn outcome(&self, name: &str) -> Option<Arc<Outcome>> {
        self.outcomes().get(name).cloned()
    }

    fn outcomes(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<Outcome>>> {
        self.outcomes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was solved for it is not over before all of that is noted, whatever becomes of it.
    pub fn settles(&self, solution: &Solution) {
        let mut settling = self.settling.lock().unwrap_or_else(PoisonError::into_inner);
        settling.extend(solution.settling());
    }

    /// Waits until everything that was solved is noted.
    pub async fn settled(&self) {
        let settling = std::mem::take(&mut *self.settling.lock().unwrap_or_else(PoisonError::into_inner));
        for noted in settling {
            let _ = noted.await;
        }
    }

    /// What the client says is the result; the first word counts.
    pub fn answer(&self, answer: Result<Answer, Failure>) {
        self.answer
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get_or_insert(answer);
        self.answered.notify_one();
    }

    /// Waits for what the client says.
    pub async fn answered(&self) -> Result<Answer, Failure> {
        loop {
            let taken = self.answer.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(answer) = taken {
                return answer;
            }
            self.answered.notified().await;
        }
    }

    /// Nothing more is said about it, and what it made may go.
    pub fn close(&self) {
        self.stop.cancel();
        self.outcomes().clear();
        self.log.end();
    }
}

/// How many logs of jobs that are over are kept for those who ask late.
const LATE: usize = 64;

/// The jobs that are under way, and the logs of the last ones; clones are handles.
#[derive(Clone, Default)]
pub struct Jobs {
    known: Arc<Mutex<Known>>,
    came: Arc<Notify>,
}

/// A job is in one of both from when it is taken in until it is forgotten; it changes place while the lock is held.
#[derive(Default)]
struct Known {
    open: HashMap<String, Arc<Job>>,
    over: VecDeque<(String, Arc<Log>)>,
}

impl Known {
    fn log(&self, reference: &str) -> Option<Arc<Log>> {
        let over = || self.over.iter().rev().find(|(known, _)| known == reference);
        let open = self.open.get(reference).map(|job| &job.log);
        open.or_else(|| over().map(|(_, log)| log)).cloned()
    }
}

impl Jobs {
    fn lock(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a job in.
    pub fn open(&self, job: Job) -> Result<Arc<Job>, Failure> {
        if job.reference.is_empty() {
            return Err(Failure::invalid("a build needs a reference"));
        }
        let job = Arc::new(job);
        {
            let mut known = self.lock();
            if known.open.contains_key(&job.reference) {
                return Err(Failure::new(
                    tonic::Code::AlreadyExists,
                    format!("job ID {} exists", job.reference),
                ));
            }
            known.open.insert(job.reference.clone(), job.clone());
        }
        self.came.notify_waiters();
        Ok(job)
    }

    /// The job is over.
    pub fn close(&self, job: &Job) {
        {
            let mut known = self.lock();
            known.open.remove(&job.reference);
            known.over.push_back((job.reference.clone(), job.log.clone()));
            if known.over.len() > LATE {
                known.over.pop_front();
            }
        }
        job.close();
    }

    /// The log of a job, waited for a little; also of one that has ended before it was asked for.
    pub async fn log(&self, reference: &str) -> Result<Arc<Log>, Failure> {
        self.wait_for(reference, |known| known.log(reference)).await
    }

    /// The job of this name, where it is under way.
    pub fn find(&self, reference: &str) -> Option<Arc<Job>> {
        self.lock().open.get(reference).cloned()
    }

    /// The job of this name, waited for a little.
    pub async fn get(&self, reference: &str) -> Result<Arc<Job>, Failure> {
        self.wait_for(reference, |known| known.open.get(reference).cloned())
            .await
    }

    async fn wait_for<T>(&self, reference: &str, look: impl Fn(&Known) -> Option<T>) -> Result<T, Failure> {
        let find = async {
            loop {
                let came = self.came.notified();
                tokio::pin!(came);
                came.as_mut().enable();
                let found = look(&self.lock());
                if let Some(found) = found {
                    return found;
                }
                came.await;
            }
        };
        tokio::time::timeout(PATIENCE, find)
            .await
            .map_err(|_| Failure::not_found(format!("no such job {reference}")))
    }
}

#[cfg(test)]
mod tests {
    use std::task::Poll;

    use super::*;

    fn job(reference: &str) -> Job {
        Job::new(SolveRequest {
            r#ref: reference.to_owned(),
            ..SolveRequest::default()
        })
    }

    /// A client asks what is told about a build and for the build itself at once, and some builds are over in no time:
    /// whoever waits for one may not be looked after before it has ended.
    #[tokio::test]
    async fn a_log_that_was_waited_for_is_found_when_its_job_is_over() {
        let jobs = Jobs::default();
        let mut waiting = std::pin::pin!(jobs.log("short"));
        assert!(matches!(futures_util::poll!(waiting.as_mut()), Poll::Pending));
        let job = jobs.open(job("short")).unwrap();
        job.begin("all there is").end(None);
        jobs.close(&job);
        let Poll::Ready(log) = futures_util::poll!(waiting.as_mut()) else {
            panic!("the log of a job that is over is waited for");
        };
        let log = log.unwrap();
        assert!(log.next(0).await.is_some() && log.next(1).await.is_some());
        assert!(log.next(2).await.is_none(), "it has no end");
        assert!(jobs.log("short").await.is_ok() && jobs.find("short").is_none());
    }

    #[tokio::test]
    async fn what_was_said_meanwhile_is_told_together_and_in_its_order() {
        let job = job("much");
        for _ in 0..3 {
            job.begin("known before").end_as(true, None);
        }
        let loud = job.begin("loud");
        loud.output(1, b"one");
        loud.output(1, b"two");
        loud.end(None);
        let quiet = job.begin("quiet");
        quiet.progress("a part", 1, 1, true);
        job.close();
        let mut messages = Vec::new();
        let mut at = 0;
        while let Some((message, next)) = job.log.together(at).await {
            let counts = (message.vertexes.len(), message.statuses.len(), message.logs.len());
            messages.push(counts);
            at = next;
        }
        // The end of the loud step is not told before what it says.
        assert_eq!(messages, [(7, 0, 2), (2, 1, 0)]);
        assert_eq!(at, job.log.all().len());
    }

    #[tokio::test]
    async fn what_is_over_soon_is_told_when_it_is_over() {
        let job = job("soon");
        let mut gathering = std::pin::pin!(job.log.gather(0));
        assert!(matches!(futures_util::poll!(gathering.as_mut()), Poll::Pending));
        job.begin("first");
        assert!(matches!(futures_util::poll!(gathering.as_mut()), Poll::Pending));
        job.begin("second").end(None);
        job.close();
        assert!(matches!(futures_util::poll!(gathering.as_mut()), Poll::Ready(3)));
        assert_eq!(job.log.gather(3).await, 3, "it has no end");
    }

    #[tokio::test]
    async fn what_goes_on_is_told_before_it_is_over() {
        let job = job("long");
        job.begin("first");
        assert_eq!(job.log.gather(0).await, 1);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn whoever_follows_hears_everything_from_whoever_speaks() {
        let job = Arc::new(job("many"));
        let speakers: Vec<_> = (0..4)
            .map(|_| {
                let job = job.clone();
                std::thread::spawn(move || (0..200).for_each(|_| drop(job.begin("a step"))))
            })
            .collect();
        for speaker in speakers {
            speaker.join().unwrap();
        }
        job.close();
        let mut heard = 0;
        while job.log.next(heard).await.is_some() {
            heard += 1;
        }
        assert_eq!(heard, 800);
    }
}
