//! Whether limits make sense, asked of the document and of what the host offers before any group is made.
//!
//! Each mistake is one error that begins with its place below `linux.resources`. What the kernel alone can say (that a
//! limit is below what is in use, that a device is not there) is told by the write.

use spec::runtime::{BlockIo, Cpu, Memory, Resources, ThrottleDevice};

use super::cpuset::parse_set;
use super::devices;
use super::other::plain;
use crate::error::{CgroupError, Result};
use crate::hierarchy::{Hierarchy, Version};

/// Bounds of the kernel's own (Linux kernel/sched/core.c), in microseconds.
const PERIOD: std::ops::RangeInclusive<u64> = 1_000..=1_000_000;
const LEAST_QUOTA: i64 = 1_000;
/// Of a device's number (Linux include/linux/kdev_t.h).
const MOST_MAJOR: i64 = (1 << 12) - 1;
const MOST_MINOR: i64 = (1 << 20) - 1;

/// What the document alone gives away.
pub fn check(resources: &Resources) -> Result<()> {
    for (index, rule) in resources.devices.iter().enumerate() {
        devices::check(rule).map_err(|error| invalid(&format!("devices[{index}]"), error))?;
    }
    if let Some(memory) = &resources.memory {
        check_memory(memory)?;
    }
    if let Some(cpu) = &resources.cpu {
        check_cpu(cpu)?;
    }
    if let Some(pids) = resources.pids.filter(|pids| pids.limit < -1) {
        let why = format!("{} is no number of processes (-1 is no limit)", pids.limit);
        return Err(invalid("pids.limit", why));
    }
    if let Some(block_io) = &resources.block_io {
        check_block_io(block_io)?;
    }
    for (index, limit) in resources.hugepage_limits.iter().enumerate() {
        if !is_page_size(&limit.page_size) {
            let why = format!("{:?} is no size such as 2MB", limit.page_size);
            return Err(invalid(&format!("hugepageLimits[{index}].pageSize"), why));
        }
    }
    let priorities = resources.network.iter().flat_map(|network| &network.priorities);
    for (index, interface) in priorities.enumerate() {
        let place = format!("network.priorities[{index}].name");
        plain(&interface.name, "name").map_err(|error| invalid(&place, error))?;
    }
    for (device, limit) in &resources.rdma {
        let place = format!("rdma.{device}");
        plain(device, "device").map_err(|error| invalid(&place, error))?;
        if limit.hca_handles.is_none() && limit.hca_objects.is_none() {
            return Err(invalid(&place, "it needs hcaHandles or hcaObjects"));
        }
    }
    for name in resources.unified.keys() {
        plain(name, "name of a file").map_err(|error| invalid(&format!("unified.{name}"), error))?;
    }
    Ok(())
}

impl Hierarchy {
    /// Whether this host has the controllers that limits need.
    pub fn check(&self, resources: &Resources) -> Result<()> {
        let cpu = resources.cpu.as_ref();
        let time = |cpu: &Cpu| {
            *cpu != Cpu {
                cpus: cpu.cpus.clone(),
                mems: cpu.mems.clone(),
                ..Cpu::default()
            }
        };
        let network = resources.network.as_ref();
        let needed = [
            (
                "memory",
                "memory",
                resources.memory.as_ref().is_some_and(limits_memory),
            ),
            ("cpu", "cpu", cpu.is_some_and(time)),
            (
                "cpu.cpus",
                "cpuset",
                cpu.is_some_and(|cpu| !(cpu.cpus.is_empty() && cpu.mems.is_empty())),
            ),
            (
                "pids.limit",
                "pids",
                resources.pids.is_some_and(|pids| pids.limit > 0),
            ),
            (
                "blockIO",
                if self.version() == Version::V2 {
                    "io"
                } else {
                    "blkio"
                },
                resources.block_io.as_ref().is_some_and(limits_block_io),
            ),
            ("hugepageLimits", "hugetlb", !resources.hugepage_limits.is_empty()),
            ("rdma", "rdma", !resources.rdma.is_empty()),
            (
                "network.classID",
                "net_cls",
                network.is_some_and(|network| network.class_id.is_some_and(|class| class != 0)),
            ),
            (
                "network.priorities",
                "net_prio",
                network.is_some_and(|network| !network.priorities.is_empty()),
            ),
        ];
        for (place, controller, wanted) in needed {
            if wanted && !self.has(controller) {
                let why = format!("the cgroup controller \"{controller}\" is not available on this host");
                return Err(invalid(place, why));
            }
        }
        match resources.unified.keys().next() {
            Some(name) if self.version() != Version::V2 => Err(invalid(
                &format!("unified.{name}"),
                "this host uses cgroup version 1",
            )),
            _ => Ok(()),
        }
    }
}

