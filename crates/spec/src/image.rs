//! Image documents: descriptor, manifest, index and configuration, of the OCI image-spec 1.1 and of Docker's
//! schema 2, which differ only in media types and in fields that these types take as well.
//!
//! A document that came from outside is identified by the digest of its bytes. These types read such bytes;
//! the bytes themselves are kept and passed on. Only documents the engine itself makes are serialised from
//! here. Keys that these types do not know survive in `extra`.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::{Digest, Platform};

/// Media types of image documents and layers.
pub mod media_type {
    pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
    pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
    pub const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
    pub const OCI_LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
    pub const OCI_LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
    pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
    pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
    pub const DOCKER_SCHEMA1: &str = "application/vnd.docker.distribution.manifest.v1+prettyjws";
    pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
    pub const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";
    pub const DOCKER_LAYER_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
    pub const DOCKER_LAYER_FOREIGN: &str = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";

    /// Whether the type is an index of manifests.
    pub fn is_index(text: &str) -> bool {
        matches!(text, OCI_INDEX | DOCKER_LIST)
    }

    /// Whether the type is a manifest of one image.
    pub fn is_manifest(text: &str) -> bool {
        matches!(text, OCI_MANIFEST | DOCKER_MANIFEST)
    }
}

/// A pointer to content: type, digest and size.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    pub media_type: String,
    pub digest: Digest,
    /// Size of the content in bytes.
    pub size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    #[serde(
        default,
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "null_as_default"
    )]
    pub annotations: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "null_as_default"
    )]
    pub urls: Vec<String>,
    #[serde(flatten)]
    pub extra: BTreeMap<String, Value>,
}

impl Descriptor {
    /// A descriptor with nothing but the three necessary fields.
    pub fn new(media_type: &str, digest: Digest, size: u64) -> Descriptor {
        Descriptor {
            media_type: media_type.to_owned(),
            digest,
            size,
            platform: None,
            annotations: BTreeMap::new(),
            artifact_type: None,
            urls: Vec::new(),
            extra: BTreeMap::new(),
        }
    }
}

/// A manifest: the configuration and the layers of one image, lowest layer first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    pub schema_version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    pub config: Descriptor,
    #[serde(default, deserialize_with = "null_as_default")]
    pub layers: Vec<Descriptor>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    #[serde(
        default,
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "null_as_default"
    )]
    pub annotations: BTreeMap<String, String>,
    #[serde(flatten)]
    pub extra: BTreeMap<String, Value>,
}

/// An index (Docker: manifest list): one manifest per platform.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    pub schema_version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    #[serde(default, deserialize_with = "null_as_default")]
    pub manifests: Vec<Descriptor>,
    #[serde(
        default,
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "null_as_default"
    )]
    pub annotations: BTreeMap<String, String>,
    #[serde(flatten)]
    pub extra: BTreeMap<String, Value>,
}

/// A manifest or an index, told apart by media type and, where that is missing, by shape.
#[derive(Debug, Clone, PartialEq)]
pub enum Document {
    Manifest(Manifest),
    Index(Index),
}

/// Why bytes are not a manifest or index this engine reads.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    #[error("manifest is not valid JSON: {0}")]
    Json(#[from] serde_json::Error),
    #[error(
        "Docker image manifest schema 1 is no longer supported: push the image again with a current tool"
    )]
    Schema1,
    #[error("unsupported manifest media type {0:?}")]
    MediaType(String),
}

