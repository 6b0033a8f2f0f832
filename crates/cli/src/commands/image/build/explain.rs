//! `build --explain`: for each step whether the cache knew it, and why not; and `build diff A B` for two past builds.

use crate::client::query::Query;
use crate::failure::{Failure, Outcome};
use crate::format::printable;
use crate::format::table::{DOCKER, align};
use crate::session::{Session, say};
use serde_json::Value;
use session::control::EXPLAINED;

/// What a build told of its steps.
#[derive(Default)]
pub struct Explanations {
    build: String,
    steps: Vec<Value>,
}

impl Explanations {
    /// What the engine says beside the result.
    pub fn of(said: &std::collections::HashMap<String, String>) -> Explanations {
        let mut explanations = Explanations::default();
        let text = said.get(EXPLAINED).map(String::as_str).unwrap_or_default();
        for document in serde_json::from_str::<Vec<Value>>(text).unwrap_or_default() {
            explanations.take(&document);
        }
        explanations
    }

    /// Takes one of its documents.
    fn take(&mut self, document: &Value) {
        if let Some(id) = document.get("Build").and_then(Value::as_str) {
            self.build = id.to_owned();
        }
        if let Some(step) = document.get("Explained") {
            self.steps.push(step.clone());
        }
    }

    /// The table, in the order of the steps.
    pub fn lines(&self) -> Vec<String> {
        let number = |step: &Value, key: &str| step.get(key).and_then(Value::as_u64).unwrap_or(0);
        let text = |step: &Value, key: &str| {
            let text = step.get(key).and_then(Value::as_str).unwrap_or_default();
            printable(text.lines().next().unwrap_or_default())
        };
        let mut steps: Vec<&Value> = self.steps.iter().collect();
        steps.sort_by_key(|step| number(step, "Number"));
        let mut lines = vec![String::new(), "STEP  CACHE  TIME      INSTRUCTION".to_owned()];
        for step in &steps {
            let hit = step.get("Hit").and_then(Value::as_bool).unwrap_or(false);
            let seconds = number(step, "Milliseconds") as f64 / 1000.0;
            let instruction: String = text(step, "Instruction").chars().take(100).collect();
            let word = if hit { "hit" } else { "miss" };
            lines.push(format!(
                "{:>4}  {word:<5}  {seconds:>6.2} s  {instruction}",
                number(step, "Number")
            ));
            if !hit {
                lines.push(format!("                       {}", text(step, "Reason")));
            }
        }
        let hits = steps
            .iter()
            .filter(|step| step.get("Hit").and_then(Value::as_bool) == Some(true))
            .count();
        lines.push(format!(
            "{hits} of {} steps from the cache; build {}",
            steps.len(),
            self.build
        ));
        lines
    }
}

/// Lists the builds that are remembered, newest first.
pub async fn list(session: &Session) -> Outcome {
    let builds = session
        .client
        .get("/build/history")
        .await?
        .model::<Vec<Value>>()
        .await?;
    let head = "BUILD\tBEGUN\tSTATUS\tTIME\tCACHED\tIMAGES".to_owned();
    let lines: Vec<String> = std::iter::once(head).chain(builds.iter().map(listed)).collect();
    for line in align(&lines.join("\n"), DOCKER).lines() {
        say(line.trim_end())?;
    }
    Ok(0)
}

/// One build as a line of cells.
fn listed(build: &Value) -> String {
    let text = |key: &str| printable(build.get(key).and_then(Value::as_str).unwrap_or_default());
    let number = |key: &str| build.get(key).and_then(Value::as_i64);
    let begun = number("Begun").unwrap_or(0);
    let time =
        jiff::Timestamp::from_millisecond(begun).map(|time| time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
    let status = match (
        number("Ended"),
        build.get("Error").is_some_and(|error| !error.is_null()),
    ) {
        (None, _) => "unfinished",
        (Some(_), true) => "failed",
        (Some(_), false) => "done",
    };
    let took = number("Ended").map_or_else(
        || "-".to_owned(),
        |ended| format!("{:.2} s", (ended - begun) as f64 / 1000.0),
    );
    let cached = format!("{}/{}", number("Hits").unwrap_or(0), number("Steps").unwrap_or(0));
    let tags = build.get("Tags").and_then(Value::as_array).into_iter().flatten();
    let tags: Vec<String> = tags.filter_map(Value::as_str).map(printable).collect();
    let cells = [
        text("ID"),
        time.unwrap_or_default(),
        status.to_owned(),
        took,
        cached,
        tags.join(" "),
    ];
    cells.join("\t")
}

/// Says what differs between two past builds.
pub async fn diff(session: &Session, first: &str, second: &str) -> Outcome {
    let path = Query::new("/build/diff")
        .text("a", first)
        .text("b", second)
        .build();
    let answer = session.client.get(&path).await?.model::<Value>().await?;
    let lines = answer
        .get("Differences")
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default();
    if lines.is_empty() {
        say("no step differs")?;
    }
    for line in lines {
        let text = line
            .as_str()
            .ok_or_else(|| Failure::text("cannot read the daemon's answer"))?;
        say(&printable(text))?;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn builds_are_listed_with_how_they_ended() {
        let build = json!({"ID": "abc", "Begun": 0, "Ended": 1500, "Hits": 1, "Steps": 3, "Tags": ["a:1", "b:1"], "Error": null});
        assert_eq!(
            listed(&build),
            "abc\t1970-01-01T00:00:00Z\tdone\t1.50 s\t1/3\ta:1 b:1"
        );
        let build = json!({"ID": "abc", "Begun": 0, "Ended": null, "Hits": 0, "Steps": 0, "Tags": []});
        assert_eq!(listed(&build), "abc\t1970-01-01T00:00:00Z\tunfinished\t-\t0/0\t");
    }

    #[test]
    fn steps_are_listed_in_order_with_reasons() {
        let mut explained = Explanations::default();
        let step = |number: u64, hit: bool, reason: &str| json!({"Explained": {"Number": number, "Instruction": "RUN x", "Hit": hit, "Reason": reason, "Milliseconds": 1500}});
        explained.take(&json!({"Build": "abc"}));
        explained.take(&step(3, false, "file a changed"));
        explained.take(&step(2, true, ""));
        let lines = explained.lines();
        assert_eq!(lines[2], "   2  hit      1.50 s  RUN x");
        assert_eq!(lines[3], "   3  miss     1.50 s  RUN x");
        assert_eq!(lines[4].trim(), "file a changed");
        assert_eq!(lines[5], "1 of 2 steps from the cache; build abc");
    }
}
