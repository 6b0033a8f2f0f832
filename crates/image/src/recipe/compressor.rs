//! Which of the engine's compressors made a stream, if one did.
//!
//! A gzip or zstd stream says little about who wrote it. So the content's beginning is compressed with each level that the
//! stream's own header allows, first little of it and then more, and what comes out is compared with the stream's beginning:
//! this takes milliseconds and finds out nearly always. What it finds is a guess until all of it was made and had the digest.
//!
//! What a compressor makes of the same bytes may not change from one version of the engine to the next, or layers that were
//! let go could not be made again; a test holds the digests of what each level makes.

use std::io::{self, Write};

use flate2::Crc;
use flate2::write::DeflateEncoder;
use serde::{Deserialize, Serialize};

use super::deflate;
use crate::compression::{self, Compression, Even};
use crate::steps::{self, Steps};

/// Bytes of content that are tried.
pub(super) const PROBE: usize = 1 << 20;
/// Bytes of content that are tried first: what zstd puts into two blocks.
const FIRST: usize = 256 << 10;
/// The end of a blob that tells something.
pub(super) const TAIL: usize = 12;
/// The longest header of a gzip member that is taken: it has names and comments.
const MAX_HEADER: usize = 4096;
/// Compressed bytes that say something.
const TELLING: usize = 64;

/// A compressor with everything that decides what it writes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "format")]
pub(super) enum Compressor {
    Plain,
    /// One member with this header.
    Gzip {
        level: u32,
        header: Vec<u8>,
    },
    /// The same by Go's standard library, which Docker and containerd compress with.
    Go {
        level: u32,
        header: Vec<u8>,
    },
    /// One member in steps, as layers are written here.
    Steps,
    /// One frame without its size in the header.
    Zstd {
        level: i32,
        checksum: bool,
    },
}

impl Compressor {
    /// Those that make the beginning of `blob` out of the beginning of its content, the likeliest first; `whole` where that
    /// is all of it. `tail` are the blob's last bytes. Each is tried when it is asked for.
    pub(super) fn guess<'a>(
        blob: &'a [u8],
        tail: &[u8],
        content: &'a [u8],
        whole: bool,
    ) -> impl Iterator<Item = Compressor> + use<'a> {
        let candidates = match compression::detect(blob) {
            Compression::None => vec![Compressor::Plain],
            Compression::Gzip => gzip_candidates(blob, tail),
            Compression::Zstd => zstd_candidates(blob),
            Compression::Xz | Compression::Bzip2 => Vec::new(),
        };
        candidates.into_iter().filter(move |candidate| {
            let begins = |content, whole| candidate.begins_like(blob, content, whole).unwrap_or(false);
            content.get(..FIRST).is_none_or(|first| begins(first, false)) && begins(content, whole)
        })
    }

    fn begins_like(&self, blob: &[u8], content: &[u8], whole: bool) -> io::Result<bool> {
        let mut even = Even::new(Press::new(Vec::new(), self)?);
        even.write_all(content)?;
        // What is tried are whole steps, or all there is.
        let press = even.finish()?;
        let made = match whole {
            true => press.finish()?,
            false => press.so_far()?,
        };
        let most = made.len().min(blob.len());
        // Little came out so far: the whole will tell.
        let telling = whole || most >= TELLING || made.len() < TELLING;
        Ok(telling && made.get(..most) == blob.get(..most))
    }
}

/// The levels that a gzip header allows: it tells the fastest and the best.
fn gzip_candidates(blob: &[u8], tail: &[u8]) -> Vec<Compressor> {
    let Some(header) = gzip_header(blob) else {
        return Vec::new();
    };
    let xfl = header.get(8);
    // Before the checksum and the length.
    let is_go = tail.len() == TAIL && tail.starts_with(&deflate::END);
    let levels: &[u32] = match (xfl, is_go) {
        (Some(4), true) => &[],
        (Some(4), false) => &[1],
        (Some(2), _) => &[9],
        (_, true) => &[6, 9, 5, 4, 3, 2, 7, 8],
        (_, false) => &[6, 1, 9, 5, 4, 3, 2, 7, 8],
    };
    let of_level = |level: &u32| match is_go {
        true => Compressor::Go {
            level: *level,
            header: header.to_vec(),
        },
        false => Compressor::Gzip {
            level: *level,
            header: header.to_vec(),
        },
    };
    let ours = (header == steps::HEADER).then_some(Compressor::Steps);
    ours.into_iter().chain(levels.iter().map(of_level)).collect()
}

