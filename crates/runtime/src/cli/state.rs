//! What is kept about each container: `<root>/<id>/state.json`, and while it waits for its start, a socket.
//!
//!     <root>/<id>/state.json   identity, process, cgroup, configuration; written whole (tmp + rename)
//!     <root>/<id>/start.sock   the created process listens here; removed when it has been started
//!
//! A process is known by its number and its start time together: numbers are used again. The state never says
//! "running": that is looked up each time. The configuration is kept because the bundle may change or go away.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use cgroup::{Cgroup, CgroupError, Driver, Place, Unit};
use rustix::fs::{Mode, OFlags};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use serde::{Deserialize, Serialize};
use spec::runtime::{Spec, State, Status};

use super::error::CliError;
use crate::identity::Identity;

/// All containers of one root.
#[derive(Debug)]
pub(super) struct Containers {
    root: PathBuf,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Record {
    pub id: String,
    pub pid: i32,
    /// Clock ticks after boot.
    pub start_time: u64,
    pub bundle: PathBuf,
    pub rootfs: PathBuf,
    pub created: String,
    pub cgroup_parent: String,
    /// Empty where there is no group (`--rootless`).
    pub cgroup_name: String,
    /// The group is the scope of this name, which systemd made.
    #[serde(default)]
    pub systemd: bool,
    /// Directories of resctrl that were made for it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub classes: Vec<PathBuf>,
    /// Directories of resctrl that its processes are in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub classed: Vec<PathBuf>,
    /// Its processes have the keys of whoever starts them.
    #[serde(default)]
    pub callers_keyring: bool,
    pub spec: Spec,
}

impl Containers {
    pub fn new(root: PathBuf) -> Containers {
        Containers { root }
    }

    pub fn directory(&self, id: &str) -> PathBuf {
        self.root.join(id)
    }

    pub fn start_socket(&self, id: &str) -> PathBuf {
        self.directory(id).join("start.sock")
    }

    /// Takes the id: makes its directory, which nobody else may have.
    pub fn reserve(&self, id: &str) -> Result<PathBuf, CliError> {
        check_id(id)?;
        let directory = self.directory(id);
        let mut builder = fs::DirBuilder::new();
        builder.mode(0o711).recursive(true);
        builder
            .create(&self.root)
            .map_err(|error| CliError::io(&self.root.display().to_string(), error))?;
        let mut builder = fs::DirBuilder::new();
        match builder.mode(0o700).create(&directory) {
            Ok(()) => Ok(directory),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                Err(CliError::Exists(id.to_owned()))
            }
            Err(error) => Err(CliError::io(&directory.display().to_string(), error)),
        }
    }

    /// The socket of the start. It keeps message borders, and its path may be longer than a socket's address.
    pub fn listen(&self, id: &str) -> Result<OwnedFd, CliError> {
        self.start_address(id)
            .and_then(|(directory, address)| {
                let socket = seqpacket()?;
                rustix::net::bind(&socket, &address)?;
                rustix::net::listen(&socket, 1)?;
                drop(directory);
                Ok(socket)
            })
            .map_err(|error| CliError::io(&self.start_socket(id).display().to_string(), error))
    }

    pub fn connect(&self, id: &str) -> Result<OwnedFd, CliError> {
        self.start_address(id)
            .and_then(|(directory, address)| {
                let socket = seqpacket()?;
                rustix::net::connect(&socket, &address)?;
                drop(directory);
                Ok(socket)
            })
            .map_err(|error| CliError::io(&self.start_socket(id).display().to_string(), error))
    }

    /// Short by way of a descriptor of the directory, which must live as long as the address is used.
    fn start_address(&self, id: &str) -> io::Result<(OwnedFd, SocketAddrUnix)> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(self.directory(id), flags, Mode::empty())?;
        let path = format!("/proc/self/fd/{}/start.sock", directory.as_raw_fd());
        Ok((directory, SocketAddrUnix::new(path)?))
    }

    pub fn save(&self, record: &Record) -> Result<(), CliError> {
        let directory = self.directory(&record.id);
        let path = directory.join("state.json");
        let temporary = directory.join("state.json.new");
        let bytes = serde_json::to_vec(record).map_err(|error| CliError::Config {
            path: path.clone(),
            reason: error.to_string(),
        })?;
        fs::write(&temporary, bytes)
            .and_then(|()| fs::rename(&temporary, &path))
            .map_err(|error| CliError::io(&path.display().to_string(), error))
    }

    pub fn load(&self, id: &str) -> Result<Record, CliError> {
        check_id(id)?;
        let path = self.directory(id).join("state.json");
        match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| CliError::Config {
                path,
                reason: error.to_string(),
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(CliError::NoContainer(id.to_owned()))
            }
            Err(error) => Err(CliError::io(&path.display().to_string(), error)),
        }
    }

    /// Every readable record, by id.
    pub fn all(&self) -> Result<Vec<Record>, CliError> {
        let entries = match fs::read_dir(&self.root) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(CliError::io(&self.root.display().to_string(), error)),
        };
        let mut records: Vec<Record> = entries
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            // One that is being created or deleted at this moment has no record.
            .filter_map(|id| self.load(&id).ok())
            .collect();
        records.sort_by(|one, other| one.id.cmp(&other.id));
        Ok(records)
    }

    pub fn remove(&self, id: &str) -> Result<(), CliError> {
        let directory = self.directory(id);
        match fs::remove_dir_all(&directory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(CliError::io(&directory.display().to_string(), error))
            }
            _ => Ok(()),
        }
    }

    /// Whose the container is: the name of the user who owns its directory, or his number.
    pub fn owner(&self, id: &str) -> String {
        let Ok(directory) = fs::metadata(self.directory(id)) else {
            return String::new();
        };
        let uid = directory.uid().to_string();
        let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
        let named = users.lines().find_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            (fields.nth(1)? == uid).then(|| name.to_owned())
        });
        named.unwrap_or_else(|| format!("#{uid}"))
    }

    pub fn status(&self, record: &Record) -> Status {
        if record.process().is_none() {
            Status::Stopped
        } else if self.start_socket(&record.id).exists() {
            Status::Created
        } else if record
            .cgroup()
            .is_ok_and(|cgroup| cgroup.is_frozen().unwrap_or(false))
        {
            Status::Paused
        } else {
            Status::Running
        }
    }

    pub fn state(&self, record: &Record) -> State {
        let status = self.status(record);
        State {
            oci_version: spec::runtime::VERSION.to_owned(),
            id: record.id.clone(),
            status,
            pid: Some(if status == Status::Stopped { 0 } else { record.pid }),
            bundle: record.bundle.clone(),
            annotations: record.spec.annotations.clone(),
        }
    }
}

