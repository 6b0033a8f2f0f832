//! What the engine tells about a result, told to other programs.

use crate::failure::Failure;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};
use session::control::DESCRIPTOR;
use spec::Reference;
use std::collections::HashMap;

/// What is for this client only.
const OWN: &str = "berth.";

/// The names of the image, each once.
pub fn names(tags: &[String]) -> Result<Vec<Reference>, Failure> {
    let mut names: Vec<Reference> = Vec::new();
    for tag in tags {
        let reference = Reference::parse_normalized(tag).map_err(|error| Failure::text(error.to_string()))?;
        if reference.digest().is_some() {
            return Err(Failure::text(format!(
                "invalid tag {tag:?}: a name to be given cannot have a digest"
            )));
        }
        let reference = reference.or_latest();
        if !names.contains(&reference) {
            names.push(reference);
        }
    }
    Ok(names)
}

/// Documents go as text in base64, everything else as it is.
fn value(text: &str) -> Value {
    let decoded = STANDARD.decode(text).ok();
    let document = decoded.and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
    document
        .filter(|document| document.is_object() || document.is_array())
        .unwrap_or_else(|| Value::String(text.to_owned()))
}

/// What begins the image that an exporter wrote blob by blob. Other engines tell of one image only.
pub fn descriptor(said: &HashMap<String, String>, exporter: usize) -> Result<Value, Failure> {
    let own = format!("{DESCRIPTOR}.");
    let found = match said.keys().any(|key| key.starts_with(&own)) {
        true => said.get(&format!("{own}{exporter}")),
        false => said.get("containerimage.descriptor"),
    };
    match found.map(|text| value(text)) {
        Some(descriptor @ Value::Object(_)) => Ok(descriptor),
        _ => Err(Failure::text(
            "the engine does not say what the image's manifest is",
        )),
    }
}

/// Writes a document with the keys that buildx has.
pub fn write_metadata(path: &str, said: &HashMap<String, String>) -> Result<(), Failure> {
    let mut keys: Vec<&String> = said
        .keys()
        .filter(|key| !key.starts_with(OWN) && *key != "cache.manifest")
        .collect();
    keys.sort();
    let mut document = Map::new();
    for key in keys {
        if let Some(text) = said.get(key) {
            document.insert(key.clone(), value(text));
        }
    }
    let mut text = serde_json::to_string_pretty(&Value::Object(document)).unwrap_or_default();
    text.push('\n');
    std::fs::write(path, text).map_err(|error| Failure::text(format!("cannot write {path}: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_told_from_texts() {
        let document = STANDARD.encode(br#"{"digest":"sha256:a"}"#);
        assert_eq!(value(&document)["digest"], "sha256:a");
        // This is base64 of something, too.
        for text in ["sha256:abcd", "abcd", "MTIz"] {
            assert_eq!(value(text), Value::String(text.to_owned()));
        }
        let said = HashMap::from([
            ("containerimage.descriptor".to_owned(), document),
            ("berth.explained".to_owned(), "[]".to_owned()),
        ]);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("told");
        write_metadata(&path.display().to_string(), &said).unwrap();
        let told: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        assert_eq!(told.as_object().unwrap().len(), 1);
        assert!(descriptor(&HashMap::new(), 0).is_err());
    }

    #[test]
    fn each_layout_has_its_own_descriptor() {
        let document = |digest: &str| STANDARD.encode(format!(r#"{{"digest":"{digest}"}}"#));
        let mut said = HashMap::from([("containerimage.descriptor".to_owned(), document("last"))]);
        assert_eq!(descriptor(&said, 0).unwrap()["digest"], "last");
        said.insert(format!("{DESCRIPTOR}.0"), document("own"));
        assert_eq!(descriptor(&said, 0).unwrap()["digest"], "own");
        assert!(descriptor(&said, 1).is_err());
    }
}
