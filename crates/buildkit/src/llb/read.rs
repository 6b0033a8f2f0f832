//! What the operations of a definition mean.

use std::collections::{BTreeMap, HashMap};

use bollard_buildkit_proto::pb::{Definition, Op, Platform as Wanted, op};
use build::BuiltContext;
use build::recipe::{Action, Operation, Output, Recipe};
use spec::Platform;

use super::graph::{Node, order};
use super::{exec, files, source};
use crate::error::Failure;
use crate::session::Directory;

/// A definition that was understood.
#[derive(Debug)]
pub struct Read {
    pub recipe: Recipe,
    /// Directories of the client, by the names that the recipe has for them.
    pub directories: BTreeMap<String, Directory>,
    /// Sessions other than the build's own that serve one, by the client's name of it.
    pub sessions: HashMap<String, String>,
    /// For which platform the last operation is.
    pub platform: Option<Platform>,
}

/// Finds what a source stands for, where it is a result of this engine.
pub type Results<'a> = dyn Fn(&str) -> Result<Option<BuiltContext>, Failure> + 'a;

/// What has to be known before a definition is read.
pub struct Known<'a> {
    pub results: &'a Results<'a>,
    /// Images that came out of the client's stores, by the digests of the operations that take them.
    pub layouts: &'a HashMap<String, String>,
    /// What builds inside of the definition made, by their digests.
    pub built: &'a HashMap<String, BuiltContext>,
}

/// One operation while it is read.
pub struct Place<'a> {
    pub node: &'a Node,
}

impl Place<'_> {
    /// The input of this number; `None` for -1.
    pub fn input(&self, number: i64) -> Result<Option<Output>, Failure> {
        if number == -1 {
            return Ok(None);
        }
        let found = usize::try_from(number)
            .ok()
            .and_then(|number| self.node.inputs.get(number));
        match found {
            Some((operation, number)) => Ok(Some(Output {
                operation: *operation,
                number: *number,
            })),
            None => Err(Failure::invalid(format!(
                "an operation uses its input {number} and has {}",
                self.node.inputs.len()
            ))),
        }
    }
}

/// Reads a definition.
pub fn read(definition: &Definition, known: &Known<'_>) -> Result<Read, Failure> {
    let ordered = order(definition)?;
    let mut directories = BTreeMap::new();
    let mut sessions = HashMap::new();
    let mut operations = Vec::with_capacity(ordered.nodes.len());
    let mut platform = None;
    for node in &ordered.nodes {
        let place = Place { node };
        let (title, action) = match &node.op.op {
            Some(op::Op::Source(op)) => {
                let mut found = source::Found {
                    number: operations.len(),
                    digest: &node.digest,
                    directories: &mut directories,
                    sessions: &mut sessions,
                    known,
                };
                (source::title(op), source::read(op, &mut found)?)
            }
            Some(op::Op::Exec(op)) => {
                let exec = exec::read(op, &place)?;
                (exec.args.join(" "), Action::Exec(Box::new(exec)))
            }
            Some(op::Op::File(op)) => {
                let actions = files::read(op, &place)?;
                (files::title(op), Action::Files(actions))
            }
            Some(op::Op::Merge(op)) => {
                let inputs = op.inputs.iter().map(|input| place.input(input.input));
                (
                    "merge".to_owned(),
                    Action::Merge(inputs.collect::<Result<_, _>>()?),
                )
            }
            Some(op::Op::Diff(op)) => {
                let lower = op.lower.as_ref().map_or(-1, |lower| lower.input);
                let upper = op.upper.as_ref().map_or(-1, |upper| upper.input);
                let action = Action::Difference {
                    lower: place.input(lower)?,
                    upper: place.input(upper)?,
                };
                ("diff".to_owned(), action)
            }
            Some(op::Op::Build(_)) => match known.built.get(&node.digest) {
                Some(built) => ("build".to_owned(), Action::Built(Box::new(built.clone()))),
                None => {
                    return Err(Failure::internal(
                        "a build inside of the definition was not made first",
                    ));
                }
            },
            None => {
                return Err(Failure::unimplemented(
                    "the definition has an operation of an unknown kind",
                ));
            }
        };
        let named = node.metadata.description.get("llb.customname");
        platform = platform_of(&node.op).or(platform);
        operations.push(Operation {
            title: named.cloned().unwrap_or(title),
            anew: node.metadata.ignore_cache,
            platform: platform_of(&node.op),
            action,
        });
    }
    Ok(Read {
        recipe: Recipe {
            operations,
            wanted: Output {
                operation: ordered.wanted.0,
                number: ordered.wanted.1,
            },
        },
        directories,
        sessions,
        platform,
    })
}

pub fn platform_of(op: &Op) -> Option<Platform> {
    op.platform.as_ref().map(|wanted: &Wanted| {
        let variant = Some(wanted.variant.as_str()).filter(|variant| !variant.is_empty());
        Platform::new(&wanted.os, &wanted.architecture, variant)
    })
}
