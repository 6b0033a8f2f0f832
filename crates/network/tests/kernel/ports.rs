//! Published ports: from where they are reached, from where not, and who is refused one.

use std::os::fd::AsFd;

use host::*;
use network::PortChoice::{Any, Fixed};
use network::{Proto, SandboxRequest};

use crate::host;

#[test]
fn a_published_port_is_reached_from_everywhere_it_should_be() {
    machine(|host| {
        let networks = host.open();
        networks.create(&bridge("app")).unwrap();
        networks.create(&bridge("other")).unwrap();
        let wanted = SandboxRequest {
            ports: vec![
                publish(Proto::Tcp, 80, None, Fixed(8080)),
                publish(Proto::Udp, 80, None, Fixed(8081)),
            ],
            ..request("web", &["app"])
        };
        let web = networks.attach(&wanted).unwrap();
        let sibling = networks.attach(&request("sibling", &["app"])).unwrap();
        let stranger = networks.attach(&request("stranger", &["other"])).unwrap();
        let _service = Service::start(web.netns.as_fd(), "web", 80);

        // From another machine, which is seen under its own address.
        assert_eq!(
            inside(&host.lan, || ask(HOST, 8080)).as_deref(),
            Some("web 198.51.100.2")
        );
        assert_eq!(
            inside(&host.lan, || ask_udp(HOST, 8081)).as_deref(),
            Some("web 198.51.100.2")
        );
        // From the host itself.
        assert!(ask(HOST, 8080).is_some());
        assert!(ask("127.0.0.1", 8080).is_some());
        assert!(ask_udp("127.0.0.1", 8081).is_some());
        // From the network it is in, from another one, and from itself.
        for (who, container) in [("sibling", &sibling), ("stranger", &stranger), ("web", &web)] {
            assert!(inside(&container.netns, || ask(HOST, 8080)).is_some(), "{who}");
            assert!(
                inside(&container.netns, || ask("172.18.0.1", 8080)).is_some(),
                "{who} by the gateway"
            );
        }
        // The other protocol is not published.
        assert_eq!(inside(&host.lan, || ask(HOST, 8081)), None);

        networks.detach(&wanted.container).unwrap();
        assert_eq!(inside(&host.lan, || ask(HOST, 8080)), None);
        assert_eq!(ask("127.0.0.1", 8080), None);
    });
}

#[test]
fn what_is_published_on_loopback_stays_on_the_host() {
    machine(|host| {
        let networks = host.open();
        let wanted = SandboxRequest {
            ports: vec![
                publish(Proto::Tcp, 80, Some("127.0.0.1"), Fixed(8080)),
                publish(Proto::Tcp, 80, Some(HOST), Fixed(9090)),
            ],
            ..request("web", &["bridge"])
        };
        let web = networks.attach(&wanted).unwrap();
        let other = networks.attach(&request("other", &["bridge"])).unwrap();
        let _service = Service::start(web.netns.as_fd(), "web", 80);
        assert!(ask("127.0.0.1", 8080).is_some());
        assert!(ask(HOST, 9090).is_some());
        assert_eq!(ask("127.0.0.1", 9090), None);
        assert_eq!(inside(&host.lan, || ask(HOST, 8080)), None);
        assert!(inside(&host.lan, || ask(HOST, 9090)).is_some());
        // A neighbour or container that sends packets for 127.0.0.1 over the wire.
        for (namespace, interface, gateway) in
            [(&host.lan, "uplink", HOST), (&other.netns, "eth0", "172.17.0.1")]
        {
            inside(namespace, || {
                sh(
                    "ip rule add pref 10 lookup 100 && ip rule del pref 0 && ip rule add pref 20 lookup local",
                );
                sh(&format!(
                    "sysctl -qw net.ipv4.conf.{interface}.route_localnet=1 net.ipv4.conf.all.rp_filter=0"
                ));
                sh(&format!(
                    "ip route add 127.0.0.1/32 via {gateway} dev {interface} table 100"
                ));
                assert_eq!(ask("127.0.0.1", 8080), None, "from {interface}");
            });
        }
    });
}

