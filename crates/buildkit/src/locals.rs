//! Clients' directories as they are kept here from one build to the next, so that only what changed travels again.
//!
//! ```text
//!   <root>/buildkit/local/<key>/<slot>/tree      what the client last sent
//!                                     /staging   files under way; emptied before each transfer
//!                                     /begun     when the last transfer that ended well had begun
//!   <root>/buildkit/local/boot                   the boot in which all of it was written
//! ```
//!
//! The key stands for the client's machine and directory (its shared key) and the directory's name. Clients make the
//! shared key of the last part of the directory's path, so that several directories may have one key: what is here is
//! only as good as a look at the client's files shows (see `files::tree`). Dockerfiles and ignore files, on which
//! everything depends and which are small, are asked for each time. A slot belongs to one transfer and to the builds that use what it brought; a transfer that finds the first slot in use takes the next
//! one. Within a session, equal selections are one transfer.
//!
//! What was written before the machine went down may not have reached the disk: it is thrown away, as is whatever was
//! not used for longest when there is too much of it.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use spec::Digest;
use tokio::sync::OnceCell;

use crate::error::Failure;
use crate::files::{Purpose, Selection, Trust, receive};
use crate::job::Job;
use crate::session::Session;

/// How many directories of clients are kept.
const MAX_KEYS: usize = 64;
/// How directories are called that are being removed.
const GONE: &str = ".gone-";

fn is_gone(path: &Path) -> bool {
    path.file_name()
        .is_some_and(|name| name.to_string_lossy().starts_with(GONE))
}

/// A directory in use.
#[derive(Debug)]
pub struct Local {
    tree: PathBuf,
    _claim: Claim,
}

impl Local {
    pub fn path(&self) -> &Path {
        &self.tree
    }
}

/// A slot that nobody else may write to.
#[derive(Debug)]
struct Claim {
    slot: PathBuf,
    claimed: Arc<Mutex<HashMap<PathBuf, ()>>>,
}

impl Drop for Claim {
    fn drop(&mut self) {
        lock(&self.claimed).remove(&self.slot);
    }
}

type Shared = Arc<OnceCell<Weak<Local>>>;

