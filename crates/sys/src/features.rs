//! Which system calls the kernel has, or lets this process have: a filter over it (seccomp(2)) may hide some.
//!
//! Each call is made with arguments that no kernel accepts, so nothing happens; only one that is not there says ENOSYS.

use std::ptr::null;

/// A call that is needed and has no fallback, with the first kernel that has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call {
    pub name: &'static str,
    pub since: &'static str,
}

const NO_FD: libc::c_long = -1;
const NOTHING: *const libc::c_void = null();
const NO_FLAGS: libc::c_long = 0;

/// Those that are not there.
pub fn missing_calls() -> Vec<Call> {
    let probes = [
        (
            "pidfd_send_signal",
            "5.1",
            is_missing(libc::SYS_pidfd_send_signal, NO_FD),
        ),
        // Nothing of size zero is a request.
        ("clone3", "5.3", is_missing(libc::SYS_clone3, NO_FLAGS)),
        ("fsopen", "5.2", is_missing(libc::SYS_fsopen, NO_FLAGS)),
        ("open_tree", "5.2", is_missing(libc::SYS_open_tree, NO_FD)),
        ("move_mount", "5.2", is_missing(libc::SYS_move_mount, NO_FD)),
        ("pidfd_open", "5.3", is_missing(libc::SYS_pidfd_open, NO_FD)),
        ("openat2", "5.6", is_missing(libc::SYS_openat2, NO_FD)),
        ("close_range", "5.9", is_missing(libc::SYS_close_range, NO_FD)),
        (
            "mount_setattr",
            "5.12",
            is_missing(libc::SYS_mount_setattr, NO_FD),
        ),
        ("seccomp", "3.17", is_missing(libc::SYS_seccomp, NO_FD)),
    ];
    probes
        .into_iter()
        .filter(|(_, _, missing)| *missing)
        .map(|(name, since, _)| Call { name, since })
        .collect()
}

/// The call with a first argument that stands for nothing, and none behind it.
fn is_missing(call: libc::c_long, first: libc::c_long) -> bool {
    // SAFETY: every pointer among the arguments is null and every length zero, which each of these calls refuses before
    // it does anything: clone3 by the structure of no size; fsopen by the null name; open_tree, move_mount, openat2, mount_setattr, pidfd_open and
    // pidfd_send_signal by the descriptor or process -1 or the null path or structure; seccomp by the operation -1;
    // close_range(-1, 0) because the first is behind the last.
    let result = unsafe { libc::syscall(call, first, NOTHING, NOTHING, NOTHING, NOTHING) };
    result == -1 && std::io::Error::last_os_error().raw_os_error() == Some(libc::ENOSYS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_kernel_has_all_and_none_that_does_not_exist() {
        assert_eq!(missing_calls(), []);
        // Not given away on any architecture.
        assert!(is_missing(100_000, NO_FD));
        // Nothing was closed by asking.
        assert!(crate::fd::is_open(0) || crate::fd::is_open(1) || crate::fd::is_open(2));
    }
}
