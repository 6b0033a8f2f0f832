//! A blob being written whose digest is not known beforehand: gone unless committed, also after a crash.

use std::io::{self, Write};

use spec::Digest;
use store::{Content, Ingest, Sealed};

use crate::error::ImageError;

pub(crate) struct ScratchBlob {
    ingest: Option<Ingest>,
}

impl ScratchBlob {
    pub fn new(content: &Content) -> Result<ScratchBlob, ImageError> {
        Ok(ScratchBlob {
            ingest: Some(content.scratch()?),
        })
    }

    /// How many bytes were written.
    pub fn size(&self) -> u64 {
        self.ingest.as_ref().map_or(0, Ingest::offset)
    }

    /// Ends the blob, which is still to be made visible.
    pub fn seal(mut self) -> Result<Sealed, ImageError> {
        let ingest = self.ingest.take().ok_or(ImageError::Worker)?;
        Ok(ingest.seal(None, None)?)
    }

    /// Verifies against `expected`, if given, and makes the blob visible.
    pub fn commit(mut self, expected: Option<&Digest>) -> Result<(Digest, u64), ImageError> {
        let size = self.size();
        let ingest = self.ingest.take().ok_or(ImageError::Worker)?;
        Ok((ingest.commit(expected, None)?, size))
    }
}

impl Write for ScratchBlob {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.ingest {
            Some(ingest) => ingest.write(bytes),
            None => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for ScratchBlob {
    fn drop(&mut self) {
        if let Some(ingest) = self.ingest.take() {
            ingest.abort();
        }
    }
}
