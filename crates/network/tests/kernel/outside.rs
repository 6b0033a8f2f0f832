//! Seen from outside: a client behind a router, a neighbour on the LAN, and the host with its containers, each a network
//! namespace. What is reachable and what is not, for every way of publishing, over both families; and what becomes of
//! traffic when the daemon goes and comes.

use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use host::*;
use network::PortChoice::{Any, Fixed, Range};
use network::{Proto, SandboxRequest};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use sys::namespace::{Kind, in_namespace};

use crate::host;
use crate::ports::init;

pub const CLIENT: &str = "203.0.113.2";
pub const CLIENT6: &str = "2001:db8:113::2";

/// A client beyond the LAN, whose machine becomes a router.
pub fn client(host: &Host) -> OwnedFd {
    let client = inside(&host.lan, || {
        let client = linked("far", "near");
        sh(
            "ip link set far up && ip address add 203.0.113.1/24 dev far && ip address add 2001:db8:113::1/64 dev far nodad",
        );
        sh("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1");
        // A router that would lead straight to containers if it were let.
        sh("ip -6 route add fd00::/8 via 2001:db8:51::1");
        client
    });
    inside(&client, || {
        sh(&format!(
            "ip link set near up && ip address add {CLIENT}/24 dev near"
        ));
        sh(&format!("ip address add {CLIENT6}/64 dev near nodad"));
        sh("ip route add default via 203.0.113.1 && ip -6 route add default via 2001:db8:113::1");
    });
    sh(
        "ip route add 203.0.113.0/24 via 198.51.100.2 && ip -6 route add 2001:db8:113::/64 via 2001:db8:51::2",
    );
    client
}

#[test]
fn what_is_published_is_reached_from_outside_and_nothing_else() {
    machine(|host| {
        let client = client(host);
        let networks = host.open();
        create(&networks, "both", &[]);
        networks
            .create(&network::CreateNetwork {
                internal: true,
                ..bridge("shut")
            })
            .unwrap();
        let mut ports = vec![
            publish(Proto::Tcp, 80, None, Fixed(8080)),
            publish(Proto::Udp, 80, None, Fixed(8080)),
            publish(Proto::Tcp, 80, Some(HOST), Fixed(8081)),
            publish(Proto::Tcp, 80, Some(HOST6), Fixed(8082)),
            publish(Proto::Tcp, 80, Some("127.0.0.1"), Fixed(8083)),
            publish(Proto::Udp, 80, Some(HOST6), Fixed(8084)),
        ];
        ports.extend((9000..9100).map(|port| publish(Proto::Tcp, port, None, Fixed(port))));
        let web = networks
            .attach(&SandboxRequest {
                ports,
                ..request("web", &["both"])
            })
            .unwrap();
        let shut = networks
            .attach(&SandboxRequest {
                ports: vec![publish(Proto::Tcp, 80, None, Fixed(8090))],
                ..request("shut", &["shut"])
            })
            .unwrap();
        let _services = [
            Service::start(web.netns.as_fd(), "web", 80),
            Service::start(web.netns.as_fd(), "web", 9050),
            Service::start(web.netns.as_fd(), "web", 81),
            Service::start(shut.netns.as_fd(), "shut", 80),
        ];
        let (inside4, inside6) = (v4(&web).to_string(), v6(&web).to_string());
        let (tcp, udp): (Ask, Ask) = (ask, ask_udp);
        // How, where, and whether from outside; the same from the neighbour and from behind the router.
        let cases: [Case<'_>; 18] = [
            ("every address", tcp, HOST, 8080, true),
            ("every address, IPv6", tcp, HOST6, 8080, true),
            ("every address, UDP", udp, HOST, 8080, true),
            ("every address, UDP over IPv6", udp, HOST6, 8080, true),
            ("one address", tcp, HOST, 8081, true),
            ("one address, the other family", tcp, HOST6, 8081, false),
            ("one IPv6 address", tcp, HOST6, 8082, true),
            ("one IPv6 address, the other family", tcp, HOST, 8082, false),
            ("loopback", tcp, HOST, 8083, false),
            ("UDP on one IPv6 address", udp, HOST6, 8084, true),
            ("a range", tcp, HOST, 9050, true),
            ("a range, IPv6", tcp, HOST6, 9050, true),
            ("a port nobody published", tcp, HOST, 81, false),
            ("the container itself", tcp, &inside4, 80, false),
            ("the container itself, IPv6", tcp, &inside6, 80, false),
            ("the container itself, UDP", udp, &inside4, 80, false),
            ("an internal network", tcp, HOST, 8090, false),
            ("its gateway", tcp, "172.18.0.1", 8080, true),
        ];
        for (who, from, source4, source6) in [
            ("neighbour", &host.lan, "198.51.100.2", "2001:db8:51::2"),
            ("client", &client, CLIENT, CLIENT6),
        ] {
            assert_reached(who, from, [source4, source6], &cases);
        }
        // Out of it, with the host's address.
        let _far = Service::start(client.as_fd(), "far", 80);
        let seen = inside(&web.netns, || ask(CLIENT, 80));
        assert_eq!(seen.as_deref(), Some("far 198.51.100.1"));
        let seen = inside(&web.netns, || ask(CLIENT6, 80));
        assert_eq!(seen.as_deref(), Some("far 2001:db8:51::1"));
        assert_eq!(inside(&shut.netns, || ask(CLIENT, 80)), None);
    });
}

