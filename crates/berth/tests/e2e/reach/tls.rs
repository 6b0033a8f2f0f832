//! A daemon on TCP, asked by our client and by docker's; who may come in, and what the others are told.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::certificates::certificate;
use crate::support::{ANY_DOCKER, BERTH, Daemon, clients, retry, text};

/// Where a daemon that was given port 0 listens, as it says in its log.
fn address(daemon: &Daemon) -> String {
    let find = || {
        let log = daemon.log();
        let (_, rest) = log.split_once("listening address=tcp://")?;
        Some(rest.lines().next()?.trim().to_owned())
    };
    retry(find).unwrap_or_else(|| panic!("no TCP address in the log:\n{}", daemon.log()))
}

/// A daemon that verifies its clients, and the directory with `ca`, `server`, `client` and a `foreign` client.
fn verifying() -> Option<(Daemon, tempfile::TempDir, String)> {
    let keys = tempfile::tempdir().unwrap();
    let dir = keys.path();
    if !certificate(dir, "ca", "127.0.0.1", None) {
        return None;
    }
    certificate(dir, "other-ca", "127.0.0.1", None);
    for (name, authority) in [("server", "ca"), ("client", "ca"), ("foreign", "other-ca")] {
        certificate(dir, name, "127.0.0.1", Some(authority));
    }
    let path = |name: &str| dir.join(name).display().to_string();
    let daemon = Daemon::start_with(&[
        "--host",
        "tcp://127.0.0.1:0",
        "--tlsverify",
        "--tlscacert",
        &path("ca.crt"),
        "--tlscert",
        &path("server.crt"),
        "--tlskey",
        &path("server.key"),
    ]);
    let address = address(&daemon);
    Some((daemon, keys, address))
}

