//! Published ports as another machine sees them: a network namespace beside the host, with a link to it.

use std::process::{Child, Command};

use crate::support::{Daemon, retry, text};

/// Another machine, which reaches the host over one link with addresses of both families.
struct Outside {
    name: String,
    host4: String,
    host6: String,
}

impl Outside {
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
struct Echo(Child);

impl Echo {
    fn start(pid: &str) -> Echo {
        let program = "socket(S, AF_INET6, SOCK_DGRAM, 0); bind(S, pack_sockaddr_in6(53, IN6ADDR_ANY)) or die; \
                       while (defined(my $from = recv(S, my $said, 100, 0))) { send(S, $said, 0, $from) }";
        let perl = Command::new("nsenter")
            .args(["-t", pid, "-n", "perl", "-MSocket=:all", "-e", program])
            .spawn();
        Echo(perl.unwrap())
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// `-P`: every exposed port, TCP and UDP, on a port of the host that is the same for both families.
#[test]
fn all_exposed_ports_are_reached_from_outside_over_both_families() {
    guard!();
    if !std::path::Path::new("/proc/net/if_inet6").exists() {
        println!("skipped: the kernel has no IPv6");
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
    let _echo = Echo::start(daemon.ok(&["inspect", "-f", "{{.State.Pid}}", "web"]).trim());
    for (port, udp, answer) in [("80/tcp", false, "stream"), ("53/udp", true, "datagram")] {
        let published = daemon.ok(&["port", "web", port]);
        let lines: Vec<&str> = published.lines().collect();
        let [over4, over6] = lines.as_slice() else {
            panic!("{port}: {published}")
        };
        let number = over4.strip_prefix("0.0.0.0:").unwrap();
        assert_eq!(over6.strip_prefix("[::]:"), Some(number), "{published}");
        for address in [&outside.host4, &outside.host6] {
            let heard = outside.hears(address, number, udp);
            assert_eq!(
                heard.as_deref().map(str::trim),
                Some(answer),
                "{port} at {address}\n{}",
                daemon.log()
            );
        }
    }
    let listed = daemon.ok(&["ps", "--format", "{{.Ports}}"]);
    assert!(
        listed.contains("0.0.0.0:") && listed.contains("[::]:"),
        "{listed}"
    );
    // A network without IPv6 has nowhere to lead such packets to, and nothing is said to be there.
    daemon.ok(&[
        "run", "-d", "--name", "four", "--expose", "80", "-P", "box:1", "sleep", "100",
    ]);
    let published = daemon.ok(&["port", "four"]);
    assert!(
        published.lines().count() == 1 && published.starts_with("80/tcp -> 0.0.0.0:"),
        "{published}"
    );
}
