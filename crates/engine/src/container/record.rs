//! Containers in the database: one row each, the document as JSON beside the columns that must be unique.

use store::Store;
use store::rusqlite::{OptionalExtension as _, Transaction, params};

use super::{Container, MountKind, PlannedMount};
use crate::error::{Error, Result};

const SCHEMA: &[&str] = &["CREATE TABLE containers (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    document TEXT NOT NULL
 ) STRICT"];

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
        documents
            .iter()
            .map(|text| serde_json::from_str(text).map_err(Error::from))
            .collect()
    }

    /// Adds a container, together with what `along` does; its id and name must be free.
    pub(crate) fn insert(
        &self,
        container: &Container,
        along: impl FnOnce(&Transaction<'_>) -> std::result::Result<(), store::DbError>,
    ) -> Result<()> {
        let document = serde_json::to_string(container)?;
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
        let document = serde_json::to_string(container)?;
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
