//! Published ports as another machine sees them: a network namespace beside the host, with a link to it.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use store::rusqlite::Connection;

use crate::support::{Daemon, OF_DAEMON, Running, retry, text};

/// Another machine, which reaches the host over one link with addresses of both families.
struct Outside {
    name: String,
    host4: String,
    host6: String,
}

impl Outside {
    /// The number at which a container's port is published everywhere, after it was heard there over both families.
    fn hears_published(&self, daemon: &Daemon, name: &str, port: &str, answer: &str) -> String {
        let published = daemon.ok(&["port", name, port]);
        let lines: Vec<&str> = published.lines().collect();
        let [over4, over6] = lines.as_slice() else {
            panic!("{port}: {published}")
        };
        let number = over4.strip_prefix("0.0.0.0:").unwrap();
        assert_eq!(over6.strip_prefix("[::]:"), Some(number), "{published}");
        for address in [&self.host4, &self.host6] {
            let heard = self.hears(address, number, port.ends_with("/udp"));
            assert_eq!(
                heard.as_deref().map(str::trim),
                Some(answer),
                "{port} at {address}\n{}",
                daemon.log()
            );
        }
        number.to_owned()
    }

    fn start() -> Outside {
        let number = std::process::id() % 60_000;
        let name = format!("out{number}");
        let (high, low) = (number / 250, number % 250);
        let host4 = format!("10.217.{high}.{low}");
        let net6 = format!("fd17:{number:x}::");
        let outside = Outside {
            name: name.clone(),
            host4: host4.clone(),
            host6: format!("{net6}1"),
        };
        let ours = format!("{name}h");
        for line in [
            format!("netns add {name}"),
            format!("link add {ours} type veth peer name eth0 netns {name}"),
            format!("addr add {host4}/32 dev {ours}"),
            format!("-6 addr add {net6}1/64 dev {ours} nodad"),
            format!("link set {ours} up"),
            format!("-n {name} addr add 10.218.{high}.{low}/32 dev eth0"),
            format!("-n {name} -6 addr add {net6}2/64 dev eth0 nodad"),
            format!("-n {name} link set eth0 up"),
            format!("-n {name} route add {host4} dev eth0 src 10.218.{high}.{low}"),
            format!("route add 10.218.{high}.{low} dev {ours} src {host4}"),
        ] {
            let output = Command::new("ip").args(line.split(' ')).output().unwrap();
            assert!(output.status.success(), "ip {line}: {}", text(&output.stderr));
        }
        outside
    }

    /// What a server at this address and port of the host says to the other machine.
    fn hears(&self, address: &str, port: &str, udp: bool) -> Option<String> {
        let ask = match udp {
            true => format!("exec 3<>/dev/udp/{address}/{port}; echo datagram >&3; timeout 2 head -n1 <&3"),
            false => format!("busybox nc -w 2 {address} {port} </dev/null"),
        };
        retry(|| {
            let output = Command::new("ip")
                .args(["netns", "exec", &self.name, "bash", "-c", &ask])
                .output()
                .unwrap();
            Some(text(&output.stdout)).filter(|said| !said.is_empty())
        })
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        // Its end of the link goes with it, and ours with that.
        let _ = Command::new("ip").args(["netns", "del", &self.name]).status();
    }
}

/// A program in a container's network that answers datagrams on port 53 with themselves; no applet does that.
fn echo(pid: &str) -> Running {
    let program = "socket(S, AF_INET6, SOCK_DGRAM, 0); bind(S, pack_sockaddr_in6(53, IN6ADDR_ANY)) or die; \
                   while (defined(my $from = recv(S, my $said, 100, 0))) { send(S, $said, 0, $from) }";
    let perl = Command::new("nsenter")
        .args(["-t", pid, "-n", "perl", "-MSocket=:all", "-e", program])
        .spawn();
    Running(perl.unwrap())
}

