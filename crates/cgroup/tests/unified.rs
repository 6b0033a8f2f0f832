//! The v2 half on a tree of plain files: which file gets which value.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::path::{Path, PathBuf};

use cgroup::{Below, Cgroup, CgroupError, Hierarchy, Lift};
use serde_json::json;
use spec::runtime::{BlockIo, Cpu, Memory, Pids, Resources, ThrottleDevice, WeightDevice};
use tempfile::TempDir;

struct Tree {
    root: TempDir,
    group: Cgroup,
}

/// What the kernel would put into a new group.
const FILES: &[(&str, &str)] = &[
    ("cgroup.procs", ""),
    ("cgroup.freeze", "0"),
    ("cgroup.events", "populated 0\nfrozen 1\n"),
    ("memory.max", "max"),
    ("memory.low", "0"),
    ("memory.swap.max", "max"),
    ("memory.current", "4096"),
    ("memory.peak", "8192"),
    (
        "memory.events",
        "low 0\nhigh 0\nmax 3\noom 2\noom_kill 1\noom_group_kill 0\n",
    ),
    (
        "memory.stat",
        "anon 10\nfile 20\nworkingset_refault_anon 3\nworkingset_refault_file 4\nzswap 9\n",
    ),
    ("cpu.max", "max 100000"),
    ("cpu.max.burst", "0"),
    ("cpu.weight", "100"),
    ("cpu.idle", "0"),
    (
        "cpu.stat",
        "usage_usec 30\nuser_usec 20\nsystem_usec 10\nnr_periods 4\nnr_throttled 2\nthrottled_usec 7\n",
    ),
    ("cpuset.cpus", ""),
    ("cpuset.mems", ""),
    ("pids.max", "max"),
    ("pids.current", "5"),
    ("hugetlb.2MB.max", "max"),
    ("hugetlb.2MB.rsvd.max", "max"),
    ("rdma.max", ""),
    ("io.max", ""),
    ("io.weight", "default 100"),
    ("io.stat", "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6\n"),
];

impl Tree {
    fn new(controllers: &str) -> Self {
        let root = TempDir::new().unwrap();
        fs::write(root.path().join("cgroup.controllers"), controllers).unwrap();
        fs::write(root.path().join("cgroup.subtree_control"), "").unwrap();
        let directory = root.path().join("berth/one");
        fs::create_dir_all(&directory).unwrap();
        for (name, text) in FILES {
            fs::write(directory.join(name), text).unwrap();
        }
        fs::write(directory.join("cgroup.controllers"), controllers).unwrap();
        let group = Cgroup::create_in(Hierarchy::v2_at(root.path()), "/berth", "one").unwrap();
        Self { root, group }
    }

    fn directory(&self) -> PathBuf {
        self.root.path().join("berth/one")
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.directory().join(name)).unwrap()
    }

    fn apply(&self, resources: Resources) -> Result<(), CgroupError> {
        self.group.apply(&resources)
    }
}

fn memory(limit: i64, swap: i64) -> Resources {
    Resources {
        memory: Some(Memory {
            limit: Some(limit),
            swap: Some(swap),
            ..Memory::default()
        }),
        ..Resources::default()
    }
}

#[test]
fn controllers_are_handed_down() {
    let tree = Tree::new("cpu memory pids");
    let handed = fs::read_to_string(tree.root.path().join("cgroup.subtree_control")).unwrap();
    assert_eq!(handed, "+cpu +memory +pids");
    assert!(tree.group.fd().is_some());
    assert_eq!(tree.group.path(), Path::new("/berth/one"));
}

#[test]
fn memory_and_swap_are_told_apart() {
    let tree = Tree::new("memory");
    tree.apply(memory(1 << 20, 3 << 20)).unwrap();
    assert_eq!(
        (tree.read("memory.max"), tree.read("memory.swap.max")),
        ("1048576".into(), "2097152".into())
    );
    tree.apply(memory(1 << 20, 1 << 20)).unwrap();
    assert_eq!(tree.read("memory.swap.max"), "0");
    tree.apply(memory(1 << 20, -1)).unwrap();
    assert_eq!(tree.read("memory.swap.max"), "max");
    tree.apply(memory(-1, 0)).unwrap();
    assert_eq!(
        (tree.read("memory.max"), tree.read("memory.swap.max")),
        ("max".into(), "max".into())
    );
    assert!(tree.apply(memory(0, 1 << 20)).is_err());
    assert!(tree.apply(memory(2 << 20, 1 << 20)).is_err());
}

