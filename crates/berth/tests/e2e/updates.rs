//! `update`: the kernel holds a running container to what it says, its next runs and daemons do, too; all of it or nothing.

use std::io::Read as _;
use std::net::{TcpListener, TcpStream};

use store::rusqlite::Connection;

use crate::support::{Daemon, inspect, retry};
use crate::usage::group;

/// What the kernel holds the container to: memory, processor time, processes, processors.
fn held(daemon: &Daemon, name: &str) -> [String; 4] {
    let pid = inspect(daemon, name, "{{.State.Pid}}");
    let read = |controller: &str, files: &[&str]| {
        let group = group(&pid, controller);
        let found = files
            .iter()
            .find_map(|file| std::fs::read_to_string(group.join(file)).ok());
        found
            .unwrap_or_else(|| panic!("{files:?} in {}", group.display()))
            .trim()
            .to_owned()
    };
    let memory = read("memory", &["memory.limit_in_bytes", "memory.max"]);
    let quota = read("cpu", &["cpu.cfs_quota_us", "cpu.max"]);
    let quota = quota.split(' ').next().unwrap_or_default().to_owned();
    [
        // So version 1 spells that there is no limit.
        memory.replace("9223372036854771712", "max"),
        quota.replace("-1", "max"),
        read("pids", &["pids.max"]),
        read("cpuset", &["cpuset.cpus"]),
    ]
}

fn sleeper(daemon: &Daemon, name: &str, limits: &[&str]) {
    daemon.keep(name, limits, &["sleep", "1000"]);
}

#[test]
fn the_kernel_holds_a_container_to_its_update() {
    guard!();
    let mut daemon = Daemon::start();
    let limits = [
        "-m",
        "64m",
        "--memory-swap",
        "64m",
        "--cpus",
        "0.5",
        "--pids-limit",
        "20",
    ];
    sleeper(&daemon, "web", &limits);
    assert_eq!(held(&daemon, "web")[..3], ["67108864", "50000", "20"]);
    daemon.ok(&["create", "--name", "later", "box:1", "sleep", "1000"]);
    let update = [
        "update",
        "-m",
        "96m",
        "--memory-swap",
        "96m",
        "--cpus",
        "0.25",
        "--pids-limit",
        "30",
        "--cpuset-cpus",
        "0",
    ];
    // Of several at once.
    assert_eq!(
        daemon.ok(&[&update[..], &["web", "later"]].concat()),
        "web\nlater\n"
    );
    let wanted = ["100663296", "25000", "30", "0"];
    assert_eq!(held(&daemon, "web"), wanted);
    daemon.ok(&["start", "later"]);
    assert_eq!(held(&daemon, "later"), wanted);
    daemon.crash_and_restart();
    daemon.ok(&["exec", "web", "true"]);
    assert_eq!(held(&daemon, "web"), wanted);
    daemon.ok(&["restart", "-t", "0", "web"]);
    assert_eq!(held(&daemon, "web"), wanted);
    // What is lifted is lifted.
    daemon.ok(&["update", "--memory-swap", "-1", "--pids-limit", "-1", "web"]);
    assert_eq!(held(&daemon, "web")[..3], ["100663296", "25000", "max"]);
}

/// The kernel refuses the last of several limits.
#[test]
fn an_update_that_the_kernel_refuses_changes_nothing() {
    guard!();
    let daemon = Daemon::start();
    sleeper(&daemon, "bare", &[]);
    sleeper(
        &daemon,
        "limited",
        &["-m", "64m", "--memory-swap", "64m", "--cpus", "0.5"],
    );
    let settings = "{{.HostConfig.Memory}} {{.HostConfig.NanoCpus}} {{.HostConfig.CpusetCpus}}";
    for name in ["bare", "limited"] {
        let (limits, recorded) = (held(&daemon, name), inspect(&daemon, name, settings));
        let (code, said) = daemon.fails(&[
            "update",
            "-m",
            "96m",
            "--memory-swap",
            "96m",
            "--cpus",
            "0.25",
            "--cpuset-cpus",
            "4095",
            name,
        ]);
        assert_eq!(code, 1, "{said}");
        assert!(said.contains("4095") || said.contains("cpuset"), "{said}");
        assert_eq!(held(&daemon, name), limits, "{name}");
        assert_eq!(inspect(&daemon, name, settings), recorded, "{name}");
    }
    assert_eq!(daemon.told(&["event=update"], "{{.Action}}"), "");
}

