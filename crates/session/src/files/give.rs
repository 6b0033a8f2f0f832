//! The giving end: everything is named, then what is asked for is sent.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use bollard_buildkit_proto::fsutil::types::packet::PacketType;
use bollard_buildkit_proto::fsutil::types::{Packet, Stat as Entry};
use rustix::fs::{FileType, Mode, OFlags, Stat};
use sys::beneath::{list_sorted, open_beneath_no_links};
use tokio::sync::mpsc;

use super::entry::entry_of;
use super::select::Selection;
use super::{BATCH, mode, packet};

/// How much of a file goes into one packet.
const PIECE: usize = 256 << 10;
/// How deep directories are kept open; below, they are opened from the root again.
const OPEN: usize = 64;

/// A tree that is given.
pub struct Tree {
    pub root: OwnedFd,
    /// The directory that it lies in for the other end.
    pub prefix: Option<String>,
    pub selection: Selection,
    /// Files that are one here are one there, and everybody's files become root's: what a context is.
    pub context: bool,
}

impl Tree {
    /// All of a tree, as it is.
    pub fn whole(root: OwnedFd, prefix: Option<String>) -> Tree {
        Tree {
            root,
            prefix,
            selection: Selection::default(),
            context: false,
        }
    }
}

/// Names everything, then answers requests until there are no more. `send` gets some packets at a time, and all of them before
/// a request is waited for. Blocks.
pub fn give(
    trees: &[Tree],
    send: &mut dyn FnMut(Vec<Packet>) -> io::Result<()>,
    asking: mpsc::UnboundedReceiver<u32>,
) -> io::Result<()> {
    give_by(BATCH.0, trees, send, asking)
}

/// The same with batches of so many packets.
fn give_by(
    batch: usize,
    trees: &[Tree],
    send: &mut dyn FnMut(Vec<Packet>) -> io::Result<()>,
    mut asking: mpsc::UnboundedReceiver<u32>,
) -> io::Result<()> {
    let mut out = Batches {
        most: batch,
        packets: Vec::new(),
        data: 0,
        send,
    };
    let mut files: HashMap<u32, Named> = HashMap::new();
    let mut number = 0;
    for (tree, given) in trees.iter().enumerate() {
        if let Some(prefix) = &given.prefix {
            let entry = Entry {
                path: prefix.clone(),
                mode: mode::of_stat(0o040_755),
                ..Entry::default()
            };
            out.add(stat(entry))?;
            number += 1;
        }
        let mut links: HashMap<(u64, u64), String> = HashMap::new();
        walk(given, &mut |mut entry, status, path| {
            let regular = mode::kind(entry.mode) == FileType::RegularFile;
            if let Some(prefix) = &given.prefix {
                entry.path = format!("{prefix}/{}", entry.path);
            }
            if given.context {
                (entry.uid, entry.gid) = (0, 0);
                // A socket is none for anybody else.
                if mode::kind(entry.mode) == FileType::Socket {
                    return Ok(());
                }
                if regular && status.st_nlink > 1 {
                    let first = links.entry((status.st_dev, status.st_ino));
                    match first {
                        std::collections::hash_map::Entry::Occupied(first) => {
                            entry.linkname.clone_from(first.get());
                        }
                        std::collections::hash_map::Entry::Vacant(first) => {
                            first.insert(entry.path.clone());
                        }
                    }
                }
            }
            if regular && entry.linkname.is_empty() {
                let (path, size) = (path.to_owned(), entry.size);
                files.insert(number, Named { tree, path, size });
            }
            number += 1;
            out.add(stat(entry))
        })?;
    }
    out.add(packet(PacketType::PacketStat))?;
    let mut buffer = vec![0; PIECE];
    while let Some(id) = out.next(&mut asking)? {
        let Some(named) = files.remove(&id) else {
            continue;
        };
        let Some(tree) = trees.get(named.tree) else {
            continue;
        };
        named.give(id, tree, &mut buffer, &mut out)?;
    }
    out.add(packet(PacketType::PacketFin))?;
    out.flush()
}

/// Packets that wait to be sent together.
struct Batches<'a> {
    most: usize,
    packets: Vec<Packet>,
    /// How many bytes of files they hold.
    data: u64,
    send: &'a mut dyn FnMut(Vec<Packet>) -> io::Result<()>,
}

