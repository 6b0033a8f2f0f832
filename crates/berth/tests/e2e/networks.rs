//! Names and published ports.

use std::io::{Read as _, Write as _};
use std::time::Duration;

use crate::support::{Daemon, retry, text};

#[test]
fn containers_find_each_other_by_name_and_ports_reach_them() {
    guard!();
    let daemon = Daemon::start();
    daemon.ok(&["network", "create", "app"]);
    let serve = "while true; do echo hello | nc -l -p 80; done";
    daemon.ok(&[
        "run",
        "-d",
        "--name",
        "server",
        "--network",
        "app",
        "-p",
        "127.0.0.1::80",
        "box:1",
        "sh",
        "-c",
        serve,
    ]);
    let ask = "nc -w 2 server 80 </dev/null";
    let answer = retry(|| {
        let output = daemon.run(&["run", "--rm", "--network", "app", "box:1", "sh", "-c", ask]);
        Some(text(&output.stdout)).filter(|t| t.contains("hello"))
    });
    assert!(answer.is_some(), "no answer by name\n{}", daemon.log());
    let port = daemon.ok(&["port", "server", "80"]);
    let address = port.trim().to_owned();
    let answer = retry(|| {
        let mut stream = std::net::TcpStream::connect(&address).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
        stream.write_all(b"x").ok()?;
        let mut text = String::new();
        let _ = stream.read_to_string(&mut text);
        Some(text).filter(|t| t.contains("hello"))
    });
    assert!(answer.is_some(), "no answer on {address}\n{}", daemon.log());
}

#[test]
fn ports_change_while_a_container_runs_and_are_explained() {
    guard!();
    let daemon = Daemon::start();
    let serve = "while true; do echo hello | nc -l -p 80; done";
    daemon.ok(&[
        "run",
        "-d",
        "--name",
        "web",
        "-p",
        "127.0.0.1::80",
        "box:1",
        "sh",
        "-c",
        serve,
    ]);
    let reached = |address: &str| {
        retry(|| {
            let mut stream = std::net::TcpStream::connect(address).ok()?;
            stream.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
            let mut text = String::new();
            let _ = stream.read_to_string(&mut text);
            text.contains("hello").then_some(())
        })
    };
    let before = daemon.ok(&["port", "web", "80"]);
    // A free port, as far as one can know.
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let spec = format!("{free}:80");
    assert_eq!(daemon.ok(&["update", "--publish-add", &spec, "web"]), "web\n");
    assert_eq!(daemon.ok(&["port", "web", "80"]), format!("{before}{free}\n"));
    assert!(reached(&free.to_string()).is_some(), "{}", daemon.log());
    let explained = daemon.ok(&["port", "--explain", "web", "80"]);
    for words in [
        "this host alone, at 127.0.0.1",
        "in network bridge",
        "map publish4 {",
        &free.to_string(),
    ] {
        assert!(explained.contains(words), "{words} in\n{explained}");
    }
    assert!(
        daemon
            .fails(&["port", "--explain", "web", "81"])
            .1
            .contains("no public port '81'")
    );
    // What is taken is named with who has it, and nothing changes.
    daemon.ok(&["run", "-d", "--name", "other", "box:1", "sleep", "100"]);
    let refused = daemon.fails(&["update", "--publish-add", &spec, "other"]).1;
    assert!(refused.contains("(container web publishes it)"), "{refused}");
    assert_eq!(daemon.ok(&["port", "other"]), "");
    let refused = daemon.fails(&["update", "--publish-rm", "81", "web"]).1;
    assert!(refused.contains("81/tcp is not published"), "{refused}");
    // Taken back, it is another's; what was changed holds after a restart of the container.
    assert_eq!(daemon.ok(&["update", "--publish-rm", &spec, "web"]), "web\n");
    assert_eq!(daemon.ok(&["port", "web", "80"]), before);
    daemon.ok(&["update", "--publish-add", &spec, "other"]);
    daemon.ok(&["restart", "-t", "0", "web", "other"]);
    assert_eq!(daemon.ok(&["port", "other", "80"]), format!("{free}\n"));
    assert_eq!(daemon.ok(&["port", "web", "80"]).lines().count(), 1);
    daemon.ok(&[
        "run",
        "-d",
        "--name",
        "alone",
        "--network",
        "none",
        "box:1",
        "sleep",
        "100",
    ]);
    let refused = daemon.fails(&["update", "--publish-add", "80", "alone"]).1;
    assert!(refused.contains("no network of its own"), "{refused}");
}
