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
