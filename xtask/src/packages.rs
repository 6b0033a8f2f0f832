//! Debian packages that the commands need. The README has the same table, with the reason for each.

use std::process::Command;

use anyhow::{Result, bail};

use crate::process::{exists, is_root, run};

/// A package: its name, and a program (or, by its whole path, a file) that shows it is there.
pub struct Package {
    pub name: &'static str,
    pub program: &'static str,
}

const fn package(name: &'static str, program: &'static str) -> Package {
    Package { name, program }
}

/// To build: SQLite, zstd, xz and ring bring C and assembly.
pub const BUILD: &[Package] = &[package("gcc", "gcc"), package("libc6-dev", "ldconfig")];
/// `top` asks the host's ps.
pub const RUN: &[Package] = &[package("procps", "ps")];
pub const DEMO: &[Package] = &[
    package("mmdebstrap", "mmdebstrap"),
    package("docker-registry", "docker-registry"),
    package("iproute2", "ip"),
    package("nftables", "nft"),
];
/// The keys of the machine's own mirror, one of the two where a root filesystem is made from it.
pub const DEBIAN_KEYRING: Package = package(
    "debian-archive-keyring",
    "/usr/share/keyrings/debian-archive-keyring.gpg",
);
pub const UBUNTU_KEYRING: Package =
    package("ubuntu-keyring", "/usr/share/keyrings/ubuntu-archive-keyring.gpg");
pub const TEST: &[Package] = &[
    package("busybox-static", "busybox"),
    package("nftables", "nft"),
    package("iproute2", "ip"),
    package("iptables", "iptables"),
    package("bind9-dnsutils", "dig"),
    package("crun", "crun"),
    package("podman", "podman"),
    package("conmon", "conmon"),
    package("catatonit", "catatonit"),
    package("containerd", "containerd"),
    package("skopeo", "skopeo"),
    package("umoci", "umoci"),
    package("docker-registry", "docker-registry"),
    package("apache2-utils", "htpasswd"),
    package("openssl", "openssl"),
    package("e2fsprogs", "mke2fs"),
    package("systemd", "systemctl"),
    package("strace", "strace"),
    package("perl-base", "perl"),
    package("git", "git"),
    package("openssh-client", "ssh-keygen"),
    package("docker.io", "dockerd"),
];
/// To boot a kernel of control groups version 2; what its tests need is installed inside.
pub const VM: &[Package] = &[
    package("qemu-system-x86", "qemu-system-x86_64"),
    package("mmdebstrap", "mmdebstrap"),
    DEBIAN_KEYRING,
    package("e2fsprogs", "mke2fs"),
    package("busybox-static", "busybox"),
];
const BUSYBOX: Package = package("busybox-static", "busybox");
pub const BENCH: &[Package] = &[
    BUSYBOX,
    package("docker.io", "dockerd"),
    package("crun", "crun"),
    package("runc", "runc"),
    package("iproute2", "ip"),
];
/// Rows without a peer need no more.
pub const BENCH_SUPERVISION: &[Package] = &[BUSYBOX];
/// Beside [`BENCH`].
pub const BENCH_BUILD: &[Package] = &[package("mmdebstrap", "mmdebstrap")];
pub const BENCH_IMAGES: &[Package] = &[
    package("skopeo", "skopeo"),
    package("docker-registry", "docker-registry"),
];
pub const BENCH_NET: &[Package] = &[
    package("iperf3", "iperf3"),
    package("wrk", "wrk"),
    package("fio", "fio"),
    package("nftables", "nft"),
];

/// Installs what is missing. Nothing is asked and no service of a package is started.
pub fn install(groups: &[&[Package]]) -> Result<()> {
    let missing: Vec<&str> = groups
        .iter()
        .flat_map(|g| g.iter())
        .filter(|p| !exists(p.program))
        .map(|p| p.name)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    if !is_root() || !exists("apt-get") {
        bail!(
            "these packages are missing: {}: install them, or run as root on Debian or Ubuntu",
            missing.join(" ")
        );
    }
    println!("installing {}", missing.join(" "));
    // A service that a package wants to start would take ports and sockets that are not ours to take.
    let policy = std::path::Path::new("/usr/sbin/policy-rc.d");
    let ours = !policy.exists();
    if ours {
        std::fs::write(policy, "#!/bin/sh\nexit 101\n")?;
        run(Command::new("chmod").args(["+x", "/usr/sbin/policy-rc.d"]))?;
    }
    let apt = |args: &[&str]| {
        run(Command::new("apt-get")
            .args(["-qq", "-o", "Dpkg::Use-Pty=0"])
            .args(args)
            .env("DEBIAN_FRONTEND", "noninteractive"))
    };
    let installed = apt(&["update"]).and_then(|()| {
        let mut args = vec!["install", "-y", "--no-install-recommends"];
        args.extend(&missing);
        apt(&args)
    });
    if ours {
        std::fs::remove_file(policy)?;
    }
    installed
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// As the README's table names them in its column "needed by".
    const GROUPS: [(&str, &[Package]); 9] = [
        ("build", BUILD),
        ("run", RUN),
        ("demo", DEMO),
        ("test", TEST),
        ("test --vm", VM),
        ("bench", BENCH),
        ("bench build", BENCH_BUILD),
        ("bench images", BENCH_IMAGES),
        ("bench net", BENCH_NET),
    ];
    /// One of them, where a root filesystem is made.
    const KEYRINGS: [&str; 2] = ["debian-archive-keyring", "ubuntu-keyring"];

    /// Packages and who needs them, of the rows of the table.
    fn table(readme: &str) -> Vec<(BTreeSet<&str>, BTreeSet<&str>)> {
        let rows = readme.lines().skip_while(|line| !line.starts_with("| package |"));
        let rows = rows.skip(2).take_while(|line| line.starts_with('|'));
        rows.map(|row| {
            let mut cells = row.split('|').skip(1);
            let mut list = || {
                cells
                    .next()
                    .unwrap_or_default()
                    .split(',')
                    .map(str::trim)
                    .collect()
            };
            (list(), list())
        })
        .collect()
    }

    #[test]
    fn the_readme_has_the_same_packages() {
        let readme = std::fs::read_to_string(crate::process::root().join("README.md")).unwrap();
        let table = table(&readme);
        assert!(table.len() > 10, "{table:?}");
        for (group, packages) in GROUPS {
            let here: BTreeSet<&str> = packages
                .iter()
                .map(|package| package.name)
                .filter(|name| !KEYRINGS.contains(name))
                .collect();
            let there: BTreeSet<&str> = table
                .iter()
                .filter(|(_, needed_by)| needed_by.contains(group))
                .flat_map(|(names, _)| names.iter().copied())
                .filter(|name| !KEYRINGS.contains(name))
                .collect();
            assert_eq!(here, there, "needed by {group}");
        }
        let known: BTreeSet<&str> = GROUPS.iter().map(|(group, _)| *group).collect();
        for (names, needed_by) in &table {
            let unknown: Vec<_> = needed_by.difference(&known).collect();
            assert!(unknown.is_empty(), "{names:?} are needed by {unknown:?}");
        }
        for keyring in KEYRINGS {
            assert!(
                table.iter().any(|(names, _)| names.contains(keyring)),
                "{keyring}"
            );
        }
    }
}
