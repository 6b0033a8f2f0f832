//! The real trees of this machine: groups are made, limited, frozen, killed, measured and removed.
//! Needs root; each test prints why it is skipped where it cannot run.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use cgroup::{Cgroup, CgroupError, Hierarchy, Lift, Version};
use spec::runtime::{
    BlockIo, Cpu, DeviceCgroup, HugepageLimit, InterfacePriority, Memory, Network, Pids, Resources,
    ThrottleDevice,
};

const PATIENCE: Duration = Duration::from_secs(10);

struct Group {
    group: Cgroup,
    children: Vec<Child>,
    parent: String,
}

impl Group {
    /// A group of this test's own, or nothing (with the reason printed) where groups cannot be made.
    fn new() -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        if !rustix::process::geteuid().is_root() {
            println!("skipped: not root");
            return None;
        }
        let parent = format!(
            "/berth-test-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        match Cgroup::create(&parent, "one") {
            Ok(group) => Some(Self {
                group,
                children: Vec::new(),
                parent,
            }),
            Err(CgroupError::NoHierarchy { .. }) => {
                println!("skipped: no cgroup file system");
                None
            }
            Err(error) => panic!("{error}: {:?}", std::error::Error::source(&error)),
        }
    }

    fn spawn(&mut self, script: &str) -> i32 {
        // The shell waits for a line, so that nothing happens before it is in the group.
        let mut child = Command::new("/bin/sh")
            .args(["-c", &format!("read go; {script}")])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        self.group.add(pid).unwrap();
        std::io::Write::write_all(child.stdin.as_mut().unwrap(), b"go\n").unwrap();
        self.children.push(child);
        pid
    }

    /// What a limit's file holds, by its controller and names in both versions.
    fn limit(&self, controller: &str, v1: &str, v2: &str) -> String {
        if self.group.version() != Version::V2 {
            return self.read(controller, v1).unwrap();
        }
        let directory = &self.group.paths()[0].directory;
        fs::read_to_string(directory.join(v2)).unwrap().trim().to_owned()
    }

    fn read(&self, controller: &str, file: &str) -> Option<String> {
        let paths = self.group.paths();
        let path = paths
            .iter()
            .find(|path| path.controllers.iter().any(|name| name == controller))?;
        Some(
            fs::read_to_string(path.directory.join(file))
                .unwrap()
                .trim()
                .to_owned(),
        )
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = self.group.kill_all();
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
        if let Err(error) = self.group.remove() {
            eprintln!("{error}");
        }
        for path in self.group.paths() {
            let _ = fs::remove_dir(path.mount_point.join(self.parent.trim_start_matches('/')));
        }
    }
}

fn is_v1(group: &Cgroup) -> bool {
    let v1 = group.version() != Version::V2;
    if !v1 {
        println!("skipped: cgroup v2 host");
    }
    v1
}

#[test]
fn a_process_is_placed_everywhere_and_killed() {
    let Some(mut fixture) = Group::new() else { return };
    let pid = fixture.spawn("sleep 1000 & sleep 1000");
    let placed = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let path = fixture.group.path();
    // The kernel has a version 2 tree where nobody has mounted it, too.
    let unified = fixture.group.hierarchy().unified().is_some();
    for line in placed.lines().filter(|line| unified || !line.starts_with("0::")) {
        assert!(line.ends_with(path.to_str().unwrap()), "{line}");
    }
    assert!(fixture.group.pids().unwrap().contains(&pid));
    assert!(matches!(
        Cgroup::create(&fixture.parent, "one"),
        Err(CgroupError::Occupied { .. })
    ));
    fixture.group.kill_all().unwrap();
    let status = fixture.children[0].wait().unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9));
    fixture.group.wait_empty(PATIENCE).unwrap();
    fixture.group.remove().unwrap();
    assert!(!fixture.group.exists());
    fixture.group.remove().unwrap();
}

#[test]
fn a_busy_group_is_not_removed() {
    let Some(mut fixture) = Group::new() else { return };
    fixture.spawn("sleep 1000");
    let error = fixture.group.remove_within(Duration::from_millis(5)).unwrap_err();
    assert!(matches!(error, CgroupError::Busy { .. }), "{error}");
}

#[test]
fn groups_made_inside_go_with_it() {
    let Some(fixture) = Group::new() else { return };
    for path in fixture.group.paths() {
        fs::create_dir_all(path.directory.join("inner/leaf")).unwrap();
    }
    fixture.group.remove().unwrap();
    assert!(!fixture.group.exists());
}

