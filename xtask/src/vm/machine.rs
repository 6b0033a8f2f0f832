//! QEMU: hardware help where it really works, emulation otherwise, and an end in any case.
//!
//! `/dev/kvm` may be there and yet not carry a kernel (nested machines); so with its help the machine must speak
//! within [`FIRST_WORD`], or it is started again without.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::image::Image;
use crate::interrupt::Watched;

/// With hardware help a boot takes a second or two.
const FIRST_WORD: Duration = Duration::from_secs(10);
const MEMORY: &str = "2048";
/// Control groups of version 2 only; a panic ends the machine. The timer is not checked: an emulated one on a busy host seems
/// not to work.
const KERNEL_ARGUMENTS: &str =
    "console=ttyS0 panic=-1 quiet loglevel=2 cgroup_no_v1=all random.trust_cpu=on no_timer_check";

/// Which of the security modules that exclude each other is in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guard {
    AppArmor,
    SeLinux,
}

impl Guard {
    /// As the kernel's command line names it.
    pub fn word(self) -> &'static str {
        match self {
            Guard::AppArmor => "apparmor",
            Guard::SeLinux => "selinux",
        }
    }
}

/// A machine that is ended when it is dropped.
struct Machine {
    process: Child,
    _watched: Watched,
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Boots and hands every line to `line`, which says whether the machine works by now. True when the machine ended
/// by itself within `limit`.
pub fn run(
    image: &Image,
    guard: Guard,
    disks: &[PathBuf],
    limit: Duration,
    mut line: impl FnMut(&str) -> bool,
) -> Result<bool> {
    let deadline = Instant::now() + limit;
    if Path::new("/dev/kvm").exists() {
        println!("booting with hardware help");
        match watch(image, guard, disks, "kvm", deadline, Some(FIRST_WORD), &mut line)? {
            Some(ended) => return Ok(ended),
            None => println!("the hardware help does not work here"),
        }
    }
    println!("booting in emulation");
    match watch(image, guard, disks, "tcg", deadline, None, &mut line)? {
        Some(ended) => Ok(ended),
        None => bail!("the machine said nothing"),
    }
}

/// None when it said nothing that `line` took for a working machine before `first_word` was over.
fn watch(
    image: &Image,
    guard: Guard,
    disks: &[PathBuf],
    accelerator: &str,
    deadline: Instant,
    first_word: Option<Duration>,
    line: &mut impl FnMut(&str) -> bool,
) -> Result<Option<bool>> {
    let (mut machine, lines) = boot(image, guard, disks, accelerator)?;
    let speak_by = first_word.map_or(deadline, |time| deadline.min(Instant::now() + time));
    let mut works = false;
    loop {
        let until = if works { deadline } else { speak_by };
        match lines.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(text) => works = line(&text) || works,
            Err(RecvTimeoutError::Timeout) if works || first_word.is_none() => {
                println!("the time limit is over");
                return Ok(Some(false));
            }
            Err(RecvTimeoutError::Timeout) => return Ok(None),
            Err(RecvTimeoutError::Disconnected) => {
                let status = machine.process.wait()?;
                return Ok(works.then_some(status.success()));
            }
        }
    }
}

fn boot(
    image: &Image,
    guard: Guard,
    disks: &[PathBuf],
    accelerator: &str,
) -> Result<(Machine, Receiver<String>)> {
    let mut qemu = Command::new("qemu-system-x86_64");
    qemu.args(["-accel", accelerator, "-cpu", "max", "-smp", "1", "-m", MEMORY])
        .args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"])
        .args([
            "-serial",
            "stdio",
            "-nic",
            "none",
            "-object",
            "rng-random,id=rng0",
        ])
        .args(["-device", "virtio-rng-pci,rng=rng0"])
        .arg("-kernel")
        .arg(&image.kernel)
        .arg("-initrd")
        .arg(&image.initramfs)
        .arg("-append")
        .arg(format!("{KERNEL_ARGUMENTS} security={}", guard.word()));
    for disk in disks {
        // A snapshot: what the machine writes goes to a file without a name.
        let drive = format!(
            "file={},format=raw,if=virtio,snapshot=on,cache=unsafe",
            disk.display()
        );
        qemu.args(["-drive", &drive]);
    }
    let mut child = qemu
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .context("cannot run qemu-system-x86_64")?;
    let output = child.stdout.take().context("no output of qemu")?;
    let watched = Watched::new(&child);
    let (sender, lines) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
            let text = String::from_utf8_lossy(&line);
            if sender.send(text.trim_end().to_owned()).is_err() {
                break;
            }
        }
    });
    let machine = Machine {
        process: child,
        _watched: watched,
    };
    Ok((machine, lines))
}
