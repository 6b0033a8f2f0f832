//! `image explore` and `image diff`: what is inside an image, and what changes from one to another.
//!
//! On a terminal `explore` is a view to move in; without one, or with `--format text`, it is a report. Everything that
//! comes from the image is printed without control characters.

mod view;

use std::io::Write;

use crate::client::query::{Query, name};
use crate::command::{Arity, Command};
use crate::failure::{Failure, Outcome};
use crate::flags::{Flag, Matches};
use crate::format::{printable, size};
use crate::json::Value;
use crate::session::{Session, print};
use crate::terminal;

/// Files of a report's list of what is wasted.
const MOST_WASTED: usize = 20;

pub const EXPLORE: Command = Command::new(
    "explore",
    "Look inside an image: layers, files, wasted space",
    "[OPTIONS] IMAGE",
    Arity::Exactly(1),
    |session, matches| Box::pin(explore(session, matches)),
)
.flags(&[&[
    Flag::text("format", "'text' or 'json'; a view to move in on a terminal"),
    Flag::text("platform", "Platform of the image, e.g. linux/arm64"),
]]);

pub const DIFF: Command = Command::new(
    "diff",
    "Show what changes from one image to another",
    "[OPTIONS] IMAGE IMAGE",
    Arity::Exactly(2),
    |session, matches| Box::pin(diff(session, matches)),
)
.flags(&[&[Flag::text("format", "'text' or 'json'")]]);

fn format(matches: &Matches) -> Result<Option<&str>, Failure> {
    match matches.text("format") {
        None => Ok(None),
        Some(known @ ("text" | "json")) => Ok(Some(known)),
        Some(other) => Err(Failure::text(format!(
            "invalid argument {other:?} for \"--format\": expected text or json"
        ))),
    }
}

async fn explore(session: &Session, matches: &Matches) -> Outcome {
    let format = format(matches)?;
    let platform = super::history::platform_document(matches.text("platform"))?;
    let path = Query::new(format!("/images/{}/contents", name(matches.arg(0))))
        .text("platform", &platform)
        .build();
    let contents = session.client.get(&path).await?.document().await?;
    match format {
        Some("json") => print(&format!("{}\n", contents.indented("    ")))?,
        None if terminal::stdin_is_terminal() && terminal::stdout_is_terminal() => {
            view::run(&contents).map_err(|error| Failure::text(format!("the terminal failed: {error}")))?;
        }
        _ => print(&report(&contents))?,
    }
    Ok(0)
}

async fn diff(session: &Session, matches: &Matches) -> Outcome {
    let format = format(matches)?;
    let path = Query::new(format!("/images/{}/compare", name(matches.arg(0))))
        .text("with", matches.arg(1))
        .build();
    let comparison = session.client.get(&path).await?.document().await?;
    if format == Some("json") {
        print(&format!("{}\n", comparison.indented("    ")))?;
    } else {
        print(&changes(&comparison))?;
    }
    Ok(0)
}

/// Bytes as people read them.
fn bytes(of: &Value, key: &str) -> String {
    size::decimal(of.at(&[key]).float())
}

/// A step without its line breaks.
fn step(layer: &Value) -> String {
    let words = layer.at(&["CreatedBy"]).text();
    printable(&words.split_whitespace().collect::<Vec<_>>().join(" "))
}

fn report(contents: &Value) -> String {
    let mut out = Vec::new();
    let layers = contents.at(&["Layers"]).items();
    for (index, layer) in layers.iter().enumerate() {
        let counts = ["Added", "Changed", "Removed"].map(|key| layer.at(&[key]).int());
        let _ = writeln!(
            out,
            "layer {index}: {}, +{} ~{} -{}  {}",
            bytes(layer, "Bytes"),
            counts[0],
            counts[1],
            counts[2],
            step(layer)
        );
        for entry in layer.at(&["Entries"]).items() {
            let _ = writeln!(out, "  {}", line(entry));
        }
    }
    let _ = writeln!(
        out,
        "{} in {} layers, {} shown, {} wasted",
        bytes(contents, "TotalBytes"),
        layers.len(),
        bytes(contents, "ShownBytes"),
        bytes(contents, "WastedBytes")
    );
    let wasted = contents.at(&["Wasted"]).items();
    for file in wasted.iter().take(MOST_WASTED) {
        let _ = writeln!(out, "  {}", waste(file));
    }
    if wasted.len() > MOST_WASTED {
        let _ = writeln!(out, "  and {} more files", wasted.len() - MOST_WASTED);
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn waste(file: &Value) -> String {
    format!(
        "{:>9}  {} of layer {}, {} in layer {}",
        bytes(file, "Bytes"),
        printable(file.at(&["Path"]).text()),
        file.at(&["Layer"]).int(),
        file.at(&["Why"]).text(),
        file.at(&["HiddenBy"]).int()
    )
}

/// The letter of a change, as `diff` of a container has it.
fn letter(entry: &Value) -> char {
    match entry.at(&["Change"]).text() {
        "added" => 'A',
        "removed" => 'D',
        _ => 'C',
    }
}

fn line(entry: &Value) -> String {
    let path = printable(entry.at(&["Path"]).text());
    let target = entry.at(&["Target"]).text();
    let arrow = match target.is_empty() {
        true => String::new(),
        false => format!(" -> {}", printable(target)),
    };
    if letter(entry) == 'D' {
        return format!("D {path}");
    }
    format!(
        "{} {path}{arrow} ({:o} {}:{}{})",
        letter(entry),
        entry.at(&["Mode"]).int(),
        entry.at(&["Uid"]).int(),
        entry.at(&["Gid"]).int(),
        match entry.at(&["Kind"]).text() {
            "file" => format!(" {}", bytes(entry, "Bytes")),
            kind => format!(" {kind}"),
        }
    )
}

fn changes(comparison: &Value) -> String {
    let mut out = format!("{} layers in common\n", comparison.at(&["SharedLayers"]).int());
    for setting in comparison.at(&["Settings"]).items() {
        out.push_str(&format!(
            "{}: {} -> {}\n",
            setting.at(&["Name"]).text(),
            printable(&setting.at(&["Old"]).compact()),
            printable(&setting.at(&["New"]).compact())
        ));
    }
    for entry in comparison.at(&["Entries"]).items() {
        out.push_str(&line(entry));
        out.push('\n');
    }
    out
}
