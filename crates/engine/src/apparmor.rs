//! AppArmor: the profile of containers that name none.
//!
//! Where AppArmor is in force and its parser is installed, the engine's own profile (`apparmor/profile`) is loaded when the
//! engine opens, and every container that is not privileged and says nothing else runs under it, as under Docker's
//! `docker-default`; that name means this profile, too. It stays in the kernel when the daemon ends, since containers go on.

use std::io::{self, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

/// What it is called; all daemons of a host have the same.
pub(crate) const DEFAULT: &str = "berth-default";
const DOCKERS: &str = "docker-default";
const UNCONFINED: &str = "unconfined";
const TEXT: &str = include_str!("apparmor/profile");

/// Whether containers have a profile by default.
#[derive(Debug, Default)]
pub(crate) struct AppArmor {
    on: bool,
}

impl AppArmor {
    /// Loads the profile where that can be.
    pub(crate) fn open() -> AppArmor {
        let enabled = std::fs::read_to_string("/sys/module/apparmor/parameters/enabled").unwrap_or_default();
        if !enabled.starts_with('Y') || !Path::new("/sys/kernel/security/apparmor").exists() {
            return AppArmor::default();
        }
        match load(&text()) {
            Ok(()) => AppArmor { on: true },
            Err(error) => {
                tracing::warn!(
                    %error,
                    "AppArmor is in force, and the profile for containers cannot be loaded: they run without one"
                );
                AppArmor::default()
            }
        }
    }

    pub(crate) fn is_on(&self) -> bool {
        self.on
    }

    /// The profile of a container that asks for `asked`, if it asks; empty where AppArmor is not the engine's matter.
    pub(crate) fn profile(&self, asked: Option<&str>, privileged: bool) -> String {
        let profile = match asked {
            Some("" | UNCONFINED) => UNCONFINED,
            Some(DOCKERS) => DEFAULT,
            Some(named) => return named.to_owned(),
            None if privileged => UNCONFINED,
            None => DEFAULT,
        };
        if self.on {
            profile.to_owned()
        } else {
            String::new()
        }
    }
}

fn text() -> String {
    TEXT.replace("@NAME@", DEFAULT)
}

fn load(text: &str) -> io::Result<()> {
    let mut parser = Command::new("apparmor_parser")
        .args(["--replace", "--skip-cache", "--quiet"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| io::Error::new(error.kind(), format!("apparmor_parser: {error}")))?;
    if let Some(mut input) = parser.stdin.take() {
        input.write_all(text.as_bytes())?;
    }
    let ended = parser.wait_with_output()?;
    if ended.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&ended.stderr);
    Err(io::Error::other(format!(
        "apparmor_parser: {}: {}",
        ended.status,
        said.trim()
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_says_nothing_has_the_engines_profile() {
        let (on, off) = (AppArmor { on: true }, AppArmor::default());
        for (asked, privileged, expected) in [
            (None, false, DEFAULT),
            (None, true, UNCONFINED),
            (Some(DOCKERS), true, DEFAULT),
            (Some(UNCONFINED), false, UNCONFINED),
            (Some(""), false, UNCONFINED),
        ] {
            assert_eq!(on.profile(asked, privileged), expected);
            assert_eq!(off.profile(asked, privileged), "");
        }
        // Whether the kernel has another one, only the kernel knows.
        assert_eq!(on.profile(Some("mine"), true), "mine");
        assert_eq!(off.profile(Some("mine"), false), "mine");
    }

    #[test]
    fn the_profile_is_whole() {
        assert!(text().starts_with("profile berth-default "));
        assert!(!text().contains('@'));
    }
}
