//! AppArmor, where the kernel has it: a container is confined by the profile it asks for. The machine of `cargo xtask test --vm`
//! has it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use support::{Bundle, possible};

/// A profile that the kernel has until this goes.
struct Profile {
    name: String,
    text: String,
}

impl Profile {
    /// Everything but reading `/secret`.
    fn load() -> Profile {
        let name = format!("berth-test-{}", std::process::id());
        let text = format!(
            "profile {name} flags=(attach_disconnected, mediate_deleted) {{\n  file,\n  capability,\n  network,\n  \
             signal,\n  deny /secret r,\n}}\n"
        );
        let profile = Profile { name, text };
        profile.parser("--add");
        profile
    }

    fn parser(&self, action: &str) {
        let mut parser = Command::new("apparmor_parser")
            .args([action, "--skip-cache"])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let mut input = parser.stdin.take().unwrap();
        input.write_all(self.text.as_bytes()).unwrap();
        drop(input);
        assert!(parser.wait().unwrap().success(), "{action}");
    }
}

impl Drop for Profile {
    fn drop(&mut self) {
        self.parser("--remove");
    }
}

/// A bundle, and a profile to confine its container with.
fn prepared() -> Option<(Bundle, Profile)> {
    if !possible() {
        return None;
    }
    let enabled = fs::read_to_string("/sys/module/apparmor/parameters/enabled").unwrap_or_default();
    if !enabled.starts_with('Y') {
        println!("skipped: this kernel has no AppArmor");
        return None;
    }
    if Command::new("apparmor_parser").arg("--version").output().is_err() {
        println!("skipped: needs apparmor_parser (package apparmor)");
        return None;
    }
    Some((Bundle::new(), Profile::load()))
}

#[test]
fn a_profile_confines_the_container() {
    let Some((mut bundle, profile)) = prepared() else {
        return;
    };
    fs::write(bundle.root().join("secret"), "secret\n").unwrap();
    let script = "cat /proc/self/attr/current; cat /secret 2>&1 || true";
    // Without it the file can be read.
    let free = bundle.shell_output(script);
    assert!(
        free.ends_with("secret\n") && !free.contains(&profile.name),
        "{free}"
    );

    bundle.process().apparmor_profile = profile.name.clone();
    assert_eq!(
        bundle.shell_output(script),
        format!(
            "{} (enforce)\ncat: can't open '/secret': Permission denied\n",
            profile.name
        )
    );
}

/// The profile is set through a file of /proc. Where a volume or the image is at its place, it would be written to a file of
/// theirs, and the container run without it (CVE-2019-16884, CVE-2025-52881).
#[test]
fn a_profile_is_not_given_to_a_file_that_looks_like_the_kernels() {
    let Some((mut bundle, profile)) = prepared() else {
        return;
    };
    bundle.process().apparmor_profile = profile.name.clone();
    bundle.linux().masked_paths.clear();
    bundle.linux().readonly_paths.clear();
    bundle
        .spec
        .mounts
        .retain(|mount| mount.destination != Path::new("/proc"));
    let attributes = bundle.root().join("proc/thread-self/attr");
    fs::create_dir_all(attributes.join("apparmor")).unwrap();
    for name in ["exec", "apparmor/exec"] {
        fs::write(attributes.join(name), "").unwrap();
    }
    let error = bundle.shell("true").run().unwrap_err().to_string();
    assert!(error.contains("needs a procfs at /proc"), "{error}");
    assert_eq!(fs::read_to_string(attributes.join("exec")).unwrap(), "");
}
