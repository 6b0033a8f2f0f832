//! Images.

pub mod archive;
pub mod build;
pub mod explore;
pub mod history;
pub mod list;
pub mod prune;
pub mod pull;
pub mod remove;
mod tree;
pub mod verify;

use crate::command::Command;

/// What stands both alone and under `image`.
pub const COMMANDS: &[&Command] = &[
    &build::COMMAND,
    &history::COMMAND,
    &archive::IMPORT,
    &archive::LOAD,
    &archive::SAVE,
    &pull::PULL,
    &pull::PUSH,
    &remove::TAG,
];
