//! Debian packages that the commands need, each with its reason. The README shows the same table.

use std::process::Command;

use anyhow::{Result, bail};

use crate::process::{exists, is_root, run};

/// A package: its name, a program that shows it is there, and why it is needed.
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
];
pub const TEST: &[Package] = &[
    package("busybox-static", "busybox"),
    package("nftables", "nft"),
    package("iproute2", "ip"),
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
    package("docker.io", "docker"),
];
/// To boot a kernel of control groups version 2; what its tests need is installed inside.
pub const VM: &[Package] = &[
    package("qemu-system-x86", "qemu-system-x86_64"),
    package("mmdebstrap", "mmdebstrap"),
    package("e2fsprogs", "mke2fs"),
    package("busybox-static", "busybox"),
];
pub const BENCH: &[Package] = &[
    package("busybox-static", "busybox"),
    package("docker.io", "dockerd"),
    package("crun", "crun"),
    package("runc", "runc"),
    package("skopeo", "skopeo"),
    package("docker-registry", "docker-registry"),
];

pub const BENCH_NET: &[Package] = &[
    package("iperf3", "iperf3"),
    package("wrk", "wrk"),
    package("fio", "fio"),
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
