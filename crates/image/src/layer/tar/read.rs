//! Reading an archive, entry by entry, from a stream.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::io::{self, BufReader, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use super::header::{Block, Dialect, Header, Invalid, number};
use super::{BLOCK, Chunk, Entry, Kind, MAX_EXTENSION, TarError, Time, display, pax, sparse};

/// Step of reading from the stream.
const BUFFER: usize = 256 * 1024;

/// An archive being read.
pub(crate) struct Reader<R> {
    input: Counted<BufReader<R>>,
    /// Of the current entry's content, not yet read.
    remaining: u64,
    /// To the next block, after the content.
    padding: u64,
    /// The current entry, for error texts.
    current: String,
}

/// What extended headers say about the entry after them.
#[derive(Default)]
struct Extension {
    /// Bytes of the headers so far.
    length: u64,
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u64>,
    gid: Option<u64>,
    mtime: Option<Time>,
    xattrs: Vec<(OsString, Vec<u8>)>,
    /// Where among them each is: there may be tens of thousands.
    places: HashMap<OsString, usize>,
    sparse: sparse::Records,
}

impl<R: Read> Reader<R> {
    pub(crate) fn new(input: R) -> Reader<R> {
        Reader {
            input: Counted {
                inner: BufReader::with_capacity(BUFFER, input),
                position: 0,
            },
            remaining: 0,
            padding: 0,
            current: "its beginning".to_owned(),
        }
    }

    /// The next entry; what was not read of the one before is skipped.
    pub(crate) fn next(&mut self) -> Result<Option<Entry>, TarError> {
        let mut extension = Extension::default();
        loop {
            self.skip_content()?;
            let mut block = [0; BLOCK];
            if !self.read_block(&mut block)? || is_end(&block) && self.is_end()? {
                return Ok(None);
            }
            let header = Header::new(&block).map_err(|error| self.invalid(error))?;
            let size = header.size().map_err(|error| self.invalid(error))?;
            let size = u64::try_from(size).map_err(|_| self.broken("a size below zero"))?;
            match header.typeflag() {
                b'L' => extension.path = Some(self.long_name(size, &mut extension.length)?),
                b'K' => extension.link = Some(self.long_name(size, &mut extension.length)?),
                b'x' | b'X' => {
                    let data = self.extension(size, &mut extension.length)?;
                    let taken = take_records(&data, &mut extension);
                    taken.map_err(|error| self.invalid(error))?;
                }
                // Global headers and volume labels say nothing about files; Docker passes them over too.
                b'g' | b'V' => self.set_content(size),
                _ => return self.entry(&header, size, extension).map(Some),
            }
        }
    }

    /// How many bytes of the archive were taken so far.
    pub(crate) fn position(&self) -> u64 {
        self.input.position
    }

