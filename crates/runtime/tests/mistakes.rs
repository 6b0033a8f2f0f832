//! What is wrong with a bundle, an id or a call is told in one line, and nothing of it is left.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use spec::runtime::{Hook, Hooks};
use support::Bundle;
use support::cli::{Cli, nothing_is_left, prepared};

/// What creating complains of.
fn refused(cli: &Cli, bundle: &Bundle, id: &str, flags: &[&str]) -> String {
    let call = [
        &["create", "--bundle", bundle.path().to_str().unwrap()],
        flags,
        &[id],
    ]
    .concat();
    let complaint = cli.fails(&call);
    nothing_is_left(cli, id);
    assert_eq!(complaint.lines().count(), 1, "{complaint}");
    complaint
}

#[test]
fn a_mistake_in_the_configuration_is_told_with_its_place() {
    let Some((cli, bundle, id)) = prepared("mistake") else {
        return;
    };
    bundle.write_config();
    let path = bundle.path().join("config.json");
    let good: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let complaint = |pointer: &[&str], value: Value| {
        let mut bad = good.clone();
        let mut at = &mut bad;
        for key in pointer {
            at = &mut at[*key];
        }
        *at = value;
        fs::write(&path, bad.to_string()).unwrap();
        let complaint = cli.fails(&["create", "--bundle", bundle.path().to_str().unwrap(), &id]);
        nothing_is_left(&cli, &id);
        complaint
    };
    let cases: [(&[&str], Value, &str); 9] = [
        (
            &["process", "user", "uid"],
            json!("root"),
            "process.user.uid: invalid type",
        ),
        (
            &["linux", "namespaces"],
            json!([{"type": "moon"}]),
            "linux.namespaces[0].type: unknown variant",
        ),
        (
            &["process", "cwd"],
            json!("tmp"),
            "process.cwd \"tmp\" is not absolute",
        ),
        (&["process", "args"], json!([]), "process.args is empty"),
        (&["root"], json!(null), "root is missing"),
        (&["root", "path"], json!("nosuch"), "nosuch"),
        (
            &["linux", "sysctl"],
            json!({"kernel.panic": "1"}),
            "sysctl \"kernel.panic\"",
        ),
        (&["linux", "intelRdt"], json!({}), "linux.intelRdt"),
        (
            &["process", "scheduler"],
            json!({"policy": "SCHED_NONE"}),
            "process.scheduler.policy",
        ),
    ];
    for (pointer, value, expected) in cases {
        let complaint = complaint(pointer, value);
        assert!(complaint.contains(expected), "{pointer:?}: {complaint}");
        assert_eq!(complaint.lines().count(), 1, "{complaint}");
    }
}

#[test]
fn a_root_that_is_a_link_is_not_followed() {
    let Some((cli, mut bundle, id)) = prepared("link") else {
        return;
    };
    symlink("/", bundle.path().join("elsewhere")).unwrap();
    bundle.spec.root.as_mut().unwrap().path = "elsewhere".into();
    bundle.write_config();
    let complaint = refused(&cli, &bundle, &id, &[]);
    assert!(
        complaint.contains("root.path") && complaint.contains("symbolic link"),
        "{complaint}"
    );
    bundle.spec.root.as_mut().unwrap().path = "config.json".into();
    bundle.write_config();
    let complaint = refused(&cli, &bundle, &id, &[]);
    assert!(complaint.contains("no directory"), "{complaint}");
}

#[test]
fn hooks_that_fail_or_hang_end_the_creation() {
    let Some((cli, mut bundle, id)) = prepared("hooks") else {
        return;
    };
    let mut with = |script: &str| {
        bundle.spec.hooks = Some(Hooks {
            create_runtime: vec![Hook {
                path: "/bin/sh".into(),
                args: ["sh", "-c", script].map(str::to_owned).to_vec(),
                timeout: Some(1),
                ..Hook::default()
            }],
            ..Hooks::default()
        });
        bundle.write_config();
        refused(&cli, &bundle, &id, &[])
    };
    let complaint = with("echo no place >&2; exit 3");
    assert!(
        complaint.contains("createRuntime hook") && complaint.contains("no place"),
        "{complaint}"
    );
    let complaint = with("exec sleep 100");
    assert!(complaint.contains("timeout of 1 s"), "{complaint}");
}

