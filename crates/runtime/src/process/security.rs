//! Labels of the Linux security modules, and the execution domain.
//!
//! A label that the kernel cannot set is an error: a container that was asked to be confined never runs
//! unconfined.

use std::io::ErrorKind;
use std::path::Path;

use spec::runtime::{Personality, Process};

use crate::error::{During, LaunchError};

#[derive(Debug, Default)]
pub(crate) struct Labels {
    apparmor: String,
    selinux: String,
}

impl Labels {
    pub fn new(process: &Process) -> Result<Labels, LaunchError> {
        let has = |path: &str| Path::new(path).exists();
        // It may be in the kernel and switched off.
        let has_apparmor = std::fs::read_to_string("/sys/module/apparmor/parameters/enabled")
            .is_ok_and(|enabled| enabled.starts_with('Y'));
        if !process.apparmor_profile.is_empty() && process.apparmor_profile != "unconfined" && !has_apparmor {
            return Err(LaunchError::Unsupported(format!(
                "process.apparmorProfile {:?}: this kernel has no AppArmor",
                process.apparmor_profile
            )));
        }
        if !process.selinux_label.is_empty() && !has("/sys/fs/selinux/enforce") {
            return Err(LaunchError::Unsupported(format!(
                "process.selinuxLabel {:?}: SELinux is not enabled",
                process.selinux_label
            )));
        }
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

    /// Tells the kernel what the exec is to change to.
    pub fn prepare(&self) -> Result<(), LaunchError> {
        if !self.apparmor.is_empty() {
            let own = Path::new("/proc/thread-self/attr/apparmor/exec");
            let path = if own.exists() {
                own
            } else {
                Path::new("/proc/thread-self/attr/exec")
            };
            let written = std::fs::write(path, format!("exec {}", self.apparmor));
            // Only the kernel knows its profiles: their list is in a filesystem that need not be mounted.
            if written.as_ref().is_err_and(|e| e.kind() == ErrorKind::NotFound) {
                return Err(LaunchError::Invalid(format!(
                    "process.apparmorProfile {:?}: no such profile is loaded",
                    self.apparmor
                )));
            }
            written.during(&format!("apply AppArmor profile {}", self.apparmor))?;
        }
        if !self.selinux.is_empty() {
            std::fs::write("/proc/thread-self/attr/exec", &self.selinux)
                .during(&format!("apply SELinux label {}", self.selinux))?;
        }
        Ok(())
    }
}

pub(crate) fn domain(personality: &Personality) -> Result<u64, LaunchError> {
    if !personality.flags.is_empty() {
        return Err(LaunchError::Unsupported("linux.personality.flags".to_owned()));
    }
    match personality.domain.as_str() {
        "LINUX" => Ok(0),
        "LINUX32" => Ok(8),
        other => Err(LaunchError::Invalid(format!(
            "linux.personality: there is no domain {other:?}"
        ))),
    }
}
