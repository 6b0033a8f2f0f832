//! Events: which there are, with what, and that they are known to the next daemon.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;

use serde_json::Value;

use crate::support::Daemon;

fn past(daemon: &Daemon, filters: &[&str]) -> Vec<Value> {
    let text = daemon.told(filters, "{{json .}}");
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn actions(events: &[Value]) -> Vec<String> {
    let words = events
        .iter()
        .map(|event| event["Action"].as_str().unwrap().to_owned());
    words.collect()
}

#[test]
fn a_containers_life_in_events_and_after_a_crash() {
    guard!();
    let mut daemon = Daemon::start();
    daemon.ok(&[
        "run", "-d", "--name", "one", "--label", "team=a", "box:1", "sleep", "1000",
    ]);
    daemon.ok(&["exec", "one", "true"]);
    daemon.ok(&["pause", "one"]);
    daemon.ok(&["unpause", "one"]);
    daemon.ok(&["rename", "one", "two"]);
    daemon.ok(&["update", "--cpu-shares", "512", "two"]);
    daemon.ok(&["top", "two"]);
    let copy = daemon.dir.path().join("copy").display().to_string();
    daemon.ok(&["cp", "two:/etc/passwd", &copy]);
    daemon.ok(&["kill", "two"]);
    daemon.ok(&["wait", "two"]);
    daemon.ok(&["commit", "two", "made:1"]);
    daemon.ok(&["rm", "two"]);
    let life = past(&daemon, &["type=container"]);
    let words = actions(&life);
    for wanted in [
        "create",
        "start",
        "exec_create: true ",
        "exec_start: true ",
        "exec_die",
        "pause",
        "unpause",
        "rename",
        "update",
        "top",
        "archive-path",
        "kill",
        "die",
        "commit",
        "destroy",
    ] {
        let found = words.iter().any(|word| word.trim_end() == wanted.trim_end());
        assert!(found, "{wanted} is missing: {words:?}");
    }
    let of = |action: &str| {
        let event = life.iter().find(|event| event["Action"] == action).unwrap();
        event["Actor"]["Attributes"].clone()
    };
    assert_eq!(of("create")["name"], "one");
    assert_eq!(of("create")["image"], "box:1");
    assert_eq!(of("create")["team"], "a");
    assert_eq!(of("rename")["oldName"], "/one");
    assert_eq!(of("rename")["name"], "two");
    assert_eq!(of("kill")["signal"], "9");
    assert_eq!(of("die")["exitCode"], "137");
    assert_eq!(of("exec_die")["exitCode"], "0");
    // By every kind of filter.
    assert_eq!(actions(&past(&daemon, &["event=die"])), ["die"]);
    assert_eq!(past(&daemon, &["container=one", "event=create"]).len(), 1);
    assert_eq!(past(&daemon, &["label=team=a", "event=start"]).len(), 1);
    assert_eq!(past(&daemon, &["label=team=b"]).len(), 0);
    assert_eq!(past(&daemon, &["image=box", "event=start"]).len(), 1);
    let network = past(&daemon, &["type=network"]);
    assert_eq!(actions(&network), ["connect", "disconnect"]);
    let attributes = &network[0]["Actor"]["Attributes"];
    assert_eq!(attributes["name"], "bridge");
    assert_eq!(attributes["container"], life[0]["Actor"]["ID"]);
    let all = past(&daemon, &[]);
    daemon.crash_and_restart();
    assert_eq!(past(&daemon, &[]), all, "the next daemon knows what happened");
}

#[test]
fn the_stream_has_the_form_that_was_asked_for() {
    guard!();
    let daemon = Daemon::start();
    daemon.ok(&["create", "--name", "one", "box:1", "true"]);
    let ask = |version: &str, accept: &str| {
        let mut socket = UnixStream::connect(daemon.dir.path().join("run/berth.sock")).unwrap();
        // A moment that has passed, so that the stream ends.
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap()
            .as_secs_f64();
        let filters = "%7B%22event%22%3A%5B%22create%22%5D%7D";
        write!(
            socket,
            "GET /{version}/events?since=1&until={now:.9}&filters={filters} HTTP/1.0\r\nHost: x\r\nAccept: {accept}\r\n\r\n"
        )
        .unwrap();
        let mut answer = String::new();
        let _ = socket.set_read_timeout(Some(std::time::Duration::from_secs(5)));
        let _ = socket.read_to_string(&mut answer);
        answer
    };
    for (version, accept, kind, head) in [
        ("v1.51", "application/json", "application/json", "{"),
        ("v1.51", "application/x-ndjson", "application/x-ndjson", "{"),
        ("v1.51", "application/jsonl", "application/jsonl", "{"),
        ("v1.51", "application/json-seq", "application/json-seq", "\u{1e}{"),
        // Who has no wish gets what is usual in its version.
        ("v1.51", "*/*", "application/json", "{"),
        ("v1.52", "*/*", "application/jsonl", "{"),
        ("v1.53", "text/html", "application/jsonl", "{"),
    ] {
        let answer = ask(version, accept);
        let (headers, body) = answer
            .split_once("\r\n\r\n")
            .unwrap_or_else(|| panic!("{answer:?}"));
        let headers = headers.to_ascii_lowercase();
        assert!(headers.contains(&format!("content-type: {kind}")), "{headers}");
        assert!(
            body.starts_with(head) && body.contains("\"Action\":\"create\""),
            "{body:?}"
        );
    }
}

#[test]
fn images_that_are_made_and_named_are_told_of() {
    guard!();
    let daemon = Daemon::start();
    let context = |name: &str, dockerfile: &str| {
        let context = daemon.dir.path().join(name);
        std::fs::create_dir(&context).unwrap();
        std::fs::write(context.join("Dockerfile"), dockerfile).unwrap();
        context.display().to_string()
    };
    let build = |args: &[&str]| daemon.ok(&[&["build", "-q"], args].concat()).trim().to_owned();
    let named = context("named", "FROM box:1\nLABEL team=a\n");
    let named = build(&["-t", "app:1", "-t", "app", &named]);
    let nameless = build(&[&context("nameless", "FROM box:1\nLABEL team=b\n")]);
    // By the builder of old.
    let old = context("old", "FROM box:1\nLABEL team=c\n");
    let tar = std::process::Command::new("tar")
        .args(["-cC", &old, "."])
        .output()
        .unwrap();
    let path = "/v1.51/build?t=old:1";
    let answer = crate::http::request(&daemon, "POST", path, "application/x-tar", &tar.stdout);
    assert_eq!(answer.status, 200, "{}", answer.body);
    let old = daemon
        .ok(&["inspect", "-f", "{{.Id}}", "old:1"])
        .trim()
        .to_owned();
    daemon.ok(&["run", "--name", "one", "box:1", "true"]);
    daemon.ok(&["commit", "one", "made"]);
    let told: Vec<(String, String)> = past(&daemon, &["type=image"])
        .iter()
        .map(|event| {
            let name = event["Actor"]["Attributes"]["name"].as_str().unwrap();
            (event["Action"].as_str().unwrap().to_owned(), name.to_owned())
        })
        .collect();
    let told: Vec<(&str, &str)> = told.iter().map(|(a, n)| (a.as_str(), n.as_str())).collect();
    let imported = daemon.ok(&["inspect", "-f", "{{.Id}}", "box:1"]);
    assert_eq!(
        told,
        [
            ("tag", "box:1"),
            ("import", imported.trim()),
            ("create", &named),
            ("tag", "app:1"),
            ("tag", "app:latest"),
            ("create", &nameless),
            ("create", &old),
            ("tag", "old:1"),
            ("tag", "made:latest"),
        ]
    );
    let by_label = past(&daemon, &["type=image", "label=team=a"]);
    assert_eq!(actions(&by_label), ["create", "tag", "tag"]);
    assert!(
        by_label
            .iter()
            .all(|event| event["Actor"]["ID"] == named.as_str())
    );
}

/// The attributes of the only event of this kind, action and object's name.
fn attributes_of(all: &[Value], kind: &str, action: &str) -> serde_json::Map<String, Value> {
    let found: Vec<&Value> = all
        .iter()
        .filter(|event| {
            event["Type"] == kind && event["Action"].as_str().unwrap().split(':').next() == Some(action)
        })
        .collect();
    let last = found.last().unwrap_or_else(|| {
        let seen: Vec<_> = all
            .iter()
            .map(|e| format!("{} {}", e["Type"], e["Action"]))
            .collect();
        panic!("no {kind} {action}: {seen:?}")
    });
    last["Actor"]["Attributes"].as_object().unwrap().clone()
}

/// Takes over a stream of a terminal and presses the keys that detach, as a client does that leaves them to the daemon.
fn detach_from(daemon: &Daemon, path: &str, body: &str) {
    let mut socket = UnixStream::connect(daemon.dir.path().join("run/berth.sock")).unwrap();
    write!(
        socket,
        "POST /v1.51{path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        socket.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    assert!(
        head.starts_with(b"HTTP/1.1 101"),
        "{}",
        crate::support::text(&head)
    );
    socket.write_all(&[0x10, 0x11]).unwrap();
    // The daemon lets go.
    socket.read_to_end(&mut Vec::new()).unwrap();
}

/// Everything that happens to containers, images, volumes, networks, the builder and the daemon, with what Docker tells of
/// it.
#[test]
fn every_event_has_dockers_attributes() {
    guard!();
    let daemon = Daemon::start();
    let ok = |words: &str| daemon.ok(&words.split(' ').collect::<Vec<_>>());
    let dir = daemon.dir.path();
    ok("volume create vol");
    ok("network create --label team=a net");
    ok("run -d --name one --label team=a -v vol:/data:ro box:1 sleep 1000");
    ok("network connect net one");
    ok("network disconnect net one");
    ok("exec one true");
    ok("exec -d one sleep 1000");
    ok("run -dit --name tty box:1 sh");
    detach_from(&daemon, "/containers/tty/attach?stream=1&stdin=1&stdout=1", "");
    let exec = r#"{"AttachStdin":true,"AttachStdout":true,"Tty":true,"Cmd":["sh"]}"#;
    let made = crate::http::request(
        &daemon,
        "POST",
        "/v1.51/containers/tty/exec",
        "application/json",
        exec.as_bytes(),
    );
    let made: Value = serde_json::from_str(&made.body).unwrap();
    let path = format!("/exec/{}/start", made["Id"].as_str().unwrap());
    detach_from(&daemon, &path, r#"{"Tty":true}"#);
    let resize = crate::http::request(
        &daemon,
        "POST",
        "/v1.51/containers/tty/resize?h=30&w=100",
        "",
        b"",
    );
    assert_eq!(resize.status, 200, "{}", resize.body);
    ok(&format!("cp one:/etc/passwd {}", dir.join("copied").display()));
    ok(&format!("cp {} one:/copied", dir.join("copied").display()));
    ok(&format!("export -o {} one", dir.join("tar").display()));
    ok("restart -t 0 one");
    ok("pause one");
    ok("unpause one");
    ok("commit one made:1");
    ok("stop -t 0 one");
    daemon.run_hungry("oom");
    daemon.ok(&[
        "run",
        "-d",
        "--name",
        "checked",
        "--health-cmd",
        "true",
        "--health-interval",
        "50ms",
        "box:1",
        "sleep",
        "1000",
    ]);
    let healthy = crate::support::retry(|| {
        (ok("inspect -f {{.State.Health.Status}} checked") == "healthy\n").then_some(())
    });
    assert!(healthy.is_some());
    ok("rm -f one tty oom checked");
    ok("create --name unused box:1 true");
    ok("container prune -f");
    ok("tag made:1 made:2");
    ok(&format!("save -o {} made:1", dir.join("saved").display()));
    ok("rmi made:1 made:2");
    ok(&format!("load -i {}", dir.join("saved").display()));
    ok(&format!("import {} imported:1", dir.join("tar").display()));
    ok("image prune -a -f");
    ok("volume rm vol");
    ok("volume prune -f");
    ok("network rm net");
    ok("network prune -f");
    ok("builder prune -f");
    let reload = std::process::Command::new("kill")
        .args(["-HUP", &daemon.child.id().to_string()])
        .status()
        .unwrap();
    assert!(reload.success());
    let reloaded = crate::support::retry(|| past(&daemon, &["type=daemon"]).first().cloned());
    assert!(reloaded.is_some(), "{}", daemon.log());
    let all = past(&daemon, &[]);
    let id = |name: &str| {
        let created = all
            .iter()
            .find(|event| event["Action"] == "create" && event["Actor"]["Attributes"]["name"] == name);
        created.unwrap_or_else(|| panic!("{name}"))["Actor"]["ID"].clone()
    };
    let wanted: &[(&str, &str, &[&str])] = &[
        ("container", "create", &["image", "name"]),
        ("container", "start", &["image", "name"]),
        ("container", "attach", &["image", "name"]),
        ("container", "detach", &["image", "name"]),
        ("container", "resize", &["height", "image", "name", "width"]),
        ("container", "exec_create", &["execID", "image", "name"]),
        ("container", "exec_start", &["execID", "image", "name"]),
        ("container", "exec_die", &["execID", "exitCode", "image", "name"]),
        ("container", "exec_detach", &["execID", "image", "name"]),
        ("container", "archive-path", &["image", "name"]),
        ("container", "extract-to-dir", &["image", "name"]),
        ("container", "export", &["image", "name"]),
        ("container", "kill", &["image", "name", "signal"]),
        ("container", "die", &["execDuration", "exitCode", "image", "name"]),
        ("container", "stop", &["image", "name"]),
        ("container", "restart", &["image", "name"]),
        ("container", "pause", &["image", "name"]),
        ("container", "unpause", &["image", "name"]),
        (
            "container",
            "commit",
            &["comment", "imageID", "imageRef", "image", "name"],
        ),
        ("container", "oom", &["image", "name"]),
        ("container", "health_status", &["image", "name"]),
        ("container", "destroy", &["image", "name"]),
        ("container", "prune", &["reclaimed"]),
        ("image", "tag", &["name"]),
        ("image", "untag", &["name"]),
        ("image", "save", &["name"]),
        ("image", "load", &["name"]),
        ("image", "import", &["name"]),
        ("image", "delete", &["name"]),
        ("image", "prune", &["reclaimed"]),
        ("volume", "create", &["driver"]),
        (
            "volume",
            "mount",
            &["container", "destination", "driver", "propagation", "read/write"],
        ),
        ("volume", "unmount", &["container", "driver"]),
        ("volume", "destroy", &["driver"]),
        ("volume", "prune", &["reclaimed"]),
        ("network", "create", &["name", "type"]),
        ("network", "connect", &["container", "name", "type"]),
        ("network", "disconnect", &["container", "name", "type"]),
        ("network", "destroy", &["name", "type"]),
        ("network", "prune", &["reclaimed"]),
        ("builder", "prune", &["reclaimed"]),
        ("daemon", "reload", &["debug", "labels", "name"]),
    ];
    for (kind, action, keys) in wanted {
        let attributes = attributes_of(&all, kind, action);
        for key in *keys {
            assert!(
                attributes.contains_key(*key),
                "{kind} {action} has no {key}: {attributes:?}"
            );
        }
        // Nothing beside them but what labels add, and what a reload says of settings.
        let more: Vec<&String> = attributes
            .keys()
            .filter(|key| !keys.contains(&key.as_str()) && *key != "team" && *kind != "daemon")
            .collect();
        assert!(more.is_empty(), "{kind} {action}: {more:?}");
    }
    let mount = attributes_of(&all, "volume", "mount");
    assert_eq!(mount["container"], id("one"));
    assert_eq!(mount["destination"], "/data");
    assert_eq!(mount["read/write"], "false");
    assert_eq!(attributes_of(&all, "volume", "unmount")["container"], id("one"));
    assert_eq!(attributes_of(&all, "container", "exec_detach")["name"], "tty");
    assert_eq!(attributes_of(&all, "container", "detach")["name"], "tty");
    // Each has its scope, and times that agree.
    for event in &all {
        let seconds = event["time"].as_i64().unwrap();
        assert_eq!(event["timeNano"].as_i64().unwrap() / 1_000_000_000, seconds);
        assert_eq!(event["scope"], "local");
    }
}
