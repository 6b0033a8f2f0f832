//! Repositories that are not for everybody: over ssh with an agent that the client lends, over HTTP with a secret of the client.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use super::ours::Place;
use super::{command, plug_in};
use crate::docker;
use crate::git::{git, has_git};
use crate::support::{Running, build_clients, host, left_out, retry, text};

/// The server's program and where its libraries lie: the machine's own, else what `cargo xtask test` fetches.
fn sshd() -> Result<(PathBuf, PathBuf), String> {
    let fetched = docker::fetched().join("ssh");
    let programs = [PathBuf::from("/usr/sbin/sshd"), fetched.join("usr/sbin/sshd")];
    let found = programs.into_iter().find(|program| program.is_file());
    let program = found
        .ok_or("needs sshd, which cargo xtask test fetches (or package openssh-server)")?
        .canonicalize()
        .map_err(|error| error.to_string())?;
    Ok((program, fetched.join("usr/lib/x86_64-linux-gnu")))
}

fn key(path: &Path) {
    let path = path.display().to_string();
    host(&["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", &path]);
}

/// A server on loopback that lets the owner of the key `mine` be root.
struct Server {
    home: PathBuf,
    port: u16,
    running: Option<Running>,
}

impl Server {
    fn start(home: &Path) -> Result<Server, String> {
        for program in ["ssh", "ssh-keygen", "ssh-agent", "ssh-add", "git"] {
            if Command::new(program)
                .arg("-V")
                .stdin(Stdio::null())
                .output()
                .is_err()
            {
                return Err(format!("needs {program} (packages openssh-client, git)"));
            }
        }
        std::fs::create_dir_all(home).unwrap();
        key(&home.join("mine"));
        std::fs::copy(home.join("mine.pub"), home.join("allowed")).unwrap();
        // It wants a user of its own, and may have none on this machine.
        let mut users = std::fs::read_to_string("/etc/passwd").unwrap();
        if !users.lines().any(|line| line.starts_with("sshd:")) {
            users.push_str("sshd:x:64999:65534::/run/sshd:/usr/sbin/nologin\n");
        }
        std::fs::write(home.join("passwd"), users).unwrap();
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let mut server = Server {
            home: home.to_owned(),
            port,
            running: None,
        };
        server.run()?;
        Ok(server)
    }

    /// Starts it with a key of its own that is new, in a mount namespace of its own.
    fn run(&mut self) -> Result<(), String> {
        drop(self.running.take());
        let (program, libraries) = sshd()?;
        let home = self.home.display();
        let _ = std::fs::remove_file(self.home.join("host"));
        let _ = std::fs::remove_file(self.home.join("host.pub"));
        key(&self.home.join("host"));
        let port = self.port;
        let config = format!(
            "ListenAddress 127.0.0.1\nPort {port}\nHostKey {home}/host\nAuthorizedKeysFile {home}/allowed\nPidFile none\n\
             UsePAM no\nStrictModes no\nPasswordAuthentication no\nPermitRootLogin prohibit-password\nLogLevel VERBOSE\n"
        );
        std::fs::write(self.home.join("config"), config).unwrap();
        let script = "mount --bind \"$1/passwd\" /etc/passwd && mount -t tmpfs tmpfs /run && mkdir /run/sshd && \
                      exec \"$2\" -D -f \"$1/config\" -E \"$1/log\"";
        let child = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "sh", "-c", script, "sh"])
            .arg(&self.home)
            .arg(program)
            .env("LD_LIBRARY_PATH", libraries)
            .stdin(Stdio::null())
            .spawn()
            .map_err(|error| format!("needs unshare: {error}"))?;
        self.running = Some(Running(child));
        let listens = || TcpStream::connect(("127.0.0.1", port)).ok();
        retry(listens)
            .map(drop)
            .ok_or_else(|| format!("sshd does not start: {}", self.log()))
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.home.join("log")).unwrap_or_default()
    }

    fn url(&self, path: &Path) -> String {
        format!("ssh://root@127.0.0.1:{}{}", self.port, path.display())
    }

    /// An agent that has a key, and its socket.
    fn agent(&self, key: &str) -> (Running, PathBuf) {
        let socket = self.home.join(format!("{key}.sock"));
        let agent = Command::new("ssh-agent")
            .arg("-D")
            .arg("-a")
            .arg(&socket)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let agent = Running(agent);
        assert!(retry(|| socket.exists().then_some(())).is_some());
        let added = Command::new("ssh-add")
            .arg("-q")
            .arg(self.home.join(key))
            .env("SSH_AUTH_SOCK", &socket)
            .status()
            .unwrap();
        assert!(added.success());
        (agent, socket)
    }
}

