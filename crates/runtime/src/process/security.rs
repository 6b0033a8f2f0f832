//! Labels of the Linux security modules, and the execution domain.
//!
//! A label that the kernel cannot set is an error: a container that was asked to be confined never runs
//! unconfined. They are set through files of /proc, at whose place the configuration may have put anything, so it is
//! made sure that what is written to is the kernel's own file (CVE-2019-16884, CVE-2025-52881).

use std::fs::File;
use std::io::{self, ErrorKind, Write as _};
use std::os::fd::AsFd as _;

use rustix::fs::{CWD, Mode, OFlags};
use spec::runtime::{Personality, Process};

use crate::error::{During, LaunchError};

/// The filesystem's magic number, and its topmost inode.
const PROC: (u64, u64) = (0x9fa0, 1);

#[derive(Debug, Default)]
pub(crate) struct Labels {
    apparmor: String,
    selinux: String,
}

impl Labels {
    pub fn new(process: &Process) -> Result<Labels, LaunchError> {
        // It may be in the kernel and switched off.
        let has_apparmor = || {
            std::fs::read_to_string("/sys/module/apparmor/parameters/enabled")
                .is_ok_and(|enabled| enabled.starts_with('Y'))
        };
        let wanted = !process.apparmor_profile.is_empty() && process.apparmor_profile != "unconfined";
        if wanted && !has_apparmor() {
            return Err(LaunchError::Unsupported(format!(
                "process.apparmorProfile {:?}: this kernel has no AppArmor",
                process.apparmor_profile
            )));
        }
        check("process.selinuxLabel", &process.selinux_label)?;
        let apparmor = process.apparmor_profile.clone();
        Ok(Labels {
            apparmor: if apparmor == "unconfined" {
                String::new()
            } else {
                apparmor
            },
            selinux: process.selinux_label.clone(),
        })
    }

    /// A session keyring of its own for the process, with its label: otherwise the program could not use it. The exec takes
    /// the label for further keys back.
    pub fn new_keyring(&self) -> Result<(), LaunchError> {
        if !self.selinux.is_empty() {
            write_own("keycreate", &self.selinux)
                .during(&format!("label the session keyring {}", self.selinux))?;
        }
        sys::process::new_session_keyring().during("session keyring")
    }

    /// Tells the kernel what the exec is to change to.
    pub fn prepare(&self) -> Result<(), LaunchError> {
        if !self.apparmor.is_empty() {
            let change = format!("exec {}", self.apparmor);
            let written = match write_own("apparmor/exec", &change) {
                // Before Linux 5.8 the module has no directory of its own.
                Err(Failed::Open(error)) if error.kind() == ErrorKind::NotFound => write_own("exec", &change),
                written => written,
            };
            // Only the kernel knows its profiles: their list is in a filesystem that need not be mounted.
            if matches!(&written, Err(Failed::Write(error)) if error.kind() == ErrorKind::NotFound) {
                return Err(LaunchError::Invalid(format!(
                    "process.apparmorProfile {:?}: no such profile is loaded",
                    self.apparmor
                )));
            }
            written.during(&format!("apply AppArmor profile {}", self.apparmor))?;
        }
        if !self.selinux.is_empty() {
            write_own("exec", &self.selinux).during(&format!("apply SELinux label {}", self.selinux))?;
        }
        Ok(())
    }
}

/// Whether SELinux is there and has the label that `field` of the configuration names.
pub(crate) fn check(field: &str, label: &str) -> Result<(), LaunchError> {
    if label.is_empty() {
        return Ok(());
    }
    if !sys::selinux::is_enabled() {
        return Err(LaunchError::Unsupported(format!(
            "{field} {label:?}: SELinux is not enabled"
        )));
    }
    if !sys::selinux::is_known(label) {
        return Err(LaunchError::Invalid(format!(
            "{field} {label:?}: the policy that is loaded has no such label"
        )));
    }
    Ok(())
}

/// Where it went wrong, for the same error means different things.
enum Failed {
    Open(io::Error),
    Write(io::Error),
}

impl From<Failed> for io::Error {
    fn from(failed: Failed) -> io::Error {
        match failed {
            Failed::Open(error) | Failed::Write(error) => error,
        }
    }
}

/// Writes an attribute of this thread.
fn write_own(name: &str, value: &str) -> Result<(), Failed> {
    let mut file = open_own(name).map_err(Failed::Open)?;
    file.write_all(value.as_bytes()).map_err(Failed::Write)
}

fn open_own(name: &str) -> io::Result<File> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let proc = rustix::fs::openat(CWD, c"/proc", flags, Mode::empty())?;
    let is = (
        rustix::fs::fstatfs(&proc)?.f_type as u64,
        rustix::fs::fstat(&proc)?.st_ino,
    );
    if is != PROC {
        return Err(io::Error::new(
            ErrorKind::InvalidData,
            "the container needs a procfs at /proc, and what is there is another filesystem",
        ));
    }
    let path = format!("thread-self/attr/{name}");
    let opened = sys::beneath::open_on_same_mount(proc.as_fd(), path, OFlags::WRONLY, Mode::empty());
    opened.map(File::from).map_err(|error| match error.kind() {
        ErrorKind::CrossesDevices => {
            io::Error::new(ErrorKind::InvalidData, "something is mounted over it in /proc")
        }
        _ => error,
    })
}

pub(crate) fn domain(personality: &Personality) -> Result<u64, LaunchError> {
    if !personality.flags.is_empty() {
        let why = "linux.personality.flags[0]: the specification defines none";
        return Err(LaunchError::Unsupported(why.to_owned()));
    }
    match personality.domain.as_str() {
        "LINUX" => Ok(0),
        "LINUX32" => Ok(8),
        other => Err(LaunchError::Invalid(format!(
            "linux.personality.domain: there is no {other:?}"
        ))),
    }
}
