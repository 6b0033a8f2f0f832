//! What is done with an image that `build` has made: it is pushed, and told to other programs.

use serde_json::{Value, json};
use spec::Reference;

use super::pull;
use crate::client::query::name;
use crate::failure::Failure;
use crate::progress::To;
use crate::session::Session;

/// The names of the image, each once.
pub fn names(tags: &[String]) -> Result<Vec<Reference>, Failure> {
    let mut names: Vec<Reference> = Vec::new();
    for tag in tags {
        let reference = Reference::parse_normalized(tag).map_err(|error| Failure::text(error.to_string()))?;
        let reference = reference.or_latest();
        if !names.contains(&reference) {
            names.push(reference);
        }
    }
    Ok(names)
}

/// Pushes the image under all of its names.
pub async fn push(session: &Session, names: &[Reference], to: To) -> Result<(), Failure> {
    for name in names {
        pull::upload(session, name, "", "", to).await?;
    }
    Ok(())
}

/// Writes a document with the keys that buildx has.
pub async fn write_metadata(
    session: &Session,
    path: &str,
    id: &str,
    names: &[Reference],
) -> Result<(), Failure> {
    let reply = session.client.get(&format!("/images/{}/json", name(id))).await?;
    let image: Value = reply.model().await?;
    let mut said = json!({"containerimage.digest": id});
    if let Some(descriptor) = image.get("Descriptor").filter(|descriptor| !descriptor.is_null()) {
        said["containerimage.descriptor"] = descriptor.clone();
    }
    if !names.is_empty() {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        said["image.name"] = json!(names.join(","));
    }
    let mut text = serde_json::to_string_pretty(&said).unwrap_or_default();
    text.push('\n');
    std::fs::write(path, text).map_err(|error| Failure::text(format!("cannot write {path}: {error}")))
}
