//! Running a graph: one task per vertex, each waiting for its inputs, for an equal vertex, for a place.
//!
//! A vertex is settled when it is known what its result is called, which is all that a lookup of those above it needs. The
//! value itself may still have to be brought here ([`There`]); that is done for the first who needs it, once.

mod bring;
mod glance;

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use futures_util::FutureExt;
use futures_util::future::{self, BoxFuture, Shared, join_all};
use spec::Digest;
use tokio::sync::{OnceCell, Semaphore};

use super::making::Claim;
use super::{
    Conditions, Done, Found, Graph, Made, Operation, Outcome, Results, Seen, SolveError, Solved, Trace,
    VertexId, Wanted, key,
};

/// Why a vertex has no result.
#[derive(Debug, Clone)]
enum Halt<E> {
    Failed(E),
    Stopped,
    Broken,
}

type Value<O> = Result<<O as Operation>::Value, Halt<<O as Operation>::Error>>;
type Settled<O> = Result<Known<O>, Halt<<O as Operation>::Error>>;
type Waiting<O> = Shared<BoxFuture<'static, Settled<O>>>;

/// A result as those that use it see it.
struct Known<O: Operation> {
    definition: Digest,
    identity: Digest,
    way: Arc<Way<O>>,
}

impl<O: Operation> Clone for Known<O> {
    fn clone(&self) -> Known<O> {
        Known {
            definition: self.definition.clone(),
            identity: self.identity.clone(),
            way: self.way.clone(),
        }
    }
}

impl<O: Operation> Known<O> {
    fn here(definition: Digest, solved: Solved<O::Value>) -> Known<O> {
        Known {
            definition,
            identity: solved.identity,
            way: Arc::new(Way::Here(solved.value)),
        }
    }

    /// What is elsewhere, where all of `keys` lead to it.
    fn there(definition: Digest, vertex: VertexId, identity: Digest, keys: Vec<Digest>) -> Known<O> {
        Known {
            definition,
            identity,
            way: Arc::new(Way::There(There {
                vertex,
                keys,
                value: OnceCell::new(),
                told: AtomicBool::new(false),
            })),
        }
    }

    fn value_here(&self) -> Option<O::Value> {
        match &*self.way {
            Way::Here(value) => Some(value.clone()),
            Way::There(there) => there.value.get().and_then(|value| value.clone().ok()),
        }
    }
}

/// How to get at a value.
enum Way<O: Operation> {
    Here(O::Value),
    There(There<O>),
}

/// A result that a cache knows and that is not here: brought when somebody needs it, and made where it cannot be.
struct There<O: Operation> {
    vertex: VertexId,
    /// Every key that leads to it; the last is the one the cache knows.
    keys: Vec<Digest>,
    value: OnceCell<Value<O>>,
    told: AtomicBool,
}

/// How a result came about in the cell that equal vertices share.
enum Origin {
    Cached,
    /// It is told when it is known whether the value could be brought here.
    There,
    Made,
}

struct Run<O: Operation> {
    graph: Arc<Graph<O>>,
    conditions: Conditions<O>,
    places: Semaphore,
    /// What is known of each vertex of the graph. Results do not hold each other, or as many would be let go of inside
    /// each other as lie on each other.
    known: Vec<OnceLock<Known<O>>>,
    /// One cell per key, so that equal vertices run once.
    cells: Mutex<HashMap<Digest, Arc<OnceCell<Settled<O>>>>>,
    first_failure: Mutex<Option<(VertexId, Halt<O::Error>)>>,
}

