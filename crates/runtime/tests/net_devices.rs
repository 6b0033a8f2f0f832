//! Interfaces of the host that a container takes over (`linux.netDevices`). The host is a network namespace of its own,
//! so that nothing of this machine is ever touched.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::process::{Command, Output};

use spec::runtime::{Hook, Hooks, NetDevice};
use support::Bundle;
use support::cli::{Cli, nothing_is_left, prepared};

/// The interface that every test has, with what must come along and what must not (an address of the link's scope).
const HOST: &str = "
    ip link add dumhost0 type veth peer name dumpeer0
    ip link set dumhost0 mtu 1400 address 02:11:22:33:44:55
    ip addr add 192.0.2.7/24 brd 192.0.2.255 dev dumhost0
    ip addr add 169.254.9.9/16 scope link dev dumhost0
    ip addr add 2001:db8::7/64 nodad dev dumhost0
    ip link set dumhost0 up
";

fn device(bundle: &mut Bundle, outside: &str, inside: &str) {
    let device = NetDevice {
        name: inside.to_owned(),
    };
    bundle.linux().net_devices.insert(outside.to_owned(), device);
}

/// Runs the bundle on that host; `after` looks at the host once it is over.
fn run(cli: &Cli, bundle: &Bundle, id: &str, before: &str, after: &str) -> Output {
    bundle.write_config();
    let script = format!(
        "set -e\n{HOST}{before}\n\
         set +e; \"$0\" --root \"$1\" run --bundle \"$2\" \"$3\"; code=$?; set -e\n\
         {after}\nexit $code"
    );
    Command::new("unshare")
        .args(["--net", "sh", "-c", &script])
        .arg(&cli.program)
        .args([cli.state.path(), bundle.path()])
        .arg(id)
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn an_interface_moves_in_with_its_settings() {
    let Some((cli, mut bundle, id)) = prepared("netdev") else {
        return;
    };
    device(&mut bundle, "dumhost0", "inside0");
    bundle.shell("ip link show inside0; ip addr show dev inside0; ip route");
    let output = run(&cli, &bundle, &id, "", "ip link show dumhost0 2>&1 || true");
    let seen = text(&output.stdout);
    assert!(output.status.success(), "{seen}{}", text(&output.stderr));
    let (inside, host) = seen
        .split_once("Device \"dumhost0\" does not exist")
        .unwrap_or_else(|| {
            panic!("the host still has it: {seen}");
        });
    assert_eq!(host.trim(), ".");
    for part in [
        "mtu 1400",
        "02:11:22:33:44:55",
        "inet 192.0.2.7/24 brd 192.0.2.255",
        "inet6 2001:db8::7/64",
        "UP",
        "192.0.2.0/24 dev inside0",
    ] {
        assert!(inside.contains(part), "{part} is missing: {inside}");
    }
    assert!(!inside.contains("169.254.9.9"), "{inside}");
    nothing_is_left(&cli, &id);
}

#[test]
fn a_container_that_fails_gives_it_back() {
    let Some((cli, mut bundle, id)) = prepared("netback") else {
        return;
    };
    device(&mut bundle, "dumhost0", "inside0");
    let host = "ip addr show dumhost0";
    let given_back = |what: &str, bundle: &Bundle| {
        let output = run(&cli, bundle, &id, "", host);
        assert!(!output.status.success(), "{what} succeeded");
        let seen = text(&output.stdout);
        for part in ["mtu 1400", "192.0.2.7/24", "2001:db8::7/64", ",UP"] {
            assert!(seen.contains(part), "{what}: {part} is missing: {seen}");
        }
        nothing_is_left(&cli, &id);
        text(&output.stderr)
    };
    bundle.args(&["/no/such/program"]);
    assert!(given_back("a missing program", &bundle).contains("/no/such/program"));
    bundle.args(&["true"]);
    let hook = Hook {
        path: "/bin/false".into(),
        args: vec!["false".to_owned()],
        ..Hook::default()
    };
    bundle.spec.hooks = Some(Hooks {
        create_runtime: vec![hook],
        ..Hooks::default()
    });
    assert!(given_back("a hook that fails", &bundle).contains("createRuntime"));
    bundle.spec.hooks = None;
    // Sorted after the good one, which is inside by then.
    device(&mut bundle, "lo", "lo1");
    assert!(given_back("an interface that stays where it is", &bundle).contains("linux.netDevices.lo"));
}

#[test]
fn what_cannot_be_moved_is_told_before_anything_is_made() {
    let Some((cli, mut bundle, id)) = prepared("netbad") else {
        return;
    };
    bundle.args(&["true"]);
    let mut refused = |devices: &[(&str, &str)], expected: &str| {
        bundle.linux().net_devices.clear();
        for (outside, inside) in devices {
            device(&mut bundle, outside, inside);
        }
        let output = run(
            &cli,
            &bundle,
            &id,
            "ip link add dumhost1 type veth peer name dumpeer1",
            "ip link show dumhost0",
        );
        let complaint = text(&output.stderr);
        assert!(!output.status.success(), "{devices:?}");
        assert!(complaint.contains(expected), "{devices:?}: {complaint}");
        assert_eq!(complaint.lines().count(), 1, "{complaint}");
        nothing_is_left(&cli, &id);
    };
    refused(
        &[("nosuch0", "")],
        "linux.netDevices.nosuch0: there is no such interface",
    );
    refused(&[("dumhost0", "a/b")], "\"a/b\" is no name of an interface");
    refused(
        &[("dumhost0", "much-too-long-to-be")],
        "is no name of an interface",
    );
    refused(
        &[("dumhost0", "same"), ("dumhost1", "same")],
        "another interface is to be called \"same\" too",
    );
    refused(&[("dumhost0", "lo")], "there is an interface \"lo\" already");
    bundle
        .linux()
        .namespaces
        .retain(|namespace| namespace.r#type != spec::runtime::NamespaceType::Network);
    bundle.linux().net_devices.clear();
    device(&mut bundle, "dumhost0", "");
    let output = run(&cli, &bundle, &id, "", "");
    assert!(
        text(&output.stderr).contains("linux.netDevices need a network namespace"),
        "{}",
        text(&output.stderr)
    );
}