#[test]
fn a_frozen_group_stands_still_and_can_be_killed() {
    let Some(mut fixture) = Group::new() else { return };
    fixture.spawn("while :; do :; done");
    fixture.group.freeze().unwrap();
    assert!(fixture.group.is_frozen().unwrap());
    let before = fixture.group.stats().unwrap().cpu.total;
    std::thread::sleep(Duration::from_millis(30));
    let after = fixture.group.stats().unwrap().cpu.total;
    assert_eq!(before, after);
    fixture.group.kill_all().unwrap();
    fixture.children[0].wait().unwrap();
}

#[test]
fn a_thawed_group_goes_on() {
    let Some(mut fixture) = Group::new() else { return };
    fixture.spawn("exit 7");
    fixture.group.freeze().unwrap();
    fixture.group.thaw().unwrap();
    assert!(!fixture.group.is_frozen().unwrap());
    assert_eq!(fixture.children[0].wait().unwrap().code(), Some(7));
}

#[test]
fn limits_are_written_raised_and_lowered() {
    let Some(fixture) = Group::new() else { return };
    if !is_v1(&fixture.group) {
        return;
    }
    let memory = |limit: i64, swap: i64| Resources {
        memory: Some(Memory {
            limit: Some(limit),
            swap: Some(swap),
            ..Memory::default()
        }),
        ..Resources::default()
    };
    const MIB: i64 = 1 << 20;
    // Down, up, down, and away: each needs another order of the two files.
    for (limit, swap) in [(64, 128), (256, 512), (300, 300), (32, 32)] {
        fixture.group.apply(&memory(limit * MIB, swap * MIB)).unwrap();
        assert_eq!(
            fixture.read("memory", "memory.limit_in_bytes").unwrap(),
            (limit * MIB).to_string()
        );
        assert_eq!(
            fixture.read("memory", "memory.memsw.limit_in_bytes").unwrap(),
            (swap * MIB).to_string()
        );
    }
    fixture.group.apply(&memory(-1, -1)).unwrap();
    assert_eq!(fixture.group.stats().unwrap().memory.limit, None);
    let rest = Resources {
        cpu: Some(Cpu {
            shares: Some(512),
            quota: Some(25_000),
            period: Some(50_000),
            cpus: "0".into(),
            mems: "0".into(),
            ..Cpu::default()
        }),
        pids: Some(Pids { limit: 64 }),
        memory: Some(Memory {
            reservation: Some(16 * MIB),
            swappiness: Some(10),
            ..Memory::default()
        }),
        ..Resources::default()
    };
    fixture.group.apply(&rest).unwrap();
    assert_eq!(fixture.read("cpu", "cpu.shares").unwrap(), "512");
    assert_eq!(fixture.read("cpu", "cpu.cfs_quota_us").unwrap(), "25000");
    assert_eq!(fixture.read("cpu", "cpu.cfs_period_us").unwrap(), "50000");
    assert_eq!(fixture.read("cpuset", "cpuset.cpus").unwrap(), "0");
    assert_eq!(
        fixture.read("memory", "memory.soft_limit_in_bytes").unwrap(),
        (16 * MIB).to_string()
    );
    assert_eq!(fixture.group.stats().unwrap().pids.limit, Some(64));
    fixture
        .group
        .apply(&Resources {
            pids: Some(Pids { limit: -1 }),
            ..Resources::default()
        })
        .unwrap();
    assert_eq!(fixture.group.stats().unwrap().pids.limit, None);
}

#[test]
fn a_burst_and_a_reservation_are_the_kernels() {
    let Some(fixture) = Group::new() else { return };
    let cpu = |burst| Resources {
        cpu: Some(Cpu {
            quota: Some(25_000),
            period: Some(50_000),
            burst: Some(burst),
            ..Cpu::default()
        }),
        ..Resources::default()
    };
    let burst = || fixture.limit("cpu", "cpu.cfs_burst_us", "cpu.max.burst");
    fixture.group.apply(&cpu(10_000)).unwrap();
    assert_eq!(burst(), "10000");
    fixture.group.apply(&cpu(0)).unwrap();
    assert_eq!(burst(), "0");
    let reservation = Resources {
        memory: Some(Memory {
            reservation: Some(8 << 20),
            ..Memory::default()
        }),
        ..Resources::default()
    };
    fixture.group.apply(&reservation).unwrap();
    let holds = fixture.limit("memory", "memory.soft_limit_in_bytes", "memory.low");
    assert_eq!(holds, (8 << 20).to_string());
}

