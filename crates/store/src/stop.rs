//! Long readings that end when somebody says so.
//!
//! Blobs and files have any size, so whoever reads all of one is asked before each step of it, not only before each of them.

use std::io::{self, Read};

/// Asked before each step of something long; true ends it.
pub type Stop<'a> = dyn Fn() -> bool + 'a;

/// Fails as soon as it is to stop.
pub struct Stoppable<'a, R> {
    inner: R,
    stop: &'a Stop<'a>,
}

impl<'a, R> Stoppable<'a, R> {
    /// Reads `inner` until `stop` says so.
    pub fn new(inner: R, stop: &'a Stop<'a>) -> Stoppable<'a, R> {
        Stoppable { inner, stop }
    }
}

impl<R: Read> Read for Stoppable<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match (self.stop)() {
            true => Err(io::Error::other("the reading was given up")),
            false => self.inner.read(buffer),
        }
    }
}
