//! Ids of a root filesystem that a user namespace has translated.
//!
//! The files of a running container in a user namespace show the ids they have outside of it. An archive holds those
//! from inside, as it does for a container that does not run.

use sys::namespace::{IdRange, inside, outside};

/// What user or group a file belongs to that has no id inside.
const NOBODY: u32 = 65_534;

/// The maps of a user namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ids {
    pub uids: Vec<IdRange>,
    pub gids: Vec<IdRange>,
}

impl Ids {
    /// As the namespace sees an owner.
    pub(crate) fn inside(&self, (uid, gid): (u32, u32)) -> (u32, u32) {
        (
            inside(&self.uids, uid).unwrap_or(NOBODY),
            inside(&self.gids, gid).unwrap_or(NOBODY),
        )
    }

    /// What an owner in the namespace is outside; an owner that the namespace does not have is nothing.
    pub(crate) fn outside(&self, (uid, gid): (u32, u32)) -> Option<(u32, u32)> {
        Some((outside(&self.uids, uid)?, outside(&self.gids, gid)?))
    }
}
