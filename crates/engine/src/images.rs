//! Images as the engine knows them: what `image` does, with the rules between images and containers, and events.

mod pattern;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use api_types::ImageDeleteResponseItem;
use image::{
    Image, ImageSummary, ImportOptions, LoadOptions, Loaded, ManifestSummary, Progress, PullOptions,
    PushOptions, PushResult, Removed, SaveOptions,
};
use jiff::Timestamp;
use spec::image::{ContainerSettings, Descriptor};
use spec::{Digest, Platform, Reference};

use crate::container::{ByteStream, Container, Incoming, stream};
use crate::engine::{Engine, Inner, blocking};
use crate::error::{Error, Result};
use crate::filters::{self, Filters};
use crate::hello;
use pattern::Pattern;

const LIST_KEYS: &[&str] = &[
    "before",
    "dangling",
    "label",
    "label!",
    "reference",
    "since",
    "until",
];

/// A request to make an image of a root filesystem.
pub struct ImportImage {
    pub source: ByteStream,
    pub options: ImportOptions,
}

/// What a prune removed.
#[derive(Debug, Clone, Default)]
pub struct ImagesPruned {
    pub deleted: Vec<ImageDeleteResponseItem>,
    /// Bytes.
    pub space: u64,
}

pub(crate) fn emit(inner: &Inner, action: &str, id: &str, name: &str) {
    emit_of(inner, inner.images.resolve(id).ok().as_ref(), action, id, name);
}

/// The same where the image is known, or known not to be here.
fn emit_of(inner: &Inner, image: Option<&Image>, action: &str, id: &str, name: &str) {
    let mut attributes = BTreeMap::from([("name".to_owned(), name.to_owned())]);
    let mut id = id;
    if let Some(image) = image {
        attributes.extend(image.config.config.labels.clone());
        if id == image.id.as_str() {
            id = image.shown.as_str();
        }
    }
    inner.events.publish("image", action, id, attributes);
}

impl Engine {
    /// One image by name, digest, id or start of it; of an index the manifest for `platform` or the host's.
    pub async fn image(&self, name: &str, platform: Option<&Platform>) -> Result<Image> {
        let (inner, name, platform) = (Arc::clone(&self.inner), name.to_owned(), platform.cloned());
        blocking(move || Ok(inner.images.resolve_platform(&name, platform.as_ref())?)).await
    }

    /// The images that pass the filters, newest first.
    pub async fn image_list(&self, filters: &Filters) -> Result<Vec<ImageSummary>> {
        filters::check_keys(filters, LIST_KEYS)?;
        let (inner, filters) = (Arc::clone(&self.inner), filters.clone());
        blocking(move || list(&inner, &filters)).await
    }

    /// Gets an image from its registry.
    pub async fn image_pull(
        &self,
        reference: &Reference,
        options: PullOptions,
        progress: Progress,
    ) -> Result<Image> {
        let begun = Instant::now();
        let image = match hello::is_hello(reference) {
            true => self.built_in(reference.or_latest(), progress).await?,
            false => self.inner.images.pull(reference, options, progress).await?,
        };
        self.inner.metrics.image_action("pull", begun);
        emit(
            &self.inner,
            "pull",
            &reference.familiar(),
            &reference.familiar_name(),
        );
        Ok(image)
    }

    /// The image the engine carries with it.
    async fn built_in(&self, reference: Reference, progress: Progress) -> Result<Image> {
        let inner = Arc::clone(&self.inner);
        blocking(move || {
            let options = ImportOptions {
                reference: Some(reference),
                message: "carried by the engine".to_owned(),
                changes: ContainerSettings {
                    cmd: Some(vec!["/hello".to_owned()]),
                    ..ContainerSettings::default()
                },
                platform: None,
            };
            Ok(inner
                .images
                .import(hello::archive()?.as_slice(), options, progress)?)
        })
        .await
    }

