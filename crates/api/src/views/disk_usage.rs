//! `GET /system/df`: totals per kind, in bytes.
//!
//! Reclaimable is what a prune of that kind would give back: everything that no (running) container uses.

use api_types::{BuildCache, ContainerSummary, DiskUsage, ImageSummary, UsageOf, Volume};

/// Which kinds a client asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kinds {
    pub containers: bool,
    pub images: bool,
    pub volumes: bool,
    pub build_cache: bool,
}

impl Kinds {
    pub const ALL: Kinds = Kinds {
        containers: true,
        images: true,
        volumes: true,
        build_cache: true,
    };
    pub const NONE: Kinds = Kinds {
        containers: false,
        images: false,
        volumes: false,
        build_cache: false,
    };
}

/// What everything takes; a kind that is `None` was not asked for.
pub fn disk_usage(
    images: Option<(Vec<ImageSummary>, i64)>,
    containers: Option<Vec<ContainerSummary>>,
    volumes: Option<Vec<Volume>>,
    build_cache: Option<Vec<BuildCache>>,
) -> DiskUsage {
    DiskUsage {
        image_usage: images.map(|(items, total)| {
            let used = sum(
                &items,
                |image| image.containers > 0,
                |image| image.size - image.shared_size.max(0),
            );
            usage(items, total, (total - used).max(0), |image| image.containers > 0)
        }),
        container_usage: containers.map(|items| {
            let total = sum(&items, |_| true, |container| container.size_rw);
            let idle = sum(
                &items,
                |container| !is_active(container),
                |container| container.size_rw,
            );
            usage(items, total, idle, is_active)
        }),
        volume_usage: volumes.map(|items| {
            let total = sum(&items, |_| true, volume_size);
            let idle = sum(&items, |volume| !is_used(volume), volume_size);
            usage(items, total, idle, is_used)
        }),
        build_cache_usage: build_cache.map(|items| {
            let total = sum(&items, |cache| !cache.shared, |cache| cache.size);
            let idle = sum(&items, |cache| !cache.in_use && !cache.shared, |cache| cache.size);
            usage(items, total, idle, |cache| cache.in_use)
        }),
    }
}

fn usage<T>(items: Vec<T>, total_size: i64, reclaimable: i64, active: impl Fn(&T) -> bool) -> UsageOf<T> {
    let count = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
    UsageOf {
        active_count: count(items.iter().filter(|item| active(item)).count()),
        total_count: count(items.len()),
        items,
        reclaimable,
        total_size,
    }
}

fn sum<T>(items: &[T], which: impl Fn(&T) -> bool, size: impl Fn(&T) -> i64) -> i64 {
    items.iter().filter(|item| which(item)).map(size).sum()
}

fn is_active(container: &ContainerSummary) -> bool {
    matches!(container.state.as_str(), "running" | "paused" | "restarting")
}

fn volume_size(volume: &Volume) -> i64 {
    volume.usage_data.as_ref().map_or(0, |usage| usage.size.max(0))
}

fn is_used(volume: &Volume) -> bool {
    volume
        .usage_data
        .as_ref()
        .is_some_and(|usage| usage.ref_count > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_and_what_can_be_freed() {
        let image = |containers, size| ImageSummary {
            containers,
            size,
            ..ImageSummary::default()
        };
        let container = |state: &str, size_rw| ContainerSummary {
            state: state.to_owned(),
            size_rw,
            ..ContainerSummary::default()
        };
        let usage = disk_usage(
            Some((vec![image(1, 10), image(0, 5)], 15)),
            Some(vec![container("running", 3), container("exited", 4)]),
            None,
            Some(Vec::new()),
        );
        let images = usage.image_usage.unwrap();
        assert_eq!(
            (images.active_count, images.total_count, images.reclaimable),
            (1, 2, 5)
        );
        let containers = usage.container_usage.unwrap();
        assert_eq!((containers.total_size, containers.reclaimable), (7, 4));
        assert!(usage.volume_usage.is_none());
        assert_eq!(usage.build_cache_usage.unwrap(), UsageOf::default());
    }
}
