//! Path patterns: Go's `filepath.Match` with `**`, as COPY sources, `--exclude` and `.dockerignore` use them.
//!
//! `*` and `?` stop at slashes, `[a-z]` and `[^a-z]` are classes, a backslash takes the meaning away, `**`
//! stands for any number of directories. A broken pattern is an error, not a pattern that matches nothing.

mod glob;
mod ignore;

pub use glob::{Pattern, PatternError, has_wildcard};
pub use ignore::{Ignore, Verdict};

/// A slash-separated path without empty, `.` and `..` parts and without a leading slash; `..` cannot climb
/// above the start.
pub fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// Whether the path climbs above where it starts.
pub fn climbs_out(path: &str) -> bool {
    let mut depth = 0i64;
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => depth -= 1,
            _ => depth += 1,
        }
        if depth < 0 {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests;
