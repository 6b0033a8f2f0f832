//! The metadata database: one SQLite file in WAL mode, one writer, snapshot-isolated readers.
//!
//! Each room owns its own tables and brings them up to date with [`Db::migrate`]. Durability is chosen per
//! transaction: [`Db::write`] survives the death of the process, [`Db::write_durable`] also a power cut (one
//! fsync of the log, which makes every earlier transaction durable too).
//!
//! The writer is one connection behind a mutex. A write inside a write of the same thread would wait for
//! itself, so it is refused instead ([`DbError::Nested`]). Readers run beside the writer and see the last
//! committed state.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, Transaction, TransactionBehavior};
use spec::ErrorClass;

use crate::reserve::Reserve;

/// "Brth": marks the file as ours for file(1) and against mistakes.
const APPLICATION_ID: i32 = 0x4272_7468;
/// Readers kept open for the next read.
const IDLE_READERS: usize = 4;

/// A database operation failed.
#[derive(Debug, thiserror::Error)]
pub enum DbError {
    /// SQLite refused.
    #[error("metadata database: {0}")]
    Sqlite(rusqlite::Error),
    /// The disk is full; nothing was changed.
    #[error("metadata database: no space left on the device of the data root; free space and try again")]
    Full,
    /// Written by a newer version of the engine.
    #[error(
        "{path}: the tables of {component:?} have version {found}, this program knows versions up to {known}; \
         use the newer program or another data root"
    )]
    Newer {
        path: String,
        component: String,
        found: usize,
        known: usize,
    },
    /// A migration step failed; the tables are as they were before.
    #[error("{path}: cannot bring the tables of {component:?} to version {step}: {cause}")]
    Migration {
        path: String,
        component: String,
        step: usize,
        cause: rusqlite::Error,
    },
    /// The disk or its filesystem is broken, or has become read-only.
    #[error(
        "metadata database: {0}: the filesystem of the data root cannot be written; the kernel's log says why"
    )]
    Unwritable(rusqlite::Error),
    /// The database's file cannot be opened.
    #[error("cannot open {path}: {cause}")]
    Unopened { path: String, cause: std::io::Error },
    /// The file is not a database of this engine.
    #[error("{path} is not a metadata database of this engine")]
    Foreign { path: String },
    /// A write was started inside a write.
    #[error("a write to the metadata database was started inside another one")]
    Nested,
}

impl DbError {
    /// Which kind of failure this is for a client.
    pub fn class(&self) -> ErrorClass {
        match self {
            DbError::Full => ErrorClass::Unavailable,
            _ => ErrorClass::Internal,
        }
    }
}

impl From<rusqlite::Error> for DbError {
    fn from(error: rusqlite::Error) -> DbError {
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => DbError::Full,
            Some(ErrorCode::SystemIoFailure | ErrorCode::ReadOnly) => DbError::Unwritable(error),
            _ => DbError::Sqlite(error),
        }
    }
}

/// The metadata database of one data root.
pub struct Db {
    path: PathBuf,
    writer: Mutex<Connection>,
    readers: Mutex<Vec<Connection>>,
    reserve: Reserve,
}

thread_local! {
    /// The database this thread is writing to, by address.
    static WRITING: Cell<usize> = const { Cell::new(0) };
}

impl Db {
    /// Opens or creates the database.
    pub fn open(path: &Path) -> Result<Db, DbError> {
        let writer = connect(path)?;
        let id: i32 = writer.query_row("PRAGMA application_id", [], |row| row.get(0))?;
        let tables: i64 = writer.query_row("SELECT count(*) FROM sqlite_master", [], |row| row.get(0))?;
        if id != APPLICATION_ID {
            if tables != 0 {
                return Err(DbError::Foreign {
                    path: path.display().to_string(),
                });
            }
            writer.pragma_update(None, "application_id", APPLICATION_ID)?;
        }
        writer.execute_batch(
            "CREATE TABLE IF NOT EXISTS component (name TEXT PRIMARY KEY, version INTEGER NOT NULL) STRICT",
        )?;
        Ok(Db {
            path: path.to_owned(),
            writer: Mutex::new(writer),
            readers: Mutex::new(Vec::new()),
            reserve: Reserve::beside(path),
        })
    }

