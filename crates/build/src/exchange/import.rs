//! Reading what others exported, and using it.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::future::try_join_all;
use image::{Images, LayerPart};
use spec::Digest;
use spec::image::{Descriptor, Document, Manifest, media_type};
use store::Lease;

use super::document::{CONTENT, Config, Layer, Record};
use super::{CONFIG, DIFF_ID, INLINE, MAX_DOCUMENT, Origin};
use crate::cache::Parts;
use crate::error::BuildError;
use crate::solve::key;
use crate::step::{Tree, now};

/// Most records of a cache, most inputs with the ways in which they are known, most layers, and most layers on top of each
/// other. What images carry each for itself counts together.
const MAX_RECORDS: usize = 50_000;
const MAX_LINKS: usize = 400_000;
const MAX_LAYERS: usize = 20_000;
const MAX_STACK: usize = 512;
/// Most images of an index that are looked into.
const MAX_IMAGES: usize = 64;

/// What somebody exported of a cache.
pub struct Imported {
    title: String,
    origin: Arc<dyn Origin>,
    layers: Vec<Stacked>,
    entries: HashMap<Digest, Arc<Entry>>,
    /// How much was read for it.
    records: usize,
    links: usize,
}

/// A layer that can be brought here, unless something about it is missing.
struct Stacked {
    part: Option<LayerPart>,
    below: Option<usize>,
}

/// A result by one of its keys.
struct Entry {
    identity: Digest,
    parts: Parts,
    result: Option<At>,
}

struct At {
    top: usize,
    adds: bool,
    created: String,
}

impl fmt::Debug for Imported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} with {} results", self.title, self.entries.len())
    }
}

impl fmt::Display for Imported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.title)
    }
}

/// Reads the cache at `origin`, which people know as `title`. An image that carries none is an empty one.
pub async fn import(origin: Arc<dyn Origin>, title: &str) -> Result<Imported, BuildError> {
    let mut imported = Imported::empty(title, origin.clone());
    let wrong = |detail: String| BuildError::invalid(format!("{title} is no build cache: {detail}"));
    let (config, blobs, images) = match read(&origin.top().await?).map_err(&wrong)? {
        Document::Index(index) => {
            let config = index.manifests.iter().find(|of| of.media_type == CONFIG);
            (config.cloned(), index.manifests, Vec::new())
        }
        Document::Manifest(manifest) if manifest.config.media_type == CONFIG => {
            (Some(manifest.config), manifest.layers, Vec::new())
        }
        Document::Manifest(manifest) => (None, Vec::new(), vec![manifest]),
    };
    if let Some(config) = config {
        let text = document(&*origin, &config).await?;
        let add = move |imported: &mut Imported| {
            let config = serde_json::from_slice(&text).map_err(|error| error.to_string())?;
            imported.add(config, &blobs)
        };
        return imported.take_in(add).await?.map_err(&wrong);
    }
    for manifest in images {
        imported = of_image(imported, manifest).await?.map_err(&wrong)?;
    }
    // One after the other, so that only what is taken in of them is held.
    let single = |of: &&Descriptor| media_type::is_manifest(&of.media_type);
    for of in blobs.iter().filter(single).take(MAX_IMAGES) {
        if let Document::Manifest(manifest) = read(&document(&*origin, of).await?).map_err(&wrong)? {
            imported = of_image(imported, manifest).await?.map_err(&wrong)?;
        }
    }
    Ok(imported)
}

/// Takes in what an image carries.
async fn of_image(imported: Imported, manifest: Manifest) -> Result<Result<Imported, String>, BuildError> {
    let text = document(&*imported.origin, &manifest.config).await?;
    let add = move |imported: &mut Imported| imported.add_inline(&manifest, &text);
    imported.take_in(add).await
}

