//! What a build made: one result, or one for each platform.

use std::collections::{BTreeMap, HashMap};
use std::os::fd::OwnedFd;

use ::session::control::is_on;
use bollard_buildkit_proto::moby::buildkit::v1::Exporter;
use build::{BuildError, Solution};
use image::Image;
use spec::image::ImageConfig;
use spec::{Platform, Reference};
use store::SnapshotId;

use crate::provenance::Provenance;
use crate::sbom::Bill;

/// Something that was solved: files and, where it came from a Dockerfile, a configuration.
pub struct Outcome {
    pub platform: Platform,
    pub solution: Solution,
    /// Where it is to be said beside the image.
    pub provenance: Option<Provenance>,
    /// What it holds, where it was scanned.
    pub bills: Vec<Bill>,
}

impl Outcome {
    pub async fn image(&self) -> Result<&Image, BuildError> {
        self.solution.image().await
    }

    pub async fn tag(&self, names: &[Reference]) -> Result<Image, BuildError> {
        self.solution.tag(names).await
    }

    pub fn config(&self) -> Result<ImageConfig, BuildError> {
        self.solution.config()
    }

    pub fn snapshot(&self) -> Result<Option<SnapshotId>, BuildError> {
        self.solution.snapshot()
    }

    pub fn files(&self) -> Result<Option<OwnedFd>, BuildError> {
        self.solution.files()
    }
}

/// What is to be exported: names of what was solved, by platform.
#[derive(Debug, Clone, Default)]
pub struct Answer {
    /// In the order of the platforms; a single result has an empty name.
    pub results: Vec<(String, String)>,
    pub metadata: HashMap<String, Vec<u8>>,
}

/// `name=value` attributes of an exporter.
#[derive(Debug, Clone, Default)]
pub struct Attributes(pub BTreeMap<String, String>);

impl Attributes {
    pub fn of(exporter: &Exporter) -> Attributes {
        Attributes(exporter.attrs.clone().into_iter().collect())
    }

    pub fn get(&self, key: &str) -> Option<&str> {
        self.0
            .get(key)
            .map(String::as_str)
            .filter(|value| !value.is_empty())
    }

    /// Whether a switch is on; `true`, `1` and the bare name mean yes.
    pub fn flag(&self, key: &str) -> bool {
        self.flag_or(key, false)
    }

    pub fn flag_or(&self, key: &str, default: bool) -> bool {
        match self.0.get(key).map(String::as_str) {
            None => default,
            Some(value) => is_on(value),
        }
    }

    /// The names that an image gets.
    pub fn names(&self) -> Result<Vec<Reference>, crate::error::Failure> {
        let names = self.get("name").unwrap_or_default();
        names
            .split(',')
            .filter(|name| !name.is_empty())
            .map(|name| {
                Reference::parse_normalized(name)
                    .map(|reference| reference.or_latest())
                    .map_err(|error| {
                        crate::error::Failure::invalid(format!("invalid name {name:?}: {error}"))
                    })
            })
            .collect()
    }
}
