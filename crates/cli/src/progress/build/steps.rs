//! What is known of the steps of a build.

use crate::format::{printable, size};
use bollard_buildkit_proto::google::protobuf::Timestamp;
use bollard_buildkit_proto::moby::buildkit::v1::{StatusResponse, Vertex, VertexStatus};
use std::collections::{HashMap, HashSet};
use std::time::{Duration, SystemTime};

/// How much of what a step says is kept; the end of it is what matters.
const MAX_LOG: usize = 256 << 10;
/// How the engine begins the reason for which a step was made.
pub const MISS: &str = "cache miss: ";

/// A part of a step, such as a layer that is fetched.
#[derive(Debug, Clone, Default)]
pub struct Part {
    pub id: String,
    pub current: i64,
    pub total: i64,
    pub ended: bool,
    /// As far as it is known.
    pub took: Option<Duration>,
}

impl Part {
    fn of(status: &VertexStatus) -> Part {
        let span =
            |from: &Option<Timestamp>, to: &Option<Timestamp>| Some(between(from.as_ref()?, to.as_ref()?));
        Part {
            id: printable(&status.id),
            current: status.current,
            total: status.total,
            ended: status.completed.is_some(),
            took: span(&status.started, &status.completed),
        }
    }

    /// What it is and how far it has come.
    pub fn text(&self) -> String {
        let bytes = |number: i64| size::decimal(number as f64);
        match (self.current, self.total) {
            (0, _) => self.id.clone(),
            (current, 0) => format!("{} {}", self.id, bytes(current)),
            (current, total) => format!("{} {} / {}", self.id, bytes(current), bytes(total)),
        }
    }
}

#[derive(Debug, Clone, Default)]
pub struct Step {
    pub number: usize,
    pub name: String,
    pub started: Option<Timestamp>,
    pub ended: Option<Timestamp>,
    pub cached: bool,
    pub error: String,
    pub parts: Vec<Part>,
    /// Why the cache did not know it.
    pub reason: Option<String>,
    log: String,
}

impl Step {
    /// How long it has been running, or ran.
    pub fn took(&self) -> Duration {
        let Some(started) = &self.started else {
            return Duration::ZERO;
        };
        let end = self.ended.unwrap_or_else(now);
        between(started, &end)
    }

    pub fn is_running(&self) -> bool {
        self.started.is_some() && self.ended.is_none()
    }

    /// The last lines that it said.
    pub fn last_lines(&self, count: usize) -> Vec<&str> {
        let lines: Vec<&str> = self.log.lines().filter(|line| !line.trim().is_empty()).collect();
        lines
            .iter()
            .skip(lines.len().saturating_sub(count))
            .copied()
            .collect()
    }
}

fn now() -> Timestamp {
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp {
        seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(since.subsec_nanos()).unwrap_or(0),
    }
}

fn between(from: &Timestamp, to: &Timestamp) -> Duration {
    let nanoseconds = |time: &Timestamp| i128::from(time.seconds) * 1_000_000_000 + i128::from(time.nanos);
    let span = nanoseconds(to) - nanoseconds(from);
    Duration::from_nanos(u64::try_from(span.max(0)).unwrap_or(u64::MAX))
}

/// Something that is to be shown, of the step at an index.
#[derive(Debug, Clone)]
pub enum News {
    Begun(usize),
    Said(usize, String),
    Part(usize, Part),
    Reason(usize, String),
    Ended(usize),
}

/// What a step is warned of; the same may be told more than once.
#[derive(Debug, PartialEq, Eq)]
struct Warning {
    text: String,
    url: String,
    vertex: String,
}

/// The steps in the order in which they were first heard of.
#[derive(Debug, Default)]
pub struct Steps {
    all: Vec<Step>,
    known: HashMap<String, usize>,
    warned: Vec<Warning>,
}

impl Steps {
    pub fn all(&self) -> &[Step] {
        &self.all
    }

    pub fn get(&self, index: usize) -> Option<&Step> {
        self.all.get(index)
    }

    fn index(&mut self, digest: &str) -> usize {
        if let Some(&index) = self.known.get(digest) {
            return index;
        }
        let index = self.all.len();
        self.known.insert(digest.to_owned(), index);
        self.all.push(Step {
            number: index + 1,
            ..Step::default()
        });
        index
    }