/// A document that the first one names, where it is small enough.
async fn document(origin: &dyn Origin, of: &Descriptor) -> Result<Vec<u8>, BuildError> {
    let too_large = |size: u64| {
        let digest = &of.digest;
        BuildError::invalid(format!(
            "the document {digest} has {size} bytes, at most {MAX_DOCUMENT} are read"
        ))
    };
    if of.size > MAX_DOCUMENT {
        return Err(too_large(of.size));
    }
    let bytes = origin.document(of).await?;
    match bytes.len() as u64 {
        size if size > MAX_DOCUMENT => Err(too_large(size)),
        _ => Ok(bytes),
    }
}

/// A manifest or an index, which need not say which of both it is.
fn read(bytes: &[u8]) -> Result<Document, String> {
    #[derive(serde::Deserialize)]
    struct Shape {
        manifests: Option<serde::de::IgnoredAny>,
    }
    let shape: Shape = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    let kind = match shape.manifests {
        Some(_) => media_type::OCI_INDEX,
        None => media_type::OCI_MANIFEST,
    };
    Document::parse(kind, bytes).map_err(|error| error.to_string())
}

/// By what a record is known.
struct Name {
    own: Digest,
    identity: Digest,
    parts: Parts,
}

impl Imported {
    fn empty(title: &str, origin: Arc<dyn Origin>) -> Imported {
        Imported {
            title: title.to_owned(),
            origin,
            layers: Vec::new(),
            entries: HashMap::new(),
            records: 0,
            links: 0,
        }
    }

    /// Has `add` add to it, which may take a while.
    async fn take_in(
        mut self,
        add: impl FnOnce(&mut Imported) -> Result<(), String> + Send + 'static,
    ) -> Result<Result<Imported, String>, BuildError> {
        let add = move || add(&mut self).map(|()| self);
        Ok(tokio::task::spawn_blocking(add).await?)
    }

    /// Whether nobody is spared anything by it.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// By what the result with this key is known.
    pub(crate) fn identity(&self, key: &Digest) -> Option<Digest> {
        self.entries.get(key).map(|entry| entry.identity.clone())
    }

    /// By which content of its inputs it is known.
    pub(crate) fn parts(&self, key: &Digest) -> Option<Parts> {
        self.entries.get(key).map(|entry| entry.parts.clone())
    }

    /// Brings the result with this key here; `None` where only how it was made is known.
    pub(crate) async fn bring(
        &self,
        images: &Images,
        lease: &Arc<Lease>,
        key: &Digest,
    ) -> Result<Option<Tree>, BuildError> {
        let Some(at) = self.entries.get(key).and_then(|entry| entry.result.as_ref()) else {
            return Ok(None);
        };
        let layers = self.stack(at.top);
        let unpacked = {
            let (images, layers, lease) = (images.clone(), layers.clone(), lease.clone());
            tokio::task::spawn_blocking(move || images.unpacked_parts(&layers, &lease)).await?
        };
        let missing = layers.iter().skip(unpacked);
        try_join_all(missing.map(|layer| self.origin.layer(&layer.blob, lease))).await?;
        let (images, held) = (images.clone(), lease.clone());
        let unpack = move || images.unpack_parts(&layers, &held);
        let top = tokio::task::spawn_blocking(unpack).await??;
        lease.hold_snapshot(top);
        Ok(Some(Tree {
            snapshot: Some(top),
            layer: at.adds,
            created: at.created.clone(),
        }))
    }

    /// The layers of a tree, lowest first.
    fn stack(&self, top: usize) -> Vec<LayerPart> {
        let (mut layers, mut next) = (Vec::new(), Some(top));
        while let Some(layer) = next.and_then(|index| self.layers.get(index)) {
            layers.extend(layer.part.clone());
            next = layer.below;
        }
        layers.reverse();
        layers
    }