#[test]
fn a_limit_below_what_is_used_is_refused_with_numbers() {
    let tree = Tree::new("memory");
    let wanted = Memory {
        limit: Some(1024),
        check_before_update: Some(true),
        ..Memory::default()
    };
    let error = tree
        .apply(Resources {
            memory: Some(wanted),
            ..Resources::default()
        })
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "unable to set memory limit to 1024 (current usage: 4096, peak usage: 8192)"
    );
    assert_eq!(tree.read("memory.max"), "max");
}

#[test]
fn quota_period_and_weight() {
    let tree = Tree::new("cpu cpuset");
    let cpu = |cpu: Cpu| Resources {
        cpu: Some(cpu),
        ..Resources::default()
    };
    tree.apply(cpu(Cpu {
        quota: Some(50_000),
        period: Some(25_000),
        shares: Some(1024),
        ..Cpu::default()
    }))
    .unwrap();
    assert_eq!(
        (tree.read("cpu.max"), tree.read("cpu.weight")),
        ("50000 25000".into(), "100".into())
    );
    tree.apply(cpu(Cpu {
        period: Some(10_000),
        ..Cpu::default()
    }))
    .unwrap();
    assert_eq!(tree.read("cpu.max"), "50000 10000");
    tree.apply(cpu(Cpu {
        quota: Some(-1),
        ..Cpu::default()
    }))
    .unwrap();
    assert_eq!(tree.read("cpu.max"), "max");
    tree.apply(cpu(Cpu {
        cpus: "0-1".into(),
        mems: "0".into(),
        ..Cpu::default()
    }))
    .unwrap();
    assert_eq!(
        (tree.read("cpuset.cpus"), tree.read("cpuset.mems")),
        ("0-1".into(), "0".into())
    );
}

#[test]
fn a_lifted_limit_is_that_of_a_new_group() {
    let tree = Tree::new("cpu cpuset io");
    let limits = json!({
        "cpu": {"cpus": "0-1", "mems": "0"},
        "blockIO": {"weight": 500},
    });
    tree.apply(serde_json::from_value(limits).unwrap()).unwrap();
    tree.group.lift(Lift::Processors).unwrap();
    assert_eq!(tree.read("cpuset.cpus").trim(), "");
    assert_eq!(tree.read("cpuset.mems"), "0", "what is not named stays");
    tree.group.lift(Lift::MemoryNodes).unwrap();
    assert_eq!(tree.read("cpuset.mems").trim(), "");
    assert_ne!(tree.read("io.weight"), "100");
    tree.group.lift(Lift::BlockIoWeight).unwrap();
    assert_eq!(tree.read("io.weight"), "100");
    // What is not there was never set.
    tree.group.lift(Lift::RealTime).unwrap();
    fs::remove_file(tree.directory().join("cpuset.cpus")).unwrap();
    tree.group.lift(Lift::Processors).unwrap();
}

#[test]
fn a_missing_controller_is_named() {
    let tree = Tree::new("cpu");
    let error = tree.apply(memory(1 << 20, 0)).unwrap_err();
    assert!(matches!(
        error,
        CgroupError::Missing {
            controller: "memory",
            ..
        }
    ));
    assert_eq!(
        error.to_string(),
        "memory limit cannot be set: the cgroup controller \"memory\" is not available on this host"
    );
    let pids = |limit| Resources {
        pids: Some(Pids { limit }),
        ..Resources::default()
    };
    assert!(matches!(
        tree.apply(pids(3)),
        Err(CgroupError::Missing {
            controller: "pids",
            ..
        })
    ));
    tree.apply(pids(-1)).unwrap();
}