    /// Sends an image to its registry.
    pub async fn image_push(
        &self,
        reference: &Reference,
        options: PushOptions,
        progress: Progress,
    ) -> Result<PushResult> {
        let begun = Instant::now();
        let pushed = self.inner.images.push(reference, options, progress).await?;
        self.inner.metrics.image_action("push", begun);
        emit(
            &self.inner,
            "push",
            &reference.familiar(),
            &reference.familiar_name(),
        );
        Ok(pushed)
    }

    /// Gives an image another name.
    pub async fn image_tag(&self, source: &str, target: &Reference) -> Result<()> {
        let (inner, source, target) = (Arc::clone(&self.inner), source.to_owned(), target.or_latest());
        blocking(move || {
            inner.images.tag(&source, &target)?;
            let id = inner.images.resolve(&target.canonical())?.id;
            emit(&inner, "tag", id.as_str(), &target.familiar());
            Ok(())
        })
        .await
    }

    /// Tells of an image that a build has made, and of the names that it was given. It may be gone by now, and was made all
    /// the same.
    pub fn image_built(&self, image: &Image, names: &[Reference]) {
        let told = |action: &str, name: &str| {
            emit_of(&self.inner, Some(image), action, image.id.as_str(), name);
        };
        told("create", image.shown.as_str());
        for name in names {
            told("tag", &name.or_latest().familiar());
        }
    }

    /// The manifests behind each of these images, here or not.
    pub async fn image_manifests(&self, targets: Vec<Descriptor>) -> Result<Vec<Vec<ManifestSummary>>> {
        let inner = Arc::clone(&self.inner);
        blocking(move || {
            let of_each = targets.iter().map(|target| Ok(inner.images.manifests(target)?));
            of_each.collect()
        })
        .await
    }

    /// Takes a name away, and the image with it where it was the last one and nothing uses it. With platforms, only what
    /// belongs to them alone goes, and the names stay as long as something to run does. An image that others were committed
    /// from loses its name only, unless it is forced; `with_parents` takes what is left so along with its last child.
    pub async fn image_remove(
        &self,
        name: &str,
        force: bool,
        with_parents: bool,
        platforms: Vec<Platform>,
    ) -> Result<Vec<ImageDeleteResponseItem>> {
        let (inner, name) = (Arc::clone(&self.inner), name.to_owned());
        let begun = Instant::now();
        let removed = blocking(move || match platforms.as_slice() {
            [] => remove(&inner, &name, force, with_parents),
            platforms => remove_platforms(&inner, &name, force, platforms),
        })
        .await?;
        self.inner.metrics.image_action("delete", begun);
        Ok(removed)
    }

    /// Reads images from an archive.
    pub async fn image_load(
        &self,
        body: ByteStream,
        options: LoadOptions,
        progress: Progress,
    ) -> Result<Vec<Loaded>> {
        let inner = Arc::clone(&self.inner);
        blocking(move || {
            let loaded = inner.images.load(Incoming::new(body), options, progress)?;
            for one in &loaded {
                let name = one
                    .reference
                    .as_ref()
                    .map(Reference::familiar)
                    .unwrap_or_else(|| one.id.to_string());
                emit(&inner, "load", one.id.as_str(), &name);
            }
            Ok(loaded)
        })
        .await
    }

    /// Writes images into an archive.
    pub async fn image_save(&self, names: Vec<String>, options: SaveOptions) -> Result<ByteStream> {
        // What can't be found is refused before the answer begins.
        for name in &names {
            let mut image = self.image(name, options.platforms.first()).await?;
            for platform in options.platforms.iter().skip(1) {
                image = self.image(name, Some(platform)).await?;
            }
            emit(&self.inner, "save", image.id.as_str(), name);
        }
        let inner = Arc::clone(&self.inner);
        Ok(stream(move |out| {
            inner
                .images
                .save(&names, out, options)
                .map_err(std::io::Error::other)
        }))
    }

