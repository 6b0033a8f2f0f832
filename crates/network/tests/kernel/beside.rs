//! A host that is not ours alone: another engine with its bridge and its iptables chains, which stay as they are, and what
//! the options of a network change.

use std::collections::BTreeMap;
use std::os::fd::AsFd;

use host::*;
use network::PortChoice::Fixed;
use network::{CreateNetwork, IpamPool, Proto, SandboxRequest};

use crate::host;
use crate::outside::{CLIENT, client};

/// What dockerd leaves on a host, with iptables: its bridge, its chains, and everything else forwarded nowhere.
const DOCKER: &[&str] = &[
    "ip link add docker0 type bridge",
    "ip address add 172.17.0.1/16 dev docker0",
    "ip link set docker0 up",
    "iptables -t nat -N DOCKER",
    "iptables -t nat -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER",
    "iptables -t nat -A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE",
    "iptables -N DOCKER",
    "iptables -N DOCKER-USER",
    "iptables -A FORWARD -j DOCKER-USER",
    "iptables -A FORWARD -o docker0 -j DOCKER",
    "iptables -A FORWARD -i docker0 ! -o docker0 -j ACCEPT",
    "iptables -P FORWARD DROP",
];

/// Another engine's part of the host, without counters.
fn theirs() -> String {
    sh("ip -o address show docker0; iptables-save | grep -v '^#' | sed 's/\\[.*\\]//'")
}

#[test]
fn another_engine_and_its_rules_stay_as_they_are() {
    machine(|host| {
        if !std::path::Path::new("/usr/sbin/iptables").exists() {
            println!("skipped: needs iptables");
            return;
        }
        for line in DOCKER {
            sh(line);
        }
        let before = theirs();
        let networks = host.open();
        let wanted = SandboxRequest {
            ports: vec![publish(Proto::Tcp, 80, None, Fixed(8080))],
            ..request("web", &["bridge"])
        };
        let web = networks.attach(&wanted).unwrap();
        let _service = Service::start(web.netns.as_fd(), "web", 80);
        assert!(!v4(&web).to_string().starts_with("172.17."), "{}", v4(&web));
        assert_eq!(theirs(), before);
        // Their filter decides too, and is named; once it agrees, the port is open.
        assert_eq!(inside(&host.lan, || ask(HOST, 8080)), None);
        let explained = networks.explain(&wanted.container).unwrap();
        let notes = explained[0].notes.join("; ");
        assert!(notes.contains("chain FORWARD of table ip filter"), "{notes}");
        let tag = host.tag();
        let agreed = [format!("-o {tag}"), format!("-i {tag}")];
        for rule in &agreed {
            sh(&format!("iptables -I DOCKER-USER {rule} -j ACCEPT"));
        }
        assert!(inside(&host.lan, || ask(HOST, 8080)).is_some());
        // Restarted, repaired and taken down, we leave what is theirs.
        sh(&format!("nft delete table inet {tag}"));
        comes("the way in", || inside(&host.lan, || ask(HOST, 8080)).is_some());
        networks.detach(&wanted.container).unwrap();
        networks.tear_down().unwrap();
        for rule in &agreed {
            sh(&format!("iptables -D DOCKER-USER {rule} -j ACCEPT"));
        }
        assert_eq!(theirs(), before);
        assert!(!sh("nft list tables").contains(&tag));
    });
}

fn with(name: &str, options: &[(&str, &str)]) -> CreateNetwork {
    let mut wanted = bridge(name);
    for (key, value) in options {
        let key = format!("com.docker.network.bridge.{key}");
        wanted.options.insert(key, (*value).to_owned());
    }
    wanted
}

#[test]
fn what_the_options_of_a_network_say_is_done() {
    machine(|host| {
        let client = client(host);
        let networks = host.open();
        // Its own address, outside as well.
        networks
            .create(&with("plain", &[("enable_ip_masquerade", "false")]))
            .unwrap();
        let plain = networks.attach(&request("plain", &["plain"])).unwrap();
        let _far = Service::start(client.as_fd(), "far", 80);
        let seen = inside(&plain.netns, || ask(CLIENT, 80));
        assert_eq!(seen, Some(format!("far {}", v4(&plain))));
        // No address for the host.
        let quiet = networks
            .create(&with("quiet", &[("inhibit_ipv4", "true")]))
            .unwrap();
        let (one, two) = (request("one", &["quiet"]), request("two", &["quiet"]));
        let (one, two) = (networks.attach(&one).unwrap(), networks.attach(&two).unwrap());
        let _service = Service::start(one.netns.as_fd(), "one", 80);
        assert_eq!(sh(&format!("ip -4 -o address show br-{}", quiet.id.short())), "");
        assert!(inside(&two.netns, || ask(&v4(&one).to_string(), 80)).is_some());
        // A part of the subnet, without what is set aside in it.
        let aux = BTreeMap::from([("printer".to_owned(), "10.78.0.128".to_owned())]);
        let part = CreateNetwork {
            ipam: vec![IpamPool::parse("10.78.0.0/24", "10.78.0.128/30", "10.78.0.9", &aux).unwrap()],
            ..with("part", &[("name", "parted")])
        };
        networks.create(&part).unwrap();
        assert!(sh("ip -4 -o address show parted").contains("10.78.0.9/24"));
        let mut handed: Vec<String> = Vec::new();
        for n in 0..3 {
            let one = networks.attach(&request(&format!("p{n}"), &["part"])).unwrap();
            handed.push(v4(&one).to_string());
        }
        assert_eq!(handed, ["10.78.0.129", "10.78.0.130", "10.78.0.131"]);
        let full = networks
            .attach(&request("p3", &["part"]))
            .unwrap_err()
            .to_string();
        assert!(full.contains("no available"), "{full}");
    });
}

#[test]
fn the_network_with_the_highest_priority_leads_out_and_takes_the_ports() {
    machine(|host| {
        let networks = host.open();
        networks.create(&bridge("a-low")).unwrap();
        networks.create(&bridge("b-high")).unwrap();
        let mut wanted = SandboxRequest {
            ports: vec![publish(Proto::Tcp, 80, None, Fixed(8080))],
            ..request("web", &["a-low", "b-high"])
        };
        for (endpoint, priority) in wanted.endpoints.iter_mut().zip([1, 7]) {
            endpoint.gw_priority = priority;
        }
        let web = networks.attach(&wanted).unwrap();
        let _service = Service::start(web.netns.as_fd(), "web", 80);
        let high = web.endpoints.iter().find(|e| e.network_name == "b-high").unwrap();
        let route = inside(&web.netns, || sh("ip -4 route show default"));
        assert!(route.contains(&high.gateway.unwrap().to_string()), "{route}");
        let table = sh(&format!("nft list map inet {} publish4_any", host.tag()));
        assert!(table.contains(&high.ipv4.unwrap().to_string()), "{table}");
        assert!(inside(&host.lan, || ask(HOST, 8080)).is_some());
        // It goes, and the other one does both.
        networks
            .disconnect(&wanted.container, "b-high", Some(web.netns.as_fd()), false)
            .unwrap();
        let low = web.endpoints.iter().find(|e| e.network_name == "a-low").unwrap();
        let route = inside(&web.netns, || sh("ip -4 route show default"));
        assert!(route.contains(&low.gateway.unwrap().to_string()), "{route}");
        assert!(inside(&host.lan, || ask(HOST, 8080)).is_some());
    });
}
