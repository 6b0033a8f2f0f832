//! SIGHUP: the daemon reads its configuration again.

use std::path::PathBuf;
use std::process::Command;

use crate::private::Registry;
use crate::support::{BERTH, Daemon, retry, text};

/// A daemon with a configuration file of its own.
struct Configured {
    daemon: Daemon,
    file: PathBuf,
    _dir: tempfile::TempDir,
}

impl Configured {
    fn start(json: &str, args: &[&str]) -> Configured {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("daemon.json");
        std::fs::write(&file, json).unwrap();
        let path = file.display().to_string();
        let mut all = vec!["--config-file", path.as_str()];
        all.extend(args);
        let daemon = Daemon::start_with(&all);
        Configured {
            daemon,
            file,
            _dir: dir,
        }
    }

    /// Writes the file, sends the signal, and waits until the log has one more line with `words`.
    fn reload(&self, json: &str, words: &str) {
        std::fs::write(&self.file, json).unwrap();
        let count = || self.daemon.log().matches(words).count();
        let before = count();
        let pid = self.daemon.child.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-HUP", &pid])
                .status()
                .unwrap()
                .success()
        );
        let seen = retry(|| (count() > before).then_some(()));
        assert!(
            seen.is_some(),
            "no {words:?} after {json}:\n{}",
            self.daemon.log()
        );
    }

    fn info(&self, template: &str) -> String {
        self.daemon.ok(&["info", "-f", template]).trim().to_owned()
    }

    fn reload_events(&self) -> Vec<serde_json::Value> {
        let until = soon();
        let args = [
            "events",
            "--since",
            "1",
            "--until",
            &until,
            "--filter",
            "type=daemon",
            "--format",
            "json",
        ];
        let lines = self.daemon.ok(&args);
        lines
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }
}

/// Seconds since 1970 at the end of this one, so that nothing of it is missed.
fn soon() -> String {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    (now.as_secs() + 1).to_string()
}

const DONE: &str = "configuration reloaded";
const SHOWN: &str = "{{.Debug}} {{json .Labels}} {{.LoggingDriver}} {{json .RegistryConfig.Mirrors}}";

