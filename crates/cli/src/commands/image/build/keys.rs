//! Key files that a build may use: an agent of our own holds them, and lives as long as the build.
//!
//! ```text
//!   we ──pipe──> sh ──┬── ssh-agent, on a socket in a directory that only this user may enter
//!                     └── cat: ends with the pipe, however we end; then the agent is ended, and its directory goes
//! ```
//!
//! The shell is no process of the terminal's group, so that it outlives us whatever ends us, a question for a passphrase
//! included. Agent and keys are OpenSSH's: it reads every form of them, and asks for a passphrase on the terminal.

use crate::failure::Failure;
use std::fs::File;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

/// How long an agent may take to be there.
const PATIENCE: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(2);
/// The most that is told of what an agent says when it does not start.
const MOST: u64 = 1 << 10;
/// The directory comes as `$0`. Whichever of agent and pipe ends first, the other one is ended.
const SCRIPT: &str = r#"
    exec 3<&0 </dev/null
    ssh-agent -D -a "$0/agent" 3<&- &
    agent=$!
    { cat <&3; kill $agent; } >/dev/null 2>&1 &
    pipe=$!
    wait $agent
    code=$?
    kill $pipe 2>/dev/null
    rm -f "$0/agent"
    rmdir "$0"
    exit $code
"#;
/// How a shell says that there is no such program.
const NO_PROGRAM: i32 = 127;

/// An agent that holds keys until it is dropped.
pub struct KeyAgent {
    shell: Child,
    pipe: Option<ChildStdin>,
    directory: tempfile::TempDir,
}

impl KeyAgent {
    /// An agent with the keys of these files.
    pub fn with(keys: &[&str]) -> Result<KeyAgent, Failure> {
        let fail = |error: std::io::Error| {
            Failure::text(format!("cannot start an agent for keys: {error}"))
                .hint("ssh-agent and ssh-add (OpenSSH's client) lend key files; an agent that runs is lent with --ssh ID=SOCKET")
        };
        let directory = tempfile::Builder::new()
            .prefix("berth-keys-")
            .tempdir()
            .map_err(fail)?;
        let mut shell = shell(directory.path()).spawn().map_err(fail)?;
        let mut agent = KeyAgent {
            pipe: shell.stdin.take(),
            shell,
            directory,
        };
        agent.wait_until_there().map_err(fail)?;
        for key in keys {
            agent.add(Path::new(key))?;
        }
        Ok(agent)
    }

    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("agent")
    }

    fn wait_until_there(&mut self) -> std::io::Result<()> {
        let begun = Instant::now();
        while std::os::unix::net::UnixStream::connect(self.socket()).is_err() {
            if let Some(status) = self.shell.try_wait()? {
                let why = match status.code() {
                    Some(NO_PROGRAM) => "there is no program ssh-agent here".to_owned(),
                    _ => format!("ssh-agent ended at once ({status}): {}", self.said().trim()),
                };
                return Err(std::io::Error::other(why));
            }
            if begun.elapsed() > PATIENCE {
                return Err(std::io::Error::other(
                    "ssh-agent is not there, or does not answer",
                ));
            }
            std::thread::sleep(LOOK);
        }
        Ok(())
    }

    /// What an agent that has ended said.
    fn said(&mut self) -> String {
        let mut text = Vec::new();
        if let Some(said) = self.shell.stderr.take() {
            // What cannot be read is not told.
            let _ = said.take(MOST).read_to_end(&mut text);
        }
        crate::format::printable(&String::from_utf8_lossy(&text))
    }

    fn add(&self, key: &Path) -> Result<(), Failure> {
        let refused = |why: &str| Failure::text(format!("the key {} cannot be lent: {why}", key.display()));
        let file = File::open(key).map_err(|error| refused(&error.to_string()))?;
        let added = Command::new("ssh-add")
            .args(["-q", "-"])
            .env("SSH_AUTH_SOCK", self.socket())
            // A passphrase is asked for on the terminal or not at all.
            .env("SSH_ASKPASS_REQUIRE", "never")
            .stdin(file)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .output()
            .map_err(|error| refused(&format!("ssh-add: {error}")))?;
        match added.status.success() {
            true => Ok(()),
            false => {
                let said = String::from_utf8_lossy(&added.stderr);
                let said = crate::format::printable(said.trim());
                Err(refused(match said.as_str() {
                    "" => "ssh-add does not take it",
                    said => said,
                })
                .hint("it must be a private key; one with a passphrase needs a terminal, or an agent: ssh-add it, then --ssh default"))
            }
        }
    }
}

