//! User, groups and the five capability sets.
//!
//! Names of capabilities that this kernel (or the caller's own bounding set) does not have are left out with a warning: a
//! set written for "everything" must work on a host that has less, and less is never more dangerous.
//!
//! Source: capabilities(7), OCI runtime-spec config.md "Linux Process".

use std::collections::BTreeSet;

use rustix::process::{Gid, Uid};
use spec::runtime::{Capabilities, User};
use sys::caps::{self, Set};

use crate::error::{During, LaunchError};

#[derive(Debug)]
pub(crate) struct Credentials {
    pub uid: u32,
    gid: u32,
    groups: Vec<Gid>,
    sets: Option<Sets>,
}

#[derive(Debug, Clone, Copy)]
struct Sets {
    bounding: Set,
    effective: Set,
    permitted: Set,
    inheritable: Set,
    ambient: Set,
}

impl Credentials {
    pub fn new(user: &User, capabilities: Option<&Capabilities>) -> Credentials {
        let set = |names: &[String]| Set::from_names(names).0;
        let sets = capabilities.map(|wanted| {
            let possible = caps::bounding();
            warn_of_others(wanted, possible);
            let bounding = set(&wanted.bounding).and(possible);
            let permitted = set(&wanted.permitted).and(possible);
            let inheritable = set(&wanted.inheritable).and(possible);
            Sets {
                bounding,
                permitted,
                effective: set(&wanted.effective).and(permitted),
                inheritable,
                ambient: set(&wanted.ambient).and(permitted).and(inheritable),
            }
        });
        Credentials {
            uid: user.uid,
            gid: user.gid,
            groups: user
                .additional_gids
                .iter()
                .map(|gid| Gid::from_raw(*gid))
                .collect(),
            sets,
        }
    }

    /// Becomes the user. With capability sets given, the permitted set survives until `limit`.
    pub fn take(&self) -> Result<(), LaunchError> {
        if let Some(sets) = &self.sets {
            caps::limit_bounding(sets.bounding).during("drop capabilities from the bounding set")?;
            rustix::thread::set_keep_capabilities(true).during("keep capabilities")?;
        }
        // Raw calls: the C library would look for other threads to tell.
        rustix::thread::set_thread_groups(&self.groups).during("set additional groups")?;
        let gid = Gid::from_raw(self.gid);
        rustix::thread::set_thread_res_gid(gid, gid, gid).during(&format!("set gid {}", self.gid))?;
        let uid = Uid::from_raw(self.uid);
        rustix::thread::set_thread_res_uid(uid, uid, uid).during(&format!("set uid {}", self.uid))
    }

    /// Makes what is still permitted effective, for loading the filter.
    pub fn raise_for_filter(&self) -> Result<(), LaunchError> {
        let permitted = caps::permitted().during("capabilities")?;
        caps::set(permitted, permitted, Set::NONE).during("raise capabilities")
    }

    /// The sets that the program gets.
    pub fn limit(&self) -> Result<(), LaunchError> {
        let Some(sets) = &self.sets else { return Ok(()) };
        caps::set(sets.effective, sets.permitted, sets.inheritable).during("set capabilities")?;
        caps::set_ambient(sets.ambient).during("set ambient capabilities")
    }
}

/// Tells of what is asked for and not possible, whichever set it is in.
fn warn_of_others(wanted: &Capabilities, possible: Set) {
    let sets = [
        &wanted.bounding,
        &wanted.effective,
        &wanted.permitted,
        &wanted.inheritable,
        &wanted.ambient,
    ];
    let impossible = |name: &&String| !caps::number(name).is_some_and(|number| possible.contains(number));
    let names: BTreeSet<&str> = sets
        .into_iter()
        .flatten()
        .filter(impossible)
        .map(String::as_str)
        .collect();
    if !names.is_empty() {
        let names = names.into_iter().collect::<Vec<_>>().join(", ");
        tracing::warn!("process.capabilities: {names} cannot be given here and is left out");
    }
}
