//! Which containers exist: id and name to the handle of the owner task.
//!
//! The lock is held only to look up or change the maps. Names are reserved here before a container is made,
//! so two creations with one name can't both go on.

use std::collections::{BTreeMap, HashMap};
use std::os::fd::OwnedFd;
use std::sync::{Arc, PoisonError, RwLock};

use spec::Id;

use super::record::name_in_use;
use super::{Container, Handle, launch};
use crate::error::{Error, Result};

#[derive(Default)]
struct Maps {
    by_id: BTreeMap<Id, Handle>,
    names: HashMap<String, Id>,
}

/// All containers of the engine.
#[derive(Default)]
pub(crate) struct Registry {
    maps: RwLock<Maps>,
}

impl Registry {
    fn read(&self) -> std::sync::RwLockReadGuard<'_, Maps> {
        self.maps.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, Maps> {
        self.maps.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a name for a container that is about to be made.
    pub(crate) fn reserve_name(&self, name: &str, id: &Id) -> Result<()> {
        let mut maps = self.write();
        match maps.names.get(name) {
            Some(owner) if owner != id => Err(name_in_use(name, owner.as_str())),
            _ => {
                maps.names.insert(name.to_owned(), id.clone());
                Ok(())
            }
        }
    }

    pub(crate) fn release_name(&self, name: &str) {
        self.write().names.remove(name);
    }

    pub(crate) fn insert(&self, id: Id, name: String, handle: Handle) {
        let mut maps = self.write();
        maps.names.insert(name, id.clone());
        maps.by_id.insert(id, handle);
    }

    pub(crate) fn remove(&self, id: &Id, name: &str) {
        let mut maps = self.write();
        maps.by_id.remove(id);
        maps.names.remove(name);
    }

    /// Finds by full id, name (with or without slash) or unambiguous start of the id.
    pub(crate) fn find(&self, wanted: &str) -> Result<Handle> {
        let maps = self.read();
        let name = wanted.strip_prefix('/').unwrap_or(wanted);
        if name.is_empty() {
            return Err(Error::no_such_container(wanted));
        }
        if let Ok(id) = wanted.parse::<Id>()
            && let Some(handle) = maps.by_id.get(&id)
        {
            return Ok(handle.clone());
        }
        if let Some(handle) = maps.names.get(name).and_then(|id| maps.by_id.get(id)) {
            return Ok(handle.clone());
        }
        let mut matches = maps
            .by_id
            .iter()
            .filter(|(id, _)| id.as_str().starts_with(wanted));
        match (matches.next(), matches.next()) {
            (Some((_, handle)), None) => Ok(handle.clone()),
            (Some(_), Some(_)) => Err(Error::invalid(format!(
                "multiple IDs found with provided prefix: {wanted}"
            ))),
            _ => Err(Error::no_such_container(wanted)),
        }
    }

    /// The network namespace of a container while it runs.
    pub(crate) fn netns(&self, id: &Id) -> Option<OwnedFd> {
        let container = self.read().by_id.get(id)?.snapshot();
        let lives = container.state.status.is_alive();
        launch::netns_of(container.state.pid).ok().filter(|_| lives)
    }

    /// What every owner last published, newest container first.
    pub(crate) fn snapshots(&self) -> Vec<Arc<Container>> {
        let mut all: Vec<_> = self.read().by_id.values().map(Handle::snapshot).collect();
        all.sort_by(|a, b| b.created.cmp(&a.created).then_with(|| a.id.cmp(&b.id)));
        all
    }
}
