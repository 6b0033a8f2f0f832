//! The tables and the statements on them.

use std::collections::HashSet;

use spec::Digest;
use store::SnapshotId;
use store::rusqlite::{Connection, OptionalExtension, Result, Row, Transaction, params};

use crate::solve::Solved;
use crate::step::Tree;

/// The tables' versions.
pub(crate) const STEPS: &[&str] = &[
    "\
CREATE TABLE build_record (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    identity TEXT NOT NULL,
    inputs TEXT NOT NULL,
    snapshot INTEGER,
    layer INTEGER NOT NULL,
    kind TEXT NOT NULL,
    description TEXT NOT NULL,
    created TEXT NOT NULL,
    made INTEGER NOT NULL,
    used INTEGER NOT NULL,
    uses INTEGER NOT NULL
) STRICT;
CREATE INDEX build_record_identity ON build_record (identity);
CREATE INDEX build_record_snapshot ON build_record (snapshot);
CREATE TABLE build_key (
    key TEXT PRIMARY KEY,
    record INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX build_key_record ON build_key (record);
CREATE TABLE build_mount (
    id TEXT PRIMARY KEY,
    snapshot INTEGER NOT NULL,
    description TEXT NOT NULL,
    made INTEGER NOT NULL,
    used INTEGER NOT NULL,
    uses INTEGER NOT NULL
) STRICT;
",
    // Digests of the content of inputs, `-` where it does not count; empty where none does.
    "ALTER TABLE build_record ADD COLUMN parts TEXT NOT NULL DEFAULT '';",
];

/// A record as a lookup needs it.
pub struct Found {
    pub record: i64,
    pub identity: Digest,
    pub tree: Tree,
    /// Whether its layer is still there.
    pub there: bool,
}

impl Found {
    pub fn solved(self) -> Solved<Tree> {
        Solved {
            value: self.tree,
            identity: self.identity,
        }
    }
}

/// A record to be kept.
pub struct NewRecord<'a> {
    pub keys: &'a [Digest],
    pub identity: &'a Digest,
    pub inputs: &'a [Digest],
    pub parts: Option<&'a [Option<Digest>]>,
    pub tree: &'a Tree,
    pub kind: &'a str,
    pub description: &'a str,
}

/// Milliseconds since 1970.
pub fn now() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

fn digest(row: &Row<'_>, column: usize) -> Result<Digest> {
    let text: String = row.get(column)?;
    text.parse().map_err(|error: spec::DigestError| {
        store::rusqlite::Error::FromSqlConversionFailure(
            column,
            store::rusqlite::types::Type::Text,
            Box::new(error),
        )
    })
}

pub fn find(db: &Connection, key: &Digest) -> Result<Option<Found>> {
    db.prepare_cached(
        "SELECT r.id, r.identity, r.snapshot, r.layer, r.created, \
         r.snapshot IS NULL OR ifnull(s.committed, 0) = 1 FROM build_key k \
         JOIN build_record r ON r.id = k.record LEFT JOIN snapshot s ON s.id = r.snapshot WHERE k.key = ?1",
    )?
    .query_row([key.as_str()], |row| {
        let tree = Tree {
            snapshot: row.get(2)?,
            layer: row.get(3)?,
            created: row.get(4)?,
        };
        Ok(Found {
            record: row.get(0)?,
            identity: digest(row, 1)?,
            tree,
            there: row.get(5)?,
        })
    })
    .optional()
}

/// The content by which the record that `key` leads to is known, as it is stored.
pub fn parts(db: &Connection, key: &Digest) -> Result<Option<String>> {
    db.prepare_cached(
        "SELECT r.parts FROM build_key k JOIN build_record r ON r.id = k.record WHERE k.key = ?1",
    )?
    .query_row([key.as_str()], |row| row.get(0))
    .optional()
}

/// What [`parts`] gave; `None` where no content counts.
pub fn read_parts(stored: &str) -> Option<Vec<Option<Digest>>> {
    let parts: Vec<Option<Digest>> = stored.split_whitespace().map(|part| part.parse().ok()).collect();
    parts.iter().any(Option::is_some).then_some(parts)
}

/// Keeps a record. A record that one of the keys led to before is replaced, as after a build without cache.
pub fn keep(tx: &Transaction<'_>, new: &NewRecord<'_>) -> Result<()> {
    for key in new.keys {
        let old: Option<i64> = tx
            .prepare_cached("SELECT record FROM build_key WHERE key = ?1")?
            .query_row([key.as_str()], |row| row.get(0))
            .optional()?;
        if let Some(old) = old {
            remove(tx, old)?;
        }
    }
    let inputs: Vec<&str> = new.inputs.iter().map(Digest::as_str).collect();
    let parts = new.parts.unwrap_or_default().iter();
    let parts: Vec<&str> = parts
        .map(|part| part.as_ref().map_or("-", Digest::as_str))
        .collect();
    let now = now();
    tx.prepare_cached(
        "INSERT INTO build_record \
         (identity, inputs, snapshot, layer, kind, description, created, made, used, uses, parts) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?8, 0, ?9)",
    )?
    .execute(params![
        new.identity.as_str(),
        inputs.join(" "),
        new.tree.snapshot,
        new.tree.layer,
        new.kind,
        new.description,
        new.tree.created,
        now,
        parts.join(" "),
    ])?;
    let record = tx.last_insert_rowid();
    for key in new.keys {
        tx.prepare_cached("INSERT OR REPLACE INTO build_key (key, record) VALUES (?1, ?2)")?
            .execute(params![key.as_str(), record])?;
    }
    Ok(())
}

