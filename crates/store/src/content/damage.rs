//! Reading everything again, to find what is not what its digest says any more.

use std::fs::File;
use std::io::{self, Read};

use spec::{Digest, Hasher};

use super::{Content, ContentError};
use crate::failure::Context;
use crate::stop::{Stop, Stoppable};

const BUFFER: usize = 256 * 1024;

impl Content {
    /// Blobs whose bytes have another digest than the one they are named after, or cannot be read. Takes as long as reading
    /// all of them does, unless `stop` ends it.
    pub fn damaged(&self, stop: &Stop<'_>) -> Result<Vec<Digest>, ContentError> {
        let mut damaged = Vec::new();
        for (digest, _) in self.list()? {
            if self.is_damaged(&digest, stop)? {
                damaged.push(digest);
            }
        }
        Ok(damaged)
    }

    /// Whether there is such a file and it holds something else. `stop` ends the reading of it.
    pub fn is_damaged(&self, digest: &Digest, stop: &Stop<'_>) -> Result<bool, ContentError> {
        let path = self.path(digest);
        let file = match File::open(&path) {
            // Collected since it was listed.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            other => other.at("open", &path)?,
        };
        match hash(Stoppable::new(file, stop), Hasher::like(digest)) {
            Ok(actual) => Ok(actual != *digest),
            Err(_) if stop() => Err(ContentError::GivenUp(digest.clone())),
            // A disk that does not give the bytes has lost them.
            Err(_) => Ok(true),
        }
    }
}

fn hash(mut content: impl Read, mut hasher: Hasher) -> io::Result<Digest> {
    let mut buffer = vec![0; BUFFER];
    loop {
        match content.read(&mut buffer) {
            Ok(0) => return Ok(hasher.finish()),
            Ok(read) => hasher.update(buffer.get(..read).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::Store;

    #[test]
    fn the_reading_of_one_blob_ends_when_it_is_asked_to() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let content = store.content();
        let bytes = vec![7; 40 * BUFFER];
        let digest = content.put(&bytes).unwrap();
        let asked = Cell::new(0);
        // It is one blob, and the third step of it is the last.
        let stop = || asked.replace(asked.get() + 1) >= 3;
        let error = content.is_damaged(&digest, &stop).unwrap_err();
        assert!(
            matches!(&error, ContentError::GivenUp(of) if *of == digest),
            "{error}"
        );
        assert!(asked.get() <= 5, "asked {} times of 40 steps", asked.get());
        asked.set(0);
        assert!(matches!(content.damaged(&stop), Err(ContentError::GivenUp(_))));
        assert!(asked.get() <= 5, "asked {} times of 40 steps", asked.get());
        // Nobody asks, and it is what it should be; what was given up says nothing about the blob.
        assert!(!content.is_damaged(&digest, &|| false).unwrap());
        assert!(content.damaged(&|| false).unwrap().is_empty());
    }
}
