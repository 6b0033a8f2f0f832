//! What of the configuration may change while the engine runs.
//!
//! One value is swapped for the next as a whole: a request sees the old one or the new one, never parts of both. What
//! exists keeps what it was made with; containers, pulls and pushes that begin later get the new settings.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};

use crate::engine::Engine;
use crate::error::{Error, Result, chain};

/// Settings that [`Engine::reload`] replaces.
#[derive(Debug, Clone)]
pub struct LiveConfig {
    /// `name=value` labels of the daemon.
    pub labels: Vec<String>,
    /// Logging of containers that name no driver.
    pub log_driver: String,
    pub log_opts: BTreeMap<String, String>,
    /// Whether containers get an init process unless they say otherwise.
    pub init: bool,
    /// Registries and how to reach them.
    pub registry: registry::ClientConfig,
    /// Blobs downloaded at once, over all pulls.
    pub max_downloads: usize,
    /// Blobs uploaded at once, in each push.
    pub max_uploads: usize,
    /// Space on the disk that pulls, loads and builds leave free.
    pub min_free: store::MinFree,
    /// Most bytes of one layer, unpacked.
    pub max_layer_size: u64,
    /// Which compressed layers stay on the disk.
    pub image_blobs: image::BlobPolicy,
    /// How long removed volumes can be had back; not at all when zero.
    pub volume_trash_ttl: std::time::Duration,
    /// Whether the daemon says more in its log.
    pub debug: bool,
}

impl Default for LiveConfig {
    fn default() -> LiveConfig {
        LiveConfig {
            labels: Vec::new(),
            log_driver: "json-file".to_owned(),
            log_opts: BTreeMap::new(),
            init: false,
            registry: registry::ClientConfig::default(),
            max_downloads: image::MAX_DOWNLOADS,
            max_uploads: image::MAX_UPLOADS,
            min_free: store::MinFree::default(),
            max_layer_size: image::MAX_LAYER,
            image_blobs: image::BlobPolicy::default(),
            volume_trash_ttl: crate::volumes::trash::DEFAULT_TTL,
            debug: false,
        }
    }
}

impl LiveConfig {
    /// As the event tells it: Docker's keys, lists as JSON.
    fn attributes(&self) -> BTreeMap<String, String> {
        let json = |value: serde_json::Value| value.to_string();
        BTreeMap::from(
            [
                ("debug", self.debug.to_string()),
                ("init", self.init.to_string()),
                ("insecure-registries", json(self.registry.insecure.clone().into())),
                ("labels", json(self.labels.clone().into())),
                ("live-restore", true.to_string()),
                ("log-driver", self.log_driver.clone()),
                ("log-opts", json(self.log_opts.clone().into_iter().collect())),
                ("max-concurrent-downloads", self.max_downloads.to_string()),
                ("max-concurrent-uploads", self.max_uploads.to_string()),
                (
                    "name",
                    rustix::system::uname().nodename().to_string_lossy().into_owned(),
                ),
                ("registry-mirrors", json(self.registry.mirrors.clone().into())),
            ]
            .map(|(key, value)| (key.to_owned(), value)),
        )
    }
}

impl Engine {
    /// The settings of now.
    pub fn live(&self) -> Arc<LiveConfig> {
        self.inner.live()
    }

    /// Takes over other settings, or none of them where one cannot be used; an event tells of it.
    pub fn reload(&self, live: LiveConfig) -> Result<()> {
        self.inner
            .images
            .registry()
            .reload(live.registry.clone())
            .map_err(|error| Error::invalid(chain(&error)))?;
        self.inner.store.room().keep(live.min_free);
        self.inner.images.set_max_downloads(live.max_downloads);
        self.inner.images.set_max_uploads(live.max_uploads);
        self.inner.images.set_max_layer(live.max_layer_size);
        let policy_changed = self.inner.live().image_blobs != live.image_blobs;
        let attributes = live.attributes();
        *self.inner.live.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(live);
        self.inner.trash.look_again();
        if policy_changed {
            self.inner.blobs.policy.notify_one();
        }
        let id = &self.inner.daemon_id;
        self.inner.events.publish("daemon", "reload", id, attributes);
        Ok(())
    }
}

impl crate::engine::Inner {
    pub(crate) fn live(&self) -> Arc<LiveConfig> {
        self.live.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