/// The shell that holds an agent in this directory.
fn shell(directory: &Path) -> Command {
    let mut shell = Command::new("/bin/sh");
    shell
        .args(["-c", SCRIPT])
        .arg(directory)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        // Out of reach of the terminal's signals: it ends with us and not before.
        .process_group(0);
    shell
}

impl Drop for KeyAgent {
    fn drop(&mut self) {
        drop(self.pipe.take());
        // Its exit code says nothing that anybody could act on.
        let _ = self.shell.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::UnixStream;

    /// How many keys an agent names.
    fn count(socket: &Path) -> std::io::Result<u32> {
        let mut stream = UnixStream::connect(socket)?;
        stream.write_all(&[0, 0, 0, 1, 11])?;
        let mut head = [0; 9];
        stream.read_exact(&mut head)?;
        assert_eq!(head[4], 12);
        Ok(u32::from_be_bytes([head[5], head[6], head[7], head[8]]))
    }

    #[test]
    fn an_agent_that_does_not_start_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let start = |program: Option<&str>| {
            let place = dir.path().join("agent");
            std::fs::create_dir(&place).unwrap();
            let programs = dir.path().join("bin");
            std::fs::create_dir_all(&programs).unwrap();
            for name in ["cat", "rm", "rmdir", "sleep"] {
                let _ = std::os::unix::fs::symlink(format!("/bin/{name}"), programs.join(name));
            }
            if let Some(program) = program {
                std::fs::write(programs.join("ssh-agent"), program).unwrap();
                let executable = std::fs::Permissions::from_mode(0o755);
                std::fs::set_permissions(programs.join("ssh-agent"), executable).unwrap();
            }
            let mut shell = shell(&place).env("PATH", &programs).spawn().unwrap();
            let mut agent = KeyAgent {
                pipe: shell.stdin.take(),
                shell,
                directory: tempfile::tempdir().unwrap(),
            };
            let said = agent.wait_until_there().unwrap_err().to_string();
            drop(agent);
            assert!(!place.exists());
            said
        };
        assert_eq!(start(None), "there is no program ssh-agent here");
        let said = start(Some("#!/bin/sh\necho no such option >&2\nexit 2\n"));
        assert!(
            said.contains("no such option") && said.contains("status: 2"),
            "{said}"
        );
    }

    #[test]
    fn keys_are_lent_as_long_as_the_build_takes() {
        let dir = tempfile::tempdir().unwrap();
        let make = |kind: &str, passphrase: &str| {
            let path = dir.path().join(format!("{kind}-{}", passphrase.len()));
            let made = Command::new("ssh-keygen")
                .args(["-q", "-t", kind, "-N", passphrase, "-f"])
                .arg(&path)
                .stdin(Stdio::null())
                .status();
            made.is_ok_and(|status| status.success())
                .then(|| path.display().to_string())
        };
        let Some(first) = make("ed25519", "") else {
            println!("skipped: needs ssh-keygen, ssh-agent and ssh-add (package openssh-client)");
            return;
        };
        let second = make("rsa", "").unwrap();
        // Whoever may read it does not matter: it is this user who lends it.
        std::fs::set_permissions(&second, std::fs::Permissions::from_mode(0o644)).unwrap();
        let agent = KeyAgent::with(&[&first, &second]).unwrap();
        let socket = agent.socket();
        assert_eq!(count(&socket).unwrap(), 2);
        drop(agent);
        assert!(UnixStream::connect(&socket).is_err() && !socket.parent().unwrap().exists());
        // However we end, the pipe does.
        let left = tempfile::tempdir().unwrap();
        let mut shell = shell(left.path()).spawn().unwrap();
        while UnixStream::connect(left.path().join("agent")).is_err() {
            std::thread::sleep(LOOK);
        }
        drop(shell.stdin.take());
        shell.wait().unwrap();
        assert!(!left.path().exists());
        let text = dir.path().join("text");
        std::fs::write(&text, "no key").unwrap();
        for wrong in [text.display().to_string(), "/nosuch/key".to_owned()] {
            let said = KeyAgent::with(&[&wrong]).err().unwrap().message;
            assert!(said.contains(&wrong), "{said}");
        }
    }
}
