//! Images.

use std::collections::HashMap;

use api_types::image::{AttestationProperties, ImageProperties, ManifestSize, UnpackedSize};
use api_types::{
    Empty, HealthConfig, HistoryResponseItem, ImageInspect, ImageInspectConfig, ImageManifestSummary,
    ImageMetadata, ImageRootFs, ImageSummary, List, Map, ZERO_TIME,
};
use engine::Container;
use engine::image::{HistoryItem, Image, ImageSummary as Row, ManifestSummary, SUBJECT};
use jiff::Timestamp;
use spec::Digest;
use spec::image::ContainerSettings;

use super::{descriptor, null_when_empty, platform, signed};

/// `GET /images/{name}/json`.
pub fn inspect(image: &Image) -> ImageInspect {
    let config = &image.config;
    let comment = config.history.last().and_then(|step| step.comment.clone());
    ImageInspect {
        id: image.shown.to_string(),
        repo_tags: List::from(image.repo_tags()),
        repo_digests: List::from(image.repo_digests.clone()),
        comment: comment.unwrap_or_default(),
        created: config.created.clone().unwrap_or_default(),
        author: config.author.clone().unwrap_or_default(),
        config: settings(&config.config),
        architecture: config.architecture.clone(),
        variant: config.variant.clone().unwrap_or_default(),
        os: config.os.clone(),
        os_version: image.platform.os_version.clone().unwrap_or_default(),
        size: signed(image.size),
        graph_driver: None,
        root_fs: ImageRootFs {
            kind: config.rootfs.kind.clone(),
            layers: config.rootfs.diff_ids.iter().map(ToString::to_string).collect(),
        },
        metadata: ImageMetadata {
            last_tag_time: match image.last_tagged.as_str() {
                "" => ZERO_TIME.to_owned(),
                time => time.to_owned(),
            },
        },
        descriptor: Some(descriptor(&image.target)),
        manifests: List::null(),
        parent: parent(image.parent.as_ref()),
    }
}

fn parent(id: Option<&spec::Digest>) -> String {
    id.map(ToString::to_string).unwrap_or_default()
}

/// What an image says about its containers; what is not set is left out.
pub fn settings(settings: &ContainerSettings) -> ImageInspectConfig {
    let set = |keys: &std::collections::BTreeMap<String, spec::image::Empty>| -> Map<Empty> {
        keys.keys().map(|key| (key.clone(), Empty {})).collect()
    };
    ImageInspectConfig {
        user: settings.user.clone(),
        exposed_ports: set(&settings.exposed_ports),
        env: List::from(settings.env.clone()),
        entrypoint: List::from(settings.entrypoint.clone()),
        cmd: List::from(settings.cmd.clone()),
        volumes: set(&settings.volumes),
        working_dir: settings.working_dir.clone(),
        labels: Map::from(settings.labels.clone()),
        stop_signal: settings.stop_signal.clone().unwrap_or_default(),
        args_escaped: settings.args_escaped,
        healthcheck: settings.healthcheck.as_ref().map(|check| HealthConfig {
            test: null_when_empty(check.test.clone()),
            interval: check.interval,
            timeout: check.timeout,
            start_period: check.start_period,
            start_interval: check.start_interval,
            retries: check.retries,
            on_failure: String::new(),
        }),
        on_build: List::from(settings.on_build.clone()),
        shell: List::from(settings.shell.clone()),
    }
}

/// A row of `GET /images/json`; `shared` is absent when nobody asked.
pub fn summary(row: &Row, containers: usize, shared: Option<u64>) -> ImageSummary {
    let tags = row
        .references
        .iter()
        .filter(|reference| reference.tag().is_some());
    ImageSummary {
        containers: i64::try_from(containers).unwrap_or(i64::MAX),
        created: seconds(row.created.as_deref().unwrap_or_default()),
        id: row.shown.to_string(),
        labels: Map::from(row.labels.clone()),
        parent_id: parent(row.parent.as_ref()),
        descriptor: Some(descriptor(&row.target)),
        manifests: List::null(),
        repo_digests: List::from(row.repo_digests.clone()),
        repo_tags: tags.map(spec::Reference::familiar).collect(),
        shared_size: shared.map_or(-1, signed),
        size: signed(row.size),
    }
}

/// Which containers were made of which image, and of which of its manifests.
#[derive(Default)]
pub struct Users<'a> {
    of: HashMap<&'a Digest, Vec<&'a Container>>,
}

impl<'a> Users<'a> {
    pub fn add(&mut self, container: &'a Container) {
        self.of.entry(&container.image_id).or_default().push(container);
    }

    /// How many there are of an image.
    pub fn of_image(&self, image: &Digest) -> usize {
        self.of.get(image).map_or(0, Vec::len)
    }

    fn of_manifest(&self, image: &Digest, manifest: &Digest) -> Vec<String> {
        let all = self.of.get(image).into_iter().flatten();
        let made = all.filter(|container| {
            let of = container.manifest.as_ref();
            of.is_some_and(|of| of.digest == *manifest)
        });
        made.map(|container| container.id.to_string()).collect()
    }
}

/// The manifests behind an image.
pub fn manifests(
    manifests: &[ManifestSummary],
    image: &Digest,
    users: &Users<'_>,
) -> List<ImageManifestSummary> {
    manifests
        .iter()
        .map(|manifest| {
            let unpacked = signed(manifest.unpacked_size);
            let content = signed(manifest.content_size);
            let subject = manifest.descriptor.annotations.get(SUBJECT);
            let shown = manifest.platform.as_ref().filter(|_| !manifest.attestation);
            ImageManifestSummary {
                id: manifest.descriptor.digest.to_string(),
                descriptor: api_types::Descriptor {
                    platform: manifest.platform.as_ref().map(platform),
                    ..descriptor(&manifest.descriptor)
                },
                available: manifest.available,
                size: ManifestSize {
                    content,
                    total: content.saturating_add(unpacked),
                },
                kind: if manifest.attestation {
                    "attestation"
                } else {
                    "image"
                }
                .to_owned(),
                image_data: shown.map(|of| ImageProperties {
                    platform: platform(of),
                    size: UnpackedSize { unpacked },
                    containers: users.of_manifest(image, &manifest.descriptor.digest),
                }),
                attestation_data: manifest.attestation.then(|| AttestationProperties {
                    subject: subject.cloned().unwrap_or_default(),
                }),
            }
        })
        .collect()
}

/// A row of `GET /images/{name}/history`.
pub fn history(item: HistoryItem) -> HistoryResponseItem {
    HistoryResponseItem {
        comment: item.comment,
        created: seconds(&item.created),
        created_by: item.created_by,
        id: item.id,
        size: signed(item.size),
        tags: null_when_empty(item.tags),
    }
}

/// Unix seconds of an RFC 3339 time; 0 where there is none.
fn seconds(time: &str) -> i64 {
    time.parse::<Timestamp>().map_or(0, |time| time.as_second())
}
