//! Published ports over IPv6 of containers that know IPv4 alone: who reaches them through what the container's monitor
//! serves, and that nobody else does.

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};

use host::*;
use network::PortChoice::{Any, Fixed};
use network::{CreateNetwork, EndpointRequest, NetworkConfig, Networks, Proto, SandboxRequest};
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use crate::host;

type Ask = fn(&str, u16) -> Option<String>;

fn table(host: &Host) -> String {
    sh(&format!("nft list table inet {}", host.tag()))
}

fn create(networks: &Networks, name: &str, internal: bool) {
    networks
        .create(&CreateNetwork {
            enable_ipv6: true,
            internal,
            ..bridge(name)
        })
        .unwrap();
}

/// A server of IPv6 alone, which nobody has asked to share its port.
fn listen_on_ipv6(port: u16) -> OwnedFd {
    let socket = rustix::net::socket_with(
        AddressFamily::INET6,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )
    .unwrap();
    rustix::net::sockopt::set_ipv6_v6only(&socket, true).unwrap();
    let at: SocketAddr = format!("[::]:{port}").parse().unwrap();
    rustix::net::bind(&socket, &at).unwrap();
    rustix::net::listen(&socket, 1).unwrap();
    socket
}

#[test]
fn who_comes_over_ipv6_is_handed_on_and_nobody_comes_nearer() {
    machine(|host| {
        let networks = host.open();
        create(&networks, "six", false);
        create(&networks, "shut", true);
        let mut ports = vec![
            publish(Proto::Tcp, 80, None, Fixed(8080)),
            publish(Proto::Udp, 80, None, Fixed(8080)),
            publish(Proto::Tcp, 80, Some(HOST6), Fixed(8081)),
            publish(Proto::Udp, 80, Some(HOST6), Fixed(8081)),
            publish(Proto::Tcp, 80, Some("::1"), Fixed(8082)),
            publish(Proto::Tcp, 80, Some("127.0.0.1"), Fixed(8083)),
            publish(Proto::Tcp, 80, Some(HOST), Fixed(8084)),
            publish(Proto::Tcp, 80, Some("0.0.0.0"), Fixed(8085)),
            publish(Proto::Tcp, 80, Some("::"), Fixed(8086)),
            publish(Proto::Sctp, 80, None, Fixed(8087)),
        ];
        ports.extend((9000..9003).map(|port| publish(Proto::Tcp, port, None, Fixed(port))));
        ports.extend((9100..9200).map(|port| publish(Proto::Tcp, port, None, Fixed(port))));
        let wanted = SandboxRequest {
            ports,
            ..request("web", &["bridge"])
        };
        let mut web = networks.attach(&wanted).unwrap();
        // What is said to be there is what will be served: all but SCTP and what is too long.
        let shown = |port: u16| -> Vec<String> {
            let of = web.ports.iter().filter(|p| p.host_port == port);
            of.map(|p| format!("{}/{}", p.host_ip, p.proto)).collect()
        };
        assert_eq!(shown(8080), ["0.0.0.0/tcp", "::/tcp", "0.0.0.0/udp", "::/udp"]);
        assert_eq!(shown(8085), ["0.0.0.0/tcp"]);
        assert_eq!(shown(8086), ["::/tcp"]);
        assert_eq!(shown(8087), ["0.0.0.0/sctp"]);
        assert_eq!(shown(9000), ["0.0.0.0/tcp", "::/tcp"]);
        assert_eq!(shown(9100), ["0.0.0.0/tcp"]);
        let _services = [80, 9001, 9150].map(|port| Service::start(web.netns.as_fd(), "web", port));
        let _relay = Relay::start(std::mem::take(&mut web.served));
        let beside = networks.attach(&request("beside", &["six"])).unwrap();
        let (tcp, udp): (Ask, Ask) = (ask, ask_udp);
        // How, at which port, and whether at every address, at the one, and at ::1.
        let cases: [(&str, Ask, u16, bool, bool); 10] = [
            ("every address", tcp, 8080, true, true),
            ("every address, UDP", udp, 8080, true, true),
            ("every IPv6 address", tcp, 8086, true, true),
            ("one address", tcp, 8081, true, false),
            ("one address, UDP", udp, 8081, true, false),
            ("loopback", tcp, 8082, false, true),
            ("IPv4's loopback", tcp, 8083, false, false),
            ("an IPv4 address", tcp, 8084, false, false),
            ("every IPv4 address", tcp, 8085, false, false),
            ("a range", tcp, 9001, true, true),
        ];
        // The host's address on the container's network.
        let expected = |reached: bool| reached.then(|| "web 172.17.0.1".to_owned());
        for (what, how, port, anywhere, loopback) in cases {
            let from_lan = inside(&host.lan, || how(HOST6, port));
            assert_eq!(from_lan, expected(anywhere), "{what}, from a neighbour");
            assert_eq!(how(HOST6, port), expected(anywhere), "{what}, from the host");
            assert_eq!(how("::1", port), expected(loopback), "{what}, at ::1");
            let from_beside = inside(&beside.netns, || how(HOST6, port));
            assert_eq!(from_beside, expected(anywhere), "{what}, from a container");
        }
        assert_eq!(inside(&host.lan, || ask(HOST6, 9150)), None, "what is too long");
        // IPv4 is what it was.
        let answer = inside(&host.lan, || ask(HOST, 8080));
        assert_eq!(answer.as_deref(), Some("web 198.51.100.2"));
        // Its own bridge has IPv6, so its container could ask the host for what others publish.
        let shut = networks.attach(&request("shut", &["shut"])).unwrap();
        let gateway = |network: &str| {
            let network = networks.get(network).unwrap();
            let mut gateways = network.ipam.config.iter().filter_map(|pool| pool.gateway);
            gateways.find(IpAddr::is_ipv6).unwrap().to_string()
        };
        let (open, closed) = (gateway("six"), gateway("shut"));
        assert!(inside(&beside.netns, || ask(&open, 8080)).is_some());
        assert_eq!(
            inside(&shut.netns, || ask(&closed, 8080)),
            None,
            "from an internal network"
        );
        assert_eq!(inside(&shut.netns, || ask_udp(&closed, 8080)), None);
    });
}

