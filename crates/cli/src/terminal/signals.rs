//! Signals of the client: those that are the container's business (forwarded by name, and the terminal's size), and those
//! that end a command which has something to put away first.

use crate::client::Client;
use crate::client::query::{Query, segment};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// What `--sig-proxy` hands on: name and number.
const FORWARDED: &[(&str, i32)] = &[
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("USR1", 10),
    ("USR2", 12),
    ("ALRM", 14),
    ("TERM", 15),
    ("CONT", 18),
    ("TSTP", 20),
];

/// Catches signals; without a receiver they act on the client as usual.
pub struct Caught(Vec<(&'static str, Signal)>);

impl Caught {
    /// Catches what is forwarded to a container. From here on these signals no longer end the client.
    pub fn forwarded() -> Caught {
        let catch = |(name, number): &(&'static str, i32)| {
            signal(SignalKind::from_raw(*number))
                .ok()
                .map(|signal| (*name, signal))
        };
        Caught(FORWARDED.iter().filter_map(catch).collect())
    }

    /// Catches what ends a command: ctrl-c, and a request to end.
    pub fn ending() -> Caught {
        let catch = |(name, kind)| signal(kind).ok().map(|signal| (name, signal));
        let kinds = [
            ("INT", SignalKind::interrupt()),
            ("TERM", SignalKind::terminate()),
        ];
        Caught(kinds.into_iter().filter_map(catch).collect())
    }

    /// Changes of the terminal's size.
    pub fn resizes() -> Caught {
        Caught(
            signal(SignalKind::window_change())
                .ok()
                .map(|signal| ("WINCH", signal))
                .into_iter()
                .collect(),
        )
    }

    /// The next signal's name; pending for ever when none is caught.
    pub async fn next(&mut self) -> &'static str {
        std::future::poll_fn(|cx| {
            for (name, signal) in &mut self.0 {
                if signal.poll_recv(cx).is_ready() {
                    return std::task::Poll::Ready(*name);
                }
            }
            std::task::Poll::Pending
        })
        .await
    }
}

/// Forwards signals until dropped.
pub async fn forward(client: &Client, container: &str, mut caught: Caught) {
    loop {
        let name = caught.next().await;
        let path = Query::new(format!("/containers/{}/kill", segment(container)))
            .text("signal", name)
            .build();
        if let Ok(reply) = client.post(&path).await {
            let _ = reply.done().await;
        }
    }
}

/// Tells the daemon the terminal's size, now and whenever it changes. `path` is a container's or exec's resize.
pub async fn follow_size(client: &Client, path: String) {
    let mut caught = Caught::resizes();
    let mut known = None;
    loop {
        let size = super::size();
        if size != known
            && let Some((rows, columns)) = size
        {
            let query = Query::new(path.clone())
                .text("h", &rows.to_string())
                .text("w", &columns.to_string())
                .build();
            if let Ok(reply) = client.post(&query).await
                && reply.done().await.is_ok()
            {
                known = size;
            }
        }
        caught.next().await;
    }
}
