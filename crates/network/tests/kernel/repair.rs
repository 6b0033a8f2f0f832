//! What others do to our part of the host while the daemon runs is put right, and only our part is.

use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
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

/// Connections whose packets come in all the time, also while there are no rules.
#[test]
fn connections_outlive_a_flush() {
    const CLIENTS: usize = 4;
    const FLUSHES: usize = 20;
    machine(|host| {
        let networks = host.open();
        let a = networks.attach(&with_port("a", 8080)).unwrap();
        let listener = in_namespace(a.netns.as_fd(), Kind::Network, || TcpListener::bind("0.0.0.0:80"))
            .unwrap()
            .unwrap();
        let stop = AtomicBool::new(false);
        let answers = AtomicUsize::new(0);
        let lost: Vec<std::io::Error> = std::thread::scope(|scope| {
            let mut clients = Vec::new();
            for _ in 0..CLIENTS {
                let mut client = inside(&host.lan, || TcpStream::connect((HOST, 8080)))
                    .expect("a connection to a published port");
                let (mut served, _) = listener.accept().unwrap();
                for stream in [&client, &served] {
                    stream.set_nodelay(true).unwrap();
                    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
                }
                scope.spawn(move || {
                    let mut byte = [0];
                    while let Ok(1) = served.read(&mut byte) {
                        if served.write_all(&byte).is_err() {
                            break;
                        }
                    }
                });
                let (stop, answers) = (&stop, &answers);
                clients.push(scope.spawn(move || -> std::io::Result<()> {
                    let mut byte = [7];
                    while !stop.load(Ordering::SeqCst) {
                        client.write_all(&byte)?;
                        client.read_exact(&mut byte)?;
                        answers.fetch_add(1, Ordering::SeqCst);
                    }
                    Ok(())
                }));
            }
            let tag = host.tag();
            for _ in 0..FLUSHES {
                sh("nft flush ruleset");
                comes("the table", || {
                    sh("nft list tables")
                        .lines()
                        .any(|line| line == format!("table inet {tag}"))
                });
                let so_far = answers.load(Ordering::SeqCst);
                comes("answers", || {
                    answers.load(Ordering::SeqCst) > so_far + CLIENTS
                        || clients.iter().any(|c| c.is_finished())
                });
            }
            stop.store(true, Ordering::SeqCst);
            let ended = clients.into_iter().map(|client| client.join().unwrap());
            ended.filter_map(Result::err).collect()
        });
        let answers = answers.load(Ordering::SeqCst);
        println!(
            "{answers} answers over {CLIENTS} connections and {FLUSHES} flushes, {} lost",
            lost.len()
        );
        assert!(lost.is_empty(), "{lost:?}");
    });
}

/// What keeps connections translated goes with the daemon, however that ends, and is in nobody's way.
#[test]
fn the_table_that_holds_connections_is_the_daemons_alone() {
    machine(|host| {
        let held = format!("table inet {}-hold", host.tag());
        let tables = || sh("nft list tables");
        let networks = host.open();
        assert!(tables().contains(&held), "{}", tables());
        sh("nft flush ruleset");
        assert!(tables().contains(&held), "{}", tables());
        drop(networks);
        comes("its end", || !tables().contains(&held));
        let networks = host.open();
        assert!(tables().contains(&held), "{}", tables());
        networks.tear_down().unwrap();
        assert_eq!(tables(), "");
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
        assert_eq!(networks.strays(&alive).unwrap(), []);
        let port = sh(&format!("ip -br link show master {} | cut -d@ -f1", host.tag()));
        sh(&format!("ip link del {}", port.trim()));
        assert_eq!(inside(&host.lan, || ask(HOST, 8080)), None);
        let strays = networks.strays(&alive).unwrap();
        assert_eq!(
            strays,
            [Stray::NoLink {
                container: wanted.container.clone(),
                link: port.trim().to_owned()
            }]
        );
        assert!(!networks.repair(&strays[0], None).unwrap());
        assert!(networks.repair(&strays[0], Some(a.netns.as_fd())).unwrap());
        assert_eq!(networks.strays(&alive).unwrap(), []);
        comes("the way in", || {
            inside(&host.lan, || ask(HOST, 8080)).as_deref() == Some("a 198.51.100.2")
        });
    });
}
