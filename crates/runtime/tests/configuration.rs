//! Fields of the configuration that few use: execution domain, I/O priority, limits beyond the host's, clocks, hooks at the
//! end, a subtree for the container's own groups, controllers that the kernel lacks; and that `features` tells the truth.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use spec::runtime::{
    Hook, Hooks, HugepageLimit, IntelRdt, IoPriority, Mount, Personality, Rdma, Resources, Rlimit, TimeOffset,
};
use support::cli::{nothing_is_left, prepared};
use support::{Bundle, captured, finish, possible};

#[test]
fn the_execution_domain_and_the_io_priority_are_set() {
    if !possible() {
        return;
    }
    let mut bundle = Bundle::new();
    for applet in ["uname", "ionice"] {
        std::os::unix::fs::symlink("busybox", bundle.root().join("bin").join(applet)).unwrap();
    }
    bundle.linux().personality = Some(Personality {
        domain: "LINUX32".to_owned(),
        ..Personality::default()
    });
    bundle.process().io_priority = Some(IoPriority {
        class: "IOPRIO_CLASS_BE".to_owned(),
        priority: 6,
    });
    let text = bundle.shell_output("uname -m; ionice -p $$");
    let (machine, priority) = text.split_once('\n').unwrap();
    assert_ne!(machine, std::env::consts::ARCH);
    assert_eq!(priority, "best-effort: prio 6\n");
    // What the program starts has them, and only what is in the container.
    let host = Command::new("uname").arg("-m").output().unwrap();
    assert_eq!(
        String::from_utf8(host.stdout).unwrap().trim(),
        std::env::consts::ARCH
    );
}

/// Raising a hard limit is a right of its own, which is taken from the caller here.
#[test]
fn a_limit_beyond_the_hosts_is_an_error_and_a_default_is_lowered() {
    if !possible() {
        return;
    }
    // In a process of its own, for what it gives up.
    if std::env::var_os("BERTH_TEST_LIMITED").is_none() {
        let output = Command::new("setpriv")
            .args(["--bounding-set", "-sys_resource", "--inh-caps", "-sys_resource"])
            .args(["sh", "-c", "ulimit -n 500 && exec \"$@\"", "sh"])
            .arg(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "a_limit_beyond_the_hosts_is_an_error_and_a_default_is_lowered",
                "--nocapture",
            ])
            .env("BERTH_TEST_LIMITED", "1")
            .output();
        match output {
            Err(_) => println!("skipped: needs setpriv (package util-linux)"),
            Ok(output) => assert!(
                output.status.success(),
                "{}{}",
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            ),
        }
        return;
    }
    let files = |hard| Rlimit {
        r#type: "RLIMIT_NOFILE".to_owned(),
        soft: 100,
        hard,
    };
    let mut bundle = Bundle::new();
    bundle.shell("ulimit -n; ulimit -Hn");
    bundle.process().rlimits = vec![files(501)];
    let error = bundle.run().unwrap_err().to_string();
    assert!(
        error.contains("RLIMIT_NOFILE") && error.contains("hard 501") && error.contains("allows at most 500"),
        "{error}"
    );
    bundle.process().rlimits.clear();
    let (stdio, output) = captured();
    let root = bundle.root();
    let defaults = [files(100_000)];
    let mut launch = runtime::Launch::new(
        "limits",
        bundle.path(),
        &bundle.spec,
        runtime::RootFs::Path(&root),
        stdio,
    );
    launch.default_rlimits = &defaults;
    let running = runtime::create(launch).unwrap().start().unwrap();
    assert_eq!(finish(running.pidfd, output).0, "100\n500\n");
}

#[test]
fn clocks_have_the_offsets_of_the_configuration() {
    if !possible() {
        return;
    }
    let mut bundle = Bundle::new();
    let offset = |secs, nanosecs| TimeOffset { secs, nanosecs };
    bundle.linux().time_offsets = [
        ("monotonic".to_owned(), offset(86_400, 5)),
        ("boottime".to_owned(), offset(-1, 0)),
    ]
    .into();
    let text = bundle.shell_output("cat /proc/self/timens_offsets");
    let words: Vec<&str> = text.split_whitespace().collect();
    assert_eq!(words, ["monotonic", "86400", "5", "boottime", "-1", "0"]);
    bundle.linux().time_offsets = [("wall".to_owned(), offset(1, 0))].into();
    let error = bundle.run().unwrap_err().to_string();
    assert!(error.contains("no clock \"wall\""), "{error}");
}

