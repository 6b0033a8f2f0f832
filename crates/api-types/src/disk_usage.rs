//! `GET /system/df`: the form of API 1.52 and the one before it.
//!
//! From 1.52 an answer carries one usage object per kind; without `verbose` an engine still adds the old lists for clients
//! that read those (dropped when `verbose` is asked for).

use serde::{Deserialize, Serialize};

use crate::build::BuildCache;
use crate::collection::List;
use crate::container_summary::ContainerSummary;
use crate::image::ImageSummary;
use crate::is_zero;
use crate::volume::Volume;

/// Figures about one kind of object; zeros are left out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct UsageOf<T> {
    #[serde(skip_serializing_if = "is_zero")]
    pub active_count: i64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub items: Vec<T>,
    #[serde(skip_serializing_if = "is_zero")]
    pub reclaimable: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub total_count: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub total_size: i64,
}

impl<T> Default for UsageOf<T> {
    fn default() -> Self {
        Self {
            active_count: 0,
            items: Vec::new(),
            reclaimable: 0,
            total_count: 0,
            total_size: 0,
        }
    }
}

/// The form of API 1.52; a kind that was not asked for is absent.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct DiskUsage {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_usage: Option<UsageOf<ImageSummary>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container_usage: Option<UsageOf<ContainerSummary>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume_usage: Option<UsageOf<Volume>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub build_cache_usage: Option<UsageOf<BuildCache>>,
}

/// The form up to API 1.51; a kind that was not asked for is absent.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct LegacyDiskUsage {
    #[serde(skip_serializing_if = "is_zero")]
    pub layers_size: i64,
    #[serde(skip_serializing_if = "List::is_null")]
    pub images: List<ImageSummary>,
    #[serde(skip_serializing_if = "List::is_null")]
    pub containers: List<ContainerSummary>,
    #[serde(skip_serializing_if = "List::is_null")]
    pub volumes: List<Volume>,
    #[serde(skip_serializing_if = "List::is_null")]
    pub build_cache: List<BuildCache>,
}
