//! Writing an archive: plain ustar, with an extended header only where ustar can not say it. The same entries
//! give the same bytes.

use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;

use super::header::checksums;
use super::{BLOCK, Chunk, Entry, Kind, Time, pax, sparse};

/// What fits the fields of eight and twelve octal digits.
const MAX_SMALL: u64 = 0o7_777_777;
const MAX_LARGE: u64 = 0o77_777_777_777;

/// An archive being written.
pub(crate) struct Writer<W> {
    out: W,
    buffer: Vec<u8>,
}

impl<W: Write> Writer<W> {
    pub(crate) fn new(out: W) -> Writer<W> {
        Writer {
            out,
            buffer: vec![0; 256 * 1024],
        }
    }

    /// Writes an entry; of a file the `size` bytes that `content` gives, or of a sparse one those of its parts. A file
    /// that became shorter meanwhile is filled up with zeros, one that grew is cut.
    pub(crate) fn append(&mut self, entry: &Entry, content: impl Read) -> io::Result<()> {
        match &entry.chunks {
            Some(chunks) if entry.kind == Kind::File => self.append_sparse(entry, chunks, content),
            _ => {
                self.heads(entry, Vec::new())?;
                match entry.kind {
                    Kind::File => self.content(entry.size, content),
                    _ => Ok(()),
                }
            }
        }
    }

    /// As PAX version 1.0 has it: a file of another name, whose content is the map and then the parts.
    fn append_sparse(&mut self, entry: &Entry, chunks: &[Chunk], content: impl Read) -> io::Result<()> {
        let map = sparse::map_text(chunks);
        let stored: u64 = chunks.iter().map(|chunk| chunk.length).sum();
        let records = sparse::records(&entry.path, entry.size);
        let plain = Entry {
            path: [b"GNUSparseFile.0/", base(&entry.path)].concat(),
            size: map.len() as u64 + stored,
            chunks: None,
            ..entry.clone()
        };
        self.heads(&plain, records)?;
        self.out.write_all(&map)?;
        self.content(stored, content)
    }

    /// Everything before the content; `records` go before those that the entry needs.
    fn heads(&mut self, entry: &Entry, mut records: Vec<u8>) -> io::Result<()> {
        let block = header(entry, &mut records);
        if !records.is_empty() {
            let extension = extension_header(entry, records.len() as u64);
            self.out.write_all(&extension)?;
            self.out.write_all(&records)?;
            self.pad(records.len() as u64)?;
        }
        self.out.write_all(&block)
    }

