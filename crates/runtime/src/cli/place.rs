//! Where a container's control group is, and who makes it: this program, or systemd.

use cgroup::{Cgroup, Scope, Systemd, Unit};
use spec::runtime::Resources;

use super::error::CliError;
use super::state;

/// From `linux.cgroupsPath`, which each driver reads in its own way.
#[derive(Debug)]
pub(super) enum Place {
    /// Parent and name.
    Directory(String, String),
    Unit(Unit),
}

/// The group until the container's process is in it.
#[derive(Debug)]
pub(super) enum Group {
    Own(Cgroup),
    Scope(Scope),
}

impl Group {
    pub fn cgroup(&self) -> &Cgroup {
        match self {
            Group::Own(cgroup) => cgroup,
            Group::Scope(scope) => scope.cgroup(),
        }
    }

    /// The container's process is there, and is all that the group needs from now on.
    pub fn keep(self) {
        if let Group::Scope(scope) = self {
            scope.keep();
        }
    }
}

impl Place {
    pub fn new(path: Option<&str>, id: &str, systemd: bool) -> Result<Place, CliError> {
        if systemd {
            return Ok(Place::Unit(Unit::from_path(path, id)?));
        }
        let (parent, name) = state::cgroup_names(path, id);
        Ok(Place::Directory(parent, name))
    }

    pub fn parent(&self) -> &str {
        match self {
            Place::Directory(parent, _) => parent,
            Place::Unit(unit) => unit.parent(),
        }
    }

    pub fn name(&self) -> &str {
        match self {
            Place::Directory(_, name) => name,
            Place::Unit(unit) => unit.name(),
        }
    }

    /// Makes the group. The limits are for systemd; the caller applies them to the group in any case.
    pub fn make(&self, id: &str, resources: &Resources) -> Result<Group, CliError> {
        Ok(match self {
            Place::Directory(parent, name) => Group::Own(Cgroup::create(parent, name)?),
            Place::Unit(unit) => {
                let description = format!("Container {id}");
                Group::Scope(Systemd::connect()?.start(unit, &description, resources)?)
            }
        })
    }

    /// Removes what a failed creation has left. A scope goes by itself. The first failure is the one to tell.
    pub fn clear(&self) {
        if let Place::Directory(parent, name) = self
            && let Ok(cgroup) = Cgroup::open(parent, name)
        {
            let _ = cgroup.remove();
        }
    }
}
