//! Running a graph: one task per vertex, each waiting for its inputs, for an equal vertex, for a place.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared, join_all};
use spec::Digest;
use tokio::sync::{OnceCell, Semaphore};

use super::{Conditions, Graph, Made, Operation, Outcome, Results, SolveError, Solved, VertexId, key};

/// Why a vertex has no result.
#[derive(Debug, Clone)]
enum Halt<E> {
    Failed(E),
    Stopped,
    Broken,
}

type Settled<O> = Result<Solved<<O as Operation>::Value>, Halt<<O as Operation>::Error>>;
type Waiting<O> = Shared<BoxFuture<'static, Settled<O>>>;

/// How a result came about in the cell that equal vertices share.
enum Origin {
    Cached,
    Made,
}

struct Run<O: Operation> {
    graph: Arc<Graph<O>>,
    conditions: Conditions<O>,
    places: Semaphore,
    /// One cell per key, so that equal vertices run once.
    cells: Mutex<HashMap<Digest, Arc<OnceCell<Settled<O>>>>>,
    first_failure: Mutex<Option<(VertexId, Halt<O::Error>)>>,
}

/// Solves what `targets` need. When the returned future is dropped, everything is asked to stop.
pub async fn solve<O: Operation>(
    graph: Arc<Graph<O>>,
    targets: &[VertexId],
    conditions: Conditions<O>,
) -> Result<Results<O::Value>, SolveError<O::Error>> {
    // Failures stop the others through a token of this run alone; the caller's token stays as it is.
    let conditions = Conditions {
        stop: conditions.stop.child_token(),
        ..conditions
    };
    let _stop_when_dropped = conditions.stop.clone().drop_guard();
    let run = Arc::new(Run {
        places: Semaphore::new(conditions.places.max(1)),
        graph: graph.clone(),
        conditions,
        cells: Mutex::new(HashMap::new()),
        first_failure: Mutex::new(None),
    });
    let wanted = reachable(&graph, targets);
    let mut waiting: HashMap<VertexId, Waiting<O>> = HashMap::new();
    for id in wanted {
        let Some(vertex) = graph.vertices.get(id.0) else {
            continue;
        };
        let inputs: Vec<Waiting<O>> = vertex
            .inputs
            .iter()
            .filter_map(|input| waiting.get(input).cloned())
            .collect();
        let task = tokio::spawn(run.clone().settle(id, inputs));
        let run = run.clone();
        let settled = async move {
            match task.await {
                Ok(settled) => settled,
                Err(_) => {
                    run.note(id, Halt::Broken);
                    Err(Halt::Broken)
                }
            }
        };
        waiting.insert(id, settled.boxed().shared());
    }
    join_all(waiting.values().cloned()).await;
    if let Some((id, halt)) = lock(&run.first_failure).take() {
        return Err(match halt {
            Halt::Failed(error) => SolveError::Failed(id, error),
            Halt::Broken => SolveError::Broken(id),
            Halt::Stopped => SolveError::Stopped,
        });
    }
    let mut results = Results::new();
    for target in targets {
        match waiting.get(target).map(|settled| settled.clone().now_or_never()) {
            Some(Some(Ok(solved))) => {
                results.insert(*target, solved);
            }
            _ => return Err(SolveError::Stopped),
        }
    }
    Ok(results)
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
    /// Records the first failure and asks everything else to stop.
    fn note(&self, vertex: VertexId, halt: Halt<O::Error>) {
        lock(&self.first_failure).get_or_insert((vertex, halt));
        self.conditions.stop.cancel();
    }

    async fn settle(self: Arc<Self>, id: VertexId, inputs: Vec<Waiting<O>>) -> Settled<O> {
        let mut origin = None;
        let settled = self.clone().solve_vertex(id, inputs, &mut origin).await;
        let outcome = match (&settled, origin) {
            (Ok(solved), Some(Origin::Cached)) => Outcome::Cached(solved.clone()),
            (Ok(solved), Some(Origin::Made)) => Outcome::Made(solved.clone()),
            (Ok(solved), None) => Outcome::Merged(solved.clone()),
            (Err(Halt::Failed(error)), _) => Outcome::Failed(error.clone()),
            (Err(_), _) => Outcome::Stopped,
        };
        if let Err(Halt::Failed(error)) = &settled {
            self.note(id, Halt::Failed(error.clone()));
        }
        self.conditions.observer.settled(id, &outcome).await;
        settled
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
        let mut values = Vec::with_capacity(inputs.len());
        let mut identities = Vec::with_capacity(inputs.len());
        for input in inputs {
            // The failure itself is reported where it happened.
            let solved = input.map_err(|_| Halt::Stopped)?;
            values.push(solved.value);
            identities.push(solved.identity);
        }
        let own = key(&definition, &identities);
        let cell = lock(&self.cells).entry(own.clone()).or_default().clone();
        let work = async {
            let (settled, from) = self.work(operation, &definition, own, &values, &identities).await;
            *origin = Some(from);
            settled
        };
        cell.get_or_init(|| work).await.clone()
    }

    async fn work(
        &self,
        operation: &O,
        definition: &Digest,
        own: Digest,
        values: &[O::Value],
        identities: &[Digest],
    ) -> (Settled<O>, Origin) {
        match self
            .find_or_make(operation, definition, own, values, identities)
            .await
        {
            Ok((solved, origin)) => (Ok(solved), origin),
            Err(halt) => (Err(halt), Origin::Made),
        }
    }

    async fn find_or_make(
        &self,
        operation: &O,
        definition: &Digest,
        own: Digest,
        values: &[O::Value],
        identities: &[Digest],
    ) -> Result<(Solved<O::Value>, Origin), Halt<O::Error>> {
        let Conditions {
            cache,
            stop,
            use_cache,
            ..
        } = &self.conditions;
        if stop.is_cancelled() {
            return Err(Halt::Stopped);
        }
        let use_cache = *use_cache && operation.may_be_cached();
        if use_cache && let Some(solved) = cache.find(&own).map_err(Halt::Failed)? {
            return Ok((solved, Origin::Cached));
        }
        let mut keys = vec![own.clone()];
        let mut identity = own.clone();
        if let Some(contents) = operation.contents(values).await.map_err(Halt::Failed)? {
            let parts: Vec<Digest> = identities
                .iter()
                .enumerate()
                .map(|(index, identity)| contents.get(index).cloned().flatten().unwrap_or(identity.clone()))
                .collect();
            let by_content = key(definition, &parts);
            if by_content != own {
                if use_cache && let Some(solved) = cache.find(&by_content).map_err(Halt::Failed)? {
                    cache.also(&own, &solved).map_err(Halt::Failed)?;
                    return Ok((solved, Origin::Cached));
                }
                identity = by_content.clone();
                keys.push(by_content);
            }
        }
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
            keys: &keys,
            inputs: identities,
            solved: &solved,
        };
        cache.keep(made).map_err(Halt::Failed)?;
        Ok((solved, Origin::Made))
    }
}
