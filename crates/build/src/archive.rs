//! Archives that ADD unpacks: a tar, plain or compressed in any way the image room reads.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::fd::BorrowedFd;
use std::path::Path;

use image::archive::{ExtractOptions, extract};
use image::compression::decoder;
use spec::ErrorClass;

use crate::error::BuildError;

/// The size of a tar header.
const HEADER: usize = 512;

/// Whether a file is an archive, by what its first header says and not by its name. The file's position does
/// not change.
pub fn is_archive(file: &File) -> io::Result<bool> {
    let mut own = file.try_clone()?;
    own.rewind()?;
    let mut header = Vec::with_capacity(HEADER);
    // What can not be decompressed is no archive, and is copied as it is.
    let read = decoder(&mut own).take(HEADER as u64).read_to_end(&mut header);
    own.rewind()?;
    Ok(read.is_ok() && is_header(&header))
}

/// Whether the bytes are a tar header: its checksum is right.
fn is_header(header: &[u8]) -> bool {
    let Some(field) = header.get(148..156).filter(|_| header.len() == HEADER) else {
        return false;
    };
    let text = String::from_utf8_lossy(field);
    let Ok(wanted) = u64::from_str_radix(text.trim_matches(['\0', ' ']), 8) else {
        return false;
    };
    let sum: u64 = header
        .iter()
        .enumerate()
        .map(|(at, byte)| {
            if (148..156).contains(&at) {
                u64::from(b' ')
            } else {
                u64::from(*byte)
            }
        })
        .sum();
    sum == wanted && header.iter().any(|byte| *byte != 0)
}

/// Unpacks `file` into `base` beneath `root`.
pub fn unpack(
    file: File,
    root: BorrowedFd<'_>,
    base: &Path,
    owner: Option<(u32, u32)>,
    keyword: &str,
) -> Result<(), BuildError> {
    let options = ExtractOptions {
        chown: owner,
        ..ExtractOptions::default()
    };
    let base = Path::new("/").join(base);
    extract(decoder(file), root, &base.to_string_lossy(), &options).map_err(|error| {
        BuildError::step(
            format!("{keyword} failed: unpacking: {error}"),
            ErrorClass::Invalid,
        )
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn judged(bytes: &[u8]) -> bool {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        is_archive(&file).unwrap()
    }

    #[test]
    fn archives_are_known_by_their_header() {
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(1);
        header.set_mode(0o644);
        tar.append_data(&mut header, "a", &b"x"[..]).unwrap();
        let tar = tar.into_inner().unwrap();
        assert!(judged(&tar));
        let gzip = |bytes: &[u8]| {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        };
        assert!(judged(&gzip(&tar)));
        assert!(!judged(&gzip(b"only text")));
        assert!(!judged(b"#!/bin/sh\n"));
        assert!(!judged(&[]));
        assert!(!judged(&[0; 2048]));
        assert!(!judged(&[0x1f, 0x8b, 0x08, 1, 2, 3]));
    }
}
