//! AppArmor, where the kernel has it: a container is confined by the profile it asks for. The machine of `cargo xtask test --vm`
//! has it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::fs;
use std::io::Write;
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

#[test]
fn a_profile_confines_the_container() {
    if !possible() {
        return;
    }
    let enabled = fs::read_to_string("/sys/module/apparmor/parameters/enabled").unwrap_or_default();
    if !enabled.starts_with('Y') {
        println!("skipped: this kernel has no AppArmor");
        return;
    }
    if Command::new("apparmor_parser").arg("--version").output().is_err() {
        println!("skipped: needs apparmor_parser (package apparmor)");
        return;
    }
    let profile = Profile::load();
    let mut bundle = Bundle::new();
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