    /// Takes what is told; what of it is new.
    pub fn take(&mut self, status: &StatusResponse) -> Vec<News> {
        let mut news = Vec::new();
        let mut ended = Vec::new();
        let of_parts = status.statuses.iter().map(|status| status.vertex.as_str());
        let of_logs = status.logs.iter().map(|log| log.vertex.as_str());
        let speaking: HashSet<&str> = of_parts.chain(of_logs).collect();
        for vertex in &status.vertexes {
            let index = self.index(&vertex.digest);
            let ends = self.vertex(index, vertex, &mut news);
            match speaking.contains(vertex.digest.as_str()) {
                _ if !ends => {}
                // It ends behind what it says.
                true => ended.push(News::Ended(index)),
                false => news.push(News::Ended(index)),
            }
        }
        for status in &status.statuses {
            let index = self.index(&status.vertex);
            if let Some(step) = self.all.get_mut(index) {
                part(step, index, Part::of(status), &mut news);
            }
        }
        for log in &status.logs {
            let index = self.index(&log.vertex);
            let text = printable(
                &String::from_utf8_lossy(&log.msg)
                    .replace("\r\n", "\n")
                    .replace('\r', "\n"),
            );
            if let Some(step) = self.all.get_mut(index) {
                step.log.push_str(&text);
                if step.log.len() > 2 * MAX_LOG {
                    let from = step.log.len() - MAX_LOG;
                    let from = (from..step.log.len()).find(|at| step.log.is_char_boundary(*at));
                    step.log.drain(..from.unwrap_or(0));
                }
                news.push(News::Said(index, text));
            }
        }
        for warning in &status.warnings {
            let warning = Warning {
                text: printable(&String::from_utf8_lossy(&warning.short)),
                url: warning.url.clone(),
                vertex: warning.vertex.clone(),
            };
            if !self.warned.contains(&warning) {
                self.warned.push(warning);
            }
        }
        news.extend(ended);
        news
    }

    /// Whether the step has just ended.
    fn vertex(&mut self, index: usize, vertex: &Vertex, news: &mut Vec<News>) -> bool {
        let Some(step) = self.all.get_mut(index) else {
            return false;
        };
        step.name = printable(&vertex.name).replace('\n', " ");
        step.cached |= vertex.cached;
        if step.started.is_none() && vertex.started.is_some() {
            step.started = vertex.started;
            news.push(News::Begun(index));
        }
        let ends = step.ended.is_none() && (vertex.completed.is_some() || !vertex.error.is_empty());
        if ends {
            step.ended = vertex.completed.or(Some(now()));
            step.error = printable(&vertex.error);
        }
        ends
    }

    /// Warnings, each once, as the last lines of a build.
    pub fn warnings(&self) -> String {
        let mut text = String::new();
        if self.warned.is_empty() {
            return text;
        }
        let count = self.warned.len();
        let word = if count == 1 { "warning" } else { "warnings" };
        text.push_str(&format!(
            "\n{count} {word} found (berth build --check shows the lines):\n"
        ));
        for warning in &self.warned {
            text.push_str(&format!(" - {}\n", warning.text));
        }
        text
    }

    /// Everything that steps said which failed.
    pub fn failed_logs(&self) -> String {
        let mut text = String::new();
        for step in self
            .all
            .iter()
            .filter(|step| !step.error.is_empty() && !step.log.is_empty())
        {
            text.push_str(&format!("------\n > {}:\n{}", step.name, step.log));
            if !step.log.ends_with('\n') {
                text.push('\n');
            }
            text.push_str("------\n");
        }
        text
    }
}

fn part(step: &mut Step, index: usize, part: Part, news: &mut Vec<News>) {
    if let Some(reason) = part.id.strip_prefix(MISS) {
        step.reason = Some(reason.to_owned());
        news.push(News::Reason(index, reason.to_owned()));
        return;
    }
    match step.parts.iter_mut().find(|known| known.id == part.id) {
        // What has ended says so again.
        Some(known) if known.ended => {}
        Some(known) => {
            *known = part.clone();
            news.push(News::Part(index, part));
        }
        None => {
            step.parts.push(part.clone());
            news.push(News::Part(index, part));
        }
    }
}
