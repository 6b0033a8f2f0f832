//! A client's directory as it is kept here, brought up to date by what the client says lies in it.
//!
//! ```text
//!   entry … entry, end      in order, parents first      ──> what is the same stays, what differs is made
//!   data of a file … end    only of files that were asked for
//! ```
//!
//! What is the same is told by kind, permissions, owner, size and time, since clients say no more of a file. Such a word
//! is taken only where it can mean something ([`Trust`]); a sample of the files is asked for all the same, and one that
//! came out otherwise shows that it is another directory of the same name: then all of them are asked for.
//!
//! Always: a name is taken only beneath a directory that came before it in the same transfer, so nothing outside of the
//! tree and nothing through a link is ever touched; a file has the time that was told of it only when all of it is there, so
//! that a transfer that breaks off leaves no file that looks finished; what was not named is gone at the end.
//!
//! A file that takes the place of another one comes aside and is renamed there; where nothing lies it is written under its own
//! name, which halves the work of large directories. Until it is whole its time is that of the writing: later than the beginning of
//! every transfer that ended well, and so none that is trusted.
//!
//! The tree is written by nobody else meanwhile (see `locals`). Where files are laid over what others can change
//! ([`Update::merge`]), all of them come aside.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use bollard_buildkit_proto::fsutil::types::Stat as Entry;
use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, RenameFlags, Stat, Timespec, Timestamps, Uid, chownat, fchmod,
    fchown, fstat, futimens, linkat, makedev, mkdirat, mknodat, openat, readlinkat, renameat_with, statat,
    symlinkat, unlinkat, utimensat,
};
use sys::beneath::{list_sorted, open_beneath_no_links, remove_tree};

use super::mode;

/// The most entries of one transfer.
const MAX_ENTRIES: usize = 5_000_000;
/// The longest path (Linux's limit).
const MAX_PATH: usize = 4096;

/// How many files that seem to be here already are asked for all the same, and how many bytes they may have together.
const SAMPLE: (u32, u64) = (256, 64 << 10);
/// How far apart two changes of a file have to be for their times to differ: a tick of the slowest kernel's clock, twice.
const TICK: i64 = 20_000_000;

/// When a file of the size and the time of the one that lies here is taken for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// Never: everything is asked for.
    Never,
    /// When its time is well before the beginning of the transfer that brought the one that lies here (nanoseconds since
    /// 1970): one that changed afterwards within a tick of the clock would have the same. A time in whole seconds says
    /// nothing, since tools that unpack and package files make up such times.
    Before(i64),
}

impl Trust {
    fn allows(self, entry: &Entry) -> bool {
        match self {
            Trust::Never => false,
            Trust::Before(begun) => {
                entry.mod_time % 1_000_000_000 != 0 && entry.mod_time < begun.saturating_sub(TICK)
            }
        }
    }
}

/// Why a transfer was refused.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    #[error("{0:?} is no path in a directory: it must be relative, without empty parts, \".\" and \"..\"")]
    Path(String),
    #[error("{0:?} was sent before the directory it lies in")]
    Order(String),
    #[error("{0:?} was sent twice")]
    Twice(String),
    #[error("{0:?} is linked to {1:?}, which is no file of this transfer")]
    Link(String, String),
    #[error("data was sent for the file {0}, which was not asked for")]
    Unasked(u32),
    #[error("more than {MAX_ENTRIES} files")]
    TooMany,
    #[error("{path}: {cause}")]
    Write { path: String, cause: io::Error },
}

fn at(path: &str) -> impl FnOnce(rustix::io::Errno) -> TreeError {
    let path = path.to_owned();
    move |cause| TreeError::Write {
        path,
        cause: cause.into(),
    }
}

/// A file whose data is under way.
struct Incoming {
    entry: Entry,
    file: Option<File>,
    here: Here,
}

/// What lies where a file is to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Here {
    /// Nothing, and nobody puts anything there.
    Nothing,
    Other,
    /// What seems to be the same file.
    Alike,
}