/// Solves what `wanted` needs. When the returned future is dropped, everything is asked to stop.
pub async fn solve<O: Operation>(
    graph: Arc<Graph<O>>,
    wanted: Wanted<'_>,
    conditions: Conditions<O>,
) -> Result<Done<O::Value>, SolveError<O::Error>> {
    // Failures stop the others through a token of this run alone; the caller's token stays as it is.
    let conditions = Conditions {
        stop: conditions.stop.child_token(),
        ..conditions
    };
    let _stop_when_dropped = conditions.stop.clone().drop_guard();
    let run = Arc::new(Run {
        places: Semaphore::new(conditions.places.max(1)),
        known: graph.vertices.iter().map(|_| OnceLock::new()).collect(),
        graph: graph.clone(),
        conditions,
        cells: Mutex::new(HashMap::new()),
        first_failure: Mutex::new(None),
    });
    let order = reachable(&graph, wanted.targets);
    run.glance(&order).await;
    let mut waiting: HashMap<VertexId, Waiting<O>> = HashMap::new();
    for id in &order {
        let Some(vertex) = graph.vertices.get(id.0) else {
            continue;
        };
        if let Some(known) = run.known(*id) {
            let known = future::ready(Ok(known.clone()));
            waiting.insert(*id, known.boxed().shared());
            continue;
        }
        let inputs: Vec<Waiting<O>> = vertex
            .inputs
            .iter()
            .filter_map(|input| waiting.get(input).cloned())
            .collect();
        waiting.insert(*id, run.clone().watched(*id, run.clone().settle(*id, inputs)));
    }
    join_all(waiting.values().cloned()).await;
    run.clone().values_of(&wanted, &order).await;
    // What nobody needed until now is not needed any more.
    for known in order.iter().filter_map(|id| run.known(*id)) {
        run.tell_known(known).await;
    }
    if let Some((id, halt)) = lock(&run.first_failure).take() {
        return Err(match halt {
            Halt::Failed(error) => SolveError::Failed(id, error),
            Halt::Broken => SolveError::Broken(id),
            Halt::Stopped => SolveError::Stopped,
        });
    }
    let mut done = Done {
        results: Results::new(),
        traces: BTreeMap::new(),
    };
    for id in order {
        let Some(known) = run.known(id) else {
            return Err(SolveError::Stopped);
        };
        let value = known.value_here();
        if wanted.values.contains(&id) {
            let Some(value) = value.clone() else {
                return Err(SolveError::Stopped);
            };
            let identity = known.identity.clone();
            done.results.insert(id, Solved { value, identity });
        }
        let trace = Trace {
            definition: known.definition.clone(),
            identity: known.identity.clone(),
            inputs: graph.inputs(id).to_vec(),
            value,
        };
        done.traces.insert(id, trace);
    }
    Ok(done)
}

