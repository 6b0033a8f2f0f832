//! The child's side of making a container: from the clone to the user's program.
//!
//! Runs in a copy of the caller's memory with only this thread. Whatever fails is told over the handshake and
//! ends the child; its exit code is only for the case that even telling fails.

use std::convert::Infallible;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::net::SocketFlags;
use rustix::process::{DumpableBehavior, Gid, Signal, Uid};
use sys::namespace::Kind;
use sys::process::Options;

use crate::error::{During, LaunchError};
use crate::handshake::{Channel, Stage};
use crate::plan::Plan;
use crate::process::{ProcessPlan, stdio};

/// The closure of the clone: gives the exit code of a child that did not become the program.
pub(crate) fn run(plan: &mut Plan, mut channel: Channel) -> i32 {
    let result = isolate(plan.fds(), plan.cgroup_entry.as_ref(), &plan.process, &channel)
        .and_then(|()| become_container(plan, &mut channel));
    told(result.map(|never| match never {}), &channel)
}

/// The same where the user namespace is joined: this child goes there, and what it clones becomes the program.
pub(crate) fn run_joining(plan: &mut Plan, mut channel: Channel) -> i32 {
    let result = lead(plan, &mut channel);
    told(result, &channel)
}

fn told(result: Result<(), LaunchError>, channel: &Channel) -> i32 {
    match result {
        Ok(()) => 0,
        Err(error) => {
            channel.fail(&error);
            error.exit_code()
        }
    }
}

fn lead(plan: &mut Plan, channel: &mut Channel) -> Result<(), LaunchError> {
    isolate(plan.fds(), plan.cgroup_entry.as_ref(), &plan.process, channel)?;
    plan.namespaces.join_user()?;
    become_root()?;
    let options = Options {
        namespaces: plan.namespaces.at_clone(),
        sibling: true,
        ..Options::default()
    };
    let mut theirs = channel.try_clone()?;
    let born = sys::process::spawn(options, || {
        let result = be_born(&plan.process).and_then(|()| become_container(plan, &mut theirs));
        told(result.map(|never| match never {}), &theirs)
    });
    channel.reach(
        Stage::Joined,
        &[born.during("clone the container's process")?.pidfd.as_fd()],
    )
}

/// In the newborn: what a clone does not inherit, and keys of its own, since those of the one that brought it here
/// belong to a user outside.
fn be_born(process: &ProcessPlan) -> Result<(), LaunchError> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).during("set the death signal")?;
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).during("protect the process")?;
    process.new_keyring()
}

fn become_container(plan: &mut Plan, channel: &mut Channel) -> Result<Infallible, LaunchError> {
    let has_user = plan.namespaces.has_user();
    if has_user {
        channel.expect(Stage::Configured)?;
        become_root()?;
    }
    plan.namespaces.complete()?;
    set_names(plan)?;
    set_sysctls(plan)?;
    plan.namespaces.enter_mounts()?;
    let pair = plan.rootfs.build(&plan.process.cwd, plan.process.terminal)?;
    if !has_user {
        // As late as it may be: the caller sets limits meanwhile, which for another user it may not be able to.
        channel.expect(Stage::Configured)?;
    }
    if plan.hooks.wait_for_mounts() {
        channel.reach(Stage::Mounted, &[])?;
        channel.expect(Stage::Hooked)?;
    }
    plan.hooks.run_create_container()?;
    plan.rootfs.switch(plan.namespaces.mounts())?;
    stdio::place(&plan.stdio, pair.as_ref(), plan.process.console_size)?;
    let program = plan.process.become_ready()?;
    if plan.start_socket.is_some() {
        // From here on the caller may end.
        rustix::process::set_parent_process_death_signal(None).during("clear the death signal")?;
    }
    match &pair {
        Some(pair) => channel.reach(Stage::Ready, &[pair.master.as_fd()])?,
        None => channel.reach(Stage::Ready, &[])?,
    }
    drop(pair);
    if let Some(socket) = &plan.start_socket {
        let connection = rustix::net::accept_with(socket, SocketFlags::CLOEXEC).during("await the start")?;
        *channel = Channel::resumed(connection, Stage::Ready);
    }
    channel.expect(Stage::Started)?;
    plan.hooks.run_start_container()?;
    Err(plan.process.execute(&program, channel))
}

/// What protects the caller and the host from whoever can look at the child, before anything else is done.
pub(crate) fn isolate(
    mut keep: Vec<std::os::fd::RawFd>,
    cgroup: Option<&cgroup::Entry>,
    process: &ProcessPlan,
    channel: &Channel,
) -> Result<(), LaunchError> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).during("set the death signal")?;
    // Other processes of a joined pid namespace may not trace us or read our descriptors and memory.
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).during("protect the process")?;
    if let Some(cgroup) = cgroup {
        // Its descriptors are closed below. It is the caller's copy, which this process never drops.
        cgroup.enter().during("enter the cgroup")?;
    }
    keep.push(channel.as_fd().as_raw_fd());
    sys::fd::close_all_except(&keep).during("close descriptors")?;
    process.new_keyring()?;
    rustix::process::umask(Mode::empty());
    Ok(())
}

/// The first process of a user namespace has all rights in it but still the ids it came with.
pub(crate) fn become_root() -> Result<(), LaunchError> {
    let (uid, gid) = (Uid::ROOT, Gid::ROOT);
    rustix::thread::set_thread_groups(&[]).during("drop groups in the user namespace")?;
    rustix::thread::set_thread_res_gid(gid, gid, gid).during("become group 0 of the user namespace")?;
    rustix::thread::set_thread_res_uid(uid, uid, uid).during("become user 0 of the user namespace")?;
    // The change of ids has cleared it.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).during("set the death signal")?;
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).during("protect the process")
}

fn set_names(plan: &Plan) -> Result<(), LaunchError> {
    if !plan.hostname.is_empty() {
        rustix::system::sethostname(plan.hostname.as_bytes())
            .during(&format!("set the hostname {:?}", plan.hostname))?;
    }
    if !plan.domainname.is_empty() {
        rustix::system::setdomainname(plan.domainname.as_bytes())
            .during(&format!("set the domainname {:?}", plan.domainname))?;
    } else if plan.namespaces.is_new(Kind::Uts) {
        rustix::system::setdomainname(b"(none)").during("reset the domainname")?;
    }
    Ok(())
}

/// Through the host's /proc, before anything of the image could lie over it: what is under /proc/sys belongs to
/// the namespaces of whoever opens it.
fn set_sysctls(plan: &Plan) -> Result<(), LaunchError> {
    if plan.sysctl.is_empty() {
        return Ok(());
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let top = rustix::fs::openat(CWD, c"/proc/sys", flags, Mode::empty()).during("open /proc/sys")?;
    for (path, value) in &plan.sysctl {
        let step = || format!("set sysctl {path} to {value:?}");
        let file = sys::beneath::open_beneath_no_links(top.as_fd(), path, OFlags::WRONLY, Mode::empty())
            .during(&step())?;
        std::fs::File::from(file)
            .write_all(value.as_bytes())
            .during(&step())?;
    }
    Ok(())
}