/// One transfer into a tree.
pub struct Update {
    root: OwnedFd,
    staging: OwnedFd,
    old: HashMap<String, Stat>,
    seen: HashSet<String>,
    directories: BTreeMap<String, Entry>,
    links: Vec<(String, String)>,
    incoming: HashMap<u32, Incoming>,
    trust: Trust,
    /// What lies here stays, and what comes is this owner's.
    merge: Option<(u32, u32)>,
    /// What was taken for the same and not asked for, so that it still can be.
    trusted: Vec<(u32, Entry)>,
    sampled: (u32, u64),
    /// The directory that was last written to: neighbours come after each other.
    held: Option<(String, OwnedFd)>,
    next: u32,
    ended: bool,
}

impl Update {
    /// Begins a transfer into the directory `root`; files under way lie in `staging`, on the same filesystem.
    pub fn begin(root: &Path, staging: &Path, trust: Trust) -> Result<Update, TreeError> {
        let open = |path: &Path| {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            rustix::fs::open(path, flags, Mode::empty()).map_err(at(&path.display().to_string()))
        };
        let (root, staging) = (open(root)?, open(staging)?);
        let mut old = HashMap::new();
        known(&root, &mut old)?;
        Ok(Update {
            root,
            staging,
            old,
            seen: HashSet::new(),
            directories: BTreeMap::new(),
            links: Vec::new(),
            incoming: HashMap::new(),
            trust,
            merge: None,
            trusted: Vec::new(),
            sampled: (0, 0),
            held: None,
            next: 0,
            ended: false,
        })
    }

    /// Begins a transfer that lays its files over what lies in `root`, all of them as this process's own.
    pub fn merge(root: &Path, staging: &Path) -> Result<Update, TreeError> {
        let empty = tempfile::tempdir_in(staging).map_err(|cause| TreeError::Write {
            path: staging.display().to_string(),
            cause,
        })?;
        let owner = (
            rustix::process::geteuid().as_raw(),
            rustix::process::getegid().as_raw(),
        );
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let update = Update::begin(empty.path(), staging, Trust::Never)?;
        Ok(Update {
            root: rustix::fs::open(root, flags, Mode::empty()).map_err(at(&root.display().to_string()))?,
            merge: Some(owner),
            ..update
        })
    }

    /// Takes the next entry. The number of the file, if its data is wanted.
    pub fn entry(&mut self, mut entry: Entry) -> Result<Option<u32>, TreeError> {
        if let Some((user, group)) = self.merge {
            (entry.uid, entry.gid) = (user, group);
            // Others than root may give no file rights.
            entry
                .xattrs
                .retain(|key, _| user == 0 || key.starts_with("user."));
        }
        let id = self.next;
        self.next = self.next.wrapping_add(1);
        if self.seen.len() >= MAX_ENTRIES {
            return Err(TreeError::TooMany);
        }
        let path = entry.path.clone();
        check(&path)?;
        let (above, _) = split(&path);
        if !above.is_empty() && !self.directories.contains_key(above) {
            return Err(TreeError::Order(path));
        }
        if !self.seen.insert(path.clone()) {
            return Err(TreeError::Twice(path));
        }
        let kind = mode::kind(entry.mode);
        if kind == FileType::RegularFile && !entry.linkname.is_empty() {
            check(&entry.linkname)?;
            if entry.linkname == path || !self.seen.contains(&entry.linkname) {
                return Err(TreeError::Link(path, entry.linkname));
            }
            self.links.push((path, entry.linkname));
            return Ok(None);
        }
        let old = match self.merge {
            None => self.old.get(&path).copied(),
            Some(_) => self.look(&path),
        };
        let same = old.is_some_and(|old| self.is_same(&entry, &old));
        // A directory keeps what lies in it; everything else of another kind makes place first.
        if let Some(old) = old
            && !same
            && (kind == FileType::Directory || is_directory(&old))
            && !(kind == FileType::Directory && is_directory(&old))
        {
            self.remove(&path)?;
        }
        match kind {
            FileType::Directory => {
                self.make_directory(&entry)?;
                self.directories.insert(path, entry);
                Ok(None)
            }
            // A socket means nothing to those who only have its name.
            FileType::Socket | FileType::Unknown => {
                self.seen.remove(&path);
                Ok(None)
            }
            FileType::RegularFile if same && self.trust.allows(&entry) && !self.is_sampled(&entry) => {
                self.trusted.push((id, entry));
                Ok(None)
            }
            FileType::RegularFile => {
                let here = match (same, old.is_none() && self.merge.is_none()) {
                    (true, _) => Here::Alike,
                    (false, true) => Here::Nothing,
                    (false, false) => Here::Other,
                };
                self.ask_for(id, entry, here);
                Ok(Some(id))
            }
            _ if same => Ok(None),
            _ => self.make_special(&entry, kind, id).map(|()| None),
        }
    }