    /// Makes an image of a root filesystem archive.
    pub async fn image_import(&self, request: ImportImage, progress: Progress) -> Result<Digest> {
        let inner = Arc::clone(&self.inner);
        blocking(move || {
            let name = request.options.reference.clone();
            let image = inner
                .images
                .import(Incoming::new(request.source), request.options, progress)?;
            if let Some(name) = name {
                emit(&inner, "tag", image.id.as_str(), &name.or_latest().familiar());
            }
            emit(&inner, "import", image.id.as_str(), image.shown.as_str());
            Ok(image.shown)
        })
        .await
    }

    /// Removes dangling images, or with `dangling=false` every image no container uses.
    pub async fn images_prune(&self, filters: &Filters, rehearse: bool) -> Result<ImagesPruned> {
        filters::check_keys(filters, &["dangling", "label", "label!", "until"])?;
        let dangling_only = filters::boolean(filters, "dangling")?.unwrap_or(true);
        let until = filters::until(filters)?;
        let (inner, filters) = (Arc::clone(&self.inner), filters.clone());
        blocking(move || {
            let mut pruned = ImagesPruned::default();
            let mut rehearsed = Vec::new();
            for image in inner.images.list()? {
                let young = until.is_some_and(|until| created(&image).is_none_or(|time| time >= until));
                let unwanted = (image.references.is_empty() || !dangling_only)
                    && users(&inner, &image.id).is_empty()
                    && filters::label_filters_match(&filters, &image.labels)
                    && !young;
                let mut children = inner.images.children_of(&image.id)?;
                children.retain(|child| !rehearsed.contains(child));
                let unwanted = unwanted && children.is_empty();
                if unwanted && rehearse {
                    pruned.deleted.extend(deletion(&image));
                    rehearsed.push(image.id);
                } else if unwanted {
                    pruned.deleted.extend(delete(&inner, &image.id)?);
                }
            }
            if rehearse {
                let freed = inner.images.rehearse_gc(&rehearsed, |_| Ok(()))?;
                let partial = inner.store.content().partial_bytes();
                pruned.space = freed.bytes + partial.map_err(image::ImageError::from)?;
                return Ok(pruned);
            }
            let freed = inner.images.gc(|_| Ok(store::Roots::default()))?;
            // Nobody who prunes wants to go on with the beginnings of downloads either.
            pruned.space = freed.bytes
                + inner
                    .store
                    .content()
                    .remove_partial()
                    .map_err(image::ImageError::from)?;
            let attributes = BTreeMap::from([("reclaimed".to_owned(), pruned.space.to_string())]);
            inner.events.publish("image", "prune", "", attributes);
            Ok(pruned)
        })
        .await
    }
}

fn created(image: &ImageSummary) -> Option<Timestamp> {
    image.created.as_deref()?.parse().ok()
}

fn list(inner: &Inner, filters: &Filters) -> Result<Vec<ImageSummary>> {
    let dangling = filters::boolean(filters, "dangling")?;
    let until = filters::until(filters)?;
    let time_of = |key: &str| -> Result<Option<Timestamp>> {
        let Some(name) = filters.get(key).and_then(|v| v.first()) else {
            return Ok(None);
        };
        let image = inner.images.resolve(name)?;
        Ok(image.config.created.as_deref().and_then(|t| t.parse().ok()))
    };
    let (before, since) = (time_of("before")?, time_of("since")?);
    let mut found = inner.images.list()?;
    found.retain(|image| {
        let time = created(image);
        dangling.is_none_or(|wanted| image.references.is_empty() == wanted)
            && filters::label_filters_match(filters, &image.labels)
            && before.is_none_or(|b| time.is_some_and(|t| t < b))
            && since.is_none_or(|s| time.is_some_and(|t| t > s))
            && until.is_none_or(|u| time.is_some_and(|t| t < u))
    });
    if let Some(texts) = filters.get("reference") {
        let read = |text: &String| {
            let bad = || {
                Error::invalid(format!(
                    "invalid filter 'reference={text}': syntax error in pattern"
                ))
            };
            Pattern::read(text).ok_or_else(bad)
        };
        let patterns: Vec<Pattern> = texts.iter().map(read).collect::<Result<_>>()?;
        for image in &mut found {
            image
                .references
                .retain(|r| patterns.iter().any(|p| reference_matches(r, p)));
            // Digests are shown under the names that are left.
            let names: Vec<String> = image.references.iter().map(Reference::familiar_name).collect();
            let of_a_name = |digest: &String| {
                digest
                    .split('@')
                    .next()
                    .is_some_and(|name| names.iter().any(|n| n == name))
            };
            image.repo_digests.retain(of_a_name);
        }
        found.retain(|image| !image.references.is_empty());
    }
    Ok(found)
}

