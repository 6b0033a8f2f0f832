//! Making, refusing and removing networks; a daemon that dies and comes back; what is left on the host.

use std::collections::HashSet;
use std::os::fd::AsFd;

use host::*;
use network::PortChoice::Fixed;
use network::{IpamPool, Networks, Proto, SandboxRequest};
use spec::ErrorClass;

use crate::host;

fn pool(subnet: &str) -> IpamPool {
    IpamPool {
        subnet: Some(subnet.parse().unwrap()),
        ..IpamPool::default()
    }
}

#[test]
fn refusals_have_the_words_and_classes_clients_know() {
    machine(|host| {
        let networks = host.open();
        let create = |name: &str, subnet: &str| {
            let mut wanted = bridge(name);
            wanted.ipam.push(pool(subnet));
            networks.create(&wanted)
        };
        create("goldnet", "172.30.0.0/24").unwrap();
        let check = |error: network::Error, class: ErrorClass, text: &str| {
            assert_eq!(error.to_string(), text);
            assert_eq!(error.class(), class);
        };
        check(
            create("goldnet", "10.9.0.0/24").unwrap_err(),
            ErrorClass::Conflict,
            "network with name goldnet already exists",
        );
        let overlap = "invalid pool request: Pool overlaps with other one on this address space";
        check(
            create("two", "172.30.0.0/24").unwrap_err(),
            ErrorClass::Forbidden,
            overlap,
        );
        check(
            create("two", "198.51.100.0/24").unwrap_err(),
            ErrorClass::Forbidden,
            overlap,
        );
        check(
            networks.get("nosuch").unwrap_err(),
            ErrorClass::NotFound,
            "network nosuch not found",
        );
        let predefined = "bridge is a pre-defined network and cannot be removed";
        check(
            networks.remove("bridge").unwrap_err(),
            ErrorClass::Forbidden,
            predefined,
        );
        let unknown = networks
            .create(&network::CreateNetwork {
                driver: "weave".into(),
                ..bridge("m")
            })
            .unwrap_err();
        assert!(unknown.to_string().contains("weave") && unknown.class() == ErrorClass::NotFound);

        let wanted = request("gold", &["goldnet"]);
        networks.attach(&wanted).unwrap();
        let text = networks.remove("goldnet").unwrap_err().to_string();
        assert!(text.contains("has active endpoints (name:\"gold\""), "{text}");
        let mut fixed = request("second", &["goldnet"]);
        fixed.endpoints[0].ipv4 = Some("172.30.0.2".parse().unwrap());
        check(
            networks.attach(&fixed).unwrap_err(),
            ErrorClass::Forbidden,
            "Address already in use",
        );
        let id = networks.get("goldnet").unwrap().id;
        assert_eq!(networks.get(&id.as_str()[..8]).unwrap().name, "goldnet");
        assert_eq!(networks.status("goldnet").unwrap()[0].in_use, 4);
        networks.detach(&wanted.container).unwrap();
        networks.detach(&wanted.container).unwrap();
        networks.remove("goldnet").unwrap();
    });
}

#[test]
fn chosen_subnets_keep_clear_of_the_hosts_routes() {
    machine(|host| {
        sh("ip route add 172.17.0.0/16 via 198.51.100.2 && ip route add 172.19.4.0/24 via 198.51.100.2");
        let networks = host.open();
        let subnet = |name: &str| {
            networks.get(name).unwrap().ipam.config[0]
                .subnet
                .unwrap()
                .to_string()
        };
        assert_eq!(subnet("bridge"), "172.18.0.0/16");
        networks.create(&bridge("next")).unwrap();
        assert_eq!(subnet("next"), "172.20.0.0/16");
    });
}

