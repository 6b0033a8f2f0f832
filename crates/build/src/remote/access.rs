//! What git may show a server: a login or keys of the client whose build it is, and never those of the daemon's own user.
//!
//! | address | what is lent | how git gets it |
//! |---|---|---|
//! | `ssh://…`, `user@host:path` | an agent for keys (`--ssh default`) | `SSH_AUTH_SOCK`, and a configuration of ssh |
//! | `https://…` (`http://…` too, where nobody else listens) | the secrets `GIT_AUTH_HEADER` and `GIT_AUTH_TOKEN`, those of one host with `.HOST` behind | a header of requests to that server |
//!
//! A server's own key is believed when it is among those that a definition brings along; without those, when the machine knows
//! it or when it is met for the first time, and then it has to stay the same: it is written down below the engine's root.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::git::address;
use super::is_url;
use crate::client::{Agent, Client};
use crate::error::BuildError;

/// Which of the client's agents is lent, unless another one is named.
const AGENT: &str = "default";
/// The secrets that are asked for, and whether they are a token; those of one host come first.
const SECRETS: [(&str, bool); 2] = [("GIT_AUTH_HEADER", false), ("GIT_AUTH_TOKEN", true)];
/// Where ssh finds its configuration.
const CONFIG: &str = "ssh_config";
/// Where it finds the keys of servers that came with the source.
const GIVEN_HOSTS: &str = "given_hosts";

/// What a source says about servers over ssh.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ssh {
    /// The agent's id; empty for the default.
    pub agent: String,
    /// Lines of keys that servers must have; empty: none were given.
    pub known_hosts: String,
}

/// What one repository may be asked with.
pub struct Access {
    agent: Option<Lent>,
    known_hosts: String,
    /// Where servers are written down that were met.
    met: PathBuf,
    /// Where a header goes, and what it is.
    header: Option<(String, String)>,
}

/// An agent that is lent. Its directory is named by a descriptor, since a socket's path may have 107 bytes (unix(7)).
struct Lent {
    directory: File,
    name: String,
    _agent: Box<dyn Agent>,
}

/// Whether a repository's server is spoken to over ssh.
pub fn is_ssh(source: &str) -> bool {
    if let Some((scheme, _)) = source.split_once("://") {
        return matches!(scheme, "ssh" | "git+ssh" | "ssh+git");
    }
    // As scp writes it.
    let host = source.split('/').next().unwrap_or_default();
    host.split_once('@').is_some_and(|(_, rest)| rest.contains(':'))
}

impl Access {
    /// What `client` lends for `source`. `root` is the engine's.
    pub async fn of(client: &dyn Client, source: &str, ssh: &Ssh, root: &Path) -> Result<Access, BuildError> {
        let id = match ssh.agent.as_str() {
            "" => AGENT,
            id => id,
        };
        let mut access = Access {
            agent: None,
            known_hosts: ssh.known_hosts.clone(),
            met: root.join("known_hosts"),
            header: None,
        };
        if is_ssh(source) {
            // It is asked before anybody waits for the step.
            let agent = client.agent(id, &Arc::default()).await?;
            let agent = agent.ok_or_else(|| {
                BuildError::invalid(format!(
                    "{source} is fetched over ssh, and the build was given no agent that has keys for it: build with --ssh {id}"
                ))
            })?;
            access.agent = Some(Lent::open(agent)?);
        } else if let source = address(source)
            && is_url(&source)
        {
            access.header = header(client, &source).await?;
        }
        Ok(access)
    }

    /// Makes ready what git finds in its home, and gives its variables.
    pub(super) fn variables(&self, home: &Path) -> io::Result<Vec<(String, String)>> {
        let hosts = match self.known_hosts.as_str() {
            "" => format!(
                "StrictHostKeyChecking accept-new\nUserKnownHostsFile {} ~/.ssh/known_hosts\n",
                quoted(&self.met)
            ),
            given => {
                std::fs::write(home.join(GIVEN_HOSTS), given)?;
                let given = quoted(&home.join(GIVEN_HOSTS));
                // Nor those that the machine knows.
                format!(
                    "StrictHostKeyChecking yes\nUserKnownHostsFile {given}\nGlobalKnownHostsFile /dev/null\n"
                )
            }
        };
        // Key files are the daemon's user's: the agent's keys are asked for alone.
        let agent = match self.agent {
            Some(_) => "SSH_AUTH_SOCK",
            None => "none",
        };
        let config = format!("BatchMode yes\nIdentityFile none\nIdentityAgent {agent}\n{hosts}");
        std::fs::write(home.join(CONFIG), config)?;
        let variable = |name: &str, value: String| (name.to_owned(), value);
        // A shell reads it.
        let mut all = vec![variable("GIT_SSH_COMMAND", format!("ssh -F \"$HOME/{CONFIG}\""))];
        all.extend(
            self.agent
                .as_ref()
                .map(|agent| variable("SSH_AUTH_SOCK", agent.path())),
        );
        if let Some((server, header)) = &self.header {
            // Not among the arguments, which every user of the machine can read.
            all.push(variable("GIT_CONFIG_COUNT", "1".to_owned()));
            all.push(variable("GIT_CONFIG_KEY_0", format!("http.{server}.extraheader")));
            all.push(variable("GIT_CONFIG_VALUE_0", header.clone()));
        }
        Ok(all)
    }

