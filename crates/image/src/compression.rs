//! Which compression a stream has, and reading it whatever it has.
//!
//! The first bytes decide, never a media type or a file name: registries and archives get those wrong. All
//! formats may consist of several parts one after the other, as parallel compressors write them.

use std::io::{self, BufReader, Read, Write};

use flate2::GzBuilder;
use flate2::bufread::MultiGzDecoder;
use flate2::write::GzEncoder;

/// Memory a decoder may take for what the stream says it needs.
const XZ_MEMORY: u64 = 256 * 1024 * 1024;
/// Step of reading compressed bytes.
const BUFFER: usize = 128 * 1024;
/// As many bytes as the longest mark.
const PEEK: usize = 6;

/// A compression format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    None,
    Gzip,
    Zstd,
    Xz,
    Bzip2,
}

/// The format of a stream that begins with these bytes (six are enough).
pub fn detect(beginning: &[u8]) -> Compression {
    match beginning {
        [0x1f, 0x8b, 0x08, ..] => Compression::Gzip,
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Compression::Zstd,
        // A skippable frame (RFC 8878, 3.1.2), which seekable variants of zstd begin with.
        [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Compression::Zstd,
        [0xfd, b'7', b'z', b'X', b'Z', 0x00, ..] => Compression::Xz,
        [b'B', b'Z', b'h', b'1'..=b'9', ..] => Compression::Bzip2,
        _ => Compression::None,
    }
}

/// The stream's content, whatever its compression. Nothing is read before the first read of the result, and
/// a broken stream is an error of that or a later read.
pub fn decoder<'a>(reader: impl Read + Send + 'a) -> Box<dyn Read + Send + 'a> {
    Box::new(Decoder::Unknown(Some(Box::new(reader))))
}

/// A gzip encoder whose output depends on nothing but its input and the level: no name, no time.
pub fn gzip_encoder<W: Write>(out: W, level: u32) -> GzEncoder<W> {
    GzBuilder::new()
        .mtime(0)
        .write(out, flate2::Compression::new(level.min(9)))
}

/// Step in which compressors get what they compress.
const STEP: usize = 256 * 1024;

/// A writer that passes on what it gets in steps of one size, whatever the sizes that come: what a compressor makes of the
/// same bytes depends on these.
pub(crate) struct Even<W> {
    out: W,
    block: Vec<u8>,
}

impl<W: Write> Even<W> {
    pub(crate) fn new(out: W) -> Even<W> {
        Even {
            out,
            block: Vec::with_capacity(STEP),
        }
    }

    /// Passes on the rest.
    pub(crate) fn finish(mut self) -> io::Result<W> {
        self.out.write_all(&self.block)?;
        Ok(self.out)
    }
}

impl<W: Write> Write for Even<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = STEP.saturating_sub(self.block.len()).min(bytes.len());
        self.block
            .extend_from_slice(bytes.get(..room).unwrap_or_default());
        if self.block.len() >= STEP {
            self.out.write_all(&self.block)?;
            self.block.clear();
        }
        Ok(room)
    }

    fn flush(&mut self) -> io::Result<()> {
        // A flush would show in what is made.
        Ok(())
    }
}

enum Decoder<'a> {
    /// Not looked at yet.
    Unknown(Option<Box<dyn Read + Send + 'a>>),
    Known(Box<dyn Read + Send + 'a>),
}

impl Read for Decoder<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            match self {
                Decoder::Known(reader) => return reader.read(buffer),
                Decoder::Unknown(reader) => {
                    // Gone only if an earlier look at it failed.
                    let reader = reader
                        .take()
                        .ok_or_else(|| io::Error::other("the stream failed before"))?;
                    *self = Decoder::Known(look(reader)?);
                }
            }
        }
    }
}

