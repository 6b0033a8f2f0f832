//! What past builds were made of, so that a build can say why it did something again.
//!
//! ```text
//!   step made ──> parts (what its result depends on, by name)  ─┐
//!   step cached ─> identity only: its parts are known already  ─┴─> build_history, build_history_step
//! ```
//!
//! A step is compared with the same instruction of the same stage in the build before: the first part that differs is why
//! it was made again. Values of variables whose names look like secrets are kept as digests. The newest [`KEPT`] builds
//! are kept; nothing here decides what is built.

mod compare;
mod rows;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use store::Store;
use store::rusqlite::{self, Transaction};

use crate::error::BuildError;
use crate::solve::{Graph, Outcome, VertexId};
use crate::step::{StepOperation, Tree};

pub use compare::difference;
pub(crate) use rows::STEPS;
pub use rows::{BuildRow, StepRow};

/// How many builds are remembered.
const KEPT: usize = 100;

/// One thing that a result depends on: what it is, and its value or digest.
pub type Part = (String, String);

/// Where a step stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Place {
    /// The stage's name or number.
    pub stage: String,
    /// Counted from 0 within the stage.
    pub ordinal: usize,
}

/// Why a step was made, or that it was not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explained {
    /// Counted from 1 in the whole build.
    pub number: usize,
    pub stage: String,
    pub code: String,
    pub hit: bool,
    /// Empty for a hit.
    pub reason: String,
    pub milliseconds: u64,
}

/// What became of a vertex.
struct Settled {
    /// `None`: known to the cache and not here.
    tree: Option<Tree>,
    identity: String,
    made: bool,
    at: Instant,
}

/// Notes what one build does.
pub struct Recorder {
    store: Store,
    build: i64,
    begun: Instant,
    no_cache: bool,
    places: Vec<Place>,
    settled: Mutex<HashMap<VertexId, Settled>>,
    notes: Mutex<Vec<StepRow>>,
}

impl Recorder {
    /// Begins a build. `places` are those of all steps, in the order of their numbers.
    pub fn begin(
        store: &Store,
        row: &BuildRow,
        places: Vec<Place>,
        no_cache: bool,
    ) -> Result<Recorder, BuildError> {
        let build = store
            .db()
            .write(|tx| rows::begin(tx, row).map_err(BuildError::from))?;
        Ok(Recorder {
            store: store.clone(),
            build,
            begun: Instant::now(),
            no_cache,
            places,
            settled: Mutex::default(),
            notes: Mutex::default(),
        })
    }

    /// A vertex has ended well. Says why it was made, if it is a step that the cache could have known.
    pub async fn settled(
        &self,
        graph: &Arc<Graph<StepOperation>>,
        vertex: VertexId,
        outcome: &Outcome<Tree, BuildError>,
    ) -> Option<Explained> {
        let (identity, tree, made) = match outcome {
            Outcome::Made(solved) => (&solved.identity, Some(&solved.value), true),
            Outcome::Cached(seen) | Outcome::Merged(seen) => (&seen.identity, seen.value.as_ref(), false),
            Outcome::Failed(_) | Outcome::Stopped => return None,
        };
        let operation = graph.operation(vertex)?;
        let (trees, inputs, began) = self.inputs(graph.inputs(vertex));
        let settled = Settled {
            tree: tree.cloned(),
            identity: identity.to_string(),
            made,
            at: Instant::now(),
        };
        lock(&self.settled).insert(vertex, settled);
        operation.description()?;
        // What a step depends on can only be said as long as its context is there; that it cannot is no failure.
        let parts = match (made, trees) {
            (true, Some(trees)) => operation.parts(&trees).await.ok(),
            _ => None,
        };
        let number = operation.name.number.0;
        let place = self.places.get(number).cloned().unwrap_or_default();
        let note = StepRow {
            number,
            stage: place.stage,
            ordinal: place.ordinal,
            code: operation.code.clone(),
            hit: !made,
            reason: String::new(),
            milliseconds: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
            identity: identity.to_string(),
            parts,
            inputs: inputs.iter().map(|(identity, _)| identity.clone()).collect(),
        };
        let reason = match made {
            true => self.reason(&note, &inputs),
            false => String::new(),
        };
        let note = StepRow { reason, ..note };
        let explained = Explained {
            number: number + 1,
            stage: note.stage.clone(),
            code: note.code.clone(),
            hit: note.hit,
            reason: note.reason.clone(),
            milliseconds: note.milliseconds,
        };
        lock(&self.notes).push(note);
        Some(explained)
    }

