//! Environment variables and labels: given one by one, and in files of lines.

use api_types::Map;
use std::path::Path;

/// Checks one `--env`.
pub fn check_env(text: &str) -> Result<(), String> {
    if text.is_empty() || text.starts_with('=') {
        return Err(format!("invalid environment variable: {text}"));
    }
    Ok(())
}

/// Checks one `--label`.
pub fn check_label(text: &str) -> Result<(), String> {
    if text.split('=').next().unwrap_or_default().trim().is_empty() {
        return Err(format!("invalid label '{text}': empty name"));
    }
    Ok(())
}

/// A variable without a value takes the client's own value; one the client lacks is sent bare, which unsets it.
fn own(text: &str) -> String {
    if text.contains('=') {
        return text.to_owned();
    }
    match std::env::var(text) {
        Ok(value) => format!("{text}={value}"),
        Err(_) => text.to_owned(),
    }
}

/// All variables: files first, then the flags.
pub fn environment(files: &[String], given: &[String]) -> Result<Vec<String>, String> {
    let mut out = Vec::new();
    for file in files {
        for line in lines(file)? {
            match line.contains('=') {
                true => out.push(line),
                // In a file a bare name that the client lacks is left out.
                false => out.extend(std::env::var(&line).ok().map(|value| format!("{line}={value}"))),
            }
        }
    }
    out.extend(given.iter().map(|text| own(text)));
    Ok(last_of_each(out))
}

/// A variable given twice counts once, with its last value.
fn last_of_each(all: Vec<String>) -> Vec<String> {
    let mut out: Vec<String> = Vec::with_capacity(all.len());
    let name = |text: &str| text.split('=').next().unwrap_or_default().to_owned();
    for text in all {
        match out.iter_mut().find(|known| name(known) == name(&text)) {
            Some(slot) => *slot = text,
            None => out.push(text),
        }
    }
    out
}

/// All labels: files first, then the flags.
pub fn labels(files: &[String], given: &[String]) -> Result<Map<String>, String> {
    let mut out = Vec::new();
    for file in files {
        // As Docker does: in a file, a bare key says nothing.
        out.extend(lines(file)?.into_iter().filter(|line| line.contains('=')));
    }
    out.extend(given.iter().cloned());
    Ok(pairs(&out))
}

/// `key=value` texts as a map; a bare key has the empty value.
pub fn pairs(texts: &[String]) -> Map<String> {
    let mut map = Map::empty();
    for text in texts {
        let (key, value) = text.split_once('=').unwrap_or((text, ""));
        map.insert(key.to_owned(), value.to_owned());
    }
    map
}

/// The lines of an env or label file: comments, blank lines and leading space dropped.
fn lines(file: &str) -> Result<Vec<String>, String> {
    let bytes =
        std::fs::read(Path::new(file)).map_err(|error| format!("open {file}: {}", describe(&error)))?;
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let good = bytes.get(..error.valid_up_to()).unwrap_or_default();
        let line = good.iter().filter(|byte| **byte == b'\n').count() + 1;
        format!("invalid env file ({file}): invalid utf8 bytes at line {line}")
    })?;
    let mut out = Vec::new();
    for line in text.lines() {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let name = line.split('=').next().unwrap_or_default();
        if name.trim_end() != name && line.contains('=') || name.contains([' ', '\t']) {
            return Err(format!(
                "invalid env file ({file}): variable '{name}' contains whitespaces"
            ));
        }
        if name.is_empty() {
            return Err(format!(
                "invalid env file ({file}): no variable name on line '{line}'"
            ));
        }
        out.push(line.to_owned());
    }
    Ok(out)
}

/// An I/O error in Go's words.
pub fn describe(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "no such file or directory".into(),
        std::io::ErrorKind::PermissionDenied => "permission denied".into(),
        std::io::ErrorKind::AlreadyExists => "file exists".into(),
        std::io::ErrorKind::IsADirectory => "is a directory".into(),
        std::io::ErrorKind::NotADirectory => "not a directory".into(),
        _ => error.to_string().to_lowercase(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_and_flags() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("env");
        std::fs::write(
            &file,
            "# comment\n\n  A=1 # kept\nB=x=y\nBERTH_SURELY_UNSET_NAME\nC=\n",
        )
        .unwrap();
        let file = file.display().to_string();
        let out = environment(
            std::slice::from_ref(&file),
            &["D=2".into(), "BERTH_SURELY_UNSET_NAME".into()],
        )
        .unwrap();
        assert_eq!(
            out,
            ["A=1 # kept", "B=x=y", "C=", "D=2", "BERTH_SURELY_UNSET_NAME"]
        );
        assert_eq!(
            environment(&["/nope/x".into()], &[]),
            Err("open /nope/x: no such file or directory".into())
        );
        assert!(check_env("=x").is_err() && check_label("=x").is_err() && check_label("a").is_ok());
    }
}
