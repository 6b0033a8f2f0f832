//! Words on the command line: names nobody has, names somebody has, and values that say nothing.

use std::net::TcpListener;

use crate::inventory::Inventory;
use crate::support::{Daemon, text};

/// A command, its exit code, and what its error must say.
type Case = (&'static [&'static str], i32, &'static str);

/// Every case is tried before any failure is told: a table is read as a whole.
fn refuse_all(daemon: &Daemon, cases: &[Case]) {
    let before = Inventory::of(daemon);
    let mut wrong = Vec::new();
    for (args, code, words) in cases {
        let output = daemon.run(args);
        let said = text(&output.stderr);
        if output.status.code() != Some(*code) || !said.contains(words) {
            wrong.push(format!(
                "{args:?}: {}, instead of {code} and {words:?}: {said}",
                output.status
            ));
        }
        // The sentence, perhaps one more that says what to do: never a page.
        if said.lines().filter(|line| !line.is_empty()).count() > 4 {
            wrong.push(format!("{args:?} says too much:\n{said}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    before.assert_unchanged(daemon, "refused commands");
}

#[test]
fn unknown_things_are_named() {
    guard!();
    let daemon = Daemon::start();
    daemon.ok(&["create", "--name", "there", "box:1", "true"]);
    let no_container = "No such container: nosuch";
    let cases: &[Case] = &[
        (&["start", "nosuch"], 1, no_container),
        (&["stop", "nosuch"], 1, no_container),
        (&["restart", "nosuch"], 1, no_container),
        (&["kill", "nosuch"], 1, no_container),
        (&["rm", "nosuch"], 1, no_container),
        (&["logs", "nosuch"], 1, no_container),
        (&["attach", "nosuch"], 1, no_container),
        (&["exec", "nosuch", "true"], 1, no_container),
        (&["wait", "nosuch"], 1, no_container),
        (&["top", "nosuch"], 1, no_container),
        (&["stats", "--no-stream", "nosuch"], 1, no_container),
        (&["pause", "nosuch"], 1, no_container),
        (&["unpause", "nosuch"], 1, no_container),
        (&["rename", "nosuch", "other"], 1, no_container),
        (&["port", "nosuch"], 1, no_container),
        (&["diff", "nosuch"], 1, no_container),
        (&["commit", "nosuch", "x:1"], 1, no_container),
        (&["export", "-o", "/dev/null", "nosuch"], 1, no_container),
        (&["cp", "nosuch:/etc", "-"], 1, no_container),
        (&["inspect", "nosuch"], 1, "nosuch"),
        (&["container", "inspect", "nosuch"], 1, no_container),
        (&["rmi", "nosuch:1"], 1, "No such image: nosuch:1"),
        (&["tag", "nosuch:1", "x:1"], 1, "No such image: nosuch:1"),
        (&["history", "nosuch:1"], 1, "No such image: nosuch:1"),
        (&["save", "-o", "/dev/null", "nosuch:1"], 1, "nosuch:1"),
        (
            &["push", "127.0.0.1:1/nosuch:1"],
            1,
            "An image does not exist locally with the tag: 127.0.0.1:1/nosuch",
        ),
        (&["image", "inspect", "nosuch:1"], 1, "No such image: nosuch:1"),
        (
            &["image", "inspect", "box:nosuch"],
            1,
            "No such image: box:nosuch",
        ),
        (
            &["run", "--pull", "never", "nosuch:1", "true"],
            125,
            "No such image: nosuch:1",
        ),
        (
            &["create", "--pull", "never", "box:nosuch"],
            125,
            "No such image: box:nosuch",
        ),
        (&["volume", "inspect", "nosuch"], 1, "no such volume"),
        (&["volume", "rm", "nosuch"], 1, "get nosuch: no such volume"),
        (&["network", "inspect", "nosuch"], 1, "network nosuch not found"),
        (&["network", "rm", "nosuch"], 1, "network nosuch not found"),
        (
            &["network", "connect", "nosuch", "there"],
            1,
            "network nosuch not found",
        ),
        (&["network", "connect", "bridge", "nosuch"], 1, no_container),
        (
            &["network", "disconnect", "nosuch", "there"],
            1,
            "network nosuch not found",
        ),
        (
            &["run", "--rm", "--network", "nosuch", "box:1", "true"],
            125,
            "network nosuch not found",
        ),
        (
            &["run", "--rm", "--network", "container:nosuch", "box:1", "true"],
            125,
            no_container,
        ),
        (
            &["run", "--rm", "--pid", "container:nosuch", "box:1", "true"],
            125,
            no_container,
        ),
        (
            &["run", "--rm", "--volumes-from", "nosuch", "box:1", "true"],
            125,
            no_container,
        ),
        (
            &[
                "run",
                "--rm",
                "--mount",
                "type=bind,src=/no/such,dst=/x",
                "box:1",
                "true",
            ],
            125,
            "/no/such",
        ),
        (
            &["run", "--rm", "--device", "/dev/nosuch", "box:1", "true"],
            127,
            "/dev/nosuch",
        ),
        (&["run", "--rm", "-u", "nosuch", "box:1", "true"], 125, "nosuch"),
        (
            &["run", "--rm", "--runtime", "nosuch", "box:1", "true"],
            125,
            "nosuch",
        ),
        (&["nosuch"], 1, "nosuch"),
        (&["container", "nosuch"], 1, "nosuch"),
    ];
    refuse_all(&daemon, cases);
}

#[test]
fn names_in_use_are_told_with_their_user() {
    guard!();
    let daemon = Daemon::start();
    let id = daemon.ok(&["create", "--name", "taken", "-v", "used:/v", "box:1", "true"]);
    daemon.ok(&["create", "--name", "other", "box:1", "true"]);
    daemon.ok(&["network", "create", "net"]);
    daemon.ok(&[
        "run",
        "-d",
        "--name",
        "member",
        "--network",
        "net",
        "box:1",
        "sleep",
        "1000",
    ]);
    let conflict = format!(
        "Conflict. The container name \"/taken\" is already in use by container \"{}\"",
        id.trim()
    );
    let before = Inventory::of(&daemon);
    let mut wrong = Vec::new();
    for (args, code, words) in [
        (
            &["create", "--name", "taken", "box:1", "true"][..],
            125,
            conflict.as_str(),
        ),
        (&["run", "--name", "taken", "box:1", "true"], 125, &conflict),
        (&["rename", "other", "taken"], 1, &conflict),
        (
            &["network", "create", "net"],
            1,
            "network with name net already exists",
        ),
        (&["network", "rm", "net"], 1, "has active endpoints"),
        (&["volume", "rm", "used"], 1, "volume is in use"),
        (&["rmi", "box:1"], 1, "container"),
        (&["rm", "member"], 1, "cannot remove container"),
        (
            &["network", "rm", "bridge"],
            1,
            "bridge is a pre-defined network and cannot be removed",
        ),
    ] {
        let (got, text) = daemon.fails(args);
        if got != code || !text.contains(words) {
            wrong.push(format!(
                "{args:?}: {got}, instead of {code} and {words:?}: {text}"
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    before.assert_unchanged(&daemon, "names in use");
}

#[test]
fn a_port_in_use_is_told_with_its_user() {
    guard!();
    let daemon = Daemon::start();
    let foreign = TcpListener::bind("0.0.0.0:0").unwrap();
    let foreign_port = foreign.local_addr().unwrap().port();
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let publish = format!("127.0.0.1:{port}:80");
    daemon.ok(&[
        "run", "-d", "--name", "holder", "-p", &publish, "box:1", "sleep", "1000",
    ]);
    let before = Inventory::of(&daemon);
    let (code, text) = daemon.fails(&["run", "--rm", "--name", "late", "-p", &publish, "box:1", "true"]);
    assert_eq!(code, 125, "{text}");
    let words = format!("Bind for 127.0.0.1:{port} failed: port is already allocated");
    assert!(text.contains(&words) && text.contains("holder"), "{text}");
    let publish = format!("{foreign_port}:80");
    let (code, text) = daemon.fails(&["run", "--rm", "--name", "late", "-p", &publish, "box:1", "true"]);
    assert_eq!(code, 125, "{text}");
    let words = format!("failed to bind host port 0.0.0.0:{foreign_port}/tcp: address already in use");
    assert!(text.contains(&words), "{text}");
    before.assert_unchanged(&daemon, "a port in use");
    // Free again, the same command works.
    drop(foreign);
    daemon.ok(&["run", "--rm", "-p", &publish, "box:1", "true"]);
}

#[test]
fn values_that_say_nothing_are_refused() {
    guard!();
    let daemon = Daemon::start();
    // The first container of an image leaves what the next ones share.
    daemon.ok(&["create", "box:1", "true"]);
    let file = |name: &str, bytes: &[u8]| {
        let path = daemon.dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path.display().to_string().leak() as &'static str
    };
    let spaced = file("spaced.env", b"GOOD=1\nBAD NAME=2\n");
    let unnamed = file("unnamed.env", b"# comment\n\n=value\n");
    let binary = file("binary.env", b"A=1\nB=\xff\xfe\n");
    let run = |flag: &'static str, value: &'static str| -> &'static [&'static str] {
        vec!["run", "--rm", flag, value, "box:1", "true"].leak()
    };
    let cases: &[Case] = &[
        (
            &["pull", "Upper"],
            1,
            "invalid reference format: repository name (library/Upper) must be lowercase",
        ),
        (&["pull", "box:"], 1, "invalid reference format"),
        (&["pull", "-all", "box"], 125, "shorthand"),
        (
            &["run", "--rm", "box:1:2", "true"],
            125,
            "invalid reference format",
        ),
        (
            &["run", "--rm", "box@sha256:12", "true"],
            125,
            "invalid reference format",
        ),
        (&["tag", "box:1", "Upper:1"], 1, "invalid reference format"),
        (&["tag", "box:1", "x:-bad"], 1, "invalid reference format"),
        (
            run("--env-file", spaced),
            125,
            "variable 'BAD NAME' contains whitespaces",
        ),
        (
            run("--env-file", unnamed),
            125,
            "no variable name on line '=value'",
        ),
        (run("--env-file", binary), 125, "invalid utf8 bytes at line 2"),
        (
            run("--env-file", "/no/such.env"),
            125,
            "open /no/such.env: no such file or directory",
        ),
        (run("-e", "=x"), 125, "invalid environment variable: =x"),
        (run("-p", "99999:80"), 125, "99999"),
        (run("-p", "80:80/what"), 125, "what"),
        (run("-p", "1.2.3.4.5:80:80"), 125, "1.2.3.4.5"),
        (run("-p", "80-82:80-81"), 125, "80"),
        (run("-m", "1x"), 125, "1x"),
        (run("-m", "1m"), 125, "Minimum memory limit allowed is 6MB"),
        (run("--cpus", "many"), 125, "many"),
        (run("--cpus", "99999"), 125, "Range of CPUs is from 0.01 to"),
        (run("--cpuset-cpus", "9000"), 125, "9000"),
        (run("--pids-limit", "x"), 125, "x"),
        (
            &["create", "--restart", "sometimes", "box:1", "true"],
            125,
            "sometimes",
        ),
        (run("--restart", "no:3"), 125, "maximum retry count"),
        (run("--name", "a b"), 125, "Invalid container name (a b)"),
        (run("--ip", "1.2.3"), 125, "1.2.3"),
        (run("--dns", "nowhere"), 125, "nowhere"),
        (run("--add-host", "only"), 125, "only"),
        (run("--ulimit", "nofile"), 125, "nofile"),
        (run("--ulimit", "nosuch=1"), 125, "nosuch"),
        (run("--ulimit", "nofile=9:1"), 125, "9"),
        (run("--cap-add", "NOSUCH"), 125, "NOSUCH"),
        (run("--security-opt", "nosuch=1"), 125, "nosuch"),
        (run("--security-opt", "seccomp=/no/such"), 125, "/no/such"),
        (run("--mount", "type=what,dst=/x"), 125, "what"),
        (run("--mount", "type=volume"), 125, "target"),
        (run("--mount", "type=volume,dst=rel"), 125, "rel"),
        (run("-v", "/a:b"), 125, "b"),
        (run("-v", "/a:/b:what"), 125, "what"),
        (run("-v", "a/b:/c"), 125, "a/b"),
        (run("--tmpfs", "rel"), 125, "rel"),
        (run("--shm-size", "-1"), 125, "-1"),
        (run("-w", "rel"), 125, "rel"),
        (run("--stop-signal", "SIGNOSUCH"), 125, "SIGNOSUCH"),
        (run("--platform", "what/ever/is/this"), 125, "what/ever/is/this"),
        (run("--isolation", "what"), 125, "what"),
        (run("--log-driver", "nosuch"), 125, "nosuch"),
        (run("--log-opt", "nosuch=1"), 125, "nosuch"),
        (run("--log-opt", "max-size=x"), 125, "x"),
        (run("--health-interval", "soon"), 125, "soon"),
        (run("--ipc", "what"), 125, "what"),
        (run("--nosuch", "1"), 125, "unknown flag: --nosuch"),
        (&["run"], 1, "requires at least 1 argument"),
        (&["ps", "--filter", "nosuch=1"], 1, "invalid filter"),
        (&["ps", "--filter", "status=what"], 1, "what"),
        (&["kill", "-s", "NOSUCH", "x"], 1, "x"),
        (
            &["network", "create", "--subnet", "1.2.3.0/99", "n"],
            1,
            "1.2.3.0/99",
        ),
        (&["network", "create", "-d", "nosuch", "n"], 1, "nosuch"),
        (&["volume", "create", "-d", "nosuch", "vol"], 1, "nosuch"),
        (&["volume", "create", "a/b"], 1, "a/b"),
        (&["commit", "--change", "NOSUCH x", "x"], 1, "x"),
    ];
    refuse_all(&daemon, cases);
}
