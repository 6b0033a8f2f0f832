//! A network with several pools of each family: its containers are one network, whichever pool their addresses are of.

use std::os::fd::AsFd;

use host::*;
use network::PortChoice::Fixed;
use network::{CreateNetwork, Error, IpamPool, Networks, Proto, Sandbox, SandboxRequest};

use crate::host;

/// Two pools of each family; the first of each has one address to give.
fn wide() -> CreateNetwork {
    let pool = |subnet: &str, range: &str, gateway: &str| {
        IpamPool::parse(subnet, range, gateway, &Default::default()).unwrap()
    };
    CreateNetwork {
        enable_ipv6: true,
        ipam: vec![
            pool("10.81.0.0/24", "10.81.0.2/32", "10.81.0.1"),
            pool("fd81::/64", "fd81::2/128", "fd81::1"),
            pool("10.82.0.0/24", "", ""),
            pool("fd82::/64", "", ""),
        ],
        ..bridge("wide")
    }
}

fn attach(networks: &Networks, name: &str, port: u16) -> Sandbox {
    let ports = [Proto::Tcp, Proto::Udp].map(|proto| publish(proto, 80, None, Fixed(port)));
    let wanted = SandboxRequest {
        ports: ports.to_vec(),
        ..request(name, &["wide"])
    };
    networks.attach(&wanted).unwrap()
}

fn addresses(sandbox: &Sandbox) -> [String; 2] {
    [v4(sandbox).to_string(), v6(sandbox).to_string()]
}

#[test]
fn containers_of_different_pools_meet_and_are_reached_from_outside() {
    machine(|host| {
        let networks = host.open();
        networks.create(&wide()).unwrap();
        create(&networks, "other", &[]);
        let a = attach(&networks, "a", 8080);
        let b = attach(&networks, "b", 8081);
        let stranger = networks.attach(&request("stranger", &["other"])).unwrap();
        let (of_a, of_b) = (addresses(&a), addresses(&b));
        assert_eq!(of_a, ["10.81.0.2", "fd81::2"]);
        assert_eq!(of_b, ["10.82.0.2", "fd82::2"]);
        let _services = [
            Service::start(a.netns.as_fd(), "a", 80),
            Service::start(b.netns.as_fd(), "b", 80),
            Service::start(host.lan.as_fd(), "lan", 80),
        ];
        let outside = ["198.51.100.2", "2001:db8:51::2"];
        let ways: [Ask; 2] = [ask, ask_udp];
        let check = || {
            for how in ways {
                for family in 0..2 {
                    let (one, two) = (&of_a[family], &of_b[family]);
                    // Each sees the other at its own address.
                    assert_eq!(inside(&a.netns, || how(two, 80)), Some(format!("b {one}")));
                    assert_eq!(inside(&b.netns, || how(one, 80)), Some(format!("a {two}")));
                    // In by the published ports, and by that of the other pool's container; out with the host's address.
                    let at = [HOST, HOST6][family];
                    for (name, port) in [("a", 8080), ("b", 8081)] {
                        let seen = inside(&host.lan, || how(at, port));
                        assert_eq!(seen, Some(format!("{name} {}", outside[family])));
                        for from in [&a, &b] {
                            let answer = inside(&from.netns, || how(at, port));
                            assert!(answer.is_some_and(|text| text.starts_with(name)), "{port}");
                        }
                    }
                    for from in [&a, &b] {
                        let seen = inside(&from.netns, || how(outside[family], 80));
                        assert_eq!(seen, Some(format!("lan {at}")));
                    }
                }
            }
        };
        check();
        // The second pools are as closed to everybody else as the first ones.
        inside(&host.lan, || {
            sh(&format!(
                "ip route add 10.82.0.0/24 via {HOST} && ip -6 route add fd82::/64 via {HOST6}"
            ))
        });
        for address in &of_b {
            for from in [&stranger.netns, &host.lan] {
                assert_eq!(inside(from, || ask(address, 80)), None);
            }
        }
        // What the next daemon finds is what it would write.
        let rules = host.table();
        drop(networks);
        let networks = host.open();
        assert_eq!(host.table(), rules);
        check();
        networks.tear_down().unwrap();
    });
}

#[test]
fn addresses_are_chosen_from_any_pool_and_refused_outside_all() {
    machine(|host| {
        let networks = host.open();
        networks.create(&wide()).unwrap();
        let a = networks.attach(&request("a", &["wide"])).unwrap();
        let choose = |name: &str, ipv4: &str, ipv6: &str| {
            let mut wanted = request(name, &["wide"]);
            wanted.endpoints[0].ipv4 = Some(ipv4.parse().unwrap());
            wanted.endpoints[0].ipv6 = Some(ipv6.parse().unwrap());
            networks.attach(&wanted)
        };
        let chosen = choose("chosen", "10.81.0.77", "fd82::77").unwrap();
        assert_eq!(addresses(&chosen), ["10.81.0.77", "fd82::77"]);
        // Each family leaves by the gateway of its own pool.
        let routes = inside(&chosen.netns, || sh("ip route && ip -6 route"));
        for gateway in ["default via 10.81.0.1 ", "default via fd82::1 "] {
            assert!(routes.contains(gateway), "{gateway} in {routes}");
        }
        let _service = Service::start(chosen.netns.as_fd(), "chosen", 80);
        for (to, from) in [("10.81.0.77", v4(&a)), ("fd82::77", v6(&a))] {
            assert_eq!(inside(&a.netns, || ask(to, 80)), Some(format!("chosen {from}")));
        }
        let taken = choose("late", "10.82.0.9", "fd82::77").unwrap_err();
        assert!(matches!(taken, Error::AddressInUse(_)), "{taken}");
        for (ipv4, ipv6, foreign) in [
            ("10.83.0.9", "fd82::9", "10.83.0.9"),
            ("10.82.0.9", "fd83::9", "fd83::9"),
        ] {
            let refused = choose("foreign", ipv4, ipv6).unwrap_err().to_string();
            assert!(
                refused.contains("no configured subnet") && refused.contains(foreign),
                "{refused}"
            );
        }
        // What a refused request asked for beside it is free.
        choose("next", "10.82.0.9", "fd82::9").unwrap();
        networks.tear_down().unwrap();
    });
}
