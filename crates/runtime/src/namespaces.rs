//! Which namespaces a container gets: new ones, joined ones, and the caller's.
//!
//! Most are made by the clone itself. Some cannot be: a cgroup namespace is rooted at the cgroup of whoever
//! makes it, so the child makes it after it has entered its own; a time namespace with shifted clocks must get
//! them before anybody is inside. Joined ones are entered by the child, except a pid namespace (only children
//! are born into it) and, when the child gets a user namespace of its own, all of them (from inside it could not
//! join a namespace that belongs to another): these the caller enters around the clone.
//!
//! A mount namespace is entered last, by the container's process itself, for what is done before needs the files of the
//! host. One that is joined by its path becomes the container's: its root is switched. Where the configuration names
//! none, the process shares the caller's table and the container's mounts stay out of it (`MountTable::Shared`).
//!
//! A user namespace that is joined cannot be left again, so the caller clones a child that goes there, and that one
//! clones the container's process as the caller's child (`join_user`); what the process's other new namespaces
//! belong to is then the joined one.
//!
//! Sources: namespaces(7), pid_namespaces(7), cgroup_namespaces(7), time_namespaces(7), user_namespaces(7).

use std::collections::BTreeMap;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use spec::runtime::{IdMapping, Linux, Namespace, NamespaceType, TimeOffset};
use sys::mount::IdMap;
use sys::namespace::{self, IdRange, Kind, Kinds, outside};

use crate::error::{During, LaunchError, reason};

/// Whose mounts the container's process is among.
#[derive(Debug)]
pub(crate) enum MountTable {
    Own,
    /// Of a namespace that was handed over by its path.
    Joined(OwnedFd),
    /// The caller's.
    Shared(OwnedFd),
}