fn invalid(place: &str, why: impl std::fmt::Display) -> CgroupError {
    CgroupError::Invalid(format!("{place}: {why}"))
}

/// Whether something is asked for that needs the controller: engines write down what they do not limit as well, limits of
/// kernel memory are ignored, and lifting a limit that cannot be set is no failure.
pub(super) fn limits_memory(memory: &Memory) -> bool {
    let nothing = Memory {
        kernel: memory.kernel,
        kernel_tcp: memory.kernel_tcp,
        limit: memory.limit.filter(|limit| *limit <= 0),
        reservation: memory.reservation.filter(|limit| *limit <= 0),
        swap: memory.swap.filter(|limit| *limit <= 0),
        disable_oom_killer: memory.disable_oom_killer.filter(|disabled| !disabled),
        ..Memory::default()
    };
    *memory != nothing
}

/// The same of disks, where a weight of zero is none.
pub(super) fn limits_block_io(block_io: &BlockIo) -> bool {
    let nothing = BlockIo {
        weight: block_io.weight.filter(|weight| *weight == 0),
        leaf_weight: block_io.leaf_weight.filter(|weight| *weight == 0),
        ..BlockIo::default()
    };
    *block_io != nothing
}

fn check_memory(memory: &Memory) -> Result<()> {
    for (name, limit) in [
        ("limit", memory.limit),
        ("reservation", memory.reservation),
        ("swap", memory.swap),
        ("kernel", memory.kernel),
        ("kernelTCP", memory.kernel_tcp),
    ] {
        if let Some(limit) = limit.filter(|limit| *limit < -1) {
            let why = format!("{limit} is no size (-1 is no limit)");
            return Err(invalid(&format!("memory.{name}"), why));
        }
    }
    if let (Some(limit), Some(swap)) = (memory.limit, memory.swap)
        && limit > 0
        && swap > 0
        && swap < limit
    {
        let why = format!("{swap} is memory and swap together, and less than memory.limit {limit}");
        return Err(invalid("memory.swap", why));
    }
    if let Some(swappiness) = memory.swappiness.filter(|swappiness| *swappiness > 100) {
        return Err(invalid(
            "memory.swappiness",
            format!("{swappiness} is not 0 to 100"),
        ));
    }
    Ok(())
}

fn check_cpu(cpu: &Cpu) -> Result<()> {
    if let Some(period) = cpu
        .period
        .filter(|period| *period != 0 && !PERIOD.contains(period))
    {
        let (least, most) = (PERIOD.start(), PERIOD.end());
        let why = format!("{period} is not {least} to {most} microseconds");
        return Err(invalid("cpu.period", why));
    }
    let quota = cpu.quota.filter(|quota| *quota > 0);
    if let Some(quota) = quota.filter(|quota| *quota < LEAST_QUOTA) {
        let why = format!("{quota} is less than {LEAST_QUOTA} microseconds");
        return Err(invalid("cpu.quota", why));
    }
    if let (Some(burst), Some(quota)) = (cpu.burst, quota)
        && burst > quota.unsigned_abs()
    {
        return Err(invalid(
            "cpu.burst",
            format!("{burst} is more than cpu.quota {quota}"),
        ));
    }
    for (place, list) in [("cpu.cpus", &cpu.cpus), ("cpu.mems", &cpu.mems)] {
        if parse_set(list).is_none() {
            return Err(invalid(place, format!("{list:?} is not a list such as 0-3,7")));
        }
    }
    if let Some(idle) = cpu.idle.filter(|idle| !(0..=1).contains(idle)) {
        return Err(invalid("cpu.idle", format!("{idle} is neither 0 nor 1")));
    }
    Ok(())
}