impl Document {
    /// Reads `bytes`, which a registry or archive declared to be of `media_type` (empty if it did not say).
    pub fn parse(media_type: &str, bytes: &[u8]) -> Result<Document, DocumentError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Shape {
            #[serde(default)]
            schema_version: u32,
            #[serde(default)]
            media_type: Option<String>,
            manifests: Option<serde::de::IgnoredAny>,
            config: Option<serde::de::IgnoredAny>,
        }
        let shape: Shape = serde_json::from_slice(bytes)?;
        let declared = shape.media_type.as_deref().unwrap_or(media_type);
        // Parameters such as `; charset=utf-8` are not part of the type.
        let declared = declared.split(';').next().unwrap_or_default().trim();
        if shape.schema_version == 1 || declared == media_type::DOCKER_SCHEMA1 {
            return Err(DocumentError::Schema1);
        }
        // A document that is both an index and a manifest could be read differently by two tools
        // (CVE-2021-41190), so the shape must not contradict the declared type.
        match (media_type::is_index(declared), media_type::is_manifest(declared)) {
            (true, _) if shape.config.is_none() => Ok(Document::Index(serde_json::from_slice(bytes)?)),
            (_, true) if shape.manifests.is_none() => Ok(Document::Manifest(serde_json::from_slice(bytes)?)),
            (false, false) if shape.manifests.is_some() && shape.config.is_none() => {
                Ok(Document::Index(serde_json::from_slice(bytes)?))
            }
            (false, false) if shape.config.is_some() && shape.manifests.is_none() => {
                Ok(Document::Manifest(serde_json::from_slice(bytes)?))
            }
            _ => Err(DocumentError::MediaType(declared.to_owned())),
        }
    }
}

/// An image's configuration: how to run it and how it came to be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ImageConfig {
    #[serde(default)]
    pub architecture: String,
    #[serde(default)]
    pub os: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// RFC 3339 time of creation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    #[serde(default, deserialize_with = "null_as_default")]
    pub config: ContainerSettings,
    #[serde(default, deserialize_with = "null_as_default")]
    pub rootfs: RootFs,
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "history")]
    pub history: Vec<History>,
    #[serde(flatten)]
    pub extra: BTreeMap<String, Value>,
}

impl ImageConfig {
    /// An empty configuration for `platform`.
    pub fn new(platform: &Platform) -> ImageConfig {
        ImageConfig {
            architecture: platform.architecture.clone(),
            os: platform.os.clone(),
            variant: platform.variant.clone(),
            created: None,
            author: None,
            config: ContainerSettings::default(),
            rootfs: RootFs::default(),
            history: Vec::new(),
            extra: BTreeMap::new(),
        }
    }

    /// The platform this configuration names.
    pub fn platform(&self) -> Platform {
        Platform::new(&self.os, &self.architecture, self.variant.as_deref())
    }
}

/// The settings a container of the image starts with (OCI `config`, with the fields Docker adds to it).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ContainerSettings {
    #[serde(
        skip_serializing_if = "String::is_empty",
        deserialize_with = "null_as_default"
    )]
    pub user: String,
    #[serde(
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "null_as_default"
    )]
    pub exposed_ports: BTreeMap<String, Empty>,
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    pub env: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cmd: Option<Vec<String>>,
    #[serde(
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "null_as_default"
    )]
    pub volumes: BTreeMap<String, Empty>,
    #[serde(
        skip_serializing_if = "String::is_empty",
        deserialize_with = "null_as_default"
    )]
    pub working_dir: String,
    #[serde(
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "null_as_default"
    )]
    pub labels: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<String>,
    /// Seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_timeout: Option<i64>,
    #[serde(skip_serializing_if = "is_false", deserialize_with = "null_as_default")]
    pub args_escaped: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<HealthCheck>,
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    pub on_build: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shell: Option<Vec<String>>,
    #[serde(flatten)]
    pub extra: BTreeMap<String, Value>,
}

/// The value of keys that are sets in JSON's only way of saying so.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Empty {}

/// How the health of a container is probed. Times are nanoseconds, 0 is the default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct HealthCheck {
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    pub test: Vec<String>,
    #[serde(skip_serializing_if = "is_zero")]
    pub interval: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub timeout: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub start_period: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub start_interval: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub retries: i64,
}

/// The uncompressed layers, lowest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootFs {
    #[serde(rename = "type", default = "layers")]
    pub kind: String,
    #[serde(default, deserialize_with = "null_as_default")]
    pub diff_ids: Vec<Digest>,
}

