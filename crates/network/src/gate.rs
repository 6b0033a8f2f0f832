//! The gate's links on the host: a veth pair, both ends in the host's namespace, for `firewall: respect-host` (see
//! `firewall::gate`). Both ends have one hardware address and ask for no neighbours, so what goes out by one comes in by
//! the other as it is.

use sys::netlink::Socket;

use crate::error::Error;
use crate::firewall::Gate;
use crate::host;
use crate::link::{self, GateEnds};

/// The names of the two ends: outer and inner.
fn names(tag: &str) -> (String, String) {
    let digits: String = tag
        .chars()
        .rev()
        .take(6)
        .collect::<Vec<_>>()
        .into_iter()
        .rev()
        .collect();
    (format!("gate{digits}o"), format!("gate{digits}i"))
}

pub(crate) fn alias(tag: &str) -> String {
    format!("{tag}:gate")
}

/// Whether a link of this name is an end of the instance's gate.
pub(crate) fn is_end(tag: &str, name: &str) -> bool {
    let (outer, inner) = names(tag);
    name == outer || name == inner
}

/// Makes the gate, or takes over the one that is there.
pub(crate) fn ensure(route: &mut Socket, tag: &str) -> Result<Gate, Error> {
    let (outer, inner) = names(tag);
    let action = || format!("make the link {outer} for firewall: respect-host");
    let ends = GateEnds {
        outer: &outer,
        inner: &inner,
        alias: &alias(tag),
    };
    let index = link::ensure_gate(route, &ends).map_err(Error::kernel(action()))?;
    host::prepare_gate(&inner);
    Ok(Gate { outer: index, inner })
}

/// Removes it where it is.
pub(crate) fn remove(route: &mut Socket, tag: &str) -> Result<(), Error> {
    let (outer, _) = names(tag);
    link::remove(route, std::slice::from_ref(&outer))
        .map_err(Error::kernel(format!("remove the link {outer}")))
}
