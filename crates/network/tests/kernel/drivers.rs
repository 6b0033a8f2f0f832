//! What every driver keeps, asked of each by the same test; and what each alone is for.

use std::collections::HashSet;
use std::os::fd::AsFd;

use host::*;
use network::{CreateNetwork, EndpointRequest, IpamPool, Networks, Sandbox, SandboxRequest};
use spec::Instance;

use crate::host;

/// A driver under test.
struct Driver {
    name: &'static str,
    /// What a network of it is made with. Its subnet is 198.51.100.0/24 on links of the host, 10.77.0.0/24 elsewhere.
    options: &'static [(&'static str, &'static str)],
    /// Containers have a hardware address of their own.
    has_own_mac: bool,
    on_a_link: bool,
}

const DRIVERS: [Driver; 4] = [
    Driver {
        name: "bridge",
        options: &[],
        has_own_mac: true,
        on_a_link: false,
    },
    Driver {
        name: "macvlan",
        options: &[("parent", "uplink")],
        has_own_mac: true,
        on_a_link: true,
    },
    Driver {
        name: "ipvlan",
        options: &[("parent", "uplink")],
        has_own_mac: false,
        on_a_link: true,
    },
    Driver {
        name: "overlay",
        options: &[("peers", "198.51.100.2"), ("vni", "77")],
        has_own_mac: true,
        on_a_link: false,
    },
];

impl Driver {
    fn base(&self) -> &'static str {
        if self.on_a_link { "198.51.100" } else { "10.77.0" }
    }

    fn network(&self, name: &str) -> CreateNetwork {
        let base = self.base();
        CreateNetwork {
            driver: self.name.to_owned(),
            ipam: vec![IpamPool {
                subnet: Some(format!("{base}.0/24").parse().unwrap()),
                ip_range: Some(format!("{base}.128/25").parse().unwrap()),
                // On a link of the host the other machine of the LAN is the way out.
                gateway: Some(format!("{base}.2").parse().unwrap()),
                aux: [("printer".to_owned(), format!("{base}.128").parse().unwrap())].into(),
            }],
            options: self
                .options
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect(),
            ..CreateNetwork::named(name)
        }
    }
}

fn links() -> String {
    sh("ip -o link show | cut -d: -f2 | cut -d@ -f1 | grep -v '^ veth' | sort")
}

#[test]
fn every_driver_keeps_the_same_promises() {
    for driver in DRIVERS {
        machine(|host| {
            let networks = host.open();
            let before = links();
            let made = match networks.create(&driver.network("net")) {
                Ok(made) => made,
                Err(error) if driver.name == "ipvlan" && error.to_string().contains("no ipvlan") => return,
                Err(error) => panic!("{}: {error}", driver.name),
            };
            assert_eq!(made.driver, driver.name);
            keeps(&driver, host, networks);
            let networks = host.open();
            networks.remove("net").unwrap();
            assert_eq!(links(), before, "{}", driver.name);
        });
    }
}

