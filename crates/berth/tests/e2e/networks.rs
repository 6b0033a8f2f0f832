//! Names and published ports.

use std::io::{Read as _, Write as _};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crate::support::{Daemon, retry, signal, text};

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

/// Asked for all the time, while a daemon is killed, one is stopped, and none is there for a while after each.
#[test]
fn names_are_found_while_no_daemon_runs() {
    guard!();
    let mut daemon = Daemon::start();
    daemon.ok(&["network", "create", "app"]);
    daemon.keep("server", &["--network", "app"], &["sleep", "1000"]);
    let (dir, file) = (
        daemon.dir.path().join("asked"),
        daemon.dir.path().join("asked/all"),
    );
    std::fs::create_dir(&dir).unwrap();
    let mount = format!("{}:/asked", dir.display());
    let ask = "while :; do nslookup server 2>&1 | busybox grep -q ^Name: && echo found || echo lost; sleep 0.02; done";
    let script = format!("({ask}) >>/asked/all");
    daemon.keep(
        "asker",
        &["--network", "app", "-v", &mount],
        &["sh", "-c", &script],
    );
    let asked = || std::fs::read_to_string(&file).unwrap_or_default();
    let goes_on = |when: &str| {
        let so_far = asked().lines().count();
        let more = retry(|| (asked().lines().count() > so_far + 5).then_some(()));
        assert!(more.is_some(), "nobody asks {when}");
    };
    goes_on("at first");
    daemon.child.kill().unwrap();
    daemon.child.wait().unwrap();
    goes_on("after the kill");
    daemon.start_again();
    goes_on("with the next daemon");
    signal(&daemon.child.id().to_string(), "-TERM");
    daemon.child.wait().unwrap();
    goes_on("after the stop");
    daemon.start_again();
    goes_on("with the third daemon");
    let asked = asked();
    assert!(!asked.contains("lost"), "{asked}\n{}", daemon.log());
}

/// Connections through a published port that are in use all the time, while daemons are killed and replaced.
#[test]
fn no_connection_is_lost_while_daemons_go_and_come() {
    const CLIENTS: usize = 8;
    const LIVES: usize = 4;
    guard!();
    let mut daemon = Daemon::start();
    let echo = ["nc", "-ll", "-p", "80", "-e", "cat"];
    daemon.keep("echo", &["-p", "127.0.0.1::80"], &echo);
    let address = daemon.ok(&["port", "echo", "80"]).trim().to_owned();
    let (stop, answers) = (AtomicBool::new(false), AtomicUsize::new(0));
    let lost: Vec<std::io::Error> = std::thread::scope(|scope| {
        let mut clients = Vec::new();
        for n in 0..CLIENTS {
            // The server may not listen yet.
            let client = retry(|| {
                let mut client = std::net::TcpStream::connect(&address).ok()?;
                client.set_read_timeout(Some(Duration::from_secs(30))).ok()?;
                client.write_all(b"?").ok()?;
                client.read_exact(&mut [0]).ok()?;
                Some(client)
            });
            let mut client =
                client.unwrap_or_else(|| panic!("no connection {n} to {address}\n{}", daemon.log()));
            let (stop, answers) = (&stop, &answers);
            clients.push(scope.spawn(move || -> std::io::Result<()> {
                let mut line = [0; 16];
                while !stop.load(Ordering::SeqCst) {
                    client.write_all(b"are you there? \n")?;
                    client.read_exact(&mut line)?;
                    answers.fetch_add(1, Ordering::SeqCst);
                    std::thread::sleep(Duration::from_millis(1));
                }
                Ok(())
            }));
        }
        for life in 0..LIVES {
            match life % 2 {
                0 => daemon.crash_and_restart(),
                _ => {
                    signal(&daemon.child.id().to_string(), "-TERM");
                    daemon.child.wait().unwrap();
                    daemon.start_again();
                }
            }
            // Each daemon has seen traffic.
            let so_far = answers.load(Ordering::SeqCst);
            let more = retry(|| {
                let ended = clients.iter().any(|client| client.is_finished());
                (ended || answers.load(Ordering::SeqCst) > so_far + CLIENTS).then_some(())
            });
            assert!(more.is_some(), "no answers after daemon {life}");
        }
        stop.store(true, Ordering::SeqCst);
        let ended = clients.into_iter().map(|client| client.join().unwrap());
        ended.filter_map(Result::err).collect()
    });
    println!(
        "{} answers over {CLIENTS} connections and {LIVES} daemons, {} lost",
        answers.load(Ordering::SeqCst),
        lost.len()
    );
    assert!(lost.is_empty(), "{lost:?}\n{}", daemon.log());
}

