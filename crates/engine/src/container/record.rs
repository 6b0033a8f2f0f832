//! Containers in the database: one row each, the document as JSON beside the columns that must be unique.
//!
//! Ports are in it as ranges where they are many: a document with an entry for each of ten thousand ports would be a
//! megabyte, written at every change of the container's state.

use std::borrow::Cow;
use std::sync::Arc;

use api_types::{Empty, ExposedPorts, List, PortBinding, PortMap, PortValue, Ports, Protocol};
use serde::{Deserialize, Serialize};
use store::Store;
use store::rusqlite::{OptionalExtension as _, Transaction, params};

use super::{Container, MountKind, PlannedMount};
use crate::error::{Error, Result};

const SCHEMA: &[&str] = &[
    "CREATE TABLE containers (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    document TEXT NOT NULL
 ) STRICT",
    // Documents may have folded ports from here on, which earlier releases would not see.
    "SELECT 1",
];

/// So many ports are written one by one, as everybody reads them.
const FEW: usize = 64;

/// Ports that are in a document as ranges, and not where they belong. A range is its protocol, its first port, how many
/// they are, and what the first one has.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Folded {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    exposed: Vec<(String, u16, u16, Empty)>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    bindings: Vec<(String, u16, u16, List<PortBinding>)>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    published: Vec<(String, u16, u16, List<PortBinding>)>,
}

/// The runs of many ports; what is no run stays in the map that is left.
fn fold<V: PortValue>(ports: &Ports<V>) -> Option<(Vec<(String, u16, u16, V)>, Ports<V>)> {
    if ports.len() <= FEW {
        return None;
    }
    let range = |(protocol, first, run): (Protocol, u16, &api_types::ports::Run<V>)| {
        (protocol.as_str().to_owned(), first, run.count, run.value.clone())
    };
    let mut left = Ports::empty();
    for (name, value) in ports.others() {
        left.insert(name, value.clone());
    }
    Some((ports.runs().map(range).collect(), left))
}

fn unfold<V: PortValue>(ranges: Vec<(String, u16, u16, V)>, ports: &mut Ports<V>) -> Result<()> {
    for (protocol, first, count, value) in ranges {
        let last = count.checked_sub(1).and_then(|more| first.checked_add(more));
        let (Some(protocol), Some(last)) = (Protocol::parse(&protocol), last) else {
            return Err(Error::internal(format!(
                "the database has a range of ports that is none: {count} from {first}/{protocol} on"
            )));
        };
        ports.insert_range(protocol, first..=last, value);
    }
    Ok(())
}

/// The container as its document has it.
fn folded(container: &Container) -> Cow<'_, Container> {
    let exposed = fold::<Empty>(&container.config.exposed_ports);
    let bindings = fold::<List<PortBinding>>(&container.host_config.port_bindings);
    let published = fold::<List<PortBinding>>(&container.ports);
    if exposed.is_none() && bindings.is_none() && published.is_none() {
        return Cow::Borrowed(container);
    }
    let mut document = container.clone();
    let mut folded = Folded::default();
    if let Some((ranges, left)) = exposed {
        folded.exposed = ranges;
        Arc::make_mut(&mut document.config).exposed_ports = left;
    }
    if let Some((ranges, left)) = bindings {
        folded.bindings = ranges;
        Arc::make_mut(&mut document.host_config).port_bindings = left;
    }
    if let Some((ranges, left)) = published {
        folded.published = ranges;
        document.ports = Arc::new(left);
    }
    document.folded = Some(Box::new(folded));
    Cow::Owned(document)
}

fn write(container: &Container) -> Result<String> {
    Ok(serde_json::to_string(&*folded(container))?)
}

