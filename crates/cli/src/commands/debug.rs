//! `debug`: what helps to find out why something does not go on.

use api_types::tasks::{Task, Tasks};

use crate::command::{Arity, Command};
use crate::failure::{Failure, Outcome};
use crate::flags::{Flag, Matches};
use crate::format::table::{DOCKER, align};
use crate::session::{Session, print};

/// `debug tasks`: what the daemon is doing.
pub const TASKS: Command = Command::new(
    "tasks",
    "Show what the daemon is doing, and since when",
    "[OPTIONS]",
    Arity::Exactly(0),
    |session, matches| Box::pin(run(session, matches)),
)
.flags(&[&[Flag::text("format", "Layout: 'table' (default) or 'json'")]]);

async fn run(session: &Session, matches: &Matches) -> Outcome {
    let json = match matches.text("format") {
        None | Some("table") => false,
        Some("json") => true,
        Some(other) => {
            return Err(Failure::text(format!(
                "--format {other:?}: debug tasks knows \"table\" and \"json\""
            )));
        }
    };
    let tasks: Tasks = session.client.get("/system/tasks").await?.model().await?;
    if json {
        let text = serde_json::to_string(&tasks).map_err(|error| Failure::text(error.to_string()))?;
        print(&format!("{text}\n"))?;
    } else {
        print(&table(&tasks.tasks))?;
    }
    Ok(0)
}

fn table(tasks: &[Task]) -> String {
    let mut out = String::from("WHAT\tREQUEST\tDOES\tOF\tFOR\n");
    for task in tasks {
        let request = task.request.map(|number| number.to_string()).unwrap_or_default();
        // A path is what a client made of it; it must not reach the terminal as it is.
        let subject = task.subject.chars().map(|c| if c.is_control() { '?' } else { c });
        out.push_str(&format!(
            "{}\t{request}\t{}\t{}\t{}\n",
            task.kind,
            task.action,
            subject.collect::<String>(),
            age(task.seconds)
        ));
    }
    align(&out, DOCKER)
}

/// Short, and with as many digits as say something.
fn age(seconds: f64) -> String {
    match seconds {
        s if s < 1.0 => format!("{:.0}ms", s * 1000.0),
        s if s < 100.0 => format!("{s:.1}s"),
        s if s < 6000.0 => format!("{:.0}m", s / 60.0),
        s => format!("{:.0}h", s / 3600.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_each() {
        let task = |kind: &str, subject: &str, action: &str, request, seconds| Task {
            kind: kind.to_owned(),
            subject: subject.to_owned(),
            action: action.to_owned(),
            request,
            since: String::new(),
            seconds,
        };
        let shown = table(&[
            task("container", "web", "stop", None, 12.34),
            task(
                "request",
                "/v1.51/containers/\u{1b}x/stop",
                "POST",
                Some(8),
                0.0123,
            ),
            task("build step", "0123456789ab", "run", None, 7300.0),
        ]);
        assert_eq!(
            shown,
            "WHAT         REQUEST   DOES      OF                          FOR\n\
             container              stop      web                         12.3s\n\
             request      8         POST      /v1.51/containers/?x/stop   12ms\n\
             build step             run       0123456789ab                2h\n"
        );
    }
}
