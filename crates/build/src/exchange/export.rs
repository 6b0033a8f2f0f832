//! Writing what a build used, for others.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use image::Images;
use spec::Digest;
use spec::image::{Descriptor, Index, Manifest, media_type};
use store::{Lease, SnapshotId};

use super::document::{CONTENT, Config, Layer, Link, Outcome, Record};
use super::{CONFIG, CacheExport, DIFF_ID};
use crate::cache::Parts;
use crate::error::BuildError;
use crate::export::{epoch, needed};
use crate::plan::Plan;
use crate::solve::{Done, Trace, VertexId, key};
use crate::step::{Build, Tree};

/// In which documents a cache is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Form {
    /// OCI's types, and not Docker's.
    pub oci: bool,
    /// A manifest with the document as its configuration, as registries know images; else an index.
    pub manifest: bool,
}

impl Default for Form {
    fn default() -> Form {
        Form {
            oci: true,
            manifest: true,
        }
    }
}

/// A cache that was written into the store and lasts as long as this.
pub struct Written {
    /// What everything begins with.
    pub top: Descriptor,
    /// Everything that it names.
    pub blobs: Vec<Descriptor>,
    pub(crate) lease: Arc<Lease>,
}

/// Records without layers, collected from one build or several.
#[derive(Default)]
struct Records {
    all: Vec<Record>,
    known: HashMap<Digest, usize>,
    contents: HashMap<Digest, usize>,
}

impl Records {
    /// The record of each vertex, those that were there included.
    fn add(&mut self, build: &Build, done: &Done<Tree>) -> Result<HashMap<VertexId, usize>, BuildError> {
        let mut places: HashMap<VertexId, usize> = HashMap::new();
        // Inputs have lower numbers.
        for (vertex, trace) in &done.traces {
            let own = own_key(trace, done);
            let place = match self.known.get(&own) {
                Some(known) => *known,
                None => {
                    let parts = build.cache.parts(&own)?.unwrap_or_default();
                    let record = Record {
                        results: Vec::new(),
                        digest: trace.definition.to_string(),
                        inputs: self.links(trace, &places, &parts),
                    };
                    let place = self.all.len();
                    self.all.push(record);
                    self.known.insert(own, place);
                    place
                }
            };
            places.insert(*vertex, place);
        }
        Ok(places)
    }

    fn links(
        &mut self,
        trace: &Trace<Tree>,
        places: &HashMap<VertexId, usize>,
        parts: &Parts,
    ) -> Vec<Vec<Link>> {
        let link = |selector: &str, place: usize| Link {
            selector: selector.to_owned(),
            link: i64::try_from(place).unwrap_or(i64::MAX),
        };
        let inputs = trace.inputs.iter().enumerate().map(|(at, input)| {
            let mut ways: Vec<Link> = places
                .get(input)
                .map(|place| link("", *place))
                .into_iter()
                .collect();
            if let Some(Some(content)) = parts.get(at) {
                let place = *self.contents.entry(content.clone()).or_insert_with(|| {
                    self.all.push(Record {
                        results: Vec::new(),
                        digest: content.to_string(),
                        inputs: Vec::new(),
                    });
                    self.all.len() - 1
                });
                ways.push(link(CONTENT, place));
            }
            ways
        });
        inputs.collect()
    }

    fn give(&mut self, place: usize, result: Outcome) {
        if let Some(record) = self.all.get_mut(place)
            && record.results.is_empty()
        {
            record.results.push(result);
        }
    }
}

fn own_key(trace: &Trace<Tree>, done: &Done<Tree>) -> Digest {
    let inputs = trace.inputs.iter().filter_map(|input| done.traces.get(input));
    let identities: Vec<Digest> = inputs.map(|input| input.identity.clone()).collect();
    key(&trace.definition, &identities)
}

/// A cache that is being collected, of one build or of those of several platforms.
#[derive(Default)]
pub struct Draft {
    records: Records,
    layers: Vec<Layer>,
    blobs: Vec<Descriptor>,
    /// The place of a layer by the place of the one below and its blob.
    places: HashMap<(i64, Digest), i64>,
    tops: HashMap<SnapshotId, i64>,
    lease: Option<Arc<Lease>>,
}

impl Draft {
    /// Whether there is no layer that would spare somebody something.
    pub fn is_empty(&self) -> bool {
        self.layers.is_empty()
    }

    /// Adds what one build used; layers that never were get written as blobs. Blocks.
    pub(crate) fn add(
        &mut self,
        build: &Build,
        plan: &Plan,
        target: usize,
        done: &Done<Tree>,
        mode: CacheExport,
    ) -> Result<(), BuildError> {
        let lease = self
            .lease
            .get_or_insert_with(|| Arc::new(build.store.lease()))
            .clone();
        let of_result: HashSet<VertexId> = needed(plan, target)?.into_iter().collect();
        let places = self.records.add(build, done)?;
        for (vertex, trace) in &done.traces {
            let wanted = mode == CacheExport::Max || of_result.contains(vertex);
            // What nothing is made on is an image, which lies where it came from.
            let (Some(tree), false, true) = (&trace.value, trace.inputs.is_empty(), wanted) else {
                continue;
            };
            let (Some(snapshot), Some(place)) = (tree.snapshot, places.get(vertex)) else {
                continue;
            };
            let layer = self.layer(&build.images, snapshot, &lease)?;
            let result = Outcome {
                layer,
                created: Some(tree.created.clone()),
                adds: Some(tree.layer),
            };
            self.records.give(*place, result);
        }
        Ok(())
    }