#[test]
fn lifted_limits_are_those_of_a_new_group() {
    let Some(mut fixture) = Group::new() else { return };
    // As in a container: kernels are stricter with groups that have processes.
    fixture.spawn("sleep 1000");
    // What may be used, which version 2 tells in a file of its own.
    let held = || {
        ["cpuset.cpus", "cpuset.mems"].map(|name| fixture.limit("cpuset", name, &format!("{name}.effective")))
    };
    let before = held();
    let limits = Resources {
        cpu: Some(Cpu {
            cpus: "0".into(),
            mems: "0".into(),
            ..Cpu::default()
        }),
        ..Resources::default()
    };
    fixture.group.apply(&limits).unwrap();
    assert_eq!(held(), ["0", "0"]);
    for limit in [
        Lift::Processors,
        Lift::MemoryNodes,
        Lift::BlockIoWeight,
        Lift::RealTime,
    ] {
        fixture.group.lift(limit).unwrap();
    }
    assert_eq!(held(), before);
    let period = || match fixture.group.version() {
        Version::V2 => None,
        Version::V1 | Version::Hybrid => {
            let paths = fixture.group.paths();
            let cpu = paths
                .iter()
                .find(|path| path.controllers.iter().any(|name| name == "cpu"))?;
            fs::read_to_string(cpu.directory.join("cpu.rt_period_us")).ok()
        }
    };
    let Some(before) = period() else {
        println!("skipped in part: this kernel has no budget of real-time tasks");
        return;
    };
    let limits = Resources {
        cpu: Some(Cpu {
            realtime_period: Some(500_000),
            ..Cpu::default()
        }),
        ..Resources::default()
    };
    fixture.group.apply(&limits).unwrap();
    assert_eq!(period().as_deref(), Some("500000\n"));
    fixture.group.lift(Lift::RealTime).unwrap();
    assert_eq!(period(), Some(before));
}

/// The number of a disk of this machine.
fn disk() -> Option<(i64, i64)> {
    let mut disks: Vec<_> = fs::read_dir("/sys/block")
        .into_iter()
        .flatten()
        .flatten()
        .map(|disk| disk.path())
        .filter(|disk| fs::read_to_string(disk.join("size")).is_ok_and(|size| size.trim() != "0"))
        .collect();
    disks.sort();
    let number = fs::read_to_string(disks.first()?.join("dev")).unwrap();
    let (major, minor) = number.trim().split_once(':').unwrap();
    Some((major.parse().unwrap(), minor.parse().unwrap()))
}

#[test]
fn rates_of_a_disk_are_the_kernels() {
    let Some(fixture) = Group::new() else { return };
    let Some((major, minor)) = disk() else {
        println!("skipped: this machine has no disk");
        return;
    };
    let rates = |major: i64, rates: [u64; 4]| {
        let [read_bytes, write_bytes, reads, writes] =
            rates.map(|rate| vec![ThrottleDevice { major, minor, rate }]);
        Resources {
            block_io: Some(BlockIo {
                throttle_read_bps_device: read_bytes,
                throttle_write_bps_device: write_bytes,
                throttle_read_iops_device: reads,
                throttle_write_iops_device: writes,
                ..BlockIo::default()
            }),
            ..Resources::default()
        }
    };
    let v2 = fixture.group.version() == Version::V2;
    let held = || {
        ["read_bps", "write_bps", "read_iops", "write_iops"]
            .map(|name| fixture.limit("blkio", &format!("blkio.throttle.{name}_device"), "io.max"))
    };
    fixture
        .group
        .apply(&rates(major, [1 << 20, 2 << 20, 100, 200]))
        .unwrap();
    let expected = if v2 {
        let line = format!("{major}:{minor} rbps=1048576 wbps=2097152 riops=100 wiops=200");
        [line.clone(), line.clone(), line.clone(), line]
    } else {
        [1 << 20, 2 << 20, 100, 200].map(|rate| format!("{major}:{minor} {rate}"))
    };
    assert_eq!(held(), expected);
    // A rate of its own changes; zero takes it away.
    fixture.group.apply(&rates(major, [3 << 20, 0, 0, 0])).unwrap();
    let expected = if v2 {
        format!("{major}:{minor} rbps=3145728 wbps=max riops=max wiops=max")
    } else {
        format!("{major}:{minor} 3145728")
    };
    assert_eq!(held()[0], expected);
    fixture.group.apply(&rates(major, [0; 4])).unwrap();
    assert_eq!(held(), [""; 4]);
    let error = fixture.group.apply(&rates(4000, [1; 4])).unwrap_err().to_string();
    assert!(
        error.contains("4000:") && (error.contains("io.max") || error.contains("throttle.read_bps_device")),
        "{error}"
    );
}

