//! `GET /system/df` in its two shapes.
//!
//! API 1.52 answers one usage object per kind, whose items are listed when asked for (`verbose`) or when the old lists are
//! shown beside them; versions before know only the lists. A kind that was not asked for is absent.

use api_types::{
    BuildCache, ContainerSummary, DiskUsage, ImageSummary, LegacyDiskUsage, List, UsageOf, Volume,
};
use serde_json::Value;

use super::image;
use crate::version::ApiVersion;

/// The answer for a version, from the newest form with its items listed.
pub fn disk_usage(newest: DiskUsage, version: ApiVersion, verbose: bool) -> Value {
    let usage = serde_json::to_value(&newest).unwrap_or_default();
    if version.has(52) && verbose {
        return usage;
    }
    let mut answer = legacy(newest, version);
    if let (true, Value::Object(old), Value::Object(new)) = (version.has(52), &mut answer, usage) {
        old.extend(new);
    }
    answer
}

fn legacy(newest: DiskUsage, version: ApiVersion) -> Value {
    let layers_size = newest.image_usage.as_ref().map_or(0, |usage| usage.total_size);
    let images: List<ImageSummary> = items(newest.image_usage);
    let containers: List<ContainerSummary> = items(newest.container_usage);
    let volumes: List<Volume> = items(newest.volume_usage);
    let build_cache: List<BuildCache> = items(newest.build_cache_usage);
    let asked_for_images = !images.is_null();
    let rows: Vec<_> = images
        .into_iter()
        .map(|row| image::disk_usage_row(row, version))
        .collect();
    let lists = LegacyDiskUsage {
        layers_size,
        images: List::null(),
        containers,
        volumes,
        build_cache,
    };
    let mut answer = serde_json::to_value(lists).unwrap_or_default();
    if let (true, Value::Object(fields)) = (asked_for_images, &mut answer) {
        fields.insert(
            "Images".to_owned(),
            serde_json::to_value(rows).unwrap_or_default(),
        );
    }
    answer
}

fn items<T>(usage: Option<UsageOf<T>>) -> List<T> {
    usage.map(|usage| usage.items).into()
}
