//! `docs/threat-model.md` names a test for every row; this test holds the page to it.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Names of the functions marked `#[test]` below a directory.
fn tests_below(directory: &Path, into: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            tests_below(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            into.extend(tests_of(&text));
        }
    }
}

fn tests_of(text: &str) -> Vec<String> {
    let mut marked = false;
    let mut names = Vec::new();
    for line in text.lines().map(str::trim) {
        let name = line
            .strip_prefix("fn ")
            .or_else(|| line.strip_prefix("async fn "));
        match name {
            Some(rest) if marked => names.extend(rest.split_once('(').map(|(name, _)| name.to_owned())),
            _ => {}
        }
        // Further attributes may stand between the mark and the function.
        marked = line.starts_with("#[test]")
            || line.starts_with("#[tokio::test")
            || marked && line.starts_with("#[");
    }
    names
}

/// The rows of tables whose last column is headed `test`: the row, and the names in that column.
fn rows(page: &str) -> Vec<(String, Vec<String>)> {
    let mut rows = Vec::new();
    let mut named = false;
    for line in page.lines() {
        let Some(cells) = line.strip_prefix('|') else {
            named = false;
            continue;
        };
        let cells: Vec<&str> = cells.trim_end_matches('|').split('|').map(str::trim).collect();
        let last = cells.last().copied().unwrap_or_default();
        if last == "test" {
            named = true;
        } else if named && !last.starts_with("---") {
            let names = last.split('`').skip(1).step_by(2);
            let names = names.map(|name| name.rsplit("::").next().unwrap_or_default().to_owned());
            rows.push((
                cells.first().copied().unwrap_or_default().to_owned(),
                names.collect(),
            ));
        }
    }
    rows
}

#[test]
fn every_row_of_the_threat_model_names_tests_that_exist() {
    let page = std::fs::read_to_string(top().join("docs/threat-model.md")).unwrap();
    let rows = rows(&page);
    assert!(rows.len() > 20, "the tables were not found");
    let mut known = BTreeSet::new();
    for entry in std::fs::read_dir(top().join("crates")).unwrap() {
        let krate = entry.unwrap().path();
        for part in ["src", "tests"] {
            if krate.join(part).is_dir() {
                tests_below(&krate.join(part), &mut known);
            }
        }
    }
    for (row, names) in rows {
        assert!(!names.is_empty(), "no test is named for: {row}");
        for name in names {
            assert!(known.contains(&name), "{row}: there is no test {name}");
        }
    }
}

#[test]
fn what_counts_as_a_test() {
    let text = "#[test]\nfn one() {}\nfn two() {}\n#[tokio::test]\n#[ignore]\nasync fn three() {}\n";
    assert_eq!(tests_of(text), ["one", "three"]);
    let page =
        "| a | test |\n|---|---|\n| x | `m::y`, `z` |\n| w | none |\n\n| b | c |\n|---|---|\n| d | e |\n";
    let expected = [
        ("x".to_owned(), vec!["y".to_owned(), "z".to_owned()]),
        ("w".to_owned(), Vec::new()),
    ];
    assert_eq!(rows(page), expected);
}
