//! Control groups that systemd makes: one transient scope for each container.
//!
//! systemd owns the upper part of the trees and may write a unit's limits again at any time (`daemon-reload`, a
//! neighbour's change), so it is told of every limit that it knows; what it does not know, and the exact values, are
//! written by [`Cgroup::apply`] into the scope, which is delegated to us. The words are spoken over a socket by a
//! small client of our own: four calls do not need a library.
//!
//! A scope is made around a process. Ours only waits ([`Placeholder`]) until the container's process has been born
//! in the group, and is gone before anything of the user's runs. systemd forgets a scope that has become empty.
//!
//! Source: org.freedesktop.systemd1(5); systemd "Control Group APIs and Delegation".

mod connection;
mod name;
mod properties;
mod wire;

pub use name::Unit;

use std::io::Read as _;
use std::os::fd::AsFd;
use std::path::Path;

use spec::runtime::Resources;
use sys::process::{Child, Options};

use crate::error::{CgroupError, Result};
use crate::group::Cgroup;
use crate::hierarchy::{Hierarchy, Version};
use crate::limit::lift::Lift;

use connection::{Answer, Connection};
use wire::{Property, Value, Writer};

const SIGKILL: i32 = 9;
const NO_SUCH_UNIT: &str = "org.freedesktop.systemd1.NoSuchUnit";
const UNIT_EXISTS: &str = "org.freedesktop.systemd1.UnitExists";

/// The systemd of this host.
#[derive(Debug)]
pub struct Systemd {
    connection: Connection,
}

/// A scope that was just made, with a process in it that keeps it alive. Dropped without [`Scope::keep`] it goes,
/// with everything in it.
#[derive(Debug)]
pub struct Scope {
    systemd: Systemd,
    unit: String,
    cgroup: Cgroup,
    placeholder: Option<Placeholder>,
    kept: bool,
}

impl Scope {
    pub fn cgroup(&self) -> &Cgroup {
        &self.cgroup
    }

    /// Leaves the scope to the processes that are in it by now.
    pub fn keep(&mut self) {
        self.placeholder = None;
        self.kept = true;
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        self.placeholder = None;
        if !self.kept {
            // What has failed before is what is told.
            let _ = self.cgroup.kill_all();
            let _ = self.systemd.stop(&self.unit);
            let _ = self.cgroup.remove();
        }
    }
}

impl Systemd {
    /// An error that says where systemd was looked for when there is none.
    pub fn connect() -> Result<Systemd> {
        Ok(Systemd {
            connection: Connection::open()?,
        })
    }

    /// Makes the scope with its limits; those that systemd does not know are the caller's to apply. A unit of that
    /// name which has failed is forgotten first; one that lives is an error.
    pub fn start(mut self, unit: &Unit, description: &str, resources: &Resources) -> Result<Scope> {
        let hierarchy = Hierarchy::host()?;
        let version = hierarchy.version();
        let placeholder = Placeholder::new()?;
        let mut properties = vec![
            ("Description", Value::Text(description.to_owned())),
            ("Slice", Value::Text(unit.slice().to_owned())),
            ("Delegate", Value::Flag(true)),
            ("DefaultDependencies", Value::Flag(false)),
            ("CollectMode", Value::Text("inactive-or-failed".to_owned())),
            ("PIDs", Value::Pids(vec![placeholder.pid()])),
            ("MemoryAccounting", Value::Flag(true)),
            ("CPUAccounting", Value::Flag(true)),
            ("TasksAccounting", Value::Flag(true)),
        ];
        let io = if version == Version::V2 {
            "IOAccounting"
        } else {
            "BlockIOAccounting"
        };
        properties.push((io, Value::Flag(true)));
        properties.extend(properties::of(resources, version)?);
        let job = self.ask_for(unit, &properties)?;
        self.done("start", unit.name(), job)?;
        let cgroup = Cgroup::adopt(hierarchy, unit.parent(), unit.name());
        match cgroup {
            Ok(cgroup) => Ok(Scope {
                systemd: self,
                unit: unit.name().to_owned(),
                cgroup,
                placeholder: Some(placeholder),
                kept: false,
            }),
            Err(error) => {
                // Empty, it goes by itself; the first failure is the one to tell.
                drop(placeholder);
                let _ = self.stop(unit.name());
                Err(error)
            }
        }
    }

    /// Tells systemd what holds from now on, and waits until it has written that.
    pub fn set(&mut self, unit: &str, resources: &Resources) -> Result<()> {
        let properties = properties::of(resources, Hierarchy::host()?.version())?;
        self.change(unit, &properties)
    }