    /// Whether a file is among those that are asked for although they seem to be here.
    fn is_sampled(&mut self, entry: &Entry) -> bool {
        let (files, bytes) = (self.sampled.0 + 1, self.sampled.1 + entry.size.unsigned_abs());
        let sampled = files <= SAMPLE.0 && bytes <= SAMPLE.1;
        if sampled {
            self.sampled = (files, bytes);
        }
        sampled
    }

    fn ask_for(&mut self, id: u32, entry: Entry, here: Here) {
        let incoming = Incoming {
            entry,
            file: None,
            here,
        };
        self.incoming.insert(id, incoming);
    }

    /// All entries were named.
    pub fn end(&mut self) {
        self.ended = true;
    }

    /// Whether everything that was asked for is here.
    pub fn is_complete(&self) -> bool {
        self.ended && self.incoming.is_empty()
    }

    /// Takes a piece of a file; an empty one ends it. The numbers of more files whose data is wanted because of it.
    pub fn data(&mut self, id: u32, data: &[u8]) -> Result<Vec<u32>, TreeError> {
        let Some(mut incoming) = self.incoming.remove(&id) else {
            return Err(TreeError::Unasked(id));
        };
        let mut file = match incoming.file.take() {
            Some(file) => file,
            None => self.create(id, &incoming)?,
        };
        if !data.is_empty() {
            if let Err(cause) = file.write_all(data) {
                let path = incoming.entry.path;
                return Err(TreeError::Write { path, cause });
            }
            incoming.file = Some(file);
            self.incoming.insert(id, incoming);
            return Ok(Vec::new());
        }
        let (name, path) = (id.to_string(), incoming.entry.path.as_str());
        if incoming.here == Here::Alike && self.is_equal(&name, path)? {
            unlinkat(&self.staging, &name, AtFlags::empty()).map_err(at(path))?;
            return Ok(Vec::new());
        }
        dress_file(&file, &incoming.entry)?;
        drop(file);
        if incoming.here != Here::Nothing {
            self.put(&name, path)?;
        }
        match incoming.here {
            Here::Alike => Ok(self.ask_for_all()),
            Here::Nothing | Here::Other => Ok(Vec::new()),
        }
    }

    /// An empty file for what comes: under its own name if nothing lies there, else aside.
    fn create(&mut self, id: u32, incoming: &Incoming) -> Result<File, TreeError> {
        let path = incoming.entry.path.as_str();
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = match incoming.here {
            Here::Nothing => {
                let (above, name) = split(path);
                let held = self.held.take().filter(|(held, _)| held == above);
                let held = match held {
                    Some(held) => held,
                    None => (above.to_owned(), self.parent(path)?.0),
                };
                let permissions = mode::permissions(incoming.entry.mode) & 0o777;
                let made = openat(&held.1, name, flags, Mode::from_raw_mode(permissions));
                self.held = Some(held);
                made
            }
            Here::Other | Here::Alike => {
                openat(&self.staging, id.to_string(), flags, Mode::from_raw_mode(0o600))
            }
        };
        Ok(File::from(made.map_err(at(path))?))
    }

    /// Trusts no more: what was taken for the same is asked for.
    fn ask_for_all(&mut self) -> Vec<u32> {
        self.trust = Trust::Never;
        let trusted = std::mem::take(&mut self.trusted);
        let mut wanted = Vec::with_capacity(trusted.len());
        for (id, entry) in trusted {
            wanted.push(id);
            self.ask_for(id, entry, Here::Alike);
        }
        wanted
    }

