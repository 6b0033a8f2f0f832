//! Actions: what the kernel does with a system call.

use super::Mistake;

pub(crate) const KILL_PROCESS: u32 = 0x8000_0000;
const KILL_THREAD: u32 = 0;
const TRAP: u32 = 0x0003_0000;
const ERRNO: u32 = 0x0005_0000;
const NOTIFY: u32 = 0x7fc0_0000;
const TRACE: u32 = 0x7ff0_0000;
const LOG: u32 = 0x7ffc_0000;
pub(crate) const ALLOW: u32 = 0x7fff_0000;

pub(crate) const NOTIFY_NAME: &str = "SCMP_ACT_NOTIFY";

const EPERM: u32 = 1;
const ENOSYS: u32 = 38;

/// "There is no such system call": what programs expect of a kernel that is older than they are.
pub(crate) const NO_SUCH_CALL: u32 = ERRNO | ENOSYS;

/// The filter's return value for an action of the document.
pub(crate) fn parse(name: &str, errno: Option<u32>) -> Result<u32, Mistake> {
    let errno = errno.unwrap_or(EPERM);
    if errno > 4095 {
        return Err(Mistake::Errno(errno));
    }
    Ok(match name {
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => KILL_THREAD,
        "SCMP_ACT_KILL_PROCESS" => KILL_PROCESS,
        "SCMP_ACT_TRAP" => TRAP,
        "SCMP_ACT_ERRNO" => ERRNO | errno,
        "SCMP_ACT_TRACE" => TRACE | errno,
        "SCMP_ACT_LOG" => LOG,
        "SCMP_ACT_ALLOW" => ALLOW,
        NOTIFY_NAME => NOTIFY,
        other => return Err(Mistake::Action(other.to_owned())),
    })
}

/// How strict: the smaller, the stricter, as the kernel orders the answers of several filters.
pub(crate) fn strictness(action: u32) -> u32 {
    match action & 0xffff_0000 {
        KILL_PROCESS => 0,
        KILL_THREAD => 1,
        TRAP => 2,
        ERRNO => 3,
        NOTIFY => 4,
        TRACE => 5,
        LOG => 6,
        _ => 7,
    }
}

/// Whether a call that gets this action is made after all.
pub(crate) fn lets_through(action: u32) -> bool {
    matches!(action & 0xffff_0000, ALLOW | LOG | TRACE)
}