#[test]
fn what_v2_does_not_know_is_refused() {
    let tree = Tree::new("memory cpu");
    let swappiness = Memory {
        swappiness: Some(3),
        ..Memory::default()
    };
    let error = tree
        .apply(Resources {
            memory: Some(swappiness),
            ..Resources::default()
        })
        .unwrap_err();
    assert!(
        error.to_string().starts_with("memory swappiness cannot be set"),
        "{error}"
    );
    let real_time = Cpu {
        realtime_runtime: Some(1000),
        ..Cpu::default()
    };
    assert!(
        tree.apply(Resources {
            cpu: Some(real_time),
            ..Resources::default()
        })
        .is_err()
    );
}

#[test]
fn block_devices() {
    let tree = Tree::new("io");
    let device = ThrottleDevice {
        major: 8,
        minor: 0,
        rate: 4096,
    };
    let block_io = BlockIo {
        weight: Some(1000),
        throttle_read_bps_device: vec![device],
        weight_device: vec![WeightDevice::default()],
        ..BlockIo::default()
    };
    tree.apply(Resources {
        block_io: Some(block_io),
        ..Resources::default()
    })
    .unwrap();
    assert_eq!(
        (tree.read("io.weight"), tree.read("io.max")),
        ("10000".into(), "8:0 rbps=4096".into())
    );
}

/// A kernel that takes a write and keeps another value: the file is one that reads as empty whatever is written.
#[test]
fn a_value_that_is_not_kept_is_told_with_its_file() {
    let controllers = "memory cpu cpuset pids io hugetlb rdma";
    let device = json!([{"major": 8, "minor": 0, "rate": 4096}]);
    for (file, wanted) in [
        ("memory.max", json!({"memory": {"limit": 4096}})),
        (
            "memory.swap.max",
            json!({"memory": {"limit": 4096, "swap": 8192}}),
        ),
        ("memory.low", json!({"memory": {"reservation": 4096}})),
        ("cpu.max", json!({"cpu": {"quota": 5000}})),
        ("cpu.max.burst", json!({"cpu": {"quota": 5000, "burst": 1000}})),
        ("cpu.weight", json!({"cpu": {"shares": 512}})),
        ("cpu.idle", json!({"cpu": {"idle": 1}})),
        ("cpuset.cpus", json!({"cpu": {"cpus": "0"}})),
        ("cpuset.mems", json!({"cpu": {"mems": "0"}})),
        ("pids.max", json!({"pids": {"limit": 5}})),
        ("io.weight", json!({"blockIO": {"weight": 500}})),
        ("io.max", json!({"blockIO": {"throttleReadBpsDevice": device}})),
        (
            "hugetlb.2MB.max",
            json!({"hugepageLimits": [{"pageSize": "2MB", "limit": 2_097_152}]}),
        ),
        (
            "hugetlb.2MB.rsvd.max",
            json!({"hugepageLimits": [{"pageSize": "2MB", "limit": 2_097_152}]}),
        ),
        ("rdma.max", json!({"rdma": {"mlx5_1": {"hcaHandles": 2}}})),
    ] {
        let tree = Tree::new(controllers);
        let path = tree.directory().join(file);
        let resources: Resources = serde_json::from_value(wanted).unwrap();
        tree.apply(resources.clone()).unwrap();
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/dev/null", &path).unwrap();
        let error = tree.apply(resources).unwrap_err();
        assert!(matches!(error, CgroupError::NotTaken { .. }), "{file}: {error}");
        assert!(
            error.to_string().contains(&path.display().to_string()),
            "{file}: {error}"
        );
    }
}

#[test]
fn a_limit_of_huge_pages_holds_for_what_is_reserved_too() {
    let tree = Tree::new("hugetlb");
    let limit: Resources =
        serde_json::from_value(json!({"hugepageLimits": [{"pageSize": "2MB", "limit": 4_194_304}]})).unwrap();
    tree.apply(limit.clone()).unwrap();
    assert_eq!(
        (
            tree.read("hugetlb.2MB.max").as_str(),
            tree.read("hugetlb.2MB.rsvd.max").as_str()
        ),
        ("4194304", "4194304")
    );
    // A kernel that does not count reservations has no such file.
    fs::remove_file(tree.directory().join("hugetlb.2MB.rsvd.max")).unwrap();
    tree.apply(limit).unwrap();
}

