//! Whether a configuration makes sense, asked before anything of the container is made.
//!
//! What can be told from the document is told here, and what this host plainly lacks: a file that it names, a controller, a
//! security module. Nothing is changed. Each mistake is one error that begins with its place in the document. The rooms that
//! later do what the document says are asked what they would say to it, so that no rule stands twice.

use std::os::fd::AsFd;
use std::path::Path;
use std::{fs, io};

use cgroup::{CgroupError, Hierarchy};
use rustix::fs::{Mode, OFlags};
use spec::runtime::{Linux, Process, Resources, Spec};
use sys::namespace::{self, Kind, outside};

use crate::error::{LaunchError, reason};
use crate::namespaces::{self, id_ranges, kind};
use crate::process::{scheduling, security};
use crate::{hooks, net_devices, plan, process, rootfs, seccomp};

/// Longest name that the kernel gives a machine (`__NEW_UTS_LEN`).
const MOST_NAME: usize = 64;

/// `bundle` is where relative paths begin.
pub(crate) fn validate(spec: &Spec, bundle: &Path) -> Result<(), LaunchError> {
    version(&spec.oci_version)?;
    let missing = |part: &str| LaunchError::Invalid(format!("{part} is missing"));
    let root = spec.root.as_ref().ok_or_else(|| missing("root"))?;
    let process = spec.process.as_ref().ok_or_else(|| missing("process"))?;
    let linux = spec.linux.as_ref().ok_or_else(|| missing("linux"))?;
    process::check(process)?;
    if let Some(hooks) = &spec.hooks {
        hooks::check(hooks)?;
    }
    rootfs::check(spec, linux)?;
    namespaces::check(linux)?;
    let owns = |wanted: Kind| {
        let mut list = linux.namespaces.iter();
        list.any(|namespace| kind(namespace.r#type) == wanted)
    };
    names(spec, owns(Kind::Uts))?;
    users(process, linux)?;
    plan::sysctl(&linux.sysctl, owns)?;
    net_devices::check(&linux.net_devices)?;
    if let Some(document) = &linux.seccomp {
        seccomp::check(document)?;
    }
    if let Some(personality) = &linux.personality {
        security::domain(personality)?;
    }
    if let Some(policy) = &linux.memory_policy {
        scheduling::memory_policy(policy)?;
    }
    limits(linux)?;
    security::check("linux.mountLabel", &linux.mount_label)?;
    rootfs::open_root(&bundle.join(&root.path))?;
    sources(spec, linux, bundle)
}

/// A version of the specification that this one is compatible with.
fn version(text: &str) -> Result<(), LaunchError> {
    if text.is_empty() {
        return Err(LaunchError::Invalid("ociVersion is missing".to_owned()));
    }
    let core = text.split(['-', '+']).next().unwrap_or_default();
    let parts: Vec<Option<u64>> = core.split('.').map(|part| part.parse().ok()).collect();
    let why = match parts.as_slice() {
        [Some(1), Some(_), Some(_)] => return Ok(()),
        [Some(_), Some(_), Some(_)] => format!(
            "this runtime does version 1 of the specification ({})",
            spec::runtime::VERSION
        ),
        _ => "is no version such as 1.2.0".to_owned(),
    };
    Err(LaunchError::Invalid(format!("ociVersion {text:?}: {why}")))
}

fn names(spec: &Spec, own_uts: bool) -> Result<(), LaunchError> {
    for (field, name) in [("hostname", &spec.hostname), ("domainname", &spec.domainname)] {
        let why = if name.is_empty() {
            continue;
        } else if !own_uts {
            "it needs a uts namespace (linux.namespaces)"
        } else if name.len() > MOST_NAME {
            "it is longer than 64 bytes"
        } else if name.contains('\0') {
            "it has a null byte"
        } else {
            continue;
        };
        return Err(LaunchError::Invalid(format!("{field} {name:?}: {why}")));
    }
    Ok(())
}

/// In a user namespace of the container's own making there are only the ids of its maps.
fn users(process: &Process, linux: &Linux) -> Result<(), LaunchError> {
    let user = &process.user;
    let groups = user.additional_gids.iter().enumerate();
    let groups = groups.map(|(index, gid)| (format!("additionalGids[{index}]"), *gid, &linux.gid_mappings));
    let ids = [
        ("uid".to_owned(), user.uid, &linux.uid_mappings),
        ("gid".to_owned(), user.gid, &linux.gid_mappings),
    ];
    for (field, id, map) in ids.into_iter().chain(groups) {
        if !map.is_empty() && outside(&id_ranges(map), id).is_none() {
            let text =
                format!("process.user.{field}: {id} is not mapped (linux.uidMappings, linux.gidMappings)");
            return Err(LaunchError::Invalid(text));
        }
    }
    Ok(())
}

fn limits(linux: &Linux) -> Result<(), LaunchError> {
    let Some(resources) = &linux.resources else {
        return Ok(());
    };
    // Rules for devices ask for nothing that has to be looked for, and most configurations have no others.
    let devices = Vec::new();
    let limits = Resources {
        devices,
        ..resources.clone()
    };
    let here = || match Hierarchy::host() {
        Ok(host) => host.check(resources),
        // That there are no groups at all is told when one is made.
        Err(_) => Ok(()),
    };
    let checked = cgroup::check(resources).and_then(|()| if limits.is_empty() { Ok(()) } else { here() });
    checked.map_err(|error| match error {
        CgroupError::Invalid(text) => LaunchError::Invalid(format!("linux.resources.{text}")),
        other => LaunchError::Cgroup(other.to_string()),
    })
}

/// Whether the file is a namespace of this kind.
fn joinable(path: &Path, wanted: Kind) -> Result<(), String> {
    let reason = |error: io::Error| reason(&error);
    // Whatever else it is, opening it must not wait.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = rustix::fs::open(path, flags, Mode::empty()).map_err(|error| reason(error.into()))?;
    match namespace::kind_of(file.as_fd()).map_err(reason)? {
        Some(kind) if kind == wanted => Ok(()),
        Some(other) => Err(format!(
            "it is a namespace of another kind ({})",
            other.proc_name()
        )),
        None => Err("it is not a namespace".to_owned()),
    }
}

/// Files of the host that the configuration names.
fn sources(spec: &Spec, linux: &Linux, bundle: &Path) -> Result<(), LaunchError> {
    let there = |place: String, path: &Path| match fs::metadata(path) {
        Ok(_) => Ok(()),
        Err(error) => {
            let (path, why) = (path.display(), reason(&error));
            Err(LaunchError::Invalid(format!("{place}: {path}: {why}")))
        }
    };
    for (index, namespace) in linux.namespaces.iter().enumerate() {
        if let Some(path) = namespaces::path(namespace) {
            let joined = joinable(path, kind(namespace.r#type));
            joined.map_err(|why| {
                let path = path.display();
                LaunchError::Invalid(format!("linux.namespaces[{index}].path: {path}: {why}"))
            })?;
        }
    }
    for (index, mount) in spec.mounts.iter().enumerate() {
        if let Some(source) = rootfs::bound(mount) {
            there(format!("mounts[{index}].source"), &bundle.join(source))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_the_first_major_are_taken() {
        for good in ["1.0.0", "1.0.2-dev", "1.2.1+dev", "1.99.0"] {
            version(good).unwrap();
        }
        for bad in ["", "1", "1.0", "0.6.0", "2.0.0", "one", "1.0.x", "v1.0.0"] {
            assert!(
                version(bad).unwrap_err().to_string().contains("ociVersion"),
                "{bad}"
            );
        }
    }
}