impl Default for RootFs {
    fn default() -> RootFs {
        RootFs {
            kind: layers(),
            diff_ids: Vec::new(),
        }
    }
}

/// One step in the making of an image.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_by: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// The step changed only the configuration: no layer stands for it.
    #[serde(default, skip_serializing_if = "is_false")]
    pub empty_layer: bool,
}

fn layers() -> String {
    "layers".to_owned()
}

fn is_false(value: &bool) -> bool {
    !value
}

fn is_zero(value: &i64) -> bool {
    *value == 0
}

/// Most steps of a history that is read: three bytes of a configuration can be a step that takes a hundred in memory.
const MAX_HISTORY: usize = 10_000;

fn history<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<History>, D::Error> {
    struct Steps(Vec<History>);

    struct OfSteps;

    impl<'de> Visitor<'de> for OfSteps {
        type Value = Steps;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "a list of at most {MAX_HISTORY} steps")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Steps, A::Error> {
            let mut steps = Vec::new();
            while let Some(step) = list.next_element()? {
                if steps.len() >= MAX_HISTORY {
                    return Err(serde::de::Error::custom(format_args!(
                        "a history of more than {MAX_HISTORY} steps"
                    )));
                }
                steps.push(step);
            }
            Ok(Steps(steps))
        }
    }

    impl<'de> Deserialize<'de> for Steps {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Steps, D::Error> {
            deserializer.deserialize_seq(OfSteps)
        }
    }

    let steps = Option::<Steps>::deserialize(deserializer)?;
    Ok(steps.map(|Steps(steps)| steps).unwrap_or_default())
}

/// Go writes empty lists and maps as `null`; here they read as empty.
fn null_as_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_dockers_nulls_and_keeps_unknown_keys() {
        let text = r#"{"architecture":"amd64","os":"linux","config":{"Env":null,"Cmd":["sh"],"Volumes":null,
            "Labels":null,"OnBuild":null,"Hostname":"x"},"rootfs":{"type":"layers","diff_ids":null},
            "history":null,"docker_version":"1"}"#;
        let config: ImageConfig = serde_json::from_str(text).unwrap();
        assert_eq!(config.config.cmd.as_deref(), Some(&["sh".to_owned()][..]));
        assert!(config.rootfs.diff_ids.is_empty());
        assert_eq!(config.extra["docker_version"], "1");
        assert_eq!(config.config.extra["Hostname"], "x");
    }

    #[test]
    fn histories_are_bounded() {
        let config = |steps: usize| {
            let history = vec!["{}"; steps].join(",");
            serde_json::from_str::<ImageConfig>(&format!(r#"{{"history":[{history}]}}"#))
        };
        assert_eq!(config(MAX_HISTORY).unwrap().history.len(), MAX_HISTORY);
        let error = config(MAX_HISTORY + 1).unwrap_err().to_string();
        assert!(error.contains("more than 10000 steps"), "{error}");
        let none: ImageConfig = serde_json::from_str(r#"{"history":null}"#).unwrap();
        assert!(none.history.is_empty());
    }

    #[test]
    fn a_document_cannot_be_two_things() {
        let digest = Digest::sha256(b"");
        let both = format!(
            r#"{{"schemaVersion":2,"config":{{"mediaType":"a","digest":"{digest}","size":1}},"layers":[],"manifests":[]}}"#
        );
        assert!(Document::parse("", both.as_bytes()).is_err());
        assert!(Document::parse(media_type::OCI_INDEX, both.as_bytes()).is_err());
        let index = br#"{"schemaVersion":2,"manifests":[]}"#;
        assert!(matches!(Document::parse("", index), Ok(Document::Index(_))));
        assert!(matches!(
            Document::parse("", br#"{"schemaVersion":1}"#),
            Err(DocumentError::Schema1)
        ));
    }
}