    /// The content of the entry that [`next`](Self::next) gave last.
    pub(crate) fn content(&mut self) -> Content<'_, R> {
        Content { reader: self }
    }

    /// Reads what follows the archive's end, so that a reader below sees the whole stream.
    pub(crate) fn drain(&mut self) -> Result<(), TarError> {
        self.current = "its end".to_owned();
        io::copy(&mut self.input, &mut io::sink()).map_err(|cause| self.failed(cause))?;
        Ok(())
    }

    fn entry(&mut self, header: &Header<'_>, stored: u64, extension: Extension) -> Result<Entry, TarError> {
        let mut path = extension
            .sparse
            .name
            .clone()
            .or(extension.path)
            .unwrap_or_else(|| header.path());
        self.current = display(&path);
        if path.contains(&0) {
            return Err(self.broken("a name with a zero byte"));
        }
        let is_directory = path.ends_with(b"/");
        while path.len() > 1 && path.ends_with(b"/") {
            path.pop();
        }
        let kind = match header.typeflag() {
            // Before there was a type for directories, a slash told.
            0 | b'0' if is_directory && header.dialect() == Dialect::Old => Kind::Directory,
            0 | b'0' | b'7' | b'S' => Kind::File,
            b'1' => Kind::HardLink,
            b'2' => Kind::Symlink,
            b'3' => Kind::CharDevice,
            b'4' => Kind::BlockDevice,
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            b'M' => return Err(self.unsupported("it continues another volume's file")),
            _ => return Err(self.unsupported("it is of an unknown type")),
        };
        let link = extension.link.unwrap_or_else(|| header.link());
        if link.contains(&0) {
            return Err(self.broken("a link with a zero byte"));
        }
        let stored = extension.size.unwrap_or(stored);
        // Some writers record a file's size for links and directories too; there is no content then.
        self.set_content(if kind == Kind::File { stored } else { 0 });
        let chunks = self.chunks(header, &extension.sparse)?;
        let chunks = chunks.or(extension.sparse.into_map_and_size(stored));
        let size = match &chunks {
            Some((_, size)) => *size,
            None => self.remaining,
        };
        if let Some((chunks, size)) = &chunks
            && !sparse::is_consistent(chunks, *size, self.remaining)
        {
            return Err(self.broken("a map of holes that does not fit its file"));
        }
        let device = matches!(kind, Kind::CharDevice | Kind::BlockDevice);
        Ok(Entry {
            path,
            kind,
            mode: self.small(header.mode(), 0o7777)? & 0o7777,
            uid: self.id(extension.uid, header.uid())?,
            gid: self.id(extension.gid, header.gid())?,
            mtime: match extension.mtime {
                Some(time) => time,
                None => Time {
                    seconds: header.mtime().map_err(|error| self.invalid(error))?,
                    nanos: 0,
                },
            },
            link: match kind {
                Kind::HardLink | Kind::Symlink => link,
                _ => Vec::new(),
            },
            major: if device {
                self.small(header.major(), u32::MAX)?
            } else {
                0
            },
            minor: if device {
                self.small(header.minor(), u32::MAX)?
            } else {
                0
            },
            size,
            chunks: chunks.map(|(chunks, _)| chunks),
            xattrs: extension.xattrs,
        })
    }

    /// The map of a sparse file, when it is in this header or before the content.
    fn chunks(
        &mut self,
        header: &Header<'_>,
        records: &sparse::Records,
    ) -> Result<Option<(Vec<Chunk>, u64)>, TarError> {
        if header.typeflag() == b'S' {
            let size = number(header.field(483, 12))
                .and_then(|size| u64::try_from(size).ok())
                .ok_or_else(|| self.broken("a map of holes without a size"))?;
            return self.old_gnu_chunks(header).map(|chunks| Some((chunks, size)));
        }
        if !records.in_content {
            return Ok(None);
        }
        let size = records
            .size
            .ok_or_else(|| self.broken("a map of holes without a size"))?;
        let content = self.remaining;
        let map = sparse::map_in_content(|block| self.read_block(block))?;
        match map {
            Some((chunks, taken)) if taken <= content => {
                self.remaining = content - taken;
                Ok(Some((chunks, size)))
            }
            _ => Err(self.broken("a map of holes that makes no sense")),
        }
    }

    fn old_gnu_chunks(&mut self, header: &Header<'_>) -> Result<Vec<Chunk>, TarError> {
        let mut block = [0; BLOCK];
        block.copy_from_slice(header.field(0, BLOCK));
        let (mut start, mut count) = (386, 4);
        let mut chunks = Vec::new();
        loop {
            let Some((found, more)) = sparse::old_gnu(&block, start, count) else {
                return Err(self.broken("a map of holes that makes no sense"));
            };
            chunks.extend(found);
            if !more {
                break;
            }
            if chunks.len() > sparse::MAX_CHUNKS || !self.read_block(&mut block)? {
                return Err(self.broken("a map of holes that makes no sense"));
            }
            (start, count) = (0, 21);
        }
        // GNU tar ends the map with an empty part when the file ends in a hole.
        chunks.retain(|chunk| chunk.length > 0);
        Ok(chunks)
    }

    fn small(&self, value: Result<i64, Invalid>, max: u32) -> Result<u32, TarError> {
        let value = value.map_err(|error| self.invalid(error))?;
        // Old programs wrote the file type into the mode: the caller masks it.
        match u32::try_from(value) {
            Ok(value) if value <= max || max == 0o7777 => Ok(value),
            _ => Err(self.broken("a number that is too big")),
        }
    }

    fn id(&self, extended: Option<u64>, header: Result<i64, Invalid>) -> Result<u32, TarError> {
        let value = match extended {
            Some(value) => i64::try_from(value).unwrap_or(i64::MAX),
            None => header.map_err(|error| self.invalid(error))?,
        };
        // The kernel's ids have 32 bits, and the last one means "leave it".
        match u32::try_from(value) {
            Ok(id) if id != u32::MAX => Ok(id),
            _ => Err(self.unsupported("its owner has a number beyond 32 bits")),
        }
    }

    fn long_name(&mut self, size: u64, length: &mut u64) -> Result<Vec<u8>, TarError> {
        let mut name = self.extension(size, length)?;
        if let Some(end) = name.iter().position(|byte| *byte == 0) {
            name.truncate(end);
        }
        Ok(name)
    }

    /// The content of an extended header of an entry that had `length` bytes of them so far.
    fn extension(&mut self, size: u64, length: &mut u64) -> Result<Vec<u8>, TarError> {
        *length = length.saturating_add(size);
        if *length > MAX_EXTENSION {
            return Err(self.broken("extended headers of more than a mebibyte"));
        }
        self.set_content(size);
        let mut data = Vec::new();
        self.content()
            .read_to_end(&mut data)
            .map_err(|cause| self.failed(cause))?;
        Ok(data)
    }

    fn set_content(&mut self, size: u64) {
        self.remaining = size;
        self.padding = (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64;
    }

    fn skip_content(&mut self) -> Result<(), TarError> {
        let skip = self.remaining.saturating_add(self.padding);
        (self.remaining, self.padding) = (0, 0);
        if skip == 0 {
            return Ok(());
        }
        let skipped = io::copy(&mut self.input.by_ref().take(skip), &mut io::sink())
            .map_err(|cause| self.failed(cause))?;
        // Some writers leave the last padding out.
        if skipped < skip && skip - skipped >= BLOCK as u64 {
            return Err(self.truncated());
        }
        Ok(())
    }

    /// False at the end of the stream.
    fn read_block(&mut self, block: &mut Block) -> Result<bool, TarError> {
        let mut filled = 0;
        while let Some(rest) = block.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.input.read(rest) {
                Ok(0) if filled == 0 => return Ok(false),
                Ok(0) => return Err(self.truncated()),
                Ok(length) => filled += length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.failed(error)),
            }
        }
        Ok(true)
    }

    /// After one block of zeros: the archive ends with another one, or with the stream.
    fn is_end(&mut self) -> Result<bool, TarError> {
        let mut block = [0; BLOCK];
        if self.read_block(&mut block)? && !is_end(&block) {
            return Err(self.broken("something follows a block of zeros"));
        }
        Ok(true)
    }

    fn truncated(&self) -> TarError {
        TarError::Truncated {
            entry: self.current.clone(),
        }
    }

    fn broken(&self, reason: &'static str) -> TarError {
        TarError::Broken {
            entry: self.current.clone(),
            reason,
        }
    }

    fn unsupported(&self, reason: &'static str) -> TarError {
        TarError::Unsupported {
            entry: self.current.clone(),
            reason,
        }
    }

    fn invalid(&self, Invalid(reason): Invalid) -> TarError {
        self.broken(reason)
    }

    pub(crate) fn failed(&self, cause: io::Error) -> TarError {
        if cause.kind() == io::ErrorKind::UnexpectedEof {
            return self.truncated();
        }
        TarError::Read {
            entry: self.current.clone(),
            cause,
        }
    }
}

