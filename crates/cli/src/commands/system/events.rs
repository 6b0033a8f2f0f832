//! `events`: what happens, as it happens.

use crate::client::query::Query;
use crate::command::{Arity, Command};
use crate::failure::{Failure, Outcome};
use crate::flags::{Flag, Matches};
use crate::format::{printable, time};
use crate::grammar::filter::{self, Filters};
use crate::json::Value;
use crate::session::{Session, print};
use crate::template::{Missing, Template};

pub const COMMAND: Command = Command::new(
    "events",
    "Get real time events from the server",
    "[OPTIONS]",
    Arity::Exactly(0),
    |session, matches| Box::pin(run(session, matches)),
)
.flags(&[&[
    Flag::list("filter", "Show only what matches")
        .short('f')
        .value("filter")
        .check(filter::check),
    Flag::text("format", "Layout: 'json' or a Go template"),
    Flag::text("since", "Begin here: a time or how long ago"),
    Flag::text("until", "End here: a time or how long ago"),
]]);

async fn run(session: &Session, matches: &Matches) -> Outcome {
    let stamp = |flag: &str| {
        time::api_stamp(matches.text(flag).unwrap_or_default())
            .map_err(|error| Failure::text(format!("invalid value for {flag:?}: {error}")))
    };
    let template = match matches.text("format").unwrap_or_default() {
        "" => None,
        "json" => Some("{{json .}}"),
        text => Some(text),
    };
    let template = template
        .map(Template::parse)
        .transpose()
        .map_err(|error| Failure::text(format!("template parsing error: {error}")).with_code(64))?;
    let path = Query::new("/events")
        .text("filters", &Filters::read(matches.list("filter")).document())
        .text("since", &stamp("since")?)
        .text("until", &stamp("until")?)
        .build();
    let mut lines = session.client.get(&path).await?.lines();
    while let Some(bytes) = lines.next().await? {
        let event = Value::parse(&bytes)
            .map_err(|error| Failure::text(format!("cannot read the daemon's event: {error}")))?;
        match &template {
            None => print(&line(&event))?,
            Some(template) => {
                let text = template
                    .execute(&event, Missing::Error)
                    .map_err(|error| Failure::text(format!("template parsing error: {error}")))?;
                print(&format!("{text}\n"))?;
            }
        }
    }
    Ok(0)
}

fn line(event: &Value) -> String {
    let stamp = match event.at(&["timeNano"]).int() {
        0 => event.at(&["time"]).int().saturating_mul(1_000_000_000),
        nanos => nanos,
    };
    let text = |path: &[&str]| printable(event.at(path).text());
    let mut attributes: Vec<String> = event
        .at(&["Actor", "Attributes"])
        .members()
        .iter()
        .map(|(key, value)| printable(&format!("{key}={}", value.text())))
        .collect();
    attributes.sort();
    let tail = if attributes.is_empty() {
        String::new()
    } else {
        format!(" ({})", attributes.join(", "))
    };
    let (kind, action, id) = (text(&["Type"]), text(&["Action"]), text(&["Actor", "ID"]));
    format!("{} {kind} {action} {id}{tail}\n", time::event_stamp(stamp))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_per_event() {
        let event = Value::parse(
            br#"{"Type":"container","Action":"die","Actor":{"ID":"4fc3","Attributes":{"name":"long","exitCode":"137"}},"time":1795469146,"timeNano":1795469146578297300}"#,
        )
        .unwrap();
        assert!(line(&event).ends_with(" container die 4fc3 (exitCode=137, name=long)\n"));
        assert!(line(&event).contains(".578297300"));
    }
}
