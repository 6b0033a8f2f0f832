//! A content-addressed solver: runs a graph of operations, each at most once, and skips what a cache knows.
//!
//! It knows nothing of Dockerfiles or containers. Words:
//! - a *vertex* is an operation with the vertices it takes its inputs from;
//! - the *key* of a vertex is a digest over its definition and its inputs' identities;
//! - the *identity* of a result is the key by which those that use it know it: normally the vertex's key, or,
//!   where an operation can say which part of its inputs' content it really uses, the key over that content.
//!   An operation whose inputs were made in another way but hold the same content is then still known, and so
//!   is everything above it.
//!
//! A cache may know a result without having it at hand. Its identity is enough to look up what is above it; the value is
//! brought when something has to be made from it, and made like any other where it cannot be brought.
//!
//! What is known without doing or waiting for anything is settled first, in one go: of most builds that is all.
//!
//! Rules: vertices whose inputs are ready run in parallel, within a limit; vertices with equal keys run once, also in several
//! runs at the same time, where they may use what others made, unless who makes it is held up; the first failure stops everything that has not begun and
//! asks what runs to stop; the solver returns only when nothing runs any more.

mod key;
mod making;
mod run;

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use spec::Digest;
use tokio_util::sync::CancellationToken;

pub use key::key;
pub use making::Making;
pub use run::solve;

/// What a vertex does.
pub trait Operation: Send + Sync + 'static {
    type Value: Clone + Send + Sync + 'static;
    type Error: Clone + Send + Sync + 'static;

    /// A digest over everything but the inputs that the result depends on. Called once, while the inputs are
    /// still being made.
    fn definition(&self) -> BoxFuture<'_, Result<Digest, Self::Error>>;

    /// The definition where nothing has to be waited for to know it. It may be asked for as well.
    fn definition_at_once(&self) -> Option<Digest> {
        None
    }

    /// The result where nothing has to be done for it. Caches are neither asked for it nor told of it, and its content counts
    /// by its key alone.
    fn at_once(&self, _inputs: &[Self::Value]) -> Option<Self::Value> {
        None
    }

    /// For each input, the digest of the part of its content that is used, where the operation can tell. Asked
    /// only after the cache did not know the key. `None` for all: there is no second way to know the result.
    fn contents<'a>(
        &'a self,
        _inputs: &'a [Self::Value],
    ) -> BoxFuture<'a, Result<Option<Vec<Option<Digest>>>, Self::Error>> {
        Box::pin(async { Ok(None) })
    }

    /// Makes the result. Must end soon, leaving nothing behind, when `stop` is cancelled.
    fn run<'a>(
        &'a self,
        inputs: &'a [Self::Value],
        stop: &'a CancellationToken,
    ) -> BoxFuture<'a, Result<Self::Value, Self::Error>>;

    /// Whether a result of an earlier run may be used.
    fn may_be_cached(&self) -> bool {
        true
    }

    /// Whether running it takes one of the limited places for work.
    fn takes_place(&self) -> bool {
        true
    }

    /// Another run makes just this result, and is waited for.
    fn waits(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }

    /// Resolves when making it has waited for somebody who may never answer for longer than others who want the same should
    /// have to: they make it themselves from then on.
    fn stalls(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::pending())
    }
}

/// Names a vertex of one graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VertexId(usize);

impl VertexId {
    /// Its place in the graph.
    pub fn index(self) -> usize {
        self.0
    }
}

struct Vertex<O> {
    operation: O,
    inputs: Vec<VertexId>,
}

/// Operations and what they take from each other; free of cycles, because inputs are added first.
pub struct Graph<O> {
    vertices: Vec<Vertex<O>>,
}

impl<O> Default for Graph<O> {
    fn default() -> Graph<O> {
        Graph { vertices: Vec::new() }
    }
}

/// An input that is not in the graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("vertex {0:?} is used before it is in the graph")]
pub struct UnknownInput(pub VertexId);

impl<O> Graph<O> {
    /// Adds an operation that takes the results of `inputs`, in this order.
    pub fn add(&mut self, operation: O, inputs: &[VertexId]) -> Result<VertexId, UnknownInput> {
        if let Some(&missing) = inputs.iter().find(|input| input.0 >= self.vertices.len()) {
            return Err(UnknownInput(missing));
        }
        self.vertices.push(Vertex {
            operation,
            inputs: inputs.to_vec(),
        });
        Ok(VertexId(self.vertices.len() - 1))
    }

    /// The operation of a vertex.
    pub fn operation(&self, vertex: VertexId) -> Option<&O> {
        self.vertices.get(vertex.0).map(|vertex| &vertex.operation)
    }

    /// What a vertex takes the results of.
    pub fn inputs(&self, vertex: VertexId) -> &[VertexId] {
        self.vertices
            .get(vertex.0)
            .map_or(&[], |vertex| vertex.inputs.as_slice())
    }