/// The mode `routed`: what lists and `inspect` show is what Docker's clients know, and the way in is explained.
#[test]
fn routed_ports_are_shown_without_a_port_of_the_host() {
    guard!();
    if !crate::support::has_ipv6() {
        return;
    }
    let daemon = Daemon::start();
    daemon.ok(&[
        "network",
        "create",
        "--ipv6",
        "-o",
        "com.docker.network.bridge.gateway_mode_ipv6=routed",
        "lab",
    ]);
    daemon.ok(&[
        "run",
        "-d",
        "--name",
        "web",
        "--network",
        "lab",
        "-p",
        "18437:80",
        "box:1",
        "sleep",
        "1000",
    ]);
    let shown = "{\"80/tcp\":[{\"HostIp\":\"0.0.0.0\",\"HostPort\":\"18437\"},{\"HostIp\":\"::\",\"HostPort\":\"\"}]}";
    let seen = daemon.ok(&["inspect", "-f", "{{json .NetworkSettings.Ports}}", "web"]);
    let sorted = |text: &str| {
        let mut ports: serde_json::Value = serde_json::from_str(text).unwrap();
        let bindings = ports["80/tcp"].as_array_mut().unwrap();
        bindings.sort_by_key(|binding| binding["HostIp"].to_string());
        ports
    };
    assert_eq!(sorted(&seen), sorted(shown));
    let explained = daemon.ok(&["port", "--explain", "web"]);
    let address = daemon.ok(&[
        "inspect",
        "-f",
        "{{.NetworkSettings.Networks.lab.GlobalIPv6Address}}",
        "web",
    ]);
    for words in [
        "80/tcp -> routed, leads to",
        "every machine that routes to",
        "set open6 {",
        address.trim(),
        "80/tcp -> 0.0.0.0:18437",
    ] {
        assert!(explained.contains(words), "{words} in\n{explained}");
    }
    if let Some(output) = daemon.docker(&["ps", "--format", "{{.Ports}}"]) {
        assert!(output.status.success(), "{}", text(&output.stderr));
        assert!(
            text(&output.stdout).contains("0.0.0.0:18437->80/tcp"),
            "{}",
            text(&output.stdout)
        );
    }
    // Both go and come, and the record of the container agrees with the network's after a crash.
    let mut daemon = daemon;
    daemon.ok(&["update", "--publish-add", "81", "web"]);
    daemon.crash_and_restart();
    let ports = daemon.ok(&["inspect", "-f", "{{json .NetworkSettings.Ports}}", "web"]);
    assert!(ports.contains("81/tcp") && ports.contains("80/tcp"), "{ports}");
    daemon.ok(&["update", "--publish-rm", "80", "web"]);
    let ports = daemon.ok(&["inspect", "-f", "{{json .NetworkSettings.Ports}}", "web"]);
    assert!(!ports.contains("\"80/tcp\":[{"), "{ports}");
    let (_, refused) = daemon.fails(&[
        "network",
        "create",
        "-o",
        "com.docker.network.bridge.gateway_mode_ipv4=direct",
        "wrong",
    ]);
    assert!(
        refused.contains("gateway_mode_ipv4") && refused.contains("direct"),
        "{refused}"
    );
}

/// A link of the host for as long as a test needs one.
struct Link(String);

impl Link {
    fn bridge(name: &str) -> Link {
        let name = format!("{name}{}", std::process::id() % 100_000);
        host("ip", &["link", "add", &name, "type", "bridge"]);
        let link = Link(name);
        host("ip", &["link", "set", &link.0, "up"]);
        link
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["link", "del", &self.0]).status();
    }
}

fn host(program: &str, args: &[&str]) {
    let output = Command::new(program).args(args).output().unwrap();
    assert!(
        output.status.success(),
        "{program} {args:?}: {}",
        text(&output.stderr)
    );
}