fn check_block_io(block_io: &BlockIo) -> Result<()> {
    let weight = |place: &str, weight: Option<u16>| match weight {
        Some(weight) if weight > 1000 => {
            Err(invalid(place, format!("{weight} is not in the range 10 to 1000")))
        }
        _ => Ok(()),
    };
    let leaf = |place: &str, weight: Option<u16>| match weight {
        Some(weight) if weight != 0 => Err(invalid(
            place,
            "Linux 5.0 and newer have no weights of leaves; weight it by weight",
        )),
        _ => Ok(()),
    };
    weight("blockIO.weight", block_io.weight)?;
    leaf("blockIO.leafWeight", block_io.leaf_weight)?;
    for (index, device) in block_io.weight_device.iter().enumerate() {
        let place = format!("blockIO.weightDevice[{index}]");
        check_number(&place, device.major, device.minor)?;
        weight(&format!("{place}.weight"), device.weight)?;
        leaf(&format!("{place}.leafWeight"), device.leaf_weight)?;
        if device.weight.is_none() && device.leaf_weight.is_none() {
            return Err(invalid(&place, "it needs a weight"));
        }
    }
    for (name, devices) in [
        ("throttleReadBpsDevice", &block_io.throttle_read_bps_device),
        ("throttleWriteBpsDevice", &block_io.throttle_write_bps_device),
        ("throttleReadIOPSDevice", &block_io.throttle_read_iops_device),
        ("throttleWriteIOPSDevice", &block_io.throttle_write_iops_device),
    ] {
        for (index, ThrottleDevice { major, minor, .. }) in devices.iter().enumerate() {
            check_number(&format!("blockIO.{name}[{index}]"), *major, *minor)?;
        }
    }
    Ok(())
}

fn check_number(place: &str, major: i64, minor: i64) -> Result<()> {
    for (part, number, most) in [("major", major, MOST_MAJOR), ("minor", minor, MOST_MINOR)] {
        if !(0..=most).contains(&number) {
            return Err(invalid(
                &format!("{place}.{part}"),
                format!("{number} is not 0 to {most}"),
            ));
        }
    }
    Ok(())
}