#[test]
fn hooks_after_the_end_run_once_and_in_the_runtimes_namespaces() {
    let Some((cli, mut bundle, id)) = prepared("poststop") else {
        return;
    };
    let record = bundle.path().join("record");
    let script = format!(
        "cat >>{0}; readlink /proc/self/ns/mnt >>{0}; exit 3",
        record.display()
    );
    bundle.spec.hooks = Some(Hooks {
        poststop: vec![Hook {
            path: "/bin/sh".into(),
            args: ["sh", "-c", &script].map(str::to_owned).to_vec(),
            env: vec!["PATH=/usr/bin:/bin".to_owned()],
            timeout: Some(10),
        }],
        ..Hooks::default()
    });
    bundle.shell("sleep 100");
    bundle.write_config();
    cli.run_detached(bundle.path(), &id);
    assert!(!record.exists());
    // It fails, and what is gone stays gone.
    cli.ok(&["delete", "--force", &id]);
    let text = fs::read_to_string(&record).unwrap();
    assert_eq!(text.matches("\"status\":\"stopped\"").count(), 1, "{text}");
    let own = fs::read_link("/proc/self/ns/mnt").unwrap();
    assert!(text.ends_with(&format!("{}\n", own.display())), "{text}");
    nothing_is_left(&cli, &id);
}

/// A container that manages groups of its own: it sees its group as the root of the trees, writable, and what it makes there
/// goes with it.
#[test]
fn a_subtree_of_groups_is_the_containers_to_divide() {
    let Some((cli, mut bundle, id)) = prepared("subtree") else {
        return;
    };
    let view = bundle
        .spec
        .mounts
        .iter_mut()
        .find(|mount| mount.destination == Path::new("/sys/fs/cgroup"));
    view.unwrap().options.retain(|option| option != "ro");
    // The first tree that there is: the only one of version 2, or that of the processes' number.
    bundle.shell(
        "cd /sys/fs/cgroup; [ -e cgroup.procs ] || cd pids; mkdir inner; echo $$ >inner/cgroup.procs; \
         grep -cE '(^0::|:pids:)/inner$' /proc/self/cgroup",
    );
    bundle.write_config();
    let path = bundle.path().to_str().unwrap();
    assert_eq!(cli.ok(&["run", "--bundle", path, &id]), "1\n");
    nothing_is_left(&cli, &id);
}

#[test]
fn what_the_kernel_does_not_have_is_refused_by_name() {
    let Some((cli, mut bundle, id)) = prepared("lacking") else {
        return;
    };
    let plain = bundle.spec.clone();
    let refused = |bundle: &mut Bundle, expected: &[&str]| {
        bundle.write_config();
        let path = bundle.path().to_str().unwrap().to_owned();
        let complaint = cli.fails(&["run", "--bundle", &path, &id]);
        for word in expected {
            assert!(complaint.contains(word), "{complaint}");
        }
        assert_eq!(complaint.lines().count(), 1, "{complaint}");
        nothing_is_left(&cli, &id);
        bundle.spec = plain.clone();
    };
    let limited = |bundle: &mut Bundle, resources: Resources| bundle.linux().resources = Some(resources);
    let has = |controller: &str| {
        let text = fs::read_to_string("/proc/cgroups").unwrap_or_default();
        text.lines()
            .any(|line| line.starts_with(controller) && line.ends_with('1'))
    };
    if has("hugetlb") {
        println!("skipped in part: this kernel limits huge pages");
    } else {
        limited(
            &mut bundle,
            Resources {
                hugepage_limits: vec![HugepageLimit {
                    page_size: "2MB".to_owned(),
                    limit: 0,
                }],
                ..Resources::default()
            },
        );
        refused(&mut bundle, &["huge page limit", "\"hugetlb\" is not available"]);
    }
    // There the device is what is missing, and the file is named.
    limited(
        &mut bundle,
        Resources {
            rdma: [(
                "nosuch0".to_owned(),
                Rdma {
                    hca_handles: Some(1),
                    hca_objects: None,
                },
            )]
            .into(),
            ..Resources::default()
        },
    );
    refused(&mut bundle, &["rdma"]);
    if !Path::new("/sys/fs/resctrl/schemata").exists() {
        bundle.linux().intel_rdt = Some(IntelRdt::default());
        refused(&mut bundle, &["linux.intelRdt", "resctrl"]);
    }
    // A kernel with AppArmor has no such profile, one without has none.
    bundle.process().apparmor_profile = "some-profile".to_owned();
    let enabled = fs::read_to_string("/sys/module/apparmor/parameters/enabled").unwrap_or_default();
    let why = if enabled.starts_with('Y') {
        "no such profile is loaded"
    } else {
        "this kernel has no AppArmor"
    };
    refused(
        &mut bundle,
        &[&format!("process.apparmorProfile \"some-profile\": {why}")],
    );
    if !Path::new("/sys/fs/selinux/enforce").exists() {
        bundle.process().selinux_label = "system_u:system_r:container_t:s0".to_owned();
        refused(&mut bundle, &["selinuxLabel"]);
        bundle.linux().mount_label = "system_u:object_r:container_file_t:s0".to_owned();
        refused(&mut bundle, &["linux.mountLabel"]);
    }
}