    /// Whether a file that came holds what the one at its place holds.
    fn is_equal(&self, staged: &str, path: &str) -> Result<bool, TreeError> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let (parent, name) = self.parent(path)?;
        let open = |dir: &OwnedFd, name: &Path| {
            let file = openat(dir, name, flags, Mode::empty()).map_err(at(path))?;
            Ok::<_, TreeError>(io::BufReader::new(File::from(file)))
        };
        let (new, old) = (open(&self.staging, Path::new(staged))?, open(&parent, &name)?);
        equal(new, old).map_err(|cause| TreeError::Write {
            path: path.to_owned(),
            cause,
        })
    }

    /// Ends the transfer: links are made, directories get their times, what was not named goes.
    pub fn finish(mut self) -> Result<(), TreeError> {
        let links = std::mem::take(&mut self.links);
        for (path, goal) in &links {
            self.link(path, goal)?;
        }
        let mut gone: Vec<String> = self
            .old
            .keys()
            .filter(|path| !self.seen.contains(*path))
            .cloned()
            .collect();
        // A directory goes with all that lies in it.
        gone.sort();
        let mut last: Option<String> = None;
        for path in gone {
            let inside = last
                .as_ref()
                .is_some_and(|top| path.starts_with(&format!("{top}/")));
            if !inside {
                self.remove_from_disk(&path)?;
                last = Some(path);
            }
        }
        for (path, entry) in self.directories.iter().rev() {
            let (parent, name) = self.parent(path)?;
            let stat = statat(&parent, &name, AtFlags::SYMLINK_NOFOLLOW).map_err(at(path))?;
            if nanoseconds(&stat) != entry.mod_time {
                set_time(parent.as_fd(), &name, entry.mod_time).map_err(at(path))?;
            }
        }
        Ok(())
    }

    fn is_same(&self, entry: &Entry, old: &Stat) -> bool {
        let kind = mode::kind(entry.mode);
        if FileType::from_raw_mode(old.st_mode) != kind || (old.st_uid, old.st_gid) != (entry.uid, entry.gid)
        {
            return false;
        }
        let permissions = old.st_mode & 0o7777 == mode::permissions(entry.mode);
        match kind {
            FileType::RegularFile => {
                permissions && old.st_size == entry.size && nanoseconds(old) == entry.mod_time
            }
            FileType::Symlink => self
                .target(&entry.path)
                .is_some_and(|goal| goal == entry.linkname.as_bytes()),
            FileType::Directory => true,
            _ => permissions && old.st_rdev == device(entry),
        }
    }

    fn target(&self, path: &str) -> Option<Vec<u8>> {
        let (parent, name) = self.parent(path).ok()?;
        let goal = readlinkat(&parent, &name, Vec::new()).ok()?;
        Some(goal.into_bytes())
    }

    /// The directory that `path` lies in, and its name there.
    fn parent(&self, path: &str) -> Result<(OwnedFd, PathBuf), TreeError> {
        let (above, name) = split(path);
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let above = if above.is_empty() { "." } else { above };
        let parent = open_beneath_no_links(self.root.as_fd(), Path::new(above), flags, Mode::empty());
        let parent = parent.map_err(|cause| TreeError::Write {
            path: path.to_owned(),
            cause,
        })?;
        Ok((parent, PathBuf::from(name)))
    }

    /// What lies at a path.
    fn look(&self, path: &str) -> Option<Stat> {
        let (parent, name) = self.parent(path).ok()?;
        statat(&parent, &name, AtFlags::SYMLINK_NOFOLLOW).ok()
    }

    fn make_directory(&self, entry: &Entry) -> Result<(), TreeError> {
        let (parent, name) = self.parent(&entry.path)?;
        match mkdirat(&parent, &name, Mode::from_raw_mode(0o700)) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(at(&entry.path)(error)),
        }
        dress_directory(parent.as_fd(), &name, entry)
    }

    fn make_special(&self, entry: &Entry, kind: FileType, id: u32) -> Result<(), TreeError> {
        let (path, name) = (&entry.path, id.to_string());
        match kind {
            FileType::Symlink => symlinkat(&entry.linkname, &self.staging, &name).map_err(at(path))?,
            _ => {
                let permissions = Mode::from_raw_mode(0o600);
                mknodat(&self.staging, &name, kind, permissions, device(entry)).map_err(at(path))?;
            }
        }
        dress(self.staging.as_fd(), OsStr::new(&name), entry)?;
        self.put(&name, path)
    }

    /// Gives what is ready its place.
    fn put(&self, staged: &str, path: &str) -> Result<(), TreeError> {
        let (parent, name) = self.parent(path)?;
        renameat_with(&self.staging, staged, &parent, &name, RenameFlags::empty()).map_err(at(path))
    }

    fn link(&self, path: &str, goal: &str) -> Result<(), TreeError> {
        let (goal_parent, goal_name) = self.parent(goal)?;
        let (parent, name) = self.parent(path)?;
        let goal_stat = statat(&goal_parent, &goal_name, AtFlags::SYMLINK_NOFOLLOW).map_err(at(goal))?;
        if is_directory(&goal_stat) {
            return Err(TreeError::Link(path.to_owned(), goal.to_owned()));
        }
        match statat(&parent, &name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if stat.st_ino == goal_stat.st_ino => return Ok(()),
            Ok(_) => self.remove_from_disk(path)?,
            Err(rustix::io::Errno::NOENT) => {}
            Err(error) => return Err(at(path)(error)),
        }
        linkat(&goal_parent, &goal_name, &parent, &name, AtFlags::empty()).map_err(at(path))
    }

    fn remove(&mut self, path: &str) -> Result<(), TreeError> {
        self.held = None;
        self.remove_from_disk(path)?;
        let below = format!("{path}/");
        self.old
            .retain(|known, _| known != path && !known.starts_with(&below));
        Ok(())
    }

    fn remove_from_disk(&self, path: &str) -> Result<(), TreeError> {
        let (parent, name) = self.parent(path)?;
        let stat = match statat(&parent, &name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(rustix::io::Errno::NOENT) => return Ok(()),
            Err(error) => return Err(at(path)(error)),
        };
        match is_directory(&stat) {
            true => remove_tree(parent.as_fd(), name.as_os_str())
                .map(drop)
                .map_err(|cause| TreeError::Write {
                    path: path.to_owned(),
                    cause,
                }),
            false => unlinkat(&parent, &name, AtFlags::empty()).map_err(at(path)),
        }
    }
}

