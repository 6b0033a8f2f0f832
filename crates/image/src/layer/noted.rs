//! What is kept in mind of an archive's directories until its end, within bounds: a few kilobytes of names, or of names that
//! take thousands of directories for granted, could else take any amount of memory.

use std::io;
use std::path::Path;

/// Bytes of names, and what goes with each: some 600,000 directories of an image that people run. Trees
/// of packages that people build have 250,000 of longer names.
const MOST: usize = 128 << 20;
/// What a name takes beside its own bytes.
const EACH: usize = 128;

/// How much may still be noted.
pub(crate) struct Noted(usize);

impl Default for Noted {
    fn default() -> Noted {
        Noted(MOST)
    }
}

impl Noted {
    /// Counts a directory that is noted.
    pub(crate) fn count(&mut self, path: &Path) -> io::Result<()> {
        let cost = path.as_os_str().len() + EACH;
        self.0 = self.0.checked_sub(cost).ok_or_else(|| {
            let what = format!(
                "the archive has more directories than one may have ({} MiB of their names)",
                MOST >> 20
            );
            io::Error::new(io::ErrorKind::FileTooLarge, what)
        })?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_counted_with_what_goes_with_them() {
        let mut noted = Noted::default();
        let path = Path::new("directory");
        for _ in 0..MOST / (EACH + 9) {
            noted.count(path).unwrap();
        }
        let error = noted.count(path).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
        assert!(error.to_string().contains("128 MiB"), "{error}");
    }
}
