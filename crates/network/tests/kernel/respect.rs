//! `firewall: respect-host`: what the host's own input rules say holds for published ports too, whoever wrote them.

use std::os::fd::AsFd;

use host::*;
use network::PortChoice::Fixed;
use network::{NetworkConfig, Networks, Proto, SandboxRequest};

use crate::host;

fn respecting(host: &Host) -> Networks {
    let store = store::Store::open(&host.root.path().join("root")).unwrap();
    let config = NetworkConfig {
        respect_host: true,
        ..host.config()
    };
    Networks::open(store, config).unwrap()
}

#[test]
fn the_hosts_input_rules_decide() {
    machine(|host| {
        let networks = respecting(host);
        networks
            .create(&network::CreateNetwork {
                enable_ipv6: true,
                ..bridge("six")
            })
            .unwrap();
        let mut ports = vec![
            publish(Proto::Tcp, 80, None, Fixed(8080)),
            publish(Proto::Udp, 80, None, Fixed(8080)),
            publish(Proto::Tcp, 80, Some(HOST), Fixed(8081)),
            publish(Proto::Tcp, 80, Some("127.0.0.1"), Fixed(8082)),
        ];
        ports.extend((9000..9200).map(|port| publish(Proto::Tcp, port, None, Fixed(port))));
        let wanted = SandboxRequest {
            ports,
            ..request("web", &["six"])
        };
        let web = networks.attach(&wanted).unwrap();
        let other = networks.attach(&request("other", &["bridge"])).unwrap();
        let _services = [80, 9100].map(|port| Service::start(web.netns.as_fd(), "web", port));
        type Ask = fn(&str, u16) -> Option<String>;
        let ways: [(&str, Ask, &str, u16, &str); 6] = [
            ("tcp", ask, HOST, 8080, "198.51.100.2"),
            ("udp", ask_udp, HOST, 8080, "198.51.100.2"),
            ("tcp over IPv6", ask, HOST6, 8080, "2001:db8:51::2"),
            ("udp over IPv6", ask_udp, HOST6, 8080, "2001:db8:51::2"),
            ("one address", ask, HOST, 8081, "198.51.100.2"),
            ("a range", ask, HOST, 9100, "198.51.100.2"),
        ];
        let everywhere = |reached: bool, when: &str| {
            for (what, how, address, port, source) in ways {
                let answer = inside(&host.lan, || how(address, port));
                let expected = reached.then(|| format!("web {source}"));
                assert_eq!(answer, expected, "{what}, {when}");
            }
            // Who is inside is not asked.
            assert!(
                ask(HOST, 8080).is_some() && ask("127.0.0.1", 8082).is_some(),
                "{when}"
            );
            assert!(inside(&other.netns, || ask(HOST, 8080)).is_some(), "{when}");
            assert_eq!(inside(&host.lan, || ask(HOST, 8082)), None, "{when}");
        };
        everywhere(true, "without rules of the host");
        // Whichever tool, whichever priority; neighbours must be found, whatever else is refused.
        sh(
            "nft 'add table inet own; add chain inet own in { type filter hook input priority 10; policy drop; }; \
            add rule inet own in iif lo accept; add rule inet own in iifname \"berth*\" accept; \
            add rule inet own in iifname \"br-*\" accept; add rule inet own in icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept'",
        );
        everywhere(false, "with a policy of drop");
        sh("nft 'add rule inet own in meta l4proto { tcp, udp } th dport { 8080, 8081, 9000-9199 } accept'");
        everywhere(true, "with ports let in");
        sh("nft delete table inet own");
        sh("iptables -A INPUT -i uplink -p tcp --dport 8080 -j REJECT");
        assert_eq!(inside(&host.lan, || ask(HOST, 8080)), None);
        assert!(inside(&host.lan, || ask(HOST, 8081)).is_some());
        sh("iptables -F INPUT");
        // One that filters by who asks.
        sh(
            "nft 'add table inet own; add chain inet own in { type filter hook input priority 0; }; \
            add rule inet own in ip saddr 198.51.100.2 tcp dport 8080 drop'",
        );
        assert_eq!(inside(&host.lan, || ask(HOST, 8080)), None);
        assert!(inside(&host.lan, || ask(HOST6, 8080)).is_some());
        sh("nft delete table inet own");
        // A gate that was removed is made again; a flush is put right.
        let gate = sh("ip -br link | grep -o 'gate[0-9a-f]*o' | head -1");
        sh(&format!("ip link del {}", gate.trim()));
        // Without rules a port is refused at once, so what is waited for is time and not a number of attempts.
        let answers = || inside(&host.lan, || ask(HOST, 8080)).is_some();
        comes("the gate", answers);
        sh("nft flush ruleset");
        comes("the rules", answers);
        let note = &networks.explain(&wanted.container).unwrap()[0].notes[0];
        assert!(note.contains("respect-host"), "{note}");
        // The next daemon adopts it; one that does not respect the host takes gate and copies away.
        let rules = || {
            sh(&format!(
                "for family in inet ip ip6; do nft list table $family {}; done",
                host.tag()
            ))
        };
        let before = rules();
        drop(networks);
        let networks = respecting(host);
        assert_eq!(rules(), before);
        drop(networks);
        let networks = host.open();
        assert!(!sh("ip link").contains("gate"));
        assert!(
            !sh("nft list tables").contains("table ip "),
            "{}",
            sh("nft list tables")
        );
        assert!(inside(&host.lan, || ask(HOST, 8080)).is_some());
        drop(networks);
        respecting(host).tear_down().unwrap();
        assert!(!sh("ip link").contains("gate"));
        assert_eq!(sh("nft list tables"), "");
    });
}
