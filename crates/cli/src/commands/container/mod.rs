//! Containers.

pub mod attach;
pub mod changes;
pub mod config;
pub mod copy;
pub mod create;
pub mod exec;
pub mod flags;
pub mod lifecycle;
pub mod list;
pub mod logs;
pub mod ports;
pub mod prune;
pub mod run;
pub mod start;
pub mod stats;
mod timings;
pub mod update;
pub mod wait;

use crate::command::Command;

/// What stands both alone and under `container`.
pub const COMMANDS: &[&Command] = &[
    &attach::COMMAND,
    &changes::COMMIT,
    &changes::DIFF,
    &changes::EXPORT,
    &copy::COMMAND,
    &create::COMMAND,
    &exec::COMMAND,
    &lifecycle::KILL,
    &lifecycle::PAUSE,
    &lifecycle::RENAME,
    &lifecycle::RESTART,
    &lifecycle::RM,
    &lifecycle::STOP,
    &lifecycle::TOP,
    &lifecycle::UNPAUSE,
    &logs::COMMAND,
    &ports::COMMAND,
    &run::COMMAND,
    &start::COMMAND,
    &stats::COMMAND,
    &update::COMMAND,
    &wait::COMMAND,
];
