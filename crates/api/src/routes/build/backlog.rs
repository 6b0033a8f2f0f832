//! What a build said and its client has not taken yet.
//!
//! Steps of a build may be waited for by other builds, and a client may be suspended: whatever is said is taken at once, and a
//! client that is too far behind loses the oldest text. It is told how much.

use std::collections::VecDeque;

use api_types::ProgressMessage;
use tokio::sync::watch;

/// How many bytes may wait for a client.
const ROOM: usize = 4 << 20;
/// What a message takes beside its text.
const FRAME: usize = 128;

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<ProgressMessage>,
    bytes: usize,
    /// How much text of a step was dropped, and is not told yet.
    lost: usize,
    ended: bool,
}

/// Messages on their way to one client.
#[derive(Debug, Default)]
pub struct Backlog {
    state: watch::Sender<State>,
}

fn size(message: &ProgressMessage) -> usize {
    message.stream.len() + FRAME
}

impl Backlog {
    /// Takes a message; never waits.
    pub fn push(&self, message: ProgressMessage) {
        self.state.send_modify(|state| {
            state.bytes += size(&message);
            state.waiting.push_back(message);
            let mut at = 0;
            while state.bytes > ROOM
                && let Some(oldest) = state.waiting.get(at)
            {
                // What the client has to know: the image.
                if oldest.aux.is_some() {
                    at += 1;
                    continue;
                }
                if let Some(dropped) = state.waiting.remove(at) {
                    state.bytes -= size(&dropped);
                    state.lost += dropped.stream.len();
                }
            }
        });
    }

    /// Nothing more comes.
    pub fn end(&self) {
        self.state.send_modify(|state| state.ended = true);
    }

    /// The next message; `None` at the end.
    pub async fn next(&self) -> Option<ProgressMessage> {
        let mut changed = self.state.subscribe();
        loop {
            let mut next = None;
            self.state.send_if_modified(|state| {
                next = state.take();
                false
            });
            if next.is_some() {
                return next;
            }
            // The sender lives as long as this is called.
            let ready = |state: &State| state.ended || !state.waiting.is_empty();
            let state = changed.wait_for(ready).await.ok()?;
            if state.waiting.is_empty() {
                return None;
            }
        }
    }
}

impl State {
    fn take(&mut self) -> Option<ProgressMessage> {
        if self.lost > 0 {
            let lost = std::mem::take(&mut self.lost);
            return Some(ProgressMessage::stream(format!(
                "[{lost} bytes of output were dropped: the client did not take them in time]\n"
            )));
        }
        let message = self.waiting.pop_front()?;
        self.bytes -= size(&message);
        Some(message)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    async fn all(backlog: &Backlog) -> Vec<ProgressMessage> {
        let mut all = Vec::new();
        while let Some(message) = backlog.next().await {
            all.push(message);
        }
        all
    }

    #[tokio::test]
    async fn a_client_that_keeps_up_hears_everything_in_order() {
        let backlog = Backlog::default();
        let telling = async {
            for word in ["a", "b", "c"] {
                backlog.push(ProgressMessage::stream(word));
                tokio::task::yield_now().await;
            }
            backlog.end();
        };
        let (heard, ()) = tokio::join!(all(&backlog), telling);
        let words: Vec<&str> = heard.iter().map(|message| message.stream.as_str()).collect();
        assert_eq!(words, ["a", "b", "c"]);
    }

    #[tokio::test]
    async fn a_client_that_does_not_listen_loses_the_oldest_and_hears_how_much() {
        let backlog = Backlog::default();
        backlog.push(ProgressMessage::aux(json!({"ID": "image"})));
        let piece = "x".repeat(1 << 20);
        for _ in 0..8 {
            backlog.push(ProgressMessage::stream(piece.as_str()));
        }
        backlog.push(ProgressMessage::stream("the end"));
        backlog.end();
        let heard = all(&backlog).await;
        let kept = heard.iter().filter(|message| message.stream == piece).count();
        assert!((1..5).contains(&kept), "{kept}");
        let lost = (8 - kept) << 20;
        assert!(
            heard[0].stream.starts_with(&format!("[{lost} bytes")),
            "{}",
            heard[0].stream
        );
        assert!(heard.iter().any(|message| message.aux.is_some()));
        assert_eq!(heard.last().unwrap().stream, "the end");
    }
}
