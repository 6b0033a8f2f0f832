//! Names, asked from inside containers with a real client.

use std::os::fd::AsFd;

use host::*;
use network::SandboxRequest;

use crate::host;

#[test]
fn containers_find_each_other_by_every_name() {
    machine(|host| {
        let networks = host.open();
        create(&networks, "app", &[]);
        let mut a = networks.attach(&request("a", &["app"])).unwrap();
        assert!(a.resolv_conf.contains("nameserver 127.0.0.11\n") && a.resolv_conf.contains("ndots:0"));
        let _resolver = Resolver::start(&mut a);
        let mut wanted = SandboxRequest {
            hostname: "h1".into(),
            ..request("web", &["app"])
        };
        wanted.endpoints[0].aliases = vec!["api".into(), "Shared".into()];
        let web = networks.attach(&wanted).unwrap();
        let both = vec![v4(&web).to_string(), v6(&web).to_string()];
        assert_eq!(
            web.endpoints[0].dns_names,
            ["web", "api", "Shared", wanted.container.short(), "h1"]
        );
        for name in ["web", "WEB", "api", "h1", wanted.container.short(), "web.app"] {
            assert_eq!(lookup(&a, name), both, "{name}");
        }
        let pointer = inside(&a.netns, || {
            sh(&format!("dig +short +tries=1 @127.0.0.11 -x {}", v4(&web)))
        });
        assert_eq!(pointer.trim(), "web.app.");
        let stream = inside(&a.netns, || sh("dig +short +tcp +tries=1 @127.0.0.11 web A"));
        assert_eq!(stream.trim(), both[0]);
        let found = inside(&a.netns, || sh("busybox nslookup web 127.0.0.11"));
        assert!(found.contains(&both[0]), "{found}");

        // Shared by two, and gone with its holder.
        let mut other = request("web2", &["app"]);
        other.endpoints[0].aliases = vec!["shared".into()];
        networks.attach(&other).unwrap();
        assert_eq!(lookup(&a, "shared").len(), 4);
        networks.rename(&wanted.container, "front").unwrap();
        assert_eq!(lookup(&a, "front"), both);
        networks.detach(&wanted.container).unwrap();
        assert_eq!(lookup(&a, "shared").len(), 2);
        assert!(lookup(&a, "front").is_empty());
    });
}

#[test]
fn links_are_names_for_one_container_only() {
    machine(|host| {
        let networks = host.open();
        networks.create(&bridge("app")).unwrap();
        let db = networks.attach(&request("db", &["app"])).unwrap();
        let mut linked = request("a", &["app"]);
        linked.endpoints[0].links = vec!["db:database".into()];
        let mut a = networks.attach(&linked).unwrap();
        let mut b = networks.attach(&request("b", &["app"])).unwrap();
        let (_one, _two) = (Resolver::start(&mut a), Resolver::start(&mut b));
        assert_eq!(lookup(&a, "database"), [v4(&db).to_string()]);
        assert!(lookup(&b, "database").is_empty());
    });
}

/// How many connections the kernel keeps a record of in the calling thread's namespace.
fn tracked() -> usize {
    sh("cat /proc/sys/net/netfilter/nf_conntrack_count")
        .trim()
        .parse()
        .unwrap()
}

/// Being led to the resolver costs a container's other packets nothing: the kernel tracks no connection for it. One that
/// tracks them itself, and drops what belongs to none, finds its resolver all the same.
#[test]
fn names_are_found_with_and_without_connections_being_tracked_inside() {
    machine(|host| {
        let networks = host.open();
        networks.create(&bridge("app")).unwrap();
        let mut a = networks.attach(&request("a", &["app"])).unwrap();
        let web = networks.attach(&request("web", &["app"])).unwrap();
        let _resolver = Resolver::start(&mut a);
        let _service = Service::start(web.netns.as_fd(), "web", 80);
        let address = v4(&web).to_string();
        let everything = || {
            assert_eq!(lookup(&a, "web"), std::slice::from_ref(&address));
            let stream = inside(&a.netns, || sh("dig +short +tcp +tries=1 @127.0.0.11 web A"));
            assert_eq!(stream.trim(), address);
            assert!(inside(&a.netns, || ask(&address, 80)).is_some());
        };
        everything();
        assert_eq!(inside(&a.netns, tracked), 0);
        inside(&a.netns, || {
            sh("nft 'add table ip own; \
                add chain ip own nat { type nat hook output priority -100; }; \
                add chain ip own out { type filter hook output priority 0; }; \
                add chain ip own in { type filter hook input priority 0; policy drop; }; \
                add rule ip own nat ip daddr 192.0.2.1 dnat to 192.0.2.2; \
                add rule ip own out ct state invalid drop; \
                add rule ip own in ct state established accept; \
                add rule ip own in meta l4proto { tcp, udp } ip daddr 127.0.0.11 ct state new accept'")
        });
        everything();
        assert!(inside(&a.netns, tracked) > 0);
    });
}

#[test]
fn the_default_network_resolves_no_names() {
    machine(|host| {
        let networks = host.open();
        let a = networks.attach(&request("a", &["bridge"])).unwrap();
        assert!(a.endpoints[0].dns_names.is_empty());
        assert!(!a.resolv_conf.contains("ndots"));
        assert!(
            !host
                .run_dir()
                .join("dns")
                .join(format!("{}.json", networks.get("bridge").unwrap().id))
                .exists()
        );
    });
}
