//! Who reaches whom.

use host::*;
use network::EndpointRequest;
use std::os::fd::AsFd;

use crate::host;

#[test]
fn containers_of_one_network_reach_each_other_the_host_and_the_world() {
    machine(|host| {
        let networks = host.open();
        networks.create(&bridge("app")).unwrap();
        let a = networks.attach(&request("a", &["app"])).unwrap();
        let b = networks.attach(&request("b", &["app"])).unwrap();
        assert_eq!(v4(&a).to_string(), "172.18.0.2");
        assert_eq!(v4(&b).to_string(), "172.18.0.3");
        let _service = Service::start(b.netns.as_fd(), "b", 80);
        let _outside = Service::start(host.lan.as_fd(), "lan", 80);
        assert_eq!(
            inside(&a.netns, || ask("172.18.0.3", 80)).as_deref(),
            Some("b 172.18.0.2")
        );
        // The host reaches it directly; the container reaches the LAN under the host's address.
        assert_eq!(ask("172.18.0.3", 80).as_deref(), Some("b 172.18.0.1"));
        assert_eq!(
            inside(&a.netns, || ask("198.51.100.2", 80)).as_deref(),
            Some("lan 198.51.100.1")
        );
        assert_eq!(
            inside(&a.netns, || sh(
                "busybox ping -c 1 -W 2 172.18.0.1 | grep -c 'bytes from'"
            ))
            .trim(),
            "1"
        );
        // A neighbour cannot route to containers.
        assert_eq!(inside(&host.lan, || ask("172.18.0.3", 80)), None);
        // What a container sees of itself.
        let links = inside(&a.netns, || sh("ip -o address show"));
        assert!(
            links.contains("eth0") && links.contains("172.18.0.2/16") && !links.contains("inet6 fe80"),
            "{links}"
        );
    });
}

#[test]
fn networks_are_isolated_from_each_other() {
    machine(|host| {
        let networks = host.open();
        networks.create(&bridge("one")).unwrap();
        networks.create(&bridge("two")).unwrap();
        let a = networks.attach(&request("a", &["one"])).unwrap();
        let b = networks.attach(&request("b", &["two"])).unwrap();
        let both = networks.attach(&request("both", &["one", "two"])).unwrap();
        let _service = Service::start(b.netns.as_fd(), "b", 80);
        let target = v4(&b).to_string();
        assert_eq!(inside(&a.netns, || ask(&target, 80)), None);
        assert!(inside(&both.netns, || ask(&target, 80)).is_some());
        // The default route leads over the first network by name.
        let routes = inside(&both.netns, || sh("ip route"));
        assert!(
            routes.contains("default via 172.18.0.1 dev eth0") && routes.matches("default").count() == 1,
            "{routes}"
        );
    });
}

#[test]
fn an_internal_network_leads_nowhere() {
    machine(|host| {
        let networks = host.open();
        networks
            .create(&network::CreateNetwork {
                internal: true,
                ..bridge("inner")
            })
            .unwrap();
        let a = networks.attach(&request("a", &["inner"])).unwrap();
        let b = networks.attach(&request("b", &["inner"])).unwrap();
        let published = network::SandboxRequest {
            ports: vec![publish(
                network::Proto::Tcp,
                80,
                None,
                network::PortChoice::Fixed(8080),
            )],
            ..request("c", &["inner"])
        };
        assert!(networks.attach(&published).unwrap().ports.is_empty());
        let _service = Service::start(b.netns.as_fd(), "b", 80);
        let _outside = Service::start(host.lan.as_fd(), "lan", 80);
        assert!(inside(&a.netns, || ask("172.18.0.3", 80)).is_some());
        assert_eq!(a.endpoints[0].gateway, None);
        // Even with a route of its own making.
        inside(&a.netns, || sh("ip route add default via 172.18.0.1"));
        assert_eq!(inside(&a.netns, || ask("198.51.100.2", 80)), None);
    });
}

#[test]
fn without_icc_containers_of_one_network_do_not_meet() {
    machine(|host| {
        let networks = host.open();
        let mut request_ = bridge("cells");
        request_
            .options
            .insert("com.docker.network.bridge.enable_icc".into(), "false".into());
        networks.create(&request_).unwrap();
        let a = networks.attach(&request("a", &["cells"])).unwrap();
        let b = networks.attach(&request("b", &["cells"])).unwrap();
        let _service = Service::start(b.netns.as_fd(), "b", 80);
        let _outside = Service::start(host.lan.as_fd(), "lan", 80);
        assert_eq!(inside(&a.netns, || ask("172.18.0.3", 80)), None);
        assert!(ask("172.18.0.3", 80).is_some());
        assert!(inside(&a.netns, || ask("198.51.100.2", 80)).is_some());
        // Nor by asking the host to pass it on.
        inside(&a.netns, || sh("ip route add 172.18.0.3/32 via 172.18.0.1"));
        assert_eq!(inside(&a.netns, || ask("172.18.0.3", 80)), None);
    });
}

