//! What containers need of the kernel, looked at before anything is made, so that a host without it is told which
//! feature is missing and not which system call failed in the middle of a start.

use std::path::Path;

use engine::cgroup::Driver;
use sys::features::Call;

use crate::settings::Settings;

/// The oldest kernel with everything this engine uses without a fallback.
const OLDEST: (u32, u32) = (5, 15);
const NAMESPACES: [&str; 7] = ["pid", "net", "mnt", "uts", "ipc", "cgroup", "user"];

/// Without these nothing can be isolated or connected. Root has them, unless it is a container's or a service's that was
/// left fewer.
const CAPABILITIES: [&str; 2] = ["CAP_SYS_ADMIN", "CAP_NET_ADMIN"];

/// What was found out about the kernel, and about what this process may do.
struct Found {
    release: String,
    /// /proc is there, which everything else is read from.
    proc: bool,
    calls: Vec<Call>,
    /// Of [`CAPABILITIES`], those it does not have.
    powerless: Vec<&'static str>,
    /// Why the packet filter cannot be asked, where rules are wanted.
    filter: Option<String>,
    /// Why no systemd can be asked for control groups, where it is to make them.
    systemd: Option<String>,
    /// Or none is wanted.
    overlay: bool,
    /// Of [`NAMESPACES`], those it does not have.
    missing: Vec<&'static str>,
    /// /proc/self/mountinfo.
    mounts: String,
}

/// Names what the kernel lacks. Layers can be copied where they cannot be stacked, unless overlays were asked for.
pub(crate) fn check(settings: &Settings) -> Result<(), String> {
    let wants_overlay = settings.storage_driver == engine::store::StorageDriver::Overlay;
    let filesystems = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
    let listed = filesystems
        .lines()
        .any(|line| line.split_whitespace().last() == Some("overlay"));
    judge(&Found {
        release: rustix::system::uname().release().to_string_lossy().into_owned(),
        proc: Path::new("/proc/self/status").exists(),
        calls: sys::features::missing_calls(),
        powerless: powerless(),
        filter: unusable_filter(settings.iptables),
        systemd: unreachable_systemd(settings.cgroup_driver),
        // A module that is not loaded yet is, when it is asked for.
        overlay: !wants_overlay || listed || sys::mount::Filesystem::new("overlay").is_ok(),
        missing: NAMESPACES
            .into_iter()
            .filter(|kind| !Path::new("/proc/self/ns").join(kind).exists())
            .collect(),
        mounts: std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default(),
    })
}

fn unusable_filter(wanted: bool) -> Option<String> {
    let error = wanted.then(network::check_kernel)?.err()?;
    Some(error.to_string())
}

fn unreachable_systemd(driver: Driver) -> Option<String> {
    if driver != Driver::Systemd {
        return None;
    }
    let error = engine::cgroup::Systemd::connect().err()?;
    let mut text = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    Some(text)
}

fn powerless() -> Vec<&'static str> {
    let Ok(permitted) = sys::caps::permitted() else {
        return Vec::new();
    };
    let has = |name: &&str| sys::caps::number(name).is_some_and(|number| permitted.contains(number));
    CAPABILITIES.into_iter().filter(|name| !has(name)).collect()
}

fn judge(found: &Found) -> Result<(), String> {
    let mut numbers = found
        .release
        .split(['.', '-'])
        .map(|n| n.parse::<u32>().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version < OLDEST {
        return Err(format!(
            "the kernel is {}, but Linux {}.{} or newer is needed",
            found.release, OLDEST.0, OLDEST.1
        ));
    }
    if !found.proc {
        return Err("/proc is not there: mount -t proc proc /proc".to_owned());
    }
    if let Some(Call { name, since }) = found.calls.first() {
        return Err(format!(
            "the kernel has no {name}, which Linux {since} and newer have: a system call filter over the daemon hides it, \
             so run the daemon without that filter (seccomp)"
        ));
    }
    if let Some(name) = found.powerless.first() {
        return Err(format!(
            "the daemon has no {name}: it runs in a container or service that was left without; give it the capability, \
             or run its container with --privileged"
        ));
    }
    if !found.overlay {
        return Err(
            "the kernel has no overlayfs: load the module overlay or enable CONFIG_OVERLAY_FS, or choose --storage-driver vfs"
                .to_owned(),
        );
    }
    if let Some(kind) = found.missing.first() {
        return Err(format!(
            "the kernel has no {kind} namespaces: enable CONFIG_NAMESPACES and its options"
        ));
    }
    if let Some(reason) = &found.filter {
        return Err(format!(
            "the kernel has no nftables, or nobody may ask for it ({reason}): load the module nf_tables or enable CONFIG_NF_TABLES \
             and CONFIG_NF_TABLES_INET, or start with --iptables=false, without rules"
        ));
    }
    if let Some(reason) = &found.systemd {
        return Err(reason.clone());
    }
    // proc_pid_mountinfo(5): the type follows the dash.
    let is_group = |line: &str| {
        let kind = line.split(" - ").nth(1).and_then(|rest| rest.split(' ').next());
        matches!(kind, Some("cgroup" | "cgroup2"))
    };
    if !found.mounts.lines().any(is_group) {
        return Err(
            "no control groups are mounted: mount -t cgroup2 none /sys/fs/cgroup, or enable CONFIG_CGROUPS"
                .to_owned(),
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Found {
        Found {
            release: "6.1.0-18-amd64".to_owned(),
            proc: true,
            calls: Vec::new(),
            powerless: Vec::new(),
            filter: None,
            systemd: None,
            overlay: true,
            missing: Vec::new(),
            mounts: "30 23 0:26 / /sys/fs/cgroup rw shared:4 - cgroup2 cgroup2 rw\n".to_owned(),
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        assert_eq!(judge(&good()), Ok(()));
        let old = Found {
            release: "5.10.0".to_owned(),
            ..good()
        };
        assert_eq!(
            judge(&old).unwrap_err(),
            "the kernel is 5.10.0, but Linux 5.15 or newer is needed"
        );
        assert!(
            judge(&Found {
                release: "what".to_owned(),
                ..good()
            })
            .is_err()
        );
        let hidden = Found {
            calls: vec![Call {
                name: "fsopen",
                since: "5.2",
            }],
            ..good()
        };
        assert!(judge(&hidden).unwrap_err().contains("no fsopen, which Linux 5.2"));
        let bare = Found {
            proc: false,
            calls: hidden.calls,
            ..good()
        };
        assert!(judge(&bare).unwrap_err().contains("mount -t proc"));
        let weak = Found {
            powerless: vec!["CAP_NET_ADMIN"],
            ..good()
        };
        assert!(judge(&weak).unwrap_err().contains("no CAP_NET_ADMIN"));
        let open = Found {
            filter: Some("why".to_owned()),
            ..good()
        };
        assert!(judge(&open).unwrap_err().contains("CONFIG_NF_TABLES"));
        let alone = Found {
            systemd: Some("no systemd can be reached".to_owned()),
            ..good()
        };
        assert_eq!(judge(&alone).unwrap_err(), "no systemd can be reached");
        let flat = Found {
            overlay: false,
            ..good()
        };
        assert!(judge(&flat).unwrap_err().contains("CONFIG_OVERLAY_FS"));
        let shared = Found {
            missing: vec!["user"],
            ..good()
        };
        assert!(judge(&shared).unwrap_err().contains("no user namespaces"));
        let ungrouped = Found {
            mounts: "22 28 0:21 / /proc rw - proc proc rw\n".to_owned(),
            ..good()
        };
        assert!(judge(&ungrouped).unwrap_err().contains("/sys/fs/cgroup"));
    }
}