/// A repository with one file, as servers have it.
fn repository(below: &Path, content: &str) -> PathBuf {
    let work = below.join("work");
    std::fs::create_dir_all(&work).unwrap();
    std::fs::write(work.join("file"), content).unwrap();
    std::fs::write(work.join("Dockerfile"), "FROM scratch\nCOPY file /of-context\n").unwrap();
    git(&work, &["init", "-q"]);
    git(&work, &["add", "."]);
    git(&work, &["commit", "-q", "-m", "one"]);
    git(below, &["clone", "-q", "--bare", "work", "bare.git"]);
    below.join("bare.git")
}

fn said(output: &Output) -> String {
    text(&output.stderr)
}

#[test]
fn a_repository_is_fetched_over_ssh_with_the_clients_agent() {
    guard!();
    let place = Place::start();
    let home = place.daemon.dir.path().join("ssh");
    let mut server = match Server::start(&home) {
        Ok(server) => server,
        Err(why) => {
            println!("skipped: {why}");
            return;
        }
    };
    let url = server.url(&repository(&home, "for some only\n"));
    place.write("Dockerfile", &format!("FROM scratch\nADD {url} /\n"));
    let out = home.join("out");
    let output = format!("type=local,dest={}", out.display());
    let words = |more: &[&'static str], from: &str| -> Vec<String> {
        let all = [&["--no-cache", "-o", output.as_str()][..], more, &[from]].concat();
        all.iter().map(|word| (*word).to_owned()).collect()
    };
    let ours = |words: &[String], agent: Option<&Path>| {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let mut command = place.command(&words);
        command.env_remove("SSH_AUTH_SOCK");
        command.envs(agent.map(|agent| ("SSH_AUTH_SOCK", agent)));
        command.output().unwrap()
    };
    let clients = build_clients().inspect_err(|why| left_out(why)).ok();
    if let Some(clients) = &clients {
        plug_in(&place.daemon, clients);
    }
    let buildx = |words: &[String], agent: &Path| {
        let clients = clients.as_ref()?;
        let mut command = command(&place.daemon, clients);
        command.args(["buildx", "build"]).args(words);
        command.current_dir(place.daemon.dir.path().join("context"));
        Some(command.env("SSH_AUTH_SOCK", agent).output().unwrap())
    };
    // Whatever keys the daemon's own user has, they are not for clients.
    let refused = ours(&words(&[], "."), None);
    assert!(
        !refused.status.success() && said(&refused).contains("build with --ssh default"),
        "{}",
        said(&refused)
    );
    let (_agent, socket) = server.agent("mine");
    let lent: &[&'static str] = &["--ssh", "default"];
    for (from, name) in [(".", "file"), (url.as_str(), "of-context")] {
        for is_ours in [true, false] {
            let built = match is_ours {
                true => Some(ours(&words(lent, from), Some(&socket))),
                false => buildx(&words(lent, from), &socket),
            };
            let Some(built) = built else { continue };
            assert!(built.status.success(), "{}{}", said(&built), server.log());
            let got = std::fs::read_to_string(out.join(name)).unwrap();
            assert_eq!(got, "for some only\n", "{from}");
            std::fs::remove_dir_all(&out).unwrap();
        }
    }
    // One whose keys the server does not know.
    key(&home.join("strange"));
    let (_strange, strange) = server.agent("strange");
    let refused = ours(&words(lent, "."), Some(&strange));
    assert!(
        !refused.status.success() && said(&refused).contains("Permission denied"),
        "{}",
        said(&refused)
    );
    // A server that is another one all of a sudden.
    server.run().unwrap();
    let refused = ours(&words(lent, "."), Some(&socket));
    let met = place.daemon.dir.path().join("root/known_hosts");
    assert!(
        !refused.status.success() && said(&refused).contains(&met.display().to_string()),
        "{}",
        said(&refused)
    );
    std::fs::remove_file(met).unwrap();
    let built = ours(&words(lent, "."), Some(&socket));
    assert!(built.status.success(), "{}", said(&built));
    place.daemon.ok(&["system", "check"]);
}

/// Serves the files of a directory to those who show a login.
fn serve_to(login: &'static str, directory: PathBuf) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            let asked = lines.next().and_then(Result::ok).unwrap_or_default();
            let path = asked.split([' ', '?']).nth(1).unwrap_or_default().to_owned();
            let headers: Vec<String> = lines
                .map_while(Result::ok)
                .take_while(|line| !line.is_empty())
                .map(|line| line.to_ascii_lowercase())
                .collect();
            let wanted = format!("authorization: {login}").to_ascii_lowercase();
            let body = std::fs::read(directory.join(path.trim_start_matches('/')));
            let (status, body) = match (headers.contains(&wanted), body) {
                (false, _) => (401, Vec::new()),
                (true, Err(_)) => (404, Vec::new()),
                (true, Ok(body)) => (200, body),
            };
            let head = format!(
                "HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                body.len()
            );
            let _ = stream.write_all(head.as_bytes());
            let _ = stream.write_all(&body);
        }
    });
    address
}

