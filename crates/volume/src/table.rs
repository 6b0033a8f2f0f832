//! The table behind the volumes. Steps that were released are never changed.

use std::collections::BTreeMap;
use std::path::Path;

use jiff::Timestamp;
use store::rusqlite::types::Type;
use store::rusqlite::{self, Connection, OptionalExtension, Row};

use crate::{LOCAL, Trashed, Volume, data, trash};

pub(crate) const STEPS: &[&str] = &[
    "
    CREATE TABLE volume (
        name      TEXT PRIMARY KEY,
        driver    TEXT NOT NULL,
        labels    TEXT NOT NULL,
        options   TEXT NOT NULL,
        created   INTEGER NOT NULL,
        anonymous INTEGER NOT NULL
    ) STRICT;
",
    "
    ALTER TABLE volume ADD COLUMN pending INTEGER NOT NULL DEFAULT 0;
    CREATE TABLE volume_removal (name TEXT PRIMARY KEY) STRICT;
",
    "
    CREATE TABLE volume_rename (old TEXT PRIMARY KEY, new TEXT NOT NULL) STRICT;
",
    "
    CREATE TABLE volume_trash (
        id        TEXT PRIMARY KEY,
        name      TEXT NOT NULL,
        driver    TEXT NOT NULL,
        labels    TEXT NOT NULL,
        options   TEXT NOT NULL,
        created   INTEGER NOT NULL,
        anonymous INTEGER NOT NULL,
        trashed   INTEGER NOT NULL
    ) STRICT;
",
    "
    CREATE TABLE volume_mount (
        name   TEXT NOT NULL,
        holder TEXT NOT NULL,
        driver TEXT NOT NULL,
        place  TEXT NOT NULL,
        PRIMARY KEY (name, holder)
    ) STRICT;
",
];

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

