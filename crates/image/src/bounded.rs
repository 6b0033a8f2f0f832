//! How much may come out of an archive: a few megabytes can unpack to any number of terabytes.

use std::io::{self, Read};

use crate::images::Images;

/// Most bytes of one layer, unpacked, unless changed: more than any image has that people run, less than a disk.
pub const MAX_LAYER: u64 = 128 << 30;

/// A reader that fails when more comes out of it than is allowed.
pub(crate) struct Bounded<R> {
    inner: R,
    most: u64,
    left: u64,
}

impl<R> Bounded<R> {
    pub fn new(inner: R, most: u64) -> Bounded<R> {
        Bounded {
            inner,
            most,
            left: most,
        }
    }
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        match self.left.checked_sub(read as u64) {
            Some(left) => self.left = left,
            None => return Err(too_large(self.most)),
        }
        Ok(read)
    }
}

/// What is said of a layer that has more than `most` bytes.
pub(crate) fn too_large(most: u64) -> io::Error {
    io::Error::new(
        io::ErrorKind::FileTooLarge,
        format!("it unpacks to more than {most} bytes, the most that max-layer-size allows"),
    )
}

impl Images {
    /// How many bytes one layer may unpack to.
    pub fn set_max_layer(&self, most: u64) {
        let bound = &self.inner.max_layer;
        bound.store(most.max(1), std::sync::atomic::Ordering::Relaxed);
    }

    pub(crate) fn max_layer(&self) -> u64 {
        self.inner.max_layer.load(std::sync::atomic::Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_much_as_is_allowed_comes_out() {
        let mut out = Vec::new();
        Bounded::new(&b"12345"[..], 5).read_to_end(&mut out).unwrap();
        assert_eq!(out, b"12345");
        let error = Bounded::new(io::repeat(0), 1000)
            .read_to_end(&mut out)
            .unwrap_err();
        assert!(error.to_string().contains("more than 1000 bytes"), "{error}");
        assert!(error.to_string().contains("max-layer-size"), "{error}");
    }
}
