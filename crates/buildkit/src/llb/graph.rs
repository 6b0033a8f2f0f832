//! The operations of a definition in an order in which each comes after those it uses.

use std::collections::HashMap;

use bollard_buildkit_proto::pb::{Definition, Input, Op, OpMetadata};
use prost::Message;
use spec::Digest;

use crate::error::Failure;

/// The most operations of one definition.
const MAX_OPERATIONS: usize = 20_000;
/// The most inputs of one operation.
const MAX_INPUTS: usize = 4_096;

/// One operation; its inputs are places in the order, and numbers of results.
pub struct Node {
    /// By what others name it.
    pub digest: String,
    pub op: Op,
    pub inputs: Vec<(usize, usize)>,
    pub metadata: OpMetadata,
}

/// Everything that is wanted, and the last operation with the number of its result.
pub struct Ordered {
    pub nodes: Vec<Node>,
    pub wanted: (usize, usize),
}

fn number(input: &Input) -> Result<usize, Failure> {
    usize::try_from(input.index).map_err(|_| {
        Failure::invalid(format!(
            "the definition asks for result {} of an operation",
            input.index
        ))
    })
}

/// Puts a definition in order. Operations that nothing wanted uses are left out.
pub fn order(definition: &Definition) -> Result<Ordered, Failure> {
    if definition.def.len() > MAX_OPERATIONS {
        return Err(Failure::invalid(format!(
            "the definition has {} operations, and {MAX_OPERATIONS} are the most",
            definition.def.len()
        )));
    }
    let mut ops = Vec::with_capacity(definition.def.len());
    let mut places = HashMap::new();
    for (place, bytes) in definition.def.iter().enumerate() {
        let op = Op::decode(bytes.as_slice()).map_err(|error| {
            Failure::invalid(format!(
                "operation {place} of the definition cannot be read: {error}"
            ))
        })?;
        if op.inputs.len() > MAX_INPUTS {
            return Err(Failure::invalid(format!(
                "operation {place} of the definition has more than {MAX_INPUTS} inputs"
            )));
        }
        let digest = Digest::sha256(bytes).to_string();
        places.insert(digest.clone(), place);
        ops.push((digest, op));
    }
    let place_of = |input: &Input| {
        places.get(&input.digest).copied().ok_or_else(|| {
            Failure::invalid(format!(
                "the definition uses {} and does not hold it",
                input.digest
            ))
        })
    };
    let last = ops
        .last()
        .map(|(_, op)| op)
        .ok_or_else(|| Failure::invalid("the definition is empty"))?;
    let (None, [end]) = (&last.op, last.inputs.as_slice()) else {
        return Err(Failure::invalid(
            "the definition does not end with what it is about",
        ));
    };
    let (end, wanted) = (place_of(end)?, number(end)?);

    // Digests make cycles impossible; what is waited for twice is a broken digest function, and an error all the same.
    let mut order: Vec<usize> = Vec::new();
    let mut position: HashMap<usize, Option<usize>> = HashMap::new();
    let mut waiting = vec![(end, false)];
    while let Some((place, ready)) = waiting.pop() {
        if ready {
            position.insert(place, Some(order.len()));
            order.push(place);
            continue;
        }
        match position.get(&place) {
            Some(Some(_)) => continue,
            Some(None) => return Err(Failure::invalid("the definition uses itself")),
            None => {}
        }
        position.insert(place, None);
        waiting.push((place, true));
        let inputs = ops
            .get(place)
            .map(|(_, op)| op.inputs.as_slice())
            .unwrap_or_default();
        for input in inputs.iter().rev() {
            let below = place_of(input)?;
            if !matches!(position.get(&below), Some(Some(_))) {
                waiting.push((below, false));
            }
        }
    }
    let mut nodes = Vec::with_capacity(order.len());
    for place in &order {
        let Some((digest, op)) = ops.get_mut(*place) else {
            continue;
        };
        let op = std::mem::take(op);
        let mut inputs = Vec::with_capacity(op.inputs.len());
        for input in &op.inputs {
            let at = position.get(&place_of(input)?).copied().flatten();
            let at = at.ok_or_else(|| Failure::internal("an operation is not in order"))?;
            inputs.push((at, number(input)?));
        }
        nodes.push(Node {
            digest: digest.clone(),
            metadata: definition.metadata.get(digest).cloned().unwrap_or_default(),
            op,
            inputs,
        });
    }
    let last = nodes.len().saturating_sub(1);
    Ok(Ordered {
        nodes,
        wanted: (last, wanted),
    })
}
