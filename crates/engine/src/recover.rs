//! What the engine does when it opens: it finds every container as it really is.
//!
//! For each row: a monitor that answers is adopted; one that is gone left an exit record, or its container's end
//! is unknown and said to be. Removals that were begun are finished. Then networks drop what belongs to nobody
//! alive, containers whose policy says so are started, and monitors nobody knows are told to leave.

use std::collections::HashSet;
use std::os::fd::AsFd as _;
use std::sync::Arc;

use monitor::client::Monitor;
use monitor::protocol::ExitRecord;
use spec::Id;

use crate::check::{dismiss_unknown, remove_unrecorded};
use crate::container::{
    Container, EXIT_UNKNOWN, Status, Supervision, adopt, clear_after_monitor, netns_of, read_exit_record,
    reconcile_ports, remove_parts, settle_limits, tell_end, wants_start_with_daemon,
};
use crate::engine::{Engine, Inner, blocking};
use crate::error::{Error, Result, chain};

/// A container's supervision, if a monitor of it lives.
type Found = (Container, Option<(Monitor, std::os::unix::net::UnixStream)>);

pub(crate) async fn recover(engine: &Engine) -> Result<()> {
    let inner = Arc::clone(&engine.inner);
    let found = blocking(move || find(&inner)).await?;
    for (container, _) in &found {
        if let Some(maps) = &container.userns {
            engine.inner.ids.hold(&container.id, maps);
        }
        engine.inner.selinux.hold(&container.id, &container.process_label);
    }
    let alive: HashSet<Id> = found
        .iter()
        .filter(|(_, m)| m.is_some())
        .map(|(c, _)| c.id.clone())
        .collect();
    let inner = Arc::clone(&engine.inner);
    blocking(move || {
        dismiss_unknown(&inner, &alive)?;
        let holders = alive.iter().map(Id::to_string).collect();
        inner.volumes.unmount_all_but(&holders);
        Ok(inner.networks.reconcile(&alive)?)
    })
    .await?;
    let mut to_start = Vec::new();
    let mut to_remove = Vec::new();
    for (mut container, monitor) in found {
        let was_up = monitor.is_none() && is_up(container.state.status);
        if was_up {
            let (inner, owned) = (Arc::clone(&engine.inner), container.clone());
            blocking(move || {
                clear_after_monitor(&inner, &owned);
                Ok(())
            })
            .await?;
            let ended = mark_ended(&mut container);
            engine.inner.records.save(&container)?;
            if let Some(record) = ended {
                tell_end(&engine.inner, &container, &record);
            }
        }
        if monitor.is_some() {
            container = adopt_as_it_is(engine, container).await?;
        }
        let policy = &container.host_config.restart_policy;
        let start = monitor.is_none()
            && wants_start_with_daemon(
                policy,
                was_up,
                container.state.exit_code,
                container.restart_count,
                container.stopped_by_hand,
            );
        if removes_itself(&container) && !start {
            container.state.status = Status::Removing;
            container.removing_volumes = true;
            engine.inner.records.save(&container)?;
        }
        // Whatever kept a removal from its end may be over by now.
        if matches!(container.state.status, Status::Removing | Status::Dead) {
            to_remove.push(container);
            continue;
        }
        let id = container.id.clone();
        take_over(engine, container, monitor)?;
        if start {
            to_start.push(id);
        }
    }
    engine.thaw_left().await;
    // After the others are known: what they use stays.
    let volumes = engine.inner.volumes.hasty();
    for mut container in to_remove {
        let (inner, volumes) = (Arc::clone(&engine.inner), volumes.clone());
        let owned = container.clone();
        let removed = blocking(move || remove_parts(&inner, &volumes, &owned)).await;
        let Err(error) = removed else {
            let events = &engine.inner.events;
            events.publish(
                "container",
                "destroy",
                container.id.as_str(),
                container.attributes(),
            );
            continue;
        };
        tracing::error!(container = %container.id, %error, "could not finish a container's removal");
        container.state.status = Status::Dead;
        container.state.error = error.message;
        take_over(engine, container, None)?;
    }
    let recorded: HashSet<Id> = engine.containers().iter().map(|c| c.id.clone()).collect();
    let inner = Arc::clone(&engine.inner);
    blocking(move || {
        remove_unrecorded(&inner, &recorded)?;
        // Every process of before that is nobody's has ended by now.
        let emptied = inner.store.empty_trash();
        emptied.map_err(|error| Error::internal(chain(&error)))
    })
    .await?;
    let engine = engine.clone();
    // Starting is not part of opening: the daemon answers at once.
    engine.inner.tasks.clone().spawn(async move {
        let (serves, shutdown) = (engine.inner.serves.clone(), engine.inner.shutdown.clone());
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = serves.cancelled() => {}
        }
        for id in to_start {
            if let Err(error) = engine.container_start(id.as_str()).await {
                tracing::warn!(container = %id, %error, "could not start a container with the daemon");
            }
        }
    });
    Ok(())
}

