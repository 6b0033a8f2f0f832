//! The user namespace of a container's next process: chosen, and made.

use std::os::fd::{AsFd as _, OwnedFd};

use api_types::HostConfig;
use runtime::id_ranges;
use spec::runtime::IdMapping;
use sys::namespace::{self, IdRange, Kind};

use super::Container;
use crate::engine::Inner;
use crate::error::{Error, Result};
use crate::userns::{IdMaps, Mode};

/// A user namespace for a container.
pub(super) struct Made {
    pub(super) maps: IdMaps,
    pub(super) user: OwnedFd,
    /// A network namespace that it owns, when one was wanted.
    pub(super) network: Option<OwnedFd>,
}

/// The other containers whose namespaces this one joins.
fn joined(host: &HostConfig) -> impl Iterator<Item = &str> {
    [
        &host.userns_mode,
        &host.network_mode,
        &host.pid_mode,
        &host.ipc_mode,
    ]
    .into_iter()
    .filter_map(|mode| mode.strip_prefix("container:"))
}

/// Refuses what does not go together, in Docker's words.
pub(super) fn check(inner: &Inner, host: &HostConfig, mode: &Mode) -> Result<()> {
    if let Mode::Container(name) = mode {
        // "Not found" would make clients look for the image.
        inner
            .containers
            .find(name)
            .map_err(|missing| Error::invalid(missing.message))?;
    }
    if !mode.is_private(&inner.config.userns) {
        return Ok(());
    }
    needs_no_rights_of_the_host(host)?;
    // What another container has belongs to its user namespace.
    if *mode != Mode::Default && joined(host).next().is_some() {
        return Err(Error::invalid(format!(
            "conflicting options: a container that joins a namespace of another one is in its user namespace, not in \
             one of its own (--userns {})",
            host.userns_mode
        )));
    }
    Ok(())
}

fn needs_no_rights_of_the_host(host: &HostConfig) -> Result<()> {
    if host.privileged {
        return Err(Error::invalid(
            "privileged mode is incompatible with user namespaces.  You must run the container in the host namespace \
             when running privileged mode",
        ));
    }
    if host.network_mode == "host" {
        return Err(Error::invalid(
            "cannot share the host's network namespace when user namespaces are enabled",
        ));
    }
    if host.pid_mode == "host" {
        return Err(Error::invalid(
            "cannot share the host PID namespace when user namespaces are enabled",
        ));
    }
    Ok(())
}

/// The namespace that the container starts in; none is the host's.
pub(super) fn prepare(inner: &Inner, container: &Container) -> Result<Option<Made>> {
    let host = &container.host_config;
    let mode = Mode::parse(&host.userns_mode)?;
    // The daemon may have been started with another mapping since.
    check(inner, host, &mode)?;
    if mode == Mode::Host {
        return Ok(None);
    }
    let mut others = joined(host).peekable();
    if others.peek().is_some() {
        return shared(inner, container, others);
    }
    let remap = inner.config.userns.remap.as_ref();
    let maps = match (&container.userns, mode) {
        // They were its own before the daemon was started with them for all others.
        (Some(maps), _) if remap.is_some_and(|remap| remap.overlaps(maps)) => {
            return Err(Error::conflict(
                "the container's own ids are now also those of --userns-remap: remove the container, or map to another user",
            ));
        }
        (Some(maps), _) => maps.clone(),
        (None, Mode::Auto { .. } | Mode::KeepId { .. }) => {
            return Err(Error::internal("the container has lost its ids"));
        }
        (None, _) => match remap {
            Some(maps) => maps.clone(),
            None => return Ok(None),
        },
    };
    let kinds: &[Kind] = if container.has_endpoints() {
        &[Kind::Network]
    } else {
        &[]
    };
    let mut made = namespace::create_user(&id_ranges(&maps.uids), &id_ranges(&maps.gids), kinds)
        .map_err(|error| Error::internal(format!("cannot make a user namespace: {error}")))?;
    Ok(Some(Made {
        maps,
        user: made.user,
        network: made.others.pop(),
    }))
}

/// That of the containers whose other namespaces are joined.
fn shared<'a>(
    inner: &Inner,
    container: &Container,
    others: impl Iterator<Item = &'a str>,
) -> Result<Option<Made>> {
    let failed = |error| Error::internal(format!("cannot join a user namespace: {error}"));
    let mut found: Option<(OwnedFd, i32, String)> = None;
    for name in others {
        let other = inner.containers.find(name)?.snapshot();
        if !other.state.status.is_alive() {
            return Err(Error::conflict(format!(
                "cannot join user namespace of a non running container: {}",
                other.id
            )));
        }
        let user = namespace::open(Some(other.state.pid), Kind::User).map_err(failed)?;
        match &found {
            Some((first, _, owner)) if !namespace::same(first, &user).map_err(failed)? => {
                return Err(Error::conflict(format!(
                    "cannot join namespaces of {owner} and of {}: they are in different user namespaces",
                    other.name
                )));
            }
            Some(_) => {}
            None => found = Some((user, other.state.pid, other.name.clone())),
        }
    }
    let Some((user, pid, _)) = found else {
        return Ok(None);
    };
    let own = namespace::open(None, Kind::User).map_err(failed)?;
    if namespace::same(own.as_fd(), &user).map_err(failed)? {
        return Ok(None);
    }
    needs_no_rights_of_the_host(&container.host_config)?;
    let (uids, gids) = namespace::maps_of(pid).map_err(failed)?;
    let network = match container.has_endpoints() {
        true => namespace::create_in(user.as_fd(), &[Kind::Network])
            .map_err(failed)?
            .pop(),
        false => None,
    };
    Ok(Some(Made {
        maps: IdMaps {
            uids: mappings(&uids),
            gids: mappings(&gids),
        },
        user,
        network,
    }))
}

pub(super) fn mappings(ranges: &[IdRange]) -> Vec<IdMapping> {
    let mapping = |range: &IdRange| IdMapping {
        container_id: range.inside,
        host_id: range.outside,
        size: range.count,
    };
    ranges.iter().map(mapping).collect()
}
