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

/// The group until the container's process is in it. Dropped without [`Group::keep`] it goes.
#[derive(Debug)]
pub(super) enum Group {
    Own(Own),
    Scope(Scope),
}

/// A group that this program made.
#[derive(Debug)]
pub(super) struct Own {
    cgroup: Cgroup,
    kept: bool,
}

impl Group {
    pub fn cgroup(&self) -> &Cgroup {
        match self {
            Group::Own(own) => &own.cgroup,
            Group::Scope(scope) => scope.cgroup(),
        }
    }

    /// The container's process is there, and is all that the group needs from now on.
    pub fn keep(self) {
        match self {
            Group::Own(mut own) => own.kept = true,
            Group::Scope(scope) => scope.keep(),
        }
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        if !self.kept {
            // What has failed before is what is told.
            let _ = self.cgroup.remove();
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
            Place::Directory(parent, name) => Group::Own(Own {
                cgroup: Cgroup::create(parent, name)?,
                kept: false,
            }),
            Place::Unit(unit) => {
                let description = format!("Container {id}");
                Group::Scope(Systemd::connect()?.start(unit, &description, resources)?)
            }
        })
    }
}
