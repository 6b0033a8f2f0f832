//! Doors into the kernel that no namespace divides.

use super::{PERL, has_perl, inside};
use crate::support::Daemon;

/// Writing any of these reaches the whole host: programs that the kernel runs as root outside, or its state.
/// An engine without the read-only paths prints WROTE (and has just broken the machine's core_pattern: the value
/// that is written is the present one).
#[test]
fn settings_of_the_host_cannot_be_written() {
    guard!();
    let daemon = Daemon::start();
    let script = "for f in /proc/sys/kernel/core_pattern /proc/sys/kernel/modprobe /proc/sys/vm/swappiness /proc/sys/fs/file-max \
         /sys/kernel/uevent_helper; do \
         [ -e $f ] || continue; echo there; v=$(cat $f 2>/dev/null); ( echo \"$v\" > $f ) 2>/dev/null && echo WROTE $f; done; \
         ( : > /proc/sysrq-trigger ) 2>/dev/null && echo WROTE sysrq; \
         for d in /proc /proc/sys /proc/sysrq-trigger /sys /proc/bus /proc/fs /proc/irq; do \
         busybox mount -o remount,rw $d 2>/dev/null && echo REMOUNTED $d; busybox umount $d 2>/dev/null && echo UNMOUNTED $d; done; \
         busybox mount -t proc proc /srv 2>/dev/null && echo MOUNTED";
    let text = inside(&daemon, &[], script);
    assert!(text.contains("there"), "{text}");
    for word in ["WROTE", "MOUNTED", "REMOUNTED", "UNMOUNTED"] {
        assert!(!text.contains(word), "{text}");
    }
    // Only the default holds it back: the same script with everything given does write.
    let text = inside(
        &daemon,
        &["--privileged"],
        "v=$(cat /proc/sys/vm/swappiness); echo $v > /proc/sys/vm/swappiness && echo WROTE",
    );
    assert!(text.contains("WROTE"), "{text}");
}

/// A version 1 hierarchy runs the program that its root names, on the host. An engine that shows it writable, or
/// lets a container mount one or make namespaces to do so (CVE-2022-0492), prints WROTE or MOUNTED.
#[test]
fn no_release_agent_can_be_set() {
    guard!();
    let daemon = Daemon::start();
    let script = "for f in /sys/fs/cgroup/release_agent /sys/fs/cgroup/notify_on_release /sys/fs/cgroup/*/release_agent \
         /sys/fs/cgroup/*/notify_on_release /sys/fs/cgroup/cgroup.procs /sys/fs/cgroup/*/cgroup.procs; do \
         [ -e $f ] && { echo there; ( echo 0 > $f ) 2>/dev/null && echo WROTE $f; }; done; mkdir /tmp/c; \
         for o in rdma memory devices none,name=x; do busybox mount -t cgroup -o $o c /tmp/c && echo MOUNTED; \
         busybox unshare -U -r -m -C busybox mount -t cgroup -o $o c /tmp/c && echo MOUNTED; done";
    let text = inside(&daemon, &[], script);
    assert!(text.contains("there"), "{text}");
    assert!(!text.contains("WROTE") && !text.contains("MOUNTED"), "{text}");
}

/// Masked files show the host's secrets or layout; an engine that does not cover them prints their bytes.
#[test]
fn what_is_masked_is_empty() {
    guard!();
    let daemon = Daemon::start();
    let script = "for p in /proc/interrupts /proc/kcore /proc/keys /proc/timer_list /proc/sched_debug /proc/latency_stats; do \
         [ -e $p ] && echo $p $(busybox head -c 16 $p | busybox wc -c); done; \
         for d in /proc/acpi /proc/asound /proc/scsi /sys/firmware /sys/devices/virtual/powercap \
         /sys/devices/system/cpu/cpu*/thermal_throttle; do [ -d $d ] && echo $d $(ls $d | busybox wc -l); done";
    let text = inside(&daemon, &[], script);
    assert!(
        text.contains("/proc/keys 0") && text.contains("/proc/interrupts 0"),
        "{text}"
    );
    assert!(text.lines().all(|line| line.ends_with(" 0")), "{text}");
    let text = inside(&daemon, &["--security-opt", "systempaths=unconfined"], script);
    assert!(text.lines().any(|line| !line.ends_with(" 0")), "{text}");
}

/// AF_ALG (38) and AF_VSOCK (40) reach parts of the host that no namespace divides. Without the filter's rule they
/// open, or fail with "not supported" where the kernel lacks them; refused by the filter it is EPERM (1).
#[test]
fn sockets_into_the_kernel_and_the_hypervisor_are_refused() {
    guard!();
    if !has_perl() {
        return;
    }
    let daemon = Daemon::start();
    let probe = "perl -e 'for (1, 2, 38, 40) { print \"$_ \", (socket(my $s, $_, $_ == 38 ? 5 : 1, 0) ? 0 : 0 + $!), \"\\n\" }'";
    assert_eq!(inside(&daemon, &PERL, probe), "1 0\n2 0\n38 1\n40 1\n");
    let free = [&PERL[..], &["--security-opt", "seccomp=unconfined"]].concat();
    let text = inside(&daemon, &free, probe);
    assert!(!text.contains("38 1\n") && !text.contains("40 1\n"), "{text}");
}

/// A mount on top of the engine's own files under /proc hides or redirects what is written there (CVE-2025-52881,
/// CVE-2019-19921). An engine that allows it starts the container.
#[test]
fn nothing_is_mounted_over_proc() {
    guard!();
    let daemon = Daemon::start();
    let source = daemon.dir.path().join("source");
    std::fs::create_dir(&source).unwrap();
    for target in [
        "/proc/self/attr",
        "/proc/sys",
        "/proc/1",
        "/etc/../proc/thread-self",
    ] {
        let (code, error) = daemon.fails(&[
            "run",
            "--rm",
            "-v",
            &format!("{}:{target}", source.display()),
            "box:1",
            "true",
        ]);
        assert!(matches!(code, 125..=127), "{code} {error}");
    }
    assert_eq!(daemon.ok(&["ps", "-aq"]), "", "a failed run leaves nothing");
}