/// Whether any form of the name matches, with or without tag.
fn reference_matches(reference: &Reference, pattern: &Pattern) -> bool {
    [
        reference.familiar(),
        reference.familiar_name(),
        reference.canonical(),
        reference.name(),
    ]
    .iter()
    .any(|name| pattern.matches(name))
}

/// The containers made from an image.
fn users(inner: &Inner, id: &Digest) -> Vec<Arc<Container>> {
    inner
        .containers
        .snapshots()
        .into_iter()
        .filter(|c| c.image_id == *id)
        .collect()
}

fn remove(
    inner: &Inner,
    name: &str,
    force: bool,
    with_parents: bool,
) -> Result<Vec<ImageDeleteResponseItem>> {
    let image = inner.images.resolve(name)?;
    let short = image.shown.short().to_owned();
    let users = users(inner, &image.id);
    let reference = Reference::parse_normalized(name)
        .ok()
        .map(|r| r.or_latest())
        .filter(|r| r.digest().is_none() && image.references.contains(r));
    let by_id = reference.is_none();
    if let Some(reference) = &reference
        && image.references.len() > 1
    {
        return untag(inner, reference, &image.id);
    }
    if by_id && image.references.len() > 1 && !force {
        let repositories: std::collections::BTreeSet<String> =
            image.references.iter().map(Reference::familiar_name).collect();
        if repositories.len() > 1 {
            return Err(Error::conflict(format!(
                "conflict: unable to delete {short} (must be forced) - image is referenced in multiple repositories"
            )));
        }
    }
    let shown = if by_id { short } else { name.to_owned() };
    if let (Some(reference), true) = (&reference, force)
        && users.iter().any(|container| container.state.status.is_alive())
    {
        return untag(inner, reference, &image.id);
    }
    refuse_in_use(&users, &shown, &image.shown, force)?;
    if !force && !image.references.is_empty() && !inner.images.children_of(&image.id)?.is_empty() {
        return untag_all(inner, &image.references, &image.id);
    }
    let mut deleted = delete(inner, &image.id)?;
    if with_parents {
        deleted.extend(delete_nameless(inner, image.parent)?);
    }
    inner.images.gc(|_| Ok(store::Roots::default()))?;
    Ok(deleted)
}

/// A running container keeps its image whatever is asked, a stopped one unless it is forced.
fn refuse_in_use(users: &[Arc<Container>], shown: &str, image: &Digest, force: bool) -> Result<()> {
    let running = users.iter().find(|container| container.state.status.is_alive());
    let (container, why) = match (running, users.first()) {
        (Some(running), _) => (running, "cannot be forced"),
        (None, Some(stopped)) if !force => (stopped, "must be forced"),
        _ => return Ok(()),
    };
    Err(Error::conflict(format!(
        "conflict: unable to delete {shown} ({why}) - container {} is using its referenced image {}",
        container.id.short(),
        image.short()
    )))
}

