//! Values of results: those that are here, and those that are known and elsewhere.
//!
//! The first who needs a value that is elsewhere has the cache bring it, or makes it where that cannot be; everybody else
//! who needs it waits. It is told once, when it is known which of both it was; one that nobody needed, at the end: before,
//! somebody else may still need it.
//!
//! Each is brought or made by a task of its own, so that nothing here goes as deep as steps lie on each other.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, join_all};
use spec::Digest;

use super::{Halt, Known, Run, There, Value, Way, identities, lock, seen};
use crate::solve::{Conditions, Made, Operation, Outcome, Seen, Solved, VertexId, Wanted, key};

impl<O: Operation> Run<O> {
    pub(super) async fn values(self: Arc<Self>, known: &[Known<O>]) -> Result<Vec<O::Value>, Halt<O::Error>> {
        let values = known.iter().map(|known| self.clone().value(known.clone()));
        // All of them end, whatever becomes of one; what could not be brought or made was noted there.
        let values = join_all(values).await.into_iter();
        values.collect::<Result<_, _>>().map_err(|_| Halt::Stopped)
    }

    /// The value of a result, which is brought here or made where it is not.
    pub(super) fn value(self: Arc<Self>, known: Known<O>) -> BoxFuture<'static, Value<O>> {
        async move {
            match &*known.way {
                Way::Here(value) => Ok(value.clone()),
                Way::There(there) => {
                    let bring = || {
                        let work = self.clone().bring(known.clone());
                        self.clone().watched(there.vertex, work)
                    };
                    there.value.get_or_init(bring).await.clone()
                }
            }
        }
        .boxed()
    }

    async fn bring(self: Arc<Self>, known: Known<O>) -> Value<O> {
        let Way::There(there) = &*known.way else {
            return Err(Halt::Stopped);
        };
        let brought = self.clone().fetch_or_make(&known, there).await;
        let outcome = match &brought {
            Ok((solved, true)) => Outcome::Cached(Seen {
                value: Some(solved.value.clone()),
                identity: solved.identity.clone(),
            }),
            Ok((solved, false)) => Outcome::Made(solved.clone()),
            Err(Halt::Failed(error)) => Outcome::Failed(error.clone()),
            Err(_) => Outcome::Stopped,
        };
        if let Err(Halt::Failed(error)) = &brought {
            self.note(there.vertex, Halt::Failed(error.clone()));
        }
        if !there.told.swap(true, Ordering::AcqRel) {
            self.conditions.observer.settled(there.vertex, &outcome).await;
        }
        brought.map(|(solved, _)| solved.value)
    }

    /// The result, and whether it was the cache's.
    async fn fetch_or_make(
        self: Arc<Self>,
        known: &Known<O>,
        there: &There<O>,
    ) -> Result<(Solved<O::Value>, bool), Halt<O::Error>> {
        let Some(operation) = self.graph.operation(there.vertex) else {
            return Err(Halt::Stopped);
        };
        let identity = known.identity.clone();
        if let Some(value) = self.fetch(operation, there, &identity).await? {
            return Ok((Solved { value, identity }, true));
        }
        let inputs = self.inputs(there)?;
        let values = self.clone().values(&inputs).await?;
        let own = key(&known.definition, &identities(&inputs));
        let by_content = self
            .by_content(operation, &known.definition, &own, &inputs, &values)
            .await?;
        let mut keys = vec![own];
        keys.extend(by_content.iter().map(|(key, _)| key.clone()));
        let parts = by_content.map(|(_, parts)| parts);
        // Those above know it by this name already.
        let made = self
            .make(operation, identity, &keys, parts, &inputs, &values)
            .await?;
        Ok((made, false))
    }

    /// Has the cache bring a value, and remembers it as one that is here.
    async fn fetch(
        &self,
        operation: &O,
        there: &There<O>,
        identity: &Digest,
    ) -> Result<Option<O::Value>, Halt<O::Error>> {
        let Conditions { cache, stop, .. } = &self.conditions;
        let Some(known) = there.keys.last() else {
            return Ok(None);
        };
        let brought = tokio::select! {
            brought = cache.bring(known) => brought.map_err(Halt::Failed)?,
            () = stop.cancelled() => return Err(Halt::Stopped),
        };
        let Some((value, parts)) = brought else {
            return Ok(None);
        };
        let mut keys = there.keys.clone();
        if !keys.contains(identity) {
            keys.push(identity.clone());
        }
        let solved = Solved {
            value,
            identity: identity.clone(),
        };
        let made = Made {
            operation,
            keys: &keys,
            inputs: &identities(&self.inputs(there)?),
            parts: parts.as_deref(),
            solved: &solved,
        };
        cache.keep(made).map_err(Halt::Failed)?;
        Ok(Some(solved.value))
    }

    /// What a result that is elsewhere is made on.
    fn inputs(&self, there: &There<O>) -> Result<Vec<Known<O>>, Halt<O::Error>> {
        let inputs = self.graph.inputs(there.vertex).iter();
        let known = inputs.map(|input| self.known(*input).cloned());
        known.collect::<Option<_>>().ok_or(Halt::Stopped)
    }

    /// Tells a result that nobody needed the value of.
    pub(super) async fn tell_known(&self, known: &Known<O>) {
        if let Way::There(there) = &*known.way
            && !there.told.swap(true, Ordering::AcqRel)
        {
            let outcome = Outcome::Cached(seen(known));
            self.conditions.observer.settled(there.vertex, &outcome).await;
        }
    }

    /// Brings or makes the values that are wanted, and of the rest what the cache has.
    pub(super) async fn values_of(self: Arc<Self>, wanted: &Wanted<'_>, order: &[VertexId]) {
        let needed = wanted.values.iter().filter_map(|id| self.known(*id));
        join_all(needed.map(|known| self.clone().value(known.clone()))).await;
        if !wanted.fetch_rest || lock(&self.first_failure).is_some() {
            return;
        }
        let rest = order.iter().filter_map(|id| self.known(*id));
        join_all(rest.map(|known| self.fetch_only(known))).await;
    }

    async fn fetch_only(&self, known: &Known<O>) {
        if let Way::There(there) = &*known.way
            && there.value.get().is_none()
            && let Some(operation) = self.graph.operation(there.vertex)
            && let Ok(Some(value)) = self.fetch(operation, there, &known.identity).await
        {
            let _ = there.value.set(Ok(value));
        }
    }
}
