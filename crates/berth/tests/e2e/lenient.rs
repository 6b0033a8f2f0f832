//! Bodies as Docker's server takes them: keys in any case, keys that nobody knows, and null, absent and zero told apart. What
//! they mean is looked for in the container.

use serde_json::{Value, json};

use crate::http::request;
use crate::support::Daemon;
use crate::usage::group;

fn post(daemon: &Daemon, path: &str, body: &Value) {
    let answer = request(
        daemon,
        "POST",
        path,
        "application/json",
        body.to_string().as_bytes(),
    );
    assert!(
        answer.status < 300,
        "{path} {body}: {} {}",
        answer.status,
        answer.body
    );
}

/// Creates and runs a container, and gives what it printed.
fn printed(daemon: &Daemon, body: &Value) -> String {
    post(daemon, "/v1.51/containers/create?name=one", body);
    daemon.ok(&["start", "-a", "one"]);
    let printed = daemon.ok(&["logs", "one"]);
    daemon.ok(&["rm", "one"]);
    printed
}

#[test]
fn keys_are_known_in_any_case_and_others_ignored() {
    guard!();
    let daemon = Daemon::start();
    let script = "echo $A; pwd; id -u; hostname; ulimit -n";
    let body = json!({
        "image": "box:1", "CMD": ["sh", "-c", script], "eNV": ["A=b"], "workingdir": "/srv", "USER": "33",
        "HostName": "inside", "NoSuchKey": {"deep": [{"er": null}]}, "": 1,
        "hostconfig": {
            "ULIMITS": [{"name": "nofile", "SOFT": 100, "hard": 200, "unknown": true}],
            "networkmode": "none", "nosuch": [1, 2],
        },
    });
    assert_eq!(printed(&daemon, &body), "b\n/srv\n33\ninside\n100\n");
}

#[test]
fn null_absent_and_empty_are_told_apart_at_creation() {
    guard!();
    let daemon = Daemon::start();
    let context = daemon.dir.path().join("context");
    std::fs::create_dir_all(&context).unwrap();
    let dockerfile =
        "FROM box:1\nENTRYPOINT [\"echo\", \"entry\"]\nCMD [\"echo\", \"command\"]\nENV A=image\n";
    std::fs::write(context.join("Dockerfile"), dockerfile).unwrap();
    daemon.ok(&["build", "-t", "made:1", &context.display().to_string()]);
    let with = |more: Value| {
        let mut body = json!({"Image": "made:1", "HostConfig": {"NetworkMode": "none"}});
        body.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        printed(&daemon, &body)
    };
    for (body, said) in [
        (json!({}), "entry echo command\n"),
        (json!({"Entrypoint": null, "Cmd": null}), "entry echo command\n"),
        (json!({"Cmd": []}), "entry echo command\n"),
        (json!({"Cmd": ["other"]}), "entry other\n"),
        // An entry point of the container's own takes the image's command with it; an empty word is none at all.
        (json!({"Entrypoint": ["echo", "own"]}), "own\n"),
        (json!({"Entrypoint": [""], "Cmd": ["echo", "alone"]}), "alone\n"),
        (json!({"Entrypoint": [], "Cmd": ["echo", "bare"]}), "bare\n"),
        // None at all, and the image's command.
        (json!({"Entrypoint": []}), "command\n"),
        (json!({"Env": null, "Cmd": ["x"]}), "entry x\n"),
    ] {
        assert_eq!(with(body.clone()), said, "{body}");
    }
    // Where null asks for the default list, an empty one asks for none. Which of its paths there are is the kernel's.
    let usual =
        "grep -qE ' (/proc/(acpi|interrupts|kcore|keys|timer_list)|/sys/firmware) ' /proc/self/mountinfo";
    let other = "grep -q ' /proc/uptime ' /proc/self/mountinfo";
    for (paths, hidden) in [
        (json!({}), "usual\n"),
        (json!({"MaskedPaths": null}), "usual\n"),
        (json!({"MaskedPaths": []}), ""),
        (json!({"MaskedPaths": ["/proc/uptime"]}), "other\n"),
    ] {
        let mut host = paths.clone();
        host["NetworkMode"] = json!("none");
        let script = format!("busybox {usual} && echo usual; busybox {other} && echo other; true");
        let body = json!({"Image": "box:1", "Cmd": ["sh", "-c", script], "HostConfig": host});
        assert_eq!(printed(&daemon, &body), hidden, "{paths}");
    }
}

#[test]
fn null_absent_and_zero_are_told_apart_in_an_update() {
    guard!();
    let daemon = Daemon::start();
    daemon.ok(&[
        "run",
        "-d",
        "--name",
        "one",
        "--pids-limit",
        "20",
        "-m",
        "64m",
        "--memory-swap",
        "128m",
        "--restart",
        "on-failure:3",
        "box:1",
        "sleep",
        "1000",
    ]);
    let pid = daemon.ok(&["inspect", "-f", "{{.State.Pid}}", "one"]);
    let pids = group(pid.trim(), "pids").join("pids.max");
    let memory = group(pid.trim(), "memory");
    let memory = ["memory.limit_in_bytes", "memory.max"].map(|name| memory.join(name));
    let has = || {
        let limit = std::fs::read_to_string(&pids).unwrap();
        let bytes = memory.iter().find_map(|path| std::fs::read_to_string(path).ok());
        (limit.trim().to_owned(), bytes.unwrap().trim().to_owned())
    };
    let bytes = (64 << 20).to_string();
    let policy = || daemon.ok(&["inspect", "-f", "{{.HostConfig.RestartPolicy.Name}}", "one"]);
    for (body, limit) in [
        (json!({}), "20"),
        (json!({"PidsLimit": null}), "20"),
        (json!({"PIDSLIMIT": 30, "Memory": 0, "Unknown": 5}), "30"),
        (json!({"Memory": null, "CpuShares": 512}), "30"),
        (json!({"PidsLimit": 0}), "max"),
        (json!({"pidslimit": 40}), "40"),
        (json!({"PidsLimit": -1, "RestartPolicy": {}}), "max"),
        (json!({"PidsLimit": null, "RestartPolicy": null}), "max"),
    ] {
        post(&daemon, "/v1.51/containers/one/update", &body);
        assert_eq!(has(), (limit.to_owned(), bytes.clone()), "{body}");
        assert_eq!(policy(), "on-failure\n", "{body}");
    }
    post(
        &daemon,
        "/v1.51/containers/one/update",
        &json!({"restartpolicy": {"NAME": "no"}}),
    );
    assert_eq!(policy(), "no\n");
}