fn read(document: &str) -> Result<Container> {
    let mut container: Container = serde_json::from_str(document)?;
    if let Some(folded) = container.folded.take() {
        let exposed: &mut ExposedPorts = &mut Arc::make_mut(&mut container.config).exposed_ports;
        unfold(folded.exposed, exposed)?;
        let bindings: &mut PortMap = &mut Arc::make_mut(&mut container.host_config).port_bindings;
        unfold(folded.bindings, bindings)?;
        unfold(folded.published, Arc::make_mut(&mut container.ports))?;
    }
    Ok(container)
}

/// The table of containers.
#[derive(Clone)]
pub(crate) struct Records {
    store: Store,
}

impl Records {
    pub(crate) fn open(store: Store) -> Result<Records> {
        store.db().migrate("engine", SCHEMA)?;
        Ok(Records { store })
    }

    /// Every container, oldest first.
    pub(crate) fn load(&self) -> Result<Vec<Container>> {
        let documents: Vec<String> = self.store.db().read(|db| {
            let mut select = db.prepare("SELECT document FROM containers ORDER BY rowid")?;
            let rows = select.query_map([], |row| row.get(0))?;
            rows.collect()
        })?;
        documents.iter().map(|text| read(text)).collect()
    }

    /// Adds a container, together with what `along` does; its id and name must be free.
    pub(crate) fn insert(
        &self,
        container: &Container,
        along: impl FnOnce(&Transaction<'_>) -> std::result::Result<(), store::DbError>,
    ) -> Result<()> {
        let document = write(container)?;
        self.store.db().write(|db| {
            let taken: Option<String> = db
                .query_row(
                    "SELECT id FROM containers WHERE name = ?",
                    [&container.name],
                    |row| row.get(0),
                )
                .optional()
                .map_err(store::DbError::from)?;
            if let Some(owner) = taken {
                return Err(name_in_use(&container.name, &owner));
            }
            db.execute(
                "INSERT INTO containers (id, name, document) VALUES (?, ?, ?)",
                params![container.id.as_str(), container.name, document],
            )
            .map_err(store::DbError::from)?;
            along(db)?;
            Ok(())
        })
    }

    /// Writes the container's present document.
    pub(crate) fn save(&self, container: &Container) -> Result<()> {
        let document = write(container)?;
        self.store.db().make_room();
        self.store.db().write(|db| {
            db.execute(
                "UPDATE containers SET name = ?, document = ? WHERE id = ?",
                params![container.name, document, container.id.as_str()],
            )
            .map_err(store::DbError::from)?;
            Ok(())
        })
    }

    pub(crate) fn delete(&self, id: &spec::Id) -> Result<()> {
        self.store.db().make_room();
        self.store.db().write(|db| {
            db.execute("DELETE FROM containers WHERE id = ?", [id.as_str()])
                .map_err(store::DbError::from)?;
            Ok(())
        })
    }
}

/// Layers that containers have mounted (`type=image`), for garbage collection: they must stay even when the image
/// they came from is removed.
pub(crate) fn mounted_layers(db: &Transaction<'_>) -> store::rusqlite::Result<store::Roots> {
    #[derive(serde::Deserialize)]
    struct Plan {
        plan: Vec<PlannedMount>,
    }
    let mut roots = store::Roots::default();
    let mut select = db.prepare("SELECT document FROM containers")?;
    let documents = select.query_map([], |row| row.get::<_, String>(0))?;
    for document in documents {
        // A document that can't be read is told at the start of the daemon; it must not stop the collection.
        let Ok(Plan { plan }) = serde_json::from_str(&document?) else {
            continue;
        };
        roots
            .snapshots
            .extend(plan.iter().filter_map(|mount| match &mount.kind {
                MountKind::Image { snapshot, .. } => Some(*snapshot),
                _ => None,
            }));
    }
    Ok(roots)
}

/// Docker's words for a name that another container holds.
pub(crate) fn name_in_use(name: &str, owner: &str) -> Error {
    Error::conflict(format!(
        "Conflict. The container name \"/{name}\" is already in use by container \"{owner}\". You have to remove \
         (or rename) that container to be able to reuse that name."
    ))
}
