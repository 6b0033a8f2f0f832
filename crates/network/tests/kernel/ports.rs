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
        create(&networks, "six", &[]);
        let wanted = SandboxRequest {
            ports: vec![publish(Proto::Tcp, 80, None, Fixed(8080))],
            ..request("web", &["six"])
        };
        let mut web = networks.attach(&wanted).unwrap();
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
        // The kernel cannot; the monitor does, and until it does clients of `localhost` go on to 127.0.0.1 at once.
        let refused = std::net::TcpStream::connect("[::1]:8080").unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
        assert!(ask("127.0.0.1", 8080).is_some());
        let _relay = Relay::start(std::mem::take(&mut web.served));
        let gateway = web.endpoints[0].ipv6_gateway.unwrap();
        assert_eq!(ask("::1", 8080), Some(format!("web {gateway}")));
        assert_eq!(
            inside(&host.lan, || ask(HOST6, 8080)).as_deref(),
            Some("web 2001:db8:51::2"),
            "what can be translated still is"
        );
        let explained = networks.explain(&wanted.container).unwrap();
        let over6 = explained.iter().find(|one| one.port.host_ip.is_ipv6()).unwrap();
        assert!(over6.from[1].contains("at ::1"), "{over6:?}");
        let on_loopback = |name, port| SandboxRequest {
            ports: vec![port],
            ..request(name, &["six"])
        };
        let tcp = on_loopback("loop", publish(Proto::Tcp, 80, Some("::1"), Fixed(8081)));
        let mut alone = networks.attach(&tcp).unwrap();
        let _alone = Service::start(alone.netns.as_fd(), "loop", 80);
        let _served = Relay::start(std::mem::take(&mut alone.served));
        assert!(ask("::1", 8081).is_some());
        assert_eq!(inside(&host.lan, || ask(HOST6, 8081)), None);
        let sctp = on_loopback("never", publish(Proto::Sctp, 80, Some("::1"), Fixed(8082)));
        let text = networks.attach(&sctp).unwrap_err().to_string();
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

/// CRC-32C (Castagnoli), which SCTP packets carry.
fn crc32c(bytes: &[u8]) -> u32 {
    let crc = bytes.iter().fold(!0u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| match crc & 1 {
            1 => (crc >> 1) ^ 0x82f6_3b78,
            _ => crc >> 1,
        })
    });
    !crc
}

/// The first packet of an association: an INIT chunk.
pub fn init(from: u16, to: u16) -> Vec<u8> {
    let mut packet = [
        from.to_be_bytes(),
        to.to_be_bytes(),
        [0; 2],
        [0; 2],
        [0; 2],
        [0; 2],
    ]
    .concat();
    packet.extend([1, 0, 0, 20, 0, 0, 0, 7, 0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1]);
    let crc = crc32c(&packet).to_le_bytes();
    packet[8..12].copy_from_slice(&crc);
    packet
}

/// A kernel without SCTP sockets still translates SCTP, so both ends are raw sockets here.
#[test]
fn sctp_is_translated_whether_or_not_the_host_has_sockets_for_it() {
    machine(|host| {
        let networks = host.open();
        let wanted = SandboxRequest {
            ports: vec![
                publish(Proto::Sctp, 36412, None, Fixed(36400)),
                publish(Proto::Sctp, 36413, None, Fixed(36413)),
            ],
            ..request("core", &["bridge"])
        };
        let core = networks.attach(&wanted).unwrap();
        let map = sh(&format!("nft list map inet {} publish4_any", host.tag()));
        for element in [
            "sctp . 36400 : 172.17.0.2 . 36412",
            "sctp . 36413 : 172.17.0.2 . 36413",
        ] {
            assert!(map.contains(element), "{map}");
        }
        let raw = || {
            let socket = rustix::net::socket_with(
                rustix::net::AddressFamily::INET,
                rustix::net::SocketType::RAW,
                rustix::net::SocketFlags::empty(),
                Some(rustix::net::ipproto::SCTP),
            );
            socket.unwrap()
        };
        let listening = inside(&core.netns, raw);
        let patience = Some(std::time::Duration::from_secs(30));
        rustix::net::sockopt::set_socket_timeout(&listening, rustix::net::sockopt::Timeout::Recv, patience)
            .unwrap();
        let asking = inside(&host.lan, raw);
        let to = std::net::SocketAddr::new(HOST.parse().unwrap(), 0);
        let packet = init(5000, 36400);
        rustix::net::sendto(&asking, &packet, rustix::net::SendFlags::empty(), &to).unwrap();
        let mut buffer = [0u8; 256];
        let (_, length) =
            rustix::net::recv(&listening, &mut buffer[..], rustix::net::RecvFlags::empty()).unwrap();
        // Behind the IPv4 header, whose source is the client's.
        assert_eq!(buffer[12..16], [198, 51, 100, 2]);
        assert_eq!(buffer[20..length], init(5000, 36412)[..]);
    });
}
