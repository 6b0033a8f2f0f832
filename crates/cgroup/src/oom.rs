//! Out of memory: how often the kernel killed in this group, the most it ever used, and a descriptor that wakes.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::fs::{Mode, OFlags};

use crate::error::{CgroupError, Result};
use crate::file;
use crate::group::{Cgroup, subdirectories};
use crate::hierarchy::Version;

impl Cgroup {
    /// Processes of this group, and of groups below, that the kernel killed for want of memory.
    /// Zero where memory is not controlled.
    pub fn oom_kills(&self) -> Result<u64> {
        match self.version() {
            Version::V2 => {
                let Some(directory) = self.unified() else {
                    return Ok(0);
                };
                // memory.events counts the whole tree, memory.events.local only this group.
                let events = file::read_optional(&directory.join("memory.events"))?.unwrap_or_default();
                Ok(file::keyed(&events, "oom_kill").unwrap_or(0))
            }
            Version::V1 | Version::Hybrid => match self.v1("memory") {
                Some(directory) => v1_kills(&directory),
                None => Ok(0),
            },
        }
    }

    /// The most memory the group ever used, in bytes, where the kernel keeps it (v2: Linux 5.19).
    pub fn peak_memory(&self) -> Result<Option<u64>> {
        match self.version() {
            Version::V2 => match self.unified() {
                Some(directory) => file::number(&directory.join("memory.peak")),
                None => Ok(None),
            },
            Version::V1 | Version::Hybrid => match self.v1("memory") {
                Some(directory) => file::number(&directory.join("memory.max_usage_in_bytes")),
                None => Ok(None),
            },
        }
    }

    /// A descriptor that becomes readable when the group may have run out of memory; drain it with one read and ask
    /// [`Cgroup::oom_kills`]. Non-blocking. None where memory is not controlled.
    pub fn oom_event_fd(&self) -> Result<Option<OwnedFd>> {
        match self.version() {
            Version::V2 => self
                .unified()
                .map_or(Ok(None), |directory| watch_events(&directory)),
            Version::V1 | Version::Hybrid => self
                .v1("memory")
                .map_or(Ok(None), |directory| register_eventfd(&directory)),
        }
    }
}

/// v1 counts per group, not per tree.
fn v1_kills(directory: &Path) -> Result<u64> {
    let control = file::read_optional(&directory.join("memory.oom_control"))?.unwrap_or_default();
    let mut kills = file::keyed(&control, "oom_kill").unwrap_or(0);
    for child in subdirectories(directory) {
        kills += v1_kills(&child)?;
    }
    Ok(kills)
}

fn watch_events(directory: &Path) -> Result<Option<OwnedFd>> {
    let path = directory.join("memory.events");
    if !path.exists() {
        return Ok(None);
    }
    let failed = |error| CgroupError::io("watch", &path, error);
    let watch = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).map_err(failed)?;
    inotify::add_watch(&watch, &path, WatchFlags::MODIFY).map_err(failed)?;
    Ok(Some(watch))
}

fn register_eventfd(directory: &Path) -> Result<Option<OwnedFd>> {
    let path = directory.join("memory.oom_control");
    let control = match rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) {
        Ok(control) => control,
        Err(rustix::io::Errno::NOENT) => return Ok(None),
        Err(error) => return Err(CgroupError::io("open", &path, error)),
    };
    let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
        .map_err(|error| CgroupError::io("make an eventfd for", &path, error))?;
    let registration = format!("{} {}", event.as_raw_fd(), control.as_fd().as_raw_fd());
    file::write(&directory.join("cgroup.event_control"), &registration)?;
    Ok(Some(event))
}
