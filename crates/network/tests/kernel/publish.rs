//! Ranges of ports, ports that come and go while a container runs, and what the kernel remembers of them.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream, UdpSocket};
use std::num::NonZeroU32;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use host::*;
use network::PortChoice::{Any, Fixed};
use network::{PortRequest, Proto, SandboxRequest};
use rustix::net::{AddressFamily, Protocol, RecvFlags, SocketFlags, SocketType};
use sys::namespace::{Kind, in_namespace};

use crate::host;

fn range(first: u16, inside: u16, count: u16) -> Vec<PortRequest> {
    (0..count)
        .map(|n| publish(Proto::Tcp, inside + n, None, Fixed(first + n)))
        .collect()
}

/// How many elements of the instance's maps of published ports there are.
fn elements(host: &Host) -> usize {
    let table = host.table();
    table
        .split("map ")
        .filter(|map| map.starts_with("publish") || map.starts_with("ranges"))
        .filter_map(|map| map.split_once("elements = {")?.1.split('}').next())
        .map(|elements| elements.matches(" : ").count())
        .sum()
}

#[test]
fn ten_thousand_ports_are_one_element() {
    machine(|host| {
        let networks = host.open();
        create(&networks, "six", &[]);
        networks.settle();
        let wanted = SandboxRequest {
            ports: range(10_000, 10_000, 10_000),
            ..request("wide", &["six"])
        };
        let begun = Instant::now();
        let wide = networks.attach(&wanted).unwrap();
        println!(
            "attached with 10000 ports: {:.1} ms",
            begun.elapsed().as_secs_f64() * 1000.0
        );
        // One for each family.
        assert_eq!(elements(host), 2);
        assert_eq!(wide.ports.len(), 2);
        assert_eq!(wide.ports[0].singles().count(), 10_000);
        for port in [10_000, 14_321, 19_999] {
            let _service = Service::start(wide.netns.as_fd(), "wide", port);
            assert_eq!(
                inside(&host.lan, || ask(HOST, port)).as_deref(),
                Some("wide 198.51.100.2"),
                "{port}"
            );
            assert_eq!(
                inside(&host.lan, || ask(HOST6, port)).as_deref(),
                Some("wide 2001:db8:51::2"),
                "{port}"
            );
            assert!(ask("127.0.0.1", port).is_some(), "{port}");
            assert!(inside(&wide.netns, || ask(HOST, port)).is_some(), "{port}");
        }
        // Its neighbours are free, its ports are not, and the daemon that comes next knows.
        let with = |name: &str, port: u16| SandboxRequest {
            ports: vec![publish(Proto::Tcp, 80, None, Fixed(port))],
            ..request(name, &["bridge"])
        };
        drop(networks);
        let networks = host.open();
        for port in [10_000, 15_000, 19_999] {
            let text = networks.attach(&with("late", port)).unwrap_err().to_string();
            assert!(text.contains("(container wide publishes it)"), "{text}");
        }
        networks.attach(&with("before", 9_999)).unwrap();
        networks.attach(&with("behind", 20_000)).unwrap();
        let listener = TcpListener::bind(("0.0.0.0", 30_500)).unwrap();
        let refused = SandboxRequest {
            ports: range(30_000, 30_000, 1_000),
            ..request("refused", &["bridge"])
        };
        let text = networks.attach(&refused).unwrap_err().to_string();
        assert!(
            text.ends_with("0.0.0.0:30500/tcp: address already in use"),
            "{text}"
        );
        drop(listener);
        networks.detach(&wanted.container).unwrap();
        assert_eq!(elements(host), 2, "of the other two");
        networks.attach(&with("late", 15_000)).unwrap();
    });
}

#[test]
fn a_range_with_other_numbers_inside() {
    machine(|host| {
        let networks = host.open();
        let wanted = SandboxRequest {
            ports: range(8000, 9000, 100),
            ..request("web", &["bridge"])
        };
        let web = networks.attach(&wanted).unwrap();
        let _service = Service::start(web.netns.as_fd(), "web", 9042);
        assert!(inside(&host.lan, || ask(HOST, 8042)).is_some());
        assert_eq!(inside(&host.lan, || ask(HOST, 8041)), None);
        assert_eq!(elements(host), 100);
    });
}