#[test]
fn it_is_explained_and_taken_over_by_the_next_daemon() {
    machine(|host| {
        let networks = host.open();
        let wanted = SandboxRequest {
            ports: vec![
                publish(Proto::Tcp, 80, None, Fixed(8080)),
                publish(Proto::Tcp, 80, Some("::1"), Fixed(8081)),
            ],
            ..request("web", &["bridge"])
        };
        let mut web = networks.attach(&wanted).unwrap();
        let _service = Service::start(web.netns.as_fd(), "web", 80);
        let _relay = Relay::start(std::mem::take(&mut web.served));
        let before = table(host);
        let explained = networks.explain(&wanted.container).unwrap();
        assert_eq!(explained.len(), 3);
        let of = |port: u16| {
            let mut found = explained.iter().filter(|e| e.port.host_ip.is_ipv6());
            found.find(|e| e.port.host_port == port).unwrap()
        };
        assert_eq!(of(8080).target, SocketAddr::new(v4(&web), 80));
        assert!(
            of(8080).addresses.contains(&HOST6.parse().unwrap()),
            "{:?}",
            of(8080)
        );
        assert!(of(8080).notes[0].contains("not the client's"), "{:?}", of(8080));
        assert!(of(8080).notes[1].contains("--ipv6"));
        assert_eq!(of(8081).from, ["this host alone, at ::1"]);
        for port in [8080, 8081] {
            let element = of(port).rules[0].split_once("{ ").unwrap().1;
            let element = element.split_once(" }").unwrap().0;
            assert!(before.contains(element), "{element} in {before}");
        }
        drop(networks);
        // Nobody's daemon: what is served goes on.
        assert!(ask("::1", 8080).is_some());
        let networks = host.open();
        assert_eq!(table(host), before);
        // The monitor has the sockets, and need not be given any.
        let served = networks.served(&wanted.container).unwrap();
        assert_eq!(served.ports.len(), 2);
        assert!(served.sockets.is_empty(), "{served:?}");
        let late = SandboxRequest {
            ports: vec![publish(Proto::Tcp, 80, Some(HOST6), Fixed(8080))],
            ..request("late", &["bridge"])
        };
        let text = networks.attach(&late).unwrap_err().to_string();
        assert!(text.contains("(container web publishes it)"), "{text}");
        networks.detach(&wanted.container).unwrap();
        assert!(!table(host).contains("8080"));
    });
}

#[test]
fn a_port_that_a_program_of_the_host_has_over_ipv6_is_refused_or_passed_over() {
    machine(|host| {
        let networks = host.open();
        let with = |name: &str, choice| SandboxRequest {
            ports: vec![publish(Proto::Tcp, 80, None, choice)],
            ..request(name, &["bridge"])
        };
        let server = listen_on_ipv6(8080);
        let text = networks
            .attach(&with("fixed", Fixed(8080)))
            .unwrap_err()
            .to_string();
        assert!(
            text.ends_with("failed to bind host port [::]:8080/tcp: address already in use"),
            "{text}"
        );
        // IPv4 was not kept either.
        drop(TcpListener::bind("0.0.0.0:8080").unwrap());
        let first = networks.attach(&with("first", Any)).unwrap();
        let number = first.ports[0].host_port;
        let _next = listen_on_ipv6(number + 1);
        let second = networks.attach(&with("second", Any)).unwrap();
        assert!(second.ports[0].host_port > number + 1);
        assert_eq!(second.ports[1].host_port, second.ports[0].host_port);
        // Published, it is not to be had for others.
        drop(server);
        let web = networks.attach(&with("web", Fixed(8080))).unwrap();
        assert!(TcpListener::bind("[::1]:8080").is_err());
        drop(web);
        // Without IPv6 the host has nothing there to listen at, and says so.
        sh("sysctl -qw net.ipv6.conf.all.disable_ipv6=1");
        let without = networks.attach(&with("without", Fixed(8090))).unwrap();
        assert_eq!(without.ports.len(), 1);
    });
}

