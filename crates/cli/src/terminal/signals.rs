//! Signals of the client: those that are the container's business (forwarded by name, and the terminal's size), and those
//! that end a command which has something to put away first.
//!
//! As Docker's client does, `--sig-proxy` hands on every signal but those that a process gets in the course of its own work:
//! CHLD, PIPE and URG, and what its own faults raise (BUS, FPE, ILL, SEGV). Unlike Docker's, a client on a terminal keeps
//! what the terminal sends to a program for itself: that its window changed (WINCH; there are servers which that ends), and
//! that it read or wrote in the background (TTIN, TTOU).

use crate::client::Client;
use crate::client::query::{Query, segment};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// What `--sig-proxy` hands on beside real-time signals, by name and number (signal(7)).
const FORWARDED: &[(&str, i32)] = &[
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("TRAP", 5),
    ("ABRT", 6),
    ("USR1", 10),
    ("USR2", 12),
    ("ALRM", 14),
    ("TERM", 15),
    ("STKFLT", 16),
    ("CONT", 18),
    ("TSTP", 20),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("VTALRM", 26),
    ("PROF", 27),
    ("IO", 29),
    ("PWR", 30),
    ("SYS", 31),
];

/// What a terminal sends, and is handed on where there is none: then somebody else has sent it.
const OF_TERMINALS: &[(&str, i32)] = &[("TTIN", 21), ("TTOU", 22), ("WINCH", 28)];

/// The first and the last real-time signal, as the C library leaves them to programs.
const REAL_TIME: std::ops::RangeInclusive<i32> = 34..=64;

/// Catches signals; without a receiver they act on the client as usual.
pub struct Caught(Vec<(String, Signal)>);

fn catch(name: &str, kind: SignalKind) -> Option<(String, Signal)> {
    Some((name.to_owned(), signal(kind).ok()?))
}

impl Caught {
    /// Catches what is forwarded to a container. From here on these signals no longer end the client.
    pub fn forwarded() -> Caught {
        let of_terminals: &[(&str, i32)] = match super::stdin_is_terminal() || super::stdout_is_terminal() {
            true => &[],
            false => OF_TERMINALS,
        };
        let named = FORWARDED.iter().chain(of_terminals);
        let named = named.map(|(name, number)| ((*name).to_owned(), *number));
        // The daemon takes a number as well, and whose RTMIN+n would be meant is no question then.
        let real_time = REAL_TIME.map(|number| (number.to_string(), number));
        let all = named.chain(real_time);
        Caught(
            all.filter_map(|(name, number)| catch(&name, SignalKind::from_raw(number)))
                .collect(),
        )
    }

    /// Catches what ends a command: ctrl-c, and a request to end.
    pub fn ending() -> Caught {
        let kinds = [
            ("INT", SignalKind::interrupt()),
            ("TERM", SignalKind::terminate()),
        ];
        Caught(
            kinds
                .into_iter()
                .filter_map(|(name, kind)| catch(name, kind))
                .collect(),
        )
    }

    /// Changes of the terminal's size.
    pub fn resizes() -> Caught {
        Caught(catch("WINCH", SignalKind::window_change()).into_iter().collect())
    }

    /// The next signal's name; pending for ever when none is caught.
    pub async fn next(&mut self) -> String {
        std::future::poll_fn(|cx| {
            for (name, signal) in &mut self.0 {
                if signal.poll_recv(cx).is_ready() {
                    return std::task::Poll::Ready(name.clone());
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
            .text("signal", &name)
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