/// Each thing that is said is tried.
#[test]
fn features_are_what_can_be_done() {
    let Some((cli, mut bundle, id)) = prepared("features") else {
        return;
    };
    let features: Value = serde_json::from_str(&cli.ok(&["features"])).unwrap();
    let words = |pointer: &str| -> Vec<String> {
        let list = features.pointer(pointer).and_then(Value::as_array);
        let list = list.unwrap_or_else(|| panic!("{pointer}"));
        list.iter()
            .map(|word| word.as_str().unwrap().to_owned())
            .collect()
    };
    let run = |bundle: &Bundle| {
        bundle.write_config();
        cli.command(&["run", "--bundle", bundle.path().to_str().unwrap(), &id])
    };
    let plain = bundle.shell("true").spec.clone();
    // Options of mounts: those that are parameters of a filesystem have values.
    for option in words("/mountOptions") {
        let option = match option.as_str() {
            "mode" => "mode=700".to_owned(),
            "size" => "size=1m".to_owned(),
            "nr_inodes" => "nr_inodes=10".to_owned(),
            "remount" => continue,
            _ => option,
        };
        let bind = ["bind", "rbind"].contains(&option.as_str());
        bundle.spec = plain.clone();
        bundle.spec.mounts.push(Mount {
            destination: PathBuf::from("/tmp"),
            r#type: (!bind).then(|| "tmpfs".to_owned()),
            source: Some(if bind {
                "/etc".to_owned()
            } else {
                "tmpfs".to_owned()
            }),
            options: vec![option.clone()],
            ..Mount::default()
        });
        let output = run(&bundle);
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{option}: {complaint}");
    }
    bundle.spec = plain.clone();
    for action in words("/linux/seccomp/actions") {
        bundle.linux().seccomp = serde_json::from_value(json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{"names": ["swapoff"], "action": action}],
        }))
        .unwrap();
        let output = run(&bundle);
        let complaint = String::from_utf8_lossy(&output.stderr);
        // Somebody must be there to be asked.
        let asks = action == "SCMP_ACT_NOTIFY";
        assert_eq!(output.status.success(), !asks, "{action}: {complaint}");
        assert!(!asks || complaint.contains("listenerPath"), "{complaint}");
    }
    bundle.linux().seccomp = None;
    let sets = bundle.process().capabilities.get_or_insert_default();
    sets.bounding = words("/linux/capabilities");
    let output = run(&bundle);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let has: Vec<String> = fs::read_dir("/proc/self/ns")
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let names = [("mount", "mnt"), ("network", "net")];
    for namespace in words("/linux/namespaces") {
        let short = names.iter().find(|(long, _)| *long == namespace);
        let short = short.map_or(namespace.as_str(), |(_, short)| short);
        assert!(has.iter().any(|name| name == short), "{namespace}");
    }
    assert_eq!(features["linux"]["cgroup"]["rdma"], json!(true));
    nothing_is_left(&cli, &id);
}
