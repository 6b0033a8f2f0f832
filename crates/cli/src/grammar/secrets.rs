//! `--secret id=ID[,src=PATH|,env=NAME]`: what a build step may see and no image keeps.

use std::collections::BTreeMap;
use std::io::Read;

use super::csv;

/// The largest secret.
const LARGEST: u64 = 500 << 10;

/// Where a secret is.
#[derive(Debug, PartialEq, Eq)]
enum Source {
    File(String),
    Variable(String),
}

/// Reads one flag; without a source, the id is the name of a variable that is set, or else of a file.
fn secret(text: &str) -> Result<(String, Source), String> {
    let (mut id, mut kind, mut file, mut variable) = (None, None, None, None);
    for field in csv::fields(text).map_err(|error| format!("invalid secret {text:?}: {error}"))? {
        let Some((key, value)) = field.split_once('=') else {
            return Err(format!("invalid field '{field}' must be a key=value pair"));
        };
        match key.to_ascii_lowercase().as_str() {
            "id" => id = Some(value.to_owned()),
            "type" => kind = Some(value.to_owned()),
            "src" | "source" => file = Some(value.to_owned()),
            "env" => variable = Some(value.to_owned()),
            _ => {
                return Err(format!(
                    "unexpected key '{key}' in '{field}': use id, src, env or type"
                ));
            }
        }
    }
    if let Some(kind) = kind.as_deref().filter(|kind| !matches!(*kind, "file" | "env")) {
        return Err(format!("unsupported secret type {kind:?}: use file or env"));
    }
    if kind.as_deref() == Some("env") && variable.is_none() {
        variable = file.take();
    }
    let source = match (file, variable, &id) {
        (Some(_), Some(_), _) => return Err(format!("secret {text:?} has both a file and a variable")),
        (Some(file), None, _) => Source::File(file),
        (None, Some(variable), _) => Source::Variable(variable),
        (None, None, Some(id)) if std::env::var_os(id).is_some() => Source::Variable(id.clone()),
        (None, None, Some(id)) => Source::File(id.clone()),
        (None, None, None) => return Err("a secret needs an id".to_owned()),
    };
    let id = id.or_else(|| match &source {
        Source::File(path) => path.rsplit('/').next().map(str::to_owned),
        Source::Variable(name) => Some(name.clone()),
    });
    match id.filter(|id| !id.is_empty()) {
        Some(id) => Ok((id, source)),
        None => Err("a secret needs an id".to_owned()),
    }
}

/// Whether a flag can be read.
pub fn check_secret(text: &str) -> Result<(), String> {
    secret(text).map(|_| ())
}

/// The secrets of all flags by id.
pub fn secrets(flags: &[String]) -> Result<BTreeMap<String, Vec<u8>>, String> {
    let mut all = BTreeMap::new();
    for text in flags {
        let (id, source) = secret(text)?;
        let content = match &source {
            Source::Variable(name) => match std::env::var_os(name) {
                Some(value) => std::os::unix::ffi::OsStringExt::into_vec(value),
                None => return Err(format!("secret {id}: the variable {name} is not set")),
            },
            Source::File(path) => {
                let fail = |error: std::io::Error| format!("secret {id}: cannot read {path}: {error}");
                let file = std::fs::File::open(path).map_err(fail)?;
                let mut bytes = Vec::new();
                file.take(LARGEST + 1).read_to_end(&mut bytes).map_err(fail)?;
                bytes
            }
        };
        if content.len() as u64 > LARGEST {
            return Err(format!("secret {id} is larger than {LARGEST} bytes"));
        }
        all.insert(id, content);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_secrets_are() {
        let file = |path: &str| Source::File(path.to_owned());
        assert_eq!(secret("id=a,src=/x/y").unwrap(), ("a".to_owned(), file("/x/y")));
        assert_eq!(secret("src=/x/y").unwrap(), ("y".to_owned(), file("/x/y")));
        let variable = Source::Variable("V".to_owned());
        assert_eq!(secret("id=a,env=V").unwrap(), ("a".to_owned(), variable));
        assert_eq!(
            secret("id=a,type=env,src=V").unwrap().1,
            Source::Variable("V".to_owned())
        );
        assert_eq!(secret("id=NO_SUCH_VARIABLE").unwrap().1, file("NO_SUCH_VARIABLE"));
        for (text, words) in [
            ("a", "key=value"),
            ("id=a,x=y", "unexpected key"),
            ("id=a,src=b,env=c", "both"),
            ("type=x,id=a", "unsupported secret type"),
            ("env=", "needs an id"),
        ] {
            let error = secret(text).unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        }
        assert!(
            secrets(&["id=a,src=/nosuch".to_owned()])
                .unwrap_err()
                .contains("secret a: cannot read /nosuch")
        );
    }
}
