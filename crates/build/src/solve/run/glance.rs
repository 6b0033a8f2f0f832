//! What is known without doing or waiting for anything, settled in one go and in the graph's order before there are tasks.
//!
//! A cache that knows all of a build is asked once for everything, and nothing waits for anybody. What is not known at once,
//! and all that lies above it, is left to tasks of its own, which ask again; so is everything where the answers may not
//! be used.

use std::collections::HashMap;
use std::slice;

use spec::Digest;

use super::{Known, Origin, Run, identities, lock};
use crate::solve::{Found, Operation, Solved, VertexId, key};

/// A vertex that is settled: by which key, and how; an equal one's has no origin.
struct Ready<O: Operation> {
    vertex: VertexId,
    own: Digest,
    known: Known<O>,
    origin: Option<Origin>,
}

/// A look at the vertices one after the other.
struct Glance<'r, O: Operation> {
    run: &'r Run<O>,
    rest: slice::Iter<'r, VertexId>,
    settled: Vec<Ready<O>>,
    /// Where vertices, and the first with each key, are among the settled.
    places: HashMap<VertexId, usize>,
    by_key: HashMap<Digest, usize>,
    /// What the cache is asked for: a vertex with its definition and key.
    asked: Option<(VertexId, Digest, Digest)>,
}

impl<O: Operation> Run<O> {
    /// Settles those of the vertices that are known at once, and tells of them.
    pub(super) async fn glance(&self, order: &[VertexId]) {
        if self.conditions.stop.is_cancelled() {
            return;
        }
        let mut glance = Glance {
            run: self,
            rest: order.iter(),
            settled: Vec::new(),
            places: HashMap::new(),
            by_key: HashMap::new(),
            asked: None,
        };
        let held = self
            .conditions
            .cache
            .find_in_turn(&mut |found| glance.next(found));
        // A cache that fails says so to the tasks as well.
        let settled = match held {
            Ok(true) => glance.settled,
            Ok(false) | Err(_) => return,
        };
        for Ready { own, known, .. } in &settled {
            let cell = lock(&self.cells).entry(own.clone()).or_default().clone();
            // Nobody else has begun.
            let _ = cell.set(Ok(known.clone()));
        }
        for Ready {
            vertex,
            known,
            origin,
            ..
        } in settled
        {
            self.tell_settled(vertex, &known, origin).await;
        }
    }
}

impl<O: Operation> Glance<'_, O> {
    /// Takes what the cache found for what it was asked, and goes on to the next question.
    fn next(&mut self, found: Option<Found<O::Value>>) -> Option<Digest> {
        if let (Some((vertex, definition, own)), Some(found)) = (self.asked.take(), found) {
            let (known, origin) = match found {
                Found::Here(solved) => (Known::here(definition, solved), Origin::Cached),
                Found::There(identity) => {
                    let keys = vec![own.clone()];
                    (Known::there(definition, vertex, identity, keys), Origin::There)
                }
            };
            self.settle(vertex, own, known, Some(origin));
        }
        loop {
            let vertex = *self.rest.next()?;
            if let Some(asked) = self.look(vertex) {
                return Some(asked);
            }
        }
    }

    /// Settles a vertex that needs no cache; or gives what the cache is to be asked for.
    fn look(&mut self, id: VertexId) -> Option<Digest> {
        let run = self.run;
        let vertex = run.graph.vertices.get(id.0)?;
        let inputs: Vec<Known<O>> = vertex
            .inputs
            .iter()
            .map(|input| Some(self.settled.get(*self.places.get(input)?)?.known.clone()))
            .collect::<Option<_>>()?;
        let definition = vertex.operation.definition_at_once()?;
        let own = key(&definition, &identities(&inputs));
        if let Some(equal) = self.by_key.get(&own).and_then(|place| self.settled.get(*place)) {
            let known = equal.known.clone();
            self.settle(id, own, known, None);
            return None;
        }
        let values: Option<Vec<O::Value>> = inputs.iter().map(Known::value_here).collect();
        if let Some(value) = values.and_then(|values| vertex.operation.at_once(&values)) {
            let identity = own.clone();
            let known = Known::here(definition, Solved { value, identity });
            self.settle(id, own, known, Some(Origin::Made));
            return None;
        }
        if !run.conditions.use_cache || !vertex.operation.may_be_cached() {
            return None;
        }
        self.asked = Some((id, definition, own.clone()));
        Some(own)
    }

    fn settle(&mut self, vertex: VertexId, own: Digest, known: Known<O>, origin: Option<Origin>) {
        let place = self.settled.len();
        self.places.insert(vertex, place);
        self.by_key.entry(own.clone()).or_insert(place);
        self.settled.push(Ready {
            vertex,
            own,
            known,
            origin,
        });
    }
}
