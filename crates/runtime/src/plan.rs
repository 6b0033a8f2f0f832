//! Everything about a container that is decided before the clone: checked, opened and compiled in the caller.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::Path;

use cgroup::Entry;
use spec::runtime::{Mount, Spec};
use sys::namespace::Kind;

use crate::error::{During, LaunchError};
use crate::hooks::HookPlan;
use crate::identity::Identity;
use crate::launch::{Launch, Stdio};
use crate::namespaces::Namespaces;
use crate::net_devices::NetDevices;
use crate::process::ProcessPlan;
use crate::rootfs::{Request, RootfsPlan};

#[derive(Debug)]
pub(crate) struct Plan {
    pub namespaces: Namespaces,
    pub process: ProcessPlan,
    pub rootfs: RootfsPlan,
    pub hooks: HookPlan,
    pub net_devices: NetDevices,
    pub stdio: Stdio,
    pub hostname: String,
    pub domainname: String,
    /// Path below /proc/sys, and value.
    pub sysctl: Vec<(String, String)>,
    /// To be born in (version 2) ...
    pub cgroup_fd: Option<OwnedFd>,
    /// ... or to be entered by the child itself.
    pub cgroup_entry: Option<Entry>,
    pub start_socket: Option<OwnedFd>,
}

impl Plan {
    pub fn new(launch: Launch<'_>) -> Result<Plan, LaunchError> {
        let spec = launch.spec;
        let process = spec
            .process
            .as_ref()
            .ok_or_else(|| LaunchError::Invalid("process is missing".to_owned()))?;
        let linux = spec
            .linux
            .as_ref()
            .ok_or_else(|| LaunchError::Invalid("linux is missing".to_owned()))?;
        if linux.intel_rdt.is_some() && !launch.classed {
            let why = "linux.intelRdt: classes of cache and memory bandwidth are the caller's to make";
            return Err(LaunchError::Unsupported(why.to_owned()));
        }
        crate::process::security::check("linux.mountLabel", &linux.mount_label)?;
        let namespaces = Namespaces::new(linux, launch.netns, launch.userns)?;
        let net_devices = NetDevices::new(&linux.net_devices, &namespaces)?;
        let own_uts = namespaces.own(Kind::Uts);
        let names = !spec.hostname.is_empty() || !spec.domainname.is_empty();
        if names && !own_uts {
            return Err(LaunchError::Invalid(
                "a hostname or domainname needs a uts namespace (linux.namespaces)".to_owned(),
            ));
        }
        let filter = match (launch.filter, &linux.seccomp) {
            (Some(prepared), _) => Some(prepared.filter.clone()),
            (None, Some(document)) => Some(crate::seccomp::prepare(document, launch.seccomp_cache)?.filter),
            (None, None) => None,
        };
        let mut process = ProcessPlan::new(
            process,
            linux.personality.as_ref(),
            linux.memory_policy.as_ref(),
            filter,
        )?;
        process.terminal = matches!(launch.stdio, Stdio::Terminal);
        process.preserve_fds = launch.preserve_fds;
        process.dies_with_caller = launch.dies_with_caller;
        process.callers_keyring = launch.callers_keyring;
        let hooks = HookPlan::new(spec, Identity::new(spec, launch.id, launch.bundle));
        let rootfs = RootfsPlan::new(&Request {
            spec,
            linux,
            bundle: launch.bundle,
            rootfs: launch.rootfs,
            cgroup: launch.cgroup,
            namespaces: &namespaces,
            hooks_wait: hooks.wait_for_mounts(),
            init: launch.init,
            extra: launch.extra_mounts,
            no_pivot: launch.no_pivot,
        })?;
        if let (Some(cgroup), Some(owner)) = (launch.cgroup, divides(spec, &namespaces)) {
            let given = cgroup.give_to(owner);
            given.map_err(|error| LaunchError::Cgroup(error.to_string()))?;
        }
        let cgroup_fd = launch.cgroup.and_then(cgroup::Cgroup::fd);
        let cgroup_entry = match launch.cgroup {
            Some(cgroup) => Some(
                cgroup
                    .entry()
                    .map_err(|error| LaunchError::Cgroup(error.to_string()))?,
            ),
            None => None,
        };
        let start_socket = match launch.start_socket {
            Some(socket) => Some(socket.try_clone_to_owned().during("start socket")?),
            None => None,
        };
        Ok(Plan {
            sysctl: sysctl(&linux.sysctl, |kind| namespaces.own(kind))?,
            namespaces,
            process,
            rootfs,
            hooks,
            net_devices,
            stdio: launch.stdio,
            hostname: spec.hostname.clone(),
            domainname: spec.domainname.clone(),
            cgroup_fd,
            cgroup_entry,
            start_socket,
        })
    }