fn look<'a>(mut reader: Box<dyn Read + Send + 'a>) -> io::Result<Box<dyn Read + Send + 'a>> {
    let mut beginning = Vec::with_capacity(PEEK);
    reader.by_ref().take(PEEK as u64).read_to_end(&mut beginning)?;
    let compression = detect(&beginning);
    let whole = io::Cursor::new(beginning).chain(reader);
    let buffered = BufReader::with_capacity(BUFFER, whole);
    Ok(match compression {
        Compression::None => Box::new(buffered),
        Compression::Gzip => Box::new(MultiGzDecoder::new(buffered)),
        Compression::Zstd => Box::new(zstd::Decoder::with_buffer(buffered)?),
        Compression::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(buffered)),
        Compression::Xz => {
            let stream =
                liblzma::stream::Stream::new_stream_decoder(XZ_MEMORY, liblzma::stream::CONCATENATED)?;
            Box::new(liblzma::bufread::XzDecoder::new_stream(buffered, stream))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content() -> Vec<u8> {
        (0..200_000u32).flat_map(|n| (n / 7).to_le_bytes()).collect()
    }

    fn compress(compression: Compression, bytes: &[u8]) -> Vec<u8> {
        match compression {
            Compression::None => bytes.to_vec(),
            Compression::Gzip => {
                let mut encoder = gzip_encoder(Vec::new(), 1);
                encoder.write_all(bytes).unwrap();
                encoder.finish().unwrap()
            }
            Compression::Zstd => zstd::encode_all(bytes, 1).unwrap(),
            Compression::Xz => {
                let mut out = Vec::new();
                liblzma::read::XzEncoder::new(bytes, 0)
                    .read_to_end(&mut out)
                    .unwrap();
                out
            }
            Compression::Bzip2 => {
                let mut out = Vec::new();
                bzip2::read::BzEncoder::new(bytes, bzip2::Compression::fast())
                    .read_to_end(&mut out)
                    .unwrap();
                out
            }
        }
    }

    const ALL: [Compression; 5] = [
        Compression::None,
        Compression::Gzip,
        Compression::Zstd,
        Compression::Xz,
        Compression::Bzip2,
    ];

    #[test]
    fn every_format_is_recognised_and_read() {
        let content = content();
        for compression in ALL {
            let compressed = compress(compression, &content);
            assert_eq!(detect(&compressed), compression);
            let mut out = Vec::new();
            decoder(&*compressed).read_to_end(&mut out).unwrap();
            assert!(out == content, "{compression:?}");
        }
    }

    #[test]
    fn parts_one_after_the_other_are_one_stream() {
        for compression in ALL {
            let mut compressed = compress(compression, b"first ");
            compressed.extend(compress(compression, b"second"));
            let mut out = String::new();
            decoder(&*compressed).read_to_string(&mut out).unwrap();
            assert_eq!(out, "first second", "{compression:?}");
        }
    }

    /// zstd:chunked and eStargz are plain zstd and gzip with an index that readers of streams pass over.
    #[test]
    fn streams_with_an_index_are_their_plain_forms() {
        let skippable = |bytes: &[u8]| {
            let mut frame = vec![0x50, 0x2a, 0x4d, 0x18];
            frame.extend(u32::try_from(bytes.len()).unwrap().to_le_bytes());
            frame.extend(bytes);
            frame
        };
        let mut chunked = compress(Compression::Zstd, b"first ");
        chunked.extend(skippable(&[0; 40]));
        chunked.extend(compress(Compression::Zstd, b"second"));
        chunked.extend(skippable(b"the index"));
        chunked.extend(skippable(b"GNUlInUx where the index is"));
        // eStargz: a member for each file, the index as one more, and an empty one whose extra field says where that is.
        let mut stargz = compress(Compression::Gzip, b"first ");
        stargz.extend(compress(Compression::Gzip, b"second"));
        let mut footer = GzBuilder::new()
            .extra(b"SG\x16\x000000000000000000STARGZ".to_vec())
            .write(Vec::new(), flate2::Compression::none());
        footer.flush().unwrap();
        stargz.extend(footer.finish().unwrap());
        for stream in [chunked, stargz] {
            let mut out = String::new();
            decoder(&*stream).read_to_string(&mut out).unwrap();
            assert_eq!(out, "first second");
        }
    }

    #[test]
    fn a_stream_that_ends_early_is_an_error() {
        let content = content();
        for compression in &ALL[1..] {
            let compressed = compress(*compression, &content);
            let half = &compressed[..compressed.len() / 2];
            let result = decoder(half).read_to_end(&mut Vec::new());
            assert!(result.is_err(), "{compression:?}");
        }
    }

    #[test]
    fn short_and_empty_streams_are_plain() {
        for plain in ["", "a", "BZ"] {
            let mut out = String::new();
            decoder(plain.as_bytes()).read_to_string(&mut out).unwrap();
            assert_eq!(out, plain);
        }
    }

    #[test]
    fn gzip_output_is_the_same_every_time() {
        let content = content();
        let first = compress(Compression::Gzip, &content);
        assert_eq!(first, compress(Compression::Gzip, &content));
        // No name, no time.
        assert_eq!(&first[3..8], &[0, 0, 0, 0, 0]);
    }
}