/// `-P`: every exposed port, TCP and UDP, on a port of the host that is the same for both families.
#[test]
fn all_exposed_ports_are_reached_from_outside_over_both_families() {
    guard!();
    if !crate::support::has_ipv6() {
        return;
    }
    let daemon = Daemon::start();
    let outside = Outside::start();
    daemon.ok(&["network", "create", "--ipv6", "both"]);
    let serve = "while true; do echo stream | nc -l -p 80; done";
    daemon.ok(&[
        "run",
        "-d",
        "--name",
        "web",
        "--network",
        "both",
        "--expose",
        "80",
        "--expose",
        "53/udp",
        "-P",
        "box:1",
        "sh",
        "-c",
        serve,
    ]);
    let _echo = echo(daemon.ok(&["inspect", "-f", "{{.State.Pid}}", "web"]).trim());
    outside.hears_published(&daemon, "web", "80/tcp", "stream");
    outside.hears_published(&daemon, "web", "53/udp", "datagram");
    let listed = daemon.ok(&["ps", "--format", "{{.Ports}}"]);
    assert!(
        listed.contains("0.0.0.0:") && listed.contains("[::]:"),
        "{listed}"
    );
}

/// A network with several pools of each family, by its options on the command line, and `--ip6` in the one that is not the
/// first: containers of different pools meet over both families, by name and by address, and are reached from outside.
#[test]
fn several_pools_and_a_chosen_address_of_ipv6() {
    guard!();
    if !crate::support::has_ipv6() {
        return;
    }
    let daemon = Daemon::start();
    let outside = Outside::start();
    let number = std::process::id() % 60_000;
    let (high, low) = (number / 250, number % 250);
    // The first pool of each family has one address to give.
    let pools = [
        (format!("10.221.{low}.0/30"), format!("10.221.{low}.1")),
        (format!("10.222.{high}.0/24"), format!("10.222.{high}.1")),
        (format!("fd18:{number:x}::/64"), format!("fd18:{number:x}::1")),
        (format!("fd19:{number:x}::/64"), format!("fd19:{number:x}::1")),
    ];
    let mut create = vec!["network", "create", "--ipv6"];
    for (subnet, gateway) in &pools {
        create.extend(["--subnet", subnet, "--gateway", gateway]);
    }
    daemon.ok(&[&create[..], &["wide"]].concat());
    let chosen = format!("fd19:{number:x}::77");
    let serve = |name: &str| format!("while true; do echo {name} | nc -l -p 80; done");
    let start = |name: &str, options: &[&str]| {
        let head = ["run", "-d", "--name", name, "--network", "wide", "-p", "0:80"];
        let script = serve(name);
        daemon.ok(&[&head[..], options, &["box:1", "sh", "-c", &script]].concat());
    };
    start("first", &[]);
    start("second", &["--ip6", &chosen]);
    let address = |name: &str, family: &str| {
        let template = format!("{{{{.NetworkSettings.Networks.wide.{family}}}}}");
        daemon.ok(&["inspect", "-f", &template, name]).trim().to_owned()
    };
    assert_eq!(address("first", "IPAddress"), format!("10.221.{low}.2"));
    assert_eq!(
        address("first", "GlobalIPv6Address"),
        format!("fd18:{number:x}::2")
    );
    assert_eq!(address("second", "IPAddress"), format!("10.222.{high}.2"));
    assert_eq!(address("second", "GlobalIPv6Address"), chosen);
    assert_eq!(address("second", "IPv6Gateway"), format!("fd19:{number:x}::1"));
    for (from, to) in [("first", "second"), ("second", "first")] {
        let addresses = ["IPAddress", "GlobalIPv6Address"].map(|family| address(to, family));
        for at in addresses.iter().map(String::as_str).chain([to]) {
            let heard = retry(|| {
                let output = daemon.run(&["exec", from, "sh", "-c", &format!("nc -w 2 {at} 80 </dev/null")]);
                Some(text(&output.stdout)).filter(|said| said.trim() == to)
            });
            assert!(
                heard.is_some(),
                "{from} does not hear {to} at {at}\n{}",
                daemon.log()
            );
        }
        outside.hears_published(&daemon, to, "80/tcp", to);
    }
    let refused = daemon.fails(&[
        "run",
        "--rm",
        "--network",
        "wide",
        "--ip6",
        "fd20::9",
        "box:1",
        "true",
    ]);
    assert!(refused.1.contains("fd20::9"), "{}", refused.1);
    daemon.ok(&["rm", "-f", "first", "second"]);
    daemon.ok(&["network", "rm", "wide"]);
}

