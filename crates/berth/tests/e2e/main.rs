//! End to end: the binary as a daemon on a root of its own, asked by our client and by the real docker client,
//! looked at from inside the containers and from the host.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

/// Ends a test that can't run here, with the reason.
macro_rules! guard {
    () => {
        if let Some(reason) = $crate::support::missing() {
            println!("skipped: {reason}");
            return;
        }
    };
}

mod apparmor;
mod blobs;
mod buildkit;
mod builds;
mod bundles;
mod certificates;
mod cgroup_parent;
mod check;
mod clock_set;
mod clocks;
mod commands;
mod containers;
mod corpus;
mod crash;
mod daemon;
mod damage;
mod dedup;
#[path = "../../../cli/tests/docker/mod.rs"]
mod docker;
mod docker_client;
mod engines;
mod events;
mod exchange;
mod faults;
mod files;
mod first_version;
mod git;
mod health;
mod http;
mod image_ids;
mod images;
mod input;
mod inside;
mod inventory;
mod layers;
mod lenient;
mod lifecycle;
mod lineage;
mod logs;
mod metrics;
mod modes;
mod networks;
mod peer;
mod platforms;
mod ports;
mod private;
mod proxies;
mod prune;
mod reach;
mod refused;
mod registry_rules;
mod reload;
mod remote;
mod safety;
mod saved;
mod schema2;
mod selinux;
#[path = "../../../registry/tests/support/mod.rs"]
mod servers;
mod signals;
mod silent;
mod slow;
mod soak;
mod storage;
mod stuck;
mod support;
#[path = "../../../runtime/tests/support/systemd.rs"]
mod systemd;
mod systemd_driver;
mod tarball;
mod terminal;
mod updates;
mod usage;
mod userns;
mod volumes;
mod web;
