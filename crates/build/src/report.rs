//! Who hears what a build does: a reader of one text in the order of the Dockerfile ([`Transcript`]), or a reader that
//! follows every step by itself ([`Narration::Steps`]).
//!
//! A step is told as begun once, then its output and progress, then as ended once; a step that the cache knew begins
//! and ends at once. A reader that is slow makes the steps wait, and with them every other build that wants the same: whoever
//! passes news on to a client takes them at once, and drops what the client is too slow for. A reader that is gone is ignored.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use image::ProgressEvent;
use tokio::sync::mpsc;

use crate::error::BuildError;
use crate::executor::Output;
use crate::request::{BuildEvent, Narration};
use crate::transcript::{StepNumber, Transcript};

/// Names a step of one build for readers that follow each by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StepId {
    /// A vertex of the graph.
    Vertex(usize),
    /// Something the builder does before there is a graph.
    Before(usize),
}

/// What happened to a step.
#[derive(Debug, Clone)]
pub enum StepNews {
    Begun {
        title: String,
        inputs: Vec<StepId>,
    },
    Output(Output),
    Progress(ProgressEvent),
    /// Why the cache did not know it.
    Reason(String),
    Ended {
        cached: bool,
        failure: Option<BuildError>,
    },
}

/// How one step is known to either kind of reader.
#[derive(Debug, Clone, Default)]
pub struct StepName {
    pub number: StepNumber,
    pub vertex: usize,
    /// Empty for steps nobody hears of by themselves.
    pub title: String,
    pub inputs: Vec<usize>,
}

/// Passes a build's news on.
pub struct Reporter {
    transcript: Option<Transcript>,
    /// Gone when no step has anything to say any more.
    out: Mutex<Option<mpsc::Sender<BuildEvent>>>,
    begun: Mutex<HashSet<usize>>,
    before: AtomicUsize,
}

impl Reporter {
    /// A reporter of steps with these lines of the Dockerfile.
    pub fn new(narration: Narration, codes: Vec<String>, out: mpsc::Sender<BuildEvent>) -> Reporter {
        let transcript = match narration {
            Narration::Text => Some(Transcript::new(codes, out.clone())),
            Narration::Steps => None,
        };
        Reporter {
            transcript,
            out: Mutex::new(Some(out)),
            begun: Mutex::default(),
            before: AtomicUsize::new(0),
        }
    }

    /// No step has anything to say any more, however long what they made is held.
    pub fn close(&self) {
        self.out.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// The text, where that is what is heard.
    pub fn transcript(&self) -> Option<&Transcript> {
        self.transcript.as_ref()
    }

    async fn tell(&self, id: StepId, news: StepNews) {
        let out = self.out.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(out) = out {
            let _ = out.send(BuildEvent::Step { id, news }).await;
        }
    }

    /// Says text outside of any step, to readers of the text only.
    pub async fn say(&self, event: BuildEvent) {
        if let Some(transcript) = &self.transcript {
            transcript.say(event).await;
        }
    }

    /// Hands on what every reader may want to know of the build as a whole.
    pub async fn hand(&self, event: BuildEvent) {
        if let Some(transcript) = &self.transcript {
            return transcript.say(event).await;
        }
        let out = self.out.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(out) = out {
            let _ = out.send(event).await;
        }
    }

    /// Warns of something that the build goes on without.
    pub async fn warn(&self, text: String) {
        let text_reader = BuildEvent::ErrorText(format!("[Warning] {text}\n"));
        self.say(text_reader).await;
        let id = self.begin_before(text).await;
        self.end_before(id, None).await;
    }

    /// Says text of a step, to readers of the text only.
    pub async fn text(&self, number: StepNumber, text: impl Into<String>) {
        if let Some(transcript) = &self.transcript {
            transcript.text(number, text).await;
        }
    }

    /// Passes on output of a step's command.
    pub async fn output(&self, step: &StepName, output: Output) {
        match &self.transcript {
            Some(transcript) => transcript.output(step.number, &output).await,
            None => {
                self.tell(StepId::Vertex(step.vertex), StepNews::Output(output))
                    .await
            }
        }
    }

    /// One more thing works for `step`.
    pub async fn expect(&self, step: StepNumber) {
        if let Some(transcript) = &self.transcript {
            transcript.expect(step).await;
        }
    }

    /// A step has begun to do something.
    pub async fn begin(&self, step: &StepName) {
        if self.transcript.is_some() || step.title.is_empty() {
            return;
        }
        let new = self
            .begun
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(step.vertex);
        if new {
            let news = StepNews::Begun {
                title: step.title.clone(),
                inputs: step.inputs.iter().copied().map(StepId::Vertex).collect(),
            };
            self.tell(StepId::Vertex(step.vertex), news).await;
        }
    }

    /// Whether a step was told as begun.
    pub fn has_begun(&self, step: &StepName) -> bool {
        let begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner);
        begun.contains(&step.vertex)
    }

    /// Why a step was made.
    pub async fn reason(&self, step: &StepName, reason: &str) {
        if self.transcript.is_some() || step.title.is_empty() {
            return;
        }
        self.begin(step).await;
        self.tell(StepId::Vertex(step.vertex), StepNews::Reason(reason.to_owned()))
            .await;
    }

    /// A step has ended.
    pub async fn end(&self, step: &StepName, cached: bool, failure: Option<BuildError>) {
        if self.transcript.is_some() || step.title.is_empty() {
            return;
        }
        self.begin(step).await;
        self.tell(StepId::Vertex(step.vertex), StepNews::Ended { cached, failure })
            .await;
    }

    /// Begins something that is no step of the Dockerfile.
    pub async fn begin_before(&self, title: String) -> StepId {
        let id = StepId::Before(self.before.fetch_add(1, Ordering::Relaxed));
        if self.transcript.is_none() {
            let inputs = Vec::new();
            self.tell(id, StepNews::Begun { title, inputs }).await;
        }
        id
    }

    /// Progress of getting something for a step.
    pub async fn progress(&self, number: StepNumber, id: StepId, event: ProgressEvent) {
        match &self.transcript {
            Some(transcript) => transcript.event(number, BuildEvent::Progress(event)).await,
            None => self.tell(id, StepNews::Progress(event)).await,
        }
    }

    /// Ends what [`Reporter::begin_before`] began.
    pub async fn end_before(&self, id: StepId, failure: Option<BuildError>) {
        if self.transcript.is_none() {
            let cached = false;
            self.tell(id, StepNews::Ended { cached, failure }).await;
        }
    }
}
