//! The tables and the statements on them.

use store::rusqlite::{Connection, OptionalExtension, Result, Row, Transaction, params};

use super::Part;
use crate::cache::now;

/// The tables' versions.
pub(crate) const STEPS: &[&str] = &[
    "\
CREATE TABLE build_history (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    reference TEXT NOT NULL,
    dockerfile TEXT NOT NULL,
    target TEXT NOT NULL,
    tags TEXT NOT NULL,
    begun INTEGER NOT NULL,
    ended INTEGER,
    image TEXT,
    error TEXT
) STRICT;
CREATE TABLE build_history_step (
    build INTEGER NOT NULL,
    number INTEGER NOT NULL,
    stage TEXT NOT NULL,
    ordinal INTEGER NOT NULL,
    code TEXT NOT NULL,
    hit INTEGER NOT NULL,
    reason TEXT NOT NULL,
    milliseconds INTEGER NOT NULL,
    identity TEXT NOT NULL,
    parts TEXT,
    inputs TEXT NOT NULL
) STRICT;
CREATE INDEX build_history_step_build ON build_history_step (build);
CREATE INDEX build_history_step_code ON build_history_step (stage, code);
CREATE INDEX build_history_step_identity ON build_history_step (identity);
",
    // Only steps that were made say what they depend on. Of all others, which most are, this index held an entry each, and
    // all of its pages were written with every build.
    "\
DROP INDEX build_history_step_identity;
CREATE INDEX build_history_step_identity ON build_history_step (identity) WHERE parts IS NOT NULL;
",
];

/// One build.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BuildRow {
    /// By what it is called.
    pub reference: String,
    pub dockerfile: String,
    pub target: String,
    /// Names its image was to get, separated by blanks.
    pub tags: String,
    /// Milliseconds since 1970.
    pub begun: i64,
    /// `None`: it goes on, or its daemon ended before it.
    pub ended: Option<i64>,
    pub image: Option<String>,
    pub error: Option<String>,
    pub steps: u64,
    pub hits: u64,
}

/// One step of a build.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StepRow {
    pub number: usize,
    pub stage: String,
    pub ordinal: usize,
    pub code: String,
    pub hit: bool,
    pub reason: String,
    pub milliseconds: u64,
    pub identity: String,
    pub parts: Option<Vec<Part>>,
    pub inputs: Vec<String>,
}

/// Notes a build that begins.
pub fn begin(tx: &Transaction<'_>, row: &BuildRow) -> Result<i64> {
    tx.prepare_cached(
        "INSERT INTO build_history (reference, dockerfile, target, tags, begun) VALUES (?1, ?2, ?3, ?4, ?5)",
    )?
    .execute(params![
        row.reference,
        row.dockerfile,
        row.target,
        row.tags,
        now()
    ])?;
    Ok(tx.last_insert_rowid())
}

/// Notes how a build ended, and forgets the oldest beyond `kept`: where these went and this one comes, much is the same pages.
pub fn end(
    tx: &Transaction<'_>,
    build: i64,
    steps: &[StepRow],
    error: Option<&str>,
    kept: usize,
) -> Result<()> {
    let oldest = build.saturating_sub(i64::try_from(kept).unwrap_or(i64::MAX));
    for forget in [
        "DELETE FROM build_history WHERE id <= ?1",
        "DELETE FROM build_history_step WHERE build <= ?1",
    ] {
        tx.prepare_cached(forget)?.execute([oldest])?;
    }
    tx.prepare_cached("UPDATE build_history SET ended = ?2, error = ?3 WHERE id = ?1")?
        .execute(params![build, now(), error])?;
    let mut insert = tx.prepare_cached(
        "INSERT INTO build_history_step \
         (build, number, stage, ordinal, code, hit, reason, milliseconds, identity, parts, inputs) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
    )?;
    for step in steps {
        let parts = step
            .parts
            .as_ref()
            .and_then(|parts| serde_json::to_string(parts).ok());
        insert.execute(params![
            build,
            i64::try_from(step.number).unwrap_or(i64::MAX),
            step.stage,
            i64::try_from(step.ordinal).unwrap_or(i64::MAX),
            step.code,
            step.hit,
            step.reason,
            i64::try_from(step.milliseconds).unwrap_or(i64::MAX),
            step.identity,
            parts,
            step.inputs.join(" "),
        ])?;
    }
    Ok(())
}

/// Notes which image came of a build.
pub fn note_image(tx: &Transaction<'_>, reference: &str, image: &str) -> Result<()> {
    tx.prepare_cached("UPDATE build_history SET image = ?2 WHERE reference = ?1")?
        .execute([reference, image])?;
    Ok(())
}

/// What a step with this identity was found to depend on when it was made last.
const PARTS: &str = "SELECT parts FROM build_history_step WHERE identity = ?1 AND parts IS NOT NULL \
    ORDER BY build DESC LIMIT 1";
const COLUMNS: &str = "number, stage, ordinal, code, hit, reason, milliseconds, identity, parts, inputs";

fn step(row: &Row<'_>) -> Result<StepRow> {
    let count = |column: usize| -> Result<u64> { Ok(u64::try_from(row.get::<_, i64>(column)?).unwrap_or(0)) };
    let index = |column: usize| -> Result<usize> { Ok(usize::try_from(count(column)?).unwrap_or(0)) };
    let (parts, inputs): (Option<String>, String) = (row.get(8)?, row.get(9)?);
    Ok(StepRow {
        number: index(0)?,
        stage: row.get(1)?,
        ordinal: index(2)?,
        code: row.get(3)?,
        hit: row.get(4)?,
        reason: row.get(5)?,
        milliseconds: count(6)?,
        identity: row.get(7)?,
        parts: parts.and_then(|text| serde_json::from_str(&text).ok()),
        inputs: inputs.split_whitespace().map(str::to_owned).collect(),
    })
}

