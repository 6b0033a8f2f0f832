//! `build --print-context`: which files of the context the engine may ask for, and which line of the ignore file decided.
//! Of these it asks for what steps use. Nothing is sent for it, and no daemon is asked.

use std::path::Path;

use super::context::{find_dockerfile, rules};
use crate::failure::{Failure, Outcome};
use crate::format::size;
use crate::session::say;
use session::pattern::Ignore;

/// What was seen so far.
#[derive(Default)]
struct Seen {
    files: u64,
    bytes: u64,
    left_out: u64,
}

pub fn run(directory: &Path, file: &str) -> Outcome {
    let root = std::fs::canonicalize(directory)
        .map_err(|error| Failure::text(format!("cannot read {}: {error}", directory.display())))?;
    let dockerfile = match file {
        "-" => None,
        file => Some(find_dockerfile(&root, file)?),
    };
    let rules = rules(&root, dockerfile.as_deref())?;
    let mut seen = Seen::default();
    walk(&root, "", &rules, &mut seen)?;
    say(&format!(
        "{} files, {} may be asked for; {} left out",
        seen.files,
        size::decimal(seen.bytes as f64),
        seen.left_out
    ))?;
    Ok(0)
}

fn walk(root: &Path, relative: &str, rules: &Ignore, seen: &mut Seen) -> Result<(), Failure> {
    let path = root.join(relative);
    let failed = |error: std::io::Error| Failure::text(format!("{}: {error}", path.display()));
    let mut entries: Vec<_> = std::fs::read_dir(&path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(failed)?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let name = entry.file_name().to_string_lossy().into_owned();
        let child = if relative.is_empty() {
            name
        } else {
            format!("{relative}/{name}")
        };
        let meta = entry.metadata().map_err(failed)?;
        let verdict = rules.judge(&child);
        let slash = if meta.is_dir() { "/" } else { "" };
        let why = match rules.decider(&child) {
            Some((line, rule)) => format!("   (line {line}: {rule})"),
            None => String::new(),
        };
        if verdict.ignored {
            say(&format!("left out  {:>10}  {child}{slash}{why}", ""))?;
            seen.left_out += 1;
        } else if !meta.is_dir() {
            say(&format!(
                "offered   {:>10}  {child}{why}",
                size::decimal(meta.len() as f64)
            ))?;
            seen.files += 1;
            seen.bytes += meta.len();
        }
        if meta.is_dir() && !verdict.prune {
            walk(root, &child, rules, seen)?;
        }
    }
    Ok(())
}