/// Lets `key` lead to the newest record with this identity.
pub fn also(tx: &Transaction<'_>, key: &Digest, identity: &Digest) -> Result<()> {
    tx.prepare_cached(
        "INSERT OR REPLACE INTO build_key (key, record) \
         SELECT ?1, id FROM build_record WHERE identity = ?2 ORDER BY id DESC LIMIT 1",
    )?
    .execute([key.as_str(), identity.as_str()])?;
    Ok(())
}

pub fn remove(tx: &Transaction<'_>, record: i64) -> Result<()> {
    tx.prepare_cached("DELETE FROM build_key WHERE record = ?1")?
        .execute([record])?;
    tx.prepare_cached("DELETE FROM build_record WHERE id = ?1")?
        .execute([record])?;
    Ok(())
}

pub fn note_used(tx: &Transaction<'_>, records: &[i64]) -> Result<()> {
    let now = now();
    let mut statement =
        tx.prepare_cached("UPDATE build_record SET used = ?2, uses = uses + 1 WHERE id = ?1")?;
    for record in records {
        statement.execute([*record, now])?;
    }
    Ok(())
}

/// What says that it was made or used later than now was it before the clock was put back. From now on it grows old again.
pub fn no_future(tx: &Transaction<'_>, now: i64) -> Result<()> {
    for table in ["build_record", "build_mount"] {
        for column in ["made", "used"] {
            let text = format!("UPDATE {table} SET {column} = ?1 WHERE {column} > ?1");
            tx.prepare_cached(&text)?.execute([now])?;
        }
    }
    Ok(())
}

/// Drops records that lie on a layer which was not on stable storage when the machine went down: one that the
/// store has not marked as settled and that was written in another boot than `boot`.
pub fn forget_torn(tx: &Transaction<'_>, boot: &str) -> Result<usize> {
    let dropped = tx.execute(
        "WITH RECURSIVE torn (id) AS (
             SELECT id FROM snapshot WHERE committed = 1 AND settled = 0 AND boot <> ?1
             UNION
             SELECT snapshot.id FROM snapshot JOIN torn ON snapshot.parent = torn.id
         )
         DELETE FROM build_record WHERE snapshot IN (SELECT id FROM torn)",
        [boot],
    )?;
    tx.execute(
        "DELETE FROM build_key WHERE record NOT IN (SELECT id FROM build_record)",
        [],
    )?;
    Ok(dropped)
}

/// Drops records that lie on these layers.
pub fn forget_on(tx: &Transaction<'_>, layers: &[SnapshotId]) -> Result<()> {
    let mut dropped = 0;
    let mut record = tx.prepare_cached("DELETE FROM build_record WHERE snapshot = ?1")?;
    for layer in layers {
        dropped += record.execute([layer])?;
    }
    if dropped > 0 {
        tx.execute(
            "DELETE FROM build_key WHERE record NOT IN (SELECT id FROM build_record)",
            [],
        )?;
    }
    Ok(())
}

pub fn roots(tx: &Connection) -> Result<HashSet<SnapshotId>> {
    tx.prepare_cached(
        "SELECT snapshot FROM build_record WHERE snapshot IS NOT NULL UNION SELECT snapshot FROM build_mount",
    )?
    .query_map([], |row| row.get(0))?
    .collect()
}

/// One record or cache mount, for lists.
pub struct Listed {
    /// `None` for a cache mount.
    pub record: Option<i64>,
    pub id: String,
    pub inputs: Vec<String>,
    pub snapshot: Option<SnapshotId>,
    pub layer: bool,
    pub kind: String,
    pub description: String,
    pub made: i64,
    pub used: i64,
    pub uses: i64,
}

/// Everything the cache holds, what was used longest ago first.
pub fn list(db: &Connection) -> Result<Vec<Listed>> {
    db.prepare_cached(
        "SELECT id, identity, inputs, snapshot, layer, kind, description, made, used, uses FROM build_record \
         UNION ALL \
         SELECT NULL, id, '', snapshot, 1, 'exec.cachemount', description, made, used, uses FROM build_mount \
         ORDER BY used, made",
    )?
    .query_map([], |row| {
        let inputs: String = row.get(2)?;
        Ok(Listed {
            record: row.get(0)?,
            id: row.get(1)?,
            inputs: inputs.split_whitespace().map(str::to_owned).collect(),
            snapshot: row.get(3)?,
            layer: row.get(4)?,
            kind: row.get(5)?,
            description: row.get(6)?,
            made: row.get(7)?,
            used: row.get(8)?,
            uses: row.get(9)?,
        })
    })?
    .collect()
}