    /// Takes in what an image says of its own layers.
    fn add_inline(&mut self, manifest: &Manifest, config: &[u8]) -> Result<(), String> {
        let config: serde_json::Value = serde_json::from_slice(config).map_err(|error| error.to_string())?;
        let Some(carried) = config.get(INLINE).and_then(serde_json::Value::as_str) else {
            return Ok(());
        };
        let records = STANDARD.decode(carried).map_err(|error| error.to_string())?;
        let records: Vec<Record> = serde_json::from_slice(&records).map_err(|error| error.to_string())?;
        let diffs = config
            .pointer("/rootfs/diff_ids")
            .and_then(|diffs| diffs.as_array());
        let mut layers = manifest.layers.clone();
        for (layer, diff) in layers.iter_mut().zip(diffs.into_iter().flatten()) {
            let diff = diff.as_str().unwrap_or_default().to_owned();
            layer.annotations.insert(DIFF_ID.to_owned(), diff);
        }
        let stacked = layers.iter().zip(-1i64..).map(|(layer, parent)| Layer {
            blob: layer.digest.clone(),
            parent,
        });
        let config = Config {
            layers: stacked.collect(),
            records,
        };
        self.add(config, &layers)
    }

    /// Takes in a document; `blobs` are the layers that can be had.
    fn add(&mut self, config: Config, blobs: &[Descriptor]) -> Result<(), String> {
        let first = self.layers.len();
        let inputs = config.records.iter().flat_map(|record| &record.inputs);
        self.records += config.records.len();
        self.links += inputs.map(|ways| 1 + ways.len()).sum::<usize>();
        let layers = first + config.layers.len();
        if self.records > MAX_RECORDS || self.links > MAX_LINKS || layers > MAX_LAYERS {
            return Err(format!(
                "it has {} records with {} inputs and {layers} layers, at most {MAX_RECORDS}, {MAX_LINKS} and \
                 {MAX_LAYERS} are read",
                self.records, self.links
            ));
        }
        self.layers.extend(stacked(&config.layers, blobs, first)?);
        let depths = depths(&config.layers)?;
        let names = names(&config.records)?;
        for (record, name) in config.records.iter().zip(names) {
            let (Some(name), false) = (name, record.inputs.is_empty()) else {
                continue;
            };
            let result = record.results.iter().find_map(|result| {
                let top = usize::try_from(result.layer).ok()?;
                let whole = *depths.get(top)? <= MAX_STACK && self.is_whole(first + top);
                whole.then(|| At {
                    top: first + top,
                    adds: result.adds.unwrap_or(true),
                    created: time(result.created.as_deref()),
                })
            });
            let entry = Arc::new(Entry {
                identity: name.identity.clone(),
                parts: name.parts,
                result,
            });
            for key in [name.own, name.identity] {
                // Of two that say the same, one with layers says more.
                let known = self.entries.get(&key);
                if known.is_none_or(|known| known.result.is_none() && entry.result.is_some()) {
                    self.entries.insert(key, entry.clone());
                }
            }
        }
        Ok(())
    }

    /// Whether a layer and all below it can be had.
    fn is_whole(&self, top: usize) -> bool {
        let mut next = Some(top);
        while let Some(index) = next {
            match self.layers.get(index) {
                Some(Stacked { part: Some(_), below }) => next = *below,
                _ => return false,
            }
        }
        true
    }
}

/// A time that is told; now for anything else.
fn time(told: Option<&str>) -> String {
    let told: Option<jiff::Timestamp> = told.and_then(|time| time.parse().ok());
    told.map_or_else(now, |time| time.to_string())
}

fn stacked(layers: &[Layer], blobs: &[Descriptor], first: usize) -> Result<Vec<Stacked>, String> {
    let known: HashMap<&Digest, &Descriptor> = blobs.iter().map(|blob| (&blob.digest, blob)).collect();
    let stacked = layers.iter().map(|layer| {
        let below = match layer.parent {
            -1 => None,
            parent => Some(first + within(parent, layers.len(), "layer")?),
        };
        let part = known.get(&layer.blob).and_then(|blob| {
            let diff = blob.annotations.get(DIFF_ID)?.parse().ok()?;
            let blob = Descriptor::new(&blob.media_type, blob.digest.clone(), blob.size);
            Some(LayerPart { blob, diff })
        });
        Ok(Stacked { part, below })
    });
    stacked.collect()
}

