//! Builds inside of a definition (`BuildOp`): a file that one operation makes is a definition itself, and what that one
//! makes is the operation's result.
//!
//! They are made before the definition around them is read, each once, however often and wherever it is used.

use std::collections::HashMap;

use bollard_buildkit_proto::pb::{BuildOp, Definition, Op, op};
use build::BuiltContext;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use prost::Message;

use super::graph::{Node, order};
use super::{Place, solve_flat};
use crate::error::Failure;
use crate::files::Look;
use crate::result::Outcome;

/// How deep builds may lie in each other.
const MAX_DEPTH: usize = 8;
/// The input that makes the definition, and the file's name unless another one is said.
const DEFINITION: &str = "buildkit.llb.definition";
/// Under which the file's name is said.
const FILE: &str = "llbbuild.filename";
/// The one builder that there is.
const BUILDER: i64 = -1;

/// Solves a definition and the builds inside of it; `built` has those that were made.
pub fn solve<'a>(
    place: &'a Place<'a>,
    definition: &'a Definition,
    built: &'a mut HashMap<String, BuiltContext>,
    depth: usize,
) -> BoxFuture<'a, Result<Outcome, Failure>> {
    async move {
        if depth > MAX_DEPTH {
            return Err(Failure::invalid(format!(
                "builds lie in each other more than {MAX_DEPTH} deep"
            )));
        }
        let ordered = order(definition)?;
        let last = ordered.wanted.0;
        for (at, node) in ordered.nodes.into_iter().enumerate() {
            if let Some(op::Op::Build(op)) = &node.op.op
                && (at == last || !built.contains_key(&node.digest))
            {
                let maker = maker(definition, &node, op)?;
                let made = solve(place, &maker, built, depth + 1).await?;
                let inner = read(made, op).await?;
                let outcome = solve(place, &inner, built, depth + 1).await?;
                if at == last {
                    // What the definition is about is this result as it is.
                    return Ok(outcome);
                }
                built.insert(node.digest.clone(), outcome.solution.as_context()?);
                // It is used as long as the job is under way.
                place.job.keep(outcome);
            }
        }
        solve_flat(place, definition, built).await
    }
    .boxed()
}

/// The definition of what makes the file.
fn maker(definition: &Definition, node: &Node, op: &BuildOp) -> Result<Definition, Failure> {
    if op.builder != BUILDER {
        return Err(Failure::unimplemented(format!(
            "a build inside of a definition has the builder {}, only {BUILDER} is offered",
            op.builder
        )));
    }
    let input = op.inputs.get(DEFINITION).map(|input| input.input);
    let input = input.and_then(|number| node.op.inputs.get(usize::try_from(number).ok()?));
    let input = input.ok_or_else(|| {
        Failure::invalid(format!(
            "a build inside of a definition has no input {DEFINITION}"
        ))
    })?;
    let end = Op {
        inputs: vec![input.clone()],
        ..Op::default()
    };
    let mut maker = definition.clone();
    maker.def.pop();
    maker.def.push(end.encode_to_vec());
    Ok(maker)
}

/// The definition that was made.
async fn read(made: Outcome, op: &BuildOp) -> Result<Definition, Failure> {
    let name = op.attrs.get(FILE).filter(|name| !name.is_empty());
    let name = name.map_or(DEFINITION, String::as_str).to_owned();
    let read = move || {
        let files = made
            .files()?
            .ok_or_else(|| Failure::not_found(format!("{name} was not made")))?;
        let bytes = Look::at(files).file(&name, None)?;
        Definition::decode(bytes.as_slice())
            .map_err(|error| Failure::invalid(format!("{name} is no definition: {error}")))
    };
    tokio::task::spawn_blocking(read).await.map_err(Failure::broken)?
}

#[cfg(test)]
mod tests {
    use bollard_buildkit_proto::pb::{BuildInput, Input};

    use super::*;

    fn node(op: &BuildOp, inputs: Vec<Input>) -> Node {
        Node {
            digest: "sha256:x".to_owned(),
            op: Op {
                inputs,
                op: Some(op::Op::Build(op.clone())),
                ..Op::default()
            },
            inputs: Vec::new(),
            metadata: Default::default(),
        }
    }

    #[test]
    fn what_makes_the_definition_is_named() {
        let input = Input {
            digest: "sha256:a".to_owned(),
            index: 2,
        };
        let op = BuildOp {
            builder: BUILDER,
            inputs: [(DEFINITION.to_owned(), BuildInput { input: 0 })]
                .into_iter()
                .collect(),
            ..BuildOp::default()
        };
        let whole = Definition {
            def: vec![b"a".to_vec(), b"end".to_vec()],
            ..Definition::default()
        };
        let maker = |op: &BuildOp, inputs| maker(&whole, &node(op, inputs), op);
        let made = maker(&op, vec![input.clone()]).unwrap();
        let end = Op::decode(made.def[1].as_slice()).unwrap();
        assert_eq!((made.def.len(), end.inputs), (2, vec![input.clone()]));
        assert!(maker(&op, Vec::new()).unwrap_err().message.contains("no input"));
        let other = BuildOp {
            builder: 3,
            ..op.clone()
        };
        assert!(
            maker(&other, vec![input.clone()])
                .unwrap_err()
                .message
                .contains("builder 3")
        );
        let none = BuildOp {
            inputs: Default::default(),
            ..op
        };
        assert!(maker(&none, vec![input]).is_err());
    }
}
