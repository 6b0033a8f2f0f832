//! WORKDIR: makes the directory where it does not exist, owned by the user that later steps run as.

use std::os::fd::AsFd;
use std::path::PathBuf;

use spec::Digest;

use super::scratch::{Scratch, mount};
use super::{StepOperation, Tree, blocking, now, owner, root};
use crate::error::BuildError;

/// A WORKDIR.
#[derive(Debug, Clone)]
pub struct WorkdirStep {
    /// Absolute and cleaned.
    pub path: String,
    /// What USER said before.
    pub user: String,
}

impl WorkdirStep {
    pub fn definition(&self) -> Digest {
        Digest::sha256(format!("workdir {:?} {:?}", self.path, self.user).as_bytes())
    }

    pub async fn run(&self, step: &StepOperation, inputs: &[Tree]) -> Result<Tree, BuildError> {
        let parent = inputs.first().and_then(|tree| tree.snapshot);
        let (this, build) = (self.clone(), step.build.clone());
        blocking(move || {
            let path = PathBuf::from(&this.path);
            let io = |error: std::io::Error| BuildError::io(format_args!("WORKDIR {}", this.path), &error);
            if let Some(parent) = parent {
                let tree = mount(&build.store, parent)?;
                match root::stat_in(tree.as_fd(), &root::clean(&path)).map_err(io)? {
                    Some(stat) if root::is_dir(&stat) => {
                        return Ok(Tree {
                            snapshot: Some(parent),
                            layer: false,
                            created: now(),
                        });
                    }
                    Some(_) => {
                        return Err(BuildError::invalid(format!(
                            "WORKDIR {}: not a directory",
                            this.path
                        )));
                    }
                    None => {}
                }
            }
            let scratch = Scratch::create(&build.store, parent, &build.id)?;
            {
                let tree = scratch.mount()?;
                let user = match this.user.as_str() {
                    "" => None,
                    user => Some(owner::lookup(tree.as_fd(), user)?),
                };
                root::make_dirs(tree.as_fd(), &path, user).map_err(io)?;
            }
            let snapshot = scratch.commit(|id| build.cache.hold(id))?;
            Ok(Tree {
                snapshot: Some(snapshot),
                layer: true,
                created: now(),
            })
        })
        .await
    }
}
