//! The command line, and the same bundle under another runtime: both processes must see the same.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;

use support::cli::{Cli, id, program};
use support::{Bundle, possible};

/// What the field's runtimes agree on.
const PROBE: &str = "grep -E '^(Cap|NoNewPrivs|Seccomp:|Groups|Uid|Gid)' /proc/self/status; \
    for m in $(sort /proc/self/mountinfo | while read a b c d e f; do echo $e; done | sort -u); do echo mount $m; done; \
    ls /dev | grep -vx -e console -e core; hostname; pwd; id; env | sort; \
    ls -l /proc/self/fd | wc -l; cat /proc/self/oom_score_adj; ls /sys/firmware | wc -l; wc -c < /proc/keys";

#[test]
fn the_same_bundle_looks_the_same_under_crun() {
    if !possible() {
        return;
    }
    if Command::new("crun").arg("--version").output().is_err() {
        println!("skipped: needs crun");
        return;
    }
    let Some(cli) = Cli::new() else { return };
    let mut bundle = Bundle::new();
    bundle.shell(PROBE);
    // Kernel and libseccomp of the other runtime may know fewer names; the mode is what is compared.
    bundle.linux().seccomp = Some(runtime::default_seccomp(&runtime::template::DEFAULT_CAPABILITIES));
    // Its view of a version 1 cgroup tree is arranged differently.
    bundle
        .spec
        .mounts
        .retain(|mount| mount.destination != Path::new("/sys/fs/cgroup"));
    bundle.linux().cgroups_path = Some(format!("/{}", id("berth-oracle")));
    // crun of Debian 12 knows no time namespaces.
    bundle
        .linux()
        .namespaces
        .retain(|namespace| namespace.r#type != spec::runtime::NamespaceType::Time);
    bundle.linux().resources = None;
    // Older than the specification's present version.
    bundle.spec.oci_version = "1.0.2".to_owned();
    bundle.write_config();
    let path = bundle.path().to_str().unwrap();
    let ours = cli.ok(&["run", "--bundle", path, &id("oracle")]);
    // Where both cgroup versions are mounted it refuses to run, so it gets to see the first only.
    let script = format!(
        "umount -l /sys/fs/cgroup/unified 2>/dev/null; exec crun --cgroup-manager cgroupfs run --bundle {path} {}",
        id("oracle")
    );
    let theirs = Command::new("unshare")
        .args(["-m", "sh", "-c", &script])
        .output()
        .unwrap();
    let complaint = String::from_utf8_lossy(&theirs.stderr).into_owned();
    let theirs = String::from_utf8_lossy(&theirs.stdout).into_owned();
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
    let (ours, theirs) = (lines(&ours), lines(&theirs));
    let missing: Vec<_> = theirs.iter().filter(|line| !ours.contains(line)).collect();
    let extra: Vec<_> = ours.iter().filter(|line| !theirs.contains(line)).collect();
    assert!(
        missing.is_empty() && extra.is_empty(),
        "only crun: {missing:?}\nonly ours: {extra:?}\n{complaint}"
    );
}

#[test]
fn a_life_by_command_line() {
    if !possible() {
        return;
    }
    let Some(cli) = Cli::new() else { return };
    let mut bundle = Bundle::new();
    bundle.shell("trap 'exit 0' TERM; while true; do sleep 0.05; done");
    bundle.linux().cgroups_path = Some(format!("/{}", id("berth-life")));
    bundle.write_config();
    let id = id("life");
    let pid_file = bundle.path().join("pid");
    let create = Command::new(&cli.program)
        .arg("--root")
        .arg(cli.state.path())
        .args(["create", "--bundle"])
        .arg(bundle.path())
        .arg("--pid-file")
        .arg(&pid_file)
        .arg(&id)
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .status()
        .unwrap();
    assert!(create.success());
    let status = |cli: &Cli| {
        let state: serde_json::Value = serde_json::from_str(&cli.ok(&["state", &id])).unwrap();
        state["status"].as_str().unwrap().to_owned()
    };
    assert_eq!(status(&cli), "created");
    assert!(
        !cli.command(&["create", "--bundle", bundle.path().to_str().unwrap(), &id])
            .status
            .success()
    );
    cli.ok(&["start", &id]);
    assert_eq!(status(&cli), "running");
    assert!(!cli.command(&["start", &id]).status.success());
    assert_eq!(cli.ok(&["exec", &id, "echo", "inside"]), "inside\n");
    assert_eq!(cli.command(&["exec", &id, "nosuch"]).status.code(), Some(127));
    let pid = std::fs::read_to_string(&pid_file).unwrap();
    assert!(cli.ok(&["ps", "--format", "json", &id]).contains(&pid));
    assert!(cli.ok(&["list", "--quiet"]).contains(&id));
    cli.ok(&["pause", &id]);
    assert_eq!(status(&cli), "paused");
    cli.ok(&["resume", &id]);
    assert!(!cli.command(&["delete", &id]).status.success());
    cli.ok(&["kill", &id, "KILL"]);
    cli.ok(&["delete", "--force", &id]);
    assert!(!cli.command(&["state", &id]).status.success());
    assert_eq!(std::fs::read_dir(cli.state.path()).unwrap().count(), 0);
    cli.ok(&["features"]);
}

#[test]
fn init_reaps_forwards_and_tells_the_code() {
    if !possible() {
        return;
    }
    let Some(program) = program() else { return };
    let file = std::fs::File::open(program).unwrap();
    let mut bundle = Bundle::new();
    let caps = &runtime::template::DEFAULT_CAPABILITIES;
    bundle.linux().seccomp = Some(runtime::default_seccomp(caps));
    // The test's program is not static, so it brings its libraries along.
    for library in ["/lib", "/lib64", "/usr/lib"] {
        if Path::new(library).exists() {
            bundle.spec.mounts.push(spec::runtime::Mount {
                destination: PathBuf::from(library),
                source: Some(library.to_owned()),
                options: vec!["rbind".to_owned(), "ro".to_owned()],
                ..Default::default()
            });
        }
    }
    let script = "trap 'echo told; exit 6' TERM; echo $(test $$ = 1 || echo child); kill -TERM 1; for i in 1 2 3 4 5 6 7 8 9; do sleep 0.1; done; exit 5";
    bundle.args(&["/sbin/docker-init", "--", "sh", "-c", script]);
    let (stdio, output) = support::captured();
    let root = bundle.root();
    let mut launch = runtime::Launch::new(
        "init",
        bundle.path(),
        &bundle.spec,
        runtime::RootFs::Path(&root),
        stdio,
    );
    launch.init = Some(std::os::fd::AsFd::as_fd(&file));
    let running = runtime::create(launch).unwrap().start().unwrap();
    let (text, exit) = support::finish(running.pidfd, output);
    assert_eq!(
        (text.as_str(), exit),
        ("child\ntold\n", sys::process::Exit::Code(6))
    );
}
