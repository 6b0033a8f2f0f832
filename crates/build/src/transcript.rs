//! The order in which a build speaks: steps run in parallel, their text comes out as if they ran one by one.
//!
//! The step whose turn it is speaks at once; what later steps say waits, up to [`MAX_WAITING`] bytes each, of
//! which then only the end is kept. A reader that is slow makes the current step wait; a reader that is gone
//! is ignored.

use std::collections::VecDeque;

use tokio::sync::{Mutex, mpsc};

use crate::executor::{Output, Stream};
use crate::request::BuildEvent;

/// How much text of a step may wait for its turn.
const MAX_WAITING: usize = 4 << 20;

/// Numbers a step of a build, counted from 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StepNumber(pub usize);

#[derive(Default)]
struct Step {
    code: String,
    waiting: VecDeque<BuildEvent>,
    waiting_bytes: usize,
    clipped: bool,
    /// How many vertices still work for it.
    pending: usize,
    shown: bool,
    /// Incomplete characters at the end of what each stream said last.
    tails: [Vec<u8>; 2],
}

struct State {
    steps: Vec<Step>,
    current: usize,
}

/// What the steps of one build say.
pub struct Transcript {
    state: Mutex<State>,
    out: mpsc::Sender<BuildEvent>,
}

impl Transcript {
    /// A transcript of steps with these lines of the Dockerfile. Every step has one thing to do until
    /// [`Transcript::expect`] says more.
    pub fn new(codes: Vec<String>, out: mpsc::Sender<BuildEvent>) -> Transcript {
        let steps = codes
            .into_iter()
            .map(|code| Step {
                code,
                pending: 1,
                ..Step::default()
            })
            .collect();
        Transcript {
            state: Mutex::new(State { steps, current: 0 }),
            out,
        }
    }

    /// Says the headline of the first step.
    pub async fn begin(&self) {
        let mut state = self.state.lock().await;
        self.show_current(&mut state).await;
    }

    /// One more thing works for `step`.
    pub async fn expect(&self, step: StepNumber) {
        if let Some(step) = self.state.lock().await.steps.get_mut(step.0) {
            step.pending += 1;
        }
    }

    /// Says an event outside of any step.
    pub async fn say(&self, event: BuildEvent) {
        let _ = self.out.send(event).await;
    }

    /// Says an event of a step.
    pub async fn event(&self, step: StepNumber, event: BuildEvent) {
        let mut state = self.state.lock().await;
        self.pass(&mut state, step, event).await;
    }

    /// Says text of a step.
    pub async fn text(&self, step: StepNumber, text: impl Into<String>) {
        self.event(step, BuildEvent::Text(text.into())).await;
    }

    /// Passes on output of a step's command. A character that is cut in two waits for its other half.
    pub async fn output(&self, step: StepNumber, output: &Output) {
        let mut state = self.state.lock().await;
        let index = usize::from(output.stream == Stream::Stderr);
        let Some(tail) = state
            .steps
            .get_mut(step.0)
            .and_then(|step| step.tails.get_mut(index))
        else {
            return;
        };
        tail.extend_from_slice(&output.bytes);
        let whole = tail.len() - incomplete(tail);
        let rest = tail.split_off(whole);
        let text = String::from_utf8_lossy(&std::mem::replace(tail, rest)).into_owned();
        if !text.is_empty() {
            self.pass(&mut state, step, speech(output.stream, text)).await;
        }
    }

    /// Something that worked for `step` has ended.
    pub async fn finish(&self, step: StepNumber) {
        let mut state = self.state.lock().await;
        self.flush_tails(&mut state, step).await;
        if let Some(step) = state.steps.get_mut(step.0) {
            step.pending = step.pending.saturating_sub(1);
        }
        while state
            .steps
            .get(state.current)
            .is_some_and(|step| step.pending == 0)
        {
            state.current += 1;
            self.show_current(&mut state).await;
        }
    }

    /// Says what a step that failed before its turn has to say.
    pub async fn reveal(&self, step: StepNumber) {
        let mut state = self.state.lock().await;
        self.flush_tails(&mut state, step).await;
        self.show(&mut state, step.0).await;
    }

    async fn show_current(&self, state: &mut State) {
        let current = state.current;
        self.show(state, current).await;
    }

    async fn show(&self, state: &mut State, index: usize) {
        let count = state.steps.len();
        let Some(step) = state.steps.get_mut(index) else {
            return;
        };
        if !step.shown {
            step.shown = true;
            let headline = format!("Step {}/{count} : {}\n", index + 1, step.code);
            let _ = self.out.send(BuildEvent::Text(headline)).await;
        }
        if step.clipped {
            step.clipped = false;
            let note = format!("[the beginning of more than {MAX_WAITING} bytes of output was dropped]\n");
            let _ = self.out.send(BuildEvent::Text(note)).await;
        }
        step.waiting_bytes = 0;
        for event in std::mem::take(&mut step.waiting) {
            let _ = self.out.send(event).await;
        }
    }

