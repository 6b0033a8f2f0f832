//! The bundle that the engine writes for a container: beside the one that a Docker engine wrote for the same wish
//! (`golden/`, recorded), and run by crun.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::Command;

use api_types::golden::{Excuse, compare};
use serde_json::{Value, json};

use crate::support::{Daemon, text};

const DOCUMENT: &str = include_str!("golden/oci-config-default.json");
const PROFILE: &str = include_str!("golden/oci-seccomp-default.json");

/// Where the documents may differ.
const EXCUSES: &[(&str, Excuse)] = &[
    // Names and places of this container.
    ("hostname", Excuse::Value),
    ("process.env.1", Excuse::Value),
    ("root.path", Excuse::Value),
    ("linux.cgroupsPath", Excuse::Value),
    // HOME stands in ours; Docker leaves it to its runtime, which looks it up once more.
    ("process.env", Excuse::Shape),
    // Docker writes down here that nothing is limited.
    ("linux.resources.memory", Excuse::Skip),
    ("linux.resources.blockIO", Excuse::Skip),
    // Recorded on a host that was told to apply none; its profile has a recording of its own.
    ("linux.seccomp", Excuse::Skip),
    // Docker writes it where a bind wants it; its runtime takes the same where nothing is said.
    ("linux.rootfsPropagation", Excuse::Skip),
    // Has a comparison of its own.
    ("linux.namespaces", Excuse::Skip),
];

/// What a container has that Docker's engine does not write and its runtime, runc, gives to each: nodes of every kind may
/// be made, and these character devices may be used (major, minor).
const GIVEN_BY_RUNC: [(i64, Option<i64>); 8] = [
    (1, Some(3)),
    (1, Some(5)),
    (1, Some(7)),
    (1, Some(8)),
    (1, Some(9)),
    (5, Some(0)),
    (5, Some(2)),
    (136, None),
];

/// The bundle's document of a container that has been started.
fn document(daemon: &Daemon, name: &str) -> Value {
    let id = daemon.ok(&["inspect", "-f", "{{.Id}}", name]);
    let path = daemon.dir.path().join("root/containers").join(id.trim());
    serde_json::from_slice(&std::fs::read(path.join("config.json")).unwrap()).unwrap()
}

fn strings(value: &Value) -> Vec<String> {
    let items = value.as_array().into_iter().flatten();
    items.map(|item| item.as_str().unwrap().to_owned()).collect()
}

/// The letters of `rwm` that the rules leave for a device, for a sample of all there are.
fn access(rules: &[Value]) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for kind in ["b", "c"] {
        for major in [1, 2, 4, 5, 7, 8, 10, 136, 253] {
            for minor in 0..=255 {
                let device = [json!(kind), json!(major), json!(minor)];
                let mut letters = BTreeSet::new();
                for rule in rules {
                    let asked = [&rule["type"], &rule["major"], &rule["minor"]];
                    let meant = asked.iter().zip(&device).all(|(asked, has)| {
                        asked.is_null() || **asked == json!("a") || **asked == json!(-1) || *asked == has
                    });
                    if meant {
                        for letter in rule["access"].as_str().unwrap().chars() {
                            match rule["allow"].as_bool().unwrap() {
                                true => letters.insert(letter),
                                false => letters.remove(&letter),
                            };
                        }
                    }
                }
                found.insert(format!("{kind} {major}:{minor}"), letters.iter().collect());
            }
        }
    }
    found
}

/// Sets in one order, bind mounts from files by name alone, and devices by what may be done with them.
fn neutral(mut document: Value) -> Value {
    let sort = |value: &mut Value| {
        let mut all = strings(value);
        // How many processors have such a sensor is the machine's.
        all.retain(|path| !path.contains("thermal_throttle"));
        all.sort();
        *value = json!(all);
    };
    for set in document["process"]["capabilities"]
        .as_object_mut()
        .unwrap()
        .values_mut()
    {
        sort(set);
    }
    sort(&mut document["linux"]["maskedPaths"]);
    sort(&mut document["linux"]["readonlyPaths"]);
    for mount in document["mounts"].as_array_mut().unwrap() {
        let source = PathBuf::from(mount["source"].as_str().unwrap());
        mount["source"] = json!(source.file_name().unwrap().to_str().unwrap());
    }
    let rules = document["linux"]["resources"]["devices"]
        .as_array()
        .unwrap()
        .clone();
    document["linux"]["resources"]["devices"] = json!(access(&rules));
    document
}

fn namespaces(document: &Value) -> BTreeSet<String> {
    let all = document["linux"]["namespaces"].as_array().unwrap();
    all.iter()
        .map(|one| {
            assert!(one.get("path").is_none(), "{one} is somebody else's");
            one["type"].as_str().unwrap().to_owned()
        })
        .collect()
}

