//! Labels of the Linux security modules, and the execution domain.
//!
//! A label that the kernel cannot set is an error: a container that was asked to be confined never runs
//! unconfined.

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
        if !process.apparmor_profile.is_empty()
            && process.apparmor_profile != "unconfined"
            && !has("/sys/module/apparmor/parameters/enabled")
        {
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
            std::fs::write(path, format!("exec {}", self.apparmor))
                .during(&format!("apply AppArmor profile {}", self.apparmor))?;
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
