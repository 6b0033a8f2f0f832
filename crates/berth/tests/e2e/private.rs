//! Registries that ask who is there, and those that speak TLS: Debian's docker-registry as the other side.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::certificates::certificate;
use crate::inventory::Inventory;
use crate::support::{ANY_DOCKER, BERTH, Daemon, clients, retry, text};

/// A registry of its own directory; it ends when dropped.
pub struct Registry {
    child: Child,
    pub port: u16,
    _dir: tempfile::TempDir,
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Registry {
    /// `settings` are further lines of its configuration.
    pub fn start(settings: &str) -> Option<Registry> {
        let dir = tempfile::Builder::new()
            .prefix("berth-registry-")
            .tempdir()
            .unwrap();
        let free = TcpListener::bind("0.0.0.0:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let config = dir.path().join("config.yml");
        let text = format!(
            "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: 0.0.0.0:{port}\n{settings}",
            dir.path().join("data").display()
        );
        std::fs::write(&config, text).unwrap();
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let Ok(child) = child else {
            println!("skipped: needs docker-registry (package docker-registry)");
            return None;
        };
        let registry = Registry {
            child,
            port,
            _dir: dir,
        };
        let up = || std::net::TcpStream::connect(("127.0.0.1", port)).ok();
        retry(up).expect("the registry comes up");
        Some(registry)
    }
}

/// A client's configuration directory with a login for one registry.
fn login_file(dir: &Path, registry: &str, pair: &str) -> PathBuf {
    let config = dir.join(format!("client-{}", pair.replace(':', "-")));
    std::fs::create_dir_all(&config).unwrap();
    let auth = base64(pair.as_bytes());
    let text = format!(r#"{{"auths":{{"{registry}":{{"auth":"{auth}"}}}}}}"#);
    std::fs::write(config.join("config.json"), text).unwrap();
    config
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for group in bytes.chunks(3) {
        let mut bits = [0u8; 4];
        bits[1..=group.len()].copy_from_slice(group);
        let bits = u32::from_be_bytes(bits);
        for digit in 0..4 {
            match digit <= group.len() {
                true => out.push(char::from(DIGITS[(bits >> (18 - 6 * digit)) as usize & 63])),
                false => out.push('='),
            }
        }
    }
    out
}

#[test]
fn a_build_sends_its_logins_for_private_base_images() {
    guard!();
    let daemon = Daemon::start();
    let dir = daemon.dir.path();
    let Ok(made) = Command::new("htpasswd").args(["-Bbn", "ann", "s3cret"]).output() else {
        println!("skipped: needs htpasswd (package apache2-utils)");
        return;
    };
    let passwords = dir.join("htpasswd");
    std::fs::write(&passwords, &made.stdout).unwrap();
    let settings = format!(
        "auth:\n  htpasswd:\n    realm: test\n    path: {}\n",
        passwords.display()
    );
    let Some(registry) = Registry::start(&settings) else {
        return;
    };
    let host = format!("127.0.0.1:{}", registry.port);
    let name = format!("{host}/base:1");
    let good = login_file(dir, &host, "ann:s3cret");
    let bad = login_file(dir, &host, "ann:wrong");
    let none = dir.join("client-none");
    std::fs::create_dir_all(&none).unwrap();
    let with = |program: &str, config: &Path, args: &[&str]| {
        let mut command = Command::new(program);
        command
            .args(args)
            .env("DOCKER_HOST", daemon.socket())
            .env("DOCKER_CONFIG", config)
            .env("DOCKER_BUILDKIT", "0")
            .stdin(Stdio::null());
        command.output().unwrap()
    };
    daemon.ok(&["tag", "box:1", &name]);
    let pushed = with(BERTH, &good, &["push", &name]);
    assert!(pushed.status.success(), "{}", text(&pushed.stderr));
    let context = dir.join("context");
    std::fs::create_dir_all(&context).unwrap();
    std::fs::write(context.join("Dockerfile"), format!("FROM {name}\nRUN true\n")).unwrap();
    let context = context.display().to_string();
    for (_, program) in clients(ANY_DOCKER) {
        daemon.ok(&["rmi", "-f", &name]);
        let before = Inventory::of(&daemon);
        for (config, words) in [(&none, "docker login"), (&bad, "")] {
            let refused = with(&program, config, &["build", "-t", "private:1", &context]);
            let said = text(&refused.stderr);
            assert!(!refused.status.success(), "{program} got it without a login");
            assert!(
                said.contains(words) && said.contains("pull access denied") || said.contains("unauthorized"),
                "{program}: {said}"
            );
            before.assert_unchanged(&daemon, "a refused login");
        }
        let built = with(&program, &good, &["build", "-t", "private:1", &context]);
        assert!(
            built.status.success(),
            "{program}: {}{}",
            text(&built.stdout),
            text(&built.stderr)
        );
        daemon.ok(&["run", "--rm", "private:1", "true"]);
        daemon.ok(&["rmi", "-f", "private:1"]);
    }
}

#[test]
fn registries_with_tls_are_trusted_as_configured() {
    guard!();
    // Loopback is never verified: the registry is asked at the address of the daemon's own bridge.
    let daemon = Daemon::start_with(&["--config-file", "/dev/null"]);
    let address = daemon.ok(&[
        "network",
        "inspect",
        "-f",
        "{{(index .IPAM.Config 0).Gateway}}",
        "bridge",
    ]);
    let address = address.trim();
    let keys = tempfile::tempdir().unwrap();
    let dir = keys.path();
    if !certificate(dir, "own", address, None) {
        return;
    }
    certificate(dir, "ca", address, None);
    certificate(dir, "signed", address, Some("ca"));
    certificate(dir, "client", address, Some("ca"));
    let tls = |name: &str, more: &str| {
        let path = |end: &str| dir.join(format!("{name}.{end}")).display().to_string();
        format!(
            "  tls:\n    certificate: {}\n    key: {}\n{more}",
            path("crt"),
            path("key")
        )
    };
    let Some(own) = Registry::start(&tls("own", "")) else {
        return;
    };
    let demand = format!("    clientcas:\n      - {}\n", dir.join("ca.crt").display());
    let mutual = Registry::start(&tls("signed", &demand)).unwrap();
    let plain = Registry::start("").unwrap();
    let named = |registry: &Registry| format!("{address}:{}", registry.port);

    let before = Inventory::of(&daemon);
    let (code, said) = daemon.fails(&["pull", &format!("{}/x:1", named(&own))]);
    assert_eq!(code, 1);
    assert!(
        said.contains("x509: certificate signed by unknown authority"),
        "{said}"
    );
    assert!(
        said.contains(&format!("certs.d/{}/ca.crt", named(&own))) && said.contains("insecure-registries"),
        "{said}"
    );
    let (_, said) = daemon.fails(&["pull", &format!("{}/x:1", named(&plain))]);
    assert!(
        said.contains("server gave HTTP response to HTTPS client"),
        "{said}"
    );
    before.assert_unchanged(&daemon, "registries that are not trusted");
    drop(daemon);

    // One more daemon that trusts them, each in its way.
    let config = tempfile::tempdir().unwrap();
    let file = config.path().join("daemon.json");
    let put = |registry: &str, from: &str, to: &str| {
        let folder = config.path().join("certs.d").join(registry);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::copy(dir.join(from), folder.join(to)).unwrap();
    };
    let daemon = {
        let insecure = format!(r#"{{"insecure-registries":["{}"]}}"#, named(&plain));
        std::fs::write(&file, insecure).unwrap();
        let bip = format!("{address}/24");
        Daemon::start_with(&["--config-file", &file.display().to_string(), "--bip", &bip])
    };
    let round = |registry: &Registry| {
        let name = format!("{}/box:1", named(registry));
        daemon.ok(&["tag", "box:1", &name]);
        let pushed = daemon.run(&["push", &name]);
        daemon.ok(&["rmi", &name]);
        if pushed.status.success() {
            daemon.ok(&["pull", &name]);
            daemon.ok(&["rmi", &name]);
            return Ok(());
        }
        Err(text(&pushed.stderr))
    };
    round(&plain).unwrap();
    assert!(round(&own).unwrap_err().contains("unknown authority"));
    put(&named(&own), "own.crt", "ca.crt");
    round(&own).unwrap();
    put(&named(&mutual), "ca.crt", "ca.crt");
    let refused = round(&mutual).unwrap_err();
    // Over HTTP/2 the server's alert is lost with the connection; the host is named in any case.
    assert!(refused.contains(&named(&mutual)), "{refused}");
    put(&named(&mutual), "client.crt", "client.cert");
    put(&named(&mutual), "client.key", "client.key");
    round(&mutual).unwrap();
}