#[test]
fn huge_pages_and_the_classes_of_packets_are_limited_where_the_kernel_does() {
    let Some(fixture) = Group::new() else { return };
    let host = Hierarchy::host().unwrap();
    let wanted = |resources: Resources| match host.check(&resources) {
        Ok(()) => Some(resources),
        Err(error) => {
            println!("skipped: {error}");
            None
        }
    };
    let huge = Resources {
        hugepage_limits: vec![HugepageLimit {
            page_size: "2MB".to_owned(),
            limit: 5 << 20,
        }],
        ..Resources::default()
    };
    if let Some(huge) = wanted(huge)
        && fs::exists("/sys/kernel/mm/hugepages/hugepages-2048kB").unwrap()
    {
        fixture.group.apply(&huge).unwrap();
        // Two whole pages.
        for (v1, v2) in [
            ("hugetlb.2MB.limit_in_bytes", "hugetlb.2MB.max"),
            ("hugetlb.2MB.rsvd.limit_in_bytes", "hugetlb.2MB.rsvd.max"),
        ] {
            assert_eq!(fixture.limit("hugetlb", v1, v2), (4 << 20).to_string());
        }
    }
    let network = |network: Network| {
        wanted(Resources {
            network: Some(network),
            ..Resources::default()
        })
    };
    if let Some(class) = network(Network {
        class_id: Some(0x10_0001),
        ..Network::default()
    }) {
        fixture.group.apply(&class).unwrap();
        assert_eq!(fixture.read("net_cls", "net_cls.classid").unwrap(), "1048577");
    }
    if let Some(priority) = network(Network {
        priorities: vec![InterfacePriority {
            name: "lo".to_owned(),
            priority: 5,
        }],
        ..Network::default()
    }) {
        fixture.group.apply(&priority).unwrap();
        let map = fixture.read("net_prio", "net_prio.ifpriomap").unwrap();
        assert!(map.lines().any(|line| line == "lo 5"), "{map}");
    }
}

/// Runs tests of this file once more, in a mount namespace that a script has prepared.
fn again(name: &str, script: &str, tests: &[&str]) {
    if !rustix::process::geteuid().is_root() || std::env::var_os("BERTH_TEST_AGAIN").is_some() {
        println!("skipped: not root, or within itself");
        return;
    }
    let output = Command::new("unshare")
        .args(["--mount", "sh", "-c"])
        .arg(format!("{script}; exec \"$@\""))
        .arg(name)
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture"])
        .args(tests)
        .env("BERTH_TEST_AGAIN", name)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success() && text.contains(&format!("{} passed", tests.len())),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    print!("{text}");
}

/// A host that mounts version 1 alone has neither the freezer nor the kill of version 2.
#[test]
fn version_1_alone_places_freezes_and_kills() {
    match Hierarchy::host().map(|host| host.version()) {
        Ok(Version::Hybrid) => {}
        _ => return println!("skipped: this host has not both versions"),
    }
    again(
        "alone",
        "umount -l /sys/fs/cgroup/unified || exit 1",
        &[
            "a_process_is_placed_everywhere_and_killed",
            "a_busy_group_is_not_removed",
            "groups_made_inside_go_with_it",
            "a_frozen_group_stands_still_and_can_be_killed",
            "a_thawed_group_goes_on",
            "it_is_version_1_alone",
        ],
    );
}

#[test]
fn it_is_version_1_alone() {
    if std::env::var("BERTH_TEST_AGAIN").is_ok_and(|name| name == "alone") {
        assert_eq!(Hierarchy::host().unwrap().version(), Version::V1);
    }
}

#[test]
fn a_refused_value_names_file_and_value() {
    let Some(fixture) = Group::new() else { return };
    if !is_v1(&fixture.group) {
        return;
    }
    let cpus = Resources {
        cpu: Some(Cpu {
            cpus: "4000".into(),
            ..Cpu::default()
        }),
        ..Resources::default()
    };
    let error = fixture.group.apply(&cpus).unwrap_err().to_string();
    assert!(error.contains("cpuset.cpus") && error.contains("4000"), "{error}");
}

