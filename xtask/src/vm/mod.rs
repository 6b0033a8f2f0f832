//! `cargo xtask test --vm [FILTER]`: the kernel ring on a machine that has control groups of version 2 only.
//!
//! The host's kernel decides which hierarchy its tests meet, so a Debian kernel is booted in QEMU and the tests of
//! the rooms that touch the kernel run there, one process each:
//!
//!     image    Debian's packages in a disk, with its kernel and a small first filesystem; kept in target/vm
//!     payload  the compiled tests and the binary in a second disk, at the paths that they were built with
//!     machine  QEMU with both disks and a swap disk; what it prints, line by line, within the time limit
//!     report   those lines as results, counted
//!
//! Of the security modules that exclude each other a boot has one: AppArmor, and in a boot of their own the tests whose
//! name has `selinux`, under a policy of the ring's (guest/policy.conf).
//!
//! Nothing is installed on the host but the packages of [`packages::VM`], nothing is written to the disks that are
//! kept, and everything else is in a scratch directory that goes with the command. The machine has no network.

mod image;
mod machine;
mod payload;
mod report;

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};

use crate::engine::Scratch;
use crate::packages;
use crate::process::is_root;

/// Emulation is slow, but a ring that takes longer than this hangs.
const LIMIT: Duration = Duration::from_secs(45 * 60);

/// Runs the tests whose name (`crate::binary::test`) contains every word of `filter`.
pub fn run(filter: &[String]) -> Result<()> {
    ensure!(
        cfg!(target_arch = "x86_64"),
        "the virtual machine is x86-64 only so far"
    );
    ensure!(
        is_root(),
        "making the machine's disk needs root: it holds a whole Debian with its owners and devices"
    );
    packages::install(&[packages::BUILD, packages::VM])?;
    let begin = Instant::now();
    let scratch = Scratch::new("berth-vm")?;
    let image = image::Image::prepare(&scratch.0)?;
    let payload = payload::make(&scratch, filter)?;
    println!("disks are ready after {} s", begin.elapsed().as_secs());
    let swap = scratch.join("swap.img");
    std::fs::File::create(&swap)?.set_len(128 << 20)?;
    let disks = [image.disk.clone(), payload.disk, swap];
    let mut results = report::Report::default();
    for guard in payload.boots {
        results.boot();
        let outcome = machine::run(&image, guard, &disks, LIMIT, |line| results.line(line));
        if !matches!(outcome, Ok(true)) || !results.complete() {
            println!("{results} in {} s", begin.elapsed().as_secs());
            outcome?;
            bail!("the machine stopped before the tests ended");
        }
    }
    println!("{results} in {} s", begin.elapsed().as_secs());
    if results.failed > 0 || results.passed == 0 {
        bail!("the tests did not pass");
    }
    Ok(())
}
