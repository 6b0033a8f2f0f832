//! Hooks at their moments, and further processes where the container has a user namespace or a terminal.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::fs;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use runtime::{Exec, Stdio};
use spec::runtime::{Hook, Hooks, IdMapping, Namespace, NamespaceType};
use support::cli::{nothing_is_left, prepared};
use support::{Bundle, captured, finish, possible};
use sys::process::Exit;

#[test]
fn into_a_user_namespace_and_onto_a_terminal() {
    if !possible() {
        return;
    }
    let mut bundle = Bundle::new();
    let map = IdMapping {
        container_id: 0,
        host_id: 300_000,
        size: 65_536,
    };
    let linux = bundle.linux();
    linux.uid_mappings = vec![map];
    linux.gid_mappings = vec![map];
    linux.namespaces.push(Namespace {
        r#type: NamespaceType::User,
        path: None,
    });
    let (stdio, first_output) = captured();
    let first = bundle.shell("sleep 100").create(stdio).unwrap().start().unwrap();
    let exec = |script: &str, stdio: Stdio| {
        let mut process = bundle.spec.process.clone().unwrap();
        process.args = ["sh", "-c", script].map(str::to_owned).to_vec();
        runtime::exec(Exec::new(first.pid, first.pidfd.as_fd(), &process, stdio))
    };
    let (stdio, output) = captured();
    let running = exec("id -u; cat /proc/self/uid_map", stdio).unwrap();
    let (text, exit) = finish(running.pidfd, output);
    let words: Vec<&str> = text.split_whitespace().collect();
    assert_eq!(
        (words.as_slice(), exit),
        (["0", "0", "300000", "65536"].as_slice(), Exit::Code(0))
    );

    let running = exec("tty; exit 4", Stdio::Terminal).unwrap();
    let master = running.terminal.unwrap();
    // A terminal hands over what is there, which may be a part of the line.
    let mut line = Vec::new();
    while !line.ends_with(b"\n") {
        let mut buffer = [0; 64];
        let count = rustix::io::read(&master, &mut buffer).unwrap();
        line.extend_from_slice(&buffer[..count]);
    }
    assert_eq!(line, b"/dev/pts/0\r\n");
    assert_eq!(sys::process::wait(running.pidfd.as_fd()).unwrap(), Exit::Code(4));
    sys::process::send_signal(first.pidfd.as_fd(), 9).unwrap();
    finish(first.pidfd, first_output);
}

#[test]
fn hooks_run_at_their_moments_and_can_stop_the_creation() {
    if !possible() {
        return;
    }
    let mut bundle = Bundle::new();
    let record = bundle.path().join("record");
    let hook = |program: &str, script: String| Hook {
        path: PathBuf::from(program),
        args: vec!["sh".to_owned(), "-c".to_owned(), script],
        env: vec!["PATH=/usr/bin:/bin".to_owned()],
        // Longer than any clock counts.
        timeout: Some(i64::MAX),
    };
    let root = bundle.root();
    let outside = format!("grep -q creating && echo outside >> {}", record.display());
    let note = |word: &str| format!("cat > /dev/null; echo {word} >> {}", record.display());
    bundle.spec.hooks = Some(Hooks {
        prestart: vec![hook("/bin/sh", note("prestart"))],
        create_runtime: vec![hook("/bin/sh", outside)],
        create_container: vec![hook("/bin/sh", note("createContainer"))],
        start_container: vec![hook("/bin/sh", "cat > /tmp/state".to_owned())],
        poststart: vec![hook("/bin/sh", note("poststart"))],
        ..Hooks::default()
    });
    let text = bundle.shell_output("cat /tmp/state");
    assert!(
        text.contains("\"status\":\"created\"") && text.contains("\"id\":\"test\""),
        "{text}"
    );
    let record = std::fs::read_to_string(record).unwrap();
    assert_eq!(record, "prestart\noutside\ncreateContainer\npoststart\n");

    bundle.spec.hooks = Some(Hooks {
        create_runtime: vec![hook("/bin/sh", "echo no way >&2; exit 3".to_owned())],
        ..Hooks::default()
    });
    let error = bundle.run().unwrap_err().to_string();
    assert!(
        error.contains("createRuntime") && error.contains("no way"),
        "{error}"
    );
    assert!(root.exists());
}

