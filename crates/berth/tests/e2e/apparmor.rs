//! Containers under the engine's AppArmor profile, where the kernel has AppArmor in force (`cargo xtask test --vm apparmor`).

use crate::support::{Daemon, text};

/// Ends a test where the engine has no profile to give.
macro_rules! profile {
    () => {
        guard!();
        let enabled = std::fs::read_to_string("/sys/module/apparmor/parameters/enabled").unwrap_or_default();
        if !enabled.starts_with('Y') || !std::path::Path::new("/sys/kernel/security/apparmor").exists() {
            println!("skipped: needs AppArmor (cargo xtask test --vm apparmor)");
            return;
        }
    };
}

const OWN: &str = "cat /proc/self/attr/current";
const CONFINED: &str = "berth-default (enforce)\n";

fn shell(daemon: &Daemon, options: &[&str], script: &str) -> String {
    daemon.ok(&[&["run", "--rm"], options, &["box:1", "sh", "-c", script]].concat())
}

#[test]
fn containers_have_the_engines_profile_unless_they_say_otherwise() {
    profile!();
    let daemon = Daemon::start();
    assert!(
        daemon
            .ok(&["info", "--format", "{{json .SecurityOptions}}"])
            .contains("\"name=apparmor\"")
    );
    assert_eq!(shell(&daemon, &[], OWN), CONFINED);
    assert_eq!(
        shell(&daemon, &["--security-opt", "apparmor=docker-default"], OWN),
        CONFINED
    );
    assert_eq!(
        shell(
            &daemon,
            &["--security-opt", "no-new-privileges", "--user", "1000"],
            OWN
        ),
        CONFINED
    );
    for free in [&["--privileged"][..], &["--security-opt", "apparmor=unconfined"]] {
        assert_eq!(shell(&daemon, free, OWN), "unconfined\n");
    }
    let (code, error) = daemon.fails(&[
        "run",
        "--rm",
        "--security-opt",
        "apparmor=no-such",
        "box:1",
        "true",
    ]);
    assert!(
        code == 125 && error.contains("process.apparmorProfile \"no-such\": no such profile is loaded"),
        "{error}"
    );
    // An exec has it, a step of a build, and what comes after a restart.
    daemon.ok(&["run", "-d", "--init", "--name", "one", "box:1", "sleep", "1000"]);
    assert_eq!(daemon.ok(&["exec", "one", "sh", "-c", OWN]), CONFINED);
    assert_eq!(
        daemon.ok(&["inspect", "--format", "{{.AppArmorProfile}}", "one"]),
        "berth-default\n"
    );
    let context = tempfile::tempdir().unwrap();
    let file = format!("FROM box:1\nRUN {OWN} > /label\n");
    std::fs::write(context.path().join("Dockerfile"), file).unwrap();
    daemon.built(&["-t", "made:1", context.path().to_str().unwrap()]);
    assert_eq!(daemon.ok(&["run", "--rm", "made:1", "cat", "/label"]), CONFINED);
    // The engine ends it by a signal that it hears.
    daemon.ok(&["stop", "-t", "60", "one"]);
    assert_eq!(
        daemon.ok(&["inspect", "--format", "{{.State.ExitCode}}", "one"]),
        "143\n"
    );
    let said = text(&daemon.run(&["info"]).stderr);
    assert!(!said.contains("AppArmor"), "{said}");
}

/// Each of these is open to root with these capabilities when the profile is taken away.
#[test]
fn the_apparmor_profile_forbids_what_rights_alone_would_allow() {
    profile!();
    let daemon = Daemon::start();
    let rights = [
        "--cap-add",
        "SYS_ADMIN",
        "--security-opt",
        "seccomp=unconfined",
        "--security-opt",
        "systempaths=unconfined",
    ];
    let script = "busybox mount -t tmpfs none /srv 2> /dev/null && echo mounted; \
        (cat /proc/sys/kernel/printk > /tmp/p && cat /tmp/p > /proc/sys/kernel/printk) 2> /dev/null && echo set; \
        (: > /proc/sysrq-trigger) 2> /dev/null && echo triggered; \
        sleep 100 & kill -9 $! && echo signalled; \
        echo x > /proc/self/comm && echo renamed; echo x > /srv/file && echo wrote";
    let confined = shell(&daemon, &rights, script);
    assert_eq!(confined, "signalled\nrenamed\nwrote\n");
    let free = [&rights[..], &["--security-opt", "apparmor=unconfined"]].concat();
    assert_eq!(
        shell(&daemon, &free, script),
        "mounted\nset\ntriggered\nsignalled\nrenamed\nwrote\n"
    );
}
