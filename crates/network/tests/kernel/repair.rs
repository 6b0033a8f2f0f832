//! What others do to our part of the host while the daemon runs is put right, and only our part is.

use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::time::Duration;

use host::*;
use network::PortChoice::Fixed;
use network::{Proto, SandboxRequest, Stray};
use sys::namespace::{Kind, in_namespace};

use crate::host;

fn with_port(name: &str, port: u16) -> SandboxRequest {
    SandboxRequest {
        ports: vec![publish(Proto::Tcp, 80, None, Fixed(port))],
        ..request(name, &["bridge"])
    }
}

#[test]
fn flushed_rules_come_back_by_themselves() {
    machine(|host| {
        let networks = host.open();
        let a = networks.attach(&with_port("a", 8080)).unwrap();
        let _service = Service::start(a.netns.as_fd(), "a", 80);
        assert!(inside(&host.lan, || ask(HOST, 8080)).is_some());
        let tag = host.tag();
        let rules = || sh(&format!("nft list table inet {tag} 2>&1 || true"));
        let whole = rules();
        let damages = [
            "nft flush ruleset".to_owned(),
            format!("nft delete table inet {tag}"),
            format!("nft flush chain inet {tag} publish"),
            format!("nft flush set inet {tag} bridges"),
            format!("nft flush map inet {tag} publish4_any"),
        ];
        for damage in damages {
            sh(&damage);
            comes(&damage, || rules() == whole);
            assert!(inside(&host.lan, || ask(HOST, 8080)).is_some(), "{damage}");
        }
        // A firewall that is restarted: everything flushed, and a rule set of its own put there.
        sh(
            "nft 'flush ruleset; add table inet filter; add chain inet filter input { type filter hook input priority 0; }'",
        );
        comes("restart of a firewall", || rules() == whole);
        assert!(sh("nft list tables").contains("table inet filter"));
        assert!(inside(&host.lan, || ask(HOST, 8080)).is_some());
        // Published while nobody looks: the table stays ours alone.
        networks.attach(&with_port("b", 8081)).unwrap();
        assert!(rules().contains("8081"));
    });
}

#[test]
fn connections_outlive_a_flush() {
    machine(|host| {
        let networks = host.open();
        let a = networks.attach(&with_port("a", 8080)).unwrap();
        let listener = in_namespace(a.netns.as_fd(), Kind::Network, || TcpListener::bind("0.0.0.0:80"))
            .unwrap()
            .unwrap();
        let mut client =
            inside(&host.lan, || TcpStream::connect((HOST, 8080))).expect("a connection to a published port");
        let (mut served, _) = listener.accept().unwrap();
        for stream in [&client, &served] {
            stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        }
        let tag = host.tag();
        for round in 0..20u8 {
            // Nothing is under way while there are no rules, a late acknowledgement neither: what comes in then may be
            // answered by a reset.
            comes("the acknowledgement", || inside(&a.netns, || is_acknowledged(80)));
            sh("nft flush ruleset");
            comes("the table", || sh("nft list tables").contains(&tag));
            client.write_all(&[round]).unwrap();
            let mut byte = [0];
            served.read_exact(&mut byte).unwrap();
            assert_eq!(byte, [round]);
            served.write_all(&byte).unwrap();
            client.read_exact(&mut byte).unwrap();
        }
    });
}

/// Whether the other sides have acknowledged all that connections of this port sent, in the thread's namespace (proc(5),
/// /proc/net/tcp: the queue of what was not acknowledged is the fifth column's first half).
fn is_acknowledged(port: u16) -> bool {
    let table = std::fs::read_to_string("/proc/thread-self/net/tcp").unwrap();
    let local = format!(":{port:04X}");
    let mut queues = table.lines().filter_map(|line| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let is_established = columns.get(1)?.ends_with(&local) && *columns.get(3)? == "01";
        is_established.then(|| {
            columns
                .get(4)
                .is_some_and(|queues| queues.starts_with("00000000:"))
        })
    });
    queues.all(|empty| empty)
}

/// A client that goes on sending from one port would keep alive what the kernel decided while there were no rules.
#[test]
fn datagrams_that_came_while_there_were_no_rules_are_led_on_after_it() {
    machine(|host| {
        // As another engine's table does, this one keeps the kernel tracking and translating.
        sh("nft 'add table ip other; \
            add chain ip other nat { type nat hook prerouting priority 0; }; \
            add rule ip other nat ct state established return'");
        let networks = host.open();
        let wanted = SandboxRequest {
            ports: vec![publish(Proto::Udp, 53, None, Fixed(5353))],
            ..request("a", &["bridge"])
        };
        let a = networks.attach(&wanted).unwrap();
        let server = in_namespace(a.netns.as_fd(), Kind::Network, || UdpSocket::bind("0.0.0.0:53"))
            .unwrap()
            .unwrap();
        server.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let client = inside(&host.lan, || UdpSocket::bind("0.0.0.0:0")).unwrap();
        let out = inside(&a.netns, || UdpSocket::bind("0.0.0.0:0")).unwrap();
        let world = inside(&host.lan, || UdpSocket::bind(("198.51.100.2", 7))).unwrap();
        world.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let heard = || {
            let _ = client.send_to(b"x", (HOST, 5353));
            server.recv(&mut [0; 16]).is_ok()
        };
        let source = || {
            let _ = out.send_to(b"x", ("198.51.100.2", 7));
            world
                .recv_from(&mut [0; 16])
                .map(|(_, from)| from.ip().to_string())
                .ok()
        };
        drop(networks);
        sh(&format!("nft delete table inet {}", host.tag()));
        assert!(!heard());
        let untranslated = source();
        assert_ne!(untranslated.as_deref(), Some(HOST));
        let _networks = host.open();
        comes("datagrams", heard);
        comes("the host's address", || source().as_deref() == Some(HOST));
    });
}

