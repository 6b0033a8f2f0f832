//! Volumes.

use api_types::{Map, Volume, VolumeUsageData};
use std::collections::BTreeMap;

use super::signed;

/// `GET /volumes/{name}` and a row of the list.
pub fn volume(volume: &engine::volume::Volume) -> Volume {
    Volume {
        created_at: volume.created_at.to_string(),
        driver: volume.driver.clone(),
        labels: null_when_empty(&volume.labels),
        mountpoint: volume.mountpoint.to_string_lossy().into_owned(),
        name: volume.name.clone(),
        options: null_when_empty(&volume.options),
        scope: volume.scope.clone(),
        status: match volume.status.is_empty() {
            true => Map::null(),
            false => Map::from(volume.status.clone()),
        },
        usage_data: None,
    }
}

/// The row with what the volume takes and how many containers have it.
pub fn with_usage(of: &engine::volume::Volume, size: u64, users: usize) -> Volume {
    let ref_count = i64::try_from(users).unwrap_or(i64::MAX);
    Volume {
        usage_data: Some(VolumeUsageData {
            ref_count,
            size: signed(size),
        }),
        ..volume(of)
    }
}

fn null_when_empty(map: &BTreeMap<String, String>) -> Map<String> {
    if map.is_empty() {
        Map::null()
    } else {
        Map::from(map.clone())
    }
}
