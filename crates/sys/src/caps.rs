//! Capabilities: their names, sets of them, and giving the calling thread its five sets.
//!
//! A set is 64 bits, bit n = capability n. Names are the kernel's with `CAP_` before them. What the kernel
//! has and this table lacks (or the reverse) is never an error here: unknown names are reported back to the
//! caller, who knows whether that matters.
//!
//! Sources: capabilities(7), capset(2), prctl(2) PR_CAPBSET_DROP, PR_CAP_AMBIENT.

use std::io;

use rustix::thread::{CapabilitySet, CapabilitySets};

/// By number, up to Linux 5.9 (`CAP_CHECKPOINT_RESTORE`), the newest there is.
pub const NAMES: [&str; 41] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// Capabilities by number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Set(pub u64);

impl Set {
    pub const NONE: Set = Set(0);

    pub fn contains(self, number: u32) -> bool {
        number < 64 && self.0 & (1 << number) != 0
    }
    pub fn and(self, other: Set) -> Set {
        Set(self.0 & other.0)
    }
    pub fn or(self, other: Set) -> Set {
        Set(self.0 | other.0)
    }
    pub fn without(self, other: Set) -> Set {
        Set(self.0 & !other.0)
    }
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The set of these names, and the names that are none. Case does not matter, `CAP_` may be missing.
    pub fn from_names<S: AsRef<str>>(names: &[S]) -> (Set, Vec<String>) {
        let (mut set, mut unknown) = (Set::NONE, Vec::new());
        for name in names {
            match number(name.as_ref()) {
                Some(number) => set.0 |= 1 << number,
                None => unknown.push(name.as_ref().to_owned()),
            }
        }
        (set, unknown)
    }

    /// The names of the set, by number.
    pub fn names(self) -> Vec<&'static str> {
        (0..)
            .zip(NAMES)
            .filter(|(number, _)| self.contains(*number))
            .map(|(_, name)| name)
            .collect()
    }
}

/// A capability's number.
pub fn number(name: &str) -> Option<u32> {
    let upper = name.to_ascii_uppercase();
    let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
    NAMES
        .iter()
        .position(|known| &known[4..] == bare)
        .and_then(|number| u32::try_from(number).ok())
}

/// The calling thread's permitted set.
pub fn permitted() -> io::Result<Set> {
    Ok(Set(rustix::thread::capabilities(None)?.permitted.bits()))
}

/// The calling thread's bounding set: what it or anything it becomes may ever have.
pub fn bounding() -> Set {
    let mut set = Set::NONE;
    for number in 0..64 {
        // SAFETY: integer arguments; unknown numbers are answered with EINVAL.
        let result = unsafe { libc::prctl(libc::PR_CAPBSET_READ, number, 0, 0, 0) };
        if result < 0 {
            break;
        }
        if result == 1 {
            set.0 |= 1 << number;
        }
    }
    set
}

/// Removes from the bounding set what `keep` does not have. Needs CAP_SETPCAP.
pub fn limit_bounding(keep: Set) -> io::Result<()> {
    for number in 0..64 {
        if keep.contains(number) {
            continue;
        }
        // SAFETY: integer arguments.
        if unsafe { libc::prctl(libc::PR_CAPBSET_DROP, number, 0, 0, 0) } != 0 {
            let error = io::Error::last_os_error();
            if error.raw_os_error() == Some(libc::EINVAL) {
                break; // the first number the kernel does not know
            }
            return Err(error);
        }
    }
    Ok(())
}

/// Sets the three sets of the calling thread.
pub fn set(effective: Set, permitted: Set, inheritable: Set) -> io::Result<()> {
    Ok(rustix::thread::set_capabilities(
        None,
        CapabilitySets {
            effective: CapabilitySet::from_bits_retain(effective.0),
            permitted: CapabilitySet::from_bits_retain(permitted.0),
            inheritable: CapabilitySet::from_bits_retain(inheritable.0),
        },
    )?)
}

/// Makes the ambient set equal to `ambient`; each must be permitted and inheritable.
pub fn set_ambient(ambient: Set) -> io::Result<()> {
    rustix::thread::clear_ambient_capability_set()?;
    for number in (0..64).filter(|number| ambient.contains(*number)) {
        // SAFETY: integer arguments.
        let result = unsafe {
            libc::prctl(
                libc::PR_CAP_AMBIENT,
                libc::PR_CAP_AMBIENT_RAISE,
                libc::c_ulong::from(number),
                0,
                0,
            )
        };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_agree() {
        assert_eq!(number("CAP_CHOWN"), Some(0));
        assert_eq!(number("sys_admin"), Some(21));
        assert_eq!(number("CAP_CHECKPOINT_RESTORE"), Some(40));
        assert_eq!(number("CAP_"), None);
        let (set, unknown) = Set::from_names(&["CAP_KILL", "CAP_TELEPORT", "net_raw"]);
        assert_eq!(set.names(), ["CAP_KILL", "CAP_NET_RAW"]);
        assert_eq!(unknown, ["CAP_TELEPORT"]);
    }
}