#[test]
fn the_way_follows_the_networks_and_the_ports() {
    machine(|host| {
        let networks = host.open();
        networks.create(&bridge("four")).unwrap();
        create(&networks, "six", false);
        let wanted = SandboxRequest {
            ports: vec![publish(Proto::Tcp, 80, None, Fixed(8080))],
            ..request("web", &["four"])
        };
        let mut web = networks.attach(&wanted).unwrap();
        let _services = [80, 81].map(|port| Service::start(web.netns.as_fd(), "web", port));
        let first = Relay::start(std::mem::take(&mut web.served));
        let from_lan = || inside(&host.lan, || ask(HOST6, 8080));
        assert_eq!(from_lan().as_deref(), Some("web 172.18.0.1"));
        let six = EndpointRequest {
            network: "six".to_owned(),
            ..EndpointRequest::default()
        };
        let joined = networks
            .connect(&wanted.container, web.netns.as_fd(), &six)
            .unwrap();
        // Translated from here on, and ::1 is handed on over IPv6.
        assert_eq!(from_lan().as_deref(), Some("web 2001:db8:51::2"));
        let served = networks.served(&wanted.container).unwrap();
        assert!(served.sockets.is_empty(), "the monitor has it");
        assert_eq!(
            served.ports[0].target,
            Some(SocketAddr::new(joined.ipv6.unwrap().into(), 80))
        );
        networks
            .disconnect(&wanted.container, "six", Some(web.netns.as_fd()), false)
            .unwrap();
        assert_eq!(from_lan().as_deref(), Some("web 172.18.0.1"));
        // The same port to another one inside, in one go.
        let [old, new] = [80, 81].map(|inside| publish(Proto::Tcp, inside, None, Fixed(8080)));
        networks.publish(&wanted.container, &[new], &[old]).unwrap();
        let served = networks.served(&wanted.container).unwrap();
        assert!(served.sockets.is_empty(), "{served:?}");
        assert_eq!(served.ports[0].target, Some(SocketAddr::new(v4(&web), 81)));
        // One more comes with a socket, which is the daemon's again where the monitor could not be told.
        let more = publish(Proto::Udp, 80, None, Fixed(8080));
        networks
            .publish(&wanted.container, std::slice::from_ref(&more), &[])
            .unwrap();
        for _ in 0..2 {
            let served = networks.served(&wanted.container).unwrap();
            let [(place, _)] = served.sockets.as_slice() else {
                panic!("{served:?}")
            };
            assert_eq!(served.ports[*place].transport, relay::Transport::Udp);
            drop(served);
            networks.hold(&wanted.container);
        }
        let all = networks.publish(&wanted.container, &[], &[publish(Proto::Tcp, 81, None, Any)]);
        assert_eq!(all.unwrap().len(), 2);
        drop(first);
        drop(TcpListener::bind("[::]:8080").unwrap());
    });
}

#[test]
fn the_hosts_input_rules_decide_in_every_mode() {
    machine(|host| {
        for respect_host in [false, true] {
            let store = store::Store::open(&host.root.path().join("root")).unwrap();
            let config = NetworkConfig {
                respect_host,
                ..host.config()
            };
            let networks = Networks::open(store, config).unwrap();
            let wanted = SandboxRequest {
                ports: vec![
                    publish(Proto::Tcp, 80, None, Fixed(8080)),
                    publish(Proto::Udp, 80, None, Fixed(8080)),
                ],
                ..request("web", &["bridge"])
            };
            let mut web = networks.attach(&wanted).unwrap();
            let _service = Service::start(web.netns.as_fd(), "web", 80);
            let _relay = Relay::start(std::mem::take(&mut web.served));
            let reached = |when: &str| {
                let both = inside(&host.lan, || [ask(HOST6, 8080), ask_udp(HOST6, 8080)]);
                assert_eq!(both[0], both[1], "{when}");
                both[0].is_some()
            };
            assert!(reached("without rules"));
            sh(
                "nft 'add table inet own; add chain inet own in { type filter hook input priority 10; policy drop; }; \
                add rule inet own in iif lo accept; add rule inet own in iifname \"berth*\" accept; \
                add rule inet own in icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept'",
            );
            assert!(!reached("with a policy of drop"));
            assert!(ask("::1", 8080).is_some(), "the host itself");
            sh("nft 'add rule inet own in meta l4proto { tcp, udp } th dport 8080 accept'");
            assert!(reached("with the port let in"));
            sh("nft delete table inet own");
            networks.detach(&wanted.container).unwrap();
            networks.settle();
        }
    });
}
