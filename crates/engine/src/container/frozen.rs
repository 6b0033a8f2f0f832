//! Containers that stand still while something of theirs is copied.
//!
//! A mark in a container's directory says that it stands still because of us: a daemon that is killed meanwhile leaves it, and
//! the next one lets the container go on. One that its user has paused has no mark and stays as it is. It goes on when the last
//! of several copies is done.

use std::collections::HashMap;
use std::path::PathBuf;

use spec::Id;

use super::Status;
use crate::engine::{Engine, Inner};
use crate::error::{Error, Result};

/// For how many copies each container stands still. Held while one is stopped or let go on, and not while it is copied.
pub(crate) type Holds = tokio::sync::Mutex<HashMap<Id, usize>>;

fn mark(inner: &Inner, id: &Id) -> PathBuf {
    inner
        .config
        .root
        .join("containers")
        .join(id.as_str())
        .join("frozen")
}

impl Engine {
    /// Does something while containers stand still: those of them that run.
    pub(crate) async fn while_frozen<T>(
        &self,
        containers: &[Id],
        work: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let mut frozen = Vec::new();
        let mut outcome = Ok(());
        for id in containers {
            match self.freeze(id).await {
                Ok(true) => frozen.push(id),
                Ok(false) => {}
                Err(error) => {
                    outcome = Err(error);
                    break;
                }
            }
        }
        let mut done = match outcome {
            Ok(()) => work.await,
            Err(error) => Err(error),
        };
        for id in frozen {
            if let Err(error) = self.thaw(id).await {
                // The first failure is the one to tell.
                done = done.and(Err(error));
            }
        }
        done
    }

    /// Whether the container stands still because of this.
    async fn freeze(&self, id: &Id) -> Result<bool> {
        let mut holds = self.inner.frozen.lock().await;
        if let Some(copies) = holds.get_mut(id) {
            *copies += 1;
            return Ok(true);
        }
        if self.status(id) != Some(Status::Running) {
            return Ok(false);
        }
        let mark = mark(&self.inner, id);
        std::fs::write(&mark, "")
            .map_err(|error| Error::internal(format!("cannot write {}: {error}", mark.display())))?;
        let paused = self.container_pause(id.as_str()).await;
        if paused.is_err() {
            forget(&mark);
            if self.status(id) != Some(Status::Running) {
                // It has just ended, or somebody else was faster.
                return Ok(false);
            }
        }
        paused?;
        holds.insert(id.clone(), 1);
        Ok(true)
    }

    async fn thaw(&self, id: &Id) -> Result<()> {
        let mut holds = self.inner.frozen.lock().await;
        match holds.get_mut(id) {
            Some(copies) if *copies > 1 => {
                *copies -= 1;
                return Ok(());
            }
            _ => holds.remove(id),
        };
        let thawed = match self.status(id) {
            Some(Status::Paused) => self.container_unpause(id.as_str()).await,
            // It was killed, or somebody let it go on.
            _ => Ok(()),
        };
        // The mark of one that still stands is for the next daemon.
        if thawed.is_ok() {
            forget(&mark(&self.inner, id));
        }
        thawed
    }

    /// Lets go on what a daemon before left standing still.
    pub(crate) async fn thaw_left(&self) {
        for container in self.containers() {
            if !mark(&self.inner, &container.id).exists() {
                continue;
            }
            tracing::info!(container = %container.name, "goes on: it stood still for a copy that was cut off");
            if let Err(error) = self.thaw(&container.id).await {
                tracing::warn!(container = %container.name, %error, "stands still for a copy that was cut off");
            }
        }
    }

    fn status(&self, id: &Id) -> Option<Status> {
        let container = self.container(id.as_str()).ok()?;
        Some(container.state.status)
    }
}

fn forget(mark: &std::path::Path) {
    match std::fs::remove_file(mark) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            tracing::warn!(path = %mark.display(), %error, "cannot remove the mark of a container that stood still");
        }
        _ => {}
    }
}
