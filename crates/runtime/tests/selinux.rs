//! Confinement by SELinux: what the label of a process may not touch it cannot touch, and what is mounted for a container
//! has the container's label.
//!
//! The labels are of the policy that `cargo xtask test --vm` loads (xtask/src/vm/guest/policy.conf): `container_t` may use
//! `container_file_t` of its own level, `container_viewer_t` also what has no label.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::fs;
use std::path::Path;
use std::process::Command;

use rustix::fs::XattrFlags;
use spec::runtime::Mount;
use support::cli::{self, Cli};
use support::{Bundle, possible};

const ATTRIBUTE: &str = "security.selinux";
const PROCESS: &str = "system_u:system_r:container_t:s0:c1,c2";
const VIEWER: &str = "system_u:system_r:container_viewer_t:s0:c1,c2";
const FILES: &str = "system_u:object_r:container_file_t:s0:c1,c2";
const SECRET: &str = "system_u:object_r:container_secret_t:s0";

/// False, with the reason printed, where there is no policy with these labels.
fn labels() -> bool {
    if !possible() {
        return false;
    }
    if !sys::selinux::is_enabled() || !sys::selinux::is_known(PROCESS) {
        println!("skipped: needs SELinux with the test's policy (cargo xtask test --vm selinux)");
        return false;
    }
    true
}

fn label_of(path: &Path) -> String {
    let mut value = [0; 256];
    let count = rustix::fs::lgetxattr(path, ATTRIBUTE, &mut value)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let text = String::from_utf8_lossy(&value[..count]);
    text.trim_end_matches('\0').to_owned()
}

fn relabel(path: &Path, label: &str) {
    rustix::fs::lsetxattr(path, ATTRIBUTE, label.as_bytes(), XattrFlags::empty()).unwrap();
    if path.is_dir() && !path.is_symlink() {
        for entry in fs::read_dir(path).unwrap() {
            relabel(&entry.unwrap().path(), label);
        }
    }
}

/// A container of its own label on files with its label, and one file that it may not read.
fn confined() -> Bundle {
    let mut bundle = Bundle::new();
    fs::write(bundle.root().join("secret"), "secret\n").unwrap();
    relabel(&bundle.root(), FILES);
    relabel(&bundle.root().join("secret"), SECRET);
    bundle.process().selinux_label = PROCESS.to_owned();
    bundle.linux().mount_label = FILES.to_owned();
    bundle
}

fn tmpfs(place: &str, options: &[&str]) -> Mount {
    Mount {
        destination: place.into(),
        r#type: Some("tmpfs".to_owned()),
        source: Some("tmpfs".to_owned()),
        options: options.iter().map(|&option| option.to_owned()).collect(),
        ..Mount::default()
    }
}

#[test]
fn a_label_confines_the_container() {
    if !labels() {
        return;
    }
    let mut bundle = confined();
    let script = "tr -d '\\0' < /proc/self/attr/current; echo; cat /secret 2>&1 || true; echo own > /tmp/own && cat /tmp/own";
    assert_eq!(
        bundle.shell_output(script),
        format!("{PROCESS}\ncat: can't open '/secret': Permission denied\nown\n")
    );
    // Under the label of the caller it can be read.
    bundle.process().selinux_label.clear();
    let free = bundle.shell_output(script);
    assert!(
        free.ends_with("\nsecret\nown\n") && !free.contains("container_t"),
        "{free}"
    );
}

#[test]
fn a_container_cannot_reach_files_of_anothers_level() {
    if !labels() {
        return;
    }
    let mut bundle = confined();
    relabel(&bundle.root().join("secret"), &FILES.replace("c1,c2", "c1,c3"));
    let text = bundle.shell_output("cat /secret 2>&1 || true");
    assert_eq!(text, "cat: can't open '/secret': Permission denied\n");
    relabel(&bundle.root().join("secret"), &FILES.replace("c1,c2", "c2"));
    assert_eq!(bundle.shell_output("cat /secret"), "secret\n");
}

#[test]
fn what_is_mounted_has_the_containers_label() {
    if !labels() {
        return;
    }
    let mut bundle = confined();
    let other = FILES.replace("c1,c2", "c7");
    fs::create_dir(bundle.root().join("full")).unwrap();
    fs::write(bundle.root().join("full/file"), "").unwrap();
    relabel(&bundle.root().join("full"), FILES);
    bundle.spec.mounts.extend([
        tmpfs("/scratch", &["size=1m"]),
        tmpfs("/full", &["tmpcopyup"]),
        tmpfs("/other", &[&format!("context=\"{other}\"")]),
    ]);
    bundle.linux().masked_paths = vec!["/sys/firmware".to_owned()];
    bundle.shell("sleep 100");
    let (stdio, _output) = support::captured();
    let running = bundle.create(stdio).unwrap().start().unwrap();
    let root = format!("/proc/{}/root", running.pid);
    let label = |path: &str| label_of(Path::new(&format!("{root}{path}")));
    for path in [
        "/dev",
        "/dev/null",
        "/dev/pts",
        "/dev/shm",
        "/dev/mqueue",
        "/scratch",
        "/full/file",
        "/sys/firmware",
    ] {
        assert_eq!(label(path), FILES, "{path}");
    }
    assert_eq!(label("/other"), other);
    assert_eq!(label("/proc/version"), "system_u:object_r:proc_t:s0");
    assert_eq!(label("/sys/kernel"), "system_u:object_r:sysfs_t:s0");
    sys::process::kill(running.pid, 9).unwrap();
    sys::process::wait(std::os::fd::AsFd::as_fd(&running.pidfd)).unwrap();
}