/// The forms of publishing that name an address, leave a number open, or give many.
#[test]
fn each_form_is_reached_where_it_says_and_nowhere_else() {
    const OTHER: &str = "198.51.100.9";
    const OTHER6: &str = "2001:db8:51::9";
    machine(|host| {
        let client = client(host);
        sh(&format!("ip address add {OTHER}/24 dev uplink"));
        sh(&format!("ip address add {OTHER6}/64 dev uplink nodad"));
        let networks = host.open();
        create(&networks, "both", &[]);
        let binding = "com.docker.network.bridge.host_binding_ipv4";
        create(&networks, "bound", &[(binding, OTHER)]);
        let first = networks
            .attach(&SandboxRequest {
                ports: vec![publish(Proto::Tcp, 80, None, Fixed(8100))],
                ..request("first", &["both"])
            })
            .unwrap();
        let mut ports = vec![
            publish(Proto::Tcp, 80, None, Any),
            publish(Proto::Tcp, 81, None, Range(8100, 8102)),
            publish(Proto::Tcp, 80, Some("0.0.0.0"), Fixed(8200)),
            publish(Proto::Tcp, 80, Some("::"), Fixed(8201)),
            publish(Proto::Udp, 80, Some("0.0.0.0"), Fixed(8202)),
            publish(Proto::Udp, 80, Some("::"), Fixed(8203)),
            publish(Proto::Tcp, 80, Some(OTHER), Fixed(8204)),
            publish(Proto::Udp, 80, Some(OTHER6), Fixed(8205)),
            publish(Proto::Tcp, 80, Some("::1"), Fixed(8206)),
            publish(Proto::Udp, 80, Some("127.0.0.1"), Fixed(8207)),
        ];
        ports.extend((0..5).map(|n| publish(Proto::Tcp, 300 + n, None, Fixed(9200 + n))));
        ports.extend((9300..9310).map(|port| publish(Proto::Udp, port, None, Fixed(port))));
        let wanted = SandboxRequest {
            ports,
            ..request("web", &["both"])
        };
        let web = networks.attach(&wanted).unwrap();
        let bound = networks
            .attach(&SandboxRequest {
                ports: vec![publish(Proto::Tcp, 80, None, Fixed(8300))],
                ..request("bound", &["bound"])
            })
            .unwrap();
        let any = web.ports.iter().map(|port| port.host_port).max().unwrap();
        assert!(any >= 49153, "{:?}", web.ports);
        let _services = [
            Service::start(first.netns.as_fd(), "first", 80),
            Service::start(bound.netns.as_fd(), "web", 80),
            Service::start(web.netns.as_fd(), "web", 80),
            Service::start(web.netns.as_fd(), "web", 81),
            Service::start(web.netns.as_fd(), "web", 302),
            Service::start(web.netns.as_fd(), "web", 9305),
        ];
        let (tcp, udp): (Ask, Ask) = (ask, ask_udp);
        let cases: [Case<'_>; 24] = [
            ("any number", tcp, HOST, any, true),
            ("any number, IPv6", tcp, HOST6, any, true),
            ("one of a range", tcp, HOST, 8101, true),
            ("one of a range, IPv6", tcp, HOST6, 8101, true),
            ("the rest of the range", tcp, HOST, 8102, false),
            ("all of IPv4", tcp, HOST, 8200, true),
            ("all of IPv4, the other family", tcp, HOST6, 8200, false),
            ("all of IPv6", tcp, OTHER6, 8201, true),
            ("all of IPv6, the other family", tcp, HOST, 8201, false),
            ("UDP on all of IPv4", udp, OTHER, 8202, true),
            ("UDP on all of IPv4, the other family", udp, HOST6, 8202, false),
            ("UDP on all of IPv6", udp, HOST6, 8203, true),
            ("UDP on all of IPv6, the other family", udp, HOST, 8203, false),
            ("the second address", tcp, OTHER, 8204, true),
            ("the second address alone", tcp, HOST, 8204, false),
            ("UDP on the second IPv6 address", udp, OTHER6, 8205, true),
            ("UDP on the second IPv6 address alone", udp, HOST6, 8205, false),
            ("IPv6's loopback", tcp, HOST6, 8206, false),
            ("UDP on the loopback", udp, HOST, 8207, false),
            ("a range with other numbers inside", tcp, HOST, 9202, true),
            ("a range with other numbers inside, IPv6", tcp, HOST6, 9202, true),
            ("a range of UDP, IPv6", udp, HOST6, 9305, true),
            ("where the network says", tcp, OTHER, 8300, true),
            ("where the network does not say", tcp, HOST, 8300, false),
        ];
        for (who, from, source4, source6) in [
            ("neighbour", &host.lan, "198.51.100.2", "2001:db8:51::2"),
            ("client", &client, CLIENT, CLIENT6),
        ] {
            assert_reached(who, from, [source4, source6], &cases);
        }
        networks.tear_down().unwrap();
    });
}