    /// Brings the tables of `component` up to date. `steps[n]` leads from version `n` to `n + 1`; steps that
    /// were released are never changed, only added to. All missing steps happen, or none.
    pub fn migrate(&self, component: &str, steps: &[&str]) -> Result<(), DbError> {
        self.write_durable(|tx| {
            let found: Option<i64> = tx
                .query_row(
                    "SELECT version FROM component WHERE name = ?1",
                    [component],
                    |row| row.get(0),
                )
                .optional()?;
            let found = usize::try_from(found.unwrap_or(0)).unwrap_or(0);
            let Some(missing) = steps.get(found..) else {
                return Err(DbError::Newer {
                    path: self.path.display().to_string(),
                    component: component.to_owned(),
                    found,
                    known: steps.len(),
                });
            };
            for (index, step) in missing.iter().enumerate() {
                tx.execute_batch(step).map_err(|cause| DbError::Migration {
                    path: self.path.display().to_string(),
                    component: component.to_owned(),
                    step: found + index + 1,
                    cause,
                })?;
            }
            if !missing.is_empty() {
                tx.execute(
                    "INSERT INTO component (name, version) VALUES (?1, ?2) \
                     ON CONFLICT (name) DO UPDATE SET version = excluded.version",
                    (component, steps.len() as i64),
                )?;
            }
            Ok(())
        })
    }

    /// Runs `f` on one consistent state of the database.
    pub fn read<T>(&self, f: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, DbError> {
        let idle = locked(&self.readers).pop();
        let connection = match idle {
            Some(connection) => connection,
            None => {
                let connection = connect(&self.path)?;
                connection.pragma_update(None, "query_only", true)?;
                connection
            }
        };
        let result = connection.unchecked_transaction().and_then(|tx| f(&tx));
        let mut readers = locked(&self.readers);
        if readers.len() < IDLE_READERS {
            readers.push(connection);
        }
        Ok(result?)
    }

    /// Runs `f` in a transaction that survives the death of the process once this returns.
    pub fn write<T, E: From<DbError>>(
        &self,
        f: impl FnOnce(&Transaction<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        self.transact(false, f)
    }

    /// Runs `f` in a transaction that also survives a power cut once this returns.
    pub fn write_durable<T, E: From<DbError>>(
        &self,
        f: impl FnOnce(&Transaction<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        self.transact(true, f)
    }

    /// To be called before a write that belongs to removing or ending something: on a full disk it gives up the space
    /// that is kept for that.
    pub fn make_room(&self) {
        self.reserve.settle();
    }

    /// Gives the pages back that connections keep for the next question. They are read again when they are needed.
    pub fn release_memory(&self) -> Result<(), DbError> {
        locked(&self.writer).execute_batch("PRAGMA shrink_memory")?;
        for reader in &*locked(&self.readers) {
            reader.execute_batch("PRAGMA shrink_memory")?;
        }
        Ok(())
    }

    fn transact<T, E: From<DbError>>(
        &self,
        durable: bool,
        f: impl FnOnce(&Transaction<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let _writing = Writing::enter(self)?;
        let mut writer = locked(&self.writer);
        if durable {
            synchronous(&writer, "FULL")?;
        }
        let result = commit(&mut writer, f);
        if durable {
            synchronous(&writer, "NORMAL")?;
        }
        result
    }
}

fn commit<T, E: From<DbError>>(
    writer: &mut Connection,
    f: impl FnOnce(&Transaction<'_>) -> Result<T, E>,
) -> Result<T, E> {
    let tx = writer
        .transaction_with_behavior(TransactionBehavior::Immediate)
        .map_err(DbError::from)?;
    let value = f(&tx)?;
    tx.commit().map_err(DbError::from)?;
    Ok(value)
}

/// SQLite says only that it cannot; the kernel says why, such as for want of descriptors.
fn unopened(path: &Path, error: rusqlite::Error) -> DbError {
    match (error.sqlite_error_code(), std::fs::File::open(path)) {
        (Some(ErrorCode::CannotOpen), Err(cause)) => DbError::Unopened {
            path: path.display().to_string(),
            cause,
        },
        _ => error.into(),
    }
}

fn synchronous(connection: &Connection, level: &str) -> Result<(), DbError> {
    Ok(connection.pragma_update(None, "synchronous", level)?)
}

fn connect(path: &Path) -> Result<Connection, DbError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX
        | OpenFlags::SQLITE_OPEN_EXRESCODE;
    let connection = Connection::open_with_flags(path, flags).map_err(|error| unopened(path, error))?;
    // The root's lock keeps other daemons out; an administrator's sqlite3 shell may hold a lock for a moment.
    connection.busy_timeout(Duration::from_secs(5))?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.pragma_update(None, "journal_size_limit", 16 * 1024 * 1024)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    Ok(connection)
}

/// A panic of one caller leaves no half-made transaction behind (it is rolled back when dropped), so a
/// poisoned lock guards nothing broken.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Marks the thread as writing, until dropped.
struct Writing {
    before: usize,
}

impl Writing {
    fn enter(db: &Db) -> Result<Writing, DbError> {
        let address = std::ptr::from_ref(db).addr();
        WRITING.with(|writing| {
            let before = writing.get();
            if before == address {
                return Err(DbError::Nested);
            }
            writing.set(address);
            Ok(Writing { before })
        })
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        WRITING.with(|writing| writing.set(self.before));
    }
}
