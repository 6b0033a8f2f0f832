//! Findings as people read them, and as BuildKit's clients do (`result.json` of `--call check`).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::{Finding, Outline, Target};
use crate::source::{Diagnostic, Source};

/// How many lines around a finding are shown.
const AROUND: usize = 2;

/// The findings as text, each with its lines.
pub fn text(source: &Source, findings: &[Finding], error: Option<&Diagnostic>) -> String {
    let mut out = String::new();
    for finding in findings {
        let (first, last) = (finding.at.line(), finding.at.last_line());
        out.push_str(&format!(
            "WARNING: {} - {}\n{}: {}\n{}:{first}\n",
            finding.rule.name,
            finding.rule.url(),
            finding.rule.description,
            finding.detail,
            source.name()
        ));
        out.push_str(&lines(source, first, last));
        out.push('\n');
    }
    if let Some(error) = error {
        out.push_str(&format!("ERROR: {error}\n"));
    }
    out
}

fn lines(source: &Source, first: usize, last: usize) -> String {
    let from = first.saturating_sub(AROUND).max(1);
    let to = (last + AROUND).min(source.lines().len());
    let mut out = "--------------------\n".to_owned();
    for number in from..=to {
        let mark = if (first..=last).contains(&number) {
            ">>>"
        } else {
            "   "
        };
        let text: String = source
            .line(number)
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect();
        out.push_str(format!("{number:>4} | {mark} {text}").trim_end());
        out.push('\n');
    }
    out.push_str("--------------------\n");
    out
}

fn location(first: usize, last: usize) -> Value {
    json!({
        "sourceIndex": 0,
        "ranges": [{"start": {"line": first}, "end": {"line": last}}],
    })
}

fn encoded(source: &Source) -> String {
    let mut text = source.lines().join("\n");
    text.push('\n');
    STANDARD.encode(text)
}

/// The findings as a document.
pub fn document(source: &Source, findings: &[Finding], error: Option<&Diagnostic>) -> Value {
    let warnings: Vec<Value> = findings
        .iter()
        .map(|finding| {
            json!({
                "ruleName": finding.rule.name,
                "description": finding.rule.description,
                "url": finding.rule.url(),
                "detail": finding.detail,
                "location": location(finding.at.line(), finding.at.last_line()),
            })
        })
        .collect();
    let sources = json!([{"filename": source.name(), "language": "Dockerfile", "data": encoded(source)}]);
    let mut document = json!({"warnings": warnings, "sources": sources});
    if let (Some(error), Some(map)) = (error, document.as_object_mut()) {
        let line = error.snippet.as_ref().map_or(1, |snippet| snippet.line());
        map.insert(
            "buildError".to_owned(),
            json!({"message": error.message, "location": location(line, line)}),
        );
    }
    document
}

/// What a target asks for, as a document.
pub fn outline_document(source: &Source, outline: &Outline) -> Value {
    let items = |list: &[super::OutlineItem]| -> Vec<Value> {
        let item = |item: &super::OutlineItem| json!({"name": item.id, "required": item.required, "location": location(item.line, item.line)});
        list.iter().map(item).collect()
    };
    let arguments: Vec<Value> = outline
        .arguments
        .iter()
        .map(|argument| {
            json!({
                "name": argument.name,
                "description": argument.description,
                "value": argument.value,
                "location": location(argument.line, argument.line),
            })
        })
        .collect();
    let cache =
        |cache: &super::OutlineItem| json!({"ID": cache.id, "location": location(cache.line, cache.line)});
    let caches: Vec<Value> = outline.caches.iter().map(cache).collect();
    json!({
        "name": outline.name,
        "description": outline.description,
        "args": arguments,
        "secrets": items(&outline.secrets),
        "ssh": items(&outline.agents),
        "cache": caches,
        "sources": [encoded(source)],
    })
}

/// What a target asks for, as text.
pub fn outline_text(outline: &Outline) -> String {
    let mut out = String::new();
    if !outline.name.is_empty() {
        out.push_str(&format!("TARGET:      {}\n", outline.name));
    }
    if let Some(description) = &outline.description {
        out.push_str(&format!("DESCRIPTION: {description}\n"));
    }
    let rows = |title: &str, rows: Vec<[String; 3]>| -> String {
        if rows.is_empty() {
            return String::new();
        }
        table(title, rows)
    };
    let arguments = outline.arguments.iter().map(|argument| {
        [
            argument.name.clone(),
            argument.value.clone().unwrap_or_default(),
            argument.description.clone().unwrap_or_default(),
        ]
    });
    out.push_str(&rows("BUILD ARG\tVALUE\tDESCRIPTION", arguments.collect()));
    for (title, list) in [("SECRET", &outline.secrets), ("SSH", &outline.agents)] {
        let list = list.iter().map(|item| {
            let required = if item.required { "required" } else { "" };
            [item.id.clone(), required.to_owned(), String::new()]
        });
        out.push_str(&rows(&format!("{title}\tREQUIRED\t"), list.collect()));
    }
    out
}

/// All stages, as a document.
pub fn targets_document(source: &Source, targets: &[Target]) -> Value {
    let list: Vec<Value> = targets
        .iter()
        .map(|target| {
            json!({
                "name": target.name,
                "default": target.default,
                "description": target.description,
                "base": target.base,
                "platform": target.platform,
                "location": location(target.line, target.line),
            })
        })
        .collect();
    json!({"targets": list, "sources": [encoded(source)]})
}

/// All stages, as text.
pub fn targets_text(targets: &[Target]) -> String {
    let name = |target: &Target| match (target.name.as_str(), target.default) {
        ("", true) => "(default)".to_owned(),
        (name, true) => format!("{name} (default)"),
        (name, false) => name.to_owned(),
    };
    // A stage without a name can only be asked for by its number.
    let shown = targets
        .iter()
        .filter(|target| target.default || !target.name.is_empty());
    let rows = shown.map(|target| {
        let description = target.description.clone().unwrap_or_default();
        [name(target), target.base.clone(), description]
    });
    table("TARGET\tBASE\tDESCRIPTION", rows.collect())
        .trim_start()
        .to_owned()
}

fn table(title: &str, rows: Vec<[String; 3]>) -> String {
    let mut parts = title.split('\t').map(str::to_owned);
    let head: [String; 3] = std::array::from_fn(|_| parts.next().unwrap_or_default());
    let all: Vec<[String; 3]> = std::iter::once(head).chain(rows).collect();
    let width = |column: usize| {
        let widths = all
            .iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count());
        widths.max().unwrap_or(0)
    };
    let (first, second) = (width(0), width(1));
    let mut out = "\n".to_owned();
    for [a, b, c] in &all {
        out.push_str(format!("{a:first$}   {b:second$}   {c}").trim_end());
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_shown_around_what_is_meant() {
        let source = Source::new("D", b"one\ntwo\nthree\nfour\nfive\nsix\n");
        assert_eq!(
            lines(&source, 4, 4),
            "--------------------\n   2 |     two\n   3 |     three\n   4 | >>> four\n   5 |     five\n   6 |     six\n--------------------\n"
        );
    }
}
