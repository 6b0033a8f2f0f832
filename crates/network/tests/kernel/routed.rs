//! The mode `routed`, seen from outside: a network whose containers are reached at their own addresses, at what they
//! publish and nowhere else, and that no packet leaves or enters with another address.

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::time::Duration;

use host::*;
use network::PortChoice::{Any, Fixed};
use network::{CreateNetwork, Proto, PublishedPort, SandboxRequest};
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use crate::host;
use crate::outside::{CLIENT, CLIENT6, client};

const ROUTED: [(&str, &str); 2] = [(MODE4, "routed"), (MODE6, "routed")];

/// Whether an echo request is answered.
fn ping(address: IpAddr) -> bool {
    let (family, protocol, request, answer) = match address {
        IpAddr::V4(_) => (AddressFamily::INET, rustix::net::ipproto::ICMP, 8, 0),
        IpAddr::V6(_) => (AddressFamily::INET6, rustix::net::ipproto::ICMPV6, 128, 129),
    };
    let socket =
        rustix::net::socket_with(family, SocketType::RAW, SocketFlags::empty(), Some(protocol)).unwrap();
    // One's complement of the only word that is not 0; the kernel does IPv6's itself.
    let sum = !(u16::from(request as u8) << 8);
    let [high, low] = sum.to_be_bytes();
    let packet = [request as u8, 0, high, low, 0, 0, 0, 0];
    rustix::net::sendto(
        &socket,
        &packet,
        rustix::net::SendFlags::empty(),
        &SocketAddr::new(address, 0),
    )
    .unwrap();
    let patience = Some(Duration::from_millis(1500));
    rustix::net::sockopt::set_socket_timeout(&socket, rustix::net::sockopt::Timeout::Recv, patience).unwrap();
    let mut buffer = [0u8; 256];
    while let Ok((_, length)) = rustix::net::recv(&socket, &mut buffer[..], rustix::net::RecvFlags::empty()) {
        let header = if address.is_ipv4() { 20 } else { 0 };
        if length > header && buffer[header] == answer {
            return true;
        }
    }
    false
}

#[test]
fn what_is_published_is_reached_at_the_containers_own_address() {
    machine(|host| {
        let client = client(host);
        let networks = host.open();
        create(&networks, "routed", &ROUTED);
        networks
            .create(&CreateNetwork {
                internal: true,
                ..bridge("shut")
            })
            .unwrap();
        let mut ports = vec![
            publish(Proto::Tcp, 80, None, Fixed(8080)),
            // The same again, from another port that is none here, and at an address that does not matter here.
            publish(Proto::Tcp, 80, None, Fixed(8081)),
            publish(Proto::Udp, 80, Some("0.0.0.0"), Any),
            publish(Proto::Tcp, 82, Some(HOST6), Fixed(8082)),
            publish(Proto::Sctp, 90, None, Any),
        ];
        ports.extend((9000..9100).map(|port| publish(Proto::Tcp, port, None, Fixed(port))));
        let wanted = SandboxRequest {
            ports,
            ..request("web", &["routed"])
        };
        let web = networks.attach(&wanted).unwrap();
        let beside = networks.attach(&request("beside", &["bridge"])).unwrap();
        let shut = networks.attach(&request("shut", &["shut"])).unwrap();
        let _services = [80, 81, 82, 9050].map(|port| Service::start(web.netns.as_fd(), "web", port));
        let (inside4, inside6) = (v4(&web).to_string(), v6(&web).to_string());
        let (tcp, udp): (Ask, Ask) = (ask, ask_udp);
        let cases: [Case<'_>; 14] = [
            ("published", tcp, &inside4, 80, true),
            ("published, IPv6", tcp, &inside6, 80, true),
            ("published for datagrams", udp, &inside4, 80, true),
            (
                "published for the other family's datagrams",
                udp,
                &inside6,
                80,
                false,
            ),
            ("published for one family", tcp, &inside6, 82, true),
            ("published for the other family", tcp, &inside4, 82, false),
            ("a range", tcp, &inside4, 9050, true),
            ("a range, IPv6", tcp, &inside6, 9050, true),
            ("not published", tcp, &inside4, 81, false),
            ("not published, IPv6", tcp, &inside6, 81, false),
            ("published, the other transport", udp, &inside4, 9050, false),
            ("a port of the host", tcp, HOST, 8080, false),
            ("a port of the host, IPv6", tcp, HOST6, 8080, false),
            ("the same number at the host", tcp, HOST, 9050, false),
        ];
        for (who, from, source4, source6) in [
            ("neighbour", &host.lan, "198.51.100.2", "2001:db8:51::2"),
            ("client", &client, CLIENT, CLIENT6),
        ] {
            assert_reached(who, from, [source4, source6], &cases);
            assert!(
                inside(from, || ping(v4(&web)) && ping(v6(&web))),
                "ping from the {who}"
            );
            assert!(!inside(from, || ping(v4(&beside))), "ping from the {who}");
        }
        // Its neighbours on the host: what is published, with their own addresses; an internal network leads nowhere.
        let seen = inside(&beside.netns, || (ask(&inside4, 80), ask(&inside4, 81)));
        assert_eq!(seen, (Some(format!("web {}", v4(&beside))), None));
        assert_eq!(inside(&shut.netns, || ask(&inside4, 80)), None);
        assert!(ask(&inside4, 81).is_some(), "the host itself");
        // Out of it, with its own address.
        let _far = Service::start(client.as_fd(), "far", 80);
        let seen = inside(&web.netns, || (ask(CLIENT, 80), ask(CLIENT6, 80)));
        assert_eq!(seen.0, Some(format!("far {inside4}")));
        assert_eq!(seen.1, Some(format!("far {inside6}")));
        // Nothing of the host was taken, and that is what is said.
        for port in [8080, 8081, 9050] {
            drop(TcpListener::bind(("0.0.0.0", port)).unwrap());
        }
        assert!(
            web.ports
                .iter()
                .all(|port| port.routed && port.host_ip.is_unspecified())
        );
        // What the next daemon finds is what it would write; a range is one element for each family.
        let before = host.table();
        for element in ["sctp . ", ". 9000-9099"] {
            assert_eq!(before.matches(element).count(), 2, "{element} in {before}");
        }
        drop(networks);
        let networks = host.open();
        assert_eq!(host.table(), before);
        // When it goes, so does the way in.
        networks.detach(&wanted.container).unwrap();
        assert!(!host.table().contains(&inside4));
        networks.settle();
    });
}

