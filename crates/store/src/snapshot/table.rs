//! The table behind the snapshots. Steps that were released are never changed.

use rusqlite::types::Type;
use rusqlite::{Connection, Row};
use spec::Digest;

use super::{SnapshotId, SnapshotInfo};

pub(super) const STEPS: &[&str] = &[
    "
    CREATE TABLE snapshot (
        -- AUTOINCREMENT: a number is never given out again.
        id        INTEGER PRIMARY KEY AUTOINCREMENT,
        parent    INTEGER REFERENCES snapshot (id),
        owner     TEXT NOT NULL,
        committed INTEGER NOT NULL DEFAULT 0,
        chain     TEXT UNIQUE,
        diff      TEXT,
        bytes     INTEGER,
        inodes    INTEGER,
        -- Whether the files are known to be on stable storage, and the boot in which they were written.
        settled   INTEGER NOT NULL DEFAULT 0,
        boot      TEXT NOT NULL DEFAULT ''
    ) STRICT;
    CREATE INDEX snapshot_parent ON snapshot (parent);
    CREATE INDEX snapshot_unsettled ON snapshot (id) WHERE committed = 1 AND settled = 0;
",
    "
    -- Of a snapshot that holds everything that shows: when it was filled, in nanoseconds since 1970.
    ALTER TABLE snapshot ADD COLUMN filled INTEGER;
",
];

const COLUMNS: &str = "SELECT id, parent, owner, committed, chain, diff, bytes, filled FROM snapshot";

pub(super) fn find(db: &Connection, id: SnapshotId) -> rusqlite::Result<SnapshotInfo> {
    db.prepare_cached(&format!("{COLUMNS} WHERE id = ?1"))?
        .query_row([id], from_row)
}

pub(super) fn all(db: &Connection) -> rusqlite::Result<Vec<SnapshotInfo>> {
    db.prepare_cached(&format!("{COLUMNS} ORDER BY id"))?
        .query_map([], from_row)?
        .collect()
}

fn from_row(row: &Row<'_>) -> rusqlite::Result<SnapshotInfo> {
    Ok(SnapshotInfo {
        id: row.get(0)?,
        parent: row.get(1)?,
        owner: row.get(2)?,
        committed: row.get(3)?,
        chain: digest(row, 4)?,
        diff: digest(row, 5)?,
        size: unsigned(row, 6)?,
        filled: row.get(7)?,
    })
}

/// Sizes and counts: SQLite's integers are signed.
pub(super) fn unsigned(row: &Row<'_>, index: usize) -> rusqlite::Result<Option<u64>> {
    Ok(row
        .get::<_, Option<i64>>(index)?
        .and_then(|value| u64::try_from(value).ok()))
}

pub(super) fn digest(row: &Row<'_>, index: usize) -> rusqlite::Result<Option<Digest>> {
    row.get::<_, Option<String>>(index)?
        .map(|text| text.parse())
        .transpose()
        .map_err(|error| rusqlite::Error::FromSqlConversionFailure(index, Type::Text, Box::new(error)))
}
