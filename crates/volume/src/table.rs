//! The table behind the volumes. Steps that were released are never changed.

use std::collections::BTreeMap;
use std::path::Path;

use jiff::Timestamp;
use store::rusqlite::types::Type;
use store::rusqlite::{self, Connection, OptionalExtension, Row};

use crate::{Volume, data};

pub(crate) const STEPS: &[&str] = &["
    CREATE TABLE volume (
        name      TEXT PRIMARY KEY,
        driver    TEXT NOT NULL,
        labels    TEXT NOT NULL,
        options   TEXT NOT NULL,
        created   INTEGER NOT NULL,
        anonymous INTEGER NOT NULL
    ) STRICT;
"];

const COLUMNS: &str = "SELECT name, driver, labels, options, created, anonymous FROM volume";

pub(crate) fn find(db: &Connection, dir: &Path, name: &str) -> rusqlite::Result<Option<Volume>> {
    db.prepare_cached(&format!("{COLUMNS} WHERE name = ?1"))?
        .query_row([name], |row| from_row(row, dir))
        .optional()
}

pub(crate) fn all(db: &Connection, dir: &Path) -> rusqlite::Result<Vec<Volume>> {
    db.prepare_cached(&format!("{COLUMNS} ORDER BY name"))?
        .query_map([], |row| from_row(row, dir))?
        .collect()
}

pub(crate) fn insert(db: &Connection, volume: &Volume) -> rusqlite::Result<()> {
    db.prepare_cached(
        "INSERT INTO volume (name, driver, labels, options, created, anonymous) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?
    .execute((
        &volume.name,
        &volume.driver,
        to_json(&volume.labels)?,
        to_json(&volume.options)?,
        volume.created_at.as_second(),
        volume.anonymous,
    ))
    .map(|_| ())
}

/// Whether there was such a row.
pub(crate) fn delete(db: &Connection, name: &str) -> rusqlite::Result<bool> {
    db.execute("DELETE FROM volume WHERE name = ?1", [name])
        .map(|count| count != 0)
}

fn from_row(row: &Row<'_>, dir: &Path) -> rusqlite::Result<Volume> {
    let name: String = row.get(0)?;
    Ok(Volume {
        mountpoint: data(dir, &name),
        name,
        driver: row.get(1)?,
        labels: from_json(row, 2)?,
        options: from_json(row, 3)?,
        created_at: Timestamp::from_second(row.get(4)?).map_err(|error| broken(4, error))?,
        anonymous: row.get(5)?,
    })
}

fn from_json(row: &Row<'_>, index: usize) -> rusqlite::Result<BTreeMap<String, String>> {
    let text: String = row.get(index)?;
    serde_json::from_str(&text).map_err(|error| broken(index, error))
}

fn to_json(map: &BTreeMap<String, String>) -> rusqlite::Result<String> {
    serde_json::to_string(map).map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))
}

fn broken(index: usize, error: impl std::error::Error + Send + Sync + 'static) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(index, Type::Text, Box::new(error))
}