pub(crate) fn insert(db: &Connection, volume: &Volume, pending: bool) -> rusqlite::Result<()> {
    db.prepare_cached(
        "INSERT INTO volume (name, driver, labels, options, created, anonymous, pending) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?
    .execute((
        &volume.name,
        &volume.driver,
        to_json(&volume.labels)?,
        to_json(&volume.options)?,
        volume.created_at.as_second(),
        volume.anonymous,
        pending,
    ))
    .map(|_| ())
}

/// Names of volumes whose creators are not done.
pub(crate) fn pending(db: &Connection) -> rusqlite::Result<Vec<String>> {
    names(db, "SELECT name FROM volume WHERE pending ORDER BY name")
}

/// Its creator is done.
pub(crate) fn settle(db: &Connection, name: &str) -> rusqlite::Result<()> {
    db.prepare_cached("UPDATE volume SET pending = 0 WHERE name = ?1 AND pending")?
        .execute([name])
        .map(|_| ())
}

/// Names of volumes that are being removed.
pub(crate) fn removals(db: &Connection) -> rusqlite::Result<Vec<String>> {
    names(db, "SELECT name FROM volume_removal ORDER BY name")
}

pub(crate) fn end_removal(db: &Connection, name: &str) -> rusqlite::Result<()> {
    db.execute("DELETE FROM volume_removal WHERE name = ?1", [name])
        .map(|_| ())
}

fn names(db: &Connection, query: &str) -> rusqlite::Result<Vec<String>> {
    db.prepare_cached(query)?
        .query_map([], |row| row.get(0))?
        .collect()
}

/// Takes the row away and notes that the directory has to follow. Whether there was such a row.
pub(crate) fn begin_removal(db: &Connection, name: &str) -> rusqlite::Result<bool> {
    let existed = db.execute("DELETE FROM volume WHERE name = ?1", [name])? != 0;
    if existed {
        db.execute("INSERT OR IGNORE INTO volume_removal (name) VALUES (?1)", [name])?;
    }
    Ok(existed)
}

/// Takes the row of a volume away that has another one now.
pub(crate) fn forget(db: &Connection, name: &str) -> rusqlite::Result<()> {
    db.execute("DELETE FROM volume WHERE name = ?1", [name])
        .map(|_| ())
}

/// Notes that a directory is to be renamed.
pub(crate) fn intend(db: &Connection, old: &str, new: &str) -> rusqlite::Result<()> {
    db.execute(
        "INSERT OR REPLACE INTO volume_rename (old, new) VALUES (?1, ?2)",
        [old, new],
    )
    .map(|_| ())
}

/// Notes that it was.
pub(crate) fn intended(db: &Connection, old: &str) -> rusqlite::Result<()> {
    db.execute("DELETE FROM volume_rename WHERE old = ?1", [old])
        .map(|_| ())
}

/// Renames that a crash cut short.
pub(crate) fn intentions(db: &Connection) -> rusqlite::Result<Vec<(String, String)>> {
    db.prepare_cached("SELECT old, new FROM volume_rename")?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect()
}

/// What is in the trash, the oldest first.
pub(crate) fn trash(db: &Connection, dir: &Path) -> rusqlite::Result<Vec<Trashed>> {
    db.prepare_cached(
        "SELECT name, driver, labels, options, created, anonymous, id, trashed FROM volume_trash \
         ORDER BY trashed, rowid",
    )?
    .query_map([], |row| {
        let mut volume = from_row(row, dir)?;
        let id: String = row.get(6)?;
        volume.mountpoint = data(dir, &trash::place(&id));
        let since = Timestamp::from_second(row.get(7)?).map_err(|error| broken(7, error))?;
        Ok(Trashed { id, volume, since })
    })?
    .collect()
}

/// Notes that a volume is in the trash.
pub(crate) fn discard(db: &Connection, trashed: &Trashed) -> rusqlite::Result<()> {
    let volume = &trashed.volume;
    db.prepare_cached(
        "INSERT INTO volume_trash (id, name, driver, labels, options, created, anonymous, trashed) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    )?
    .execute((
        &trashed.id,
        &volume.name,
        &volume.driver,
        to_json(&volume.labels)?,
        to_json(&volume.options)?,
        volume.created_at.as_second(),
        volume.anonymous,
        trashed.since.as_second(),
    ))
    .map(|_| ())
}

/// Notes that it no longer is. Whether it was.
pub(crate) fn undiscard(db: &Connection, id: &str) -> rusqlite::Result<bool> {
    Ok(db.execute("DELETE FROM volume_trash WHERE id = ?1", [id])? != 0)
}

/// A volume that a plugin was asked to mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mounted {
    pub(crate) name: String,
    pub(crate) holder: String,
    pub(crate) driver: String,
    /// Empty until the plugin has answered.
    pub(crate) place: String,
}

pub(crate) fn mounted(db: &Connection) -> rusqlite::Result<Vec<Mounted>> {
    db.prepare_cached("SELECT name, holder, driver, place FROM volume_mount ORDER BY driver, name, holder")?
        .query_map([], |row| {
            Ok(Mounted {
                name: row.get(0)?,
                holder: row.get(1)?,
                driver: row.get(2)?,
                place: row.get(3)?,
            })
        })?
        .collect()
}

/// Notes that a plugin is asked to mount a volume, or where it has.
pub(crate) fn begin_mount(db: &Connection, mounted: &Mounted) -> rusqlite::Result<()> {
    db.execute(
        "INSERT OR REPLACE INTO volume_mount (name, holder, driver, place) VALUES (?1, ?2, ?3, ?4)",
        [&mounted.name, &mounted.holder, &mounted.driver, &mounted.place],
    )
    .map(|_| ())
}

/// Notes that it was asked to let go of it.
pub(crate) fn end_mount(db: &Connection, name: &str, holder: &str) -> rusqlite::Result<()> {
    db.execute(
        "DELETE FROM volume_mount WHERE name = ?1 AND holder = ?2",
        [name, holder],
    )
    .map(|_| ())
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
        scope: LOCAL.to_owned(),
        status: Default::default(),
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