    /// The descriptors that the child still needs once it is in its cgroup; all others are closed.
    pub fn fds(&self) -> Vec<RawFd> {
        let mut fds: Vec<RawFd> = self.rootfs.fds().iter().map(AsRawFd::as_raw_fd).collect();
        fds.extend(self.namespaces.fds());
        fds.extend(self.start_socket.as_ref().map(AsRawFd::as_raw_fd));
        fds.extend(self.process.preserved());
        if let Stdio::Streams {
            stdin,
            stdout,
            stderr,
        } = &self.stdio
        {
            fds.extend([stdin, stdout, stderr].map(AsRawFd::as_raw_fd));
        }
        fds
    }
}

/// The user outside who is the container's own, where the container is to divide its group: it has a view of it that it may
/// write to, and sees nothing above.
fn divides(spec: &Spec, namespaces: &Namespaces) -> Option<u32> {
    let is_view = |mount: &Mount| {
        let kind = mount.r#type.as_deref().unwrap_or_default();
        matches!(kind, "cgroup" | "cgroup2") && mount.destination == Path::new("/sys/fs/cgroup")
    };
    let writable = |mount: &Mount| {
        !mount
            .options
            .iter()
            .any(|option| option == "ro" || option == "rro")
    };
    let process = spec.process.as_ref()?;
    let divided = spec.mounts.iter().any(|mount| is_view(mount) && writable(mount));
    let (owner, _) = namespaces.outside(process.user.uid, 0)?;
    (divided && namespaces.is_new(Kind::Cgroup)).then_some(owner)
}

/// Only what belongs to a namespace that the container has for itself: anything else would change the host.
pub(crate) fn sysctl(
    wanted: &std::collections::BTreeMap<String, String>,
    own: impl Fn(Kind) -> bool,
) -> Result<Vec<(String, String)>, LaunchError> {
    const IPC: [&str; 9] = [
        "kernel/msgmax",
        "kernel/msgmnb",
        "kernel/msgmni",
        "kernel/sem",
        "kernel/shmall",
        "kernel/shmmax",
        "kernel/shmmni",
        "kernel/shm_rmid_forced",
        "kernel/msg_next_id",
    ];
    let mut out = Vec::new();
    for (key, value) in wanted {
        // `net.ipv4.x` or, where a name itself has dots, `net/ipv4/conf/eth0.1/x`.
        let slash = key.find('/').unwrap_or(usize::MAX);
        let dot = key.find('.').unwrap_or(usize::MAX);
        let path = if slash < dot { key.clone() } else { swap(key) };
        let needs = if IPC.contains(&path.as_str()) || path.starts_with("fs/mqueue/") {
            Kind::Ipc
        } else if path.starts_with("net/") {
            Kind::Network
        } else if path == "kernel/hostname" || path == "kernel/domainname" {
            Kind::Uts
        } else {
            return Err(LaunchError::Invalid(format!(
                "linux.sysctl {key:?} is not in a separate kernel namespace"
            )));
        };
        if path
            .split('/')
            .any(|part| part.is_empty() || part == "." || part == "..")
        {
            return Err(LaunchError::Invalid(format!(
                "linux.sysctl {key:?} is not a name"
            )));
        }
        if !own(needs) {
            return Err(LaunchError::Invalid(format!(
                "linux.sysctl {key:?} is not allowed in the host's {} namespace",
                needs.proc_name()
            )));
        }
        out.push((path, value.clone()));
    }
    Ok(out)
}

fn swap(key: &str) -> String {
    key.chars()
        .map(|c| match c {
            '.' => '/',
            '/' => '.',
            other => other,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use spec::runtime::{Linux, Namespace, NamespaceType};

    #[test]
    fn only_namespaced_sysctls() {
        let linux = Linux {
            namespaces: [NamespaceType::Mount, NamespaceType::Network]
                .map(|kind| Namespace {
                    r#type: kind,
                    path: None,
                })
                .to_vec(),
            ..Linux::default()
        };
        let namespaces = Namespaces::new(&linux, None, None).unwrap();
        let own = |kind| namespaces.own(kind);
        let check = |key: &str| sysctl(&[(key.to_owned(), "1".to_owned())].into(), own);
        assert_eq!(check("net.ipv4.ip_forward").unwrap()[0].0, "net/ipv4/ip_forward");
        assert_eq!(check("net/ipv4/conf/a.b/x").unwrap()[0].0, "net/ipv4/conf/a.b/x");
        assert_eq!(check("net.ipv4.conf.a/b.x").unwrap()[0].0, "net/ipv4/conf/a.b/x");
        assert!(check("kernel.shmmax").unwrap_err().to_string().contains("ipc"));
        assert!(check("kernel.panic").is_err());
        assert!(check("net/../kernel/panic").is_err());
    }
}
