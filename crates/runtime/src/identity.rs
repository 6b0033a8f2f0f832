//! What others are told of a container: hooks, and whoever answers for its system calls.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use spec::runtime::{Spec, State, Status, VERSION};

/// The parts of a container's state that never change.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identity {
    pub id: String,
    pub bundle: PathBuf,
    pub annotations: BTreeMap<String, String>,
}

impl Identity {
    pub fn new(spec: &Spec, id: &str, bundle: &Path) -> Identity {
        Identity {
            id: id.to_owned(),
            bundle: bundle.to_owned(),
            annotations: spec.annotations.clone(),
        }
    }

    /// The state as it is now.
    pub fn state(&self, status: Status, pid: Option<i32>) -> State {
        State {
            oci_version: VERSION.to_owned(),
            id: self.id.clone(),
            status,
            pid,
            bundle: self.bundle.clone(),
            annotations: self.annotations.clone(),
        }
    }
}