/// The directories that are kept; clones are handles.
#[derive(Clone)]
pub struct Locals {
    root: PathBuf,
    claimed: Arc<Mutex<HashMap<PathBuf, ()>>>,
    transfers: Arc<Mutex<HashMap<(String, Selection), Shared>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Locals {
    /// What is kept below the engine's root.
    pub fn open(root: &Path) -> io::Result<Locals> {
        let root = root.join("buildkit/local");
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let mark = root.join("boot");
        if root.exists() && fs::read_to_string(&mark).ok().as_deref() != Some(boot.as_str()) {
            fs::remove_dir_all(&root)?;
        }
        fs::create_dir_all(&root)?;
        fs::write(&mark, &boot)?;
        // Who was removing them has ended.
        for entry in fs::read_dir(&root)? {
            let path = entry?.path();
            if is_gone(&path) {
                fs::remove_dir_all(&path)?;
            }
        }
        Ok(Locals {
            root,
            claimed: Arc::default(),
            transfers: Arc::default(),
        })
    }

    /// Brings a selection of a client's directory here. It stays as it is while the result is held.
    pub async fn fetch(
        &self,
        session: &Session,
        selection: &Selection,
        title: &str,
        job: &Arc<Job>,
    ) -> Result<Arc<Local>, Failure> {
        let key = (session.id.clone(), selection.clone());
        loop {
            let cell = lock(&self.transfers).entry(key.clone()).or_default().clone();
            let mut own = None;
            let transfer = async {
                let local = Arc::new(self.transfer(session, selection, title, job).await?);
                own = Some(local.clone());
                Ok::<_, Failure>(Arc::downgrade(&local))
            };
            let outcome = cell.get_or_try_init(|| transfer).await.map(Weak::upgrade);
            let forget = || {
                let mut transfers = lock(&self.transfers);
                if transfers.get(&key).is_some_and(|known| Arc::ptr_eq(known, &cell)) {
                    transfers.remove(&key);
                }
            };
            match outcome {
                Ok(Some(local)) => return Ok(local),
                // Used and given up: the next one makes it anew.
                Ok(None) => forget(),
                Err(error) => {
                    forget();
                    return Err(error);
                }
            }
        }
    }

    async fn transfer(
        &self,
        session: &Session,
        selection: &Selection,
        title: &str,
        job: &Arc<Job>,
    ) -> Result<Local, Failure> {
        let step = job.begin(title);
        let done = self.transfer_told(session, selection, &step).await;
        step.end(done.as_ref().err().map(|error| error.message.clone()));
        done
    }

    async fn transfer_told(
        &self,
        session: &Session,
        selection: &Selection,
        step: &crate::job::Step,
    ) -> Result<Local, Failure> {
        let named = format!(
            "{}\0{}\0{}",
            session.shared_key,
            selection.directory,
            selection.purpose.as_str()
        );
        // Without a key nothing says that the next session means the same directory.
        let key = match session.shared_key.is_empty() {
            true => format!("{}\0{named}", session.id),
            false => named,
        };
        let home = self.root.join(Digest::sha256(key.as_bytes()).hex());
        let this = self.clone();
        let claim = tokio::task::spawn_blocking(move || this.claim(&home))
            .await
            .map_err(Failure::broken)?
            .map_err(|error| {
                Failure::internal(format!("cannot make a directory for the client's files: {error}"))
            })?;
        let (tree, staging) = (claim.slot.join("tree"), claim.slot.join("staging"));
        let what = format!("transferring {}:", selection.directory);
        let (begun, mark) = (nanoseconds_now(), claim.slot.join("begun"));
        let trust = match selection.purpose {
            Purpose::Context => last_begun(&mark).map_or(Trust::Never, Trust::Before),
            Purpose::Dockerfile | Purpose::Ignore => Trust::Never,
        };
        let received = receive(session, selection, (&tree, &staging), trust, |bytes| {
            step.transferred(&what, bytes, false)
        })
        .await;
        let bytes = match received {
            Ok(bytes) => bytes,
            Err(error) => {
                // The half of it may be what fills the disk.
                let slot = claim.slot.clone();
                let removed = tokio::task::spawn_blocking(move || fs::remove_dir_all(slot)).await;
                if let Err(failed) = removed.map_err(io::Error::other).and_then(|removed| removed) {
                    tracing::warn!(%failed, "half of a client's directory is left");
                }
                return Err(error);
            }
        };
        if selection.purpose == Purpose::Context
            && let Err(error) = fs::write(&mark, begun.to_string())
        {
            tracing::warn!(%error, "the next transfer of a directory will be a whole one");
            let _ = fs::remove_file(&mark);
        }
        step.transferred(&what, bytes, true);
        Ok(Local { tree, _claim: claim })
    }

    fn claim(&self, home: &Path) -> io::Result<Claim> {
        if !home.exists() {
            self.make_room(home)?;
        }
        let mut claimed = lock(&self.claimed);
        let slot = (0..)
            .map(|number: usize| home.join(number.to_string()))
            .find(|slot| !claimed.contains_key(slot))
            .ok_or(io::ErrorKind::NotFound)?;
        claimed.insert(slot.clone(), ());
        drop(claimed);
        let claim = Claim {
            slot: slot.clone(),
            claimed: self.claimed.clone(),
        };
        fs::create_dir_all(slot.join("tree"))?;
        empty(&slot.join("staging"))?;
        // When it was last used, for those who make room.
        fs::write(home.join("used"), "")?;
        Ok(claim)
    }

    /// Removes what was not used for longest, as far as nobody uses it.
    fn make_room(&self, keep: &Path) -> io::Result<()> {
        let now = std::time::SystemTime::now();
        let mut homes = Vec::new();
        for entry in fs::read_dir(&self.root)? {
            let path = entry?.path();
            if path.is_dir() && path != keep && !is_gone(&path) {
                let used = fs::metadata(path.join("used")).and_then(|meta| meta.modified());
                // What says that it was used in the future was used before the clock was put back: it is none of the newest.
                homes.push((used.ok().filter(|used| *used <= now), path));
            }
        }
        homes.sort();
        let surplus = homes.len().saturating_sub(MAX_KEYS - 1);
        for (_, home) in homes.into_iter().take(surplus) {
            // Somebody may begin to use it, or make room as well: it goes out of the way while nobody can claim it.
            let gone = self.root.join(format!("{GONE}{}", spec::Id::random().short()));
            let claimed = lock(&self.claimed);
            let busy = claimed.keys().any(|slot| slot.starts_with(&home));
            let taken = !busy && fs::rename(&home, &gone).is_ok();
            drop(claimed);
            if taken {
                fs::remove_dir_all(&gone)?;
            }
        }
        Ok(())
    }

    /// How many bytes are kept, and how many directories nobody uses.
    pub fn usage(&self) -> io::Result<Vec<Kept>> {
        let mut kept = Vec::new();
        for entry in fs::read_dir(&self.root)? {
            let path = entry?.path();
            if !path.is_dir() || is_gone(&path) {
                continue;
            }
            let busy = lock(&self.claimed).keys().any(|slot| slot.starts_with(&path));
            let used = fs::metadata(path.join("used")).and_then(|meta| meta.modified());
            kept.push(Kept {
                bytes: size(&path)?,
                id: path
                    .file_name()
                    .map(|name| name.to_string_lossy().into_owned())
                    .unwrap_or_default(),
                used: used.unwrap_or(std::time::UNIX_EPOCH),
                busy,
            });
        }
        Ok(kept)
    }

    /// Removes one of them, if nobody uses it.
    pub fn remove(&self, id: &str) -> io::Result<bool> {
        let home = self.root.join(id);
        let claimed = lock(&self.claimed);
        if id.contains('/') || claimed.keys().any(|slot| slot.starts_with(&home)) || !home.is_dir() {
            return Ok(false);
        }
        fs::remove_dir_all(&home)?;
        Ok(true)
    }
}

/// Leaves an empty directory. One that is empty already, as it nearly always is, is not touched: making and removing
/// directories waits for the disk when others write much.
fn empty(directory: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return fs::create_dir(directory),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        match entry.file_type()?.is_dir() {
            true => fs::remove_dir_all(entry.path())?,
            false => fs::remove_file(entry.path())?,
        }
    }
    Ok(())
}

