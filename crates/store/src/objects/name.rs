//! Names of objects: 132 bits of the SHA-256 of a secret and the content.
//!
//! With the secret nobody outside can make two contents of one name, so half of the digest is enough; and a redirect of 24
//! bytes fits into an ext4 inode of 256 together with the mark, where a longer one would take a block for each file.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use sha2::{Digest as _, Sha256};

/// Six bits each; none that means anything in a path.
const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
const LENGTH: usize = 22;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Name(String);

impl Name {
    fn of_digest(digest: &[u8]) -> Name {
        let (mut bits, mut held) = (0u32, 0);
        let mut text = String::with_capacity(LENGTH);
        for byte in digest {
            bits = (bits << 8) | u32::from(*byte);
            held += 8;
            while held >= 6 {
                held -= 6;
                let six = ((bits >> held) & 63) as usize;
                text.push(ALPHABET.get(six).copied().map_or('_', char::from));
            }
            bits &= (1 << held) - 1;
        }
        text.truncate(LENGTH);
        Name(text)
    }

    /// A name that something else wrote.
    pub(super) fn parse(text: &[u8]) -> Option<Name> {
        let plain = text.len() == LENGTH && text.iter().all(|byte| ALPHABET.contains(byte));
        String::from_utf8(text.to_vec()).ok().filter(|_| plain).map(Name)
    }

    /// From the value of the attribute.
    pub(super) fn of_redirect(value: &[u8]) -> Option<Name> {
        match value {
            [b'/', first, b'/', rest @ ..] => Name::parse(&[&[*first], rest].concat()),
            _ => None,
        }
    }

    /// As the value of the attribute.
    pub(super) fn redirect(&self) -> String {
        format!("/{}", self.path())
    }

    /// Below the directory of objects.
    pub(super) fn path(&self) -> String {
        let (first, rest) = self.0.split_at(1);
        format!("{first}/{rest}")
    }

    pub(super) fn directory(&self) -> &str {
        self.0.get(..1).unwrap_or_default()
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

/// The secret of a data root.
#[derive(Clone)]
pub(super) struct Key([u8; 32]);

impl Key {
    /// Reads it, or makes it, durably: names that were made with it stay.
    pub(super) fn load_or_make(path: &Path) -> io::Result<Key> {
        let mut key = [0; 32];
        match File::open(path) {
            Ok(mut file) => {
                file.read_exact(&mut key)?;
                return Ok(Key(key));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        File::open("/dev/urandom")?.read_exact(&mut key)?;
        let fresh = path.with_extension("new");
        let mut options = OpenOptions::new();
        let mut file = options
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&fresh)?;
        file.write_all(&key)?;
        file.sync_all()?;
        fs::rename(&fresh, path)?;
        if let Some(dir) = path.parent() {
            File::open(dir)?.sync_all()?;
        }
        Ok(Key(key))
    }

    /// The name of what is read; and how much that was.
    pub(super) fn name(&self, mut content: impl Read, buffer: &mut [u8]) -> io::Result<(Name, u64)> {
        let mut hasher = Sha256::new();
        hasher.update(self.0);
        let mut length = 0;
        loop {
            match content.read(buffer) {
                Ok(0) => return Ok((Name::of_digest(&hasher.finalize()), length)),
                Ok(read) => {
                    hasher.update(buffer.get(..read).unwrap_or_default());
                    length += read as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_with_the_content_and_the_secret() {
        let mut buffer = [0; 7];
        let mut name = |key: u8, content: &[u8]| Key([key; 32]).name(content, &mut buffer).unwrap();
        let (one, length) = name(1, b"some content");
        assert_eq!((one.as_str().len(), length), (LENGTH, 12));
        assert_eq!(name(1, b"some content").0, one);
        assert_ne!(name(2, b"some content").0, one);
        assert_ne!(name(1, b"some contenu").0, one);
        assert_eq!(Name::of_redirect(one.redirect().as_bytes()).as_ref(), Some(&one));
        assert_eq!(one.redirect().len(), 24, "more takes a block of its own on ext4");
    }

    #[test]
    fn only_names_are_names() {
        let good = Name::of_digest(&[0xa5; 32]);
        assert_eq!(Name::parse(good.as_str().as_bytes()), Some(good.clone()));
        let text = good.as_str();
        for bad in [
            "".to_owned(),
            text.to_owned(),
            format!("/{text}"),
            format!("{}/", good.redirect()),
            good.redirect().replace(text.get(..1).unwrap(), "."),
            format!("/../{}", text.get(2..).unwrap()),
            format!("/{}/{}", text.get(..2).unwrap(), text.get(2..).unwrap()),
        ] {
            assert_eq!(Name::of_redirect(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn the_secret_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let first = Key::load_or_make(&path).unwrap();
        assert_eq!(Key::load_or_make(&path).unwrap().0, first.0);
        assert_ne!(first.0, [0; 32]);
        fs::write(&path, "short").unwrap();
        assert!(Key::load_or_make(&path).is_err());
    }
}
