//! `system check`: what is not as it should be, and with `--repair`, putting it right.
//!
//! Exit code 0: nothing is wrong any more; 1: something is.

use api_types::check::{Finding, SystemCheck};

use crate::command::{Arity, Command};
use crate::failure::{Failure, Outcome};
use crate::flags::{Flag, Matches};
use crate::format::table::{DOCKER, align};
use crate::session::{Session, print};

pub const COMMAND: Command = Command::new(
    "check",
    "Compare what should be with what is",
    "[OPTIONS]",
    Arity::Exactly(0),
    |session, matches| Box::pin(run(session, matches)),
)
.flags(&[&[
    Flag::bool(
        "content",
        "Read every blob and shared file, and compare it with its digest",
    ),
    Flag::text("format", "Layout: 'table' (default) or 'json'"),
    Flag::bool("repair", "Put right what can be"),
]]);

async fn run(session: &Session, matches: &Matches) -> Outcome {
    let json = wants_json(matches, "system check")?;
    let path = match matches.bool("content") {
        true => "/system/check?content=1",
        false => "/system/check",
    };
    let reply = if matches.bool("repair") {
        session.client.post(path).await?
    } else {
        session.client.get(path).await?
    };
    show(&reply.model().await?, json)
}

/// What `--format` of a command that shows findings says.
pub fn wants_json(matches: &Matches, command: &str) -> Result<bool, Failure> {
    match matches.text("format") {
        None | Some("table") => Ok(false),
        Some("json") => Ok(true),
        Some(other) => Err(Failure::text(format!(
            "--format {other:?}: {command} knows \"table\" and \"json\""
        ))),
    }
}

/// Prints findings; the exit code tells whether any is left.
pub fn show(check: &SystemCheck, json: bool) -> Outcome {
    if json {
        let text = serde_json::to_string(check).map_err(|error| Failure::text(error.to_string()))?;
        print(&format!("{text}\n"))?;
    } else if check.findings.is_empty() {
        print("Nothing is wrong.\n")?;
    } else {
        print(&table(&check.findings))?;
    }
    let wrong = check.findings.iter().any(|finding| !finding.repaired);
    Ok(i32::from(wrong))
}

fn table(findings: &[Finding]) -> String {
    let mut out = String::from("WHAT\tNAME\tPROBLEM\tREPAIR\n");
    for finding in findings {
        let outcome = match finding {
            Finding { repaired: true, .. } => "done",
            Finding { error, .. } if !error.is_empty() => error,
            Finding { remedy, .. } => remedy,
        };
        let cells = [&finding.kind, &finding.name, &finding.problem, outcome];
        // Names of files may hold anything; it must not reach the terminal.
        let shown = cells.map(|cell| {
            cell.chars()
                .map(|c| if c.is_control() { '?' } else { c })
                .collect::<String>()
        });
        out.push_str(&shown.join("\t"));
        out.push('\n');
    }
    align(&out, DOCKER)
}
