//! Removal: a sequence that says what it has done and can be gone through again.
//!
//! The row is marked first, with what is to go, so that a daemon that dies in between finishes the removal at its next
//! start. Then goes what can be made again (endpoints), then the writable snapshot, the volumes, the files, then the row; the
//! name is free only after all of it. Where a step fails the container is dead, which says why: whoever removes it again
//! goes through all steps anew, and so does the next daemon.

use monitor::protocol::{Event, Heard};
use store::SnapshotError;
use tokio::time::Instant;
use volume::Volumes;

use super::mounts::MountKind;
use super::owner::{Command, Owner};
use super::{Status, stuck};
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
        let before = match self.container.state.status {
            // What was to be started again stays down.
            Status::Restarting => Status::Exited,
            status => status,
        };
        let volumes = std::mem::replace(&mut self.container.removing_volumes, options.volumes);
        self.container.state.status = Status::Removing;
        if let Err(error) = self.publish() {
            // Nothing was begun that anybody would go on with.
            self.container.state.status = before;
            self.container.removing_volumes = volumes;
            self.publish_only();
            return Err(error);
        }
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
        let (deadline, shutdown) = (Instant::now() + stuck::PATIENCE, self.engine.shutdown.clone());
        let record = loop {
            let next = async {
                match &mut self.supervision {
                    Some(supervision) => supervision.next().await,
                    None => None,
                }
            };
            let heard = tokio::select! {
                biased;
                heard = next => heard,
                () = shutdown.cancelled() => return Err(self.does_not_end("the daemon ends meanwhile")),
                () = tokio::time::sleep_until(deadline) => return Err(self.does_not_end_in_time().await),
            };
            match heard {
                Some(Ok(Heard::Event(Event::Exited(record)))) => break record,
                Some(Ok(Heard::Event(Event::Oom))) => self.emit("oom"),
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

    /// What it waits for, as far as that can be told.
    async fn does_not_end_in_time(&self) -> Error {
        match self.why_it_is_stuck().await {
            Some(why) => why.context(format!("cannot remove container \"/{}\"", self.container.name)),
            None => self.does_not_end("processes wait so for a disk or a network, or are frozen"),
        }
    }

    /// It was killed and is still there; its end will be heard as any other's.
    fn does_not_end(&self, why: &str) -> Error {
        Error::internal(format!(
            "cannot remove container {:?}: it was killed, and its process {} has not ended yet: {why}; remove it again \
             when it has",
            format!("/{}", self.container.name),
            self.container.state.pid
        ))
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
    let snapshots = engine.store.snapshots();
    match snapshots.get(container.snapshot) {
        Ok(_) => {
            snapshots.remove(container.snapshot)?;
        }
        Err(SnapshotError::NotFound(_)) => {}
        Err(error) => return Err(error.into()),
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