/// What an administrator saved of the host's rules while the daemon ran can be put back while it runs.
#[test]
fn saved_rules_can_be_restored() {
    machine(|host| {
        let networks = host.open();
        let a = networks.attach(&with_port("a", 8080)).unwrap();
        let _service = Service::start(a.netns.as_fd(), "a", 80);
        sh("nft add table inet other");
        let saved = format!("flush ruleset\n{}", sh("nft list ruleset"));
        let file = std::env::temp_dir().join(format!("berth-saved-{}.nft", std::process::id()));
        std::fs::write(&file, saved).unwrap();
        sh("nft delete table inet other");
        sh(&format!("nft -f {}", file.display()));
        std::fs::remove_file(&file).unwrap();
        assert!(sh("nft list tables").contains("table inet other"));
        comes("the way in", || {
            inside(&host.lan, || ask(HOST, 8080)).as_deref() == Some("a 198.51.100.2")
        });
    });
}

#[test]
fn what_is_as_it_should_be_is_adopted() {
    machine(|host| {
        let handle = || {
            let table = sh(&format!("nft -a list table inet {}", host.tag()));
            table.lines().next().unwrap().to_owned()
        };
        let networks = host.open();
        let living = with_port("a", 8080);
        networks.attach(&living).unwrap();
        let before = handle();
        drop(networks);
        // The same table, not another one of the same name.
        let networks = host.open();
        assert_eq!(handle(), before);
        assert_eq!(
            networks.reconcile(&HashSet::from([living.container])).unwrap(),
            []
        );
        drop(networks);
        // One that was changed while nobody watched is made anew.
        sh(&format!("nft flush chain inet {} forward", host.tag()));
        let _networks = host.open();
        assert_ne!(handle(), before);
        assert!(sh(&format!("nft list chain inet {} forward", host.tag())).contains("accept"));
    });
}

#[test]
fn a_bridge_that_was_removed_is_made_again_with_its_containers() {
    machine(|host| {
        let networks = host.open();
        let a = networks.attach(&with_port("a", 8080)).unwrap();
        let b = networks.attach(&request("b", &["bridge"])).unwrap();
        let _service = Service::start(a.netns.as_fd(), "a", 80);
        let inside_address = v4(&a).to_string();
        comes("the way before", || {
            inside(&b.netns, || ask(&inside_address, 80)).is_some()
        });
        let tag = host.tag();
        let hardware = || {
            sh(&format!(
                "ip -br link show {tag} 2>/dev/null | awk '{{print $3}}'"
            ))
        };
        let before = hardware();
        assert_eq!(before.trim().len(), 17, "{before}");
        sh(&format!("ip link del {tag}"));
        // Neighbours know its hardware address, so it has the same again.
        comes("the bridge", || hardware() == before);
        comes("the way between containers", || {
            inside(&b.netns, || ask(&inside_address, 80)).is_some()
        });
        comes("the way in", || inside(&host.lan, || ask(HOST, 8080)).is_some());
        // Nothing of a network that is removed comes back.
        networks.create(&bridge("app")).unwrap();
        networks.remove("app").unwrap();
        assert!(!sh("ip -o link").contains("br-"));
    });
}

#[test]
fn a_link_that_was_removed_is_told_and_made_again() {
    machine(|host| {
        let networks = host.open();
        let wanted = with_port("a", 8080);
        let a = networks.attach(&wanted).unwrap();
        let _service = Service::start(a.netns.as_fd(), "a", 80);
        let alive = HashSet::from([wanted.container.clone()]);
        // Pairs for the next containers are made meanwhile, and are nobody's for a moment.
        let nothing_is_strange = || networks.strays(&alive).unwrap().is_empty();
        comes("a pair that is ready", nothing_is_strange);
        let port = sh(&format!("ip -br link show master {} | cut -d@ -f1", host.tag()));
        sh(&format!("ip link del {}", port.trim()));
        assert_eq!(inside(&host.lan, || ask(HOST, 8080)), None);
        let mut strays = networks.strays(&alive).unwrap();
        strays.retain(|stray| !matches!(stray, Stray::Link(_)));
        assert_eq!(
            strays,
            [Stray::NoLink {
                container: wanted.container.clone(),
                link: port.trim().to_owned()
            }]
        );
        assert!(!networks.repair(&strays[0], None).unwrap());
        assert!(networks.repair(&strays[0], Some(a.netns.as_fd())).unwrap());
        comes("nothing strange", nothing_is_strange);
        comes("the way in", || {
            inside(&host.lan, || ask(HOST, 8080)).as_deref() == Some("a 198.51.100.2")
        });
    });
}
