//! What differs from run to run, made the same.

/// Ids, digests, times, ages, and the spaces that depend on them.
pub fn neutral(text: &str, dir: &str) -> String {
    let text = text.replace(dir, "<dir>").replace('\r', "");
    let lines = text.lines().map(|line| spaces(&ages(&words(line))));
    lines.collect::<Vec<_>>().join("\n")
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric()
}

/// Hexadecimal words of 64 or 12 digits, digests and times.
fn words(line: &str) -> String {
    let mut out = String::new();
    let mut rest = line;
    while let Some(c) = rest.chars().next() {
        if let Some(length) = time(rest) {
            out.push_str("<time>");
            rest = &rest[length..];
            continue;
        }
        if !is_word(c) {
            out.push(c);
            rest = &rest[c.len_utf8()..];
            continue;
        }
        let end = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        let hex = word
            .bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        match word.len() {
            64 if hex && out.ends_with("sha256:") => {
                out.truncate(out.len() - "sha256:".len());
                out.push_str("<digest>");
            }
            64 | 12 if hex => out.push_str("<id>"),
            _ => out.push_str(word),
        }
        rest = after;
    }
    out
}

/// The length of a time at the beginning: `2026-01-02T03:04:05.678Z`, `2026-01-02 03:04:05.6 +0000 UTC`.
fn time(text: &str) -> Option<usize> {
    let shape = b"0000-00-00T00:00:00";
    let bytes = text.as_bytes();
    let head = bytes.get(..shape.len())?;
    let fits = head.iter().zip(shape).all(|(&b, &s)| match s {
        b'0' => b.is_ascii_digit(),
        b'T' => b == b'T' || b == b' ',
        _ => b == s,
    });
    if !fits {
        return None;
    }
    let tail = text.get(shape.len()..)?;
    let fraction = tail
        .find(|c: char| c != '.' && !c.is_ascii_digit())
        .unwrap_or(tail.len());
    let tail = tail.get(fraction..)?;
    let zone = [" +0000 UTC", "+00:00", " UTC", "Z"]
        .into_iter()
        .find(|zone| tail.starts_with(zone));
    Some(shape.len() + fraction + zone.map_or(0, str::len))
}

/// `2 minutes`, `Less than a second`, `About an hour`.
fn ages(line: &str) -> String {
    const UNITS: [&str; 7] = ["second", "minute", "hour", "day", "week", "month", "year"];
    let mut out = line.replace("Less than a second", "<age>");
    for unit in UNITS {
        for about in ["About a ", "About an "] {
            out = out.replace(&format!("{about}{unit}"), "<age>");
        }
        for word in [format!(" {unit}s"), format!(" {unit}")] {
            while let Some(at) = out.find(&word) {
                let number = out[..at]
                    .rfind(|c: char| !c.is_ascii_digit())
                    .map_or(0, |i| i + 1);
                if number == at {
                    break;
                }
                out.replace_range(number..at + word.len(), "<age>");
            }
        }
    }
    out
}

fn spaces(line: &str) -> String {
    let mut out = String::new();
    let mut run = 0;
    for c in line.trim_end().chars() {
        if c == ' ' {
            run += 1;
            if run > 2 {
                continue;
            }
        } else {
            run = 0;
        }
        out.push(c);
    }
    out
}

#[test]
fn what_differs_is_made_the_same() {
    let id = "0123456789ab";
    let long = "0".repeat(64);
    let line = format!(
        "{id}  x {long} sha256:{long}  2026-01-02T03:04:05.6Z 2026-01-02 03:04:05 +0000 UTC 12 minutes ago|"
    );
    assert_eq!(
        neutral(&line, "/none"),
        "<id>  x <id> <digest>  <time> <time> <age> ago|"
    );
    assert_eq!(
        neutral("Up Less than a second      5 years  a-day", "/none"),
        "Up <age>  <age>  a-day"
    );
    assert_eq!(neutral("About an hour ago\r", "/none"), "<age> ago");
}
