//! Committing: a container's writable layer becomes an image's new top layer.

use std::sync::Arc;

use api_types::ContainerConfig;
use image::CommitLayers;
use image::layer::DiffOptions;
use jiff::Timestamp;
use spec::image::{ContainerSettings, History};
use spec::{Digest, Reference};

use super::Container;
use crate::engine::{Engine, Inner, blocking};
use crate::error::{Error, Result};

/// A request to commit.
#[derive(Debug, Clone, Default)]
pub struct CommitContainer {
    pub container: String,
    pub repo: String,
    pub tag: String,
    pub comment: String,
    pub author: String,
    /// Freeze the container meanwhile.
    pub pause: bool,
    /// Dockerfile instructions such as `CMD ["x"]`, already read into settings by `apply`.
    pub changes: Vec<String>,
    /// Settings that count before the container's.
    pub config: Option<ContainerConfig>,
}

impl Engine {
    /// Makes an image of a container; `apply` reads the Dockerfile instructions of the request.
    pub async fn container_commit(
        &self,
        request: CommitContainer,
        apply: impl FnOnce(&mut ContainerSettings, &[String]) -> std::result::Result<(), String> + Send + 'static,
    ) -> Result<Digest> {
        let container = self.container(&request.container)?;
        let freeze: &[spec::Id] = match request.pause {
            true => std::slice::from_ref(&container.id),
            false => &[],
        };
        let (inner, owned) = (Arc::clone(&self.inner), Arc::clone(&container));
        let comment = request.comment.clone();
        let watch = self.inner.metrics.watch("commit");
        let work = blocking(move || commit(&inner, &owned, &request, apply));
        let (id, reference) = watch.done(self.while_frozen(freeze, work).await)?;
        if let Some(name) = reference.clone() {
            let (inner, id) = (Arc::clone(&self.inner), id.clone());
            blocking(move || {
                crate::images::emit(&inner, "tag", id.as_str(), &name.familiar());
                Ok(())
            })
            .await?;
        }
        let reference = reference.map(|name| name.canonical()).unwrap_or_default();
        let mut attributes = container.attributes();
        attributes.insert("comment".to_owned(), comment);
        attributes.insert("imageID".to_owned(), id.to_string());
        attributes.insert("imageRef".to_owned(), reference);
        self.inner
            .events
            .publish("container", "commit", container.id.as_str(), attributes);
        Ok(id)
    }
}

fn commit(
    inner: &Inner,
    container: &Container,
    request: &CommitContainer,
    apply: impl FnOnce(&mut ContainerSettings, &[String]) -> std::result::Result<(), String>,
) -> Result<(Digest, Option<Reference>)> {
    let reference = match request.repo.as_str() {
        "" => None,
        repo => {
            let reference = Reference::parse_normalized(repo)?;
            Some(match request.tag.as_str() {
                "" => reference.or_latest(),
                tag => reference.with_tag(tag)?,
            })
        }
    };
    let parent = inner.images.resolve(&container.image_id.to_string()).ok();
    let mut config = match &parent {
        Some(parent) => parent.config.clone(),
        None => {
            return Err(Error::conflict(
                "the image of the container is gone, so nothing can be put on top of it",
            ));
        }
    };
    config.config = settings(request.config.as_ref().unwrap_or(&container.config));
    apply(&mut config.config, &request.changes).map_err(Error::invalid)?;
    if request.config.is_some() {
        fill(&mut config.config, settings(&container.config));
    }
    let now = format!("{:.9}", Timestamp::now());
    config.created = Some(now.clone());
    config.author = (!request.author.is_empty()).then(|| request.author.clone());
    config.history.push(History {
        created: Some(now),
        created_by: Some(
            std::iter::once(&container.path)
                .chain(&container.args)
                .cloned()
                .collect::<Vec<_>>()
                .join(" "),
        ),
        author: config.author.clone(),
        comment: (!request.comment.is_empty()).then(|| request.comment.clone()),
        empty_layer: false,
    });
    // The layer is a copy: the container keeps its own and may go on writing.
    let snapshots = inner.store.snapshots();
    let lease = inner.store.lease();
    // On the image's own layers: what the engine put between them and the container's is in every container anyway.
    let top = parent
        .as_ref()
        .map(|parent| inner.images.snapshot(parent))
        .transpose()?;
    let copy = snapshots.create(top, &format!("commit:{}", container.id))?;
    lease.hold_snapshot(copy);
    let copied = copy_layer(inner, container, copy);
    let image = copied.and_then(|()| {
        Ok(inner.images.commit_child(CommitLayers {
            parent,
            layers: vec![copy],
            config,
            names: reference.iter().cloned().collect(),
        })?)
    });
    // What was copied is in a layer of the image now, or in nothing.
    if let Err(error) = snapshots.remove(copy) {
        tracing::warn!(snapshot = %copy, %error, "the copy of a committed container stays until the next start");
    }
    Ok((image?.shown, reference))
}