/// RFC 1952, 2.3: ten bytes, then what their flags announce.
fn gzip_header(blob: &[u8]) -> Option<&[u8]> {
    let flags = *blob.get(3)?;
    if flags & 0xe0 != 0 {
        return None;
    }
    let mut end = 10;
    if flags & 4 != 0 {
        let length = blob.get(end..end + 2)?;
        end += 2 + usize::from(u16::from_le_bytes([*length.first()?, *length.last()?]));
    }
    for flag in [8, 16] {
        if flags & flag != 0 {
            end += blob.get(end..)?.iter().position(|byte| *byte == 0)? + 1;
        }
    }
    if flags & 2 != 0 {
        end += 2;
    }
    (end <= MAX_HEADER).then(|| blob.get(..end))?
}

/// By window (RFC 8878, 3.1.1.1.2), the levels that write it where they do not know how much comes.
const ZSTD_WINDOWS: [(u8, std::ops::RangeInclusive<i32>); 5] =
    [(19, 1..=1), (20, 2..=2), (21, 3..=8), (22, 9..=16), (23, 17..=19)];

/// The levels whose frame header is the stream's (RFC 8878, 3.1.1.1).
fn zstd_candidates(blob: &[u8]) -> Vec<Compressor> {
    let (Some(descriptor), Some(window)) = (blob.get(4), blob.get(5)) else {
        return Vec::new();
    };
    // The size of the content, or one segment: made by one that knew all of it before it began.
    if descriptor & 0xe3 != 0 {
        return Vec::new();
    }
    let checksum = descriptor & 4 != 0;
    let levels = ZSTD_WINDOWS
        .into_iter()
        .find(|(log, _)| (log - 10) << 3 == *window);
    levels
        .into_iter()
        .flat_map(|(_, levels)| levels)
        .map(|level| Compressor::Zstd { level, checksum })
        .collect()
}

/// A compressor at work.
pub(super) enum Press<W: Write> {
    Plain(W),
    Gzip {
        deflate: DeflateEncoder<W>,
        crc: Crc,
    },
    Go {
        deflate: Box<deflate::Encoder<W>>,
        crc: Crc,
    },
    Steps(Box<Steps<W>>),
    Zstd(zstd::Encoder<'static, W>),
}

impl<W: Write> Press<W> {
    pub(super) fn new(mut out: W, like: &Compressor) -> io::Result<Press<W>> {
        Ok(match like {
            Compressor::Plain => Press::Plain(out),
            Compressor::Gzip { level, header } => {
                out.write_all(header)?;
                Press::Gzip {
                    deflate: DeflateEncoder::new(out, flate2::Compression::new((*level).min(9))),
                    crc: Crc::new(),
                }
            }
            Compressor::Go { level, header } => {
                out.write_all(header)?;
                Press::Go {
                    deflate: Box::new(deflate::Encoder::new(out, *level)),
                    crc: Crc::new(),
                }
            }
            Compressor::Steps => Press::Steps(Box::new(Steps::new(out)?)),
            Compressor::Zstd { level, checksum } => {
                let mut encoder = zstd::Encoder::new(out, *level)?;
                encoder.include_checksum(*checksum)?;
                Press::Zstd(encoder)
            }
        })
    }

