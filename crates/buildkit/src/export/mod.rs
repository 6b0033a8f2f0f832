//! Where a build's result goes: images here and in registries, archives and directories of the client.
//!
//! Each exporter of the request takes the same result. What it tells about it (names, digests) goes back to the client
//! under the keys that clients know.

mod archive;
mod directory;
mod form;
mod image;

use std::collections::HashMap;
use std::sync::Arc;

use bollard_buildkit_proto::moby::buildkit::v1::SolveRequest;

use crate::error::Failure;
use crate::job::Job;
use crate::result::{Answer, Attributes, Outcome};
use crate::service::Service;

pub use image::tell_push;

/// Where an image goes, on which depends what lies beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum To {
    /// It stays here.
    Here,
    Registry,
    /// OCI's layout, as an archive or a directory.
    Layout,
    /// Docker's archive, which has no place for an index.
    DockerArchive,
}

/// Under which clients say and hear an image's configuration.
const CONFIG: &str = "containerimage.config";

/// What all exporters of one build see.
struct Export<'a> {
    service: &'a Service,
    job: &'a Arc<Job>,
    /// By platform; a single one has an empty name.
    outcomes: Vec<(String, Arc<Outcome>)>,
}

/// Refuses what is not understood of exporters, before anything is built.
pub fn check(request: &SolveRequest) -> Result<(), Failure> {
    for exporter in &request.exporters {
        if matches!(exporter.r#type.as_str(), "image" | "moby" | "docker" | "oci") {
            form::read(&Attributes::of(exporter))?;
        }
    }
    names(request).map(|_| ())
}

/// Whether an image comes of it beside which something can be said.
pub fn makes_image(request: &SolveRequest) -> bool {
    let mut kinds = request.exporters.iter().map(|exporter| exporter.r#type.as_str());
    kinds.any(|kind| matches!(kind, "image" | "moby" | "oci"))
}

/// The names that the image of a build gets, of all of its exporters.
pub fn names(request: &SolveRequest) -> Result<Vec<spec::Reference>, Failure> {
    let mut names = Vec::new();
    for exporter in &request.exporters {
        names.extend(Attributes::of(exporter).names()?);
    }
    Ok(names)
}

/// Whether files get no later times than the build's own.
pub fn rewrites(request: &SolveRequest) -> bool {
    let mut exporters = request.exporters.iter();
    exporters.any(|exporter| Attributes::of(exporter).flag("rewrite-timestamp"))
}

/// Exports what the client said is the result; what clients are told about it.
pub async fn export(
    service: &Service,
    job: &Arc<Job>,
    answer: &Answer,
) -> Result<HashMap<String, String>, Failure> {
    let mut response = HashMap::new();
    let exporters = &job.request.exporters;
    if exporters.is_empty() {
        return Ok(response);
    }
    let find = |(platform, name): &(String, String)| {
        let outcome = job.outcome(name);
        let outcome = outcome.ok_or_else(|| Failure::not_found(format!("unknown reference id: {name}")));
        outcome.map(|outcome| (platform.clone(), outcome))
    };
    let export = Export {
        service,
        job,
        outcomes: answer.results.iter().map(find).collect::<Result<_, _>>()?,
    };
    if export.outcomes.is_empty() {
        return Err(Failure::invalid(
            "there is nothing to export: the build has no result",
        ));
    }
    for (platform, outcome) in &export.outcomes {
        give_config(&answer.metadata, platform, outcome)?;
    }
    for (number, exporter) in exporters.iter().enumerate() {
        let attributes = Attributes::of(exporter);
        let said = match exporter.r#type.as_str() {
            "image" => image::export(&export, &attributes).await,
            // Clients take the configuration's digest for the image's ID where they are told it.
            "moby" => image::export(&export, &attributes).await.map(|mut said| {
                match service.images.ids() {
                    ::image::ImageIds::Manifest => drop(said.remove(image::CONFIG_DIGEST)),
                    // As Docker's older store, which knows no manifests.
                    ::image::ImageIds::Config => {
                        let config = said.get(image::CONFIG_DIGEST).cloned();
                        said.extend(config.map(|config| (image::DIGEST.to_owned(), config)));
                    }
                }
                said
            }),
            "docker" | "oci" => archive::image(&export, number, &exporter.r#type, &attributes).await,
            "tar" => archive::files(&export, number).await,
            "local" => directory::export(&export, number, &attributes).await,
            other => Err(Failure::invalid(format!("exporter {other:?} could not be found"))),
        };
        response.extend(said?);
    }
    Ok(response)
}

/// What clients that make definitions say about the image of the result.
fn give_config(
    metadata: &HashMap<String, Vec<u8>>,
    platform: &str,
    outcome: &Outcome,
) -> Result<(), Failure> {
    let key = match platform {
        "" => CONFIG.to_owned(),
        platform => format!("{CONFIG}/{platform}"),
    };
    if let Some(text) = metadata.get(&key) {
        let config = serde_json::from_slice(text).map_err(|error| {
            Failure::invalid(format!("{key}: this is no configuration of an image: {error}"))
        })?;
        outcome.solution.give_config(config);
    }
    Ok(())
}