const KINDS: [&str; 6] = [
    "prestart",
    "createRuntime",
    "createContainer",
    "startContainer",
    "poststart",
    "poststop",
];

fn of_kind<'h>(hooks: &'h mut Hooks, kind: &str) -> &'h mut Vec<Hook> {
    match kind {
        "prestart" => &mut hooks.prestart,
        "createRuntime" => &mut hooks.create_runtime,
        "createContainer" => &mut hooks.create_container,
        "startContainer" => &mut hooks.start_container,
        "poststart" => &mut hooks.poststart,
        _ => &mut hooks.poststop,
    }
}

fn script(text: &str) -> Hook {
    Hook {
        path: "/bin/sh".into(),
        args: ["sh", "-c", text].map(str::to_owned).to_vec(),
        env: vec!["PATH=/usr/bin:/bin".to_owned()],
        timeout: Some(10),
    }
}

/// What was written into a file of the bundle, line by line.
fn lines(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// As the specification has it since 1.3: a hook of any kind but the last ends the container, nothing of it stays, and the
/// last hooks run once.
#[test]
fn a_hook_that_fails_or_hangs_is_the_end_of_the_container() {
    let Some((cli, mut bundle, id)) = prepared("hook-fails") else {
        return;
    };
    let record = bundle.path().join("record");
    let note = |word: &str| format!("echo {word} >>{}", record.display());
    let path = bundle.path().to_str().unwrap().to_owned();
    bundle.shell("sleep 1000");
    for (kind, fails) in KINDS[..5]
        .iter()
        .flat_map(|kind| [(*kind, "echo no way >&2; exit 3"), (*kind, "exec sleep 1000")])
    {
        let mut hooks = Hooks {
            poststop: vec![script(&note("stopped"))],
            ..Hooks::default()
        };
        let failing = Hook {
            timeout: Some(1),
            ..script(fails)
        };
        *of_kind(&mut hooks, kind) = vec![failing, script(&note("another"))];
        bundle.spec.hooks = Some(hooks);
        bundle.write_config();
        let hangs = fails.starts_with("exec");
        let told = if hangs { "timeout of 1 s" } else { "no way" };
        let at_start = matches!(kind, "startContainer" | "poststart");
        let complaint = if at_start {
            cli.quietly(&["create", "--bundle", &path, &id]);
            assert!(lines(&record).is_empty(), "{kind}: not yet");
            cli.fails(&["start", &id])
        } else {
            cli.fails(&["create", "--bundle", &path, &id])
        };
        assert!(
            complaint.contains(kind) && complaint.contains(told),
            "{kind}: {complaint}"
        );
        assert_eq!(lines(&record), ["stopped"], "{kind}, {told}");
        nothing_is_left(&cli, &id);
        fs::remove_file(&record).unwrap();
        if hangs {
            continue;
        }
        // The same in one go.
        let complaint = cli.fails(&["run", "--bundle", &path, &id]);
        assert!(complaint.contains(kind), "{kind}: {complaint}");
        assert_eq!(lines(&record), ["stopped"], "{kind}, {told}");
        nothing_is_left(&cli, &id);
        fs::remove_file(&record).unwrap();
    }
}

#[test]
fn each_of_the_last_hooks_runs_whatever_became_of_the_others() {
    let Some((cli, mut bundle, id)) = prepared("hook-last") else {
        return;
    };
    let record = bundle.path().join("record");
    let note = |word: &str| format!("echo {word} >>{}", record.display());
    let hanging = Hook {
        timeout: Some(1),
        ..script("exec sleep 1000")
    };
    bundle.spec.hooks = Some(Hooks {
        poststop: vec![
            script(&format!("{}; exit 3", note("first"))),
            hanging,
            Hook {
                path: "/no/such".into(),
                ..Hook::default()
            },
            script(&note("last")),
        ],
        ..Hooks::default()
    });
    bundle.shell("true");
    bundle.write_config();
    let output = cli.command(&["run", "--bundle", bundle.path().to_str().unwrap(), &id]);
    assert!(output.status.success());
    assert_eq!(lines(&record), ["first", "last"]);
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(told.matches("level=warning").count(), 3, "{told}");
    nothing_is_left(&cli, &id);
}

/// A creation that fails before any hook could have run leaves nothing for the last ones to take back.
#[test]
fn the_last_hooks_run_for_what_the_first_have_done_and_not_before() {
    let Some((cli, mut bundle, id)) = prepared("hook-early") else {
        return;
    };
    let record = bundle.path().join("record");
    let note = |word: &str| format!("echo {word} >>{}", record.display());
    bundle.spec.hooks = Some(Hooks {
        create_runtime: vec![script(&note("begun"))],
        poststop: vec![script(&note("stopped"))],
        ..Hooks::default()
    });
    let path = bundle.path().to_str().unwrap().to_owned();
    bundle.process().cwd = "relative".to_owned();
    bundle.write_config();
    cli.fails(&["create", "--bundle", &path, &id]);
    assert!(lines(&record).is_empty());
    // Later the program turns out not to be there.
    bundle.process().cwd = "/".to_owned();
    bundle.args(&["nosuch"]).write_config();
    let complaint = cli.fails(&["create", "--bundle", &path, &id]);
    assert!(complaint.contains("nosuch"), "{complaint}");
    assert_eq!(lines(&record), ["begun", "stopped"]);
    nothing_is_left(&cli, &id);
}

/// Which namespaces each kind is in, and whose files it sees. Source: runtime-spec config.md "POSIX-platform Hooks".
#[test]
fn hooks_are_in_their_namespaces() {
    let Some((cli, mut bundle, id)) = prepared("hook-namespaces") else {
        return;
    };
    let probe = "for n in mnt uts net ipc; do readlink /proc/self/ns/$n; done; cat /proc/sys/kernel/hostname";
    let file = |kind: &str| bundle.path().join(format!("told-{kind}"));
    let mut hooks = Hooks::default();
    for kind in KINDS {
        let into = match kind {
            // It sees the container's root alone.
            "startContainer" => PathBuf::from("/tmp/told"),
            _ => file(kind),
        };
        let text = format!("cat >{0}.state; ({probe}) >{0}", into.display());
        *of_kind(&mut hooks, kind) = vec![script(&text)];
    }
    let kept = KINDS.map(file);
    let inside = bundle.root().join("tmp/told");
    bundle.spec.hooks = Some(hooks);
    bundle.spec.hostname = "hooked".to_owned();
    bundle.shell(probe);
    bundle.write_config();
    let output = cli.ok(&["run", "--bundle", bundle.path().to_str().unwrap(), &id]);
    let own = std::process::Command::new("sh")
        .args(["-c", probe])
        .output()
        .unwrap();
    let own = String::from_utf8(own.stdout).unwrap();
    let told = |kind: &str| match kind {
        "startContainer" => fs::read_to_string(&inside).unwrap(),
        _ => {
            let at = KINDS.iter().position(|known| *known == kind).unwrap();
            fs::read_to_string(&kept[at]).unwrap()
        }
    };
    for kind in ["prestart", "createRuntime", "poststart", "poststop"] {
        assert_eq!(told(kind), own, "{kind}");
    }
    for kind in ["createContainer", "startContainer"] {
        assert_eq!(told(kind), output, "{kind}");
    }
    let status = |path: &Path| {
        let text = fs::read_to_string(path.with_extension("state")).unwrap();
        let state: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(state["id"], serde_json::json!(id));
        state["status"].as_str().unwrap().to_owned()
    };
    let statuses: Vec<String> = kept
        .iter()
        .enumerate()
        .map(|(at, path)| status(if at == 3 { &inside } else { path }))
        .collect();
    assert_eq!(
        statuses,
        [
            "creating", "creating", "creating", "created", "running", "stopped"
        ]
    );
    nothing_is_left(&cli, &id);
}