#[derive(Debug)]
pub(crate) struct Namespaces {
    new: Kinds,
    joined: Vec<(Kind, OwnedFd)>,
    mounts: MountTable,
    joined_user: Option<OwnedFd>,
    uid_map: Vec<IdRange>,
    gid_map: Vec<IdRange>,
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

/// The specification's mappings as the kernel's ranges.
pub fn id_ranges(mappings: &[IdMapping]) -> Vec<IdRange> {
    let range = |mapping: &IdMapping| IdRange {
        inside: mapping.container_id,
        outside: mapping.host_id,
        count: mapping.size,
    };
    mappings.iter().map(range).collect()
}

/// Whether the configuration's namespaces, maps and clocks make sense. Nothing of the host is asked.
pub(crate) fn check(linux: &Linux) -> Result<(), LaunchError> {
    check_list(linux)?;
    let of = |joined: bool| -> Kinds {
        let list = linux.namespaces.iter();
        let chosen = list.filter(|namespace| path(namespace).is_some() == joined);
        chosen.map(|namespace| kind(namespace.r#type)).collect()
    };
    fit(linux, of(false), of(true))
}

/// Where a namespace that is to be joined is; an empty path is none.
pub(crate) fn path(namespace: &Namespace) -> Option<&Path> {
    let path = namespace.path.as_deref();
    path.filter(|path| !path.as_os_str().is_empty())
}

fn check_list(linux: &Linux) -> Result<(), LaunchError> {
    for (index, namespace) in linux.namespaces.iter().enumerate() {
        let place = format!("linux.namespaces[{index}]");
        let mut earlier = linux.namespaces.iter().take(index);
        if earlier.any(|known| known.r#type == namespace.r#type) {
            let name = namespace.r#type.proc_name();
            return Err(LaunchError::Invalid(format!("{place}: {name} is listed twice")));
        }
        if let Some(path) = path(namespace).filter(|path| !path.is_absolute()) {
            let path = path.display();
            return Err(LaunchError::Invalid(format!(
                "{place}.path: {path} is not absolute"
            )));
        }
    }
    Ok(())
}

/// Whether maps and clocks belong to these namespaces, of which `joined` are somebody else's.
fn fit(linux: &Linux, new: Kinds, joined: Kinds) -> Result<(), LaunchError> {
    let invalid = |text: &str| Err(LaunchError::Invalid(text.to_owned()));
    let user = new.contains(Kind::User);
    let users = user || joined.contains(Kind::User);
    if users && !new.contains(Kind::Mount) && !joined.contains(Kind::Mount) {
        return invalid(
            "linux.namespaces: a user namespace needs a mount namespace, for it may mount nothing in the host's",
        );
    }
    if user && joined.contains(Kind::Mount) {
        return invalid(
            "linux.namespaces: a new user namespace has no rights in a mount namespace that is there already: join the \
             user namespace that owns it",
        );
    }
    for (place, map) in [
        ("linux.uidMappings", &linux.uid_mappings),
        ("linux.gidMappings", &linux.gid_mappings),
    ] {
        if user && map.is_empty() {
            return invalid(&format!("{place} is missing: a user namespace needs both maps"));
        }
        if !users && !map.is_empty() {
            return invalid(&format!("{place} needs a user namespace (linux.namespaces)"));
        }
        check_map(place, map)?;
        if user && outside(&id_ranges(map), 0).is_none() {
            return invalid(&format!(
                "{place}: the id 0 inside, by which all is set up, is not mapped"
            ));
        }
    }
    if !linux.time_offsets.is_empty() && !new.contains(Kind::Time) {
        return invalid("linux.timeOffsets need a time namespace");
    }
    for (clock, offset) in &linux.time_offsets {
        if clock != "monotonic" && clock != "boottime" {
            return invalid(&format!("linux.timeOffsets: there is no clock {clock:?}"));
        }
        if offset.nanosecs >= 1_000_000_000 {
            let nanosecs = offset.nanosecs;
            return invalid(&format!(
                "linux.timeOffsets.{clock}.nanosecs: {nanosecs} is a second or more"
            ));
        }
    }
    Ok(())
}

/// Whether the kernel would take a map (user_namespaces(7)).
pub(crate) fn check_map(place: &str, map: &[IdMapping]) -> Result<(), LaunchError> {
    const MOST: usize = 340;
    // As 64 bits, so that nothing wraps.
    let range = |first: u32, size: u32| u64::from(first)..u64::from(first) + u64::from(size);
    let overlap = |one: Range<u64>, other: Range<u64>| one.start < other.end && other.start < one.end;
    for (index, one) in map.iter().enumerate() {
        let (inside, host) = (range(one.container_id, one.size), range(one.host_id, one.size));
        let twice = map.iter().take(index).any(|known| {
            overlap(inside.clone(), range(known.container_id, known.size))
                || overlap(host.clone(), range(known.host_id, known.size))
        });
        let why = if one.size == 0 {
            "its size is 0"
        } else if inside.end.max(host.end) > u64::from(u32::MAX) {
            "it goes beyond the largest id"
        } else if twice {
            "it holds ids of an entry before it"
        } else if index >= MOST {
            "the kernel takes 340 of them"
        } else {
            continue;
        };
        return Err(LaunchError::Invalid(format!("{place}[{index}]: {why}")));
    }
    Ok(())
}

/// The order in which they are entered.
const ORDER: [Kind; 5] = [Kind::Ipc, Kind::Uts, Kind::Network, Kind::Cgroup, Kind::Time];

/// A path that leads to the caller's own namespace is the same as none.
fn mount_table(new: bool, joined: Option<OwnedFd>) -> Result<MountTable, LaunchError> {
    if new {
        return Ok(MountTable::Own);
    }
    let own = namespace::open(None, Kind::Mount).during("the caller's mount namespace")?;
    match joined {
        Some(joined) if !namespace::same(&joined, &own).during("compare mount namespaces")? => {
            Ok(MountTable::Joined(joined))
        }
        _ => Ok(MountTable::Shared(own)),
    }
}

impl Namespaces {
    pub fn new(
        linux: &Linux,
        netns: Option<BorrowedFd<'_>>,
        userns: Option<BorrowedFd<'_>>,
    ) -> Result<Namespaces, LaunchError> {
        check_list(linux)?;
        let mut new = Kinds::empty();
        let mut joined_user = None;
        let mut joined: Vec<(Kind, OwnedFd)> = Vec::new();
        let mut joined_mounts = None;
        for wanted in &linux.namespaces {
            let kind = kind(wanted.r#type);
            match (path(wanted), kind, netns) {
                (_, Kind::Network, Some(netns)) => {
                    let netns = netns.try_clone_to_owned().during("network namespace")?;
                    joined.push((kind, netns));
                }
                (_, Kind::User, _) if userns.is_some() => {
                    joined_user = userns
                        .map(|userns| userns.try_clone_to_owned())
                        .transpose()
                        .during("user namespace")?;
                }
                (None, ..) => new.insert(kind),
                (Some(path), ..) => {
                    let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
                        .during(&format!("namespace {}", path.display()))?;
                    match kind {
                        Kind::User => joined_user = Some(file),
                        Kind::Mount => joined_mounts = Some(file),
                        kind => joined.push((kind, file)),
                    }
                }
            }
        }
        if let (Some(netns), false) = (netns, joined.iter().any(|(kind, _)| *kind == Kind::Network)) {
            joined.push((
                Kind::Network,
                netns.try_clone_to_owned().during("network namespace")?,
            ));
        }
        let mounts = mount_table(new.contains(Kind::Mount), joined_mounts)?;
        let mut others: Kinds = joined.iter().map(|(kind, _)| *kind).collect();
        if joined_user.is_some() {
            others.insert(Kind::User);
        }
        if matches!(mounts, MountTable::Joined(_)) {
            others.insert(Kind::Mount);
        }
        fit(linux, new, others)?;
        let maps = !linux.uid_mappings.is_empty() || !linux.gid_mappings.is_empty();
        let (uid_map, gid_map) = match &joined_user {
            // Whoever names a namespace by its path need not know what is in it.
            Some(user) if !maps => {
                namespace::maps_in(user.as_fd()).during("read the maps of the user namespace")?
            }
            _ => (id_ranges(&linux.uid_mappings), id_ranges(&linux.gid_mappings)),
        };
        joined.sort_by_key(|(kind, _)| ORDER.iter().position(|known| known == kind));
        Ok(Namespaces {
            new,
            joined,
            mounts,
            joined_user,
            uid_map,
            gid_map,
            time_offsets: linux.time_offsets.clone(),
        })
    }

    /// The descriptors that `complete` and `join_user` need in the child.
    pub fn fds(&self) -> Vec<RawFd> {
        let joined = self.joined.iter().map(|(_, namespace)| namespace);
        let mounts = match &self.mounts {
            MountTable::Own => None,
            MountTable::Joined(namespace) | MountTable::Shared(namespace) => Some(namespace),
        };
        joined
            .chain(&self.joined_user)
            .chain(mounts)
            .map(AsRawFd::as_raw_fd)
            .collect()
    }

    pub fn mounts(&self) -> &MountTable {
        &self.mounts
    }

    /// Whether the container is in a user namespace that is not the caller's.
    pub fn has_user(&self) -> bool {
        self.new.contains(Kind::User) || self.joined_user.is_some()
    }

    pub fn joins_user(&self) -> bool {
        self.joined_user.is_some()
    }

    /// The maps of users and groups, when the container is in a user namespace of its own.
    pub fn maps(&self) -> Option<(&[IdRange], &[IdRange])> {
        self.has_user().then_some((&self.uid_map, &self.gid_map))
    }

    /// What a user and a group of the container are outside; the ids themselves without a user namespace.
    pub fn outside(&self, uid: u32, gid: u32) -> Option<(u32, u32)> {
        match self.has_user() {
            true => Some((outside(&self.uid_map, uid)?, outside(&self.gid_map, gid)?)),
            false => Some((uid, gid)),
        }
    }

    /// The map of the joined user namespace, for mounts.
    pub fn id_map(&self) -> Option<IdMap<'_>> {
        Some(IdMap {
            namespace: self.joined_user.as_ref()?.as_fd(),
            root: self.outside(0, 0)?,
        })
    }

    /// Whether the network namespace is somebody else's: it neither is new nor belongs to the joined user namespace.
    pub fn foreign_network(&self) -> bool {
        let joined = self.joined.iter().find(|(kind, _)| *kind == Kind::Network);
        match (&self.joined_user, joined) {
            (Some(user), Some((_, network))) => !namespace::owner(network.as_fd())
                .and_then(|owner| namespace::same(owner, user))
                .unwrap_or(false),
            _ => !self.new.contains(Kind::Network),
        }
    }

    /// The network namespace of the container whose process is `pid`.
    pub fn network_of(&self, pid: i32) -> Result<OwnedFd, LaunchError> {
        match self.joined.iter().find(|(kind, _)| *kind == Kind::Network) {
            Some((_, network)) => network.try_clone(),
            None => namespace::open(Some(pid), Kind::Network),
        }
        .during("the container's network namespace")
    }

    /// Whether the container has a namespace of this kind that is not the caller's.
    pub fn own(&self, kind: Kind) -> bool {
        self.new.contains(kind) || self.joined.iter().any(|(joined, _)| *joined == kind)
    }

    pub fn is_new(&self, kind: Kind) -> bool {
        self.new.contains(kind)
    }

    /// The ones the clone makes. A table that is shared is only looked at from one's own until the root is switched.
    pub fn at_clone(&self) -> Kinds {
        let mut kinds = self.new;
        if matches!(self.mounts, MountTable::Shared(_)) {
            kinds.insert(Kind::Mount);
        }
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
        if self.joins_user() {
            return Ok(entered);
        }
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
        if !self.new.contains(Kind::User) {
            return Ok(());
        }
        for (file, map) in [("uid_map", &self.uid_map), ("gid_map", &self.gid_map)] {
            let lines: String = map
                .iter()
                .map(|range| format!("{} {} {}\n", range.inside, range.outside, range.count))
                .collect();
            let path = format!("/proc/{pid}/{file}");
            // The kernel takes the whole map in one write only.
            std::fs::write(&path, lines).during(&format!("write {file}"))?;
        }
        Ok(())
    }

    /// In the child that clones the container's process: everything that is joined, the user namespace last, since
    /// from inside it the others could not be.
    pub fn join_user(&self) -> Result<(), LaunchError> {
        for (kind, namespace) in &self.joined {
            namespace::join(namespace.as_fd(), *kind)
                .during(&format!("join the {} namespace", kind.proc_name()))?;
        }
        match &self.joined_user {
            Some(user) => namespace::join(user.as_fd(), Kind::User).during("join the user namespace"),
            None => Ok(()),
        }
    }

    /// In the container's process, when it needs nothing of the host's files any more by path.
    pub fn enter_mounts(&self) -> Result<(), LaunchError> {
        match &self.mounts {
            MountTable::Joined(namespace) => {
                namespace::join(namespace.as_fd(), Kind::Mount).during("join the mnt namespace")
            }
            MountTable::Own | MountTable::Shared(_) => Ok(()),
        }
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
            lines.push_str(&format!("{clock} {} {}\n", offset.secs, offset.nanosecs));
        }
        std::fs::write("/proc/self/timens_offsets", lines)
            .during("set linux.timeOffsets (a clock cannot be before its beginning)")?;
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
        let namespaces = Namespaces::new(&linux(&kinds), None, None).unwrap();
        assert!(namespaces.at_clone().contains(Kind::Time));
        assert!(!namespaces.at_clone().contains(Kind::Cgroup));
        assert!(namespaces.own(Kind::Cgroup));
        assert!(!namespaces.own(Kind::Pid));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        use NamespaceType::{Mount, Pid, User};
        let text = |linux: &Linux| Namespaces::new(linux, None, None).unwrap_err().to_string();
        assert!(text(&linux(&[Mount, Mount])).contains("twice"));
        assert!(text(&linux(&[Mount, Pid, Pid])).contains("twice"));
        assert!(text(&linux(&[Mount, User])).contains("uidMappings"));
        let map = IdMapping {
            container_id: 0,
            host_id: 1000,
            size: 1,
        };
        let mut alone = linux(&[User]);
        (alone.uid_mappings, alone.gid_mappings) = (vec![map], vec![map]);
        assert!(text(&alone).contains("needs a mount namespace"));
        let mut maps = linux(&[Mount]);
        maps.uid_mappings.push(map);
        assert!(text(&maps).contains("user namespace"));
    }

    #[test]
    fn maps_that_the_kernel_would_refuse_are_told_with_their_place() {
        let told = |entries: &[(u32, u32, u32)]| {
            let entry = |(container_id, host_id, size): &(u32, u32, u32)| IdMapping {
                container_id: *container_id,
                host_id: *host_id,
                size: *size,
            };
            let map: Vec<IdMapping> = entries.iter().map(entry).collect();
            check_map("linux.uidMappings", &map).map_err(|error| error.to_string())
        };
        assert_eq!(told(&[(0, 1000, 10), (10, 5000, 1), (11, 0, 1000)]), Ok(()));
        assert_eq!(told(&[(0, 0, u32::MAX)]), Ok(()));
        for (map, place) in [
            (&[(0, 1000, 0)][..], "uidMappings[0]: its size"),
            (&[(1, 0, u32::MAX)], "uidMappings[0]: it goes beyond"),
            (&[(0, 1000, 10), (9, 5000, 1)], "uidMappings[1]: it holds"),
            (&[(0, 1000, 10), (10, 1009, 1)], "uidMappings[1]: it holds"),
        ] {
            let text = told(map).unwrap_err();
            assert!(text.contains(place), "{map:?}: {text}");
        }
        let many: Vec<(u32, u32, u32)> = (0..341).map(|id| (id, id, 1)).collect();
        assert!(told(&many).unwrap_err().contains("[340]: the kernel takes"));
    }
}
