//! The domain's snapshots as the newest models of the API. Older forms are made from these by [`crate::versions`].

pub mod container;
pub mod disk_usage;
pub mod exec;
pub mod image;
pub mod network;
pub mod status;
pub mod volume;

use api_types::{Descriptor, List, Map, Platform};

/// A time as the API writes it; "never" is Go's zero time.
pub fn time(time: Option<jiff::Timestamp>) -> String {
    time.map_or_else(|| api_types::ZERO_TIME.to_owned(), |time| time.to_string())
}

/// A size in the API's signed numbers.
pub fn signed(size: u64) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}

/// A descriptor without its platform.
pub fn descriptor(descriptor: &spec::image::Descriptor) -> Descriptor {
    Descriptor {
        media_type: descriptor.media_type.clone(),
        digest: descriptor.digest.to_string(),
        size: signed(descriptor.size),
        urls: null_when_empty(descriptor.urls.clone()),
        annotations: match descriptor.annotations.is_empty() {
            true => Map::null(),
            false => Map::from(descriptor.annotations.clone()),
        },
        platform: None,
        artifact_type: descriptor.artifact_type.clone(),
    }
}

pub fn platform(platform: &spec::Platform) -> Platform {
    Platform {
        architecture: platform.architecture.clone(),
        os: platform.os.clone(),
        os_version: platform.os_version.clone().unwrap_or_default(),
        os_features: null_when_empty(platform.os_features.clone()),
        variant: platform.variant.clone().unwrap_or_default(),
    }
}

/// A list as Go writes a slice that was never made.
pub fn null_when_empty<T>(items: Vec<T>) -> List<T> {
    if items.is_empty() {
        List::null()
    } else {
        List::from(items)
    }
}
