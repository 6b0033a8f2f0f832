//! Removing every container that does not run.

use super::remove::RemoveOptions;
use super::{Container, Status};
use crate::engine::{Engine, blocking};
use crate::error::Result;
use crate::filters::{self, Filters};

/// What a prune removed.
#[derive(Debug, Clone, Default)]
pub struct Pruned {
    pub deleted: Vec<String>,
    /// Bytes.
    pub space: u64,
}

impl Engine {
    /// Removes the containers that are created, exited or dead and pass the filters; to `rehearse` is to say which.
    pub async fn containers_prune(&self, filters: &Filters, rehearse: bool) -> Result<Pruned> {
        filters::check_keys(filters, &["label", "label!", "until"])?;
        let until = filters::until(filters)?;
        let idle = |c: &Container| matches!(c.state.status, Status::Created | Status::Exited | Status::Dead);
        let mut pruned = Pruned::default();
        for container in self.containers() {
            let chosen = idle(&container)
                && filters::label_filters_match(filters, &container.config.labels)
                && until.is_none_or(|until| container.created < until);
            if !chosen {
                continue;
            }
            let (inner, snapshot) = (std::sync::Arc::clone(&self.inner), container.snapshot);
            let size = blocking(move || Ok(inner.store.snapshots().usage(snapshot)?.bytes))
                .await
                .unwrap_or(0);
            // One that started or vanished meanwhile is not to be pruned.
            if rehearse
                || self
                    .container_remove(container.id.as_str(), RemoveOptions::default())
                    .await
                    .is_ok()
            {
                pruned.deleted.push(container.id.to_string());
                pruned.space += size;
            }
        }
        if rehearse {
            return Ok(pruned);
        }
        self.inner.events.publish(
            "container",
            "prune",
            "",
            [("reclaimed".to_owned(), pruned.space.to_string())].into(),
        );
        Ok(pruned)
    }
}