#[test]
fn an_exec_has_the_containers_label_or_its_own() {
    if !labels() {
        return;
    }
    let Some(cli) = Cli::new() else { return };
    let id = cli::id("selinux-exec");
    let mut bundle = confined();
    bundle.linux().cgroups_path = Some(format!("/{id}"));
    bundle.linux().resources = None;
    bundle.shell("sleep 100");
    bundle.write_config();
    cli.run_detached(bundle.path(), &id);
    let script = "tr -d '\\0' < /proc/self/attr/current; kill -CONT $$ && echo sent; cat /secret";
    let out = |label: &[&str]| {
        let mut args = vec!["exec"];
        args.extend(label);
        args.extend([id.as_str(), "sh", "-c", script]);
        String::from_utf8_lossy(&cli.command(&args).stdout).into_owned()
    };
    let (own, other) = (out(&[]), out(&["--process-label", VIEWER]));
    let nobody = cli.fails(&["exec", "--process-label", "no:such:label:s0", &id, "true"]);
    cli.ok(&["delete", "--force", &id]);
    assert_eq!(own, format!("{PROCESS}sent\n"));
    // Its type may send no signals.
    assert_eq!(other, VIEWER);
    assert!(
        nobody.contains(
            "process.selinuxLabel \"no:such:label:s0\": the policy that is loaded has no such label"
        ),
        "{nobody}"
    );
    cli::nothing_is_left(&cli, &id);
}

#[test]
fn the_session_keyring_has_the_processs_label() {
    if !labels() {
        return;
    }
    let mut bundle = confined();
    for directory in ["/usr", "/lib", "/lib64"] {
        bundle.spec.mounts.push(Mount {
            destination: directory.into(),
            source: Some(directory.to_owned()),
            options: vec!["rbind".to_owned(), "ro".to_owned()],
            ..Mount::default()
        });
    }
    bundle.process().selinux_label = VIEWER.to_owned();
    bundle.linux().seccomp = None;
    // keyctl(KEYCTL_GET_SECURITY, the session keyring)
    let script = "$b = \"\\0\" x 256; $n = syscall(250, 17, -3, $b, 256); print $n > 0 ? substr($b, 0, $n - 1) : 0 + $!";
    assert_eq!(bundle.args(&["perl", "-e", script]).output(), VIEWER);
}

#[test]
fn labels_that_cannot_be_are_refused_by_name() {
    if !labels() {
        return;
    }
    let refused = |bundle: &Bundle| bundle.run().unwrap_err().to_string();
    let mut bundle = confined();
    bundle.process().selinux_label = "no:such:label:s0".to_owned();
    let text = refused(&bundle);
    assert!(
        text.contains("process.selinuxLabel \"no:such:label:s0\""),
        "{text}"
    );
    let mut bundle = confined();
    bundle.linux().mount_label = "nonsense".to_owned();
    let text = refused(&bundle);
    assert!(text.contains("linux.mountLabel \"nonsense\""), "{text}");
    // Where /proc is somebody's directory the label would go into a file of theirs, and the process be free.
    let mut bundle = confined();
    bundle
        .spec
        .mounts
        .retain(|mount| mount.destination != Path::new("/proc"));
    bundle.linux().masked_paths.clear();
    bundle.linux().readonly_paths.clear();
    fs::create_dir_all(bundle.root().join("proc/thread-self/attr")).unwrap();
    fs::write(bundle.root().join("proc/thread-self/attr/exec"), "").unwrap();
    let text = refused(&bundle);
    assert!(text.contains("procfs at /proc"), "{text}");
}

/// The oracle: what the process is and what its mounts are labelled, by the runtime that Debian has with SELinux.
#[test]
fn selinux_labels_are_those_that_crun_gives() {
    if !labels() {
        return;
    }
    if Command::new("crun").arg("--version").output().is_err() {
        println!("skipped: needs crun");
        return;
    }
    let Some(cli) = Cli::new() else { return };
    let id = cli::id("selinux-oracle");
    let mut bundle = confined();
    bundle.shell(
        "tr -d '\\0' < /proc/self/attr/current; echo; \
         while read id parent device root place rest; do case \"$rest\" in *context=*) label=${rest#*context=\\\"}; \
         echo $place ${label%%\\\"*};; esac; done < /proc/self/mountinfo | sort",
    );
    bundle.linux().cgroups_path = Some(format!("/{id}"));
    bundle.linux().resources = None;
    bundle.linux().seccomp = None;
    bundle
        .linux()
        .namespaces
        .retain(|namespace| namespace.r#type != spec::runtime::NamespaceType::Time);
    bundle.spec.oci_version = "1.0.2".to_owned();
    bundle.write_config();
    let ours = cli.ok(&["run", "--bundle", bundle.path().to_str().unwrap(), &id]);
    let theirs = Command::new("crun")
        .args(["--cgroup-manager", "cgroupfs", "run", "--bundle"])
        .arg(bundle.path())
        .arg(&id)
        .output()
        .unwrap();
    let complaint = String::from_utf8_lossy(&theirs.stderr);
    assert_eq!(ours, String::from_utf8_lossy(&theirs.stdout), "{complaint}");
    assert!(ours.lines().count() > 3, "{ours}");
}