/// Nanoseconds since 1970.
fn nanoseconds_now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    i64::try_from(since.unwrap_or_default().as_nanos()).unwrap_or(i64::MAX)
}

/// When the transfer that left this mark had begun.
fn last_begun(mark: &Path) -> Option<i64> {
    fs::read_to_string(mark).ok()?.parse().ok()
}

/// One of the directories that are kept.
#[derive(Debug, Clone)]
pub struct Kept {
    pub id: String,
    pub bytes: u64,
    pub used: std::time::SystemTime,
    pub busy: bool,
}

fn size(path: &Path) -> io::Result<u64> {
    use std::os::unix::fs::MetadataExt;
    let mut bytes = 0;
    let mut waiting = vec![path.to_owned()];
    while let Some(dir) = waiting.pop() {
        for entry in fs::read_dir(&dir)? {
            let entry = entry?;
            let meta = entry.metadata()?;
            bytes += meta.blocks() * 512;
            if meta.is_dir() {
                waiting.push(entry.path());
            }
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_emptied() {
        let dir = tempfile::tempdir().unwrap();
        let staging = dir.path().join("staging");
        empty(&staging).unwrap();
        fs::create_dir_all(staging.join("a/b")).unwrap();
        fs::write(staging.join("a/b/c"), "x").unwrap();
        fs::write(staging.join("d"), "x").unwrap();
        std::os::unix::fs::symlink(dir.path(), staging.join("link")).unwrap();
        empty(&staging).unwrap();
        assert_eq!(fs::read_dir(&staging).unwrap().count(), 0);
    }

    #[test]
    fn what_was_used_longest_ago_goes_first_and_before_it_what_was_used_in_the_future() {
        let dir = tempfile::tempdir().unwrap();
        let locals = Locals::open(dir.path()).unwrap();
        let hour = std::time::Duration::from_secs(3600);
        let now = std::time::SystemTime::now();
        let home = |name: &str, used: std::time::SystemTime| {
            let home = locals.root.join(name);
            fs::create_dir_all(&home).unwrap();
            let file = fs::File::create(home.join("used")).unwrap();
            file.set_modified(used).unwrap();
            home
        };
        let others: Vec<PathBuf> = (0..MAX_KEYS - 2)
            .map(|number| home(&format!("other-{number}"), now - hour))
            .collect();
        let old = home("old", now - 2 * hour);
        let ahead = home("ahead", now + 2 * hour);
        locals.make_room(Path::new("/none")).unwrap();
        assert!(!ahead.exists() && old.exists());
        home("more", now);
        locals.make_room(Path::new("/none")).unwrap();
        assert!(!old.exists() && others.iter().all(|other| other.exists()));
    }

    #[test]
    fn what_was_being_removed_is_gone_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let locals = Locals::open(dir.path()).unwrap();
        for name in [".gone-1/0/tree", "kept/0/tree"] {
            fs::create_dir_all(locals.root.join(name)).unwrap();
            fs::write(locals.root.join(name).join("file"), "x").unwrap();
        }
        let locals = Locals::open(dir.path()).unwrap();
        assert!(!locals.root.join(".gone-1").exists());
        assert!(locals.root.join("kept/0/tree/file").exists());
    }
}
