//! JSON documents that users write: a mistake is told with its place in the document.

use std::fs;
use std::path::Path;

use serde::de::DeserializeOwned;

use super::error::CliError;

pub(super) fn read<T: DeserializeOwned>(path: &Path) -> Result<T, CliError> {
    let bytes = fs::read(path).map_err(|error| CliError::io(&path.display().to_string(), error))?;
    parse(path, &bytes)
}

/// `path` is for the message.
pub(super) fn parse<T: DeserializeOwned>(path: &Path, bytes: &[u8]) -> Result<T, CliError> {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let failed = |reason| CliError::Config {
        path: path.to_owned(),
        reason,
    };
    let document = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let place = error.path().to_string();
        match place.as_str() {
            // The document as a whole: what it says of line and column is all there is.
            "." => failed(error.inner().to_string()),
            _ => failed(format!("{place}: {}", error.inner())),
        }
    })?;
    reader.end().map_err(|error| failed(error.to_string()))?;
    Ok(document)
}

#[cfg(test)]
mod tests {
    use super::*;
    use spec::runtime::Spec;

    #[test]
    fn mistakes_are_told_with_their_place() {
        let text = |document: &str| {
            let parsed: Result<Spec, CliError> = parse(Path::new("config.json"), document.as_bytes());
            parsed.unwrap_err().to_string()
        };
        let wrong = text(r#"{"linux":{"resources":{"memory":{"limit":"much"}}}}"#);
        assert!(
            wrong.starts_with("config.json: linux.resources.memory.limit: invalid type: string"),
            "{wrong}"
        );
        let wrong = text(r#"{"mounts":[{"destination":"/a"},{"destination":7}]}"#);
        assert!(wrong.contains("mounts[1].destination: "), "{wrong}");
        let wrong = text(r#"{"linux":{"namespaces":[{"type":"moon"}]}}"#);
        assert!(
            wrong.contains("linux.namespaces[0].type: unknown variant `moon`"),
            "{wrong}"
        );
        assert!(text("{").contains("EOF while parsing"));
        assert!(text("{} {}").contains("trailing characters"));
    }
}