fn within(index: i64, length: usize, what: &str) -> Result<usize, String> {
    let inside = usize::try_from(index).ok().filter(|index| *index < length);
    inside.ok_or_else(|| format!("it names the {what} {index}, of which there are {length}"))
}

/// How many layers each layer lies on, itself included.
fn depths(layers: &[Layer]) -> Result<Vec<usize>, String> {
    let mut depths = vec![0; layers.len()];
    for start in 0..layers.len() {
        let (mut way, mut next) = (Vec::new(), Some(start));
        while let Some(index) = next.filter(|index| depths.get(*index) == Some(&0)) {
            if way.len() > layers.len() {
                return Err("its layers lie on each other in a circle".to_owned());
            }
            way.push(index);
            next = layers
                .get(index)
                .and_then(|layer| usize::try_from(layer.parent).ok());
        }
        let mut depth = next.and_then(|index| depths.get(index)).copied().unwrap_or(0);
        for index in way.into_iter().rev() {
            depth += 1;
            if let Some(slot) = depths.get_mut(index) {
                *slot = depth;
            }
        }
    }
    Ok(depths)
}

/// By what each record is known; `None` for those that are made in ways that are not ours.
fn names(records: &[Record]) -> Result<Vec<Option<Name>>, String> {
    enum State {
        New,
        Open,
        Done(Option<Name>),
    }
    let mut states: Vec<State> = records.iter().map(|_| State::New).collect();
    for start in 0..records.len() {
        let mut way = vec![start];
        while let Some(&index) = way.last() {
            let Some(record) = records.get(index) else { break };
            match states.get(index) {
                Some(State::Done(_)) | None => {
                    way.pop();
                    continue;
                }
                Some(State::New | State::Open) => {}
            }
            let mut waits = Vec::new();
            for link in record.inputs.iter().flatten() {
                let below = within(link.link, records.len(), "record")?;
                match states.get(below) {
                    Some(State::New) => waits.push(below),
                    Some(State::Open) => return Err("its records lead to each other in a circle".to_owned()),
                    _ => {}
                }
            }
            if waits.is_empty() {
                let identity = |below: usize| match states.get(below) {
                    Some(State::Done(Some(name))) => Some(name.identity.clone()),
                    _ => None,
                };
                let name = name(record, records, identity);
                if let Some(slot) = states.get_mut(index) {
                    *slot = State::Done(name);
                }
                way.pop();
            } else {
                // Only what is on the way is open: what waits beside it may be found there first.
                if let Some(slot) = states.get_mut(index) {
                    *slot = State::Open;
                }
                way.append(&mut waits);
            }
        }
    }
    let name = |state| match state {
        State::Done(name) => name,
        State::New | State::Open => None,
    };
    Ok(states.into_iter().map(name).collect())
}

fn name(record: &Record, records: &[Record], identity: impl Fn(usize) -> Option<Digest>) -> Option<Name> {
    let definition: Digest = record.digest.parse().ok()?;
    let (mut identities, mut parts) = (Vec::new(), Vec::new());
    for links in &record.inputs {
        let index = |selector: &str| {
            let link = links.iter().find(|link| link.selector == selector)?;
            usize::try_from(link.link).ok()
        };
        identities.push(identity(index("")?)?);
        parts.push(index(CONTENT).and_then(|index| records.get(index)?.digest.parse().ok()));
    }
    let own = key(&definition, &identities);
    let mixed: Vec<Digest> = identities
        .iter()
        .zip(&parts)
        .map(|(identity, part): (&Digest, &Option<Digest>)| part.clone().unwrap_or_else(|| identity.clone()))
        .collect();
    Some(Name {
        identity: key(&definition, &mixed),
        own,
        parts,
    })
}

#[cfg(test)]
mod tests;