impl Batches<'_> {
    fn add(&mut self, packet: Packet) -> io::Result<()> {
        self.data += packet.data.len() as u64;
        self.packets.push(packet);
        match self.packets.len() >= self.most || self.data >= BATCH.1 {
            true => self.flush(),
            false => Ok(()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.data = 0;
        match self.packets.is_empty() {
            true => Ok(()),
            false => (self.send)(std::mem::take(&mut self.packets)),
        }
    }

    /// The next request; before it is waited for, nothing waits to be sent.
    fn next(&mut self, asking: &mut mpsc::UnboundedReceiver<u32>) -> io::Result<Option<u32>> {
        if let Ok(id) = asking.try_recv() {
            return Ok(Some(id));
        }
        self.flush()?;
        Ok(asking.blocking_recv())
    }
}

/// A file whose data may be asked for.
struct Named {
    /// Among those that are given.
    tree: usize,
    path: PathBuf,
    size: i64,
}

impl Named {
    /// Sends the file, as long as it was said to be: what somebody appends meanwhile is not of the file that was named. One that
    /// was said to be empty is read to its end, since the kernel's own files have no size.
    fn give(self, id: u32, tree: &Tree, buffer: &mut [u8], out: &mut Batches<'_>) -> io::Result<()> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
        let opened = open_beneath_no_links(tree.root.as_fd(), &self.path, flags, Mode::empty());
        let mut file = File::from(opened.map_err(at(&self.path))?);
        let size = u64::try_from(self.size).unwrap_or(0);
        let mut sent = 0;
        loop {
            let left = usize::try_from(size.saturating_sub(sent)).unwrap_or(usize::MAX);
            let room = match size {
                0 => buffer.len(),
                _ => left.min(buffer.len()),
            };
            let part = buffer.get_mut(..room).unwrap_or_default();
            let length = match room {
                0 => 0,
                _ => file.read(part).map_err(at(&self.path))?,
            };
            let data = part.get(..length).unwrap_or_default().to_vec();
            out.add(Packet {
                id,
                data,
                ..packet(PacketType::PacketData)
            })?;
            if length == 0 {
                return Ok(());
            }
            sent += length as u64;
        }
    }
}

/// A failure with the path in the tree that it is about.
fn at(path: &Path) -> impl FnOnce(io::Error) -> io::Error {
    move |error| match path.as_os_str().is_empty() {
        true => error,
        false => io::Error::new(error.kind(), format!("{}: {error}", path.display())),
    }
}

/// `None` where something is gone that was there when it was looked at.
fn still_there<T>(found: io::Result<T>, path: &Path) -> io::Result<Option<T>> {
    match found {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        found => found.map(Some).map_err(at(path)),
    }
}

fn stat(entry: Entry) -> Packet {
    Packet {
        stat: Some(entry),
        ..packet(PacketType::PacketStat)
    }
}

type Visit<'a> = dyn FnMut(Entry, Stat, &Path) -> io::Result<()> + 'a;

/// A directory whose names are being gone through.
struct Level {
    path: PathBuf,
    /// `None` below [`OPEN`] levels.
    dir: Option<OwnedFd>,
    names: std::vec::IntoIter<OsString>,
    /// What is to be said of it once something in it is wanted.
    unsaid: Option<(Entry, Stat)>,
}

/// Everything of a tree that is selected, directories before what lies in them, names in the order of the protocol.
fn walk(tree: &Tree, visit: &mut Visit<'_>) -> io::Result<()> {
    let open = |path: &Path| {
        let place = match path.as_os_str().is_empty() {
            true => Path::new("."),
            false => path,
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        open_beneath_no_links(tree.root.as_fd(), place, flags, Mode::empty())
    };
    let level = |path: PathBuf, depth: usize, unsaid| {
        let dir = open(&path)?;
        let names = list_sorted(dir.as_fd())?.into_iter();
        Ok::<_, io::Error>(Level {
            path,
            dir: (depth < OPEN).then_some(dir),
            names,
            unsaid,
        })
    };
    let deeper = |path: PathBuf, depth: usize, unsaid| {
        let opened = level(path.clone(), depth, unsaid);
        still_there(opened, &path)
    };
    let mut levels = vec![level(PathBuf::new(), 0, None)?];
    while let Some(top) = levels.last_mut() {
        let Some(name) = top.names.next() else {
            levels.pop();
            continue;
        };
        let path = top.path.join(&name);
        let shown = path.to_string_lossy().into_owned();
        let choice = tree.selection.judge(&shown);
        if !choice.wanted && !choice.below {
            continue;
        }
        let reopened = match &top.dir {
            Some(_) => None,
            None => still_there(open(&top.path), &top.path)?,
        };
        let Some(dir) = top.dir.as_ref().or(reopened.as_ref()) else {
            continue;
        };
        let Some(told) = still_there(entry_of(dir.as_fd(), &name, shown), &path)? else {
            continue;
        };
        let directory = FileType::from_raw_mode(told.1.st_mode) == FileType::Directory;
        if choice.wanted {
            for level in &mut levels {
                if let Some((entry, status)) = level.unsaid.take() {
                    visit(entry, status, &level.path)?;
                }
            }
            visit(told.0, told.1, &path)?;
            if directory {
                let depth = levels.len();
                levels.extend(deeper(path, depth, None)?);
            }
        } else if directory {
            let depth = levels.len();
            levels.extend(deeper(path, depth, Some(told))?);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is told of a directory, and what comes of asking for everything.
    fn told(tree: Tree) -> (Vec<Entry>, HashMap<u32, Vec<u8>>) {
        let (mut entries, mut data) = (Vec::new(), HashMap::<u32, Vec<u8>>::new());
        let (asked, asking) = mpsc::unbounded_channel();
        let mut asked = Some(asked);
        let mut send = |packets: Vec<Packet>| {
            for packet in packets {
                match (packet.r#type(), packet.stat) {
                    (PacketType::PacketStat, Some(entry)) => {
                        if let Some(asked) = &asked {
                            asked.send(u32::try_from(entries.len()).unwrap()).unwrap();
                        }
                        entries.push(entry);
                    }
                    (PacketType::PacketStat, None) => drop(asked.take()),
                    (PacketType::PacketData, _) => data.entry(packet.id).or_default().extend(packet.data),
                    _ => {}
                }
            }
            Ok(())
        };
        give(&[tree], &mut send, asking).unwrap();
        (entries, data)
    }

    fn context(root: &Path, include: &[&str], exclude: &[&str], paths: Option<&[&str]>) -> Tree {
        let owned = |list: &[&str]| list.iter().map(|&text| text.to_owned()).collect::<Vec<_>>();
        let opened = OwnedFd::from(File::open(root).unwrap());
        let paths = paths.map(owned);
        let selection =
            Selection::new(opened.as_fd(), &owned(include), &owned(exclude), paths.as_deref()).unwrap();
        Tree {
            root: opened,
            prefix: None,
            selection,
            context: true,
        }
    }

    fn names(tree: Tree) -> Vec<String> {
        told(tree).0.into_iter().map(|entry| entry.path).collect()
    }

    #[test]
    fn what_is_selected_is_told_with_the_directories_above_it() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        std::fs::create_dir_all(root.join("a/b")).unwrap();
        std::fs::create_dir_all(root.join("c/d")).unwrap();
        for file in ["a/b/x", "a/b/y", "a.txt", "c/d/z"] {
            std::fs::write(root.join(file), file).unwrap();
        }
        std::fs::hard_link(root.join("a/b/x"), root.join("c/same")).unwrap();
        std::os::unix::fs::symlink("../a/b", root.join("c/link")).unwrap();
        let all = [
            "a", "a/b", "a/b/x", "a/b/y", "a.txt", "c", "c/d", "c/d/z", "c/link", "c/same",
        ];
        assert_eq!(names(context(root, &[], &[], None)), all);
        assert_eq!(names(context(root, &["c/d"], &[], None)), ["c", "c/d", "c/d/z"]);
        assert_eq!(
            names(context(root, &[], &["a", "c/*", "!c/d"], None)),
            ["a.txt", "c", "c/d", "c/d/z"]
        );
        assert_eq!(
            names(context(root, &[], &["*", "!a/b/y"], None)),
            ["a", "a/b", "a/b/y"]
        );
        // A link that is named brings what it leads to.
        assert_eq!(
            names(context(root, &[], &[], Some(&["c/link/x"]))),
            ["a", "a/b", "a/b/x", "c", "c/link"]
        );
        assert_eq!(
            names(context(root, &[], &[], Some(&["**/*.txt", "c/**/z"]))),
            ["a.txt", "c", "c/d", "c/d/z"]
        );
        assert_eq!(
            names(context(root, &[], &[], Some(&["a/*/x", "nosuch"]))),
            ["a", "a/b", "a/b/x"]
        );
        assert_eq!(names(context(root, &[], &[], Some(&[]))), Vec::<String>::new());
        assert_eq!(names(context(root, &[], &[], Some(&["."]))), all);
        let (entries, data) = told(context(root, &[], &[], None));
        let last = entries.last().unwrap();
        assert_eq!((last.path.as_str(), last.linkname.as_str()), ("c/same", "a/b/x"));
        assert_eq!(entries.iter().map(|entry| entry.uid).max(), Some(0));
        assert_eq!(
            (data[&2].as_slice(), data.contains_key(&9)),
            (&b"a/b/x"[..], false)
        );
    }

    /// Gives a directory whose entry `sub` changes once it was told.
    fn given(change: &dyn Fn(&Path)) -> (io::Result<()>, Vec<String>) {
        let dir = tempfile::tempdir().unwrap();
        let sub = dir.path().join("above/sub");
        std::fs::create_dir_all(&sub).unwrap();
        for file in ["above/sub/x", "above/z"] {
            std::fs::write(dir.path().join(file), file).unwrap();
        }
        let tree = context(dir.path(), &[], &[], None);
        let (_, asking) = mpsc::unbounded_channel();
        let mut told = Vec::new();
        let mut send = |packets: Vec<Packet>| {
            for entry in packets.into_iter().filter_map(|packet| packet.stat) {
                if entry.path == "above/sub" {
                    std::fs::remove_dir_all(&sub).unwrap();
                    change(&sub);
                }
                told.push(entry.path);
            }
            Ok(())
        };
        let given = give_by(1, &[tree], &mut send, asking);
        (given, told)
    }

    #[test]
    fn a_directory_that_goes_is_left_out() {
        let (given, told) = given(&|_| {});
        given.unwrap();
        assert_eq!(told, ["above", "above/sub", "above/z"]);
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        // A link leads nowhere, and root could read everything else.
        let (given, _) = given(&|sub| std::os::unix::fs::symlink("/", sub).unwrap());
        let said = given.unwrap_err().to_string();
        assert!(said.starts_with("above/sub: "), "{said}");
    }

    #[test]
    fn nothing_waits_to_be_sent_while_a_request_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        for file in ["a", "b", "c"] {
            std::fs::write(dir.path().join(file), file).unwrap();
        }
        let tree = context(dir.path(), &[], &[], None);
        let (asked, asking) = mpsc::unbounded_channel();
        let mut asked = Some(asked);
        // Each file is asked for when all of the one before is here.
        let (mut batches, mut next) = (Vec::new(), 0_u32);
        let mut send = |packets: Vec<Packet>| {
            batches.push(packets.len());
            match next {
                3.. => drop(asked.take()),
                id => asked.as_ref().unwrap().send(id).unwrap(),
            }
            next += 1;
            Ok(())
        };
        give(&[tree], &mut send, asking).unwrap();
        // Three names and their end; three times a file and its end; the end of all.
        assert_eq!(batches, [4, 2, 2, 2, 1]);
    }

    #[test]
    fn a_file_is_given_as_long_as_it_was_said_to_be() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        std::fs::write(&path, "12345").unwrap();
        let tree = context(dir.path(), &[], &[], None);
        let (asked, asking) = mpsc::unbounded_channel();
        asked.send(0).unwrap();
        drop(asked);
        let mut data = Vec::new();
        let mut send = |packets: Vec<Packet>| {
            // Somebody goes on writing to it.
            if packets.iter().any(|packet| packet.stat.is_some()) {
                std::fs::write(&path, "12345678").unwrap();
            }
            data.extend(packets.into_iter().flat_map(|packet| packet.data));
            Ok(())
        };
        give_by(1, &[tree], &mut send, asking).unwrap();
        assert_eq!(data, b"12345");
        // Files that say no size are read to their end.
        let kernel = context(Path::new("/proc/self"), &["cmdline"], &[], None);
        let (entries, data) = told(kernel);
        assert_eq!(entries.first().unwrap().size, 0);
        assert!(!data[&0].is_empty());
    }

    #[test]
    fn deep_directories_are_walked_with_few_of_them_open() {
        let dir = tempfile::tempdir().unwrap();
        let deep: PathBuf = (0..200).map(|_| "d").collect();
        std::fs::create_dir_all(dir.path().join(&deep)).unwrap();
        std::fs::write(dir.path().join(&deep).join("file"), "x").unwrap();
        let (entries, data) = told(context(dir.path(), &[], &[], None));
        assert_eq!(entries.len(), 201);
        assert_eq!(data[&200], b"x");
    }
}