#[test]
fn a_repository_is_fetched_with_a_token_that_is_a_secret() {
    guard!();
    if !has_git() {
        return;
    }
    let place = Place::start();
    let home = place.daemon.dir.path().join("git");
    let bare = repository(&home, "for some only\n");
    git(&bare, &["update-server-info"]);
    // `x-access-token:t0ken`
    let address = serve_to("basic eC1hY2Nlc3MtdG9rZW46dDBrZW4=", home.clone());
    place.write(
        "Dockerfile",
        &format!("FROM box:1\nADD http://{address}/bare.git /got\n"),
    );
    let (_, refused) = place.fails(&["."]);
    assert!(refused.contains("git fetch failed"), "{refused}");
    place.write("token", "t0ken\n");
    place.write("other", "other\n");
    // That of the server counts before that of all.
    let of_host = format!("id=GIT_AUTH_TOKEN.{address},src=token");
    let tokens = [
        ["id=GIT_AUTH_TOKEN,src=token", "id=unused,src=other"],
        [of_host.as_str(), "id=GIT_AUTH_TOKEN,src=other"],
    ];
    for [one, other] in tokens {
        let secrets = ["--secret", one, "--secret", other];
        let (_, shown) = place.ok(&[&["--no-cache", "-t", "got:1"], &secrets[..], &["."]].concat());
        assert!(!shown.contains("t0ken"), "{shown}");
        assert_eq!(place.said("got:1", "cat /got/file"), "for some only\n");
        let context = format!("http://{address}/bare.git");
        let result = ["-o", "type=cacheonly"];
        place.ok(&[&result[..], &secrets[..], &[context.as_str()]].concat());
    }
    assert!(
        !place
            .daemon
            .ok(&["history", "--no-trunc", "got:1"])
            .contains("t0ken")
    );
    assert!(!place.daemon.log().contains("t0ken"));
}
