//! What the process that relays may do: read and write the sockets it was given, and connect. It talks to whoever reaches
//! the host, so it keeps nothing that a mistake in it could be used for.

use std::io;

use rustix::process::{Pid, Resource, Rlimit, Signal};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};
use sys::caps;

/// Nobody: the kernel's number for users it has no number for.
const NOBODY: u32 = 65534;

/// Gives up every right of the calling process, which has one thread, and has it end with `parent`.
pub fn confine(parent: Pid) -> io::Result<()> {
    rustix::thread::set_name(c"berth-relay")?;
    // Two descriptors for each connection; the limit that was inherited is made for another program.
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let all = Rlimit {
        current: limit.maximum,
        ..limit
    };
    let _ = rustix::process::setrlimit(Resource::Nofile, all);
    rustix::thread::set_no_new_privs(true)?;
    // In a user namespace that has no such number the process stays who it is, without rights all the same.
    let (user, group) = (
        rustix::thread::Uid::from_raw(NOBODY),
        rustix::thread::Gid::from_raw(NOBODY),
    );
    let _ = set_thread_groups(&[]);
    let _ = set_thread_res_gid(group, group, group);
    let _ = set_thread_res_uid(user, user, user);
    caps::set(caps::Set::NONE, caps::Set::NONE, caps::Set::NONE)?;
    // Last, since the kernel forgets it with every change of rights.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    match rustix::process::getppid() == Some(parent) {
        true => Ok(()),
        // It has died before it could be heard of.
        false => Err(io::ErrorKind::NotConnected.into()),
    }
}