/// The same step in the newest build before `build`: the same instruction of the stage, else the one at its place. A step
/// that came from the cache then depended on what it did when it was made.
pub fn before(db: &Connection, build: i64, step: &StepRow) -> Result<Option<StepRow>> {
    let find = |condition: &str, value: &dyn store::rusqlite::ToSql| {
        let text = format!(
            "SELECT {COLUMNS} FROM build_history_step WHERE build < ?1 AND stage = ?2 AND {condition} \
             ORDER BY build DESC, number DESC LIMIT 1"
        );
        let mut statement = db.prepare_cached(&text)?;
        statement
            .query_row(params![build, step.stage, value], self::step)
            .optional()
    };
    let place = i64::try_from(step.ordinal).unwrap_or(i64::MAX);
    let found = match find("code = ?3", &step.code)? {
        Some(found) => Some(found),
        None => find("ordinal = ?3", &place)?,
    };
    found.map(|found| with_parts(db, found)).transpose()
}

fn with_parts(db: &Connection, mut step: StepRow) -> Result<StepRow> {
    if step.parts.is_none() {
        let text: Option<String> = db
            .prepare_cached(PARTS)?
            .query_row([&step.identity], |row| row.get(0))
            .optional()?;
        step.parts = text.and_then(|text| serde_json::from_str(&text).ok());
    }
    Ok(step)
}

/// All builds, newest first.
pub fn builds(db: &Connection) -> Result<Vec<BuildRow>> {
    db.prepare_cached(
        "SELECT reference, dockerfile, target, tags, begun, ended, image, error, \
         (SELECT count(*) FROM build_history_step WHERE build = build_history.id), \
         (SELECT count(*) FROM build_history_step WHERE build = build_history.id AND hit = 1) \
         FROM build_history ORDER BY id DESC",
    )?
    .query_map([], |row| {
        Ok(BuildRow {
            reference: row.get(0)?,
            dockerfile: row.get(1)?,
            target: row.get(2)?,
            tags: row.get(3)?,
            begun: row.get(4)?,
            ended: row.get(5)?,
            image: row.get(6)?,
            error: row.get(7)?,
            steps: u64::try_from(row.get::<_, i64>(8)?).unwrap_or(0),
            hits: u64::try_from(row.get::<_, i64>(9)?).unwrap_or(0),
        })
    })?
    .collect()
}

/// The newest build whose id begins so, whose image is this one, or whose image got this name.
pub fn find(db: &Connection, name: &str) -> Result<Option<i64>> {
    let image = format!("sha256:{name}");
    db.prepare_cached(
        "SELECT id FROM build_history WHERE substr(reference, 1, length(?1)) = ?1 \
         OR substr(image, 1, length(?2)) = ?2 OR image = ?1 \
         OR instr(' ' || tags || ' ', ' ' || ?1 || ' ') > 0 ORDER BY id DESC LIMIT 1",
    )?
    .query_row([name, image.as_str()], |row| row.get(0))
    .optional()
}

/// The steps of a build, in their order.
pub fn steps(db: &Connection, build: i64) -> Result<Vec<StepRow>> {
    let text = format!("SELECT {COLUMNS} FROM build_history_step WHERE build = ?1 ORDER BY number");
    let rows: Vec<StepRow> = db
        .prepare_cached(&text)?
        .query_map([build], step)?
        .collect::<Result<_>>()?;
    rows.into_iter().map(|step| with_parts(db, step)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_steps_that_were_made_are_in_the_index_of_what_they_depend_on() {
        let mut db = Connection::open_in_memory().unwrap();
        STEPS.iter().for_each(|step| db.execute_batch(step).unwrap());
        let plan: String = db
            .query_row(&format!("EXPLAIN QUERY PLAN {PARTS}"), ["x"], |row| row.get(3))
            .unwrap();
        assert!(plan.contains("USING INDEX build_history_step_identity"), "{plan}");
        let index = "SELECT sql FROM sqlite_master WHERE name = 'build_history_step_identity'";
        let index: String = db.query_row(index, [], |row| row.get(0)).unwrap();
        assert!(index.ends_with("WHERE parts IS NOT NULL"), "{index}");
        // The newest two are kept.
        let tx = db.transaction().unwrap();
        for round in 0..4 {
            let build = begin(&tx, &BuildRow::default()).unwrap();
            let step = StepRow {
                identity: "x".to_owned(),
                parts: (round == 3).then(|| vec![("command".to_owned(), "true".to_owned())]),
                ..StepRow::default()
            };
            end(&tx, build, &[step], None, 2).unwrap();
        }
        assert_eq!(builds(&tx).unwrap().len(), 2);
        let rows: i64 = tx
            .query_row("SELECT count(*) FROM build_history_step", [], |row| row.get(0))
            .unwrap();
        assert_eq!(rows, 2);
        let known = with_parts(
            &tx,
            StepRow {
                identity: "x".to_owned(),
                ..StepRow::default()
            },
        )
        .unwrap();
        assert_eq!(known.parts.unwrap()[0].1, "true");
    }
}