#[test]
fn a_process_begins_in_the_group_below_that_is_named() {
    let below =
        |words: &[&str]| Below::parse(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>());
    let tree = Tree::new("memory");
    fs::create_dir(tree.directory().join("inner")).unwrap();
    let inner = tree.group.fd_below(&below(&["inner"]).unwrap()).unwrap().unwrap();
    let expected = fs::metadata(tree.directory().join("inner")).unwrap();
    assert_eq!(
        rustix::fs::fstat(&inner).unwrap().st_ino,
        std::os::unix::fs::MetadataExt::ino(&expected)
    );
    let missing = tree.group.fd_below(&below(&["/nosuch"]).unwrap()).unwrap_err();
    assert!(missing.to_string().contains("one/nosuch"), "{missing}");
    for wrong in [
        &["../two"][..],
        &["a/../../b"],
        &["a", "b"],
        &["cpu:a", "cpu:b"],
        &["cpu,:a"],
        &[":a"],
    ] {
        assert!(below(wrong).is_err(), "{wrong:?}");
    }
    let by_controller = below(&["cpu,cpuacct:a", "memory:b"]).unwrap();
    assert!(
        tree.group.entry_below(&by_controller).is_err(),
        "there is no version 1 here"
    );
    let root = TempDir::new().unwrap();
    for path in ["cpu/one/a", "memory/one/b"] {
        fs::create_dir_all(root.path().join(path)).unwrap();
        fs::write(root.path().join(path).join("tasks"), "").unwrap();
    }
    let v1 = Hierarchy::v1_at(root.path(), &["cpu", "memory"]);
    let group = Cgroup::open_in(v1, "/", "one").unwrap();
    let entry = group
        .entry_below(&below(&["cpu:a", "memory:b"]).unwrap())
        .unwrap();
    entry.enter().unwrap();
    for path in ["cpu/one/a/tasks", "memory/one/b/tasks"] {
        assert_eq!(fs::read_to_string(root.path().join(path)).unwrap(), "0", "{path}");
    }
}

#[test]
fn named_files_stay_inside() {
    let tree = Tree::new("memory");
    let unified = |name: &str| Resources {
        unified: [(name.to_owned(), "7".to_owned())].into(),
        ..Resources::default()
    };
    tree.apply(unified("memory.low")).unwrap();
    assert_eq!(tree.read("memory.low"), "7");
    assert!(tree.apply(unified("../x")).is_err());
    assert!(tree.apply(unified("memory.nothing")).is_err());
}

#[test]
fn everything_is_measured() {
    let tree = Tree::new("memory cpu pids io");
    let stats = tree.group.stats().unwrap();
    assert_eq!(
        (stats.cpu.total, stats.cpu.user, stats.cpu.kernel),
        (30_000, 20_000, 10_000)
    );
    assert_eq!(stats.cpu.throttling.throttled_time, 7000);
    assert_eq!(
        (stats.memory.usage, stats.memory.max_usage, stats.memory.limit),
        (4096, Some(8192), None)
    );
    assert_eq!(stats.memory.stats["workingset_refault"], 7);
    assert!(!stats.memory.stats.contains_key("zswap"));
    assert_eq!((stats.pids.current, stats.pids.limit), (5, None));
    assert_eq!(stats.blkio.service_bytes.len(), 2);
    assert_eq!(stats.blkio.serviced[1].value, 4);
    assert_eq!(tree.group.oom_kills().unwrap(), 1);
    assert_eq!(tree.group.peak_memory().unwrap(), Some(8192));
}

#[test]
fn freezing_waits_for_the_event() {
    let tree = Tree::new("memory");
    tree.group.freeze().unwrap();
    assert_eq!(tree.read("cgroup.freeze"), "1");
    assert!(tree.group.is_frozen().unwrap());
    tree.group.thaw().unwrap();
    assert_eq!(tree.read("cgroup.freeze"), "0");
}