#[test]
fn containers_on_a_link_of_the_host_and_what_they_ask_for() {
    guard!();
    let daemon = Daemon::start();
    let refused = daemon.fails(&["network", "create", "-d", "macvlan", "nowhere"]).1;
    assert!(refused.contains("-o parent=eth0"), "{refused}");
    let refused = daemon
        .fails(&[
            "network",
            "create",
            "-d",
            "macvlan",
            "-o",
            "parent=nosuch0",
            "nowhere",
        ])
        .1;
    assert!(
        refused.contains("the host has no link called nosuch0"),
        "{refused}"
    );
    let refused = daemon.fails(&["network", "create", "-d", "overlay", "nowhere"]).1;
    assert!(refused.contains("-o peers="), "{refused}");
    let parent = Link::bridge("par");
    daemon.ok(&[
        "network",
        "create",
        "-d",
        "macvlan",
        "-o",
        &format!("parent={}", parent.0),
        "--subnet",
        "10.213.7.0/24",
        "lan",
    ]);
    assert_eq!(
        daemon.ok(&["network", "inspect", "-f", "{{.Driver}}", "lan"]),
        "macvlan\n"
    );
    let serve = "while true; do echo hello | nc -l -p 80; done";
    daemon.ok(&[
        "run",
        "-d",
        "--name",
        "server",
        "--network",
        "lan",
        "--ip",
        "10.213.7.9",
        "box:1",
        "sh",
        "-c",
        serve,
    ]);
    daemon.ok(&[
        "run",
        "-d",
        "--name",
        "asker",
        "--network",
        "lan",
        "box:1",
        "sleep",
        "100",
    ]);
    let answer = retry(|| {
        let output = daemon.run(&["exec", "asker", "nc", "-w", "2", "server", "80"]);
        Some(text(&output.stdout)).filter(|t| t.contains("hello"))
    });
    assert!(answer.is_some(), "no answer by name\n{}", daemon.log());
    daemon.run(&["exec", "asker", "nc", "-w", "1", "nobody.invalid", "80"]);
    // Who asked, for what, who answered and what; of one container, of a network, and of nobody.
    let log = daemon.ok(&["network", "dns-log", "asker"]);
    let line = log
        .lines()
        .find(|line| line.contains(" server A "))
        .unwrap_or_else(|| panic!("{log}"));
    assert!(
        line.contains(" asker ") && line.contains("NOERROR by names in") && line.ends_with(" 10.213.7.9"),
        "{line}"
    );
    assert!(log.contains("nobody.invalid"), "{log}");
    assert!(daemon.ok(&["network", "dns-log", "lan"]).contains(" server A "));
    assert_eq!(daemon.ok(&["network", "dns-log", "server"]), "");
    assert!(
        daemon
            .fails(&["network", "dns-log", "nosuch"])
            .1
            .contains("nosuch")
    );
    daemon.ok(&["rm", "-f", "server", "asker"]);
    assert_eq!(daemon.ok(&["network", "dns-log"]), "");
    daemon.ok(&["network", "rm", "lan"]);
}