#[test]
fn a_running_daemon_takes_over_its_new_configuration() {
    guard!();
    let configured = Configured::start(r#"{"labels":["a=1"]}"#, &[]);
    let daemon = &configured.daemon;
    let driver = "{{.HostConfig.LogConfig.Type}}";
    assert_eq!(configured.info(SHOWN), r#"false ["a=1"] json-file []"#);
    daemon.ok(&["run", "-d", "--name", "before", "box:1", "sleep", "1000"]);
    assert!(!daemon.log().contains("DEBUG"), "{}", daemon.log());

    configured.reload(
        r#"{"debug":true,"labels":["a=2","b=3"],"log-driver":"local","init":true,
            "registry-mirrors":["https://mirror.example"],"insecure-registries":["hub.example:5000"],
            "max-concurrent-downloads":7,"max-concurrent-uploads":2}"#,
        DONE,
    );
    assert_eq!(
        configured.info(SHOWN),
        r#"true ["a=2","b=3"] local ["https://mirror.example"]"#
    );
    assert_eq!(
        configured.info(r#"{{(index .RegistryConfig.IndexConfigs "hub.example:5000").Secure}}"#),
        "false"
    );
    // What comes later is made with the new settings, what exists keeps its own.
    daemon.ok(&["run", "-d", "--name", "after", "box:1", "sleep", "1000"]);
    assert_eq!(daemon.ok(&["inspect", "-f", driver, "after"]), "local\n");
    assert_eq!(daemon.ok(&["inspect", "-f", driver, "before"]), "json-file\n");
    let first = daemon.ok(&["exec", "after", "cat", "/proc/1/cmdline"]);
    assert!(first.contains("docker-init"), "{first:?}");
    assert_eq!(daemon.ok(&["exec", "before", "echo", "goes on"]), "goes on\n");
    let log = daemon.log();
    assert!(
        log.contains("DEBUG") && log.contains("/containers/after/json"),
        "{log}"
    );

    // The event carries Docker's keys; docker's own client shows it.
    let events = configured.reload_events();
    assert_eq!(events.len(), 1, "{events:?}");
    let actor = &events[0]["Actor"];
    assert_eq!(events[0]["Action"], "reload");
    assert_eq!(actor["ID"].as_str().unwrap(), configured.info("{{.ID}}"));
    for (key, value) in [
        ("debug", "true"),
        ("labels", r#"["a=2","b=3"]"#),
        ("insecure-registries", r#"["hub.example:5000"]"#),
        ("registry-mirrors", r#"["https://mirror.example"]"#),
        ("max-concurrent-downloads", "7"),
        ("max-concurrent-uploads", "2"),
    ] {
        assert_eq!(actor["Attributes"][key], value, "{key}");
    }
    if let Some(seen) = daemon.docker(&[
        "events",
        "--since",
        "1",
        "--until",
        &soon(),
        "--filter",
        "event=reload",
    ]) {
        let seen = text(&seen.stdout);
        assert!(
            seen.contains("daemon reload") && seen.contains("debug=true"),
            "{seen}"
        );
    }

    // A key that left the file is back at its default.
    configured.reload("{}", DONE);
    assert_eq!(configured.info(SHOWN), "false [] json-file []");
    // What only the next start can take over is named.
    configured.reload(
        r#"{"mtu":1400,"cdi-spec-dirs":["/x"]}"#,
        "taking effect at the next start only",
    );
    let log = daemon.log();
    assert!(log.contains("icc or ip-masq; cdi-spec-dirs"), "{log}");
}

#[test]
fn a_configuration_that_cannot_be_used_changes_nothing() {
    guard!();
    let configured = Configured::start(r#"{"labels":["a=1"]}"#, &["--debug=false"]);
    let path = configured.file.display().to_string();
    for (json, reason) in [
        ("{", format!("the configuration file {path} is not a JSON object")),
        (
            r#"{"labels":["b=1"],"nope":1}"#,
            format!("{path} has keys this daemon does not know: nope"),
        ),
        (
            r#"{"labels":"b=1"}"#,
            "configuration key labels: expected a list of strings".into(),
        ),
        (
            r#"{"labels":["b"]}"#,
            "invalid value \"b\" for --label: expected key=value".into(),
        ),
        (
            r#"{"labels":["b=1"],"debug":true}"#,
            "specified both as a flag and in the configuration file: debug".into(),
        ),
        (
            r#"{"labels":["b=1"],"registry-mirrors":["ftp://x"]}"#,
            "invalid mirror: \"ftp://x\"".into(),
        ),
        (r#"{"labels":["b=1"],"log-driver":"nosuch"}"#, "nosuch".into()),
        (
            r#"{"labels":["b=1"],"max-concurrent-downloads":0}"#,
            "invalid value \"0\" for max-concurrent-downloads: expected at least 1".into(),
        ),
    ] {
        configured.reload(json, "was not reloaded, the old settings stay");
        let log = configured.daemon.log();
        let line = log
            .lines()
            .rfind(|line| line.contains("was not reloaded"))
            .unwrap();
        assert!(line.contains("ERROR") && line.contains(&reason), "{json}: {line}");
        assert_eq!(configured.info("{{json .Labels}}"), r#"["a=1"]"#, "{json}");
        let checked = Command::new(BERTH)
            .args(["daemon", "--validate", "--debug=false", "--config-file", &path])
            .output()
            .unwrap();
        assert!(!checked.status.success(), "{json} is valid?");
        assert!(
            text(&checked.stderr).contains(&reason),
            "{json}: {}",
            text(&checked.stderr)
        );
    }
    std::fs::remove_file(&configured.file).unwrap();
    let pid = configured.daemon.child.id().to_string();
    assert!(
        Command::new("kill")
            .args(["-HUP", &pid])
            .status()
            .unwrap()
            .success()
    );
    let told = || {
        configured
            .daemon
            .log()
            .contains("cannot read the configuration file")
            .then_some(())
    };
    assert!(retry(told).is_some(), "{}", configured.daemon.log());
    assert_eq!(configured.reload_events(), Vec::<serde_json::Value>::new());
    // The next good one counts.
    configured.reload(r#"{"labels":["c=1"]}"#, DONE);
    assert_eq!(configured.info("{{json .Labels}}"), r#"["c=1"]"#);
}

/// A registry without TLS, at an address that is not loopback: pulled from once the file names it.
#[test]
fn an_insecure_registry_counts_from_the_reload_on() {
    guard!();
    let Some(registry) = Registry::start("") else {
        return;
    };
    let configured = Configured::start("{}", &[]);
    let daemon = &configured.daemon;
    let address = daemon.ok(&[
        "network",
        "inspect",
        "-f",
        "{{(index .IPAM.Config 0).Gateway}}",
        "bridge",
    ]);
    let host = format!("{}:{}", address.trim(), registry.port);
    let local = format!("127.0.0.1:{}/box:1", registry.port);
    daemon.ok(&["tag", "box:1", &local]);
    daemon.ok(&["push", &local]);
    let name = format!("{host}/box:1");
    let (_, said) = daemon.fails(&["pull", &name]);
    assert!(
        said.contains("server gave HTTP response to HTTPS client"),
        "{said}"
    );
    configured.reload(&format!(r#"{{"insecure-registries":["{host}"]}}"#), DONE);
    daemon.ok(&["pull", &name]);
    configured.reload("{}", DONE);
    let (_, said) = daemon.fails(&["pull", &name]);
    assert!(
        said.contains("server gave HTTP response to HTTPS client"),
        "{said}"
    );
}
