//! Devices, system call profiles and what is given by name.

use super::inside;
use crate::support::{Daemon, text};

/// Opens a node in a container: `yes`, or the kernel's refusal.
fn opens(daemon: &Daemon, flags: &[&str], node: &str, how: &str) -> String {
    inside(daemon, flags, &format!("( : {how} {node} ) && echo yes"))
        .trim()
        .to_owned()
}

/// A character device of the host that is not in the default list and that anybody with the rule may open.
fn device() -> Option<(&'static str, (u64, u64))> {
    use std::os::unix::fs::MetadataExt as _;
    let known = ["/dev/fuse", "/dev/net/tun", "/dev/loop-control"];
    let found = known.into_iter().find_map(|node| {
        let number = std::fs::metadata(node).ok()?.rdev();
        // All three have small numbers, as gnu_dev_major(3) and gnu_dev_minor(3) read them.
        Some((node, (number >> 8 & 0xfff, number & 0xff)))
    });
    if found.is_none() {
        println!("skipped: needs one of {}", known.join(", "));
    }
    found
}

/// An archive may hold nodes of the host's devices; that they lie in an image opens none of them.
#[test]
fn devices_of_images_are_not_opened() {
    guard!();
    let ids = crate::userns::subordinate("containers:500000:65536\n");
    let daemon = Daemon::start_with(&["--subid-dir", &ids.path().display().to_string()]);
    let Some((_, number)) = device() else { return };
    let tar = daemon.dir.path().join("device.tar");
    let mut archive = crate::tarball::Tar::default()
        .directory("bin")
        .program("bin/busybox", &std::fs::read("/bin/busybox").unwrap())
        .symlink("bin/sh", "busybox");
    // The second one takes the place of what was made of the first.
    archive = archive.file("node", b"a file").device("node", number);
    std::fs::write(&tar, archive.finish()).unwrap();
    daemon.ok(&["import", &tar.display().to_string(), "device:1"]);
    let looks = "busybox stat -c '%F' /node; ( : < /node ) && echo opened";
    for flags in [&[][..], &["--userns", "auto:size=1000"], &["--user", "33"]] {
        let run = [&["run", "--rm"][..], flags, &["device:1", "sh", "-c", looks]].concat();
        let output = daemon.run(&run);
        let (shown, said) = (text(&output.stdout), text(&output.stderr));
        assert_eq!(shown, "character special file\n", "{flags:?}: {said}");
        assert!(
            said.contains("not permitted") || said.contains("denied"),
            "{flags:?}: {said}"
        );
    }
    // With a rule for it the node is one.
    let rule = format!("c {}:{} rwm", number.0, number.1);
    let run = [
        "run",
        "--rm",
        "--device-cgroup-rule",
        &rule,
        "device:1",
        "sh",
        "-c",
        looks,
    ];
    assert_eq!(text(&daemon.run(&run).stdout), "character special file\nopened\n");
}

/// Without rules for devices a container makes the node it likes (it may, for archives hold them) and opens the
/// host's disk or memory.
#[test]
fn only_devices_that_were_given_can_be_opened() {
    guard!();
    let daemon = Daemon::start();
    let Some((node, number)) = device() else { return };
    let (major, minor) = number;
    let made = format!("busybox mknod /tmp/node c {major} {minor} && ( : < /tmp/node ) && echo yes");
    let refused = inside(&daemon, &[], &made);
    assert!(refused.contains("Operation not permitted"), "{refused}");
    let rule = format!("c {major}:{minor} rwm");
    assert_eq!(inside(&daemon, &["--device-cgroup-rule", &rule], &made), "yes\n");
    let given = format!("{node}:/dev/given:r");
    assert_eq!(opens(&daemon, &["--device", &given], "/dev/given", "<"), "yes");
    assert!(opens(&daemon, &["--device", &given], "/dev/given", ">>").contains("not permitted"));
    // A link is followed on the host.
    let link = daemon.dir.path().join("link");
    std::os::unix::fs::symlink(node, &link).unwrap();
    let link = format!("{}:/dev/there", link.display());
    let stat = inside(&daemon, &["--device", &link], "busybox stat -c %t:%T /dev/there");
    assert_eq!(stat, format!("{major:x}:{minor:x}\n"));
    let (_, error) = daemon.fails(&["run", "--rm", "--device", "/dev/nosuch", "box:1", "true"]);
    assert!(
        error.contains("error gathering device information while adding custom device \"/dev/nosuch\": no such file or directory"),
        "{error}"
    );
    let (code, error) = daemon.fails(&["run", "--rm", "--device-cgroup-rule", "c 1:x r", "box:1", "true"]);
    assert!(code == 125 && error.contains("invalid device cgroup"), "{error}");
    // Everything, on request.
    assert_eq!(opens(&daemon, &["--privileged"], node, "<"), "yes");
}