    /// What to do about a server whose key is not the one it had.
    pub(super) fn advice(&self, said: &str) -> String {
        match said.contains("Host key verification failed") && self.known_hosts.is_empty() {
            true => format!(
                "; the keys that servers had are in {}: remove the server's line there if it was given another one",
                self.met.display()
            ),
            false => String::new(),
        }
    }
}

impl Lent {
    fn open(agent: Box<dyn Agent>) -> Result<Lent, BuildError> {
        let socket = agent.socket();
        let open = || -> io::Result<(File, String)> {
            let directory = socket.parent().ok_or(io::ErrorKind::InvalidInput)?;
            let name = socket.file_name().ok_or(io::ErrorKind::InvalidInput)?;
            Ok((File::open(directory)?, name.to_string_lossy().into_owned()))
        };
        let (directory, name) = open().map_err(|error| BuildError::io("lending an agent to git", &error))?;
        Ok(Lent {
            directory,
            name,
            _agent: agent,
        })
    }

    fn path(&self) -> String {
        let (process, fd) = (std::process::id(), self.directory.as_raw_fd());
        format!("/proc/{process}/fd/{fd}/{}", self.name)
    }
}

/// A path as configurations of ssh write it.
fn quoted(path: &Path) -> String {
    format!("\"{}\"", path.display().to_string().replace('%', "%%"))
}

/// The header for a server, where the client has a secret for it.
async fn header(client: &dyn Client, source: &str) -> Result<Option<(String, String)>, BuildError> {
    // git itself tells what is wrong with an address.
    let Some((server, host)) = url::Url::parse(source).ok().and_then(|url| {
        let host = match url.port() {
            Some(port) => format!("{}:{port}", url.host_str()?),
            None => url.host_str()?.to_owned(),
        };
        Some((format!("{}://{host}/", url.scheme()), host))
    }) else {
        return Ok(None);
    };
    for of_host in [true, false] {
        for (name, is_token) in SECRETS {
            let id = match of_host {
                true => format!("{name}.{host}"),
                false => name.to_owned(),
            };
            let Some(secret) = client.secret(&id).await? else {
                continue;
            };
            let text = String::from_utf8(secret)
                .ok()
                .filter(|text| !text.trim().contains(|c: char| c.is_control()))
                .ok_or_else(|| BuildError::invalid(format!("the secret {id} is no text of one line")))?;
            let text = text.trim();
            let login = match is_token {
                true => format!("basic {}", STANDARD.encode(format!("x-access-token:{text}"))),
                false => text.to_owned(),
            };
            return Ok(Some((server, format!("Authorization: {login}"))));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_over_ssh_are_told_from_others() {
        for source in [
            "git@github.com:a/b",
            "ssh://git@h/a.git#main",
            "me@10.0.0.1:a/b.git",
        ] {
            assert!(is_ssh(source), "{source}");
        }
        for source in [
            "https://user@h:80/a.git",
            "git://h/a",
            "github.com/a/b",
            "https://h/a.git?ref=x@y:z",
        ] {
            assert!(!is_ssh(source), "{source}");
        }
    }

    #[test]
    fn nothing_of_the_daemons_user_is_offered() {
        let home = tempfile::tempdir().unwrap();
        let access = Access {
            agent: None,
            known_hosts: String::new(),
            met: PathBuf::from("/a 100%/known_hosts"),
            header: Some(("https://h/".to_owned(), "Authorization: x".to_owned())),
        };
        let variables = access.variables(home.path()).unwrap();
        let names: Vec<&str> = variables.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(
            names,
            [
                "GIT_SSH_COMMAND",
                "GIT_CONFIG_COUNT",
                "GIT_CONFIG_KEY_0",
                "GIT_CONFIG_VALUE_0"
            ]
        );
        let config = std::fs::read_to_string(home.path().join(CONFIG)).unwrap();
        for line in [
            "IdentityFile none",
            "IdentityAgent none",
            "\"/a 100%%/known_hosts\"",
        ] {
            assert!(config.contains(line), "{config}");
        }
        let given = Access {
            known_hosts: "h ssh-ed25519 AAAA\n".to_owned(),
            ..access
        };
        given.variables(home.path()).unwrap();
        let config = std::fs::read_to_string(home.path().join(CONFIG)).unwrap();
        assert!(
            config.contains("StrictHostKeyChecking yes") && !config.contains("/a 100"),
            "{config}"
        );
        assert!(config.contains("GlobalKnownHostsFile /dev/null"), "{config}");
    }
}
