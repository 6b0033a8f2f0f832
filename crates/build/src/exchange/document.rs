//! The document of a cache, as BuildKit writes it.
//!
//! ```text
//!   layers   [{blob, parent}]                        parent: index of the layer below, -1 for none
//!   records  [{digest, inputs: [[{link, selector}]], layers: [{layer, createdAt}]}]
//! ```
//!
//! An input may be known in several ways, a link each. A link with the selector [`CONTENT`] leads to a record that has no
//! inputs and whose digest is that of the content that is used. What is not said is 0 or empty, and lists may be `null`.

use serde::{Deserialize, Deserializer, Serialize};
use spec::Digest;

/// The selector of links to content.
pub const CONTENT: &str = "content";

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Config {
    #[serde(default, deserialize_with = "list", skip_serializing_if = "Vec::is_empty")]
    pub layers: Vec<Layer>,
    #[serde(default, deserialize_with = "list", skip_serializing_if = "Vec::is_empty")]
    pub records: Vec<Record>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Layer {
    pub blob: Digest,
    #[serde(default)]
    pub parent: i64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    #[serde(
        rename = "layers",
        default,
        deserialize_with = "list",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub results: Vec<Outcome>,
    /// Not always one of ours: BuildKit has digests of kinds that no content has.
    pub digest: String,
    #[serde(default, deserialize_with = "list", skip_serializing_if = "Vec::is_empty")]
    pub inputs: Vec<Vec<Link>>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// The topmost layer.
    #[serde(default)]
    pub layer: i64,
    #[serde(rename = "createdAt", default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// Whether the step itself added the topmost layer; others do not say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adds: Option<bool>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Link {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub selector: String,
    #[serde(default)]
    pub link: i64,
}

fn list<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Vec<T>, D::Error> {
    Ok(Option::<Vec<T>>::deserialize(from)?.unwrap_or_default())
}
