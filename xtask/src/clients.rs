//! The docker client of today with its plugins for building and Compose, one that builds without plugins, and a server for
//! repositories over ssh, for the tests that need them.
//!
//! They are taken from Debian's suites, by name, through an apt configuration of their own: the machine's own packages and
//! sources stay as they are. The programs are unpacked into `target/clients` (the old client into `old` there, the server into `ssh`) and nowhere else.
//! Where they cannot be had, `missing` there says why, and the tests that need them say so when they skip themselves.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

use crate::process::{capture, exists, root};

/// Programs of one suite: where they are unpacked, packages, and the program that each one brings.
struct Set {
    suite: &'static str,
    home: &'static str,
    programs: &'static [(&'static str, &'static str)],
}

/// The programs need nothing that a stable system lacks.
const SETS: &[Set] = &[
    Set {
        suite: "testing",
        home: "target/clients",
        programs: &[
            ("docker-cli", "usr/bin/docker"),
            ("docker-buildx", "usr/libexec/docker/cli-plugins/docker-buildx"),
            ("docker-compose", "usr/libexec/docker/cli-plugins/docker-compose"),
        ],
    },
    // The last one that speaks to the builder itself.
    Set {
        suite: "bookworm",
        home: "target/clients/old",
        programs: &[("docker.io", "usr/bin/docker")],
    },
    // A server for repositories over ssh, with the library that most machines lack.
    Set {
        suite: "bookworm",
        home: "target/clients/ssh",
        programs: &[
            ("libwrap0", "usr/lib/x86_64-linux-gnu/libwrap.so.0"),
            ("openssh-server", "usr/sbin/sshd"),
        ],
    },
];

/// Gets the clients once; a failure is told and leaves their tests out.
pub fn fetch() -> Result<()> {
    SETS.iter().try_for_each(Set::fetch)
}

/// Where the clients of today are, for those who cannot do without.
pub fn fetched() -> Result<PathBuf> {
    fetch()?;
    let [today, ..] = SETS else {
        bail!("no clients are named");
    };
    let home = root().join(today.home);
    let missing = home.join("missing");
    match fs::read_to_string(&missing) {
        Ok(why) => bail!("the docker client with buildx cannot be had: {why}"),
        Err(_) => Ok(home),
    }
}

impl Set {
    fn fetch(&self) -> Result<()> {
        let home = root().join(self.home);
        let missing = home.join("missing");
        if self
            .programs
            .iter()
            .all(|(_, program)| home.join(program).is_file())
        {
            return Ok(());
        }
        fs::create_dir_all(&home).with_context(|| format!("cannot create {}", home.display()))?;
        match self.unpack(&home) {
            Ok(()) => {
                let _ = fs::remove_file(missing);
            }
            Err(error) => {
                let suite = self.suite;
                let packages: Vec<&str> = self.programs.iter().map(|(package, _)| *package).collect();
                let packages = packages.join(", ");
                println!("{packages} of Debian {suite} cannot be had: their tests are SKIPPED:");
                println!("    {error:#}");
                fs::write(missing, format!("{error:#}"))?;
            }
        }
        Ok(())
    }

    fn unpack(&self, home: &Path) -> Result<()> {
        ensure!(
            exists("apt-get") && exists("dpkg-deb"),
            "this is no Debian: apt-get or dpkg-deb is missing"
        );
        let apt = Apt::new(home.join("apt"), self.suite)?;
        apt.get(&["update"])?;
        for (package, program) in self.programs {
            println!("fetching {package} of Debian {} for the tests", self.suite);
            apt.get(&["download", package])?;
            let prefix = format!("{package}_");
            let archive = fs::read_dir(&apt.home)?
                .filter_map(|entry| Some(entry.ok()?.path()))
                .find(|path| {
                    path.file_name()
                        .is_some_and(|name| name.to_string_lossy().starts_with(&prefix))
                })
                .with_context(|| format!("apt-get downloaded no {package}"))?;
            capture(Command::new("dpkg-deb").arg("-x").arg(&archive).arg(home))?;
            ensure!(home.join(program).is_file(), "{package} holds no {program}");
        }
        let _ = fs::remove_dir_all(&apt.home);
        Ok(())
    }
}

/// apt with lists and state of its own.
struct Apt {
    home: PathBuf,
}

impl Apt {
    fn new(home: PathBuf, suite: &str) -> Result<Apt> {
        let _ = fs::remove_dir_all(&home);
        for directory in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(home.join(directory))?;
        }
        fs::write(home.join("status"), "")?;
        let mirror = mirror()?;
        fs::write(home.join("sources.list"), format!("deb {mirror} {suite} main\n"))?;
        let path = home.display();
        let options = format!(
            "Dir::State \"{path}\";\nDir::State::Lists \"{path}/lists\";\nDir::State::status \"{path}/status\";\n\
             Dir::Cache \"{path}/cache\";\nDir::Etc::SourceList \"{path}/sources.list\";\nDir::Etc::SourceParts \"-\";\n\
             APT::Sandbox::User \"root\";\nAcquire::Retries \"3\";\nAcquire::Languages \"none\";\n"
        );
        fs::write(home.join("apt.conf"), options)?;
        Ok(Apt { home })
    }

    fn get(&self, args: &[&str]) -> Result<()> {
        capture(
            Command::new("apt-get")
                .args(["-qq", "-o", "APT::Update::Error-Mode=any"])
                .args(args)
                .env("APT_CONFIG", self.home.join("apt.conf"))
                .current_dir(&self.home),
        )?;
        Ok(())
    }
}

/// Where this machine gets its own packages from.
fn mirror() -> Result<String> {
    let said = capture(Command::new("apt-get").args([
        "indextargets",
        "--format",
        "$(ORIGIN) $(REPO_URI)",
        "Created-By: Packages",
    ]))?;
    mirror_in(&said).map_or_else(
        || bail!("none of this machine's package sources is Debian's: run apt-get update first"),
        Ok,
    )
}

fn mirror_in(said: &str) -> Option<String> {
    let uris = said.lines().filter_map(|line| line.strip_prefix("Debian "));
    let mut uris = uris.map(str::trim).filter(|uri| !uri.contains("security"));
    uris.next().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::mirror_in;

    #[test]
    fn the_mirror_is_the_machines_own() {
        let said = "Debian http://m/debian-security/\nDebian http://m/debian/\nOther http://o/\n";
        assert_eq!(mirror_in(said).as_deref(), Some("http://m/debian/"));
        assert_eq!(mirror_in("Ubuntu http://u/\n"), None);
    }
}