#[test]
fn ports_over_ipv6() {
    machine(|host| {
        let networks = host.open();
        networks
            .create(&network::CreateNetwork {
                enable_ipv6: true,
                ..bridge("six")
            })
            .unwrap();
        let wanted = SandboxRequest {
            ports: vec![publish(Proto::Tcp, 80, None, Fixed(8080))],
            ..request("web", &["six"])
        };
        let web = networks.attach(&wanted).unwrap();
        let sibling = networks.attach(&request("sibling", &["six"])).unwrap();
        let listening: Vec<String> = web.ports.iter().map(|p| p.host_ip.to_string()).collect();
        assert_eq!(listening, ["0.0.0.0", "::"]);
        let _service = Service::start(web.netns.as_fd(), "web", 80);
        assert_eq!(
            inside(&host.lan, || ask(HOST6, 8080)).as_deref(),
            Some("web 2001:db8:51::2")
        );
        assert!(inside(&host.lan, || ask(HOST, 8080)).is_some());
        assert!(ask(HOST6, 8080).is_some());
        assert!(inside(&sibling.netns, || ask(HOST6, 8080)).is_some());
        assert!(inside(&web.netns, || ask(HOST6, 8080)).is_some());
        // The kernel cannot; refused at once, so that clients of `localhost` go on to 127.0.0.1.
        let refused = std::net::TcpStream::connect("[::1]:8080").unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
        assert!(ask("127.0.0.1", 8080).is_some());
        let on_loopback = SandboxRequest {
            ports: vec![publish(Proto::Tcp, 80, Some("::1"), Fixed(8081))],
            ..request("loop", &["six"])
        };
        let text = networks.attach(&on_loopback).unwrap_err().to_string();
        assert!(text.contains("cannot be published on ::1"), "{text}");
    });
}

#[test]
fn two_cannot_have_one_port() {
    machine(|host| {
        let networks = host.open();
        let with = |name: &str, port| SandboxRequest {
            ports: vec![port],
            ..request(name, &["bridge"])
        };
        let first = with("first", publish(Proto::Tcp, 80, None, Fixed(8080)));
        networks.attach(&first).unwrap();
        let second = with("second", publish(Proto::Tcp, 80, Some("127.0.0.1"), Fixed(8080)));
        let refused = networks.attach(&second).unwrap_err();
        let text = refused.to_string();
        assert!(
            text.starts_with("driver failed programming external connectivity on endpoint second ("),
            "{text}"
        );
        assert!(
            text.ends_with(
                "): Bind for 127.0.0.1:8080 failed: port is already allocated (container first publishes it)"
            ),
            "{text}"
        );
        // A refused start holds nothing.
        assert_eq!(networks.get("bridge").unwrap().endpoints.len(), 1);
        let third = networks.attach(&request("third", &["bridge"])).unwrap();
        assert_eq!(v4(&third).to_string(), "172.17.0.3");

        let listener = std::net::TcpListener::bind("0.0.0.0:8090").unwrap();
        let text = networks
            .attach(&with("fourth", publish(Proto::Tcp, 80, None, Fixed(8090))))
            .unwrap_err()
            .to_string();
        assert!(
            text.ends_with("failed to bind host port 0.0.0.0:8090/tcp: address already in use"),
            "{text}"
        );
        drop(listener);
        assert!(
            std::net::TcpListener::bind("0.0.0.0:8080").is_err(),
            "the published port is held"
        );

        let random = networks
            .attach(&with("random", publish(Proto::Udp, 53, None, Any)))
            .unwrap();
        assert!(random.ports[0].host_port >= 49153);
        networks.detach(&first.container).unwrap();
        networks.attach(&second).unwrap();
    });
}