    async fn flush_tails(&self, state: &mut State, step: StepNumber) {
        for (index, stream) in [Stream::Stdout, Stream::Stderr].into_iter().enumerate() {
            let tail = state
                .steps
                .get_mut(step.0)
                .and_then(|step| step.tails.get_mut(index));
            let tail = tail.map(std::mem::take).unwrap_or_default();
            if !tail.is_empty() {
                let text = String::from_utf8_lossy(&tail).into_owned();
                self.pass(state, step, speech(stream, text)).await;
            }
        }
    }

    async fn pass(&self, state: &mut State, number: StepNumber, event: BuildEvent) {
        let current = state.current;
        let Some(step) = state.steps.get_mut(number.0) else {
            return;
        };
        if number.0 <= current {
            let _ = self.out.send(event).await;
            return;
        }
        step.waiting_bytes += size(&event);
        step.waiting.push_back(event);
        while step.waiting_bytes > MAX_WAITING
            && let Some(dropped) = step.waiting.pop_front()
        {
            step.waiting_bytes -= size(&dropped);
            step.clipped = true;
        }
    }
}

fn speech(stream: Stream, text: String) -> BuildEvent {
    match stream {
        Stream::Stdout => BuildEvent::Text(text),
        Stream::Stderr => BuildEvent::ErrorText(text),
    }
}

fn size(event: &BuildEvent) -> usize {
    match event {
        BuildEvent::Text(text) | BuildEvent::ErrorText(text) => text.len(),
        _ => 128,
    }
}

/// How many bytes at the end are the beginning of a character that goes on.
fn incomplete(bytes: &[u8]) -> usize {
    match std::str::from_utf8(bytes.get(bytes.len().saturating_sub(4)..).unwrap_or_default()) {
        Ok(_) => 0,
        Err(_) => {
            let back = bytes.iter().rev().take(3).position(|byte| byte & 0xc0 == 0xc0);
            let Some(back) = back else { return 0 };
            let lead = bytes.get(bytes.len() - back - 1).copied().unwrap_or_default();
            let wanted = match lead {
                0xc0..=0xdf => 2,
                0xe0..=0xef => 3,
                _ => 4,
            };
            if back + 1 < wanted { back + 1 } else { 0 }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> BuildEvent {
        BuildEvent::Text(text.to_owned())
    }

    async fn all(mut heard: mpsc::Receiver<BuildEvent>) -> String {
        heard.close();
        let mut out = String::new();
        while let Some(event) = heard.recv().await {
            if let BuildEvent::Text(text) | BuildEvent::ErrorText(text) = event {
                out.push_str(&text);
            }
        }
        out
    }

    #[tokio::test]
    async fn later_steps_wait_for_their_turn() {
        let (out, heard) = mpsc::channel(64);
        let transcript = Transcript::new(vec!["A".into(), "B".into(), "C".into()], out);
        transcript.begin().await;
        transcript.event(StepNumber(2), text("c\n")).await;
        transcript.finish(StepNumber(2)).await;
        transcript.event(StepNumber(0), text("a\n")).await;
        transcript.event(StepNumber(1), text("b1\n")).await;
        transcript.finish(StepNumber(0)).await;
        transcript.event(StepNumber(1), text("b2\n")).await;
        transcript.finish(StepNumber(1)).await;
        drop(transcript);
        assert_eq!(
            all(heard).await,
            "Step 1/3 : A\na\nStep 2/3 : B\nb1\nb2\nStep 3/3 : C\nc\n"
        );
    }

    #[tokio::test]
    async fn characters_are_not_cut_in_two() {
        let (out, heard) = mpsc::channel(64);
        let transcript = Transcript::new(vec!["A".into()], out);
        let bytes = "a€b".as_bytes();
        for byte in bytes {
            let output = Output {
                stream: Stream::Stdout,
                bytes: bytes::Bytes::copy_from_slice(&[*byte]),
            };
            transcript.output(StepNumber(0), &output).await;
        }
        let output = Output {
            stream: Stream::Stderr,
            bytes: bytes::Bytes::from_static(b"x\xe2\x82"),
        };
        transcript.output(StepNumber(0), &output).await;
        transcript.finish(StepNumber(0)).await;
        drop(transcript);
        assert_eq!(all(heard).await, "a€bx\u{fffd}");
    }

    #[tokio::test]
    async fn a_failed_step_is_revealed_and_waiting_text_is_bounded() {
        let (out, heard) = mpsc::channel(64);
        let transcript = Transcript::new(vec!["A".into(), "B".into()], out);
        transcript.begin().await;
        let long = "x".repeat(MAX_WAITING - 1);
        transcript.event(StepNumber(1), text(&long)).await;
        transcript.event(StepNumber(1), text("the end\n")).await;
        transcript.reveal(StepNumber(1)).await;
        drop(transcript);
        let said = all(heard).await;
        assert!(
            said.starts_with("Step 1/2 : A\nStep 2/2 : B\n[the beginning"),
            "{said:.80}"
        );
        assert!(said.ends_with("the end\n"));
    }
}