/// Copies the writable layer by way of its tar form, which carries everything a layer can hold.
fn copy_layer(inner: &Inner, container: &Container, copy: store::SnapshotId) -> Result<()> {
    let snapshots = inner.store.snapshots();
    let (own, target) = (snapshots.part(container.snapshot)?, snapshots.part(copy)?);
    let (reader, writer) = std::io::pipe()?;
    let write = std::thread::spawn(move || image::layer::diff_part(&own, writer, DiffOptions::default()));
    let applied = image::layer::apply_part(reader, &target);
    let written = write
        .join()
        .map_err(|_| Error::internal("reading the container's layer failed"))?;
    applied?;
    Ok(written?)
}

/// Fills in what `wanted` leaves open, by Docker's rules: texts where empty, lists of names joined, a command only
/// together with its entrypoint.
fn fill(wanted: &mut ContainerSettings, from: ContainerSettings) {
    let text = |mine: &mut String, theirs: String| {
        if mine.is_empty() {
            *mine = theirs;
        }
    };
    text(&mut wanted.user, from.user);
    text(&mut wanted.working_dir, from.working_dir);
    wanted.exposed_ports.extend(from.exposed_ports);
    wanted.volumes.extend(from.volumes);
    let name = |entry: &str| entry.split('=').next().unwrap_or_default().to_owned();
    for entry in from.env {
        if !wanted.env.iter().any(|mine| name(mine) == name(&entry)) {
            wanted.env.push(entry);
        }
    }
    for (key, value) in from.labels {
        wanted.labels.entry(key).or_insert(value);
    }
    if wanted.entrypoint.as_ref().is_none_or(Vec::is_empty) {
        if wanted.cmd.as_ref().is_none_or(Vec::is_empty) {
            wanted.cmd = from.cmd;
        }
        wanted.entrypoint = wanted.entrypoint.take().or(from.entrypoint);
    }
    wanted.stop_signal = wanted.stop_signal.take().or(from.stop_signal);
    wanted.healthcheck = wanted.healthcheck.take().or(from.healthcheck);
}

/// The container's settings as an image carries them.
pub(crate) fn settings(config: &ContainerConfig) -> ContainerSettings {
    let some = |list: &api_types::List<String>| (!list.is_null()).then(|| list.to_vec());
    ContainerSettings {
        user: config.user.clone(),
        exposed_ports: config
            .exposed_ports
            .names()
            .map(|p| (p, spec::image::Empty {}))
            .collect(),
        env: config.env.to_vec(),
        entrypoint: some(&config.entrypoint),
        cmd: some(&config.cmd),
        volumes: config
            .volumes
            .keys()
            .map(|v| (v.clone(), spec::image::Empty {}))
            .collect(),
        working_dir: config.working_dir.clone(),
        labels: config.labels.as_map().clone(),
        stop_signal: (!config.stop_signal.is_empty()).then(|| config.stop_signal.clone()),
        stop_timeout: config.stop_timeout,
        args_escaped: config.args_escaped,
        healthcheck: config.healthcheck.as_ref().map(|h| spec::image::HealthCheck {
            test: h.test.to_vec(),
            interval: h.interval,
            timeout: h.timeout,
            start_period: h.start_period,
            start_interval: h.start_interval,
            retries: h.retries,
        }),
        on_build: config.on_build.to_vec(),
        shell: (!config.shell.is_empty()).then(|| config.shell.to_vec()),
        extra: Default::default(),
    }
}