#[test]
fn one_family_may_be_routed_and_the_other_translated() {
    machine(|host| {
        let _routes = client(host);
        let networks = host.open();
        create(&networks, "mixed", &[(MODE4, "nat"), (MODE6, "routed")]);
        let wanted = SandboxRequest {
            ports: vec![publish(Proto::Tcp, 80, None, Fixed(8080))],
            ..request("web", &["mixed"])
        };
        let web = networks.attach(&wanted).unwrap();
        let _service = Service::start(web.netns.as_fd(), "web", 80);
        let shown = |port: &PublishedPort| (port.host_ip.to_string(), port.host_port, port.routed);
        let mut all: Vec<_> = web.ports.iter().map(shown).collect();
        all.sort();
        assert_eq!(
            all,
            [("0.0.0.0".to_owned(), 8080, false), ("::".to_owned(), 8080, true)]
        );
        let (inside4, inside6) = (v4(&web).to_string(), v6(&web).to_string());
        let reached = |address: &str, port: u16| inside(&host.lan, || ask(address, port)).is_some();
        assert!(reached(HOST, 8080) && reached(&inside6, 80));
        assert!(!reached(HOST6, 8080) && !reached(&inside4, 80));
        // Each is explained in its own way.
        let explained = networks.explain(&wanted.container).unwrap();
        let table = host.table();
        assert_eq!(explained.len(), 2);
        let routed = explained.iter().find(|one| one.port.routed).unwrap();
        assert_eq!(routed.addresses, [v6(&web)]);
        assert_eq!(routed.target, SocketAddr::new(v6(&web), 80));
        assert!(routed.from[0].contains("routes to"), "{routed:?}");
        let element = routed.rules[0].split_once("{ ").unwrap().1;
        let element = element.split_once(" }").unwrap().0;
        assert!(table.contains(element), "{element} in {table}");
    });
}