/// What a server at `::1` of this host says; None where nobody does.
fn says(port: &str) -> Option<String> {
    let mut stream = TcpStream::connect(format!("[::1]:{port}")).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
    let mut said = String::new();
    let _ = stream.read_to_string(&mut said);
    Some(said).filter(|said| !said.is_empty())
}

/// Processes that relay for containers of this daemon.
fn relays(daemon: &Daemon) -> Vec<String> {
    let dir = daemon.dir.path().display().to_string();
    let mark = format!("{OF_DAEMON}={dir}\0");
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let of_daemon = processes.filter(|process| {
        let read = |file| std::fs::read_to_string(process.path().join(file)).unwrap_or_default();
        read("comm") == "berth-relay\n" && read("environ").contains(&mark)
    });
    of_daemon
        .map(|process| process.file_name().to_string_lossy().into_owned())
        .collect()
}

/// A program that answers each connection with what comes, as often as asked.
const ECHO: [&str; 6] = ["nc", "-ll", "-p", "80", "-e", "cat"];

/// `localhost` and IPv6 reach a container that knows IPv4 alone, as with Docker's proxy.
#[test]
fn a_container_without_ipv6_is_reached_over_ipv6() {
    guard!();
    if !crate::support::has_ipv6() {
        return;
    }
    let daemon = Daemon::start();
    let outside = Outside::start();
    let serve = "while true; do echo stream | nc -l -p 80; done";
    let run = [
        "run", "-d", "--name", "four", "--expose", "80", "--expose", "53/udp", "-P", "box:1", "sh", "-c",
        serve,
    ];
    daemon.ok(&run);
    assert_eq!(relays(&daemon), [""; 0], "nobody has come yet");
    let _echo = echo(daemon.ok(&["inspect", "-f", "{{.State.Pid}}", "four"]).trim());
    let stream = &outside.hears_published(&daemon, "four", "80/tcp", "stream");
    let datagram = &outside.hears_published(&daemon, "four", "53/udp", "datagram");
    assert_eq!(
        retry(|| says(stream)).as_deref(),
        Some("stream\n"),
        "{}",
        daemon.log()
    );
    let client = UdpSocket::bind("[::1]:0").unwrap();
    client.connect(format!("[::1]:{datagram}")).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    let answered = retry(|| {
        client.send(b"here").ok()?;
        client.recv(&mut [0; 16]).ok()
    });
    assert_eq!(answered, Some(4));
    // One process for both ports, without rights.
    let processes = relays(&daemon);
    let [process] = processes.as_slice() else {
        panic!("{processes:?}")
    };
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    assert!(
        status.contains("CapPrm:\t0000000000000000\n") && status.contains("NoNewPrivs:\t1\n"),
        "{status}"
    );
    // What Docker's clients show.
    let listed = daemon.ok(&["ps", "--format", "{{.Ports}}"]);
    for shown in [
        format!("0.0.0.0:{stream}->80/tcp"),
        format!("[::]:{stream}->80/tcp"),
        format!("[::]:{datagram}->53/udp"),
    ] {
        assert!(listed.contains(&shown), "{shown} in {listed}");
    }
    let ports = daemon.ok(&[
        "inspect",
        "-f",
        "{{json (index .NetworkSettings.Ports \"80/tcp\")}}",
        "four",
    ]);
    let expected = format!(
        "[{{\"HostIp\":\"0.0.0.0\",\"HostPort\":\"{stream}\"}},{{\"HostIp\":\"::\",\"HostPort\":\"{stream}\"}}]"
    );
    assert_eq!(ports.trim(), expected);
    if let Some(output) = daemon.docker(&["port", "four", "80"]) {
        assert_eq!(text(&output.stdout), format!("0.0.0.0:{stream}\n[::]:{stream}\n"));
    }
    let explained = daemon.ok(&["port", "--explain", "four", "80"]);
    assert!(explained.contains("not the client's"), "{explained}");
    assert_eq!(daemon.ok(&["system", "check"]), "Nothing is wrong.\n");
    // With the container the ports and the process are gone.
    daemon.ok(&["rm", "-f", "four"]);
    assert_eq!(relays(&daemon), [""; 0]);
    drop(TcpListener::bind(format!("[::]:{stream}")).unwrap());
    drop(UdpSocket::bind(format!("[::]:{datagram}")).unwrap());
}