    pub(super) fn finish(self) -> io::Result<W> {
        match self {
            Press::Plain(out) => Ok(out),
            Press::Gzip { deflate, crc } => end_member(deflate.finish()?, &crc),
            Press::Go { deflate, crc } => end_member(deflate.finish()?, &crc),
            Press::Steps(steps) => steps.finish(),
            Press::Zstd(encoder) => encoder.finish(),
        }
    }
}

/// RFC 1952, 2.3: what follows the compressed bytes.
fn end_member<W: Write>(mut out: W, crc: &Crc) -> io::Result<W> {
    out.write_all(&crc.sum().to_le_bytes())?;
    // Modulo 2^32, as the format wants it.
    out.write_all(&crc.amount().to_le_bytes())?;
    Ok(out)
}

impl Press<Vec<u8>> {
    /// What came out before the end.
    fn so_far(self) -> io::Result<Vec<u8>> {
        Ok(match self {
            Press::Plain(out) => out,
            Press::Gzip { mut deflate, .. } => std::mem::take(deflate.get_mut()),
            Press::Go { mut deflate, .. } => std::mem::take(deflate.get_mut()),
            Press::Steps(steps) => steps.so_far()?,
            Press::Zstd(mut encoder) => std::mem::take(encoder.get_mut()),
        })
    }
}

impl<W: Write> Write for Press<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Press::Plain(out) => out.write(bytes),
            Press::Gzip { deflate, crc } => {
                let written = deflate.write(bytes)?;
                crc.update(bytes.get(..written).unwrap_or_default());
                Ok(written)
            }
            Press::Go { deflate, crc } => {
                let written = deflate.write(bytes)?;
                crc.update(bytes.get(..written).unwrap_or_default());
                Ok(written)
            }
            Press::Steps(steps) => steps.write(bytes),
            Press::Zstd(encoder) => encoder.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        // A flush would show in the stream.
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use spec::Digest;

    use super::*;

    /// Words, repeats and noise, the same everywhere.
    fn content(length: usize) -> Vec<u8> {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut next = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        let mut content: Vec<u8> = Vec::with_capacity(length + 64);
        while content.len() < length {
            let pick = next();
            match pick % 4 {
                0 => content.extend(pick.to_le_bytes()),
                1 => content.extend(b"the quick brown fox jumps over "),
                2 => content.extend(std::iter::repeat_n(
                    (pick >> 32) as u8,
                    (pick >> 40) as usize % 300,
                )),
                _ => {
                    let from = (pick >> 20) as usize % content.len().max(1);
                    let repeated: Vec<u8> = content.iter().skip(from).take(100).copied().collect();
                    content.extend(repeated);
                }
            }
        }
        content.truncate(length);
        content
    }