#[test]
fn a_console_that_nobody_listens_to_ends_the_creation() {
    let Some((cli, mut bundle, id)) = prepared("console") else {
        return;
    };
    bundle.process().terminal = true;
    bundle.write_config();
    let complaint = refused(&cli, &bundle, &id, &[]);
    assert!(complaint.contains("--console-socket"), "{complaint}");
    let path = bundle.path().join("console");
    drop(UnixListener::bind(&path).unwrap());
    let complaint = refused(&cli, &bundle, &id, &["--console-socket", path.to_str().unwrap()]);
    assert!(
        complaint.contains("console socket") && complaint.contains("refused"),
        "{complaint}"
    );
}

#[test]
fn ids_that_are_taken_or_no_names_are_refused() {
    let Some((cli, mut bundle, id)) = prepared("taken") else {
        return;
    };
    bundle.shell("sleep 100");
    bundle.write_config();
    cli.run_detached(bundle.path(), &id);
    let path = bundle.path().to_str().unwrap();
    let complaint = cli.fails(&["create", "--bundle", path, &id]);
    assert!(
        complaint.contains("exists") && complaint.contains(&id),
        "{complaint}"
    );
    assert!(
        cli.ok(&["state", &id]).contains("running"),
        "the one that has it goes on"
    );
    for bad in ["../up", "a/b", "a b", ""] {
        let complaint = cli.fails(&["create", "--bundle", path, bad]);
        assert!(complaint.contains("invalid container id"), "{bad:?}: {complaint}");
    }
    cli.ok(&["delete", "--force", &id]);
    nothing_is_left(&cli, &id);
}

#[test]
fn a_bundle_that_changes_later_changes_nothing() {
    let Some((cli, mut bundle, id)) = prepared("changing") else {
        return;
    };
    bundle.shell("echo as created >/told; sleep 100");
    bundle.write_config();
    let created = Command::new(&cli.program)
        .arg("--root")
        .arg(cli.state.path())
        .args(["create", "--bundle", bundle.path().to_str().unwrap(), &id])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert!(created.success());
    let moved = bundle.path().join("moved");
    fs::rename(bundle.root(), &moved).unwrap();
    fs::create_dir(bundle.root()).unwrap();
    fs::write(bundle.path().join("config.json"), "{").unwrap();
    cli.ok(&["start", &id]);
    while !moved.join("told").exists() {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    cli.ok(&["exec", &id, "true"]);
    cli.ok(&["delete", "--force", &id]);
    nothing_is_left(&cli, &id);
}

#[test]
fn a_damaged_record_is_named_and_can_be_removed() {
    let Some((cli, mut bundle, id)) = prepared("damaged") else {
        return;
    };
    bundle.shell("true");
    bundle.write_config();
    cli.run_detached(bundle.path(), &id);
    let record = cli.state.path().join(&id).join("state.json");
    fs::write(&record, "{").unwrap();
    for command in ["state", "delete", "start", "ps"] {
        let complaint = cli.fails(&[command, &id]);
        assert!(
            complaint.contains("state.json") && complaint.contains("EOF"),
            "{command}: {complaint}"
        );
    }
    assert_eq!(cli.ok(&["list", "--quiet"]), "", "it hides no other container");
    cli.ok(&["delete", "--force", &id]);
    assert_eq!(fs::read_dir(cli.state.path()).unwrap().count(), 0);
    // The record named the cgroup; the caller has to know it now.
    cgroup::Cgroup::open("/", &id).unwrap().remove().unwrap();
}

#[test]
fn a_group_in_which_another_container_lives_is_left_alone() {
    let Some((cli, mut bundle, id)) = prepared("occupied") else {
        return;
    };
    bundle.shell("sleep 100");
    bundle.write_config();
    cli.run_detached(bundle.path(), &id);
    let group = cgroup::Cgroup::open("/", &id).unwrap();
    let below = group.paths()[0].directory.join("below");
    fs::create_dir(&below).unwrap();
    let other = format!("{id}-other");
    let complaint = cli.fails(&["create", "--bundle", bundle.path().to_str().unwrap(), &other]);
    assert!(complaint.contains("already exists and holds"), "{complaint}");
    assert!(below.is_dir(), "the subgroup of the one that lives there");
    assert!(cli.ok(&["state", &id]).contains("running"));
    cli.ok(&["delete", "--force", &id]);
    nothing_is_left(&cli, &id);
}