/// The ports that the container's namespaces of the host listen on over IPv6: the published ones, and no other.
#[test]
fn over_ipv6_nothing_listens_but_the_published_ports() {
    guard!();
    if !crate::support::has_ipv6() {
        return;
    }
    let daemon = Daemon::start();
    let run = [
        "run",
        "-d",
        "--name",
        "web",
        "-p",
        "0:80",
        "-p",
        "127.0.0.1:0:81",
        "box:1",
    ];
    daemon.ok(&[&run[..], &ECHO[..]].concat());
    let over6 = daemon.ok(&["port", "web"]);
    let published: Vec<&str> = over6
        .lines()
        .filter_map(|line| line.rsplit_once("[::]:"))
        .map(|(_, p)| p)
        .collect();
    assert_eq!(published.len(), 1, "{over6}");
    // The relay is there as long as somebody is.
    let held = retry(|| TcpStream::connect(format!("[::1]:{}", published[0])).ok());
    assert!(held.is_some(), "{}", daemon.log());
    let Some(relay) = retry(|| relays(&daemon).pop()) else {
        panic!("nobody relays\n{}", daemon.log())
    };
    let sockets = Command::new("ss").args(["-Hltnup"]).output().unwrap();
    let shown = text(&sockets.stdout);
    let monitor = std::fs::read_to_string(format!("/proc/{relay}/stat")).unwrap();
    let monitor = monitor
        .rsplit(") ")
        .next()
        .unwrap()
        .split(' ')
        .nth(1)
        .unwrap()
        .to_owned();
    for process in [&relay, &monitor] {
        let listening: Vec<&str> = shown
            .lines()
            .filter(|line| line.contains(&format!("pid={process},")))
            .filter_map(|line| line.split_whitespace().nth(4))
            .collect();
        assert_eq!(listening, [format!("[::]:{}", published[0])], "{shown}");
    }
}