#[test]
fn ports_come_and_go_while_it_runs() {
    machine(|host| {
        let networks = host.open();
        let wanted = SandboxRequest {
            ports: range(8000, 80, 4),
            ..request("web", &["bridge"])
        };
        let web = networks.attach(&wanted).unwrap();
        let listen = || TcpListener::bind("0.0.0.0:80").unwrap();
        let listener = in_namespace(web.netns.as_fd(), Kind::Network, listen).unwrap();
        let mut client = inside(&host.lan, || TcpStream::connect((HOST, 8000))).unwrap();
        let (mut served, _) = listener.accept().unwrap();
        let mut exchange = |what: &str| {
            client.write_all(what.as_bytes()).unwrap();
            let mut got = vec![0; what.len()];
            served.read_exact(&mut got).unwrap();
            assert_eq!(got, what.as_bytes());
        };
        exchange("before");
        let _service = Service::start(web.netns.as_fd(), "web", 9000);
        let more = [
            publish(Proto::Tcp, 9000, None, Fixed(9001)),
            publish(Proto::Udp, 9000, None, Any),
        ];
        let published = networks.publish(&wanted.container, &more, &[]).unwrap();
        let datagrams = published
            .iter()
            .find(|p| p.proto == Proto::Udp)
            .unwrap()
            .host_port;
        assert!(inside(&host.lan, || ask(HOST, 9001)).is_some());
        assert!(inside(&host.lan, || ask_udp(HOST, datagrams)).is_some());
        exchange("added");
        // One out of the middle of a range, and one that moves to another number in one go.
        let published = networks
            .publish(
                &wanted.container,
                &[publish(Proto::Tcp, 9000, None, Fixed(9002))],
                &[
                    publish(Proto::Tcp, 82, None, Any),
                    publish(Proto::Tcp, 9000, None, Fixed(9001)),
                ],
            )
            .unwrap();
        assert_eq!(inside(&host.lan, || ask(HOST, 9001)), None);
        assert!(inside(&host.lan, || ask(HOST, 9002)).is_some());
        exchange("removed");
        let outside: Vec<u16> = published
            .iter()
            .flat_map(|p| p.singles().map(|p| p.host_port).collect::<Vec<_>>())
            .collect();
        assert!(
            outside.contains(&8001) && !outside.contains(&8002) && outside.contains(&8003),
            "{outside:?}"
        );
        // What cannot be had changes nothing; what is not there cannot be removed.
        let _taken = TcpListener::bind("0.0.0.0:9100").unwrap();
        let refused = networks
            .publish(
                &wanted.container,
                &[publish(Proto::Tcp, 9000, None, Fixed(9100))],
                &[publish(Proto::Tcp, 9000, None, Fixed(9002))],
            )
            .unwrap_err();
        assert!(
            refused.to_string().ends_with("address already in use"),
            "{refused}"
        );
        assert!(inside(&host.lan, || ask(HOST, 9002)).is_some());
        assert!(TcpListener::bind("0.0.0.0:9002").is_err(), "it is held as before");
        let refused = networks
            .publish(&wanted.container, &[], &[publish(Proto::Tcp, 82, None, Any)])
            .unwrap_err();
        assert!(
            refused.to_string().contains("82/tcp is not published"),
            "{refused}"
        );
        exchange("after all");
        networks.detach(&wanted.container).unwrap();
        assert_eq!(elements(host), 0);
        drop(TcpListener::bind("0.0.0.0:8002").unwrap());
    });
}

/// Without the right to change the kernel's rules.
fn without_rights<T>(f: impl FnOnce() -> T) -> T {
    let all = rustix::thread::capabilities(None).unwrap();
    let mut less = all;
    less.effective.remove(rustix::thread::CapabilitySet::NET_ADMIN);
    rustix::thread::set_capabilities(None, less).unwrap();
    let result = f();
    rustix::thread::set_capabilities(None, all).unwrap();
    result
}

/// What is recorded is what leads to the container, also for the daemon that comes next.
#[test]
fn ports_that_the_kernel_refuses_are_as_they_were() {
    machine(|host| {
        let networks = host.open();
        let wanted = SandboxRequest {
            ports: vec![publish(Proto::Tcp, 80, Some("127.0.0.1"), Fixed(8000))],
            ..request("web", &["bridge"])
        };
        let web = networks.attach(&wanted).unwrap();
        let _service = Service::start(web.netns.as_fd(), "web", 80);
        let id = &wanted.container;
        let before = networks.published(id);
        let add = [publish(Proto::Tcp, 80, Some("127.0.0.1"), Fixed(8001))];
        without_rights(|| networks.publish(id, &add, &wanted.ports)).unwrap_err();
        assert_eq!(networks.published(id), before);
        assert!(ask("127.0.0.1", 8000).is_some());
        drop(TcpListener::bind("127.0.0.1:8001").unwrap());
        assert!(
            TcpListener::bind("127.0.0.1:8000").is_err(),
            "it is held as before"
        );
        // Taken back, and not to be had again.
        networks.publish(id, &[], &wanted.ports).unwrap();
        without_rights(|| networks.publish_again(id, &before)).unwrap_err();
        assert_eq!(networks.published(id), []);
        assert_eq!(ask("127.0.0.1", 8000), None);
        drop(TcpListener::bind("127.0.0.1:8000").unwrap());
        drop(networks);
        let networks = host.open();
        assert_eq!(networks.published(id), []);
        networks.publish_again(id, &before).unwrap();
        assert_eq!(networks.published(id), before);
        assert!(ask("127.0.0.1", 8000).is_some());
    });
}

