//! `--security-opt`: the client reads seccomp profiles; `systempaths=unconfined` becomes two empty lists.

use super::env::describe;
use api_types::List;

/// Security options as the API takes them.
#[derive(Debug, Default, PartialEq)]
pub struct Security {
    pub options: Vec<String>,
    pub masked_paths: List<String>,
    pub readonly_paths: List<String>,
}

/// Capabilities in their full names, each once, sorted.
pub fn capabilities(texts: &[String]) -> Vec<String> {
    let full = |text: &String| match text.trim().to_ascii_uppercase() {
        name if name == "ALL" || name.starts_with("CAP_") => name,
        name => format!("CAP_{name}"),
    };
    texts
        .iter()
        .map(full)
        .collect::<std::collections::BTreeSet<_>>()
        .into_iter()
        .collect()
}

/// Profiles above this size are a mistake.
const PROFILE_LIMIT: u64 = 4 << 20;

pub fn options(texts: &[String]) -> Result<Security, String> {
    let mut out = Security::default();
    for text in texts {
        let bare = text.split(['=', ':']).next() == Some("no-new-privileges");
        let split = text
            .split_once('=')
            .or_else(|| if bare { None } else { text.split_once(':') });
        let (key, value) = split.unwrap_or((text, ""));
        if value.is_empty() && key != "no-new-privileges" {
            return Err(format!("invalid --security-opt: {text:?}"));
        }
        if text == "systempaths=unconfined" {
            out.masked_paths = List::empty();
            out.readonly_paths = List::empty();
            continue;
        }
        if key == "seccomp" && !matches!(value, "unconfined" | "builtin") {
            let failed =
                |reason: String| format!("opening seccomp profile ({value}) failed: open {value}: {reason}");
            let length = std::fs::metadata(value)
                .map_err(|error| failed(describe(&error)))?
                .len();
            if length > PROFILE_LIMIT {
                return Err(failed(format!("file is larger than {PROFILE_LIMIT} bytes")));
            }
            let bytes = std::fs::read(value).map_err(|error| failed(describe(&error)))?;
            let profile = crate::json::Value::parse(&bytes)
                .map_err(|error| format!("compacting json for seccomp profile ({value}) failed: {error}"))?;
            out.options.push(format!("seccomp={}", profile.compact()));
            continue;
        }
        out.options.push(text.clone());
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        let texts = ["no-new-privileges", "label=disable", "systempaths=unconfined"].map(String::from);
        let security = options(&texts).unwrap();
        assert_eq!(security.options, ["no-new-privileges", "label=disable"]);
        assert!(!security.masked_paths.is_null());
        assert_eq!(
            options(&["foo".into()]),
            Err("invalid --security-opt: \"foo\"".into())
        );
        assert_eq!(
            options(&["seccomp=/nope".into()]),
            Err("opening seccomp profile (/nope) failed: open /nope: no such file or directory".into())
        );
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("p.json");
        std::fs::write(&file, "{ \"b\": 1,\n \"a\": [] }").unwrap();
        let security = options(&[format!("seccomp={}", file.display())]).unwrap();
        assert_eq!(security.options, ["seccomp={\"b\":1,\"a\":[]}"]);
    }
}
