//! Addresses and ports against a small model, over the life of several daemons: nobody gets what another has, what is
//! refused takes nothing, and a daemon that dies at any moment between two requests leaves the next one knowing.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::IpAddr;

use host::*;
use network::PortChoice::{Any, Fixed, Range};
use network::{CreateNetwork, IpamPool, Networks, PortChoice, Proto, SandboxRequest};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use spec::Id;

use crate::host;

/// Containers there may be at once; the network has room for fewer.
const MOST: usize = 8;
/// A /29 has six addresses, of which the bridge has one.
const ROOM: usize = 5;
const FIRST_PORT: u16 = 47_000;

#[derive(Debug, Clone)]
enum Step {
    /// A container starts, or starts again, with an address of its choice or any, and a port.
    Attach(usize, Option<u8>, PortChoice),
    Detach(usize),
    /// One more port while it runs.
    Publish(usize, u16),
    Unpublish(usize),
    /// The daemon dies, and of the containers those that are in the mask end meanwhile.
    Crash(u8),
}

fn step() -> impl Strategy<Value = Step> {
    let choice = prop_oneof![
        3 => (0u16..6).prop_map(|port| Fixed(FIRST_PORT + port)),
        1 => Just(Range(FIRST_PORT, FIRST_PORT + 2)),
        1 => Just(Any),
    ];
    prop_oneof![
        5 => (0..MOST, proptest::option::weighted(0.3, 1u8..7), choice).prop_map(|(who, ip, port)| Step::Attach(who, ip, port)),
        2 => (0..MOST).prop_map(Step::Detach),
        1 => (0..MOST, 0u16..6).prop_map(|(who, port)| Step::Publish(who, FIRST_PORT + port)),
        1 => (0..MOST).prop_map(Step::Unpublish),
        1 => any::<u8>().prop_map(Step::Crash),
    ]
}

/// What each living container has.
#[derive(Debug, Default)]
struct Model {
    has: BTreeMap<usize, (IpAddr, BTreeSet<u16>)>,
}

impl Model {
    fn who_listens(&self, port: u16) -> Option<usize> {
        let found = self.has.iter().find(|(_, (_, ports))| ports.contains(&port));
        found.map(|(who, _)| *who)
    }

    fn who_is_at(&self, address: IpAddr) -> Option<usize> {
        let found = self.has.iter().find(|(_, (held, _))| *held == address);
        found.map(|(who, _)| *who)
    }
}

fn open(host: &Host) -> Networks {
    let store = store::Store::open(&host.root.path().join("root")).unwrap();
    let config = network::NetworkConfig {
        prepared: 0,
        ..host.config()
    };
    Networks::open(store, config).unwrap()
}

fn address(last: u8) -> IpAddr {
    IpAddr::from([10, 77, 0, last])
}