/// Runs a client with nothing of this process's environment that names a daemon.
fn run(program: &str, environment: &[(&str, &str)], args: &[&str], input: &str) -> Output {
    let mut command = Command::new(program);
    for name in [
        "DOCKER_HOST",
        "DOCKER_TLS_VERIFY",
        "DOCKER_CERT_PATH",
        "DOCKER_CONTEXT",
    ] {
        command.env_remove(name);
    }
    let child = command
        .args(args)
        .envs(environment.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = child.unwrap();
    // A client that is refused reads nothing.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

fn good(output: &Output) -> String {
    assert!(
        output.status.success(),
        "{}{}",
        text(&output.stdout),
        text(&output.stderr)
    );
    text(&output.stdout)
}

/// Docker's layout of a directory of certificates.
fn bundle(keys: &Path, name: &str) -> String {
    let dir = keys.join(format!("bundle-{name}"));
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::copy(keys.join("ca.crt"), dir.join("ca.pem")).unwrap();
    std::fs::copy(keys.join(format!("{name}.crt")), dir.join("cert.pem")).unwrap();
    std::fs::copy(keys.join(format!("{name}.key")), dir.join("key.pem")).unwrap();
    dir.display().to_string()
}

#[test]
fn verified_clients_work_over_tls() {
    guard!();
    let Some((daemon, keys, address)) = verifying() else {
        return;
    };
    let keys = keys.path();
    let host = format!("tcp://{address}");
    let certificates = bundle(keys, "client");
    let config = keys.join("config").display().to_string();
    let by_environment = [
        ("DOCKER_HOST", host.as_str()),
        ("DOCKER_TLS_VERIFY", "1"),
        ("DOCKER_CERT_PATH", certificates.as_str()),
        ("DOCKER_CONFIG", config.as_str()),
    ];
    let path = |name: &str| keys.join(name).display().to_string();
    let flags = [
        "-H",
        &host,
        "--tlsverify",
        "--tlscacert",
        &path("ca.crt"),
        "--tlscert",
        &path("client.crt"),
        "--tlskey",
        &path("client.key"),
    ];
    let clients = clients(ANY_DOCKER);
    for (client, program) in &clients {
        let named = |args: &[&str], input: &str| run(program, &by_environment, args, input);
        let listed = named(&["images", "-q"], "");
        assert_eq!(good(&listed).lines().count(), 1, "{program}");
        // The stream of a container goes over the same connection: input to its end, output to its end.
        let echoed = named(&["run", "--rm", "-i", "box:1", "cat"], "through and back\n");
        assert_eq!(good(&echoed), "through and back\n", "{program}");
        let numbers = "i=0; while [ $i -lt 20000 ]; do echo 123456789; i=$((i+1)); done; exit 3";
        let large = named(&["run", "--rm", "box:1", "sh", "-c", numbers], "");
        assert_eq!(
            (large.status.code(), large.stdout.len()),
            (Some(3), 200_000),
            "{program}: {}",
            text(&large.stderr)
        );
        // The same by flags, and by a context that carries the certificates.
        let args: Vec<&str> = flags.iter().copied().chain(["version"]).collect();
        let version = run(program, &[], &args, "");
        assert!(good(&version).contains("Server:"), "{program}");
        let endpoint = format!(
            "host={host},ca={},cert={},key={}",
            path("ca.crt"),
            path("client.crt"),
            path("client.key")
        );
        let alone = [("DOCKER_CONFIG", config.as_str())];
        let create = ["context", "create", *client, "--docker", &endpoint];
        good(&run(program, &alone, &create, ""));
    }
    // Either client uses the contexts of the other.
    for (_, program) in &clients {
        for (context, _) in &clients {
            let alone = [("DOCKER_CONFIG", config.as_str())];
            let listed = run(program, &alone, &["--context", *context, "images", "-q"], "");
            assert_eq!(good(&listed).lines().count(), 1, "{program} --context {context}");
        }
    }
    assert!(!daemon.log().contains("TLS handshake failed"), "{}", daemon.log());
    assert_eq!(daemon.ok(&["info", "-f", "{{json .Warnings}}"]), "null\n");
}

#[test]
fn others_are_refused_with_one_clear_error() {
    guard!();
    let Some((daemon, keys, address)) = verifying() else {
        return;
    };
    let keys = keys.path();
    let empty = keys.join("no-config").display().to_string();
    let path = |name: &str| keys.join(name).display().to_string();
    let (ca, other_ca) = (path("ca.crt"), path("other-ca.crt"));
    let (cert, key) = (path("client.crt"), path("client.key"));
    let (foreign_cert, foreign_key) = (path("foreign.crt"), path("foreign.key"));
    let host = format!("tcp://{address}");
    let by_name = host.replace("127.0.0.1", "localhost");
    let missing = path("nosuch.crt");
    let with = |ca: &str, cert: &str, key: &str| -> Vec<String> {
        let words = [
            "--tlsverify",
            "--tlscacert",
            ca,
            "--tlscert",
            cert,
            "--tlskey",
            key,
        ];
        words.map(str::to_owned).to_vec()
    };
    let only_ca = with(&ca, "", "")[..3].to_vec();
    // (host, flags, what ours says, what docker says)
    let cases: [(&str, Vec<String>, String, &str); 8] = [
        (
            &host,
            only_ca.clone(),
            format!("the daemon at {host} wants a certificate from the client"),
            "certificate required",
        ),
        (
            &host,
            with(&ca, &foreign_cert, &foreign_key),
            format!(
                "does not accept the client certificate {foreign_cert}: it is signed by an authority the daemon does not know"
            ),
            "tls: ",
        ),
        (
            &host,
            with(&other_ca, &cert, &key),
            format!("the certificate of {host} is signed by an unknown authority"),
            "unknown authority",
        ),
        (
            &by_name,
            with(&ca, &cert, &key),
            "not valid for name \"localhost\"".into(),
            "localhost",
        ),
        (
            &host,
            with(&ca, &missing, &key),
            format!("could not read {missing}: no such file"),
            "no such file",
        ),
        (
            &host,
            with(&ca, &cert, &foreign_key),
            format!("{foreign_key}: it does not belong to {cert}"),
            "does not match",
        ),
        (
            &host,
            with(&key, &cert, &key),
            format!("could not read {key}: there is no certificate in it"),
            "invalid",
        ),
        (
            &host,
            Vec::new(),
            "are you trying to connect to a TLS-enabled daemon without TLS?".into(),
            "TLS-enabled daemon without TLS",
        ),
    ];
    let clients = clients(ANY_DOCKER);
    for (host, flags, ours, theirs) in &cases {
        for ((_, program), words) in clients.iter().zip([ours.as_str(), *theirs]) {
            let mut args = vec!["-H", host];
            args.extend(flags.iter().map(String::as_str));
            args.push("ps");
            let refused = run(program, &[("DOCKER_CONFIG", &empty)], &args, "");
            let said = text(&refused.stderr);
            assert_eq!(refused.status.code(), Some(1), "{program} {args:?}: {said}");
            assert!(said.contains(words), "{program} {args:?}: {said}");
            assert_eq!(text(&refused.stdout), "", "{program} {args:?}");
        }
    }
    // Nobody came in, and a certificate that is good still does.
    for args in [&["run", "box:1", "true"][..], &["create", "box:1"]] {
        let mut all = vec!["-H", host.as_str()];
        all.extend(only_ca.iter().map(String::as_str));
        all.extend(args);
        for (_, program) in &clients {
            let refused = run(program, &[("DOCKER_CONFIG", &empty)], &all, "");
            assert_ne!(refused.status.code(), Some(0), "{program} {args:?}");
        }
    }
    assert_eq!(daemon.ok(&["ps", "-aq"]), "");
    let mut all = vec!["-H".to_owned(), host.clone()];
    all.extend(with(&ca, &cert, &key));
    all.push("ps".to_owned());
    let args: Vec<&str> = all.iter().map(String::as_str).collect();
    good(&run(BERTH, &[("DOCKER_CONFIG", &empty)], &args, ""));
}

#[test]
fn plain_tcp_works_and_is_warned_of() {
    guard!();
    let daemon = Daemon::start_with(&["--host", "tcp://127.0.0.1:0"]);
    let address = address(&daemon);
    let host = format!("tcp://{address}");
    let warning = format!("API is accessible on http://{address} without encryption.");
    assert!(daemon.log().contains(&warning), "{}", daemon.log());
    for (_, program) in clients(ANY_DOCKER) {
        let info = run(&program, &[("DOCKER_HOST", &host)], &["info"], "");
        good(&info);
        let warned = text(&info.stderr);
        assert!(
            warned.contains(&format!("WARNING: {warning}")),
            "{program}: {warned}"
        );
        let echoed = run(
            &program,
            &[("DOCKER_HOST", &host)],
            &["run", "--rm", "-i", "box:1", "cat"],
            "plain\n",
        );
        assert_eq!(good(&echoed), "plain\n", "{program}");
    }
    // A client that wants TLS is told that this daemon has none.
    let refused = run(BERTH, &[("DOCKER_HOST", &host)], &["--tlsverify", "ps"], "");
    let said = text(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains(&format!("{host} does not speak TLS")), "{said}");
}

/// TLS without a word on clients: encrypted, and open to whoever reaches it.
#[test]
fn tls_alone_lets_everyone_in() {
    guard!();
    let keys = tempfile::tempdir().unwrap();
    let dir = keys.path();
    if !certificate(dir, "ca", "127.0.0.1", None) {
        return;
    }
    certificate(dir, "server", "127.0.0.1", Some("ca"));
    let path = |name: &str| dir.join(name).display().to_string();
    let (cert, key, ca) = (path("server.crt"), path("server.key"), path("ca.crt"));
    let daemon = Daemon::start_with(&[
        "--host",
        "tcp://127.0.0.1:0",
        "--tls",
        "--tlscert",
        &cert,
        "--tlskey",
        &key,
    ]);
    let address = address(&daemon);
    let host = format!("tcp://{address}");
    for (_, program) in clients(ANY_DOCKER) {
        let args = ["-H", &host, "--tlsverify", "--tlscacert", &ca, "info"];
        let info = run(&program, &[("DOCKER_CONFIG", &path("none"))], &args, "");
        good(&info);
        let warned = text(&info.stderr);
        let warning =
            format!("WARNING: API is accessible on https://{address} without TLS client verification.");
        assert!(warned.contains(&warning), "{program}: {warned}");
    }
}

/// Certificates are renewed under their names: SIGHUP reads them again, for connections that begin later. A file that
/// cannot be used changes nothing.
#[test]
fn renewed_certificates_count_after_a_reload() {
    guard!();
    let Some((daemon, keys, address)) = verifying() else {
        return;
    };
    let keys = keys.path();
    let host = format!("tcp://{address}");
    let authority = |name: &str| keys.join(format!("{name}.crt")).display().to_string();
    let (cert, key) = (authority("client"), keys.join("client.key").display().to_string());
    let asked = |trusted: &str| {
        let trusted = authority(trusted);
        let flags = [
            "-H",
            &host,
            "--tlsverify",
            "--tlscacert",
            &trusted,
            "--tlscert",
            &cert,
            "--tlskey",
            &key,
            "images",
            "-q",
        ];
        run(BERTH, &[], &flags, "").status.success()
    };
    let reload = |words: &str| {
        let count = || daemon.log().matches(words).count();
        let before = count();
        let pid = daemon.child.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-HUP", &pid])
                .status()
                .unwrap()
                .success()
        );
        assert!(
            retry(|| (count() > before).then_some(())).is_some(),
            "no {words:?}:\n{}",
            daemon.log()
        );
    };
    assert!(asked("ca") && !asked("other-ca"));
    std::fs::rename(keys.join("server.key"), keys.join("aside.key")).unwrap();
    reload("the configuration was not reloaded");
    assert!(asked("ca"), "a reload that failed changed something");
    certificate(keys, "server", "127.0.0.1", Some("other-ca"));
    assert!(
        asked("ca") && !asked("other-ca"),
        "files count before they are read"
    );
    reload("configuration reloaded");
    assert!(
        !asked("ca") && asked("other-ca"),
        "the new certificate is not in use"
    );
}