    pub fn len(&self) -> usize {
        self.vertices.len()
    }

    pub fn is_empty(&self) -> bool {
        self.vertices.is_empty()
    }
}

/// A result and the digest by which its users know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Solved<V> {
    pub value: V,
    pub identity: Digest,
}

/// What a cache knows of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found<V> {
    Here(Solved<V>),
    /// The result is known by this identity; its value is elsewhere, or nowhere.
    There(Digest),
}

/// What is to be remembered about a result that was made, or brought.
pub struct Made<'a, O: Operation> {
    pub operation: &'a O,
    /// Every key under which the result is to be found again.
    pub keys: &'a [Digest],
    pub inputs: &'a [Digest],
    /// The content of each input by which it is known, too.
    pub parts: Option<&'a [Option<Digest>]>,
    pub solved: &'a Solved<O::Value>,
}

/// A value that a cache brought, and by which content of its inputs it is known.
pub type Brought<V> = (V, Option<Vec<Option<Digest>>>);

/// Remembers results by key.
pub trait Cache<O: Operation>: Send + Sync + 'static {
    /// The result known by `key`.
    fn find(&self, key: &Digest) -> Result<Option<Found<O::Value>>, O::Error>;

    /// Answers questions that depend on each other's answers, from one state of the cache where it can: `next` takes the answer
    /// to the question before, none at first, and gives the next key until it has no more. Gives whether all of the answers
    /// hold; what was found may have gone meanwhile.
    fn find_in_turn(
        &self,
        next: &mut dyn FnMut(Option<Found<O::Value>>) -> Option<Digest>,
    ) -> Result<bool, O::Error> {
        let mut answer = None;
        while let Some(key) = next(answer.take()) {
            answer = self.find(&key)?;
        }
        Ok(true)
    }

    /// Brings the value of a result that `key` was found to lead to elsewhere; `None` where that cannot be.
    fn bring<'a>(&'a self, _key: &'a Digest) -> BoxFuture<'a, Result<Option<Brought<O::Value>>, O::Error>> {
        Box::pin(async { Ok(None) })
    }

    /// Remembers that a result found by another key also has `key`.
    fn also(&self, key: &Digest, solved: &Solved<O::Value>) -> Result<(), O::Error>;

    /// Remembers a result that was made.
    fn keep(&self, made: Made<'_, O>) -> Result<(), O::Error>;
}

/// A result that was not made for a vertex; its value may be nowhere near.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen<V> {
    pub value: Option<V>,
    pub identity: Digest,
}

/// How a vertex ended.
#[derive(Debug, Clone)]
pub enum Outcome<V, E> {
    /// The cache knew the result.
    Cached(Seen<V>),
    /// An equal vertex of the same graph made it.
    Merged(Seen<V>),
    Made(Solved<V>),
    Failed(E),
    /// Given up because of a failure elsewhere or because it was asked for.
    Stopped,
}

/// Is told how each vertex ended: before those that use its value begin.
pub trait Observer<O: Operation>: Send + Sync + 'static {
    fn settled<'a>(&'a self, vertex: VertexId, outcome: &'a Outcome<O::Value, O::Error>)
    -> BoxFuture<'a, ()>;
}

/// What a run needs besides the graph.
pub struct Conditions<O: Operation> {
    pub cache: Arc<dyn Cache<O>>,
    /// Whether results of earlier runs may be used; new ones are remembered in any case.
    pub use_cache: bool,
    pub observer: Arc<dyn Observer<O>>,
    /// Shared by runs with one cache.
    pub making: Arc<Making>,
    /// How many operations may run at a time, at least one.
    pub places: usize,
    pub stop: CancellationToken,
}

/// Why a graph was not solved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SolveError<E> {
    /// The first failure.
    Failed(VertexId, E),
    /// It was asked to stop.
    Stopped,
    /// An operation panicked.
    Broken(VertexId),
}

/// What is to be solved.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    pub targets: &'a [VertexId],
    /// Those of the targets whose values are needed.
    pub values: &'a [VertexId],
    /// Bring of all others what a cache has.
    pub fetch_rest: bool,
}

/// Results by vertex.
pub type Results<V> = BTreeMap<VertexId, Solved<V>>;

/// How one vertex came to its result.
#[derive(Debug, Clone)]
pub struct Trace<V> {
    pub definition: Digest,
    pub identity: Digest,
    pub inputs: Vec<VertexId>,
    /// Where it is here.
    pub value: Option<V>,
}

/// A graph that was solved.
#[derive(Debug, Clone)]
pub struct Done<V> {
    /// Of the vertices whose values were wanted.
    pub results: Results<V>,
    /// Of every vertex.
    pub traces: BTreeMap<VertexId, Trace<V>>,
}

#[cfg(test)]
mod tests;
