//! Which namespaces a container gets: new ones, joined ones, and the caller's.
//!
//! Most are made by the clone itself. Some cannot be: a cgroup namespace is rooted at the cgroup of whoever
//! makes it, so the child makes it after it has entered its own; a time namespace with shifted clocks must get
//! them before anybody is inside. Joined ones are entered by the child, except a pid namespace (only children
//! are born into it) and, when the child gets a user namespace of its own, all of them (from inside it could not
//! join a namespace that belongs to another): these the caller enters around the clone.
//!
//! Sources: namespaces(7), pid_namespaces(7), cgroup_namespaces(7), time_namespaces(7), user_namespaces(7).

use std::collections::BTreeMap;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use rustix::fs::{Mode, OFlags};
use spec::runtime::{IdMapping, Linux, NamespaceType, TimeOffset};
use sys::namespace::{self, Kind, Kinds};

use crate::error::{During, LaunchError, reason};

#[derive(Debug)]
pub(crate) struct Namespaces {
    new: Kinds,
    joined: Vec<(Kind, OwnedFd)>,
    uid_map: Vec<IdMapping>,
    gid_map: Vec<IdMapping>,
    time_offsets: BTreeMap<String, TimeOffset>,
}

pub(crate) fn kind(of: NamespaceType) -> Kind {
    match of {
        NamespaceType::Pid => Kind::Pid,
        NamespaceType::Network => Kind::Network,
        NamespaceType::Mount => Kind::Mount,
        NamespaceType::Ipc => Kind::Ipc,
        NamespaceType::Uts => Kind::Uts,
        NamespaceType::User => Kind::User,
        NamespaceType::Cgroup => Kind::Cgroup,
        NamespaceType::Time => Kind::Time,
    }
}

/// The order in which they are entered.
const ORDER: [Kind; 5] = [Kind::Ipc, Kind::Uts, Kind::Network, Kind::Cgroup, Kind::Time];