#[test]
fn datagrams_follow_the_port_to_where_it_leads_now() {
    machine(|host| {
        let networks = host.open();
        let with = |name: &str| SandboxRequest {
            ports: vec![publish(Proto::Udp, 53, None, Fixed(5300))],
            ..request(name, &["bridge"])
        };
        // One client that never changes its own port, as tunnels and resolvers do.
        let client = inside(&host.lan, || UdpSocket::bind("0.0.0.0:0").unwrap());
        client.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
        let ask = || {
            client.send_to(b"?", (HOST, 5300)).unwrap();
            let mut buffer = [0; 64];
            let length = client.recv(&mut buffer).ok()?;
            Some(String::from_utf8_lossy(&buffer[..length]).into_owned())
        };
        // It has been asking before anything was published.
        assert_eq!(ask(), None);
        let first = with("first");
        let a = networks.attach(&first).unwrap();
        let service = Service::start(a.netns.as_fd(), "first", 53);
        assert_eq!(ask().as_deref(), Some("first 198.51.100.2"));
        networks.detach(&first.container).unwrap();
        drop((service, a));
        // The next gets another address, so that what is remembered would lead to nobody.
        networks.attach(&request("between", &["bridge"])).unwrap();
        let b = networks.attach(&with("second")).unwrap();
        let _service = Service::start(b.netns.as_fd(), "second", 53);
        assert_eq!(ask().as_deref(), Some("second 198.51.100.2"));
    });
}

#[test]
fn the_daemon_says_where_ports_listen_by_default() {
    machine(|host| {
        let store = store::Store::open(&host.root.path().join("root")).unwrap();
        let config = network::NetworkConfig {
            publish_address: Some("127.0.0.1".parse().unwrap()),
            ..host.config()
        };
        let networks = network::Networks::open(store, config).unwrap();
        let mut own = bridge("own");
        own.options.insert(
            "com.docker.network.bridge.host_binding_ipv4".to_owned(),
            HOST.to_owned(),
        );
        networks.create(&own).unwrap();
        let listens = |network: &str, host_ip: Option<&str>, port: u16| {
            let wanted = SandboxRequest {
                ports: vec![publish(Proto::Tcp, 80, host_ip, Fixed(port))],
                ..request(&format!("on-{port}"), &[network])
            };
            networks.attach(&wanted).unwrap().ports[0].host_ip.to_string()
        };
        assert_eq!(listens("bridge", None, 8080), "127.0.0.1");
        assert_eq!(listens("bridge", Some("0.0.0.0"), 8081), "0.0.0.0");
        assert_eq!(listens("own", None, 8082), HOST);
    });
}

/// Every frame that comes to the interfaces of the calling thread's namespace.
fn capture() -> OwnedFd {
    let every_protocol = NonZeroU32::new(u32::from(3u16.to_be())).unwrap();
    let socket = rustix::net::socket_with(
        AddressFamily::PACKET,
        SocketType::RAW,
        SocketFlags::NONBLOCK,
        Some(Protocol::from_raw(every_protocol)),
    );
    socket.unwrap()
}

/// Where the captured packets for the container's address came from.
fn sources(capture: &OwnedFd, inside: &[IpAddr]) -> BTreeSet<IpAddr> {
    let mut found = BTreeSet::new();
    let mut frame = [0u8; 2048];
    while let Ok((_, length)) = rustix::net::recv(capture, &mut frame[..], RecvFlags::empty()) {
        let packet = &frame[14..length.max(14)];
        let (from, to): (IpAddr, IpAddr) = match packet.first().map(|byte| byte >> 4) {
            Some(4) => {
                let octets = |at: usize| <[u8; 4]>::try_from(&packet[at..at + 4]).unwrap();
                (octets(12).into(), octets(16).into())
            }
            Some(6) => {
                let octets = |at: usize| <[u8; 16]>::try_from(&packet[at..at + 16]).unwrap();
                (octets(8).into(), octets(24).into())
            }
            _ => continue,
        };
        // The gateway asks for its neighbours by itself.
        let transport = if to.is_ipv4() { packet[9] } else { packet[6] };
        if inside.contains(&to) && matches!(transport, 6 | 17) {
            found.insert(from);
        }
    }
    found
}

