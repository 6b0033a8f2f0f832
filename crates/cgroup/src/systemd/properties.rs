//! Limits in systemd's words, so that whatever makes systemd write them again writes what was asked.
//!
//! systemd rounds some (a quota is kept per second) and does not know others: [`crate::Cgroup::apply`] writes the
//! exact values afterwards. Source: systemd.resource-control(5).

use spec::runtime::{Cpu, DeviceCgroup, Memory, Resources};

use super::wire::{Property, Value};
use crate::error::{CgroupError, Result};
use crate::hierarchy::Version;
use crate::limit::cpu::weight_of_shares;
use crate::limit::devices::{DeviceRules, Exception, Kind, letters};
use crate::limit::lift::Lift;

/// What the kernel counts with where no period is given.
const PERIOD: u64 = 100_000;
const SECOND: u128 = 1_000_000;
const PERCENT: u128 = SECOND / 100;

/// Every limit that systemd knows; what is not asked for is said to be unlimited where systemd's own default is not.
pub(super) fn of(resources: &Resources, version: Version) -> Result<Vec<Property>> {
    let unified = version == Version::V2;
    let mut properties = Vec::new();
    if let Some(found) = &resources.memory {
        memory(found, unified, &mut properties);
    }
    if let Some(found) = &resources.cpu {
        cpu(found, unified, &mut properties)?;
    }
    let tasks = resources.pids.as_ref().map_or(-1, |pids| pids.limit);
    properties.push(("TasksMax", Value::Number(limit(tasks))));
    let weight = resources.block_io.as_ref().and_then(|block_io| block_io.weight);
    if let Some(weight) = weight.filter(|weight| *weight != 0) {
        properties.push(if unified {
            (
                "IOWeight",
                Value::Number(u64::from(crate::limit::blkio::io_weight(weight))),
            )
        } else {
            ("BlockIOWeight", Value::Number(u64::from(weight.clamp(10, 1000))))
        });
    }
    devices(&resources.devices, unified, &mut properties)?;
    Ok(properties)
}

/// What takes limits back.
pub(super) fn lifted(limits: &[Lift], version: Version) -> Vec<Property> {
    let unified = version == Version::V2;
    let word = |limit: &Lift| match limit {
        Lift::Processors => unified.then_some(("AllowedCPUs", Value::Bytes(Vec::new()))),
        Lift::MemoryNodes => unified.then_some(("AllowedMemoryNodes", Value::Bytes(Vec::new()))),
        Lift::BlockIoWeight => {
            let name = if unified { "IOWeight" } else { "BlockIOWeight" };
            Some((name, Value::Number(u64::MAX)))
        }
        Lift::RealTime => None,
    };
    limits.iter().filter_map(word).collect()
}

/// Zero and below are no limit.
fn limit(value: i64) -> u64 {
    u64::try_from(value)
        .ok()
        .filter(|value| *value != 0)
        .unwrap_or(u64::MAX)
}

fn memory(memory: &Memory, unified: bool, properties: &mut Vec<Property>) {
    let asked = memory.limit.filter(|value| *value != 0);
    if let Some(value) = asked {
        let name = if unified { "MemoryMax" } else { "MemoryLimit" };
        properties.push((name, Value::Number(limit(value))));
    }
    if !unified {
        return;
    }
    if let Some(value) = memory.reservation.filter(|value| *value != 0) {
        properties.push(("MemoryLow", Value::Number(limit(value))));
    }
    match (asked, memory.swap.filter(|value| *value != 0)) {
        (Some(all), Some(swap)) if swap > 0 && all > 0 => {
            let alone = u64::try_from(swap.saturating_sub(all)).unwrap_or(0);
            properties.push(("MemorySwapMax", Value::Number(alone)));
        }
        (_, Some(swap)) if swap < 0 => properties.push(("MemorySwapMax", Value::Number(u64::MAX))),
        _ => {}
    }
}