impl Record {
    /// The first process, if it still is that one and not a zombie.
    pub fn process(&self) -> Option<OwnedFd> {
        let handle = sys::process::open(self.pid).ok()?;
        // Asked after the handle is held: the number cannot change its meaning any more.
        let (state, start_time) = stat(self.pid)?;
        (start_time == self.start_time && state != 'Z' && state != 'X').then_some(handle)
    }

    pub fn identity(&self) -> Identity {
        Identity::new(&self.spec, &self.id, &self.bundle)
    }

    pub fn cgroup(&self) -> Result<Cgroup, CgroupError> {
        self.optional_cgroup()?.ok_or_else(|| {
            let why = format!(
                "container {} has no control group: none could be made (--rootless)",
                self.id
            );
            CgroupError::Invalid(why)
        })
    }

    pub fn optional_cgroup(&self) -> Result<Option<Cgroup>, CgroupError> {
        match self.cgroup_name.is_empty() {
            true => Ok(None),
            false => self.place().open().map(Some),
        }
    }

    /// The group and who made it.
    pub fn place(&self) -> Place {
        let driver = if self.systemd {
            Driver::Systemd
        } else {
            Driver::Cgroupfs
        };
        Place::new(driver, &self.cgroup_parent, &self.cgroup_name)
    }
}

fn seqpacket() -> io::Result<OwnedFd> {
    let (family, kind) = (AddressFamily::UNIX, SocketType::SEQPACKET);
    Ok(rustix::net::socket_with(
        family,
        kind,
        SocketFlags::CLOEXEC,
        None,
    )?)
}

/// State letter and start time of a process.
pub(super) fn stat(pid: i32) -> Option<(char, u64)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything.
    let rest = text.get(text.rfind(')')? + 1..)?;
    let mut fields = rest.split_whitespace();
    let state = fields.next()?.chars().next()?;
    let start_time = fields.nth(18)?.parse().ok()?;
    Some((state, start_time))
}

pub(super) fn check_id(id: &str) -> Result<(), CliError> {
    let fits = !id.is_empty()
        && id.len() <= 1024
        && id != "."
        && id != ".."
        && id
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "_+-.".contains(c));
    if fits {
        Ok(())
    } else {
        Err(CliError::Id(id.to_owned()))
    }
}

/// The group of a container, from `linux.cgroupsPath`, which each driver reads in its own way.
pub(super) fn place(path: Option<&str>, id: &str, systemd: bool) -> Result<Place, CliError> {
    if systemd {
        return Ok(Place::from(&Unit::from_path(path, id)?));
    }
    let (parent, name) = cgroup_names(path, id);
    Ok(Place::new(Driver::Cgroupfs, &parent, &name))
}

/// Parent and name from `linux.cgroupsPath`; a container without one gets its own below the runtime's.
fn cgroup_names(path: Option<&str>, id: &str) -> (String, String) {
    match path
        .map(|path| path.trim_matches('/'))
        .filter(|path| !path.is_empty())
    {
        None => ("/berth-runtime".to_owned(), id.to_owned()),
        Some(path) => match path.rsplit_once('/') {
            Some((parent, name)) => (format!("/{parent}"), name.to_owned()),
            None => ("/".to_owned(), path.to_owned()),
        },
    }
}

/// A path without relative parts, for a record that outlives the working directory.
pub(super) fn absolute(path: &Path) -> Result<PathBuf, CliError> {
    fs::canonicalize(path).map_err(|error| CliError::io(&path.display().to_string(), error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_cannot_leave_the_root() {
        for bad in ["", ".", "..", "a/b", "a b", "é"] {
            assert!(check_id(bad).is_err(), "{bad:?}");
        }
        assert!(check_id("web-1_a.b+c").is_ok());
    }

    #[test]
    fn groups_without_systemd() {
        assert_eq!(cgroup_names(None, "x"), ("/berth-runtime".into(), "x".into()));
        assert_eq!(cgroup_names(Some("/a/b/c"), "x"), ("/a/b".into(), "c".into()));
        assert_eq!(cgroup_names(Some("c"), "x"), ("/".into(), "c".into()));
    }

    #[test]
    fn own_start_time() {
        let (state, time) = stat(std::process::id() as i32).unwrap();
        assert!("RSD".contains(state) && time > 0);
    }
}