#[test]
fn the_clients_address_arrives() {
    machine(|host| {
        let networks = host.open();
        create(&networks, "six", &[]);
        let mut ports = vec![
            publish(Proto::Tcp, 80, None, Fixed(8080)),
            publish(Proto::Udp, 80, None, Fixed(8080)),
            publish(Proto::Tcp, 80, Some(HOST), Fixed(8081)),
            publish(Proto::Tcp, 80, Some(HOST6), Fixed(8082)),
        ];
        ports.extend(range(9000, 9000, 200));
        let wanted = SandboxRequest {
            ports,
            ..request("web", &["six"])
        };
        let web = networks.attach(&wanted).unwrap();
        let _service = Service::start(web.netns.as_fd(), "web", 80);
        let _ranged = Service::start(web.netns.as_fd(), "web", 9100);
        let cases: [(&str, fn(&str, u16) -> Option<String>, &str, u16, &str); 7] = [
            ("tcp", ask, HOST, 8080, "198.51.100.2"),
            ("tcp over IPv6", ask, HOST6, 8080, "2001:db8:51::2"),
            ("udp", ask_udp, HOST, 8080, "198.51.100.2"),
            ("one address", ask, HOST, 8081, "198.51.100.2"),
            ("one IPv6 address", ask, HOST6, 8082, "2001:db8:51::2"),
            ("a range", ask, HOST, 9100, "198.51.100.2"),
            ("a range over IPv6", ask, HOST6, 9100, "2001:db8:51::2"),
        ];
        for (what, client, address, port, source) in cases {
            let seen = inside(&web.netns, capture);
            assert!(inside(&host.lan, || client(address, port)).is_some(), "{what}");
            let sources = sources(&seen, &[v4(&web), v6(&web)]);
            assert_eq!(sources, BTreeSet::from([source.parse().unwrap()]), "{what}");
        }
    });
}

#[test]
fn ports_are_explained() {
    machine(|host| {
        let networks = host.open();
        let mut ports = vec![
            publish(Proto::Tcp, 80, None, Fixed(8080)),
            publish(Proto::Tcp, 80, Some("127.0.0.1"), Fixed(8081)),
            publish(Proto::Udp, 53, Some(HOST), Fixed(5300)),
        ];
        ports.extend(range(9000, 9000, 200));
        let wanted = SandboxRequest {
            ports,
            ..request("web", &["bridge"])
        };
        networks.attach(&wanted).unwrap();
        let table = host.table();
        let explained = networks.explain(&wanted.container).unwrap();
        let of = |port: u16| explained.iter().find(|e| e.port.host_port == port).unwrap();
        assert_eq!(of(8080).addresses, [HOST.parse::<IpAddr>().unwrap()]);
        assert!(of(8080).from[0].starts_with("every machine"), "{:?}", of(8080));
        assert!(of(8080).notes[0].contains("default-publish-address"));
        assert_eq!(of(8081).from, ["this host alone, at 127.0.0.1"]);
        assert!(of(8081).notes.is_empty() && of(8081).addresses.is_empty());
        assert_eq!(of(5300).from[0], format!("every machine that reaches {HOST}"));
        assert_eq!(of(5300).target.to_string(), "172.17.0.2:53");
        // What is said is what `nft` shows.
        for one in &explained {
            let rule = &one.rules[0];
            let element = rule.split_once("{ ").unwrap().1.trim_end_matches(" }");
            assert!(table.contains(element), "{element} in {table}");
        }
        // Another's filter that has a say is named; one that lets pass is not.
        sh(
            "nft 'add table ip strict; add chain ip strict way { type filter hook forward priority 0; policy drop; }'",
        );
        sh(
            "nft 'add table ip mild; add chain ip mild way { type filter hook forward priority 0; policy accept; }'",
        );
        let explained = networks.explain(&wanted.container).unwrap();
        let notes = explained.iter().map(|e| e.notes.join(" ")).collect::<Vec<_>>();
        assert!(notes[0].contains("chain way of table ip strict"), "{notes:?}");
        assert!(!notes[0].contains("mild"), "{notes:?}");
    });
}