fn take_over(
    engine: &Engine,
    container: Container,
    monitor: Option<(Monitor, std::os::unix::net::UnixStream)>,
) -> Result<()> {
    let supervision = monitor
        .map(|(monitor, watch)| Supervision::asked(monitor, watch))
        .transpose()?;
    let (id, name) = (container.id.clone(), container.name.clone());
    if supervision.is_some() {
        engine.inner.execs.expect(&id);
    }
    let handle = adopt(&engine.inner, container, supervision);
    engine.inner.containers.insert(id, name, handle);
    Ok(())
}

/// Finishes what a crash cut off while the container was paused or continued, was given other limits, joined or left a
/// network, or had ports published or taken back: between what was done to it and its record.
async fn adopt_as_it_is(engine: &Engine, mut container: Container) -> Result<Container> {
    let inner = Arc::clone(&engine.inner);
    blocking(move || {
        // One that has just ended has no group any more; its monitor tells the rest.
        let status = match inner.cgroup_of(&container).map(|group| group.is_frozen()) {
            Ok(Ok(true)) => Status::Paused,
            Ok(Ok(false)) => Status::Running,
            _ => container.state.status,
        };
        if container.state.status != status {
            container.state.status = status;
            inner.records.save(&container)?;
        }
        if let Some(written) = container.unsettled.take() {
            if let Err(error) = settle_limits(&inner, &container, &written) {
                tracing::warn!(
                    container = %container.id,
                    %error,
                    "limits of an update that was cut off may be in force until the container ends"
                );
            }
            inner.records.save(&container)?;
        }
        if !container.has_endpoints() {
            return Ok(container);
        }
        let recorded: Vec<String> = container.networks.keys().cloned().collect();
        // A container that ends at this moment is found to have ended soon.
        let Ok(netns) = netns_of(container.state.pid) else {
            return Ok(container);
        };
        let left = inner
            .networks
            .reconcile_container(&container.id, netns.as_fd(), &recorded)?;
        container.networks.retain(|name, _| !left.contains(name));
        let lost = reconcile_ports(&inner.networks, &mut container)?;
        if lost || !left.is_empty() {
            inner.records.save(&container)?;
        }
        Ok(container)
    })
    .await
}

fn is_up(status: Status) -> bool {
    matches!(status, Status::Running | Status::Paused | Status::Restarting)
}

/// It has ended or failed to start, and nobody shall be troubled with its removal.
fn removes_itself(container: &Container) -> bool {
    let is_down = matches!(container.state.status, Status::Exited | Status::Created);
    container.host_config.auto_remove && is_down && container.exits > 0
}

/// Nothing here waits for a monitor's answer: one that is held up is its own container's trouble. Where it cannot be told
/// whether there is one, nothing is said of the container, and the engine does not open.
fn find(inner: &Inner) -> Result<Vec<Found>> {
    let mut found = Vec::new();
    for container in inner.records.load()? {
        let monitor = match is_up(container.state.status) {
            true => Monitor::find(&inner.config.run_dir, container.id.as_str())?,
            false => None,
        };
        found.push((container, monitor));
    }
    Ok(found)
}

/// Whether no container lives that an earlier daemon left, as far as monitors say.
pub(crate) fn is_deserted(inner: &Inner) -> Result<bool> {
    Ok(find(inner)?.iter().all(|(_, monitor)| monitor.is_none()))
}

/// The container ended while no daemon looked: what its monitor recorded is what happened. Nothing, where it was between
/// two runs, whose end was told.
fn mark_ended(container: &mut Container) -> Option<ExitRecord> {
    let waiting = container.state.status == Status::Restarting;
    let recorded = read_exit_record(&container.files.dir.join("exit.json"));
    let state = &mut container.state;
    state.status = Status::Exited;
    state.pid = 0;
    if waiting {
        return None;
    }
    // The machine went down, or the monitor was killed: nobody saw the end.
    let record = recorded.unwrap_or_else(|| ExitRecord {
        exit_code: EXIT_UNKNOWN,
        signal: None,
        oom_killed: false,
        started_at: state.started_at.unwrap_or_default(),
        finished_at: jiff::Timestamp::now(),
        ran_nanos: None,
        peak_memory: None,
    });
    state.exit_code = record.exit_code;
    state.oom_killed = record.oom_killed;
    state.finished_at = Some(record.finished_at);
    container.unsettled = None;
    container.exits += 1;
    container.ports = Arc::new(api_types::PortMap::empty());
    Some(record)
}
