//! Interfaces that a network trusts: who comes in by one of them reaches what is published at the container's own address,
//! and nothing else; who comes in by another does not.

use std::os::fd::{AsFd, OwnedFd};

use host::*;
use network::PortChoice::Fixed;
use network::{CreateNetwork, Proto, SandboxRequest};

use crate::host;
use crate::outside::{CLIENT, client};

const TRUSTED: &str = "com.docker.network.bridge.trusted_host_interfaces";

/// A machine on another link of the host, which routes to containers just as the neighbour on the LAN does.
fn behind_another_link() -> OwnedFd {
    let other = linked("second", "second");
    sh("ip link set second up && ip address add 192.0.2.1/24 dev second");
    sh("ip address add 2001:db8:2::1/64 dev second nodad");
    inside(&other, || {
        sh("ip link set second up && ip address add 192.0.2.2/24 dev second");
        sh("ip address add 2001:db8:2::2/64 dev second nodad");
        sh("ip route add default via 192.0.2.1 && ip -6 route add default via 2001:db8:2::1");
    });
    other
}

#[test]
fn only_what_is_published_and_only_by_these_interfaces() {
    machine(|host| {
        let client = client(host);
        let other = behind_another_link();
        let networks = host.open();
        create(&networks, "trusting", &[(TRUSTED, "absent0:uplink:uplink")]);
        create(&networks, "plain", &[]);
        let mut ports = vec![
            publish(Proto::Tcp, 80, Some("127.0.0.1"), Fixed(8080)),
            // The same port inside once more.
            publish(Proto::Tcp, 80, None, Fixed(8081)),
            publish(Proto::Udp, 80, None, Fixed(8080)),
        ];
        ports.extend((9000..9100).map(|port| publish(Proto::Tcp, port, None, Fixed(port))));
        let wanted = SandboxRequest {
            ports,
            ..request("web", &["trusting"])
        };
        let web = networks.attach(&wanted).unwrap();
        let plain = networks
            .attach(&SandboxRequest {
                ports: vec![publish(Proto::Tcp, 80, None, Fixed(8090))],
                ..request("plain", &["plain"])
            })
            .unwrap();
        let _services = [80, 81, 9050].map(|port| Service::start(web.netns.as_fd(), "web", port));
        let _plain = Service::start(plain.netns.as_fd(), "plain", 80);
        let (inside4, inside6) = (v4(&web).to_string(), v6(&web).to_string());
        let (tcp, udp): (Ask, Ask) = (ask, ask_udp);
        let cases: [Case<'_>; 8] = [
            ("published", tcp, &inside4, 80, true),
            ("published, IPv6", tcp, &inside6, 80, true),
            ("published for datagrams", udp, &inside4, 80, true),
            ("a range", tcp, &inside4, 9050, true),
            ("a range, IPv6", tcp, &inside6, 9050, true),
            ("not published", tcp, &inside4, 81, false),
            ("not published, IPv6", tcp, &inside6, 81, false),
            ("published, the other transport", udp, &inside4, 9050, false),
        ];
        let trusted = ["198.51.100.2", "2001:db8:51::2"];
        assert_reached("machine on the trusted link", &host.lan, trusted, &cases);
        for (what, how, address, port, _) in cases {
            let answer = inside(&other, || how(address, port));
            assert_eq!(answer, None, "{what}, by another interface");
        }
        // Whoever is behind the interface, however far.
        let answer = inside(&client, || ask(&inside4, 80));
        assert_eq!(answer, Some(format!("web {CLIENT}")));
        // Ports of the host are as they were, for both.
        for from in [&host.lan, &other] {
            let seen = inside(from, || (ask(HOST, 8081), ask(HOST, 8080)));
            assert!(seen.0.is_some() && seen.1.is_none(), "{seen:?}");
        }
        // Networks that said nothing, and other containers, are no nearer than they were.
        let unsaid = v4(&plain).to_string();
        assert_eq!(inside(&host.lan, || ask(&unsaid, 80)), None);
        assert_eq!(inside(&plain.netns, || ask(&inside4, 80)), None);
        // It is said, as the table has it.
        let explained = networks.explain(&wanted.container).unwrap();
        let one = explained.iter().find(|one| one.port.host_port == 8080).unwrap();
        assert!(one.from.iter().any(|who| who.contains("uplink")), "{one:?}");
        let (_, element) = one.rules.last().unwrap().split_once("{ ").unwrap();
        let (element, _) = element.split_once(" }").unwrap();
        let before = host.table();
        assert!(before.contains(element), "{element} in {before}");
        // The next daemon finds what it would write.
        drop(networks);
        let networks = host.open();
        assert_eq!(host.table(), before);
        networks.detach(&wanted.container).unwrap();
        assert!(!host.table().contains(&inside4));
        networks.settle();
        networks.remove("trusting").unwrap();
        assert!(!host.table().contains("absent0"));
    });
}

#[test]
fn what_is_published_no_longer_is_reached_no_longer() {
    machine(|host| {
        let networks = host.open();
        create(&networks, "trusting", &[(TRUSTED, "uplink")]);
        let [first, second] = [8080, 8081].map(|port| publish(Proto::Tcp, 80, None, Fixed(port)));
        let datagrams = publish(Proto::Udp, 80, Some("127.0.0.1"), Fixed(8080));
        let wanted = SandboxRequest {
            ports: vec![first.clone(), second.clone(), datagrams.clone()],
            ..request("web", &["trusting"])
        };
        let web = networks.attach(&wanted).unwrap();
        let _service = Service::start(web.netns.as_fd(), "web", 80);
        let inside4 = v4(&web).to_string();
        let reached = || inside(&host.lan, || ask(&inside4, 80)).is_some();
        let answered = goes_on_asking(&host.lan, &inside4, 80);
        assert!(reached() && answered());
        networks.publish(&wanted.container, &[], &[first]).unwrap();
        assert!(reached(), "one of two bindings is left");
        networks.publish(&wanted.container, &[], &[second]).unwrap();
        assert!(!reached());
        networks.publish(&wanted.container, &[], &[datagrams]).unwrap();
        assert!(!answered(), "a flow that was let in before");
    });
}

/// Where a network is open to all, or to nobody, trusting some changes nothing.
#[test]
fn other_modes_are_what_they_were() {
    machine(|host| {
        let networks = host.open();
        let trust = (TRUSTED, "uplink");
        create(&networks, "routed", &[trust, (MODE4, "routed")]);
        create(&networks, "unprotected", &[trust, (MODE4, "nat-unprotected")]);
        networks
            .create(&CreateNetwork {
                internal: true,
                options: [(TRUSTED.to_owned(), "uplink".to_owned())].into(),
                ..bridge("shut")
            })
            .unwrap();
        for (name, published, others) in [
            ("routed", true, false),
            ("unprotected", true, true),
            ("shut", false, false),
        ] {
            let wanted = SandboxRequest {
                ports: vec![publish(Proto::Tcp, 80, None, Fixed(8080))],
                ..request(name, &[name])
            };
            let web = networks.attach(&wanted).unwrap();
            let _services = [80, 81].map(|port| Service::start(web.netns.as_fd(), name, port));
            let address = v4(&web).to_string();
            let seen = inside(&host.lan, || {
                (ask(&address, 80).is_some(), ask(&address, 81).is_some())
            });
            assert_eq!(seen, (published, others), "{name}");
            networks.detach(&wanted.container).unwrap();
        }
        networks.settle();
    });
}
