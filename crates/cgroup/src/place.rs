//! Where a container's group is, and who makes it: this program, or systemd.

use std::io::ErrorKind;

use serde::{Deserialize, Serialize};
use spec::runtime::Resources;

use crate::error::{CgroupError, Result};
use crate::group::Cgroup;
use crate::limit::lift::Lift;
use crate::systemd::{Scope, Systemd, Unit};

/// Who makes the groups of containers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Driver {
    /// Directories, made by this program.
    #[default]
    Cgroupfs,
    /// Transient scopes.
    Systemd,
}

impl Driver {
    pub const ALL: [Driver; 2] = [Driver::Cgroupfs, Driver::Systemd];

    /// The field's name for it.
    pub fn name(self) -> &'static str {
        match self {
            Driver::Cgroupfs => "cgroupfs",
            Driver::Systemd => "systemd",
        }
    }
}

/// A group that is there or is to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    driver: Driver,
    /// A path from the trees' roots.
    parent: String,
    name: String,
}

impl From<&Unit> for Place {
    fn from(unit: &Unit) -> Place {
        Place::new(Driver::Systemd, unit.parent(), unit.name())
    }
}

impl Place {
    /// With the systemd driver the parent is a slice's directory and the name a scope's.
    pub fn new(driver: Driver, parent: &str, name: &str) -> Place {
        Place {
            driver,
            parent: parent.to_owned(),
            name: name.to_owned(),
        }
    }

    pub fn driver(&self) -> Driver {
        self.driver
    }

    pub fn parent(&self) -> &str {
        &self.parent
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn open(&self) -> Result<Cgroup> {
        Cgroup::open(&self.parent, &self.name)
    }

    /// Makes the group. The limits are for systemd; the caller applies them to the group in any case.
    pub fn make(&self, description: &str, resources: &Resources) -> Result<Group> {
        Ok(Group(match self.driver {
            Driver::Cgroupfs => Making::Own {
                cgroup: Cgroup::create(&self.parent, &self.name)?,
                kept: false,
            },
            Driver::Systemd => {
                let unit = Unit::recorded(&self.parent, &self.name);
                Making::Scope(Systemd::connect()?.start(&unit, description, resources)?)
            }
        }))
    }

    /// Gives the group these limits, which are all that it has.
    pub fn set(&self, resources: &Resources) -> Result<()> {
        if self.driver == Driver::Systemd {
            // systemd writes all that it knows of a unit again, and rounds; so all is said, and written once more.
            Systemd::connect()?.set(&self.name, resources)?;
        }
        self.open()?.apply(resources)
    }

    /// Takes limits back from the group that were set where nothing had been said of them before: all that can be, and the
    /// first that cannot is told.
    pub fn lift(&self, limits: &[Lift]) -> Result<()> {
        if limits.is_empty() {
            return Ok(());
        }
        let told = match self.driver {
            Driver::Systemd => Systemd::connect().and_then(|mut systemd| systemd.lift(&self.name, limits)),
            Driver::Cgroupfs => Ok(()),
        };
        let cgroup = self.open()?;
        limits
            .iter()
            .fold(told, |done, limit| done.and(cgroup.lift(*limit)))
    }

    /// Ends what is left in the group, and the group. One that is not there is a success.
    pub fn remove(&self) -> Result<()> {
        if let Some(cgroup) = self.find()? {
            cgroup.kill_all()?;
            // One that is frozen does not end where there is only the freezer of version 1.
            if self.driver == Driver::Systemd {
                let _ = cgroup.thaw();
            }
        }
        if self.driver == Driver::Systemd {
            Systemd::connect()?.stop(&self.name)?;
        }
        // systemd leaves the trees that it does not manage.
        self.find()?.map_or(Ok(()), |cgroup| cgroup.remove())
    }

    /// The group, if it is there.
    fn find(&self) -> Result<Option<Cgroup>> {
        match self.open() {
            Ok(cgroup) => Ok(Some(cgroup)),
            Err(CgroupError::NoHierarchy { .. }) => Ok(None),
            Err(CgroupError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// A group until the container's process is in it. Dropped without [`Group::keep`] it goes, with what is in it.
#[derive(Debug)]
pub struct Group(Making);

#[derive(Debug)]
enum Making {
    Own { cgroup: Cgroup, kept: bool },
    Scope(Scope),
}

impl Group {
    pub fn cgroup(&self) -> &Cgroup {
        match &self.0 {
            Making::Own { cgroup, .. } => cgroup,
            Making::Scope(scope) => scope.cgroup(),
        }
    }

    /// The container's process is there, and is all that the group needs from now on.
    pub fn keep(mut self) {
        match &mut self.0 {
            Making::Own { kept, .. } => *kept = true,
            Making::Scope(scope) => scope.keep(),
        }
    }
}

impl Drop for Making {
    fn drop(&mut self) {
        if let Making::Own { cgroup, kept: false } = self {
            // What has failed before is what is told.
            let _ = cgroup.kill_all();
            let _ = cgroup.remove();
        }
    }
}