fn remove_platforms(
    inner: &Inner,
    name: &str,
    force: bool,
    platforms: &[Platform],
) -> Result<Vec<ImageDeleteResponseItem>> {
    let images: Vec<Image> = platforms
        .iter()
        .map(|platform| inner.images.resolve_exactly(name, platform))
        .collect::<std::result::Result<_, image::ImageError>>()?;
    let Some(first) = images.first() else {
        return Ok(Vec::new());
    };
    let manifests: Vec<Digest> = images.iter().map(|image| image.manifest_digest.clone()).collect();
    let mut users = users(inner, &first.id);
    users.retain(|container| {
        let of = container.manifest.as_ref();
        of.is_none_or(|manifest| manifests.contains(&manifest.digest))
    });
    refuse_in_use(&users, name, &first.shown, force)?;
    let removed = inner.images.remove_platforms(first, &manifests)?;
    let mut items: Vec<ImageDeleteResponseItem> = removed
        .manifests
        .iter()
        .filter(|manifest| **manifest != first.id)
        .map(deleted)
        .collect();
    if let Some(image) = &removed.image {
        items.extend(told(inner, image));
    }
    inner.images.gc(|_| Ok(store::Roots::default()))?;
    Ok(items)
}

fn untag(inner: &Inner, reference: &Reference, id: &Digest) -> Result<Vec<ImageDeleteResponseItem>> {
    inner.images.untag(reference)?;
    emit(inner, "untag", id.as_str(), &reference.familiar());
    Ok(vec![ImageDeleteResponseItem {
        untagged: reference.familiar(),
        ..Default::default()
    }])
}

fn untag_all(inner: &Inner, names: &[Reference], id: &Digest) -> Result<Vec<ImageDeleteResponseItem>> {
    let mut items = Vec::new();
    for name in names {
        items.extend(untag(inner, name, id)?);
    }
    Ok(items)
}

/// Deletes an image of which nothing but a child was left, and so on with what it was committed from.
fn delete_nameless(inner: &Inner, parent: Option<Digest>) -> Result<Vec<ImageDeleteResponseItem>> {
    let mut items = Vec::new();
    let mut next = parent;
    while let Some(id) = next {
        // It may be gone for long.
        let Ok(image) = inner.images.resolve(id.as_str()) else {
            break;
        };
        let wanted = !image.references.is_empty()
            || !inner.images.children_of(&image.id)?.is_empty()
            || !users(inner, &image.id).is_empty();
        if wanted {
            break;
        }
        items.extend(delete(inner, &image.id)?);
        next = image.parent;
    }
    Ok(items)
}

/// What deleting it would say.
fn deletion(image: &ImageSummary) -> Vec<ImageDeleteResponseItem> {
    let untagged = image.references.iter().map(|name| ImageDeleteResponseItem {
        untagged: name.familiar(),
        ..Default::default()
    });
    untagged.chain([deleted(&image.shown)]).collect()
}

fn delete(inner: &Inner, id: &Digest) -> Result<Vec<ImageDeleteResponseItem>> {
    Ok(told(inner, &inner.images.remove_by_digest(id)?))
}

/// Tells everyone that an image is gone.
fn told(inner: &Inner, removed: &Removed) -> Vec<ImageDeleteResponseItem> {
    let id = &removed.deleted;
    let mut items = Vec::new();
    for name in &removed.untagged {
        emit(inner, "untag", id.as_str(), &name.familiar());
        items.push(ImageDeleteResponseItem {
            untagged: name.familiar(),
            ..Default::default()
        });
    }
    emit(inner, "delete", id.as_str(), id.as_str());
    items.push(deleted(id));
    items
}

fn deleted(digest: &Digest) -> ImageDeleteResponseItem {
    ImageDeleteResponseItem {
        deleted: digest.to_string(),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        let reference = Reference::parse_normalized("busybox:1.36").unwrap();
        for good in [
            "busybox",
            "busy*",
            "busybox:1.*",
            "*:1.36",
            "docker.io/library/busybox",
        ] {
            assert!(
                reference_matches(&reference, &Pattern::read(good).unwrap()),
                "{good}"
            );
        }
        for bad in ["busy", "*/busy", "busybox:2*"] {
            assert!(
                !reference_matches(&reference, &Pattern::read(bad).unwrap()),
                "{bad}"
            );
        }
    }
}