    /// Takes limits back that a scope has. Those that systemd has no word for it has not.
    pub(crate) fn lift(&mut self, unit: &str, limits: &[Lift]) -> Result<()> {
        let properties = properties::lifted(limits, Hierarchy::host()?.version());
        match properties.is_empty() {
            true => Ok(()),
            false => self.change(unit, &properties),
        }
    }

    fn change(&mut self, unit: &str, properties: &[Property]) -> Result<()> {
        let mut body = Writer::default();
        body.text(unit);
        // Until the next boot, as the unit itself.
        body.flag(true);
        body.properties(properties);
        self.connection.manage("SetUnitProperties", "sba(sv)", body)?;
        self.connection.settle()
    }

    /// Ends the unit with everything in it, and makes systemd forget it. One that is not there is a success.
    pub fn stop(&mut self, unit: &str) -> Result<()> {
        let mut body = Writer::default();
        body.text(unit);
        body.text("replace");
        match self.connection.manager("StopUnit", "ss", body)? {
            Answer::Done(job) => self.done("stop", unit, job)?,
            Answer::Refused { name, .. } if name == NO_SUCH_UNIT => return Ok(()),
            Answer::Refused { name, why } => return Err(refused("stop", unit, &why, &name)),
        }
        self.forget(unit)?;
        self.connection.settle()
    }

    fn ask_for(&mut self, unit: &Unit, properties: &[Property]) -> Result<Option<String>> {
        let body = || {
            let mut body = Writer::default();
            body.text(unit.name());
            body.text("fail");
            body.properties(properties);
            body.nothing();
            body
        };
        const SIGNATURE: &str = "ssa(sv)a(sa(sv))";
        let mut answer = self.connection.manager("StartTransientUnit", SIGNATURE, body())?;
        if matches!(&answer, Answer::Refused { name, .. } if name == UNIT_EXISTS) {
            self.forget(unit.name())?;
            answer = self.connection.manager("StartTransientUnit", SIGNATURE, body())?;
        }
        match answer {
            Answer::Done(job) => Ok(job),
            Answer::Refused { name, why } => Err(refused("start", unit.name(), &why, &name)),
        }
    }

    /// Only one that has failed is still known by now, and nothing else is done to others.
    fn forget(&mut self, unit: &str) -> Result<()> {
        let mut body = Writer::default();
        body.text(unit);
        match self.connection.manager("ResetFailedUnit", "s", body)? {
            Answer::Refused { name, why } if name != NO_SUCH_UNIT => Err(refused("reset", unit, &why, &name)),
            _ => Ok(()),
        }
    }

    fn done(&mut self, action: &str, unit: &str, job: Option<String>) -> Result<()> {
        let job = job.ok_or_else(|| refused(action, unit, "the answer names no job", "malformed"))?;
        match self.connection.job(&job)?.as_str() {
            "done" => Ok(()),
            result => Err(CgroupError::Systemd {
                action: format!("{action} {unit}"),
                reason: format!(
                    "the job ended with {result:?}; systemctl status {unit} and the journal say why"
                ),
            }),
        }
    }
}

fn refused(action: &str, unit: &str, why: &str, name: &str) -> CgroupError {
    CgroupError::Systemd {
        action: format!("{action} {unit}"),
        reason: format!("{why} ({name})"),
    }
}

/// A process that does nothing but live, for as long as this value and its maker do.
#[derive(Debug)]
struct Placeholder {
    child: Child,
    /// Its closing ends the process.
    _held: std::io::PipeWriter,
}

impl Placeholder {
    fn new() -> Result<Placeholder> {
        let failed = |source| CgroupError::io("make a process for", Path::new("the scope"), source);
        let (mut end, held) = std::io::pipe().map_err(failed)?;
        let mut held = Some(held);
        let child = sys::process::spawn(Options::default(), || {
            drop(held.take());
            // Ends when the maker does, however that ends.
            let _ = end.read(&mut [0]);
            0
        })
        .map_err(failed)?;
        let held = held.ok_or_else(|| failed(std::io::ErrorKind::BrokenPipe.into()))?;
        Ok(Placeholder { child, _held: held })
    }

    fn pid(&self) -> u32 {
        u32::try_from(self.child.pid).unwrap_or(0)
    }
}

impl Drop for Placeholder {
    fn drop(&mut self) {
        let _ = sys::process::send_signal(self.child.pidfd.as_fd(), SIGKILL);
        let _ = sys::process::wait(self.child.pidfd.as_fd());
    }
}