/// The kernel refuses the last of them, and those before it have no word for not being set.
#[test]
fn what_was_not_limited_before_a_refused_update_is_not_limited_after_it() {
    guard!();
    let daemon = Daemon::start();
    sleeper(&daemon, "bare", &[]);
    let pid = inspect(&daemon, "bare", "{{.State.Pid}}");
    let read = |controller: &str, file: &str| {
        let path = group(&pid, controller).join(file);
        std::fs::read_to_string(path).unwrap_or_default()
    };
    // Lists of processors and memory nodes are written after the other limits, in this order.
    let held = || {
        [
            read("cpuset", "cpuset.cpus"),
            read("cpuset", "cpuset.mems"),
            read("cpu", "cpu.rt_period_us"),
        ]
    };
    let before = held();
    let (code, said) = daemon.fails(&["update", "--cpuset-cpus", "0", "--cpuset-mems", "1023", "bare"]);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("cpuset.mems"), "{said}");
    assert_eq!(held(), before);
    // The group above has no budget that could be given on; where there are no budgets at all, that is said.
    let (code, said) = daemon.fails(&[
        "update",
        "--cpu-rt-period",
        "500000",
        "--cpu-rt-runtime",
        "400000",
        "bare",
    ]);
    assert_eq!(code, 1, "{said}");
    assert!(
        said.contains("real-time") || said.contains("rt_runtime"),
        "{said}"
    );
    assert_eq!(held(), before);
    daemon.ok(&["exec", "bare", "true"]);
}

/// Everything of an update is done, and it cannot be recorded.
#[test]
fn an_update_that_cannot_be_recorded_publishes_nothing_and_takes_nothing_back() {
    guard!();
    const KEPT: &str = "28031";
    const NEW: &str = "28032";
    let daemon = Daemon::start();
    daemon.keep(
        "web",
        &["-p", &format!("127.0.0.1:{KEPT}:80")],
        &["nc", "-ll", "-p", "80", "-e", "echo", "served"],
    );
    let answers = |port: &str| {
        let mut said = String::new();
        TcpStream::connect(format!("127.0.0.1:{port}"))
            .and_then(|mut stream| stream.read_to_string(&mut said))
            .is_ok_and(|_| said == "served\n")
    };
    assert!(
        retry(|| answers(KEPT).then_some(())).is_some(),
        "{}",
        daemon.log()
    );
    let shown = || {
        (
            daemon.ok(&["port", "web"]),
            inspect(&daemon, "web", "{{json .HostConfig}}"),
        )
    };
    let before = shown();
    let db = Connection::open(daemon.dir.path().join("root/meta.db")).unwrap();
    // The document that has the new port, which is that of the whole update.
    db.execute_batch(&format!(
        "CREATE TRIGGER refused BEFORE UPDATE ON containers WHEN NEW.document LIKE '%{NEW}%'
         BEGIN SELECT RAISE(ABORT, 'no more records'); END"
    ))
    .unwrap();
    let (code, said) = daemon.fails(&[
        "update",
        "--pids-limit",
        "30",
        "--publish-add",
        &format!("127.0.0.1:{NEW}:80"),
        "--publish-rm",
        &format!("127.0.0.1:{KEPT}:80"),
        "web",
    ]);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("no more records"), "{said}");
    assert_eq!(shown(), before);
    assert!(answers(KEPT));
    // It is nobody's.
    drop(TcpListener::bind(format!("127.0.0.1:{NEW}")).unwrap());
    db.execute_batch("DROP TRIGGER refused").unwrap();
    daemon.ok(&["update", "--publish-add", &format!("127.0.0.1:{NEW}:80"), "web"]);
    assert!(answers(KEPT) && answers(NEW));
    assert_eq!(daemon.ok(&["system", "check"]), "Nothing is wrong.\n");
}