#[test]
fn the_default_bundle_is_dockers() {
    guard!();
    let daemon = Daemon::start();
    daemon.ok(&["run", "-d", "--name", "one", "box:1", "sleep", "9999"]);
    let ours = document(&daemon, "one");
    let mut theirs: Value = serde_json::from_str(DOCUMENT).unwrap();
    let rules = theirs["linux"]["resources"]["devices"].as_array_mut().unwrap();
    for kind in ["b", "c"] {
        rules.push(json!({"allow": true, "type": kind, "access": "m"}));
    }
    for (major, minor) in GIVEN_BY_RUNC {
        rules.push(json!({"allow": true, "type": "c", "major": major, "minor": minor, "access": "rwm"}));
    }
    let mut expected = namespaces(&theirs);
    // Ours makes one for clocks when clocks are moved; and hides the place of its control group on hosts of version 1,
    // as Docker does on those of version 2.
    expected.remove("time");
    expected.insert("cgroup".to_owned());
    assert_eq!(namespaces(&ours), expected);
    let differences = compare(&neutral(theirs), &neutral(ours), EXCUSES);
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

/// What a filter says of each call, whatever the order.
fn rules(filter: &Value) -> BTreeMap<String, BTreeSet<String>> {
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for rule in filter["syscalls"].as_array().unwrap() {
        let arguments = rule["args"].as_array().into_iter().flatten();
        let arguments: Vec<Value> = arguments
            .map(|argument| {
                let second = argument["valueTwo"].as_u64().unwrap_or(0);
                json!([argument["index"], argument["value"], second, argument["op"]])
            })
            .collect();
        for name in strings(&rule["names"]) {
            let says = json!([rule["action"], rule["errnoRet"], arguments]).to_string();
            found.entry(name).or_default().insert(says);
        }
    }
    found
}

/// The recorded profile, read as anybody's is, gives the filter that containers have without one, whatever they may do.
#[test]
fn the_default_filter_is_dockers() {
    guard!();
    let daemon = Daemon::start();
    let file = daemon.dir.path().join("profile.json");
    std::fs::write(&file, PROFILE).unwrap();
    let option = format!("seccomp={}", file.display());
    let profile: Value = serde_json::from_str(PROFILE).unwrap();
    let conditions = profile["syscalls"].as_array().unwrap();
    let named: BTreeSet<String> = conditions
        .iter()
        .flat_map(|rule| [&rule["includes"]["caps"], &rule["excludes"]["caps"]])
        .flat_map(strings)
        .collect();
    assert!(named.len() >= 14, "{named:?}");
    let mut wishes = vec![vec![], vec!["--cap-add", "ALL"], vec!["--cap-drop", "ALL"]];
    wishes.extend(
        named
            .iter()
            .map(|name| vec!["--cap-drop", "ALL", "--cap-add", name]),
    );
    let filter = |flags: &[&str]| {
        let run = [
            &["run", "--name", "one", "--network", "none"],
            flags,
            &["box:1", "true"],
        ];
        daemon.ok(&run.concat());
        let document = document(&daemon, "one");
        daemon.ok(&["rm", "one"]);
        document["linux"]["seccomp"].clone()
    };
    for wish in wishes {
        let ours = filter(&wish);
        let recorded = filter(&[&wish[..], &["--security-opt", &option]].concat());
        assert_eq!(rules(&ours), rules(&recorded), "{wish:?}");
        for part in ["defaultAction", "defaultErrnoRet", "architectures"] {
            assert_eq!(ours[part], recorded[part], "{wish:?}: {part}");
        }
    }
}

/// What a process sees, in words that do not depend on the runtime. Paths that are hidden or kept from writing are mounts
/// of either runtime's own making, and so is the tree of control groups. crun gives its standard streams to the user,
/// /dev/null among them.
const PROBE: &str = "grep -E '^(Cap|NoNewPrivs|Seccomp:|Groups|Uid|Gid)' /proc/self/status; \
    while read a b c d place options f; do case $place in \
      /sys/fs/cgroup/*) ;; /proc/*|/sys/firmware|/sys/devices/*|/sys/fs/cgroup) echo mount $place;; *) echo mount $place $options;; \
    esac; done </proc/self/mountinfo | sort; \
    for node in $(ls /dev | grep -vx -e console -e core -e null); do stat -c '%n %F %a %u:%g %t,%T' /dev/$node; done; \
    hostname; pwd; id; env | sort; umask; ls /proc/self/fd | wc -l; \
    ulimit -n; ulimit -Hn; cat /proc/self/oom_score_adj /proc/sys/net/core/somaxconn; \
    df -k /dev/shm | tail -n 1 | { read a size b; echo shm $size; }; df -k /scratch | tail -n 1 | { read a size b; echo scratch $size; }; \
    for limit in memory/memory.limit_in_bytes memory.max pids/pids.max pids.max cpu/cpu.cfs_quota_us cpu/cpu.shares \
      cpu.max cpu.weight; do cat /sys/fs/cgroup/$limit 2>/dev/null; done; \
    cat /host/file; touch /host/new /new /proc/sys/x /sys/x 2>&1; touch /data/new && echo written; \
    head -c 1 /dev/extra | wc -c; (echo x >/dev/extra) 2>/dev/null || echo read only; \
    cat /etc/hostname /etc/hosts; ls /sys/firmware | wc -l; wc -c </proc/keys; exit 7";

/// What the probe calls and the image has no links for.
const APPLETS: [&str; 6] = ["grep", "sort", "stat", "env", "df", "tail"];

#[test]
fn the_engines_bundle_looks_the_same_under_crun() {
    guard!();
    if Command::new("crun").arg("--version").output().is_err() {
        println!("skipped: needs crun (package crun)");
        return;
    }
    let daemon = Daemon::start();
    let dir = daemon.dir.path();
    std::fs::create_dir(dir.join("host")).unwrap();
    std::fs::write(dir.join("host/file"), "of the host\n").unwrap();
    let host = format!("{}:/host:ro", dir.join("host").display());
    let applets: String = APPLETS
        .iter()
        .map(|applet| format!("{applet}() {{ busybox {applet} \"$@\"; }}; "))
        .collect();
    let probe = format!("{applets}{PROBE}");
    let run = [
        "run",
        "--name",
        "one",
        "--network",
        "none",
        "--hostname",
        "inside",
        "-u",
        "web",
        "--group-add",
        "7",
        "-w",
        "/srv",
        "-e",
        "A=b",
        "-v",
        "data:/data",
        "-v",
        &host,
        "--tmpfs",
        "/scratch:size=1m,mode=1777",
        "--shm-size",
        "2m",
        "-m",
        "64m",
        "--pids-limit",
        "77",
        "--cpus",
        "0.5",
        "--cpu-shares",
        "512",
        "--cap-add",
        "NET_ADMIN",
        "--cap-drop",
        "MKNOD",
        "--security-opt",
        "no-new-privileges",
        "--ulimit",
        "nofile=512:1024",
        "--oom-score-adj",
        "5",
        "--sysctl",
        "net.core.somaxconn=77",
        "--device",
        "/dev/zero:/dev/extra:r",
        "--read-only",
        "box:1",
        "sh",
        "-c",
        &probe,
    ];
    let ours = daemon.run(&run);
    assert_eq!(ours.status.code(), Some(7), "{}", text(&ours.stderr));

    // The same document, with the container's files in a directory, since its own root is mounted nowhere.
    let mut bundle = document(&daemon, "one");
    let root = dir.join("crun/rootfs");
    std::fs::create_dir_all(&root).unwrap();
    let archive = dir.join("root.tar").display().to_string();
    daemon.ok(&["export", "-o", &archive, "one"]);
    let unpacked = Command::new("tar")
        .args(["-xf", &archive, "-C"])
        .arg(&root)
        .status();
    assert!(unpacked.unwrap().success());
    bundle["root"]["path"] = json!(root);
    let id = format!("berth-bundle-{}", std::process::id());
    bundle["linux"]["cgroupsPath"] = json!(format!("/{id}"));
    // Older than the specification's present version.
    bundle["ociVersion"] = json!("1.0.2");
    std::fs::write(dir.join("crun/config.json"), bundle.to_string()).unwrap();
    // Where both versions of control groups are mounted it refuses to run, so it gets to see the first only.
    let script = format!(
        "umount -l /sys/fs/cgroup/unified 2>/dev/null; exec crun --cgroup-manager cgroupfs run --bundle {} {id}",
        dir.join("crun").display()
    );
    let theirs = Command::new("unshare")
        .args(["-m", "sh", "-c", &script])
        .output()
        .unwrap();
    assert_eq!(theirs.status.code(), Some(7), "{}", text(&theirs.stderr));
    let lines = |bytes: &[u8]| -> BTreeSet<String> { text(bytes).lines().map(str::to_owned).collect() };
    let (ours, theirs) = (lines(&ours.stdout), lines(&theirs.stdout));
    assert!(ours.len() > 60, "{ours:?}");
    let only = |one: &BTreeSet<String>, other: &BTreeSet<String>| -> Vec<String> {
        one.difference(other).cloned().collect()
    };
    assert_eq!(
        (only(&ours, &theirs), only(&theirs, &ours)),
        (Vec::new(), Vec::new()),
        "only ours, and only crun's"
    );
}