impl Namespaces {
    pub fn new(linux: &Linux, netns: Option<BorrowedFd<'_>>) -> Result<Namespaces, LaunchError> {
        let mut new = Kinds::empty();
        let mut joined: Vec<(Kind, OwnedFd)> = Vec::new();
        for wanted in &linux.namespaces {
            let kind = kind(wanted.r#type);
            if new.contains(kind) || joined.iter().any(|(known, _)| *known == kind) {
                return Err(LaunchError::Invalid(format!(
                    "namespace {} is listed twice",
                    kind.proc_name()
                )));
            }
            match (&wanted.path, kind, netns) {
                (_, Kind::Network, Some(netns)) => {
                    let netns = netns.try_clone_to_owned().during("network namespace")?;
                    joined.push((kind, netns));
                }
                (None, ..) => new.insert(kind),
                (Some(_), Kind::User | Kind::Mount, _) => {
                    return Err(LaunchError::Unsupported(format!(
                        "joining a {} namespace by its path",
                        kind.proc_name()
                    )));
                }
                (Some(path), ..) => {
                    let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
                        .during(&format!("namespace {}", path.display()))?;
                    joined.push((kind, file));
                }
            }
        }
        if let (Some(netns), false) = (netns, joined.iter().any(|(kind, _)| *kind == Kind::Network)) {
            joined.push((
                Kind::Network,
                netns.try_clone_to_owned().during("network namespace")?,
            ));
        }
        if !new.contains(Kind::Mount) {
            return Err(LaunchError::Invalid(
                "a mount namespace is needed (linux.namespaces)".to_owned(),
            ));
        }
        let user = new.contains(Kind::User);
        if user && (linux.uid_mappings.is_empty() || linux.gid_mappings.is_empty()) {
            return Err(LaunchError::Invalid(
                "a user namespace needs uidMappings and gidMappings".to_owned(),
            ));
        }
        let maps = !linux.uid_mappings.is_empty() || !linux.gid_mappings.is_empty();
        if maps && !user {
            return Err(LaunchError::Invalid(
                "uidMappings and gidMappings need a user namespace (linux.namespaces)".to_owned(),
            ));
        }
        let time = new.contains(Kind::Time);
        if !linux.time_offsets.is_empty() && !time {
            return Err(LaunchError::Invalid(
                "timeOffsets need a time namespace".to_owned(),
            ));
        }
        joined.sort_by_key(|(kind, _)| ORDER.iter().position(|known| known == kind));
        Ok(Namespaces {
            new,
            joined,
            uid_map: linux.uid_mappings.clone(),
            gid_map: linux.gid_mappings.clone(),
            time_offsets: linux.time_offsets.clone(),
        })
    }

    /// The descriptors that `complete` needs in the child.
    pub fn fds(&self) -> Vec<RawFd> {
        self.joined
            .iter()
            .map(|(_, namespace)| namespace.as_raw_fd())
            .collect()
    }

    pub fn has_user(&self) -> bool {
        self.new.contains(Kind::User)
    }

    /// Whether the container has a namespace of this kind that is not the caller's.
    pub fn own(&self, kind: Kind) -> bool {
        self.new.contains(kind) || self.joined.iter().any(|(joined, _)| *joined == kind)
    }

    pub fn is_new(&self, kind: Kind) -> bool {
        self.new.contains(kind)
    }

    /// The ones the clone makes.
    pub fn at_clone(&self) -> Kinds {
        let mut kinds = self.new;
        kinds.remove(Kind::Cgroup);
        if !self.time_offsets.is_empty() {
            kinds.remove(Kind::Time);
        }
        kinds
    }

    fn by_caller(&self, kind: Kind) -> bool {
        kind == Kind::Pid || self.has_user()
    }

    /// Moves the calling thread where the clone has to happen. The value brings it back.
    pub fn enter_for_clone(&self) -> Result<Entered, LaunchError> {
        let mut entered = Entered { back: Vec::new() };
        for (kind, namespace) in self.joined.iter().filter(|(kind, _)| self.by_caller(*kind)) {
            let own = namespace::open(None, *kind).during("the caller's namespace")?;
            let result = namespace::join(namespace.as_fd(), *kind);
            if let Err(error) = result {
                entered.leave()?;
                return Err(error).during(&format!("join the {} namespace", kind.proc_name()));
            }
            entered.back.push((*kind, own));
        }
        Ok(entered)
    }

    /// Writes the id maps of the child's user namespace, from outside.
    pub fn map_ids(&self, pid: i32) -> Result<(), LaunchError> {
        if !self.has_user() {
            return Ok(());
        }
        for (file, map) in [("uid_map", &self.uid_map), ("gid_map", &self.gid_map)] {
            let lines: String = map
                .iter()
                .map(|range| format!("{} {} {}\n", range.container_id, range.host_id, range.size))
                .collect();
            let path = format!("/proc/{pid}/{file}");
            // The kernel takes the whole map in one write only.
            std::fs::write(&path, lines).during(&format!("write {file}"))?;
        }
        Ok(())
    }

    /// In the child, after it has entered its cgroup: everything that the clone did not do.
    pub fn complete(&mut self) -> Result<(), LaunchError> {
        let joined = std::mem::take(&mut self.joined);
        for (kind, namespace) in &joined {
            if !self.by_caller(*kind) {
                namespace::join(namespace.as_fd(), *kind)
                    .during(&format!("join the {} namespace", kind.proc_name()))?;
            }
        }
        self.joined = joined;
        if self.new.contains(Kind::Cgroup) {
            namespace::unshare([Kind::Cgroup].into_iter().collect()).during("make a cgroup namespace")?;
        }
        if self.new.contains(Kind::Time) && !self.time_offsets.is_empty() {
            self.shift_clocks()?;
        }
        Ok(())
    }

    fn shift_clocks(&self) -> Result<(), LaunchError> {
        namespace::unshare([Kind::Time].into_iter().collect()).during("make a time namespace")?;
        let mut lines = String::new();
        for (clock, offset) in &self.time_offsets {
            if clock != "monotonic" && clock != "boottime" {
                return Err(LaunchError::Invalid(format!(
                    "timeOffsets: there is no clock {clock:?}"
                )));
            }
            lines.push_str(&format!("{clock} {} {}\n", offset.secs, offset.nanosecs));
        }
        std::fs::write("/proc/self/timens_offsets", lines).during("set clock offsets")?;
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let namespace = rustix::fs::open("/proc/self/ns/time_for_children", flags, Mode::empty())
            .during("time namespace")?;
        namespace::join(namespace.as_fd(), Kind::Time).during("join the time namespace")
    }
}

/// The namespaces the calling thread came from.
#[derive(Debug)]
pub(crate) struct Entered {
    back: Vec<(Kind, OwnedFd)>,
}

impl Entered {
    /// Brings the calling thread back.
    pub fn leave(self) -> Result<(), LaunchError> {
        let mut failure = None;
        for (kind, namespace) in self.back.into_iter().rev() {
            if let Err(error) = namespace::join(namespace.as_fd(), kind) {
                failure = Some(LaunchError::Setup {
                    step: format!("return to the caller's {} namespace", kind.proc_name()),
                    reason: reason(&error),
                    errno: error.raw_os_error(),
                });
            }
        }
        failure.map_or(Ok(()), Err)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use spec::runtime::Namespace;

    fn linux(kinds: &[NamespaceType]) -> Linux {
        Linux {
            namespaces: kinds
                .iter()
                .map(|kind| Namespace {
                    r#type: *kind,
                    path: None,
                })
                .collect(),
            ..Linux::default()
        }
    }

    #[test]
    fn a_cgroup_namespace_is_not_made_by_the_clone() {
        let kinds = [NamespaceType::Mount, NamespaceType::Cgroup, NamespaceType::Time];
        let namespaces = Namespaces::new(&linux(&kinds), None).unwrap();
        assert!(namespaces.at_clone().contains(Kind::Time));
        assert!(!namespaces.at_clone().contains(Kind::Cgroup));
        assert!(namespaces.own(Kind::Cgroup));
        assert!(!namespaces.own(Kind::Pid));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        use NamespaceType::{Mount, Pid, User};
        let text = |linux: &Linux| Namespaces::new(linux, None).unwrap_err().to_string();
        assert!(text(&linux(&[Pid])).contains("mount namespace"));
        assert!(text(&linux(&[Mount, Pid, Pid])).contains("twice"));
        assert!(text(&linux(&[Mount, User])).contains("uidMappings"));
        let mut maps = linux(&[Mount]);
        maps.uid_mappings.push(IdMapping {
            container_id: 0,
            host_id: 1000,
            size: 1,
        });
        assert!(text(&maps).contains("user namespace"));
    }
}