/// Associations, whose ends are raw sockets, since few kernels have others.
#[test]
fn sctp_is_led_in_over_both_families_from_beyond_a_router() {
    machine(|host| {
        let client = client(host);
        let networks = host.open();
        create(&networks, "both", &[]);
        let wanted = SandboxRequest {
            ports: vec![publish(Proto::Sctp, 36412, None, Fixed(36400))],
            ..request("core", &["both"])
        };
        let core = networks.attach(&wanted).unwrap();
        for (family, header, to, source) in [
            (AddressFamily::INET, 20, HOST, CLIENT),
            (AddressFamily::INET6, 0, HOST6, CLIENT6),
        ] {
            let raw = || {
                let sctp = Some(rustix::net::ipproto::SCTP);
                rustix::net::socket_with(family, SocketType::RAW, SocketFlags::CLOEXEC, sctp).unwrap()
            };
            let (listening, asking) = (inside(&core.netns, raw), inside(&client, raw));
            let patience = Some(Duration::from_secs(30));
            let timeout = rustix::net::sockopt::Timeout::Recv;
            rustix::net::sockopt::set_socket_timeout(&listening, timeout, patience).unwrap();
            let to = SocketAddr::new(to.parse().unwrap(), 0);
            rustix::net::sendto(&asking, &init(5000, 36400), SendFlags::empty(), &to).unwrap();
            let mut buffer = [0u8; 256];
            let (_, length, from) =
                rustix::net::recvfrom(&listening, &mut buffer[..], RecvFlags::empty()).unwrap();
            let from = SocketAddr::try_from(from.unwrap()).unwrap();
            assert_eq!(from.ip().to_string(), source);
            assert_eq!(buffer[header..length], init(5000, 36412)[..]);
        }
        networks.tear_down().unwrap();
    });
}

/// A server that sends back what it gets, and clients that keep asking until they are stopped.
#[test]
fn no_connection_is_lost_when_the_daemon_goes_and_comes() {
    const CLIENTS: usize = 16;
    machine(|host| {
        let client = client(host);
        let networks = host.open();
        let wanted = SandboxRequest {
            ports: (9000..9100)
                .map(|port| publish(Proto::Tcp, port, None, Fixed(port)))
                .collect(),
            ..request("echo", &["bridge"])
        };
        let echo = networks.attach(&wanted).unwrap();
        let listeners: Vec<TcpListener> = (0..CLIENTS)
            .map(|n| {
                let listen = move || TcpListener::bind(("0.0.0.0", 9000 + n as u16)).unwrap();
                in_namespace(echo.netns.as_fd(), Kind::Network, listen).unwrap()
            })
            .collect();
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let mut threads = Vec::new();
        for (n, listener) in listeners.into_iter().enumerate() {
            let connect = move || TcpStream::connect((HOST, 9000 + n as u16)).unwrap();
            let mut asking = inside(&client, connect);
            asking.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            let (mut served, _) = listener.accept().unwrap();
            std::thread::spawn(move || {
                let mut buffer = [0; 512];
                while let Ok(length @ 1..) = served.read(&mut buffer) {
                    if served.write_all(&buffer[..length]).is_err() {
                        break;
                    }
                }
            });
            let (stop, answered) = (stop.clone(), answered.clone());
            threads.push(std::thread::spawn(move || -> std::io::Result<()> {
                let mut buffer = [0; 64];
                while !stop.load(Ordering::SeqCst) {
                    asking.write_all(&[7; 64])?;
                    asking.read_exact(&mut buffer)?;
                    answered.fetch_add(1, Ordering::SeqCst);
                    std::thread::sleep(Duration::from_millis(1));
                }
                Ok(())
            }));
        }
        let alive = HashSet::from([wanted.container.clone()]);
        drop(networks);
        for _ in 0..5 {
            std::thread::sleep(Duration::from_millis(50));
            let next = host.open();
            next.reconcile(&alive).unwrap();
            std::thread::sleep(Duration::from_millis(50));
        }
        // Another release's rules are replaced, not adopted.
        sh(&format!("nft flush chain inet {} forward", host.tag()));
        let networks = host.open();
        networks.reconcile(&alive).unwrap();
        std::thread::sleep(Duration::from_millis(100));
        stop.store(true, Ordering::SeqCst);
        let lost: Vec<_> = threads
            .into_iter()
            .filter_map(|thread| thread.join().unwrap().err())
            .collect();
        println!(
            "{} answers over {CLIENTS} connections, {} lost",
            answered.load(Ordering::SeqCst),
            lost.len()
        );
        assert!(lost.is_empty(), "{lost:?}");
        assert!(answered.load(Ordering::SeqCst) > CLIENTS);
        networks.detach(&wanted.container).unwrap();
    });
}