fn keeps(driver: &Driver, host: &Host, networks: Networks) {
    let what = driver.name;
    let base = driver.base();
    // A fixed address, hardware address and alias; the rest from the range, past what is somebody's.
    let mut fixed = request("fixed", &["net"]);
    fixed.endpoints[0].ipv4 = Some(format!("{base}.50").parse().unwrap());
    fixed.endpoints[0].aliases = vec!["api".to_owned()];
    if driver.has_own_mac {
        fixed.endpoints[0].mac = Some("02:11:22:33:44:55".parse().unwrap());
    }
    let mut a = match networks.attach(&fixed) {
        Ok(a) => a,
        Err(error) if what == "ipvlan" && error.to_string().contains("kernel has no ipvlan") => {
            println!("ipvlan: skipped, this kernel has none");
            return;
        }
        Err(error) => panic!("{what}: {error}"),
    };
    let free = request("free", &["net"]);
    let b = networks.attach(&free).unwrap();
    assert_eq!(v4(&a).to_string(), format!("{base}.50"), "{what}");
    assert_eq!(v4(&b).to_string(), format!("{base}.129"), "{what}");
    let seen = inside(&a.netns, || sh("ip -o link show eth0"));
    assert!(
        !driver.has_own_mac || seen.contains("02:11:22:33:44:55"),
        "{what}: {seen}"
    );
    let routes = inside(&b.netns, || sh("ip route"));
    assert!(
        routes.contains(&format!("default via {base}.2 dev eth0")),
        "{what}: {routes}"
    );

    // They reach each other, by address and by name.
    let _resolver = Resolver::start(&mut a);
    let _services = [("fixed", &a), ("free", &b)].map(|(name, s)| Service::start(s.netns.as_fd(), name, 80));
    let reaches =
        |from: &Sandbox, to: &Sandbox| inside(&from.netns, || ask(&v4(to).to_string(), 80)).is_some();
    assert!(reaches(&a, &b) && reaches(&b, &a), "{what}");
    assert_eq!(lookup(&a, "free"), [v4(&b).to_string()], "{what}");
    assert_eq!(lookup(&a, "api.net"), [v4(&a).to_string()], "{what}");

    // What is taken is refused, and a network that is used stays.
    let mut again = request("again", &["net"]);
    again.endpoints[0].ipv4 = fixed.endpoints[0].ipv4;
    assert_eq!(
        networks.attach(&again).unwrap_err().to_string(),
        "Address already in use",
        "{what}"
    );
    assert!(
        networks
            .remove("net")
            .unwrap_err()
            .to_string()
            .contains("active endpoints"),
        "{what}"
    );

    // Joined and left while it runs, as often as one likes.
    let plain = request("plain", &["bridge"]);
    let c = networks.attach(&plain).unwrap();
    let join = EndpointRequest {
        network: "net".to_owned(),
        ..EndpointRequest::default()
    };
    for _ in 0..2 {
        let endpoint = networks
            .connect(&plain.container, c.netns.as_fd(), &join)
            .unwrap();
        assert_eq!(endpoint.interface, "eth1", "{what}");
        let source = endpoint.ipv4.unwrap().to_string();
        let answer = inside(&c.netns, || ask(&v4(&b).to_string(), 80)).unwrap();
        assert_eq!(answer, format!("free {source}"), "{what}");
        networks
            .disconnect(&plain.container, "net", Some(c.netns.as_fd()), false)
            .unwrap();
        assert!(!inside(&c.netns, || sh("ip -o link")).contains("eth1"), "{what}");
    }
    networks.detach(&plain.container).unwrap();

    // The next daemon finds everything where it was, and hands nothing out twice.
    drop(networks);
    let networks = host.open();
    let alive = HashSet::from([fixed.container.clone(), free.container.clone()]);
    assert_eq!(networks.reconcile(&alive).unwrap(), [], "{what}");
    networks.settle();
    assert!(reaches(&a, &b) && reaches(&b, &a), "{what}");
    assert_eq!(networks.strays(&alive).unwrap(), [], "{what}");
    let next = request("next", &["net"]);
    assert_eq!(
        v4(&networks.attach(&next).unwrap()).to_string(),
        format!("{base}.130"),
        "{what}"
    );
    for one in [&fixed, &free, &next] {
        networks.detach(&one.container).unwrap();
    }
    assert_eq!(networks.get("net").unwrap().endpoints.len(), 0, "{what}");
}