/// Connections over IPv6 go on while daemons are killed and replaced, new ones are served while there is none, and ports
/// come and go beside them.
#[test]
fn connections_over_ipv6_need_no_daemon() {
    guard!();
    if !crate::support::has_ipv6() {
        return;
    }
    let mut daemon = Daemon::start();
    daemon.ok(&["network", "create", "app"]);
    let run = ["run", "-d", "--name", "echo", "-p", "0:80", "box:1"];
    daemon.ok(&[&run[..], &ECHO[..]].concat());
    let published = daemon.ok(&["port", "echo", "80"]);
    let port = published.trim().rsplit(':').next().unwrap().to_owned();
    let exchange = |client: &mut TcpStream| {
        client.write_all(b"?")?;
        client.read_exact(&mut [0])
    };
    let connect = |port: &str| {
        retry(|| {
            let mut client = TcpStream::connect(format!("[::1]:{port}")).ok()?;
            client.set_read_timeout(Some(Duration::from_secs(30))).ok()?;
            exchange(&mut client).ok()?;
            Some(client)
        })
    };
    let mut client = connect(&port).unwrap_or_else(|| panic!("no connection\n{}", daemon.log()));
    daemon.child.kill().unwrap();
    daemon.child.wait().unwrap();
    exchange(&mut client).unwrap();
    let mut late = connect(&port).expect("a connection without a daemon");
    daemon.start_again();
    for client in [&mut client, &mut late] {
        exchange(client).unwrap();
    }
    assert_eq!(daemon.ok(&["system", "check"]), "Nothing is wrong.\n");
    // With another port another process serves, and what is connected stays so.
    let free = TcpListener::bind("[::]:0").unwrap();
    let added = &free.local_addr().unwrap().port().to_string();
    drop(free);
    daemon.ok(&["update", "--publish-add", &format!("{added}:80"), "echo"]);
    assert!(connect(added).is_some(), "{}", daemon.log());
    for client in [&mut client, &mut late] {
        exchange(client).unwrap();
    }
    daemon.ok(&["network", "connect", "app", "echo"]);
    daemon.ok(&["network", "disconnect", "bridge", "echo"]);
    assert!(
        connect(added).is_some(),
        "over the other network\n{}",
        daemon.log()
    );
    daemon.ok(&["network", "connect", "bridge", "echo"]);
    daemon.ok(&["network", "reload"]);
    daemon.ok(&["update", "--publish-rm", &format!("{port}:80"), "echo"]);
    let refused = retry(|| TcpStream::connect(format!("[::1]:{port}")).err());
    assert!(refused.is_some(), "{port} is still served");
    let mut last = connect(added).unwrap();
    // Its end is the end of them, at once.
    daemon.ok(&["restart", "-t", "0", "echo"]);
    let ended = exchange(&mut last).unwrap_err();
    assert_ne!(ended.kind(), std::io::ErrorKind::WouldBlock, "{ended}");
    assert!(connect(added).is_some(), "{}", daemon.log());
    daemon.ok(&["rm", "-f", "echo"]);
    assert_eq!(relays(&daemon), [""; 0]);
}

/// Ports that go make way for those that come in the same command, also where the monitor has them; where those cannot be
/// had, nothing has changed.
#[test]
fn ports_that_go_make_way_for_those_that_come() {
    guard!();
    if !crate::support::has_ipv6() {
        return;
    }
    let daemon = Daemon::start();
    for name in ["echo", "other"] {
        let run = ["run", "-d", "--name", name, "-p", "0:80", "box:1"];
        daemon.ok(&[&run[..], &ECHO[..]].concat());
    }
    let published = |name: &str| daemon.ok(&["port", name, "80"]);
    let number = |shown: &str| shown.trim().rsplit(':').next().unwrap().to_owned();
    let before = published("echo");
    let (port, taken) = (number(&before), number(&published("other")));
    let answers = |address: &str| {
        retry(|| {
            let mut client = TcpStream::connect(address).ok()?;
            client.set_read_timeout(Some(Duration::from_secs(30))).ok()?;
            client.write_all(b"?").ok()?;
            client.read_exact(&mut [0]).ok()
        })
    };
    let (over4, over6) = (format!("127.0.0.1:{port}"), format!("[::1]:{port}"));
    let all = format!("{port}:80");
    let (loopback, impossible) = (format!("[::1]:{port}:80"), format!("{taken}:80"));
    // One of those that come is another container's.
    let (_, refused) = daemon.fails(&[
        "update",
        "--publish-rm",
        &all,
        "--publish-add",
        &loopback,
        "--publish-add",
        &impossible,
        "echo",
    ]);
    assert!(refused.contains("(container other publishes it)"), "{refused}");
    assert_eq!(published("echo"), before);
    for address in [&over4, &over6] {
        assert!(answers(address).is_some(), "{address}\n{}", daemon.log());
    }
    // The monitor has the number on all addresses, and is to have it on one.
    daemon.ok(&["update", "--publish-rm", &all, "--publish-add", &loopback, "echo"]);
    assert_eq!(published("echo"), format!("{over6}\n"));
    assert!(answers(&over6).is_some(), "{}", daemon.log());
    assert!(TcpStream::connect(&over4).is_err());
    // And back.
    daemon.ok(&["update", "--publish-rm", &loopback, "--publish-add", &all, "echo"]);
    assert_eq!(published("echo"), before);
    for address in [&over4, &over6] {
        assert!(answers(address).is_some(), "{address}\n{}", daemon.log());
    }
    assert_eq!(daemon.ok(&["system", "check"]), "Nothing is wrong.\n");
}