fn is_page_size(text: &str) -> bool {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = text.get(digits.len()..).unwrap_or_default();
    digits.parse::<u64>().is_ok_and(|size| size > 0) && matches!(unit, "KB" | "MB" | "GB")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn complaint(document: &serde_json::Value) -> String {
        let resources: Resources = serde_json::from_value(document.clone()).unwrap();
        match check(&resources) {
            Ok(()) => String::new(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn every_mistake_is_told_with_its_place() {
        let device = json!({"major": 8, "minor": 0, "rate": 1});
        for (document, place) in [
            (
                json!({"devices": [{"allow": true}, {"allow": true, "type": "x"}]}),
                "devices[1]: ",
            ),
            (
                json!({"devices": [{"allow": true, "access": "rx"}]}),
                "devices[0]: ",
            ),
            (json!({"devices": [{"allow": true, "major": -7}]}), "devices[0]: "),
            (json!({"memory": {"limit": -2}}), "memory.limit: "),
            (json!({"memory": {"kernelTCP": -2}}), "memory.kernelTCP: "),
            (json!({"memory": {"limit": 9, "swap": 5}}), "memory.swap: "),
            (json!({"memory": {"swappiness": 101}}), "memory.swappiness: "),
            (json!({"cpu": {"period": 5}}), "cpu.period: "),
            (json!({"cpu": {"quota": 5}}), "cpu.quota: "),
            (json!({"cpu": {"quota": 5000, "burst": 5001}}), "cpu.burst: "),
            (json!({"cpu": {"cpus": "3-1"}}), "cpu.cpus: "),
            (json!({"cpu": {"mems": "x"}}), "cpu.mems: "),
            (json!({"cpu": {"idle": 2}}), "cpu.idle: "),
            (json!({"pids": {"limit": -2}}), "pids.limit: "),
            (json!({"blockIO": {"weight": 1001}}), "blockIO.weight: "),
            (json!({"blockIO": {"leafWeight": 10}}), "blockIO.leafWeight: "),
            (
                json!({"blockIO": {"weightDevice": [{"major": 8, "minor": 0}]}}),
                "blockIO.weightDevice[0]: ",
            ),
            (
                json!({"blockIO": {"weightDevice": [{"major": 8, "minor": 0, "weight": 2000}]}}),
                "blockIO.weightDevice[0].weight: ",
            ),
            (
                json!({"blockIO": {"throttleReadBpsDevice": [device, {"major": -1, "minor": 0, "rate": 1}]}}),
                "blockIO.throttleReadBpsDevice[1].major: ",
            ),
            (
                json!({"blockIO": {"throttleWriteIOPSDevice": [{"major": 8, "minor": 1_048_576, "rate": 1}]}}),
                "blockIO.throttleWriteIOPSDevice[0].minor: ",
            ),
            (
                json!({"hugepageLimits": [{"pageSize": "2", "limit": 0}]}),
                "hugepageLimits[0].pageSize: ",
            ),
            (
                json!({"network": {"priorities": [{"name": "a b", "priority": 1}]}}),
                "network.priorities[0].name: ",
            ),
            (json!({"rdma": {"mlx5_1": {}}}), "rdma.mlx5_1: "),
            (json!({"unified": {"../x": "1"}}), "unified.../x: "),
        ] {
            let told = complaint(&document);
            assert!(told.starts_with(place), "{document}: {told:?}");
        }
    }

    #[test]
    fn what_engines_write_is_taken() {
        let device = json!([{"major": 8, "minor": 0, "rate": 0}]);
        let usual = json!({
            "devices": [{"allow": false, "access": "rwm"}, {"allow": true, "type": "c", "major": 1, "minor": 3}],
            "memory": {"limit": 0, "swap": -1, "reservation": -1, "swappiness": 0, "kernel": 0},
            "cpu": {"shares": 0, "quota": -1, "period": 0, "cpus": "", "mems": "0-1,3"},
            "pids": {"limit": 0},
            "blockIO": {"weight": 0, "leafWeight": 0, "throttleReadBpsDevice": device},
            "hugepageLimits": [{"pageSize": "2MB", "limit": 0}],
        });
        assert_eq!(complaint(&usual), "");
    }

    #[test]
    fn a_controller_that_is_not_there_is_named() {
        let root = tempfile::tempdir().unwrap();
        let host = Hierarchy::v1_at(root.path(), &["memory", "cpu"]);
        let told = |document: serde_json::Value| match host.check(&serde_json::from_value(document).unwrap())
        {
            Ok(()) => String::new(),
            Err(error) => error.to_string(),
        };
        assert_eq!(
            told(json!({"memory": {"limit": 1}, "cpu": {"shares": 2}, "pids": {"limit": -1}})),
            ""
        );
        assert!(told(json!({"pids": {"limit": 4}})).starts_with("pids.limit: "));
        assert!(told(json!({"cpu": {"cpus": "0"}})).contains("\"cpuset\" is not available"));
        assert!(told(json!({"unified": {"memory.high": "1"}})).starts_with("unified.memory.high: "));
        std::fs::write(root.path().join("cgroup.controllers"), "io pids\n").unwrap();
        let host = Hierarchy::v2_at(root.path());
        let memory = serde_json::from_value(json!({"memory": {"limit": 1}})).unwrap();
        assert!(host.check(&memory).is_err());
        let block_io = serde_json::from_value(json!({"blockIO": {"weight": 10}})).unwrap();
        assert!(host.check(&block_io).is_ok());
        // What engines write where nothing is limited.
        std::fs::write(root.path().join("cgroup.controllers"), "pids\n").unwrap();
        let nothing = json!({
            "memory": {"disableOOMKiller": false, "swap": -1, "limit": 0},
            "blockIO": {"weight": 0},
        });
        host.check(&serde_json::from_value(nothing).unwrap()).unwrap();
    }
}
