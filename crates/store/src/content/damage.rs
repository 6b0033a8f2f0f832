//! Reading everything again, to find what is not what its digest says any more.

use std::fs::File;
use std::io::{self, Read};

use spec::{Digest, Hasher};

use super::{Content, ContentError};
use crate::failure::Context;

const BUFFER: usize = 256 * 1024;

impl Content {
    /// Blobs whose bytes have another digest than the one they are named after, or cannot be read. `stop` is asked before
    /// each. Takes as long as reading all of them does.
    pub fn damaged(&self, stop: &dyn Fn() -> bool) -> Result<Vec<Digest>, ContentError> {
        let mut damaged = Vec::new();
        for (digest, _) in self.list()? {
            if stop() {
                break;
            }
            if self.is_damaged(&digest)? {
                damaged.push(digest);
            }
        }
        Ok(damaged)
    }

    /// Whether there is such a file and it holds something else.
    pub fn is_damaged(&self, digest: &Digest) -> Result<bool, ContentError> {
        let path = self.path(digest);
        let file = match File::open(&path) {
            // Collected since it was listed.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            other => other.at("open", &path)?,
        };
        // A disk that does not give the bytes has lost them.
        Ok(hash(file, Hasher::like(digest)).map_or(true, |actual| actual != *digest))
    }
}

fn hash(mut file: File, mut hasher: Hasher) -> io::Result<Digest> {
    let mut buffer = vec![0; BUFFER];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(hasher.finish()),
            Ok(read) => hasher.update(buffer.get(..read).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