/// A reader that knows where it is.
struct Counted<R> {
    inner: R,
    position: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.position += read as u64;
        Ok(read)
    }
}

impl sparse::Records {
    fn into_map_and_size(self, stored: u64) -> Option<(Vec<Chunk>, u64)> {
        let size = self.size.unwrap_or(stored);
        self.into_map().map(|chunks| (chunks, size))
    }
}

fn is_end(block: &Block) -> bool {
    block.iter().all(|byte| *byte == 0)
}

fn take_records(data: &[u8], extension: &mut Extension) -> Result<(), Invalid> {
    let records = pax::records(data).ok_or(Invalid("an extended header that is not made of records"))?;
    for (key, value) in records {
        take_record(key, value, extension).ok_or(Invalid("an extended record that makes no sense"))?;
    }
    Ok(())
}

fn take_record(key: &[u8], value: &[u8], extension: &mut Extension) -> Option<()> {
    if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
        set_xattr(extension, name.to_vec(), value.to_vec())?;
        return Some(());
    }
    if let Some(name) = key.strip_prefix(b"LIBARCHIVE.xattr.") {
        let name = pax::percent(name)?;
        // The other record of the same attribute holds the bytes as they are, and wins.
        if !extension.places.contains_key(OsStr::from_bytes(&name)) {
            set_xattr(extension, name, pax::base64(value)?)?;
        }
        return Some(());
    }
    if let Some(key) = key.strip_prefix(b"GNU.sparse.") {
        return extension.sparse.take(key, value);
    }
    // An empty value takes an earlier one back.
    let given = !value.is_empty();
    match key {
        b"path" => extension.path = given.then(|| value.to_vec()),
        b"linkpath" => extension.link = given.then(|| value.to_vec()),
        b"size" => extension.size = optional(value, pax::decimal)?,
        b"uid" => extension.uid = optional(value, pax::decimal)?,
        b"gid" => extension.gid = optional(value, pax::decimal)?,
        b"mtime" => extension.mtime = optional(value, pax::time)?,
        _ => {}
    }
    Some(())
}

fn set_xattr(extension: &mut Extension, name: Vec<u8>, value: Vec<u8>) -> Option<()> {
    if name.is_empty() || name.contains(&0) || name.len() > 255 {
        return None;
    }
    let name = OsString::from_vec(name);
    let place = *extension
        .places
        .entry(name.clone())
        .or_insert(extension.xattrs.len());
    match extension.xattrs.get_mut(place) {
        Some((_, known)) => *known = value,
        None => extension.xattrs.push((name, value)),
    }
    Some(())
}

fn optional<T>(value: &[u8], parse: impl Fn(&[u8]) -> Option<T>) -> Option<Option<T>> {
    if value.is_empty() {
        Some(None)
    } else {
        parse(value).map(Some)
    }
}

/// The content of one entry: of a sparse file only the parts that are there.
pub(crate) struct Content<'a, R> {
    reader: &'a mut Reader<R>,
}

impl<R: Read> Read for Content<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let limit = usize::try_from(self.reader.remaining).unwrap_or(usize::MAX);
        let limit = limit.min(buffer.len());
        let Some(part) = buffer.get_mut(..limit).filter(|part| !part.is_empty()) else {
            return Ok(0);
        };
        match self.reader.input.read(part)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            length => {
                self.reader.remaining -= length as u64;
                Ok(length)
            }
        }
    }
}
