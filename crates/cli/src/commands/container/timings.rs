//! `run --timings`: where the time of a start went, from the client to the program.
//!
//! The client times its requests; what the daemon and the monitor did during the start is told in the answer
//! (`Server-Timing`, W3C), and only when it is asked for.

use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderName, HeaderValue};

/// Does nothing unless it is wanted.
pub struct Timings(Option<Clock>);

struct Clock {
    begun: Instant,
    last: Instant,
    rows: Vec<(String, f64)>,
}

impl Timings {
    pub fn begin(wanted: bool) -> Timings {
        let now = Instant::now();
        Timings(wanted.then_some(Clock {
            begun: now,
            last: now,
            rows: Vec::new(),
        }))
    }

    /// To be sent with a request whose parts are wanted.
    pub fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        if self.0.is_some() {
            headers.insert(
                HeaderName::from_static("berth-timings"),
                HeaderValue::from_static("1"),
            );
        }
        headers
    }

    /// What was done since the last one is over.
    pub fn end(&mut self, name: &str) {
        self.end_with(name, None);
    }

    /// The same, with its parts as a daemon tells them.
    pub fn end_with(&mut self, name: &str, parts: Option<&str>) {
        let Some(clock) = &mut self.0 else { return };
        let now = Instant::now();
        clock.rows.push((name.to_owned(), milliseconds(now - clock.last)));
        clock.last = now;
        clock.rows.extend(parts.into_iter().flat_map(parse));
    }

    /// On standard error: standard output is the container's.
    pub fn show(self) {
        if let Some(clock) = self.0 {
            eprint!("{}", table(&clock.rows, milliseconds(clock.begun.elapsed())));
        }
    }
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// `name;dur=1.5, other;dur=2`, indented below what they are parts of.
fn parse(header: &str) -> Vec<(String, f64)> {
    let entries = header.split(',').filter_map(|entry| {
        let (name, duration) = entry.trim().split_once(";dur=")?;
        Some((format!("  {}", name.replace('-', " ")), duration.parse().ok()?))
    });
    entries.collect()
}

fn table(rows: &[(String, f64)], total: f64) -> String {
    let rows = rows.iter().map(|(name, took)| (name.as_str(), *took));
    let lines = rows.chain([("total", total)]);
    lines
        .map(|(name, took)| format!("{name:<26}{took:>9.2} ms\n"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_stand_below_their_whole() {
        let mut rows = vec![("start".to_owned(), 6.25)];
        rows.extend(parse(
            "network;dur=0.500, namespaces-and-mounts;dur=3.129, broken",
        ));
        assert_eq!(
            table(&rows, 12.0),
            "start                          6.25 ms\n  network                      0.50 ms\n  namespaces and mounts        3.13 ms\ntotal                         12.00 ms\n"
        );
    }
}