    /// Writes the end mark and gives the output back.
    pub(crate) fn finish(mut self) -> io::Result<W> {
        self.out.write_all(&[0; BLOCK * 2])?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn content(&mut self, size: u64, mut content: impl Read) -> io::Result<()> {
        let mut left = size;
        while left > 0 {
            let limit = usize::try_from(left).unwrap_or(usize::MAX).min(self.buffer.len());
            let Some(part) = self.buffer.get_mut(..limit) else {
                break;
            };
            let length = match content.read(part) {
                Ok(0) => {
                    part.fill(0);
                    limit
                }
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            self.out.write_all(part.get(..length).unwrap_or(part))?;
            left -= length as u64;
        }
        self.pad(size)
    }

    fn pad(&mut self, size: u64) -> io::Result<()> {
        let over = usize::try_from(size % BLOCK as u64).unwrap_or(0);
        if over == 0 {
            return Ok(());
        }
        let zeros = [0; BLOCK];
        self.out.write_all(zeros.get(over..).unwrap_or(&zeros))
    }
}

fn extension_header(entry: &Entry, size: u64) -> [u8; BLOCK] {
    // The name is only seen by programs that do not know extended headers.
    let name = [b"PaxHeaders.0/", base(&entry.path)].concat();
    let mut block = Builder::new(b'x');
    block.text(0, 100, &name);
    block.octal(100, 8, 0o644);
    block.octal(108, 8, 0);
    block.octal(116, 8, 0);
    block.octal(124, 12, size);
    block.octal(136, 12, 0);
    block.finish()
}

/// The last component, as far as a header holds it beside a directory.
fn base(path: &[u8]) -> &[u8] {
    let base = path.rsplit(|byte| *byte == b'/').next().unwrap_or(b"");
    base.get(..80).unwrap_or(base)
}

/// The header; what it can not hold goes to `records`.
fn header(entry: &Entry, records: &mut Vec<u8>) -> [u8; BLOCK] {
    let mut path = entry.path.clone();
    if entry.kind == Kind::Directory && !path.ends_with(b"/") {
        path.push(b'/');
    }
    let mut block = Builder::new(typeflag(entry.kind));
    match split(&path) {
        Some((prefix, name)) => {
            block.text(0, 100, name);
            block.text(345, 155, prefix);
        }
        None => {
            records.extend(pax::record(b"path", &path));
            block.text(0, 100, path.get(..100).unwrap_or(&path));
        }
    }
    if entry.link.len() > 100 {
        records.extend(pax::record(b"linkpath", &entry.link));
    }
    block.text(157, 100, entry.link.get(..100).unwrap_or(&entry.link));
    block.octal(100, 8, u64::from(entry.mode & 0o7777));
    for (at, key, id) in [(108, "uid", entry.uid), (116, "gid", entry.gid)] {
        let id = u64::from(id);
        if id > MAX_SMALL {
            records.extend(pax::record(key.as_bytes(), id.to_string().as_bytes()));
        }
        block.octal(at, 8, if id > MAX_SMALL { 0 } else { id });
    }
    let size = if entry.kind == Kind::File { entry.size } else { 0 };
    if size > MAX_LARGE {
        records.extend(pax::record(b"size", size.to_string().as_bytes()));
    }
    block.octal(124, 12, if size > MAX_LARGE { 0 } else { size });
    block.octal(136, 12, mtime(entry.mtime, records));
    for (at, number) in [(329, entry.major), (337, entry.minor)] {
        block.octal(at, 8, u64::from(number));
    }
    for (key, value) in &entry.xattrs {
        let key = key.as_bytes();
        if key.contains(&b'=') {
            // A record's key ends at the first equals sign; libarchive's form can tell it.
            let key = [b"LIBARCHIVE.xattr.", &*pax::to_percent(key)].concat();
            records.extend(pax::record(&key, &pax::to_base64(value)));
        } else {
            let key = [b"SCHILY.xattr.", key].concat();
            records.extend(pax::record(&key, value));
        }
    }
    block.finish()
}

fn mtime(time: Time, records: &mut Vec<u8>) -> u64 {
    let seconds = u64::try_from(time.seconds).ok().filter(|s| *s <= MAX_LARGE);
    if time.nanos != 0 || seconds.is_none() {
        records.extend(pax::record(b"mtime", pax::time_text(time).as_bytes()));
    }
    seconds.unwrap_or(0)
}

/// The two fields of a ustar name: at most 155 and 100 bytes, cut at a slash.
fn split(path: &[u8]) -> Option<(&[u8], &[u8])> {
    if path.len() <= 100 {
        return Some((&[], path));
    }
    // The earliest cut that leaves a short enough name; a directory's last slash is part of its name.
    let earliest = path.len() - 101;
    let last = path.len() - 1;
    let cut = (earliest..last.min(156)).find(|at| path.get(*at) == Some(&b'/') && *at > 0)?;
    Some((path.get(..cut)?, path.get(cut + 1..)?))
}

fn typeflag(kind: Kind) -> u8 {
    match kind {
        Kind::File => b'0',
        Kind::HardLink => b'1',
        Kind::Symlink => b'2',
        Kind::CharDevice => b'3',
        Kind::BlockDevice => b'4',
        Kind::Directory => b'5',
        Kind::Fifo => b'6',
    }
}

struct Builder {
    block: [u8; BLOCK],
}

impl Builder {
    fn new(typeflag: u8) -> Builder {
        let mut builder = Builder { block: [0; BLOCK] };
        builder.text(156, 1, &[typeflag]);
        builder.text(257, 8, b"ustar\x0000");
        builder
    }

    fn text(&mut self, at: usize, length: usize, text: &[u8]) {
        for (place, byte) in self.block.iter_mut().skip(at).take(length).zip(text) {
            *place = *byte;
        }
    }

    /// All digits but the last byte, which ends the field.
    fn octal(&mut self, at: usize, length: usize, value: u64) {
        let text = format!("{value:0width$o}", width = length - 1);
        self.text(at, length - 1, text.as_bytes());
    }

    fn finish(mut self) -> [u8; BLOCK] {
        let (sum, _) = checksums(&self.block);
        let text = format!("{sum:06o}\0 ");
        self.text(148, 8, text.as_bytes());
        self.block
    }
}

#[cfg(test)]
mod tests {
    use super::super::Reader;
    use super::*;

    fn entry(path: &str) -> Entry {
        Entry {
            path: path.as_bytes().to_vec(),
            kind: Kind::File,
            mode: 0o644,
            uid: 0,
            gid: 0,
            mtime: Time::default(),
            link: Vec::new(),
            major: 0,
            minor: 0,
            size: 0,
            chunks: None,
            xattrs: Vec::new(),
        }
    }

    fn round_trip(entry: &Entry) -> (Entry, usize) {
        let mut writer = Writer::new(Vec::new());
        let content = vec![7; usize::try_from(entry.size).unwrap()];
        writer.append(entry, &*content).unwrap();
        let bytes = writer.finish().unwrap();
        assert_eq!(bytes.len() % BLOCK, 0);
        let mut reader = Reader::new(&*bytes);
        let read = reader.next().unwrap().unwrap();
        let mut back = Vec::new();
        reader.content().read_to_end(&mut back).unwrap();
        assert_eq!(back, content);
        assert!(reader.next().unwrap().is_none());
        (read, bytes.len() / BLOCK)
    }

    #[test]
    fn plain_entries_need_no_extension() {
        for path in [
            "a",
            &"d/".repeat(49),
            &format!("{}/{}", "p".repeat(155), "n".repeat(100)),
        ] {
            let entry = entry(path.trim_end_matches('/'));
            assert_eq!(round_trip(&entry), (entry, 3), "{path}");
        }
    }

    #[test]
    fn what_ustar_cannot_say_is_extended() {
        let long = "x".repeat(101);
        let mut strange = entry(&long);
        strange.uid = 3_000_000;
        strange.gid = u32::MAX - 1;
        strange.mtime = Time {
            seconds: -5,
            nanos: 250_000_000,
        };
        strange.size = 3;
        strange.xattrs = vec![("user.a=b".into(), vec![0, 10, 255])];
        assert_eq!(round_trip(&strange).0, strange);
        strange.xattrs = vec![("user.a".into(), vec![0, 10, 255]), ("user.b".into(), vec![])];
        let (read, blocks) = round_trip(&strange);
        assert_eq!(read, strange);
        assert_eq!(blocks, 6);
    }

    #[test]
    fn sparse_files_are_their_parts() {
        let mut sparse = entry(&format!("dir/{}", "s".repeat(120)));
        sparse.size = 1 << 40;
        let chunk = |offset, length| Chunk { offset, length };
        // A map of more than one block, and a hole at the end.
        let mut chunks: Vec<Chunk> = (0..100).map(|part| chunk(part * 4096, 3)).collect();
        chunks.push(chunk(1 << 40, 0));
        sparse.chunks = Some(chunks);
        let mut writer = Writer::new(Vec::new());
        writer.append(&sparse, &*vec![7; 300]).unwrap();
        let bytes = writer.finish().unwrap();
        assert_eq!(bytes.len() % BLOCK, 0);
        let mut reader = Reader::new(&*bytes);
        assert_eq!(reader.next().unwrap().unwrap(), sparse);
        let mut back = Vec::new();
        reader.content().read_to_end(&mut back).unwrap();
        assert_eq!(back, vec![7; 300]);
        assert!(reader.next().unwrap().is_none());
    }

    #[test]
    fn links_and_devices() {
        let mut link = entry("link");
        link.kind = Kind::Symlink;
        link.link = vec![b'l'; 200];
        assert_eq!(round_trip(&link).0, link);
        let mut device = entry("dev");
        device.kind = Kind::BlockDevice;
        (device.major, device.minor) = (259, 1_000_000);
        assert_eq!(round_trip(&device).0, device);
        let mut directory = entry(&"d".repeat(100));
        directory.kind = Kind::Directory;
        assert_eq!(round_trip(&directory).0, directory);
    }

    #[test]
    fn a_file_that_shrinks_is_filled_up() {
        let mut shrunk = entry("f");
        shrunk.size = 600;
        let mut writer = Writer::new(Vec::new());
        writer.append(&shrunk, &b"abc"[..]).unwrap();
        let bytes = writer.finish().unwrap();
        assert_eq!(bytes.len(), BLOCK * 5);
    }
}