#[test]
fn nothing_is_left_and_nothing_foreign_is_touched() {
    machine(|host| {
        sh(
            "nft 'add table inet foreign; add chain inet foreign c { type filter hook input priority 0; }; add rule inet foreign c tcp dport 1 drop'",
        );
        let foreign = sh("nft list table inet foreign");
        let links = sh("ip -o link show | cut -d: -f2 | sort");
        let networks = host.open();
        let network = networks
            .create(&network::CreateNetwork {
                enable_ipv6: true,
                ..bridge("app")
            })
            .unwrap();
        let wanted = SandboxRequest {
            ports: vec![publish(Proto::Tcp, 80, None, Fixed(8080))],
            ..request("web", &["app", "bridge"])
        };
        let web = networks.attach(&wanted).unwrap();
        assert!(sh("nft list ruleset").contains("8080"));
        drop(web);
        networks.detach(&wanted.container).unwrap();
        networks.remove("app").unwrap();
        let ruleset = sh("nft list ruleset");
        assert!(
            !ruleset.contains("8080") && !ruleset.contains(&format!("br-{}", network.id.short())),
            "{ruleset}"
        );
        networks.tear_down().unwrap();
        drop(networks);
        assert_eq!(sh("nft list tables").trim(), "table inet foreign");
        assert_eq!(sh("nft list table inet foreign"), foreign);
        // Prepared namespaces end in the kernel's own time.
        comes("the end of their links", || {
            sh("ip -o link show | cut -d: -f2 | sort") == links
        });
        let tables: Vec<_> = std::fs::read_dir(host.run_dir().join("dns"))
            .unwrap()
            .flatten()
            .map(|e| e.file_name())
            .collect();
        assert!(tables.is_empty(), "{tables:?}");
    });
}

#[test]
fn a_daemon_that_died_finds_the_living_and_forgets_the_dead() {
    machine(|host| {
        let networks = host.open();
        networks.create(&bridge("app")).unwrap();
        let with_port = |name: &str, port| SandboxRequest {
            ports: vec![publish(Proto::Tcp, 80, None, Fixed(port))],
            ..request(name, &["app"])
        };
        let (living, dying) = (with_port("living", 8080), with_port("dying", 8081));
        let mut a = networks.attach(&living).unwrap();
        let mut b = networks.attach(&dying).unwrap();
        let _resolver = Resolver::start(&mut a);
        let _service = Service::start(a.netns.as_fd(), "a", 80);
        // With it dies its monitor, which has the sockets of its ports over IPv6.
        b.served = network::Served::default();
        // The daemon is gone; somebody flushes every rule; a link of ours that no record explains is there.
        drop(networks);
        sh("nft flush ruleset");
        sh(&format!(
            "ip link add vethlost type veth peer name vethpeer && ip link set vethlost alias {}:endpoint:lost",
            host.tag()
        ));

        let networks: Networks = host.open();
        assert!(!sh("ip -o link").contains("vethlost"));
        let dead = networks
            .reconcile(&HashSet::from([living.container.clone()]))
            .unwrap();
        assert_eq!(dead, std::slice::from_ref(&dying.container));
        networks.settle();
        assert_eq!(inside(&b.netns, || sh("ip -o link")).lines().count(), 1);
        assert!(inside(&host.lan, || ask(HOST, 8080)).is_some());
        assert!(!sh("nft list ruleset").contains("8081"));
        assert_eq!(lookup(&a, "living"), [v4(&a).to_string()]);
        assert!(lookup(&a, "dying").is_empty());
        let saved = networks.saved(&living.container).unwrap();
        assert_eq!(
            (saved.endpoints.as_slice(), saved.ports.as_slice()),
            (a.endpoints.as_slice(), a.ports.as_slice())
        );
        // Its address and its port are still taken, the dead one's are free.
        let text = networks.attach(&with_port("new", 8080)).unwrap_err().to_string();
        assert!(text.contains("already allocated"), "{text}");
        let new = networks.attach(&with_port("new", 8081)).unwrap();
        assert_eq!(v4(&new).to_string(), "172.18.0.3");
    });
}

#[test]
fn two_daemons_share_a_host() {
    machine(|host| {
        let one = host.open();
        let second = tempfile::tempdir().unwrap();
        let store = store::Store::open(&second.path().join("root")).unwrap();
        let instance = spec::Instance::of_root(second.path());
        let two = Networks::open(
            store,
            network::NetworkConfig::new(instance, second.path().join("run")),
        )
        .unwrap();
        let with_port = |name: &str, port| SandboxRequest {
            ports: vec![publish(Proto::Tcp, 80, None, Fixed(port))],
            ..request(name, &["bridge"])
        };
        let a = one.attach(&with_port("a", 8080)).unwrap();
        let b = two.attach(&with_port("b", 8081)).unwrap();
        assert_ne!(v4(&a), v4(&b));
        let (_a, _b) = (
            Service::start(a.netns.as_fd(), "a", 80),
            Service::start(b.netns.as_fd(), "b", 80),
        );
        assert!(inside(&host.lan, || ask(HOST, 8080)).unwrap().starts_with("a "));
        assert!(inside(&host.lan, || ask(HOST, 8081)).unwrap().starts_with("b "));
        let text = two.attach(&with_port("c", 8080)).unwrap_err().to_string();
        assert!(text.ends_with("address already in use"), "{text}");
        two.tear_down().unwrap();
        assert!(inside(&host.lan, || ask(HOST, 8080)).is_some());
    });
}