#[test]
fn a_network_may_be_open_to_whoever_routes_to_it_or_shut_to_the_host() {
    machine(|host| {
        let client = client(host);
        let networks = host.open();
        let mode = |name: &str, mode: &str, internal: bool| {
            let mut wanted = bridge(name);
            wanted.internal = internal;
            wanted.options.insert(MODE4.to_owned(), mode.to_owned());
            networks.create(&wanted)
        };
        mode("open", "nat-unprotected", false).unwrap();
        let alone = mode("alone", "isolated", true).unwrap();
        let refused = mode("wrong", "isolated", false).unwrap_err().to_string();
        assert!(refused.contains("internal"), "{refused}");
        let refused = mode("wrong", "direct", false).unwrap_err().to_string();
        assert!(
            refused.contains("gateway_mode_ipv4") && refused.contains("direct"),
            "{refused}"
        );
        let web = networks.attach(&request("web", &["open"])).unwrap();
        let kept = networks.attach(&request("kept", &["bridge"])).unwrap();
        let _services = [
            Service::start(web.netns.as_fd(), "web", 80),
            Service::start(kept.netns.as_fd(), "kept", 80),
        ];
        for from in [&host.lan, &client] {
            assert!(inside(from, || ask(&v4(&web).to_string(), 80)).is_some());
            assert_eq!(inside(from, || ask(&v4(&kept).to_string(), 80)), None);
        }
        // The host is nobody in an isolated network, and its containers still reach each other.
        let addresses = sh(&format!("ip -4 -o address show br-{}", alone.id.short()));
        assert_eq!(addresses, "");
        let (one, two) = (request("one", &["alone"]), request("two", &["alone"]));
        let (one, two) = (networks.attach(&one).unwrap(), networks.attach(&two).unwrap());
        let _service = Service::start(one.netns.as_fd(), "one", 80);
        assert!(inside(&two.netns, || ask(&v4(&one).to_string(), 80)).is_some());
        assert_eq!(ask(&v4(&one).to_string(), 80), None);
        // What the next daemon finds is what it would write.
        let rules = host.table();
        drop(networks);
        let networks = host.open();
        assert_eq!(host.table(), rules);
        networks.tear_down().unwrap();
    });
}

#[test]
fn what_leaves_a_network_does_so_with_the_address_that_was_chosen() {
    machine(|host| {
        let client = client(host);
        let link = sh("ip -4 -o address show to 198.51.100.1");
        let link = link.split_whitespace().nth(1).unwrap().to_owned();
        sh(&format!("ip address add 198.51.100.9/24 dev {link}"));
        sh(&format!("ip address add 2001:db8:51::9/64 dev {link} nodad"));
        let networks = host.open();
        let mut wanted = network::CreateNetwork {
            enable_ipv6: true,
            ..bridge("chosen")
        };
        for (key, value) in [
            ("com.docker.network.host_ipv4", "198.51.100.9"),
            ("com.docker.network.host_ipv6", "2001:db8:51::9"),
        ] {
            wanted.options.insert(key.to_owned(), value.to_owned());
        }
        networks.create(&wanted).unwrap();
        let chosen = networks.attach(&request("chosen", &["chosen"])).unwrap();
        let plain = networks.attach(&request("plain", &["bridge"])).unwrap();
        let _far = Service::start(client.as_fd(), "far", 80);
        let seen = |from: &OwnedFd, to: &str| inside(from, || ask(to, 80));
        let check = || {
            assert_eq!(seen(&chosen.netns, CLIENT).as_deref(), Some("far 198.51.100.9"));
            assert_eq!(
                seen(&chosen.netns, CLIENT6).as_deref(),
                Some("far 2001:db8:51::9")
            );
            assert_eq!(seen(&plain.netns, CLIENT).as_deref(), Some("far 198.51.100.1"));
        };
        check();
        // What the next daemon finds is what it would write.
        let rules = host.table();
        drop(networks);
        let networks = host.open();
        assert_eq!(host.table(), rules);
        check();
        networks.remove("chosen").unwrap_err();
        networks.tear_down().unwrap();
    });
}