/// A profile in Docker's JSON decides: the default action, a condition on an argument, on capabilities, on the kernel
/// and the architecture. An engine that passes over a condition lets the call through, or refuses it.
#[test]
fn a_profile_of_ones_own_decides() {
    guard!();
    let daemon = Daemon::start();
    let profile = daemon.dir.path().join("profile.json");
    std::fs::write(
        &profile,
        r#"{"defaultAction":"SCMP_ACT_ALLOW","archMap":[{"architecture":"SCMP_ARCH_X86_64","subArchitectures":["SCMP_ARCH_X86"]},
            {"architecture":"SCMP_ARCH_AARCH64","subArchitectures":["SCMP_ARCH_ARM"]}],"syscalls":[
            {"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO","errnoRet":28,"excludes":{"caps":["CAP_SYS_TIME"]}},
            {"names":["symlink","symlinkat"],"action":"SCMP_ACT_ERRNO","errnoRet":28,"includes":{"minKernel":"99.0"}},
            {"names":["unlink","unlinkat"],"action":"SCMP_ACT_ERRNO","errnoRet":5,"includes":{"minKernel":"4.8","arches":["amd64","arm64"]}},
            {"names":["kill"],"action":"SCMP_ACT_ERRNO","errnoRet":5,"args":[{"index":1,"value":10,"op":"SCMP_CMP_EQ"}]}]}"#,
    )
    .unwrap();
    let option = format!("seccomp={}", profile.display());
    let script = "mkdir /d && echo made; ln -s x /l && echo linked; busybox rm /l; \
        busybox kill -USR1 1; busybox kill -0 1 && echo asked";
    let text = inside(&daemon, &["--security-opt", &option], script);
    assert!(
        text.contains("No space left on device") && !text.contains("made"),
        "{text}"
    );
    assert!(text.contains("linked") && text.contains("asked"), "{text}");
    assert_eq!(text.matches("Input/output error").count(), 2, "{text}");
    let text = inside(
        &daemon,
        &["--security-opt", &option, "--cap-add", "SYS_TIME"],
        script,
    );
    assert!(text.contains("made"), "{text}");

    std::fs::write(&profile, r#"{"defaultAction":"SCMP_ACT_NOPE"}"#).unwrap();
    let (code, error) = daemon.fails(&["run", "--rm", "--security-opt", &option, "box:1", "true"]);
    assert!(code == 125 && error.contains("SCMP_ACT_NOPE"), "{code} {error}");
    assert_eq!(daemon.ok(&["ps", "-aq"]), "");
}

/// The default filter is compiled for the first container and found again by the next ones.
#[test]
fn a_filter_is_compiled_once() {
    guard!();
    let daemon = Daemon::start();
    let cache = daemon.dir.path().join("run/seccomp");
    let filters = || {
        let mut filters: Vec<_> = std::fs::read_dir(&cache)
            .map(|entries| {
                entries
                    .flatten()
                    .map(|entry| {
                        (
                            entry.file_name(),
                            std::os::unix::fs::MetadataExt::ino(&entry.metadata().unwrap()),
                        )
                    })
                    .collect()
            })
            .unwrap_or_default();
        filters.sort();
        filters
    };
    daemon.ok(&["run", "--rm", "box:1", "true"]);
    let first = filters();
    assert_eq!(first.len(), 1);
    daemon.ok(&["run", "--rm", "box:1", "true"]);
    assert_eq!(filters(), first, "the same file, not a new one");
    daemon.ok(&["run", "--rm", "--cap-add", "SYS_PTRACE", "box:1", "true"]);
    assert_eq!(filters().len(), 2);
}