/// Whether two readers give the same bytes.
fn equal(mut one: impl io::BufRead, mut other: impl io::BufRead) -> io::Result<bool> {
    loop {
        let (a, b) = (one.fill_buf()?, other.fill_buf()?);
        let length = a.len().min(b.len());
        if length == 0 {
            return Ok(a.is_empty() && b.is_empty());
        }
        if a.get(..length) != b.get(..length) {
            return Ok(false);
        }
        one.consume(length);
        other.consume(length);
    }
}

/// What lies in a tree already.
fn known(root: &OwnedFd, old: &mut HashMap<String, Stat>) -> Result<(), TreeError> {
    let mut waiting = vec![String::new()];
    while let Some(dir) = waiting.pop() {
        let failed = |cause: io::Error| TreeError::Write {
            path: dir.clone(),
            cause,
        };
        let place = if dir.is_empty() { "." } else { dir.as_str() };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let opened =
            open_beneath_no_links(root.as_fd(), Path::new(place), flags, Mode::empty()).map_err(failed)?;
        for name in list_sorted(opened.as_fd()).map_err(failed)? {
            let stat = statat(&opened, &name, AtFlags::SYMLINK_NOFOLLOW).map_err(at(&dir))?;
            let name = name.to_string_lossy();
            let path = if dir.is_empty() {
                name.into_owned()
            } else {
                format!("{dir}/{name}")
            };
            if is_directory(&stat) {
                waiting.push(path.clone());
            }
            old.insert(path, stat);
        }
    }
    Ok(())
}

fn check(path: &str) -> Result<(), TreeError> {
    let bad = |part: &str| matches!(part, "" | "." | "..") || part.len() > 255;
    if path.len() > MAX_PATH || path.contains('\0') || path.split('/').any(bad) {
        return Err(TreeError::Path(path.chars().take(200).collect()));
    }
    Ok(())
}

fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

fn is_directory(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}

fn nanoseconds(stat: &Stat) -> i64 {
    let seconds = i128::from(stat.st_mtime) * 1_000_000_000;
    i64::try_from(seconds + i128::from(stat.st_mtime_nsec)).unwrap_or(0)
}

fn device(entry: &Entry) -> u64 {
    let part = |number: i64| u32::try_from(number).unwrap_or(0);
    makedev(part(entry.devmajor), part(entry.devminor))
}

/// Gives a directory its owner, permissions and attributes. Where files are laid over what others can change, it may have
/// become a link meanwhile: what is dressed is what was opened, and a link is not opened.
fn dress_directory(parent: BorrowedFd<'_>, name: &Path, entry: &Entry) -> Result<(), TreeError> {
    let path = entry.path.as_str();
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = openat(parent, name, flags, Mode::empty()).map_err(at(path))?;
    let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
    fchown(&directory, Some(uid), Some(gid)).map_err(at(path))?;
    fchmod(&directory, Mode::from_raw_mode(mode::permissions(entry.mode))).map_err(at(path))?;
    set_attributes(entry, |key, value| {
        sys::beneath::set_file_xattr(directory.as_fd(), key, value)
    })
}

/// Sets the attributes of an entry that mean something here.
fn set_attributes(entry: &Entry, set: impl Fn(&OsStr, &[u8]) -> io::Result<()>) -> Result<(), TreeError> {
    let wanted = |key: &str| key.starts_with("user.") || key == "security.capability";
    for (key, value) in entry.xattrs.iter().filter(|(key, _)| wanted(key)) {
        set(OsStr::new(key), value).map_err(|cause| TreeError::Write {
            path: format!("{} ({key})", entry.path),
            cause,
        })?;
    }
    Ok(())
}

/// Gives a file that is whole its owner, permissions, attributes and time, in this order: owners take set-id bits away. What it
/// has already is not set again, since a look costs less than a change.
fn dress_file(file: &File, entry: &Entry) -> Result<(), TreeError> {
    let fail = at;
    let path = entry.path.as_str();
    let stat = fstat(file).map_err(fail(path))?;
    if (stat.st_uid, stat.st_gid) != (entry.uid, entry.gid) {
        let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
        fchown(file, Some(uid), Some(gid)).map_err(fail(path))?;
    }
    let permissions = mode::permissions(entry.mode);
    if stat.st_mode & 0o7777 != permissions {
        fchmod(file, Mode::from_raw_mode(permissions)).map_err(fail(path))?;
    }
    set_attributes(entry, |key, value| {
        sys::beneath::set_file_xattr(file.as_fd(), key, value)
    })?;
    futimens(file, &times(entry.mod_time)).map_err(fail(path))
}

/// Gives an entry that is neither a directory nor a file, and lies where nobody else writes, its owner, permissions, attributes and
/// time.
fn dress(dir: BorrowedFd<'_>, name: &OsStr, entry: &Entry) -> Result<(), TreeError> {
    let fail = at;
    let kind = mode::kind(entry.mode);
    let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
    let path = entry.path.as_str();
    chownat(dir, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW).map_err(fail(path))?;
    if kind != FileType::Symlink {
        let permissions = Mode::from_raw_mode(mode::permissions(entry.mode));
        rustix::fs::chmodat(dir, name, permissions, AtFlags::empty()).map_err(fail(path))?;
        set_attributes(entry, |key, value| sys::beneath::set_xattr(dir, name, key, value))?;
    }
    set_time(dir, Path::new(name), entry.mod_time).map_err(fail(path))
}

fn set_time(dir: BorrowedFd<'_>, name: &Path, time: i64) -> rustix::io::Result<()> {
    utimensat(dir, name, &times(time), AtFlags::SYMLINK_NOFOLLOW)
}

fn times(time: i64) -> Timestamps {
    let time = Timespec {
        tv_sec: time.div_euclid(1_000_000_000),
        tv_nsec: time.rem_euclid(1_000_000_000),
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}

#[cfg(test)]
mod tests;