/// The targets and everything below them, inputs first.
fn reachable<O>(graph: &Graph<O>, targets: &[VertexId]) -> Vec<VertexId> {
    let mut seen = vec![false; graph.vertices.len()];
    let mut stack: Vec<VertexId> = targets.to_vec();
    while let Some(id) = stack.pop() {
        if let Some(mark) = seen.get_mut(id.0).filter(|mark| !**mark) {
            *mark = true;
            stack.extend(
                graph
                    .vertices
                    .get(id.0)
                    .into_iter()
                    .flat_map(|vertex| vertex.inputs.iter()),
            );
        }
    }
    seen.iter()
        .enumerate()
        .filter(|(_, seen)| **seen)
        .map(|(index, _)| VertexId(index))
        .collect()
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<O: Operation> Run<O> {
    /// What is known of a vertex that is settled.
    fn known(&self, id: VertexId) -> Option<&Known<O>> {
        self.known.get(id.0)?.get()
    }

    /// Records the first failure and asks everything else to stop.
    fn note(&self, vertex: VertexId, halt: Halt<O::Error>) {
        lock(&self.first_failure).get_or_insert((vertex, halt));
        self.conditions.stop.cancel();
    }

    /// Work for a vertex as a task of its own, so that a panic in it is a failure.
    fn watched<T: Clone + Send + Sync + 'static>(
        self: Arc<Self>,
        id: VertexId,
        work: impl Future<Output = Result<T, Halt<O::Error>>> + Send + 'static,
    ) -> Shared<BoxFuture<'static, Result<T, Halt<O::Error>>>> {
        let task = tokio::spawn(work);
        let watched = async move {
            match task.await {
                Ok(done) => done,
                Err(_) => {
                    self.note(id, Halt::Broken);
                    Err(Halt::Broken)
                }
            }
        };
        watched.boxed().shared()
    }

    async fn settle(self: Arc<Self>, id: VertexId, inputs: Vec<Waiting<O>>) -> Settled<O> {
        let mut origin = None;
        let settled = self.clone().solve_vertex(id, inputs, &mut origin).await;
        if let Ok(known) = &settled {
            self.tell_settled(id, known, origin).await;
            return settled;
        }
        let outcome = match &settled {
            Err(Halt::Failed(error)) => {
                self.note(id, Halt::Failed(error.clone()));
                Outcome::Failed(error.clone())
            }
            _ => Outcome::Stopped,
        };
        self.conditions.observer.settled(id, &outcome).await;
        settled
    }

    /// Notes what is known of a vertex, and tells how it came about; without an origin it is an equal vertex's.
    async fn tell_settled(&self, id: VertexId, known: &Known<O>, origin: Option<Origin>) {
        if let Some(slot) = self.known.get(id.0) {
            let _ = slot.set(known.clone());
        }
        let outcome = match (origin, known.value_here()) {
            (Some(Origin::There), _) => return,
            (Some(Origin::Cached), _) => Outcome::Cached(seen(known)),
            (None, _) => Outcome::Merged(seen(known)),
            (Some(Origin::Made), Some(value)) => Outcome::Made(Solved {
                value,
                identity: known.identity.clone(),
            }),
            (Some(Origin::Made), None) => Outcome::Stopped,
        };
        self.conditions.observer.settled(id, &outcome).await;
    }

    async fn solve_vertex(
        self: Arc<Self>,
        id: VertexId,
        inputs: Vec<Waiting<O>>,
        origin: &mut Option<Origin>,
    ) -> Settled<O> {
        let Some(vertex) = self.graph.vertices.get(id.0) else {
            return Err(Halt::Stopped);
        };
        let operation = &vertex.operation;
        let (definition, inputs) = tokio::join!(operation.definition(), join_all(inputs));
        let definition = definition.map_err(Halt::Failed)?;
        // The failure itself is reported where it happened.
        let inputs: Vec<Known<O>> = inputs
            .into_iter()
            .collect::<Result<_, _>>()
            .map_err(|_| Halt::Stopped)?;
        let own = key(&definition, &identities(&inputs));
        let cell = lock(&self.cells).entry(own.clone()).or_default().clone();
        let work = async {
            let (settled, from) = match self.clone().find_or_make(id, &definition, own, inputs).await {
                Ok((known, origin)) => (Ok(known), origin),
                Err(halt) => (Err(halt), Origin::Made),
            };
            *origin = Some(from);
            settled
        };
        cell.get_or_init(|| work).await.clone()
    }

    async fn find_or_make(
        self: Arc<Self>,
        id: VertexId,
        definition: &Digest,
        own: Digest,
        inputs: Vec<Known<O>>,
    ) -> Result<(Known<O>, Origin), Halt<O::Error>> {
        let Some(operation) = self.graph.operation(id) else {
            return Err(Halt::Stopped);
        };
        let Conditions {
            cache,
            stop,
            use_cache,
            making,
            ..
        } = &self.conditions;
        let begun = making.moment();
        if stop.is_cancelled() {
            return Err(Halt::Stopped);
        }
        let use_cache = *use_cache && operation.may_be_cached();
        let given: Option<Vec<O::Value>> = inputs.iter().map(Known::value_here).collect();
        if let Some(value) = given.and_then(|values| operation.at_once(&values)) {
            let solved = Solved { value, identity: own };
            return Ok((Known::here(definition.clone(), solved), Origin::Made));
        }
        let here = |solved: Solved<O::Value>| Known::here(definition.clone(), solved);
        let there =
            |identity: Digest, keys: Vec<Digest>| Known::there(definition.clone(), id, identity, keys);
        if use_cache {
            match cache.find(&own).map_err(Halt::Failed)? {
                Some(Found::Here(solved)) => return Ok((here(solved), Origin::Cached)),
                Some(Found::There(identity)) => {
                    return Ok((there(identity, vec![own]), Origin::There));
                }
                None => {}
            }
        }
        let values = self.clone().values(&inputs).await?;
        let by_content = self
            .by_content(operation, definition, &own, &inputs, &values)
            .await?;
        let mut keys = vec![own.clone()];
        if let Some((by_content, _)) = &by_content {
            keys.push(by_content.clone());
            let found = match use_cache {
                true => cache.find(by_content).map_err(Halt::Failed)?,
                false => None,
            };
            match found {
                Some(Found::Here(solved)) => {
                    cache.also(&own, &solved).map_err(Halt::Failed)?;
                    return Ok((here(solved), Origin::Cached));
                }
                Some(Found::There(identity)) => {
                    return Ok((there(identity, keys), Origin::There));
                }
                None => {}
            }
        }
        let identity = by_content
            .as_ref()
            .map_or_else(|| own.clone(), |(key, _)| key.clone());
        // What is quick is not worth waiting for others, and what is made anew is made by everybody.
        let claim = if use_cache && operation.takes_place() {
            let claim = tokio::select! {
                claim = making.claim(&identity, operation.waits()) => claim,
                () = stop.cancelled() => return Err(Halt::Stopped),
            };
            if !claim.is_first_since(begun)
                && let Some(Found::Here(solved)) = cache.find(&identity).map_err(Halt::Failed)?
            {
                if identity != own {
                    cache.also(&own, &solved).map_err(Halt::Failed)?;
                }
                return Ok((here(solved), Origin::Cached));
            }
            Some(claim)
        } else {
            None
        };
        let parts = by_content.map(|(_, parts)| parts);
        let work = self.make(operation, identity, &keys, parts, &inputs, &values);
        let solved = held_while(claim, operation, work).await?;
        Ok((here(solved), Origin::Made))
    }

    /// The key over the content that is used, where that is another one, and the content itself.
    async fn by_content(
        &self,
        operation: &O,
        definition: &Digest,
        own: &Digest,
        inputs: &[Known<O>],
        values: &[O::Value],
    ) -> Result<Option<(Digest, Parts)>, Halt<O::Error>> {
        let Some(contents) = operation.contents(values).await.map_err(Halt::Failed)? else {
            return Ok(None);
        };
        let parts: Vec<Digest> = inputs
            .iter()
            .enumerate()
            .map(|(index, input)| match contents.get(index) {
                Some(Some(content)) => content.clone(),
                _ => input.identity.clone(),
            })
            .collect();
        let by_content = key(definition, &parts);
        Ok((by_content != *own).then_some((by_content, contents)))
    }

    async fn make(
        &self,
        operation: &O,
        identity: Digest,
        keys: &[Digest],
        parts: Option<Parts>,
        inputs: &[Known<O>],
        values: &[O::Value],
    ) -> Result<Solved<O::Value>, Halt<O::Error>> {
        let Conditions { cache, stop, .. } = &self.conditions;
        let place = match operation.takes_place() {
            true => tokio::select! {
                place = self.places.acquire() => Some(place.map_err(|_| Halt::Stopped)?),
                () = stop.cancelled() => return Err(Halt::Stopped),
            },
            false => None,
        };
        if stop.is_cancelled() {
            return Err(Halt::Stopped);
        }
        let made = operation.run(values, stop).await;
        drop(place);
        let value = match made {
            Ok(value) => value,
            // What ends because it was asked to is not a failure of its own.
            Err(_) if stop.is_cancelled() => return Err(Halt::Stopped),
            Err(error) => return Err(Halt::Failed(error)),
        };
        let solved = Solved { value, identity };
        let made = Made {
            operation,
            keys,
            inputs: &identities(inputs),
            parts: parts.as_deref(),
            solved: &solved,
        };
        cache.keep(made).map_err(Halt::Failed)?;
        Ok(solved)
    }
}

type Parts = Vec<Option<Digest>>;

/// Makes a result and holds the claim to it meanwhile; one that stalls is still made, and the claim goes to the next.
async fn held_while<O: Operation, T>(
    claim: Option<Claim>,
    operation: &O,
    work: impl Future<Output = T>,
) -> T {
    let Some(claim) = claim else {
        return work.await;
    };
    let mut work = std::pin::pin!(work);
    tokio::select! {
        made = &mut work => return made,
        () = operation.stalls() => drop(claim),
    }
    work.await
}

fn identities<O: Operation>(known: &[Known<O>]) -> Vec<Digest> {
    known.iter().map(|known| known.identity.clone()).collect()
}

fn seen<O: Operation>(known: &Known<O>) -> Seen<O::Value> {
    Seen {
        value: known.value_here(),
        identity: known.identity.clone(),
    }
}