#[test]
fn ipv6_with_a_chosen_and_with_a_local_subnet() {
    machine(|host| {
        let networks = host.open();
        let local = networks
            .create(&network::CreateNetwork {
                enable_ipv6: true,
                ..bridge("local")
            })
            .unwrap();
        let subnet = local.ipam.config[1].subnet.unwrap();
        assert!(subnet.to_string().starts_with("fd") && subnet.length() == 64);
        let mut only = network::CreateNetwork {
            enable_ipv4: false,
            enable_ipv6: true,
            ..bridge("only")
        };
        only.ipam.push(network::IpamPool {
            subnet: Some("2001:db8:7::/64".parse().unwrap()),
            ..Default::default()
        });
        networks.create(&only).unwrap();
        let a = networks.attach(&request("a", &["local"])).unwrap();
        let b = networks.attach(&request("b", &["local"])).unwrap();
        let c = networks.attach(&request("c", &["only"])).unwrap();
        let _service = Service::start(b.netns.as_fd(), "b", 80);
        let _outside = Service::start(host.lan.as_fd(), "lan", 80);
        assert_eq!(
            inside(&a.netns, || ask(&v6(&b).to_string(), 80)),
            Some(format!("b {}", v6(&a)))
        );
        assert_eq!(
            inside(&a.netns, || ask("2001:db8:51::2", 80)),
            Some(format!("lan {HOST6}"))
        );
        assert_eq!(c.endpoints[0].ipv4, None);
        assert_eq!(v6(&c).to_string(), "2001:db8:7::2");
        assert_eq!(
            inside(&c.netns, || ask("2001:db8:51::2", 80)),
            Some(format!("lan {HOST6}"))
        );
        let accept = inside(&a.netns, || sh("cat /proc/sys/net/ipv6/conf/eth0/accept_ra"));
        assert_eq!(accept.trim(), "0");
    });
}

#[test]
fn joining_and_leaving_while_it_runs() {
    machine(|host| {
        let networks = host.open();
        networks.create(&bridge("zeta")).unwrap();
        networks.create(&bridge("alpha")).unwrap();
        let mut wanted = request("a", &["zeta"]);
        wanted.ports = vec![publish(
            network::Proto::Tcp,
            80,
            None,
            network::PortChoice::Fixed(8080),
        )];
        let a = networks.attach(&wanted).unwrap();
        let b = networks.attach(&request("b", &["alpha"])).unwrap();
        let _service = Service::start(a.netns.as_fd(), "a", 80);
        let _other = Service::start(b.netns.as_fd(), "b", 80);
        let join = EndpointRequest {
            network: "alpha".into(),
            aliases: vec!["api".into()],
            ..EndpointRequest::default()
        };
        let endpoint = networks
            .connect(&wanted.container, a.netns.as_fd(), &join)
            .unwrap();
        assert_eq!(endpoint.interface, "eth1");
        assert!(inside(&a.netns, || ask(&v4(&b).to_string(), 80)).is_some());
        assert!(
            networks
                .connect(&wanted.container, a.netns.as_fd(), &join)
                .is_err()
        );
        // alpha comes before zeta, so the way out and the published port moved there.
        let alpha = networks.get("alpha").unwrap();
        let gateway = alpha.ipam.config[0].gateway.unwrap();
        assert!(
            inside(&a.netns, || sh("ip route show default")).contains(&format!("via {gateway} dev eth1"))
        );
        assert!(inside(&host.lan, || ask(HOST, 8080)).is_some());
        assert_eq!(alpha.endpoints.len(), 2);

        networks
            .disconnect(&wanted.container, "alpha", Some(a.netns.as_fd()), false)
            .unwrap();
        assert!(inside(&a.netns, || sh("ip route show default")).contains("dev eth0"));
        assert!(inside(&host.lan, || ask(HOST, 8080)).is_some());
        let again = networks
            .disconnect(&wanted.container, "alpha", Some(a.netns.as_fd()), false)
            .unwrap_err();
        assert!(
            again.to_string().ends_with("is not connected to network alpha"),
            "{again}"
        );
        networks
            .disconnect(&wanted.container, "alpha", Some(a.netns.as_fd()), true)
            .unwrap();
        assert_eq!(networks.get("alpha").unwrap().endpoints.len(), 1);
        // As often as one likes.
        for _ in 0..3 {
            networks
                .connect(&wanted.container, a.netns.as_fd(), &join)
                .unwrap();
            assert!(inside(&a.netns, || ask(&v4(&b).to_string(), 80)).is_some());
            networks
                .disconnect(&wanted.container, "alpha", Some(a.netns.as_fd()), false)
                .unwrap();
        }
    });
}

#[test]
fn a_container_without_network_has_loopback_only() {
    machine(|host| {
        let networks = host.open();
        networks.settle();
        let a = networks.attach(&request("a", &["none"])).unwrap();
        networks.settle();
        let links = inside(&a.netns, || sh("ip -o link"));
        assert_eq!(links.lines().count(), 1, "{links}");
        assert!(links.contains("LOOPBACK,UP"));
        assert!(a.dns.is_none() && a.endpoints.is_empty());
    });
}
