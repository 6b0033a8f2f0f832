//! Blobs whose bytes are not on the disk and can be had again.
//!
//! Whoever can make or fetch one says so ([`Content::say_away`]) and is asked for it when it is opened. To all others such a
//! blob is here: it has a size and can be read. What is held by a lease is never taken off the disk, so whoever holds first
//! and opens second keeps the file.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use spec::{Digest, ErrorClass};

use super::{Content, ContentError};

/// A blob could not be had again, in words for whoever wanted it.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct NotBrought {
    pub message: String,
    pub class: ErrorClass,
}

/// Puts a blob on the disk, or says why not. Blocks.
pub type Bring = dyn Fn(&Digest) -> Result<(), NotBrought> + Send + Sync;

/// A blob that may be missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Away {
    pub size: u64,
    /// The blob that it is made of, which stays as long as it.
    pub recipe: Option<Digest>,
}

#[derive(Default)]
pub(super) struct Aways {
    known: RwLock<HashMap<Digest, Away>>,
    bring: OnceLock<Arc<Bring>>,
}

impl Aways {
    pub(super) fn size(&self, digest: &Digest) -> Option<u64> {
        self.find(digest).map(|away| away.size)
    }

    fn find(&self, digest: &Digest) -> Option<Away> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.get(digest).cloned()
    }
}

impl Content {
    /// Who is asked for blobs that are not here. The first one stays.
    pub fn bring_with(&self, bring: Arc<Bring>) {
        // A second one would be of another owner of the same store, which there is not.
        let _ = self.aways.bring.set(bring);
    }

    /// From now on the blob counts as here, whether its file is or not.
    pub fn say_away(&self, digest: &Digest, away: Away) {
        let mut known = self.aways.known.write().unwrap_or_else(PoisonError::into_inner);
        known.insert(digest.clone(), away);
    }

    /// The blob is here only if its file is.
    pub fn forget_away(&self, digest: &Digest) {
        let mut known = self.aways.known.write().unwrap_or_else(PoisonError::into_inner);
        known.remove(digest);
    }

    /// Whether the blob's bytes are on the disk.
    pub fn is_stored(&self, digest: &Digest) -> bool {
        self.path(digest).exists()
    }

    /// Whether the blob can be opened without anybody else: its file is there, or what it is made of.
    pub fn is_at_hand(&self, digest: &Digest) -> bool {
        let made = || self.aways.find(digest).is_some_and(|away| away.recipe.is_some());
        self.is_stored(digest) || made()
    }

    /// Bytes on the disk that are there for a blob of `size` bytes that is here: its own, and those it can be made of.
    pub fn held_bytes(&self, digest: &Digest, size: u64) -> u64 {
        let Some(away) = self.aways.find(digest) else {
            return size;
        };
        let file = |digest: &Digest| std::fs::metadata(self.path(digest)).map_or(0, |meta| meta.len());
        file(digest) + away.recipe.map_or(0, |recipe| file(&recipe))
    }

    /// Makes sure that the blob's file is there. Hold the blob first. Blocks.
    pub fn bring(&self, digest: &Digest) -> Result<(), ContentError> {
        if self.is_stored(digest) {
            return Ok(());
        }
        match (self.aways.size(digest), self.aways.bring.get()) {
            (Some(_), Some(bring)) => bring(digest).map_err(ContentError::Away),
            _ => Err(ContentError::NotFound(digest.clone())),
        }
    }

    /// Takes the file of a blob away, which can be had again. Only under the lock of the leases.
    pub(crate) fn let_go(&self, digest: &Digest) -> io::Result<u64> {
        let bytes = self.disk_bytes(digest);
        match std::fs::remove_file(self.path(digest)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
            Err(error) => Err(error),
            Ok(()) => Ok(bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::Store;

    #[test]
    fn what_is_let_go_before_it_is_open_is_brought_once_more() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let digest = store.content().put(b"bytes").unwrap();
        store.content().remove(&digest).unwrap();
        let (brought, gone) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(1)));
        let (counted, going, owner) = (brought.clone(), gone.clone(), store.clone());
        store.content().bring_with(Arc::new(move |digest: &Digest| {
            owner.content().put(b"bytes").unwrap();
            if counted.fetch_add(1, Ordering::Relaxed) < going.load(Ordering::Relaxed) {
                owner.content().let_go(digest).unwrap();
            }
            Ok(())
        }));
        let away = Away {
            size: 5,
            recipe: None,
        };
        store.content().say_away(&digest, away);
        let mut read = Vec::new();
        let mut file = store.content().open(&digest).unwrap();
        file.read_to_end(&mut read).unwrap();
        assert_eq!(
            (read.as_slice(), brought.load(Ordering::Relaxed)),
            (&b"bytes"[..], 2)
        );
        // It has an end where it always goes.
        store.content().let_go(&digest).unwrap();
        gone.store(usize::MAX, Ordering::Relaxed);
        let error = store.content().open(&digest).unwrap_err();
        assert!(matches!(error, ContentError::NotFound(_)), "{error}");
    }
}
