//! What the kernel holds a running container to while an `update` is carried out.
//!
//! The record says what holds. Between the first limit that is written and the record of all of them the two differ, so what
//! is about to be written is noted before ([`Container::unsettled`]): whoever fails after that, or dies, knows what may hold
//! and has the recorded limits written again.

use cgroup::Lift;
use spec::runtime::{Cpu, Memory, Pids, Resources};

use super::owner::Owner;
use super::{Container, oci};
use crate::engine::{Inner, blocking};
use crate::error::{Error, Result};

const NONE: i64 = -1;
/// What the kernel gives a new group.
const DEFAULT_SHARES: u64 = 1024;
/// In microseconds.
const DEFAULT_PERIOD: u64 = 100_000;

impl Owner {
    /// Has the kernel hold the running container to these limits, once that is noted.
    pub(super) async fn hold_to(&mut self, limits: Resources) -> Result<()> {
        self.container.unsettled = Some(limits.clone());
        if let Err(error) = self.engine.records.save(&self.container) {
            // Nothing was written.
            self.container.unsettled = None;
            return Err(error);
        }
        let place = self.engine.place_of(&self.container)?;
        blocking(move || place.set(&limits).map_err(Error::from)).await
    }

    /// Has the recorded limits hold again, after these were written, in part or all.
    pub(super) async fn hold_again(&mut self, written: &Resources) {
        if self.container.unsettled.is_none() {
            return;
        }
        let (engine, mut container, written) = (self.engine.clone(), self.container.clone(), written.clone());
        let settled = blocking(move || {
            settle(&engine, &container, &written)?;
            container.unsettled = None;
            engine.records.save(&container)
        });
        match settled.await {
            Ok(()) => self.container.unsettled = None,
            Err(error) => tracing::warn!(
                container = %self.container.id,
                %error,
                "a part of an update that failed may be in force until the daemon starts again or the container ends"
            ),
        }
    }
}

/// Has the kernel hold a container to what is recorded, after these limits were written, in part or all.
pub(crate) fn settle(engine: &Inner, container: &Container, written: &Resources) -> Result<()> {
    let before = oci::resources(container)?;
    let place = engine.place_of(container)?;
    let lifted = place.lift(&lifted(&before, written));
    // What can be restored is, whatever else cannot.
    place.set(&restored(before, written))?;
    Ok(lifted?)
}

/// Limits that may be set now, were not before, and for whose absence the limits that are written have no value.
fn lifted(before: &Resources, after: &Resources) -> Vec<Lift> {
    let processor = |resources: &Resources| resources.cpu.clone().unwrap_or_default();
    let weight = |resources: &Resources| resources.block_io.as_ref().and_then(|block_io| block_io.weight);
    let (old, new) = (processor(before), processor(after));
    let real_time = (old.realtime_runtime.is_none() && new.realtime_runtime.is_some())
        || (old.realtime_period.is_none() && new.realtime_period.is_some());
    [
        (Lift::Processors, old.cpus.is_empty() && !new.cpus.is_empty()),
        (Lift::MemoryNodes, old.mems.is_empty() && !new.mems.is_empty()),
        (
            Lift::BlockIoWeight,
            weight(before).is_none() && weight(after).is_some(),
        ),
        (Lift::RealTime, real_time),
    ]
    .into_iter()
    .filter_map(|(lift, wanted)| wanted.then_some(lift))
    .collect()
}

/// The limits that were, after others were written, all of them or a part: what had none before has none again.
fn restored(before: Resources, after: &Resources) -> Resources {
    let mut again = before;
    if let Some(Memory {
        limit,
        reservation,
        swap,
        ..
    }) = after.memory
    {
        let memory = again.memory.get_or_insert_default();
        memory.limit = memory.limit.or(limit.map(|_| NONE));
        memory.reservation = memory.reservation.or(reservation.map(|_| NONE));
        memory.swap = memory.swap.or(swap.map(|_| NONE));
    }
    if let Some(Cpu {
        shares,
        quota,
        period,
        ..
    }) = after.cpu
    {
        let cpu = again.cpu.get_or_insert_default();
        cpu.shares = cpu.shares.or(shares.map(|_| DEFAULT_SHARES));
        cpu.quota = cpu.quota.or(quota.map(|_| NONE));
        cpu.period = cpu.period.or(period.map(|_| DEFAULT_PERIOD));
    }
    again.pids = again.pids.or(after.pids.map(|_| Pids { limit: NONE }));
    again
}

#[cfg(test)]
mod tests {
    use spec::runtime::BlockIo;

    use super::*;

    #[test]
    fn what_had_no_limit_has_none_again() {
        let memory = |limit, swap| {
            Some(Memory {
                limit,
                swap,
                ..Memory::default()
            })
        };
        let before = Resources {
            memory: memory(Some(64), None),
            ..Resources::default()
        };
        let after = Resources {
            memory: memory(Some(96), Some(128)),
            cpu: Some(Cpu {
                quota: Some(50_000),
                period: Some(100_000),
                ..Cpu::default()
            }),
            pids: Some(Pids { limit: 20 }),
            ..Resources::default()
        };
        let again = restored(before, &after);
        assert_eq!(again.memory, memory(Some(64), Some(-1)));
        let cpu = again.cpu.unwrap();
        assert_eq!(
            (cpu.shares, cpu.quota, cpu.period),
            (None, Some(-1), Some(100_000))
        );
        assert_eq!(again.pids, Some(Pids { limit: -1 }));
    }

    #[test]
    fn what_has_no_value_for_its_absence_is_lifted() {
        let limits = |cpus: &str, mems: &str, period, weight| Resources {
            cpu: Some(Cpu {
                cpus: cpus.to_owned(),
                mems: mems.to_owned(),
                realtime_period: period,
                ..Cpu::default()
            }),
            block_io: Some(BlockIo {
                weight,
                ..BlockIo::default()
            }),
            ..Resources::default()
        };
        let all = limits("0", "0", Some(500_000), Some(300));
        assert_eq!(
            lifted(&Resources::default(), &all),
            [
                Lift::Processors,
                Lift::MemoryNodes,
                Lift::BlockIoWeight,
                Lift::RealTime
            ]
        );
        assert_eq!(
            lifted(&limits("1", "", None, Some(100)), &all),
            [Lift::MemoryNodes, Lift::RealTime]
        );
        assert_eq!(lifted(&all, &Resources::default()), []);
    }
}