#[test]
fn on_a_link_of_the_host_a_container_is_on_the_lan() {
    machine(|host| {
        let networks = host.open();
        networks.create(&DRIVERS[1].network("lan")).unwrap();
        let with_port = SandboxRequest {
            ports: vec![publish(
                network::Proto::Tcp,
                80,
                None,
                network::PortChoice::Fixed(8080),
            )],
            ..request("web", &["lan"])
        };
        let web = networks.attach(&with_port).unwrap();
        let _service = Service::start(web.netns.as_fd(), "web", 80);
        let _router = Service::start(host.lan.as_fd(), "router", 80);
        // Seen from the LAN under its own address, and seeing the LAN under its own.
        assert_eq!(
            inside(&host.lan, || ask(&v4(&web).to_string(), 80)).as_deref(),
            Some("web 198.51.100.2")
        );
        assert_eq!(
            inside(&web.netns, || ask("198.51.100.2", 80)).unwrap(),
            format!("router {}", v4(&web))
        );
        // Nothing is published, as in Docker: the container has ports of its own.
        assert!(web.ports.is_empty());
        let mut missing = DRIVERS[1].network("missing");
        missing.options.insert("parent".to_owned(), "nosuch0".to_owned());
        missing.ipam.clear();
        let refused = networks.create(&missing).unwrap_err().to_string();
        assert_eq!(refused, "the host has no link called nosuch0");
        assert!(networks.get("missing").is_err());
        let mut vlan = missing;
        vlan.options.insert("parent".to_owned(), "uplink.10".to_owned());
        match networks.create(&vlan) {
            Ok(_) => {
                assert!(sh("ip -d link show uplink.10").contains("vlan protocol 802.1Q id 10"));
                networks.remove("missing").unwrap();
                assert!(!sh("ip link").contains("uplink.10"));
            }
            Err(error) => {
                assert!(error.to_string().contains("VLAN 10"), "{error}");
                println!("VLANs: skipped, {error}");
            }
        }
    });
}

#[test]
fn an_overlay_spans_two_hosts() {
    machine(|host| {
        let here = host.open();
        let elsewhere = tempfile::tempdir().unwrap();
        let there = inside(&host.lan, || {
            let store = store::Store::open(&elsewhere.path().join("root")).unwrap();
            let instance = Instance::of_root(elsewhere.path());
            Networks::open(
                store,
                network::NetworkConfig::new(instance, elsewhere.path().join("run")),
            )
            .unwrap()
        });
        // Each hands out a part of its own, and has a gateway of its own. One is told its peer, one reads it.
        let file = host.root.path().join("peers");
        std::fs::write(&file, "# nobody yet\n").unwrap();
        let part = |range: &str, gateway: &str, key: &str, value: &str| CreateNetwork {
            driver: "overlay".to_owned(),
            enable_ipv6: true,
            ipam: vec![IpamPool {
                subnet: Some("10.88.0.0/24".parse().unwrap()),
                ip_range: Some(range.parse().unwrap()),
                gateway: Some(gateway.parse().unwrap()),
                ..IpamPool::default()
            }],
            options: [(key.to_owned(), value.to_owned())].into(),
            ..CreateNetwork::named("wide")
        };
        here.create(&part(
            "10.88.0.0/26",
            "10.88.0.1",
            "peers-file",
            file.to_str().unwrap(),
        ))
        .unwrap();
        inside(&host.lan, || {
            there
                .create(&part("10.88.0.64/26", "10.88.0.65", "peers", HOST))
                .unwrap();
        });
        let a = here.attach(&request("a", &["wide"])).unwrap();
        let b = inside(&host.lan, || there.attach(&request("b", &["wide"])).unwrap());
        let _services = [("a", &a), ("b", &b)].map(|(name, s)| Service::start(s.netns.as_fd(), name, 80));
        let mtu = inside(&a.netns, || sh("ip link show eth0"));
        assert!(mtu.contains("mtu 1450"), "{mtu}");
        assert_eq!(
            inside(&a.netns, || ask(&v4(&b).to_string(), 80)),
            None,
            "nobody is known here yet"
        );
        std::fs::write(&file, "198.51.100.2 # the other\n").unwrap();
        here.refresh().unwrap();
        assert_eq!(
            inside(&b.netns, || ask(&v4(&a).to_string(), 80)).unwrap(),
            format!("a {}", v4(&b))
        );
        assert_eq!(
            inside(&a.netns, || ask(&v4(&b).to_string(), 80)).unwrap(),
            format!("b {}", v4(&a))
        );
        // One that goes is no longer sent to.
        std::fs::write(&file, "").unwrap();
        here.refresh().unwrap();
        let table = sh("bridge fdb show");
        let floods = |line: &&str| line.starts_with("00:00:00:00:00:00") && line.contains("198.51.100.2");
        assert_eq!(table.lines().find(floods), None);
        inside(&host.lan, || there.tear_down().unwrap());
    });
}