#[test]
fn the_number_of_processes_is_limited() {
    let Some(mut fixture) = Group::new() else { return };
    fixture
        .group
        .apply(&Resources {
            pids: Some(Pids { limit: 1 }),
            ..Resources::default()
        })
        .unwrap();
    fixture.spawn("(exit 0) 2>/dev/null && exit 3; exit 4");
    let code = fixture.children[0].wait().unwrap().code();
    assert_ne!(code, Some(3));
}

#[test]
fn device_rules_are_the_kernels() {
    let Some(mut fixture) = Group::new() else { return };
    let rule = |allow, kind: &str, major, minor, access: &str| DeviceCgroup {
        allow,
        r#type: Some(kind.into()),
        major,
        minor,
        access: access.into(),
    };
    let rules = vec![
        rule(false, "a", None, None, "rwm"),
        rule(true, "c", Some(1), Some(3), "rwm"),
    ];
    fixture
        .group
        .apply(&Resources {
            devices: rules,
            ..Resources::default()
        })
        .unwrap();
    // /dev/null may be opened, /dev/zero not.
    fixture.spawn(": </dev/null || exit 1; (: </dev/zero) 2>/dev/null && exit 2; exit 5");
    assert_eq!(fixture.children[0].wait().unwrap().code(), Some(5));
}

#[test]
fn the_device_program_of_the_unified_tree_is_the_kernels() {
    let Some(mut fixture) = Group::new() else { return };
    let host = Hierarchy::host().unwrap();
    let Some(unified) = host.unified() else {
        println!("skipped: no unified tree");
        return;
    };
    // The same directory, seen as a v2 host would: only the program decides there.
    let relative = fixture.parent.clone();
    let group = Cgroup::open_in(Hierarchy::v2_at(unified), &relative, "one").unwrap();
    let rule = |allow, major, minor| DeviceCgroup {
        allow,
        r#type: Some("c".into()),
        major: Some(major),
        minor: Some(minor),
        access: "rwm".into(),
    };
    for _ in 0..2 {
        // Twice: the second set takes the place of the first.
        let deny_all = DeviceCgroup {
            allow: false,
            access: "rwm".into(),
            ..DeviceCgroup::default()
        };
        let resources = Resources {
            devices: vec![deny_all, rule(true, 1, 3)],
            ..Resources::default()
        };
        group.apply(&resources).unwrap();
    }
    fixture.spawn(": </dev/null || exit 1; (: </dev/zero) 2>/dev/null && exit 2; exit 5");
    assert_eq!(fixture.children[0].wait().unwrap().code(), Some(5));
}

#[test]
fn running_out_of_memory_is_seen_and_counted() {
    let Some(mut fixture) = Group::new() else { return };
    let Some(wake) = fixture.group.oom_event_fd().unwrap() else {
        println!("skipped: memory is not controlled");
        return;
    };
    assert_eq!(fixture.group.oom_kills().unwrap(), 0);
    let limit = Memory {
        limit: Some(8 << 20),
        swap: Some(8 << 20),
        ..Memory::default()
    };
    fixture
        .group
        .apply(&Resources {
            memory: Some(limit),
            ..Resources::default()
        })
        .unwrap();
    fixture.spawn("a=x; while :; do a=$a$a; done");
    let status = fixture.children[0].wait().unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9));
    assert!(fixture.group.oom_kills().unwrap() >= 1);
    assert!(fixture.group.peak_memory().unwrap().unwrap() > 4 << 20);
    let mut buffer = [0u8; 64];
    assert!(rustix::io::read(&wake, &mut buffer).unwrap() > 0);
}

#[test]
fn what_was_used_is_measured() {
    let Some(mut fixture) = Group::new() else { return };
    fixture.spawn("i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done");
    fixture.children[0].wait().unwrap();
    let stats = fixture.group.stats().unwrap();
    assert!(stats.cpu.total > 0, "{stats:?}");
    if is_v1(&fixture.group) {
        assert!(!stats.cpu.per_cpu.is_empty());
        for name in ["cache", "rss", "total_inactive_file", "hierarchical_memory_limit"] {
            assert!(stats.memory.stats.contains_key(name), "{name}");
        }
    }
}

#[test]
fn the_machine_says_what_it_supports() {
    let Ok(host) = Hierarchy::host() else {
        println!("skipped: no cgroup file system");
        return;
    };
    let support = host.support();
    assert!(support.freeze, "{support:?}");
    assert_eq!(
        support.memory,
        host.version() == Version::V2 || host.controller("memory").is_some()
    );
}