/// A thousand ports are a line in the database and a thousand entries for whoever asks, also after a crash.
#[test]
fn many_ports_are_shown_one_by_one_and_kept_as_a_range() {
    guard!();
    let mut daemon = Daemon::start();
    // An address that nobody else of this host publishes on.
    let address = format!("127.79.1.{}", std::process::id() % 250 + 1);
    let range = format!("{address}:20000-20999:20000-20999");
    let one = format!("{address}:21000:20500");
    daemon.keep("many", &["-p", &range, "-p", &one], &["sleep", "1000"]);
    let shown = |daemon: &Daemon| {
        let all = daemon.ok(&["inspect", "many"]);
        let [mut document]: [Value; 1] = serde_json::from_str(&all).unwrap();
        let maps = [
            "/HostConfig/PortBindings",
            "/Config/ExposedPorts",
            "/NetworkSettings/Ports",
        ];
        maps.map(|map| document.pointer_mut(map).unwrap().take())
    };
    let before = shown(&daemon);
    let [bound, exposed, published] = &before;
    let at = |port: u16| serde_json::json!({"HostIp": address, "HostPort": port.to_string()});
    for map in [bound, published] {
        assert_eq!(map.as_object().unwrap().len(), 1000);
        assert_eq!(map["20000/tcp"], serde_json::json!([at(20000)]));
        assert_eq!(map["20500/tcp"], serde_json::json!([at(20500), at(21000)]));
        assert_eq!(map["20999/tcp"], serde_json::json!([at(20999)]));
    }
    assert_eq!(exposed.as_object().unwrap().len(), 1000);
    assert_eq!(exposed["20777/tcp"], serde_json::json!({}));
    let listed = daemon.ok(&["ps", "--format", "{{.Ports}}"]);
    assert!(
        listed.contains(&format!("{address}:20000-20999->20000-20999/tcp")),
        "{listed}"
    );
    if let Some(output) = daemon.docker(&["port", "many", "20500"]) {
        assert_eq!(
            text(&output.stdout),
            format!("{address}:20500\n{address}:21000\n")
        );
    }
    let recorded = |daemon: &Daemon| -> i64 {
        let db = Connection::open(daemon.dir.path().join("root/meta.db")).unwrap();
        db.query_row("SELECT max(length(document)) FROM containers", [], |row| {
            row.get(0)
        })
        .unwrap()
    };
    assert!(recorded(&daemon) < 20_000, "{} bytes", recorded(&daemon));
    daemon.crash_and_restart();
    assert_eq!(shown(&daemon), before);
    // Out of the middle, while it runs and for the next start.
    let hole = format!("{address}:20400:20400");
    daemon.ok(&["update", "--publish-rm", &hole, "many"]);
    let without = shown(&daemon);
    assert_eq!(without[2]["20400/tcp"], Value::Null);
    assert_eq!(without[0].as_object().unwrap().len(), 999);
    daemon.crash_and_restart();
    assert_eq!(shown(&daemon), without);
    daemon.ok(&["restart", "-t", "0", "many"]);
    assert_eq!(shown(&daemon), without);
    daemon.ok(&["stop", "-t", "0", "many"]);
    let [bound, ..] = shown(&daemon);
    assert_eq!(bound, without[0]);
}