#[test]
fn networks_are_made_from_settings_that_are_none_themselves() {
    machine(|host| {
        let networks = host.open();
        // Of bridges only: links for containers to come are made meanwhile.
        let bridges = || sh("ip -o link show type bridge");
        let before = bridges();
        let settings = network::CreateNetwork {
            ipam: vec![pool("10.77.0.0/24")],
            options: [("com.docker.network.driver.mtu".to_owned(), "1400".to_owned())].into(),
            labels: [("team".to_owned(), "a".to_owned())].into(),
            config_only: true,
            ..bridge("settings")
        };
        let made = networks.create(&settings).unwrap();
        assert_eq!((made.driver.as_str(), made.config_only), ("null", true));
        assert_eq!(bridges(), before, "nothing is on the host");
        let from = |name: &str| network::CreateNetwork {
            config_from: "settings".to_owned(),
            ..bridge(name)
        };
        let refused = |request: &network::CreateNetwork, expected: &str| {
            let error = networks.create(request).unwrap_err();
            assert!(error.to_string().contains(expected), "{error}");
            assert_eq!(error.class(), ErrorClass::Forbidden);
        };
        let mut both = from("both");
        both.config_only = true;
        refused(&both, "cannot depend on another configuration network");
        let mut own = from("own");
        own.options
            .insert("com.docker.network.driver.mtu".to_owned(), "1300".to_owned());
        refused(&own, "network driver options are not supported");
        let mut own = from("own");
        own.ipam = settings.ipam.clone();
        refused(&own, "user specified configurations are not supported");
        let mut internal = settings.clone();
        (internal.internal, internal.name) = (true, "internal".to_owned());
        refused(&internal, "can only contain network specific fields");
        let mut no_settings = from("wrong");
        no_settings.config_from = "bridge".to_owned();
        refused(&no_settings, "bridge is not a configuration network");
        no_settings.config_from = "nosuch".to_owned();
        assert_eq!(
            networks.create(&no_settings).unwrap_err().class(),
            ErrorClass::NotFound
        );

        let web = networks.create(&from("web")).unwrap();
        assert_eq!(web.config_from, "settings");
        assert_eq!(
            (web.labels, web.options),
            (settings.labels.clone(), settings.options.clone())
        );
        let one = request("one", &["web"]);
        let attached = networks.attach(&one).unwrap();
        assert_eq!(v4(&attached).to_string(), "10.77.0.2");
        let mtu = inside(&attached.netns, || {
            sh("cat /sys/class/net/eth0/mtu || ip -o link show eth0")
        });
        assert!(mtu.contains("1400"), "{mtu}");
        // Nobody can be in settings, and they stay while a network is made from them.
        let error = networks.attach(&request("two", &["settings"])).unwrap_err();
        assert!(
            error.to_string().contains("configuration-only network"),
            "{error}"
        );
        let error = networks.remove("settings").unwrap_err();
        assert!(
            error.to_string().contains("is in use (by network web)"),
            "{error}"
        );
        // The next daemon knows them as they were.
        drop(networks);
        let networks = host.open();
        assert!(networks.get("settings").unwrap().config_only);
        assert_eq!(networks.prune(&HashSet::new()).unwrap(), [""; 0]);
        networks.detach(&one.container).unwrap();
        networks.remove("web").unwrap();
        networks.remove("settings").unwrap();
    });
}

#[test]
fn namespaces_are_made_ahead_for_whoever_says_that_somebody_comes() {
    machine(|host| {
        let networks = host.open();
        let ready = || {
            sh("ip -o link")
                .matches(&format!("{}:prepared", host.tag()))
                .count()
        };
        networks.make_ready(3).unwrap();
        assert!(ready() >= 3);
        // No more than are kept ready in quiet times.
        networks.make_ready(100).unwrap();
        assert!((4..=5).contains(&ready()), "{}", ready());
        let one = networks.attach(&request("one", &["bridge"])).unwrap();
        assert!(ready() >= 3);
        drop(one);
        networks.tear_down().unwrap();
    });
}

#[test]
fn nothing_is_made_ahead_where_nothing_is_to_be() {
    machine(|host| {
        let store = store::Store::open(&host.root.path().join("root")).unwrap();
        let config = network::NetworkConfig {
            prepared: 0,
            ..host.config()
        };
        let networks = Networks::open(store, config).unwrap();
        networks.make_ready(2).unwrap();
        assert!(!sh("ip -o link").contains(":prepared"));
    });
}