fn cpu(cpu: &Cpu, unified: bool, properties: &mut Vec<Property>) -> Result<()> {
    if let Some(shares) = cpu.shares.filter(|shares| *shares != 0) {
        properties.push(if unified {
            ("CPUWeight", Value::Number(weight_of_shares(shares)))
        } else {
            ("CPUShares", Value::Number(shares.clamp(2, 262_144)))
        });
    }
    let period = cpu.period.filter(|period| *period != 0);
    if let Some(period) = period {
        properties.push(("CPUQuotaPeriodUSec", Value::Number(period)));
    }
    if let Some(quota) = cpu.quota.filter(|quota| *quota != 0) {
        properties.push((
            "CPUQuotaPerSecUSec",
            Value::Number(per_second(quota, period.unwrap_or(PERIOD))),
        ));
    }
    if unified {
        for (name, list) in [("AllowedCPUs", &cpu.cpus), ("AllowedMemoryNodes", &cpu.mems)] {
            if !list.is_empty() {
                properties.push((name, Value::Bytes(bits(list)?)));
            }
        }
    }
    Ok(())
}

/// Time per second. systemd keeps whole percents of it over a `daemon-reload`, so it is never less than asked, and less
/// than a percent more.
fn per_second(quota: i64, period: u64) -> u64 {
    match u128::try_from(quota) {
        Ok(quota) => u64::try_from(
            (quota * SECOND)
                .div_ceil(u128::from(period))
                .next_multiple_of(PERCENT),
        )
        .unwrap_or(u64::MAX),
        Err(_) => u64::MAX,
    }
}

/// A list like `0-2,7` as bits, the lowest first.
fn bits(list: &str) -> Result<Vec<u8>> {
    /// More than any kernel counts.
    const MOST: usize = 8192;
    let invalid = || {
        CgroupError::Invalid(format!(
            "invalid list {list:?} of processors or memory nodes, as in 0-2,7"
        ))
    };
    let mut bits = Vec::new();
    for part in list.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let number = |text: &str| text.trim().parse::<usize>().ok().filter(|number| *number < MOST);
        let (first, last) = (
            number(first).ok_or_else(invalid)?,
            number(last).ok_or_else(invalid)?,
        );
        for number in first..=last {
            if bits.len() <= number / 8 {
                bits.resize(number / 8 + 1, 0u8);
            }
            if let Some(byte) = bits.get_mut(number / 8) {
                *byte |= 1 << (number % 8);
            }
        }
    }
    Ok(bits)
}

/// The empty list first takes back what an earlier call has put there.
fn devices(rules: &[DeviceCgroup], unified: bool, properties: &mut Vec<Property>) -> Result<()> {
    if rules.is_empty() {
        return Ok(());
    }
    let rules = DeviceRules::from_rules(rules)?;
    properties.push(("DeviceAllow", Value::Pairs(Vec::new())));
    if rules.allow_by_default {
        // A list of what is forbidden is not among systemd's words.
        properties.push(("DevicePolicy", Value::Text("auto".to_owned())));
        return Ok(());
    }
    properties.push(("DevicePolicy", Value::Text("strict".to_owned())));
    let allowed = rules
        .exceptions
        .iter()
        .filter_map(|exception| Some((pattern(exception, unified)?, letters(exception.access))))
        .collect();
    properties.push(("DeviceAllow", Value::Pairs(allowed)));
    Ok(())
}

