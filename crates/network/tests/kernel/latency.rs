//! What attaching costs: printed for people, asserted by nobody. Run with `--run-ignored only --no-capture`.

use std::time::{Duration, Instant};

use host::*;
use network::PortChoice::Any;
use network::{Networks, Proto, SandboxRequest};

use crate::host;

fn measure(name: &str, networks: &Networks, settle: bool, wanted: impl Fn() -> SandboxRequest) {
    let (mut attach, mut detach) = (Vec::new(), Vec::new());
    for _ in 0..40 {
        if settle {
            networks.settle();
        }
        let request = wanted();
        let start = Instant::now();
        let sandbox = networks.attach(&request).unwrap();
        attach.push(start.elapsed());
        drop(sandbox);
        let start = Instant::now();
        networks.detach(&request.container).unwrap();
        detach.push(start.elapsed());
    }
    let median = |times: &mut Vec<Duration>| {
        times.sort();
        (times[0], times[times.len() / 2])
    };
    println!(
        "{name}: attach {:?}, detach {:?} (best, median)",
        median(&mut attach),
        median(&mut detach)
    );
}

#[test]
#[ignore = "a measurement"]
fn attach_and_detach() {
    machine(|host| {
        let with_port = |network: &str| SandboxRequest {
            ports: vec![publish(Proto::Tcp, 80, None, Any)],
            ..request("web", &[network])
        };
        for (name, prepared) in [("prepared", 4), ("cold", 0)] {
            let root = tempfile::tempdir().unwrap();
            let store = store::Store::open(root.path()).unwrap();
            let config = network::NetworkConfig {
                prepared,
                ..host.config()
            };
            let networks = Networks::open(store, config).unwrap();
            networks.create(&bridge("app")).unwrap();
            measure(&format!("{name}, default bridge"), &networks, true, || {
                request("a", &["bridge"])
            });
            measure(
                &format!("{name}, user network and a port"),
                &networks,
                true,
                || with_port("app"),
            );
            networks.tear_down().unwrap();
        }
    });
}