/// A device by name brings everything its description says, into this container only.
#[test]
fn a_device_by_name_brings_what_it_needs() {
    guard!();
    let Some((node, _)) = device() else { return };
    let directory = tempfile::tempdir().unwrap();
    let driver = directory.path().join("driver");
    std::fs::create_dir(&driver).unwrap();
    std::fs::write(driver.join("library"), "of the vendor\n").unwrap();
    let hook = directory.path().join("hooked");
    std::fs::write(
        directory.path().join("vendor.yaml"),
        format!(
            "cdiVersion: \"0.6.0\"\nkind: vendor.com/device\ndevices:\n- name: one\n  containerEdits:\n    env:\n    - DEVICE=one\n    \
             deviceNodes:\n    - path: /dev/one\n      hostPath: {node}\n      permissions: r\n    mounts:\n    - hostPath: {}\n      \
             containerPath: /driver\n      options: [ro, bind]\n    hooks:\n    - hookName: createRuntime\n      path: /bin/sh\n      \
             args: [sh, -c, \"cat > {}\"]\n",
            driver.display(),
            hook.display()
        ),
    )
    .unwrap();
    let daemon = Daemon::start_with(&["--cdi-spec-dir", directory.path().to_str().unwrap()]);
    let script = "echo $DEVICE; cat /driver/library; ( : < /dev/one ) && echo open; ( : >> /dev/one ) 2>/dev/null || echo read-only; \
        touch /driver/x 2>/dev/null || echo fixed";
    let seen = inside(&daemon, &["--device", "vendor.com/device=one"], script);
    assert_eq!(seen, "one\nof the vendor\nopen\nread-only\nfixed\n");
    assert!(
        std::fs::read_to_string(&hook).unwrap().contains("\"status\""),
        "the hook was given the state"
    );
    assert_eq!(
        inside(
            &daemon,
            &[],
            "ls -d /driver /dev/one 2>/dev/null; echo \"$DEVICE\""
        ),
        "\n"
    );
    assert_eq!(
        daemon
            .ok(&["info", "--format", "{{json .DiscoveredDevices}}"])
            .trim(),
        r#"[{"ID":"vendor.com/device=one","Source":"cdi"}]"#
    );
    let output = daemon.run(&[
        "run",
        "--rm",
        "--device",
        "vendor.com/device=two",
        "box:1",
        "true",
    ]);
    let error = text(&output.stderr);
    assert!(
        error.contains("CDI device injection failed: unresolvable CDI devices vendor.com/device=two"),
        "{error}"
    );
    daemon.run(&["rm", "-f", daemon.ok(&["ps", "-aql"]).trim()]);
}

/// What `--privileged` is for: every device of the host, /proc and /sys as they are, every right. An engine that
/// forgets a part of it still masks, refuses or hides.
#[test]
fn privileged_is_everything_the_daemon_has() {
    guard!();
    let daemon = Daemon::start();
    let script = "echo masked $(busybox grep -c ' /sys/firmware \\| /proc/keys \\| /proc/interrupts ' /proc/self/mounts); \
        busybox grep -q ' /proc/sys ' /proc/self/mounts || echo writable; \
        busybox grep ' /sys sysfs ' /proc/self/mounts | busybox cut -d' ' -f4 | busybox cut -d, -f1; \
        busybox grep '^Seccomp:' /proc/self/status; mkdir -p /m && busybox mount -t tmpfs x /m && echo mounted";
    let seen = inside(&daemon, &["--privileged"], script);
    assert_eq!(seen, "masked 0\nwritable\nrw\nSeccomp:\t0\nmounted\n");
    // Nodes of the host, but not those that a container has its own of.
    let names = |listing: &str| -> std::collections::BTreeSet<String> {
        let own = [
            "pts", "shm", "fd", "mqueue", "console", "ptmx", "core", "stdin", "stdout", "stderr", "log",
        ];
        listing
            .lines()
            .filter(|name| !own.contains(name))
            .map(str::to_owned)
            .collect()
    };
    let nodes = "cd /dev; for f in *; do [ -c $f ] || [ -b $f ] && echo $f; done; true";
    let host = std::process::Command::new("/bin/busybox")
        .args(["sh", "-c", nodes])
        .output()
        .unwrap();
    let missing: Vec<String> = names(&text(&host.stdout))
        .difference(&names(&inside(&daemon, &["--privileged"], nodes)))
        .cloned()
        .collect();
    assert_eq!(missing, Vec::<String>::new());
    assert!(!inside(&daemon, &[], nodes).contains("loop"), "only on request");
}