    fn all() -> Vec<Compressor> {
        let gzip = (1..=9).map(|level| Compressor::Gzip {
            level,
            header: vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255],
        });
        let go = [2, 3, 4, 6, 9].map(|level| Compressor::Go {
            level,
            header: vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255],
        });
        let zstd = [1, 3, 9, 19].map(|level| Compressor::Zstd {
            level,
            checksum: level != 3,
        });
        gzip.chain(zstd)
            .chain([Compressor::Plain])
            .chain(go)
            .chain([Compressor::Steps])
            .collect()
    }

    fn press(like: &Compressor, content: &[u8], step: usize) -> Vec<u8> {
        let mut even = Even::new(Press::new(Vec::new(), like).unwrap());
        for block in content.chunks(step) {
            even.write_all(block).unwrap();
        }
        even.finish().unwrap().finish().unwrap()
    }

    /// Layers that were let go are made again by whatever version of the engine comes: if this fails after a dependency was
    /// updated, the old compressor has to stay beside the new one, under a name of its own in [`Compressor`].
    #[test]
    fn compressors_do_what_they_always_did() {
        let content = content(3 << 20);
        let made: Vec<String> = all()
            .iter()
            .map(|like| Digest::sha256(&press(like, &content, 256 << 10)).hex()[..12].to_owned())
            .collect();
        assert_eq!(made, PINNED, "{made:?}");
    }

    /// The five before the last are what Go's own library makes (1.19, the content through `gzip.NewWriterLevel`).
    const PINNED: [&str; 20] = [
        "39084e2911fb",
        "565a1966e974",
        "36be195d2569",
        "c7c24ec07724",
        "b8efb6c05d53",
        "879ef895ec7a",
        "35ef26143c6e",
        "204f4546bb30",
        "1e28dd5c74fe",
        "c195407b01f7",
        "1bdf9e397200",
        "c6eacbbc876b",
        "11159a81b55a",
        "49d70470ba37",
        "4596996a7256",
        "fb575b9d7a36",
        "7789b78e26e0",
        "0d93e5cee087",
        "2794508dd596",
        "0cf289097608",
    ];

    #[test]
    fn streams_of_every_kind_are_read_as_what_they_were_made_of() {
        for length in [0, 1, 3, 4, 5, 262, 70_000, 3 << 20] {
            let content = content(length);
            for like in all() {
                let mut read = Vec::new();
                compression::decoder(&*press(&like, &content, 9999))
                    .read_to_end(&mut read)
                    .unwrap();
                assert!(read == content, "{like:?} of {length} bytes");
            }
        }
    }

    #[test]
    fn windows_tell_levels_of_zstd_apart() {
        for level in 1..=19 {
            let made = press(
                &Compressor::Zstd {
                    level,
                    checksum: false,
                },
                &content(200_000),
                1000,
            );
            let candidates = zstd_candidates(&made);
            let is = |candidate: &Compressor| matches!(candidate, Compressor::Zstd { level: l, .. } if *l == level);
            assert!(candidates.iter().any(is), "{level}: {candidates:?}");
            assert!(candidates.len() <= 8);
        }
    }

    #[test]
    fn how_the_bytes_come_in_makes_no_difference() {
        let content = content(700_000);
        for like in all() {
            let whole = press(&like, &content, content.len());
            for step in [512, 1000, 32 << 10, 256 << 10] {
                assert!(
                    press(&like, &content, step) == whole,
                    "{like:?} in steps of {step}"
                );
            }
        }
    }

    #[test]
    fn who_made_a_stream_is_found_out() {
        for length in [10, 5000, 3 << 20] {
            let content = content(length);
            let sample = &content[..length.min(PROBE)];
            for like in all() {
                // Of much content one level of each is enough: many are tried then, and the best take long.
                let slow = length > PROBE
                    && match like {
                        Compressor::Zstd { level, .. } => level != 3,
                        Compressor::Go { level, .. } => level != 6,
                        _ => false,
                    };
                if slow || like == Compressor::Plain {
                    continue;
                }
                let blob = press(&like, &content, 10_000);
                let beginning = &blob[..blob.len().min(PROBE)];
                let tail = &blob[blob.len() - TAIL.min(blob.len())..];
                let found = Compressor::guess(beginning, tail, sample, length < PROBE).collect::<Vec<_>>();
                // Of little content several levels make the same.
                let right = found
                    .iter()
                    .any(|found| press(found, &content, 256 << 10) == blob);
                assert!(right, "{like:?} of {length} bytes: {found:?}");
            }
        }
    }

    #[test]
    fn what_was_made_by_nothing_here_is_not_taken_for_ours() {
        let content = content(2 << 20);
        let guess = |blob: &[u8], content: &[u8]| -> Vec<Compressor> {
            Compressor::guess(blob, &[], content, false).collect()
        };
        let mut blob = press(&all()[5], &content, 4096);
        blob[5000] ^= 1;
        assert_eq!(guess(&blob[..PROBE.min(blob.len())], &content[..PROBE]), []);
        // The size in the header, as one writes who has all of it at once.
        let zstd = zstd::bulk::compress(&content, 3).unwrap();
        assert_eq!(guess(&zstd, &content[..PROBE]), []);
        for broken in [
            &b"\x1f\x8b\x08"[..],
            b"\x1f\x8b\x08\x04\0\0\0\0\0\0\xff",
            b"\x28\xb5\x2f\xfd",
        ] {
            assert_eq!(guess(broken, &content[..PROBE]), []);
        }
    }

    #[test]
    fn headers_with_names_are_kept() {
        let content = content(200_000);
        let mut named = flate2::GzBuilder::new()
            .filename("layer.tar")
            .comment("by hand")
            .extra(vec![1, 2, 3, 4])
            .mtime(1_700_000_000)
            .write(Vec::new(), flate2::Compression::new(6));
        named.write_all(&content).unwrap();
        let blob = named.finish().unwrap();
        assert!(content.len() < 256 << 10, "one step");
        let mut found = Compressor::guess(&blob, &blob[blob.len() - TAIL..], &content, true);
        assert!(found.any(|found| press(&found, &content, 256 << 10) == blob));
    }
}
