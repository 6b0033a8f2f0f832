//! What the engine does when it opens: it finds every container as it really is.
//!
//! For each row: a monitor that answers is adopted; one that is gone left an exit record, or its container's end
//! is unknown and said to be. Removals that were begun are finished. Then networks drop what belongs to nobody
//! alive, containers whose policy says so are started, and monitors nobody knows are told to leave.

use std::collections::HashSet;
use std::sync::Arc;

use monitor::client::Monitor;
use spec::Id;

use crate::check::{dismiss_unknown, remove_unrecorded};
use crate::container::{
    Container, Status, Supervision, adopt, read_exit_record, remove_parts, wants_start_with_daemon,
};
use crate::engine::{Engine, Inner, blocking};
use crate::error::Result;

/// A container's supervision, if a monitor of it lives.
type Found = (Container, Option<(Monitor, std::os::unix::net::UnixStream)>);

pub(crate) async fn recover(engine: &Engine) -> Result<()> {
    let inner = Arc::clone(&engine.inner);
    let found = blocking(move || find(&inner)).await?;
    for (container, _) in &found {
        if let Some(maps) = &container.userns {
            engine.inner.ids.hold(&container.id, maps);
        }
    }
    let alive: HashSet<Id> = found
        .iter()
        .filter(|(_, m)| m.is_some())
        .map(|(c, _)| c.id.clone())
        .collect();
    let inner = Arc::clone(&engine.inner);
    blocking(move || {
        dismiss_unknown(&inner, &alive)?;
        Ok(inner.networks.reconcile(&alive)?)
    })
    .await?;
    let mut to_start = Vec::new();
    for (mut container, monitor) in found {
        let was_up = monitor.is_none()
            && matches!(
                container.state.status,
                Status::Running | Status::Paused | Status::Restarting
            );
        if was_up {
            mark_ended(&mut container);
            engine.inner.records.save(&container)?;
        }
        let policy = &container.host_config.restart_policy;
        let start = monitor.is_none() && wants_start_with_daemon(policy, was_up, container.stopped_by_hand);
        let remove = monitor.is_none() && was_up && container.host_config.auto_remove && !start;
        if remove || container.state.status == Status::Removing {
            let inner = Arc::clone(&engine.inner);
            let owned = container.clone();
            if let Err(error) = blocking(move || remove_parts(&inner, &owned, true)).await {
                tracing::error!(container = %container.id, %error, "could not finish a container's removal");
                container.state.status = Status::Dead;
            } else {
                continue;
            }
        }
        let supervision = monitor
            .map(|(monitor, watch)| Supervision::new(monitor, watch))
            .transpose()?;
        let (id, name) = (container.id.clone(), container.name.clone());
        let handle = adopt(&engine.inner, container, supervision);
        engine.inner.containers.insert(id.clone(), name, handle);
        if start {
            to_start.push(id);
        }
    }
    let recorded: HashSet<Id> = engine.containers().iter().map(|c| c.id.clone()).collect();
    let inner = Arc::clone(&engine.inner);
    blocking(move || remove_unrecorded(&inner, &recorded)).await?;
    let engine = engine.clone();
    // Starting is not part of opening: the daemon answers at once.
    engine.inner.tasks.clone().spawn(async move {
        for id in to_start {
            if let Err(error) = engine.container_start(id.as_str()).await {
                tracing::warn!(container = %id, %error, "could not start a container with the daemon");
            }
        }
    });
    Ok(())
}

fn find(inner: &Inner) -> Result<Vec<Found>> {
    let mut found = Vec::new();
    for container in inner.records.load()? {
        let up = matches!(
            container.state.status,
            Status::Running | Status::Paused | Status::Restarting
        );
        let monitor = up
            .then(|| Monitor::connect(&inner.config.run_dir, container.id.as_str()).ok())
            .flatten()
            .and_then(|monitor| monitor.watch().ok().map(|watch| (monitor, watch)));
        found.push((container, monitor));
    }
    Ok(found)
}

/// The container ended while no daemon looked: what its monitor recorded is what happened.
fn mark_ended(container: &mut Container) {
    let record = read_exit_record(&container.files.dir.join("exit.json"));
    let waiting = container.state.status == Status::Restarting;
    let state = &mut container.state;
    state.status = Status::Exited;
    state.pid = 0;
    if waiting {
        return;
    }
    container.exits += 1;
    container.ports.clear();
    match record {
        Some(record) => {
            state.exit_code = record.exit_code;
            state.oom_killed = record.oom_killed;
            state.finished_at = Some(record.finished_at);
        }
        None => {
            // The machine went down, or the monitor was killed: nobody saw the end.
            state.exit_code = crate::container::EXIT_UNKNOWN;
            state.finished_at = Some(jiff::Timestamp::now());
        }
    }
}