    /// The place of a tree's topmost layer.
    fn layer(&mut self, images: &Images, top: SnapshotId, lease: &Arc<Lease>) -> Result<i64, BuildError> {
        if let Some(known) = self.tops.get(&top) {
            return Ok(*known);
        }
        let mut below = -1;
        for part in images.layer_parts(top, lease)? {
            let at = (below, part.blob.digest.clone());
            below = match self.places.get(&at) {
                Some(known) => *known,
                None => {
                    let place = i64::try_from(self.layers.len()).unwrap_or(i64::MAX);
                    self.layers.push(Layer {
                        blob: part.blob.digest.clone(),
                        parent: below,
                    });
                    if !self.blobs.iter().any(|blob| blob.digest == part.blob.digest) {
                        let mut blob = part.blob;
                        blob.annotations.insert(DIFF_ID.to_owned(), part.diff.to_string());
                        self.blobs.push(blob);
                    }
                    self.places.insert(at, place);
                    place
                }
            };
        }
        self.tops.insert(top, below);
        Ok(below)
    }

    /// Writes the documents into the store. Blocks.
    pub fn write(self, images: &Images, form: Form) -> Result<Written, BuildError> {
        if form.manifest && !form.oci {
            return Err(BuildError::invalid(
                "a cache in an image manifest has OCI's types: leave out oci-mediatypes=false or say image-manifest=false",
            ));
        }
        let lease = self.lease.unwrap_or_else(|| Arc::new(images.store().lease()));
        let config = Config {
            layers: self.layers,
            records: self.records.all,
        };
        let config = json(&config)?;
        if config.len() as u64 > super::MAX_DOCUMENT {
            return Err(BuildError::invalid(format!(
                "the cache has too many steps to be exported: its list has {} bytes, of which at most {} are read by anyone",
                config.len(),
                super::MAX_DOCUMENT
            )));
        }
        let config = images.put_part(&config, CONFIG, &lease)?;
        let mut blobs: Vec<Descriptor> = self.blobs;
        for blob in &mut blobs {
            blob.media_type = layer_type(&blob.media_type, form.oci).to_owned();
        }
        let (top, kind) = match form {
            Form { manifest: true, .. } => {
                let manifest = Manifest {
                    schema_version: 2,
                    media_type: Some(media_type::OCI_MANIFEST.to_owned()),
                    artifact_type: None,
                    config: config.clone(),
                    layers: blobs.clone(),
                    subject: None,
                    annotations: Default::default(),
                    extra: Default::default(),
                };
                (json(&manifest)?, media_type::OCI_MANIFEST)
            }
            Form { oci, .. } => {
                let kind = if oci {
                    media_type::OCI_INDEX
                } else {
                    media_type::DOCKER_LIST
                };
                let index = Index {
                    schema_version: 2,
                    media_type: Some(kind.to_owned()),
                    artifact_type: None,
                    manifests: blobs.iter().cloned().chain([config.clone()]).collect(),
                    annotations: Default::default(),
                    extra: Default::default(),
                };
                (json(&index)?, kind)
            }
        };
        let top = images.put_part(&top, kind, &lease)?;
        blobs.push(config);
        Ok(Written { top, blobs, lease })
    }
}

fn json(value: &impl serde::Serialize) -> Result<Vec<u8>, BuildError> {
    serde_json::to_vec(value)
        .map_err(|error| BuildError::invalid(format!("the cache cannot be written: {error}")))
}

fn layer_type(known: &str, oci: bool) -> &str {
    match (known, oci) {
        (media_type::OCI_LAYER_GZIP, false) => media_type::DOCKER_LAYER_GZIP,
        (media_type::OCI_LAYER, false) => media_type::DOCKER_LAYER,
        (media_type::DOCKER_LAYER_GZIP, true) => media_type::OCI_LAYER_GZIP,
        (media_type::DOCKER_LAYER, true) => media_type::OCI_LAYER,
        (other, _) => other,
    }
}

/// What an image says of its own layers, by their places in it. Blocks.
pub(crate) fn inline(
    build: &Build,
    plan: &Plan,
    target: usize,
    done: &Done<Tree>,
) -> Result<String, BuildError> {
    let mut records = Records::default();
    let places = records.add(build, done)?;
    let epoch = epoch(plan)?.map(|time| time.to_string());
    for vertex in needed(plan, target)? {
        let Some(trace) = done.traces.get(&vertex).filter(|trace| !trace.inputs.is_empty()) else {
            continue;
        };
        let (Some(place), Some(tree)) = (places.get(&vertex), &trace.value) else {
            continue;
        };
        let (mut layers, mut next) = (0i64, tree.snapshot);
        while let Some(snapshot) = next {
            layers += 1;
            next = build.store.snapshots().get(snapshot)?.parent;
        }
        if layers > 0 {
            let result = Outcome {
                layer: layers - 1,
                created: Some(epoch.clone().unwrap_or_else(|| tree.created.clone())),
                adds: Some(tree.layer),
            };
            records.give(*place, result);
        }
    }
    Ok(STANDARD.encode(json(&records.all)?))
}