/// One life of a host: the steps, and after each what is there is what the model says.
fn live(host: &Host, steps: &[Step]) -> Result<(), TestCaseError> {
    let mut networks = open(host);
    let small = CreateNetwork {
        ipam: vec![IpamPool::parse("10.77.0.0/29", "", "", &BTreeMap::new()).unwrap()],
        ..bridge("small")
    };
    networks.create(&small).unwrap();
    let ids: Vec<Id> = (0..MOST).map(|_| Id::random()).collect();
    let mut model = Model::default();
    for step in steps {
        match step {
            Step::Attach(who, ip, port) => {
                // What it had is given back first.
                model.has.remove(who);
                let mut request = SandboxRequest {
                    container: ids[*who].clone(),
                    ports: vec![publish(Proto::Tcp, 80, None, *port)],
                    ..request(&format!("c{who}"), &["small"])
                };
                request.endpoints[0].ipv4 = ip.map(|last| format!("10.77.0.{last}").parse().unwrap());
                let wanted = ip.map(address);
                let is_free = |address| address != self::address(1) && model.who_is_at(address).is_none();
                let has_address = match wanted {
                    Some(address) => is_free(address),
                    None => model.has.len() < ROOM,
                };
                let mut candidates = match *port {
                    Fixed(port) => port..=port,
                    Range(first, last) => first..=last,
                    Any => 1..=u16::MAX,
                };
                let has_port = candidates.any(|port| model.who_listens(port).is_none());
                match networks.attach(&request) {
                    Ok(sandbox) => {
                        let (at, port) = (v4(&sandbox), sandbox.ports[0].host_port);
                        prop_assert!(has_address && has_port, "{step:?} got {at} and {port}: {model:?}");
                        prop_assert!(wanted.is_none_or(|wanted| wanted == at));
                        prop_assert!(is_free(at) && model.who_listens(port).is_none());
                        model.has.insert(*who, (at, BTreeSet::from([port])));
                    }
                    Err(error) => prop_assert!(!has_address || !has_port, "{step:?}: {error}: {model:?}"),
                }
            }
            Step::Detach(who) => {
                networks.detach(&ids[*who]).unwrap();
                model.has.remove(who);
            }
            Step::Publish(who, port) => {
                let more = [publish(Proto::Tcp, 80, None, Fixed(*port))];
                let holder = model.who_listens(*port);
                match (networks.publish(&ids[*who], &more, &[]), model.has.get_mut(who)) {
                    (Ok(_), Some((_, ports))) => {
                        prop_assert!(holder.is_none(), "{step:?} although {holder:?} has it");
                        ports.insert(*port);
                    }
                    (Err(error), Some(_)) => prop_assert!(holder.is_some(), "{step:?}: {error}"),
                    (outcome, None) => prop_assert!(outcome.is_err()),
                }
            }
            Step::Unpublish(who) => {
                let Some((_, ports)) = model.has.get_mut(who) else {
                    continue;
                };
                let Some(port) = ports.pop_first() else { continue };
                let less = [publish(Proto::Tcp, 80, None, Fixed(port))];
                networks.publish(&ids[*who], &[], &less).unwrap();
            }
            Step::Crash(ended) => {
                drop(networks);
                model.has.retain(|who, _| ended >> who & 1 == 0);
                networks = open(host);
                let alive: HashSet<Id> = model.has.keys().map(|who| ids[*who].clone()).collect();
                networks.reconcile(&alive).unwrap();
            }
        }
        let shown = networks.get("small").unwrap();
        let shown: BTreeSet<(Id, IpAddr)> = shown
            .endpoints
            .iter()
            .filter_map(|(id, endpoint)| Some((id.clone(), endpoint.ipv4?.address())))
            .collect();
        let expected = model.has.iter().map(|(who, (at, _))| (ids[*who].clone(), *at));
        prop_assert_eq!(shown, expected.collect::<BTreeSet<_>>());
        for (who, id) in ids.iter().enumerate() {
            let published: BTreeSet<u16> = networks.published(id).iter().map(|port| port.host_port).collect();
            let expected = model
                .has
                .get(&who)
                .map(|(_, ports)| ports.clone())
                .unwrap_or_default();
            prop_assert_eq!(published, expected, "of c{} after {:?}", who, step);
        }
        let status = networks.status("small").unwrap()[0];
        // The first and the last of the subnet, the gateway, and one for each.
        prop_assert_eq!(status.in_use, 3 + model.has.len() as u64);
    }
    for id in &ids {
        networks.detach(id).unwrap();
    }
    networks.remove("small").unwrap();
    networks.tear_down().unwrap();
    prop_assert_eq!(sh("nft list tables"), "");
    Ok(())
}

#[test]
fn daemons_that_come_and_go_hand_nothing_out_twice() {
    let config = Config {
        cases: 12,
        failure_persistence: None,
        ..Config::default()
    };
    let steps = proptest::collection::vec(step(), 1..40);
    let outcome = TestRunner::new(config).run(&steps, |steps| {
        let outcome = std::sync::Mutex::new(Ok(()));
        machine(|host| *outcome.lock().unwrap() = live(host, &steps));
        outcome.into_inner().unwrap()
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
}
