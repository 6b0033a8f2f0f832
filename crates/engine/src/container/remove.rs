//! Removal: a sequence that says what it has done and can be gone through again.
//!
//! The row is marked first, with what is to go, so that a daemon that dies in between finishes the removal at its next
//! start. Then
//! goes what can be made again (endpoints, files), then the writable snapshot, then the row; the name is free
//! only after all of it.

use monitor::protocol::{Event, Heard};
use volume::Volumes;

use super::Status;
use super::mounts::MountKind;
use super::owner::{Command, Owner};
use crate::engine::{Engine, blocking};
use crate::error::{Error, Result};

/// How to remove.
#[derive(Debug, Clone, Copy, Default)]
pub struct RemoveOptions {
    /// Kill it first if it runs.
    pub force: bool,
    /// Its anonymous volumes as well.
    pub volumes: bool,
    /// Remove a link of old, not the container.
    pub link: bool,
}

impl Engine {
    /// Removes a container.
    pub async fn container_remove(&self, name: &str, options: RemoveOptions) -> Result<()> {
        if options.link {
            return Err(Error::invalid(
                "links are aliases of a network here: use `network disconnect` and `connect`",
            ));
        }
        let handle = self.inner.containers.find(name)?;
        let watch = self.inner.metrics.watch("delete");
        watch.done(handle.ask(|answer| Command::Remove { options, answer }).await)
    }
}

impl Owner {
    pub(super) async fn remove(&mut self, options: RemoveOptions) -> Result<()> {
        let status = self.container.state.status;
        if status.is_alive() {
            if !options.force {
                let advice = match status {
                    Status::Paused => "container is paused and must be unpaused first",
                    _ => "container is running: stop the container before removing or force remove",
                };
                return Err(Error::conflict(format!(
                    "cannot remove container {:?}: {advice}",
                    format!("/{}", self.container.name)
                )));
            }
            self.end_for_removal().await?;
        }
        if status == Status::Restarting && !options.force {
            return Err(Error::conflict(format!(
                "cannot remove container {:?}: container is restarting: stop the container before removing or force remove",
                format!("/{}", self.container.name)
            )));
        }
        self.restart_at = None;
        self.container.state.status = Status::Removing;
        self.container.removing_volumes = options.volumes;
        self.publish()?;
        let engine = std::sync::Arc::clone(&self.engine);
        let container = self.container.clone();
        let removed = blocking(move || remove_parts(&engine, &engine.volumes, &container)).await;
        if let Err(error) = removed {
            self.container.state.status = Status::Dead;
            self.container.state.error = error.message.clone();
            self.publish_or_log();
            return Err(error);
        }
        self.engine.execs.container_ended(&self.container.id);
        self.engine.stats.forget(&self.container.id);
        self.engine
            .containers
            .remove(&self.container.id, &self.container.name);
        self.container.removed = true;
        self.publish_only();
        self.emit("destroy");
        Ok(())
    }

    /// Kills the first process and waits for its end.
    async fn end_for_removal(&mut self) -> Result<()> {
        self.container.stopped_by_hand = true;
        match self.kill(None).await {
            // It has just ended by itself, which is what comes next.
            Err(error) if error.class == spec::ErrorClass::Conflict && self.supervision.is_some() => {}
            killed => killed?,
        }
        let record = loop {
            let heard = match &mut self.supervision {
                Some(supervision) => supervision.next().await,
                None => None,
            };
            match heard {
                Some(Ok(Heard::Event(Event::Exited(record)))) => break record,
                Some(_) => {}
                None => {
                    break super::owner::read_exit_record(&self.exit_file()).unwrap_or_else(|| self.lost());
                }
            }
        };
        self.take_down(&record).await;
        self.emit_end(&record);
        if let Some(stopping) = self.stopping.take() {
            stopping.done();
        }
        Ok(())
    }
}

/// Removes everything a container has on disk and in the database, with as much patience as `volumes` has. Each step may
/// already be done.
pub(crate) fn remove_parts(
    engine: &crate::engine::Inner,
    volumes: &Volumes,
    container: &super::Container,
) -> Result<()> {
    engine.networks.detach(&container.id)?;
    if engine
        .store
        .snapshots()
        .list()?
        .iter()
        .any(|s| s.id == container.snapshot)
    {
        engine.store.snapshots().remove(container.snapshot)?;
    }
    volumes.release(container.id.as_str());
    for mount in &container.plan {
        if let MountKind::Volume {
            name,
            driver,
            anonymous,
            ..
        } = &mount.kind
            && container.removing_volumes
            && *anonymous
            && crate::volumes::remove_with(engine, volumes, name, &container.id, false)
        {
            crate::volumes::emit(engine, "destroy", name, &[("driver", driver)]);
        }
    }
    match std::fs::remove_dir_all(&container.files.dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(Error::internal(format!(
                "cannot remove {}: {error}",
                container.files.dir.display()
            )));
        }
        _ => {}
    }
    engine.records.delete(&container.id)?;
    engine.ids.give_back(&container.id);
    engine.selinux.give_back(&container.id);
    Ok(())
}