#[test]
fn classic_links_settings_of_the_daemon_and_addresses_that_stay() {
    guard!();
    let daemon = Daemon::start_with(&[
        "--default-address-pool",
        "base=10.214.0.0/16,size=24",
        "--firewall",
        "respect-host",
    ]);
    daemon.ok(&["network", "create", "pooled"]);
    let subnet = daemon.ok(&[
        "network",
        "inspect",
        "-f",
        "{{(index .IPAM.Config 0).Subnet}}",
        "pooled",
    ]);
    assert!(subnet.starts_with("10.214."), "{subnet}");
    daemon.ok(&[
        "run",
        "-d",
        "--name",
        "base",
        "--expose",
        "5432",
        "-e",
        "KEY=value",
        "-p",
        "0:5432",
        "box:1",
        "sleep",
        "100",
    ]);
    let explained = daemon.ok(&["port", "--explain", "base"]);
    assert!(explained.contains("input rules decide"), "{explained}");
    let address = daemon.ok(&[
        "inspect",
        "-f",
        "{{.NetworkSettings.Networks.bridge.IPAddress}}",
        "base",
    ]);
    let address = address.trim();
    let seen = daemon.ok(&[
        "run",
        "--rm",
        "--name",
        "user",
        "--link",
        "base:data-base",
        "box:1",
        "sh",
        "-c",
        "env; cat /etc/hosts",
    ]);
    for line in [
        format!("DATA_BASE_PORT=tcp://{address}:5432"),
        format!("DATA_BASE_PORT_5432_TCP=tcp://{address}:5432"),
        format!("DATA_BASE_PORT_5432_TCP_ADDR={address}"),
        "DATA_BASE_PORT_5432_TCP_PORT=5432".to_owned(),
        "DATA_BASE_PORT_5432_TCP_PROTO=tcp".to_owned(),
        "DATA_BASE_NAME=/user/data-base".to_owned(),
        "DATA_BASE_ENV_KEY=value".to_owned(),
    ] {
        assert!(seen.lines().any(|l| l == line), "{line} in\n{seen}");
    }
    assert!(seen.contains(&format!("{address}\tdata-base ")), "{seen}");
    daemon.ok(&["stop", "-t", "0", "base"]);
    let refused = daemon
        .fails(&["run", "--rm", "--name", "user", "--link", "base", "box:1", "true"])
        .1;
    assert!(
        refused.contains("Cannot link to a non running container: /base AS /user/base"),
        "{refused}"
    );

    let mac = "02:00:00:aa:bb:cc";
    let show = ["exec", "fixed", "cat", "/sys/class/net/eth0/address"];
    daemon.ok(&[
        "run",
        "-d",
        "--name",
        "fixed",
        "--mac-address",
        mac,
        "box:1",
        "sleep",
        "100",
    ]);
    assert_eq!(daemon.ok(&show).trim(), mac);
    daemon.ok(&["restart", "-t", "0", "fixed"]);
    assert_eq!(daemon.ok(&show).trim(), mac);
}

/// What was asked for a network that could not be joined is not asked for when it is joined later.
#[test]
fn a_network_that_could_not_be_joined_leaves_no_wishes() {
    guard!();
    let daemon = Daemon::start();
    daemon.ok(&["network", "create", "app"]);
    daemon.keep("web", &[], &["sleep", "1000"]);
    let mac = "02:00:00:aa:bb:dd";
    let wish = format!(
        "{{\"Container\":\"web\",\"EndpointConfig\":{{\"MacAddress\":\"{mac}\",\
         \"IPAMConfig\":{{\"IPv4Address\":\"192.0.2.7\"}}}}}}"
    );
    let path = "/v1.51/networks/app/connect";
    let refused = crate::http::request(&daemon, "POST", path, "application/json", wish.as_bytes());
    assert!(refused.status >= 400, "{}", refused.message());
    daemon.ok(&["network", "connect", "app", "web"]);
    daemon.ok(&["restart", "-t", "0", "web"]);
    let addresses = daemon.ok(&["exec", "web", "sh", "-c", "cat /sys/class/net/eth*/address"]);
    assert_eq!(addresses.lines().count(), 2, "{addresses}");
    assert!(!addresses.contains(mac), "{addresses}");
}

/// Addresses that the host reaches another way by now: it is told which network has them, once, and nothing is changed.
#[test]
fn a_route_into_the_addresses_of_a_network_is_told() {
    guard!();
    let daemon = Daemon::start();
    let number = std::process::id() % 250;
    let subnet = format!("10.219.{number}.0/24");
    daemon.ok(&["network", "create", "--subnet", &subnet, "lan"]);
    daemon.ok(&["network", "create", "elsewhere"]);
    let link = Link::bridge("rt");
    let (part, beside) = (format!("10.219.{number}.64/28"), format!("10.220.{number}.0/24"));
    // The one that is in nobody's way comes first: were it told, it would be there when the other one is.
    for to in [&beside, &part] {
        host("ip", &["route", "add", to, "dev", &link.0]);
    }
    let told = || {
        daemon
            .log()
            .lines()
            .find(|line| line.contains("new route") && line.contains(&part))
            .map(str::to_owned)
    };
    let told = crate::support::retry(told).unwrap_or_else(|| panic!("nothing of it in:\n{}", daemon.log()));
    assert!(told.contains("lan") && told.contains(&subnet), "{told}");
    assert!(!daemon.log().contains(&beside), "{}", daemon.log());
    host("ip", &["route", "del", &part]);
    let show = [
        "network",
        "inspect",
        "-f",
        "{{(index .IPAM.Config 0).Subnet}}",
        "lan",
    ];
    assert_eq!(daemon.ok(&show).trim(), subnet);
    daemon.ok(&["network", "rm", "lan", "elsewhere"]);
}