    /// Values (where all are here) and identities of inputs, whether each was made, and since when all were there.
    fn inputs(&self, inputs: &[VertexId]) -> (Option<Vec<Tree>>, Vec<(String, bool)>, Instant) {
        let settled = lock(&self.settled);
        let known = || inputs.iter().filter_map(|input| settled.get(input));
        (
            known().map(|input| input.tree.clone()).collect(),
            known()
                .map(|input| (input.identity.clone(), input.made))
                .collect(),
            known().map(|input| input.at).max().unwrap_or(self.begun),
        )
    }

    fn reason(&self, note: &StepRow, inputs: &[(String, bool)]) -> String {
        if self.no_cache {
            return "the cache was not to be used".to_owned();
        }
        let before = self.store.db().read(|db| rows::before(db, self.build, note));
        let before = match before {
            Ok(Some(before)) => before,
            Ok(None) => return "it was not built before".to_owned(),
            Err(error) => {
                tracing::warn!(%error, "why a step was made again is not known");
                return "unknown".to_owned();
            }
        };
        if let (Some(old), Some(new)) = (&before.parts, &note.parts)
            && let Some(difference) = difference(old, new)
        {
            return difference;
        }
        let differs = |at: &usize| before.inputs.get(*at) != inputs.get(*at).map(|(identity, _)| identity);
        match (0..inputs.len().max(before.inputs.len())).find(differs) {
            Some(at) if inputs.get(at).is_some_and(|(_, made)| *made) => match at {
                0 => "the step before it was made again".to_owned(),
                _ => "what it takes files from was made again".to_owned(),
            },
            Some(0) => format!(
                "what it is based on changed: {} is {}",
                before.inputs.first().map_or("nothing", |old| short(old)),
                inputs.first().map_or("nothing", |(new, _)| short(new))
            ),
            Some(_) => "what it takes files from changed".to_owned(),
            None => "its result is no longer in the cache".to_owned(),
        }
    }

    /// Ends the build.
    pub fn end(&self, tx: &Transaction<'_>, error: Option<&str>) -> rusqlite::Result<()> {
        let notes = std::mem::take(&mut *lock(&self.notes));
        rows::end(tx, self.build, &notes, error, KEPT)
    }
}

/// The beginning of a digest, as far as people compare it.
fn short(digest: &str) -> &str {
    let hex = digest.strip_prefix("sha256:").unwrap_or(digest);
    hex.get(..12).unwrap_or(hex)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Notes which image came of a build.
pub(crate) fn note_image(store: &Store, reference: &str, image: &str) -> Result<(), BuildError> {
    store
        .db()
        .write(|tx| rows::note_image(tx, reference, image).map_err(BuildError::from))
}

/// The builds that are remembered, newest first.
pub(crate) fn builds(store: &Store) -> Result<Vec<BuildRow>, BuildError> {
    Ok(store.db().read(rows::builds)?)
}

/// What differs between two builds, in the order of their steps; a line each. A build is named by (the beginning of) its
/// id, or by a name that its image got.
pub(crate) fn diff(store: &Store, first: &str, second: &str) -> Result<Vec<String>, BuildError> {
    let find = |name: &str| -> Result<Vec<StepRow>, BuildError> {
        match store.db().read(|db| rows::find(db, name))? {
            Some(build) => Ok(store.db().read(|db| rows::steps(db, build))?),
            None => Err(BuildError::step(
                format!(
                    "no build is known by {name:?}: give the beginning of its id, or a name of its image"
                ),
                spec::ErrorClass::NotFound,
            )),
        }
    };
    Ok(compare::builds(&find(first)?, &find(second)?))
}