/// systemd has no word for one minor number of every major. In version 2 its filter and ours must both allow, so the
/// whole kind is right there; in version 1 the last writer counts, and wider would be wrong.
fn pattern(exception: &Exception, unified: bool) -> Option<String> {
    let kind = match exception.kind {
        Kind::Block => "block",
        Kind::Char => "char",
    };
    match (exception.major, exception.minor) {
        (Some(major), Some(minor)) => Some(format!("/dev/{kind}/{major}:{minor}")),
        (Some(major), None) => Some(format!("{kind}-{major}")),
        (None, None) => Some(format!("{kind}-*")),
        (None, Some(_)) => unified.then(|| format!("{kind}-*")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use spec::runtime::Pids;

    fn number(properties: &[Property], wanted: &str) -> Option<u64> {
        properties.iter().find_map(|(name, value)| match value {
            Value::Number(number) if *name == wanted => Some(*number),
            _ => None,
        })
    }

    #[test]
    fn each_version_has_its_words() {
        let resources = Resources {
            memory: Some(Memory {
                limit: Some(1000),
                swap: Some(1500),
                ..Memory::default()
            }),
            cpu: Some(Cpu {
                shares: Some(1024),
                quota: Some(30_000),
                ..Cpu::default()
            }),
            pids: Some(Pids { limit: 12 }),
            ..Resources::default()
        };
        let old = of(&resources, Version::Hybrid).unwrap();
        assert_eq!(number(&old, "MemoryLimit"), Some(1000));
        assert_eq!(number(&old, "CPUShares"), Some(1024));
        assert_eq!(number(&old, "MemoryMax").or(number(&old, "CPUWeight")), None);
        let new = of(&resources, Version::V2).unwrap();
        assert_eq!(number(&new, "MemoryMax"), Some(1000));
        assert_eq!(number(&new, "MemorySwapMax"), Some(500));
        assert_eq!(number(&new, "CPUWeight"), Some(100));
        for properties in [old, new] {
            assert_eq!(number(&properties, "TasksMax"), Some(12));
            assert_eq!(number(&properties, "CPUQuotaPerSecUSec"), Some(300_000));
        }
    }

    #[test]
    fn each_version_takes_back_what_it_can_set() {
        let all = [
            Lift::Processors,
            Lift::MemoryNodes,
            Lift::BlockIoWeight,
            Lift::RealTime,
        ];
        let old = lifted(&all, Version::Hybrid);
        assert_eq!(old, [("BlockIOWeight", Value::Number(u64::MAX))]);
        let new = lifted(&all, Version::V2);
        assert_eq!(new.len(), 3);
        assert!(new.contains(&("AllowedCPUs", Value::Bytes(Vec::new()))));
    }

    #[test]
    fn no_word_on_tasks_is_no_limit() {
        let properties = of(&Resources::default(), Version::V1).unwrap();
        assert_eq!(number(&properties, "TasksMax"), Some(u64::MAX));
    }

    #[test]
    fn a_quota_is_never_less_than_asked() {
        for (quota, period, expected) in [
            (30_000, 100_000, 300_000),
            (33_333, 100_000, 340_000),
            (250_000, 100_000, 2_500_000),
            (1000, 1_000_000, 10_000),
            (-1, 100_000, u64::MAX),
        ] {
            assert_eq!(per_second(quota, period), expected, "{quota}/{period}");
        }
    }

    #[test]
    fn lists_become_bits() {
        assert_eq!(bits("0-2,9").unwrap(), [0b111, 0b10]);
        for bad in ["", "a", "0-", "1-99999", "-1"] {
            assert!(bits(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn devices_have_patterns() {
        let rule = |allow, kind: &str, major, minor| DeviceCgroup {
            allow,
            r#type: Some(kind.to_owned()),
            major,
            minor,
            access: "rw".to_owned(),
        };
        let world = DeviceCgroup {
            access: "rwm".to_owned(),
            ..rule(false, "a", None, None)
        };
        let resources = Resources {
            devices: vec![
                world,
                rule(true, "c", Some(1), Some(3)),
                rule(true, "c", Some(136), None),
                rule(true, "b", None, None),
            ],
            ..Resources::default()
        };
        let properties = of(&resources, Version::V1).unwrap();
        let pairs = ["/dev/char/1:3", "char-136", "block-*"].map(|name| (name.to_owned(), "rw".to_owned()));
        assert!(properties.contains(&("DevicePolicy", Value::Text("strict".to_owned()))));
        assert_eq!(
            properties.last(),
            Some(&("DeviceAllow", Value::Pairs(pairs.to_vec())))
        );
    }
}
