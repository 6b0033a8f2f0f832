//! The commands, grouped as the command line groups them.

pub mod completion;
pub mod container;
pub mod context;
mod debug;
pub mod image;
pub mod inspect;
mod isolation;
pub mod manifest;
pub mod network;
mod pruning;
pub mod registry;
pub mod system;
pub mod volume;

use crate::command::{Command, Group};

/// Commands that stand alone beside those of [`container::COMMANDS`] and [`image::COMMANDS`].
const ALONE: &[&Command] = &[
    &container::list::PS,
    &image::list::IMAGES,
    &image::remove::RMI,
    &inspect::ANY,
    &system::events::COMMAND,
    &system::info::COMMAND,
    &system::version::COMMAND,
    &registry::LOGIN,
    &registry::LOGOUT,
    &registry::SEARCH,
    &completion::COMMAND,
];

/// All commands that stand alone.
pub fn alone() -> impl Iterator<Item = &'static Command> {
    [ALONE, container::COMMANDS, image::COMMANDS]
        .into_iter()
        .flatten()
        .copied()
}

/// What stands under `container` and `image` only there.
const CONTAINER: &[&Command] = &[
    &container::list::LS,
    &container::prune::COMMAND,
    &inspect::CONTAINER,
];
const IMAGE: &[&Command] = &[
    &image::explore::DIFF,
    &image::explore::EXPLORE,
    &image::list::LS,
    &image::prune::IMAGES,
    &image::remove::RM,
    &image::verify::COMMAND,
    &inspect::IMAGE,
];

const BUILDER: &[&Command] = &[&image::build::COMMAND, &image::prune::BUILDER];
const SYSTEM: &[&Command] = &[
    &system::usage::COMMAND,
    &system::events::COMMAND,
    &system::info::COMMAND,
    &system::prune::COMMAND,
    &system::check::COMMAND,
    &system::DIAL_STDIO,
];

/// Words that hold commands.
pub const GROUPS: &[(&str, &str, &[&[&Command]])] = &[
    ("builder", "Manage builds", &[BUILDER]),
    (
        "container",
        "Manage containers",
        &[container::COMMANDS, CONTAINER],
    ),
    ("context", "Manage contexts", &[context::COMMANDS]),
    ("debug", "See what the engine is doing", &[&[&debug::TASKS]]),
    ("image", "Manage images", &[image::COMMANDS, IMAGE]),
    (
        "manifest",
        "Manage indexes of several platforms",
        &[manifest::COMMANDS],
    ),
    ("network", "Manage networks", &[network::COMMANDS]),
    ("system", "Manage the engine", &[SYSTEM]),
    ("volume", "Manage volumes", &[volume::COMMANDS]),
];

/// Two words that hold commands: the first is a group as well.
pub const NESTED: &[(&str, &str, &[&[&Command]])] = &[
    (
        "volume snapshot",
        "Manage what volumes held once",
        &[volume::snapshot::COMMANDS],
    ),
    (
        "volume trash",
        "Manage removed volumes that can be had back",
        &[volume::trash::COMMANDS],
    ),
];

/// A word's commands, sorted by name.
pub fn group(name: &str) -> Option<Group> {
    let (name, about, parts) = GROUPS.iter().chain(NESTED).find(|(known, _, _)| *known == name)?;
    let mut commands: Vec<&'static Command> = parts.iter().flat_map(|part| part.iter().copied()).collect();
    commands.sort_by_key(|command| command.name);
    Some(Group {
        name,
        about,
        commands,
    })
}