#[test]
fn routed_ports_come_and_go_while_it_runs() {
    machine(|host| {
        let networks = host.open();
        create(&networks, "routed", &ROUTED);
        let wanted = SandboxRequest {
            ports: vec![publish(Proto::Udp, 80, None, Fixed(8080))],
            ..request("web", &["routed"])
        };
        let web = networks.attach(&wanted).unwrap();
        let _service = Service::start(web.netns.as_fd(), "web", 80);
        let inside4 = v4(&web).to_string();
        let answered = goes_on_asking(&host.lan, &inside4, 80);
        assert!(answered());
        let tcp = [publish(Proto::Tcp, 80, None, Fixed(8080))];
        assert!(inside(&host.lan, || ask(&inside4, 80)).is_none());
        networks.publish(&wanted.container, &tcp, &[]).unwrap();
        assert!(inside(&host.lan, || ask(&inside4, 80)).is_some());
        let udp = [publish(Proto::Udp, 80, None, Fixed(8080))];
        let left = networks.publish(&wanted.container, &[], &udp).unwrap();
        assert!(!answered(), "a flow that was let in before");
        assert!(left.iter().all(|port| port.proto == Proto::Tcp), "{left:?}");
        let refused = networks.publish(&wanted.container, &[], &udp).unwrap_err();
        assert!(refused.to_string().contains("80/udp"), "{refused}");
        networks.publish(&wanted.container, &[], &tcp).unwrap();
        assert_eq!(inside(&host.lan, || ask(&inside4, 80)), None);
        // Many that overlap are fine, and each may go alone.
        let many = (100..200).map(|port| publish(Proto::Tcp, port, None, Fixed(port)));
        let mut many: Vec<_> = many.collect();
        many.extend((150..250).map(|port| publish(Proto::Tcp, port, Some("0.0.0.0"), Fixed(port + 1000))));
        networks.publish(&wanted.container, &many, &[]).unwrap();
        assert!(host.table().contains(". 100-249"), "{}", host.table());
        networks
            .publish(&wanted.container, &[], &[publish(Proto::Tcp, 120, None, Any)])
            .unwrap();
        assert!(host.table().contains(". 121-249"), "{}", host.table());
    });
}

/// Two bindings of one port: it is open until the last of them goes.
#[test]
fn one_binding_of_two_goes() {
    machine(|host| {
        let networks = host.open();
        create(&networks, "routed", &ROUTED);
        let [first, second] = [8080, 8081].map(|port| publish(Proto::Tcp, 80, None, Fixed(port)));
        let wanted = SandboxRequest {
            ports: vec![first.clone(), second.clone()],
            ..request("web", &["routed"])
        };
        let web = networks.attach(&wanted).unwrap();
        let _service = Service::start(web.netns.as_fd(), "web", 80);
        let inside4 = v4(&web).to_string();
        networks.publish(&wanted.container, &[], &[first]).unwrap();
        assert!(inside(&host.lan, || ask(&inside4, 80)).is_some());
        networks.publish(&wanted.container, &[], &[second]).unwrap();
        assert_eq!(inside(&host.lan, || ask(&inside4, 80)), None);
    });
}

/// What is published for the host alone is opened to nobody else, whichever way the container came to a routed network.
#[test]
fn a_port_of_the_loopback_address_is_not_opened() {
    machine(|host| {
        let networks = host.open();
        create(&networks, "a-routed", &ROUTED);
        let wanted = SandboxRequest {
            ports: vec![publish(Proto::Tcp, 80, Some("127.0.0.1"), Fixed(8080))],
            ..request("direct", &["a-routed"])
        };
        let direct = networks.attach(&wanted).unwrap();
        let _service = Service::start(direct.netns.as_fd(), "direct", 80);
        let address = v4(&direct).to_string();
        assert_eq!(inside(&host.lan, || ask(&address, 80)), None);
        assert!(ask(&address, 80).is_some());
        networks.publish(&wanted.container, &[], &wanted.ports).unwrap();
        assert_eq!(networks.published(&wanted.container), []);
        let wanted = SandboxRequest {
            ports: wanted.ports,
            ..request("later", &["bridge"])
        };
        let later = networks.attach(&wanted).unwrap();
        let _service = Service::start(later.netns.as_fd(), "later", 80);
        assert!(ask("127.0.0.1", 8080).is_some());
        let more = request("later", &["a-routed"]).endpoints.remove(0);
        let endpoint = networks
            .connect(&wanted.container, later.netns.as_fd(), &more)
            .unwrap();
        let address = endpoint.ipv4.unwrap().to_string();
        assert_eq!(inside(&host.lan, || ask(&address, 80)), None);
    });
}

#[test]
fn ports_follow_the_way_in_where_they_can() {
    machine(|host| {
        let networks = host.open();
        create(&networks, "a-routed", &ROUTED);
        let wanted = SandboxRequest {
            ports: vec![publish(Proto::Tcp, 80, None, Fixed(8080))],
            ..request("web", &["bridge"])
        };
        let web = networks.attach(&wanted).unwrap();
        let _service = Service::start(web.netns.as_fd(), "web", 80);
        assert!(inside(&host.lan, || ask(HOST, 8080)).is_some());
        // The first by name leads out and takes the ports.
        let more = request("web", &["a-routed"]).endpoints.remove(0);
        let endpoint = networks
            .connect(&wanted.container, web.netns.as_fd(), &more)
            .unwrap();
        let routed = endpoint.ipv4.unwrap().to_string();
        assert!(inside(&host.lan, || ask(&routed, 80)).is_some());
        networks
            .disconnect(&wanted.container, "a-routed", Some(web.netns.as_fd()), false)
            .unwrap();
        assert!(inside(&host.lan, || ask(HOST, 8080)).is_some());
        assert!(!host.table().contains(&routed));
    });
}
