//! Taking an archive in: each file becomes a blob, links become aliases.
//!
//! Names are keys of a table, never paths on disk. They are normalised (`./a/../b` is `b`); one that leads
//! outside of the archive is refused, since no tool writes it in good faith.

use std::collections::HashMap;
use std::io::Read;

use spec::Digest;
use store::Lease;

use crate::bounded::too_large;
use crate::compression;
use crate::error::ImageError;
use crate::images::Images;
use crate::import::copy;
use crate::layer::tar::{Kind, Reader, display};
use crate::scratch::ScratchBlob;

/// Most entries of an archive: the largest real ones have a few thousand.
const MAX_ENTRIES: usize = 100_000;
/// Most bytes of all their names and of what links lead to, which are kept in mind: as many entries with names of the usual length.
const MAX_NAMES: usize = 16 << 20;
/// Links that lead to links.
const MAX_LINKS: usize = 16;

/// The files of an archive by name.
#[derive(Default)]
pub(crate) struct Files {
    blobs: HashMap<String, (Digest, u64)>,
    links: HashMap<String, String>,
}

impl Files {
    /// The blob that the file of this name became.
    pub fn get(&self, name: &str) -> Option<(Digest, u64)> {
        let mut name = normal(name)?;
        for _ in 0..MAX_LINKS {
            if let Some(found) = self.blobs.get(&name) {
                return Some(found.clone());
            }
            name = self.links.get(&name)?.clone();
        }
        None
    }
}

/// Reads the whole archive into the content store; the lease holds what came in.
pub(crate) fn take_in(images: &Images, reader: impl Read + Send, lease: &Lease) -> Result<Files, ImageError> {
    let mut archive = Reader::new(compression::decoder(reader));
    let mut files = Files::default();
    let mut names = 0;
    for count in 0.. {
        let Some(entry) = archive.next()? else { break };
        if count >= MAX_ENTRIES {
            return Err(ImageError::Archive(format!(
                "it has more than {MAX_ENTRIES} entries"
            )));
        }
        names += entry.path.len() + entry.link.len();
        if names > MAX_NAMES {
            return Err(ImageError::Archive(format!(
                "the names of its entries take more than {} MiB",
                MAX_NAMES >> 20
            )));
        }
        let outside = || ImageError::Archive(format!("{} leads outside of it", display(&entry.path)));
        let name = normal(&String::from_utf8_lossy(&entry.path)).ok_or_else(outside)?;
        match entry.kind {
            Kind::File if entry.size > images.max_layer() => {
                return Err(ImageError::Read(too_large(images.max_layer())));
            }
            Kind::File => {
                let blob = take_file(images, &name, &mut archive.content())?;
                lease.hold_blob(&blob.0);
                files.blobs.insert(name, blob);
            }
            Kind::Symlink | Kind::HardLink => {
                let from = match entry.kind {
                    Kind::Symlink => name.rsplit_once('/').map_or("", |(directory, _)| directory),
                    _ => "",
                };
                let target = format!("{from}/{}", String::from_utf8_lossy(&entry.link));
                files.links.insert(name, normal(&target).ok_or_else(outside)?);
            }
            Kind::Directory => {}
            Kind::CharDevice | Kind::BlockDevice | Kind::Fifo => {
                let shown = display(&entry.path);
                return Err(ImageError::Archive(format!(
                    "{shown} is neither a file, a directory nor a link"
                )));
            }
        }
    }
    archive.drain()?;
    Ok(files)
}

fn take_file(images: &Images, name: &str, content: &mut dyn Read) -> Result<(Digest, u64), ImageError> {
    // In an OCI layout the name says what the digest must be.
    let expected: Option<Digest> = name
        .strip_prefix("blobs/")
        .and_then(|rest| rest.replacen('/', ":", 1).parse().ok());
    let mut blob = ScratchBlob::new(images.inner.store.content())?;
    copy(content, &mut blob).map_err(|error| match (error, &expected) {
        (ImageError::Write(error), Some(digest)) => ImageError::Store(error, digest.clone()),
        (error, _) => error,
    })?;
    match blob.commit(expected.as_ref()) {
        Err(ImageError::Ingest(store::IngestError::DigestMismatch { expected, actual, .. })) => Err(
            ImageError::Archive(format!("{name} has the digest {actual} instead of {expected}")),
        ),
        other => other,
    }
}

/// A name without `.`, `..` and slashes around it; `None` if it leads outside.
fn normal(name: &str) -> Option<String> {
    let mut parts: Vec<&str> = Vec::new();
    for part in name.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_inside() {
        for (name, expected) in [
            ("./manifest.json", Some("manifest.json")),
            ("a//b/", Some("a/b")),
            ("a/../b", Some("b")),
            ("/etc/passwd", Some("etc/passwd")),
            ("../x", None),
            ("a/../../x", None),
        ] {
            assert_eq!(normal(name).as_deref(), expected, "{name}");
        }
    }

    #[test]
    fn links_are_followed_but_not_for_ever() {
        let mut files = Files::default();
        files
            .blobs
            .insert("b/layer.tar".into(), (Digest::sha256(b"x"), 1));
        files.links.insert("a/layer.tar".into(), "b/layer.tar".into());
        files.links.insert("loop".into(), "loop".into());
        assert_eq!(files.get("a/layer.tar"), files.get("b/layer.tar"));
        assert!(files.get("a/layer.tar").is_some());
        assert_eq!(files.get("loop"), None);
    }
}
