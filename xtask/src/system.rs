//! The system this machine runs, as far as packages go: which release of Debian or Ubuntu, and where its packages come from.
//!
//! A root filesystem that is made here is of the same release, from the same mirrors, and trusts the same keys: nothing else
//! is sure to be reachable.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

use crate::packages::{self, Package};
use crate::process::{capture, run};

/// A release of a distribution.
#[derive(Debug, PartialEq, Eq)]
pub struct System {
    family: Family,
    codename: String,
    /// Releases that are not out yet have none.
    version: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    Debian,
    Ubuntu,
}

impl Family {
    /// As its repositories name their origin.
    fn origin(self) -> &'static str {
        match self {
            Family::Debian => "Debian",
            Family::Ubuntu => "Ubuntu",
        }
    }

    /// What brings the keys of its repositories, and where they are.
    fn keyring(self) -> &'static Package {
        match self {
            Family::Debian => &packages::DEBIAN_KEYRING,
            Family::Ubuntu => &packages::UBUNTU_KEYRING,
        }
    }
}

impl System {
    pub fn of_this_machine() -> Result<System> {
        let path = "/etc/os-release";
        parse(&std::fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?)
            .with_context(|| format!("{path} is neither Debian's nor Ubuntu's"))
    }

    /// What Docker Hub calls it.
    pub fn image(&self) -> String {
        let name = self.family.origin().to_lowercase();
        format!("{name}:{}", self.version.as_ref().unwrap_or(&self.codename))
    }

    /// Makes a root filesystem of this release as a tar at `archive`.
    pub fn make(&self, options: &[&str], archive: &Path) -> Result<()> {
        let keyring = self.family.keyring();
        packages::install(&[std::slice::from_ref(keyring)])?;
        let mut make = Command::new("mmdebstrap");
        make.arg("--quiet").args(options).arg(&self.codename).arg(archive);
        run(make.args(self.sources(keyring.program)?))
    }

    /// The machine's own sources of this release, in the form of sources.list(5).
    fn sources(&self, keyring: &str) -> Result<Vec<String>> {
        let mut found = self.sources_in(&indexed()?, keyring);
        if found.is_empty() {
            // Nobody has looked what they hold.
            run(Command::new("apt-get").args(["-qq", "update"]))?;
            found = self.sources_in(&indexed()?, keyring);
        }
        ensure!(
            !found.is_empty(),
            "none of this machine's package sources is of {} {}: see apt-get indextargets",
            self.family.origin(),
            self.codename
        );
        Ok(found)
    }

    fn sources_in(&self, indexed: &str, keyring: &str) -> Vec<String> {
        let mut components: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
        for line in indexed.lines() {
            let [origin, codename, uri, release, component] =
                line.split(' ').collect::<Vec<_>>().try_into().unwrap_or([""; 5]);
            let of_release = codename.strip_prefix(self.codename.as_str());
            if origin == self.family.origin() && matches!(of_release, Some("" | "-updates" | "-security")) {
                let known = components.entry((uri, release)).or_default();
                if !known.contains(&component) {
                    known.push(component);
                }
            }
        }
        let line = |((uri, release), components): ((&str, &str), Vec<&str>)| {
            format!(
                "deb [signed-by={keyring}] {uri} {release} {}",
                components.join(" ")
            )
        };
        components.into_iter().map(line).collect()
    }
}

/// Origin, code name, place, release and component of each list of packages that is here.
fn indexed() -> Result<String> {
    capture(Command::new("apt-get").args([
        "indextargets",
        "--format",
        "$(ORIGIN) $(CODENAME) $(REPO_URI) $(RELEASE) $(COMPONENT)",
        "Created-By: Packages",
    ]))
}

/// Reads os-release(5).
fn parse(text: &str) -> Result<System> {
    let field = |name: &str| {
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        line.map(|value| value.trim_matches(['"', '\'']).to_owned())
    };
    let family = match field("ID").as_deref() {
        Some("debian") => Family::Debian,
        Some("ubuntu") => Family::Ubuntu,
        other => bail!("the system is {}", other.unwrap_or("without a name")),
    };
    Ok(System {
        family,
        codename: field("VERSION_CODENAME").context("the release has no code name")?,
        version: field("VERSION_ID"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEBIAN: &str = "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nVERSION_ID=\"12\"\nVERSION_CODENAME=bookworm\nID=debian\n";
    const UBUNTU: &str = "ID=ubuntu\nID_LIKE=debian\nVERSION_ID=\"24.04\"\nVERSION_CODENAME=noble\n";

    #[test]
    fn the_release_is_the_machines_own() {
        let debian = parse(DEBIAN).unwrap();
        assert_eq!(
            (debian.image().as_str(), debian.codename.as_str()),
            ("debian:12", "bookworm")
        );
        let ubuntu = parse(UBUNTU).unwrap();
        assert_eq!(
            (ubuntu.image().as_str(), ubuntu.codename.as_str()),
            ("ubuntu:24.04", "noble")
        );
        let next = parse("ID=debian\nVERSION_CODENAME=forky\n").unwrap();
        assert_eq!(next.image(), "debian:forky");
        for other in ["ID=fedora\nVERSION_ID=40\n", "", "ID=debian\n"] {
            assert!(parse(other).is_err(), "{other}");
        }
    }

    #[test]
    fn its_sources_are_the_machines_own_without_what_others_added() {
        let indexed = "Debian bookworm http://m/debian/ bookworm main\n\
                       Debian bookworm http://m/debian/ bookworm main\n\
                       Debian bookworm http://m/debian/ bookworm contrib\n\
                       Debian bookworm-security http://m/security/ stable-security main\n\
                       Debian bookworm-backports http://m/debian/ bookworm-backports main\n\
                       Debian trixie http://m/debian/ testing main\n\
                       Docker bookworm http://d/ bookworm stable\n nonsense\n";
        assert_eq!(
            parse(DEBIAN).unwrap().sources_in(indexed, "/k.gpg"),
            [
                "deb [signed-by=/k.gpg] http://m/debian/ bookworm main contrib",
                "deb [signed-by=/k.gpg] http://m/security/ stable-security main",
            ]
        );
        let indexed = "Ubuntu noble http://u/ noble main\nUbuntu noble http://u/ noble universe\n";
        assert_eq!(
            parse(UBUNTU).unwrap().sources_in(indexed, "/k.gpg"),
            ["deb [signed-by=/k.gpg] http://u/ noble main universe"]
        );
        assert_eq!(parse(UBUNTU).unwrap().sources_in("", "/k.gpg"), [""; 0]);
    }
}
